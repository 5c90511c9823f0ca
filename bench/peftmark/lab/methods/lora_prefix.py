"""LoRA and a prefix in every layer, without gates: two of UniPELT's three parts as they are alone.

With h a layer's input and W_k, W_v its projections to keys and values,

    LoRA     W x + (alpha / r) B A x              for the recipe's targets (arXiv 2106.09685)
    prefix   K = [P_K; W_k h],  V = [P_V; W_v h]  in every layer (arXiv 2101.00190, section 4.2)

P_K and P_V train as they are, one pair a layer, drawn small; Li and Liang get theirs from an MLP
that is dropped after training. They hold no positions: the text's stay where they are in the base,
as in UniPELT (`peftmark.lab.methods.unipelt_parts`), while PEFT's prefix tuning moves them back.

B starts at zero; the prefix changes the model from the start, as each query shares its attention
with it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.adapter import prepared_with
from peftmark.lab.methods.in_phases import LORA, in_phases
from peftmark.lab.methods.lora import lora_config, ranks_of, wrap
from peftmark.lab.methods.unipelt_parts import (
    ATTENTION,
    always_open,
    blocks_with_prefix,
    put_prefix,
)

NOT_A_WEIGHT = "a prefix is input to the attention: there is no weight to merge it into"


def lora_prefix(model: nn.Module, setting: Setting) -> Prepared:
    """Put LoRA on the recipe's targets and a prefix into every layer; head and pooler beside them.

    Raises:
        Unsupported: if the layers are not known, or their attention takes no prefix.
    """
    blocks, ranks = blocks_with_prefix(model, setting), ranks_of(setting)
    tokens = int(setting.job.recipe.options["tokens"])

    def put(base: nn.Module) -> nn.Module:
        features: Any = {b.name: base.get_submodule(b.value) for b in blocks}
        wrapped = wrap(base, lora_config(ranks, setting))
        inner = wrapped.get_base_model()
        for block in blocks:
            put_prefix(inner, block, features[block.name].out_features, tokens, always_open)
        inner.set_attn_implementation(ATTENTION)
        whole: nn.Module = wrapped
        return whole

    prepared = prepared_with(model, put, NOT_A_WEIGHT)
    prepared.ranks = lambda: ranks
    prepared.matched_rank = "r"
    prepared.part_of = lambda name: LORA if ".lora_" in name else "prefix"
    return in_phases(prepared, setting)
