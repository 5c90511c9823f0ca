"""What `peftmark claims` prints: the ledger of claims, and the verdicts that stored rows give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peftmark.analysis.machines import machines_of, sentence
from peftmark.analysis.table import build
from peftmark.claims.ledger import Claim, load_claims
from peftmark.claims.memory_figures import MemoryVerdict
from peftmark.claims.memory_text import counts_text, figure_lines, memory_facts
from peftmark.claims.paper import NOTHING, PREDICT, Paper
from peftmark.claims.part import Part
from peftmark.claims.tally import STATUSES, Status, status_of, tally_lines
from peftmark.claims.verdicts import Verdict, verdicts, without_rows
from peftmark.claims.wording import claimed, lead, measured, percent, source_text
from peftmark.core.errors import UserError
from peftmark.memory.forecast import NOT_YET
from peftmark.render import words
from peftmark.storage.store import Contents, Store
from peftmark.storage.unread import no_results, unread
from peftmark.suite.checks import suite_folders
from peftmark.suite.expand import as_recorded
from peftmark.suite.load import Suite
from peftmark.suite.with_rows import load_with_rows


@dataclass(frozen=True)
class Standing:
    """A verdict by the rows of one profile of one suite."""

    suite: str
    profile: str
    verdict: Verdict


@dataclass(frozen=True)
class Line:
    """One claim with what is known of it.

    Attributes:
        standings: a verdict for each suite with results.
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
        return status_of(kinds, "untestable" if never else paper.kind, bool(self.idle))

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
    store = Store(results, suite)
    contents = store.read()
    paper = compute([claims[name] for name in loaded.claims])
    standings = _standings(loaded, profile, contents, claims, paper)
    if standings is None:
        raise no_results(
            store.folder,
            contents,
            f"Run them first: peftmark run {suite}. Without a suite `peftmark claims` shows every "
            "claim and what it needs.",
        )
    lines = tuple(Line(s.verdict.claim, (s,), (), paper) for s in standings.values())
    shown = next(iter(standings.values())).profile
    notes = (*_notes({store.folder: contents}), *_machines(contents, shown))
    return Ledger(lines, suite, shown, notes)


def _whole(claims: Mapping[str, Claim], results: Path, suites: Path | None, paper: Paper) -> Ledger:
    """Every claim, with the verdicts of every suite that has results."""
    names = dict.fromkeys(name for claim in claims.values() for name in claim.suites)
    stores = {name: Store(results, name) for name in names}
    there = {name: store.read() for name, store in stores.items()}
    found = {
        n: _standings(load_with_rows(n, suites, results), None, there[n], claims, paper) or {}
        for n in names
    }
    lines = []
    for claim in claims.values():
        standings = {n: found[n][claim.id] for n in claim.suites if claim.id in found[n]}
        idle = tuple(name for name in claim.suites if name not in standings)
        lines.append(Line(claim, tuple(standings.values()), idle, paper))
    notes = [*_notes({stores[name].folder: contents for name, contents in there.items()})]
    for name, standing in found.items():
        if standing:
            profile = next(iter(standing.values())).profile
            notes += [f"{name}: {text}" for text in _machines(there[name], profile)]
    return Ledger(tuple(lines), notes=tuple(notes))


def _notes(found: Mapping[Path, Contents]) -> tuple[str, ...]:
    return tuple(f"{where}: {clause}." for where, what in found.items() for clause in unread(what))


def _machines(contents: Contents, profile: str) -> list[str]:
    """What of a profile's rows is pooled over machines; nothing for one machine."""
    rows = [r for r in contents.rows if (r.job.profile, r.job.purpose) == (profile, "report")]
    return [*filter(None, [sentence(machines_of(rows))])]


def _standings(
    suite: Suite,
    profile: str | None,
    contents: Contents,
    claims: Mapping[str, Claim],
    paper: Paper,
) -> dict[str, Standing] | None:
    """Claim -> its verdict by the rows of one profile; None for a suite without rows."""
    if profile is not None and profile not in suite.profiles:
        known = ", ".join(suite.profiles)
        raise UserError(f"suite {suite.name} has no profile {profile!r}", f"Its profiles: {known}.")
    records = list(contents.records.values())
    if profile is None:
        latest = max(records, key=lambda r: (r.finished_at, r.job.job_id), default=None)
        profile = latest.job.profile if latest is not None else None
    if not records or profile is None or profile not in suite.profiles:
        return None
    mine = [r for r in records if r.job.profile == profile]
    jobs = as_recorded(suite, profile, {r.job.job_id: r for r in mine}).jobs
    rows = [r for r in contents.rows if r.job.profile == profile]
    table = build(rows, jobs, suite.report.reference)
    found = verdicts(table, [claims[name] for name in suite.claims], paper)
    return {v.claim.id: Standing(suite.name, profile, v) for v in found}


# --- as data ------------------------------------------------------------------------------------


def claims_facts(ledger: Ledger) -> dict[str, Any]:
    """The ledger as plain data."""
    return {
        "suite": ledger.suite,
        "profile": ledger.profile,
        "counts": {status: sum(x.status == status for x in ledger.lines) for status in STATUSES},
        "claims": [_line_facts(line) for line in ledger.lines],
        "notes": list(ledger.notes),
    }


