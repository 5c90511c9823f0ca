"""Architectures that are tried from time to time on tiny random models, as plain data.

They stand for what transformers has a sequence classifier or a causal language model for; others
run as long as their layers are linear ones. docs/architectures.md has what came out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Class = Literal["classifier", "language model"]
"""What an architecture is made into."""


@dataclass(frozen=True)
class Tried:
    """An architecture and a tiny configuration of it.

    Attributes:
        title: its name in the field.
        family: `encoder` reads in both directions, `decoder` from left to right.
        classes: what transformers can make of it.
        settings: further settings of its tiny configuration, beside `SMALL`.
    """

    title: str
    family: Literal["encoder", "decoder"]
    classes: tuple[Class, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


SMALL: Mapping[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
"""Settings of every tiny configuration, by the names that most have."""

_PADDED = {"pad_token_id": 0}
_GROUPED = {"num_key_value_heads": 2, "pad_token_id": None, "tie_word_embeddings": True}
_BOTH: tuple[Class, ...] = ("classifier", "language model")
_CLASSIFIER: tuple[Class, ...] = ("classifier",)

TRIED: Mapping[str, Tried] = {
    "bert": Tried("BERT", "encoder", _BOTH, _PADDED),
    "roberta": Tried("RoBERTa", "encoder", _BOTH, _PADDED),
    "xlm-roberta": Tried("XLM-RoBERTa", "encoder", _BOTH, _PADDED),
    "distilbert": Tried(
        "DistilBERT",
        "encoder",
        _CLASSIFIER,
        _PADDED | {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96},
    ),
    "albert": Tried("ALBERT", "encoder", _CLASSIFIER, _PADDED | {"embedding_size": 32}),
    "electra": Tried("ELECTRA", "encoder", _BOTH, _PADDED | {"embedding_size": 32}),
    "mpnet": Tried("MPNet", "encoder", _CLASSIFIER, _PADDED),
    "deberta-v2": Tried(
        "DeBERTa-v2, -v3",
        "encoder",
        _CLASSIFIER,
        _PADDED
        | {
            "relative_attention": True,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "modernbert": Tried(
        "ModernBERT", "encoder", _CLASSIFIER, _PADDED | {"cls_token_id": 2, "sep_token_id": 3}
    ),
    "gpt2": Tried("GPT-2", "decoder", _BOTH, {"n_embd": 64, "n_layer": 2, "n_head": 4}),
    "opt": Tried(
        "OPT", "decoder", _BOTH, {"ffn_dim": 96, "word_embed_proj_dim": 64, "pad_token_id": 1}
    ),
    "gpt_neox": Tried("GPT-NeoX, Pythia", "decoder", _BOTH, {"pad_token_id": None}),
    "bloom": Tried("Bloom", "decoder", _BOTH, {"n_layer": 2, "n_head": 4, "pad_token_id": None}),
    "falcon": Tried("Falcon", "decoder", _BOTH, {"pad_token_id": None}),
    "llama": Tried("Llama, SmolLM2", "decoder", _BOTH, _GROUPED),
    "mistral": Tried("Mistral", "decoder", _BOTH, _GROUPED),
    "qwen2": Tried("Qwen2, Qwen2.5", "decoder", _BOTH, _GROUPED),
    "qwen3": Tried("Qwen3", "decoder", _BOTH, _GROUPED | {"head_dim": 16}),
    "gemma2": Tried("Gemma 2", "decoder", _BOTH, _GROUPED | {"head_dim": 16}),
    "gemma3_text": Tried("Gemma 3 (text)", "decoder", _BOTH, _GROUPED | {"head_dim": 16}),
    "phi3": Tried("Phi-3", "decoder", _BOTH, {"num_key_value_heads": 2, "pad_token_id": 0}),
    "olmo2": Tried("OLMo 2", "decoder", _BOTH, _GROUPED),
    "granite": Tried("Granite", "decoder", ("language model",), _GROUPED),
    "smollm3": Tried("SmolLM3", "decoder", _BOTH, _GROUPED),
}
"""Architecture (`model_type` of its config) -> how it is tried."""

METHODS: tuple[tuple[str, str, str], ...] = (
    ("full fine-tuning", "full", "none"),
    ("LoRA", "lora", "none"),
    ("AdaLoRA", "adalora", "none"),
    ("QLoRA", "lora", "nf4"),
    ("AdaLoRA + NF4", "adalora", "nf4"),
)
"""Title, method and quantization of what is tried on each."""
