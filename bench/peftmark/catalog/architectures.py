"""Configurations of models as plain data: those in `peftmark.catalog.models`, and language models.

They are what a model's `config.json` says of its shape: enough to build the architecture without
its files and count parameters. A worker reads the model's own file instead. Dropout and what else
holds no parameter is left at the defaults of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 30_522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
_ROBERTA: dict[str, Any] = {
    "model_type": "roberta",
    "vocab_size": 50_265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-5,
}
_BASE: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "minilm-l6": {
        **_BERT,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "mpnet-base": {
        "model_type": "mpnet",
        "vocab_size": 30_527,
        "max_position_embeddings": 514,
        "relative_attention_num_buckets": 32,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "layer_norm_eps": 1e-5,
        **_BASE,
    },
    "bert-base-uncased": {**_BERT, **_BASE},
    "roberta-base": {**_ROBERTA, **_BASE},
    "roberta-large": {
        **_ROBERTA,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "deberta-v3-base": {
        "model_type": "deberta-v2",
        "vocab_size": 128_100,
        "max_position_embeddings": 512,
        "type_vocab_size": 0,
        "pad_token_id": 0,
        "layer_norm_eps": 1e-7,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "max_relative_positions": -1,
        "position_biased_input": False,
        "pooler_hidden_size": 768,
        "pooler_hidden_act": "gelu",
        "pooler_dropout": 0,
        **_BASE,
    },
}


def _llama(
    width: int,
    layers: int,
    heads: int,
    inner: int,
    vocabulary: int = 32_000,
    positions: int = 2048,
    kv_heads: int | None = None,
    tied: bool = False,
    **other: Any,
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads or heads,
        "intermediate_size": inner,
        "max_position_embeddings": positions,
        "tie_word_embeddings": tied,
        **other,
    }


# Shapes as published: LLaMA arXiv 2302.13971 table 2; the others by their model cards and the
# configurations that training libraries ship. Each gives the published count of parameters
# (tests/golden/test_architectures.py).
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "llama-7b": _llama(4096, 32, 32, 11_008),
    "llama-13b": _llama(5120, 40, 40, 13_824),
    "llama-33b": _llama(6656, 60, 52, 17_920),
    "llama-65b": _llama(8192, 80, 64, 22_016),
    "llama-2-7b": _llama(4096, 32, 32, 11_008, positions=4096),
    "llama-2-13b": _llama(5120, 40, 40, 13_824, positions=4096),
    "llama-2-70b": _llama(8192, 80, 64, 28_672, positions=4096, kv_heads=8),
    "llama-3.2-1b": _llama(2048, 16, 32, 8192, 128_256, 131_072, 8, True),
    "llama-3.2-3b": _llama(3072, 28, 24, 8192, 128_256, 131_072, 8, True),
    "llama-3-8b": _llama(4096, 32, 32, 14_336, 128_256, 8192, 8),
    "llama-3.1-70b": _llama(8192, 80, 64, 28_672, 128_256, 131_072, 8),
    "mistral-7b": _llama(4096, 32, 32, 14_336, 32_000, 32_768, 8, model_type="mistral")
    | {"sliding_window": 4096},
    "qwen2.5-0.5b": _llama(896, 24, 14, 4864, 151_936, 32_768, 2, True, model_type="qwen2"),
    "qwen2.5-1.5b": _llama(1536, 28, 12, 8960, 151_936, 131_072, 2, True, model_type="qwen2"),
    "qwen2.5-3b": _llama(2048, 36, 16, 11_008, 151_936, 32_768, 2, True, model_type="qwen2"),
    "qwen2.5-7b": _llama(3584, 28, 28, 18_944, 152_064, 131_072, 4, model_type="qwen2"),
    "smollm2-135m": _llama(576, 30, 9, 1536, 49_152, 8192, 3, True),
    "smollm2-360m": _llama(960, 32, 15, 2560, 49_152, 8192, 5, True),
    "smollm2-1.7b": _llama(2048, 24, 32, 8192, 49_152, 8192, tied=True),
}

OF_MODELS: dict[str, dict[str, Any]] = ARCHITECTURES | {
    "smollm2-135m-q4": LANGUAGE_MODELS["smollm2-135m"],
    "smollm2-135m-instruct": LANGUAGE_MODELS["smollm2-135m"],
    "smollm2-1.7b": LANGUAGE_MODELS["smollm2-1.7b"],
    "qwen2.5-0.5b": LANGUAGE_MODELS["qwen2.5-0.5b"],
}
"""Model of `peftmark.catalog.models` -> its configuration."""

_ACTIVATIONS = {"bert": "gelu", "roberta": "gelu", "deberta-v2": "gelu", "llama": "silu"}
_SHAPES = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
)


def fixed(shape: Mapping[str, Any]) -> dict[str, Any]:
    """What a `config.json` must say if it is the one of a known shape, key -> value.

    Of what decides results it is the part that is published: sizes, heads, and the activation, by
    the architecture's own paper. Heads and activation are in no tensor's shape.
    """
    found = {key: shape[key] for key in _SHAPES if key in shape}
    if shape.get("model_type") in _ACTIVATIONS:
        found["hidden_act"] = _ACTIVATIONS[shape["model_type"]]
    return found


DECODERS: tuple[str, ...] = (
    *("bitnet", "bloom", "codegen", "cohere", "cohere2", "ctrl", "exaone4", "falcon"),
    *("gemma", "gemma2", "gemma3", "gemma3_text", "glm", "glm4"),
    *("gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "openai-gpt"),
    *("granite", "granitemoe", "helium", "internlm3", "lfm2", "llama", "mamba", "mamba2"),
    *("minicpm3", "ministral", "mistral", "mixtral", "mpt", "nemotron"),
    *("olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "phimoe"),
    *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2", "xglm"),
)
"""Types of models that were made to write text, and are read as causal language models where their
configuration names no class."""
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")
_HEADS = ("num_attention_heads", "n_head", "n_heads")


def sizes_of(config: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Layers, width and heads of a configuration, whatever it calls them; None if it tells none."""
    found = [
        next((config[name] for name in names if isinstance(config.get(name), int)), None)
        for names in (_LAYERS, _WIDTHS, _HEADS)
    ]
    if None in found:
        inner = config.get("text_config")
        return sizes_of(inner) if isinstance(inner, dict) else None
    layers, width, heads = (int(one) for one in found if one is not None)
    return layers, width, heads
