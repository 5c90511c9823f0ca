"""Kill runs at random moments and see that nothing is lost, doubled, half written or changed.

    PYTHONPATH=tests/support python tests/storm.py --kills 200 --suite smoke --seed 0 --minutes 15

The real command line runs with real workers. At random moments one of its workers or the command
itself is killed with SIGKILL; with --all, the server that workers are forked from is killed or
stopped too, and files of the cache are cut or get a flipped byte. It is started again until its
jobs are done; then another folder begins, until all kills are spent. Every folder must hold what an
undisturbed run holds.
`test_storm.py` does the same with jobs of some ten milliseconds and more kinds of trouble.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from clocked import CLOCK_AND_MACHINE
from peftmark.record.columns import to_row
from peftmark.run.runner import Selection, make_plan

ROOT = Path(__file__).resolve().parent.parent
FINISHED, INCOMPLETE = 0, 6
ORPHAN_SECONDS = 600.0

# Clocks, and memory as the system sees it. Live bytes and operations are not among them.


class Broken(Exception):
    """A run did something that no kill explains."""


@dataclass
class Storm:
    """Runs of one command in one folder, and what was done to them.

    Attributes:
        command: what to start; it must go on where an earlier start was killed.
        folder: working folder of the runs; results, reports and temporary files are inside.
        luck: source of moments and victims.
        done: what happened, counted.
        cache: a cache of its own, whose files may be damaged; None for the user's, which may not.
    """

    command: list[str]
    folder: Path
    luck: random.Random
    done: Counter[str] = field(default_factory=Counter)
    cache: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command; what it prints goes to a file."""
        scratch = self.folder / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        paths = [str(ROOT / "bench"), *filter(None, [os.environ.get("PYTHONPATH")])]
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                stdout=output,
                stderr=output,
                env=os.environ
                | {"TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(paths)}
                | ({} if self.cache is None else {"PEFTMARK_CACHE": str(self.cache)}),
            )
        self.done["starts"] += 1
        return self.process

    def running(self, seconds: float) -> bool:
        """Whether the command still runs after this many seconds; returns early if it ends."""
        assert self.process is not None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def kill_worker(self) -> bool:
        """Kill one worker; False if none is alive."""
        assert self.process is not None
        alive = workers(self.process.pid)
        if not alive:
            return False
        self.luck.choice(alive).kill()
        self.done["workers killed"] += 1
        return True

    def kill_supervisor(self) -> bool:
        """Kill the command itself and see its workers go.

        Raises:
            Broken: a worker outlives it.
        """
        assert self.process is not None
        family = _children(self.process.pid)
        self.process.kill()
        self.process.wait()
        for one in family:  # a process that somebody stopped can't see that its supervisor is gone
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGCONT)
        self.done["supervisors killed"] += 1
        _, alive = psutil.wait_procs(family, ORPHAN_SECONDS)
        if alive:
            raise Broken(f"{len(alive)} processes outlive their supervisor by {ORPHAN_SECONDS} s")
        return True

    def hurt_server(self) -> bool:
        """Kill or stop the server that workers are forked from; False if there is none."""
        assert self.process is not None
        servers = [c for c in _children(self.process.pid) if _is_server(c)]
        if not servers:
            return False
        how = self.luck.choice((signal.SIGKILL, signal.SIGSTOP))
        with suppress(psutil.NoSuchProcess):
            servers[0].send_signal(how)
            self.done["servers killed" if how == signal.SIGKILL else "servers stopped"] += 1
        return True

    def hurt_cache(self) -> bool:
        """Cut a file of the cache in half, or flip one of its bytes; False if there is none."""
        assert self.cache is not None
        kinds = [folder for folder in sorted(self.cache.glob("*")) if folder.is_dir()]
        files = [p for p in self.luck.choice(kinds).rglob("*") if p.is_file()] if kinds else []
        if not files:
            return False
        path = self.luck.choice(sorted(files))
        with suppress(OSError):  # a worker may have put another in its place
            raw = bytearray(path.read_bytes())
            if raw and self.luck.random() < 0.5:
                raw[self.luck.randrange(len(raw))] ^= 1 << self.luck.randrange(8)
                path.write_bytes(raw)
                self.done["bytes flipped"] += 1
            else:
                path.write_bytes(raw[: len(raw) // 2])
                self.done["files cut"] += 1
        return True

    def calm(self, codes: tuple[int, ...] = (FINISHED,), starts: int = 1) -> None:
        """Start the command undisturbed until it says that everything is done.

        Raises:
            Broken: it ends with none of the codes, or not within so many starts.
        """
        for _ in range(starts):
            code = self.start().wait()
            if code not in codes:
                raise Broken(f"exit code {code}; the end of its output:\n{self.tail()}")
            if code == FINISHED:
                return
        raise Broken(f"not done after {starts} undisturbed starts:\n{self.tail()}")

    def tail(self) -> str:
        """The end of what the runs printed."""
        return (self.folder / "output").read_text(errors="replace")[-2000:]


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_server(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "forkserver" in " ".join(process.cmdline()) and bool(process.is_running())
    return False


def workers(pid: int) -> list[psutil.Process]:
    """Worker processes of a run: children of its fork server, or fresh interpreters."""
    found = []
    for child in _children(pid):
        try:
            forked = child.ppid() != pid
            if child.is_running() and (forked or "spawn_main" in " ".join(child.cmdline())):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


# --- what a folder holds ------------------------------------------------------------------------


def figures(selection: Selection) -> dict[str, dict[str, object]]:
    """Job id -> every deterministic column of the row that counts."""
    found = {}
    for job_id, record in make_plan(selection).contents.records.items():
        row = {k: v for k, v in to_row(record).items() if k not in CLOCK_AND_MACHINE}
        row["curve"] = [{k: v for k, v in p.items() if k != "seconds"} for p in row["curve"]]
        found[job_id] = {name: repr(value) for name, value in row.items()}  # NaN equals NaN
    return found


def faults(selection: Selection, folder: Path, calm: dict[str, dict[str, object]]) -> list[str]:
    """Everything wrong with a folder whose runs are done, a line each; none if all is well."""
    plan = make_plan(selection)
    contents, store = plan.contents, plan.store
    wanted = {job.job_id for job in plan.expanded.jobs}
    good = Counter(
        row["job_id"]
        for path in store.parts.glob("*.parquet")
        if path not in contents.damaged
        for row in pq.read_table(path, columns=["job_id", "status"]).to_pylist()
        if row["status"] == "ok"
    )
    derived = Counter(pq.read_table(store.derived, columns=["job_id"])["job_id"].to_pylist())
    found = [f"job {job_id} is lost" for job_id in sorted(wanted - set(good))]
    found += [f"job {job_id} has {n} ok rows" for job_id, n in sorted(good.items()) if n > 1]
    found += [f"{plan.expanded.waiting} jobs wait for trials"] * bool(plan.expanded.waiting)
    found += [f"{path.name} can't be read: {why}" for path, why in contents.damaged.items()]
    if derived != Counter(wanted):
        found.append(f"{store.derived.name} has {derived.total()} rows for {len(wanted)} jobs")
    found += [f"{path.relative_to(folder)} was left behind" for path in leftovers(folder)]
    mine = figures(selection)
    for job_id in sorted(set(mine) & set(calm)):
        differing = [k for k, v in calm[job_id].items() if mine[job_id][k] != v]
        found += [f"job {job_id}: {', '.join(differing)} differ"] * bool(differing)
    if set(mine) != set(calm):
        found.append("other jobs than in the undisturbed run")
    return found


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders of runs that are over."""
    hidden = {p for name in ("results", "reports") for p in (folder / name).rglob(".*")}
    return sorted(hidden | set((folder / "tmp").glob("peftmark-*")))


# --- the tool -----------------------------------------------------------------------------------


def rage(storm: Storm, gap: float, more: Callable[[], bool]) -> None:
    """Run a command to its end, killing as long as `more` says so.

    Args:
        storm: where.
        gap: mean seconds between two kills.
        more: whether to kill once more.

    Raises:
        Broken: the command ends as no kill explains.
    """
    calm_starts = 0
    while True:
        process = storm.start()
        calm_starts += not more()
        while more() and storm.running(0):
            kills = [storm.kill_worker, storm.kill_supervisor]
            kills += [storm.hurt_server, storm.hurt_cache] * (storm.cache is not None)
            kill = storm.luck.choice(kills)
            while (
                kill in (storm.kill_worker, storm.hurt_server)
                and storm.running(0.1)
                and not workers(process.pid)
            ):
                pass  # most of a start goes by before there is one
            if storm.running(storm.luck.expovariate(1 / gap)) and more():
                kill()
        code = process.wait()
        if code == FINISHED:
            return
        if code not in (INCOMPLETE, -9) or calm_starts > 2:
            raise Broken(f"exit code {code}; the end of its output:\n{storm.tail()}")


def main() -> int:
    """Entry point; 0 if nothing was lost, doubled, left behind or changed."""
    parser = argparse.ArgumentParser(description="Kill real runs at random moments.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--suite", default="smoke")
    parser.add_argument("--profile", default="offline")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--minutes", type=float, default=15, help="no kill after this time")
    parser.add_argument("--gap", type=float, default=4, help="mean seconds between two kills")
    parser.add_argument("--folder", type=Path, help="keep everything here")
    parser.add_argument(
        "--all", action="store_true", help="damage a cache of the storm's own and its server too"
    )
    parser.add_argument("more", nargs="*", help="further options of `peftmark run`, after --")
    options = parser.parse_args()
    if options.folder is not None:
        return _storms(options, options.folder.resolve())
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        return _storms(options, Path(folder))


def _storms(options: argparse.Namespace, folder: Path) -> int:
    command = [sys.executable, "-m", "peftmark", "run", options.suite]
    command += ["--profile", options.profile, *options.more]
    luck = random.Random(options.seed)
    total: Counter[str] = Counter()

    def selection(round_folder: Path) -> Selection:
        results = round_folder / "results"
        return Selection(options.suite, options.profile, results=results)

    def kills() -> int:
        return total.total() - total["starts"]

    begin = time.monotonic()
    cache = folder / "cache" if options.all else None
    undisturbed = Storm(command, folder / "undisturbed", luck, cache=cache)
    undisturbed.calm()
    calm = figures(selection(undisturbed.folder))
    print(f"undisturbed: {len(calm)} jobs in {time.monotonic() - begin:.0f} s", flush=True)
    begin, found, rounds = time.monotonic(), [], 0

    def more() -> bool:
        return kills() < options.kills and time.monotonic() - begin < 60 * options.minutes

    while more():
        rounds += 1
        storm = Storm(command, folder / f"round-{rounds}", luck, total)
        if cache is not None:
            storm.cache = shutil.copytree(cache, storm.folder / "cache")
        try:
            rage(storm, options.gap, more)
            found += faults(selection(storm.folder), storm.folder, calm)
            aside = storm.folder / "results" / options.suite / "quarantine"
            found += [f"{path.name} was set aside" for path in aside.glob("*")]
        except Broken as error:
            found.append(str(error))
        finally:
            if storm.process is not None and storm.process.poll() is None:
                storm.kill_supervisor()
        if found:
            break
        print(f"round {rounds}: {kills()} kills so far, all {len(calm)} rows as undisturbed")
    counts = ", ".join(f"{n} {what}" for what, n in sorted(total.items()))
    print(f"{rounds} rounds in {time.monotonic() - begin:.0f} s: {counts}")
    if kills() < options.kills and not found:
        print(f"time was up after {kills()} of {options.kills} kills")
    print("\n".join(found) if found else "nothing lost, doubled, left behind or changed")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
