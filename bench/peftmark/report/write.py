"""The report of one profile of one suite: `index.html`, `report.md` and its pictures."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from peftmark.core.files import write_all
from peftmark.report.report_input import ReportInput


def write(given: ReportInput, out_dir: Path) -> list[Path]:
    """Write the report into a folder, made if needed, and return its paths, `index.html` first.

    Raises:
        StoreError: the folder can't be written; an older report stays as it was.
    """
    with _no_collection():
        files = _files(given, out_dir)
    return write_all(files)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without looking for garbage cycles: of ten thousand rows none is garbage, and looking at all
    of them again and again takes a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _files(given: ReportInput, out_dir: Path) -> dict[Path, str | bytes]:
    """Path -> content of every file of a report."""
    # Drawing needs matplotlib, which takes a second to import: not before it is needed.
    from peftmark.render.page_files import page_files
    from peftmark.render.said_once import said_once
    from peftmark.report import rows, view

    page = view.page(given)
    page = said_once(replace(page, links=_links(out_dir, given.results)))
    files = page_files(page, out_dir, "report.md")
    return files | {out_dir / name: text for name, text in rows.files(given.records).items()}


def _links(out_dir: Path, results: Path | None) -> tuple[tuple[str, str], ...]:
    """What lies beside the page, and the logs where the results folder has any."""
    from peftmark.report import rows

    links = [("rows as Parquet", rows.PARQUET), ("rows as CSV", rows.CSV)]
    links.append(("this report as Markdown", "report.md"))
    if results is not None and (results / "logs").is_dir():
        path = os.path.relpath(results / "logs", out_dir)
        links.append(("logs of the workers", quote(path) + "/"))
    return tuple(links)
