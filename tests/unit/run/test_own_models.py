"""Models of the user's own from their folder to jobs, plans and stored rows."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fake_runs
from own_models import BERT, GPT, model_folder, put, tensors
from peftmark.core.errors import AssetError, SuiteError, UserError
from peftmark.core.hashes import forget_hashes
from peftmark.core.sealed import unsealed
from peftmark.record.job import Job
from peftmark.run.runner import Selection, fetch, make_plan
from peftmark.sources.assets import Places, model_files
from peftmark.sources.own_models import own_model_note
from peftmark.suite.expand import as_recorded
from peftmark.suite.load import load_suite

SUITE = """
model: ./mine
tasks:
  tickets: {kind: classification, train: tickets.csv, text: body, label: category}
methods: [lora, head]
seeds: [0]
recipe: {batch_size: 8}
"""


@pytest.fixture
def here(no_devices, tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    forget_hashes()
    suite(tmp_path, SUITE)
    words = ("crash", "refund", "thanks")
    rows = [f"{i} {words[i % 3]},{words[i % 3]}" for i in range(60)]
    (tmp_path / "tickets.csv").write_text("body,category\n" + "\n".join(rows) + "\n")
    model_folder(tmp_path / "mine")
    return tmp_path


def suite(folder, text):
    (folder / "suites").mkdir(exist_ok=True)
    (folder / "suites" / "demo.yaml").write_text(text)


def selection(folder):
    return Selection("demo", suites=folder / "suites", results=folder / "results", jobs=1)


def planned(folder):
    return make_plan(selection(folder))


def refused(folder, error=UserError):
    with pytest.raises(error) as caught:
        planned(folder)
    assert caught.value.remedy
    return str(caught.value)


# --- how long its rows may be ---------------------------------------------------------------------


def test_rows_longer_than_its_positions_are_refused_before_anything_is_written(here):
    assert planned(here).jobs[0].recipe.max_length == 128
    suite(here, SUITE.replace("batch_size: 8", "batch_size: 8, max_length: 129"))
    assert "max_length is 129; model mine has 128 positions, so at most 128" in refused(here)
    entry = "[{method: prompt-tuning, size: [9]}, head]"
    suite(here, SUITE.replace("[lora, head]", entry))
    told = refused(here, SuiteError)
    assert "max_length is 128 beside 9 virtual tokens of prompt tuning" in told
    assert "so at most 119" in told
    assert not (here / "results").exists()


def test_a_report_of_earlier_rows_asks_for_no_positions(here):
    suite(here, SUITE.replace("batch_size: 8", "batch_size: 8, max_length: 129"))
    assert make_plan(selection(here), recorded=True).jobs


def test_rows_longer_than_it_was_trained_on_are_a_note(here):
    put(here / "mine", "config.json", BERT | {"model_type": "modernbert"})
    suite(here, SUITE.replace("batch_size: 8", "batch_size: 8, max_length: 129"))
    (note,) = [note for note in planned(here).notes if "positions" in note]
    assert note.startswith("tickets: max_length 129 is beyond the 128 positions that model mine")


# --- what a job carries ---------------------------------------------------------------------------


def test_a_folder_is_a_model_and_its_jobs_carry_what_it_is(here):
    plan = planned(here)
    job = plan.jobs[0]
    model = job.model_facts
    assert (job.model, model.own, model.causal, model.parameters) == ("mine", True, False, 224)
    assert job.model_identity == plan.own_files["mine"].model.identity
    assert Job.from_json(job.to_json()) == job
    assert Job.from_json(job.to_json()).model_facts == model
    assert job.model_name == "mine"
    assert any(note.startswith("mine: read as classifier") for note in plan.notes)
    # Small encoders get the small rates: the suite says none.
    assert job.recipe.learning_rate == 2e-3


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_every_file_that_is_read_is_the_models_identity(here, name):
    before = planned(here).jobs[0].job_id
    path = here / "mine" / name
    if name == "model.safetensors":
        model_folder(here / "mine", weights={k: v + 1 for k, v in tensors().items()})
    else:
        path.write_text(path.read_text() + " ")
    assert planned(here).jobs[0].job_id != before


@pytest.mark.parametrize("name", ["README.md", "pytorch_model.bin", "onnx.json"])
def test_a_file_beside_the_model_changes_nothing(here, name):
    before = planned(here).jobs[0].job_id
    (here / "mine" / name).write_text("{}")
    assert planned(here).jobs[0].job_id == before


def test_a_file_that_comes_to_the_tokenizer_changes_the_identity(here):
    before = planned(here).jobs[0].job_id
    put(here / "mine", "special_tokens_map.json", {})
    assert planned(here).jobs[0].job_id != before


def test_a_causal_model_gets_the_rates_and_the_text_of_causal_models(here):
    model_folder(here / "mine", GPT)
    suite(here, SUITE.replace("head", "base"))
    job = planned(here).jobs[0]
    assert job.model_facts.causal and job.causal is not None
    assert job.causal.unrelated.startswith("editorials:")
    assert job.recipe.learning_rate == 1e-3


def test_read_as_and_title_of_a_declaration_count(here):
    declared = "models: {boss: {path: ./mine, read_as: classifier, title: The boss}}\n"
    model_folder(here / "mine", GPT)
    suite(here, declared + SUITE.replace("./mine", "boss"))
    job = planned(here).jobs[0]
    assert (job.model, job.model_name, job.causal) == ("boss", "The boss", None)


def test_what_only_the_model_can_tell_is_refused_once_it_is_read(here):
    model_folder(here / "mine", GPT)
    assert "has no head of its own" in refused(here, SuiteError)


def test_one_of_ones_own_stands_beside_a_known_one(here):
    entry = "methods: [head, {method: head, model: ./mine}]"
    suite(
        here,
        SUITE.replace("./mine", "minilm-l6").replace("methods: [lora, head]", entry),
    )
    jobs = planned(here).jobs
    assert {job.model: job.variant for job in jobs} == {"minilm-l6": "", "mine": "mine"}
    assert {job.model: job.own_model is None for job in jobs} == {"minilm-l6": True, "mine": False}


# --- from plan to rows ----------------------------------------------------------------------------


def run(folder):
    return [record for record, _ in fake_runs.run(selection(folder), fetched=True)]


@pytest.mark.heavy
def test_results_are_shown_without_the_folder_they_were_made_with(here):
    assert {record.outcome.status for record in run(here)} == {"ok"}
    assert planned(here).to_run == []
    (here / "mine").rename(here / "gone")
    plan = make_plan(selection(here), recorded=True)
    assert plan.to_run == [] and plan.jobs[0].model_facts.own
    assert "there is no folder" in refused(here)
    records = plan.store.read().records
    shown = as_recorded(load_suite("demo", here / "suites"), "default", records)
    assert {job.job_id for job in shown.jobs} == set(records)


def test_a_model_without_rows_is_named_where_rows_alone_count(here):
    with pytest.raises(UserError, match="no row of model mine"):
        as_recorded(load_suite("demo", here / "suites"), "default", {})


def test_workers_find_the_files_by_the_identity_alone(here):
    plan = planned(here)
    model = Job.from_json(plan.jobs[0].to_json()).model_facts
    places = Places(None, ("package",), here / "cache")
    with pytest.raises(AssetError, match="can't be read"):
        model_files(model, places)
    (here / "mine" / "README.md").write_text("beside")
    assert fetch(plan)["mine"] == "own model: mine"
    note = unsealed(own_model_note(here / "cache", model.identity).read_text())
    assert note["folder"] == str(here / "mine")
    found = model_files(model, places).path
    assert sorted(path.name for path in found.iterdir()) == sorted(note["files"])
    (here / "mine" / "config.json").write_text(json.dumps(BERT | {"hidden_act": "relu"}))
    with pytest.raises(AssetError, match=r"config\.json has changed"):
        model_files(model, places)


def test_a_model_that_changed_after_the_plan_is_not_run(here):
    plan = planned(here)
    put(here / "mine", "config.json", BERT | {"hidden_act": "relu"})
    with pytest.raises(AssetError, match=r"config\.json has changed"):
        fetch(plan)


def test_hashes_are_remembered_between_plans_and_not_between_runs(here, monkeypatch):
    from peftmark.core import hashes

    planned(here)
    read = []
    plain = hashes.sha256_file
    monkeypatch.setattr(hashes, "sha256_file", lambda path: read.append(path.name) or plain(path))
    forget_hashes()
    plan = planned(here)
    assert "model.safetensors" not in read
    fetch(plan)
    assert "model.safetensors" in read


# --- broken models --------------------------------------------------------------------------------


def test_weights_that_are_no_numbers_are_refused_before_training(here):
    weights = tensors(np.float16)
    weights["encoder.layer.0.output.dense.weight"][3, :2] = np.inf
    model_folder(here / "mine", weights=weights)
    plan = planned(here)
    with pytest.raises(AssetError, match=r"2 of the 128 values of .*dense\.weight.*fp16"):
        fetch(plan)
    assert not own_model_note(here / "cache", plan.jobs[0].model_identity).exists()


def test_a_vocabulary_larger_than_the_embedding_is_refused(here):
    weights = {"embeddings.word_embeddings.weight": np.ones((11, 8), dtype=np.float32)}
    model_folder(here / "mine", weights=weights)
    assert "tokens up to number 11, and the weights have rows for 11" in refused(here)


def test_a_file_cut_short_is_refused(here):
    path = here / "mine" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert "is no whole safetensors file" in refused(here)


def test_a_missing_shard_is_named(here):
    (here / "mine" / "model.safetensors").unlink()
    model_folder(here / "mine", shards=2)
    assert planned(here).jobs[0].model_facts.parameters == 224
    (here / "mine" / "model-00001-of-00002.safetensors").unlink()
    assert "model-00001-of-00002.safetensors" in refused(here)


def test_a_pickle_alone_is_refused(here):
    (here / "mine" / "model.safetensors").rename(here / "mine" / "pytorch_model.bin")
    assert "pytorch_model.bin is not read" in refused(here)


def test_a_form_of_weights_that_cant_be_read_is_refused_before_anything_is_written(here):
    put(here / "mine", "config.json", BERT | {"quantization_config": {"quant_method": "gptq"}})
    told = refused(here, AssetError)
    assert told.startswith(
        "model mine: mine/config.json: the weights are quantised already (quantization_config: "
        "gptq)"
    )
    assert not (here / "results").exists()


def packed(here, methods, recipe="{batch_size: 8}"):
    """The suite on a checkpoint whose layer is NF4 already, with its constants quantised."""
    layer = "encoder.layer.0.output.dense.weight"
    state = {"quant_type": "nf4", "blocksize": 64, "shape": [8, 16], "nested_blocksize": 256}
    described = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
    weights = {
        "embeddings.word_embeddings.weight": tensors()["embeddings.word_embeddings.weight"],
        layer: np.zeros((64, 1), dtype=np.uint8),
        f"{layer}.absmax": np.zeros(2, dtype=np.uint8),
        f"{layer}.quant_state.bitsandbytes__nf4": described,
    }
    settings = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    }
    model_folder(here / "mine", BERT | {"quantization_config": settings}, weights)
    suite(
        here,
        SUITE.replace("[lora, head]", methods).replace("{batch_size: 8}", recipe),
    )


def test_weights_that_are_quantised_already_are_a_base_of_cells_in_their_form(here):
    packed(here, "[{method: lora, quantization: [nf4]}, bag-of-words]")
    plan = planned(here)
    job = plan.jobs[0]
    assert (job.quantization, job.recipe.double_quantization) == ("nf4", True)
    assert job.model_facts.parameters == 224  # 12 x 8 and 8 x 16
    assert (job.own_model.stored_as, job.own_model.stored_double) == ("nf4", True)
    assert Job.from_json(job.to_json()) == job
    assert any("its weights are NF4 already" in note for note in plan.notes)


def test_a_job_on_whole_weights_says_nothing_of_a_form(here):
    """Ids of such jobs are what they were before weights could be quantised already."""
    said = json.loads(planned(here).jobs[0].to_json())["own_model"]
    assert set(said) == {"causal", "parameters", "title"}


@pytest.mark.parametrize(
    ("methods", "recipe", "told"),
    [
        (
            "[lora]",
            "{batch_size: 8}",
            "found [none]; the weights of mine are nf4 already: write quantization: [nf4]",
        ),
        (
            "[{method: lora, quantization: [nf4, int8]}]",
            "{batch_size: 8}",
            "found [nf4, int8]; the weights of mine are nf4 already: write quantization: [nf4]",
        ),
        (
            "[{method: lora, quantization: [nf4]}, full]",
            "{batch_size: 8}",
            "the weights of mine are nf4 already, which full can't be put on: leave it out",
        ),
        (
            "[{method: loftq, quantization: [nf4], recipe: {learning_rate: 1.0e-3}}]",
            "{batch_size: 8}",
            "loftq starts from weights before they were quantised",
        ),
        (
            "[{method: lora, quantization: [nf4]}]",
            "{batch_size: 8, double_quantization: false}",
            "double_quantization: found false; block constants of the weights of mine are "
            "quantised: write recipe: {double_quantization: true}",
        ),
    ],
)
def test_cells_in_another_form_than_a_checkpoints_are_refused_with_what_to_write(
    here, methods, recipe, told
):
    packed(here, methods, recipe)
    assert told in refused(here)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_packed_numbers_are_no_weights_whatever_the_configuration_says(here, kind):
    weights = tensors() | {
        "encoder.layer.0.output.dense.weight": np.ones((8, 16), dtype=kind),
        "embeddings.position_ids": np.arange(12),  # older files have it, and it is no weight
    }
    model_folder(here / "mine", weights=weights)
    told = refused(here, AssetError)
    assert "quantised already ('encoder.layer.0.output.dense.weight' has numbers of type" in told
    del weights["encoder.layer.0.output.dense.weight"]
    model_folder(here / "mine", weights=weights)
    assert planned(here).jobs
