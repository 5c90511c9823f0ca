"""Which outlines of a radar are shown: three at most, of those that the reader picks.

Three lists of names stand beside the picture, and rules of the page's style show what they name, so
that no script is needed. A browser without such rules shows the three of the start.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any, Literal

from peftmark.render.chart_specs import Radar
from peftmark.render.page import Figure

DASHES: tuple[Any, ...] = ("-", (0, (3, 1.5)), (0, (1, 1)))
"""How the lines of the three are told apart, beside their colours, in multiples of their width."""
KEY_LINE = 20
"""Pixels of a line of the key."""
_CSS_DASHES = ("none", "6 3", "2 2")


def element(kind: Literal["s", "k"], part: str, place: int, hidden: bool) -> str:
    """The id of a part of an outline (s) or of its key (k); one of an outline that is not shown at
    first says so."""
    return f"{kind}{place}-{part}-{'off' if hidden else 'on'}"


def hide(body: str) -> str:
    """An SVG without what is not shown at first."""
    return re.sub(r'(<g id="[\w-]*\b[sk]\d+-[a-z]+-off")', r'\1 display="none"', body)


def pickers(figure: Figure) -> str:
    """Three lists of names, as HTML; empty for a picture that leaves nothing to pick."""
    radar = _pickable(figure)
    if radar is None:
        return ""
    names = [outline.mark.label for outline in radar.outlines]
    lists = "".join(
        _list(figure.name, names, slot, radar.drawn[slot] if slot < len(radar.drawn) else None)
        for slot in range(len(DASHES))
    )
    return f'<div class="shapes">Shapes {lists}</div>'


def _pickable(figure: Figure) -> Radar | None:
    drawing = figure.drawing
    return drawing if isinstance(drawing, Radar) and len(drawing.outlines) > 1 else None


def _list(name: str, names: Sequence[str], slot: int, picked: int | None) -> str:
    options = [("", "none", picked is None)] if slot else []
    options += [(str(i), text, i == picked) for i, text in enumerate(names)]
    inside = "".join(
        f'<option value="{value}"{" selected" if chosen else ""}>{escape(text)}</option>'
        for value, text, chosen in options
    )
    return (
        f'<select id="{name}-{slot}" aria-label="Shape {slot + 1}" autocomplete="off">'
        f"{inside}</select>"
    )


def rules(figure: Figure) -> str:
    """Style by which nothing is shown but what a list names, in the dashes and on the key line of
    that list; empty for a picture that leaves nothing to pick."""
    radar, name = _pickable(figure), figure.name
    if radar is None:
        return ""
    found = [f"[id^={name}-s],[id^={name}-k]{{display:none}}"]
    for slot in range(len(DASHES)):
        for place in range(len(radar.outlines)):
            home = radar.drawn.index(place) if place in radar.drawn else 0
            shape, key = f"[id^={name}-s{place}-", f"[id^={name}-k{place}-"
            found.append(
                f".question:has(#{name}-{slot} [value='{place}']:checked){{"
                f"{shape}],{key}]{{display:inline}}"
                f"{shape}line],{key}line]{{>path{{stroke-dasharray:{_CSS_DASHES[slot]}!important}}}}"
                f"{key}]{{transform:translateY({KEY_LINE * (slot - home)}px)}}}}"
            )
    return f"@supports selector(:has(a)){{{''.join(found)}}}\n"
