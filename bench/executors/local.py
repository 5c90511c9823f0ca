"""Run jobs on this machine: one worker process a job, as many at once as there are slots.

The supervisor alone decides how a job ended, from its last message, its exit code and the clock.
A worker that dies in any way leaves an outcome and a free slot; it never stops the matrix.
"""

from __future__ import annotations

import importlib
import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from bench.assets import Places
from bench.nvml import DeviceMeter, contended
from bench.outcome import Outcome
from bench.record import Job

WORKER = "bench.lab.worker:main"
PRELOAD = ("bench.lab.recipe", "bench.lab.methods.adalora")
GRACE_SECONDS = 5.0
MAX_LOG_BYTES = 1024 * 1024

WORKER_ENVIRONMENT = {
    # One thread a worker: threads that contend for cores slow each other down, and their number
    # changes bits.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # cuBLAS is deterministic only with a fixed workspace.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # The supervisor fetched every asset before the first job; a worker never uses the network.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


JOBS_AT_ONCE = "PEFTMARK_JOBS_AT_ONCE"
"""Variable that tells a worker how many jobs run at once: they share the machine's counters."""


@dataclass(frozen=True)
class Finished:
    """How one attempt of a job ended.

    Attributes:
        wall_seconds: from the worker's start to its end.
        nvml_process_bytes: the most device memory the worker held; None on the CPU.
        nvml_device_bytes: highest rise of the device's memory over idle; None on the CPU.
        nvml_reason: why one or both are None; empty if neither is.
    """

    job: Job
    attempt: int
    outcome: Outcome
    started_at: str
    finished_at: str
    wall_seconds: float
    nvml_process_bytes: int | None
    nvml_device_bytes: int | None
    nvml_reason: str


@dataclass
class _Running:
    job: Job
    attempt: int
    log: Path
    slot: str | None
    process: Any
    connection: Any
    meter: DeviceMeter
    started_at: str
    start: float
    last: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    deadline: float | None = None
    stopped: Outcome | None = None


Listener = Callable[[Job, dict[str, Any]], None]


def run_jobs(
    jobs: Sequence[tuple[Job, int]], places: Places, logs: Path, slots: Sequence[str | None],
    seconds_limit: float | None, stop: Callable[[], bool], listener: Listener,
    worker: str = WORKER,
) -> Iterator[Finished]:  # fmt: skip
    """Run jobs, yielding each as it ends.

    Args:
        jobs: (job, attempt number) in the order they start.
        places: where workers find assets.
        logs: folder for the workers' logs.
        slots: one entry a worker at a time: the UUID of its GPU, or None for the CPU.
        seconds_limit: wall seconds after which a job is stopped; None for no limit.
        stop: asked twice a second; True ends the running jobs as `interrupted` and starts no more.
        listener: told of every start and every message of a worker.
        worker: "module:function" that a worker process runs; a test puts a fake here.
    """
    waiting = list(reversed(jobs))
    free = list(reversed(slots))
    running: list[_Running] = []
    kills = _OomKills()
    start = _starter(
        worker, places, logs, gpu=any(slot is not None for slot in slots),
        at_once=min(len(slots), len(jobs)),
    )  # fmt: skip
    try:
        while waiting or running:
            while waiting and free and not stop():
                job, attempt = waiting.pop()
                running.append(start(job, attempt, free.pop(), seconds_limit))
                listener(job, {"phase": "start"})
            _listen(running, listener)
            if stop():  # asked after listening: Ctrl-C may have ended a worker by itself
                waiting.clear()
                _end(running, Outcome("interrupted", "stopped by the user"))
            for one in [r for r in running if not r.process.is_alive()]:
                running.remove(one)
                free.append(one.slot)
                yield _finish(one, kills)
            overdue = [r for r in running if r.deadline and time.monotonic() > r.deadline]
            if overdue:
                _end(overdue, Outcome("timed_out", f"over the limit of {seconds_limit:g} s a job"))
    finally:
        _kill(running)


def _starter(
    worker: str, places: Places, logs: Path, gpu: bool, at_once: int
) -> Callable[[Job, int, str | None, float | None], _Running]:
    # A fork server with torch loaded starts a worker in 0.02 s; a fresh process spends 6 to 8 s on
    # imports (measured on two cores).
    # With a GPU each worker is a fresh process: CUDA must not be touched before a fork.
    context: Any = multiprocessing.get_context("spawn" if gpu else "forkserver")
    if not gpu and worker == WORKER:
        context.set_forkserver_preload(list(PRELOAD))
    places_json = json.dumps(
        {
            "mirror": str(places.mirror.resolve()) if places.mirror else None,
            "sources": places.sources,
            "cache": str(places.cache.resolve()),
        }
    )

    def start(job: Job, attempt: int, slot: str | None, limit: float | None) -> _Running:
        ours, theirs = context.Pipe()
        log = logs / f"{job.job_id}.{attempt}.log"
        process = context.Process(
            target=_child,
            args=(at_once, worker, theirs, job.to_json(), places_json, str(log.resolve()), slot),
            daemon=True,
        )
        meter = DeviceMeter(slot).__enter__()  # its idle reading is without the worker
        with _environment(WORKER_ENVIRONMENT):
            process.start()
        meter.pid = process.pid
        theirs.close()
        now = time.monotonic()
        deadline = None if limit is None else now + limit
        return _Running(
            job, attempt, log, slot, process, ours, meter, utc_now(), now, deadline=deadline
        )  # fmt: skip

    return start


def _child(at_once: int, worker: str, connection: Any, *arguments: Any) -> None:
    """First code of a worker process: the named function, imported there and not here."""
    # Set here, since a fork server keeps the environment that it was once started with.
    os.environ[JOBS_AT_ONCE] = str(at_once)
    module, _, function = worker.partition(":")
    getattr(importlib.import_module(module), function)(connection, *arguments)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _listen(running: Sequence[_Running], listener: Listener) -> None:
    """Wait up to half a second for messages or deaths, and take in what came."""
    by_handle = {r.connection: r for r in running if not r.connection.closed}
    sentinels = [r.process.sentinel for r in running]
    for ready in wait([*by_handle, *sentinels], timeout=0.5):
        one = by_handle.get(ready)
        if one is not None:
            _take(one, listener)


def _take(one: _Running, listener: Listener | None) -> None:
    try:
        while one.connection.poll():
            message = json.loads(one.connection.recv_bytes())
            if "outcome" in message:
                one.outcome = _checked(Outcome.from_json(message["outcome"]))
            else:
                one.last.update(message)
                if listener is not None:
                    listener(one.job, message)
    except (EOFError, OSError):
        one.connection.close()


def _checked(outcome: Outcome) -> Outcome:
    """A finished run without a finite score is no result."""
    score = math.nan if outcome.metric_value is None else outcome.metric_value
    if outcome.status == "ok" and not math.isfinite(score):
        return replace(outcome, status="invalid", status_reason="the metric is not a finite number")
    return outcome


def _end(running: Sequence[_Running], outcome: Outcome) -> None:
    """Ask workers to end, then make them; their outcome is the given one unless they had one."""
    for one in running:
        if one.outcome is None and one.stopped is None:
            one.stopped = _with_place(outcome, one)
    _kill(running)


def _kill(running: Sequence[_Running]) -> None:
    for one in running:
        one.process.terminate()
    limit = time.monotonic() + GRACE_SECONDS
    for one in running:
        one.process.join(max(0.0, limit - time.monotonic()))
        if one.process.is_alive():
            one.process.kill()
            one.process.join()


def _with_place(outcome: Outcome, one: _Running) -> Outcome:
    step, phase = one.last.get("step"), one.last.get("phase", "start")
    place = f"at step {step} of {one.last.get('steps')}" if step else f"in phase {phase}"
    return Outcome(outcome.status, f"{outcome.status_reason}, {place}")


def _bound(log: Path) -> None:
    """Cut the middle out of a log that grew too long; how it began and how it ended stay."""
    with suppress(OSError):
        size = log.stat().st_size
        if size <= MAX_LOG_BYTES:
            return
        half = MAX_LOG_BYTES // 2
        with log.open("rb+") as handle:
            handle.seek(size - half)
            tail = handle.read()
            handle.seek(half)
            handle.truncate()
            handle.write(f"\n[{size - 2 * half} bytes cut here]\n".encode() + tail)


def _finish(one: _Running, kills: _OomKills) -> Finished:
    if not one.connection.closed:
        _take(one, None)
        one.connection.close()
    one.process.join()
    _bound(one.log)
    one.meter.__exit__(None, None, None)
    outcome = one.outcome or one.stopped or _died(one, kills)
    flag = contended(one.meter.others)
    if flag is not None and flag not in outcome.energy_flags:
        outcome = replace(outcome, energy_flags=(*outcome.energy_flags, flag))
    return Finished(
        job=one.job,
        attempt=one.attempt,
        outcome=outcome,
        started_at=one.started_at,
        finished_at=utc_now(),
        wall_seconds=round(time.monotonic() - one.start, 3),
        nvml_process_bytes=one.meter.process_bytes,
        nvml_device_bytes=one.meter.device_bytes,
        nvml_reason=one.meter.reason,
    )


def _died(one: _Running, kills: _OomKills) -> Outcome:
    code = one.process.exitcode
    if code is not None and code < 0:
        name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
        if -code == signal.SIGKILL and kills.one_more():
            reason = Outcome("out_of_memory", "killed by the kernel's out-of-memory killer")
        else:
            reason = Outcome("crashed", f"the worker was killed by {name}")
    else:
        reason = Outcome("crashed", f"the worker ended with exit code {code} and no outcome")
    return _with_place(reason, one)


# The cgroup's own counter where it can be read, else the whole machine's.
_OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


class _OomKills:
    """Kills by the kernel's out-of-memory killer since this was made."""

    def __init__(self) -> None:
        self._counted = self._read()

    def one_more(self) -> bool:
        """Whether there is a kill not yet put down to a worker; it counts for one now."""
        now = self._read()
        if now is None or self._counted is None or now <= self._counted:
            return False
        self._counted += 1
        return True

    @staticmethod
    def _read() -> int | None:
        for path in _OOM_COUNTERS:
            with suppress(OSError):
                for line in path.read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return None


def utc_now() -> str:
    """Now as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
