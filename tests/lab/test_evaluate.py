"""Kept adapters put to a harness in turn: each as it was trained, on a base that is loaded once."""

from __future__ import annotations

import io
import json
from hashlib import sha256

import jinja2
import pytest
import torch
from jinja2.exceptions import SecurityError

import tiny_causal
from harness_stand_in import Harness, asked_of
from peftmark.core.errors import UserError
from peftmark.lab import recipe
from peftmark.lab.evaluate import lm_eval_tasks, one_base, worker
from peftmark.lab.evaluate.lm_eval_tasks import confine_templates, scores_of
from peftmark.lab.export.opened import opened
from peftmark.sources.assets import Places

pytestmark = pytest.mark.usefixtures("unprobed")


@pytest.fixture
def places(tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


@pytest.fixture
def harness(monkeypatch):
    return Harness().install(monkeypatch)


@pytest.fixture
def loads(monkeypatch):
    """Counts bases that are read."""
    seen = []
    load = one_base.load_base

    def counted(*asked):
        seen.append(asked)
        return load(*asked)

    monkeypatch.setattr(one_base, "load_base", counted)
    return seen


@pytest.fixture
def leave(tmp_path, places):
    """What a tiny job leaves."""

    def run(method="lora", quantization="none", seed=0):
        job = tiny_causal.job(method, quantization=quantization, seed=seed, steps=4)
        folder = tmp_path / "left" / job.job_id
        done = recipe.run(job, places, lambda message: None, folder)
        assert done.status == "ok", done.status_reason
        return folder

    return run


def put(places, folders, tasks=("colours",), **changes):
    """The worker's lines."""
    where = {
        "mirror": str(places.mirror),
        "sources": places.sources,
        "cache": str(places.cache),
    }
    asked = {
        "tasks": list(tasks),
        "include": None,
        "trust_code": False,
        "fewshot": None,
        "limit": None,
        "batch_size": 1,
        "adapters": [{"folder": str(folder), **where} for folder in folders],
        **changes,
    }
    told = io.StringIO()
    worker.evaluate(asked, told)
    return [json.loads(line) for line in told.getvalue().splitlines()]


def values(lines):
    """Value by adapter."""
    return {line["adapter"]: line["scores"][0]["value"] for line in lines if line.get("scores")}


def alone(places, folder):
    """What the adapter says that is loaded for itself."""
    return asked_of(opened(folder, places).trained)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_adapters_of_one_base_are_put_onto_it_in_turn(places, harness, loads, leave, quantization):
    folders = [leave(quantization=quantization, seed=seed) for seed in (0, 1)]
    wanted = {at: alone(places, folder) for at, folder in enumerate(folders)}
    assert wanted[0] != wanted[1]
    lines = put(places, folders)
    assert values(lines) == wanted
    assert lines[-1] == {"done": True, "bases": 1, "own": 0}
    assert len(loads) == 1


@pytest.mark.slow
def test_methods_and_bases_are_told_apart(places, harness, loads, leave):
    """Another method uses the same base, a quantised base is another, and full fine-tuning has
    weights of its own."""
    folders = [leave("full"), leave("lora"), leave("lora", "nf4"), leave("ia3")]
    lines = put(places, folders)
    assert values(lines) == {at: alone(places, folder) for at, folder in enumerate(folders)}
    assert lines[-1] == {"done": True, "bases": 2, "own": 1}
    assert len(loads) == 2


@pytest.mark.slow
def test_a_base_that_an_adapter_changed_is_loaded_anew(places, harness, leave, monkeypatch):
    folders = [leave(seed=seed) for seed in (0, 1)]
    wanted = {at: alone(places, folder) for at, folder in enumerate(folders)}
    off = one_base.taken_off

    def spoilt(model, base):
        plain = off(model, base)
        with torch.no_grad():
            next(plain.parameters()).data[0, 0] += 1
        return plain

    monkeypatch.setattr(one_base, "taken_off", spoilt)
    lines = put(places, folders)
    assert values(lines) == wanted
    assert lines[-1]["bases"] == 2


@pytest.mark.slow
def test_a_failure_of_one_leaves_the_others(places, harness, leave):
    folders = [leave(seed=seed) for seed in (0, 1)]
    harness.fails_at = 0
    lines = put(places, folders)
    assert lines[0] == {
        "adapter": 0,
        "fault": "lm-eval failed: RuntimeError: out of luck",
        "remedy": "",
    }
    assert values(lines) == {1: alone(places, folders[1])}


def test_an_adapter_that_can_not_be_read_is_told_and_the_others_are_asked(
    places, harness, leave, tmp_path
):
    lines = put(places, [tmp_path / "none", leave()])
    assert lines[0]["adapter"] == 0
    assert "what is noted of the adapter can't be read" in lines[0]["fault"]
    assert list(values(lines)) == [1]


def test_the_harness_gets_the_settings_and_the_precision_of_training(places, harness, leave):
    put(places, [leave()], fewshot=3, limit=7, batch_size=4)
    [how] = harness.wrapped
    assert (how["batch_size"], how["mixed_precision_dtype"]) == (4, None)
    assert len(how["tokenizer"]) == tiny_causal.SIZES["vocab_size"]
    assert harness.settings == [{"num_fewshot": 3, "limit": 7}]


@pytest.mark.parametrize(
    ("tasks", "what", "remedy"),
    [
        (["colour"], "lm-eval has no task 'colour'", "Close to it: 'colours'. "),
        (["colours", "shapes"], "'shapes': ConnectionError: no hub\N{REPLACEMENT CHARACTER} here",
         "--online"),
    ],
)  # fmt: skip
def test_tasks_that_can_not_be_had_are_told_before_a_model_is_loaded(
    places, harness, loads, tasks, what, remedy
):
    with pytest.raises(UserError) as caught:
        put(places, [], tasks)
    assert caught.value.what.endswith(what)
    assert remedy in caught.value.remedy
    assert loads == []


def test_tasks_that_run_what_a_model_writes_are_refused(places, harness):
    harness.unsafe = True
    with pytest.raises(UserError, match="'colours' runs programs that the model writes"):
        put(places, [])


# --- answers ------------------------------------------------------------------------------------


def test_every_figure_is_kept_with_what_it_is_of(harness):
    row = {"doc_hash": "a", "prompt_hash": "b", "target_hash": "c"}
    found = {
        "results": {
            "one": {
                "name": "one", "alias": "one", "sample_len": 2,
                "acc,none": 0.5, "acc_stderr,none": 0.25,
                "acc,strict": 0.25, "acc_stderr,strict": "N/A", "loss,none": float("nan"),
            },
            "both": {"alias": "both", "acc,none": 0.75},
        },
        "n-samples": {"one": {"original": 9, "effective": 2}},
        "n-shot": {"one": 5},
        "versions": {"one": "Yaml", "both": 2},
        "higher_is_better": {"one": {"acc": True}, "both": {}},
        "samples": {"one": [row, row]},
    }  # fmt: skip
    first, strict, loss, both = scores_of(found)
    assert first == {
        "task": "one",
        "metric": "acc",
        "filter": "none",
        "group": False,
        "value": 0.5,
        "stderr": 0.25,
        "n": 2,
        "fewshot": 5,
        "task_version": None,
        "task_hash": sha256(b"abcabc").hexdigest(),
        "higher_is_better": True,
        "null_reasons": {"task_version": "lm-eval doesn't say"},
    }
    assert (strict["filter"], strict["value"], strict["stderr"]) == ("strict", 0.25, None)
    assert strict["null_reasons"]["stderr"] == "lm-eval gives none for this metric"
    assert loss["value"] is None
    assert loss["null_reasons"]["value"] == "lm-eval's figure is not a finite number"
    assert (both["group"], both["n"], both["task_hash"], both["task_version"]) == (
        True, None, None, "2",
    )  # fmt: skip
    assert both["null_reasons"]["n"] == "a group of tasks: each of them has its own"


def test_templates_of_files_that_are_not_trusted_run_in_a_sandbox(harness):
    from lm_eval import utils

    attack = "{{ ''.__class__.__mro__[1].__subclasses__()[0] }}"
    assert utils.env.from_string(attack).render() != ""
    confine_templates()
    confine_templates()
    assert utils.env.from_string("{{ sky | shout }}").render(sky="blue") == "BLUE"
    with pytest.raises(SecurityError):
        utils.env.from_string(attack).render()
    with pytest.raises(jinja2.UndefinedError):
        utils.env.from_string("{{ sky }}").render()


@pytest.mark.parametrize(
    ("trusted", "include", "confined"), [(False, True, 1), (True, True, 0), (False, False, 0)]
)
def test_only_a_folder_that_is_not_trusted_is_confined(
    harness, monkeypatch, tmp_path, trusted, include, confined
):
    seen = []
    monkeypatch.setattr(lm_eval_tasks, "confine_templates", lambda: seen.append(1))
    folder = tmp_path if include else None
    lm_eval_tasks.Harness(["colours"], folder, trusted, None, None, 1)
    assert len(seen) == confined


def test_a_model_writes_by_the_settings_beside_its_base(places, leave):
    one = opened(leave(), places)
    model = one.trained
    assert model.get_base_model().generation_config.eos_token_id is None
    lm_eval_tasks.publish_settings(model, one.files)
    assert model.get_base_model().generation_config.eos_token_id == 3
    with pytest.raises(lm_eval_tasks.Unsupported, match="can't ask a Linear"):
        lm_eval_tasks.publish_settings(torch.nn.Linear(1, 1), one.files)


def test_the_hash_of_a_base_is_of_names_and_bytes():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert one_base.weights_of(one) == one_base.weights_of(other)
    with torch.no_grad():
        other.bias[0] += 1e-6
    assert one_base.weights_of(one) != one_base.weights_of(other)
    assert one_base.weights_of(one) != one_base.weights_of(torch.nn.Sequential(one))
