"""The shape of a suite file: the types of everything in it.

Nothing here looks at more than one value at a time; what only the whole suite can tell (impossible
cells, schedules that don't fit) is checked in `peftmark.suite.load`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from peftmark.catalog.methods import Cell
from peftmark.catalog.models import MODELS
from peftmark.catalog.origins import SOURCES
from peftmark.catalog.tasks import TASKS
from peftmark.core.strict import Strict
from peftmark.core.strict_yaml import MAX_SUITE_BYTES as MAX_SUITE_BYTES
from peftmark.core.strict_yaml import read_yaml as read_yaml
from peftmark.own.declared import OwnTask
from peftmark.own.declared_model import OwnModel
from peftmark.record.recipe import Attention, Kernels, Optimizer, PadTo, Precision
from peftmark.suite.names import (
    OWN_NAME,
    AnyModel,
    AnyTask,
    MethodName,
    OwnModelName,
    QuantizationName,
    known,
    model_word,
)
from peftmark.suite.price import PriceText
from peftmark.suite.schema_runs import Decide, KnobName, Positive, Seed, Tuning, Vary

RADAR_AXES = (
    "quality", "speed", "memory", "energy", "parameters", "steps_to_target", "ease_of_use"
)  # fmt: skip
SIZE_KEYS = ("size", "rank", "width", "tokens")
TARGET_SETS = ("all-linear", "query-value", "attention")


# --- types --------------------------------------------------------------------------------------


def _own_name(value: str) -> str:
    if not OWN_NAME.fullmatch(value):
        raise PydanticCustomError(
            "name", "a task is named by lower-case letters, digits, - and _, at most 40"
        )
    if value in TASKS:
        raise PydanticCustomError(
            "taken", "the catalogue has a task of this name (peftmark list); take another"
        )
    return value


def _budget(value: Any) -> Any:
    """A number of parameters, or a share of the base's written "0.1%"."""
    if (
        isinstance(value, str)
        and re.fullmatch(r"[0-9]{1,2}(\.[0-9]+)?%", value)
        and float(value[:-1]) > 0
    ):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise PydanticCustomError(
        "budget", "a number of parameters, or a share of the base's such as 0.1%"
    )


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options that JSON can hold: the job's identity is made of them."""
    try:
        json.dumps(options, allow_nan=False)
    except ValueError as error:
        raise PydanticCustomError("plain", "infinite numbers and NaN are not allowed") from error
    return options


def _steps(value: Any) -> Any:
    """A number of steps, or a share of all steps written "10%"."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,2}(\.[0-9]+)?%", value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise PydanticCustomError("steps", "a whole number of steps, or a share such as 10%")


def _targets(value: Any) -> Any:
    if isinstance(value, str) and value in TARGET_SETS:
        return value
    if isinstance(value, list) and value and all(isinstance(v, str) and v for v in value):
        return tuple(value)
    raise PydanticCustomError(
        "targets",
        "allowed: {sets}, or a list of module name suffixes",
        {"sets": ", ".join(TARGET_SETS)},
    )


ModelName = Annotated[str, known("model", MODELS)]
TaskName = Annotated[str, known("task", TASKS)]
OwnName = Annotated[str, AfterValidator(_own_name)]
SourceName = Annotated[str, known("source", SOURCES)]
Budget = Annotated[int | str, BeforeValidator(_budget)]
Steps = Annotated[int | str, BeforeValidator(_steps)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
MOST_DEVICES = 64
"""Devices of a job at most: no machine that is known has more, and all are on one."""
Sizes = Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1)]
Word = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00-\x1f\x7f]+$")]


class AdaLoraLayer(Strict):
    """AdaLoRA's settings in a recipe layer; see `peftmark.record.recipe.AdaLoraSchedule`."""

    init_rank: Count | None = None
    init_ratio: Annotated[float, Field(gt=1, le=8)] | None = None
    tinit: Steps | None = None
    tfinal: Steps | None = None
    delta_t: Count | None = None
    beta1: Annotated[float, Field(gt=0, lt=1)] | None = None
    beta2: Annotated[float, Field(gt=0, lt=1)] | None = None
    orthogonal_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class RecipeLayer(Strict):
    """Part of a recipe; what it leaves out comes from the layers below it."""

    steps: Count | None = None
    epochs: Annotated[float, Field(gt=0, le=100_000)] | None = None
    batch_size: Count | None = None
    learning_rate: Positive | None = None
    schedule: Literal["linear", "constant", "cosine"] | None = None
    warmup: Steps | None = None
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max_grad_norm: Positive | None = None
    max_length: Annotated[int, Field(ge=8, le=8192)] | None = None
    precision: Precision | None = None
    weights: Precision | None = None
    optimizer: Optimizer | None = None
    gradient_accumulation: Count | None = None
    gradient_checkpointing: bool | None = None
    window_batches: Count | None = None
    train_rows: Count | None = None
    selection_rows: Annotated[int, Field(ge=0)] | None = None
    eval_rows: Count | None = None
    eval_every: Steps | None = None
    eval_batch_size: Count | None = None
    early_stopping: Count | None = None
    label_smoothing: Share | None = None
    halve_on_growth: bool | None = None
    pad_to: PadTo | None = None
    compile: bool | None = None
    attention: Attention | None = None
    devices: Annotated[int, Field(ge=1, le=MOST_DEVICES)] | None = None
    shard: bool | None = None
    packing: bool | None = None
    kernels: Kernels | None = None
    train_pooler: bool | None = None
    head_dropout: Share | None = None
    targets: Annotated[str | tuple[str, ...], BeforeValidator(_targets)] | None = None
    alpha: Positive | None = None
    dropout: Share | None = None
    double_quantization: bool | None = None
    adalora: AdaLoraLayer | None = None


