"""Run jobs through Slurm, by submitit.

submitit writes each call to its folder by pickle and reads its answer back so. What we hand over
is a function by its name and JSON text, and what comes back is JSON text; the folder lies beside
the logs of the results, where only who may write results writes.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from peftmark.core.errors import UserError
from peftmark.core.texts import whole_number
from peftmark.executors.cluster import Lost, drive
from peftmark.executors.contract import Finished, Order
from peftmark.executors.node import run_here
from peftmark.record.job import Device
from peftmark.record.outcome import Outcome
from peftmark.sources.pypi import one_line

CLUSTERS = ("slurm", "local")
LOCAL_MINUTES = 24 * 60
END_SECONDS = 10.0

# Key of --slurm -> its type. One job is one task on one node, so nodes and tasks can't be set.
KEYS: dict[str, type[int] | type[str]] = {
    "account": str,
    "comment": str,
    "constraint": str,
    "cpus_per_task": int,
    "exclude": str,
    "exclusive": str,
    "gpus_per_node": int,
    "gres": str,
    "mem": str,
    "mem_per_cpu": str,
    "nodelist": str,
    "partition": str,
    "qos": str,
    "signal_delay_s": int,
    "time": int,
    "wckey": str,
}

# Last state that Slurm tells of a job without answer -> how our job ended.
_STATES: dict[str, Outcome] = {
    "TIMEOUT": Outcome("timed_out", "over the time limit of its Slurm job"),
    "OUT_OF_MEMORY": Outcome("out_of_memory", "killed by Slurm for its memory"),
}
_OF_CLUSTER = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")
"""Variables that say which cluster and how to reach it, and nothing of an allocation."""
_OUTSIDE = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "INTERRUPTED")


@dataclass(frozen=True)
class Settings:
    """What `--slurm` says.

    Attributes:
        cluster: slurm, or local: submitit's own stand-in on this machine.
        minutes: time limit of each Slurm job.
        others: what goes to sbatch as it is.
    """

    cluster: Literal["slurm", "local"] = "slurm"
    minutes: int = LOCAL_MINUTES
    others: Mapping[str, int | str] = field(default_factory=dict)


def settings(text: str) -> Settings:
    """Read `key=value,...`.

    Raises:
        UserError: an unknown key, a malformed value, no time limit, or no Slurm here.
    """
    given: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not value or key not in {"cluster", *KEYS} or key in given:
            raise UserError(
                f"--slurm: found {pair!r}" + (", a second time" if key in given else ""),
                f"Give key=value,... each once, of cluster, {', '.join(KEYS)}.",
            )
        if not pair.isprintable():  # a line of its own in sbatch's script is an option of its own
            raise UserError(f"--slurm: found {pair!r}", "Leave out what can't be printed.")
        if KEYS.get(key) is int and not whole_number(value):
            raise UserError(f"--slurm: found {pair!r}", "It takes a whole number from 1.")
        given[key] = value
    cluster = given.pop("cluster", "slurm")
    if cluster not in CLUSTERS:
        raise UserError(
            f"--slurm: found cluster={cluster}", f"Allowed are {' and '.join(CLUSTERS)}."
        )
    # sbatch's switches, such as --exclusive, take no value: submitit wants True for them.
    values = {key: value == "true" or KEYS[key](value) for key, value in given.items()}
    minutes = values.pop("time", None)
    if cluster == "local":
        if values:
            raise UserError(
                f"--slurm: cluster=local has no use for {', '.join(values)}",
                "Leave all but time out.",
            )
        return Settings("local", int(minutes or LOCAL_MINUTES))
    if minutes is None:
        raise UserError(
            "--slurm sets no time limit, and submitit's own is 5 minutes",
            "Add time=MINUTES, the longest that one job may take.",
        )
    if shutil.which("srun") is None:
        raise UserError("there is no Slurm here: no command srun", "Run it where sbatch works.")
    return Settings("slurm", int(minutes), values)


def library() -> Any:
    """The library submitit.

    Raises:
        UserError: it is not there.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            f"--executor slurm needs submitit, which can't be loaded: {one_line(error)}",
            'Install it: pip install "peftmark[slurm]"',
        ) from error
    return submitit


