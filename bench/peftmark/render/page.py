"""What a report page is made of, as plain frozen data. Renderers turn it into HTML or Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from peftmark.catalog.methods import METHODS, Cell, cell_title
from peftmark.core.shown import plural
from peftmark.render.chart_specs import Drawing, Mark
from peftmark.render.series import series_of
from peftmark.render.terms import Term

EntryKind = Literal["text", "number", "missing", "failed", "code", "marks", "stars"]


@dataclass(frozen=True)
class Fact:
    """What an entry claims, for scripts that hold a page's figures against one another.

    Attributes:
        figure: what it is, with its aggregate where there are several.
        cell: whose it is.
        against: the cell that it is less, where it is a difference.
        task: the one it is of; empty for all together.
        value: the unrounded figure.
        verdict: what is said to be shown of a difference; empty where nothing is said.
        beaten_by: a cell that is said to be shown to score higher.
    """

    figure: str
    cell: str
    value: float | None = None
    against: str = ""
    task: str = ""
    verdict: str = ""
    beaten_by: str = ""

    def attributes(self) -> Iterator[tuple[str, str]]:
        """The names and values of HTML attributes, without those that are empty."""
        value = "" if self.value is None else f"{self.value:.6g}"
        found = {
            "figure": self.figure,
            "cell": self.cell,
            "against": self.against,
            "task": self.task,
            "value": value,
            "verdict": self.verdict,
            "beaten-by": self.beaten_by,
        }
        return ((f"data-{key}", text) for key, text in found.items() if text)


@dataclass(frozen=True)
class Entry:
    """One table cell.

    Attributes:
        text: what it says, never empty.
        note: a small second line, such as n or the reason of an "n/a".
        kind: how it looks (marks: one sign a seed, between spaces; stars: some, or "★ to ★★");
            failed and missing entries sort last.
        sort: the number it sorts by; None sorts by text.
        fact: what it claims, where scripts are to compare it with other places.
    """

    text: str
    note: str = ""
    kind: EntryKind = "text"
    sort: float | None = None
    fact: Fact | None = None

    @property
    def is_long(self) -> bool:
        """Whether it holds a sentence rather than a name or a number."""
        return self.kind != "code" and len(self.text) > LONG_TEXT


@dataclass(frozen=True)
class Column:
    """A table column: title, and unit and direction as a hint."""

    title: str
    hint: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Grid:
    """A table; the first column names the row.

    Attributes:
        folded: whether it starts closed under its caption.
        note: said below the table.
        filter: whether a field to filter rows is offered however few they are.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    folded: bool = False
    note: str = ""
    filter: bool = False
    kind: ClassVar[str] = "grid"

    @property
    def is_long(self) -> bool:
        """Whether it has more rows than a screen, so that it scrolls in a frame of its own."""
        return len(self.rows) > MOST_ROWS

    @property
    def is_prose(self) -> bool:
        """Whether it holds sentences and no numbers: it fills the width, and on a phone each row
        stands by itself."""
        if any(column.numeric for column in self.columns):
            return False
        return any(e.is_long for row in self.rows for e in row)


FAILED = "✕"
"""The sign of a failed run in an entry of marks."""
MOST_ROWS = 24
LONG_TEXT = 40
LONGEST_LABEL = 72


