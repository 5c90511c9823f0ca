"""AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): h = W x + P diag(e) Q x, ranks pruned to a budget.

The budget falls from init_rank to the job's rank (target_r) a module on average, by a cubic
schedule (eq. 12 of the paper) in optimizer steps. PEFT leaves three things to the caller, and is
silent when they are missed: `update_and_allocate` after each optimizer step while gradients stand,
a total of steps that is the real one, and the orthogonality penalty, which it adds to a model's
own loss only. All three are done here, and the final rank is checked. The penalty is PEFT's, not
the paper's eq. 4 (`Penalty`).

With `kept_rate: raised` singular values learn at the rate B / b, where B is how many there were at
first and b how many the last allocation left, as an article on AdaLoRA has it; the paper and PEFT
leave rates alone (`Raised`). What pruning took is made up for by larger steps of what is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig
from torch import nn

from peftmark.catalog.methods import known_method
from peftmark.lab.methods import Prepared, Setting, trainable
from peftmark.lab.methods.lora import common_options, load_adapter, merge_adapter, saver, wrap
from peftmark.lab.methods.rank_allocation import PARTS, BatchedAllocator, Penalty, modules
from peftmark.lab.models import adapter_targets
from peftmark.record.recipe import Recipe

PEFT = "peft"
"""The option `allocator` at which PEFT's own code runs."""


def adalora(model: nn.Module, setting: Setting) -> Prepared:
    """Put AdaLoRA on the recipe's targets; head and pooler train beside it."""
    job = setting.job
    schedule = job.recipe.adalora
    assert schedule is not None and schedule.init_rank is not None and setting.size is not None
    targets = adapter_targets(job, setting.parts)
    # Under a parameter budget modules share the rank it pays for unevenly, and all of them start:
    # the allocator decides who keeps what.
    budget = sum(setting.sized(targets).values())
    config = AdaLoraConfig(
        init_r=schedule.init_rank,
        target_r=setting.size,
        **schedule_options(job.recipe),
        **common_options(setting, targets),
    )
    wrapped = wrap(model, config)
    freeze_divisors(wrapped)
    wrapped.base_model.rankallocator.target_bgt = budget
    dynamics = Dynamics(wrapped.base_model, setting)
    keep = saver(wrapped)

    def save(folder: Path) -> None:
        dynamics.settle()
        keep(folder)

    def fault() -> str | None:
        found = sum(ranks(wrapped).values())
        if found == budget:
            return None
        return f"AdaLoRA ended with an active rank of {found}, its budget is {budget}"

    return Prepared(
        wrapped,
        save=save,
        load=load_adapter,
        merge=(lambda model: merge_adapter(model, job)) if job.quantization == "none" else None,
        merge_reason="PEFT can't merge AdaLoRA into quantised weights",
        extra_loss=lambda: schedule.orthogonal_weight * dynamics.penalty(),
        after_step=dynamics.after_step,
        ranks=lambda: ranks(wrapped),
        importance=dynamics.importance,
        importance_variation=dynamics.variation,
        allocator=dynamics.says,
        matched_rank="target_r",
        active_parameters=lambda: active_parameters(wrapped),
        fault=fault,
    )


def schedule_options(recipe: Recipe) -> dict[str, Any]:
    """The recipe's schedule by PEFT's names."""
    schedule = recipe.adalora
    assert schedule is not None
    return {
        "tinit": schedule.tinit,
        "tfinal": schedule.tfinal,
        "deltaT": schedule.delta_t,
        "beta1": schedule.beta1,
        "beta2": schedule.beta2,
        "orth_reg_weight": schedule.orthogonal_weight,
        "total_step": recipe.steps,
    }


def freeze_divisors(model: nn.Module) -> None:
    """Keep each module's divisor (`ranknum`, the initial rank) a constant.

    PEFT 0.21 casts it together with the adapter when a 4-bit base computes in bf16, and the cast
    makes it a parameter that trains and that no checkpoint keeps: the reloaded adapter would be
    another model.
    """
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)


class Raised:
    """Larger steps for the singular values that are left.

    AdamW's step, decay included, is in proportion to the learning rate. So making the step that it
    took B / b times as long is the same as that rate, whatever the schedule makes of it; the mean
    rate that a row has stays the optimizer's own.

    Args:
        tuner: with its allocator.

    Attributes:
        factor: B / b now.
    """

    def __init__(self, tuner: Any) -> None:
        self._tuner = tuner
        self._before: list[torch.Tensor] = []
        self.factor = 1.0

    def _values(self) -> list[torch.Tensor]:
        adapter = self._tuner.trainable_adapter_name
        return [m.lora_E[adapter].detach() for m in modules(self._tuner.model).values()]

    def lengthen(self) -> None:
        """Make the last step of every singular value longer; the first has nothing to go by, and
        needs nothing."""
        for now, before in zip(self._values(), self._before, strict=False):
            now.copy_(before + self.factor * (now - before))

    def allocated(self, step: int) -> None:
        """Take in what the allocation after a step left."""
        allocator, config = self._tuner.rankallocator, self._tuner.peft_config
        config = config[self._tuner.trainable_adapter_name]
        budget, masked = allocator.budget_schedule(step)
        if budget and (masked or step >= config.total_step - config.tfinal):
            self.factor = allocator.init_bgt / budget
        self._before = [] if self.factor == 1.0 else [one.clone() for one in self._values()]


Triplets = tuple[torch.Tensor, torch.Tensor]


