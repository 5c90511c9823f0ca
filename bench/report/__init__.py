"""The report of one profile of one suite: `index.html`, `report.md` and its pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import StoreError
from bench.record import Job, Record, ReportOptions


def write(
    records: Sequence[Record],
    planned: Sequence[Job],
    suite_summary: str,
    options: ReportOptions,
    out_dir: Path,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write the report and return its paths, `index.html` first.

    Args:
        records: one row a job, in any order; rows of other jobs are counted and left out.
        planned: every job of the profile.
        suite_summary: the suite's one-line description.
        options: reference cell and radar anchors.
        out_dir: folder to write into, made if needed.
        notes: extra lines for the top of the page.

    Raises:
        StoreError: the folder can't be written; an older report stays as it was.
    """
    # Drawing needs matplotlib, which takes a second to import: not before it is needed.
    from bench.report import charts, html, markdown, svg, view

    page = view.page(records, planned, suite_summary, options, notes)
    pictures = {figure.name: charts.render(figure) for figure in page.figures()}
    files = {
        out_dir / "index.html": html.render(page, pictures),
        out_dir / "report.md": markdown.render(page),
    }
    for name, picture in pictures.items():
        files[out_dir / markdown.PICTURES / f"{name}.svg"] = svg.standalone(picture)
    return _write_all(files)


def _write_all(files: Mapping[Path, str]) -> list[Path]:
    """Write every file under a temporary name first, then put all in place."""
    staged: dict[Path, Path] = {}
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            staged[path] = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            with staged[path].open("wb") as file:
                file.write(text.encode("utf-8", "replace"))
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in staged.items():
            os.replace(temporary, path)
    except OSError as error:
        raise StoreError(
            f"can't write the report: {error}",
            "Free some space or name another folder; an older report was left as it is.",
        ) from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
    return list(files)
