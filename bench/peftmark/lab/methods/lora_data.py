"""LoRA's variants that look at training batches before they start: EVA, CorDA, LoRA-GA.

The batches come from `Setting.preview`, a stream of their own: training sees the same rows in the
same order as with any method. Where the start is taken out of W, it is saved as in `lora_variants`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import EvaConfig, LoraConfig
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import collect_eigens, crop_corda_eigens
from peft.tuners.lora.eva import get_eva_state_dict, prepare_layer_inputs_fn_language_modeling
from torch import nn

from peftmark.lab.data.batches import Batch
from peftmark.lab.determinism import strictly
from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.lora import as_lora, lora_config, ranks_of, saver_of_change, wrap
from peftmark.lab.methods.lora_variants import Factors, check_ranks, from_factors
from peftmark.lab.models import Unsupported
from peftmark.lab.number_types import raised

EVA_PASSES = 20
"""Passes over the preview in which EVA's directions must settle."""

GAMMA = 16.0
"""LoRA-GA's gamma: the smaller, the larger the start."""


def eva(model: nn.Module, setting: Setting) -> Prepared:
    """EVA (Paischer et al. 2024, arXiv 2410.07170): A starts as the r principal directions of the
    module's inputs, B as zero.

    PEFT finds them by incremental PCA over the real tokens, batch by batch and round again, until
    each direction's cosine to its last estimate is at least 0.99. With `rho` above 1 a module may
    get up to rho r of them: the total is shared out by explained variance, alpha / r stays what it
    is, and modules left without rank get no adapter.
    """
    ranks = ranks_of(setting)
    rho = float(setting.job.recipe.options["rho"])
    if rho > 1 and setting.sizes is not None:
        raise Unsupported(
            "with rho above 1 EVA moves ranks between modules of different widths, which breaks a "
            "parameter budget; set rho: 1, or give a rank"
        )
    most = max(ranks.values())
    check_ranks(model, dict.fromkeys(ranks, round(rho * most)))
    directions = _input_directions(model, setting, dict.fromkeys(ranks, most), rho)
    if rho > 1:
        ranks = {name: len(found) for name, found in directions.items() if len(found)}
    wrapped = wrap(model, lora_config(ranks, setting))
    with torch.no_grad():
        for name, rank in ranks.items():
            layer = wrapped.get_base_model().get_submodule(name)
            layer.lora_A["default"].weight.copy_(directions[name][:rank])
    return as_lora(wrapped, ranks, setting)


def _input_directions(
    model: nn.Module, setting: Setting, ranks: dict[str, int], rho: float
) -> dict[str, torch.Tensor]:
    """Principal directions of each module's inputs, shape (rank, in), the strongest first."""
    batches = setting.preview(int(setting.job.recipe.options["batches"]))
    calls = 0

    def forward(model: nn.Module, batch: Batch) -> None:
        nonlocal calls
        calls += 1
        if calls > EVA_PASSES * len(batches):
            raise Unsupported(
                f"EVA's directions still move after {EVA_PASSES} passes over {len(batches)} "
                "batches; give it more batches"
            )
        setting.loss(model, batch)

    config = LoraConfig(
        r=max(ranks.values()),
        target_modules=list(ranks),
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=rho),
    )
    found: dict[str, torch.Tensor] = get_eva_state_dict(
        model,
        batches,
        config,
        forward_fn=forward,
        prepare_model_inputs_fn=lambda batch, _: batch.inputs["attention_mask"].nonzero(),
        prepare_layer_inputs_fn=prepare_layer_inputs_fn_language_modeling,
        show_progress_bar=False,
    )
    return found