class Dynamics:
    """The penalty, and PEFT's rank allocation with the scores it goes by.

    Args:
        tuner: an `AdaLoraModel`, or another tuner with its allocator.
        setting: its job's option `allocator` says whether modules are taken together ("batched")
            or as PEFT does ("peft"); the bits are the same.

    Attributes:
        penalty: the orthogonality penalty, unweighted.
    """

    def __init__(self, tuner: Any, setting: Setting) -> None:
        job = setting.job
        self._tuner = tuner
        self._adapter: str = tuner.trainable_adapter_name
        self._last: torch.Tensor | None = None
        self._last_triplets: dict[str, Triplets] | None = None
        self._how = known_method(job.method).option(job.recipe.options, "allocator")
        batched = self._how != PEFT
        if batched:
            tuner.rankallocator = BatchedAllocator(tuner, setting.values)
        self.penalty = Penalty(tuner, self._adapter, batched, setting.values)
        raised = known_method(job.method).option(job.recipe.options, "kept_rate") == "raised"
        self._raised = Raised(tuner) if raised else None

    def says(self) -> str:
        """Which allocator ran, and what its penalty could not batch at the same bits."""
        if not self.penalty.alone or self._how == PEFT:
            return str(self._how)
        return f"{self._how}, but for {self.penalty.alone} matrices of the penalty"

    def after_step(self, step: int) -> None:
        """Allocate after step `step`, while the gradients stand."""
        if self._raised is not None:
            self._raised.lengthen()
        config = self._tuner.peft_config[self._adapter]
        if step == config.total_step - config.tfinal:
            # The last allocation: PEFT forgets the scores after it.
            self._last, self._last_triplets = self._scores(), self._triplets()
        self._tuner.update_and_allocate(step)
        if self._raised is not None:
            self._raised.allocated(step)

    def settle(self) -> None:
        """Make PEFT's configuration ready to be saved."""
        allocator = self._tuner.rankallocator
        if isinstance(allocator, BatchedAllocator):
            allocator.settle()

    def importance(self) -> dict[str, float]:
        """Mean over each module's triplets of their importance, by module; empty before a step.

        The importance of triplet i is S_i = s(e_i) + mean_j s(P_ji) + mean_j s(Q_ij) (eq. 7), where
        s is the smoothed sensitivity |w dL/dw| times its smoothed uncertainty (eq. 8 to 11), and L
        has the penalty in it. Pruned triplets count. After the last allocation it stays what it
        was then.
        """
        scores = self._scores()
        found = self._last if scores is None else scores
        if found is None:
            return {}
        return {
            name: sum(row)
            for name, row in zip(modules(self._tuner.model), found.tolist(), strict=True)
        }

    def _scores(self) -> torch.Tensor | None:
        """Mean score of each module's parts, shape (modules, parts), on the device; None where
        there are none (any more)."""
        allocator = self._tuner.rankallocator
        if not allocator.exp_avg_ipt:
            return None
        return torch.stack(
            [
                torch.stack(
                    [
                        allocator._element_score(f"{name}.{part}.{self._adapter}").mean()
                        for part in PARTS
                    ]
                )
                for name in modules(self._tuner.model)
            ]
        )

    def variation(self) -> dict[str, float | None]:
        """Standard deviation (n - 1) over mean of the importance of each module's triplets that
        are not pruned, by module; empty before a step.

        The importance of a triplet is that of `importance`. Pruned ones are left out: with e_i at
        zero no gradient reaches them, so half of a budget pruned would look like unrest. None for
        a module with fewer than two others, or whose mean is zero. After the last allocation it
        stays what it was then.
        """
        found = self._triplets()
        found = self._last_triplets if found is None else found
        return {name: _variation(*one) for name, one in (found or {}).items()}

    def _triplets(self) -> dict[str, Triplets] | None:
        """Each module's importance by triplet and which are not pruned, on the device; None where
        there are no scores (any more)."""
        allocator = self._tuner.rankallocator
        if not allocator.exp_avg_ipt:
            return None
        return {
            name: (
                allocator._element_score(f"{name}.lora_E.{self._adapter}").flatten()
                + allocator._element_score(f"{name}.lora_A.{self._adapter}").mean(1)
                + allocator._element_score(f"{name}.lora_B.{self._adapter}").mean(0),
                module.lora_E[self._adapter].detach().flatten() != 0,
            )
            for name, module in modules(self._tuner.model).items()
        }


def _variation(scores: torch.Tensor, active: torch.Tensor) -> float | None:
    kept = scores[active].double()
    if len(kept) < 2 or not float(kept.mean()):
        return None
    return float(kept.std() / kept.mean())


def ranks(model: nn.Module) -> dict[str, int]:
    """Singular values that are not pruned to zero, by module."""
    found = modules(model)
    if not found:
        return {}
    alive = torch.stack(
        [
            torch.stack([torch.count_nonzero(e) for e in module.lora_E.values()]).sum()
            for module in found.values()
        ]
    )
    return dict(zip(found, alive.tolist(), strict=True))


def active_parameters(model: nn.Module) -> int:
    """Trainable parameters less those of pruned ranks: a pruned rank frees its row of Q, its
    column of P and its singular value."""
    pruned = 0
    for module in modules(model).values():
        for key, e in module.lora_E.items():
            dead = e.numel() - int(torch.count_nonzero(e))
            pruned += dead * (module.lora_A[key].shape[1] + module.lora_B[key].shape[0] + 1)
    return sum(p.numel() for _, p in trainable(model)) - pruned
