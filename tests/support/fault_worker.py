"""Stand-ins for a worker process, as in `fake_worker`, for the faults of docs/faults.md."""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import types
from dataclasses import replace
from pathlib import Path

from fake_worker import HANGING_STEP, Line
from peftmark.lab import worker
from peftmark.record.outcome import CurvePoint, Outcome, numbers
from waiting import FOREVER, wait_for


def says_its_number(connection, job_json, places_json, log, device, *more):
    """Finish and tell its process id."""
    Line(connection, job_json, log).finish(data_source=str(os.getpid()))


# --- memory -------------------------------------------------------------------------------------


def _with_recipe(run, *arguments):
    """The real worker, its errors classified for real, around a recipe that trains nothing."""
    recipe, meters = (
        types.ModuleType("peftmark.lab.recipe"),
        types.ModuleType("peftmark.lab.measure.meters"),
    )
    recipe.run = run
    meters.reset_high_water_mark = lambda: None
    import peftmark.lab

    peftmark.lab.recipe = recipe
    sys.modules |= {"peftmark.lab.recipe": recipe, "peftmark.lab.measure.meters": meters}
    worker.quiet_libraries = lambda: None
    worker.main(*arguments)


def short_of_address_space(*arguments):
    """Ask torch for more memory than the process may have."""

    def run(job, places, progress, outbox, turns):
        import torch

        __import__("peftmark.lab.step")  # loaded in a real job, and needs room of its own
        held = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (held + 2**28, held + 2**28))
        progress({"phase": "model"})
        torch.empty(2**30, dtype=torch.float32)

    _with_recipe(run, *arguments)


def runs_out_of_memory(connection, job_json, places_json, log, device, *more):
    """Tell of a full device at step 7, as the real worker does."""
    line = Line(connection, job_json, log)
    line.send(step=7, steps=120)
    line.send(outcome=Outcome("out_of_memory", "CUDA out of memory").to_json())


def with_a_broken_device(*arguments):
    """Fail at seed 0 as CUDA fails for good in a process, and finish at any other."""

    def run(job, places, progress, outbox, turns):
        import torch

        if job.seed == 0:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        return Outcome("ok", metric_value=1.0, data_source=str(os.getpid()))

    _with_recipe(run, *arguments)


def fills_its_group(connection, job_json, places_json, log, device, *more):
    """Enter the memory group named in the file `group` beside the log, and fill it."""
    line = Line(connection, job_json, log)
    group = Path(line.log.with_name("group").read_text())
    (group / "cgroup.procs").write_text(str(os.getpid()))
    line.send(phase="train")
    line.send(step=7, steps=120)
    held = []
    while True:
        held.append(b"x" * 2**20)


def aborts(connection, job_json, places_json, log, device, *more):
    """End as C++ does without memory at seed 0, and as it does for another reason at any other."""
    line = Line(connection, job_json, log)
    line.send(phase="train")
    what = "std::bad_alloc" if line.job.seed == 0 else "std::out_of_range"
    os.write(2, f"terminate called after throwing an instance of '{what}'\n".encode())
    os.abort()


# --- the pipe -----------------------------------------------------------------------------------


def dies_in_a_message(connection, job_json, places_json, log, device, *more):
    """Announce a message of a thousand bytes and die after ten."""
    Line(connection, job_json, log).send(phase="train")
    os.write(connection.fileno(), struct.pack("!i", 1000) + b'{"outcome"')
    os.kill(os.getpid(), signal.SIGKILL)


def hangs_in_a_message(connection, job_json, places_json, log, device, *more):
    """Say a step, announce a message of a thousand bytes and hang after ten, all in one breath."""
    Line(connection, job_json, log)
    told = json.dumps({"step": HANGING_STEP, "steps": 120}).encode()
    both = struct.pack("!i", len(told)) + told + struct.pack("!i", 1000) + b'{"outcome"'
    os.write(connection.fileno(), both)
    time.sleep(FOREVER)


def sends_rubbish(connection, job_json, places_json, log, device, *more):
    """Send what is no JSON, and an outcome that is none."""
    line = Line(connection, job_json, log)
    connection.send_bytes(b"\xff\x00 no message at all")
    line.send(outcome="{}")
    line.finish()


def dies_after_its_outcome(connection, job_json, places_json, log, device, *more):
    """Tell the outcome and die before the process ends in peace."""
    Line(connection, job_json, log).finish()
    os.kill(os.getpid(), signal.SIGKILL)


def dies_with_files(connection, job_json, places_json, log, device, *more):
    """Die while an adapter lies in a temporary folder, as one does to be measured and reloaded."""
    Line(connection, job_json, log)
    Path(tempfile.mkdtemp(prefix="peftmark-"), "adapter").write_text("weights")
    os.kill(os.getpid(), signal.SIGKILL)


def dies_before_a_word(connection, job_json, places_json, log, device, *more):
    """Die while it still imports, as it were."""
    os.kill(os.getpid(), signal.SIGKILL)


# --- hanging ------------------------------------------------------------------------------------


def hangs_in_c(connection, job_json, places_json, log, device, *more):
    """Hang below Python with the interpreter's lock held, so that no handler in Python runs."""
    line = Line(connection, job_json, log)
    line.send(step=HANGING_STEP, steps=120)
    ctypes.PyDLL(None).sleep(FOREVER)


def is_stopped(connection, job_json, places_json, log, device, *more):
    """Be stopped, as by a debugger: no signal but SIGKILL and SIGCONT does anything."""
    line = Line(connection, job_json, log)
    line.log.with_suffix(".pid").write_text(str(os.getpid()))
    line.send(step=HANGING_STEP, steps=120)
    os.kill(os.getpid(), signal.SIGSTOP)


