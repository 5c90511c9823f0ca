"""Turn a GGUF file into the files a model is loaded from: fp32 safetensors, config, tokenizer.

Run as a process of its own, since transformers prints pages meanwhile. The weights are those that
4 bits left: dequantised, not the model's own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert(source: Path, name: str, target: Path) -> None:
    """Write model.safetensors, config.json and the tokenizer's files.

    The weights are the same bytes on every machine: dequantising a block is a product and a sum in
    fp32, element by element.

    Args:
        source: folder of the GGUF file.
        name: the file in it.
        target: an existing folder.
    """
    load: Any = AutoModelForCausalLM.from_pretrained
    model: Any = load(source, gguf_file=name, dtype="float32", local_files_only=True)
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]  # the embedding once more
    weights = target / "model.safetensors"
    save_file(state, weights, {"format": "pt"})
    weights.chmod(0o644)  # as readable as the other files of a cache that people share
    config = model.config
    del config.quantization_config
    config.save_pretrained(target)
    tokenizer: Any = AutoTokenizer.from_pretrained(source, gguf_file=name, local_files_only=True)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
