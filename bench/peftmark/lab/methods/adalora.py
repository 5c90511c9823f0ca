"""AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): h = W x + P diag(e) Q x, ranks pruned to a budget.

The budget falls from init_rank to the job's rank (target_r) a module on average, by a cubic
schedule (eq. 12 of the paper) in optimizer steps. PEFT leaves three things to the caller, and is
silent when they are missed: `update_and_allocate` after each optimizer step while gradients stand,
a total of steps that is the real one, and the orthogonality penalty, which it adds to a model's
own loss only. All three are done here, and the final rank is checked. The penalty is PEFT's, not
the paper's eq. 4 (`orthogonality`).
"""

from __future__ import annotations

from typing import Any

import torch
from peft import AdaLoraConfig
from torch import nn

from peftmark.lab.methods import Prepared, Setting, trainable
from peftmark.lab.methods.lora import common_options, load_adapter, merge_adapter, saver, wrap
from peftmark.lab.models import adapter_targets
from peftmark.record.recipe import Recipe


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
    dynamics = Dynamics(wrapped.base_model)

    def fault() -> str | None:
        found = sum(ranks(wrapped).values())
        if found == budget:
            return None
        return f"AdaLoRA ended with an active rank of {found}, its budget is {budget}"

    return Prepared(
        wrapped,
        save=saver(wrapped),
        load=load_adapter,
        merge=(lambda model: merge_adapter(model, job)) if job.quantization == "none" else None,
        merge_reason="PEFT can't merge AdaLoRA into quantised weights",
        extra_loss=lambda: schedule.orthogonal_weight * orthogonality(wrapped),
        after_step=dynamics.after_step,
        ranks=lambda: ranks(wrapped),
        importance=dynamics.importance,
        importance_variation=dynamics.variation,
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


class Dynamics:
    """Runs PEFT's rank allocation and keeps the scores it goes by.

    Args:
        tuner: an `AdaLoraModel`, or another tuner with its allocator.
    """

    def __init__(self, tuner: Any) -> None:
        self._tuner = tuner
        self._adapter: str = tuner.trainable_adapter_name
        self._known: dict[str, float] = {}
        self._varied: dict[str, float | None] = {}

    def after_step(self, step: int) -> None:
        """Allocate after step `step`, while the gradients stand."""
        config = self._tuner.peft_config[self._adapter]
        if step == config.total_step - config.tfinal:
            # The last allocation: PEFT forgets the scores after it.
            self.importance()
            self.variation()
        self._tuner.update_and_allocate(step)

    def importance(self) -> dict[str, float]:
        """Mean over each module's triplets of their importance, by module; empty before a step.

        The importance of triplet i is S_i = s(e_i) + mean_j s(P_ji) + mean_j s(Q_ij) (eq. 7), where
        s is the smoothed sensitivity |w dL/dw| times its smoothed uncertainty (eq. 8 to 11), and L
        has the penalty in it. Pruned triplets count. After the last allocation it stays what it
        was then.
        """
        allocator = self._tuner.rankallocator
        if allocator.exp_avg_ipt:
            self._known = {
                name: sum(
                    float(allocator._element_score(f"{name}.{part}.{self._adapter}").mean())
                    for part in ("lora_E", "lora_A", "lora_B")
                )
                for name in modules(self._tuner.model)
            }
        return self._known

    def variation(self) -> dict[str, float | None]:
        """Standard deviation (n - 1) over mean of the importance of each module's triplets that
        are not pruned, by module; empty before a step.

        The importance of a triplet is that of `importance`. Pruned ones are left out: with e_i at
        zero no gradient reaches them, so half of a budget pruned would look like unrest. None for
        a module with fewer than two others, or whose mean is zero.
        """
        allocator = self._tuner.rankallocator
        if allocator.exp_avg_ipt:
            self._varied = {
                name: _variation(
                    allocator._element_score(f"{name}.lora_E.{self._adapter}").flatten()
                    + allocator._element_score(f"{name}.lora_A.{self._adapter}").mean(1)
                    + allocator._element_score(f"{name}.lora_B.{self._adapter}").mean(0),
                    module.lora_E[self._adapter].detach().flatten() != 0,
                )
                for name, module in modules(self._tuner.model).items()
            }
        return self._varied


def _variation(scores: torch.Tensor, active: torch.Tensor) -> float | None:
    kept = scores[active].double()
    if len(kept) < 2 or not float(kept.mean()):
        return None
    return float(kept.std() / kept.mean())


def orthogonality(model: nn.Module, adapter: str = "default") -> torch.Tensor:
    """Mean of ||P^T P - I||_F and ||Q Q^T - I||_F over the matrices of all modules.

    This is what PEFT and the authors' own code (loralib's `compute_orth_regu`) add to the loss. The
    paper prints another penalty: squared norms, ||P^T P - I||_F^2 + ||Q Q^T - I||_F^2 (eq. 4),
    summed over modules. One weight is therefore not the same penalty in both: with norms a and b
    of two matrices this is (a + b) / 2, the paper's a^2 + b^2.

    Args:
        model: may have LoRA in it too, which has no such penalty.
        adapter: PEFT's name of AdaLoRA's adapter.

    Returns:
        A scalar with gradient.
    """
    norms = []
    for name, p in model.named_parameters():
        if name.endswith((f"lora_A.{adapter}", f"lora_B.{adapter}")):
            gram = p @ p.T if "lora_A" in name else p.T @ p
            norms.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=p.device)))
    return torch.stack(norms).mean()


def modules(model: nn.Module) -> dict[str, Any]:
    """AdaLoRA's modules, by their names in the base."""
    everything: dict[str, Any] = dict(model.named_modules())
    return {
        name.removeprefix("base_model.model."): module
        for name, module in everything.items()
        if hasattr(module, "lora_E") and len(module.lora_E)
    }


def ranks(model: nn.Module) -> dict[str, int]:
    """Singular values that are not pruned to zero, by module."""
    return {
        name: sum(int(torch.count_nonzero(e)) for e in module.lora_E.values())
        for name, module in modules(model).items()
    }


def active_parameters(model: nn.Module) -> int:
    """Trainable parameters less those of pruned ranks: a pruned rank frees its row of Q, its
    column of P and its singular value."""
    pruned = 0
    for module in modules(model).values():
        for key, e in module.lora_E.items():
            dead = e.numel() - int(torch.count_nonzero(e))
            pruned += dead * (module.lora_A[key].shape[1] + module.lora_B[key].shape[0] + 1)
    return sum(p.numel() for _, p in trainable(model)) - pruned
