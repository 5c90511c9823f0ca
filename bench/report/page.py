"""What a report page is made of, as plain frozen data. Renderers turn it into HTML or Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from bench.methods import METHODS, Cell, cell_title, method_of
from bench.stats import Estimate

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
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    folded: bool = False
    note: str = ""
    kind: ClassVar[str] = "grid"

    @property
    def is_long(self) -> bool:
        """Whether it has more rows than a screen, so that it scrolls in a frame of its own."""
        return len(self.rows) > MOST_ROWS


@dataclass(frozen=True)
class Mark:
    """How a cell looks in every chart.

    Attributes:
        series: what decides colour and marker: a family of methods (one of `SERIES`), or other.
        variant: 0 for the first cell of a series, then 1, 2, ...: another dash and fill.
    """

    label: str
    series: str
    variant: int = 0


MOST_ROWS = 24
LONGEST_LABEL = 72
SERIES = (
    "lora", "adalora", "lora-nf4", "adalora-nf4", "full", "head",
    "adapter", "selective", "prompt", "mixed", "peft",
)  # fmt: skip


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
            order.get(c.method, len(order)), c.method, c.quantization, c.rank or 0, c.variant
        ),
    ):  # fmt: skip
        series = _series(cell)
        variant = seen.get(series, 0)
        seen[series] = variant + 1
        title = shorten(cell_title(*cell), LONGEST_LABEL)
        found[cell] = Mark(title, series, variant)
    return found


def _series(cell: Cell) -> str:
    """The series of a cell; on any quantised base LoRA and AdaLoRA look as on nf4."""
    method = method_of(cell.method)
    if method is None:
        return "other"
    key = method.key if method.family == "reference" else method.family
    if key in ("lora", "adalora") and cell.quantization != "none":
        key = f"{key}-nf4"
    return key if key in SERIES else "other"


@dataclass(frozen=True)
class StripRow:
    """One cell in the summary strip; ratios are to the reference."""

    mark: Mark
    quality: Estimate | None
    memory: float | None
    speed: float | None
    parameters: float | None
    missing: str = ""


@dataclass(frozen=True)
class Strip:
    """Quality, memory, speed and parameters of every cell on shared axes."""

    rows: tuple[StripRow, ...]
    reference: str


@dataclass(frozen=True)
class StackRow:
    """One cell in a stacked bar chart; `sizes` is empty where `missing` says why."""

    mark: Mark
    sizes: tuple[float, ...]
    missing: str = ""


@dataclass(frozen=True)
class Stack:
    """Bars made of parts that add up, the same parts in every row."""

    rows: tuple[StackRow, ...]
    parts: tuple[str, ...]
    axis: str


@dataclass(frozen=True)
class DotRow:
    """One cell in a dot plot: a dot a seed, mean and interval; `missing` says why there is none."""

    mark: Mark
    values: tuple[float, ...]
    estimate: Estimate | None
    missing: str = ""


@dataclass(frozen=True)
class Dots:
    """Scores of one task, with a line at the baseline predictor."""

    rows: tuple[DotRow, ...]
    axis: str
    baseline: float | None


@dataclass(frozen=True)
class CurveLine:
    """Learning curves of one cell: one a seed, and their mean."""

    mark: Mark
    seeds: tuple[tuple[tuple[int, float], ...], ...]
    mean: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Curves:
    """Learning curves of one task.

    Attributes:
        span: lowest and highest score of the task's curves, the same in all its panels.
    """

    lines: tuple[CurveLine, ...]
    axis: str
    target: float | None
    span: tuple[float, float]


@dataclass(frozen=True)
class SweepLine:
    """Scores of one cell by learning rate; a rate without a score breaks the line.

    Attributes:
        points: (learning rate, score), sorted by rate.
        chosen: the rate that the score picks; None without a score.
    """

    mark: Mark
    points: tuple[tuple[float, float | None], ...]
    chosen: float | None


@dataclass(frozen=True)
class Sweep:
    """Score against learning rate on one task."""

    lines: tuple[SweepLine, ...]
    axis: str


@dataclass(frozen=True)
class RadarPoint:
    """One axis of one outline.

    Attributes:
        position: 0 at the centre (worst anchor), 1 at the rim (best); None if unknown.
        clipped: whether the value lies outside the anchors.
    """

    position: float | None
    clipped: bool = False


@dataclass(frozen=True)
class Radar:
    """One cell's outline over the reference's."""

    mark: Mark
    axes: tuple[str, ...]
    points: tuple[RadarPoint, ...]
    reference: tuple[RadarPoint, ...]
    reference_label: str


@dataclass(frozen=True)
class RankMap:
    """Final rank of every adapted module of one cell.

    Attributes:
        layers: names of the rows, from the input up.
        modules: names of the columns.
        ranks: by layer, then module; None where there is no adapter.
    """

    mark: Mark
    layers: tuple[str, ...]
    modules: tuple[str, ...]
    ranks: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class RankPath:
    """Ranks of one cell over training.

    Attributes:
        steps: evaluated steps.
        runs: total active rank at each step, by run.
        mean: the same, mean over runs.
        layers: names of the rows below, from the input up.
        ranks: by layer, then step; None where there is no adapter.
        importance: the same for the mean importance; empty if the method has none.
        window: steps at which pruning starts and ends; None without a schedule.
    """

    mark: Mark
    steps: tuple[int, ...]
    runs: tuple[tuple[float, ...], ...]
    mean: tuple[float, ...]
    layers: tuple[str, ...]
    ranks: tuple[tuple[float | None, ...], ...]
    importance: tuple[tuple[float | None, ...], ...]
    window: tuple[int, int] | None


@dataclass(frozen=True)
class Lane:
    """What one cell made of each layer's score, in a few letters a layer."""

    mark: Mark
    texts: tuple[str, ...]


@dataclass(frozen=True)
class LayerBars:
    """Sensitivity of each layer: a dot a seed, their mean, and what cells chose by it."""

    layers: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    axis: str
    lanes: tuple[Lane, ...]


Drawing = Strip | Stack | Dots | Curves | Sweep | Radar | RankMap | RankPath | LayerBars


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
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    finding: str
    alarms: tuple[str, ...]
    warning: str
    notes: tuple[str, ...]
    opening: tuple[Block, ...]
    sections: tuple[Section, ...] = field(default=())

    def figures(self) -> Iterator[Figure]:
        """Every picture of the page in order."""
        blocks = [*self.opening, *(b for s in self.sections for b in s.blocks)]
        for block in blocks:
            if isinstance(block, Figures):
                yield from block.figures
