"""Verdicts on claims from measured rows: pure functions that fail closed.

A verdict is "reproduced" or "contradicted" only if the whole interval says so. All intervals of one
profile hold together: with m of them each has level 1 - 0.05/m (Bonferroni), so that with 95 %
confidence none of its verdicts is an accident of the seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from peftmark.analysis.table import ResultTable
from peftmark.claims.evidence import Evidence
from peftmark.claims.judging import TOO_CLOSE, Kind, Part, judge, on_paper
from peftmark.claims.ledger import Claim, ClaimTest
from peftmark.record.job import Job

ALPHA = 0.05
MEASURED: tuple[Kind, ...] = ("reproduced", "contradicted", "undecided")


@dataclass(frozen=True)
class Verdict:
    """What the rows of one profile say about a claim.

    Attributes:
        scale: the scale it holds at, such as "at RoBERTa-base scale"; empty at the stated one.
        parts: a verdict for each test, in the order of the claim's parts.
        level: confidence level of each interval; None where none was needed.
        settle: what would settle it; empty where nothing is left to settle.
    """

    claim: Claim
    kind: Kind
    scale: str
    parts: tuple[Part, ...]
    level: float | None
    settle: tuple[str, ...]

    @property
    def text(self) -> str:
        """The verdict with its scale, such as "contradicted at RoBERTa-base scale"."""
        return f"{self.kind} {self.scale}".strip()

    @property
    def jobs(self) -> tuple[str, ...]:
        """Ids of the jobs whose rows it rests on, each once."""
        return tuple(dict.fromkeys(job for part in self.parts for job in part.jobs))


def verdicts(table: ResultTable, claims: Sequence[Claim]) -> tuple[Verdict, ...]:
    """A verdict on each claim.

    Args:
        table: the rows of one profile; cells that were left out of it are judged all the same.
        claims: all that the suite names: their number decides the level of the intervals.

    Raises:
        ValueError: nothing is planned, so there is no profile to speak of.
    """
    if not table.jobs:
        raise ValueError("verdicts need planned jobs")
    evidence = Evidence.of(table)
    tests = [test for claim in claims for test in claim.tests or []]
    count = sum(test.intervals for test in tests if evidence.has(test))
    evidence = replace(evidence, level=1 - ALPHA / max(1, count))
    return tuple(_verdict(claim, evidence, table.jobs[0]) for claim in claims)


def without_rows(claim: Claim, reason: str = "no results yet") -> Verdict:
    """The verdict where there are no rows: on paper where that is possible, else undecided."""
    parts = _untestable(claim) or tuple(
        on_paper(test) or Part(test, "undecided", reason=reason) for test in claim.tests or []
    )
    settle = tuple(
        f"run suite {suite}" for suite in claim.suites if any(p.kind == "undecided" for p in parts)
    )
    return Verdict(claim, combined(parts), "", parts, None, settle)


def _verdict(claim: Claim, evidence: Evidence, job: Job) -> Verdict:
    parts = _untestable(claim) or tuple(_parts(claim, evidence))
    kind = combined(parts)
    scale = scale_of(claim, job) if kind in MEASURED else ""
    settle = _settle(parts) if kind in ("undecided", "not comparable") else []
    if not _stated_model(claim, job) and (scale or kind == "not comparable"):
        settle.append(_stated(claim, job))
    settle = [t for t in settle if not any(o != t and o.startswith(t) for o in settle)]
    uses = any(part.low is not None or part.pairs for part in parts if not part.exact)
    level = evidence.level if uses else None
    return Verdict(claim, kind, scale, parts, level, tuple(settle))


def _settle(parts: Sequence[Part]) -> list[str]:
    """What would settle the parts; of several numbers of seeds the largest."""
    texts = list(dict.fromkeys(part.settle for part in parts if part.settle))
    more = max((part.more for part in parts if part.more), default=None)
    return texts if more is None or TOO_CLOSE in texts else [f"about {more} seeds", *texts]


def _untestable(claim: Claim) -> tuple[Part, ...]:
    return (Part(None, "untestable", reason=claim.untestable),) if claim.untestable else ()


def _parts(claim: Claim, evidence: Evidence) -> list[Part]:
    """The verdict of every test that belongs to the profile, and of each part that has none."""
    found = []
    for name in claim.parts:
        tests = [test for test in claim.tests or [] if test.part == name]
        here = [t for t in tests if not t.measured or evidence.belongs(t)]
        if here:
            found += [on_paper(test) or judge(test, evidence) for test in here]
        else:
            nearest = next((t for t in tests if t.suite == evidence.suite), tests[0])
            found.append(_elsewhere(nearest, evidence))
    return found


def _elsewhere(test: ClaimTest, evidence: Evidence) -> Part:
    """A part that rows of other profiles test."""
    if test.suite == evidence.suite:
        where = f"the {' or '.join(test.profiles or ())} profile"
    else:
        where = f"suite {test.suite}"
    return Part(test, "not comparable", reason=f"tested by {where}", settle=f"run {where}")


def combined(parts: Sequence[Part]) -> Kind:
    """The verdict on a claim from those of its parts: one that fails is enough to fail, and all
    must hold for it to hold."""
    kinds = {part.kind for part in parts}
    if "refuted on paper" in kinds:
        return "refuted on paper"
    if "contradicted" in kinds:
        return "contradicted"
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds == {"reproduced", "confirmed on paper"}:
        return "reproduced"
    if "not comparable" in kinds and not kinds & {"reproduced", "undecided"}:
        return "not comparable"
    return "undecided"


def _stated_model(claim: Claim, job: Job) -> bool:
    """Whether the claim is about the model; one of the user's own may be called alike."""
    return job.own_model is None and job.model in claim.setting.models


def scale_of(claim: Claim, job: Job) -> str:
    """The scale a verdict holds at, in words; empty for a full one on the stated model."""
    stated = _stated_model(claim, job)
    full = job.scale == "full"
    if stated:
        return "" if full else f"in profile {job.profile}"
    name = job.model_name.removeprefix("all-").removesuffix("-v2")  # all-MiniLM-L6-v2 reads badly
    return f"at {name} scale" + ("" if full else f" ({job.profile} profile)")


def _stated(claim: Claim, job: Job) -> str:
    model = claim.setting.model
    stated = "the source names no model" if model == "not stated" else f"stated for {model}"
    return stated if job.scale == "full" else f"run a profile of full scale: {stated}"
