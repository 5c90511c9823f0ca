"""A page as one self-contained HTML file: no fetches, readable without scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.report.page import Page

FOLDER = Path(__file__).parent


def render(page: Page, pictures: Mapping[str, str]) -> str:
    """The HTML text.

    Args:
        page: what to show.
        pictures: figure name -> `<svg>` element.
    """
    env = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (FOLDER / "page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = env.get_template("page.html.jinja").render(
        page=page,
        pictures={name: Markup(svg) for name, svg in pictures.items()},  # noqa: S704 - our own SVG
        css=Markup((FOLDER / "page.css").read_text("utf-8")),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=f"sha256-{digest}",
    )
    return text.lstrip()
