"""Any architecture of transformers: where adapters sit, what is quantised, what comes back."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn

import tiny
from peftmark.catalog.tried_architectures import METHODS, SMALL, TRIED
from peftmark.lab import last_token, recipe
from peftmark.lab.architecture_trials import (
    KINDS,
    job_of,
    library_says,
    make_tiny,
    target_names,
    task_of,
    tiny_config,
    trained,
    trial,
)
from peftmark.lab.data.batches import Shape
from peftmark.lab.last_token import read_last_token
from peftmark.lab.memory.meta_model import blank
from peftmark.lab.memory.worker import Asked, answer
from peftmark.lab.models import (
    Unsupported,
    adapter_targets,
    anatomy,
    anatomy_of,
    is_linear,
    load_model,
    maker_of,
    target_notes,
)
from peftmark.lab.quantization.table import is_quantised
from peftmark.lab.quantized_cache import load_base
from peftmark.record.job import Form
from peftmark.sources.assets import Places

ALL = [(key, made) for key, tried in TRIED.items() for made in tried.classes]
QUICK = [("gpt2", "classifier"), ("modernbert", "classifier"), ("phi3", "language model")]
WHOLE = "query and value are one layer in this architecture: query, key and value are adapted"


@pytest.mark.parametrize("key", TRIED)
def test_the_list_says_which_classes_transformers_has(key):
    config = tiny_config(key, "classifier")
    has = tuple(
        made for made, kind in KINDS.items() if type(config) in maker_of(kind)._model_mapping
    )
    assert TRIED[key].classes == has


@pytest.mark.parametrize(("key", "made"), ALL)
def test_all_linear_is_every_linear_layer_between_embeddings_and_head(key, made):
    model = blank(tiny_config(key, made), KINDS[made])
    parts = anatomy_of(model)
    every = {name for name, module in model.named_modules() if is_linear(module)}
    targets = adapter_targets(job_of(key, made, "lora"), parts)
    assert set(targets) | set(parts.head_linears) == every
    assert not set(targets) & set(parts.head_linears)
    assert all(name.startswith(f"{model.base_model_prefix}.") for name in targets)
    assert len(targets) >= 7
    # A language model trains nothing but the adapter; a classifier has a head.
    assert bool(parts.head) == (made == "classifier")
    assert all(any(True for _ in model.get_submodule(n).parameters()) for n in parts.head)


@pytest.mark.parametrize(
    ("key", "query_value", "attention"),
    [
        ("gpt2", ["attn.c_attn"], ["attn.c_attn", "attn.c_proj"]),
        ("modernbert", ["attn.Wqkv"], ["attn.Wqkv", "attn.Wo"]),
        ("phi3", ["self_attn.qkv_proj"], ["self_attn.o_proj", "self_attn.qkv_proj"]),
        (
            "gpt_neox",
            ["attention.query_key_value"],
            ["attention.query_key_value", "attention.dense"],
        ),
        (
            "falcon",
            ["self_attention.query_key_value"],
            ["self_attention.query_key_value", "self_attention.dense"],
        ),
        (
            "bloom",
            ["self_attention.query_key_value"],
            ["self_attention.query_key_value", "self_attention.dense"],
        ),
    ],
)
def test_where_query_key_and_value_are_one_layer_it_stands_for_each(key, query_value, attention):
    assert list(target_names(key, "classifier", "query-value")) == query_value
    assert list(target_names(key, "classifier", "attention")) == attention
    parts = anatomy_of(blank(tiny_config(key, "classifier")))
    made = [job_of(key, "classifier", "lora", targets=t) for t in ("query-value", "attention")]
    assert [target_notes(job, parts) for job in made] == [[WHOLE], []]


@pytest.mark.parametrize("key", ["qwen3", "gemma2", "gemma3_text", "olmo2", "granite", "smollm3"])
def test_an_architecture_with_llamas_names_is_read_as_llama_is(key):
    made = TRIED[key].classes[-1]
    assert target_names(key, made, "query-value") == ("self_attn.q_proj", "self_attn.v_proj")
    assert target_names(key, made, "all-linear") == target_names("llama", made, "all-linear")
    job = job_of(key, made, "lora", targets="query-value")
    assert target_notes(job, anatomy_of(blank(tiny_config(key, made), KINDS[made]))) == []


def test_albert_says_that_its_layers_share_their_weights(tmp_path):
    make_tiny("albert", "classifier", tmp_path)
    job = job_of("albert", "classifier", "lora", targets="attention")
    prepared, _ = trained(tmp_path, "classifier", job)
    assert len(prepared.ranks()) == 4  # of one stored layer, which runs twice
    found = trial(tmp_path, "classifier", job)
    assert "2 layers share one set of weights" in found.notes[0]
    assert "counted once" in found.notes[0]


@pytest.mark.parametrize(("key", "made"), QUICK)
def test_every_adapter_is_in_the_forward_pass(key, made, tmp_path):
    make_tiny(key, made, tmp_path)
    prepared, _ = trained(tmp_path, made, job_of(key, made, "lora"))
    ups = [p for name, p in prepared.model.named_parameters() if "lora_B" in name]
    assert len(ups) == len(prepared.ranks()) > 0
    assert all(bool(p.any()) for p in ups)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize(("key", "made"), QUICK)
def test_lora_trains_and_comes_back_as_it_was(key, made, quantization, tmp_path):
    make_tiny(key, made, tmp_path)
    found = trial(tmp_path, made, job_of(key, made, "lora", quantization))
    assert found.reason == "" and found.error is not None and found.error <= 1e-5
    assert found.adapted == 8


@pytest.mark.slow
@pytest.mark.parametrize(("title", "method", "quantization"), METHODS)
@pytest.mark.parametrize(("key", "made"), ALL)
def test_everything_trains_and_comes_back_or_the_library_says_why(
    key, made, title, method, quantization, tmp_path
):
    make_tiny(key, made, tmp_path)
    found = trial(tmp_path, made, job_of(key, made, method, quantization))
    if found.error is None:
        assert (key, quantization) == ("falcon", "nf4"), found.reason
        assert "no linear modules were found" in library_says(key, made, quantization)
    else:
        assert found.error <= 1e-5, title


@pytest.mark.parametrize("key", ["gpt2", "modernbert", "albert", "deberta-v2", "opt"])
def test_everything_but_the_head_is_quantised(key, tmp_path):
    make_tiny(key, "classifier", tmp_path)
    task, job = task_of("classifier"), job_of(key, "classifier", "lora", "nf4")
    parts = anatomy(tmp_path, task)
    model = load_model(tmp_path, job, task, parts)
    packed = {name.rpartition(".")[0] for name, p in model.named_parameters() if is_quantised(p)}
    assert packed == set(parts.encoder_linears)
    assert all(isinstance(model.get_submodule(n), nn.Linear) for n in parts.head_linears)


def test_layers_that_the_library_leaves_whole_are_not_taken_for_quantised(tmp_path):
    make_tiny("falcon", "classifier", tmp_path)
    found = trial(tmp_path, "classifier", job_of("falcon", "classifier", "lora", "nf4"))
    assert found.error is None
    assert "leaves 8 of the 8 linear layers of falcon as they are" in found.reason
    assert "FalconLinear" in found.reason
    assert "no linear modules were found" in library_says("falcon", "classifier", "nf4")
    assert trial(tmp_path, "classifier", job_of("falcon", "classifier", "lora")).error == 0


@pytest.mark.parametrize(
    ("key", "made", "says"),
    [
        ("granite", "classifier", "no sequence classifier of type granite"),
        ("distilbert", "language model", "no language model of type distilbert"),
    ],
)
def test_a_class_that_transformers_lacks_is_refused_as_it_refuses_it(key, made, says, tmp_path):
    make_tiny(key, TRIED[key].classes[0], tmp_path)
    with pytest.raises(Unsupported, match=says):
        anatomy(tmp_path, task_of(made))
    assert library_says(key, made).startswith("ValueError: Unrecognized configuration class")


def test_an_encoder_that_would_see_what_it_is_to_predict_is_refused(tmp_path):
    make_tiny("bert", "classifier", tmp_path)
    with pytest.raises(Unsupported, match=r"reads in both directions .* is_decoder: false"):
        anatomy(tmp_path, task_of("language model"))
    make_tiny("bert", "language model", tmp_path)
    assert anatomy(tmp_path, task_of("language model")).head == ()


# --- decoders as classifiers ----------------------------------------------------------------------


@pytest.mark.parametrize("key", ["gpt2", "llama", "opt", "gpt_neox", "gemma3_text"])
def test_a_decoder_reads_the_last_real_token_of_each_row(key, tmp_path, monkeypatch):
    make_tiny(key, "classifier", tmp_path)
    task, job = task_of("classifier"), job_of(key, "classifier", "full")
    parts = anatomy(tmp_path, task)
    with monkeypatch.context() as patched:
        # The tokenizer was asked once, and not by every load.
        patched.setattr(last_token.AutoTokenizer, "from_pretrained", None)
        model = load_model(tmp_path, job, task, parts).eval()
    prepared, batches = trained(tmp_path, "classifier", job)
    ids, mask = (batches[0].inputs[name] for name in ("input_ids", "attention_mask"))
    pad = model.config.pad_token_id
    assert pad is not None and model.config.use_cache is False
    with torch.no_grad():
        together = model(input_ids=ids, attention_mask=mask).logits
        for row, length in enumerate(mask.sum(1).tolist()):
            assert (ids[row, length:] == pad).all()
            alone = model(input_ids=ids[row : row + 1, :length]).logits
            torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)
    assert len({round(float(x), 4) for x in together[:, 0]}) == len(together)
    assert prepared.model.get_submodule("score").weight.requires_grad


def test_a_decoder_without_padding_token_and_end_of_text_is_refused():
    model = blank(tiny_config("llama", "classifier"))
    with pytest.raises(Unsupported, match=r"padding token or an end of text.* has neither"):
        read_last_token(model, None)
    with pytest.raises(Unsupported, match="token 64, beyond its 64 tokens"):
        read_last_token(model, 64)
    read_last_token(model, 63)
    assert model.config.pad_token_id == 63


def test_an_encoders_configuration_is_left_as_it_is():
    model = blank(tiny_config("bert", "classifier"))
    read_last_token(model, None)
    assert model.config.pad_token_id == 0


@pytest.fixture
def decoder(tmp_path, monkeypatch):
    """A decoder without padding token, as a classifier of the tiny tasks, by its own tokenizer."""
    wide = {"vocab_size": tiny.SMALL["vocab_size"], "n_positions": 40, "eos_token_id": 3}
    made = transformers.GPT2Config(n_embd=64, n_layer=2, n_head=2, bos_token_id=2, **wide)
    monkeypatch.setitem(tiny.CONFIGS, "gpt2", lambda: made)
    complete = tiny.tokenizer

    def without_padding():
        found = complete()
        found.pad_token, found.eos_token = None, "[SEP]"
        return found

    monkeypatch.setattr(tiny, "tokenizer", without_padding)
    tiny.install(tmp_path / "mirror", monkeypatch, "gpt2")
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_decoder_without_padding_token_classifies_in_a_whole_job(decoder, quantization):
    job = tiny.job("lora", quantization, targets="query-value", steps=40)
    done = recipe.run(job, decoder, lambda message: None)
    assert done.status == "ok", done.status_reason
    assert done.metric_value > done.baseline_value + 0.1
    assert WHOLE in done.warnings
    assert done.reload_max_error <= 1e-5
    assert done.adapter_parameters == 2 * 2 * (64 + 192)  # rank 2 in c_attn of two layers
    assert abs(done.prediction_error) < 0.01
    again = recipe.run(job, decoder, lambda message: None)  # its quantised base is in the cache
    assert again.final_weights_hash == done.final_weights_hash


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning-v2", "peft:p_tuning"])
def test_virtual_tokens_before_a_decoder_without_padding_token_in_a_whole_job(decoder, method):
    job = tiny.job(method, rank=4, steps=6)
    done = recipe.run(job, decoder, lambda message: None)
    assert done.status == "ok", done.status_reason
    assert done.reload_max_error <= 1e-5
    assert done.live_bytes is not None
    assert done.live_bytes == done.predicted_live_bytes
    assert done.merge_max_error is None


@pytest.mark.parametrize(
    "kind", ["prompt_tuning", "p_tuning", "prefix_tuning", "multitask_prompt_tuning"]
)
def test_pefts_own_prompts_stand_before_a_decoder_that_classifies(tmp_path, kind):
    make_tiny("llama", "classifier", tmp_path)
    asked = job_of("llama", "classifier", f"peft:{kind}")
    assert trial(tmp_path, "classifier", asked).error < 1e-6
    prepared, _ = trained(tmp_path, "classifier", asked)
    assert ("last one" in prepared.beyond) == (kind != "prefix_tuning")


def test_unipelt_on_fused_layers_is_refused(decoder):
    with pytest.raises(Unsupported, match="one by one, which are not known"):
        tiny.build(decoder, tiny.job("unipelt", rank=2))


@pytest.mark.parametrize(
    "method", ["pissa", "olora", "eva", "corda", "lora-ga", "kasa", "mica", "milora"]
)
def test_methods_that_read_weights_the_usual_way_are_refused_on_turned_ones(decoder, method):
    with pytest.raises(Unsupported, match=rf"{method} reads the weights .* \(Conv1D\)"):
        tiny.build(decoder, tiny.job(method))


def test_peft_is_told_of_turned_weights_without_a_warning(tmp_path):
    make_tiny("gpt2", "classifier", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        for method in ("lora", "adalora", "dora"):
            trained(tmp_path, "classifier", job_of("gpt2", "classifier", method))


# --- what else is different -----------------------------------------------------------------------


def test_the_part_of_a_head_that_is_pretrained_is_not_drawn_anew_from_the_cache(tmp_path):
    torch.manual_seed(7)
    config = tiny_config("modernbert", "classifier")
    folder = tmp_path / "base"
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    task, job = task_of("classifier"), job_of("modernbert", "classifier", "lora", "nf4")
    parts = anatomy(folder, task)
    plain = load_model(folder, job, task, parts)
    kept = [load_base(folder, job, task, parts, tmp_path / "cache").model for _ in range(2)]
    for name in ("head.dense", "head.norm", "classifier"):
        here = plain.get_submodule(name).weight
        assert all(torch.equal(here, model.get_submodule(name).weight) for model in kept), name


@pytest.mark.parametrize("key", ["electra", "albert"])
def test_virtual_tokens_are_as_wide_as_embeddings(key, tmp_path):
    make_tiny(key, "classifier", tmp_path)
    for method in ("prompt-tuning", "p-tuning"):
        found = trial(tmp_path, "classifier", job_of(key, "classifier", method))
        assert found.error is not None and found.error <= 1e-5, found.reason


def test_deberta_attends_over_a_quantised_base_in_bf16(tmp_path):
    make_tiny("deberta-v2", "classifier", tmp_path)
    job = job_of("deberta-v2", "classifier", "lora", "nf4", precision="bf16")
    found = trial(tmp_path, "classifier", job)
    assert found.error is not None and found.error <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "made"),
    [
        ("llama", "classifier"),
        ("gpt2", "classifier"),
        ("qwen2", "language model"),
        ("deberta-v2", "classifier"),
        ("mpnet", "classifier"),
        ("gemma2", "classifier"),
        ("bloom", "language model"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_step_is_predicted_from_a_bare_configuration(key, made, device):
    """No architecture fails for a padding token that its config lacks, nor for an attention that it
    has not."""
    plain = {**SMALL, **TRIED[key].settings, "model_type": key}
    job = replace(job_of(key, made, "lora", "nf4", precision="bf16"), device=device)
    labels = 3 if made == "classifier" else 1
    asked = Asked([job], plain, KINDS[made], labels, 4, 12, True, Form(), None, False)
    (told,) = answer(asked)
    assert "reason" not in told, told
    assert told["allocated"] > 100_000


def test_a_quantised_falcon_is_predicted_as_it_is_refused():
    plain = {**SMALL, **TRIED["falcon"].settings, "model_type": "falcon"}
    job = job_of("falcon", "classifier", "lora", "nf4")
    (told,) = answer(Asked([job], plain, "classification", 3, 4, 12, True, Form(), None, False))
    assert "leaves 8 of the 8 linear layers" in told["reason"]


def test_padded_shapes_are_what_a_batch_of_trials_has(tmp_path):
    make_tiny("gpt2", "classifier", tmp_path)
    _, batches = trained(tmp_path, "classifier", job_of("gpt2", "classifier", "lora"))
    assert batches[0].shape == Shape(4, 12, padded=True)
