"""From the layers of a suite to recipes: every value of every cell resolved, faults told.

Recipes are layered, later layers winning: suite, profile, task, method, method on one task, and
last the values that the profile varies for all cells alike. `resolve_recipe` folds the layers into
one `peftmark.record.recipe.Recipe` with nothing left open.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from peftmark.catalog.method import LORA, Method
from peftmark.catalog.methods import Cell, known_method
from peftmark.catalog.packing import OF_A_PASS
from peftmark.catalog.quantizations import quantization_of
from peftmark.catalog.task import Task
from peftmark.record.recipe import AdaLoraSchedule, Recipe, first_stage_steps
from peftmark.suite.form import form_faults
from peftmark.suite.option_settings import option_setting_faults
from peftmark.suite.schema import MethodEntry, Profile, RecipeLayer, SuiteFile
from peftmark.suite.schema_runs import OPTIONS
from peftmark.suite.sharding import sharding_faults

ADAPTER_FIELDS = LORA

VARIED: dict[str, Callable[[Any], str]] = {
    "precision": str,
    "weights": lambda kind: f"{kind} weights",
    "gradient_checkpointing": lambda on: "checkpointing" if on else "no checkpointing",
}
"""Setting -> the name of a value in a variant. These must be the same for every cell: they change
time and memory for a reason that is not the method."""

MAX_SELECTION_ROWS = 1000

Fault = Callable[[str, str], None]
"""Told of each fault: the key, and what is wrong with its value."""


class RecipeFaults(Exception):
    """A recipe that can't be resolved.

    Args:
        faults: each as one line: key, value found, what is allowed.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def variants(profile: Profile, method: Method) -> dict[str, dict[str, Any]]:
    """Name of each combination of varied values -> the values; one empty name without an axis.

    A method that leaves nothing frozen has no choice of how frozen weights are stored.
    """
    axes = {name: values for name in VARIED if (values := getattr(profile.vary, name))}
    if not method.freezes:
        axes.pop("weights", None)
    found = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    return {", ".join(VARIED[name](v) for name, v in one.items()): one for one in found}


def cells(entry: MethodEntry, profile: Profile) -> dict[Cell, dict[str, Any]]:
    """The cells of a method entry, crossed with every variant of the profile, and what each sets
    in the recipe."""
    return {
        cell._replace(variant=", ".join(filter(None, (cell.variant, name)))): {
            **values,
            "budget": budget,
        }
        for cell, budget in entry.cells()
        for name, values in variants(profile, known_method(entry.method)).items()
    }


# Values a suite may leave out. None of them favours a method; everything that does (learning
# rate, alpha, targets, AdaLoRA's schedule) has to be written down.
DEFAULTS: dict[str, Any] = {
    "schedule": "linear",
    "warmup": "6%",
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "max_length": 128,
    "precision": "fp32",
    "weights": "fp32",
    "optimizer": "adamw",
    "gradient_accumulation": 1,
    "gradient_checkpointing": False,
    "window_batches": 16,
    "selection_rows": None,
    "train_rows": None,
    "eval_rows": None,
    "eval_every": "20%",
    "eval_batch_size": 64,
    "train_pooler": True,
    "head_dropout": None,
    "dropout": 0.0,
    "double_quantization": True,
    "early_stopping": None,
    "label_smoothing": 0.0,
    "halve_on_growth": False,
    "pad_to": None,
    "compile": False,
    "attention": None,
    "devices": 1,
    "shard": False,
    "packing": False,
    "kernels": None,
}
ADALORA_DEFAULTS: dict[str, Any] = {"beta1": 0.85, "beta2": 0.85}


def set_values(layer: BaseModel) -> dict[str, Any]:
    """What a layer sets; a null is not set."""
    return {k: getattr(layer, k) for k in layer.model_fields_set if getattr(layer, k) is not None}


def _merge(layers: Iterable[RecipeLayer]) -> dict[str, Any]:
    merged: dict[str, Any] = dict(DEFAULTS)
    adalora: dict[str, Any] = dict(ADALORA_DEFAULTS)
    for layer in layers:
        values = set_values(layer)
        if nested := values.pop("adalora", None):
            values_in = set_values(nested)
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


def _schedule(
    method: Method, cell: Cell, values: Mapping[str, Any], steps: int, fault: Fault
) -> AdaLoraSchedule | None:
    """AdaLoRA's schedule for the methods that read it."""
    if not method.schedule:
        return None
    adalora, rank, options = dict(values["adalora"]), cell.size, values["options"]
    if method.key == "hybrid":
        rank, adalora["init_rank"] = options["middle"] // 2, options["middle"]
    if method.key == "two-stage":
        steps -= first_stage_steps(options, steps)
    return _adalora(adalora, rank, steps, fault)


