"""BitFit that learns from a teacher, which is the same base, fully tuned in the steps before.

The first stage is full fine-tuning, at the recipe's learning rate. The second trains the biases of
a fresh copy of the base (Ben Zaken et al. 2021, arXiv 2106.10199), at `second_rate` times that, on

    CE(y, softmax(z)) + w T² KL(softmax(t / T) || softmax(z / T))

with its own logits z, the teacher's t without dropout, T the `temperature` (4 as in the guide that
the recipe comes from) and w `distillation`, which the guide doesn't print. T² keeps both gradients
of one size whatever T is (Hinton et al. 2015, arXiv 1503.02531, section 2). Head and pooler train
in both stages; the second begins with those of the base.

Every evaluation up to the end of the first stage is the teacher's. What is saved, timed and counted
after training is the second stage's model. A step of the first holds the most: weights, gradients
and two states of all, where one of the second holds two models and the biases' states.

The guide's students are smaller models than their teachers; here both are one architecture, so that
the cell is comparable with `bitfit` and `full`. `adapter_parameters` are the teacher's, which train
at first, `active_parameters` the biases and the head.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import nn

from peftmark.lab.methods import Prepared, Setting, Stage, trainable
from peftmark.lab.methods.bitfit import bitfit
from peftmark.lab.methods.reference import full
from peftmark.lab.models import Unsupported
from peftmark.record.recipe import first_stage_steps


def bitfit_distilled(model: nn.Module, setting: Setting) -> Prepared:
    """Train the whole model, with BitFit on a fresh base as second stage.

    Raises:
        Unsupported: if the task has no classes, or a step is read in several passes.
    """
    recipe, task = setting.job.recipe, setting.job.task_facts
    if task.kind != "classification":
        raise Unsupported(
            f"{setting.job.method} compares probabilities of classes, and task {task.key} is of "
            f"kind {task.kind}; use bitfit"
        )
    if recipe.gradient_accumulation > 1:
        raise Unsupported(
            f"{setting.job.method} compares a whole step's logits with its teacher's; use "
            "gradient_accumulation: 1"
        )
    first = first_stage_steps(recipe.options, recipe.steps)
    prepared = full(model, setting)
    prepared.fault = lambda: "the second stage never began"

    def begin() -> None:
        student = setting.fresh_base().to(setting.device)
        second = bitfit(student, setting)
        lesson = Lesson(model, float(recipe.options["temperature"]))
        student.register_forward_hook(lesson.hear, with_kwargs=True)
        weight = float(recipe.options["distillation"])
        second.extra_loss = lambda: _weighted(lesson.loss(), weight)
        second.active_parameters = lambda: sum(p.numel() for _, p in trainable(student))
        second.new_base, second.stage = True, prepared.stage
        for field in fields(second):
            setattr(prepared, field.name, getattr(second, field.name))

    prepared.stage = Stage(first, begin, recipe.options["second_rate"])
    return prepared


def _weighted(loss: torch.Tensor | None, weight: float) -> torch.Tensor | None:
    return None if loss is None else weight * loss


class Lesson:
    """What the teacher says of the rows that the student has just read in training.

    Args:
        teacher: trains no more from now on.
        temperature: T.
    """

    def __init__(self, teacher: nn.Module, temperature: float) -> None:
        self._teacher = teacher.eval().requires_grad_(False)
        self._temperature = temperature
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def hear(self, student: nn.Module, args: Any, inputs: dict[str, Any], output: Any) -> None:
        """A hook behind the student's forward pass, in its precision."""
        if student.training:
            with torch.no_grad():
                told = self._teacher(*args, **inputs).logits
            self._last = output.logits.float(), told.float()

    def loss(self) -> torch.Tensor | None:
        """T² KL(teacher || student), mean over the rows; None if none were read."""
        if self._last is None:
            return None
        (own, told), self._last = self._last, None  # they hold the step's graph
        return distillation(own, told, self._temperature)


def distillation(own: torch.Tensor, told: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² KL(softmax(told / T) || softmax(own / T)) in nats, mean over rows.

    Args:
        own, told: logits, shape (rows, classes).
    """
    ours, theirs = (torch.log_softmax(logits / temperature, dim=-1) for logits in (own, told))
    divergence = nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return temperature**2 * divergence
