"""LoRA placed or sized by how large the gradients of the base are before training.

Two practitioners' recipes share the score of a layer: the task's loss is taken on the first
training batches of a stream of their own, in training mode, with a fresh head and no adapter, and
the Euclidean norm of its gradient is averaged over the batches and over the tensors of the layer's
query and value projections: both weights, and both biases where there are any. Counting the biases
follows the notebook that the recipe comes from; with MiniLM-L6 on TREC the layers come in the same
order without them.

No weight gets a gradient for it: the gradient of a linear layer's weight is G^T X, with G the
gradient of its outputs and X its inputs, one row a token. So quantised bases have scores too: those
of the weights they stand for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from peftmark.catalog.methods import known_method
from peftmark.lab.determinism import strictly
from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.lora import as_lora, lora_config, wrap
from peftmark.lab.models import Block, Unsupported, adapter_targets
from peftmark.lab.rng import generator, seed_all


def sensitive_layers(model: nn.Module, setting: Setting) -> Prepared:
    """LoRA on the recipe's targets in some layers alone.

    Of n layers, max(1, int(ratio n)) get an adapter: those of the largest score (`top`), of the
    smallest (`bottom`), or drawn from the job's `adapter` stream (`random`).

    Raises:
        Unsupported: if the layers are not recognised, or the chosen ones hold none of the targets.
    """
    scores = layer_scores(model, setting)
    options = setting.job.recipe.options
    layers = chosen(scores, options["ratio"], options["select"], setting.job.seed)
    targets = adapter_targets(setting.job, setting.parts)
    ranks = setting.sized([name for name in targets if _layer(name, layers) is not None])
    if not ranks:
        raise Unsupported(
            f"targets {setting.job.recipe.targets!r} match nothing in the chosen layers; choose "
            "targets within the layers"
        )
    return _lora(model, ranks, setting, scores)


def sensitive_ranks(model: nn.Module, setting: Setting) -> Prepared:
    """LoRA on the recipe's targets in every layer, of a rank that grows with the layer's score.

    With scores over their maximum s (`max`) it is int(lo + s (hi - lo)) less one if odd, as in the
    guide that the recipe comes from; or (`range`) linear between `min_rank` for the smallest score
    and `max_rank` for the largest, rounded to the nearest even number. The scale of the update is
    the same everywhere: alpha over `max_rank`.
    Targets outside the layers get no adapter.

    Raises:
        Unsupported: if the layers are not recognised or hold none of the targets, or the ranks are
            odd or the wrong way round.
    """
    options = setting.job.recipe.options
    low, high = options["min_rank"], options["max_rank"]
    if low % 2 or high % 2 or low > high:
        raise Unsupported(
            f"found min_rank {low} and max_rank {high}; both must be even, and max_rank not below "
            "min_rank"
        )
    scores = layer_scores(model, setting)
    scale = known_method(setting.job.method).option(options, "scale")
    by_layer = (ranks_over_maximum if scale == "max" else scaled_ranks)(scores, low, high)
    ranks = {}
    for name in adapter_targets(setting.job, setting.parts):
        layer = _layer(name, list(by_layer))
        if layer is not None:
            ranks[name] = by_layer[layer]
    if not ranks:
        raise Unsupported(
            f"targets {setting.job.recipe.targets!r} match nothing in the layers; choose targets "
            "within them"
        )
    prepared = _lora(model, ranks, replace(setting, size=high), scores)
    prepared.matched_rank = None
    return prepared


def _lora(
    model: nn.Module, ranks: dict[str, int], setting: Setting, scores: dict[str, float]
) -> Prepared:
    # As LoRA starts with this seed, whatever the look at the gradients drew.
    seed_all(setting.job.seed, "adapter")
    wrapped = wrap(model, lora_config(ranks, setting))
    return as_lora(wrapped, ranks, setting, layer_scores=scores)


def _layer(module: str, layers: Sequence[str]) -> str | None:
    """The layer that a module is in."""
    return next((layer for layer in layers if module.startswith(f"{layer}.")), None)


def chosen(scores: dict[str, float], ratio: float, select: str, seed: int) -> list[str]:
    """The layers that get an adapter, from the input up.

    Args:
        scores: layer -> score, from the input up.
        ratio: share of the layers.
        select: top, bottom or random.
        seed: the job's.
    """
    count = max(1, int(ratio * len(scores)))
    names = list(scores)
    if select == "random":
        drawn = generator(seed, "adapter").permutation(len(names))[:count]
        return [names[i] for i in sorted(drawn.tolist())]
    ordered = sorted(names, key=lambda name: scores[name], reverse=select == "top")
    return [name for name in names if name in ordered[:count]]


def scaled_ranks(scores: dict[str, float], low: int, high: int) -> dict[str, int]:
    """Layer -> even rank, linear in its score; `high` for all if the scores don't differ."""
    least, most = min(scores.values()), max(scores.values())
    found = {}
    for layer, score in scores.items():
        share = (score - least) / (most - least) if most > least else 1.0
        found[layer] = 2 * math.floor((low + share * (high - low)) / 2 + 0.5)
    return found


