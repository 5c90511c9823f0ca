"""BitFit (Ben Zaken et al. 2021, arXiv 2106.10199): the base's biases train, its weights don't.

Every bias of the encoder trains: those of all linear layers and of all LayerNorms, the embeddings'
included. Head and pooler train whole. The keys' biases are among them, as in the paper, though
softmax cancels them: a bias adds q·b to all scores of a query alike, so its gradient is rounding
noise.

bitsandbytes casts the bias of a quantised layer in place to the type of its arithmetic, at every
forward pass. A bias that trains would be rounded to 8 bits after each step. So a quantised layer
hands its bias over, and a hook adds it, kept in fp32, to the layer's output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import nn

from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.in_phases import LORA, in_phases
from peftmark.lab.methods.lora import common_options, merge_adapter, rank_options, wrap
from peftmark.lab.methods.reference import load_trained, save_trained, train_head_alone
from peftmark.lab.models import Anatomy, Unsupported, adapter_targets
from peftmark.lab.quantization.table import backend_of

BIAS = "exact_bias"
"""What a bias is called that was taken out of a quantised layer."""


def bitfit(model: nn.Module, setting: Setting) -> Prepared:
    """Train the encoder's biases; head and pooler train beside them."""
    biases = encoder_biases(model, setting.parts)
    train_head_alone(model, setting)
    _train(biases)

    def load(base: nn.Module, folder: Path) -> nn.Module:
        encoder_biases(base, setting.parts)
        return load_trained(base, folder)

    return Prepared(
        model,
        save=lambda folder: save_trained(model, folder),
        load=load,
        merge=None,
        merge_reason="the trained biases are the base's own: nothing is left to merge",
    )


def bitfit_lora(model: nn.Module, setting: Setting) -> Prepared:
    """LoRA on the recipe's targets, and the same biases as BitFit; head and pooler beside them.

    PEFT's `bias="all"` would be another set: it trains the pooler's bias and leaves quantised
    layers' biases to be rounded.
    """
    job = setting.job
    ranks = setting.sized(adapter_targets(job, setting.parts))

    def put(base: nn.Module) -> Any:
        biases = encoder_biases(base, setting.parts)
        config = LoraConfig(**rank_options(ranks, setting), **common_options(setting, list(ranks)))
        wrapped = wrap(base, config)
        _train(biases)
        return wrapped

    wrapped = put(model)
    obstacle = backend_of(job.quantization).unmergeable(wrapped.peft_config["default"])
    prepared = Prepared(
        wrapped,
        save=lambda folder: save_trained(wrapped, folder),
        load=lambda base, folder: load_trained(put(base), folder),
        merge=None if obstacle else lambda model: merge_adapter(model, job),
        merge_reason=obstacle,
        ranks=lambda: ranks,
        matched_rank="r",
        part_of=lambda name: LORA if ".lora_" in name else "biases",
    )
    return in_phases(prepared, setting)


def encoder_biases(model: nn.Module, parts: Anatomy) -> list[nn.Parameter]:
    """Every bias of the base without head and pooler, in order; those of quantised layers are
    first taken out of bitsandbytes' hands."""
    outside = [*parts.head, *([parts.pooler] if parts.pooler else [])]
    found: list[nn.Parameter] = []
    for name, module in model.named_modules():
        if any(name == top or name.startswith(f"{top}.") for top in outside):
            continue
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            quantised = not module.weight.is_floating_point()
            found.append(_take_out(module) if quantised else bias)
    if not found:  # as in most language models: nothing would train, or LoRA under another name
        raise Unsupported(f"{type(model).__name__} of this configuration has no biases to train")
    return found


def _take_out(layer: Any) -> nn.Parameter:
    """Let a hook add the layer's bias, in fp32 up to the sum."""
    bias: nn.Parameter = layer.bias
    bias.data = bias.data.float()
    layer.bias, layer.exact_bias = None, bias
    layer.register_forward_hook(_add_bias)
    return bias


def _add_bias(layer: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    bias: torch.Tensor = layer.exact_bias
    return output + bias.to(output.dtype)


def _train(biases: list[nn.Parameter]) -> None:
    for bias in biases:
        bias.requires_grad_(True)
