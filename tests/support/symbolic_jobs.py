"""Jobs, tasks and small architectures for tests of symbolic steps."""

from __future__ import annotations

from dataclasses import replace

import tiny
from peftmark.catalog.architectures import ARCHITECTURES, LANGUAGE_MODELS
from peftmark.catalog.tasks import TASKS

LANGUAGE = replace(TASKS["sst-2"], key="language", kind="language", labels=())

SMALL = ARCHITECTURES["minilm-l6"] | {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 500,
}
ONE_LAYER = SMALL | {"num_hidden_layers": 1}

SMALL_LANGUAGE = LANGUAGE_MODELS["llama-7b"] | {
    "hidden_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 1376,
}
LARGE = LANGUAGE_MODELS["llama-7b"]


def job_for(method="lora", quantization="none", device="cpu", **recipe):
    """A job of a suite's shape; further names are of its recipe."""
    made = tiny.job(method, quantization, **recipe)
    return replace(made, device=device)
