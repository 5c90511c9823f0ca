"""What is looked at after each interval of training, to be warned by: weights, gradients, parts.

All of it is outside the timed steps, in a phase of its own (`watch`), and changes no bit of what is
trained: the gradients are those of the interval's last step, which keeps them that long, and no
random number is drawn. `peftmark.catalog.alarms` says what the figures are for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from peftmark.catalog.alarms import ALARMS
from peftmark.catalog.task import Task
from peftmark.lab.data.batches import Batch
from peftmark.lab.measure.parameter_counts import belongs_to
from peftmark.lab.measure.part_cosines import cosines, refusal
from peftmark.lab.methods import Prepared, Stage, trainable
from peftmark.lab.step import HALF, Step
from peftmark.record.fields_watch import BELOW, THROUGHOUT, THROUGHOUT_BELOW
from peftmark.record.growth import growths, sustained
from peftmark.record.job import Job

CHUNK = 2**22
"""Gradients that are compared at once: what they are compared in is no larger than that."""
MOST_FOLLOWED = 2**25
"""Parameters up to which it is kept of each whether its gradient was ever above a size, a byte
each in main memory; an adapter has fewer, a whole base more."""


@dataclass
class Seen:
    """What was seen at each evaluation.

    Attributes:
        reasons: column -> why it is empty.
    """

    steps: list[int] = field(default_factory=list)
    norms: list[dict[str, float]] = field(default_factory=list)
    variation: list[dict[str, float | None]] = field(default_factory=list)
    shares: list[dict[str, float | None]] = field(default_factory=list)
    cosines: list[dict[str, float | None]] = field(default_factory=list)
    halvings: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


class Watch:
    """Looks at a job's adapter after each interval of its training.

    Args:
        prepared: what trains.
        head: modules of the head, which is no adapter, by their names in the plain model.
        epoch: steps of an epoch.
    """

    def __init__(
        self,
        job: Job,
        task: Task,
        prepared: Prepared,
        head: Sequence[str],
        epoch: int,
        device: torch.device,
    ) -> None:
        self.seen = Seen()
        self._job, self._task, self._prepared = job, task, prepared
        self._head, self._epoch, self._device = head, epoch, device
        self._small: dict[str, torch.Tensor] = {}  # below the size at every look so far
        self._since, self._factor = 0, 1.0
        self._left: Stage | None = None  # the last stage that was told apart
        self._refusal = refusal(job, task, prepared)

    def look(self, step: Step, number: int, batch: Batch, norm: float) -> None:
        """Look after a step whose gradients are held, drop them, and halve the rate if the recipe
        asks for it.

        Args:
            number: of the step.
            batch: of the step; may be on the host.
            norm: of all its gradients before they were clipped.
        """
        seen, stage = self.seen, self._prepared.stage
        seen.steps.append(number)
        adapter = dict(self._adapter())
        seen.norms.append(module_norms(adapter))
        seen.variation.append(self._prepared.importance_variation())
        seen.shares.append(self._shares(adapter, norm) if adapter else {})
        if self._refusal:
            seen.cosines.append({})
        else:
            part_of = self._prepared.part_of or (lambda name: "")
            found = cosines(
                self._prepared.model, adapter, part_of, batch, self._task, self._job, self._device
            )
            seen.cosines.append(found)
        step.drop_gradients()
        next_stage = stage if stage is not None and number >= stage.after else step.begun
        if next_stage is not None and next_stage is not self._left:
            # The next stage trains other tensors, with a rate of its own.
            self._left, self._since, self._factor = next_stage, len(seen.steps), 1.0
        if self._job.recipe.halve_on_growth and self._grown():
            step.halve_rate()
            self._factor *= HALF
            self._since = len(seen.steps)
            seen.halvings[str(number)] = self._factor

    def columns(self) -> tuple[dict[str, object], dict[str, str]]:
        """The columns of an outcome, and why some are empty."""
        seen = self.seen
        found: dict[str, object] = {
            "norm_history": series(seen.norms),
            "importance_variation": series(seen.variation),
            "gradient_shares": series(seen.shares),
            "part_cosines": series(seen.cosines),
            "rate_halvings": seen.halvings,
        }
        asked = self._job.recipe.halve_on_growth
        why = {
            "norm_history": "nothing trains but the head",
            "importance_variation": "the method scores no importance",
            "gradient_shares": "nothing trains but the head",
            "part_cosines": self._refusal,
            "rate_halvings": "no module grew for so long" if asked else "the recipe doesn't ask",
        }
        return found, {name: text for name, text in why.items() if not found[name]}

    def _adapter(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, p in trainable(self._prepared.model):
            if not belongs_to(name, self._head):
                yield name, p

    def _shares(self, adapter: Mapping[str, nn.Parameter], norm: float) -> dict[str, float | None]:
        """The share of the adapter's parameters whose gradient before clipping is below each size;
        one that no gradient reached counts as zero."""
        names = (*BELOW.values(), THROUGHOUT)
        if not math.isfinite(norm):  # fp16 overflowed: the step was left out
            return dict.fromkeys(names)
        # As torch's clip_grad_norm_ scales.
        scale = min(1.0, self._job.recipe.max_grad_norm / (norm + 1e-6))
        total = sum(p.numel() for p in adapter.values())
        counts = dict.fromkeys(BELOW.values(), 0)
        follows = total <= MOST_FOLLOWED
        sizes = {name: len(small) for name, small in self._small.items()}
        if sizes != {name: p.numel() for name, p in adapter.items()}:
            self._small = {}  # none yet, or others train now, or the same with more rank
        throughout = 0
        for name, p in adapter.items():
            small = self._count(p.grad, p.numel(), scale, counts, follows)
            if follows:
                before = self._small.get(name)
                self._small[name] = small if before is None else before.logical_and_(small)
                throughout += int(self._small[name].sum())
        shares: dict[str, float | None] = {name: n / total for name, n in counts.items()}
        return {**shares, THROUGHOUT: throughout / total if follows else None}

    def _count(
        self,
        gradient: torch.Tensor | None,
        size: int,
        scale: float,
        counts: dict[str, int],
        follows: bool,
    ) -> torch.Tensor:
        """Count one tensor's small gradients, and say of each whether it is below the size that is
        followed, on the CPU; empty where none is."""
        if gradient is None:
            for name in counts:
                counts[name] += size
            return torch.ones(size if follows else 0, dtype=torch.bool)
        small = []
        for chunk in torch.split(gradient.detach().flatten(), CHUNK):
            absolute = chunk.abs()
            for limit, name in BELOW.items():
                counts[name] += int(torch.count_nonzero(absolute < limit * scale))
            if follows:
                small.append((absolute < THROUGHOUT_BELOW * scale).cpu())
        return torch.cat(small) if small else torch.ones(0, dtype=torch.bool)

    def _grown(self) -> bool:
        """Whether a module has grown as the alarm says, since the rate was last halved."""
        alarm, since = ALARMS["norm-growth"], self._since
        steps, norms = self.seen.steps[since:], self.seen.norms[since:]
        start = self.seen.steps[since - 1] if since else 0
        for name in norms[-1] if norms else ():
            values = growths([s - start for s in steps], [n.get(name) for n in norms], self._epoch)
            lasted = sustained(values, alarm.lasting)
            if lasted is not None and (lasted.value or 0.0) > alarm.threshold:
                return True
        return False


def module_norms(adapter: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """L2 norm of each module's trained tensors, by its name in the plain model; LoRA's matrices
    count to the module they sit on."""
    if not adapter:
        return {}
    norms = [torch.linalg.vector_norm(p.detach(), dtype=torch.float32) for p in adapter.values()]
    squares: dict[str, float] = {}
    for name, norm in zip(adapter, torch.stack(norms).tolist(), strict=True):
        module = module_of(name)
        squares[module] = squares.get(module, 0.0) + norm**2
    # As many digits as an fp32 has.
    return {module: float(f"{math.sqrt(square):.8g}") for module, square in squares.items()}


def module_of(name: str) -> str:
    """The module that a trained tensor belongs to, without PEFT's wrapping."""
    bare = name.removeprefix("base_model.").removeprefix("model.")
    before, lora, _ = bare.partition(".lora_")
    return before if lora else bare.rpartition(".")[0] or bare


def series(points: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Name -> its value at each curve point, None where it has none (yet)."""
    names = dict.fromkeys(name for point in points for name in point)
    return {name: [point.get(name) for point in points] for name in names}
