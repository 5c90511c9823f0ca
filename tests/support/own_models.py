"""Folders of models made by hand, a few hundred bytes each: real safetensors, no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

BERT: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
GPT: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 12,
    "n_embd": 8,
    "n_layer": 1,
    "n_head": 2,
    "n_positions": 128,
}
VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3} | {f"w{i}": 4 + i for i in range(8)}
TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "[UNK]"},
}


def tensors(kind: Any = np.float32) -> dict[str, np.ndarray]:
    """Some weights: an embedding of 12 rows and a layer."""
    return {
        "embeddings.word_embeddings.weight": np.full((12, 8), 0.5, dtype=kind),
        "encoder.layer.0.output.dense.weight": np.full((8, 16), 0.25, dtype=kind),
    }


def model_folder(
    folder: Path,
    config: dict[str, Any] | None = None,
    weights: dict[str, np.ndarray] | None = None,
    shards: int = 1,
) -> Path:
    """A folder with weights, configuration and tokenizer, the weights in shards where asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    put(folder, "config.json", BERT if config is None else config)
    put(folder, "tokenizer.json", TOKENIZER)
    put(folder, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    every = tensors() if weights is None else weights
    if shards == 1:
        save_file(every, folder / "model.safetensors")
        return folder
    mapped = {}
    for number, (name, one) in enumerate(every.items(), 1):
        shard = f"model-{number:05d}-of-{len(every):05d}.safetensors"
        save_file({name: one}, folder / shard)
        mapped[name] = shard
    put(folder, "model.safetensors.index.json", {"metadata": {}, "weight_map": mapped})
    return folder


def put(folder: Path, name: str, content: Any) -> None:
    """A file of JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
