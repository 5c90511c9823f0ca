"""At a glance: at most three outlines on anchors that the suite fixes, and every cell's values."""

from __future__ import annotations

from dataclasses import replace

from peftmark.analysis.floor import below_floor
from peftmark.analysis.table import ResultTable, overall_score
from peftmark.catalog.methods import Cell
from peftmark.record.job import ReportOptions
from peftmark.render import words
from peftmark.render.chart_specs import Outline, Radar, RadarPoint
from peftmark.render.page import Block, Column, Entry, Figure, Grid, Paragraph, Section, marks
from peftmark.report import axes, cell_selection, missing, stars, summary

FEWEST_AXES = 3
MOST_OPEN = 12
"""Rows of a table that isn't folded."""
MOST_OFFERED = 40
"""Cells whose shapes a reader can pick."""
FEW = 3
"""Axes that are named one by one, however many there are."""
NEARLY = 0.02
"""Share of an axis within which outlines count as the same."""


def section(table: ResultTable, options: ReportOptions) -> Section:
    """One radar of at most three cells; the numbers of all, and stars, below it."""
    options = replace(options, radar=axes.of_table(table, options))
    keys = tuple(options.radar)
    grid = Grid(
        "The numbers of the radar",
        (Column("cell"), *(axes.column(table, k, options) for k in keys)),
        tuple(
            (Entry(words.title(c)), *(axes.entry(table, c, k, options) for k in keys))
            for c in table.cells
        ),
        folded=len(table.cells) > MOST_OPEN,
    )
    grid = missing.fold_missing(grid, 1)
    picture = _picture(table, options) if len(keys) >= FEWEST_AXES else None
    lead = "Outward is better; areas mean nothing."
    shown: tuple[Grid | Figure, ...] = (grid,) if picture is None else (picture,)
    rated = stars.grid(table, options)
    below: list[Block] = [] if picture is None else [grid]
    below += [rated] if rated else []
    blocks: tuple[Block, ...] = (Paragraph(_anchors(table, options)), *below)
    return Section("glance", "At a glance", lead, blocks, shown)


def points(table: ResultTable, cell: Cell, options: ReportOptions) -> tuple[RadarPoint, ...]:
    """A cell's outline; an unknown axis has no position."""
    return tuple(axes.point(table, cell, key, axis) for key, axis in options.radar.items())


def _anchors(table: ResultTable, options: ReportOptions) -> str:
    parts = []
    for key, axis in options.radar.items():
        head, meaning = axes.column(table, key, options), axes.named(table, key, options)[1]
        about = "; ".join(filter(None, (head.hint, meaning)))
        unit = "" if key in axes.ABSOLUTE else "×"
        parts.append(
            f"{head.title} ({about}): centre {axis.worst:g}{unit}, rim {axis.best:g}{unit}, "
            f"{axis.scale}"
        )
    text = "Shapes are of means. Anchors, outward = better. " + "; ".join(parts) + "."
    text += " They are fixed in the suite, so no cell moves when another joins."
    if "quality" in options.radar and table.scale.left_out and table.scale.tasks:
        text += (
            f" Quality leaves out {words.listing(table.scale.left_out)}, whose metric has no best "
            "possible value."
        )
    return text


def _picture(table: ResultTable, options: ReportOptions) -> Figure | None:
    """The reference, the cell with the highest mean and that with the least memory, of those above
    the quality floor, until the reader picks others; None where fewer than two have an outline."""
    look = marks(table.cells)
    offered = cell_selection.picks(table, MOST_OFFERED)
    every = (table.reference, *(c for c in table.cells if c != table.reference and c in offered))
    outlines = {c: points(table, c, options) for c in dict.fromkeys((*every, *_chosen(table)))}
    known = {c: o for c, o in outlines.items() if any(p.position is not None for p in o)}
    drawn = [c for c in _chosen(table) if c in known]
    if len(drawn) < 2 or table.reference not in known:
        return None
    base = known[table.reference]
    names = [axes.named(table, key, options)[0] for key in options.radar]
    short = [axes.column(table, key, options).title for key in options.radar]
    told = (
        f"{words.title(cell)}: {_finding(known[cell], base, short)}"
        for cell in drawn
        if cell != table.reference
    )
    places = list(known)
    drawing = Radar(
        tuple(names),
        tuple(Outline(look[cell], outline) for cell, outline in known.items()),
        tuple(places.index(cell) for cell in drawn),
    )
    finding = f"Against {words.title(table.reference)}: {'; '.join(told)}."
    note = "Drawn first: reference, highest mean, least memory."
    return Figure("radar", finding, drawing, note)


def _chosen(table: ResultTable) -> tuple[Cell, ...]:
    """At most three cells, each once."""
    floor = below_floor(table)
    able = [c for c in table.cells if c.trains and c not in floor and c != table.reference]
    means = {c: e.mean for c in able if (e := overall_score(table, c).estimate)}
    memory = {c: v for c in means if (v := summary.memory_ratio(table, c).value) is not None}
    best = [max(means, key=lambda c: means[c])] if means else []
    least = [c for c in sorted(memory, key=lambda c: memory[c]) if c not in best][:1]
    return (table.reference, *best, *least)


def _finding(
    outline: tuple[RadarPoint, ...], base: tuple[RadarPoint, ...], names: list[str]
) -> str:
    """In what an outline lies outside of the reference's, and in what inside."""
    ahead, behind, unknown = [], [], []
    for name, mine, theirs in zip(names, outline, base, strict=True):
        if mine.position is None or theirs.position is None:
            unknown.append(name)
        elif mine.position > theirs.position + NEARLY:
            ahead.append(name)
        elif mine.position < theirs.position - NEARLY:
            behind.append(name)
    known = [name for name in names if name not in unknown]
    parts = [f"outside in {_most(ahead, known)}"] if ahead else []
    parts += [f"inside in {_most(behind, known)}"] if behind else []
    parts += [f"{words.listing(unknown)} n/a"] if unknown else []
    return ", ".join(parts) or "the same outline"


def _most(names: list[str], known: list[str]) -> str:
    """Names of axes, or of many those that are not among them."""
    rest = [name for name in known if name not in names]
    if len(names) <= FEW or len(rest) >= len(names):
        return words.listing(names)
    return f"all but {words.listing(rest)}" if rest else "all"
