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
(b^(T), section 3.3): they end at the total rank that fills the budget when spread evenly. They
start above it, and where modules differ in shape the final count moves with what is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor, inf, sqrt
from typing import Any

from peftmark.lab.memory.meta_model import Counter
from peftmark.lab.methods import Setting
from peftmark.lab.models import Anatomy, Unsupported
from peftmark.record.job import Job

TOLERANCE = 0.02
"""How far from its budget a cell may be, as a share of the budget."""

MAX_SIZE = 65_536

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
        what, where = "size", ""
        if self.sizes:
            what, where = "even spread", f" in {len(self.sizes)} of {self.modules} modules"
        smallest = " (its smallest)" if self.size == 1 and len(self.sizes or "1") == 1 else ""
        limit = f" Nothing larger: {self.limit}." if self.limit else ""
        return (
            f"no {what} of {self.job.method} comes within {TOLERANCE:.0%} of {self.wanted:,} "
            f"adapter parameters: the nearest is {self.size}{where}{smallest} with "
            f"{self.parameters:,}, {self.off:+.1%}.{limit} Change the budget or the method's "
            "options, or give a size."
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
    among = _chosen(start.job, counter.parts(), names)
    constant, costs = _costs(counter, start.head, one, names)
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
    counter: Counter, head: int, one: Mapping[str, int], names: Sequence[str]
) -> tuple[int, dict[str, Cost]]:
    """What of the adapter no module's size changes, and each module's cost.

    A tensor that grows with the size costs its module by the rank; what else a module's adapter
    holds (a magnitude, a bias) is gone when the module gets none. `one` is every trainable tensor's
    elements with size 1 everywhere.
    """
    two = counter.tensors(2)[0]
    alone: list[dict[str, int]] = []
    if 2 * sum(one.values()) - sum(two.values()) > head:  # something besides the head doesn't grow
        alone = [counter.tensors(1, {name: 1})[0] for name in (names[0], names[-1])]
    fixed, unit = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    constant = -head
    for tensor, count in one.items():
        grows = two[tensor] - count
        owners = [n for n in names if _within(n, tensor)]
        if owners and (grows or not all(tensor in build for build in alone)):
            owner = max(owners, key=len)
            unit[owner] += grows
            fixed[owner] += count - grows
        else:
            constant += count
    return constant, {name: Cost(fixed[name], unit[name]) for name in names}


def _within(module: str, tensor: str) -> bool:
    """Whether a module's name is in a tensor's, whatever wrapping put in between."""
    parts = iter(tensor.split("."))
    return all(part in parts for part in module.split("."))


def _chosen(job: Job, parts: Anatomy, names: Sequence[str]) -> list[str]:
    """The modules that share the budget: all of them, or those of as many layers as a method that
    chooses layers will choose. Which ones doesn't matter here: an encoder's layers are alike.

    Raises:
        Unsupported: if the layers hold none of them.
    """
    if job.method != "sensitive-layers":
        return list(names)
    count = max(1, int(job.recipe.options["ratio"] * len(parts.blocks)))
    layers = [f"{block.name}." for block in parts.blocks[:count]]
    found = [name for name in names if any(name.startswith(layer) for layer in layers)]
    if not found:
        raise Unsupported(
            f"targets {job.recipe.targets!r} match nothing in the layers of {job.model}; choose "
            "targets within the layers"
        )
    return found


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
    if job.method == "sensitive-layers" and job.size is not None:
        _, names = counter.tensors(job.size)
        sizes = dict.fromkeys(_chosen(job, counter.parts(), names), job.size)
    found = counter.adapter(job.size, sizes)
    return found, found
