"""Run every job of a suite in this process, one after the other, and store the rows.

    python one_process.py SUITE PROFILE RESULTS [NAME OF THE PROCESSOR]

The numbers are those of workers; what is spared is a new process with its imports for every job.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from peftmark.lab.worker import _guarded
from peftmark.machine.environment import capture
from peftmark.record.job import Record
from peftmark.sources.assets import Places, default_cache
from peftmark.storage.store import Store
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main(name: str, profile: str, results: str, cpu: str = "") -> None:
    suite = load_suite(name, Path("suites"))
    environment = capture()
    if cpu:
        environment = replace(environment, machine={**environment.machine, "cpu": cpu})
    places = Places(None, suite.profiles[profile].sources, default_cache())
    as_json = json.dumps(
        {"mirror": None, "sources": places.sources, "cache": str(places.cache), "hashes": {}}
    )
    store = Store(Path(results), name)
    with store.lock():
        for job in expand(suite, profile, "cpu").jobs:
            began, clock = now(), time.monotonic()
            outcome = _guarded(job, as_json, lambda message: None)
            record = Record(
                job=job,
                outcome=outcome,
                environment=environment,
                attempt=1,
                started_at=began,
                finished_at=now(),
                wall_seconds=time.monotonic() - clock,
                nvml_process_bytes=None,
                nvml_device_bytes=None,
                nvml_reason="no GPU is asked for",
                command="",
            )
            store.append(record)
        store.rebuild()


if __name__ == "__main__":
    main(*sys.argv[1:])
