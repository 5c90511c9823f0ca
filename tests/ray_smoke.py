"""Run a real suite on a Ray cluster of this machine, kill a node, and compare with a local run.

    peftmark run smoke --profile offline --results LOCAL
    PYTHONPATH=tests/support python tests/ray_smoke.py LOCAL --suite smoke --revive

A head and a second node of one CPU each (or `--cpus`, for jobs over several devices) start on the
loopback. After the first finished job the
second node is killed, and with --revive another one joins. Every job must be done once, and every
deterministic column must be what the local run stored.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from clocked import CLOCK_AND_MACHINE
from peftmark.record.columns import to_row
from peftmark.storage.store import Store

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for "loopback only"
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
}
NODE = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


def rows(results: Path, suite: str) -> dict[str, dict[str, object]]:
    """Job id -> every deterministic column of the row that counts."""
    found = {}
    for job_id, record in Store(results, suite).read().records.items():
        row = {k: v for k, v in to_row(record).items() if k not in CLOCK_AND_MACHINE}
        row["curve"] = [{k: v for k, v in p.items() if k != "seconds"} for p in row["curve"]]
        found[job_id] = row
    return found


def run(options: argparse.Namespace, results: Path) -> tuple[int, bool]:
    """Run the suite and kill a node; returns (exit code, whether the node was at work)."""
    from ray.cluster_utils import Cluster

    node = NODE | {"num_cpus": options.cpus}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    second = cluster.add_node(**node)
    cluster.wait_for_nodes()
    words = [
        sys.executable,
        "-m",
        "peftmark",
        "run",
        options.suite,
        "--profile",
        options.profile,
        "--results",
        str(results),
        "--no-report",
        "--executor",
        "ray",
        "--ray-address",
        cluster.address,
    ]
    if options.suites:
        words += ["--suites", str(options.suites)]
    for job in options.job:
        words += ["--job", job]
    parts = results / options.suite / "parts"
    raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
    begin, at_work = time.monotonic(), False
    try:
        with subprocess.Popen(words) as command:
            killed = False
            while command.poll() is None:
                time.sleep(0.2)
                due = options.at_once or any(parts.glob("*.parquet"))
                if not killed and due and working(raylet):
                    at_work = killed = True
                    cluster.remove_node(second, allow_graceful=False)
                    print(f"{time.monotonic() - begin:.0f} s: killed a node at work", flush=True)
                    if options.revive:
                        cluster.add_node(**node)
        return command.returncode, at_work
    finally:
        cluster.shutdown()


def working(raylet: psutil.Process) -> bool:
    """Whether a job's worker runs on a node: a process of a fork server in a group of its own."""
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        below = raylet.children(recursive=True)
        return any(os.getsid(p.pid) == p.pid and "forkserver" in str(p.cmdline()) for p in below)
    return False


def main() -> None:
    """Run, compare, print the counts; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("local", type=Path, help="results folder of a local run of the same jobs")
    parser.add_argument("--suite", default="smoke")
    parser.add_argument("--profile", default="offline")
    parser.add_argument("--suites", type=Path, help="a folder of suites besides those shipped")
    parser.add_argument("--cpus", type=int, default=1, help="of each node")
    parser.add_argument("--job", action="append", default=[], help="only this job (repeatable)")
    parser.add_argument("--revive", action="store_true", help="add a node after the kill")
    parser.add_argument("--at-once", action="store_true", help="kill before a job has finished")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        os.environ.update(SETTINGS, RAY_TMPDIR=folder)
        results = Path(folder) / "results"
        code, at_work = run(options, results)
        there, here = rows(results, options.suite), rows(options.local, options.suite)
        parts = (results / options.suite / "parts").glob("*.parquet")
        attempts = Counter(path.name.split(".")[0] for path in parts)
    wanted = set(options.job) or set(here)
    here = {job: row for job, row in here.items() if job in wanted}
    different = [
        (job, name)
        for job in sorted(set(here) & set(there))
        for name in here[job]
        if repr(here[job][name]) != repr(there[job].get(name))
    ]
    for job, name in different:
        print(f"{job} {name}: {here[job][name]!r:.80} here, {there[job].get(name)!r:.80} on Ray")
    columns = len(next(iter(here.values()), ()))
    ok = sum(row["status"] == "ok" for row in there.values())
    print(
        f"exit code {code}; {'a node was killed at work' if at_work else 'NO NODE WAS KILLED'}; "
        f"{ok} of {len(wanted)} jobs ok, {sum(attempts.values())} rows; {columns} deterministic "
        f"columns a job compared with the local run: {len(different)} differ"
    )
    same = set(there) == wanted == set(here) and not different
    sys.exit(0 if same and code == 0 and at_work and set(attempts.values()) == {1} else 1)


if __name__ == "__main__":
    main()
