"""All that a report shows, as plain data: rows in, `Page` out. Nothing is drawn here."""

from __future__ import annotations

from collections.abc import Sequence

from bench.catalog import MODELS
from bench.record import Job, Record, ReportOptions
from bench.report import costs, coverage, glance, headline, learning, provenance, quality, words
from bench.report.page import Page, Section
from bench.table import ResultTable, build

FULL_PROFILE = "full"


def page(
    records: Sequence[Record],
    planned: Sequence[Job],
    suite_summary: str,
    options: ReportOptions,
    notes: Sequence[str] = (),
) -> Page:
    """The report of one profile of one suite.

    Args:
        records: one row a job, in any order.
        planned: every job of the profile.
        suite_summary: the suite's one-line description.
        options: reference cell and radar anchors.
        notes: extra lines for the top.
    """
    table = build(records, planned, options.reference)
    if not planned:
        return _empty(suite_summary, table, notes)
    job = table.slots[0].job
    return Page(
        title=f"{job.suite}, profile {job.profile}",
        facts=_facts(job, table, suite_summary),
        finding=headline.finding(table),
        warning=_warning(table),
        notes=tuple(notes),
        opening=headline.opening(table),
        sections=_sections(table, options),
    )


def _sections(table: ResultTable, options: ReportOptions) -> tuple[Section, ...]:
    first = coverage.section(table)
    if not table.rows:
        return (first,)
    return (
        first,
        quality.section(table),
        costs.section(table),
        learning.section(table),
        glance.section(table, options),
        provenance.environment(table),
        provenance.rerun(table),
    )


def _facts(job: Job, table: ResultTable, suite_summary: str) -> tuple[tuple[str, str], ...]:
    model = MODELS[job.model].title if job.model in MODELS else job.model
    return (
        ("suite", f"{job.suite}, version {job.suite_version}"),
        ("profile", job.profile),
        ("model", model),
        ("device", words.listing(sorted({s.job.device for s in table.slots}))),
        ("about", suite_summary or words.MISSING),
    )


def _warning(table: ResultTable) -> str:
    job = table.slots[0].job
    if job.profile == FULL_PROFILE:
        return ""
    steps = sorted({s.job.recipe.steps for s in table.slots})
    rows = [n for s in table.slots if (n := s.job.recipe.train_rows) is not None]
    scale = [f"{_span(steps)} optimizer steps"]
    if len(rows) == len(table.slots):
        scale.append(f"at most {max(rows):,} training rows")
    return (
        f"Reduced scale: profile {job.profile}, {words.listing(scale)}. Scores and orderings may "
        "differ at full scale."
    )


def _span(values: Sequence[int]) -> str:
    low, high = values[0], values[-1]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _empty(suite_summary: str, table: ResultTable, notes: Sequence[str]) -> Page:
    strays = (coverage.left_out(table.strays),) if table.strays else ()
    return Page(
        title="Nothing planned",
        facts=(("about", suite_summary or words.MISSING),),
        finding="The profile has no jobs, so there is nothing to report.",
        warning="",
        notes=(*notes, *strays),
        opening=(),
    )
