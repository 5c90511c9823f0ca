"""What configurations say of weights that are quantised already."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftmark.core.errors import AssetError
from peftmark.sources.stored_form import StoredForm, stored_form

CONFIG = Path("mine/config.json")
FOUR = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
EIGHT = {"quant_method": "bitsandbytes", "load_in_8bit": True}


def form(settings):
    return stored_form({"quantization_config": settings}, CONFIG)


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}])
def test_whole_weights_have_no_form(config):
    assert stored_form(config, CONFIG) is None


def test_what_bitsandbytes_packed_is_known_by_its_settings():
    assert form(FOUR) == StoredForm("nf4")
    assert form(FOUR | {"bnb_4bit_use_double_quant": True}) == StoredForm("nf4", double=True)
    assert form(FOUR | {"bnb_4bit_quant_type": "fp4"}) == StoredForm("fp4")
    assert form(EIGHT) == StoredForm("int8")
    skipped = {"llm_int8_skip_modules": ["lm_head", "model.layers.1.mlp"]}
    assert form(FOUR | skipped).whole == ("lm_head", "model.layers.1.mlp")


def test_older_files_that_dont_say_by_what_are_known_as_well():
    assert form({"load_in_4bit": True}) == StoredForm("fp4")  # what transformers takes it for
    older = {"_load_in_8bit": True, "_load_in_4bit": False, "load_in_8bit": False}
    assert form(older) == StoredForm("int8")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"quant_method": "gptq", "bits": 4}, r"\(quantization_config: gptq\).*package gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, r"\(quantization_config: awq\).*package gptqmodel"),
        ({"quant_method": "hqq"}, "transformers no longer loads"),
        ({"quant_method": "quanto"}, "can't write as safetensors"),
        ({"quant_method": "torchao"}, "no back-end that reads such files"),
        ({"quant_method": "fp8"}, "no back-end that reads such files"),
        ({"quant_method": "gptq", "load_in_4bit": True}, "package gptqmodel"),
        ({"bits": 4}, "doesn't say by what"),
        ("nf4", "no mapping"),
        (FOUR | {"bnb_4bit_quant_type": "int4"}, "bnb_4bit_quant_type: int4"),
        (FOUR | {"bnb_4bit_quant_storage": "bfloat16"}, "bnb_4bit_quant_storage: bfloat16"),
        (FOUR | {"llm_int8_skip_modules": "lm_head"}, "is no list of names"),
        (FOUR | {"llm_int8_skip_modules": [1]}, "is no list of names"),
        (FOUR | {"llm_int8_skip_modules": ["lm_head("]}, "is no list of names"),
        (FOUR | {"llm_int8_skip_modules": ["(a+)+$"]}, "is no list of names"),
        (EIGHT | {"llm_int8_has_fp16_weight": True}, "llm_int8_has_fp16_weight: true"),
    ],
)
def test_every_other_form_is_refused_with_its_reason_and_what_to_do(settings, told):
    with pytest.raises(AssetError, match=told) as caught:
        form(settings)
    assert caught.value.what.startswith("mine/config.json: the weights are quantised already (")
    assert "read as it is (nf4, fp4, int8, of bitsandbytes)" in caught.value.remedy
    assert "with quantization: one of nf4, fp4, int8, " in caught.value.remedy
