"""What `peftmark.track.mlflow` uses of MLflow, kept in the JSON file that the tracking URI names.

STAND_IN_MLFLOW has it fail as a tracker does: "down", "full", "hangs", or "killed N": at the end of
the Nth run that it ends, in each process.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

from mlflow.entities import Metric, Param

assert Metric and Param
_ended = []


class MlflowClient:
    """One store."""

    def __init__(self, tracking_uri=None):
        self._path = Path(tracking_uri)
        self._store = {"experiments": {}, "runs": []}
        if self._path.is_file():
            self._store = json.loads(self._path.read_text())

    def _keep(self):
        way = os.environ.get("STAND_IN_MLFLOW", "")
        if way == "down":
            raise ConnectionError("http://someone:secret@host:5000/api refused to answer\x1b[31m")
        if way == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if way == "hangs":
            threading.Event().wait()
        made = self._path.with_suffix(".made")  # whoever looks meanwhile sees all or nothing
        made.write_text(json.dumps(self._store))
        made.replace(self._path)

    def _run(self, run_id):
        return self._store["runs"][int(run_id)]

    @staticmethod
    def _shown(run):
        info = SimpleNamespace(run_id=run["id"], status=run["status"])
        return SimpleNamespace(info=info, data=SimpleNamespace(tags=run["tags"]))

    def get_experiment_by_name(self, name):
        found = self._store["experiments"].get(name)
        return None if found is None else SimpleNamespace(experiment_id=found)

    def create_experiment(self, name, artifact_location=None):
        self._store["experiments"][name] = name
        self._keep()
        return name

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        run = {
            "id": str(len(self._store["runs"])), "name": run_name, "status": "RUNNING",
            "tags": dict(tags or {}), "params": {}, "metrics": [], "files": {}, "removed": False,
        }  # fmt: skip
        self._store["runs"].append(run)
        self._keep()
        return self._shown(run)

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        assert len(metrics) <= 1000 and len(params) <= 100
        run = self._run(run_id)
        run["metrics"] += [[m.key, m.value, m.timestamp, m.step] for m in metrics]
        run["params"] |= {p.key: p.value for p in params}
        self._keep()

    def log_text(self, run_id, text, artifact_file):
        self._run(run_id)["files"][artifact_file] = text
        self._keep()

    def log_artifact(self, run_id, local_path, artifact_path):
        self._run(run_id)["files"][f"{artifact_path}/{Path(local_path).name}"] = ""
        self._keep()

    def log_artifacts(self, run_id, local_dir, artifact_path):
        for path in Path(local_dir).iterdir():
            self.log_artifact(run_id, path, artifact_path)

    def set_tag(self, run_id, key, value):
        self._run(run_id)["tags"][key] = value
        self._keep()

    def update_run(self, run_id, status):
        self._run(run_id)["status"] = status
        self._keep()

    def set_terminated(self, run_id, status, end_time=None):
        way, _, number = os.environ.get("STAND_IN_MLFLOW", "").partition(" ")
        _ended.append(run_id)
        if way == "killed" and len(_ended) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        self._run(run_id)["status"] = status
        self._keep()

    def delete_run(self, run_id):
        self._run(run_id)["removed"] = True
        self._keep()

    def get_run(self, run_id):
        return self._shown(self._run(run_id))

    def search_runs(self, experiment_ids, filter_string, max_results, page_token=None):
        wanted = dict(re.findall(r"tags\.`(.+?)` = '(.*?)'", filter_string))
        runs = [
            self._shown(run)
            for run in reversed(self._store["runs"])
            if not run["removed"] and wanted.items() <= run["tags"].items()
        ]
        start = int(page_token or 0)

        class Page(list):
            token = str(start + 2) if start + 2 < len(runs) else None

        return Page(runs[start : start + 2])
