"""What a job has left in its process: a photograph from before it, held against what is there.

The libraries that a job goes through are compared name by name: functions and classes that somebody
put another in the place of, settings, registries, hooks. What changes with every job and decides
nothing is listed in `HARMLESS`.
"""

from __future__ import annotations

import gc
import multiprocessing
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from peftmark.lab.memory.insides import function_modes, operation_modes

LIBRARIES = ("torch", "peft", "transformers", "bitsandbytes", "accelerate", "peftmark")
"""Packages whose modules and classes are looked at."""

HARMLESS = frozenset(
    {
        # Numbers that count up, for names alone.
        "torch.utils.hooks.RemovableHandle.next_id",
        "torch._subclasses.meta_utils.DESCRIBER_NEXT_ID",
        "torch._subclasses.fake_tensor.FakeTensorMode.cache_hits",
        "torch._subclasses.fake_tensor.FakeTensorMode.cache_misses",
        "torch._subclasses.fake_tensor.FakeTensorMode.cache_bypasses",
        "torch.utils._stats.simple_call_counter",
        # What was looked up once: whether a module is there, what an operation takes.
        "torch.autograd.profiler._cupti_monitor_module",
        "torch.autograd.profiler._cupti_monitor_checked",
        "torch.fx.operator_schemas._SCHEMA_TO_SIGNATURE_CACHE",
        "torch.jit._builtins._builtin_table",
        "transformers.conversion_mapping._checkpoint_conversion_mapping_cache",
        # Types that a library makes known when it is imported, or a model first used.
        "torch.utils._pytree.SUPPORTED_NODES",
        "torch.utils._pytree.SUPPORTED_SERIALIZED_TYPES",
        "torch.utils._pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE",
        "torch.export.dynamic_shapes.SUPPORTED_NODES",
        "transformers.utils.generic._registered_model_output_types",
        # transformers puts it there before it draws the first model's weights, and leaves it there.
        "torch.nn.modules.module.Module.smart_apply",
        "peftmark.core.hashes._hashed",
        "peftmark.record.identity._rules",
    }
)
"""What may differ after a job: it decides neither a bit, nor a byte, nor a row."""

MOST_TOLD = 10
"""Leftovers that are named; one is enough to end a process."""

_HARMLESS_NAMES = ("__warningregistry__", "__slotnames__", "__abstractmethods__", "_abc_impl")
_LOOKED_UP = ("_cache", "_cached_value")
_COPIED = (dict, list, set)
_PLAIN = (bool, int, float, str, bytes)
_CHILDREN = Path("/proc/self/task")


class Photograph:
    """The process as it is now."""

    def __init__(self) -> None:
        self._threads, self._children = set(threading.enumerate()), _children()
        self._modules: dict[str, dict[str, Any]] = {}
        self._add_modules()
        gc.collect()
        self._tensors = _tensors()

    def differs(self) -> str:
        """What a job left, in words; empty if nothing. Modules that are new from then on belong to
        the photograph."""
        found = "; ".join(islice(self._differences(), MOST_TOLD))
        self._add_modules()
        return found

    def _differences(self) -> Iterator[str]:
        modes = [*operation_modes(), *function_modes()]  # type: ignore[no-untyped-call]
        if modes:
            yield f"a mode of torch is still on: {type(modes[0]).__name__}"
        started = [t.name for t in threading.enumerate() if t not in self._threads]
        if started:
            yield f"a thread goes on: {started[0]}"
        if _children() - self._children:
            yield "a process that was started goes on"
        for name, before in self._modules.items():
            module = sys.modules.get(name)
            if module is None:
                yield f"module {name} was taken out"
                continue
            yield from _changes(before, _named(name, module))
        yield from self._of_users()
        count, size = _tensors()
        if size > self._tensors[1]:
            yield f"{count - self._tensors[0]} tensors of {size - self._tensors[1]:,} bytes stay"

    def _of_users(self) -> Iterator[str]:
        """Modules that are no library's: a metric of the user's own."""
        for name in sys.modules.keys() - self._known:
            file = getattr(sys.modules[name], "__file__", None)
            if file and not Path(file).resolve().is_relative_to(_HOME) and not _installed(file):
                yield f"code of the user's own was loaded: {name}"

    def _add_modules(self) -> None:
        """Take in what was imported since."""
        self._known = frozenset(sys.modules)
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in LIBRARIES and issubclass(type(module), ModuleType):
                before = self._modules.get(name, {})
                self._modules[name] = {**_kept(_named(name, module)), **before}


