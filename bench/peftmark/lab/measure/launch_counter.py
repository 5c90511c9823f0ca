"""Counts what a training step would start on a GPU and wait for there, while it runs on a CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.weak import WeakIdRef

from peftmark.lab.memory.cuda_emulation import AsCuda
from peftmark.lab.memory.insides import TorchDispatchMode, current_autograd_node, tree_leaves
from peftmark.lab.memory.live_tensors import resident

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")
"""Operations whose result the host needs before it goes on."""
READS = ("tolist", "cpu", "numpy")
"""Calls that bring a tensor to the host."""
FREE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh",
        "resize_", "set_", "is_same_size", "_unsafe_view", "_local_scalar_dense")  # fmt: skip
"""Operations that start no kernel, beside those that only look at a tensor in another way."""
TENSORS_A_KERNEL = (110, 64, 48, 36, 30)
"""Tensors of a list that one kernel takes, by how many lists there are (ATen's
native/cuda/MultiTensorApply.cuh, depth_to_max_tensors)."""


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts a step's operations while it is active.

    All tensors are on the CPU. On the device is what the model and the batch hold, what is
    computed from it, and what is made without any tensor; the rest, such as an optimizer's counts
    of steps and tensors made of Python's numbers, is the host's.

    Args:
        model: what trains.

    Attributes:
        counts: part of the step (forward, backward, or what `part` says) -> operations.
        kinds: the same by part and name.
        waits: what waits for the device -> how often.
        part: what goes on, other than a pass.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled in here, and the check costs a call each time

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._there: dict[int, WeakIdRef] = {}  # id of a storage -> it
        self.put(*(tensor for _, tensor in resident(model)))
        self.start()

    def start(self) -> None:
        """Count from nothing."""
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.part = ""

    def put(self, *tensors: torch.Tensor) -> None:
        """Take tensors to be on the device."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = id(storage)
            if key not in self._there:
                self._there[key] = WeakIdRef(storage, lambda _, key=key: self._there.pop(key, None))

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor would be on the device."""
        return id(tensor.untyped_storage()) in self._there

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name: str = func._overloadpacket.__name__
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        device = any(map(self.holds, read)) or not (read or name == "lift_fresh")
        if func.namespace == "prim" or not device:
            return result
        self.put(*(one for one in tree_leaves(result) if isinstance(one, torch.Tensor)))
        if name in WAITS:
            self.waits[name] += 1
        if func.is_view or name in FREE:
            return result
        part = self.part or ("forward" if current_autograd_node() is None else "backward")
        size = kernels(name, args)
        self.counts[part] += size
        self.kinds[f"{part} {name}"] += size
        return result


def kernels(name: str, args: tuple[Any, ...]) -> int:
    """Kernels that an operation is: one, or as many as a list of tensors is cut into."""
    if not name.startswith("_foreach"):
        return 1
    lists = [arg for arg in args if isinstance(arg, list | tuple) and _tensors(arg)]
    depth = len(lists) + (not name.endswith("_"))
    most = TENSORS_A_KERNEL[min(depth, len(TENSORS_A_KERNEL)) - 1]
    return -(-len(lists[0]) // most)


def _tensors(values: Any) -> bool:
    return bool(values) and isinstance(values[0], torch.Tensor)


class AsOnGpu(AsCuda):
    """`AsCuda` on tensors with values, whose attention stays the CPU's; and what copies between
    host and device, which a CPU doesn't show otherwise.

    Args:
        launches: knows what is on the device, and takes the waits.
    """

    def __init__(self, launches: Launches) -> None:
        super().__init__()
        self._launches = launches

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in READS and self._launches.holds(args[0]):
            self._launches.waits[name] += 1
        if name == "to" and _named(args, kwargs) and not self._launches.holds(args[0]):
            # Of memory that isn't pinned the copy waits, unless it is said that it need not.
            self._launches.waits["to"] += not kwargs.get("non_blocking", False)
            found: torch.Tensor = func(*args, **kwargs)
            self._launches.put(found)
            return found
        if func is F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        return super().__torch_function__(func, types, args, kwargs)


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of `Tensor.to` names a device."""
    named = [*args[1:], kwargs.get("device")]
    return any(isinstance(value, torch.device | str) for value in named)
