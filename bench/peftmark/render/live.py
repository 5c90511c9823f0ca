"""The page of a run that is still going: a board of jobs and curves, refreshed without a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from peftmark.core.shown import visible
from peftmark.render.html import css, environment

WIDTH, HEIGHT, EDGE = 320, 120, 8
"""Of a picture of curves, and the room left around them, in CSS pixels."""


@dataclass(frozen=True)
class Line:
    """One run's curve.

    Attributes:
        series: key of `peftmark.render.series.SERIES`, for its colour.
        points: (step, score).
    """

    name: str
    series: str
    points: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Curves:
    """The curves of one task, of which the lowest and the highest score are told."""

    task: str
    steps: int
    lines: Sequence[Line]
    low: str
    high: str


@dataclass(frozen=True)
class LivePage:
    """A run that is going.

    Attributes:
        refresh: seconds after which the page is read again; 0 for never.
        state: how many jobs are done, and what is left, in a sentence.
        tasks: heads of the board.
        board: a row a cell: its title and a text a task, a sign a seed.
        said: what can be said so far, a sentence a cell.
    """

    title: str
    refresh: int
    state: str
    tasks: Sequence[str]
    board: Sequence[tuple[str, Sequence[str]]]
    running: Sequence[str]
    curves: Sequence[Curves]
    said: Sequence[str]


def render(page: LivePage) -> str:
    """The HTML text; every name in it is escaped."""
    text = environment().get_template("live.html.jinja").render(
        page=page,
        css=Markup(css()),  # noqa: S704 - our own file
        polyline=polyline,
        width=WIDTH,
        height=HEIGHT,
    )  # fmt: skip
    return visible(text.lstrip())


def moved(target: str) -> str:
    """A page that leads to another one beside it."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="0; url={target}"><title>peftmark</title></head>'
        f'<body><p>The run has ended: <a href="{target}">its report</a>.</p></body></html>\n'
    )


def polyline(curves: Curves, line: Line) -> str:
    """A curve's points in the picture, as SVG has them."""
    scores = [score for one in curves.lines for _, score in one.points]
    low, high = min(scores), max(scores)
    span = (high - low) or 1.0
    across, down = WIDTH - 2 * EDGE, HEIGHT - 2 * EDGE
    return " ".join(
        f"{EDGE + across * step / curves.steps:.1f},{EDGE + down * (high - score) / span:.1f}"
        for step, score in line.points
    )