class TaskEntry(Strict):
    """A task in a profile.

    Attributes:
        target: value of the task's metric that counts as reached.
        new_tokens: tokens that an answer may have, where answers are written.
        recipe: settings for this task.
    """

    target: float | None = None
    new_tokens: Annotated[int, Field(ge=1, le=1024)] | None = None
    recipe: RecipeLayer = RecipeLayer()

    @model_validator(mode="before")
    @classmethod
    def _no_fingerprint(cls, value: Any) -> Any:
        if isinstance(value, dict) and "fingerprint" in value:
            raise PydanticCustomError(
                "moved",
                "fingerprint is no key any more: rows of your own are a task of your own, declared "
                "at the top of the suite (tasks: {NAME: {kind: ..., train: FILE, ...}})",
            )
        return value


class MethodEntry(Strict):
    """One method with its axes; every combination of size and quantization is a cell.

    Attributes:
        size: the sizes, of whatever kind the method's is; `rank`, `width` and `tokens` say the
            same by the kind's own name.
        budget: parameters in place of a size, which is solved for on the real architecture.
        variant: a word that tells the entry from others of the same method in every table.
        options: settings of the method's own.
        tune: the values of each setting that a profile with `tuning` tries, every combination of
            them; unused without.
        learning_rates: the same for a grid of rates alone.
        model: another model than the profile's; the cells say which.
    """

    method: MethodName
    model: AnyModel | None = None
    size: Sizes | None = None
    rank: Sizes | None = None
    width: Sizes | None = None
    tokens: Sizes | None = None
    budget: Annotated[list[Budget], Field(min_length=1)] | None = None
    variant: Word = ""
    options: Annotated[dict[str, Any], AfterValidator(_plain)] = Field(default_factory=dict)
    quantization: Annotated[list[QuantizationName], Field(min_length=1)] = Field(
        default_factory=lambda: ["none"]
    )
    learning_rates: Annotated[list[Positive], Field(min_length=2)] | None = None
    tune: dict[KnobName, Annotated[list[Any], Field(min_length=2)]] | None = None
    recipe: RecipeLayer = RecipeLayer()
    task_recipe: dict[AnyTask, RecipeLayer] = Field(default_factory=dict)

    @property
    def grid(self) -> dict[str, list[Any]]:
        """Setting -> the values that trials try, the learning rate first."""
        if self.learning_rates:
            return {"learning_rate": list(self.learning_rates)}
        given = self.tune or {}
        return {name: given[name] for name in sorted(given, key=lambda n: n != "learning_rate")}

    def settings(self) -> list[dict[str, Any]]:
        """Every combination of the grid's values; none without a grid."""
        grid = self.grid
        if not grid:
            return []
        return [dict(zip(grid, one, strict=True)) for one in itertools.product(*grid.values())]

    @property
    def sizes(self) -> dict[str, list[int]]:
        """The keys that give sizes, with their values."""
        given = {name: getattr(self, name) for name in SIZE_KEYS}
        return {name: values for name, values in given.items() if values is not None}

    def cells(self) -> Iterator[tuple[Cell, int | str | None]]:
        """Every cell of the entry, with the budget that decides its size."""
        sizes = [size for values in self.sizes.values() for size in values]
        budgets: list[int | str | None] = [*(self.budget or [])]
        pairs = [(size, None) for size in sizes] + [(None, budget) for budget in budgets]
        for size, budget in pairs or [(None, None)]:
            words = [self.variant] if self.variant else []
            if self.model is not None:
                words.append(model_word(self.model))
            if budget is not None:
                words.append(f"budget {budget if isinstance(budget, str) else format(budget, ',')}")
            for quantization in self.quantization:
                yield Cell(self.method, size, quantization, ", ".join(words)), budget


