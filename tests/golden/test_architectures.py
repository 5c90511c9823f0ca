"""The language models' shapes give the published counts of parameters."""

from __future__ import annotations

import pytest

from peftmark.catalog.architectures import LANGUAGE_MODELS, OF_MODELS
from peftmark.catalog.models import MODELS
from peftmark.lab.memory.meta_model import blank, config_of

# As published: model cards and the papers' own counts; those of LLaMA and Llama 2 follow from the
# shapes in the papers and are what checkpoints hold.
PARAMETERS = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "mistral-7b": 7_241_732_096,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
}


def test_every_language_model_has_a_count():
    assert set(PARAMETERS) == set(LANGUAGE_MODELS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_shape_gives_the_published_count(name):
    from peftmark.lab.memory.meta_model import blank, config_of

    model = blank(config_of(LANGUAGE_MODELS[name], 1), "language")
    assert all(p.is_meta for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("model", [m for m in MODELS.values() if m.causal], ids=lambda m: m.key)
def test_a_language_model_of_the_catalogue_has_the_parameters_it_says(model):
    built = blank(config_of(OF_MODELS[model.key], 1), "language")
    assert sum(p.numel() for p in built.parameters()) == model.parameters