# --- files --------------------------------------------------------------------------------------


def fills_the_disk(connection, job_json, places_json, log, device, *more):
    """Finish at seed 0; else leave no byte of the disk that the log is on, print, and finish."""
    line = Line(connection, job_json, log)
    if line.job.seed:
        with line.log.with_name("filler").open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(2**16)):
                    pass
            except OSError:
                pass
        print("words for a log that has no room")
    line.finish()


def lists_its_files(connection, job_json, places_json, log, device, *more):
    """Tell every file that it holds open."""
    line = Line(connection, job_json, log)
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except OSError:  # the folder's own descriptor
            continue
    line.finish(data_source=json.dumps(sorted(found)))


def raises_half_a_character(connection, job_json, places_json, log, device, *more):
    """Fail with a file name that is no UTF-8 in the reason."""
    line = Line(connection, job_json, log)
    line.send(outcome=Outcome("crashed", "no file 'caf\udce9'", warnings=("\udcff",)).to_json())


# --- the storm ----------------------------------------------------------------------------------


def steady(connection, job_json, places_json, log, device, *more):
    """Finish with figures that depend on the job alone, once no file `hold` is beside the log."""
    _steady(Line(connection, job_json, log), lambda drawn: drawn.random())


def told_apart(connection, job_json, places_json, log, device, *more):
    """The same with scores that are better with each rank and rate, most of all with rank 8."""
    line = Line(connection, job_json, log)
    rank = line.job.size or 0
    better = 0.3 * (rank == 8) + 0.01 * rank + 10 * line.job.recipe.learning_rate
    _steady(line, lambda drawn: 0.4 + better + 0.01 * drawn.random())


def _steady(line, score):
    wait_for(lambda: not line.log.with_name("hold").exists())
    line.send(phase="train")
    known = replace(line.job, purpose="report").job_id  # a repeat gives the same bits
    drawn = random.Random(known)
    for step in (10, 20):
        line.send(step=step, steps=20, metric=0.5)
    curve = tuple(
        CurvePoint(step, score(drawn), drawn.random(), time.monotonic()) for step in (10, 20)
    )
    print("trained", line.job.job_id)
    line.finish(
        metric_value=curve[-1].metric,
        predictions=numbers(drawn.random() for _ in range(500)),
        references=numbers(drawn.random() for _ in range(500)),
        curve=curve,
        loss=curve[-1].loss,
        train_seconds=time.monotonic(),
        initial_weights_hash=hashlib.sha256(known.encode()).hexdigest(),
    )


# --- whatever a worker sends ---------------------------------------------------------------------


def sends_what_the_file_says(connection, job_json, places_json, log, device, *more):
    """At seed 0 send the bytes of the file `sent` beside the log and then a good outcome; finish at
    any other seed."""
    line = Line(connection, job_json, log)
    if line.job.seed == 0:
        left = memoryview(line.log.with_name("sent").read_bytes())
        while left:
            left = left[os.write(connection.fileno(), left) :]
    line.finish()


def sends_without_end(connection, job_json, places_json, log, device, *more):
    """At seed 0 announce two gigabytes and send for ever; finish at any other seed."""
    line = Line(connection, job_json, log)
    if line.job.seed == 0:
        os.write(connection.fileno(), struct.pack("!i", 2**31 - 1))
        while True:
            os.write(connection.fileno(), b"[" * 2**16)
    line.finish()


def floods_until_the_others_end(connection, job_json, places_json, log, device, *more):
    """At seed 0 tell steps without a pause until seeds 1 and 2 have ended; each ends by itself."""
    line = Line(connection, job_json, log)
    ended = line.log.parent
    if line.job.seed == 0:
        while len(list(ended.glob("*.ended"))) < 2:
            line.send(step=1, steps=20, note="x" * 1000)
    else:
        line.log.with_suffix(".ended").touch()
    line.finish()


# --- the server that workers are forked from -----------------------------------------------------


def kills_its_server_once(connection, job_json, places_json, log, device, *more):
    """In the first attempt at seed 0 kill the process that this one was forked from, and hang."""
    line = Line(connection, job_json, log)
    if line.job.seed == 0 and line.log.name.endswith(".1.log"):
        line.log.with_suffix(".pid").write_text(str(os.getpid()))
        line.send(step=7, steps=120)
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    line.finish()


def stops_its_server(connection, job_json, places_json, log, device, *more):
    """Stop the process that this one was forked from, and finish."""
    line = Line(connection, job_json, log)
    os.kill(os.getppid(), signal.SIGSTOP)
    line.finish()


def tells_its_interpreter(connection, job_json, places_json, log, device, *more):
    """Tell the switches of Python and what is left of them in the environment."""
    line = Line(connection, job_json, log)
    print("a dash \u2013 for the log")
    switches = [sys.flags.optimize, sys.flags.dev_mode, sys.warnoptions, sys.stdout.encoding]
    line.finish(data_source=json.dumps([switches, sorted(k for k in os.environ if "PYTHON" in k)]))


class _Unreadable(BaseException):
    def __str__(self):
        raise RuntimeError


def leaves_as_the_job_says(*arguments):
    """Raise in the real worker what no `except Exception` holds, one thing a seed; torch can't be
    loaded either."""

    def run(job, places, progress, outbox, turns):
        raise [SystemExit(3), KeyboardInterrupt("a library"), _Unreadable()][job.seed]

    sys.modules["torch"] = None
    _with_recipe(run, *arguments)
