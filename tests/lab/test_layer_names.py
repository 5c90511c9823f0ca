"""Every name in the table of layer names is one that a model of that architecture has."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial

import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

import tiny
import tiny_causal
from peftmark.catalog import layer_names
from peftmark.catalog.layer_names import LAYER_NAMES, PARTS, LayerNames, ends_with, part_of
from peftmark.catalog.tried_architectures import TRIED
from peftmark.lab.architecture_trials import tiny_config
from peftmark.lab.models import Block, anatomy_of
from peftmark.report.module_names import OUTSIDE, TITLES, place

CONFIGS = {
    **{key: partial(tiny_config, key, tried.classes[-1]) for key, tried in TRIED.items()},
    **tiny.CONFIGS,
    **tiny_causal.CONFIGS,
    "deberta": lambda: transformers.DebertaConfig(**tiny.SMALL),
}
LANGUAGE = [key for key, tried in TRIED.items() if tried.family == "decoder"]
SHARED = ("albert",)
"""Architectures that store one layer for all."""
WHERE = "peftmark/catalog/layer_names.py"


def made(architecture: str, **settings: float) -> nn.Module:
    """A model of an architecture without values.

    Args:
        settings: set in its config.
    """
    assert architecture in CONFIGS, (
        f"{WHERE} has a row for {architecture!r}: add a tiny config of that model_type to CONFIGS "
        "in tests/lab/test_layer_names.py, so that its names are held to a real model"
    )
    config = CONFIGS[architecture]()
    assert config.model_type == architecture
    for name, value in settings.items():
        setattr(config, name, value)
    kind = transformers.AutoModelForSequenceClassification
    if architecture in LANGUAGE:
        kind = transformers.AutoModelForCausalLM
    with torch.device("meta"):
        return kind.from_config(config)


def inside(model: nn.Module) -> list[str]:
    """Names, below their layer, of the linear layers in the first layer of a model."""
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    return [n.partition(".0.")[2] for n in names if ".0." in n]


def faults(architecture: str, row: LayerNames) -> list[str]:
    """What in a row is not so in a model, and what the model has that the row doesn't name."""
    model = made(architecture)
    here = inside(model)
    found = []
    for part in PARTS:
        name = row.of(part)
        if not name:
            continue
        fits = [n for n in here if ends_with(n, (name,)) and part_of(n) == part]
        if len(fits) != 1:
            found.append(f"{part}={name!r} names {fits or 'none'} of {here}; correct the name")
    for name in here:
        part = part_of(name)
        if part is None or not row.of(part) or not ends_with(name, (row.of(part),)):
            found.append(f"{name!r} is a linear layer the row doesn't name; give it to a part")
    if row.head_dropout:
        dropouts = [
            m
            for n, m in made(architecture, **{row.head_dropout: 0.123}).named_modules()
            if getattr(m, "p", None) == 0.123 and ".0." not in n
        ]
        if len(dropouts) != 1:
            found.append(f"head_dropout={row.head_dropout!r} sets no dropout of the head")
    return found


@pytest.mark.parametrize("architecture", LAYER_NAMES)
def test_a_row_names_every_linear_layer_of_a_layer_and_nothing_else(architecture):
    found = faults(architecture, LAYER_NAMES[architecture])
    assert not found, "\n".join(f"{WHERE}, {architecture!r}: {fault}" for fault in found)


@pytest.mark.parametrize(
    ("architecture", "changes", "says"),
    [
        ("bert", {"query": "query_proj"}, "query='query_proj' names none of"),
        ("llama", {"ffn_gate": ""}, "'mlp.gate_proj' is a linear layer the row doesn't name"),
        ("distilbert", {"head_dropout": "cls_dropout"}, "head_dropout='cls_dropout' sets no"),
    ],
)
def test_a_wrong_row_is_noticed(architecture, changes, says):
    found = faults(architecture, replace(LAYER_NAMES[architecture], **changes))
    assert any(fault.startswith(says) for fault in found), found


def test_a_row_without_a_tiny_model_is_noticed():
    with pytest.raises(AssertionError, match="add a tiny config"):
        faults("novel", LayerNames())


@pytest.mark.parametrize("architecture", LAYER_NAMES)
def test_the_lab_finds_the_parts_of_a_layer_where_the_row_says_so(architecture):
    row, found = LAYER_NAMES[architecture], anatomy_of(made(architecture)).blocks
    assert len(found) == (2 if row.in_lab else 0), (
        f"{WHERE}, {architecture!r}: in_lab={row.in_lab}, and peftmark.lab.models finds the parts "
        f"of {len(found)} layers of 2; fill in each of query, key, value, attention_output, ffn_in "
        "and ffn_out, or set in_lab=False"
    )
    for block in found:
        for field in fields(Block):
            if field.name != "name":
                assert ends_with(getattr(block, field.name), (row.of(field.name),))


@pytest.mark.parametrize("architecture", LAYER_NAMES)
def test_the_report_reads_the_same_names(architecture):
    row = LAYER_NAMES[architecture]
    linear = [n for n, m in made(architecture).named_modules() if isinstance(m, nn.Linear | Conv1D)]
    places = [place(name) for name in linear]
    stored = [0] if architecture in SHARED else [0, 1]
    for part in PARTS:
        layers = [p.layer for p in places if p.module == TITLES[part] and p.layer != OUTSIDE]
        assert layers == (stored if row.of(part) else []), f"{architecture!r}, {part}: {layers}"


def test_every_architecture_that_is_tried_has_a_row():
    assert set(TRIED) <= set(LAYER_NAMES)


def test_every_part_has_a_title_in_the_order_of_a_forward_pass():
    assert tuple(TITLES) == PARTS


def test_a_row_that_is_not_for_the_lab_gives_it_no_names(monkeypatch):
    before = {part: layer_names.endings(part, lab=True) for part in PARTS}
    novel = LayerNames(query="novel", head_dropout="novel_dropout", in_lab=False)
    monkeypatch.setattr(layer_names, "LAYER_NAMES", {**LAYER_NAMES, "novel": novel})
    assert {part: layer_names.endings(part, lab=True) for part in PARTS} == before
    assert part_of("attn.novel") == "query"
    assert layer_names.head_dropout("novel") == "novel_dropout"
