"""LoRA first, then AdaLoRA that starts as exactly the update that LoRA has learned.

The first stage is LoRA (arXiv 2106.09685) of rank `adalora.init_rank` on the targets; the second is
AdaLoRA (arXiv 2303.10512) from that rank down to the job's, on the steps that are left, at
`second_rate` of the learning rate. AdaLoRA's schedule is counted in steps of the second stage, so
`tinit` is the time in which it learns the importance of what it took over. Head and pooler keep
their weights; the optimizer starts anew.

With `from: best` the second stage starts as the evaluation of the first with the best selection
score, the first of equals: adapter and head are those of that step.

With `second_quantization: none` it trains on the base as it was before it was quantised; the
quantised one is let go. AdaLoRA starts as LoRA's update there too, so what changes is the base's
own share of the function, by what quantising had lost. From then on, and after training, everything
goes by the base that isn't quantised (`peftmark.record.stages`).
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn

from peftmark.catalog.methods import known_method
from peftmark.lab.methods import Prepared, Setting, Stage, trainable
from peftmark.lab.methods.adalora import adalora
from peftmark.lab.methods.lora import lora
from peftmark.lab.models import trained_head
from peftmark.record.recipe import first_stage_steps
from peftmark.record.stages import ends_as

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
    best = None
    if known_method(setting.job.method).option(recipe.options, "from") == "best":
        best = _Best(prepared)
        prepared.scored = best.look

    def begin() -> None:
        if best is not None:
            best.put_back()
        second = _adalora_from(prepared.model, setting, recipe.steps - first)
        allocate = second.after_step
        second.after_step = lambda step: allocate(step - first)
        second.stage = prepared.stage
        for field in fields(second):
            setattr(prepared, field.name, getattr(second, field.name))
        if best is not None and best.score is None:
            prepared.fault = lambda: "no evaluation of the first stage has a selection score"

    prepared.stage = Stage(first, begin, recipe.options["second_rate"])
    return prepared


class _Best:
    """What trained at the evaluation with the best score so far, kept on the host.

    Attributes:
        score: higher being better; None before any.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.score: float | None = None
        self._prepared = prepared
        self._tensors: dict[str, torch.Tensor] = {}

    def look(self, score: float | None) -> None:
        """Keep what trains now if its score is the best so far."""
        if score is None or (self.score is not None and score <= self.score):
            return
        named = trainable(self._prepared.model)
        self.score = score
        self._tensors = {name: p.detach().to("cpu", copy=True) for name, p in named}

    def put_back(self) -> None:
        """Give what trains the values that were kept; none if no evaluation had a score."""
        with torch.no_grad():
            for name, p in trainable(self._prepared.model):
                if name in self._tensors:
                    p.copy_(self._tensors[name])
        self._tensors = {}


def _adalora_from(wrapped: Any, setting: Setting, steps: int) -> Prepared:
    """AdaLoRA in the place of LoRA, as the same update; lasts `steps` steps."""
    job = ends_as(setting.job)
    updates = {
        name.removeprefix(BASE): _factors(module)
        for name, module in wrapped.named_modules()
        if hasattr(module, "lora_A")
    }
    names = trained_head(setting.parts, job.recipe.train_pooler)
    head: dict[str, Any] = {name: wrapped.get_submodule(f"{BASE}{name}") for name in names}
    trained = {name: _values(both.modules_to_save["default"]) for name, both in head.items()}
    moved = job is not setting.job
    if moved:
        let_go(wrapped)
        base = setting.plain_base().to(setting.device)
    else:
        base = wrapped.unload()
        for name, both in head.items():
            base.set_submodule(name, both.original_module)  # PEFT leaves the trained copy there
    shorter = replace(job, recipe=replace(job.recipe, steps=steps))
    second = adalora(base, replace(setting, job=shorter))
    second.new_base = moved
    for name, values in trained.items():
        new: Any = second.model.get_submodule(f"{BASE}{name}")
        new.modules_to_save["default"].load_state_dict(values)
    for name, (left, right) in updates.items():
        take_over(second.model.get_submodule(f"{BASE}{name}"), left, right)
    return second


def _values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def let_go(model: nn.Module) -> None:
    """Free the tensors of a model on a 4-bit base, whoever still holds its modules."""
    for module in model.modules():
        for p in module.parameters(recurse=False):
            if hasattr(p, "quant_state"):
                p.quant_state = None
            p.data = torch.empty(0, dtype=p.dtype, device=p.device)
            p.grad = None
        if hasattr(module, "quant_state"):
            vars(module)["quant_state"] = None
        for name in list(module._buffers):
            module._buffers[name] = None


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
