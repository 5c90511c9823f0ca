"""Published memory figures and what a predicted training step says of them.

A ledger is `claims/memory.yaml` below a folder of suites. Each figure states the run it is of; what
its source leaves out stands under `unstated` with the values to try, and every combination is one
reading, predicted by `peftmark.memory.forecast`. How a reading is held against the figure depends
on what was measured (v: predicted bytes of tensors as the allocator rounds them, c: what CUDA's
context and libraries take beside, f: the figure; "close" is within 10 % of f):

- allocated, estimate (a sum on paper): v close to f.
- reserved: holds tensors and the allocator's cache, whose size nobody predicts. One-sided: v above
  f by more than 10 % is impossible, anything else is possible, and nothing confirms.
- nvidia-smi: as reserved, with v + c in place of v.
- unknown (the source doesn't say): fits if both v and v + c are close; impossible if v is above f
  by more than 10 %, since no meter shows less than the tensors; else possible.
- a figure that something fits into: v + c at most f. One that is needed: v at least f.
- a ratio of two runs: the ratio of their v close to f (of v + c for nvidia-smi; of both for
  unknown). One of reserved bytes is never judged: the cache may move it either way.

A figure is confirmed only if every reading fits, refuted only if none is possible, else undecided.
A prediction that fails makes it unknown. One of a run with model code of its own is not comparable:
a prediction runs that of transformers. Nor is a ratio of two methods whose batch or length differs
too: the reason then has the ratio that is predicted with both sides alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from peftmark.claims.memory_ledger import Figure, load_figures
from peftmark.machine.gpus import CONTEXT_BYTES
from peftmark.memory.forecast import Forecast, forecasts

CLOSE = 0.1
"""Largest difference from a figure, relative to it, that counts as the same."""
UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30, "ratio": 1}

Kind = Literal["confirmed on paper", "refuted on paper", "undecided", "not comparable", "unknown"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Holds = Literal["fits", "possible", "impossible"]


@dataclass(frozen=True)
class Reading:
    """One choice of what the source leaves out.

    Attributes:
        chosen: field -> value.
        value: predicted, in the figure's unit; None if it couldn't be.
        holds: how it stands to the figure.
        reason: why nothing could be predicted.
        fair: of an unfair ratio, what is predicted with both sides alike.
    """

    chosen: dict[str, Any]
    value: float | None
    holds: Holds = "possible"
    reason: str = ""
    fair: float | None = None


@dataclass(frozen=True)
class MemoryVerdict:
    """What predictions say of a figure, or of a part of one.

    Attributes:
        part: its name, empty for the figure itself.
        claimed: in the figure's unit.
        parts: verdicts of the parts; a figure is confirmed only if its parts are, and refuted if
            one is.
    """

    figure: Figure
    claimed: float
    kind: Kind
    reason: str
    readings: tuple[Reading, ...]
    part: str = ""
    parts: tuple[MemoryVerdict, ...] = ()

    @property
    def span(self) -> tuple[float, float] | None:
        """Lowest and highest prediction; None if one is missing."""
        values = [r.value for r in self.readings]
        known_ones = [value for value in values if value is not None]
        return (min(known_ones), max(known_ones)) if len(known_ones) == len(values) else None

    @property
    def fitting(self) -> tuple[Reading, ...]:
        """The readings that fit."""
        return tuple(r for r in self.readings if r.holds == "fits" and r.value is not None)


def memory_verdicts(
    ledger: Path | None,
    cache: Path | None,
    heard: Callable[[int, int], None] = lambda done, total: None,
    only_kept: bool = False,
) -> list[MemoryVerdict]:
    """Predict every reading of every figure, and judge.

    Args:
        ledger: None for the shipped one.
        cache: folder of the cache; None to keep nothing.
        heard: told how many of how many steps are predicted.
        only_kept: predict nothing that the cache doesn't hold.

    Raises:
        SuiteError: a ledger with faults.
    """
    figures = load_figures(ledger)
    asked = [s.request() for figure in figures for _, pair in figure.readings for s in pair]
    told = iter(forecasts(asked, cache, heard=heard, only_kept=only_kept))
    return [
        judge(figure, [[next(told) for _ in pair] for _, pair in figure.readings])
        for figure in figures
    ]


WORST_FIRST: tuple[Kind, ...] = (
    "unknown",
    "not comparable",
    "refuted on paper",
    "undecided",
    "confirmed on paper",
)


def combined_kind(kinds: Sequence[Kind]) -> Kind:
    """The verdict on several figures that must all hold."""
    return next(kind for kind in WORST_FIRST if kind in kinds)


def judge(figure: Figure, found: Sequence[Sequence[Forecast]]) -> MemoryVerdict:
    """The verdict on a figure.

    Args:
        found: for each of the figure's readings the forecast of its scenario, or of both.
    """
    whole = _judged(figure, figure.figure, figure.of, found)
    parts = tuple(
        _judged(figure, part.figure, part.of, found, name)
        for name, part in (figure.parts or {}).items()
    )
    kind = combined_kind([whole.kind, *(part.kind for part in parts)])
    refuted = [part.part for part in parts if part.kind == "refuted on paper"]
    reason = whole.reason
    if refuted and whole.kind != "unknown":
        reason = f"{whole.reason}; {len(refuted)} of {len(parts)} parts are refuted"
    return MemoryVerdict(
        figure, whole.claimed, kind, reason.removeprefix("; "), whole.readings, "", parts
    )


def _judged(
    figure: Figure,
    claimed: float,
    of: Sequence[str] | None,
    found: Sequence[Sequence[Forecast]],
    part: str = "",
) -> MemoryVerdict:
    readings = tuple(
        _reading(figure, claimed, of, chosen, told)
        for (chosen, _), told in zip(figure.readings, found, strict=True)
    )
    kind, reason = _verdict(figure, claimed, readings)
    return MemoryVerdict(figure, claimed, kind, reason, readings, part)


def _reading(
    figure: Figure,
    claimed: float,
    of: Sequence[str] | None,
    chosen: dict[str, Any],
    told: Sequence[Forecast],
) -> Reading:
    reason = next((one.reason for one in told if one.reason), "")
    if reason:
        return Reading(chosen, None, "possible", reason)
    scale = UNITS[figure.unit]
    sizes = [float(_bytes(one, of)) for one in told]
    context = CONTEXT_BYTES if of is None else 0

    def taken(with_context: bool) -> float:
        one, *others = (size + (context if with_context else 0) for size in sizes)
        return one / (others[0] if others else scale)

    alone, all_of_it = taken(False), taken(True)
    fair = sizes[2] / sizes[1] if figure.unfair else None
    return Reading(chosen, alone, _held(figure, claimed, alone, all_of_it), fair=fair)


def _bytes(one: Forecast, of: Sequence[str] | None) -> int:
    if of is None:
        return one.allocated
    return sum({**one.live, "paged": one.paged}.get(name, 0) for name in of)


def _held(figure: Figure, claimed: float, alone: float, all_of_it: float) -> Holds:
    """How one reading stands to the figure; the module's text has the rules."""
    if figure.kind == "fits":
        return "fits" if all_of_it <= claimed else "impossible"
    if figure.kind == "needs":
        return "fits" if alone >= claimed else "impossible"
    if figure.meter in ("allocated", "estimate"):
        return "fits" if _close(alone, claimed) else "impossible"
    if figure.kind == "ratio":
        tried = {"nvidia-smi": [all_of_it], "unknown": [alone, all_of_it]}.get(figure.meter)
        if tried is None:
            return "possible"
        near = [_close(one, claimed) for one in tried]
        return "fits" if all(near) else "possible" if any(near) else "impossible"
    if figure.meter == "unknown" and _close(alone, claimed) and _close(all_of_it, claimed):
        return "fits"
    least = all_of_it if figure.meter == "nvidia-smi" else alone
    return "impossible" if least > claimed * (1 + CLOSE) else "possible"


