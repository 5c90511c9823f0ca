"""A page as files: HTML, Markdown and its pictures. Every command that writes one does it here."""

from __future__ import annotations

from pathlib import Path

from peftmark.render import draw, html, markdown, svg
from peftmark.render.page import Page


def as_html(page: Page) -> str:
    """The HTML alone, its pictures in it."""
    return html.render(page, draw.render_all([*page.figures(), *page.phone_figures()]))


def page_files(page: Page, folder: Path, text_name: str) -> dict[Path, str | bytes]:
    """Path -> content, `index.html` first.

    Args:
        page: what to show.
        folder: where it is to lie.
        text_name: name of the Markdown file, such as report.md.
    """
    pictures = draw.render_all(page.figures())
    narrow = draw.render_all(page.phone_figures())
    files: dict[Path, str | bytes] = {
        folder / "index.html": html.render(page, pictures | narrow),
        folder / text_name: markdown.render(page),
    }
    for name, picture in pictures.items():
        files[folder / markdown.PICTURES / f"{name}.svg"] = svg.standalone(picture)
    return files
