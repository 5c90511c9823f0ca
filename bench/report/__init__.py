"""The report of one profile of one suite: `index.html`, `report.md` and its pictures."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from bench.claims import Claim
from bench.external import ExternalRow
from bench.files import write_all
from bench.record import Job, Record, ReportOptions


def write(
    records: Sequence[Record],
    planned: Sequence[Job],
    suite_summary: str,
    options: ReportOptions,
    out_dir: Path,
    notes: Sequence[str] = (),
    results: Path | None = None,
    claims: Sequence[Claim] = (),
    elsewhere: Sequence[ExternalRow] = (),
) -> list[Path]:
    """Write the report and return its paths, `index.html` first.

    Args:
        records: one row a job, in any order; rows of other jobs are counted and left out.
        planned: every job of the profile.
        suite_summary: the suite's one-line description.
        options: reference cell and radar anchors.
        out_dir: folder to write into, made if needed.
        notes: extra lines for the top of the page.
        results: folder that the rows come from, to link its logs.
        claims: published claims to hold against the rows.
        elsewhere: published rows that are shown and never judged.

    Raises:
        StoreError: the folder can't be written; an older report stays as it was.
    """
    with _no_collection():
        files = _files(
            records, planned, suite_summary, options, out_dir, notes, results, claims, elsewhere
        )
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


def _files(
    records: Sequence[Record],
    planned: Sequence[Job],
    suite_summary: str,
    options: ReportOptions,
    out_dir: Path,
    notes: Sequence[str],
    results: Path | None,
    claims: Sequence[Claim],
    elsewhere: Sequence[ExternalRow],
) -> dict[Path, str | bytes]:
    """Path -> content of every file of a report; the arguments are those of `write`."""
    # Drawing needs matplotlib, which takes a second to import: not before it is needed.
    from bench.report import charts, html, markdown, rows, svg, view

    page = view.page(records, planned, suite_summary, options, notes, claims, elsewhere)
    page = replace(page, links=_links(out_dir, results))
    pictures = charts.render_all(page.figures())
    files: dict[Path, str | bytes] = {
        out_dir / "index.html": html.render(page, pictures),
        out_dir / "report.md": markdown.render(page),
        **{out_dir / name: content for name, content in rows.files(records).items()},
    }
    for name, picture in pictures.items():
        files[out_dir / markdown.PICTURES / f"{name}.svg"] = svg.standalone(picture)
    return files


def _links(out_dir: Path, results: Path | None) -> tuple[tuple[str, str], ...]:
    """What lies beside the page, and the logs where the results folder has any."""
    from bench.report import rows

    links = [("rows as Parquet", rows.PARQUET), ("rows as CSV", rows.CSV)]
    links.append(("this report as Markdown", "report.md"))
    if results is not None and (results / "logs").is_dir():
        path = os.path.relpath(results / "logs", out_dir)
        links.append(("logs of the workers", quote(path) + "/"))
    return tuple(links)
