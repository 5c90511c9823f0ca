"""Ten thousand jobs that cost nothing, through the real supervisor: memory, resumption, Ctrl-C.

    PYTHONPATH=tests/support python tests/many_jobs.py --jobs 10000 --presses 20

The command line runs with fake workers (`fake_worker.ok`), is killed with SIGKILL at half of its
jobs, looked at with `peftmark plan` and started again until it is done; all the while its memory is
read. Then Ctrl-C is pressed at random moments of a run of a new folder.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

import large_suite

HERE = Path(__file__).resolve().parent
SUPPORT = HERE / "support"
MIB = 2**20
COMMAND = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import stand_ins
stand_ins.load_early()
from functools import partial
from peftmark.run import runner
runner.fetch = lambda plan: {{}}
runner.execute = partial(runner.execute, worker="fake_worker:ok")
from peftmark.cli.parser import main
main(sys.argv[1:])
"""
SUITES = ("--profile", "quick", "--suites", "suites")
RUN = ("run", "large", *SUITES, "--jobs", "2", "--keep", "none")


@dataclass
class Run:
    """The command in a folder of its own, which need not be synced: no power fails here."""

    folder: Path
    process: subprocess.Popen[str] | None = None

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Begin, or go on."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *RUN, *more],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    @property
    def parts(self) -> int:
        """Rows on the disk."""
        folder = self.folder / "results/large/parts"
        return sum(1 for name in os.listdir(folder) if name[0] != ".") if folder.exists() else 0

    def plan(self) -> tuple[float, float, list[str]]:
        """Seconds on the clock and of a processor that `peftmark plan` takes, and its last line."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "peftmark", "plan", "large", *SUITES, "--no-memory"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = sum(after[:2]) - sum(before[:2])
        return time.monotonic() - began, spent, done.stderr.strip().splitlines()[-1:]


def made(folder: Path, jobs: int) -> Run:
    """A folder with the suite."""
    (folder / "suites").mkdir(parents=True)
    text = large_suite.text(jobs // large_suite.JOBS_A_SEED)
    (folder / "suites/large.yaml").write_text(text, encoding="utf-8")
    return Run(folder)


def memory(run: Run, until: int, told: dict[int, int], every: int) -> None:
    """Read the supervisor's resident memory at every so many parts, until there are enough."""
    assert run.process is not None
    process = psutil.Process(run.process.pid)
    while run.process.poll() is None and (there := run.parts) < until:
        told.setdefault(there // every * every, process.memory_info().rss)
        time.sleep(0.2)


def whole(folder: Path, jobs: int) -> None:
    """A run of all jobs that is killed at half of them and goes on."""
    run, told = made(folder / "whole", jobs), {}
    every, began = max(1, jobs // 10), time.monotonic()
    run.start("--no-report")
    memory(run, jobs // 2, told, every)
    run.process.kill()
    run.process.wait()
    killed_at, took = run.parts, time.monotonic() - began
    print(f"killed with SIGKILL at {killed_at:,} of {jobs + 1:,} rows, after {took:,.0f} s")
    for _ in range(2):
        clock, spent, said = run.plan()
        print(f"plan: {clock:.1f} s, {spent:.1f} s of a processor; stderr: {said}")
    began = time.monotonic()
    run.start("--no-report")
    memory(run, jobs + 2, told, every)
    said = run.process.communicate()[1]
    print(
        f"went on and ended with {run.process.returncode} after {time.monotonic() - began:,.0f} s"
    )
    print(said[-500:] if run.process.returncode else f"{run.parts:,} rows")
    clock, spent, _ = run.plan()
    print(f"plan of the finished run: {clock:.1f} s, {spent:.1f} s of a processor")
    for parts, size in sorted(told.items()):
        print(f"  supervisor at {parts:,} rows: {size / MIB:,.0f} MiB")


def pressed(folder: Path, jobs: int, presses: int, within: float, luck: random.Random) -> None:
    """Ctrl-C at random moments of a run with its report that goes on and on: seconds to its end."""
    run, found = made(folder / "pressed", jobs), []
    for _ in range(presses):
        process = run.start()
        time.sleep(luck.uniform(0.0, within))
        if process.poll() is not None:
            print(f"over before Ctrl-C: {process.communicate()[1][-300:]}")
            continue
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.communicate()
        found.append((time.monotonic() - began, process.returncode, run.parts))
    late = [f"{s:.2f} s (code {code}, {parts} rows)" for s, code, parts in found if s > 2]
    codes = sorted({code for _, code, _ in found})
    print(f"Ctrl-C: {len(found)} presses, longest {max(s for s, *_ in found):.2f} s, codes {codes}")
    print(f"  later than 2 s: {late or 'none'}")


def main() -> None:
    """Run what is asked and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--presses", type=int, default=20)
    parser.add_argument("--within", type=float, default=30.0, help="seconds, of each press")
    parser.add_argument("--only-presses", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not asked.only_presses:
            whole(Path(folder), asked.jobs)
        if asked.presses:
            luck = random.Random(asked.seed)
            pressed(Path(folder), asked.jobs, asked.presses, asked.within, luck)


if __name__ == "__main__":
    main()
