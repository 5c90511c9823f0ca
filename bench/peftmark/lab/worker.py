"""Process entry of a job: set up the process, run the recipe, send the outcome home.

Messages to the supervisor are JSON on one pipe: progress, and at the end `{"outcome": ...}`. A
process that takes several jobs then says `{"ready": true}`, once it is as it was before the job,
is told the next one and answers `{"takes": true}`; else the supervisor says nothing. The pipe's
closing is how a worker learns that the supervisor died. Everything printed, by us or a library,
goes to the attempt's log.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from peftmark.core.full_memory import says_memory_is_full
from peftmark.core.shown import without_secrets
from peftmark.lab.members import Apart, Members, Seat, leave, started, wait_for_end
from peftmark.machine.shared_device import SharedDevice
from peftmark.machine.visible import see_only
from peftmark.record.job import Job
from peftmark.record.outcome import Outcome, Status

if TYPE_CHECKING:
    from peftmark.lab.afresh import Afresh

_OF_VALUES = (LookupError, TypeError, ValueError)
"""Errors whose text may quote anything, such as a row of a task."""


def main(
    connection: Any,
    job_json: str,
    places_json: str,
    log: str,
    device: str | None,
    most_jobs: int = 1,
) -> None:
    """Run one job and send its outcome; then others, as long as all goes well.

    Args:
        connection: the worker's end of a two-way pipe.
        job_json: `Job.to_json()`.
        places_json: `Places` as JSON.
        log: file that takes everything printed.
        device: the GPU to use (`peftmark.machine.visible.Gpu.uuid`); None for the CPU.
        most_jobs: after so many it ends.
    """
    _redirect(Path(log))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor to handle
    # Forked before there are threads, or a GPU that is used.
    members = started(json.loads(places_json), connection, partial(_member, job_json, places_json))
    orders: SimpleQueue[bytes] = SimpleQueue()
    told = threading.Thread(target=_leave_with_supervisor, args=(connection, orders), daemon=True)
    told.start()
    _see_only(job_json, device)
    one_by_one = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        with one_by_one:
            connection.send_bytes(json.dumps(message).encode())

    if members is not None:
        _lead(members, job_json, places_json, send)
        connection.close()
        leave(0)
    before = None
    for number in range(1, most_jobs + 1):
        if number == 1 and most_jobs > 1:
            before = _before_jobs()
        job = Job.from_json(job_json)
        outcome = _guarded(job, places_json, send)
        send({"outcome": outcome.to_json()})
        if number == most_jobs or outcome.status != "ok" or before is None:
            break
        if left := before.again(job):
            print(f"The process takes no other job: {left}")
            break
        send({"ready": True})
        job_json, places_json, log = json.loads(orders.get())
        send({"takes": True})
        _redirect(Path(log))
    connection.close()


def _see_only(job_json: str, device: str | None) -> None:
    """Hide the GPUs that a job isn't to use. Of those that torch doesn't call `cuda` it uses the
    first that torch lists, and nothing hides the others."""
    see_only(device if Job.from_json(job_json).device == "cuda" else None)


def _before_jobs() -> Afresh | None:
    """What the process is like before its first job; None where libraries can't be loaded, which
    the job's own row will say."""
    try:
        from peftmark.lab import recipe  # noqa: F401 (with it all that a job imports)
        from peftmark.lab.afresh import Afresh

        quiet_libraries()
        return Afresh()
    except Exception:
        return None


def _lead(members: Members, job_json: str, places_json: str, send: Any) -> None:
    """Run a job as the first of its processes, and end the others after it."""
    members.watch(send)
    job = Job.from_json(job_json)
    outcome = _guarded(job, places_json, send, members.seat, members.wait)
    members.end(all_well=outcome.status == "ok")
    send({"outcome": outcome.to_json()})


def _member(job_json: str, places_json: str, link: Any, seat: Seat, device: str | None) -> None:
    """Take part in a job as another of its processes, which the first one has forked.

    Args:
        link: to the first process, which is told why this one failed.
        device: as in `main`.
    """
    threading.Thread(target=_leave_with_supervisor, args=(link,), daemon=True).start()
    _see_only(job_json, device)
    job = Job.from_json(job_json)
    outcome = _guarded(job, places_json, lambda message: None, seat, wait_for_end)
    if outcome.status != "ok":
        link.send_bytes(outcome.to_json().encode())
        wait_for_end()


def _joined(seat: Seat, job: Job) -> Any:
    """The job's processes, which find each other now (`peftmark.lab.team.Team`)."""
    from peftmark.lab.team import joined

    return joined(seat, job.device)


