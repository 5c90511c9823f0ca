"""A job's base and the method on it, built from their seeds as often as they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bench.lab.methods import Prepared, Setting, prepare
from bench.lab.models import Anatomy, load_model
from bench.lab.seeds import seed_all
from bench.lab.step import task_loss
from bench.lab.work import Work
from bench.record import Job
from bench.tasks import Task


@dataclass(frozen=True)
class Build:
    """Builds the job's base and model from their seeds, as often as needed.

    Attributes:
        folder: files of the model.
        work: where a method's preview of batches comes from.
    """

    job: Job
    task: Task
    folder: Path
    parts: Anatomy
    work: Work

    def base(self) -> nn.Module:
        """The pretrained base with a fresh head."""
        return load_model(self.folder, self.job, self.task, self.parts)

    def prepare(self, base: nn.Module) -> Prepared:
        """The job's method on a base, which it may change.

        Raises:
            Unsupported: if the method can't sit on it.
        """
        device = torch.device(self.job.device)
        setting = Setting(
            job=self.job,
            parts=self.parts,
            device=device,
            preview=lambda count: [batch.to(device) for batch in self.work.preview(count)],
            loss=lambda model, batch: task_loss(model, batch, self.task, self.job, device),
            fresh_base=self.base,
            size=self.job.rank,
        )
        seed_all(self.job.seed, "adapter")
        prepared = prepare(base, setting)
        prepared.model.to(device)
        return prepared
