"""From a suite's file to a checked suite, and from its layers to recipes; nothing else is done.

A suite names a model, tasks, method cells, seeds and training recipes. Recipes are layered, later
layers winning: suite, profile, task, method, method on one task. `resolve_recipe` folds the
layers into one `bench.record.Recipe` with nothing left open.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.catalog import METHODS, METRICS, Method
from bench.errors import SuiteError
from bench.record import AdaLoraSchedule, RadarAxis, Recipe, ReportOptions
from bench.schema import (
    MethodEntry,
    Profile,
    RecipeLayer,
    SuiteFile,
    fault_lines,
    read_yaml,
    short,
)
from bench.tasks import TASKS, Task

SUITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
ADAPTER_FIELDS = ("targets", "alpha", "dropout")


@dataclass(frozen=True)
class Suite:
    """A checked suite: every cell of every profile resolves to a recipe."""

    name: str
    version: int
    summary: str
    report: ReportOptions
    profiles: dict[str, Profile]
    file: SuiteFile

    def methods(self, profile: str) -> list[MethodEntry]:
        """The method entries of a profile."""
        return self.profiles[profile].methods or self.file.methods


# --- resolving recipes --------------------------------------------------------------------------

# Values a suite may leave out. None of them favours a method; everything that does (learning
# rate, alpha, targets, AdaLoRA's schedule) has to be written down.
DEFAULTS: dict[str, Any] = {
    "schedule": "linear",
    "warmup_share": 0.06,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "max_length": 128,
    "precision": "fp32",
    "optimizer": "adamw",
    "gradient_checkpointing": False,
    "window_batches": 16,
    "train_rows": None,
    "eval_rows": None,
    "eval_every": "20%",
    "eval_batch_size": 64,
    "train_pooler": True,
    "dropout": 0.0,
    "double_quantization": True,
}
ADALORA_DEFAULTS: dict[str, Any] = {"beta1": 0.85, "beta2": 0.85}


def _set_values(layer: BaseModel) -> dict[str, Any]:
    return {k: getattr(layer, k) for k in layer.model_fields_set if getattr(layer, k) is not None}


def _merge(layers: Iterable[RecipeLayer]) -> dict[str, Any]:
    merged: dict[str, Any] = dict(DEFAULTS)
    adalora: dict[str, Any] = dict(ADALORA_DEFAULTS)
    for layer in layers:
        values = _set_values(layer)
        if nested := values.pop("adalora", None):
            values_in = _set_values(nested)
            for one, other in (("init_rank", "init_ratio"), ("init_ratio", "init_rank")):
                if one in values_in:
                    adalora.pop(other, None)
            adalora.update(values_in)
        for one, other in (("steps", "epochs"), ("epochs", "steps")):
            if one in values:
                merged.pop(other, None)
        merged.update(values)
    merged["adalora"] = adalora
    return merged


def _share(value: int | str, steps: int) -> int:
    return round(float(value[:-1]) / 100 * steps) if isinstance(value, str) else value


def _adalora(
    values: Mapping[str, Any], rank: int, steps: int, fault: _Fault
) -> AdaLoraSchedule | None:
    missing = [k for k in ("tinit", "tfinal", "delta_t", "orthogonal_weight") if k not in values]
    if "init_rank" not in values and "init_ratio" not in values:
        missing.insert(0, "init_rank (or init_ratio)")
    if missing:
        fault("adalora", f"{', '.join(missing)} set nowhere")
        return None
    init_rank = values.get("init_rank") or max(rank + 1, round(values["init_ratio"] * rank))
    tinit, tfinal = _share(values["tinit"], steps), _share(values["tfinal"], steps)
    if init_rank <= rank:
        fault(
            "adalora.init_rank",
            f"found {init_rank} with rank (target_r) {rank}; it must be above the rank, "
            "since AdaLoRA prunes from init_rank down to rank",
        )
    if tinit + tfinal + values["delta_t"] > steps:
        fault(
            "adalora",
            f"tinit {tinit} + tfinal {tfinal} + delta_t {values['delta_t']} exceed the {steps} "
            "steps, so the budget would never be pruned; they must leave at least one delta_t",
        )
    return AdaLoraSchedule(
        init_rank=init_rank,
        tinit=tinit,
        tfinal=tfinal,
        **{k: values[k] for k in ("delta_t", "beta1", "beta2", "orthogonal_weight")},
    )


_Fault = Callable[[str, str], None]


def resolve_recipe(
    suite: SuiteFile, profile: Profile, entry: MethodEntry, rank: int | None, quantization: str,
    task_name: str, fault: _Fault,
) -> Recipe | None:  # fmt: skip
    """Fold the layers for one cell on one task; tell each fault, return None if there is any."""
    task, method = TASKS[task_name], METHODS[entry.method]
    task_layer = profile.tasks[task_name].recipe
    layers = [suite.recipe, profile.recipe, task_layer, entry.recipe]
    values = _merge([*layers, entry.task_recipe.get(task_name, RecipeLayer())])
    faults: list[str] = []

    def tell(where: str, what: str) -> None:
        faults.append(where)
        fault(where, what)

    for name, limit in (("train_rows", task.train_rows), ("eval_rows", task.eval_rows)):
        values[name] = values[name] if (values[name] or limit) < limit else None
    rows = values["train_rows"] or task.train_rows
    needed = ["batch_size", "learning_rate"] + (["targets", "alpha"] if method.takes_rank else [])
    missing = [name for name in needed if name not in values]
    if "steps" not in values and "epochs" not in values:
        missing.append("steps (or epochs)")
    if missing:
        tell("recipe", f"{', '.join(missing)} set nowhere for {entry.method} on {task_name}")
        return None
    if values["batch_size"] > rows:
        tell("batch_size", f"found {values['batch_size']} with {rows} training rows")
    epochs = values.pop("epochs", None)
    steps = values.get("steps") or math.ceil(epochs * math.ceil(rows / values["batch_size"]))
    eval_every = values["eval_every"]
    if isinstance(eval_every, str):
        eval_every = max(1, _share(eval_every, steps))
    if not 1 <= eval_every <= steps:
        tell("eval_every", f"found {eval_every}; the run has {steps} steps")
    schedule = None
    if entry.method == "adalora" and rank is not None:
        schedule = _adalora(values["adalora"], rank, steps, tell)
    if faults:
        return None
    values.update(steps=steps, eval_every=eval_every, adalora=schedule)
    if not method.takes_rank:
        values.update(dict.fromkeys(ADAPTER_FIELDS))
    if quantization in ("none", "int8"):
        values["double_quantization"] = None
    return Recipe(**values)


# --- checks a type can't express ----------------------------------------------------------------


def _check(suite: SuiteFile, name: str) -> list[str]:
    faults: list[str] = []
    if suite.suite != name:
        faults.append(f"suite: found {suite.suite!r}; it must be the file's name, {name!r}")
    for axis, anchor in suite.radar.items():
        if anchor.worst == anchor.best or (
            anchor.scale == "log" and min(anchor.worst, anchor.best) <= 0
        ):
            faults.append(
                f"radar.{axis}: worst and best must differ, and be positive on a log scale"
            )
    reference = (suite.reference.method, suite.reference.rank, suite.reference.quantization)
    for profile_name, profile in suite.profiles.items():
        where = f"profiles.{profile_name}"
        if not SUITE_NAME.fullmatch(profile_name):
            faults.append(f"{where}: profile names are lower-case letters, digits, - and _")
        if len(set(profile.seeds)) < len(profile.seeds):
            faults.append(f"{where}.seeds: found {profile.seeds}; each seed may stand once")
        faults += _check_targets(profile, where)
        methods_at = f"{where}.methods" if profile.methods else "methods"
        entries = profile.methods or suite.methods
        faults += _check_cells(entries, methods_at)
        cells = [cell for entry in entries for cell in entry.cells()]
        if reference not in cells:
            faults.append(f"reference: {reference} is not a cell of profile {profile_name}")
        faults += _check_recipes(suite, profile, entries, where)
    return list(dict.fromkeys(faults))


def _check_targets(profile: Profile, where: str) -> Iterator[str]:
    for task_name, entry in profile.tasks.items():
        metric = METRICS[TASKS[task_name].metric]
        if entry.target is not None and not metric.low <= entry.target <= metric.high:
            yield (
                f"{where}.tasks.{task_name}.target: found {entry.target}; "
                f"{metric.key} lies between {metric.low} and {metric.high}"
            )


def _check_cells(entries: list[MethodEntry], where: str) -> Iterator[str]:
    seen: set[tuple[str, int | None, str]] = set()
    for index, entry in enumerate(entries):
        at = f"{where}[{index}] ({entry.method})"
        method: Method = METHODS[entry.method]
        if method.takes_rank and entry.rank is None:
            yield f"{at}.rank: missing; {entry.method} needs at least one rank"
        if not method.takes_rank and entry.rank is not None:
            yield f"{at}.rank: found {entry.rank}; {entry.method} has no rank, remove it"
        for quantization in entry.quantization:
            if quantization not in method.quantizations:
                allowed = ", ".join(method.quantizations)
                yield f"{at}.quantization: found {quantization!r}; {entry.method} allows: {allowed}"
        on_tasks = {f"task_recipe.{task}": layer for task, layer in entry.task_recipe.items()}
        for layer_name, layer in {"recipe": entry.recipe, **on_tasks}.items():
            odd = [f for f in ADAPTER_FIELDS if not method.takes_rank and f in _set_values(layer)]
            if layer.adalora is not None and entry.method != "adalora":
                odd.append("adalora")
            for name in odd:
                yield f"{at}.{layer_name}.{name}: means nothing for {entry.method}, remove it"
        for cell in entry.cells():
            if cell in seen:
                yield f"{at}: the cell {cell} stands in the list twice"
            seen.add(cell)


def _check_recipes(
    suite: SuiteFile, profile: Profile, entries: list[MethodEntry], where: str
) -> list[str]:
    faults: list[str] = []
    for entry in entries:
        if METHODS[entry.method].takes_rank != (entry.rank is not None):
            continue
        for task_name in profile.tasks:
            for method, rank, quantization in entry.cells():
                cell = method if rank is None else f"{method} rank {rank}"

                def fault(at: str, what: str, cell: str = cell, task: str = task_name) -> None:
                    faults.append(f"{where}, {cell} on {task}: {at}: {what}")

                resolve_recipe(suite, profile, entry, rank, quantization, task_name, fault)
    return faults


# --- loading ------------------------------------------------------------------------------------


def suite_folders(own: Path | None) -> list[Path]:
    """Folders searched for suites: the given one, or `./suites`, then those shipped."""
    package = Path(__file__).resolve().parent
    shipped = package / "_suites"
    folders = [own or Path("suites"), shipped if shipped.is_dir() else package.parent / "suites"]
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
        faults = _check(suite, name)
    except ValidationError as error:
        faults = [*fault_lines(error), *_faults_of_the_rest(raw, error, name)]
    if faults:
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise SuiteError(f"{path}: {count}:\n{lines}", "Nothing was started.")
    report = ReportOptions(
        reference=(suite.reference.method, suite.reference.rank, suite.reference.quantization),
        radar={k: RadarAxis(a.worst, a.best, a.scale) for k, a in suite.radar.items()},
    )
    return Suite(name, suite.version, suite.summary, report, dict(suite.profiles), suite)


def _faults_of_the_rest(raw: Any, error: ValidationError, name: str) -> list[str]:
    """Faults of meaning in what is left without the parts that have faults of shape.

    What is only missing because it was taken out is not told.
    """
    rest = copy.deepcopy(raw)
    for _ in range(3):  # a list that lost its only item has to go as well, and so on upwards
        _take_out(rest, error)
        try:
            found = _check(SuiteFile.model_validate(rest), name)
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
    own = profile.tasks[name].fingerprint
    return TASKS[name] if own is None else replace(TASKS[name], fingerprint=own)
