"""LoRA beside another part, as a practitioners' guide advises where the two disturb each other:
the other part first and alone, a clip norm for each, gradients without what the last step undoes.

For parameters p of all parts, with g_t the gradients of step t as they come, and c a threshold:

    mean over p of cos(g_t[p], g_{t-1}[p]) < c:
        g_t[p] <- g_t[p] - (<g_t[p], g_{t-1}[p]> / (|g_{t-1}[p]|^2 + 1e-8)) g_{t-1}[p]
    then, for each part with a clip norm m:
        g <- g min(1, m / |g of the part|)

A tensor whose gradient is zero in one of both steps counts with a cosine of 0. The head is of no
part: it trains from the first step, and no part's clip norm is for it. The recipe's own clip norm
comes first, over everything that trains then.

Until LoRA joins in, its tensors get gradients of zero and the optimizer leaves them out; it has
them from the start, so neither its states nor the schedule begin again, and what trains in the end
is counted and predicted. Such a step takes as long as one of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from peftmark.catalog.methods import known_method
from peftmark.lab.measure.parameter_counts import belongs_to
from peftmark.lab.methods import Prepared, Setting, trainable
from peftmark.lab.models import trained_head

LORA = "LoRA"
"""What the methods call this part."""
SMALL = 1e-8


def in_phases(prepared: Prepared, setting: Setting) -> Prepared:
    """The same model, trained as the options `PHASES` of its method say; in place.

    Args:
        prepared: a method of LoRA and another part, told apart by `part_of`.
    """
    job, part_of = setting.job, prepared.part_of
    assert part_of is not None
    method, options = known_method(job.method), job.recipe.options
    after, rate, lora_clip, other_clip, conflict = (
        float(method.option(options, name))
        for name in ("lora_after", "lora_rate", "lora_clip", "other_clip", "project_below")
    )
    named = trainable(prepared.model)
    head = trained_head(setting.parts, job.recipe.train_pooler)
    adapter = [(part_of(name), p) for name, p in named if not belongs_to(name, head)]
    lora = [p for part, p in adapter if part == LORA]
    other = [p for part, p in adapter if part != LORA]
    changes: list[Callable[[], None]] = []
    if alone := min(job.recipe.steps - 1, round(after * job.recipe.steps)):
        changes.append(Alone(lora, alone))
    if conflict > -1:
        changes.append(Projected([p for _, p in named], conflict))
    for tensors, norm in ((lora, lora_clip), (other, other_clip)):
        if norm:
            changes.append(Clipped(tensors, norm))

    def before_step() -> None:
        for change in changes:
            change()

    if changes:
        prepared.before_step = before_step
    if rate != 1.0:
        prepared.rate_of = lambda name: rate if part_of(name) == LORA else 1.0
    return prepared


class Alone:
    """Leaves tensors out of the first steps.

    Args:
        tensors: those that wait.
        steps: how long.
    """

    def __init__(self, tensors: Sequence[nn.Parameter], steps: int) -> None:
        self._tensors, self._left = tensors, steps
        # Zero before the recipe's clip norm is taken, which is one of what trains.
        registers: list[Any] = [p.register_hook for p in tensors]
        self._hooks = [register(torch.zeros_like) for register in registers]

    def __call__(self) -> None:
        """Forget their gradients, as long as they wait."""
        if not self._left:
            return
        for p in self._tensors:
            p.grad = None  # a gradient of zero would let weights decay and moments age
        self._left -= 1
        if not self._left:
            for hook in self._hooks:
                hook.remove()


class Projected:
    """Takes out of gradients what lies along the step before, where the two disagree.

    Args:
        tensors: whose gradients are looked at together.
        below: the mean cosine under which they disagree.
    """

    def __init__(self, tensors: Sequence[nn.Parameter], below: float) -> None:
        self._tensors, self._below = tensors, below
        self._before: dict[int, torch.Tensor] = {}

    def __call__(self) -> None:
        """Project the gradients, if they disagree with those of the step before."""
        now = {n: p.grad for n, p in enumerate(self._tensors) if p.grad is not None}
        kept = {n: gradient.clone() for n, gradient in now.items()}
        both = [(now[n], self._before[n]) for n in now if n in self._before]
        if both:
            cosines = [_cosine(one, other) for one, other in both]
            # Chosen on the device: to ask for the number would wait for it.
            conflict = torch.stack(cosines).mean() < self._below
            for gradient, before in both:
                along = (gradient * before).sum() / ((before * before).sum() + SMALL)
                gradient.copy_(torch.where(conflict, gradient - along * before, gradient))
        self._before = kept


def _cosine(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    size = one.norm() * other.norm()
    product = (one * other).sum()
    return torch.where(size > 0, product / torch.where(size > 0, size, 1.0), 0.0 * product).float()


class Clipped:
    """Holds the norm of some tensors' gradients.

    Args:
        tensors: whose norm it is.
        norm: the largest.
    """

    def __init__(self, tensors: Sequence[nn.Parameter], norm: float) -> None:
        self._tensors, self._norm = list(tensors), norm

    def __call__(self) -> None:
        """Shorten the gradients to the norm."""
        nn.utils.clip_grad_norm_(self._tensors, self._norm)
