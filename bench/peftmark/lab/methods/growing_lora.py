"""LoRA that grows in three stages: low rank everywhere, more where it counts, low layers frozen.

An article on mixing LoRA and AdaLoRA by layer advises so for production, without code:

1. every target has LoRA of rank `first_rank` (Hu et al. 2021, arXiv 2106.09685), to converge fast;
2. the layers with the highest importance get the cell's rank;
3. the lowest layers are frozen, the upper ones train on.

What it leaves open is settled here. The importance of a layer is the sum over its factors w of
|w dL/dw|, mean over the steps of the first stage (AdaLoRA's sensitivity, arXiv 2303.10512, eq. 8,
without its smoothing); `important` of the layers are raised. A pair that grows keeps what it has:

    A' = [A; R],  B' = [B, 0],  alpha' / r' = alpha / r,  so that  B' A' alpha' / r' = B A alpha / r

with R drawn as LoRA draws A. The last stage begins with what trains there unchanged and freezes
`frozen` of the layers from the input up; the article raises the top layers' rank once more there.
Every stage has an optimizer and a schedule of its own. Predicted and probed bytes are the first
stage's; a later one holds the grown factors and their states besides.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from peftmark.lab.methods import Prepared, Setting, Stage
from peftmark.lab.methods.lora import as_lora, lora_config, rank_options, wrap
from peftmark.lab.models import Unsupported, adapter_targets
from peftmark.record.recipe import first_stage_steps

BASE = "base_model.model."
"""Where PEFT keeps the base."""


def growing_lora(model: nn.Module, setting: Setting) -> Prepared:
    """Put LoRA of the first rank on the recipe's targets; head and pooler train beside it.

    Raises:
        Unsupported: if the layers are not recognised, there are fewer than two, or the rank is
            below the first one.
    """
    job, options = setting.job, setting.job.recipe.options
    first, size = int(options["first_rank"]), setting.size
    layers = [block.name for block in setting.parts.blocks]
    assert size is not None
    if size < first:
        raise Unsupported(f"rank {size} is below first_rank {first}; {job.method} only grows")
    if len(layers) < 2:
        raise Unsupported(
            f"{job.method} needs two layers at least; {len(layers)} of {job.model} are recognised"
        )
    ranks = dict.fromkeys(adapter_targets(job, setting.parts), first)
    low = replace(setting, size=first)
    wrapped = wrap(model, lora_config(ranks, low))
    importance = Importance(wrapped, layers)
    prepared = as_lora(wrapped, ranks, low, after_step=importance.look)
    prepared.matched_rank, prepared.ranks = "grown r", lambda: dict(ranks)
    prepared.fault = lambda: "the ranks never grew"
    prepared.active_parameters = lambda: sum(
        p.numel() for name, p in wrapped.named_parameters() if ".lora_" in name or p.requires_grad
    )
    steps = job.recipe.steps
    second = first_stage_steps(options, steps)
    third = min(steps - 1, max(second + 1, round((1 - options["third_stage"]) * steps)))

    def grow() -> None:
        chosen = importance.highest(max(1, round(options["important"] * len(layers))))
        for name in ranks:
            if name.startswith(tuple(f"{layer}." for layer in chosen)):
                widen(wrapped.get_submodule(f"{BASE}{name}"), size)
                ranks[name] = size
        config, grown = wrapped.peft_config["default"], rank_options(ranks, low)
        config.rank_pattern, config.alpha_pattern = grown["rank_pattern"], grown["alpha_pattern"]
        prepared.layer_scores = importance.means()
        prepared.after_step = lambda step: None
        prepared.fault = lambda: "the low layers were never frozen"
        prepared.stage = Stage(third, freeze, options["third_rate"])

    def freeze() -> None:
        for layer in layers[: max(1, round(options["frozen"] * len(layers)))]:
            for name, p in wrapped.named_parameters():
                if name.startswith(f"{BASE}{layer}.") and ".lora_" in name:
                    p.requires_grad_(False)
        prepared.fault = lambda: None

    prepared.stage = Stage(second, grow, options["second_rate"])
    return prepared


class Importance:
    """How much a layer's factors matter to the loss.

    Args:
        wrapped: PEFT's model.
        layers: their names in the base.
    """

    def __init__(self, wrapped: nn.Module, layers: list[str]) -> None:
        self._wrapped, self._layers, self._steps = wrapped, layers, 0
        self._sums: torch.Tensor | None = None

    def look(self, step: int) -> None:
        """Take in a step while its gradients stand."""
        named = [(n, p) for n, p in self._wrapped.named_parameters() if ".lora_" in n]
        found = torch.stack([self._of(layer, named) for layer in self._layers])
        self._sums = found if self._sums is None else self._sums + found
        self._steps += 1

    def _of(self, layer: str, named: list[tuple[str, nn.Parameter]]) -> torch.Tensor:
        scores = [
            (p.detach() * p.grad).abs().sum().float()
            for name, p in named
            if name.startswith(f"{BASE}{layer}.") and p.grad is not None
        ]
        return torch.stack(scores).sum() if scores else torch.zeros((), device=named[0][1].device)

    def means(self) -> dict[str, float]:
        """Layer -> mean over the steps; empty before any."""
        if self._sums is None:
            return {}
        means = (self._sums / self._steps).tolist()
        return dict(zip(self._layers, means, strict=True))

    def highest(self, count: int) -> list[str]:
        """So many layers, the most important ones; of equals those nearer to the input."""
        means = self.means()
        return sorted(means, key=lambda layer: -means[layer])[:count]


def widen(module: Any, rank: int) -> None:
    """Give a LoRA layer more rank, its update and its scale as they were."""
    old_a, old_b = module.lora_A["default"], module.lora_B["default"]
    kind = {"bias": False, "device": old_a.weight.device, "dtype": old_a.weight.dtype}
    new_a = nn.Linear(old_a.in_features, rank, **kind)
    new_b = nn.Linear(rank, old_b.out_features, **kind)
    nn.init.kaiming_uniform_(new_a.weight, a=math.sqrt(5))  # as in LoRA
    nn.init.zeros_(new_b.weight)
    had = old_a.out_features
    with torch.no_grad():
        new_a.weight[:had] = old_a.weight
        new_b.weight[:, :had] = old_b.weight
    module.lora_A["default"], module.lora_B["default"] = new_a, new_b
    module.r["default"] = rank
    module.lora_alpha["default"] *= rank / had
