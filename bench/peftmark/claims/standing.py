"""How each claim of the ledger stands by the rows that are here.

Rows are those of a results folder and, for suites and profiles that it has none of, the published
ones that come with peftmark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from peftmark.analysis.machines import machines_of, sentence
from peftmark.analysis.table import build
from peftmark.claims.ledger import Claim, load_claims
from peftmark.claims.memory_figures import MemoryVerdict
from peftmark.claims.paper import NOTHING, Paper
from peftmark.claims.part import Kind, Part
from peftmark.claims.tally import Status, status_of
from peftmark.claims.verdicts import Verdict, combined, verdicts, without_rows
from peftmark.core.errors import UserError
from peftmark.render import words
from peftmark.storage.published import published_rows
from peftmark.storage.store import Contents, Store
from peftmark.storage.unread import no_results, unread
from peftmark.suite.checks import suite_folders
from peftmark.suite.expand import as_recorded
from peftmark.suite.load import Suite
from peftmark.suite.with_rows import load_with_rows


@dataclass(frozen=True)
class Standing:
    """A verdict by the rows of one profile of one suite.

    Attributes:
        published: whether the rows came with peftmark, and were not made here.
    """

    suite: str
    profile: str
    verdict: Verdict
    published: bool = False

    @property
    def where(self) -> str:
        """Which rows it rests on, in words."""
        return f"{self.suite}, profile {self.profile}{', published rows' * self.published}"


@dataclass(frozen=True)
class Line:
    """One claim with what is known of it.

    Attributes:
        standings: a verdict for each profile of each suite with results.
        idle: suites that test it and have no results yet.
        computed: what needs no run.
    """

    claim: Claim
    standings: tuple[Standing, ...]
    idle: tuple[str, ...]
    computed: Paper = NOTHING

    @property
    def paper(self) -> Verdict:
        """The verdict without any row: on paper, untestable, or undecided."""
        return without_rows(self.claim, paper=self.computed)

    @property
    def status(self) -> Status:
        """How the claim stands, over all suites."""
        kinds = [standing.verdict.kind for standing in self.standings]
        paper = self.paper
        # What is left where sums are done and no suite tests the rest.
        left = paper.kind == "undecided" and not self.claim.suites
        never = left and any(part.kind == "untestable" for part in paper.parts)
        together = self._together
        return status_of(
            [*kinds, *([together] if together else [])],
            "untestable" if never else paper.kind,
            bool(self.idle),
        )

    @property
    def _together(self) -> Kind | None:
        """The verdict where no profile tests every part, but several together do; else None."""
        found: dict[str, list[Part]] = {}
        for standing in self.standings:
            for part in standing.verdict.parts:
                if part.test is not None and part.kind != "not comparable":
                    found.setdefault(part.test.part, []).append(part)
        if len(self.standings) < 2 or set(found) != set(self.claim.parts):
            return None
        return combined([part for parts in found.values() for part in parts])

    @property
    def because(self) -> str:
        """The suites that the state rests on, or its reason."""
        status = self.status
        if status == "no results":
            return f"run {words.listing(self.idle)}"
        if status == "not runnable here":
            return "; ".join(p.reason for p in self.paper.parts if p.kind == "untestable")
        mine = [
            s for s in self.standings if status_of([s.verdict.kind], "undecided", False) == status
        ]
        if mine and (status != "decided" or self.paper.kind == "undecided"):
            return "; ".join(f"{s.verdict.text}: {s.suite}, {s.profile}" for s in mine)
        reasons = dict.fromkeys(part.reason for part in self.paper.parts if part.reason)
        return self.paper.kind if status == "decided" else "; ".join(reasons) or "on paper"

    @property
    def figures(self) -> tuple[MemoryVerdict, ...]:
        """The published memory figures of the claim, with what predictions say of them."""
        return self.computed.of(self.claim)


@dataclass(frozen=True)
class Ledger:
    """Claims with their verdicts; `suite` and `profile` where one suite was asked for.

    Attributes:
        notes: what of the results folders can't be read, a sentence each.
    """

    lines: tuple[Line, ...]
    suite: str | None = None
    profile: str | None = None
    notes: tuple[str, ...] = ()


def look(
    suite: str | None,
    profile: str | None,
    results: Path,
    suites: Path | None,
    compute: Callable[[Sequence[Claim]], Paper] = lambda claims: NOTHING,
) -> Ledger:
    """The claims of a suite with verdicts from its stored rows, or every claim there is.

    Args:
        suite: None for the whole ledger, with the verdicts of every suite that has results.
        profile: None for the profile of the latest row.
        results: the results folder.
        suites: a folder of suites besides those shipped.
        compute: what needs no run, for the claims that are shown.

    Raises:
        UserError: unknown suite or profile, a suite that tests no claim, or one without results.
    """
    claims = load_claims(suite_folders(suites))
    if suite is None:
        if profile is not None:
            raise UserError(
                "--profile is of a suite, and no suite is named",
                "Name one: peftmark claims SUITE --profile PROFILE.",
            )
        return _whole(claims, results, suites, compute([*claims.values()]))
    loaded = load_with_rows(suite, suites, results)
    if not loaded.claims:
        known = sorted({name for claim in claims.values() for name in claim.suites})
        raise UserError(
            f"suite {suite} tests no claim", f"Suites that do: {', '.join(known) or 'none'}."
        )
    if profile is not None and profile not in loaded.profiles:
        named = ", ".join(loaded.profiles)
        raise UserError(f"suite {suite} has no profile {profile!r}", f"Its profiles: {named}.")
    rows = _Rows.of(suite, results, lambda: loaded)
    shown = rows.latest() if profile is None else profile
    if shown is None or not (rows.own.records or shown in rows.with_some()):
        raise no_results(
            rows.folder,
            rows.own,
            f"Run them first: peftmark run {suite}. Without a suite `peftmark claims` shows every "
            "claim and what it needs.",
        )
    paper = compute([claims[name] for name in loaded.claims])
    standings = rows.standings(shown, claims, paper)
    lines = tuple(Line(s.verdict.claim, (s,), (), paper) for s in standings.values())
    return Ledger(lines, suite, shown, (*rows.notes(), *rows.machines(shown)))


@dataclass(frozen=True)
class _Rows:
    """The rows of a suite: those of the results folder, and published ones of other profiles."""

    name: str
    folder: Path
    own: Contents
    published: Contents
    load: Callable[[], Suite]

    @staticmethod
    def of(name: str, results: Path, load: Callable[[], Suite]) -> _Rows:
        store = Store(results, name)
        return _Rows(name, store.folder, store.read(), published_rows(results, name), load)

    @cached_property
    def suite(self) -> Suite:
        """The suite, read and checked where rows ask for it: that takes longer than the rows do."""
        return self.load()

    def with_some(self) -> list[str]:
        """Profiles of the suite with rows, in its order."""
        there = {r.job.profile for c in (self.own, self.published) for r in c.records.values()}
        return [profile for profile in self.suite.profiles if profile in there] if there else []

    def latest(self) -> str | None:
        """The profile of the latest row, of its own ones if there are any; None without rows."""
        for contents in (self.own, self.published):
            rows = [r for r in contents.records.values() if r.job.profile in self.suite.profiles]
            if rows:
                return max(rows, key=lambda r: (r.finished_at, r.job.job_id)).job.profile
        return None

    def _of(self, profile: str) -> Contents:
        """The rows that count for a profile: its own once one is finished, else published ones."""
        for contents in (self.own, self.published):
            if any(r.ok and r.job.profile == profile for r in contents.records.values()):
                return contents
        return self.own

    def standings(
        self, profile: str, claims: Mapping[str, Claim], paper: Paper
    ) -> dict[str, Standing]:
        """Claim -> its verdict by the rows of one profile that has some."""
        contents = self._of(profile)
        mine = {i: r for i, r in contents.records.items() if r.job.profile == profile}
        jobs = as_recorded(self.suite, profile, mine).jobs
        rows = [r for r in contents.rows if r.job.profile == profile]
        table = build(rows, jobs, self.suite.report.reference)
        found = verdicts(table, [claims[name] for name in self.suite.claims], paper)
        published = contents is self.published
        return {v.claim.id: Standing(self.name, profile, v, published) for v in found}

    def notes(self) -> tuple[str, ...]:
        """What can't be read of its own rows, a sentence each."""
        return tuple(f"{self.folder}: {clause}." for clause in unread(self.own))

    def machines(self, profile: str) -> list[str]:
        """What of a profile's rows is pooled over machines; nothing for one machine."""
        rows = [
            r
            for r in self._of(profile).rows
            if (r.job.profile, r.job.purpose) == (profile, "report")
        ]
        return [*filter(None, [sentence(machines_of(rows))])]


def _whole(claims: Mapping[str, Claim], results: Path, suites: Path | None, paper: Paper) -> Ledger:
    """Every claim, with the verdicts of every profile of every suite that has results."""
    names = dict.fromkeys(name for claim in claims.values() for name in claim.suites)
    rows = {n: _Rows.of(n, results, partial(load_with_rows, n, suites, results)) for n in names}
    found = {
        (name, profile): of_suite.standings(profile, claims, paper)
        for name, of_suite in rows.items()
        for profile in of_suite.with_some()
    }
    lines = []
    for claim in claims.values():
        mine = [standings[claim.id] for standings in found.values() if claim.id in standings]
        standings = tuple(s for s in mine if s.verdict.tested)
        idle = tuple(n for n in claim.suites if n not in {s.suite for s in standings})
        lines.append(Line(claim, standings, idle, paper))
    notes = [text for of_suite in rows.values() for text in of_suite.notes()]
    notes += [
        f"{name}, profile {profile}: {text}"
        for name, profile in found
        for text in rows[name].machines(profile)
    ]
    return Ledger(tuple(lines), notes=tuple(notes))
