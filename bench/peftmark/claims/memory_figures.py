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
a prediction runs that of transformers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from peftmark.claims.ledger import Text
from peftmark.core.errors import SuiteError
from peftmark.core.strict import Strict
from peftmark.core.strict_yaml import read_yaml
from peftmark.machine.gpus import CONTEXT_BYTES
from peftmark.memory.forecast import Forecast, forecasts
from peftmark.memory.published_run import Scenario, fault, filled
from peftmark.record.fields import LIVE_PARTS
from peftmark.suite.checks import suite_folders
from peftmark.suite.faults import fault_lines
from peftmark.suite.schema import Positive, Word, known

LEDGER = Path("claims") / "memory.yaml"
CLOSE = 0.1
"""Largest difference from a figure, relative to it, that counts as the same."""
MOST_READINGS = 24
UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30, "ratio": 1}
COMPONENTS = (*(part.key for part in LIVE_PARTS), "paged")
"""Parts of a peak, and optimizer states that may be paged out."""

Kind = Literal["confirmed on paper", "refuted on paper", "undecided", "not comparable", "unknown"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# --- the ledger ---------------------------------------------------------------------------------


Components = Annotated[list[Annotated[str, known("component", COMPONENTS)]], Field(min_length=1)]


class PartFigure(Strict):
    """A figure of one part of a peak: the sum of some components at that moment."""

    figure: Positive
    of: Components


class Figure(Strict):
    """A published figure.

    Attributes:
        claim: of the ledger of claims; None where no claim there says it.
        says: what the source says, in one sentence.
        kind: the figure is what a run takes, what it fits into, what it needs at least, or what
            `scenario` takes over what `over` takes.
        meter: what was measured; "estimate" is a sum that the source gives without a measurement.
        code: whose model code ran.
        of: the components that the figure is about; None for the whole peak.
        parts: figures of parts, in the same unit.
        unstated: field of the scenarios -> values to try; fills whichever leaves the field out.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    claim: Annotated[str, Field(pattern=r"^[A-Z]{1,8}\d{2,4}$")] | None
    says: Text
    source: Text
    figure: Positive
    unit: Literal["MB", "GB", "MiB", "GiB", "ratio"]
    kind: Literal["is", "fits", "needs", "ratio"]
    meter: Literal["allocated", "reserved", "nvidia-smi", "estimate", "unknown"]
    code: Literal["transformers", "other"] = "transformers"
    of: Components | None = None
    parts: Annotated[dict[Word, PartFigure], Field(min_length=1)] | None = None
    scenario: dict[str, Any]
    over: dict[str, Any] | None = None
    unstated: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    caveat: Text | None = None

    @model_validator(mode="after")
    def _whole(self) -> Figure:
        ratio = self.kind == "ratio"
        if ratio != (self.over is not None) or ratio != (self.unit == "ratio"):
            raise fault("a ratio, and nothing else, has `over` and the unit ratio")
        if self.kind != "is" and (self.parts or self.of):
            raise fault("`of` and `parts` are of a figure that is what a run takes")
        count = len(self.combinations)
        if count > MOST_READINGS:
            raise fault(f"`unstated` has {count} combinations; at most {MOST_READINGS}")
        _ = self.readings
        return self

    @cached_property
    def combinations(self) -> list[dict[str, Any]]:
        """Every choice of the values to try."""
        names = list(self.unstated)
        return [
            dict(zip(names, chosen, strict=True))
            for chosen in itertools.product(*self.unstated.values())
        ]

    @cached_property
    def readings(self) -> list[tuple[dict[str, Any], tuple[Scenario, ...]]]:
        """Each choice with the scenario, or both, that it makes."""
        raw = [self.scenario, *([self.over] if self.over is not None else [])]
        for name, values in self.unstated.items():
            if name not in Scenario.model_fields:
                raise fault(f"unstated: {name} is no field of a scenario")
            if all(name in scenario for scenario in raw):
                raise fault(f"unstated: {name} is stated")
            if any(value in values[:place] for place, value in enumerate(values)):
                raise fault(f"unstated: {name} has a value twice")
        return [
            (chosen, tuple(filled(scenario, chosen) for scenario in raw))
            for chosen in self.combinations
        ]


class _LedgerFile(Strict):
    figures: Annotated[list[Figure], Field(min_length=1)]


def load_figures(path: Path | None = None) -> list[Figure]:
    """The figures of a ledger, in its order.

    Args:
        path: None for the first ledger among the folders of suites.

    Raises:
        SuiteError: no ledger, or one with faults: every one on a line.
    """
    if path is None:
        places = [folder / LEDGER for folder in suite_folders(None)]
        path = next((place for place in places if place.is_file()), places[-1])
    raw = read_yaml(path)
    try:
        figures = _LedgerFile.model_validate(raw).figures
        ids = [figure.id for figure in figures]
        faults = [
            f"figures: the id {name} stands here twice"
            for place, name in enumerate(ids)
            if name in ids[:place]
        ]
    except ValidationError as error:
        figures, faults = [], [_named(fault, raw) for fault in fault_lines(error)]
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise SuiteError(
            f"{path}: {'one fault' if len(faults) == 1 else f'{len(faults)} faults'}:\n{lines}",
            "bench/peftmark/claims/memory_figures.py says how a figure is written.",
        )
    return figures


def _named(fault: str, raw: Any) -> str:
    """A fault with the id of the figure it is in."""
    try:
        index = int(fault.removeprefix("figures[").partition("]")[0])
        return f"{raw['figures'][index]['id']}: {fault}"
    except (ValueError, TypeError, KeyError, IndexError):
        return fault


# --- verdicts -----------------------------------------------------------------------------------

Holds = Literal["fits", "possible", "impossible"]


@dataclass(frozen=True)
class Reading:
    """One choice of what the source leaves out.

    Attributes:
        chosen: field -> value.
        value: predicted, in the figure's unit; None if it couldn't be.
        holds: how it stands to the figure.
        reason: why nothing could be predicted.
    """

    chosen: dict[str, Any]
    value: float | None
    holds: Holds = "possible"
    reason: str = ""


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
        one, *other = (size + (context if with_context else 0) for size in sizes)
        return one / (other[0] if other else scale)

    alone, all_of_it = taken(False), taken(True)
    return Reading(chosen, alone, _held(figure, claimed, alone, all_of_it))


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
