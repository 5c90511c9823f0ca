"""Memory and time: peaks of allocators within a tolerance, times only where they can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from peftmark.analysis.stats import geometric_mean, holm, one_sided, wilcoxon
from peftmark.catalog.methods import Cell
from peftmark.gate.matching import Matched, Pair, finding
from peftmark.gate.policy import Policy
from peftmark.gate.result import Finding, Kind
from peftmark.gate.run_lines import Round
from peftmark.record.fields import title
from peftmark.render import words

SMALL = {
    "torch_allocated_bytes": 2 * 2**20,
    "torch_reserved_bytes": 32 * 2**20,
    "vmhwm_train_bytes": 64 * 2**20,
}
"""Growth in bytes that is never counted: what these peaks vary by themselves."""
NOISIER = {"vmhwm_train_bytes": 2.0, "torch_reserved_bytes": 2.0}
"""Peak -> how often the policy's growth it may grow."""
ROUNDS = 10
"""Interleaved rounds that binding timings need."""
TIME_ALPHA = 0.01
FLOOR = 3.0
"""A slowdown must exceed this many times what one side differs from itself."""


def memory(matched: Matched, policy: Policy) -> Iterator[Finding]:
    """Peaks that grew by more than the policy allows, on the task where they grew most (median over
    its seeds). Peaks of another kind of machine are not compared."""
    if matched.pairs and not any(p.same_machine for p in matched.pairs):
        text = "peaks of allocators and times are not compared: made on another kind of machine"
        yield finding("note", "memory.machine", None, text)
    for cell in matched.cells:
        pairs = [p for p in matched.of(cell) if p.same_machine]
        for name in SMALL:
            gone = [p for p in pairs if p.before.memory.get(name) and not p.after.memory.get(name)]
            if gone:
                text = f"{title(name)} is not known any more in {words.plural(len(gone), 'run')}"
                yield finding("incomplete", f"memory.{name}", cell, text)
            yield from _growth(cell, name, pairs, policy)


def _growth(cell: Cell, name: str, pairs: Sequence[Pair], policy: Policy) -> Iterator[Finding]:
    by_task: dict[str, list[tuple[int, int]]] = {}
    for p in pairs:
        a, b = p.before.memory.get(name), p.after.memory.get(name)
        if a and b:
            by_task.setdefault(p.before.task, []).append((a, b))
    if not by_task:
        return
    found = {
        task: (
            statistics.median(b / a for a, b in known),
            statistics.median(b - a for a, b in known),
        )
        for task, known in by_task.items()
    }
    task = max(found, key=lambda t: found[t])
    ratio, growth = found[task]
    if ratio > 1 + policy.memory_growth * NOISIER.get(name, 1.0) and growth > SMALL[name]:
        kind: Kind = "regression" if policy.memory == "binding" else "note"
        size = words.number(growth / words.MIB, 0, signed=True)
        text = f"{title(name)} is {words.times(ratio)} that of the baseline ({size} MiB) on {task}"
        yield finding(kind, f"memory.{name}", cell, text)


def peak_ratio(pairs: Sequence[Pair]) -> float | None:
    """After over before of the headline peak memory, geometric mean; None if unknown, or where one
    side is of a CPU and the other of a GPU, whose peaks are different quantities."""
    found = [
        b / a
        for p in pairs
        if p.before.device == p.after.device and (a := p.before.peak) and (b := p.after.peak)
    ]
    return geometric_mean(found) if found else None


def time_ratio(pairs: Sequence[Pair]) -> float | None:
    """After over before of the median step, geometric mean; None on another machine."""
    found = [
        b / a
        for p in pairs
        if p.same_machine and (a := p.before.step_seconds) and (b := p.after.step_seconds)
    ]
    return geometric_mean(found) if found else None


# --- times that bind ----------------------------------------------------------------------------


