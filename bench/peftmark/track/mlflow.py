"""MLflow: an experiment, in it a run for each profile of a suite, below that a run for each job.

A run for a job is looked for by its tags. Its status is set last: one that is still "running" was
broken off, so it is removed (as MLflow removes: it can be restored) and sent again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peftmark import __version__
from peftmark.track.entry import Entry
from peftmark.track.seam import Ending

EXPERIMENT = "peftmark"
JOB, ATTEMPT, ADAPTER = "peftmark.job", "peftmark.attempt", "peftmark.adapter"
SUITE, PROFILE = "peftmark.suite", "peftmark.profile"
PARENT = "mlflow.parentRunId"
"""The tag by which MLflow's pages put a run below another."""
MOST_METRICS, MOST_PARAMETERS = 1000, 100
"""That MLflow takes in one call."""
PAGE = 1000
MILLISECONDS = 1000
SQLITE = "sqlite:///"
ENDED = {"finished": "FINISHED", "stopped": "KILLED"}


class MLflow:
    """An experiment.

    Args:
        place: a tracking URI; None for MLFLOW_TRACKING_URI, or what MLflow does without.
    """

    def __init__(self, place: str | None) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._client, self._metric, self._param = MlflowClient(tracking_uri=place), Metric, Param
        self.where = place or os.environ.get("MLFLOW_TRACKING_URI") or "MLflow's default store"
        self._name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        self._artifacts = _beside(place)
        self._experiment: str | None = None
        self._parents: dict[tuple[str, str], str] = {}
        self._runs: dict[tuple[str, int], str] = {}

    def job(self, entry: Entry) -> bool:
        """Send a job, whole; False if all of it is there already."""
        parent = self._parent(entry.suite, entry.profile)
        if entry.key in self._runs:
            return False
        tags = {PARENT: parent, JOB: entry.job_id, ATTEMPT: str(entry.attempt)}
        run = self._client.create_run(
            self._experiment_id(),
            start_time=round(entry.started * MILLISECONDS),
            run_name=entry.title,
            tags={**tags, SUITE: entry.suite, PROFILE: entry.profile, **entry.facts},
        )
        run_id: str = run.info.run_id
        parameters = [self._param(name, value) for name, value in entry.parameters.items()]
        for some in _batches(parameters, MOST_PARAMETERS):
            self._client.log_batch(run_id, params=some)
        for some in _batches(list(self._metrics(entry)), MOST_METRICS):
            self._client.log_batch(run_id, metrics=some)
        self._client.log_text(run_id, entry.sheet, "figures.csv")
        status = "FINISHED" if entry.ok else "FAILED"
        self._client.set_terminated(run_id, status, round(entry.finished * MILLISECONDS))
        self._runs[entry.key] = run_id
        return True

    def adapter(self, entry: Entry, folder: Path) -> bool:
        """Send the adapter that is kept of a job; False if it is there already."""
        run_id = self._runs[entry.key]
        if ADAPTER in self._client.get_run(run_id).data.tags:
            return False
        self._client.log_artifacts(run_id, str(folder), "adapter")
        self._client.set_tag(run_id, ADAPTER, folder.name)
        return True

    def report(self, suite: str, profile: str, files: Sequence[Path]) -> None:
        """Send the report of a profile; a later one takes its place."""
        for file in files:
            self._client.log_artifact(self._parent(suite, profile), str(file), "report")

    def end(self, ending: Ending) -> None:
        """Set the status of the profiles' runs."""
        for run_id in self._parents.values():
            self._client.set_terminated(run_id, ENDED[ending])

    def _metrics(self, entry: Entry) -> Iterator[Any]:
        """The curve by step, and the figures of the end at the last one."""
        for point in entry.curve:
            for name, value in point.values.items():
                time = round(point.time * MILLISECONDS)
                yield self._metric(f"curve/{name}", value, time, point.step)
        last = entry.curve[-1].step if entry.curve else 0
        for name, value in entry.figures.items():
            yield self._metric(f"final/{name}", value, round(entry.finished * MILLISECONDS), last)

    def _experiment_id(self) -> str:
        if self._experiment is None:
            found = self._client.get_experiment_by_name(self._name)
            self._experiment = (
                found.experiment_id
                if found is not None
                else self._client.create_experiment(self._name, self._artifacts)
            )
        return self._experiment

    def _parent(self, suite: str, profile: str) -> str:
        """The run of a profile, found or made; once its jobs' runs are known."""
        key = suite, profile
        if key not in self._parents:
            mine = f"tags.`{SUITE}` = '{suite}' AND tags.`{PROFILE}` = '{profile}'"
            runs = list(self._search(mine))
            parents = [run for run in runs if JOB not in run.data.tags]
            for run in runs:
                self._know(run)
            if parents:
                run_id = parents[-1].info.run_id
                self._client.update_run(run_id, "RUNNING")
            else:
                tags = {SUITE: suite, PROFILE: profile, "peftmark.version": __version__}
                name = f"{suite}, profile {profile}"
                made = self._client.create_run(self._experiment_id(), run_name=name, tags=tags)
                run_id = made.info.run_id
            self._parents[key] = run_id
        return self._parents[key]

    def _know(self, run: Any) -> None:
        """Note a job's run that is whole; remove one that was broken off."""
        tags = run.data.tags
        if JOB not in tags:
            return
        if run.info.status == "RUNNING":
            self._client.delete_run(run.info.run_id)
        else:
            self._runs[tags[JOB], int(tags.get(ATTEMPT, "0"))] = run.info.run_id

    def _search(self, what: str) -> Iterator[Any]:
        token = None
        while True:
            found = self._client.search_runs(
                [self._experiment_id()], filter_string=what, max_results=PAGE, page_token=token
            )
            yield from found
            token = found.token
            if not token:
                return


def _beside(place: str | None) -> str | None:
    """Where the files of a database's runs go: beside it, whatever folder a command is given in."""
    if place is None or not place.startswith(SQLITE):
        return None
    return (Path(place.removeprefix(SQLITE)).resolve().parent / "mlartifacts").as_uri()


def _batches(values: list[Any], most: int) -> Iterator[list[Any]]:
    return (values[i : i + most] for i in range(0, len(values), most))


def open_tracker(place: str | None) -> MLflow:
    """Open an experiment."""
    return MLflow(place)
