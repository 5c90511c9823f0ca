"""One side of a comparison: the lines of a results folder or of a baseline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from peftmark.analysis.validity import Repeat, repeatability
from peftmark.core.errors import Exit, UserError
from peftmark.gate.run_lines import Key, Line, Round, line_of, round_of
from peftmark.record.job import Job, Record
from peftmark.storage.store import Store
from peftmark.storage.unread import no_results
from peftmark.suite.expand import as_recorded
from peftmark.suite.with_rows import load_with_rows


@dataclass(frozen=True)
class Accepted:
    """Who may be compared with, and why.

    Attributes:
        at: UTC, ISO 8601.
        commit: of peftmark, that made the runs; empty if unknown.
        pinned: whether it is the release's and stays where it is.
        earlier: the ones that it and those before it replaced, oldest first.
    """

    at: str
    reason: str
    commit: str = ""
    pinned: bool = False
    earlier: tuple[Accepted, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """The runs of one profile of one suite.

    Attributes:
        where: the folder or file, as the user named it.
        model: key of the model, of several all of them.
        lines: one a run, sorted.
        planned: every run of the plan; of a baseline those of its lines.
        waiting: planned runs that are not known yet, since trials are to choose their settings.
        repeat: what became of the run that is made twice, as "verdict: detail", unless it gave the
            same bits or none is planned.
        accepted: facts of a baseline; None for results.
        results: the suite's folder of results; None for a baseline.
    """

    where: str
    suite: str
    suite_version: int
    profile: str
    model: str
    lines: tuple[Line, ...]
    planned: tuple[Key, ...]
    waiting: int = 0
    repeat: str = ""
    accepted: Accepted | None = None
    results: Path | None = None

    @property
    def by_key(self) -> dict[Key, Line]:
        """The lines by what pairs them."""
        return {line.key: line for line in self.lines}

    @property
    def machine(self) -> str:
        """Class of the machine: "cpu", or the GPU's name."""
        return machine_class(self.lines[0]) if self.lines else "cpu"

    @property
    def finished_at(self) -> str:
        """When the newest run ended, UTC; empty without one."""
        return max((line.finished_at for line in self.lines), default="")


def machine_class(line: Line) -> str:
    """What machines share that make comparable rows: "cpu", or the name of the GPU."""
    gpus = line.environment.machine.get("gpus") or []
    if line.device == "cpu" or not gpus:
        return line.device
    return re.sub(r"[^a-z0-9]+", "-", str(gpus[0]).lower()).strip("-") or line.device


def of_results(store: Store, name: str, profile: str | None, suites: Path | None) -> Snapshot:
    """The candidate: the runs that a suite plans, from its results folder.

    Args:
        store: the suite's results folder.
        profile: None for the profile of the newest row.

    Raises:
        UserError: unknown suite or profile, or no results (as incomplete).
    """
    suite = load_with_rows(name, suites, store.folder.parent)
    if profile is not None and profile not in suite.profiles:
        known = ", ".join(suite.profiles)
        raise UserError(f"suite {name} has no profile {profile!r}", f"Its profiles: {known}.")
    side, records = _of_store(store, profile, name)
    if side.profile not in suite.profiles:
        raise UserError(
            f"the newest rows in {side.where} are of profile {side.profile}, which suite {name} "
            "does not have",
            f"Name a profile: {', '.join(suite.profiles)}.",
        )
    plan = as_recorded(suite, side.profile, records)
    planned = {job.job_id: _key(job) for job in plan.jobs if job.purpose == "report"}
    # A row that is planned no more, of a method that was dropped, stands for nothing.
    there = {_key(r.job) for r in records.values() if r.job.job_id in planned}
    return replace(
        side,
        suite_version=suite.version,
        model=_models(plan.jobs),
        lines=tuple(line for line in side.lines if line.key in there),
        planned=tuple(planned.values()),
        waiting=plan.waiting,
        repeat=_repeat(repeatability(plan.jobs, records)),
    )


def of_folder(folder: Path, profile: str | None) -> Snapshot:
    """The other side, or one to accept: what one suite's results folder holds, as it is.

    Raises:
        UserError: no such folder, or no results in it.
    """
    if not (folder / "parts").is_dir():
        raise UserError(
            f"{folder} is not the results folder of a suite",
            "Such a folder has a folder parts in it: results/<suite>.",
        )
    here = folder.resolve()
    side, _ = _of_store(Store(here.parent, here.name), profile, "")
    return replace(side, where=str(folder))


def _of_store(store: Store, profile: str | None, name: str) -> tuple[Snapshot, dict[str, Record]]:
    """Every reported run of one profile, and the rows of all purposes by job id.

    The last attempt counts, not the last good one: a run that failed after one that went well says
    what the code does now. Of several runs of one cell, task and seed the newest counts.
    """
    contents = store.read()
    records = dict(contents.records)
    attempts = store.attempts()
    records |= {i: a[-1] for i, a in attempts.items()}
    latest = max(records.values(), key=_age, default=None)
    if profile is None and latest is not None:
        profile = latest.job.profile
    mine = {i: r for i, r in records.items() if r.job.profile == profile}
    if profile is None or not mine:
        what = f"results of profile {profile}" if profile else "results"
        run = f"Run them first: peftmark run {name or 'SUITE'}."
        raise no_results(store.folder, contents, run, what, Exit.INCOMPLETE)
    lines: dict[Key, Line] = {}
    for record in sorted(mine.values(), key=_age):
        if record.job.purpose == "report":
            made = _rounds(record, attempts.get(record.job.job_id, ()))
            lines[_key(record.job)] = line_of(record, made)
    job = max(mine.values(), key=_age).job
    side = Snapshot(
        where=str(store.folder),
        suite=job.suite,
        suite_version=job.suite_version,
        profile=profile,
        model=_models(r.job for r in mine.values() if r.job.suite_version == job.suite_version),
        lines=tuple(sorted(lines.values(), key=_order)),
        planned=tuple(lines),
        results=store.folder,
    )
    return side, mine


def _models(jobs: Iterable[Job]) -> str:
    return ", ".join(sorted({job.model for job in jobs}))


def _age(record: Record) -> tuple[str, str]:
    return record.finished_at, record.job.job_id


def _repeat(twice: Repeat | None) -> str:
    """What is wrong with the run that is made twice; empty if nothing is."""
    if twice is None or twice.verdict == "same":
        return ""
    return f"{twice.verdict}: {twice.detail}"


def _rounds(counts: Record, attempts: Sequence[Record]) -> tuple[Round, ...]:
    """The ok attempts by the code and on the machine of the one that counts."""
    ok = [r for r in attempts if r.ok and r.environment == counts.environment]
    return tuple(round_of(r) for r in sorted(ok, key=lambda r: (r.started_at, r.attempt)))


def _key(job: Job) -> Key:
    return job.cell, job.task, job.seed


def _order(line: Line) -> tuple[str, ...]:
    cell = line.cell
    parts = (cell.method, f"{cell.size or 0:09d}", cell.quantization, cell.variant)
    return (*parts, line.task, f"{line.seed:09d}")