def shorten(text: str, limit: int) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def marks(cells: tuple[Cell, ...]) -> dict[Cell, Mark]:
    """The look of each cell; it depends on its family and on the other cells of that family."""
    seen: dict[str, int] = {}
    found: dict[Cell, Mark] = {}
    order = {key: i for i, key in enumerate(METHODS)}
    for cell in sorted(
        cells,
        key=lambda c: (
            order.get(c.method, len(order)),
            c.method,
            c.quantization,
            c.size or 0,
            c.variant,
        ),
    ):
        series = series_of(cell)
        variant = seen.get(series, 0)
        seen[series] = variant + 1
        title = shorten(cell_title(*cell), LONGEST_LABEL)
        found[cell] = Mark(title, series, variant)
    return found


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        name: file name without ending, and prefix of the ids inside; unique on the page.
        finding: what it shows, in words from the data.
        note: how to read it.
        wide: whether it takes the whole width.
        title: a name to set above the finding.
        phone: the same for a narrow window; None where it is shown as it is.
    """

    name: str
    finding: str
    drawing: Drawing
    note: str = ""
    wide: bool = False
    title: str = ""
    phone: Drawing | None = None
    kind: ClassVar[str] = "figure"

    @property
    def for_phone(self) -> Figure:
        """What stands in for it in a narrow window."""
        return replace(self, name=f"{self.name}-phone", drawing=self.phone or self.drawing)


@dataclass(frozen=True)
class Figures:
    """Pictures side by side; `dense` puts more of them in a row."""

    figures: tuple[Figure, ...]
    dense: bool = False
    kind: ClassVar[str] = "figures"


@dataclass(frozen=True)
class Paragraph:
    """A sentence or more."""

    text: str
    kind: ClassVar[str] = "paragraph"


Block = Grid | Figures | Figure | Paragraph


@dataclass(frozen=True)
class Section:
    """One question of the reader, answered in the first line (`lead`).

    Attributes:
        picture: what is shown at once of a card, beside its blocks.
        depth: plain: everything is open; card: lead and picture, the blocks folded below them;
            appendix: folded as a whole.
    """

    key: str
    title: str
    lead: str
    blocks: tuple[Block, ...]
    picture: tuple[Figure | Grid, ...] = ()
    depth: Literal["plain", "card", "appendix"] = "plain"

    @property
    def is_wide(self) -> bool:
        """Whether its picture takes the whole width."""
        return any(isinstance(b, Grid) or b.wide for b in self.picture)

    @property
    def evidence(self) -> str:
        """What its blocks hold, such as "5 tables and 4 pictures"."""
        tables = sum(isinstance(b, Grid) for b in self.blocks)
        pictures = sum(len(b.figures) for b in self.blocks if isinstance(b, Figures))
        found = [plural(n, what) for n, what in ((tables, "table"), (pictures, "picture")) if n]
        return " and ".join(found) or "more"

    def grids(self) -> Iterator[Grid]:
        """Every table in order."""
        yield from (b for b in (*self.picture, *self.blocks) if isinstance(b, Grid))


State = Literal["good", "care", "bad"]
SIGNS: dict[State, str] = {"good": "✓", "care": "!", "bad": "✕"}
"""State -> the sign that says it without colour."""


@dataclass(frozen=True)
class Sign:
    """One mark of trust: how it stands, in a few words, and the section that has the list."""

    state: State
    text: str
    section: str

    @property
    def mark(self) -> str:
        """The sign."""
        return SIGNS[self.state]


@dataclass(frozen=True)
class Tile:
    """One of the facts beside the first chart: what it is about, its answer, and a small line."""

    title: str
    value: str
    note: str = ""
    signs: tuple[Sign, ...] = ()


@dataclass(frozen=True)
class CostChart:
    """Quality against one cost that the reader may pick.

    Attributes:
        label: the cost, as on its button.
        figure: the picture.
        phone: the same for a narrow window.
    """

    label: str
    figure: Figure
    phone: Figure


@dataclass(frozen=True)
class FirstScreen:
    """What a reader sees without scrolling.

    Attributes:
        scope: what was run, in a line.
        answer: what was learned, in one plain sentence without an interval.
        caveat: what matters most against it.
        charts: quality against one cost each; the first is shown until the reader picks another.
        tiles: four facts beside them.
        table: the same as figures.
        reasons: why the answer is what it is, a line each.
        legend: what stands before the buttons that pick a chart.
    """

    scope: str
    answer: str
    caveat: str
    charts: tuple[CostChart, ...] = ()
    tiles: tuple[Tile, ...] = ()
    table: Grid | None = None
    reasons: tuple[str, ...] = ()
    legend: str = "Score against"


@dataclass(frozen=True)
class Page:
    """The whole report.

    Attributes:
        title: suite and profile.
        facts: (name, value) pairs shown under the title.
        finding: what was learned, in one or two sentences.
        alarms: what makes the numbers untrustworthy, set off above everything else.
        warning: the reduced-scale warning, empty at full scale.
        notes: extra lines for the top.
        opening: blocks above the first section.
        links: (text, relative address) of what lies beside the page.
        command: what makes it all again, to be typed.
        first: the first screen of a report; None for pages that open with `finding`.
        terms: names of methods and tasks that the page explains where they stand.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    finding: str
    alarms: tuple[str, ...]
    warning: str
    notes: tuple[str, ...]
    opening: tuple[Block, ...]
    sections: tuple[Section, ...] = field(default=())
    links: tuple[tuple[str, str], ...] = ()
    command: str = ""
    first: FirstScreen | None = None
    terms: tuple[Term, ...] = ()

    @property
    def cards(self) -> tuple[Section, ...]:
        """The questions, and what is open as a whole."""
        return tuple(s for s in self.sections if s.depth != "appendix")

    @property
    def appendix(self) -> tuple[Section, ...]:
        """Everything else."""
        return tuple(s for s in self.sections if s.depth == "appendix")

    def figures(self) -> Iterator[Figure]:
        """Every picture of the page in order."""
        yield from (chart.figure for chart in (self.first.charts if self.first else ()))
        blocks = [*self.opening, *(b for s in self.sections for b in (*s.picture, *s.blocks))]
        for block in blocks:
            if isinstance(block, Figure):
                yield block
            elif isinstance(block, Figures):
                yield from block.figures

    def phone_figures(self) -> Iterator[Figure]:
        """Pictures that stand in for others in a narrow window."""
        yield from (chart.phone for chart in (self.first.charts if self.first else ()))
        yield from (f.for_phone for f in self.figures() if f.phone is not None)
