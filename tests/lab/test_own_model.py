"""Models of the user's own in the lab: trained end to end, and what their weights must hold."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import transformers

import tiny
from peftmark.core.hashes import forget_hashes
from peftmark.lab.architecture_trials import tiny_config
from peftmark.lab.data.job_data import task_of
from peftmark.lab.models import Unsupported, anatomy, load_model
from peftmark.lab.quantized_cache import load_base
from peftmark.lab.recipe import run
from peftmark.own.declared_model import OwnModel as Declared
from peftmark.own.model import read_own_model
from peftmark.record.own_model import OwnModel, carried_model
from peftmark.sources.own_models import keep_own_model, own_model_files


def own_job(places, folder, **declared):
    """A job on a folder of one's own, whose place is noted in the cache."""
    found = read_own_model("mine", Declared(path=str(folder), **declared), [folder])
    keep_own_model(found.model, found.folder, found.hashes, found.source, places.cache)
    return replace(
        tiny.job(),
        model="mine",
        model_identity=found.model.identity,
        own_model=carried_model(found.model),
    )


def load(folder, job):
    task = task_of(job)
    return load_model(folder, job, task, anatomy(folder, task))


def head_of(model):
    return model.classifier.weight.detach().clone()


@pytest.mark.heavy
def test_a_folder_of_ones_own_trains_end_to_end(places, tmp_path, unpredicted):
    folder = tmp_path / "elsewhere" / "encoder"
    tiny.make_model(folder, "bert")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    outcome = run(own_job(places, folder), places, lambda _: None)
    assert outcome.status == "ok", outcome.status_reason
    assert outcome.model_source == "own model: encoder"
    # The same files as a model of the catalogue are trained to the same bits.
    known = run(tiny.job(), places, lambda _: None)
    assert outcome.final_weights_hash == known.final_weights_hash
    assert outcome.final_weights_hash != outcome.initial_weights_hash


@pytest.mark.heavy
def test_a_quantised_base_of_ones_own_is_the_same_from_the_cache(places, tmp_path):
    folder = tmp_path / "bare"
    torch.manual_seed(1)
    transformers.BertModel(tiny.CONFIGS["bert"](), add_pooling_layer=False).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    job = replace(
        own_job(places, folder), quantization="nf4", recipe=tiny.job(quantization="nf4").recipe
    )
    task = task_of(job)
    parts = anatomy(folder, task)
    first = load_base(folder, replace(job, seed=5), task, parts, places.cache)
    kept = load_base(folder, job, task, parts, places.cache)
    plain = load_base(folder, job, task, parts, None)
    assert (first.now, kept.now) == (True, False)
    state = plain.model.state_dict()
    for name, value in kept.model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_head_of_other_classes_is_left_aside_and_another_shape_refused(places, tmp_path):
    folder = tmp_path / "five"
    config = tiny.CONFIGS["bert"]()
    config.num_labels = 5
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    job = own_job(places, folder)
    assert head_of(load(folder, job)).shape == (2, 64)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))
    with pytest.raises(Unsupported, match=r"another shape than its config.json says: bert\."):
        load(folder, own_job(places, folder))


def test_a_head_that_a_checkpoint_has_is_left_aside(places, tmp_path):
    folder = tmp_path / "tuned"
    config = tiny.CONFIGS["bert"]()
    config.num_labels = 2
    torch.manual_seed(1)
    made = transformers.AutoModelForSequenceClassification.from_config(config)
    made.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    job = own_job(places, folder)
    here = own_model_files(job.model_facts, places.cache).path
    first, again, other = (load(here, replace(job, seed=seed)) for seed in (0, 0, 1))
    assert not torch.equal(head_of(first), head_of(made))
    assert torch.equal(head_of(first), head_of(again))
    assert not torch.equal(head_of(first), head_of(other))
    inside = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(first.get_parameter(inside), made.get_parameter(inside))


def test_weights_that_lack_a_layer_are_refused_and_not_drawn(places, tmp_path):
    folder = tmp_path / "short"
    tiny.make_model(folder, "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    job = own_job(places, folder)
    with pytest.raises(Unsupported, match=r"lack bert\.encoder\.layer\.2\..* and \d+ more"):
        load(folder, job)


def test_an_encoder_without_a_pooler_gets_a_fresh_one(places, tmp_path):
    folder = tmp_path / "bare"
    torch.manual_seed(1)
    transformers.BertModel(tiny.CONFIGS["bert"](), add_pooling_layer=False).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    job = own_job(places, folder)
    one, other = (load(folder, replace(job, seed=seed)) for seed in (0, 1))
    assert torch.equal(one.bert.pooler.dense.weight, other.bert.pooler.dense.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


def test_a_pretrained_part_of_the_head_stays(places, tmp_path):
    """ModernBERT's first layer of the head comes with its masked language model."""
    folder = tmp_path / "modern"
    config = tiny_config("modernbert", "classifier")
    config.vocab_size = len(tiny.tokenizer())
    base = transformers.AutoModelForMaskedLM.from_config(config)
    torch.nn.init.constant_(base.head.dense.weight, 0.125)
    base.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    job = own_job(places, folder)
    one, other = (load(folder, replace(job, seed=seed)) for seed in (0, 1))
    for model in (one, other):
        assert (model.head.dense.weight == 0.125).all()
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    # A checkpoint that was saved as a classifier has a fitted head: none of it is kept.
    one.save_pretrained(folder)
    forget_hashes()
    fitted = load(folder, own_job(places, folder))
    assert not (fitted.head.dense.weight == 0.125).all()


def test_a_poisoned_configuration_does_not_reach_jobs_through_the_cache(places, tmp_path):
    """Two folders with the same weights: what one of them left in the cache is not the other's."""
    bases = []
    for activation in ("gelu", "relu"):
        folder = tmp_path / activation
        tiny.make_model(folder, "bert")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"hidden_act": activation}))
        forget_hashes()
        # One identity, as when the weights alone are it.
        job = replace(tiny.job(quantization="nf4"), model_identity="the same")
        task = task_of(job)
        base = load_base(folder, job, task, anatomy(folder, task), places.cache)
        bases.append((base.now, base.model.config.hidden_act))
    assert bases == [(True, "gelu"), (True, "relu")]


def test_a_job_carries_what_a_worker_needs(places, tmp_path):
    folder = tmp_path / "encoder"
    tiny.make_model(folder, "bert")
    job = own_job(places, folder, title="Mine")
    again = type(job).from_json(job.to_json())
    assert isinstance(again.own_model, OwnModel) and again.model_facts.title == "Mine"
    assert again.job_id != replace(job, own_model=None).job_id
