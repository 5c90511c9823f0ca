"""Drawings of lines: learning curves over steps, and scores over learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftmark.render import words
from peftmark.render.chart_specs import CurveLine, Curves, Sweep, SweepLine, WaitLine, Waits
from peftmark.render.style import heading, label, label_width, looks, new_canvas, panel
from peftmark.render.svg import INK, LINE, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


APART = 2.0
"""Pixels between Kaplan-Meier curves that take the same course."""
HEIGHT = 250.0
"""Pixels of a panel, of 320 less its margins."""


def draw_curves(curves: Curves) -> Canvas:
    """Learning curves of one task, named at their right ends."""
    labels = [label(line.mark) for line in curves.lines]
    canvas = new_canvas(500, 320)
    axes = panel(canvas, 46, 44, label_width(labels), 26)
    styles = looks([line.mark for line in curves.lines])
    for line, style in zip(curves.lines, styles, strict=True):
        _curve(axes, line, style)
    if curves.target is not None:
        axes.axhline(curves.target, color=INK, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    low, high = curves.span if curves.target is None else _cover(curves.span, curves.target)
    room = 0.08 * (high - low) or 0.05
    axes.set_ylim(low - room, high + room)
    axes.margins(x=0)
    start, end = axes.get_xlim()
    axes.set_xlim(start - 0.03 * (end - start), end)
    axes.locator_params(axis="both", nbins=6)
    axes.grid(axis="y", color=LINE, linewidth=0.75)
    axes.set_axisbelow(True)
    axes.set_xlabel("optimizer steps", labelpad=6)
    heading(axes, curves.axis)
    ends = [
        (line.mean[-1][1], label(line.mark), style["color"])
        for line, style in zip(curves.lines, styles, strict=True)
    ]
    if curves.target is not None:
        ends.append((curves.target, "target", INK))
    _end_labels(axes, ends)
    return canvas


def draw_waits(waits: Waits) -> Canvas:
    """Kaplan-Meier curves of one task: steps down where runs reach the target."""
    labels = [label(line.mark) for line in waits.lines]
    canvas = new_canvas(500, 320)
    axes = panel(canvas, 46, 44, label_width(labels), 26)
    styles = looks([line.mark for line in waits.lines])
    last = waits.end
    first = min((line.points[1][0] for line in waits.lines if len(line.points) > 1), default=last)
    axes.plot([0, first], [1, 1], color=MUTED, solid_capstyle="butt")
    ends = []
    for i, (line, style) in enumerate(zip(waits.lines, styles, strict=True)):
        offset = APART * (i - (len(waits.lines) - 1) / 2)
        _wait(axes, line, (first, last), offset, style)
        ends.append((line.points[-1][1] + offset / HEIGHT, labels[i], style["color"]))
    axes.set_ylim(-0.06, 1.06)
    axes.set_xlim(0, last)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    _ticks_to(axes, last)
    axes.grid(axis="y", color=LINE, linewidth=0.75)
    axes.set_axisbelow(True)
    axes.set_xlabel("optimizer steps", labelpad=6)
    heading(axes, "runs not at the target yet, lower is better")
    _end_labels(axes, ends)
    return canvas


def _wait(
    axes: Axes, line: WaitLine, span: tuple[float, float], offset: float, style: dict[str, Any]
) -> None:
    """The curve from the step at which the first of the picture leaves 100 %.

    Equal curves would hide one another, so each is set off by a hair, up and to the right alike:
    then neither its level nor its upright parts cover those of the next. A curve at 0 stays there
    to the right edge.
    """
    from matplotlib.transforms import ScaledTranslation

    first, last = span
    end = line.end if line.points[-1][1] else last
    steps, shares = zip(
        *((max(step, first), share) for step, share in [*line.points, (end, line.points[-1][1])]),
        strict=True,
    )
    hair = ScaledTranslation(offset / 72, offset / 72, axes.figure.dpi_scale_trans)
    drawn = style | {"marker": "", "linewidth": 1.5}
    axes.plot(
        steps,
        shares,
        drawstyle="steps-post",
        transform=axes.transData + hair,
        clip_on=False,
        **drawn,
    )


def _ticks_to(axes: Axes, last: float) -> None:
    """Ticks up to the last step, which has one itself; its neighbour gives way where they touch."""
    axes.locator_params(axis="x", nbins=6)
    found = [tick for tick in axes.get_xticks() if 0 <= tick < last * 0.9]
    axes.set_xticks([*found, last], [f"{tick:g}" for tick in (*found, last)])


def _cover(span: tuple[float, float], value: float) -> tuple[float, float]:
    return min(span[0], value), max(span[1], value)


def _curve(axes: Axes, line: CurveLine, style: dict[str, Any]) -> None:
    thin = {"color": style["color"], "linestyle": style["linestyle"]}
    for seed in line.seeds:
        axes.plot(*_columns(seed), linewidth=0.75, alpha=0.35, **thin)
    axes.plot(*_columns(line.mean), markersize=5, clip_on=False, **style)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _end_labels(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right edge, pushed apart so that no two overlap.

    Args:
        ends: height, name and colour of each line's end.
    """
    low, high = axes.get_ylim()
    wanted = sorted(((y - low) / (high - low) * HEIGHT, y, name, c) for y, name, c in ends)
    half = [7.5 * (1 + name.count("\n")) for _, _, name, _ in wanted]
    placed: list[float] = []
    for i, (pixel, *_) in enumerate(wanted):
        placed.append(max(pixel, placed[-1] + half[i - 1] + half[i]) if placed else pixel)
    over = max(0.0, placed[-1] - HEIGHT) if placed else 0.0
    for i in range(len(placed) - 1, -1, -1):
        last = i + 1 == len(placed)
        ceiling = HEIGHT if last else placed[i + 1] - half[i] - half[i + 1]
        placed[i] = min(placed[i], ceiling) if over else placed[i]
    for pixel, (_, y, name, colour) in zip(placed, wanted, strict=True):
        _leader(axes, (y - low) / (high - low), pixel / HEIGHT, colour)
        axes.text(1.06, pixel / HEIGHT, name, transform=axes.transAxes, va="center")


