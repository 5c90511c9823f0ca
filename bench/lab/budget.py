"""Parameter budgets: the size that gives a method the adapter parameters asked for.

A budget counts the trainable parameters of the adapter; what trains of classifier and pooler is
left out. A share such as 0.1% is of the base's parameters, again without classifier and trained
pooler: 354,310,144 for RoBERTa-large, so 354,310.

Everything is counted, not computed: the architecture is built on torch's meta device, where tensors
have shapes and no values, and the real method is put on it. A method that sizes its modules one by
one (it calls `Setting.sized`) may get unequal sizes: the same everywhere, and one more in as many
modules as the rest of the budget pays for. Where one each is too much, modules are left out. All
others get the whole number whose count is nearest.

AdaLoRA and the two-stage method are matched by what is active at the end, as in the AdaLoRA paper
(b^(T), section 3.3): the total rank that would fill the budget if it were spread evenly. They start
above it, and where the allocator keeps ranks decides which shapes they pay for, so the final count
moves with the data wherever modules differ in shape.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor, inf, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from bench.lab.methods import Setting, prepare, trainable
from bench.lab.models import Anatomy, Unsupported, anatomy_of, trained_head
from bench.record import Job

TOLERANCE = 0.02
"""How far from its budget a cell may be, as a share of the budget."""

MAX_SIZE = 65_536

_PLAIN = (
    "pissa", "olora", "loftq", "eva", "corda", "lora-ga", "sensitive-layers", "sensitive-ranks",
)  # fmt: skip
# Methods that look at weights or data to start, which the meta device has not -> the method whose
# tensors have the same shapes.
_COUNTED_AS = dict.fromkeys(_PLAIN, "lora") | {"two-stage": "adalora"}

_GOLDEN = (sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Cost:
    """Trainable parameters of one module's adapter: `fixed` for having one, `unit` a rank."""

    fixed: int
    unit: int


@dataclass(frozen=True)
class Solved:
    """What a budget gave.

    Attributes:
        job: the job with what the size decides (AdaLoRA's first rank) filled in.
        wanted: adapter parameters asked for.
        parameters: adapter parameters of the solution.
        head: trainable parameters of classifier and pooler, which come on top.
        size: rank, width or tokens; the mean over modules, rounded, where they differ.
        sizes: module or layer -> its size; None for a method with one size. For a method that
            chooses layers by data, of as many layers from the input up.
        modules: how many modules share the budget; 0 for a method with one size.
        limit: why nothing larger could be counted; empty if nothing stood in the way.
    """

    job: Job
    wanted: int
    parameters: int
    head: int
    size: int
    sizes: dict[str, int] | None = None
    modules: int = 0
    limit: str = ""
    constant: int = 0
    costs: dict[str, Cost] = field(default_factory=dict)

    @property
    def off(self) -> float:
        """How far the solution is from the budget, as a share of it."""
        return self.parameters / self.wanted - 1

    @property
    def refusal(self) -> str | None:
        """Why the cell can't run; None if it is near enough."""
        if abs(self.off) <= TOLERANCE:
            return None
        smallest = " (its smallest)" if self.off > 0 and self.size == 1 else ""
        limit = f" Nothing larger: {self.limit}." if self.limit else ""
        return (
            f"no size of {self.job.method} comes within {TOLERANCE:.0%} of {self.wanted:,} adapter "
            f"parameters: the nearest is {self.size}{smallest} with {self.parameters:,}, "
            f"{self.off:+.1%}.{limit} Change the budget or the method's options, or give a size."
        )

    def sized(self, names: Sequence[str]) -> dict[str, int]:
        """The budget spread over these modules; those that get nothing are left out."""
        return _named(names, spread([self.costs[n] for n in names], self.wanted - self.constant))


@dataclass(frozen=True)
class Budgeted(Setting):
    """A setting whose sizes come from a budget.

    The budget is spread over the modules that the method asks for, since a method may choose them
    by data.
    """

    solved: Solved | None = None

    def sized(self, names: Sequence[str]) -> dict[str, int]:
        """See `Setting.sized`."""
        if self.solved is None or self.sizes is None:
            return super().sized(names)
        return self.solved.sized(names)


def spread(costs: Sequence[Cost], wanted: int) -> list[int]:
    """The size of each module, equal but for one more in some, nearest to a total.

    Modules get that one more in the order of the golden ratio's multiples (modulo one), which is
    even over any number of them and, unlike each n-th, favours no kind of module in a layer.

    Args:
        wanted: parameters to reach.
    """
    if not costs:
        return []
    least = max(0, floor((wanted - sum(c.fixed for c in costs)) / sum(c.unit for c in costs)))
    sizes = [least] * len(costs)
    left = wanted - sum(c.fixed + c.unit * least for c in costs) if least else wanted
    steps = [c.unit if least else c.fixed + c.unit for c in costs]
    for i in sorted(range(len(costs)), key=lambda i: (i + 1) * _GOLDEN % 1):
        if abs(left - steps[i]) < abs(left):
            sizes[i] += 1
            left -= steps[i]
    if not any(sizes):
        sizes[steps.index(min(steps))] = 1
    return sizes


