"""All that a report shows, as plain data: rows in, `Page` out. Nothing is drawn here."""

from __future__ import annotations

from collections.abc import Sequence

from bench.catalog import MODELS
from bench.claims import Claim
from bench.external import ExternalRow
from bench.record import Job, Record, ReportOptions
from bench.report import (
    choice,
    costs,
    coverage,
    external,
    glance,
    headline,
    language,
    learning,
    provenance,
    quality,
    ranks,
    sensitivity,
    trade,
    validity,
    words,
)
from bench.report import claims as reported_claims
from bench.report.page import Page, Section
from bench.table import ResultTable, build

FULL_PROFILE = "full"


def page(
    records: Sequence[Record],
    planned: Sequence[Job],
    suite_summary: str,
    options: ReportOptions,
    notes: Sequence[str] = (),
    claims: Sequence[Claim] = (),
    elsewhere: Sequence[ExternalRow] = (),
) -> Page:
    """The report of one profile of one suite.

    Args:
        records: one row a job, in any order.
        planned: every job of the profile.
        suite_summary: the suite's one-line description.
        options: reference cell and radar anchors.
        notes: extra lines for the top.
        claims: published claims to hold against the rows.
        elsewhere: published rows that are shown and never judged.
    """
    everything = build(records, planned, options.reference)
    if not planned:
        return _empty(suite_summary, everything, notes)
    table = everything.without(everything.unsupported)
    job = table.jobs[0]
    findings = validity.look(table)
    return Page(
        title=f"{job.suite}, profile {job.profile}",
        facts=_facts(job, table, suite_summary),
        finding=headline.finding(table),
        alarms=validity.alarms(findings),
        warning=_warning(table),
        notes=tuple(notes),
        opening=headline.opening(table),
        sections=_sections(everything, table, options, findings, claims, elsewhere),
    )


def _sections(
    everything: ResultTable,
    table: ResultTable,
    options: ReportOptions,
    findings: validity.Findings,
    claims: Sequence[Claim],
    elsewhere: Sequence[ExternalRow],
) -> tuple[Section, ...]:
    """The sections.

    Args:
        everything: every cell.
        table: the same less the cells that can't run here, which coverage alone shows.
        options: reference cell and radar anchors.
        findings: what looks wrong.
        claims: published claims to hold against the rows.
        elsewhere: published rows that are shown and never judged.
    """
    sections = [coverage.section(everything)]
    if not table.records:
        return tuple(sections)
    if table.rows:
        sections += [
            validity.section(table, findings),
            quality.section(table),
            costs.section(table),
            trade.section(table),
            learning.section(table),
        ]
        if language.is_needed(table):
            sections.append(language.section(table))
        if ranks.is_needed(table):
            sections.append(ranks.section(table))
    if table.planned("tuning"):
        sections.append(sensitivity.section(table))
    if table.rows:
        sections.append(glance.section(table, options))
        if claims:
            sections.append(reported_claims.section(table, claims))
        sections.append(choice.section(table))
    sections += filter(None, [external.external_section(elsewhere)])
    return (*sections, provenance.environment(everything), provenance.rerun(everything))


def _facts(job: Job, table: ResultTable, suite_summary: str) -> tuple[tuple[str, str], ...]:
    models = [_model(j) for j in table.jobs]
    return (
        ("suite", f"{job.suite}, version {job.suite_version}"),
        ("profile", job.profile),
        ("model", words.listing(list(dict.fromkeys(models)))),
        ("device", words.listing(sorted({j.device for j in table.jobs}))),
        ("about", suite_summary or words.MISSING),
    )


def _model(job: Job) -> str:
    if job.model not in MODELS:
        return job.model
    return f"{MODELS[job.model].title} ({MODELS[job.model].read_as})"


def _warning(table: ResultTable) -> str:
    job = table.jobs[0]
    if job.profile == FULL_PROFILE:
        return ""
    rows = [n for j in table.jobs if (n := j.recipe.train_rows) is not None]
    steps = [j.recipe.steps for j in table.jobs if j.cell.trains]
    scale = [f"{words.span(steps)} optimizer steps"] if steps else ["nothing trained"]
    if len(rows) == len(table.jobs):
        scale.append(f"at most {max(rows):,} training rows")
    return (
        f"Reduced scale: profile {job.profile}, {words.listing(scale)}. Scores and orderings may "
        "differ at full scale."
    )


def _empty(suite_summary: str, table: ResultTable, notes: Sequence[str]) -> Page:
    strays = (coverage.left_out(table.strays),) if table.strays else ()
    return Page(
        title="Nothing planned",
        facts=(("about", suite_summary or words.MISSING),),
        finding="The profile has no jobs, so there is nothing to report.",
        alarms=(),
        warning="",
        notes=(*notes, *strays),
        opening=(),
    )
