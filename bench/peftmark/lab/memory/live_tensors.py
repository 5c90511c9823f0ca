"""Peak live tensor bytes of training steps: exact, and the same on every machine.

A dispatch mode sees every tensor that an operation returns and follows its storage until it is
freed. What is counted is what the step holds in tensors: not the allocator's rounding and cache,
not the libraries, not scratch space inside a kernel. Views share a storage and count once.

The same mode follows real steps (`peftmark.lab.measure.probe`) and steps without values
(`peftmark.lab.memory.fake_step`), so that one can be held against the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdRef

from peftmark.lab.memory.insides import TorchDispatchMode, current_autograd_node, tree_leaves
from peftmark.lab.quantization.table import constants_of, maker_of_weight


@dataclass(frozen=True)
class LiveBytes:
    """Bytes by component at the moment of the peak.

    Attributes:
        weights: frozen weights and buffers.
        quantization: block constants, code books and offsets of quantised weights.
        adapter: parameters that train: adapter and head, or every trained weight.
        gradients: gradients of parameters.
        optimizer: everything a step leaves behind: states of optimizer and method.
        activations: what is there when the backward pass starts: what it needs, and the batch.
        temporaries: everything else, with what checkpointing computes again.
    """

    weights: int
    quantization: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    temporaries: int

    @property
    def total(self) -> int:
        """The peak itself."""
        return sum(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True)
class Trace:
    """Births and deaths of storages over some steps.

    Attributes:
        sizes: bytes of each storage, by its number.
        components: of storages whose component is known.
        events: (number, +1 born or -1 freed) in order.
        turns: where in `events` each backward pass starts.
    """

    sizes: tuple[int, ...]
    components: dict[int, str]
    events: tuple[tuple[int, int], ...]
    turns: tuple[int, ...]

    def less(self, size: int) -> Trace:
        """The same with so many bytes of weights that are never there."""
        if not size:
            return self
        key = len(self.sizes)
        return replace(
            self,
            sizes=(*self.sizes, -size),
            components=self.components | {key: "weights"},
            events=((key, 1), *self.events),
            turns=tuple(place + 1 for place in self.turns),
        )

    def component(self) -> list[str]:
        """The component of every storage."""
        found = dict(self.components)
        alive: set[int] = set()
        turns = set(self.turns)
        for place, (key, sign) in enumerate(self.events):
            if place in turns:
                for held in alive:
                    found.setdefault(held, "activations")
            (alive.add if sign > 0 else alive.discard)(key)
        return [found.get(key, "temporaries") for key in range(len(self.sizes))]

    def peak(self, block: int = 1) -> LiveBytes:
        """The components at the first moment of the largest total.

        Args:
            block: bytes that an allocator rounds each storage up to a multiple of.
        """
        component = self.component()
        now = dict.fromkeys((f.name for f in fields(LiveBytes)), 0)
        best, best_total, total = dict(now), 0, 0
        for key, sign in self.events:
            change = sign * (-(-self.sizes[key] // block) * block)
            now[component[key]] += change
            total += change
            if total > best_total:
                best, best_total = dict(now), total
        return LiveBytes(**best)


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows storages while it is active.

    Args:
        model: the model that trains; its tensors are there from the start.

    What is on another device than the model, such as a GPU job's batch before it is sent, or
    optimizer states paged out to the host, is not followed. Use it as a context manager around
    whole steps, and call `end_step` after each, when gradients and the step's own variables are
    gone. `trace` is what was seen.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled in here, and the check costs a call each time

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = model
        first = next(model.parameters(), None)
        self._device = None if first is None else first.device.type
        self._references: dict[int, WeakIdRef] = {}
        self._keys: dict[int, int] = {}  # id of a living storage -> its key
        self._sizes: list[int] = []  # bytes by key
        self._component: dict[int, str] = {}
        self._events: list[tuple[int, int]] = []  # (key, +1 born or -1 freed)
        self._turns: list[int] = []
        self._backward = False
        self._hooks: list[Any] = []
        self._see_model()
        for parameter in model.parameters():
            if parameter.requires_grad:
                listen: Any = parameter.register_post_accumulate_grad_hook
                self._hooks.append(listen(self._gradient))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "prim":  # a question about a tensor without values
            return func(*args, **(kwargs or {}))
        if not self._backward and current_autograd_node() is not None:
            self._backward = True
            self._turns.append(len(self._events))
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def start_pass(self) -> None:
        """Another forward pass begins, where one step has several."""
        self._backward = False

    def end_step(self) -> None:
        """What is still alive and unexplained now outlives the step: a state."""
        self._see_model()  # bitsandbytes replaces its biases at the first forward pass
        for key in list(self._keys.values()):
            self._component.setdefault(key, "optimizer")
        self.start_pass()

    def trace(self) -> Trace:
        """What was seen so far."""
        events: list[tuple[int, int]] = []
        turns = set(self._turns)
        together: list[tuple[int, int]] = []
        for place, event in enumerate(self._events):
            if event[1] > 0 or place in turns:
                # Those that die together do in any order, such as a cache that is cleared.
                events += sorted(together)
                together = []
            if event[1] > 0:
                events.append(event)
            else:
                together.append(event)
        return Trace(
            tuple(self._sizes),
            dict(self._component),
            (*events, *sorted(together)),
            tuple(self._turns),
        )

    def peak(self) -> LiveBytes:
        """The components at the first moment of the largest total."""
        return self.trace().peak()

    def _see_model(self) -> None:
        for component, tensor in resident(self._model):
            for key in self._see(tensor):
                self._component.setdefault(key, component)

    def _see(self, tensor: torch.Tensor) -> list[int]:
        """The keys of the tensor's storages, counted as born if they are new."""
        found = []
        for part in _dense(tensor):
            device = getattr(part, "fake_device", None) or part.device
            if self._device in (None, device.type):
                found.append(self._follow(part.untyped_storage()))
        return found

    def _follow(self, storage: Any) -> int:
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
            for key in self._see(parameter.grad):
                self._component.setdefault(key, "gradients")


def _dense(tensor: torch.Tensor) -> Iterable[torch.Tensor]:
    """The tensors with a storage that a tensor is made of: itself, but for a sparse one and for a
    class that wraps others, as torchao's weights are."""
    wraps: Any = getattr(tensor, "__tensor_flatten__", None)
    if wraps is not None:
        return tuple(part for name in wraps()[0] for part in _dense(getattr(tensor, name)))
    if tensor.layout is torch.strided:
        return (tensor,)
    if tensor.layout is torch.sparse_coo:
        return (tensor._indices(), tensor._values())
    return (tensor.crow_indices(), tensor.col_indices(), tensor.values())


def resident(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """(component, tensor) of everything a model holds before a step."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            component = "adapter" if parameter.requires_grad else "weights"
            for tensor in maker_of_weight(parameter).values(parameter):
                yield component, tensor
        for buffer in module.buffers(recurse=False):
            yield "weights", buffer
        for tensor in constants_of(module):
            yield "quantization", tensor
