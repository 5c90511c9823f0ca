"""What a job leaves, loaded again: the model that was trained, with and without peftmark."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import own_tasks
import tiny
import tiny_causal
from exports import Export, loaded_outside
from peftmark.catalog.task import Example
from peftmark.lab import after_training, recipe
from peftmark.lab.export import opened as opened_module
from peftmark.lab.export.check import difference, exact_logits, probe_rows
from peftmark.lab.export.opened import opened
from peftmark.lab.export.predict import predict
from peftmark.lab.export.write import write
from peftmark.lab.models import Unsupported
from peftmark.lab.scoring import all_outputs
from peftmark.record.kept import NOTES, Kept
from peftmark.sources.assets import Places
from peftmark.sources.task_data import load_task

pytestmark = pytest.mark.usefixtures("unprobed")


@pytest.fixture
def leave(tmp_path, places):
    """What a tiny job leaves, opened again, and its outcome."""

    def run(job):
        one, done = tiny.left(job, places, tmp_path / "left")
        assert done.warnings == ()
        return one, done

    return run


def written(one, target, merged=False, with_base=False):
    """The form of an export, and the largest difference that its check found."""
    target.mkdir(parents=True)
    found = write(one, target, merged, with_base)
    return found.form, found.difference


def test_what_a_job_leaves_is_the_trained_model_and_names_no_folder_of_here(leave, tmp_path):
    job = tiny.job("lora", steps=4, selection_rows=20)
    one, done = leave(job)
    assert sorted(p.name for p in one.folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        NOTES,
    ]
    note = Kept.from_json((one.folder / NOTES).read_text())
    assert note == Kept(job)
    config = json.loads((one.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "nobody/tiny"
    assert config["revision"] == "0" * 40
    for file in (one.folder / "adapter_config.json", one.folder / NOTES):
        assert str(tmp_path) not in file.read_text()
    weights = one.folder / "adapter_model.safetensors"
    assert weights.stat().st_size == done.adapter_bytes


def test_what_plug_ins_trained_is_opened_with_their_code_or_not_at_all(
    leave, tmp_path, places, monkeypatch
):
    one, _ = leave(tiny.job("lora", "none", "tiny-class"))
    brought = []
    monkeypatch.setattr(opened_module, "bring", brought.append)
    opened(one.folder, places)
    assert [job.job_id for job in brought] == [one.job.job_id]


@pytest.mark.slow
def test_keeping_changes_nothing_of_a_row(leave, outcome):
    job = tiny.job("lora", steps=4)
    _, done = leave(job)
    plain = outcome(job)
    for name in ("final_weights_hash", "adapter_bytes", "predictions", "warnings", "null_reasons"):
        assert getattr(done, name) == getattr(plain, name)
    assert done.reload_max_error == plain.reload_max_error


def test_a_save_that_fails_costs_no_row(places, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(after_training, "leave", full)
    done = recipe.run(tiny.job("lora", steps=4), places, lambda message: None, tmp_path / "left")
    assert done.status == "ok"
    assert done.warnings == ("the adapter was not kept: [Errno 28] No space left on device",)
    assert done.reload_max_error is not None


@pytest.mark.parametrize(
    ("method", "quantization", "merged", "form"),
    [
        pytest.param("lora", "nf4", False, "adapter", marks=pytest.mark.slow),
        ("lora", "nf4", True, "model"),
        ("adalora", "none", True, "model"),
        ("bitfit", "nf4", False, "model"),
        ("full", "none", False, "model"),
    ],
)
@pytest.mark.sweep(2)
def test_an_export_gives_the_logits_of_the_trained_model(
    leave, tmp_path, method, quantization, merged, form
):
    one, _ = leave(tiny.job(method, quantization))
    found, apart = written(one, tmp_path / "to", merged)
    assert (found, apart < 1e-5) == (form, True), apart


def test_a_hybrid_is_one_lora_with_a_rank_for_each_module(tmp_path, monkeypatch):
    monkeypatch.setitem(tiny.SMALL, "num_hidden_layers", 3)  # one for each band
    tiny.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    job = tiny.job("hybrid", options={"low": 2, "middle": 4, "high": 6})
    recipe.run(job, places, lambda message: None, tmp_path / "left")
    form, apart = written(opened(tmp_path / "left", places), tmp_path / "to")
    assert (form, apart < 1e-5) == ("lora", True), apart
    config = json.loads((tmp_path / "to" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    ranks = {name.replace("\\", ""): rank for name, rank in config["rank_pattern"].items()}
    layer = "^bert.encoder.layer.{}.attention.{}$".format
    assert ranks[layer(0, "self.query")] == ranks[layer(0, "self.value")] == 2
    assert layer(0, "self.key") not in ranks
    middle = [ranks.get(layer(1, f"self.{part}"), 0) for part in ("query", "key", "value")]
    assert sum(middle) == 3 * 2  # AdaLoRA has halved what it began with
    assert ranks[layer(2, "output.dense")] == ranks[layer(2, "self.key")] == 6
    assert (config["base_model_name_or_path"], config["revision"]) == ("nobody/tiny", "0" * 40)


@pytest.mark.slow
def test_exports_load_where_peftmark_cannot_be_imported(leave, tmp_path, capsys):
    exports = []
    for name, job, options in (
        ("plain", tiny.job("lora", steps=6), {}),
        ("base", tiny.job("lora", task="tiny-score", steps=6), {"with_base": True}),
        ("merged", tiny.job("lora", seed=1, steps=6), {"merged": True}),
    ):
        one, _ = leave(job)
        written(one, tmp_path / name, **options)
        base = str(one.files) if name == "plain" else None
        rows = probe_rows(one)
        exports.append(Export(tmp_path / name, base, rows, exact_logits(one, rows)))
    apart = loaded_outside(tmp_path, exports)
    with capsys.disabled():
        print(f"\nlargest differences of a logit without peftmark: {apart}")
    assert max(apart) < 1e-5


def test_an_export_that_is_another_model_is_refused(leave, tmp_path, monkeypatch):
    one, _ = leave(tiny.job("lora", steps=6))
    target = tmp_path / "to"
    written(one, target)
    file = target / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(n for n in tensors if "classifier.weight" in n)
    save_file({**tensors, name: tensors[name] + 0.1}, file, {"format": "pt"})
    with pytest.raises(Unsupported, match="it is another model: a logit differs by"):
        difference(one, target, False, False)


@pytest.mark.parametrize(
    ("method", "merged", "why"),
    [
        ("prompt-tuning", False, "trained behind"),
        ("prompt-tuning", True, "trained behind"),
        ("prefix-tuning", True, "there is no weight to merge them into"),
        ("adapter", False, "no weights of BertForSequenceClassification give the model: "),
    ],
)
def test_what_no_form_gives_is_refused_with_the_reason(leave, tmp_path, method, merged, why):
    one, _ = leave(tiny.job(method, steps=4))
    with pytest.raises(Unsupported, match=re.escape(why)):
        written(one, tmp_path / "to", merged)


def test_the_check_is_of_rows_that_are_padded(leave):
    one, _ = leave(tiny.job("head", steps=4))
    rows = probe_rows(one)
    assert rows["attention_mask"].sum(1).tolist() == [8, 12] * 3
    assert not ((rows["input_ids"] == 0) & (rows["attention_mask"] == 1)).any()


# --- new rows -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("task", ["tiny-class", "tiny-score"])
def test_predictions_are_those_of_the_rows_that_scored_it(leave, places, task):
    job = tiny.job("lora", task=task, steps=40)
    one, done = leave(job)
    # The evaluation rows in the order of the row's predictions, sorted by length.
    work = tiny.work(places, job)
    said = [row["prediction"] for row in predict(one, work.eval.examples)]
    if task == "tiny-class":
        said = [one.task.labels.index(label) for label in said]
    assert said == pytest.approx(list(done.predictions), abs=1e-5)
    back = predict(one, work.eval.examples[::-1])
    assert [b["prediction"] for b in back[::-1]] == pytest.approx(
        [row["prediction"] for row in predict(one, work.eval.examples)]
    )


def test_a_class_comes_with_its_probability(leave, places):
    one, _ = leave(tiny.job("lora", steps=6))
    rows = [Example("w1 w2", None, 0), Example("w30", None, 0)]
    [first, second] = predict(one, rows)
    encoder = one.encoder()
    batch = encoder.batch(encoder.encode(rows), [0, 0])
    shares = torch.softmax(all_outputs(one.trained, [batch], one.job, one.device), 1)
    assert first["probability"] == pytest.approx(float(shares[0].max()), abs=1e-5)
    assert second["prediction"] == one.task.labels[int(shares[1].argmax())]


@pytest.mark.slow
def test_a_language_model_says_again_what_scored_it(tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    choose = own_tasks.task_of("choose", "multiple-choice", prompt="Text: {text} Half?")
    own_tasks.install(monkeypatch, choose, own_tasks.choosing(96), own_tasks.choosing(40))
    for task in ("tiny-rank", "choose", "tiny-answer", "tiny-text"):
        job = tiny_causal.job("lora", task, steps=8)
        done = recipe.run(job, places, lambda message: None, tmp_path / task)
        one = opened(tmp_path / task, places)
        work = tiny.work(places, job)
        rows = work.eval.examples or load_task(job.task_facts, places).eval
        said = [row["prediction"] for row in predict(one, rows)]
        if task == "tiny-rank":
            assert [one.task.labels.index(name) for name in said] == list(done.predictions)
        elif task == "choose":
            chosen = [r.choices.index(text) for r, text in zip(rows, said, strict=True)]
            assert chosen == list(done.predictions)
        elif task == "tiny-answer":
            assert sorted(said) == sorted(done.completions)
        else:
            assert sorted(said) == pytest.approx(sorted(done.predictions), abs=1e-5)


def test_several_labels_come_with_the_probability_of_each(places, leave, monkeypatch):
    labels = ("first", "second", "long")
    task = own_tasks.task_of("tags", "multi-label", labels, metric="micro_f1", also=())
    own_tasks.install(monkeypatch, task, own_tasks.tagged(96), own_tasks.tagged(40))
    job = replace(tiny.job(task="tags", steps=30), metric="micro_f1")
    one, done = leave(job)
    rows = tiny.work(places, job).eval.examples
    found = predict(one, rows)
    ones = [[float(name in row["prediction"]) for name in labels] for row in found]
    assert [one for row in ones for one in row] == list(done.predictions)
    for row in found:
        assert tuple(row["probability"]) == labels
        assert row["prediction"] == [n for n, p in row["probability"].items() if p >= 0.5]
