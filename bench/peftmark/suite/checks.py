"""What a type can't express: faults of a suite as a whole, and of its recipes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from peftmark.catalog.methods import Cell, known_method, size_text
from peftmark.catalog.metrics import metric_of
from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.task import Task
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import SuiteError
from peftmark.core.files import PACKAGE, SUITE_NAME
from peftmark.core.shown import quoted
from peftmark.core.strict_yaml import bytes_of, values_of
from peftmark.record.recipe import Recipe
from peftmark.suite.added_seeds import seeds_up_to
from peftmark.suite.cell_checks import cell_words, check_cells, check_grid, check_sizes
from peftmark.suite.compatibility import check_reading, check_shown_as, double_fault
from peftmark.suite.entries import entries_of
from peftmark.suite.recipes import VARIED, RecipeFaults, cells, resolve_recipe
from peftmark.suite.rounds import UnequalRounds, rounds_of, seeds_of
from peftmark.suite.schema import MethodEntry, Profile, SuiteFile

MOST_JOBS = 1_000_000
"""Jobs of a profile: listed they take some gigabytes, and at ten seconds each four months."""
NEW_TOKENS = 32
"""Tokens that an answer may have where a suite says nothing."""
LEDGER = Path("claims") / "claims.yaml"
"""The ledger of claims below a folder of suites (`peftmark.claims.ledger`)."""

SCALES = "full (the whole experiment), reduced (a cut-down one)"


def check(
    suite: SuiteFile,
    name: str,
    own: Path | None,
    known: Mapping[str, Task] = MappingProxyType({}),
    models: Mapping[str, Model] = MODELS,
) -> list[str]:
    """Every fault of meaning, without those of which model is put to what if they can't be told.

    Args:
        known: tasks of the suite's own whose rows were read; of others only the kind is known.
        models: those that are known; what is put to others isn't looked at.
    """

    def task_of(name: str) -> Task:
        return known.get(name) or unread_task(suite, name)

    if too_many := list(_check_count(suite)):
        return too_many
    again = bool(known or models.keys() - MODELS.keys())
    faults: list[str] = [] if again else [*_check_claims(suite.claims, own)]
    if suite.suite != name:
        faults.append(f"suite: found {suite.suite!r}; it must be the file's name, {name!r}")
    for axis, anchor in suite.radar.items():
        if anchor.worst == anchor.best or (
            anchor.scale == "log" and min(anchor.worst, anchor.best) <= 0
        ):
            faults.append(
                f"radar.{axis}: worst and best must differ, and be positive on a log scale"
            )
    faults += check_shown_as(suite, models)
    for profile_name, profile in suite.profiles.items():
        where = f"profiles.{profile_name}"
        if not SUITE_NAME.fullmatch(profile_name):
            faults.append(f"{where}: profile names are lower-case letters, digits, - and _")
        if len(set(profile.seeds)) < len(profile.seeds):
            faults.append(f"{where}.seeds: found {profile.seeds}; each seed may stand once")
        if profile.scale is None:
            faults.append(f"{where}.scale: missing; allowed: {SCALES}")
        faults += _check_targets(profile, where, task_of)
        methods_at = f"{where}.methods" if profile.methods else "methods"
        entries = entries_of(suite, profile)
        faults += check_reading(profile, entries, where, models, task_of)
        faults += check_cells(entries, methods_at)
        faults += _check_vary(profile, where)
        faults += _check_tuning(profile, entries, where, methods_at, reference_of(suite))
        there = [cell for entry in entries for cell in cells(entry, profile)]
        if reference_of(suite) not in there:
            faults.append(
                f"reference: found {cell_words(reference_of(suite))}, which is not a cell of "
                f"profile {profile_name}; its cells: {'; '.join(map(cell_words, there))}"
            )
        told = [entry for entry in entries if _told(profile.model_of(entry), suite, models)]
        faults += _check_recipes(suite, profile, told, where, task_of, models)
    return list(dict.fromkeys(faults))


def _told(model: str, suite: SuiteFile, models: Mapping[str, Model]) -> bool:
    """Whether all of a recipe is known: of a model of one's own only once it was read."""
    return model not in suite.models or model in models


def _check_claims(ids: list[str], own: Path | None) -> Iterator[str]:
    known = _claim_ids(suite_folders(own)) if ids else []
    for index, name in enumerate(ids):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            allowed = ", ".join(known) or "none, since no ledger of claims was found"
            yield f"claims[{index}]: found {quoted(name)}; unknown claim{hint}; allowed: {allowed}"
        elif name in ids[:index]:
            yield f"claims[{index}]: found {quoted(name)}; each claim may stand once"


