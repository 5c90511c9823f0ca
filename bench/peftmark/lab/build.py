"""A job's base and the method on it, built from their seeds as often as they are needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from peftmark.catalog.task import Task
from peftmark.lab.data.job_data import Work
from peftmark.lab.memory.meta_model import config_of
from peftmark.lab.methods import Prepared, prepare
from peftmark.lab.models import Anatomy, Unsupported, load_model
from peftmark.lab.number_types import raise_trained
from peftmark.lab.parameter_budget import Budgeted, Solved, solve
from peftmark.lab.quantization.stored import is_stored, refuse_whole
from peftmark.lab.quantized_cache import Base, load_base
from peftmark.lab.rng import seed_all
from peftmark.lab.step import task_loss
from peftmark.record.job import Job


@dataclass(frozen=True)
class Build:
    """Builds the job's base and model from their seeds, as often as needed.

    Attributes:
        folder: files of the model.
        work: where a method's preview of batches comes from.
        cache: where quantised bases are kept; None to quantise anew.
    """

    job: Job
    task: Task
    folder: Path
    parts: Anatomy
    work: Work
    cache: Path | None = None

    def base(self) -> nn.Module:
        """The pretrained base with a fresh head."""
        return self.loaded().model

    def loaded(self) -> Base:
        """`base`, with what quantising it took."""
        return load_base(self.folder, self.job, self.task, self.parts, self.cache)

    def plain_base(self) -> nn.Module:
        """The base as `base` would give it without quantising, on the CPU: on the device it would
        take the memory that quantising saves.

        Raises:
            Unsupported: the model's files hold quantised weights alone.
        """
        if is_stored(self.job):
            refuse_whole(self.job.method)
        job = replace(self.job, quantization="none", device="cpu")
        return load_model(self.folder, job, self.task, self.parts)

    @cached_property
    def solved(self) -> Solved | None:
        """What the job's budget gives; None without one.

        Raises:
            Unsupported: if no size comes near enough.
        """
        if self.job.recipe.budget is None:
            return None
        classes = max(1, len(self.task.labels))
        found = solve(self.job, config_of(self.folder, classes))
        if found.refusal:
            raise Unsupported(found.refusal)
        return found

    def prepare(self, base: nn.Module) -> Prepared:
        """The job's method on a base, which it may change.

        Raises:
            Unsupported: if the method can't sit on it, or misses its budget.
        """
        device, solved = torch.device(self.job.device), self.solved
        setting = Budgeted(
            job=solved.job if solved else self.job,
            parts=self.parts,
            device=device,
            preview=lambda count: [
                part.to(device)
                for batch in self.work.preview(count)
                for part in batch.parts(self.job.recipe.pass_rows)
            ],
            loss=lambda model, batch: task_loss(model, batch, self.task, self.job, device),
            fresh_base=self.base,
            plain_base=self.plain_base,
            size=solved.size if solved else self.job.size,
            sizes=solved.sizes if solved else None,
            solved=solved,
        )
        seed_all(self.job.seed, "adapter")
        prepared = prepare(base, setting)
        raise_trained(prepared.model, self.job)
        if not self.job.recipe.shard:  # a part of it goes there (`peftmark.lab.sharded`)
            prepared.model.to(device)
        return prepared
