"""A number or a true reason for every architecture, in each class, from its configuration alone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from peftmark.catalog.architectures import LANGUAGE_MODELS, OF_MODELS
from peftmark.catalog.tried_architectures import METHODS, SMALL, TRIED
from peftmark.lab.architecture_trials import KINDS, job_of, task_of
from peftmark.lab.memory.meta_model import blank, config_of
from peftmark.lab.memory.worker import Asked, answer, positions
from peftmark.memory import plan_estimates
from peftmark.record.job import Form

ROOM = 21 * 2**30

GROUPED = {"attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu"}
PUBLISHED = {
    "Llama-3.2-3B": (
        3_212_749_824,
        GROUPED
        | {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": 128_256,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "tie_word_embeddings": True,
            "bos_token_id": 128_000,
            "eos_token_id": 128_001,
            "torch_dtype": "bfloat16",
        },
    ),
    "Qwen3-0.6B": (
        596_049_920,
        GROUPED
        | {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": 151_936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40_960,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000,
            "rope_scaling": None,
            "sliding_window": None,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
        },
    ),
    "Gemma-3-1B": (
        999_885_952,
        {
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "vocab_size": 262_144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 32_768,
            "query_pre_attn_scalar": 256,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000,
            "rope_local_base_freq": 10_000,
            "rope_scaling": None,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
            "cache_implementation": "hybrid",
            "pad_token_id": 0,
            "torch_dtype": "bfloat16",
        },
    ),
}
"""Model -> parameters as a language model and the `config.json` that is published with it."""


def shape_of(key, made):
    shape = {"model_type": key, **SMALL, **TRIED[key].settings}
    if TRIED[key].family == "encoder" and made == "language model":
        shape["is_decoder"] = True
    return shape


def told(shape, made, method="lora", quantization="none", room=None, **recipe):
    """What `peftmark plan` is answered; the job's name is left out there."""
    job = job_of("", made, method, quantization, **recipe)
    task = task_of(made)
    classes = max(1, len(task.labels))
    asked = Asked(
        [replace(job, device="cuda")], dict(shape), task.kind, classes, 4, 16, True, Form(), room,
        flops=False,
    )  # fmt: skip
    return answer(asked)[0]


def check(found, key, made, quantization):
    """A number, or the reason that docs/architectures.md has."""
    if made not in TRIED[key].classes:
        what = "language model" if made == "language model" else "sequence classifier"
        assert found == {"reason": f"transformers has no {what} of type {key}"}
    elif key == "falcon" and quantization == "nf4":
        assert found["reason"].startswith(
            "transformers leaves 8 of the 8 linear layers of falcon as they are with "
            "quantization nf4 (FalconLinear is no plain linear layer)"
        )
    else:
        assert "reason" not in found, found
        assert found["allocated"] > 4 * found["parameters"] * (quantization == "none")
        assert 0 < found["trainable"] <= found["parameters"]


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("key", TRIED)
@pytest.mark.sweep(8)
def test_every_architecture_has_a_number_or_a_true_reason(key, made):
    check(told(shape_of(key, made), made), key, made, "none")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "quantization"), [row[1:] for row in METHODS])
@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("key", TRIED)
def test_what_fits_is_told_for_every_architecture_and_method(key, made, method, quantization):
    found = told(shape_of(key, made), made, method, quantization, ROOM)
    check(found, key, made, quantization)
    assert "reason" in found or found["largest_rows"] > 4


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_bare_configuration_of_true_size_has_the_published_parameters(name, tmp_path):
    parameters, shape = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(shape))
    read = plan_estimates.config_of(str(tmp_path))
    for made, more in (("language model", 0), ("classifier", 3 * shape["hidden_size"])):
        model = blank(config_of(read, 3), KINDS[made])
        assert sum(p.numel() for p in model.parameters()) == parameters + more
    assert positions(config_of(read, 1)) == shape["max_position_embeddings"]


@pytest.mark.slow
@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_bare_configuration_of_true_size_is_predicted(name, made):
    parameters, shape = PUBLISHED[name]
    for quantization in ("none", "nf4"):
        found = told(shape, made, quantization=quantization, room=ROOM)
        assert "reason" not in found, found
        base = parameters + (3 * shape["hidden_size"] if made == "classifier" else 0)
        assert found["parameters"] - base > 0
        assert found["largest_rows"] > 0 and found["largest_tokens"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("key", OF_MODELS)
def test_every_model_of_the_catalogue_is_predicted(key):
    made = "language model" if OF_MODELS[key] in LANGUAGE_MODELS.values() else "classifier"
    assert "reason" not in told(plan_estimates.config_of(key), made)


@pytest.mark.parametrize("key", OF_MODELS)
def test_every_model_of_the_catalogue_can_be_named(key):
    assert plan_estimates.config_of(key) == OF_MODELS[key]


@pytest.mark.parametrize(
    ("shape", "reach"),
    [
        (OF_MODELS["mpnet-base"], 512),
        (OF_MODELS["roberta-base"], 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "gpt2", "n_positions": 256}, 256),
        ({"model_type": "gpt2"}, 1024),
        ({"model_type": "bloom"}, None),  # its bias reaches as far as rows do
    ],
)
def test_how_far_positions_reach(shape, reach):
    assert positions(config_of(shape, 2)) == reach
