"""All that a report shows, as plain data: rows in, `Page` out. Nothing is drawn here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from peftmark.advice import money, rates_lines
from peftmark.advice.recommend import Answer
from peftmark.advice.trade import Front
from peftmark.analysis.machines import sentence
from peftmark.analysis.table import ResultTable, build
from peftmark.record.job import Job
from peftmark.render import words
from peftmark.render.page import FirstScreen, Page, Section
from peftmark.report import (
    alarms,
    answer,
    cards,
    costs,
    coverage,
    external,
    gates,
    glossary,
    language,
    learning,
    machines,
    pareto,
    provenance,
    quality,
    radar,
    ranks,
    recommendation,
    summary,
    tiles,
    tuning,
    validity,
)
from peftmark.report import claims as reported_claims
from peftmark.report.report_input import ReportInput


@dataclass(frozen=True)
class Material:
    """What the sections are made from.

    Attributes:
        everything: every cell.
        table: the same less the cells that can't run here, which coverage alone shows.
        findings: what looks wrong.
    """

    given: ReportInput
    everything: ResultTable
    table: ResultTable
    findings: validity.Findings

    @cached_property
    def answers(self) -> dict[str, Answer]:
        """What the rows say to the standard constraints."""
        return recommendation.answers_of(self.table, self.given.price)

    @cached_property
    def fronts(self) -> list[Front]:
        """The trade of score against each cost."""
        return pareto.fronts(self.table, self.given.price)


def page(given: ReportInput) -> Page:
    """The report of one profile of one suite."""
    everything = build(given.records, given.planned, given.options.reference)
    if not given.planned:
        return _empty(given.summary, everything, given.notes)
    table = everything.without(everything.unsupported)
    job = table.jobs[0]
    findings = validity.look(table)
    material = Material(given, everything, table, findings)
    return Page(
        title=f"{job.suite}, profile {job.profile}",
        facts=(*_facts(job, table, given.summary), *_priced(given)),
        finding=summary.finding(table),
        alarms=validity.alarms(findings),
        warning=summary.warning(table),
        notes=(*filter(None, [sentence(everything.machines)]), *given.notes),
        opening=(),
        sections=cards.arranged(_sections(material)),
        first=first_screen(material),
        terms=glossary.terms(table),
        command=provenance.command(table),
    )


def first_screen(of: Material) -> FirstScreen:
    """The answer, its caveat, and what stands beside them once a run has finished."""
    table = of.table
    start = FirstScreen(_scope(table), answer.sentence(table), answer.caveat(table))
    if not any(r.ok for r in table.rows):
        return start
    return replace(
        start,
        charts=pareto.charts(table, of.fronts),
        tiles=tiles.tiles(table, of.answers, of.fronts, of.findings),
        table=summary.verdicts(table),
    )


def _scope(table: ResultTable) -> str:
    """What was run, in a line; seeds are said here and where a figure rests on fewer."""
    seeds = len({s.job.seed for s in table.slots})
    sizes = (
        words.plural(len(table.cells), "method"),
        words.plural(len(table.tasks), "task"),
        words.plural(seeds, "seed"),
    )
    models = words.listing(list(dict.fromkeys(_model(j) for j in table.jobs)))
    devices = words.listing(sorted({j.device for j in table.jobs}))
    return f"{' × '.join(sizes)} on {models}, {devices}"


def _sections(of: Material) -> tuple[Section, ...]:
    made = (row.make(of) for row in SECTIONS if row.when(of))
    return tuple(section for section in made if section is not None)


def _always(of: Material) -> bool:
    return True


def _ran(of: Material) -> bool:
    return bool(of.table.records)


def _finished(of: Material) -> bool:
    return bool(of.table.rows)


def _tuned(of: Material) -> bool:
    return _ran(of) and bool(of.table.planned("tuning"))


def _writes(of: Material) -> bool:
    return _finished(of) and language.is_needed(of.table)


def _ranked(of: Material) -> bool:
    return _finished(of) and ranks.is_needed(of.table)


def _gated(of: Material) -> bool:
    return _finished(of) and gates.is_needed(of.table)


def _claimed(of: Material) -> bool:
    return _finished(of) and bool(of.given.claims)


class SectionRow(NamedTuple):
    """When a section is shown, and what makes it; None for one that has nothing to say."""

    when: Callable[[Material], bool]
    make: Callable[[Material], Section | None]


SECTIONS = (
    SectionRow(_always, lambda of: coverage.section(of.everything)),
    SectionRow(_finished, lambda of: validity.section(of.table, of.findings)),
    SectionRow(_finished, lambda of: alarms.section(of.table)),
    SectionRow(_finished, lambda of: quality.section(of.table)),
    SectionRow(_finished, lambda of: costs.section(of.table, of.given.price)),
    SectionRow(_finished, lambda of: pareto.section(of.table, of.fronts)),
    SectionRow(_finished, lambda of: learning.section(of.table)),
    SectionRow(_writes, lambda of: language.section(of.table)),
    SectionRow(_ranked, lambda of: ranks.section(of.table)),
    SectionRow(_gated, lambda of: gates.section(of.table)),
    SectionRow(_tuned, lambda of: tuning.section(of.table)),
    SectionRow(_finished, lambda of: radar.section(of.table, of.given.options)),
    SectionRow(_claimed, lambda of: reported_claims.section(of.table, of.given.claims)),
    SectionRow(_finished, lambda of: recommendation.section(of.table, of.answers)),
    SectionRow(_ran, lambda of: external.external_section(of.given.elsewhere)),
    SectionRow(_ran, lambda of: machines.section(of.everything)),
    SectionRow(_ran, lambda of: provenance.environment(of.everything)),
    SectionRow(_ran, lambda of: provenance.rerun(of.everything)),
)
"""The sections of a report in their order."""


def _facts(job: Job, table: ResultTable, suite_summary: str) -> tuple[tuple[str, str], ...]:
    models = [_model(j) for j in table.jobs]
    own = dict.fromkeys(j.task_title for j in table.jobs if j.own is not None)
    return (
        ("suite", f"{job.suite}, version {job.suite_version}"),
        ("profile", job.profile),
        ("model", words.listing(list(dict.fromkeys(models)))),
        *([("data", words.listing(list(own)))] if own else []),
        *([("learning rates", rates)] if (rates := rates_lines.short(table)) else []),
        ("device", words.listing(sorted({j.device for j in table.jobs}))),
        ("about", suite_summary or words.MISSING),
    )


def _priced(given: ReportInput) -> tuple[tuple[str, str], ...]:
    """What a run's price is made of, where there is one."""
    return (("price", f"{given.price.text} of {money.MEANING}"),) if given.price else ()


def _model(job: Job) -> str:
    model = job.known_model
    if model is None:
        return job.model
    own = ", own" if model.own else ""
    return f"{model.title} ({model.read_as}{own})"


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
