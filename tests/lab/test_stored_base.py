"""Checkpoints of one's own that are quantised already: the same numbers as those quantised here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import transformers

import tiny
import tiny_causal
from peftmark.core.hashes import forget_hashes
from peftmark.lab.data.job_data import task_of
from peftmark.lab.errors import Unsupported
from peftmark.lab.export.forms import float_base, form_of
from peftmark.lab.export.write import write
from peftmark.lab.models import anatomy, load_model
from peftmark.lab.quantization.table import is_quantised
from peftmark.lab.quantized_cache import load_base
from peftmark.lab.recipe import run
from peftmark.own.declared_model import OwnModel as Declared
from peftmark.own.model import read_own_model
from peftmark.record.own_model import carried_model
from peftmark.sources.assets import Places
from peftmark.sources.own_models import keep_own_model

DOUBLE = {"nf4": True, "fp4": True, "int8": None}


def store(source, folder, quantization, whole=None, double=True, shards="1GB"):
    """A folder's model, quantised and saved by transformers alone, as people do it."""
    settings = (
        {"load_in_8bit": True}
        if quantization == "int8"
        else {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": quantization,
            "bnb_4bit_use_double_quant": double,
            "bnb_4bit_compute_dtype": torch.bfloat16,
        }
    )
    config = transformers.BitsAndBytesConfig(**settings, llm_int8_skip_modules=whole)
    kind = transformers.AutoConfig.from_pretrained(source).model_type
    causal = kind in ("llama", "gpt2")
    make = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    model = make.from_pretrained(source, quantization_config=config, device_map={"": "cpu"})
    model.save_pretrained(folder, max_shard_size=shards)
    (tiny_causal if causal else tiny).tokenizer().save_pretrained(folder)
    return folder


def stored_job(places, folder, job):
    """A job on a folder's model, whose place is noted in the cache."""
    forget_hashes()
    found = read_own_model("mine", Declared(path=str(folder)), [folder])
    keep_own_model(found.model, found.folder, found.hashes, found.source, places.cache)
    carried = carried_model(found.model)
    recipe = replace(job.recipe, double_quantization=carried.stored_double or None)
    if carried.stored_as == "int8":
        recipe = replace(recipe, double_quantization=None)
    return replace(
        job,
        model="mine",
        model_identity=found.model.identity,
        own_model=carried,
        quantization=carried.stored_as,
        recipe=recipe,
    )


def based(folder, job):
    task = task_of(job)
    return load_model(folder, job, task, anatomy(folder, task))


@pytest.mark.heavy
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.sweep(1)
def test_a_stored_base_trains_to_the_bits_of_one_that_is_quantised_here(
    places, tmp_path, quantization
):
    source = places.mirror / "models" / "tiny"
    folder = store(source, tmp_path / "mine", quantization, whole=["pooler"])
    plain = tiny.job(quantization=quantization, steps=4, precision="bf16")
    job = stored_job(places, folder, plain)
    done, known = (run(one, places, lambda _: None) for one in (job, plain))
    assert (done.status, known.status) == ("ok", "ok"), done.status_reason
    assert done.final_weights_hash == known.final_weights_hash
    assert done.total_parameters == known.total_parameters
    assert done.predicted_live_bytes == known.predicted_live_bytes
    assert done.live_bytes and done.live_bytes == known.live_bytes == done.predicted_live_bytes
    assert done.base_format == known.base_format
    assert done.reload_max_error < 1e-5


@pytest.mark.heavy
@pytest.mark.slow
def test_a_stored_language_model_trains_to_the_bits_of_one_that_is_quantised_here(
    tmp_path, monkeypatch
):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    folder = store(places.mirror / "models" / "tiny", tmp_path / "mine", "nf4", double=False)
    plain = tiny_causal.job(quantization="nf4", steps=4)
    plain = replace(plain, recipe=replace(plain.recipe, double_quantization=None))
    job = stored_job(places, folder, plain)
    plain = replace(plain, recipe=replace(plain.recipe, double_quantization=False))
    job = replace(job, recipe=plain.recipe)
    done, known = (run(one, places, lambda _: None) for one in (job, plain))
    assert (done.status, known.status) == ("ok", "ok"), done.status_reason
    assert done.final_weights_hash == known.final_weights_hash
    assert done.metric_value == known.metric_value
    assert done.live_bytes and done.live_bytes == known.live_bytes == done.predicted_live_bytes