def _named(names: Sequence[str], sizes: Sequence[int]) -> dict[str, int]:
    return {name: size for name, size in zip(names, sizes, strict=True) if size}


def config_of(source: Path | Mapping[str, Any], classes: int) -> Any:
    """A model's configuration, from its folder or from plain data, for a number of classes."""
    if isinstance(source, Path):
        return AutoConfig.from_pretrained(source, num_labels=classes, local_files_only=True)
    return AutoConfig.for_model(**source, num_labels=classes)


def blank(config: Any) -> nn.Module:
    """A sequence classifier without values, on the meta device."""
    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    return model


@dataclass(frozen=True)
class _Recorder(Setting):
    """A setting that notes which modules a method asks the sizes of."""

    asked: list[str] = field(default_factory=list)

    def sized(self, names: Sequence[str]) -> dict[str, int]:
        self.asked[:] = names
        return super().sized(names)


@dataclass(frozen=True)
class Counter:
    """Counts a job's adapter parameters for any size.

    Args:
        job: its quantization doesn't matter.
        config: of the model, with the task's number of labels.
    """

    job: Job
    config: Any

    def parts(self) -> Anatomy:
        """Where things are in the architecture."""
        return anatomy_of(blank(self.config))

    def split(self) -> tuple[int, int]:
        """Parameters of the base and of the head (with the pooler, if it trains)."""
        model = blank(self.config)
        parts = anatomy_of(model)
        names = trained_head(parts, self.job.recipe.train_pooler)
        head = sum(p.numel() for name in names for p in model.get_submodule(name).parameters())
        return sum(p.numel() for p in model.parameters()) - head, head

    def tensors(
        self, size: int | None, sizes: dict[str, int] | None = None
    ) -> tuple[dict[str, int], list[str]]:
        """Elements of every trainable tensor, and the modules whose sizes the method asked for.

        Raises:
            Unsupported: if the method can't sit on this architecture.
        """
        model = blank(self.config)
        recipe = self.job.recipe
        schedule = recipe.adalora
        if schedule is not None and size is not None:  # AdaLoRA as it ends
            schedule = replace(schedule, init_rank=size)
        job = replace(
            self.job, method=_COUNTED_AS.get(self.job.method, self.job.method),
            quantization="none", rank=size, recipe=replace(recipe, adalora=schedule),
        )  # fmt: skip
        setting = _Recorder(
            job=job, parts=anatomy_of(model), device=torch.device("meta"), preview=_nothing,
            loss=_nothing, fresh_base=lambda: blank(self.config),
            plain_base=lambda: blank(self.config), size=size, sizes=sizes,
        )  # fmt: skip
        with torch.device("meta"), warnings.catch_warnings():
            # PEFT asks transformers for a property under its old name.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            prepared = prepare(model, setting)
        # PEFT's name for the layer inside: a bias has it or not as its module gets an adapter.
        bare = ((name.replace(".base_layer", ""), p) for name, p in trainable(prepared.model))
        return {name: p.numel() for name, p in bare}, setting.asked

    def adapter(self, size: int | None, sizes: dict[str, int] | None = None) -> int:
        """Trainable parameters less those of the head."""
        return sum(self.tensors(size, sizes)[0].values()) - self.split()[1]


def _nothing(*_: Any) -> Any:
    raise Unsupported("a budget is solved before any data is seen")


def solve(job: Job, config: Any) -> Solved:
    """The size that brings a job nearest to its budget.

    Args:
        job: with `recipe.budget`.
        config: of the model, with the task's number of labels.

    Raises:
        Unsupported: if the method can't sit on this architecture at all.
    """
    counter = Counter(job, config)
    base, head = counter.split()
    budget = job.recipe.budget
    assert budget is not None
    wanted = budget if isinstance(budget, int) else round(float(budget[:-1]) / 100 * base)
    start = Solved(job, max(1, wanted), 0, head, 1)
    one, names = counter.tensors(1)
    return _by_module(counter, start, one, names) if names else _whole(counter, start)


