"""What a training step dispatches: how often each operation, with how many operations and bytes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from peftmark.lab.data.batches import Batch
from peftmark.lab.measure.flop_counter import Operations
from peftmark.lab.memory.insides import current_autograd_node, tree_leaves
from peftmark.lab.number_types import autocast
from peftmark.record.job import Job

FRESH = 32 << 20
"""Bytes of a tensor from which on its memory comes from the system anew each time, and is cleared
first: glibc keeps none above (M_MMAP_THRESHOLD, mallopt(3))."""

NEW = "+"
"""Behind the number type of operations that make such a tensor: a byte costs them several times
more."""

UNPACKED = 4
"""Bytes of a 4-bit weight that are written and read again where a product unpacks it to 16 bits."""

Amounts = dict[str, list[int]]
"""Part of a step (forward, backward, update, or scored: a pass over rows that aren't trained on),
operation and number type, such as "forward mm float32" -> calls, floating-point
operations, and bytes of the tensors that are read and written, all summed. What only looks at a
tensor in another way (a view) moves no bytes."""


class Work(Operations):  # type: ignore[no-untyped-call]
    """Counts a step's operations by part, kind and number type; also on tensors without values.

    Attributes:
        amounts: what was seen.
        part: what goes on, which whoever counts has to say but for a step's passes; those are
            "forward" or "backward".
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.amounts: Amounts = {}
        self.part = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        before = self.total
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func.namespace == "prim":
            return result
        name, size = kind_of(func, args, kwargs, result)
        found = self.amounts.setdefault(f"{self._part()} {name}", [0, 0, 0])
        found[0] += 1
        found[1] += self.total - before
        found[2] += size
        return result

    def _part(self) -> str:
        if self.part:
            return self.part
        return "forward" if current_autograd_node() is None else "backward"


def count_scoring(work: Work, model: nn.Module, batch: Batch, job: Job, spoken: bool) -> None:
    """Count a pass over rows that aren't trained on.

    Args:
        spoken: whether the model goes on from a text, of which the last place's logits are needed.
    """
    asked: dict[str, Any] = {"logits_to_keep": 1} if spoken else {}
    model.eval()
    work.part = "scored"
    with work, torch.no_grad(), autocast(job, torch.device("cpu")):
        model(**batch.inputs, **asked)


def kind_of(func: Any, args: Any, kwargs: Any, result: Any) -> tuple[str, int]:
    """An operation's name with its number type, and the bytes that it moves."""
    operation = func._overloadpacket.__name__
    name = operation if func.namespace == "aten" else f"{func.namespace}.{operation}"
    made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    if func.is_view or not (made or read):
        return f"{name} -", 0
    if name.startswith("embedding") and len(read) > 1 and "backward" not in name:
        read = read[1:]  # of the table only the rows that are asked for are read
    kind = str((made or read)[0].dtype).removeprefix("torch.")
    given = {id(one) for one in read}
    if any(one.numel() * one.element_size() >= FRESH and id(one) not in given for one in made):
        kind += NEW
    size = sum(one.numel() * one.element_size() for one in (*made, *read))
    if operation == "gemm_4bit":
        size += UNPACKED * math.prod(args[2])
    return f"{name} {kind}", size