def _claim_ids(folders: list[Path]) -> list[str]:
    """Ids of the ledgers in some folders; whether each claim is well written is not looked at."""
    files = [folder / LEDGER for folder in folders if (folder / LEDGER).is_file()]
    return sorted(set().union(*(_ids_in(path, bytes_of(path)) for path in files)))


@lru_cache(maxsize=8)
def _ids_in(path: Path, text: bytes) -> frozenset[str]:
    """Ids of a ledger, read once for all suites that name some."""
    raw = values_of(path, text)
    found = raw.get("claims") if isinstance(raw, dict) else None
    claims = found if isinstance(found, list) else []
    return frozenset(str(c["id"]) for c in claims if isinstance(c, dict) and "id" in c)


def _check_targets(profile: Profile, where: str, task_of: Callable[[str], Task]) -> Iterator[str]:
    for task_name, entry in profile.tasks.items():
        metric = metric_of(task_of(task_name).metric)  # an unknown one is told with its task
        if metric is None or entry.target is None:
            continue
        if not metric.low <= entry.target <= metric.high:
            limits = f"lies between {metric.low} and {metric.high}"
            if math.isinf(metric.high):
                limits = f"is at least {metric.low}"
            yield f"{where}.tasks.{task_name}.target: found {entry.target}; {metric.key} {limits}"


def _check_count(suite: SuiteFile) -> Iterator[str]:
    """Matrices that no machine runs, told before their cells are listed."""
    for name, profile in suite.profiles.items():
        entries = entries_of(suite, profile)
        varied = math.prod(len(getattr(profile.vary, one) or [""]) for one in VARIED)
        tasks, tuning = max(1, len(profile.tasks)), profile.tuning
        jobs = 0
        for entry in entries:
            sizes = sum(map(len, entry.sizes.values())) + len(entry.budget or [])
            found = max(1, sizes) * len(entry.quantization) * varied * tasks
            settings = math.prod(map(len, entry.grid.values())) if entry.grid else 0
            trials = settings * len(tuning.seeds) if tuning else 0
            jobs += found * (len(profile.seeds) + trials)
        if jobs > MOST_JOBS:
            yield (
                f"profiles.{name}: {jobs:,} jobs (cells \u00d7 tasks \u00d7 seeds, and trials); at "
                f"most {MOST_JOBS:,} are planned. Take fewer sizes, seeds or tasks, or several "
                "suites."
            )


def _check_vary(profile: Profile, where: str) -> Iterator[str]:
    for name in VARIED:
        values = getattr(profile.vary, name) or []
        if len(set(values)) < len(values):
            yield f"{where}.vary.{name}: found {values}; each value may stand once"


def _check_tuning(
    profile: Profile, entries: list[MethodEntry], where: str, methods_at: str, reference: Cell
) -> Iterator[str]:
    """Every method gets trials, on seeds that are not reported."""
    tuning = profile.tuning
    if tuning is None:
        return
    if len(set(tuning.seeds)) < len(tuning.seeds):
        yield f"{where}.tuning.seeds: found {tuning.seeds}; each seed may stand once"
    if (around := tuning.around or []) != sorted(set(around)):
        yield f"{where}.tuning.around: found {around}; each factor once, in ascending order"
        return
    grids = {
        i: len(entry.settings())
        for i, entry in enumerate(entries)
        if entry.grid and known_method(entry.method).trains
    }
    taken = {seed for count in grids.values() for seed in seeds_of(count, tuning)}
    reported = set(profile.seeds)
    if profile.decide is not None:
        reported |= set(seeds_up_to(profile.seeds, profile.decide.max_seeds))
    if both := sorted(({*tuning.seeds} | taken) & reported):
        more = "" if set(both) & set(tuning.seeds) else " (each round takes the next)"
        yield (
            f"{where}.tuning.seeds: found {both}{more}, which are seeds of the reported jobs too; "
            f"take other numbers than {sorted(reported)}"
        )
    trained = {c for e in entries if known_method(e.method).trains for c in cells(e, profile)}
    if tuning.best is not None and tuning.best >= (rivals := len(trained - {reference})):
        yield (
            f"{where}.tuning.best: found {tuning.best} of {rivals} cells with trials beside the "
            "reference, so all are reported; take fewer, or leave it out"
        )
    for index, entry in enumerate(entries):
        name = "tune" if entry.tune is not None else "learning_rates"
        at = f"{methods_at}[{index}] ({entry.method}).{name}"
        if untrained := known_method(entry.method).untrained:
            if entry.grid:
                yield f"{at}: {untrained}, remove it"
        elif index not in grids:
            yield (
                f"{at}: missing; {where} has tuning, so every method needs a grid, or "
                "tuning.around and one learning rate for all tasks"
            )
        elif tuning.trainings is None and grids[index] != (first := next(iter(grids.values()))):
            what = "rates" if name == "learning_rates" else "settings"
            yield (
                f"{at}: found {grids[index]} {what} where the first grid has {first}; every method "
                "gets the same number of trials, or the same steps (tuning.trainings)"
            )


