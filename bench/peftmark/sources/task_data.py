"""The rows of a task, the same from every source, and their fingerprint.

Whatever the form (GLUE's TSV, Parquet, JSON lines, the hub, a package), equal rows have equal
fingerprints, and rows that are not the task's known ones are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from peftmark.catalog.origins import Hub, Package
from peftmark.catalog.task import Example, Task
from peftmark.core.errors import AssetError
from peftmark.core.files import refuse_special
from peftmark.sources.assets import Places, first_available
from peftmark.sources.hub_datasets import fetch_splits, notes_of
from peftmark.sources.own_cache import load_own
from peftmark.sources.package_rows import read_package
from peftmark.sources.pypi import Unavailable, package_files
from peftmark.sources.row_files import column_names, read_rows
from peftmark.sources.rows import TaskData, fingerprint

_FORMS = ("tsv", "parquet", "jsonl")


def load_task(task: Task, places: Places) -> TaskData:
    """Load both splits of a task from the first source that has it, and verify them.

    Raises:
        AssetError: no source has the task, a file is malformed, or the rows are not the ones
            the task's identity stands for.
    """
    if task.own:
        return load_own(task, places.cache)
    tries: dict[str, Callable[[], TaskData]] = {"mirror": lambda: _from_mirror(task, places)}
    if task.hub:
        hub = task.hub
        tries["hub"] = lambda: _from_hub(task, hub, places.cache)
    if task.package:
        package = task.package
        tries["package"] = lambda: _from_package(task, package, places.cache)
    return first_available(f"task {task.key}", places, tries)


def _checked(
    task: Task, train: Sequence[Example], evaluation: Sequence[Example], source: str, remedy: str
) -> TaskData:
    """Apply the task's derivation and hold the rows against its identity."""
    if task.cuts:
        train, evaluation = _cut(train, *task.cuts), _cut(evaluation, *task.cuts)
    found = fingerprint(train, evaluation)
    rows = (len(train), len(evaluation))
    expected = (task.train_rows, task.eval_rows)
    counts = f"{rows[0]} + {rows[1]} rows found, {expected[0]} + {expected[1]} expected"
    if task.fingerprint is not None and found != task.fingerprint:
        raise AssetError(
            f"task {task.key} from {source}: the rows are not the known ones: fingerprint is "
            f"{found}, expected {task.fingerprint} ({counts})",
            remedy,
        )
    # Rows never seen can't be known by fingerprint; their published number still can.
    if task.fingerprint is None and rows != expected:
        raise AssetError(f"task {task.key} from {source}: {counts}", remedy)
    return TaskData(tuple(train), tuple(evaluation), source, found)


def _cut(rows: Sequence[Example], low: float, high: float) -> list[Example]:
    return [
        Example(row.text, row.pair, int(row.label >= high))
        for row in rows
        if row.label <= low or row.label >= high
    ]


# --- sources ---------------------------------------------------------------------------------


def _from_mirror(task: Task, places: Places) -> TaskData:
    mirror = places.mirror
    if mirror is None:
        raise Unavailable("no mirror was given")
    bases = [folder for folder in (mirror, mirror / "glue") if folder.is_dir()]
    try:
        found = {d.name.casefold(): d for b in reversed(bases) for d in b.iterdir() if d.is_dir()}
    except OSError as error:
        raise AssetError(
            f"the mirror {mirror} can't be read: {error.strerror or error}", "Check its rights."
        ) from error
    names = (name.casefold() for name in task.mirror)
    folder = next((found[name] for name in names if name in found), None)
    if folder is None:
        raise Unavailable(
            f"no folder {' or '.join(task.mirror)} in {mirror} or its folder glue, with train and "
            f"evaluation files of columns {column_names(task)}"
        )
    train = _split_file(folder, ("train",))
    evaluation = _split_file(folder, _evaluation_stems(task))
    shown = [str(path.relative_to(mirror)) for path in (train, evaluation)]
    return _checked(
        task,
        read_rows(train, task),
        read_rows(evaluation, task),
        f"mirror: {shown[0]}, {shown[1]}",
        f"Put the published files into {folder}, or take that folder out of the mirror.",
    )


def _evaluation_stems(task: Task) -> tuple[str, ...]:
    """Names of the evaluation file: that of the hub's split first, in GLUE's words and its own."""
    split = task.eval_hub.eval if task.eval_hub else "validation"
    own = (split.replace("validation", "dev"), split) if split.isidentifier() else ()
    return tuple(dict.fromkeys((*own, "dev", "validation", "eval")))


def _split_file(folder: Path, stems: tuple[str, ...]) -> Path:
    for stem in stems:
        for form in _FORMS:
            # The second name is what a clone of the hub's data set holds.
            for name in (f"{stem}.{form}", f"{stem}-00000-of-00001.{form}"):
                refuse_special(folder / name)
                if (folder / name).is_file():
                    return folder / name
    raise Unavailable(f"{folder} has no {' or '.join(stems)} as {', '.join(_FORMS)}")


def _from_hub(task: Task, hub: Hub, cache: Path) -> TaskData:
    """Rows from the hub, kept as Parquet under the pinned revision in our cache.

    The library's own offline fallback takes "the latest cached version" whatever the revision,
    so the pinned copy is ours.
    """
    evaluated = task.evaluated or hub
    files = (_kept_in(hub, cache) / "train.parquet", _kept_in(evaluated, cache) / "eval.parquet")
    source = " and ".join(
        f"hub: {one.repository} {one.config or ''} at {one.revision[:12]}"
        for one in dict.fromkeys((hub, evaluated))
    )
    remedy = "The hub's data differ from the pinned ones: use a mirror or another source."

    def read() -> TaskData:
        return _checked(task, read_rows(files[0], task), read_rows(files[1], task), source, remedy)

    damage = ""
    if all(file.is_file() for file in files):
        try:
            # Rows that no fingerprint is known of are known by what was fetched.
            if task.fingerprint is not None or None not in map(notes_of, files):
                return read()
            damage = f"; the copy in {files[0].parent} is damaged: its SHA-256 is not the noted one"
        except AssetError as error:
            # The copy is ours, so it is fetched again, once.
            damage = f"; the copy in the cache is damaged: {error.what}"
    splits: dict[Hub, dict[Path, str]] = {}
    splits.setdefault(hub, {})[files[0]] = hub.train
    splits.setdefault(evaluated, {})[files[1]] = evaluated.eval
    try:
        for one, wanted in splits.items():
            fetch_splits(one.repository, one.revision, one.config, wanted, cache)
    except Unavailable as reason:
        raise Unavailable(f"{reason}{damage}") from reason
    return read()


def _kept_in(hub: Hub, cache: Path) -> Path:
    """Our folder for a data set's splits."""
    return cache / "hub" / hub.repository.replace("/", "--") / hub.revision / (hub.config or "")


def _from_package(task: Task, package: Package, cache: Path) -> TaskData:
    train, evaluation = read_package(package_files(package, cache), package, task)
    return _checked(
        task,
        train,
        evaluation,
        f"package: {package.name} {package.version}",
        "The package's bytes are the pinned ones, so this is a fault of peftmark: report it.",
    )
