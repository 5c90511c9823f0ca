"""What a suite needs, as one folder for machines without a network (`peftmark fetch`).

The folder has the layout that the source `mirror` reads. Everything comes through the loaders of
`peftmark.sources.assets` and `peftmark.sources.task_data`, is written file by file, each whole or
not at all, and counts only after it was loaded once more from the folder alone. `MANIFEST.json`
lists the files with their hashes; what it doesn't list is neither used nor overwritten.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from peftmark import __version__
from peftmark.catalog.models import MODELS, TEMPLATE, Model
from peftmark.catalog.task import Example, Task, expected_fingerprint
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import AssetError, UserError
from peftmark.core.shown import plain
from peftmark.machine import nvml
from peftmark.run.mirror_folder import explained, locked, place, write_manifest
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.hub import hub_reachable
from peftmark.sources.manifest import (
    AssetEntry,
    Manifest,
    ProfileEntry,
    fault_of,
    read_manifest,
)
from peftmark.sources.task_data import load_task
from peftmark.suite.expand import Facts, choose_profile
from peftmark.suite.load import Suite, load_suite, needed_models, needed_tasks

# --- what is wanted -------------------------------------------------------------------------------

Content = Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class _Found:
    """An asset as its sources gave it, verified; `files` is path below the mirror -> content."""

    identity: str
    pinned: str
    source: str
    files: Mapping[str, Content]


Load = Callable[[Places], _Found]


def _model(model: Model, places: Places) -> _Found:
    located = model_files(model, places)
    # A chat template beside the tokenizer goes with it.
    beside = (TEMPLATE,) if (located.path / TEMPLATE).is_file() else ()
    names = dict.fromkeys((model.weights_file, *model.files, *located.unsealed, *beside))
    return _Found(
        model.identity,
        f"{model.hub.repository} at {model.hub.revision}" if model.hub else model.title,
        located.source,
        {f"models/{model.key}/{name}": partial(_file_bytes, located.path / name) for name in names},
    )


def _task(task: Task, places: Places) -> _Found:
    data = load_task(task, places)
    # A mirror holds rows as published. Those that cuts drop are gone from the derived task's rows,
    # so they are taken from the task that is as published.
    whole = load_task(_published(task), places) if task.cuts else data
    return _Found(
        data.fingerprint,
        expected_fingerprint(task),
        data.source,
        {
            f"{task.mirror[0]}/train.jsonl": partial(_row_bytes, task, whole.train),
            f"{task.mirror[0]}/dev.jsonl": partial(_row_bytes, task, whole.eval),
        },
    )


def _published(task: Task) -> Task:
    """The task whose rows, as published, a derived one is cut from."""
    return next(t for t in TASKS.values() if t.mirror == task.mirror and not t.cuts)


def _file_bytes(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


def _row_bytes(task: Task, rows: Iterable[Example]) -> Iterator[bytes]:
    """Rows as JSON lines with the hub's column names."""
    columns = task.hub_fields or task.fields
    for row in rows:
        texts = [row.text] if row.pair is None else [row.text, row.pair]
        # A context that was joined to its instruction stays there.
        texts[1:1] = [""] * (len(columns) - len(texts))
        values: dict[str, object] = dict(zip(columns, texts, strict=True))
        if task.label_field:
            values["label"] = row.label
        yield json.dumps(values, ensure_ascii=False).encode() + b"\n"


# --- fetching -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asset:
    """One model or task as it now stands in the mirror.

    Attributes:
        kind: `model` or `task`.
        source: where its files came from, for people.
        bytes: size of its files; two tasks may share them.
        kept: it was there already, and nothing was contacted for it.
    """

    kind: str
    name: str
    source: str
    bytes: int
    kept: bool


@dataclass(frozen=True)
class Mirrored:
    """A profile that is complete in a mirror.

    Attributes:
        profile_reason: why this profile was chosen.
        command: words of the command that runs it there.
        own: tasks and models of the user's own, which are not in the folder: each with where it is.
    """

    suite: str
    profile: str
    profile_reason: str
    folder: Path
    assets: tuple[Asset, ...]
    command: tuple[str, ...]
    own: tuple[str, ...] = ()


def fetch_suite(
    name: str, profile: str | None, to: Path, mirror: Path | None = None, suites: Path | None = None
) -> Mirrored:
    """Gather the model and all tasks of a suite's profile in a folder, and load them from there.

    Everything is fetched and verified before the first file is written. Several suites may share
    a folder.

    Args:
        profile: its name; None for the one that a run would choose here.
        to: the folder; made if it doesn't exist.
        mirror: a folder to read from before the profile's other sources.
        suites: the user's folder of suites.

    Raises:
        UserError: anything wrong with the suite or the folder, or an asset that can't be had; what
            the folder held before is intact.
    """
    suite = load_suite(name, suites)
    chosen, reason = _choose(suite, profile, mirror)
    places = _places(suite, chosen, mirror)
    _check_folder(to)
    entry = suite.profiles[chosen]
    wanted: dict[tuple[str, str], Load] = {
        ("model", name): partial(_model, MODELS[name])
        for name in needed_models(entry, suite.methods(chosen))
        if name not in suite.file.models  # what is the user's own lies with the user
    }
    for task in _catalogued(suite, chosen):
        wanted["task", task] = partial(_task, TASKS[task])
    before = read_manifest(to) or Manifest()
    kept = {key for key, load in wanted.items() if _intact(to, before, key, load)}
    for key, load in wanted.items():
        if key not in kept:
            load(places)
    with explained(to):
        to.mkdir(parents=True, exist_ok=True)
        with locked(to):
            for key, load in wanted.items():
                if key not in kept:
                    _add(to, key, load(places), load)
            manifest = _complete(to, suite, chosen)
    words = ["peftmark", "run", suite.name, "--profile", chosen, "--mirror", str(to)]
    words += ["--suites", str(suites)] if suites is not None else []
    assets = tuple(_asset(manifest, key, key in kept) for key in wanted)
    return Mirrored(
        suite.name, chosen, reason, to, assets, tuple(words), tuple(_own(suite, chosen))
    )