def ranks_over_maximum(scores: dict[str, float], low: int, high: int) -> dict[str, int]:
    """Layer -> even rank, int(low + s (high - low)) and less one if odd, with s the score over the
    largest. Equal scores give `high`; none gets less than `low`, which is even."""
    most = max(scores.values())
    found = {}
    for layer, score in scores.items():
        share = score / most if most > 0 else 1.0
        rank = int(low + share * (high - low))
        found[layer] = rank - rank % 2
    return found


def layer_scores(model: nn.Module, setting: Setting) -> dict[str, float]:
    """Layer -> mean gradient norm of the tensors of its query and value, from the input up.

    The model is as before afterwards; the global generators are not.

    Raises:
        Unsupported: if the architecture's layers are not recognised.
    """
    blocks = setting.parts.blocks
    if not blocks:
        raise Unsupported(
            f"the layers of {setting.job.model} are not recognised, so their gradients can't be "
            "compared; use lora"
        )
    names = [name for block in blocks for name in (block.query, block.value)]
    norms: dict[str, list[float]] = {block.name: [] for block in blocks}
    training = model.training
    model.train()
    for batch in setting.preview(setting.job.recipe.options["batches"]):
        found = linear_gradients(model, names, partial(setting.loss, model, batch))
        for block in blocks:
            norms[block.name] += _norms(block, found)
    model.train(training)
    return {name: sum(values) / len(values) for name, values in norms.items()}


def _norms(block: Block, gradients: dict[str, list[torch.Tensor]]) -> list[float]:
    return [
        float(torch.linalg.vector_norm(gradient))
        for name in (block.query, block.value)
        for gradient in gradients[name]
    ]


def linear_gradients(
    model: nn.Module, names: Sequence[str], loss: Callable[[], torch.Tensor]
) -> dict[str, list[torch.Tensor]]:
    """Gradients of linear layers, from their inputs and the gradients of their outputs.

    Args:
        model: holds the layers, plain or quantised; left untouched.
        names: the linear layers.
        loss: runs the model and returns a scalar.

    Returns:
        Layer -> gradient of its weight, of shape (outputs, inputs), and of its bias if it has one;
        fp32.
    """
    calls: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def follow(name: str) -> Callable[..., torch.Tensor]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> torch.Tensor:
            # The gradient of a zero that is added to the outputs is that of the outputs.
            zero = torch.zeros_like(output, requires_grad=True)
            calls.append((name, inputs[0].detach(), zero))
            added: torch.Tensor = output + zero
            return added

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(follow(name)) for name in names]
    try:
        value = loss()
    finally:
        for handle in hooks:
            handle.remove()
    with strictly():
        slopes = torch.autograd.grad(value, [zero for _, _, zero in calls])
    found: dict[str, list[torch.Tensor]] = {}
    for (name, inputs, _), slope in zip(calls, slopes, strict=True):
        rows = slope.flatten(0, -2).float()
        parts = [rows.T @ inputs.flatten(0, -2).float()]
        if model.get_submodule(name).bias is not None:
            parts.append(rows.sum(0))
        # A layer may run more than once a pass (DeBERTa's, on relative positions too).
        known = found.get(name)
        found[name] = [a + b for a, b in zip(known, parts, strict=True)] if known else parts
    return found
