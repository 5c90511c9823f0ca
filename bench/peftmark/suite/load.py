"""From a suite's file to a checked suite; nothing else is done.

A suite names a model, tasks, method cells, seeds and layers of training recipes, which
`peftmark.suite.recipes` folds into recipes.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from peftmark.catalog.methods import Cell, known_method, size_text
from peftmark.catalog.metrics import METRICS
from peftmark.catalog.task import Task
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import SuiteError
from peftmark.core.files import PACKAGE
from peftmark.core.strict_yaml import read_yaml
from peftmark.record.job import RadarAxis, Recipe, ReportOptions
from peftmark.suite.cell_checks import cell_words, check_cells, check_sizes
from peftmark.suite.compatibility import check_reading
from peftmark.suite.recipes import (
    VARIED,
    RecipeFaults,
    cells,
    resolve_recipe,
)
from peftmark.suite.schema import MethodEntry, Profile, SuiteFile, fault_lines, short

RESERVED = ("baselines", "external", "history", "versions")
"""Folders in the results folder that are no suite's."""
NEW_TOKENS = 32
"""Tokens that an answer may have where a suite says nothing."""
LEDGER = Path("claims") / "claims.yaml"
"""The ledger of claims below a folder of suites (`peftmark.claims.ledger`)."""

SCALES = "full (the whole experiment), reduced (a cut-down one)"
SUITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Suite:
    """A checked suite: every cell of every profile resolves to a recipe.

    Attributes:
        claims: ids of the claims that its rows test.
    """

    name: str
    version: int
    summary: str
    report: ReportOptions
    profiles: dict[str, Profile]
    file: SuiteFile
    claims: tuple[str, ...] = ()

    def methods(self, profile: str) -> list[MethodEntry]:
        """The method entries of a profile."""
        return self.profiles[profile].methods or self.file.methods


# --- checks a type can't express ----------------------------------------------------------------


def _check(suite: SuiteFile, name: str, own: Path | None, models: bool = True) -> list[str]:
    """Every fault of meaning, without those of which model is put to what if they can't be told."""
    faults: list[str] = [*_check_claims(suite.claims, own)]
    if suite.suite != name:
        faults.append(f"suite: found {suite.suite!r}; it must be the file's name, {name!r}")
    for axis, anchor in suite.radar.items():
        if anchor.worst == anchor.best or (
            anchor.scale == "log" and min(anchor.worst, anchor.best) <= 0
        ):
            faults.append(
                f"radar.{axis}: worst and best must differ, and be positive on a log scale"
            )
    for profile_name, profile in suite.profiles.items():
        where = f"profiles.{profile_name}"
        if not SUITE_NAME.fullmatch(profile_name):
            faults.append(f"{where}: profile names are lower-case letters, digits, - and _")
        if len(set(profile.seeds)) < len(profile.seeds):
            faults.append(f"{where}.seeds: found {profile.seeds}; each seed may stand once")
        if profile.scale is None:
            faults.append(f"{where}.scale: missing; allowed: {SCALES}")
        faults += _check_targets(profile, where)
        methods_at = f"{where}.methods" if profile.methods else "methods"
        entries = profile.methods or suite.methods
        if models:
            faults += check_reading(profile, entries, where)
        faults += check_cells(entries, methods_at)
        faults += _check_vary(profile, where)
        faults += _check_tuning(profile, entries, where, methods_at)
        known = [cell for entry in entries for cell in cells(entry, profile)]
        if reference_of(suite) not in known:
            faults.append(
                f"reference: found {cell_words(reference_of(suite))}, which is not a cell of "
                f"profile {profile_name}; its cells: {'; '.join(map(cell_words, known))}"
            )
        faults += _check_recipes(suite, profile, entries, where)
    return list(dict.fromkeys(faults))


def _check_claims(ids: list[str], own: Path | None) -> Iterator[str]:
    known = _claim_ids(suite_folders(own)) if ids else []
    for index, name in enumerate(ids):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            allowed = ", ".join(known) or "none, since no ledger of claims was found"
            yield f"claims[{index}]: found {short(name)}; unknown claim{hint}; allowed: {allowed}"
        elif name in ids[:index]:
            yield f"claims[{index}]: found {short(name)}; each claim may stand once"