def corda(model: nn.Module, setting: Setting) -> Prepared:
    """CorDA (Yang et al. 2024, arXiv 2406.05223): s B A starts as r singular triplets of W C in
    the coordinates of C^-1, where C is the covariance of the module's inputs; W keeps the rest.

    With `kind` ipm the r largest triplets train, with kpm the r smallest. C is damped as in PEFT
    until it can be inverted.
    """
    ranks, kind = ranks_of(setting), setting.job.recipe.options["kind"]
    check_ranks(model, ranks)
    batches = setting.preview(int(setting.job.recipe.options["batches"]))
    config = lora_config(
        ranks, setting, init_lora_weights="corda", corda_config=CordaConfig(corda_method=kind)
    )
    for name, covariance in input_covariances(model, setting, list(ranks), batches).items():
        layer: Any = model.get_submodule(name)
        layer.covariance_matrix, layer.corda_method, layer.rank = covariance, kind, ranks[name]
    collect_eigens(model, config, verbose=False)
    crop_corda_eigens(model, config)
    for name in ranks:
        layer = model.get_submodule(name)
        del layer.covariance_matrix, layer.corda_method, layer.rank
    wrapped = wrap(model, config)
    return as_lora(wrapped, ranks, setting, save=saver_of_change(wrapped))


@torch.no_grad()
def input_covariances(
    model: nn.Module, setting: Setting, names: Sequence[str], batches: Sequence[Batch]
) -> dict[str, torch.Tensor]:
    """Mean over rows of X' X for each module, shape (in, in), where X is a row's real tokens by
    features, divided by its largest entry.

    What PEFT's `preprocess_corda` computes from unpadded single rows; its hooks can't tell the
    padding of a batch from its tokens.
    """
    sums: dict[str, torch.Tensor] = {}
    mask, rows = torch.empty(0), 0

    def adder(name: str) -> Any:
        def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
            x = inputs[0].float()
            largest = x.masked_fill(~mask, -torch.inf).amax(dim=(1, 2), keepdim=True)
            x = (x / largest.abs()).masked_fill(~mask, 0).flatten(0, 1)
            sums[name] = sums.get(name, 0) + x.T @ x

        return add

    handles = [model.get_submodule(n).register_forward_hook(adder(n)) for n in names]
    model.eval()
    try:
        for batch in batches:
            mask = batch.inputs["attention_mask"].bool()[..., None]
            rows += len(mask)
            setting.loss(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: sums[name] / rows for name in names}


def lora_ga(model: nn.Module, setting: Setting) -> Prepared:
    """LoRA-GA (Wang et al. 2024, arXiv 2407.05000): B and A start along the gradient G of W.

    With G = U S V over the preview, A = c V[:r] and B = c U[:, r:2r] with c = out^(1/4) /
    sqrt(gamma), and W keeps W - s B A: the first step of B A is then the best rank-2r
    approximation of a step of W. PEFT scales otherwise (B by S too, A not at all), so the start is
    our own; s is the recipe's alpha / r. The gradients are taken without dropout.
    """
    ranks = ranks_of(setting)
    check_ranks(model, {name: 2 * rank for name, rank in ranks.items()})
    batches = setting.preview(int(setting.job.recipe.options["batches"]))
    gradients = weight_gradients(model, setting, list(ranks), batches)
    start: Factors = {}
    for name, rank in ranks.items():
        u, _, v = torch.linalg.svd(gradients.pop(name), full_matrices=False)
        size = len(u) ** 0.25 / GAMMA**0.5
        start[name] = size * v[:rank], size * u[:, rank : 2 * rank]
    return from_factors(model, setting, ranks, start)


def weight_gradients(
    model: nn.Module, setting: Setting, names: Sequence[str], batches: Sequence[Batch]
) -> dict[str, torch.Tensor]:
    """Gradient of the task's loss by each module's weight, summed over the batches."""
    model.requires_grad_(False)
    model.eval()
    weights = {name: model.get_parameter(f"{name}.weight") for name in names}
    for weight in weights.values():
        weight.requires_grad_(True)
    found: dict[str, torch.Tensor] = {}
    with raised(model):  # the sum over many batches would be lost in bf16's 8 bits
        for batch in batches:
            with strictly():
                setting.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        for name, weight in weights.items():
            if weight.grad is None:
                raise Unsupported(
                    f"{name} takes no part in the loss, so LoRA-GA finds no start for it"
                )
            found[name], weight.grad = weight.grad, None
            weight.requires_grad_(False)
    return found
