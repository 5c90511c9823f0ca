"""A page as one self-contained HTML file: no fetches, readable without scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from peftmark.core.shown import visible
from peftmark.render import shapes, terms
from peftmark.render.page import FAILED, Entry, Grid, Page
from peftmark.render.series import dark_rules, light_rules

FOLDER = Path(__file__).parent
MOST_NAMES = 20
"""Names of methods and tasks that stand open below the first chart; more are folded."""


def render(page: Page, pictures: Mapping[str, str]) -> str:
    """The HTML text.

    Args:
        page: what to show.
        pictures: figure name -> `<svg>` element.
    """
    script = (FOLDER / "page.js").read_text("utf-8")
    rules = "".join(shapes.rules(figure) for figure in page.figures())
    keys = terms.keys_of(page.terms)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = (
        environment()
        .get_template("page.html.jinja")
        .render(
            page=page,
            pictures={name: Markup(svg) for name, svg in pictures.items()},  # noqa: S704 - our own SVG
            css=Markup(css() + rules),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            script_hash=f"sha256-{digest}",
            most_names=MOST_NAMES,
            body=lambda grid: _body(grid, keys),
            named=lambda text: Markup(terms.in_text(text, keys)),  # noqa: S704 - escaped there
            known=lambda text: (
                Markup(terms.button(text, keys)) if text in keys else text  # noqa: S704
            ),
            pickers=lambda figure: Markup(shapes.pickers(figure)),  # noqa: S704 - escaped there
            paper=lambda text: Markup(terms.paper(text)),  # noqa: S704 - escaped there
        )
    )
    return visible(text.lstrip())


def environment() -> Environment:
    """Templates of this folder, with every text escaped."""
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def css() -> str:
    """The style sheet with the colours of the series in it."""
    text = (FOLDER / "page.css").read_text("utf-8")
    light, dark = "\n  ".join(light_rules()), "\n    ".join(dark_rules())
    return text.replace("/* series, light */", light).replace("/* series, dark */", dark)


# --- rows of tables, which are most of a large page: templates take four times as long ------------

FOLD_NOTE = 160
SHORT_NOTE = 15


def _body(grid: Grid, keys: Mapping[str, str]) -> Markup:
    """The rows of a table; every text is escaped.

    A known name opens its line where it first stands; of a table longer than a screen, the first
    name of each line alone, so that a keyboard gets past it.
    """
    told: set[str] = set()

    def text_of(e: Entry) -> str:
        if e.kind != "text" or e.text not in keys:
            return escape(e.text)
        once = keys[e.text] if grid.is_long else e.text
        if once in told:
            return escape(e.text)
        told.add(once)
        return terms.button(e.text, keys)

    prose = grid.is_prose
    right = [" right" if column.numeric else "" for column in grid.columns]
    labels = [f' role="cell" data-label="{escape(c.title)}"' if prose else "" for c in grid.columns]
    row_start = '<tr role="row">' if prose else "<tr>"
    head = '<th scope="row" role="rowheader"' if prose else '<th scope="row"'
    lines = []
    for row in grid.rows:
        cells = [f"{row_start}\n{head}{_data(row[0])}>{_entry(row[0], text_of)}</th>\n"]
        for e, side, label in zip(row[1:], right[1:], labels[1:], strict=True):
            long = " long" if e.kind == "text" and e.is_long else ""
            cells.append(
                f'<td class="{e.kind}{long}{side}"{label}{_data(e)}>{_entry(e, text_of)}</td>\n'
            )
        lines.append("".join(cells) + "</tr>")
    return Markup("\n".join(lines))  # noqa: S704 - escaped above


def _data(e: Entry) -> str:
    """What the script sorts by, where it isn't the text, and what is claimed, each with a space
    before it; failed and missing entries stay last."""
    key = "" if e.sort is None else f' data-sort="{e.sort}"'
    last = ' data-last="1"' if e.kind in ("missing", "failed") else ""
    if e.fact is None:
        return f"{key}{last}"
    told = "".join(f' {name}="{escape(text)}"' for name, text in e.fact.attributes())
    return f"{key}{last}{told}"


def _entry(e: Entry, text_of: Callable[[Entry], str]) -> str:
    if e.kind == "code":
        text = f"<code>{escape(e.text)}</code>"
    elif e.kind == "marks":
        text = "".join(
            f'<span class="mark{" failed" if m == FAILED else ""}">{escape(m)}</span>'
            for m in e.text.split(" ")
        )
    elif e.kind == "stars":
        told = " to ".join(str(len(part)) for part in e.text.split(" to "))
        text = f'<span class="stars" role="img" aria-label="{told} stars">{escape(e.text)}</span>'
    else:
        text = text_of(e)
    if not e.note:
        return text
    if len(e.note) > FOLD_NOTE and "; " in e.note:
        start, _, rest = e.note.partition("; ")
        return (
            f'{text}<details class="more"><summary>{escape(start)}</summary>'
            f'<span class="small">{escape(rest)}</span></details>'
        )
    short = " short" if len(e.note) < SHORT_NOTE else ""
    return f'{text}<span class="small{short}">{escape(e.note)}</span>'
