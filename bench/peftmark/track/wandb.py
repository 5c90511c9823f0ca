"""Weights & Biases, offline: a group for each profile of a suite, in it a run for each job.

Nothing is sent anywhere: `wandb sync` does that. Runs can't lie below others there, so a group
stands for the suite, and its report and each kept adapter are runs with an artefact. A run that is
whole has a file that says so; one without was broken off, and is written again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peftmark.core.files import write_all
from peftmark.record.fields import FIELDS
from peftmark.track.entry import Entry
from peftmark.track.seam import Ending

PROJECT = "peftmark"
WHOLE = "peftmark.whole"
"""The file in a run's folder that is written last."""


class WeightsAndBiases:
    """A folder of offline runs.

    Args:
        place: the folder; None for WANDB_DIR, or the one that the command is given in.
    """

    def __init__(self, place: str | None) -> None:
        import wandb

        self._library = wandb
        self._place = Path(place or os.environ.get("WANDB_DIR") or ".").resolve()
        self._project = os.environ.get("WANDB_PROJECT") or PROJECT
        self.where = str(self._place / "wandb")

    def job(self, entry: Entry) -> bool:
        """Write a job's run, whole; False if all of it is there already."""
        units = {key: FIELDS[key].unit for key in entry.figures if key in FIELDS}
        config = {**entry.parameters, "units": units, **entry.facts}
        with self._run(entry.name, entry.title, _group(entry), "job", config) as run:
            if run is None:
                return False
            for point in entry.curve:
                values = {f"curve/{name}": value for name, value in point.values.items()}
                run.log(values, step=point.step)
            for name, value in entry.figures.items():
                run.summary[f"final/{name}"] = value
            run.finish(exit_code=0 if entry.ok else 1)
        return True

    def adapter(self, entry: Entry, folder: Path) -> bool:
        """Write the adapter that is kept of a job; False if it is there already."""
        name = f"adapter-{entry.name}"
        config = {"job": entry.job_id, "attempt": entry.attempt}
        with self._run(name, f"{entry.title}, adapter", _group(entry), "adapter", config) as run:
            if run is None:
                return False
            artifact = self._library.Artifact(name, "adapter", metadata=config)
            artifact.add_dir(str(folder))
            run.log_artifact(artifact)
            run.finish()
        return True

    def report(self, suite: str, profile: str, files: Sequence[Path]) -> None:
        """Write the report of a profile, unless the same one is there already."""
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
        name, group = f"report-{suite}-{profile}", f"{suite}, profile {profile}"
        with self._run(f"{name}-{digest}", f"{group}, report", group, "report", {}) as run:
            if run is not None:
                artifact = self._library.Artifact(name, "report")
                for file in files:
                    artifact.add_file(str(file))
                run.log_artifact(artifact)
                run.finish()

    def end(self, ending: Ending) -> None:
        """Nothing: what is written is there."""

    @contextmanager
    def _run(
        self, run_id: str, title: str, group: str, kind: str, config: dict[str, Any]
    ) -> Iterator[Any]:
        """A new run, which is marked as whole after what happens within; None if it is there."""
        if self._whole(run_id):
            yield None
            return
        self._place.mkdir(parents=True, exist_ok=True)
        run = self._library.init(
            project=self._project,
            dir=str(self._place),
            id=run_id,
            name=title,
            group=group,
            job_type=kind,
            config=config,
            mode="offline",
            reinit="create_new",
            settings=self._library.Settings(
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
            ),
        )
        folder = Path(run.settings.sync_dir)
        try:
            yield run
        except BaseException:
            run.finish(exit_code=1)
            raise
        write_all({folder / WHOLE: ""})

    def _whole(self, run_id: str) -> bool:
        """Whether a run is there; what was broken off is removed."""
        found = False
        for folder in (self._place / "wandb").glob(f"offline-run-*-{run_id}"):
            if (folder / WHOLE).is_file():
                found = True
            else:
                shutil.rmtree(folder)
        return found


def _group(entry: Entry) -> str:
    return f"{entry.suite}, profile {entry.profile}"


def open_tracker(place: str | None) -> WeightsAndBiases:
    """Open a folder of offline runs."""
    return WeightsAndBiases(place)