def _by_module(
    counter: Counter, start: Solved, one: Mapping[str, int], names: Sequence[str]
) -> Solved:
    constant, costs = _costs(counter, one, names)
    among = _chosen(start.job, counter.parts(), names)
    constant -= start.head
    for last in (False, True):
        solved = replace(start, constant=constant, costs=costs, modules=len(among))
        sizes = solved.sized(among)
        size = round(sum(sizes.values()) / len(sizes))
        sure = constant + sum(costs[n].fixed + costs[n].unit * k for n, k in sizes.items())
        # AdaLoRA starts with all modules, so its end can't be built.
        real = sure if start.job.recipe.adalora else counter.adapter(size, sizes)
        if last or real == sure:
            break
        # Parts that modules share (UniPELT's gates) are told wrongly from those of one module.
        constant += real - sure
    job = _with_first_rank(start.job, sum(sizes.values()) / len(among))
    return replace(solved, job=job, parameters=real, size=size, sizes=sizes)


def _costs(
    counter: Counter, one: Mapping[str, int], names: Sequence[str]
) -> tuple[int, dict[str, Cost]]:
    """What no module can change (the head among it), and each module's cost.

    A tensor that grows with the size belongs to its module and costs by the rank. What else a
    module's adapter holds (a magnitude, a bias) is gone when the module gets none.

    Args:
        one: elements of every trainable tensor with size 1 everywhere.
    """
    two = counter.tensors(2)[0]
    alone = [counter.tensors(1, {name: 1})[0] for name in (names[0], names[-1])]
    fixed, unit = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    constant = 0
    for tensor, count in one.items():
        grows = two[tensor] - count
        stays = count - grows
        if not grows and all(tensor in build for build in alone):
            constant += stays
            continue
        owners = [n for n in names if _within(n, tensor)]
        if owners:
            owner = max(owners, key=len)
            unit[owner] += grows
            fixed[owner] += stays
        else:
            constant += count
    return constant, {name: Cost(fixed[name], unit[name]) for name in names}


def _within(module: str, tensor: str) -> bool:
    """Whether a module's name is in a tensor's, whatever wrapping put in between."""
    parts = iter(tensor.split("."))
    return all(part in parts for part in module.split("."))


def _chosen(job: Job, parts: Anatomy, names: Sequence[str]) -> list[str]:
    """The modules that share the budget: all of them, or those of as many layers as a method that
    chooses layers will choose. Which ones doesn't matter here: an encoder's layers are alike."""
    if job.method != "sensitive-layers":
        return list(names)
    count = max(1, int(job.recipe.options["ratio"] * len(parts.blocks)))
    layers = [f"{block.name}." for block in parts.blocks[:count]]
    return [name for name in names if any(name.startswith(layer) for layer in layers)]


def _with_first_rank(job: Job, mean: float) -> Job:
    """The job with AdaLoRA's first rank: init_ratio times the mean final rank, and above it."""
    schedule = job.recipe.adalora
    if schedule is None:
        return job
    assert schedule.init_ratio is not None
    first = max(floor(mean) + 1, round(schedule.init_ratio * mean))
    return replace(job, recipe=replace(job.recipe, adalora=replace(schedule, init_rank=first)))


def _whole(counter: Counter, start: Solved) -> Solved:
    """The one size whose count is nearest, by secants and bisection.

    A size that the method refuses is too large.
    """
    counts: dict[int, float] = {}
    limit = ""

    def count(size: int) -> float:
        nonlocal limit
        if size not in counts:
            try:
                counts[size] = counter.adapter(size)
            except Unsupported as refused:
                counts[size], limit = inf, str(refused)
        return counts[size]

    def between(low: int, high: int) -> int:
        """Where a straight line through both counts meets the budget."""
        share = (start.wanted - count(low)) / (count(high) - count(low))
        return low + round(share * (high - low))

    low, high = 1, 2
    while count(low) < count(high) < start.wanted and high < MAX_SIZE:
        low, high = high, min(MAX_SIZE, between(low, high) + 1)
    turn = 0
    while high - low > 1:  # counts that don't grow evenly need every other turn halved
        straight = turn % 2 == 0 and count(high) < inf
        middle = between(low, high) if straight else (low + high) // 2
        middle = min(max(middle, low + 1), high - 1)
        low, high = (middle, high) if count(middle) <= start.wanted else (low, middle)
        turn += 1
    size = min(counts, key=lambda k: (abs(counts[k] - start.wanted), k))
    return replace(
        start, size=size, parameters=int(counts[size]), limit=limit if count(high) == inf else ""
    )


def count(job: Job, config: Any) -> tuple[int, int]:
    """Adapter parameters of a job as it trains, fewest and most: they differ where data decides.

    AdaLoRA and the two-stage method are counted as they end, a layered hybrid as it starts.
    """
    counter = Counter(job, config)
    options = job.recipe.options
    if job.method == "sensitive-ranks":
        return counter.adapter(options["min_rank"]), counter.adapter(options["max_rank"])
    sizes = None
    if job.method == "sensitive-layers" and job.rank is not None:
        _, names = counter.tensors(job.rank)
        sizes = dict.fromkeys(_chosen(job, counter.parts(), names), job.rank)
    found = counter.adapter(job.rank, sizes)
    return found, found
