"""Where a kept adapter's model looks, held to attention made by hand."""

from __future__ import annotations

from itertools import chain
from math import log
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch

import tiny
import tiny_causal
from peftmark.lab.export import attention as module
from peftmark.lab.export.attention import attention
from peftmark.lab.export.attention_maps import (
    Map,
    Sums,
    figures_of,
    split,
    variation,
    virtual_places,
)
from peftmark.lab.export.task_rows import task_rows
from peftmark.lab.models import Unsupported
from peftmark.sources.assets import Places

pytestmark = pytest.mark.usefixtures("unprobed")

SEES = torch.tensor([[1, 1, 1, 1, 1, 0, 0]], dtype=torch.bool)
"""A row of five tokens, padded on the right."""
LATE = SEES.flip(1)
"""The same, padded on the left."""


def uniform(mask):
    """Each token attends to every real one alike, by two heads."""
    shares = mask.double() / mask.sum(1, keepdim=True)
    return shares[:, None, None].expand(-1, 2, mask.shape[1], -1)


def identity(mask):
    """Each token attends to itself."""
    return torch.eye(mask.shape[1]).double().expand(len(mask), 2, -1, -1)


def figures(maps, mask, virtual=range(0)):
    """Means over tokens, of two heads that are the same."""
    sums = Sums()
    sums.add(0, figures_of(split(maps, mask, virtual), mask))
    found = {}
    for name, over in [(n, "tokens") for n in ("entropy", "first", "itself", "virtual")] + [
        ("distance", "text")
    ]:
        [[one, other]] = sums.mean(name, over)
        assert one == other
        found[name] = one
    return found


# --- by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [SEES, LATE])
def test_uniform_attention_has_the_entropy_of_its_number_of_tokens(mask):
    found = figures(uniform(mask), mask)
    assert found == pytest.approx(
        {
            "entropy": log(5),
            "first": 1 / 5,
            "itself": 1 / 5,
            "virtual": 0,
            "distance": (5**2 - 1) / (3 * 5),  # the mean of |i - j| over 1 to n
        }
    )


@pytest.mark.parametrize("mask", [SEES, LATE])
def test_attention_to_itself_alone_has_none(mask):
    found = figures(identity(mask), mask)
    wanted = {"entropy": 0, "first": 1 / 5, "itself": 1, "virtual": 0, "distance": 0}
    assert found == pytest.approx(wanted)


def test_what_went_elsewhere_is_the_total_variation():
    even, own = (split(maps(SEES), SEES, range(0)) for maps in (uniform, identity))
    assert (variation(even, own, SEES) / 5).tolist() == pytest.approx([4 / 5, 4 / 5])
    half = Map(own.text / 2, torch.full((1, 2, 7, 1), 0.5).double())
    assert (variation(own, half, SEES) / 5).tolist() == pytest.approx([0.5, 0.5])


def test_virtual_tokens_have_a_share_of_their_own_and_no_distance():
    """Keys and values come before the text; three fifths of all attention go to two of them."""
    prompt = torch.tensor([0.4, 0.2]).double().expand(1, 2, 7, -1)
    before_all = torch.cat([prompt, 0.4 * identity(SEES)], -1)
    places = virtual_places(before_all, 7, 2, behind_first=True)
    assert places == range(2)
    found = figures(before_all, SEES, places)
    entropy = -(0.4 * log(0.4) + 0.2 * log(0.2) + 0.4 * log(0.4))
    wanted = {"entropy": entropy, "first": 0.08, "itself": 0.4, "virtual": 0.6, "distance": 0}
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("behind", [True, False])
def test_virtual_embeddings_stand_behind_the_first_token_of_an_encoder(behind):
    """They look somewhere too, which is not counted."""
    text, prompt = 0.5 * identity(SEES), torch.tensor([0.3, 0.2]).double().expand(1, 2, 7, -1)
    start = 1 if behind else 0
    wide = torch.zeros(1, 2, 9, 9).double()
    places = [at for at in range(9) if at not in (start, start + 1)]
    rows = torch.cat([text[..., :start], prompt, text[..., start:]], -1)
    wide[:, :, places] = rows
    wide[:, :, start : start + 2, 0] = 1.0
    assert virtual_places(wide, 7, 2, behind) == range(start, start + 2)
    found = figures(wide, SEES, range(start, start + 2))
    assert (found["virtual"], found["itself"], found["distance"]) == pytest.approx((0.5, 0.5, 0))
    assert found["first"] == pytest.approx(0.1)


