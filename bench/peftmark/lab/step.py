"""One training step: what training, probe and meters share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from peftmark.catalog.task import SPOKEN, Task
from peftmark.lab.data.batches import Batch
from peftmark.lab.determinism import strictly
from peftmark.lab.methods import Prepared, Stage, trainable
from peftmark.lab.number_types import autocast, raise_trained
from peftmark.lab.padding import known_padding
from peftmark.lab.team import ALONE, Team
from peftmark.machine.accelerators import kind_of
from peftmark.record.job import Job

BITSANDBYTES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw": "PagedAdamW",
    "paged_adamw_8bit": "PagedAdamW8bit",
}
"""Optimizer of a recipe -> bitsandbytes' class."""
OPTIMIZERS = ("adamw", *BITSANDBYTES)
"""Every optimizer that a recipe may name."""
HALF = 0.5


class Diverged(Exception):
    """The loss or the logits became NaN or infinite."""


@dataclass(frozen=True)
class Taken:
    """What a step gives back, as scalars on the device, detached.

    Attributes:
        loss: the task's own loss.
        penalty: the method's own term, weighted; None without one.
        norm: gradient norm before clipping; no finite number where fp16 overflowed.
    """

    loss: torch.Tensor
    penalty: torch.Tensor | None
    norm: torch.Tensor


Loss = Callable[[nn.Module, Batch, Task, Job, torch.device], torch.Tensor]


