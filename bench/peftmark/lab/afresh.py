"""A process that has run a job made as it was before it, so that it can take another.

What jobs are known to leave is put back. Then it is looked for whatever else a job may have left
(`peftmark.lab.leftovers`): with anything found the process takes no other job, and the next one has
a process of its own. So what nobody thought of costs time, and no figure.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from peftmark.lab.leftovers import Photograph
from peftmark.lab.memory.insides import FakeTensorMode, clear_workspaces
from peftmark.record.job import Job

Get = Callable[[], Any]
Set = Callable[[Any], object]


class Afresh:
    """A process before its first job.

    Made once what a job imports is loaded, and before the job.
    """

    def __init__(self) -> None:
        forget_caches()
        self._put_back = [(put, get()) for get, put in SETTINGS]
        self._loggers = _loggers()
        self._photograph = Photograph()

    def again(self, job: Job) -> str:
        """Make the process as it was.

        Args:
            job: the one that it ran, whose models and tensors nobody holds any more.

        Returns:
            why it can't take another job; empty if it can.
        """
        _stop_monitor()
        forget_caches()
        for put, value in self._put_back:
            put(value)
        for name, logger in _loggers().items():
            if name in self._loggers:
                vars(logging.getLogger(name or None)).update(_copied(self._loggers[name]))
            else:
                self._loggers[name] = logger
        give_memory_back()
        if job.recipe.compile:
            return "its layers were compiled"
        if job.recipe.kernels is not None:
            return "its layers ran on kernels of others"
        if job.plugins:
            return "code of a plug-in ran"
        if job.device not in ("cpu", "cuda"):
            return f"what a job leaves on {job.device} is not looked for"
        return self._photograph.differs() or _on_the_device()


def give_memory_back() -> None:
    """Give the memory that nobody uses to the system and to the device, and count peaks anew."""
    gc.collect()
    if _device_is_open():
        torch.cuda.synchronize()
        if clear_workspaces is not None:  # the next job's first product makes its own
            clear_workspaces()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.reset_accumulated_memory_stats()
    with suppress(OSError, AttributeError):  # a C library without it keeps what it has
        ctypes.CDLL(None).malloc_trim(0)


def _device_is_open() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _on_the_device() -> str:
    """What the allocator of the device still holds, in words; empty if nothing."""
    if not _device_is_open():
        return ""
    held = torch.cuda.memory_reserved()
    return f"{held:,} bytes of the device stay allocated" if held else ""


def forget_caches() -> None:
    """Empty the caches of libraries that hold tensors, or parameters by the number of an object."""
    FakeTensorMode.cache_clear()
    torch.clear_autocast_cache()
    functional = sys.modules.get("bitsandbytes.functional")
    if functional is None:
        return
    functional.name2qmap.clear()
    functional.GlobalPageManager.get_instance().paged_tensors.clear()
    sys.modules["bitsandbytes.backends.utils"]._code_4bit_cache.clear()
    sys.modules["bitsandbytes.backends.default.ops"]._get_4bit_quantize_bounds.cache_clear()
    sys.modules["bitsandbytes.optim"].GlobalOptimManager._instance = None


def _stop_monitor() -> None:
    """End the thread that progress bars leave."""
    bars: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)
    monitor = getattr(bars, "monitor", None)
    if monitor is not None:
        monitor.exit()
        bars.monitor = None


# --- settings -------------------------------------------------------------------------------------


def _generators() -> Any:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_generators(states: Any) -> None:
    python, numpy, torchs = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(torchs)
    if _device_is_open():
        torch.cuda.manual_seed_all(torch.initial_seed())


def _set_environment(variables: dict[str, str]) -> None:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _filters() -> list[Any]:
    return list(warnings.filters)


def _set_filters(filters: list[Any]) -> None:
    warnings.resetwarnings()  # what was told once is told again
    warnings.filters[:] = filters  # type: ignore[index]


def _deterministic() -> tuple[bool, bool]:
    on = torch.are_deterministic_algorithms_enabled()
    return on, torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _autocast() -> list[tuple[str, bool, torch.dtype]]:
    kinds = ("cpu", "cuda")
    return [(k, torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in kinds]


def _set_autocast(values: list[tuple[str, bool, torch.dtype]]) -> None:
    for kind, on, dtype in values:
        torch.set_autocast_enabled(kind, on)
        torch.set_autocast_dtype(kind, dtype)


def _set_default_device(device: torch.device) -> None:
    if torch.get_default_device() != device:  # setting it turns a mode on
        torch.set_default_device(device)


_HANDLED = (signal.SIGINT, signal.SIGTERM)


def _set_handlers(handlers: list[Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in zip(_HANDLED, handlers, strict=True):
            signal.signal(number, handler)


def _attribute(owner: Any, name: str) -> tuple[Get, Set]:
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


SETTINGS: tuple[tuple[Get, Set], ...] = (
    (_generators, _set_generators),
    (lambda: dict(os.environ), _set_environment),
    (os.getcwd, os.chdir),
    (lambda: list(sys.path), lambda paths: sys.path.__setitem__(slice(None), paths)),
    _attribute(tempfile, "tempdir"),
    (lambda: [signal.getsignal(number) for number in _HANDLED], _set_handlers),
    (gc.get_threshold, lambda values: gc.set_threshold(*values)),
    (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (_filters, _set_filters),
    (np.geterr, lambda kinds: np.seterr(**kinds)),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_default_device),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    (_deterministic, _set_deterministic),
    (_autocast, _set_autocast),
    (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    _attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
    _attribute(torch.backends.cudnn, "enabled"),
    _attribute(torch.backends.cudnn, "benchmark"),
    _attribute(torch.backends.cudnn, "deterministic"),
    _attribute(torch.backends.cudnn, "allow_tf32"),
    _attribute(torch.backends.cuda.matmul, "allow_tf32"),
    _attribute(torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"),
    _attribute(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
    _attribute(torch.backends.mkldnn, "enabled"),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
)
"""How each setting of the process that decides bits, memory or messages is read, and put back."""

_OF_A_LOGGER = ("level", "handlers", "filters", "propagate", "disabled")


def _loggers() -> dict[str, dict[str, Any]]:
    """Name of a logger, empty for the root -> what it is set to."""
    known = {"": logging.getLogger(), **logging.Logger.manager.loggerDict}
    return {
        name: _copied({key: getattr(one, key) for key in _OF_A_LOGGER})
        for name, one in known.items()
        if isinstance(one, logging.Logger)
    }


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, list) else v for key, v in values.items()}
