"""What a step takes on a GPU: computed or launched, whichever is longer, by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from peftmark.core.errors import UserError
from peftmark.duration import cards as module
from peftmark.duration.cards import (
    CARDS,
    FOREACH,
    KERNEL,
    LAUNCH,
    OF_MODELS,
    VIEW,
    Card,
    card_of,
    measured_card,
)
from peftmark.machine.gpus import DEVICES
from peftmark.machine.visible import Gpu

CARD = Card("X", 1e12, 2e12, 1e11, 1e9, 1e-5, 1e-6, "made up")


def test_products_take_their_rate_and_the_rest_its_bytes():
    second = OF_MODELS * 1e12
    work = {"forward mm bfloat16": [1, second, 10], "forward add float32": [1, 0, 2e9]}
    assert CARD.seconds(work, "forward") == pytest.approx(1 + 2)
    assert CARD.seconds(work, "forward", 3.0) == pytest.approx(3 * (1 + 2)), "three times the rows"
    assert CARD.seconds(work, "backward") == 0


@pytest.mark.parametrize(
    ("kind", "rate"), [("bfloat16", 1e12), ("float16", 2e12), ("float32", 1e11), ("int8", 1e11)]
)
def test_each_number_type_has_its_rate(kind, rate):
    work = {f"forward mm {kind}+": [1, OF_MODELS * rate, 0]}
    assert CARD.seconds(work, "forward") == pytest.approx(1)


def test_a_card_without_units_for_bf16_computes_it_in_fp32():
    old = Card("old", 0, 2e12, 1e11, 1e9, 1e-5, 1e-6, "made up")
    assert old.seconds({"forward mm bfloat16": [1, OF_MODELS * 1e11, 0]}, "forward") == 1


def test_many_small_operations_wait_for_the_host_and_views_take_less():
    work = {
        "forward add float32": [1000, 0, 1],
        "forward view -": [500, 0, 0],
        "forward _unsafe_view float32+": [500, 0, 1e12],
    }
    assert CARD.seconds(work, "forward") == pytest.approx(1000 * 1e-5 + 1000 * 1e-6)
    quick = Card("quick", 1e12, 1e12, 1e12, 1e9, 0, 0, "made up")
    assert quick.seconds(work, "forward") == pytest.approx(1000 * KERNEL), "each occupies the card"


def test_an_update_of_many_tensors_is_few_calls():
    work = {"update mul float32": [1000, 0, 1e6]}
    assert CARD.seconds(work, "update") == pytest.approx(max(1000 * FOREACH, 1e-3))


def test_named_cards_are_those_of_the_table_and_faster_ones_are():
    assert CARDS.keys() <= DEVICES.keys()
    assert {"t4", "a100-40", "a100-80", "l40s", "h100-80", "rtx-4090"} <= CARDS.keys()
    for card in CARDS.values():
        assert 1e11 < card.bandwidth < 1e13 and 1e12 < card.fp32 < 1e14
        assert card.fp16 > card.fp32 and card.bf16 in (0, card.fp16)
    assert CARDS["h100-80"].bf16 == pytest.approx(0.8 * 989e12)
    assert CARDS["rtx-4090"].bandwidth == pytest.approx(0.8 * 1008e9)


GPU = Gpu("GPU-1", "NVIDIA L40S", 46_068 << 20)
TOLD = {
    "bf16": 2e14,
    "fp16": 2e14,
    "fp32": 6e13,
    "bandwidth": 7e11,
    "step": 0.011,
    "operations": 1000,
    "views": 500,
}


def test_a_gpu_is_what_was_measured_or_else_its_name(tmp_path, monkeypatch):
    asked = []

    def run(command, **options):
        asked.append((command[-2:], options["env"]["CUDA_VISIBLE_DEVICES"]))
        return SimpleNamespace(stdout=json.dumps(TOLD))

    monkeypatch.setattr(module.subprocess, "run", run)
    assert card_of(tmp_path, GPU) == CARDS["l40s"]
    assert card_of(tmp_path, Gpu("GPU-2", "Somebody's own", None)) is None
    found = measured_card(tmp_path, GPU)
    assert asked == [(["peftmark.lab.duration.card_rates", "cuda"], "GPU-1")]
    assert (found.bf16, found.bandwidth, found.source) == (2e14, 7e11, "measured here")
    assert found.launch == pytest.approx(0.011 / (1000 + 500 * VIEW / LAUNCH))
    assert found.view == pytest.approx(found.launch * VIEW / LAUNCH)
    assert card_of(tmp_path, GPU) == found
    other = Gpu("GPU-3", "NVIDIA H100 80GB HBM3", None)
    assert card_of(tmp_path, other) == CARDS["h100-80"], "another GPU is not this one"
    (file,) = (tmp_path / "calibration").iterdir()
    file.write_text("{}")
    assert card_of(tmp_path, GPU) == CARDS["l40s"], "a damaged file is none"


def test_a_process_that_says_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=""))
    with pytest.raises(UserError, match="measures NVIDIA L40S ended without a word"):
        measured_card(tmp_path, GPU)