def _adalora(
    values: Mapping[str, Any], rank: int | None, steps: int, fault: Fault
) -> AdaLoraSchedule | None:
    """The schedule in steps.

    Args:
        rank: the rank it ends at; None where a budget decides it.
    """
    missing = [k for k in ("tinit", "tfinal", "delta_t", "orthogonal_weight") if k not in values]
    if "init_rank" not in values and "init_ratio" not in values:
        missing.insert(0, "init_rank (or init_ratio)")
    if missing:
        fault("adalora", f"{', '.join(missing)} set nowhere")
        return None
    if rank is None:
        if "init_ratio" not in values:
            fault(
                "adalora.init_ratio", "set nowhere; with a budget it takes the place of init_rank"
            )
            return None
        init_rank = None
    else:
        init_rank = values.get("init_rank") or max(rank + 1, round(values["init_ratio"] * rank))
    tinit, tfinal = _share(values["tinit"], steps), _share(values["tfinal"], steps)
    if init_rank is not None and rank is not None and init_rank <= rank:
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
        init_ratio=values["init_ratio"] if rank is None else None,
        **{k: values[k] for k in ("delta_t", "beta1", "beta2", "orthogonal_weight")},
    )


def tuned_layer(setting: Mapping[str, Any]) -> tuple[RecipeLayer, dict[str, Any]]:
    """What a setting that trials try sets in a recipe, and among the method's own options.

    Args:
        setting: name as in an entry's `tune` -> value.

    Raises:
        ValidationError: a value that its setting can't have.
    """
    options = {n.removeprefix(OPTIONS): v for n, v in setting.items() if n.startswith(OPTIONS)}
    own = {n: v for n, v in setting.items() if "." not in n}
    nested = {n.partition(".")[2]: v for n, v in setting.items() if n.startswith("adalora.")}
    return RecipeLayer.model_validate(own | ({"adalora": nested} if nested else {})), options


