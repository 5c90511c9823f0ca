"""What can be said of a claim without any run: sums, counts, predictions, errors of data types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.methods import Cell, cell_title
from peftmark.claims.arithmetic import calculate
from peftmark.claims.comparisons import Bounds, Counted
from peftmark.claims.judging import SLACK, fits
from peftmark.claims.ledger import Claim, ClaimTest
from peftmark.claims.memory_figures import MemoryVerdict, combined_kind, memory_verdicts
from peftmark.claims.part import Kind, Part
from peftmark.claims.weight_errors import WeightErrors, Weights, load_errors
from peftmark.memory.forecast import NOT_YET, Request, forecasts, request
from peftmark.record.job import Job
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite

PREDICT = "peftmark claims --memory-figures"

Place = tuple[str, str, Cell]
"""Suite, profile and cell."""


@dataclass(frozen=True)
class Paper:
    """What was computed; what is missing here leaves a part undecided.

    Attributes:
        figures: id -> verdict of a published memory figure.
        counts: adapter parameters of cells, on their profile's model, or why there is no count.
        errors: model -> relative error of each data type on its weights.
    """

    figures: Mapping[str, MemoryVerdict] = field(default_factory=dict)
    counts: Mapping[Place, int | str] = field(default_factory=dict)
    errors: Mapping[Weights, WeightErrors] = field(default_factory=dict)

    def of(self, claim: Claim) -> tuple[MemoryVerdict, ...]:
        """The published memory figures of a claim, those that decide it and all others."""
        return tuple(v for v in self.figures.values() if v.figure.claim == claim.id)


NOTHING = Paper()


def on_paper(test: ClaimTest, paper: Paper = NOTHING) -> Part | None:
    """The verdict of a test that needs no rows; None for one that does."""
    if test.untestable is not None:
        return Part(test, "untestable", reason=test.untestable)
    if test.arithmetic is not None:
        return _sum(test)
    if test.counted is not None:
        return _counted(test, test.counted, paper)
    if test.weights is not None:
        found = paper.errors.get((test.weights.model, test.weights.fine_tuned))
        value = None if found is None else found.of(test.weights.of) / found.of(test.weights.to)
        return _held(test, test.weights, value, "the error was not computed")
    return _predicted(test, test.figures, paper) if test.figures is not None else None


def _sum(test: ClaimTest) -> Part:
    sum_ = test.arithmetic
    assert sum_ is not None
    value = calculate(sum_.expression)
    room = sum_.tolerance + SLACK * max(1.0, abs(sum_.claimed))
    fine = abs(value - sum_.claimed) <= room
    kind: Kind = "confirmed on paper" if fine else "refuted on paper"
    return Part(test, kind, effect=value, low=value, high=value, exact=True)


def _held(test: ClaimTest, limits: Bounds, value: float | None, without: str) -> Part:
    """The verdict on a ratio that was computed."""
    if value is None:
        return Part(test, "undecided", reason=without, settle="peftmark claims")
    shown = fits(value, value, limits.limits)
    kind: Kind = "confirmed on paper" if shown else "refuted on paper"
    return Part(test, kind, effect=value, low=value, high=value, exact=True)


def _counted(test: ClaimTest, asked: Counted, paper: Paper) -> Part:
    places = ((asked.suite, asked.profile, named.cell) for named in (asked.of, asked.to))
    one, other = (paper.counts.get(place, "the parameters were not counted") for place in places)
    if isinstance(one, str) or isinstance(other, str):
        return _held(test, asked, None, one if isinstance(one, str) else str(other))
    part = _held(test, asked, one / other, "")
    told = f"{cell_title(*asked.of.cell)} has {one:,} adapter parameters, "
    return replace(part, notes=(f"{told}{cell_title(*asked.to.cell)} {other:,}",))


def _predicted(test: ClaimTest, ids: Sequence[str], paper: Paper) -> Part:
    found = [paper.figures[name] for name in ids if name in paper.figures]
    if len(found) < len(ids):
        return Part(test, "undecided", reason=NOT_YET, settle=PREDICT)
    told = combined_kind([verdict.kind for verdict in found])
    kind: Kind = "undecided" if told == "unknown" else told
    reason = "; ".join(filter(None, (verdict.reason for verdict in found)))
    waits = any(NOT_YET in verdict.reason for verdict in found)
    return Part(test, kind, reason=reason, settle=PREDICT if waits else "")


# --- computing ----------------------------------------------------------------------------------


def gather(
    claims: Iterable[Claim],
    folders: Sequence[Path],
    suites: Path | None,
    cache: Path | None,
    only_kept: bool = False,
    heard: Callable[[int, int], None] = lambda done, total: None,
) -> Paper:
    """What the tests of these claims ask for.

    Predictions of published figures are taken from the cache alone: making them takes minutes.

    Args:
        folders: folders of suites, in the order they are looked through.
        suites: a folder of suites besides those shipped.
        cache: folder of the cache; None to keep nothing.
        only_kept: count nothing that the cache doesn't hold.
        heard: told how many of how many cells are counted.
    """
    claims = list(claims)
    tests = [test for claim in claims for test in claim.tests or []]
    counted = [test.counted for test in tests if test.counted is not None]
    ids = {claim.id for claim in claims}
    found = memory_verdicts(None, cache, only_kept=True) if any(t.figures for t in tests) else []
    return Paper(
        {v.figure.id: v for v in found if v.figure.claim in ids},
        _counts(counted, suites, cache, only_kept, heard),
        load_errors(folders) if any(t.weights for t in tests) else {},
    )


def _counts(
    asked: Sequence[Counted],
    suites: Path | None,
    cache: Path | None,
    only_kept: bool,
    heard: Callable[[int, int], None],
) -> dict[Place, int | str]:
    """Adapter parameters: what trains, less what trains where the head does so alone."""
    jobs: dict[Place, Job] = {}
    for one in asked:
        planned = expand(load_suite(one.suite, suites), one.profile, "cpu").jobs
        for cell in (one.of.cell, one.to.cell):
            jobs[one.suite, one.profile, cell] = next(j for j in planned if j.cell == cell)
    requests = [_request(job) for found in jobs.values() for job in (found, _head_alone(found))]
    told = forecasts(requests, cache, heard=heard, only_kept=only_kept) if requests else []
    pairs = zip(jobs, told[::2], told[1::2], strict=True)
    return {
        place: whole.reason or head.reason or whole.trainable - head.trainable
        for place, whole, head in pairs
    }


def _request(job: Job) -> Request:
    """The smallest step that shows what trains."""
    asked = request(job, job.task_facts, OF_MODELS[job.model])
    return replace(asked, rows=1, tokens=8, flops=False)


def _head_alone(job: Job) -> Job:
    """The same with nothing trained but classifier and pooler."""
    recipe = replace(
        job.recipe, targets=None, alpha=None, dropout=None, adalora=None, options={}, budget=None
    )
    return replace(job, method="head", size=None, quantization="none", variant="", recipe=recipe)