def _line_facts(line: Line) -> dict[str, Any]:
    facts = line.claim.model_dump(exclude_none=True)
    paper = line.paper
    return facts | {
        "status": line.status,
        "because": line.because,
        "verdicts": [
            {"suite": s.suite, "profile": s.profile, **_verdict_facts(s.verdict)}
            for s in line.standings
        ],
        "without_rows": {"verdict": paper.kind, "parts": [_part_facts(p) for p in paper.parts]},
        "no_results_yet": list(line.idle),
        "memory_figures": memory_facts(line.figures),
    }


def _verdict_facts(verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict.kind,
        "scale": verdict.scale,
        "text": verdict.text,
        "level": verdict.level,
        "unlike_the_source": list(verdict.differs),
        "learning_rates": verdict.rates or None,
        "settle": list(verdict.settle),
        "jobs": list(verdict.jobs),
        "parts": [_part_facts(part) for part in verdict.parts],
    }


def _part_facts(part: Part) -> dict[str, Any]:
    test = part.test
    return {
        "part": test.part if test is not None else None,
        "claimed": claimed(test) if test is not None else None,
        "verdict": part.kind,
        "direction": part.direction,
        "effect": part.effect,
        "interval": None if part.low is None else [part.low, part.high],
        "exact": part.exact,
        "seeds": part.seeds,
        "tasks": list(part.tasks),
        "pairs": [_pair_facts(asdict(pair)) for pair in part.pairs],
        "reason": part.reason,
        "settle": part.settle,
        "seeds_needed": part.more,
        "notes": list(part.notes),
        "jobs": list(part.jobs),
    }


def _pair_facts(pair: dict[str, Any]) -> dict[str, Any]:
    """A pair of an order; no interval is null, never infinite."""
    low, high = pair.pop("low"), pair.pop("high")
    cells = {name: words.title(pair[name]) for name in ("first", "second")}
    return pair | cells | {"interval": None if high == float("inf") else [low, high]}


# --- as text ------------------------------------------------------------------------------------


def claims_text(ledger: Ledger) -> str:
    """The ledger for a terminal: verdicts of one suite, or every claim with its tests."""
    if ledger.suite is not None:
        return "\n".join([*_suite_lines(ledger), *ledger.notes])
    counts = tally_lines((line.claim.id, line.status, line.because) for line in ledger.lines)
    lines = [text for line in ledger.lines for text in (*claim_lines(line), "")]
    return "\n".join([*counts, "", *lines, *ledger.notes]).rstrip()


def _suite_lines(ledger: Ledger) -> Iterator[str]:
    found = [line.standings[0].verdict for line in ledger.lines]
    yield f"Suite {ledger.suite}, profile {ledger.profile}. {lead(found)}"
    level = max((v.level for v in found if v.level is not None), default=None)
    if level is not None:
        yield f"Each interval has level {percent(level)}, so that all hold together with 95\u00a0%."
    for verdict in found:
        yield ""
        yield f"{verdict.claim.id}  {verdict.text}"
        yield f"     {verdict.claim.statement}"
        for part in verdict.parts:
            yield f"     {_part_text(part)}"
        if verdict.differs:
            yield f"     unlike the source: {'; '.join(verdict.differs)}"
        if verdict.rates:
            yield f"     learning rates: {verdict.rates}"
        if verdict.settle:
            yield f"     to settle it: {'; '.join(verdict.settle)}"


def _part_text(part: Part) -> str:
    found = "; ".join(filter(None, (measured(part), part.reason, *part.notes)))
    if part.test is None:
        return found
    text = f"{part.test.part}: {part.text}"
    if part.kind != "untestable":
        text += f"; claimed {claimed(part.test)}"
    return f"{text}; {found}" if found else text


def claim_lines(line: Line) -> Iterator[str]:
    """One claim with its source, tests and verdicts; the lines after the first are indented."""
    claim = line.claim
    yield f"{claim.id}  {claim.statement}"
    yield f"     {source_text(claim)}"
    if claim.reading:
        yield f"     unlike the source: {claim.reading}"
    if claim.not_here:
        yield f"     not runnable here as stated: {claim.not_here}"
    if claim.untestable:
        yield f"     not runnable here: {claim.untestable}"
    by_test: dict[str, list[str]] = {}
    for part in line.paper.parts:
        if part.test is None:
            continue
        if part.test.suite is None:
            yield f"     {_part_text(part)}"
            continue
        beside = (", ".join(part.test.profiles or ()), part.test.differs)
        told = "; ".join(filter(None, beside))
        where = f"{part.test.suite} ({told})" if told else part.test.suite
        text = f"{part.test.part}: {claimed(part.test)}"
        by_test.setdefault(text, []).append(where)
    for text, suites in by_test.items():
        yield f"     {text}; suite {', '.join(suites)}"
    yield from (f"     {text}" for text in _figure_lines(line.figures))
    for standing in line.standings:
        where = f"{standing.suite}, profile {standing.profile}"
        yield f"     {where}: {standing.verdict.text}"
    if line.idle:
        yield f"     undecided, no results yet: {', '.join(line.idle)}"


def _figure_lines(found: Sequence[MemoryVerdict]) -> Iterator[str]:
    """The published memory figures of a claim, with the verdicts of the ledger they stand in."""
    if not found:
        return
    count = words.plural(len(found), "published memory figure")
    if any(NOT_YET in verdict.reason for verdict in found):
        yield f"{count}, {NOT_YET}: {PREDICT}"
        return
    yield f"{count}, compared with predictions: {counts_text(found)}"
    yield from (f"  {line}" for line in figure_lines(found))
