"""Trackio, local: a group for each profile of a suite, in it a run for each job.

Trackio takes what it is given in a thread, and only warns of what it could not write; so what it
has of a run is counted afterwards, and one that isn't whole is removed and sent again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peftmark.core.files import write_all
from peftmark.record.fields import FIELDS
from peftmark.track.entry import Entry
from peftmark.track.seam import Ending

PROJECT = "peftmark"
SETTINGS: dict[str, Any] = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID")
"""Variables by which Trackio would send everything to a server; here it never does."""


class NotWhole(Exception):
    """Trackio has less than it was given."""


class Trackio:
    """A project in Trackio's own files.

    Args:
        place: their folder; None for TRACKIO_DIR, or what Trackio does without.
    """

    def __init__(self, place: str | None) -> None:
        if place is not None:
            os.environ["TRACKIO_DIR"] = str(Path(place).resolve())
        for name in ELSEWHERE:
            os.environ.pop(name, None)
        # Where it writes is decided when it is loaded.
        import trackio
        from trackio.sqlite_storage import SQLiteStorage
        from trackio.utils import TRACKIO_DIR

        self._library, self._files = trackio, SQLiteStorage
        self._folder = Path(TRACKIO_DIR)
        self.where = str(TRACKIO_DIR)

    def job(self, entry: Entry) -> bool:
        """Send a job, whole; False if all of it is there already."""
        name = f"{entry.title} ({entry.name})"
        logs = len(entry.curve) + 1
        there = self._files.get_log_count(PROJECT, name)
        if there == logs:
            return False
        if there:
            self._files.delete_run(PROJECT, name)
        units = {key: FIELDS[key].unit for key in entry.figures if key in FIELDS}
        config = {**entry.parameters, **entry.facts, "units": units}
        run = self._library.init(PROJECT, name=name, group=_group(entry), config=config, **SETTINGS)
        try:
            for point in entry.curve:
                run.log({f"curve/{n}": v for n, v in point.values.items()}, step=point.step)
            last = entry.curve[-1].step if entry.curve else 0
            run.log({f"final/{n}": v for n, v in entry.figures.items()}, step=last)
        finally:
            self._library.finish()
        there = self._files.get_log_count(PROJECT, name)
        if there != logs:
            raise NotWhole(f"{there} of {logs} entries of {name} are there")
        return True

    def adapter(self, entry: Entry, folder: Path) -> bool:
        """Send the adapter that is kept of a job; False if it is there already."""
        mark = self._folder / "peftmark" / f"{entry.name}.adapter"
        if mark.is_file():
            return False
        self._artifact(f"adapter-{entry.name}", "adapter", [folder], _group(entry))
        write_all({mark: ""})
        return True

    def report(self, suite: str, profile: str, files: Sequence[Path]) -> None:
        """Send the report of a profile: a version of one artefact."""
        name = f"report-{suite}-{profile}"
        self._artifact(name, "report", files, f"{suite}, profile {profile}")

    def end(self, ending: Ending) -> None:
        """Nothing: what is written is there."""

    def _artifact(self, name: str, kind: str, paths: Sequence[Path], group: str) -> None:
        run = self._library.init(PROJECT, name=name, group=group, resume="allow", **SETTINGS)
        try:
            artifact = self._library.Artifact(name, kind)
            for path in paths:
                if path.is_dir():
                    artifact.add_dir(path)
                else:
                    artifact.add_file(path)
            run.log_artifact(artifact)
        finally:
            self._library.finish()


def _group(entry: Entry) -> str:
    return f"{entry.suite}, profile {entry.profile}"


def open_tracker(place: str | None) -> Trackio:
    """Open a project in Trackio's own files."""
    return Trackio(place)