def _check_recipes(
    suite: SuiteFile,
    profile: Profile,
    entries: list[MethodEntry],
    where: str,
    task_of: Callable[[str], Task],
    models: Mapping[str, Model],
) -> list[str]:
    faults: list[str] = []
    tasks = [task for task in map(task_of, profile.tasks) if not task.own or task.train_rows]
    lengths: dict[str, int] = {}
    for entry in entries:
        method = known_method(entry.method)
        if any(check_sizes(entry, method, "")) or any(method.option_faults(entry.options)):
            continue
        if any(check_grid(entry, method, "")):
            continue
        for task in tasks:
            for cell in cells(entry, profile):
                name = " ".join(filter(None, (cell.method, size_text(cell.method, cell.size))))
                try:
                    recipe = resolve_recipe(suite, profile, entry, cell, task)
                    faults += _check_room(profile, task, recipe, where)
                    model = models.get(profile.model_of(entry))
                    if model and (form := double_fault(model, recipe.double_quantization)):
                        faults.append(f"{where}, {name} on {task.key}: {form}")
                    told = _check_trials(suite, profile, entry, cell, task, recipe, lengths)
                    faults += [f"{where}, {name} on {task.key}: {one}" for one in told]
                except RecipeFaults as error:
                    faults += [f"{where}, {name} on {task.key}: {one}" for one in error.faults]
    return faults


def _check_trials(
    suite: SuiteFile,
    profile: Profile,
    entry: MethodEntry,
    cell: Cell,
    task: Task,
    recipe: Recipe,
    lengths: dict[str, int],
) -> Iterator[str]:
    """What trials of a cell on a task can't be.

    Args:
        lengths: task -> steps of the cells before this one.
    """
    settings = entry.settings()
    if profile.tuning is None or not settings or not known_method(entry.method).trains:
        return
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        key = resolve_recipe(suite, profile, entry, cell, task, setting).key
        if found.setdefault(key, setting) is not setting:
            yield f"tune: {found[key]} and {setting} are the same setting; take one of them out"
    if profile.tuning.trainings is None:
        return
    try:
        rounds_of(len(settings), recipe.steps, profile.tuning)
    except UnequalRounds as error:
        yield f"tuning.trainings: {error}"
    if lengths.setdefault(task.key, recipe.steps) != recipe.steps:
        yield (
            f"steps: found {recipe.steps} where another method has {lengths[task.key]}; with "
            "tuning.trainings every method of a task trains for the same steps"
        )


def _check_room(profile: Profile, task: Task, recipe: Recipe, where: str) -> Iterator[str]:
    """What an answer may have is taken from the prompt."""
    room = new_tokens(profile, task)
    if room is not None and room >= recipe.max_length:
        yield (
            f"{where}.tasks.{task.key}.new_tokens: {room} of at most {recipe.max_length} tokens "
            "(max_length) would leave none for the prompt"
        )


def reference_of(suite: SuiteFile) -> Cell:
    """The cell that the others are compared with: where a suite names none, the first of the first
    method that trains an adapter, or else of the first."""
    if suite.reference is not None:
        return suite.reference.cell
    adapters = [e for e in suite.methods if known_method(e.method).family != "reference"]
    return next((adapters or suite.methods)[0].cells())[0]


def unread_task(suite: SuiteFile, name: str) -> Task:
    """A task by its name; of the suite's own what is known without its rows."""
    if name not in suite.tasks:
        return TASKS[name]
    declared = suite.tasks[name]
    return Task(
        key=name,
        title=name,
        kind=declared.kind,
        labels=(),
        metric=declared.metric or "",
        also=(),
        train_rows=0,
        eval_rows=0,
        summary="",
        licence="",
        own=True,
    )


def new_tokens(profile: Profile, task: Task) -> int | None:
    """Tokens that an answer to a task may have; None for tasks without answers to write."""
    if task.kind != "instruction":
        return None
    return profile.tasks[task.key].new_tokens or NEW_TOKENS


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