class Step:
    """The training step of a job, with its optimizer and schedule.

    Args:
        job: its recipe says how.
        task: its kind decides the loss.
        prepared: the model and the method's hooks.
        device: where the model is.
        loss: the task's own loss of a batch; another way to compute the same.
        passes: called before each pass over a part of a step's rows.
        values: whether tensors have values; without, no gradient overflows and no loss is scaled.
        team: the processes that share a step's rows; alone, this one reads the shares in turn.

    Attributes:
        optimizer: of what trains now.
        begun: the stage that trains now; None in the first.
        team: as given.
        held: the step whose gradients are kept until `drop_gradients`, to be looked at after it;
            0 for none.

    In fp16 the loss is scaled up, so that small gradients stay numbers, and a step whose gradients
    overflow is left out (Micikevicius et al. 2017, arXiv 1710.03740, section 3.2).
    """

    def __init__(
        self,
        job: Job,
        task: Task,
        prepared: Prepared,
        device: torch.device,
        loss: Loss | None = None,
        passes: Callable[[], None] = lambda: None,
        values: bool = True,
        team: Team = ALONE,
    ) -> None:
        self._job, self._task, self._prepared, self._device = job, task, prepared, device
        self.team = team
        self._loss, self._passes = loss or task_loss, passes
        scaled = job.recipe.precision == "fp16" and values
        self._scaler = torch.amp.GradScaler(device.type) if scaled else None
        self._skipped: list[torch.Tensor] = []
        self._rates: list[float] = []
        self.begun: Stage | None = None
        self.held = 0
        self._start(job.recipe.steps, 1.0)
        self._checkpoint()
        prepared.model.train()

    def _checkpoint(self) -> None:
        if self._job.recipe.gradient_checkpointing:
            enable: Any = self._prepared.model.activation_checkpointing_enable
            enable(activation_checkpointing_kwargs={"use_reentrant": False})

    def _start(self, steps: int, scale: float) -> None:
        """Make the optimizer of what trains now, with the schedule of the steps to come."""
        recipe = self._job.recipe
        warmup = round(recipe.warmup_steps * steps / recipe.steps)
        self._params = [p for _, p in trainable(self._prepared.model)]
        self.optimizer, self.optimizer_name = _optimizer(self._prepared, self._job, scale)
        self.optimizer.register_step_pre_hook(self._applied)
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _rate(step, steps, warmup, recipe.schedule)
        )

    def _applied(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Note the learning rate when the optimizer uses it, whatever comes before or after."""
        self._rates.append(_mean_rate(optimizer))

    def _begin_stage(self, stage: Stage) -> None:
        self.begun = stage
        stage.begin()
        if self._prepared.new_base:
            self._checkpoint()
        raise_trained(self._prepared.model, self._job)
        self._prepared.model.to(self._device)
        self._prepared.model.train()
        # What a stage draws comes from a stream that each process has run down by itself.
        self.team.share_weights(p for _, p in trainable(self._prepared.model))
        self._start(self._job.recipe.steps - stage.after, stage.rate)

    def __call__(self, number: int, batch: Batch) -> Taken:
        """Take step `number` (from 1) on a batch, which may be on the host."""
        parts = batch.parts(self._job.recipe.device_rows)
        own = self.team.own(list(zip(parts, _shares(parts), strict=True)))
        losses, penalty = [], None
        for part, share in own:
            self._passes()
            loss, penalty = self.gradients(
                number, part.to(self._device), share, last=part is own[-1][0]
            )
            losses.append(loss)
        whole = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        penalty = None if penalty is None else self.team.added(penalty)
        return Taken(self.team.added(whole), penalty, self.update(number))

    def gradients(
        self, number: int, batch: Batch, share: float = 1.0, last: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Add a batch's gradients for step `number`; its part of the loss, and the penalty, which
        the last pass of a step brings, detached.

        Args:
            batch: on the device.
            share: of the step's loss, which is the mean over all its rows (or tokens).
            last: whether it is the step's last pass.
        """
        stage = self._prepared.stage
        if stage is not None and number == stage.after + 1 and stage is not self.begun:
            self._begin_stage(stage)
        with known_padding(batch.shape.padded):
            loss = self._loss(self._prepared.model, batch, self._task, self._job, self._device)
        if share != 1.0:
            loss = loss * share
        penalty = self._prepared.extra_loss() if last else None
        if penalty is not None and self.team.size > 1:
            penalty = penalty / self.team.size
        whole: Any = loss if penalty is None else loss + penalty
        if self._scaler is not None:
            whole = self._scaler.scale(whole)
        with strictly():
            whole.backward()
        return loss.detach(), None if penalty is None else penalty.detach()

    def update(self, number: int) -> torch.Tensor:
        """Change the weights by the gradients that are there; their norm before clipping."""
        self.team.add_gradients(self._params)
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        # On a GPU all at once, by torch's own choice too (`_optimizer`).
        norm = nn.utils.clip_grad_norm_(
            self._params,
            self._job.recipe.max_grad_norm,
            foreach=None if self._job.device == "cpu" else True,
        )
        self._prepared.before_step()
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaled_step(self._scaler, norm.detach())
        self._prepared.after_step(number)
        with warnings.catch_warnings():
            # Of a first step that was left out; the schedule is one of steps all the same.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self._scheduler.step()
        if number != self.held:
            self.drop_gradients()
        return norm.detach()

    def drop_gradients(self) -> None:
        """Forget the gradients; every step but a held one does."""
        self.optimizer.zero_grad(set_to_none=True)

    def halve_rate(self) -> None:
        """Halve the learning rate of all later steps, whatever the schedule makes of it; a second
        stage begins with its own."""
        for group in self.optimizer.param_groups:
            group["lr"] *= HALF
        # The schedule multiplies these, so a group's rate alone would be back after a step.
        self._scheduler.base_lrs = [HALF * rate for rate in self._scheduler.base_lrs]

    def _scaled_step(self, scaler: Any, norm: torch.Tensor) -> None:
        """The optimizer's step, left out where a gradient is no finite number."""
        scaler.step(self.optimizer)
        scaler.update()
        self._skipped.append(~torch.isfinite(norm))
        # What a method does after a step must not take them for gradients.
        for p in self._params:
            if p.grad is not None:
                torch.nan_to_num_(p.grad, nan=0.0, posinf=0.0, neginf=0.0)

    @property
    def skipped(self) -> int:
        """Steps left out since their gradients overflowed."""
        told = self._skipped
        return int(torch.stack(told).sum()) if told else 0

    @property
    def learning_rate_mean(self) -> float | None:
        """Learning rate that the optimizer applied, mean over the steps it took and over the
        parameters that trained in them; None if every step was left out."""
        return math.fsum(self._rates) / len(self._rates) if self._rates else None


def plain_instead(job: Job) -> str:
    """Why plain AdamW takes the place of bitsandbytes' where a job runs; empty if it doesn't."""
    if job.device == "cpu":
        return "bitsandbytes' optimizers are written for GPUs"
    return kind_of(job.device).plain_adamw


def _shares(parts: Sequence[Batch]) -> list[float]:
    """Each part's share of a step's loss: of its rows, of text of the tokens to be predicted."""
    if len(parts) == 1:
        return [1.0]
    sizes = [
        int((_following(part.labels) != -100).sum()) if part.text else len(part.labels)
        for part in parts
    ]
    return [size / sum(sizes) for size in sizes]


def _mean_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rates in the optimizer now, weighed by the parameters they are for."""
    groups: list[tuple[float, int]] = [
        (float(g["lr"]), sum(p.numel() for p in g["params"])) for g in optimizer.param_groups
    ]
    return math.fsum(rate * size for rate, size in groups) / sum(size for _, size in groups)


def _optimizer(prepared: Prepared, job: Job, scale: float) -> tuple[torch.optim.Optimizer, str]:
    """AdamW, or what the method has in its place, and its name.

    As published, biases and norms (one-dimensional) do not decay.
    """
    recipe = job.recipe
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for name, parameter in trainable(prepared.model):
        key = (parameter.dim() <= 1, prepared.rate_of(name))
        decay = 0.0 if key[0] else recipe.weight_decay
        rate = recipe.learning_rate * scale * key[1]
        group = groups.setdefault(key, {"params": [], "weight_decay": decay, "lr": rate})
        group["params"].append(parameter)
    ordered = [groups[key] for key in sorted(groups, key=lambda key: (key[0], -key[1]))]
    if prepared.optimizer is not None:
        own = prepared.optimizer(ordered, lr=recipe.learning_rate)
        return own, type(own).__name__
    # bitsandbytes' are written for GPUs, so on a CPU it is the plain one (`plain_instead`).
    if recipe.optimizer in BITSANDBYTES and not plain_instead(job):
        import bitsandbytes

        make: Any = vars(bitsandbytes.optim)[BITSANDBYTES[recipe.optimizer]]
        name = f"bitsandbytes {BITSANDBYTES[recipe.optimizer]}"
    else:
        # On a GPU by torch's own choice too; said, since tensors without values say "cpu".
        make = partial(torch.optim.AdamW, foreach=job.device != "cpu")
        name = "torch AdamW"
    optimizer: torch.optim.Optimizer = make(ordered, lr=recipe.learning_rate)
    return optimizer, name


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda left: left,
    "constant": lambda left: 1.0,
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
}
"""Schedule of a recipe -> share of the peak rate by the share of steps after warm-up left."""


def _rate(step: int, steps: int, warmup: int, schedule: str) -> float:
    """Share of the peak learning rate in step `step` (from 0): warm-up, then the schedule."""
    warmup = max(1, warmup)
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[schedule](max(0.0, (steps - step) / max(1, steps - warmup)))


def logits_of(model: nn.Module, batch: Batch, job: Job, device: torch.device) -> torch.Tensor:
    """Logits in fp32: of shape (rows, classes or 1), or (rows, tokens, vocabulary)."""
    with autocast(job, device):
        logits: torch.Tensor = model(**batch.inputs).logits
    return logits.float()


def task_loss(
    model: nn.Module, batch: Batch, task: Task, job: Job, device: torch.device
) -> torch.Tensor:
    """The task's own loss, from logits: a model's own `.loss` holds AdaLoRA's penalty."""
    logits, smoothing = logits_of(model, batch, job, device), job.recipe.label_smoothing
    if task.kind in SPOKEN:
        return language_loss(logits, batch.labels, smoothing)
    if task.kind == "regression":
        return nn.functional.mse_loss(logits.squeeze(-1), batch.labels)
    if task.kind == "multi-label":
        return nn.functional.binary_cross_entropy_with_logits(logits, batch.labels)
    return nn.functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing)


