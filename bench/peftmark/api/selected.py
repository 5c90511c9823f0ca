"""Which rows a script or notebook asks for: of a suite by name, of a folder, or of a file."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from peftmark.analysis.table import ResultTable, build
from peftmark.catalog.methods import Cell
from peftmark.core.errors import UserError
from peftmark.core.files import SUITE_NAME
from peftmark.core.shown import plain, plural, quoted, quoted_list
from peftmark.record.job import Job, Purpose, Record
from peftmark.storage.rows_file import read_rows_file
from peftmark.storage.store import Contents, Store
from peftmark.storage.unread import no_results, unread
from peftmark.suite.expand import as_recorded
from peftmark.suite.load import Suite, load_suite

NO_REFERENCE = Cell("", None, "none", "")
"""Stands for the reference where no suite names one: no cell is called so."""
LEFT_OUT = {
    "other suites": "of other suites left out",
    "other profiles": "of other profiles left out, which profile=... chooses",
    "not planned": "left out of jobs that the suite doesn't plan (older configuration or device)",
    "failed": "of failed jobs left out, which failed=True keeps",
}
"""Why a row that was read is not among those given -> the same in words."""
ROWS_FILES = ("results.parquet", "rows.parquet")


@dataclass(frozen=True)
class Selected:
    """The rows of one profile of one suite.

    Attributes:
        where: the folder or file that was read.
        records: the rows that count, at most one a job, of every purpose and status.
        table: the same as a report has them: cells and tasks in its order.
        left_out: key of `LEFT_OUT` -> number of rows that were read and are not among the records.
        damaged: part or row that can't be read -> why.
        older: part or row of an older schema without a migration -> which.
    """

    where: Path
    suite: str
    profile: str
    records: tuple[Record, ...]
    table: ResultTable
    left_out: Mapping[str, int] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    older: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> Cell | None:
        """The cell that the others are compared with; None if no suite is there to name it."""
        return None if self.table.reference == NO_REFERENCE else self.table.reference

    def of(self, purposes: Iterable[Purpose], failed: bool) -> list[Record]:
        """The rows of some purposes, in the report's order of cells and tasks, then by seed.

        Args:
            failed: with those of jobs that ended otherwise than ok. A trial that diverged has its
                answer, and stays in any case.
        """
        wanted = set(purposes)
        kept = [r for r in self.records if r.job.purpose in wanted and (failed or r.settled)]
        cells = {cell: i for i, cell in enumerate(self.table.cells)}
        tasks = {task: i for i, task in enumerate(self.table.tasks)}
        order = get_args(Purpose)
        return sorted(
            kept,
            key=lambda r: (
                cells[r.job.cell],
                tasks[r.job.task],
                order.index(r.job.purpose),
                r.job.seed,
                r.job.recipe.learning_rate,
            ),
        )

    def warn(self, left_out: Mapping[str, int]) -> None:
        """Warn of rows that one may expect and that are not there, in one sentence.

        Args:
            left_out: key of `LEFT_OUT` -> number of rows.
        """
        clauses = [f"{plural(n, 'row')} {LEFT_OUT[what]}" for what, n in left_out.items()]
        contents = Contents({}, 0, _paths(self.damaged), _paths(self.older))
        clauses += unread(contents)
        if clauses:
            # 6: whoever called the function of the package, which calls what makes a frame.
            warnings.warn(f"{self.where}: {'; '.join(clauses)}", stacklevel=6)


def _paths(rows: Mapping[str, str]) -> dict[Path, str]:
    return {Path(name): why for name, why in rows.items()}


def select(
    source: str | Path, *, profile: str | None, results: Path, suites: Path | None
) -> Selected:
    """The rows of a source.

    Args:
        source: the name of a suite, whose rows are in `results`; a suite's results folder; the
            folder of a report; or a Parquet file of rows.
        profile: None for that of the newest row, as in a report.

    Raises:
        UserError: nothing there, or none of it can be read.
    """
    where, contents = contents_of(source, results, suites)
    rows = list(contents.rows)
    newest = max(rows, key=lambda r: (r.finished_at, r.job.job_id), default=None)
    if newest is None:
        raise no_results(where, contents, f"Run them first: peftmark run {_name_of(where)}")
    of_suite = [r for r in rows if r.job.suite == newest.job.suite]
    known = sorted({r.job.profile for r in of_suite})
    profile = newest.job.profile if profile is None else profile
    if profile not in known:
        raise UserError(
            f"{where} has no rows of profile {quoted(profile)}",
            f"It has rows of: {', '.join(map(plain, known))}.",
        )
    mine = [r for r in of_suite if r.job.profile == profile]
    suite = _suite(newest.job.suite, suites)
    planned, reference = _planned(suite, profile, {r.job.job_id: r for r in mine})
    ids = {job.job_id for job in planned}
    kept = [r for r in mine if r.job.job_id in ids]
    table = build(kept, planned, reference)
    left = {
        "other suites": len(rows) - len(of_suite),
        "other profiles": len(of_suite) - len(mine),
        "not planned": len(mine) - len(kept),
    }
    return Selected(
        where=where,
        suite=newest.job.suite,
        profile=profile,
        records=tuple(table.records.values()),
        table=table,
        left_out={what: n for what, n in left.items() if n},
        damaged={str(path): why for path, why in contents.damaged.items()},
        older={str(path): why for path, why in contents.older.items()},
    )


def _name_of(where: Path) -> str:
    """What the suite of a folder is called in a command."""
    return where.name if SUITE_NAME.fullmatch(where.name) else "SUITE"


def contents_of(source: str | Path, results: Path, suites: Path | None) -> tuple[Path, Contents]:
    """What a source holds, and where that lies."""
    path = Path(source)
    if isinstance(source, str) and SUITE_NAME.fullmatch(source):
        store = Store(results, source)
        if not store.folder.is_dir() and not path.exists():
            load_suite(source, suites)  # says which suites there are
        if store.folder.is_dir() or not path.exists():
            return store.folder, store.read()
    if path.is_file():
        return path, read_rows_file(path)
    if not path.is_dir():
        raise UserError(
            f"there is no {quoted(str(path))}",
            "Give the name of a suite, a suite's results folder, or a file such as rows.parquet.",
        )
    if (path / "parts").is_dir():
        here = path.resolve()
        return path, Store(here.parent, here.name).read()
    for name in ROWS_FILES:
        if (path / name).is_file():
            return path / name, read_rows_file(path / name)
    several = sorted(p.parent.name for p in path.glob("*/parts"))
    raise UserError(
        f"{path} is no results folder of a suite",
        f"It has those of several: give one of {quoted_list(several)}."
        if several
        else "Such a folder has a folder parts in it, or a file rows.parquet.",
    )


def _suite(name: str, suites: Path | None) -> Suite | None:
    """The suite of some rows; None where it isn't here, or can't be used as it is now."""
    try:
        return load_suite(name, suites)
    except UserError:
        return None


def _planned(
    suite: Suite | None, profile: str, rows: Mapping[str, Record]
) -> tuple[list[Job], Cell]:
    """The jobs that rows are held against, as in a report, and the reference.

    Where the suite isn't here or none of the rows is of it as it is now: the rows' own jobs, of
    several of one cell, task, seed and purpose (and of trials learning rate) the newest.
    """
    reference = NO_REFERENCE
    if suite is not None:
        reference = suite.report.reference
        try:
            jobs = as_recorded(suite, profile, rows).jobs if profile in suite.profiles else []
        except UserError:  # rows of one's own tasks are missing
            jobs = []
        if any(job.job_id in rows for job in jobs):
            return jobs, reference
    newest: dict[tuple[object, ...], Job] = {}
    for record in sorted(rows.values(), key=lambda r: (r.finished_at, r.job.job_id)):
        job = record.job
        trial = job.purpose == "tuning"
        tried = (job.recipe.steps, job.recipe.key) if trial else None
        newest[job.purpose, job.cell, job.task, job.seed, tried] = job
    jobs = list(newest.values())
    there = any(job.cell == reference for job in jobs)
    return jobs, reference if there else NO_REFERENCE
