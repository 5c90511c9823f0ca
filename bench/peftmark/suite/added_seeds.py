"""The jobs of a profile that a run added seeds to, until its questions were decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from peftmark.catalog.methods import Cell
from peftmark.record.job import Job, Record
from peftmark.record.outcome import FIRST_LOOK

MOST_SEED = 2**31
"""Below which seeds lie."""


def seeds_up_to(seeds: Sequence[int], most: int) -> list[int]:
    """A profile's seeds, and as many after them as there may be."""
    found = list(seeds)[:most]
    while len(found) < most:
        found.append(max(found) + 1)
    return found


def first_jobs(jobs: Iterable[Job]) -> dict[tuple[Cell, str], Job]:
    """A reported job of each cell and task."""
    found: dict[tuple[Cell, str], Job] = {}
    for job in jobs:
        if job.purpose == "report":
            found.setdefault((job.cell, job.task), job)
    return found


def with_looks(jobs: Sequence[Job], records: Mapping[str, Record], profile: str) -> Sequence[Job]:
    """A profile's jobs as its rows have them: those that ran, with seeds that the profile doesn't
    name, and of the others those of the first look. Without rows of such a run the jobs as they
    are.

    Args:
        jobs: the profile's, as its file says.
    """
    mine = [r for r in records.values() if r.job.profile == profile]
    most = max((r.most_seeds or 0 for r in mine), default=0)
    if not most:
        return jobs
    first = first_jobs(jobs)
    early = list(dict.fromkeys(job.seed for job in jobs if job.purpose == "report"))
    early = early[: min(FIRST_LOOK, most)]
    kept = [
        job for job in jobs if job.purpose != "report" or job.job_id in records or job.seed in early
    ]
    known = {job.job_id for job in kept}
    added = []
    for record in sorted(mine, key=lambda r: (r.job.seed, r.finished_at)):
        base = first.get((record.job.cell, record.job.task))
        if base is None or record.job.purpose != "report" or record.job.job_id in known:
            continue
        job = replace(base, seed=record.job.seed)
        if job.job_id == record.job.job_id:
            added.append(job)
    return [*kept, *added]


def with_look(
    record: Record, most: int | None, look: int | None, question: str, seeds: int
) -> Record:
    """The row of a reported job with what it was run for, or that the seeds were fixed.

    Args:
        seeds: of the profile.
    """
    if most is not None and record.job.purpose == "report":
        why = {"profile_seeds": "seeds were added until a question was answered"}
        record = replace(record, most_seeds=most, look=look, question=question)
    else:
        why = dict.fromkeys(("most_seeds", "look", "question"), "the number of seeds was fixed")
        record = replace(record, profile_seeds=seeds)
    reasons = record.outcome.null_reasons | why
    return replace(record, outcome=replace(record.outcome, null_reasons=reasons))


def by_hand(records: Iterable[Record]) -> str:
    """That seeds were added to a profile after rows of fewer were there, in a sentence; empty if
    none were.

    Args:
        records: reported rows of one profile.
    """
    seeds: dict[int, set[int]] = {}
    for record in records:
        if record.job.purpose == "report" and record.profile_seeds is not None:
            seeds.setdefault(record.profile_seeds, set()).add(record.job.seed)
    few, many = min(seeds, default=0), max(seeds, default=0)
    if not seeds or not seeds[many] - seeds[few]:
        return ""
    return (
        f"Rows were made when the profile had {few} seeds and others when it had {many}. If the "
        "report of the first was looked at before more were added, p values and intervals are too "
        "small: they pay for one look alone. `peftmark run --until-decided` pays for every look."
    )