def language_loss(
    logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """Mean cross-entropy of each token given those before it.

    Args:
        logits: of shape (rows, tokens, vocabulary).
        labels: the tokens themselves, shape (rows, tokens); -100 where none is to be predicted.
        smoothing: share of a token's probability that is spread over all tokens.
    """
    flat = logits.flatten(0, 1)
    return nn.functional.cross_entropy(flat, _following(labels), label_smoothing=smoothing)


def _following(labels: torch.Tensor) -> torch.Tensor:
    """The token after each one; -100 after a row's last."""
    # The labels move, not the logits: those are the largest tensor there is.
    return nn.functional.pad(labels, (0, 1), value=-100)[:, 1:].flatten()


CHUNK = 1024
"""Tokens whose logits are there at once."""


def chunked_language_loss(
    model: nn.Module, batch: Batch, task: Task, job: Job, device: torch.device
) -> torch.Tensor:
    """`language_loss` without ever holding all logits: those of a chunk are made, used and dropped,
    and made again in the backward pass."""
    wrapped: Any = model
    base = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
    head = base.get_output_embeddings()

    def part(hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = head(hidden).float()
        smoothing = job.recipe.label_smoothing
        return nn.functional.cross_entropy(
            logits, labels, reduction="sum", label_smoothing=smoothing
        )

    with autocast(job, device):
        hidden: Any = base.get_decoder()(**batch.inputs).last_hidden_state.flatten(0, 1)
        labels: Any = _following(batch.labels)
        sums = [
            checkpoint(part, *chunk, use_reentrant=False)
            for chunk in zip(hidden.split(CHUNK), labels.split(CHUNK), strict=True)
        ]
    loss: torch.Tensor = torch.stack(sums).sum() / (labels != -100).sum()
    return loss
