"""P-tuning v2 in the top or bottom layers alone: which layers attend to trained keys and values."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
import transformers

import citizen
import tiny
import tiny_causal
from citizen import build, check, inputs
from peftmark.catalog.methods import METHODS
from peftmark.lab import recipe
from peftmark.lab.data.causal_rows import write
from peftmark.lab.methods import trainable
from peftmark.lab.methods.some_layers import chosen_layers, layers_of
from peftmark.lab.models import Unsupported
from peftmark.sources.assets import Places

LAYERS, TOKENS = 4, 3
CELLS = [("all", 0), ("top", 0), ("bottom", 0), ("top", 2), ("bottom", 3), ("top", 4)]


def options(which, depth):
    return METHODS["p-tuning-v2"].resolved_options({"layers": which, "depth": depth})


def cell(which, depth, **settings):
    return citizen.job("p-tuning-v2", options=options(which, depth), rank=TOKENS, **settings)


@pytest.fixture
def folder(request, tmp_path, monkeypatch):
    """A tiny encoder of four layers."""
    name = getattr(request, "param", "bert")
    make = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}[name]
    config = make(**{**tiny.SMALL, "num_hidden_layers": LAYERS})
    monkeypatch.setitem(tiny.CONFIGS, name, lambda: config)
    tiny.make_model(tmp_path / name, name)
    return tmp_path / name


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A tiny language model of four layers."""
    config = transformers.LlamaConfig(
        hidden_size=64, num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=96, max_position_embeddings=64, **tiny_causal.SIZES,
    )  # fmt: skip
    monkeypatch.setitem(tiny_causal.CONFIGS, "llama", lambda: config)
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


def reading(base, model, given):
    """The numbers of the layers whose output is not that of the base's own layer without a prompt,
    given the same hidden states."""
    passed = []

    def note(layer, args, kwargs, output):
        bound = inspect.signature(layer.forward).bind(*args, **kwargs)
        mask = bound.arguments["attention_mask"]
        bound.arguments |= {
            "attention_mask": mask if mask is None else mask[..., TOKENS:],
            "past_key_values": None,
        }
        passed.append((bound, output))

    layers = layers_of(model.get_base_model())
    handles = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    model.eval()
    with torch.no_grad():
        model(**given)
        found = []
        for at, (plain, (bound, output)) in enumerate(zip(layers_of(base), passed, strict=True)):
            wanted = plain.eval()(*bound.args, **bound.kwargs)
            whole = (wanted, output) if torch.is_tensor(output) else (wanted[0], output[0])
            if not torch.allclose(*whole, atol=1e-5):
                found.append(at)
    for handle in handles:
        handle.remove()
    return found


def padded():
    """The rows of `citizen.inputs`, three of them with five more places that are padding."""
    ids = torch.nn.functional.pad(inputs()["input_ids"], (0, 5), value=7)
    mask = torch.ones_like(ids)
    mask[:3, 9:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize(
    ("which", "depth", "layers", "wanted"),
    [
        ("all", 0, 3, [0, 1, 2]),
        ("top", 0, 12, [8, 9, 10, 11]),
        ("bottom", 0, 12, [0, 1, 2, 3]),
        ("top", 0, 6, [4, 5]),
        ("bottom", 0, 2, [0]),
        ("top", 1, 6, [5]),
        ("bottom", 6, 6, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_third_of_the_layers_or_as_many_as_are_asked_for(which, depth, layers, wanted):
    assert chosen_layers(which, depth, layers) == wanted


@pytest.mark.parametrize("folder", ["bert", "roberta"], indirect=True)
@pytest.mark.parametrize(("which", "depth"), CELLS)
def test_only_those_layers_of_an_encoder_attend_to_a_prompt(folder, which, depth):
    base, prepared, _ = build(folder, cell(which, depth))
    wanted = chosen_layers(which, depth, LAYERS)
    assert reading(base, prepared.model, inputs()) == wanted
    assert reading(base, prepared.model, padded()) == wanted


@pytest.mark.parametrize(("which", "depth"), CELLS)
def test_only_those_layers_of_a_language_model_attend_to_a_prompt(places, which, depth):
    job = tiny_causal.job("p-tuning-v2", rank=TOKENS, options=options(which, depth))
    base, prepared = tiny_causal.built(places, job)
    wanted = chosen_layers(which, depth, LAYERS)
    for batch in tiny.work(places, job).preview(2):
        assert reading(base, prepared.model, batch.inputs) == wanted


@pytest.mark.parametrize(("which", "depth"), CELLS)
def test_what_trains_is_as_much_as_the_layers_need(folder, tmp_path, which, depth):
    prepared = check(folder, tmp_path / "saved", cell(which, depth), identity=False)
    prompt = [p.numel() for name, p in trainable(prepared.model) if "prompt_encoder" in name]
    assert prompt == [len(chosen_layers(which, depth, LAYERS)) * 2 * 64 * TOKENS]
    assert bool(prepared.beyond) == (prompt[0] < LAYERS * 2 * 64 * TOKENS)


@pytest.mark.parametrize("which", ["top", "bottom"])
def test_an_answer_is_written_token_by_token_as_from_the_whole_text(places, which):
    job = tiny_causal.job("p-tuning-v2", "tiny-answer", rank=TOKENS, options=options(which, 2))
    _, prepared = tiny_causal.built(places, job)
    model = prepared.model.eval()
    answers = tiny.work(places, job).eval.answers
    batch = answers.batches[0]
    for row, told in enumerate(write(model, batch, answers.reader, 6)[:4]):
        text = batch.inputs["input_ids"][row][batch.inputs["attention_mask"][row].bool()].tolist()
        for token in told:
            ids = torch.tensor([text])
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            assert int(logits[0, -1].argmax()) == token
            text.append(token)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["top", "bottom"])
def test_a_job_of_some_layers_is_saved_and_its_memory_foreseen(places, which):
    job = tiny_causal.job("p-tuning-v2", rank=TOKENS, steps=4, options=options(which, 0))
    done = recipe.run(job, places, lambda _: None)
    assert done.status == "ok", done.status_reason
    assert done.reload_max_error < 1e-4
    assert done.live_bytes is not None
    assert done.live_bytes == done.predicted_live_bytes
    assert math.isfinite(done.metrics["accuracy"])


def test_more_layers_than_there_are_are_refused(folder):
    with pytest.raises(Unsupported, match="depth is 5, and the model has 4 layers; at most that"):
        build(folder, cell("top", 5))


def test_all_layers_is_what_a_job_did_before_there_was_the_option():
    assert options("all", 0) == {}
    assert options("top", 0) == {"layers": "top"}