def _claim_ids(folders: list[Path]) -> list[str]:
    """Ids of the ledgers in some folders; whether each claim is well written is not looked at."""
    files = [read_yaml(f / LEDGER) for f in folders if (f / LEDGER).is_file()]
    lists = [raw.get("claims") for raw in files if isinstance(raw, dict)]
    claims = [claim for found in lists if isinstance(found, list) for claim in found]
    return sorted(
        {str(claim["id"]) for claim in claims if isinstance(claim, dict) and "id" in claim}
    )


def _check_targets(profile: Profile, where: str) -> Iterator[str]:
    for task_name, entry in profile.tasks.items():
        metric = METRICS.get(TASKS[task_name].metric)  # an unknown one is told with its task
        if metric is None or entry.target is None:
            continue
        if not metric.low <= entry.target <= metric.high:
            yield (
                f"{where}.tasks.{task_name}.target: found {entry.target}; "
                f"{metric.key} lies between {metric.low} and {metric.high}"
            )


def _check_vary(profile: Profile, where: str) -> Iterator[str]:
    for name in VARIED:
        values = getattr(profile.vary, name) or []
        if len(set(values)) < len(values):
            yield f"{where}.vary.{name}: found {values}; each value may stand once"


def _check_tuning(
    profile: Profile, entries: list[MethodEntry], where: str, methods_at: str
) -> Iterator[str]:
    """Every method gets the same number of trials, on seeds that are not reported."""
    if profile.tuning is None:
        return
    seeds = profile.tuning.seeds
    if len(set(seeds)) < len(seeds):
        yield f"{where}.tuning.seeds: found {seeds}; each seed may stand once"
    if both := sorted(set(seeds) & set(profile.seeds)):
        yield (
            f"{where}.tuning.seeds: found {both}, which are seeds of the reported jobs too; "
            f"take other numbers than {profile.seeds}"
        )
    grids = {
        i: entry.learning_rates
        for i, entry in enumerate(entries)
        if entry.learning_rates and known_method(entry.method).trains
    }
    for index, entry in enumerate(entries):
        at = f"{methods_at}[{index}] ({entry.method}).learning_rates"
        if untrained := known_method(entry.method).untrained:
            if entry.learning_rates:
                yield f"{at}: {untrained}, remove it"
        elif index not in grids:
            yield f"{at}: missing; {where} has tuning, so every method needs a grid"
        elif len(grids[index]) != len(first := next(iter(grids.values()))):
            yield (
                f"{at}: found {len(grids[index])} rates where the first grid has {len(first)}; "
                "every method gets the same number of trials"
            )


def _check_recipes(
    suite: SuiteFile, profile: Profile, entries: list[MethodEntry], where: str
) -> list[str]:
    faults: list[str] = []
    for entry in entries:
        method = known_method(entry.method)
        if any(check_sizes(entry, method, "")) or any(method.option_faults(entry.options)):
            continue
        for task_name in profile.tasks:
            for cell in cells(entry, profile):
                name = " ".join(filter(None, (cell.method, size_text(cell.method, cell.size))))
                try:
                    recipe = resolve_recipe(suite, profile, entry, cell, task_name)
                    faults += _check_room(profile, task_name, recipe, where)
                except RecipeFaults as error:
                    faults += [f"{where}, {name} on {task_name}: {one}" for one in error.faults]
    return faults


def _check_room(profile: Profile, task: str, recipe: Recipe, where: str) -> Iterator[str]:
    """What an answer may have is taken from the prompt."""
    room = new_tokens(profile, task)
    if room is not None and room >= recipe.max_length:
        yield (
            f"{where}.tasks.{task}.new_tokens: {room} of at most {recipe.max_length} tokens "
            "(max_length) would leave none for the prompt"
        )


# --- loading ------------------------------------------------------------------------------------


def reference_of(suite: SuiteFile) -> Cell:
    """The cell that the others are compared with."""
    return suite.reference.cell


def suite_folders(own: Path | None) -> list[Path]:
    """Folders searched for suites: the given one, or `./suites`, then those shipped."""
    shipped = PACKAGE / "_suites"
    folders = [
        own or Path("suites"),
        shipped if shipped.is_dir() else PACKAGE.parent.parent / "suites",
    ]
    if own is not None and not own.is_dir():
        raise SuiteError(f"the folder of suites {str(own)!r} is not a folder")
    unique: dict[Path, Path] = {f.resolve(): f for f in reversed(folders) if f.is_dir()}
    return list(reversed(unique.values()))