def _own(suite: Suite, profile: str) -> Iterator[str]:
    """What of a profile is the user's own, with its files or its place on the hub."""
    for name in suite.own_tasks(profile):
        task = suite.file.tasks[name]
        where = (
            f"hub: {task.hub}" if task.hub else ", ".join((*(task.train or ()), *(task.eval or ())))
        )
        yield f"task {name} ({plain(where)})"
    for name in suite.own_models(profile):
        model = suite.file.models[name]
        yield f"model {name} ({plain(f'hub: {model.hub}' if model.hub else str(model.path))})"


def mirrored_text(found: Mirrored) -> str:
    """A line an asset with its source and size, then the command to run where the folder goes."""
    lines = []
    for asset in found.assets:
        there = ", there already" if asset.kept else ""
        lines.append(f"  {asset.kind} {asset.name}: {asset.source}, {asset.bytes:,} bytes{there}")
    suite = f"Suite {found.suite}, profile {found.profile} ({found.profile_reason})"
    if not found.own:
        lines.append(f"{suite}: everything loads from {found.folder} alone. Without a network:")
    else:
        lines += [
            f"{suite}: all of the catalogue's loads from {found.folder} alone.",
            f"Your own is not there: {', '.join(found.own)}. Take files along to where the suite "
            "names them; what is on the hub is read once online and then from the caches "
            "(PEFTMARK_CACHE, HF_HOME).",
            "Without a network:",
        ]
    return "\n".join([*lines, f"  {shlex.join(found.command)}"])


def _catalogued(suite: Suite, profile: str) -> list[str]:
    """The tasks that sources have; the files of the user's own lie with the user."""
    return [t for t in needed_tasks(suite.profiles[profile]) if t not in suite.file.tasks]


def _choose(suite: Suite, wanted: str | None, mirror: Path | None) -> tuple[str, str]:
    data, why = True, "a mirror is given"
    if mirror is None:
        asks = wanted is None and any(p.needs != "nothing" for p in suite.profiles.values())
        data, why = hub_reachable() if asks else (False, "not looked at")
    return choose_profile(suite, wanted, Facts(len(nvml.devices().found), data, why))


def _places(suite: Suite, profile: str, mirror: Path | None) -> Places:
    others = [s for s in suite.profiles[profile].sources if s != "mirror"]
    sources = (*(["mirror"] if mirror is not None else []), *others)
    if not sources:
        raise UserError(
            f"profile {profile} of suite {suite.name} takes its data from a mirror alone",
            "Give one with --mirror to copy from.",
        )
    return Places(mirror, sources, default_cache())


def _check_folder(to: Path) -> None:
    """Before anything is downloaded for it."""
    there = next(path for path in (to, *to.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{there} is not a folder", "Choose another folder with --to.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there} can't be written", "Choose another folder with --to.")


def _here(to: Path) -> Places:
    return Places(to, ("mirror",), default_cache())


def _intact(to: Path, manifest: Manifest, key: tuple[str, str], load: Load) -> bool:
    """Whether an asset is listed, its files are the listed ones, and they are what is wanted."""
    kind, name = key
    entry = manifest.assets(kind).get(name)
    if entry is None or any(fault_of(to / f, manifest.files.get(f)) for f in entry.files):
        return False
    try:
        return load(_here(to)).identity == entry.identity
    except AssetError:
        return False


def _add(to: Path, key: tuple[str, str], found: _Found, load: Load) -> None:
    """Write an asset, load it from the mirror alone, and list it."""
    kind, name = key
    manifest = read_manifest(to) or Manifest()
    files = {}
    for path, content in found.files.items():
        files[path] = place(to / path, content(), manifest.files.get(path))
    loaded = load(_here(to))
    if loaded.identity != found.identity:
        raise AssetError(
            f"{kind} {name} loads from {to} with identity {loaded.identity}, but "
            f"{found.source} has {found.identity}",
            f"Other files there are read in its place ({loaded.source}): fetch into a new folder.",
        )
    entry = AssetEntry(
        identity=found.identity, pinned=found.pinned, source=found.source, files=sorted(files)
    )
    write_manifest(
        to,
        manifest.model_copy(
            update={
                "files": {**manifest.files, **files},
                f"{kind}s": {**manifest.assets(kind), name: entry},
            }
        ),
    )


def _complete(to: Path, suite: Suite, profile: str) -> Manifest:
    """List a profile whose assets are all there."""
    manifest = read_manifest(to) or Manifest()
    entry = ProfileEntry(
        suite_version=suite.version,
        peftmark=__version__,
        model=suite.profiles[profile].model,
        tasks=sorted(_catalogued(suite, profile)),
    )
    profiles = {**manifest.suites.get(suite.name, {}), profile: entry}
    manifest = manifest.model_copy(update={"suites": {**manifest.suites, suite.name: profiles}})
    write_manifest(to, manifest)
    return manifest


def _asset(manifest: Manifest, key: tuple[str, str], kept: bool) -> Asset:
    kind, name = key
    entry = manifest.assets(kind)[name]
    size = sum(manifest.files[path].bytes for path in entry.files)
    return Asset(kind, name, entry.source, size, kept)