def _layers(suite: SuiteFile, profile: Profile, entry: MethodEntry, task: str) -> list[RecipeLayer]:
    """The layers of a recipe, later ones winning; first of all the middle of what trials try."""
    middle = {name: values[(len(values) - 1) // 2] for name, values in entry.grid.items()}
    first, _ = tuned_layer(middle if profile.tuning else {})
    on_task = entry.task_recipe.get(task, RecipeLayer())
    return [first, suite.recipe, profile.recipe, profile.tasks[task].recipe, entry.recipe, on_task]


def resolve_recipe(
    suite: SuiteFile,
    profile: Profile,
    entry: MethodEntry,
    cell: Cell,
    task: Task,
    setting: Mapping[str, Any] = MappingProxyType({}),
) -> Recipe:
    """Fold the layers for one cell on one task.

    Args:
        setting: of the entry's grid, above every layer.

    Raises:
        RecipeFaults: with every fault; never for a suite that was checked.
    """
    method, task_name = known_method(entry.method), task.key
    tuned, options = tuned_layer(setting)
    values = _merge([*_layers(suite, profile, entry, task_name), tuned])
    faults: list[str] = []

    def tell(key: str, what: str) -> None:
        faults.append(f"{key}: {what}")

    values.update(
        cells(entry, profile)[cell], options=method.resolved_options(entry.options | options)
    )
    if not method.trains:
        _untrained(values)
    if not method.freezes:
        values["weights"] = "fp32"
    rows = _row_limits(values, task, tell)
    if missing := _missing(values, method):
        tell("recipe", f"{', '.join(missing)} set nowhere for {entry.method} on {task_name}")
        raise RecipeFaults(faults)
    if values["batch_size"] > rows:
        cut = f" (of {task.train_rows}, {values['selection_rows']} are selection rows)"
        found = f"found {values['batch_size']} with {rows} training rows{cut}"
        tell("batch_size", f"{found}; at most {rows} fit: recipe: {{batch_size: {rows}}}")
    epochs = values.pop("epochs", None)
    steps = values.get("steps") or math.ceil(epochs * math.ceil(rows / values["batch_size"]))
    eval_every = _eval_every(values["eval_every"], steps, tell)
    warmup_steps = _share(values.pop("warmup"), steps)
    if warmup_steps > steps:
        tell("warmup", f"found {warmup_steps}; the run has {steps} steps")
    _check_step(values, method, task, tell)
    told = option_setting_faults(cell, values, steps, eval_every)
    for key, what in (*told, *sharding_faults(cell, values)):
        tell(key, what)
    if profile.tuning and values["selection_rows"] == 0:
        tell("selection_rows", "found 0; a profile with tuning scores its trials on these rows")
    schedule = _schedule(method, cell, values, steps, tell)
    if faults:
        raise RecipeFaults(faults)
    values.update(steps=steps, eval_every=eval_every, warmup_steps=warmup_steps, adalora=schedule)
    values.update(dict.fromkeys(name for name in ADAPTER_FIELDS if name not in method.settings))
    base = quantization_of(cell.quantization)
    if base is None or not base.double:
        values["double_quantization"] = None
    return Recipe(**values)


def _eval_every(given: int | str, steps: int, fault: Fault) -> int:
    """Steps between two evaluations."""
    found = max(1, _share(given, steps)) if isinstance(given, str) else given
    if not 1 <= found <= steps:
        fault("eval_every", f"found {found}; the run has {steps} steps")
    return found


def _missing(values: Mapping[str, Any], method: Method) -> list[str]:
    """What has to be written down and stands nowhere."""
    needed = ["batch_size", "learning_rate"]
    needed += [name for name in ("targets", "alpha") if name in method.settings]
    missing = [name for name in needed if name not in values]
    if "steps" not in values and "epochs" not in values:
        missing.append("steps (or epochs)")
    return missing


def _untrained(values: dict[str, Any]) -> None:
    """What says how to train says nothing of a method that doesn't: its jobs are the same whatever
    stands there."""
    values.pop("epochs", None)
    values.update(learning_rate=0.0, steps=1, batch_size=1, eval_every=1, warmup=0)
    values.update(gradient_accumulation=1, early_stopping=None, label_smoothing=0.0)
    values.update(halve_on_growth=False, compile=False, devices=1, shard=False, packing=False)


def _check_step(values: Mapping[str, Any], method: Method, task: Task, fault: Fault) -> None:
    """What a step, or the end of training, can't be."""
    rows, passes, weights = (
        values[name] for name in ("batch_size", "gradient_accumulation", "weights")
    )
    if rows % passes:
        fault(
            "gradient_accumulation",
            f"found {passes}; a step's {rows} rows (batch_size) are read in that many passes of "
            "equal size, so it must divide them",
        )
    elif rows // passes % (devices := values["devices"]):
        fault(
            "devices",
            f"found {devices}; they share the {rows // passes} rows of a pass (batch_size over "
            "gradient_accumulation) evenly, so it must divide them",
        )
    if values["devices"] > 1 and method.key in OF_A_PASS:
        fault(
            "devices",
            f"found {values['devices']} with {method.key}, which averages over the tokens of a "
            "pass; each process would average over its own rows; allowed: devices: 1",
        )
    if values["devices"] > 1 and values["compile"]:
        fault(
            "devices",
            f"found {values['devices']} with compile: true; compiled layers were tried in one "
            "process alone: allowed: 1, or compile: false",
        )
    for key, what in form_faults(values, method, task):
        fault(key, what)
    if weights not in ("fp32", values["precision"]):
        fault(
            "weights",
            f"found {weights} with precision {values['precision']}; a base stored in {weights} "
            f"computes in it (precision: {weights}), or is stored in fp32",
        )
    if values["label_smoothing"] and task.kind in ("regression", "multi-label"):
        fault(
            "label_smoothing",
            f"found {values['label_smoothing']} for {task.key}, a task of kind {task.kind}; only "
            "one right class or token among several can be smoothed",
        )
    if values["early_stopping"] is None:
        return
    if values["selection_rows"] == 0:
        fault("early_stopping", "selection_rows is 0; training ends by the score on these rows")
    if "after each step" in method.hooks and not method.schedule:
        fault(
            "early_stopping",
            f"{method.key} follows a schedule of its own to the last step: it would end half done",
        )


def _row_limits(values: dict[str, Any], task: Task, fault: Fault) -> int:
    """Settle the three row counts; returns the training rows left after the selection rows."""
    wanted: int = min(values["train_rows"] or task.train_rows, task.train_rows)
    selection: int | None = values["selection_rows"]
    if selection is None:
        selection = min(wanted // 10, MAX_SELECTION_ROWS)
    if selection > task.train_rows // 2:
        fault(
            "selection_rows",
            f"found {selection}; at most half of the {task.train_rows} training rows "
            f"of {task.key}: {task.train_rows // 2}",
        )
        selection = 0  # so that what follows tells faults of its own alone
    left = task.train_rows - selection
    values["selection_rows"] = selection
    values["train_rows"] = wanted if wanted < left else None
    values["eval_rows"] = (
        values["eval_rows"] if (values["eval_rows"] or task.eval_rows) < task.eval_rows else None
    )
    return min(wanted, left)