def test_layers_that_a_checkpoint_left_whole_stay_whole_and_are_predicted(places, tmp_path):
    source = places.mirror / "models" / "tiny"
    folder = store(source, tmp_path / "mine", "nf4", whole=["encoder.layer.1", "pooler"])
    job = stored_job(places, folder, tiny.job(steps=4))
    model = based(folder, job)
    packed = {n for n, p in model.named_parameters() if is_quantised(p)}
    assert packed and all(name.startswith("bert.encoder.layer.0.") for name in packed)
    assert type(model.bert.encoder.layer[1].output.dense) is torch.nn.Linear
    whole = transformers.AutoModel.from_pretrained(source)
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(model.get_parameter(f"bert.{name}"), whole.get_parameter(name))
    done = run(job, places, lambda _: None)
    assert done.status == "ok", done.status_reason
    assert done.live_bytes and done.live_bytes == done.predicted_live_bytes
    assert done.total_parameters == run(tiny.job(steps=4), places, lambda _: None).total_parameters


def test_layers_that_are_whole_without_being_named_are_refused(places, tmp_path):
    source = places.mirror / "models" / "tiny"
    folder = store(source, tmp_path / "mine", "nf4", whole=["encoder.layer.1", "pooler"])
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"]["llm_int8_skip_modules"] = None
    path.write_text(json.dumps(config))
    job = stored_job(places, folder, tiny.job())
    with pytest.raises(Unsupported, match=r"6 of the 12 linear layers of mine are whole in its"):
        based(folder, job)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_pooler_that_is_packed_is_a_plain_layer_of_its_numbers(places, tmp_path, quantization):
    source = places.mirror / "models" / "tiny"
    folder = store(source, tmp_path / "mine", quantization)
    model = based(folder, stored_job(places, folder, tiny.job()))
    whole = transformers.AutoModel.from_pretrained(source).pooler.dense.weight.detach()
    found = model.bert.pooler.dense.weight.detach()
    assert type(model.bert.pooler.dense) is torch.nn.Linear
    assert found.dtype == torch.float32 and not torch.equal(found, whole)
    step = {"nf4": 0.16, "int8": 0.5 / 127}[quantization] * whole.abs().max()
    assert float((found - whole).abs().max()) <= float(step)


def test_a_stored_base_is_the_same_from_the_cache_and_for_every_seed(places, tmp_path):
    folder = store(places.mirror / "models" / "tiny", tmp_path / "mine", "nf4")
    job = stored_job(places, folder, tiny.job())
    task = task_of(job)
    parts = anatomy(folder, task)
    first, other = (
        load_base(folder, replace(job, seed=seed), task, parts, places.cache) for seed in (0, 1)
    )
    assert first.quantise_seconds == 0
    assert not torch.equal(first.model.classifier.weight, other.model.classifier.weight)
    state = other.model.state_dict()
    for name, value in first.model.state_dict().items():
        if not name.startswith("classifier."):
            assert torch.equal(value, state[name]), name
    assert not (places.cache / "bases").exists()  # nothing is copied


def test_layers_compute_in_the_jobs_type_whatever_the_checkpoint_says(places, tmp_path):
    folder = store(places.mirror / "models" / "tiny", tmp_path / "mine", "nf4")
    model = based(folder, stored_job(places, folder, tiny.job(precision="fp32")))
    layer = model.bert.encoder.layer[0].output.dense
    assert layer.compute_dtype == torch.float32  # the checkpoint says bfloat16


def test_loftq_has_no_whole_weights_to_start_from(places, tmp_path):
    folder = store(places.mirror / "models" / "tiny", tmp_path / "mine", "nf4")
    job = stored_job(places, folder, tiny.job("loftq", quantization="nf4"))
    with pytest.raises(Unsupported, match="before they were quantised"):
        task = task_of(job)
        build = tiny.Build(job, task, folder, anatomy(folder, task), tiny.work(places, job))
        build.prepare(build.base())


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantization", "whole", "merged", "with_base", "form"),
    [
        ("nf4", ["pooler"], False, False, "adapter"),
        ("nf4", ["encoder.layer.1"], False, True, "adapter"),
        ("nf4", ["encoder.layer.1"], True, False, "model"),
        ("int8", ["pooler"], False, False, "adapter"),
    ],
)
def test_an_export_from_a_stored_base_is_the_trained_model(
    places, tmp_path, unprobed, quantization, whole, merged, with_base, form
):
    folder = store(places.mirror / "models" / "tiny", tmp_path / "mine", quantization, whole)
    job = stored_job(places, folder, tiny.job(steps=4, train_pooler=True))
    one, done = tiny.left(job, places, tmp_path / "left")
    assert done.status == "ok", done.status_reason
    (tmp_path / "out").mkdir()
    found = write(one, tmp_path / "out", merged, with_base)
    assert (found.form, found.with_base) == (form, with_base)
    assert found.difference < 1e-4 if quantization != "int8" else found.difference < 0.2


