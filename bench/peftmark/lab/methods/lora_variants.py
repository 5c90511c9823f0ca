"""LoRA's variants that need no data: other scales, starts, rates, and parts beside B and A.

Every one is LoRA, h = W x + s B A x with s = alpha / r, in all but what its function says. Those
that start from a part of W take it out of W first, so that the model starts as the base's function;
`saver_of_change` then keeps the files a plain LoRA on the plain base. None needs more than PEFT but
LoftQ, whose PEFT code runs on CUDA and XPU alone and leaves the scale s out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import KasaConfig
from torch import nn

from peftmark.lab.methods import Prepared, Setting, trainable
from peftmark.lab.methods.lora import (
    as_lora,
    load_adapter,
    lora_config,
    ranks_of,
    saver_of_change,
    wrap,
)
from peftmark.lab.models import Unsupported
from peftmark.lab.quantization import bitsandbytes_4bit
from peftmark.lab.quantization.table import backend_of


def rslora(model: nn.Module, setting: Setting) -> Prepared:
    """rsLoRA (Kalajdzievski 2023, arXiv 2312.03732): s = alpha / sqrt(r)."""
    ranks = ranks_of(setting)
    config = lora_config(ranks, setting, power=0.5, use_rslora=True)
    return as_lora(wrap(model, config), ranks, setting)


def dora(model: nn.Module, setting: Setting) -> Prepared:
    """DoRA (Liu et al. 2024, arXiv 2402.09353, eq. 5): W' = m (W + s B A) / ||W + s B A||.

    The norm is one number for each output feature and takes no part in the gradient (section 4.3);
    the magnitudes m start as the norms of W and train.
    """
    ranks = ranks_of(setting)
    keep_constants = backend_of(setting.job.quantization).keep_constants
    wrapped = wrap(model, lora_config(ranks, setting, use_dora=True))
    keep_constants(wrapped)

    def load(base: nn.Module, folder: Path) -> nn.Module:
        loaded = load_adapter(base, folder)
        keep_constants(loaded)
        return loaded

    return as_lora(wrapped, ranks, setting, load=load)


def lora_plus(model: nn.Module, setting: Setting) -> Prepared:
    """LoRA+ (Hayou et al. 2024, arXiv 2402.12354): B learns `rate_ratio` times as fast as A.

    As in the authors' code and PEFT's `create_loraplus_optimizer`, one-dimensional tensors (the
    biases of head and pooler) learn as fast as B. The recipe's learning rate is A's.
    """
    ranks = ranks_of(setting)
    wrapped = wrap(model, lora_config(ranks, setting))
    ratio = float(setting.job.recipe.options["rate_ratio"])
    fast = {name for name, p in trainable(wrapped) if "lora_B" in name or p.dim() == 1}
    return as_lora(wrapped, ranks, setting, rate_of=lambda name: ratio if name in fast else 1.0)


def pissa(model: nn.Module, setting: Setting) -> Prepared:
    """PiSSA (Meng et al. 2024, arXiv 2404.02948): s B A starts as the r largest singular triplets
    of W = U S V, with A = sqrt(S / s) V and B = U sqrt(S / s); W keeps the rest."""
    return _from_weights(model, setting, "pissa")


def olora(model: nn.Module, setting: Setting) -> Prepared:
    """OLoRA (Büyükakyüz 2024, arXiv 2406.01775): B and A start as the first r columns of Q and rows
    of R of W = Q R; W keeps W - s B A."""
    return _from_weights(model, setting, "olora")


def _from_weights(model: nn.Module, setting: Setting, start: str) -> Prepared:
    ranks = ranks_of(setting)
    check_ranks(model, ranks)
    wrapped = wrap(model, lora_config(ranks, setting, init_lora_weights=start))
    return as_lora(wrapped, ranks, setting, save=saver_of_change(wrapped))


def kasa(model: nn.Module, setting: Setting) -> Prepared:
    """KaSA (Wang et al. 2024, arXiv 2412.06071): W less its r smallest singular triplets, plus
    s B diag(e) A with e trained.

    To the loss of the task come beta ||e||^2 (eq. 10) and gamma (||B'B - I||_F + ||A A' - I||_F)
    (eq. 11), summed over the modules. It starts as the truncated base, not as the base. Loading
    truncates the plain base again, as PEFT does.
    """
    ranks, options = ranks_of(setting), setting.job.recipe.options
    check_ranks(model, {name: rank + 1 for name, rank in ranks.items()})
    weights = KasaConfig(beta=float(options["beta"]), gamma=float(options["gamma"]))
    wrapped = wrap(model, lora_config(ranks, setting, kasa_config=weights))
    return as_lora(wrapped, ranks, setting, extra_loss=wrapped.base_model._get_kasa_loss)


def loftq(model: nn.Module, setting: Setting) -> Prepared:
    """LoftQ (Li et al. 2023, arXiv 2310.08659, algorithm 1): s B A starts as what quantising lost.

    Alternates Q = quantised(W - s B A), with B A zero at first, and s B A = the r largest singular
    triplets of W - Q. Each weight starts nearer to the unquantised one than the quantised base's,
    and the model is neither's function. Q is the quantised base itself after one iteration; after
    more it is another base, and loading makes it again from the unquantised weights.
    """
    ranks, rounds = ranks_of(setting), int(setting.job.recipe.options["iterations"])
    check_ranks(model, ranks)
    scale = scale_of(setting)
    start = _alternate(model, setting.plain_base(), ranks, scale, rounds)
    wrapped = wrap(model, lora_config(ranks, setting))
    set_factors(wrapped, start)

    def load(base: nn.Module, folder: Path) -> nn.Module:
        if rounds > 1:
            _alternate(base, setting.plain_base(), ranks, scale, rounds)
        return load_adapter(base, folder)

    own = (
        "its base is LoftQ's own after more than one iteration, and no other" if rounds > 1 else ""
    )
    return as_lora(wrapped, ranks, setting, load=load, beyond=own)


Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Module -> (A of shape (r, in), B of shape (out, r))."""


