"""Run jobs as tasks of a Ray cluster that runs already.

Ray hands `remote.run_here` over by its name; peftmark must be installed on every node.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from peftmark.core.errors import UserError
from peftmark.executors.cluster import Lost, drive
from peftmark.executors.contract import Finished, Order
from peftmark.executors.node import run_here
from peftmark.record.job import Device
from peftmark.record.outcome import Outcome
from peftmark.sources.pypi import one_line

MAX_RETRIES = 3
"""Times that Ray begins a job anew whose node or Ray worker died."""

GRACE_SECONDS = 8.0
"""For a cancelled job to end its worker, before Ray ends what is left."""


def run_jobs(order: Order, address: str, device: Device, at_once: int) -> Iterator[Finished]:
    """Run jobs on the cluster at an address, yielding each attempt as it ends.

    Args:
        device: what each job gets as many of as its recipe says, beside a CPU for each GPU.
        at_once: devices of the jobs handed over at the same time.

    Raises:
        UserError: no Ray here, no cluster there, or no node with as many devices as a job has.
    """
    ray = connect(address)
    most = max((job.recipe.devices for job, _ in order.jobs), default=1)
    if most > 1:
        _check_nodes(ray.nodes(), device, most)
    yield from drive(order, _Tasks(ray, device), max(1, at_once // most))


def _check_nodes(nodes: Sequence[Mapping[str, Any]], device: Device, wanted: int) -> None:
    """Raise UserError if Ray would wait for ever for a node with so many devices."""
    names = ("CPU",) if device == "cpu" else ("CPU", "GPU")
    largest = max(
        (min(int(n["Resources"].get(name, 0)) for name in names) for n in nodes if n["Alive"]),
        default=0,
    )
    if largest < wanted:
        what = "CPUs" if device == "cpu" else "GPUs with a CPU beside each"
        raise UserError(
            f"the recipe asks for {wanted} devices a job (devices), and the cluster's largest node "
            f"has {largest} {what}",
            f"Set devices to {max(1, largest)} or fewer, or add a larger node.",
        )


def resources(address: str) -> tuple[int, int]:
    """CPUs and GPUs of the cluster, now.

    Raises:
        UserError: no Ray here, or no cluster there.
    """
    found = connect(address).cluster_resources()
    return int(found.get("CPU", 0)), int(found.get("GPU", 0))


def connect(address: str) -> Any:
    """The library, connected to the cluster; once a process.

    Raises:
        UserError: no Ray here, a malformed address, or no cluster there.
    """
    if not re.fullmatch(r"[^\s:/]+:[0-9]{1,5}", address):
        raise UserError(
            f"--ray-address: found {address!r}", "Give HOST:PORT, such as 127.0.0.1:6379."
        )
    # Ray prints what happens to nodes, at length, into what we print; read when Ray is loaded.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"--executor ray needs Ray, which can't be loaded: {one_line(error)}",
            'Install it: pip install "peftmark[ray]"',
        ) from error
    if ray.is_initialized():
        return ray
    host, _, port = address.partition(":")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        # Ray itself tries for many minutes.
        socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(
            address=address,
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.ERROR,
        )
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no connection to a Ray cluster at {address}: {one_line(error)}",
            "Start one (`ray start --head`) with the same versions of Ray and Python, or fix "
            "--ray-address.",
        ) from error
    finally:
        with suppress(ValueError, TypeError):  # not in the main thread: nothing was changed
            signal.signal(signal.SIGTERM, handler)
    return ray


class _Tasks:
    """Jobs as Ray tasks."""

    def __init__(self, ray: Any, device: Device) -> None:
        self._ray = ray
        self._device = device
        # Only the loss of a node or of Ray's worker counts as a fault here: whatever a job does
        # comes back as text.
        self._task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES, retry_exceptions=False)(
            run_here
        )

    def submit(self, payloads: Sequence[str], devices: int) -> list[Any]:
        gpus = {} if self._device == "cpu" else {"num_gpus": devices}
        task = self._task.options(num_cpus=devices, **gpus)
        return [task.remote(text) for text in payloads]

    def started(self, handle: Any) -> bool:
        return True  # Ray does not tell; no more are handed over than there are CPUs or GPUs

    def wait(self, handles: Sequence[Any]) -> list[Any]:
        ended, rest = self._ray.wait(list(handles), num_returns=1, timeout=0.5)
        if ended and rest:
            ended += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return list(ended)

    def take(self, handle: Any) -> str | Lost:
        errors = self._ray.exceptions
        try:
            return str(self._ray.get(handle))
        except errors.RayTaskError as error:  # peftmark is missing there, or has a fault
            last = (str(error).strip().splitlines() or ["no reason"])[-1]
            return Lost(Outcome("crashed", f"peftmark failed on the node: {last}"), "", str(error))
        except errors.RayError as error:
            return Lost(Outcome("crashed", f"Ray lost the job: {one_line(error)}"), "", str(error))

    def cancel(self, handles: Sequence[Any]) -> None:
        left = list(handles)
        for force in (False, True):
            for handle in left:
                self._ray.cancel(handle, force=force)
            if left:
                _, left = self._ray.wait(left, num_returns=len(left), timeout=GRACE_SECONDS)
