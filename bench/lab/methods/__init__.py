"""Fine-tuning methods: how each turns a loaded base into a model that trains.

A method is a function in `METHODS`. It gets the base, the job and the architecture's anatomy, and
returns a `Prepared` model whose hooks the training loop calls at fixed places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from bench.lab.models import Anatomy
from bench.record import Job


def _no_loss() -> torch.Tensor | None:
    return None


def _no_step(step: int) -> None:
    return None


@dataclass
class Prepared:
    """A model ready to train, with the method's own calls.

    Attributes:
        model: the module to run; its parameters with gradients are what trains.
        save: writes what a user would keep (adapter and head) into an empty folder.
        load: puts what `save` wrote onto a fresh base.
        merge: folds the loaded adapter into its base: the plain model, and what it was merged
            into in words. None if it can't, and `merge_reason` says why.
        extra_loss: added to the task's loss in training, never reported as the loss.
        after_step: called with the step number after the optimizer step, while the gradients
            still stand.
        ranks: active rank of each adapted module by name; empty for methods without rank.
        matched_rank: which of the method's ranks the cell's rank is; None without rank.
        active_parameters: trainable parameters less those of pruned ranks.
        fault: why the trained model isn't what its name says; None if it is.
    """

    model: nn.Module
    save: Callable[[Path], None]
    load: Callable[[nn.Module, Path], nn.Module]
    merge: Callable[[nn.Module], tuple[nn.Module, str]] | None
    merge_reason: str = ""
    extra_loss: Callable[[], torch.Tensor | None] = field(default=_no_loss)
    after_step: Callable[[int], None] = field(default=_no_step)
    ranks: Callable[[], dict[str, int]] = field(default=dict)
    matched_rank: str | None = None
    active_parameters: Callable[[], int] | None = None
    fault: Callable[[], str | None] = field(default=lambda: None)


Method = Callable[[nn.Module, Job, Anatomy], Prepared]


def _table() -> dict[str, Method]:
    from bench.lab.methods import adalora, lora, reference

    return {
        "full": reference.full,
        "head": reference.head,
        "lora": lora.lora,
        "adalora": adalora.adalora,
    }


def prepare(model: nn.Module, job: Job, parts: Anatomy) -> Prepared:
    """Apply the job's method."""
    return _table()[job.method](model, job, parts)


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Named parameters that train, in a fixed order."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]
