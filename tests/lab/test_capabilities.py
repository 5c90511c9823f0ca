"""What methods can do, probed anew: the shipped answers hold, and a false claim is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from peftmark.catalog.capabilities import AGAIN, ALL_THE_SAME, NOT_TRIED, Answer, probed
from peftmark.catalog.methods import all_methods
from peftmark.catalog.peft_types import PEFT_TYPES
from peftmark.catalog.quantizations import of_family
from peftmark.lab import capability_trials as trials
from peftmark.lab.capability_grounds import apart, grounds
from peftmark.lab.quantization import quanto
from peftmark.lab.quantization.table import backend_of

EVERY = all_methods()
FEW = ("ia3", "bitfit")


@pytest.fixture(scope="module")
def on():
    with grounds() as found:
        yield found


@pytest.fixture(scope="module")
def two(on):
    """Two LoRA adapters on the tiny language model."""
    found = [trials.attempt(on["language model"], "lora", seed=seed) for seed in (0, 1)]
    assert apart(found[0].says, found[1].says) > trials.LEAST_MOVED
    return found


def same(one, other):
    """Whether two entries say the same, whatever words a library has for it."""
    for name, value in vars(one).items():
        new = getattr(other, name)
        if isinstance(value, Answer):
            value, new = {"": value}, {"": new}
        if {k: a.holds for k, a in value.items() if k != "cuda"} != {
            k: a.holds for k, a in new.items() if k != "cuda"
        }:
            return f"{name}: shipped {value}, now {new}"
    return ""


@pytest.mark.parametrize("key", FEW)
@pytest.mark.sweep(1)
def test_shipped_answers_hold(key, on):
    found = same(probed().methods[key], trials.probe_method(key, on))
    assert not found, f"{found}; run {AGAIN} {key}"


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key in EVERY if key not in FEW])
def test_shipped_answers_of_all_methods_hold(key, on):
    test_shipped_answers_hold(key, on)


def test_lora_merges_switches_and_swaps(two):
    assert trials.merges(two[0]).holds
    assert trials.several(*two).holds
    assert trials.hot_swaps(*two).holds


def test_a_merge_that_does_nothing_or_something_else_is_no_merge(two):
    def nothing(model):
        return model.unload(), "weights"

    def doubled(model):
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_B" in name:
                    p.mul_(2)
        return model.merge_and_unload(), "weights"

    def half_left(model):
        model.merge_adapter()
        return model, "weights"

    for wrong, says in ((nothing, "off those"), (doubled, "off those"), (half_left, "is left on")):
        changed = replace(two[0], prepared=replace(two[0].prepared, merge=wrong))
        answer = trials.merges(changed)
        assert answer.holds is False and says in answer.reason


def test_a_merge_that_the_method_does_not_know_of_is_found(two):
    unaware = replace(two[0].prepared, merge=None, merge_reason="it can't be")
    assert trials.merges(replace(two[0], prepared=unaware)).holds


def test_a_switch_that_switches_nothing_is_seen(two, monkeypatch):
    monkeypatch.setattr("peft.PeftModel.set_adapter", lambda self, name: None)
    assert trials.several(*two).holds is False


def test_a_swap_that_swaps_nothing_is_seen(two, monkeypatch):
    monkeypatch.setattr(trials, "hotswap_adapter", lambda *a, **k: None)
    answer = trials.hot_swaps(*two)
    assert answer.holds is False and "off the other loaded afresh" in answer.reason


def test_peft_swaps_no_classifier_beside_its_head(on):
    """As docs/methods.md says, why swapping is asked on the language model."""
    one, other = (trials.attempt(on["classifier"], "lora", seed=seed) for seed in (0, 1))
    assert trials.several(one, other).holds
    answer = trials.hot_swaps(one, other)
    assert answer.holds is False and "pooler" in answer.reason


def test_files_that_lost_the_adapter_do_not_run(two):
    empty = replace(two[0].prepared, load=lambda base, folder: base)
    answer = trials.runs(replace(two[0], prepared=empty))
    assert answer.holds is False and "loaded again" in answer.reason


def test_what_the_catalogue_refuses_is_tried_all_the_same(on):
    """Else the file could only repeat the catalogue."""
    refused = trials.attempt(on["language model"], "peft:poly")
    assert refused.holds is False
    assert refused.reason != EVERY["peft:poly"].not_causal


@pytest.mark.parametrize("base", of_family("torchao-8bit", "quanto"))
@pytest.mark.parametrize("key", PEFT_TYPES)
def test_an_optional_back_end_takes_what_was_probed(key, base):
    one = probed().methods[f"peft:{key}"].sits_on[base]
    known = one.reason != NOT_TRIED and not (PEFT_TYPES[key].refused and PEFT_TYPES[key].not_causal)
    if known and (f"peft:{key}", base) not in ALL_THE_SAME:
        assert backend_of(base).takes(PEFT_TYPES[key]) == one.holds


@pytest.mark.parametrize("key", EVERY)
def test_nothing_merges_into_quanto(key):
    """But what touches none of its weights: as docs/quantizations.md says, and why
    `Backend.unmergeable` refuses it."""
    answers = probed().methods[key].merges
    takes = set(of_family("quanto")) & set(EVERY[key].quantizations)
    held = [base for base in takes if base in answers and answers[base].holds]
    assert not held or key.removeprefix("peft:") in quanto.TOUCH_NONE


def test_what_changes_an_unpacked_copy_of_the_weights_is_lost_and_seen(on):
    """KaSA takes triplets out of the base's weights; quanto's take no notice."""
    pytest.importorskip("optimum.quanto", reason="pip install peftmark[quanto]")
    ground = on["language model"]
    plain, there = (trials.attempt(ground, "kasa", q) for q in ("none", "int8-quanto"))
    assert apart(plain.start_says, plain.base_says) > trials.MOST_APART
    assert "what it does to them is lost" in trials._as_itself(there, plain).reason
