"""Counting what a configuration of PEFT trains, on models without values."""

from __future__ import annotations

import pytest

from peftmark.catalog.architectures import LANGUAGE_MODELS
from peftmark.claims.published import count_of, equal
from peftmark.claims.published_ledger import LEDGER, load_ledger
from peftmark.lab.memory.count_worker import answer
from peftmark.memory.adapter_counts import Count, counts
from places import SUITES

TINY = {
    **LANGUAGE_MODELS["llama-3.2-1b"],
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}
# Layers: q and o 32 to 32, k and v 32 to 16, three of the feed-forward part 32 and 48, two norms.
LAYER = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
BASE = 50 * 32 + 2 * LAYER + 32


def told(kind, frozen="", **options) -> Count:
    request = {"model": TINY, "kind": kind, "options": options, "frozen": frozen}
    return Count(**answer(request))


def test_lora_is_counted_as_its_shapes_say():
    a, b = 2 * 2 * 4 * 32, 2 * 4 * (32 + 16)
    assert told("lora", r=4) == Count(a + b, BASE + a + b)
    assert told("lora", frozen="lora_A", r=4) == Count(b, BASE + a + b)
    assert told("lora", r=4, target_modules=["q_proj"]).trainable == 2 * 4 * (32 + 32)


def test_full_fine_tuning_trains_all_there_is():
    assert told(None) == Count(BASE, BASE)


@pytest.mark.parametrize(
    ("kind", "options", "trains"),
    [
        ("prompt_tuning", {"num_virtual_tokens": 5}, 5 * 32),
        ("prefix_tuning", {"num_virtual_tokens": 5}, 5 * 2 * 2 * 16),
        ("ia3", {}, 2 * (16 + 16 + 48)),
    ],
)
def test_other_types(kind, options, trains):
    assert told(kind, **options).trainable == trains


def test_what_the_installed_peft_lacks_is_told_apart_from_what_needs_weights():
    assert told("bone").absent == "the installed PEFT has no type BONE"
    assert "has no colour" in told("lora", colour=3).absent
    boft = told("boft")
    assert boft.trainable is None and not boft.absent
    assert boft.reason.startswith("PEFT can't build it without weights: ")


@pytest.mark.slow
def test_every_published_count_of_the_shipped_ledger():
    """None is another; what can't be counted says why, and nothing is left out."""
    ledger = load_ledger(SUITES / LEDGER)
    found = counts([ledger.adapter(row) for row in ledger.counts], None)
    verdicts = [count_of(ledger, *pair) for pair in zip(ledger.counts, found, strict=True)]
    by_kind = {one.name: one.kind for one in verdicts if one.kind != "confirmed on paper"}
    assert equal(verdicts) == (48, 56)
    assert by_kind == {
        **dict.fromkeys(("bone-r64", "bdlora-r46", "ewora-r8"), "not comparable"),
        **dict.fromkeys(("adamss-r100", "boft", "frod", "shira-r32", "unilora-r32"), "untestable"),
    }