@pytest.mark.heavy
def test_whole_numbers_of_a_stored_base_are_its_function(places, tmp_path, unprobed):
    """And an adapter alone can't be exported from where what it trained beside was packed."""
    folder = store(places.mirror / "models" / "tiny", tmp_path / "mine", "nf4")
    job = stored_job(places, folder, tiny.job(steps=4, train_pooler=True))
    one, done = tiny.left(job, places, tmp_path / "left")
    assert done.status == "ok", done.status_reason
    with pytest.raises(Unsupported, match=r"bert\.pooler\.dense trained as a plain.*--with-base"):
        form_of(one, merged=False)
    assert (form_of(one, True), form_of(one, False, with_base=True)) == ("model", "adapter")
    base = float_base(one)
    assert not any(map(is_quantised, base.parameters()))
    assert {p.dtype for p in base.parameters()} == {torch.float32}
    base.save_pretrained(tmp_path / "whole")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    assert not hasattr(again.config, "quantization_config")
    packed = based(folder, job).eval()
    given = {"input_ids": torch.tensor([[2, 5, 9, 3]])}
    with torch.no_grad():
        apart = (again.eval()(**given).logits - packed(**given).logits).abs().max()
    assert float(apart) < 1e-4


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["deberta-v2", "distilbert", "mpnet", "roberta"])
def test_other_encoders_are_trained_and_exported(tmp_path, monkeypatch, unprobed, architecture):
    tiny.install(tmp_path / "mirror", monkeypatch, architecture)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    folder = store(places.mirror / "models" / "tiny", tmp_path / "mine", "nf4")
    one, done = tiny.left(stored_job(places, folder, tiny.job(steps=4)), places, tmp_path / "left")
    assert done.status == "ok", done.status_reason
    for merged in (False, True):
        target = tmp_path / f"out-{merged}"
        target.mkdir()
        assert write(one, target, merged, with_base=not merged).difference < 1e-4


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")  # PEFT sets it right itself
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("shards", ["1GB", "40KB"])
def test_language_models_in_shards_and_with_turned_weights_are_trained_and_exported(
    tmp_path, monkeypatch, unprobed, architecture, shards
):
    tiny_causal.install(tmp_path / "mirror", monkeypatch, architecture)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    source = places.mirror / "models" / "tiny"
    folder = store(source, tmp_path / "mine", "nf4", shards=shards)
    assert len(list(folder.glob("*.safetensors"))) == 1 or shards == "40KB"
    job = stored_job(places, folder, tiny_causal.job("lora", "tiny-rank", steps=4))
    one, done = tiny.left(job, places, tmp_path / "left")
    assert done.status == "ok", done.status_reason
    for merged in (False, True):
        target = tmp_path / f"out-{merged}"
        target.mkdir()
        assert write(one, target, merged).difference < 1e-4


def test_turned_weights_are_unpacked_into_turned_layers(tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch, "gpt2")
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    source = places.mirror / "models" / "tiny"
    folder = store(source, tmp_path / "mine", "nf4")
    job = stored_job(places, folder, tiny_causal.job("lora", "tiny-rank"))
    plain = based(folder, replace(job, quantization="none"))
    whole = transformers.AutoModelForCausalLM.from_pretrained(source)
    for name, value in whole.state_dict().items():
        assert plain.state_dict()[name].shape == value.shape, name
    name = "transformer.h.0.mlp.c_fc.weight"
    apart = (plain.state_dict()[name] - whole.state_dict()[name]).abs().max()
    assert 0 < float(apart) <= 0.16 * float(whole.state_dict()[name].abs().max())
