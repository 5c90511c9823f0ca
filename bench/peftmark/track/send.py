"""Stored rows to a tracker: which are due, in which order, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec

from peftmark.record.job import Record
from peftmark.storage.store import Store
from peftmark.track.entry import Entry, controlled, entry_of
from peftmark.track.seam import Ending, Tracker

IN_A_ROW = 2
"""Failures one after the other that end a round: the tracker is down, not a row at fault."""
P = ParamSpec("P")
PAGES = ("index.html", "report.md")
LINE = 500
"""Characters of a report's first line that are read at most."""


@dataclass
class Sent:
    """What became of rows.

    Attributes:
        sent: sent now.
        there: those that the tracker had already.
        adapters: kept adapters that were sent now.
        faults: what could not be sent, by its name, and why.
    """

    sent: int = 0
    there: int = 0
    adapters: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, object]:
        """It as JSON holds it."""
        return {**vars(self)}


class Sender:
    """Sends rows of one suite.

    Args:
        profile: None for every one.
        going: is called before each thing that is sent.
    """

    def __init__(
        self,
        tracker: Tracker,
        store: Store,
        profile: str | None,
        going: Callable[[], None] = lambda: None,
    ) -> None:
        self.result = Sent()
        self._tracker, self._store, self._profile, self._going = tracker, store, profile, going
        self._done: dict[tuple[str, int], Entry] = {}

    def rows(self) -> list[Record]:
        """Rows that count, in the order in which their jobs ended."""
        records = self._store.read().records.values()
        wanted = (r for r in records if self._profile in (None, r.job.profile))
        return sorted(wanted, key=lambda r: (r.finished_at, r.job.job_id))

    def send(self, records: Iterable[Record]) -> None:
        """Send what isn't sent yet. What fails is tried again by the next call."""
        failed = 0
        for record in records:
            key = record.job.job_id, record.attempt
            if key in self._done:
                continue
            name = f"{key[0]}.{key[1]}"
            if failed == IN_A_ROW:
                self.result.faults.setdefault(name, "not tried, since others before it failed")
                continue
            failed = 0 if self._tried(name, self._job, record) else failed + 1

    def _job(self, record: Record) -> None:
        entry = entry_of(record)
        if self._tracker.job(entry):
            self.result.sent += 1
        else:
            self.result.there += 1
        self._done[entry.key] = entry

    def finish(self, reports: Mapping[str, Iterable[Path]], ending: Ending) -> None:
        """Send adapters and reports, and say that nothing more comes.

        Args:
            reports: profile -> files of its report.
        """
        failed = 0
        for folder, kept in self._store.adapters.entries().items():
            entry = self._done.get((kept.job.job_id, kept.attempt))
            if entry is None or failed == IN_A_ROW:
                continue
            name = f"adapter of {entry.name}"
            failed = 0 if self._tried(name, self._adapter, entry, folder) else failed + 1
        profiles = {entry.profile for entry in self._done.values()}
        suite = self._store.folder.name
        for profile, files in reports.items():
            if profile in profiles:
                name = f"report of profile {profile}"
                self._tried(name, self._tracker.report, suite, profile, list(files))
        self._tried("the end", self._tracker.end, ending)

    def _adapter(self, entry: Entry, folder: Path) -> None:
        self.result.adapters += self._tracker.adapter(entry, folder)

    def _tried(self, name: str, act: Callable[P, object], *given: P.args, **more: P.kwargs) -> bool:
        """Whether something could be done; a library of others may raise anything."""
        self._going()
        try:
            act(*given, **more)
        except Exception as error:
            told = controlled(str(error)) or "without a word"
            self.result.faults[name] = f"{type(error).__name__}: {told}"
            return False
        self.result.faults.pop(name, None)
        return True


def report_of(folder: Path) -> dict[str, list[Path]]:
    """The profile that the report in a suite's folder of reports is of, and its files; empty if
    there is none.

    Args:
        folder: such as `reports/glue`.
    """
    page = folder / "report.md"
    try:
        with page.open(encoding="utf-8") as file:
            first = file.readline(LINE).strip().replace("\\", "")
    except (OSError, UnicodeDecodeError):
        return {}
    head, _, profile = first.rpartition(", profile ")
    files = [folder / name for name in PAGES if (folder / name).is_file()]
    return {profile: files} if head == f"# {folder.name}" else {}
