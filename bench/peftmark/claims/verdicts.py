"""Verdicts on claims from measured rows: pure functions that fail closed.

A verdict is "reproduced" or "contradicted" only if the whole interval says so. All intervals of one
profile hold together: with m of them each has level 1 - 0.05/m (Bonferroni), so that with 95 %
confidence none of its verdicts is an accident of the seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from peftmark.analysis.table import ResultTable
from peftmark.claims.departures import another_recipe, departures, is_stated_model
from peftmark.claims.evidence import Evidence
from peftmark.claims.judging import TOO_CLOSE, judge
from peftmark.claims.ledger import Claim, ClaimTest
from peftmark.claims.paper import NOTHING, Paper, on_paper
from peftmark.claims.part import Kind, Part
from peftmark.claims.rates import judge_rates
from peftmark.record.job import Job

ALPHA = 0.05
MEASURED: tuple[Kind, ...] = ("reproduced", "contradicted", "undecided")


@dataclass(frozen=True)
class Verdict:
    """What the rows of one profile say about a claim.

    Attributes:
        scale: the scale it holds at, such as "at RoBERTa-base scale"; empty at the stated one.
        parts: a verdict for each test, in the order of the claim's parts.
        differs: where what was run, or how the claim is read, is not as the source has it.
        rates: where the learning rates come from; empty where no row was needed.
        level: confidence level of each interval; None where none was needed.
        settle: what would settle it; empty where nothing is left to settle.
    """

    claim: Claim
    kind: Kind
    scale: str
    parts: tuple[Part, ...]
    level: float | None
    settle: tuple[str, ...]
    differs: tuple[str, ...] = ()
    rates: str = ""

    @property
    def text(self) -> str:
        """The verdict with its scale, such as "contradicted at RoBERTa-base scale"."""
        return f"{self.kind}{_of_direction(self.kind, self.parts)} {self.scale}".strip()

    @property
    def tested(self) -> bool:
        """Whether the profile tests any of it by rows."""
        return any(p.test is not None and p.test.measured and not p.elsewhere for p in self.parts)

    @property
    def jobs(self) -> tuple[str, ...]:
        """Ids of the jobs whose rows it rests on, each once."""
        return tuple(dict.fromkeys(job for part in self.parts for job in part.jobs))


def _of_direction(kind: Kind, parts: Sequence[Part]) -> str:
    """What a verdict on sizes leaves of the direction: +1.0 for a claimed +1.8 is another size, and
    no worse method."""
    if kind not in ("contradicted", "undecided"):
        return ""
    fine = ("reproduced", "confirmed on paper")
    decisive = [
        p for p in parts if (p.kind == kind if kind == "contradicted" else p.kind not in fine)
    ]
    directions = {part.direction for part in decisive}
    if directions == {"reproduced"}:
        return " in size and reproduced in direction"
    if kind == "contradicted" and directions <= {"reproduced", "undecided"}:
        return " in size and undecided in direction"
    return ""


def verdicts(
    table: ResultTable, claims: Sequence[Claim], paper: Paper = NOTHING
) -> tuple[Verdict, ...]:
    """A verdict on each claim.

    Args:
        table: the rows of one profile; cells that were left out of it are judged all the same.
        claims: all that the suite names: their number decides the level of the intervals.
        paper: what was computed without a run.

    Raises:
        ValueError: nothing is planned, so there is no profile to speak of.
    """
    if not table.jobs:
        raise ValueError("verdicts need planned jobs")
    evidence = Evidence.of(table)
    tests = [test for claim in claims for test in claim.tests or []]
    count = sum(test.intervals for test in tests if evidence.has(test))
    evidence = replace(evidence, level=1 - ALPHA / max(1, count))
    return tuple(_verdict(claim, evidence, table.jobs, paper) for claim in claims)


def without_rows(claim: Claim, reason: str = "no results yet", paper: Paper = NOTHING) -> Verdict:
    """The verdict where there are no rows: on paper where that is possible, else undecided."""
    parts = _untestable(claim) or tuple(
        on_paper(test, paper) or Part(test, "undecided", reason=reason)
        for test in claim.tests or []
    )
    settle = [
        f"run suite {suite}" for suite in claim.suites if any(p.kind == "undecided" for p in parts)
    ]
    settle += [part.settle for part in parts if part.settle]
    differs = departures(claim, parts)
    told = tuple(dict.fromkeys(settle))
    return Verdict(claim, combined(parts), "", parts, None, told, differs)


def _verdict(claim: Claim, evidence: Evidence, jobs: Sequence[Job], paper: Paper) -> Verdict:
    job = jobs[0]
    parts = _untestable(claim) or tuple(_parts(claim, evidence, paper))
    kind = combined(parts)
    here = [part for part in parts if part.test is not None and evidence.belongs(part.test)]
    scale = scale_of(claim, here, jobs) if kind in MEASURED else ""
    settle = _settle(parts) if kind in ("undecided", "not comparable") else []
    if not is_stated_model(claim, job) and (scale or kind == "not comparable"):
        settle.append(_stated(claim, job))
    settle = [t for t in settle if not any(o != t and o.startswith(t) for o in settle)]
    uses = any(part.low is not None or part.pairs for part in parts if not part.exact)
    level = evidence.level if uses else None
    return Verdict(
        claim,
        kind,
        scale,
        parts,
        level,
        tuple(settle),
        differs=departures(claim, here, jobs),
        rates=(job.rates or "not known") if here else "",
    )


def _settle(parts: Sequence[Part]) -> list[str]:
    """What would settle the parts; of several numbers of seeds the largest."""
    texts = list(dict.fromkeys(part.settle for part in parts if part.settle))
    more = max((part.more for part in parts if part.more), default=None)
    return texts if more is None or TOO_CLOSE in texts else [f"about {more} seeds", *texts]


def _untestable(claim: Claim) -> tuple[Part, ...]:
    return (Part(None, "untestable", reason=claim.untestable),) if claim.untestable else ()


def _parts(claim: Claim, evidence: Evidence, paper: Paper) -> list[Part]:
    """The verdict of every test that belongs to the profile, and of each part that has none."""
    found = []
    for name in claim.parts:
        tests = [test for test in claim.tests or [] if test.part == name]
        here = [t for t in tests if not t.measured or evidence.belongs(t)]
        if here:
            found += [on_paper(test, paper) or _judged(test, evidence) for test in here]
        else:
            nearest = next((t for t in tests if t.suite == evidence.suite), tests[0])
            found.append(_elsewhere(nearest, evidence))
    return found


def _judged(test: ClaimTest, evidence: Evidence) -> Part:
    return judge(test, evidence) if test.best_rate is None else judge_rates(test, evidence)


def _elsewhere(test: ClaimTest, evidence: Evidence) -> Part:
    """A part that rows of other profiles test."""
    if test.suite == evidence.suite:
        where = f"the {' or '.join(test.profiles or ())} profile"
    else:
        where = f"suite {test.suite}"
    why = f"tested by {where}"
    return Part(test, "not comparable", reason=why, settle=f"run {where}", elsewhere=True)


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


def scale_of(claim: Claim, parts: Sequence[Part], jobs: Sequence[Job]) -> str:
    """The scale a verdict holds at, in words; empty for a full one on the stated model.

    In a full profile another recipe than the stated one is told; a reduced one has another by its
    nature.

    Args:
        parts: those that rows of the profile test.
        jobs: the profile's.
    """
    where = _where(claim, jobs[0])
    if jobs[0].scale == "full" and another_recipe(claim, parts, jobs):
        return f"{where} with another recipe than stated".strip()
    return where


def _where(claim: Claim, job: Job) -> str:
    stated = is_stated_model(claim, job)
    full = job.scale == "full"
    if stated:
        return "" if full else f"in profile {job.profile}"
    name = job.model_name.removeprefix("all-").removesuffix("-v2")  # all-MiniLM-L6-v2 reads badly
    return f"at {name} scale" + ("" if full else f" ({job.profile} profile)")


def _stated(claim: Claim, job: Job) -> str:
    model = claim.setting.model
    stated = "the source names no model" if model == "not stated" else f"stated for {model}"
    return stated if job.scale == "full" else f"run a profile of full scale: {stated}"
