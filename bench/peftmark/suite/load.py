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

from peftmark.catalog.method import Method
from peftmark.catalog.methods import Cell, known_method
from peftmark.catalog.metrics import METRICS
from peftmark.catalog.task import Task
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import SuiteError
from peftmark.core.files import PACKAGE
from peftmark.core.strict_yaml import read_yaml
from peftmark.record.job import RadarAxis, Recipe, ReportOptions
from peftmark.suite.compatibility import check_reading
from peftmark.suite.recipes import (
    ADAPTER_FIELDS,
    VARIED,
    RecipeFaults,
    cells,
    resolve_recipe,
    set_values,
)
from peftmark.suite.schema import MethodEntry, Profile, SuiteFile, fault_lines, short

RESERVED = ("baselines", "external", "history", "versions")
"""Folders in the results folder that are no suite's."""
NEW_TOKENS = 32
"""Tokens that an answer may have where a suite says nothing."""
LEDGER = Path("claims") / "claims.yaml"
"""The ledger of claims below a folder of suites (`peftmark.claims.ledger`)."""

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
        faults += _check_targets(profile, where)
        methods_at = f"{where}.methods" if profile.methods else "methods"
        entries = profile.methods or suite.methods
        if models:
            faults += check_reading(profile, entries, where)
        faults += _check_cells(entries, methods_at)
        faults += _check_vary(profile, where)
        faults += _check_tuning(profile, entries, where, methods_at)
        known = [cell for entry in entries for cell in cells(entry, profile)]
        if reference_of(suite) not in known:
            faults.append(
                f"reference: found {_words(reference_of(suite))}, which is not a cell of profile "
                f"{profile_name}; its cells: {'; '.join(map(_words, known))}"
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
        metric = METRICS[TASKS[task_name].metric]
        if entry.target is not None and not metric.low <= entry.target <= metric.high:
            yield (
                f"{where}.tasks.{task_name}.target: found {entry.target}; "
                f"{metric.key} lies between {metric.low} and {metric.high}"
            )


def _check_cells(entries: list[MethodEntry], where: str) -> Iterator[str]:
    seen: set[Cell] = set()
    for index, entry in enumerate(entries):
        at = f"{where}[{index}] ({entry.method})"
        method = known_method(entry.method)
        yield from _check_sizes(entry, method, at)
        for name, fault in method.option_faults(entry.options):
            yield f"{at}.options.{name}: {fault}"
        for quantization in entry.quantization:
            if quantization not in method.quantizations:
                allowed = ", ".join(method.quantizations)
                yield f"{at}.quantization: found {quantization!r}; {entry.method} allows: {allowed}"
        on_tasks = {f"task_recipe.{task}": layer for task, layer in entry.task_recipe.items()}
        for layer_name, layer in {"recipe": entry.recipe, **on_tasks}.items():
            set_here = set_values(layer)
            odd = [f for f in ADAPTER_FIELDS if f not in method.settings and f in set_here]
            if layer.adalora is not None and not method.schedule:
                odd.append("adalora")
            for name in odd:
                yield f"{at}.{layer_name}.{name}: means nothing for {entry.method}, remove it"
            for name in VARIED:
                if name in set_values(layer):
                    yield (
                        f"{at}.{layer_name}.{name}: must be the same for all methods; set it in "
                        "the recipe of the suite, a profile or a task, or vary it for all cells "
                        "with a profile's vary"
                    )
        rates = entry.learning_rates or []
        if rates != sorted(set(rates)):
            yield f"{at}.learning_rates: found {rates}; each rate once, in ascending order"
        for cell, _ in entry.cells():
            if cell in seen:
                yield (
                    f"{at}: the cell {_words(cell)} stands in the list twice; tell entries of one "
                    "method apart by `variant`"
                )
            seen.add(cell)


def _check_sizes(entry: MethodEntry, method: Method, at: str) -> Iterator[str]:
    for name, values in entry.sizes.items():
        if name != method.size:
            instead = f", its size is `{method.size}`" if method.size else ", remove it"
            yield f"{at}.{name}: found {values}; {entry.method} has no {name}{instead}"
    if entry.budget is not None and not method.budget:
        yield f"{at}.budget: found {entry.budget}; {entry.method} has no size to solve for"
    needs_size = method.size is not None and method.family != "peft"
    if needs_size and method.size not in entry.sizes and entry.budget is None:
        or_budget = ", or a budget" if method.budget else ""
        yield f"{at}.{method.size}: missing; {entry.method} needs at least one{or_budget}"


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
        if not known_method(entry.method).trains:
            if entry.learning_rates:
                yield f"{at}: nothing trains, remove it"
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
        if any(_check_sizes(entry, method, "")) or any(method.option_faults(entry.options)):
            continue
        for task_name in profile.tasks:
            for cell in cells(entry, profile):
                name = cell.method if cell.rank is None else f"{cell.method} rank {cell.rank}"
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


def _words(cell: Cell) -> str:
    rank = "" if cell.rank is None else f" rank {cell.rank}"
    return f"{cell.method}{rank} {cell.quantization}" + (
        f" variant {cell.variant!r}" if cell.variant else ""
    )


# --- loading ------------------------------------------------------------------------------------


def reference_of(suite: SuiteFile) -> Cell:
    """The cell that the others are compared with."""
    cell = suite.reference
    return Cell(cell.method, cell.rank, cell.quantization, cell.variant)


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
