"""What a step's work is, the steps that are timed, and the shapes of a job's batches."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import tiny
from peftmark.catalog.tasks import TASKS
from peftmark.cli import parser
from peftmark.core.interpreter import passed_on
from peftmark.duration.cards import measured
from peftmark.duration.rates import Rates, fitted
from peftmark.duration.shapes import shapes_of
from peftmark.lab.data.batches import Shape
from peftmark.lab.duration import batch_shapes, reference_steps
from peftmark.lab.duration.work import Work
from peftmark.lab.memory import worker
from peftmark.lab.memory.fake_step import run
from peftmark.lab.memory.meta_model import config_of
from peftmark.record.job import Form
from peftmark.run.expected import expected
from peftmark.run.runner import Selection, make_plan
from peftmark.sources.assets import Places
from symbolic_jobs import ONE_LAYER, SMALL, job_for

TASK = TASKS["sst-2"]


def work_of(job, tokens=16, config=ONE_LAYER):
    return run(job, TASK, config_of(config, 2), [[Shape(4, tokens)]], flops=True)


def test_calls_operations_and_bytes_are_those_of_the_tensors():
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    with Work(job_for()) as work:
        left @ right
        left.t()
        left.double() + 1
        work.part = "update"
        left.add_(1)
    assert work.amounts["forward mm float32"] == [1, 2 * 3 * 5 * 7, 4 * (15 + 35 + 21)]
    assert work.amounts["forward t -"] == [1, 0, 0], "a view moves nothing"
    assert work.amounts["forward _to_copy float64"] == [1, 0, 15 * (4 + 8)]
    assert work.amounts["forward add float64"] == [1, 0, 15 * (8 + 8)]
    assert work.amounts["update add_ float32"] == [1, 0, 2 * 15 * 4]
    assert work.total == 210


def test_operations_that_make_a_large_tensor_are_apart_and_those_in_place_are_not():
    large = torch.empty(8 << 20)
    with Work(job_for()) as work:
        large.sqrt()
        large.mul_(2)
        large[:9].sqrt()
    assert work.amounts["forward sqrt float32+"] == [1, 0, 2 * (32 << 20)]
    assert work.amounts["forward mul_ float32"][0] == work.amounts["forward sqrt float32"][0] == 1


def test_backward_is_told_from_forward():
    weight = torch.ones(4, 4, requires_grad=True)
    with Work(job_for()) as work:
        (weight @ torch.ones(4, 4)).sum().backward()
    assert work.amounts["forward mm float32"][0] == work.amounts["backward mm float32"][0] == 1


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_steps_work_is_in_parts_whose_operations_are_all_that_were_counted(method):
    seen = work_of(job_for(method))
    parts = {name.split()[0] for name in seen.work}
    assert parts == {"forward", "backward", "update", "scored"}
    step = sum(v[1] for k, v in seen.work.items() if not k.startswith("scored"))
    assert step == seen.flops
    scored = sum(v[1] for k, v in seen.work.items() if k.startswith("scored"))
    forward = sum(v[1] for k, v in seen.work.items() if k.startswith("forward"))
    assert scored == pytest.approx(forward, rel=0.05)
    assert not any("bernoulli" in k for k in seen.work if k.startswith("scored")), "no dropout"


@pytest.mark.slow
def test_the_work_of_more_passes_is_more_of_the_same():
    asked = worker.Asked(
        [job_for()], dict(ONE_LAYER), "classification", 2, 4, 16, True, Form(), None
    )

    def amounts(accumulation):
        recipe = replace(
            job_for().recipe, gradient_accumulation=accumulation, batch_size=4 * accumulation
        )
        return asked.run(replace(job_for(), recipe=recipe), flops=True).work

    two, six = amounts(2), amounts(6)
    for name in ("forward addmm float32", "backward mm float32"):
        assert six[name] == [3 * n for n in two[name]]
    update = next(name for name in two if name.startswith("update mul_"))
    assert six[update] == two[update]


@pytest.mark.slow
def test_work_of_a_rank_between_others_is_what_a_run_says():
    jobs = [replace(job_for(), size=size) for size in (2, 4, 6, 8, 16)]
    asked = worker.Asked(jobs, dict(SMALL), "classification", 2, 4, 16, True, Form(), None)
    for told, job in zip(worker.answer(asked), jobs, strict=True):
        assert told["work"] == asked.run(job, flops=True).work


def test_scoring_on_four_bits_never_repacks_the_weights():
    seen = work_of(job_for("lora", "nf4"))
    assert any("gemm_4bit" in name for name in seen.work)
    assert not any("gemv_4bit" in name for name in seen.work)


@pytest.mark.slow
def test_reference_steps_time_what_jobs_dispatch(monkeypatch):
    small = reference_steps.Shape("encoder", 24, 2, (6, 8), 100)
    monkeypatch.setattr(reference_steps, "SHAPES", (small,))
    found = reference_steps.told(reference_steps.timed(["fp32", "bf16"], seconds=1e9))
    rates = fitted(found)
    for name in (
        "mm float32",
        "mm bfloat16",
        "bitsandbytes.gemm_4bit float32",
        "bernoulli_ float32",
    ):
        assert name in rates.costs
    flops = [size[1] for size in found["mm float32"]]
    assert max(flops) > 0 and all(
        calls > 0 and seconds > 0 for calls, _, _, seconds in found["mm float32"]
    )
    # What a step of a job dispatches is known by what they dispatch, but for a few.
    work = work_of(job_for("lora", "nf4")).work
    calls = {name.partition(" ")[2]: amounts[0] for name, amounts in work.items()}
    unknown = {name: count for name, count in calls.items() if name not in rates.costs}
    assert sum(unknown.values()) < 0.1 * sum(calls.values()), unknown


def test_a_language_model_and_time_that_is_over(monkeypatch):
    small = reference_steps.Shape("language", 36, 2, (6,), 100)
    monkeypatch.setattr(reference_steps, "SHAPES", (small,))
    assert "silu float32" in reference_steps.timed(["fp32"], seconds=1e9)
    assert reference_steps.timed(["fp32"], seconds=-1.0) == {}


# --- batches ------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path):
    return Places(None, ("package",), tmp_path)


def packaged(**changes):
    job = tiny.job()
    recipe = replace(
        job.recipe, steps=6, batch_size=8, eval_batch_size=16, eval_rows=40, selection_rows=20,
        **changes,
    )  # fmt: skip
    return replace(job, model="minilm-l6", task="trec", metric="accuracy", recipe=recipe)


@pytest.mark.slow
def test_shapes_are_those_of_the_jobs_own_batches(places):
    job = packaged()
    found = batch_shapes.shapes(job, places)
    assert len(found["train"]) == 6 and max(found["train"]) <= job.recipe.max_length
    assert [rows for rows, _ in found["scored"]] == [16, 16, 8]
    assert [rows for rows, _ in found["selected"]] == [16, 4]
    assert len(found["timed"]) == 5 and {rows for rows, _ in found["timed"]} == {8}
    assert found["written"] == [] and found["read_seconds"] > 0


@pytest.mark.slow
def test_a_process_tells_them_once_for_cells_that_share_them(places, monkeypatch):
    jobs = [packaged(), replace(packaged(), method="head"), packaged(label_smoothing=0.1)]
    one, other, third = shapes_of(jobs, places)
    assert one == other == third and len(one.train) == 6
    assert len(list((places.cache / "batch-shapes").iterdir())) == 1
    monkeypatch.setattr(subprocess, "Popen", None)
    assert shapes_of(jobs, places)[0] == one, "kept"


@pytest.mark.slow
@pytest.mark.heavy
def test_rows_that_are_not_here_are_a_reason_and_nothing_is_kept(tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (told,) = shapes_of([packaged()], Places(mirror, ("mirror",), tmp_path / "cache"))
    assert told.reason and told.train == ()
    assert not (tmp_path / "cache" / "batch-shapes").exists()


@pytest.mark.slow
def test_the_process_that_times_prints_a_line_of_json(monkeypatch):
    script = (
        "from functools import partial; from peftmark.lab.duration import reference_steps as r; "
        "r.timed = partial(r.timed, seconds=1e9); "
        "r.SHAPES = (r.Shape('encoder', 24, 2, (6,), 100),); r.main()"
    )
    done = subprocess.run([sys.executable, "-c", script, "fp32"], capture_output=True, text=True)
    assert "mm float32" in json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_rows_of_ones_own_are_predicted_before_any_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    rows = [f"text number {i} about {'ham' if i % 2 else 'eggs'},{i % 2}" for i in range(60)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *rows, ""]))
    with pytest.raises(SystemExit) as left:
        parser.main(["new", "mine", "--data", "mine.csv"])
    assert left.value.code == 0, capsys.readouterr().err
    plan = make_plan(Selection("mine"))
    rates = Rates({}, (1e-5, 0.0, 1e-10))
    plan = replace(
        plan, planned=[p for p in plan.planned if p.job.method in ("head", "bag-of-words")]
    )
    found = {key[0].method: one for key, one in expected(plan, rates).items()}
    assert found["head"].reason == "" and found["head"].phases["train"] > 0
    assert 0 < found["bag-of-words"].seconds < found["head"].seconds


@pytest.mark.slow
def test_the_process_that_measures_a_gpu_says_all_that_a_card_needs():
    """On the CPU: the same code, with smaller sizes."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "peftmark.lab.duration.card_rates", "cpu"],
        capture_output=True,
        text=True,
        env=passed_on({"OMP_NUM_THREADS": "1"}),
    )
    told = json.loads(done.stdout)
    assert told.keys() == {
        "bf16", "fp16", "fp32", "bandwidth", "step", "operations", "views",
    }  # fmt: skip
    assert all(value > 0 for value in told.values())
    assert told["operations"] > 100 and told["views"] > 100
    card = measured("this processor", told)
    assert 0 < card.view < card.launch


def test_what_is_known_without_torch_is_what_jobs_do():
    from peftmark.duration.jobs import UNRELATED
    from peftmark.duration.shapes import TIMED
    from peftmark.lab import forgetting
    from peftmark.lab.data import held_out

    batches = forgetting.ROWS // forgetting.BATCH
    assert [(forgetting.BATCH, forgetting.LENGTH)] * batches == UNRELATED
    assert TIMED[False] == (held_out.LATENCY_BATCHES, held_out.LATENCY_ROWS)
    assert TIMED[True] == held_out.LATENCY_SPOKEN
