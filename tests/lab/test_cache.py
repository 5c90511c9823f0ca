"""What jobs share: hashes of files, token lists, quantised bases."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch

import tiny
from one_of_many import MANY, one_of_many
from peftmark.catalog.tasks import TASKS
from peftmark.core import hashes
from peftmark.core.hashes import (
    forget_hashes,
    known_hashes,
    known_sha256,
    learn_hashes,
    sha256_file,
)
from peftmark.lab import quantized_cache, recipe
from peftmark.lab.cache import keep, made_by
from peftmark.lab.data.job_data import prepare_work
from peftmark.lab.models import anatomy, load_tokenizer
from peftmark.lab.quantized_cache import load_base
from peftmark.sources.task_data import load_task
from waiting import PATIENCE

# --- hashes -------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """The files that were read to be hashed."""
    monkeypatch.setattr(hashes, "_hashed", {})
    seen = []

    def counted(path):
        seen.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(hashes, "sha256_file", counted)
    return seen


def test_a_file_is_read_again_only_when_it_changed(tmp_path, reads):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = known_sha256(path)
    assert known_sha256(path) == first == sha256_file(path)
    assert reads == ["weights"]
    at = path.stat().st_mtime_ns
    path.write_bytes(b"two")
    os.utime(path, ns=(at, at))  # of the same size and, it says, the same age
    assert known_sha256(path) == sha256_file(path) != first
    other = tmp_path / "other"
    other.write_bytes(b"one")
    os.replace(other, path)
    assert known_sha256(path) == first
    assert reads == ["weights"] * 3


def test_what_one_process_hashed_another_takes_over_through_json(tmp_path, reads, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    expected = known_sha256(path)
    told = json.loads(json.dumps(known_hashes()))
    forget_hashes()
    assert known_hashes() == {}
    learn_hashes(told)
    assert known_sha256(path) == expected
    assert reads == ["weights"]
    forget_hashes()
    assert known_sha256(path) == expected
    assert reads == ["weights"] * 2


# --- what is kept -------------------------------------------------------------------------------


def write_down(calls, text="content"):
    def make(folder):
        calls.append(folder)
        (folder / "file").write_text(text)
        return {"made": len(calls)}

    return make


def test_a_thing_is_made_once_for_each_identity(tmp_path):
    calls = []
    make = write_down(calls)
    first = keep(tmp_path, "things", {"of": 1}, make)
    again = keep(tmp_path, "things", {"of": 1}, make)
    assert (first.folder, first.facts) == (again.folder, again.facts)
    assert (first.now, again.now) == (True, False)
    assert (first.folder / "file").read_text() == "content"
    assert keep(tmp_path, "things", {"of": 2}, make).folder != first.folder
    assert keep(tmp_path, "others", {"of": 1}, make).folder != first.folder
    assert len(calls) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "no manifest", "bad manifest"])
def test_a_damaged_copy_is_made_again(tmp_path, damage):
    calls = []
    make = write_down(calls)
    folder = keep(tmp_path, "things", {}, make).folder
    file = folder / "file"
    if damage == "flip":
        file.write_text("contenT")
    elif damage == "cut":
        file.write_text("cont")
    elif damage == "gone":
        file.unlink()
    elif damage == "no manifest":
        (folder / "made.json").unlink()
    else:
        (folder / "made.json").write_text('{"facts": {')
    assert keep(tmp_path, "things", {}, make).now
    assert file.read_text() == "content"
    assert len(calls) == 2


def test_a_copied_cache_is_as_good(tmp_path):
    calls = []
    folder = keep(tmp_path, "things", {}, write_down(calls)).folder
    os.utime(folder / "file", ns=(1, 1))
    assert not keep(tmp_path, "things", {}, write_down(calls)).now


def test_nothing_half_made_is_ever_seen(tmp_path):
    def fails(folder):
        (folder / "file").write_text("half")
        raise RuntimeError("the maker broke")

    with pytest.raises(RuntimeError):
        keep(tmp_path, "things", {}, fails)
    assert [p.name for p in (tmp_path / "things").iterdir() if p.is_dir()] == []


def test_a_cache_that_cannot_be_written_is_gone_without(tmp_path):
    (tmp_path / "things").write_text("a file where a folder belongs")
    assert keep(tmp_path, "things", {}, write_down([])) is None


def test_of_many_at_once_one_makes_it_and_the_others_wait(tmp_path):
    context = multiprocessing.get_context("forkserver")
    queue = context.Queue()
    (tmp_path / "lined up").mkdir()
    given = (tmp_path, tmp_path / "lined up", queue, context.Barrier(MANY))
    many = [context.Process(target=one_of_many, args=given) for _ in range(MANY)]
    for one in many:
        one.start()
    assert sorted(queue.get(timeout=PATIENCE) for _ in many) == [0, 0, 0, 1]
    for one in many:
        one.join()


def test_the_versions_that_made_a_thing_are_part_of_it():
    assert set(made_by("torch", "tokenizers")) == {"torch", "tokenizers"}


# --- token lists --------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["tiny-class", "tiny-score"])
def test_token_lists_from_the_cache_give_the_same_batches(places, task):
    job = tiny.job(task=task)
    folder, known = places.mirror / "models" / "tiny", TASKS[task]
    data, tokenizer = load_task(known, places), load_tokenizer(folder)
    plain = prepare_work(job, known, data, tokenizer, folder)
    made, kept = (prepare_work(job, known, data, tokenizer, folder, places.cache) for _ in range(2))
    assert len(list((places.cache / "tokens").glob("[!.]*"))) == 1
    for other in (made, kept):
        for step in range(job.recipe.steps):
            assert_same(plain.train(step), other.train(step))
        for one, two in zip(plain.eval.batches, other.eval.batches, strict=True):
            assert_same(one, two)
        for one, two in zip(plain.preview(2), other.preview(2), strict=True):
            assert_same(one, two)


def assert_same(one, two):
    assert one.inputs.keys() == two.inputs.keys()
    assert all(torch.equal(one.inputs[k], two.inputs[k]) for k in one.inputs)
    assert all(one.inputs[k].dtype == two.inputs[k].dtype for k in one.inputs)
    assert torch.equal(one.labels, two.labels)
    assert one.tokens == two.tokens


def test_another_length_tokenizer_or_task_has_lists_of_its_own(places):
    folder, task = places.mirror / "models" / "tiny", TASKS["tiny-class"]
    data, tokenizer = load_task(task, places), load_tokenizer(folder)
    kept = places.cache / "tokens"

    def tables(**recipe):
        prepare_work(tiny.job(**recipe), task, data, tokenizer, folder, places.cache)
        return len(list(kept.glob("[!.]*")))

    assert tables() == 1
    assert tables(max_length=4) == 2
    with (folder / "tokenizer_config.json").open("a") as file:
        file.write("\n")
    assert tables() == 3


# --- quantised bases ----------------------------------------------------------------------------


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_from_the_cache_is_the_same_bits_head_included(places, quantization):
    folder = places.mirror / "models" / "tiny"
    task = TASKS["tiny-class"]
    parts = anatomy(folder, TASKS["sst-2"])
    made = load_base(folder, tiny.job("lora", quantization), task, parts, places.cache)
    assert made.now
    assert made.quantise_seconds > 0
    for seed in (0, 1):  # the first read it back; another seed has another head
        job = tiny.job("lora", quantization, seed=seed)
        plain = load_base(folder, job, task, parts, None)
        kept = load_base(folder, job, task, parts, places.cache)
        assert (kept.now, kept.quantise_seconds) == (False, made.quantise_seconds)
        one, two = plain.model.state_dict(), kept.model.state_dict()
        assert list(one) == list(two)
        for name in one:
            assert one[name].dtype == two[name].dtype
            assert torch.equal(one[name], two[name]), name
    heads = [
        load_base(
            folder, tiny.job("lora", quantization, seed=seed), task, parts, places.cache
        ).model.classifier.weight
        for seed in (0, 1)
    ]
    assert not torch.equal(*heads)


def test_a_base_is_quantised_anew_by_other_code(places, monkeypatch):
    folder = places.mirror / "models" / "tiny"
    task, job = TASKS["tiny-class"], tiny.job("lora", "int8")
    parts = anatomy(folder, TASKS["sst-2"])
    assert load_base(folder, job, task, parts, places.cache).now
    assert not load_base(folder, job, task, parts, places.cache).now
    hashed = quantized_cache.source_hash

    def changed(package):
        return f"{hashed(package)} changed" * (package == "peftmark.lab.quantization")

    monkeypatch.setattr(quantized_cache, "source_hash", changed)
    assert load_base(folder, job, task, parts, places.cache).now


def test_a_base_whose_rest_is_stored_otherwise_is_kept_apart(places):
    folder, task = places.mirror / "models" / "tiny", TASKS["tiny-class"]
    parts = anatomy(folder, TASKS["sst-2"])
    for weights, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        job = tiny.job("lora", "nf4", precision="bf16", weights=weights)
        made = load_base(folder, job, task, parts, places.cache)
        assert made.now
        kept = load_base(folder, job, task, parts, places.cache)
        assert not kept.now
        for one in (made, kept):
            assert one.model.get_input_embeddings().weight.dtype == kind


def test_a_base_that_is_not_quantised_is_not_kept(places):
    folder = places.mirror / "models" / "tiny"
    load_base(
        folder, tiny.job(), TASKS["tiny-class"], anatomy(folder, TASKS["sst-2"]), places.cache
    )
    assert not (places.cache / "bases").exists()


@pytest.mark.slow
def test_a_job_that_finds_everything_made_gives_the_same_numbers(places, monkeypatch, unpredicted):
    job = tiny.job("lora", "nf4")
    told = [].append
    first = recipe.run(job, places, told)
    monkeypatch.setattr(
        quantized_cache, "quantization_clock", None
    )  # nothing is quantised any more
    second = recipe.run(job, places, told)
    for name in ("metric_value", "final_weights_hash", "batch_order_hash", "live_bytes", "loss"):
        assert getattr(first, name) == getattr(second, name)
    assert first.predictions == second.predictions
    assert first.phase_seconds["quantise"] == second.phase_seconds["quantise"] > 0
    assert min(first.phase_seconds["load"], second.phase_seconds["load"]) > 0


def test_the_worker_is_told_what_was_hashed(tmp_path, places, monkeypatch):
    from peftmark.executors.contract import Order
    from peftmark.executors.process import Starter

    monkeypatch.setattr(hashes, "_hashed", {})
    weights = places.mirror / "models" / "tiny" / "model.safetensors"
    digest = known_sha256(weights)
    order = Order(jobs=[], places=places, logs=Path(tmp_path), worker="x:y")
    starter = Starter(order, gpu=False, at_once=1)
    told = starter._places["hashes"]
    assert told[str(weights.absolute())][1] == digest