def times(matched: Matched, policy: Policy) -> Iterator[Finding]:
    """Slower steps: a note on a shared machine, a regression on an exclusive one.

    Exclusive and interleaved: both sides ran each job in turns, at least `ROUNDS` times. A round's
    figure is the mean log ratio of its jobs' fastest steps (10th percentile); a cell is slower if
    Wilcoxon's signed-rank test over the rounds says so, if the Hodges-Lehmann ratio exceeds both
    the policy's limit and `FLOOR` times what either side differs from itself, round to round, and
    if the odd and the even rounds agree.
    """
    if policy.timings == "advisory":
        yield from _advice(matched, policy)
        return
    found: dict[Cell, tuple[list[float], float]] = {}
    for cell in matched.cells:
        pairs = matched.of(cell)
        if not pairs or not cell.trains:
            continue
        obstacle = _obstacle(pairs)
        if obstacle:
            yield finding("undecided", "time.step", cell, f"times are binding, but {obstacle}")
            continue
        found[cell] = _ratios(pairs), _floor(pairs)
    fewest = min((len(ratios) for ratios, _ in found.values()), default=ROUNDS)
    if len(found) / 2**fewest > TIME_ALPHA:
        need = math.ceil(math.log2(len(found) / TIME_ALPHA))
        text = f"{fewest} rounds can't decide for {len(found)} cells; {need} can"
        yield finding("undecided", "time.step", None, text)
    adjusted = holm([_slower(ratios) for ratios, _ in found.values()])
    for (cell, (ratios, floor)), p in zip(found.items(), adjusted, strict=True):
        limit = math.log1p(max(policy.slowdown, math.expm1(FLOOR * floor)))
        halves = (hodges_lehmann(ratios[::2]), hodges_lehmann(ratios[1::2]))
        middle = hodges_lehmann(ratios)
        share = f"{words.number(100 * math.expm1(abs(middle)), 0)} %"
        noise = f"{words.number(100 * math.expm1(floor), 1)} %"
        basis = f"{len(ratios)} interleaved rounds, each side within {noise} of itself"
        if p is not None and p <= TIME_ALPHA and middle > limit and min(halves) > limit:
            text = f"a training step takes {share} longer; {basis}"
            yield finding("regression", "time.step", cell, text)
        elif middle > math.log1p(policy.slowdown):
            text = f"a training step seems to take {share} longer, which is not sure; {basis}"
            yield finding("undecided", "time.step", cell, text)
        elif middle < -limit and max(halves) < -limit:
            yield finding("improved", "time.step", cell, f"a training step is faster; {basis}")


def _advice(matched: Matched, policy: Policy) -> Iterator[Finding]:
    for cell in matched.cells:
        ratio = time_ratio(matched.of(cell))
        if ratio is not None and ratio > 1 + policy.slowdown:
            text = f"a training step took {words.times(ratio)} as long (advisory: times of two runs"
            yield finding("note", "time.step", cell, f"{text} that were not interleaved)")


def _obstacle(pairs: Sequence[Pair]) -> str:
    """Why the times of a cell can't bind; empty if they can."""
    if not all(p.same_machine for p in pairs):
        return "the two sides ran on different machines"
    rounds = min(min(len(p.before.rounds), len(p.after.rounds)) for p in pairs)
    if rounds < ROUNDS:
        return f"there are {words.plural(rounds, 'round')} of both sides, {ROUNDS} are needed"
    if not all(_interleaved(p.before.rounds, p.after.rounds) for p in pairs):
        return "the rounds of the two sides were not made in turns"
    if any(r.step_seconds is None for p in pairs for r in (*p.before.rounds, *p.after.rounds)):
        return "some runs have no step times"
    return ""


def _interleaved(before: Sequence[Round], after: Sequence[Round]) -> bool:
    """Whether each round of both sides was over before the next began."""
    both = list(zip(before, after, strict=False))
    return all(
        max(a.finished_at, b.finished_at) <= min(c.started_at, d.started_at)
        for (a, b), (c, d) in pairwise(both)
    )


def _ratios(pairs: Sequence[Pair]) -> list[float]:
    """Log ratio after to before of each round, mean over the jobs."""
    count = min(min(len(p.before.rounds), len(p.after.rounds)) for p in pairs)
    return [
        statistics.fmean(_log(p.after.rounds[i]) - _log(p.before.rounds[i]) for p in pairs)
        for i in range(count)
    ]


def _floor(pairs: Sequence[Pair]) -> float:
    """What one side differs from itself: the larger Hodges-Lehmann log ratio, in size, of the
    second half of its rounds to the first and of each round to the next."""
    found = []
    for read in ("before", "after"):
        sides = [getattr(p, read).rounds for p in pairs]
        count = min(map(len, sides))
        logs = [statistics.fmean(_log(side[i]) for side in sides) for i in range(count)]
        half = count // 2
        steps = [b - a for a, b in zip(logs[::2], logs[1::2], strict=False)]
        drift = [b - a for a, b in zip(logs[:half], logs[half:], strict=False)]
        found += [abs(hodges_lehmann(steps)), abs(hodges_lehmann(drift))]
    return max(found)


def _log(made: Round) -> float:
    assert made.step_seconds is not None
    return math.log(made.step_seconds)


def _slower(ratios: Sequence[float]) -> float | None:
    """One-sided p of the signed-rank test that ratios are not above 0."""
    p = wilcoxon(ratios)
    return None if p is None else one_sided(p, hodges_lehmann(ratios) > 0)


def hodges_lehmann(values: Sequence[float]) -> float:
    """Median of the means of all pairs, each value with itself too (Annals of Mathematical
    Statistics 34, 1963): as robust as a median, nearly as sharp as a mean."""
    array = np.asarray(values, dtype=np.float64)
    rows, columns = np.triu_indices(len(array))
    return float(np.median((array[rows] + array[columns]) / 2))