def test_sums_of_batches_are_weighted_by_their_tokens():
    short = torch.tensor([[1, 1, 0]], dtype=torch.bool)
    sums = Sums()
    for mask in (SEES, short):
        sums.add(0, figures_of(split(uniform(mask), mask, range(0)), mask))
    assert sums.mean("entropy")[0] == pytest.approx([(5 * log(5) + 2 * log(2)) / 7] * 2)


def test_a_mean_over_nothing_is_unknown():
    sums = Sums()
    sums.add(0, {"distance": torch.zeros(2), "text": torch.tensor([0.0, 2.0])})
    assert sums.mean("distance", "text") == [[None, 0.0]]


def test_maps_without_all_that_is_seen_are_refused():
    with pytest.raises(Unsupported, match=r"is 0\.5 away from adding up to one"):
        split(0.5 * identity(SEES), SEES, range(0))
    with pytest.raises(Unsupported, match="away from adding up to one"):
        split(uniform(torch.ones_like(SEES)), SEES, range(0))  # padding is seen
    with pytest.raises(Unsupported, match="a map of 7 by 7 places for 5 tokens"):
        virtual_places(identity(SEES), 5, 0, behind_first=True)


# --- of models ------------------------------------------------------------------------------------


@pytest.fixture
def leave(tmp_path, places):
    """What a tiny job leaves, opened again, and where its rows are."""

    def run(job, there=places):
        return tiny.left(job, there, tmp_path / "left")[0], there

    return run


@pytest.fixture
def causal(tmp_path, monkeypatch):
    """Where a tiny language model and its tasks are."""
    tiny_causal.install(tmp_path / "spoken", monkeypatch)
    return Places(tmp_path / "spoken", ("mirror",), tmp_path / "cache")


def look_everywhere(monkeypatch):
    """The base's queries are zero, so that every key is as good."""
    real = module.load_base

    def load(*args):
        base = real(*args)
        without_queries(base.model)
        return base

    monkeypatch.setattr(module, "load_base", load)


def without_queries(model):
    """Every key is as good as another to it."""
    for name, weight in model.named_parameters():
        if ".query." in name or ".q_proj." in name:
            torch.nn.init.zeros_(weight)
    return model


def all_are(figures, value):
    """Whether a figure is the same in every layer and head."""
    return [*chain(*figures)] == pytest.approx([value] * sum(map(len, figures)), rel=1e-5)


def lengths(one, there, rows):
    """Tokens of the rows that are read."""
    batches = task_rows(one, there, rows)["evaluation"].batches
    return [int(n) for b in batches for n in b.inputs["attention_mask"].sum(1)]


def test_an_encoder_without_queries_looks_everywhere_and_its_training_is_seen(leave, monkeypatch):
    one, there = leave(tiny.job("lora"))
    look_everywhere(monkeypatch)
    found = attention(one, there, 11)
    n = lengths(one, there, 11)
    assert (found.rows, found.tokens, found.first) == (11, sum(n), "[CLS]") and len(set(n)) > 1
    before = found.before
    assert all_are(before.entropy, sum(k * log(k) for k in n) / sum(n))
    assert all_are(before.first, len(n) / sum(n)) and all_are(before.itself, len(n) / sum(n))
    assert all_are(before.distance, sum((k * k - 1) / 3 for k in n) / sum(n))
    assert before.virtual == [[0, 0]] * 2
    assert not all_are(found.after.entropy, before.entropy[0][0])
    assert min(map(min, found.moved)) > 0.01
    assert found.eager_difference < 1e-5


@pytest.mark.slow
def test_a_language_model_sees_what_is_before_in_rows_padded_on_the_left(
    leave, causal, monkeypatch
):
    one, there = leave(tiny_causal.job("lora", "tiny-rank", steps=4), causal)
    look_everywhere(monkeypatch)
    found = attention(one, there, 8)
    n = lengths(one, there, 8)
    assert found.first == "[BOS]" and len(set(n)) > 1
    seen = [at for k in n for at in range(1, k + 1)]
    before = found.before
    assert all_are(before.entropy, fmean(map(log, seen)))
    assert all_are(before.first, fmean(1 / k for k in seen))
    assert all_are(before.itself, fmean(1 / k for k in seen))
    assert all_are(before.distance, fmean((k - 1) / 2 for k in seen))


