"""`live.html` beside a report: written while jobs run, and in the end a way to the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peftmark.analysis.table import TO_COME
from peftmark.catalog.methods import Cell
from peftmark.core.errors import StoreError
from peftmark.core.files import write_all
from peftmark.record.job import Job, Record
from peftmark.render.live import moved, render
from peftmark.report.live import REFRESH, Going, live_page

LEAST = 2.0
"""Seconds between two pages at least: a page of many jobs takes a while to make."""


class LiveFile:
    """The page of one run.

    Args:
        path: the file; None for no page.
        title: of the page.
        planned: every job of the profile.
        records: rows of jobs that ended before.
        reference: the cell that others are held against.
        left: what is left of the run, in words.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        path: Path | None,
        title: str,
        planned: Sequence[Job],
        records: Mapping[str, Record],
        reference: Cell,
        left: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._title, self._planned = path, title, planned
        self._records = dict(records)
        self._reference, self.left, self._clock = reference, left, clock
        self._going: dict[str, Going] = {}
        self._written: float | None = None

    def event(self, job: Job, message: dict[str, Any]) -> None:
        """A worker's message: a step, or a score."""
        one = self._going.setdefault(job.job_id, Going(job))
        if "step" in message:
            one.step = int(message["step"])
        if "step" in message and "metric" in message:
            one.points.append((one.step, float(message["metric"])))
        self._write(LEAST)

    def finished(self, record: Record) -> None:
        """A job ended, or one try of it."""
        self._going.pop(record.job.job_id, None)
        self._records[record.job.job_id] = record
        self._write(LEAST)

    def begin(self) -> None:
        """Write the page for the first time."""
        self._write(0.0)

    def stopped(self) -> None:
        """Write the page for the last time: the run was stopped, and no report follows."""
        self._going.clear()
        self._write(0.0, "Stopped. The same command goes on. ", refresh=0)

    def _write(self, least: float, said: str = "", refresh: int = REFRESH) -> None:
        now = self._clock()
        if self._path is None or (self._written is not None and now - self._written < least):
            return
        found = [self._records.get(job.job_id) for job in self._planned]
        done = sum(r is not None and r.outcome.status not in TO_COME for r in found)
        left = "" if said else self.left()
        state = (
            f"{said}{done} of {len(self._planned)} jobs have ended{f'; {left}' if left else ''}."
        )
        page = live_page(
            self._title, self._planned, self._records, self._going, self._reference, state, refresh
        )
        if not _put(self._path, render(page)):
            self._path = None
        # What takes long to make must not be all that the supervisor does.
        self._written = self._clock() + 10 * (self._clock() - now)


def lead_on(path: Path, page: str) -> None:
    """Let the page of a run that has ended lead to another one beside it."""
    _put(path, moved(page))


def _put(path: Path, text: str) -> bool:
    """Write the page and say whether it could be; one that can't be stops no run."""
    try:
        write_all({path: text})
    except StoreError:
        return False
    return True
