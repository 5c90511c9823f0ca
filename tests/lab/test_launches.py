"""What a training step would start on a GPU and wait for there, so that it can't grow back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    masking_utils,
)

from peftmark.lab.measure.launch_counter import AsOnGpu, Launches, kernels
from peftmark.lab.padding import known_padding
from peftmark.perf import launches

LORA, QLORA = (c for c in launches.CELLS if c.method == "lora")
ADALORA = {(c.quantization, c.allocator): c for c in launches.CELLS if c.method == "adalora"}
AIM = 1.6
"""Times LoRA's operations that a step of AdaLoRA may have on the same base; one that masks takes
two means a module one by one, for their bits."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    launches.make_base(folder)
    return folder


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


_counted = {}


def counted(cell, base):
    if cell not in _counted:
        _counted[cell] = {one.phase: one for one in launches.count(cell, base)}
    return _counted[cell]


@pytest.mark.parametrize(
    ("lora", "quantization"), [(LORA, "none"), pytest.param(QLORA, "nf4", marks=pytest.mark.slow)]
)
def test_adalora_starts_little_more_than_lora_and_never_waits(base, lora, quantization):
    plain = counted(lora, base)[""]
    phases = counted(ADALORA[quantization, "batched"], base)
    assert set(phases) == set(launches.PHASES)
    assert plain.causes == {}
    for phase, one in phases.items():
        assert one.causes == {}, phase
        assert one.operations <= AIM * plain.operations, phase
        assert one.operations > plain.operations


@pytest.mark.slow
def test_pefts_own_shows_what_is_counted(base):
    phases = counted(ADALORA["none", "peft"], base)
    modules = 6 * launches.LAYERS
    waits = {phase: one.waits for phase, one in phases.items()}
    # The threshold and a list for each mask; a mask sent to the device for each module.
    masks = {"masking": 1 + modules, "final": modules}
    assert waits == {"before tinit": 0, "budgeting": 0} | masks
    ours = counted(ADALORA["none", "batched"], base)
    assert all(phases[phase].operations > 1.4 * ours[phase].operations for phase in ours)


def test_views_and_allocations_start_nothing_and_lists_are_cut():
    linear = nn.Linear(4, 4)
    counter = Launches(linear)
    with torch.no_grad(), counter:
        whole = linear.weight.t().reshape(16)
        torch.empty_like(whole)
        whole * 2
    assert dict(counter.kinds) == {"forward clone": 1, "forward mul": 1}
    many = [torch.zeros(1)] * 100
    assert kernels("mul", (many[0], 2)) == 1
    assert kernels("_foreach_mul_", (many, 2.0)) == 1
    assert kernels("_foreach_mul", (many, 2.0)) == 2
    assert kernels("_foreach_mul", (many, many)) == 3


def test_waits_are_of_the_device_alone():
    linear = nn.Linear(4, 4)
    counter = Launches(linear)
    host = torch.tensor([1.0, 2.0])
    with torch.no_grad(), AsOnGpu(counter), counter:
        host.sum().item()
        host.tolist()
        assert counter.waits.total() == 0 and counter.counts.total() == 0
        float(linear.weight.sum())
        linear.weight.tolist()
        host.to(torch.device("cpu"), non_blocking=True)
        sent = torch.tensor([3.0]).to(torch.device("cpu"))
        sent.nonzero()
    assert dict(counter.waits) == {"_local_scalar_dense": 1, "tolist": 1, "to": 1, "nonzero": 1}


SMALL = {
    "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2,
    "vocab_size": 32, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    ("make", "config"),
    [(BertForSequenceClassification, BertConfig), (LlamaForCausalLM, LlamaConfig)],
)
def test_known_padding_gives_the_same_bits_and_asks_nothing(make, config, padded):
    torch.manual_seed(0)
    model = make(config(**SMALL)).eval()
    mask = torch.ones(3, 8, dtype=torch.int64)
    if padded:
        mask[1, 5:] = 0
    given = {"input_ids": torch.randint(0, 32, (3, 8)), "attention_mask": mask}

    def seen(known):
        counter, masks = Launches(model), []
        counter.put(*given.values())
        real = nn.functional.scaled_dot_product_attention

        def attend(*args, **kwargs):
            masks.append(kwargs.get("attn_mask"))
            return real(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch, counter:
            patch.setattr(nn.functional, "scaled_dot_product_attention", attend)
            if known:
                with known_padding(padded):
                    logits = model(**given).logits
            else:
                logits = model(**given).logits
        return logits, masks, counter.waits.total()

    logits, masks, waits = seen(known=True)
    expected, others, asked = seen(known=False)
    assert torch.equal(logits, expected)
    assert [m is None for m in masks] == [m is None for m in others] == [not padded] * 2
    assert waits == 0 < asked


def test_transformers_is_left_as_it_was_even_after_an_error():
    names = ("_ignore_bidirectional_mask_sdpa", "_ignore_causal_mask_sdpa")
    before = [getattr(masking_utils, name) for name in names]
    with pytest.raises(KeyError), known_padding(True):
        assert [getattr(masking_utils, name) for name in names] != before
        raise KeyError
    assert [getattr(masking_utils, name) for name in names] == before


def test_a_causal_mask_over_other_tokens_is_still_looked_at():
    with known_padding(True):
        ask = masking_utils._ignore_causal_mask_sdpa
        # One new token after seven: all of the mask is true, whatever the batch was.
        assert ask(torch.ones(2, 8, dtype=torch.bool), 1, 8, 7, 0)
        assert not ask(torch.ones(2, 8, dtype=torch.bool), 8, 8, 0, 0)
