"""The ledger of claims as a table to look through, and each claim below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from peftmark.claims.part import Part
from peftmark.claims.standing import Line, Standing
from peftmark.claims.tally import STATUSES
from peftmark.claims.text import claim_lines
from peftmark.claims.wording import claimed, measured, percent
from peftmark.render import words
from peftmark.site import text
from peftmark.site.evidence import Run
from peftmark.site.text import Cell

HEAD = ("claim", "what is claimed", "verdict", "effect and interval", "rows", "scale")
NONE = "–"


def counts(lines: Sequence[Line]) -> list[tuple[str, int]]:
    """How many claims stand how."""
    return [(status, sum(line.status == status for line in lines)) for status in STATUSES]


def standing_text(found: Sequence[tuple[str, int]]) -> str:
    """How many claims stand how, in words."""
    return words.listing([f"{n} {WORDS.get(status, status)}" for status, n in found if n])


WORDS = {"no results": "without results"}


def claims_page(lines: Sequence[Line], runs: Sequence[Run]) -> str:
    """The page.

    Args:
        lines: every claim with its verdict by each run.
        runs: every published run.
    """
    told = standing_text(counts(lines))
    pages = {(run.suite, run.profile): run for run in runs}
    rows = [row for line in lines for row in _rows(line, pages)]
    return text.page(
        "# Claims of papers and guides",
        text.escape(
            f"Of {words.plural(len(lines), 'claim')} {told}. A verdict needs its whole "
            "interval on one side; all intervals of one run hold together with 95 %."
        ),
        text.table(HEAD, rows, "Every claim, a line for each part of it", filtered=True),
        "## Each claim with its source",
        *(block for line in lines for block in _details(line)),
        hide=["toc"],
        searched=False,
    )


def _rows(line: Line, runs: Mapping[tuple[str, str], Run]) -> Iterator[list[Cell]]:
    claim = line.claim
    name = Cell(claim.id, address=f"#{claim.id.lower()}")
    found = False
    for standing in line.standings:
        for part in standing.verdict.parts:
            if part.jobs or part.kind not in ("not comparable", "untestable"):
                yield [name, *_measured(part, standing, runs)]
                found = True
    if found:
        return
    for part in line.paper.parts:
        if part.kind not in ("undecided", "untestable") and part.test is not None:
            yield [name, *_on_paper(part)]
            found = True
    if not found:
        why = Cell(line.status, line.because, look="open")
        yield [name, Cell(claim.statement), why, Cell(NONE), Cell(NONE), Cell(NONE)]


def _measured(
    part: Part, standing: Standing, runs: Mapping[tuple[str, str], Run]
) -> tuple[Cell, ...]:
    verdict = standing.verdict
    run = runs.get((standing.suite, standing.profile))
    level = f"level {percent(verdict.level)}" if verdict.level and part.low is not None else ""
    rows = words.plural(len(part.jobs), "row") if part.jobs else NONE
    return (
        Cell(claimed(part.test) if part.test else verdict.claim.statement),
        Cell(part.text, part.reason, look=text.look_of(part.kind)),
        Cell(measured(part) or NONE, level, sort=part.effect),
        Cell(rows, address=f"{run.key}.md" if run and part.jobs else "", sort=len(part.jobs)),
        Cell(verdict.scale or (run.scale if run else NONE)),
    )


def _on_paper(part: Part) -> tuple[Cell, ...]:
    return (
        Cell(claimed(part.test) if part.test else NONE),
        Cell(part.text, part.reason, look=text.look_of(part.kind)),
        Cell(measured(part) or NONE, sort=part.effect),
        Cell("none needed"),
        Cell("by arithmetic or prediction"),
    )


def _details(line: Line) -> Iterator[str]:
    yield f"### {line.claim.id}"
    first, *rest = claim_lines(line)
    yield text.escape(first.removeprefix(line.claim.id).strip())
    yield text.sentences(line.strip() for line in rest)