def run_jobs(order: Order, given: Settings, device: Device, at_once: int) -> Iterator[Finished]:
    """Run jobs through Slurm, yielding each attempt as it ends.

    Args:
        device: what each job gets as many of as its recipe says, unless the settings ask for GPUs
            or processors themselves.
        at_once: jobs in Slurm's queue at the same time.

    Raises:
        UserError: submitit is not there.
    """
    yield from drive(order, _Submitted(library(), order, given, device), at_once)


@contextmanager
def _as_outside(submitit: Any) -> Iterator[None]:
    """Submit as from outside an allocation: a job that is submitted inside one would take over its
    settings, such as its memory and its tasks, from the environment."""
    if "SLURM_JOB_ID" not in os.environ:
        yield  # what is set here, such as SBATCH_ACCOUNT, is the user's own
        return
    kept = {name: os.environ[name] for name in _OF_CLUSTER if name in os.environ}
    with submitit.helpers.clean_env():
        os.environ.update(kept)
        yield


class _Submitted:
    """Jobs as Slurm jobs.

    A function without a checkpoint of its own is queued again by submitit when Slurm preempts it,
    and not when its time is over: it would run out of it once more.
    """

    def __init__(self, submitit: Any, order: Order, given: Settings, device: str) -> None:
        self._submitit = submitit
        folder = order.logs / "submitit"
        if not str(folder.resolve()).isprintable():
            raise UserError(
                f"--results: Slurm can't write to {str(folder.resolve())!r}",
                "Choose a folder whose path has nothing in it that can't be printed.",
            )
        self._folder, self._given, self._device = folder, given, device
        self._executors: dict[int, Any] = {}

    def _executor(self, devices: int) -> Any:
        """What submits calls that have so many devices each."""
        if devices not in self._executors:
            given = self._given
            made = self._submitit.AutoExecutor(folder=self._folder, cluster=given.cluster)
            parameters: dict[str, Any] = {f"slurm_{key}": v for key, v in given.others.items()}
            if self._device != "cpu" and not {"gpus_per_node", "gres"} & set(given.others):
                parameters["gpus_per_node"] = devices
            if devices > 1 and "cpus_per_task" not in given.others:
                parameters["cpus_per_task"] = devices  # each process keeps one busy
            made.update_parameters(
                name="peftmark", timeout_min=given.minutes, stderr_to_stdout=True, **parameters
            )
            self._executors[devices] = made
        return self._executors[devices]

    def submit(self, payloads: Sequence[str], devices: int) -> list[Any]:
        executor = self._executor(devices)
        with _as_outside(self._submitit):
            if len(payloads) == 1:
                return [executor.submit(run_here, payloads[0])]
            return list(executor.map_array(run_here, payloads))

    def started(self, handle: Any) -> bool:
        return str(handle.state).upper() in ("RUNNING", "COMPLETING")

    def wait(self, handles: Sequence[Any]) -> list[Any]:
        time.sleep(0.5)  # every question is one to a file system that many machines share
        return [handle for handle in handles if handle.done()]

    def take(self, handle: Any) -> str | Lost:
        try:
            text = str(handle.result())
        except self._submitit.core.utils.UncompletedJobError as error:
            return _lost(str(handle.state), str(error))
        for path in (
            handle.paths.submitted_pickle,
            handle.paths.result_pickle,
            handle.paths.stdout,
        ):
            path.unlink(missing_ok=True)
        return text

    def cancel(self, handles: Sequence[Any]) -> None:
        for handle in handles:
            handle.cancel(check=False)
        limit = time.monotonic() + END_SECONDS
        while time.monotonic() < limit and not all(handle.done() for handle in handles):
            time.sleep(0.1)


def _lost(state: str, message: str) -> Lost:
    word = (state.upper().split() or ["UNKNOWN"])[0].rstrip("+")  # as in "CANCELLED by 1000"
    if "Job not requeued because: timed-out" in message:  # submitit's words
        word = "TIMEOUT"
    last = message.strip().splitlines()[0] if message.strip() else "no answer"
    outcome = _STATES.get(word) or Outcome("crashed", f"lost by Slurm in state {word}: {last}")
    return Lost(outcome, f"its Slurm job ended as {word}" if word in _OUTSIDE else "", message)