def _guarded(
    job: Job,
    places_json: str,
    send: Any,
    seat: Seat | None = None,
    apart: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run a job; whatever it raises is its outcome.

    Args:
        seat: of this process among those of the job; None if it is alone.
        apart: called where the job's processes lost each other, for the one that ended first to
            be told of.
    """
    try:
        from peftmark.lab import recipe
        from peftmark.lab.measure.meters import reset_high_water_mark
        from peftmark.lab.plugin_code import bring

        reset_high_water_mark()
        quiet_libraries()
        bring(job)
        with SharedDevice.told(json.loads(places_json)) as turns:
            team = {} if seat is None else {"team": _joined(seat, job)}
            return recipe.run(job, _places(places_json), send, _outbox(places_json), turns, **team)
    except BaseException as error:  # a library may leave by SystemExit when it is loaded
        with suppress(Exception):  # a log without room, an error that can't be told
            print(without_secrets(traceback.format_exc()), file=sys.stderr)
        if isinstance(error, Apart):
            apart()
        status, reason = classify(error)
        return Outcome(status=status, status_reason=reason)


def classify(error: BaseException) -> tuple[Status, str]:
    """Status and reason of a job that raised."""
    try:
        told = without_secrets(str(error))
    except Exception:
        told = "an error that can't be told"
    try:
        import torch  # noqa: F401 (needed below)

        from peftmark.lab.models import Unsupported
        from peftmark.lab.step import Diverged
    except BaseException:  # a library that can't be loaded: that is what was raised
        full = isinstance(error, MemoryError) or says_memory_is_full(told)
        text = f"{type(error).__name__}: {' '.join(told.split())[:400]}"
        return "out_of_memory" if full else "crashed", text
    from peftmark.core.errors import UserError

    if isinstance(error, UserError) and error.remedy:
        told = f"{error.what.removesuffix('.')}. {error.remedy}"
    text = " ".join(told.split())[:400] or type(error).__name__
    if isinstance(error, Diverged):
        return "diverged", text
    if _memory_is_full(error):
        return "out_of_memory", text
    if isinstance(error, Unsupported):
        return "unsupported", text
    if isinstance(error, UserError):
        return "crashed", text
    return "crashed", f"{type(error).__name__}: {text}"


def _memory_is_full(error: BaseException) -> bool:
    """Whether memory ran out, or an error says that it ended something because memory ran out.

    Known by type first, then by text; of ours and of errors about values the text isn't asked.
    """
    import torch

    from peftmark.core.errors import UserError
    from peftmark.lab.models import Unsupported

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    quiet = isinstance(error, (UserError, Unsupported, *_OF_VALUES))
    if not quiet and says_memory_is_full(str(error)):
        return True
    return error.__cause__ is not None and _memory_is_full(error.__cause__)


def quiet_libraries() -> None:
    """Silence progress bars and chatter of the libraries; errors still reach the log."""
    import warnings

    import datasets
    import transformers

    chatter: Any = transformers.logging
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")


def _places(text: str) -> Any:
    from peftmark.core.hashes import learn_hashes
    from peftmark.sources.assets import Places

    data = json.loads(text)
    learn_hashes(data["hashes"])
    mirror = Path(data["mirror"]) if data["mirror"] else None
    return Places(mirror, tuple(data["sources"]), Path(data["cache"]))


def _outbox(text: str) -> Path | None:
    """Where the job leaves what it trained; None if nothing is kept."""
    told = json.loads(text).get("outbox")
    return Path(told) if told else None


def _leave_with_supervisor(connection: Any, orders: SimpleQueue[bytes] | None = None) -> None:
    """End at once when the supervisor is gone, however it ended: nobody would store the outcome.

    Args:
        orders: takes what the supervisor says until then.

    PR_SET_PDEATHSIG would not do: a worker's parent is the fork server, which lives as long as any
    worker holds its pipe.
    """
    try:
        while True:
            order = connection.recv_bytes()
            if orders is not None:
                orders.put(order)
    except (EOFError, OSError):
        os._exit(1)


def _redirect(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    for stream in (sys.stdout, sys.stderr):
        # Whatever the terminal can show: a library that prints another character must not fail.
        with suppress(AttributeError, ValueError):  # not the ones that Python opened
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    faulthandler.enable()
    # The supervisor asks a worker that took too long where it is, before it ends it.
    faulthandler.register(signal.SIGUSR1)