@torch.no_grad()
def _alternate(
    base: nn.Module, plain: nn.Module, ranks: Mapping[str, int], scale: float, rounds: int
) -> Factors:
    """LoftQ's alternation; the base's 4-bit weights become Q of the last round."""
    found: Factors = {}
    for name, rank in ranks.items():
        layer: Any = base.get_submodule(name)
        weight = plain.get_parameter(f"{name}.weight").to(layer.weight.device)
        for number in range(rounds):
            if number:
                a, b = found[name]
                bitsandbytes_4bit.replace(layer, weight - scale * b @ a)
            lost = weight - bitsandbytes_4bit.unpacked(layer)
            u, s, v = torch.linalg.svd(lost, full_matrices=False)
            root = (s[:rank] / scale).sqrt()
            found[name] = root[:, None] * v[:rank], u[:, :rank] * root
    return found


def scale_of(setting: Setting) -> float:
    """s = alpha / r, the same in every module (see `rank_options`)."""
    alpha, size = setting.job.recipe.alpha, setting.size
    assert alpha is not None and size is not None
    return alpha / size


@torch.no_grad()
def set_factors(wrapped: Any, factors: Factors) -> None:
    """Put starting factors into the adapters."""
    for name, (a, b) in factors.items():
        layer = wrapped.get_base_model().get_submodule(name)
        layer.lora_A["default"].weight.copy_(a)
        layer.lora_B["default"].weight.copy_(b)


def from_factors(
    model: nn.Module, setting: Setting, ranks: dict[str, int], start: Factors
) -> Prepared:
    """LoRA that starts as these factors, whose s B A is taken out of W; saved without them."""
    wrapped = wrap(model, lora_config(ranks, setting))
    set_factors(wrapped, start)
    for name, (a, b) in start.items():
        layer = wrapped.get_base_model().get_submodule(name)
        layer.base_layer.weight.data -= scale_of(setting) * b @ a
    return as_lora(wrapped, ranks, setting, save=saver_of_change(wrapped))


def check_ranks(model: nn.Module, wanted: Mapping[str, int]) -> None:
    """Refuse more singular triplets of a module's weight than there are.

    Raises:
        Unsupported: with the module and its number of triplets.
    """
    for name, rank in wanted.items():
        module: Any = model.get_submodule(name)
        full = min(module.in_features, module.out_features)
        if rank > full:
            raise Unsupported(
                f"the start needs {rank} singular triplets of {name}, which has {full}; "
                "use a smaller rank"
            )