def _leader(axes: Axes, start: float, end: float, colour: str) -> None:
    axes.plot(
        [1.0, 1.05],
        [start, end],
        transform=axes.transAxes,
        color=colour,
        linewidth=1,
        clip_on=False,
    )


def draw_sweep(sweep: Sweep) -> Canvas:
    """Score against a setting: a line a cell, broad where it is flat, a ring around what was
    chosen."""
    from matplotlib.ticker import NullLocator

    labels = [label(line.mark) for line in sweep.lines]
    canvas = new_canvas(500, 320)
    axes = panel(canvas, 46, 44, label_width(labels) + 24, 26)
    if not sweep.names:
        axes.set_xscale("log")
    styles = looks([line.mark for line in sweep.lines])
    for name, line, style in zip(labels, sweep.lines, styles, strict=True):
        _sweep(axes, line, name, style)
    if sweep.names:
        axes.set_xticks(range(len(sweep.names)), sweep.names)
    else:
        values = sorted({value for line in sweep.lines for value, _ in line.points})
        ticks = _apart(values)
        axes.set_xticks(ticks, [words.rate(value) for value in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.06, y=0.1)
    axes.locator_params(axis="y", nbins=6)
    axes.grid(axis="y", color=LINE, linewidth=0.75)
    axes.set_axisbelow(True)
    axes.set_xlabel(sweep.knob if sweep.names else f"{sweep.knob}, log scale", labelpad=6)
    heading(axes, sweep.axis)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, handlelength=1.6)
    return canvas


def _apart(rates: list[float]) -> list[float]:
    """The rates whose labels do not touch: a seventh of the log axis apart."""
    step = (math.log(rates[-1]) - math.log(rates[0])) / 7
    kept = rates[:1]
    for rate in rates[1:]:
        if math.log(rate) - math.log(kept[-1]) >= step:
            kept.append(rate)
    return kept


def _sweep(axes: Axes, line: SweepLine, name: str, style: dict[str, Any]) -> None:
    values = [value for value, _ in line.points]
    scores = [math.nan if score is None else score for _, score in line.points]
    flat = [s if v in line.flat else math.nan for v, s in zip(values, scores, strict=True)]
    axes.plot(values, flat, color=style["color"], linewidth=9, alpha=0.25, zorder=1)
    axes.plot(values, scores, markersize=5, label=name, **style)
    for value, score in line.points:
        if value == line.chosen and score is not None:
            look: dict[str, Any] = {"marker": "o", "fillstyle": "none", "color": INK}
            axes.plot([value], [score], markersize=13, markeredgewidth=1.25, **look)