def _close(value: float, claimed: float) -> bool:
    return abs(value - claimed) <= CLOSE * claimed * (1 + 1e-12)


def _verdict(figure: Figure, claimed: float, readings: Sequence[Reading]) -> tuple[Kind, str]:
    if figure.unfair:
        return "not comparable", _unfair(figure, readings)
    if reason := next((r.reason for r in readings if r.reason), ""):
        return "unknown", reason
    if figure.code == "other":
        return "not comparable", "the source ran model code of its own, not that of transformers"
    held = {r.holds for r in readings}
    if held == {"fits"}:
        return "confirmed on paper", ""
    if held == {"impossible"}:
        return "refuted on paper", _why_not(figure, claimed, readings)
    reasons = []
    if "possible" in held:
        reasons.append(_cannot(figure))
    if len(held) > 1:
        names = ", ".join(n for n, values in figure.unstated.items() if len(values) > 1)
        reasons.append(f"depends on what the source doesn't say: {names}")
    return "undecided", "; ".join(reasons)


def _unfair(figure: Figure, readings: Sequence[Reading]) -> str:
    """What the two runs differ in, and the ratio that is predicted with both sides alike."""
    other = figure.over or {}
    differ = ", ".join(f"{n} {figure.scenario[n]} against {other[n]}" for n in figure.unfair)
    alike = " and ".join(f"{n} {other[n]}" for n in figure.unfair)
    missing = next((r.reason for r in readings if r.reason), "")
    values = sorted(r.fair for r in readings if r.fair is not None)
    if missing or not values:
        return f"an unfair comparison: {differ}; with {alike} on both sides: {missing}"
    low, high = (f"{value:.2f}" for value in (values[0], values[-1]))
    ratio = low if low == high else f"{low} to {high}"
    return f"an unfair comparison: {differ}; with {alike} on both sides {ratio} is predicted"


def _why_not(figure: Figure, claimed: float, readings: Sequence[Reading]) -> str:
    if figure.kind == "fits":
        return "tensors and CUDA's context take more under every reading"
    if figure.kind == "needs":
        return "less is enough under every reading"
    values = [r.value for r in readings if r.value is not None]
    over, under = min(values) / claimed, max(values) / claimed
    if over > 1:
        return f"every reading takes at least {over:.3g} times as much"
    if under < 1:
        return f"every reading takes at most {under:.2g} of it"
    return "readings lie on both sides, none within 10 %"


def _cannot(figure: Figure) -> str:
    if figure.kind == "ratio":
        return "a ratio of reserved or unnamed bytes can't be held exactly"
    if figure.meter == "unknown":
        return "the source names no meter, and what the driver or the allocator shows may be more"
    what = "CUDA's context and " if figure.meter == "nvidia-smi" else ""
    return f"{figure.meter} holds {what}the allocator's cache too, which nobody predicts"