def suite_names(own: Path | None = None) -> list[str]:
    """Names of all suites found, sorted."""
    files = (p for folder in suite_folders(own) for p in folder.glob("*.yaml"))
    return sorted({p.stem for p in files if SUITE_NAME.fullmatch(p.stem)})


def find_suite(name: str, own: Path | None = None) -> Path:
    """The file of a suite by name; a path, or a link out of its folder, is refused."""
    known = ", ".join(suite_names(own)) or "none"
    if not SUITE_NAME.fullmatch(name):
        raise SuiteError(
            f"suite {short(name)}: a suite is named by lower-case letters, digits, - and _, "
            "at most 64, never by a path",
            f"Known suites: {known}. For a folder of your own use --suites DIR.",
        )
    if name in RESERVED:
        raise SuiteError(
            f"no suite can be named {name!r}", "Its results folder has another meaning."
        )
    for folder in suite_folders(own):
        path = folder / f"{name}.yaml"
        if path.is_file():
            if path.resolve().parent != folder.resolve():
                raise SuiteError(f"suite {name!r}: {path} is a link that leaves its folder")
            return path
    raise SuiteError(f"there is no suite {name!r}", f"Known suites: {known}.")


def load_suite(name: str, own: Path | None = None) -> Suite:
    """Read and check a suite.

    Raises:
        SuiteError: with every fault of the file, one a line: path, value found, values allowed.
    """
    path = find_suite(name, own)
    raw = read_yaml(path)
    try:
        suite = SuiteFile.model_validate(raw)
        faults = _check(suite, name, own)
    except ValidationError as error:
        faults = [*fault_lines(error), *_faults_of_the_rest(raw, error, name, own)]
    if faults:
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise SuiteError(f"{path}: {count}:\n{lines}", "Nothing was started.")
    report = ReportOptions(
        reference=reference_of(suite),
        radar={k: RadarAxis(a.worst, a.best, a.scale) for k, a in suite.radar.items()},
    )
    profiles = dict(suite.profiles)
    return Suite(name, suite.version, suite.summary, report, profiles, suite, tuple(suite.claims))


def _faults_of_the_rest(raw: Any, error: ValidationError, name: str, own: Path | None) -> list[str]:
    """Faults of meaning in what is left without the parts that have faults of shape.

    What is only missing because it was taken out is not told.
    """
    rest = copy.deepcopy(raw)
    models = all("model" not in item["loc"] for item in error.errors())
    for _ in range(3):  # a list that lost its only item has to go as well, and so on upwards
        _take_out(rest, error)
        try:
            found = _check(SuiteFile.model_validate(rest), name, own, models)
        except ValidationError as next_error:
            error = next_error
            continue
        induced = ("missing", "set nowhere", "is not a cell")
        return [fault for fault in found if not any(text in fault for text in induced)]
    return []


def _take_out(raw: Any, error: ValidationError) -> None:
    """Remove what the faults point at; from the back, so that no list index moves."""
    places = ([part for part in item["loc"] if part != "[key]"] for item in error.errors())
    for keys in sorted(places, key=lambda keys: [f"{k:>9}" for k in keys], reverse=True):
        parent = raw
        with suppress(KeyError, IndexError, TypeError):
            for key in keys[:-1]:
                parent = parent[key]
            del parent[keys[-1]]


def task_of(profile: Profile, name: str) -> Task:
    """The catalog's task with the profile's own fingerprint, if it sets one."""
    own = profile.tasks[name].fingerprint if name in profile.tasks else None
    return TASKS[name] if own is None else replace(TASKS[name], fingerprint=own)


def needed_tasks(profile: Profile, tasks: Iterable[str] | None = None) -> list[str]:
    """The tasks whose rows a profile's jobs read, the unrelated text's last.

    Args:
        tasks: those of the profile that are to run; None for all.
    """
    wanted = list(profile.tasks if tasks is None else dict.fromkeys(tasks))
    return [*wanted, *([profile.unrelated] if profile.unrelated and wanted else [])]


def needed_models(profile: Profile, entries: Sequence[MethodEntry]) -> list[str]:
    """The models that a profile's jobs train, the profile's own first."""
    return list(dict.fromkeys([profile.model, *(profile.model_of(e).key for e in entries)]))


def new_tokens(profile: Profile, task: str) -> int | None:
    """Tokens that an answer to a task may have; None for tasks without answers to write."""
    if TASKS[task].kind != "instruction":
        return None
    return profile.tasks[task].new_tokens or NEW_TOKENS