_HOME = Path(__file__).resolve().parents[2]


def _installed(file: str) -> bool:
    """Whether a file is the interpreter's or an installed package's."""
    place = Path(file).resolve()
    homes = {Path(p).resolve() for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    return "site-packages" in place.parts or any(place.is_relative_to(home) for home in homes)


def _named(home: str, module: ModuleType) -> dict[str, Any]:
    """Full name -> what it stands for, of a module and of the classes that are written in it."""
    found: dict[str, Any] = {}
    for name, value in list(vars(module).items()):
        found[f"{home}.{name}"] = value
        if issubclass(type(value), type) and vars(value).get("__module__") == home:
            found |= {f"{home}.{name}.{key}": one for key, one in list(vars(value).items())}
    return found


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with what each holds, where that can change under the same name."""
    return {name: (v, _held(v)) for name, v in values.items() if name not in HARMLESS}


def _held(value: Any) -> Any:
    if issubclass(type(value), dict) and type(value).__module__ in ("builtins", "collections"):
        return dict(value)
    if type(value) in _COPIED:
        return list(value) if type(value) is list else set(value)
    return None


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name, (value, held) in before.items():
        if name not in now:
            yield f"{name} was taken out"
        elif not _same(value, now[name]) and not _marked_step(name, now[name]):
            yield f"{name} was replaced"
        elif name.endswith(_HARMLESS_NAMES) or held is None:
            continue
        elif not _holds(held, _held(now[name])):
            yield f"{name} holds something else"
    for name in now.keys() - before.keys() - HARMLESS:
        if not _may_come(name, now[name]):
            yield f"{name} was added"


def _may_come(name: str, value: Any) -> bool:
    """Whether a name may be new: modules, what lazy ones look up, notes of Python's and of
    libraries, and the marked step of an optimizer."""
    if issubclass(type(value), ModuleType) or name.endswith((*_HARMLESS_NAMES, *_LOOKED_UP)):
        return True
    home = sys.modules.get(name.rpartition(".")[0])
    if home is not None and type(home).__name__ == "_LazyModule":
        return True
    return _marked_step(name, value)


def _marked_step(name: str, value: Any) -> bool:
    """Whether it is the step of an optimizer, which torch wraps and marks when it is first used."""
    return name.endswith(".step") and getattr(value, "hooked", None) is True


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    return type(one) is type(other) and isinstance(one, _PLAIN) and bool(one == other)


def _holds(before: Any, now: Any) -> bool:
    """Whether a container has the same in it."""
    if isinstance(before, dict):
        return before.keys() == now.keys() and all(_same(v, now[k]) for k, v in before.items())
    if isinstance(before, list):
        return len(before) == len(now) and all(map(_same, before, now))
    return bool(before == now)


def _tensors() -> tuple[int, int]:
    """How many tensors with values there are, and their bytes."""
    found = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
    sizes = [t.numel() * t.element_size() for t in found if t.device.type in ("cpu", "cuda")]
    return len(sizes), sum(sizes)


def _children() -> set[int]:
    """Processes that this one started and that go on: as the kernel knows, and Python alone where
    it doesn't tell."""
    found = {child.pid or 0 for child in multiprocessing.active_children()}
    for children in _CHILDREN.glob("*/children"):
        with suppress(OSError):
            found |= set(map(int, children.read_text().split()))
    return found
