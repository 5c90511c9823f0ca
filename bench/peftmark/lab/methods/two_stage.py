"""LoRA first, then AdaLoRA that starts as exactly the update that LoRA has learned.

The first stage is LoRA (arXiv 2106.09685) of rank `adalora.init_rank` on the targets; the second is
AdaLoRA (arXiv 2303.10512) from that rank down to the job's, on the steps that are left, at
`second_rate` of the learning rate. AdaLoRA's schedule is counted in steps of the second stage, so
`tinit` is the time in which it learns the importance of what it took over. Head and pooler keep
their weights; the optimizer starts anew.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn

from peftmark.lab.methods import Prepared, Setting, Stage
from peftmark.lab.methods.adalora import adalora
from peftmark.lab.methods.lora import lora
from peftmark.lab.models import trained_head
from peftmark.record.recipe import first_stage_steps

BASE = "base_model.model."
"""Where PEFT keeps the base."""


def two_stage(model: nn.Module, setting: Setting) -> Prepared:
    """Put LoRA on the recipe's targets, with AdaLoRA as second stage."""
    recipe = setting.job.recipe
    assert recipe.adalora is not None
    first = first_stage_steps(recipe.options, recipe.steps)
    prepared = lora(model, replace(setting, size=recipe.adalora.init_rank, sizes=None))
    prepared.matched_rank = "target_r"
    prepared.fault = lambda: "the second stage never began"

    def begin() -> None:
        second = _adalora_from(prepared.model, setting, recipe.steps - first)
        allocate = second.after_step
        second.after_step = lambda step: allocate(step - first)
        second.stage = prepared.stage
        for field in fields(second):
            setattr(prepared, field.name, getattr(second, field.name))

    prepared.stage = Stage(first, begin, recipe.options["second_rate"])
    return prepared


def _adalora_from(wrapped: Any, setting: Setting, steps: int) -> Prepared:
    """AdaLoRA in the place of LoRA, as the same function; lasts `steps` steps."""
    job = setting.job
    updates = {
        name.removeprefix(BASE): _factors(module)
        for name, module in wrapped.named_modules()
        if hasattr(module, "lora_A")
    }
    head: dict[str, Any] = {
        name: wrapped.get_submodule(f"{BASE}{name}")
        for name in trained_head(setting.parts, job.recipe.train_pooler)
    }
    base = wrapped.unload()
    for name, both in head.items():
        base.set_submodule(name, both.original_module)  # PEFT leaves the trained copy there
    shorter = replace(job, recipe=replace(job.recipe, steps=steps))
    second = adalora(base, replace(setting, job=shorter))
    for name, both in head.items():
        new: Any = second.model.get_submodule(f"{BASE}{name}")
        new.modules_to_save["default"].load_state_dict(both.modules_to_save["default"].state_dict())
    for name, (left, right) in updates.items():
        take_over(second.model.get_submodule(f"{BASE}{name}"), left, right)
    return second


def _factors(module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """LoRA's update of a module as a product, of shapes (outputs, r) and (r, inputs)."""
    left = module.lora_B["default"].weight.detach().double() * module.scaling["default"]
    return left, module.lora_A["default"].weight.detach().double()


def take_over(module: Any, left: torch.Tensor, right: torch.Tensor) -> None:
    """Make an AdaLoRA module's update P diag(e) Q alpha / ranknum the product of two factors.

    The thin SVD of the product comes from the QR decompositions of its factors: with left = P1 L
    and right = R^T Q1^T, the SVD of L R^T is one of rank r instead of the whole matrix's size.

    Args:
        module: of at least the factors' rank; what it has beyond that keeps e = 0.
        left: shape (outputs, r).
        right: shape (r, inputs).
    """
    p1, upper = torch.linalg.qr(left)
    q1, lower = torch.linalg.qr(right.T)
    u, values, v = torch.linalg.svd(upper @ lower.T)
    values = values * (float(module.ranknum["default"]) + 1e-5) / module.scaling["default"]
    rank = len(values)
    with torch.no_grad():
        module.lora_E["default"].zero_()
        module.lora_E["default"][:rank, 0] = values
        module.lora_A["default"][:rank] = v @ q1.T
        module.lora_B["default"][:, :rank] = p1 @ u
