"""What a report page is made of, as plain frozen data. Renderers turn it into HTML or Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from peftmark.catalog.methods import METHODS, Cell, cell_title
from peftmark.render.chart_specs import Drawing, Mark
from peftmark.render.series import series_of

EntryKind = Literal["text", "number", "missing", "failed", "code", "marks"]


@dataclass(frozen=True)
class Entry:
    """One table cell.

    Attributes:
        text: what it says, never empty.
        note: a small second line, such as n or the reason of an "n/a".
        kind: how it looks (marks: one sign a seed, between spaces); failed and missing
            entries sort last.
        sort: the number it sorts by; None sorts by text.
    """

    text: str
    note: str = ""
    kind: EntryKind = "text"
    sort: float | None = None

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
    """

    name: str
    finding: str
    drawing: Drawing
    note: str = ""
    wide: bool = False
    title: str = ""


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


Block = Grid | Figures | Paragraph


@dataclass(frozen=True)
class Section:
    """One question of the reader, answered in the first line (`lead`)."""

    key: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


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

    def figures(self) -> Iterator[Figure]:
        """Every picture of the page in order."""
        blocks = [*self.opening, *(b for s in self.sections for b in s.blocks)]
        for block in blocks:
            if isinstance(block, Figures):
                yield from block.figures