class Profile(Strict):
    """One size of a suite: a model, its tasks, seeds and sources of data.

    Attributes:
        scale: whether it is the whole experiment or a cut-down one, which every page and verdict
            made of its rows says. A suite must tell (`peftmark.suite.load`).
        needs: what must be there for the profile to be chosen by itself: reachable data (a mirror,
            or a hub that answers), a GPU and such data, a GPU alone (device), or nothing.
        long: whether it is never chosen by itself, and runs only where somebody says so after
            what it takes was told; no job changes.
        sources: where models and rows may come from, tried in this order.
        methods: replaces the suite's list of methods.
        vary: values of settings that every cell is crossed with.
        tuning: choose settings by trials; without it the recipe's own count.
        decide: add seeds until a question is answered.
        rates: where learning rates without trials come from; verdicts say it, and no job changes.
        price: what an hour of the machine costs, for the report's price of a run; no job changes.
        timed_seeds: which seeds of every cell have a timed stretch where jobs share a GPU; no job
            changes.
        watts: that the processor takes while it works, where a report has processor seconds in
            place of energy; no job changes.
        unrelated: a language task not among `tasks`, to tell what a language model forgot.
    """

    summary: str
    needs: Literal["gpu", "device", "data", "nothing"]
    long: bool = False
    scale: Literal["full", "reduced"] | None = None
    sources: Annotated[list[SourceName], Field(min_length=1)]
    model: AnyModel
    seeds: Annotated[list[Seed], Field(min_length=1)]
    tasks: Annotated[dict[AnyTask, TaskEntry], Field(min_length=1)]
    methods: Annotated[list[MethodEntry], Field(min_length=1)] | None = None
    vary: Vary = Vary()
    tuning: Tuning | None = None
    decide: Decide | None = None
    rates: Annotated[str, Field(min_length=3, max_length=200)] = ""
    price: PriceText = ""
    timed_seeds: Literal["all", "first"] = "all"
    watts: Annotated[float, Field(gt=0, lt=1e5)] | None = None
    unrelated: TaskName | None = None
    recipe: RecipeLayer = RecipeLayer()

    def model_of(self, entry: MethodEntry) -> str:
        """The name of the model that an entry's cells train."""
        return entry.model or self.model


class CellName(Strict):
    """A cell by the names that a suite gives it; its size under `size` or the kind's own name."""

    method: MethodName
    size: Count | None = None
    rank: Count | None = None
    width: Count | None = None
    tokens: Count | None = None
    quantization: QuantizationName = "none"
    variant: str = ""

    @model_validator(mode="after")
    def _one_size(self) -> CellName:
        given = [name for name in SIZE_KEYS if getattr(self, name) is not None]
        if len(given) > 1:
            raise PydanticCustomError(
                "size", "one size; here: {given}", {"given": ", ".join(given)}
            )
        return self

    @property
    def cell(self) -> Cell:
        """The cell as tables name it."""
        sizes = (getattr(self, name) for name in SIZE_KEYS)
        size = next((size for size in sizes if size is not None), None)
        return Cell(self.method, size, self.quantization, self.variant)


class _Anchor(Strict):
    worst: Annotated[float, Field(allow_inf_nan=False)]
    best: Annotated[float, Field(allow_inf_nan=False)]
    scale: Literal["linear", "log"] = "linear"


class SuiteFile(Strict):
    """The shape of a suite file.

    Attributes:
        tasks: tasks of one's own by name (`peftmark.own`).
        models: models of one's own by name.
        claims: ids of the ledger (`peftmark.claims.ledger`).
    """

    suite: str
    version: Count
    summary: str
    reference: CellName | None = None
    radar: dict[Annotated[str, known("radar axis", RADAR_AXES)], _Anchor]
    tasks: dict[OwnName, OwnTask] = Field(default_factory=dict)
    models: dict[OwnModelName, OwnModel] = Field(default_factory=dict)
    recipe: RecipeLayer = RecipeLayer()
    methods: Annotated[list[MethodEntry], Field(min_length=1)]
    profiles: Annotated[dict[str, Profile], Field(min_length=1)]
    claims: list[str] = Field(default_factory=list)
