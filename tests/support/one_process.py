"""Run jobs of a suite in this process, one after the other, and store the rows.

    python one_process.py SUITE PROFILE RESULTS
        [--cells "lora none" ...] [--rest RESULTS] [--cpu NAME]

The numbers are those of workers; what is spared is a new process with its imports for every job,
and the prediction of memory. The rows of cells that aren't run are those of other results, as if
the code of this process had made them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftmark.lab import after_training
from peftmark.lab.models import Unsupported
from peftmark.lab.worker import _guarded
from peftmark.machine.environment import capture
from peftmark.record.job import Job, Record
from peftmark.sources.assets import Places, default_cache
from peftmark.storage.store import Store
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite

WHEN = "2030-01-01T00:00:00Z"
"""Of every row: nobody asks when a planted fault ran, or how long."""


def unpredicted(*_: Any) -> int:
    raise Unsupported("not predicted here")


def main(options: argparse.Namespace) -> None:
    after_training.predicted_peak = unpredicted
    suite = load_suite(options.suite, Path("suites"))
    environment = capture()
    if options.cpu:
        environment = replace(environment, machine={**environment.machine, "cpu": options.cpu})
    places = Places(None, suite.profiles[options.profile].sources, default_cache())
    where = {"mirror": None, "sources": places.sources, "cache": str(places.cache), "hashes": {}}
    others: Mapping[str, Record] = {}
    if options.rest:
        others = Store(options.rest, options.suite).read().records
    store = Store(options.results, options.suite)
    with store.lock():
        for job in expand(suite, options.profile, "cpu").jobs:
            if others and f"{job.method} {job.quantization}" not in options.cells:
                store.append(replace(others[job.job_id], environment=environment))
                continue
            store.append(ran(job, json.dumps(where), environment))
        store.rebuild()


def ran(job: Job, where: str, environment: Any) -> Record:
    """The row of a job."""
    return Record(
        job=job,
        outcome=_guarded(job, where, lambda message: None),
        environment=environment,
        attempt=1,
        started_at=WHEN,
        finished_at=WHEN,
        wall_seconds=0.0,
        nvml_process_bytes=None,
        nvml_device_bytes=None,
        nvml_reason="no GPU is asked for",
        command="",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("suite")
    parser.add_argument("profile")
    parser.add_argument("results", type=Path)
    parser.add_argument("--cells", nargs="*", default=())
    parser.add_argument("--rest", type=Path)
    parser.add_argument("--cpu", default="")
    main(parser.parse_args())
