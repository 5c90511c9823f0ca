"""Whether parts of a combined method pull the same way: the cosine between what each does.

Gradients of two parts are vectors of different spaces, and have no cosine. What they do to the
model has: with g the gradient of a part and J the derivative of the logits by its parameters, a
small step down its own gradient changes the logits of a batch by -J g (the part's neural tangent
kernel times the loss's own gradient; Jacot et al. 2018, arXiv 1806.07572). Both parts lower the
loss so, and may yet push logits in opposite directions: then their cosine is negative.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import torch
from torch import nn

from peftmark.catalog.task import SPOKEN, Task
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import Prepared
from peftmark.lab.step import logits_of
from peftmark.record.job import Job

STEPS = (1e-3, 1e-2, 1e-1)
"""Lengths of a step over the norm of the part's parameters. -J g is the difference of two forward
passes over the length, whose own error grows with it: the first is taken that is felt."""
FELT = 1e-4
"""Change of the logits over the logits from which on it is more than fp32's rounding (6e-8)."""


def refusal(job: Job, task: Task, prepared: Prepared) -> str:
    """Why a job has no such cosine; empty where it has."""
    if prepared.part_of is None:
        return "the method is of one part"
    if job.recipe.precision != "fp32":
        return f"{job.recipe.precision} is too coarse for the difference of two forward passes"
    if task.kind in SPOKEN or job.causal is not None:
        return "of text there are too many logits to hold"
    return ""


def cosines(
    model: nn.Module,
    adapter: Mapping[str, nn.Parameter],
    part_of: Callable[[str], str],
    batch: Batch,
    task: Task,
    job: Job,
    device: torch.device,
) -> dict[str, float | None]:
    """Cosine of each pair of parts, in evaluation mode; the weights are afterwards what they were.

    Args:
        adapter: name -> tensor that trains, with its gradient of this batch.
        part_of: the part that a tensor belongs to; empty for none.

    Returns:
        "one + other" -> cosine between -1 and 1; None where a part changes nothing that could be
        told from rounding.
    """
    parts: dict[str, list[nn.Parameter]] = {}
    for name, p in adapter.items():
        if (part := part_of(name)) and p.grad is not None:
            parts.setdefault(part, []).append(p)
    batch, training = batch.to(device), model.training
    model.eval()
    try:
        with torch.no_grad():
            before = _centred(logits_of(model, batch, job, device), task)

            def change(tensors: list[nn.Parameter]) -> torch.Tensor:
                for length in STEPS:
                    with _Moved(tensors, length):
                        after = _centred(logits_of(model, batch, job, device), task)
                    if _size(after - before) >= FELT * _size(before):
                        return after - before
                return torch.zeros_like(before)

            changes = {part: change(tensors) for part, tensors in parts.items()}
    finally:
        model.train(training)
    return {
        f"{one} + {other}": _cosine(changes[one], changes[other])
        for one, other in itertools.combinations(changes, 2)
    }


class _Moved:
    """The tensors a small step down their gradients, for a while.

    Args:
        length: of the step over the norm of all of them.
    """

    def __init__(self, tensors: list[nn.Parameter], length: float) -> None:
        self._tensors, self._length = tensors, length
        self._kept = [p.detach().clone() for p in tensors]

    def __enter__(self) -> None:
        gradients = [p.grad for p in self._tensors if p.grad is not None]
        size = float(_norm(self._kept))
        slope = float(_norm(gradients))
        if not slope:
            return
        for p, gradient in zip(self._tensors, gradients, strict=True):
            p.sub_(gradient, alpha=self._length * (size or 1.0) / slope)

    def __exit__(self, *_: object) -> None:
        for p, kept in zip(self._tensors, self._kept, strict=True):
            p.copy_(kept)


def _norm(tensors: list[torch.Tensor]) -> torch.Tensor:
    norms = torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors])
    whole: torch.Tensor = torch.linalg.vector_norm(norms)
    return whole


def _centred(logits: torch.Tensor, task: Task) -> torch.Tensor:
    """Logits as one vector; of classes less their mean, since a shift of all says nothing."""
    if task.kind == "classification":
        logits = logits - logits.mean(-1, keepdim=True)
    return logits.flatten().double()


def _size(vector: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(vector))


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float | None:
    sizes = _size(one) * _size(other)
    return float(one @ other) / sizes if sizes else None