@pytest.mark.slow
def test_a_row_looks_the_same_with_and_without_padding(leave, tmp_path, monkeypatch):
    """GPT-2 learns its positions: the first token of a padded row must have the first one."""
    tiny_causal.install(tmp_path / "spoken", monkeypatch, "gpt2")
    spoken = Places(tmp_path / "spoken", ("mirror",), tmp_path / "cache")
    one, there = leave(tiny_causal.job("lora", steps=4), spoken)
    together = attention(one, there, 6)
    monkeypatch.setattr(module, "ROWS", 1)
    apart = attention(one, there, 6)
    for name in ("entropy", "first", "distance"):
        figures = [list(chain(*getattr(of.after, name))) for of in (together, apart)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-4)


@pytest.mark.slow
def test_what_a_layer_does_behind_its_attention_moves_the_attention_of_later_ones_alone(leave):
    found = attention(*leave(tiny.job("adapter")), 6)
    assert found.moved[0] == [0, 0]
    assert min(found.moved[1]) > 0


def shares_of_a_prompt(found):
    assert found.virtual_tokens == 2
    assert all(0.05 < share < 0.95 for heads in found.after.virtual for share in heads)
    assert set(chain(*found.before.virtual)) == {0}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning"])
def test_two_virtual_tokens_are_as_good_as_others_without_queries(leave, monkeypatch, method):
    one, there = leave(tiny.job(method, steps=4))
    real = type(one).load
    monkeypatch.setattr(type(one), "load", lambda self: without_queries(real(self)))
    found = attention(one, there, 11)
    shares_of_a_prompt(found)
    n = lengths(one, there, 11)
    after, tokens = found.after, sum(n)
    assert all_are(after.entropy, sum(k * log(k + 2) for k in n) / tokens)
    assert all_are(after.virtual, sum(2 * k / (k + 2) for k in n) / tokens)
    for share in (after.first, after.itself):
        assert all_are(share, sum(k / (k + 2) for k in n) / tokens)
    on_text = [k * k / (k + 2) for k in n]
    apart = [(k * k - 1) / (3 * k) for k in n]
    distance = sum(a * b for a, b in zip(on_text, apart, strict=True)) / sum(on_text)
    assert all_are(after.distance, distance)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning"])
def test_a_prompt_of_a_language_model_does_too(leave, causal, method):
    shares_of_a_prompt(attention(*leave(tiny_causal.job(method, steps=4), causal), 6))


@pytest.mark.slow
def test_a_prompt_in_some_layers_alone_takes_a_share_there_alone(leave):
    options = {"layers": "top", "depth": 1}
    found = attention(*leave(tiny.job("p-tuning-v2", options=options, steps=4)), 6)
    assert found.after.virtual[0] == [0, 0]
    assert min(found.after.virtual[1]) > 0.05


@pytest.mark.slow
def test_a_method_with_an_attention_of_its_own_is_refused(leave):
    one, there = leave(tiny.job("unipelt"))
    with pytest.raises(Unsupported, match="with which it is another model: a logit differs by"):
        attention(one, there, 6)


class Bare:
    """A model of two layers that gives no maps."""

    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=2))

    def __call__(self, **_):
        return SimpleNamespace(attentions=None)


@pytest.mark.slow
def test_a_model_that_gives_no_maps_is_refused(leave, monkeypatch):
    one, there = leave(tiny.job("lora", steps=4))
    with pytest.raises(Unsupported, match="Bare gives 0 attention maps for its 2 layers"):
        module.maps_of(Bare(), task_rows(one, there, 2)["evaluation"].batches[0], one)
    config = SimpleNamespace(is_adaption_prompt=True)
    prompted = SimpleNamespace(active_peft_config=config)
    monkeypatch.setattr(module, "PeftModel", SimpleNamespace)
    with pytest.raises(Unsupported, match="an attention of its own, which no map shows"):
        module.virtual_tokens(prompted)
