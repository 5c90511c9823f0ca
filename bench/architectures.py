"""Configurations of the models in `bench.catalog`, as plain data.

They are what a model's `config.json` says of its shape: enough to build the architecture without
its files and count parameters. A worker reads the model's own file instead. Dropout and what else
holds no parameter is left at the defaults of transformers.
"""

from __future__ import annotations

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
