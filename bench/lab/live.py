"""Peak live tensor bytes of training steps: exact, and the same on every machine.

A dispatch mode sees every tensor that an operation returns and follows its storage until it is
freed. What is counted is what the step holds in tensors: not the allocator's rounding and cache,
not the libraries, not scratch space inside a kernel. Views share a storage and count once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdRef


@dataclass(frozen=True)
class LiveBytes:
    """Bytes by component at the moment of the peak.

    Attributes:
        weights: frozen weights and buffers.
        quantization: block constants, code books and offsets of quantised weights.
        adapter: parameters that train: adapter and head, or every trained weight.
        gradients: gradients of parameters.
        optimizer: everything a step leaves behind: states of optimizer and method.
        activations: everything else: activations, temporaries, the batch.
    """

    weights: int
    quantization: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The peak itself."""
        return sum(getattr(self, f.name) for f in fields(self))


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows storages while it is active.

    Args:
        model: the model that trains; its tensors are there from the start.

    Use it as a context manager around whole steps, and call `end_step` after each, when gradients
    and the step's own variables are gone. `peak` replays what was seen.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = model
        self._references: dict[int, WeakIdRef] = {}
        self._keys: dict[int, int] = {}  # id of a living storage -> its key
        self._sizes: list[int] = []  # bytes by key
        self._component: dict[int, str] = {}
        self._events: list[tuple[int, int]] = []  # (key, +1 born or -1 freed)
        self._hooks: list[Any] = []
        self._see_model()
        for parameter in model.parameters():
            if parameter.requires_grad:
                listen: Any = parameter.register_post_accumulate_grad_hook
                self._hooks.append(listen(self._gradient))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def end_step(self) -> None:
        """What is still alive and unexplained now outlives the step: a state."""
        self._see_model()  # bitsandbytes replaces its biases at the first forward pass
        for key in list(self._keys.values()):
            self._component.setdefault(key, "optimizer")

    def _see_model(self) -> None:
        for component, tensor in resident(self._model):
            self._component.setdefault(self._see(tensor), component)

    def peak(self) -> LiveBytes:
        """The components at the first moment of the largest total."""
        names = [f.name for f in fields(LiveBytes)]
        now = dict.fromkeys(names, 0)
        best, best_total, total = dict(now), 0, 0
        for key, sign in self._events:
            change = sign * self._sizes[key]
            now[self._component.get(key, "activations")] += change
            total += change
            if total > best_total:
                best, best_total = dict(now), total
        return LiveBytes(**best)

    def _see(self, tensor: torch.Tensor) -> int:
        """The key of the tensor's storage, counted as born if it is new."""
        storage = tensor.untyped_storage()
        identity = id(storage)
        known = self._keys.get(identity)
        if known is not None:
            return known
        key = len(self._sizes)
        self._sizes.append(storage.nbytes())
        self._keys[identity] = key
        self._events.append((key, 1))
        self._references[identity] = WeakIdRef(storage, self._on_free(identity, key))
        return key

    def _on_free(self, identity: int, key: int) -> Callable[[Any], None]:
        def freed(_: Any) -> None:
            self._events.append((key, -1))
            self._keys.pop(identity, None)
            self._references.pop(identity, None)

        return freed

    def _gradient(self, parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            self._component.setdefault(self._see(parameter.grad), "gradients")


def resident(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """(component, tensor) of everything a model holds before a step."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            yield ("adapter" if parameter.requires_grad else "weights"), parameter.data
            for tensor in _constants(parameter):
                yield "quantization", tensor
        for buffer in module.buffers(recurse=False):
            yield "weights", buffer
        state: Any = getattr(module, "state", None)  # of bitsandbytes' 8-bit layers
        for name in ("CB", "SCB"):
            held = getattr(state, name, None)
            if isinstance(held, torch.Tensor):
                yield "quantization", held


def _constants(parameter: Any) -> Iterable[torch.Tensor]:
    """Block constants of a quantised weight, nested ones included."""
    found = [getattr(parameter, "SCB", None)]
    state = getattr(parameter, "quant_state", None)
    while state is not None:
        found += [state.absmax, state.code, state.offset]
        state = state.state2
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]
