"""Seconds of a job by phase, from the work of its steps, the shapes of its batches and the rates of
this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Literal, Protocol

from peftmark.catalog.methods import known_method
from peftmark.record.job import Job

ROUNDS = 5
"""Passes over the latency set for one latency (`peftmark.lab.deploy`)."""
START = {"cpu": 0.5, "cuda": 3.0}
"""Device -> seconds from a worker's fork to its first phase and from its last to the stored row:
on a CPU as seen on two cores (2026-11-29); on a GPU, whose context and libraries each worker
loads, what nobody measured yet."""
LOADED_PER_SECOND = 2e8
"""Parameters that are read, checked and put in place a second. Nobody measured it by itself: of
22.7 million it makes a tenth of a second, and jobs took 0.2 to 0.3 with their rows."""
UNRELATED = [(8, 128)] * 5
"""Rows and tokens of the text that forgetting is measured on (`peftmark.lab.forgetting`)."""
FOLLOWED, SYMBOLIC = 4, 40
"""What it takes to follow an operation's storages and to run it without values, in calls of an
operation that does next to nothing; chosen after twelve jobs of `glue` on the same machine."""


class Costs(Protocol):
    """What a step's operations take on a device."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where they run."""

    @property
    def call(self) -> float:
        """Seconds of the processor for an operation that does next to nothing."""

    def seconds(self, work: Mapping[str, Sequence[float]], part: str, scale: float = 1.0) -> float:
        """Seconds of a part of a step; `scale` of operations and bytes, for other numbers of
        rows."""


@dataclass(frozen=True)
class Shapes:
    """Shapes of a job's batches.

    Attributes:
        train: tokens of the longest row of each training batch.
        scored, selected: (rows, tokens) of the passes of one evaluation.
        timed: of those that inference is timed on.
        written: (rows, tokens, new tokens at most) of prompts that answers are written to.
        read_seconds: what reading the rows took.
    """

    train: Sequence[int] = ()
    scored: Sequence[Sequence[int]] = ()
    selected: Sequence[Sequence[int]] = ()
    timed: Sequence[Sequence[int]] = ()
    written: Sequence[Sequence[int]] = ()
    read_seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Step:
    """A training step at any length.

    Attributes:
        rows: of a pass.
        work: tokens -> work of the step at that length, at two lengths at least.
        costs: of the device.
    """

    rows: int
    work: Mapping[int, Mapping[str, Sequence[int]]]
    costs: Costs
    _known: dict[tuple[str, int, float], float] = field(default_factory=dict)

    def seconds(self, tokens: int) -> float:
        """Of a step whose longest row has so many tokens."""
        return sum(self._part(part, tokens) for part in ("forward", "backward", "update"))

    def forward(self, rows: int, tokens: int) -> float:
        """Of a pass over rows that aren't trained on."""
        return self._part("scored", tokens, rows / self.rows)

    @property
    def calls(self) -> int:
        """Operations of a step."""
        return sum(calls for calls, *_ in next(iter(self.work.values())).values())

    def _part(self, part: str, tokens: int, scale: float = 1.0) -> float:
        key = part, tokens, scale
        if key not in self._known:
            found = self.costs.seconds(self._at(part, tokens), part, scale)
            self._known[key] = max(0.0, found)
        return self._known[key]

    def _at(self, part: str, tokens: int) -> dict[str, list[float]]:
        """The work of a part at a length, whose amounts are polynomials of it."""
        lengths, works = list(self.work), list(self.work.values())
        names = dict.fromkeys(name for one in works for name in one if name.startswith(f"{part} "))
        return {
            name: [
                between(lengths, amounts, tokens)
                for amounts in zip(*(one.get(name, NOTHING) for one in works), strict=True)
            ]
            for name in names
        }


NOTHING = (0, 0, 0)


def between(places: Sequence[int], values: Sequence[float], at: float) -> float:
    """The value at a place of the polynomial through these (Lagrange)."""
    return sum(
        value * prod((at - other) / (one - other) for other in places if other != one)
        for one, value in zip(places, values, strict=True)
    )


def phases(job: Job, step: Step, shapes: Shapes, parameters: int = 0) -> dict[str, float]:
    """Phase -> seconds, of a job that trains to the end, or of one that takes a base as it is.

    Args:
        step: of the latter a step of another method on the same base and task, of which only the
            passes count that train nothing.
        parameters: of the model, which are read again for each copy of it.
    """
    recipe = job.recipe
    trains = known_method(job.method).trains
    evaluations = ceil(recipe.steps / recipe.eval_every) if trains else 1
    copy = parameters / LOADED_PER_SECOND
    found = {
        "start": START[step.costs.device] + shapes.read_seconds + copy,
        "train": sum(map(step.seconds, shapes.train)) if trains else 0.0,
        "evaluate": evaluations * _scored(step, (*shapes.scored, *shapes.selected)),
        "generate": evaluations * _written(step, shapes.written),
    }
    if job.purpose == "tuning":
        return found
    if job.causal is not None:  # what was forgotten of other text
        found["forget"] = _scored(step, UNRELATED)
    if not trains:
        return found
    timed = _scored(step, shapes.timed)
    passes = ROUNDS + 2
    if known_method(job.method).freezes and known_method(job.method).size:
        passes += ROUNDS + 1  # once more with the adapter merged
    lengths = sorted(set(shapes.train))
    probed = {lengths[0], lengths[-1], lengths[len(lengths) // 2]} if lengths else set()
    call = step.costs.call
    return found | {
        "deploy": copy + passes * timed,
        "probe": copy + sum(step.seconds(n) + FOLLOWED * call * step.calls for n in probed),
        "predict": SYMBOLIC * call * step.calls,
    }


def _scored(step: Step, passes: Sequence[Sequence[int]]) -> float:
    return sum(step.forward(rows, tokens) for rows, tokens in passes)


def _written(step: Step, prompts: Sequence[Sequence[int]]) -> float:
    """Of answers as long as they may be: a pass over the prompts, then a token at a time."""
    return sum(
        step.forward(rows, tokens) + new * step.forward(rows, 1) for rows, tokens, new in prompts
    )
