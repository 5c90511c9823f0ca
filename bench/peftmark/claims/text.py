"""What `peftmark claims` prints of the ledger of claims and their verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from peftmark.claims.memory_figures import MemoryVerdict
from peftmark.claims.memory_text import counts_text, figure_lines, memory_facts
from peftmark.claims.paper import PREDICT
from peftmark.claims.part import Part
from peftmark.claims.standing import Ledger, Line
from peftmark.claims.tally import STATUSES, tally_lines
from peftmark.claims.verdicts import Verdict
from peftmark.claims.wording import claimed, lead, measured, percent, source_text
from peftmark.memory.forecast import NOT_YET
from peftmark.render import words

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
            {
                "suite": s.suite,
                "profile": s.profile,
                "published_rows": s.published,
                **_verdict_facts(s.verdict),
            }
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
    yield f"Suite {ledger.lines[0].standings[0].where}. {lead(found)}"
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
        yield f"     {standing.where}: {standing.verdict.text}"
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
