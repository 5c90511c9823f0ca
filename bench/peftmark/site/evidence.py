"""The published rows as runs: one suite and profile each, with its table, report and claims.

The rows lie in Parquet files that come with the project. Each run's rows are put into a results
folder of their own, and read from there by the same code as those of any run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from peftmark.analysis.table import ResultTable, build
from peftmark.api.reporting import stored_plan, write_report
from peftmark.catalog.models import Model
from peftmark.claims.ledger import Claim
from peftmark.claims.paper import Paper
from peftmark.claims.standing import Line, Standing, look
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.report import validity, view
from peftmark.report.report_input import ReportInput
from peftmark.run.runner import Plan, Selection
from peftmark.storage.published import PUBLISHED
from peftmark.storage.rows_file import read_rows_file
from peftmark.storage.store import Store
from peftmark.suite.expand import as_recorded

EXAMPLE = Path("docs") / "example" / "rows.parquet"
"""The run that the example report is of; its rows are published as well."""


@dataclass(frozen=True)
class Run:
    """The reported rows of one profile of one suite, and the trials behind them.

    Attributes:
        sources: the files that hold its rows, below the project's folder; those of the first count.
        results: a results folder that holds this run alone.
        plan: its jobs, as the rows have them.
        table: its figures, as its report has them.
    """

    sources: tuple[Path, ...]
    results: Path
    plan: Plan
    table: ResultTable

    @property
    def suite(self) -> str:
        """Name of the suite."""
        return self.plan.suite.name

    @property
    def profile(self) -> str:
        """Name of the profile."""
        return self.plan.profile

    @property
    def name(self) -> str:
        """Suite and profile, for people."""
        return f"{self.suite}, profile {self.profile}"

    @property
    def key(self) -> str:
        """Suite and profile, for an address."""
        return f"{self.suite}-{self.profile}"

    @property
    def model(self) -> Model | None:
        """The model that most of its jobs train; None for one that is not known here."""
        return self.table.jobs[0].known_model

    @property
    def seeds(self) -> int:
        """Seeds that are reported."""
        return len({slot.job.seed for slot in self.table.slots})

    @property
    def finished(self) -> str:
        """When its last row was made."""
        return max(r.finished_at for r in self.table.records.values())

    @property
    def scale(self) -> str:
        """What the rows were measured at, in a line."""
        table = self.table
        jobs = [slot.job for slot in table.slots]
        model = self.model
        size = f" of {words.short(model.parameters / 1e6)} million parameters" if model else ""
        steps = words.span(job.recipe.steps for job in jobs if job.cell.trains)
        devices = words.listing(sorted({job.device.upper() for job in jobs}))
        parts = (
            f"{model.title if model else jobs[0].model}{size}",
            words.plural(len(table.tasks), "task"),
            words.plural(self.seeds, "seed"),
            f"{steps} steps" if steps else "",
            devices,
            "" if jobs[0].scale == "full" else "reduced scale",
        )
        return ", ".join(filter(None, parts))

    @cached_property
    def material(self) -> view.Material:
        """What the sections of its report are made from."""
        return material_of(self)

    def write_report(self, reports: Path) -> Path:
        """Its report below a folder, as `peftmark report` writes it; the page."""
        return write_report(self.plan, self.results, reports)[0]

    def standings(self, paper: Paper) -> dict[str, Standing]:
        """Claim -> its verdict by these rows; empty for a suite that tests no claim."""
        if not self.plan.suite.claims:
            return {}
        found = look(self.suite, self.profile, self.results, None, lambda _: paper)
        return {line.claim.id: line.standings[0] for line in found.lines}


def material_of(run: Run) -> view.Material:
    """What the sections of a run's report are made from, without pictures."""
    given = ReportInput(
        records=list(run.table.records.values()),
        planned=run.table.jobs,
        options=run.plan.suite.report,
        summary=run.plan.suite.profiles[run.profile].summary,
    )
    table = run.table.without(run.table.unsupported)
    return view.Material(given, run.table, table, validity.look(table))


def sources(root: Path) -> list[Path]:
    """The files of rows that come with the project, below its folder."""
    found = sorted((root / "results" / PUBLISHED).glob("*/rows.parquet"))
    example = root / EXAMPLE
    return [*found, *([example] if example.is_file() else [])]


def runs_of(files: Iterable[Path], root: Path, work: Path) -> list[Run]:
    """A run for each suite and profile that has reported rows, of the largest scale first.

    Where several files have rows of one suite and profile, as that of the example has, those of the
    first count.

    Args:
        files: Parquet files of rows.
        root: the project's folder, which the files are named from.
        work: a folder for copies of the rows, one results folder a run.

    Raises:
        StoreError: a file that can't be read.
        UserError: rows of a suite or profile that is not there.
    """
    found: dict[tuple[str, str], Run] = {}
    for file in files:
        by_kind: dict[tuple[str, str], list[Record]] = {}
        for record in read_rows_file(file).rows:
            by_kind.setdefault((record.job.suite, record.job.profile), []).append(record)
        for kind, records in sorted(by_kind.items()):
            source = file.relative_to(root)
            if (run := found.get(kind)) is not None:
                found[kind] = replace(run, sources=(*run.sources, source))
            elif any(r.job.purpose == "report" for r in records):
                found[kind] = _run(source, *kind, records, work / "-".join(kind))
    return sorted(found.values(), key=weight, reverse=True)


def _run(source: Path, suite: str, profile: str, records: Sequence[Record], results: Path) -> Run:
    store = Store(results, suite)
    with store.lock():
        for record in records:
            store.append(record)
        store.rebuild()
    shutil.rmtree(store.folder / "logs", ignore_errors=True)  # no worker wrote any here
    plan = stored_plan(Selection(suite, profile, results=results))
    known = {i: r for i, r in plan.contents.records.items() if r.job.profile == profile}
    jobs = as_recorded(plan.suite, profile, known).jobs
    table = build(list(known.values()), jobs, plan.suite.report.reference)
    return Run((source,), results, plan, table)


def weight(run: Run) -> tuple[bool, int, int, int, str]:
    """What makes a run count for more: scale, size of the model, tasks, seeds, being the latest."""
    job = run.table.jobs[0]
    return (
        job.scale == "full",
        run.model.parameters if run.model else 0,
        len(run.table.tasks),  # before seeds: five of one task say less than three of four
        run.seeds,
        run.finished,
    )


def lines_of(claims: Iterable[Claim], runs: Sequence[Run], paper: Paper) -> list[Line]:
    """Every claim with its verdict by each run that tests it."""
    judged = [(run, run.standings(paper)) for run in runs]
    lines = []
    for claim in claims:
        mine = tuple(found[claim.id] for _, found in judged if claim.id in found)
        measured = {standing.suite for standing in mine}
        idle = tuple(name for name in claim.suites if name not in measured)
        lines.append(Line(claim, mine, idle, paper))
    return lines
