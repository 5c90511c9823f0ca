"""Stored rows that advice is given from: every suite's in a results folder, and published ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peftmark.advice.tables import tables_of
from peftmark.analysis.table import ResultTable
from peftmark.core.errors import UserError
from peftmark.core.files import SUITE_NAME
from peftmark.storage.published import ROWS, published_in
from peftmark.storage.rows_file import read_rows_file
from peftmark.storage.store import Contents, Store
from peftmark.storage.unread import unread


class NothingMeasured(UserError):
    """There are no rows to answer from."""


def read(found: Sequence[Path]) -> tuple[list[ResultTable], list[str], list[Contents]]:
    """The tables of some folders or files, what was left out of them, and what they hold."""
    tables: list[ResultTable] = []
    notes: list[str] = []
    looked: list[Contents] = []
    for place in found:
        contents = _contents(place)
        made, left_out = tables_of(contents.rows)
        tables += made
        looked.append(contents)
        notes += [f"{place}: {clause}." for clause in unread(contents)]
        notes += [f"{place}: {note}" for note in left_out]
    return tables, notes, looked


def _contents(place: Path) -> Contents:
    if place.is_dir():
        return Store(place.parent, place.name).read()
    return read_rows_file(place)


def to_run(suite: str | None) -> str:
    """What to do where there are no rows."""
    return f"Run some first: peftmark run {suite or 'SUITE'}"


def folders(results: Path, suite: str | None, source: Path | None) -> list[Path]:
    """Where rows are: folders of suites, and files of published rows.

    Raises:
        NothingMeasured: there are none.
        UserError: `source` is no folder of rows.
    """
    if source is not None:
        if not (source / "parts").is_dir():
            raise UserError(
                f"--from: {source} has no folder parts",
                "Name a folder of one suite, such as results/glue.",
            )
        return [source.absolute()]
    named = [results / suite] if suite else sorted(results.glob("*"))
    found = [f for f in named if (f / "parts").is_dir()]
    published = published_in(results)
    if suite is None:
        found += sorted(published.glob(f"*/{ROWS}"))
    elif SUITE_NAME.fullmatch(suite) and (file := published / suite / ROWS).is_file():
        found.append(file)
    if not found:
        where = results / suite if suite else results
        raise NothingMeasured(f"the folder {where} holds no results", to_run(suite))
    return found
