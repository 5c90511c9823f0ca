"""Asking for predictions: what is asked once, what is kept, and what is made of the answers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from peftmark.catalog.architectures import ARCHITECTURES
from peftmark.catalog.tasks import TASKS
from peftmark.cli import plan
from peftmark.core.errors import UserError
from peftmark.executors.contract import Order, needs_of
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import Slot
from peftmark.lab.memory.fake_step import Seen
from peftmark.lab.memory.live_tensors import Trace
from peftmark.lab.memory.meta_model import config_of
from peftmark.lab.memory.worker import Asked, answer, changes, positions
from peftmark.machine.gpus import CONTEXT_BYTES, device, room
from peftmark.memory import forecast, plan_estimates
from peftmark.memory.forecast import Forecast, forecasts, request
from peftmark.record.job import Form, Job
from peftmark.record.own import Own
from peftmark.record.own_model import OwnModel
from peftmark.run import admission
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import SUPPORT
from symbolic_jobs import job_for

HERE = SUPPORT
MINILM = ARCHITECTURES["minilm-l6"]
OWN = Own("classification", ("a", "b"), (), train_rows=90, eval_rows=40)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The stand-in answers; calling it says how many jobs each message held."""
    log = tmp_path / "asked"
    log.touch()
    monkeypatch.setattr(forecast, "WORKER", "fake_forecasts")
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("FAKE_FORECASTS", str(log))
    return lambda: sorted(map(int, log.read_text().split()))


def of(job, **changes):
    return replace(request(job, TASKS["sst-2"], MINILM), **changes)


# --- asking -------------------------------------------------------------------------------------


def test_a_step_of_several_devices_is_that_of_one_unless_the_base_is_sharded():
    def text(**recipe):
        return forecast._text(request(job_for(batch_size=16, **recipe), TASKS["sst-2"], MINILM))

    one, two = (
        forecast._text(request(job_for(batch_size=8), TASKS["sst-2"], MINILM)),
        text(devices=2),
    )
    assert one == two
    sharded = Job.from_json(json.loads(text(devices=2, shard=True))["jobs"][0]).recipe
    assert (sharded.devices, sharded.shard, sharded.device_rows) == (2, True, 8)


def test_what_shapes_no_step_is_asked_once_and_ranks_together(asked, tmp_path):
    base = job_for()
    same = [
        base,
        replace(base, seed=7),
        replace(base, task="other", variant="x"),
        job_for(learning_rate=0.5),
        job_for(alpha=3.0),
        job_for(steps=9),
        job_for("rslora"),
        replace(base, own=OWN, metric="f1"),
        replace(base, own=replace(OWN, also=("macro_f1",), eval_rows=9, code="a" * 64)),
        replace(base, own_model=OwnModel(causal=False, parameters=9, title="mine")),
    ]
    other = [job_for(gradient_checkpointing=True), job_for(dropout=0.0), job_for("dora")]
    ranks = [replace(base, size=rank) for rank in (3, 5, 9)]
    found = forecasts([of(job) for job in [*same, *other, *ranks]], tmp_path / "cache")
    assert asked() == [1, 1, 1, 4]
    assert len({one.total for one in found[: len(same)]}) == 1
    assert [one.live["temporaries"] % 1000 for one in found[-3:]] == [3, 5, 9]
    again = forecasts([of(job) for job in [*same, *ranks]], tmp_path / "cache")
    assert asked() == [1, 1, 1, 4], "from the cache"
    assert again == [*found[: len(same)], *found[-3:]]


def test_installed_code_is_part_of_what_is_kept(asked, tmp_path, monkeypatch):
    forecasts([of(job_for())], tmp_path)
    monkeypatch.setattr(forecast, "made_by", lambda: "something else")
    forecasts([of(job_for())], tmp_path)
    assert asked() == [1, 1]
    for file in (tmp_path / "forecasts").iterdir():
        file.write_text("{damaged")
    assert forecasts([of(job_for())], tmp_path)[0].total
    assert asked() == [1, 1, 1]


def test_a_process_that_ends_is_a_reason_and_is_asked_again(asked, tmp_path):
    wanted = [of(job_for("peft:poly")), of(job_for())]
    told = forecasts(wanted, tmp_path, processes=1)
    assert "it fell over" in told[0].reason
    assert told[1].total and not told[1].reason
    forecasts(wanted, tmp_path, processes=1)
    assert asked() == [1, 1, 1]


@pytest.mark.slow
def test_asking_loads_no_torch_and_opens_no_socket():
    """The process that predicts neither: a real one, with sockets forbidden."""
    code = (
        "import json, socket, sys\n"
        "def no(*a, **k): raise AssertionError('a socket')\n"
        "socket.socket.__init__ = no\n"
        "import peftmark.memory.forecast, peftmark.cli.plan, peftmark.memory.plan_estimates\n"
        "assert 'torch' not in sys.modules\n"
        "from peftmark.lab.memory.worker import main\n"
        "main()\n"
    )
    line = forecast._message([forecast._text(of(job_for(), rows=2, tokens=8))])
    done = subprocess.run(
        [sys.executable, "-c", code], input=line, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = Forecast(**json.loads(done.stdout)[0])
    assert told.total > 4 * 22_713_216 > told.trainable > 0


@pytest.mark.slow
def test_many_ranks_are_told_from_a_few_runs():
    small = MINILM | {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 100,
    }
    jobs = [replace(job_for(), size=rank) for rank in (1, 2, 3, 5, 8, 13, 30)]
    together = Asked(jobs, small, "classification", 2, 4, 16, True, Form(), None)
    alone = [answer(replace(together, jobs=[job]))[0] for job in jobs]
    assert answer(together) == alone


def test_ranks_that_follow_no_polynomial_are_each_run(monkeypatch):
    def cubic(self, job, **_):
        return Seen(Trace((job.size**3,), {}, ((0, 1),), ()), 0, 1, 1, 1)

    monkeypatch.setattr(Asked, "run", cubic)
    jobs = [replace(job_for(), size=rank) for rank in (1, 2, 3, 5, 8, 13)]
    told = answer(Asked(jobs, {}, "classification", 2, 4, 16, True, Form(), None))
    assert [sum(one["live"].values()) for one in told] == [job.size**3 for job in jobs]


@pytest.mark.slow
def test_what_fits_is_found_and_is_the_most():
    small = MINILM | {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 100,
    }
    one = Asked([job_for("full")], small, "classification", 2, 4, 64, True, Form(), 2 * 10**6)
    told = answer(one)[0]
    rows, tokens = told["largest_rows"], told["largest_tokens"]

    def total(**size):
        return answer(replace(one, room=None, **size))[0]["allocated"]

    assert total(rows=rows) <= 2 * 10**6 < total(rows=rows + 1)
    assert tokens == 512 or total(tokens=tokens) <= 2 * 10**6 < total(tokens=tokens + 64)
    assert "gradient checkpointing" in answer(replace(one, room=1))[0]["changes"]
    assert positions(config_of(MINILM, 2)) == 512


# --- plans --------------------------------------------------------------------------------------


def found_for(name="smoke", **named):
    jobs = expand(load_suite(name), "offline", "cpu").jobs
    return plan_estimates.outlooks(jobs, None, **named)


def test_a_cell_and_task_is_one_outlook_with_its_parts(asked):
    found = found_for()
    assert len(found) == 4
    text = "\n".join(plan.memory_lines(found, None))
    assert "trec, 16 rows of 20 tokens" in text
    assert "QLoRA r8" in text and "on the CPU" in text
    assert all(one.fits is None for one in found)


def test_cells_with_batches_of_their_own_have_a_table_of_their_own(asked):
    jobs = [replace(real(job_for(batch_size=size)), size=size) for size in (4, 8)]
    text = "\n".join(plan.memory_lines(plan_estimates.outlooks(jobs, None), None))
    assert "sst-2, 4 rows of" in text and "sst-2, 8 rows of" in text


def test_what_fits_a_device_and_what_would_make_it_fit(asked):
    large, small = device("24GB"), device(f"{CONTEXT_BYTES + 150 * 10**6}B")
    assert all(one.fits for one in found_for(device=large))
    found = found_for(device=small)
    assert not any(one.fits for one in found)
    text = "\n".join(plan.memory_lines(found, small))
    assert "on a GPU" in text
    assert "gradient checkpointing (9.5)" in text
    assert "an nf4 base" not in text, "it doesn't help"
    assert "a batch of 3 rows at most" in text
    assert "tokens at most" not in text
    assert room(small.memory_bytes) < 150 * 10**6
    assert room(0) == 0


def test_what_cannot_be_predicted_says_so(asked):
    jobs = [job_for("sensitive-layers"), replace(job_for(), model="a-model-of-ones-own")]
    jobs = [replace(job, task="sst-2") for job in jobs]
    jobs[0] = replace(jobs[0], model="minilm-l6")
    text = "\n".join(plan.memory_lines(plan_estimates.outlooks(jobs, None), None))
    assert "not predicted: it chooses by data" in text
    assert "not predicted: its architecture is told by its files alone" in text


def test_another_architecture_by_name_or_file(asked, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(MINILM))
    assert found_for(model=str(file))[0].forecast == found_for()[0].forecast
    assert found_for(model="llama-7b")
    for wrong, said in (("nothing", "neither"), (str(tmp_path / "x.json"), "no configuration")):
        with pytest.raises(UserError, match=said):
            found_for(model=wrong)


@pytest.mark.parametrize(
    "change",
    [{"weights": "bf16"}, {"gradient_accumulation": 2}, {"optimizer": "adamw_8bit"}],
    ids=lambda change: next(iter(change)),
)
def test_jobs_of_other_memory_are_other_needs(change):
    one = real(job_for())
    assert needs_of(replace(one, recipe=replace(one.recipe, **change))) != needs_of(one)


@pytest.mark.slow
def test_a_step_in_passes_is_asked_and_counted_whole():
    """The peak is that of one pass, operations are those of all."""
    jobs = [job_for(batch_size=8, gradient_accumulation=n) for n in (1, 2, 4)]
    small = {**MINILM, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1}
    rows = [of(job).rows for job in jobs]
    assert rows == [8, 4, 2]
    told = [
        answer(Asked([job], small, "classification", 2, n, 16, True, Form(), None))[0]
        for job, n in zip(jobs, rows, strict=True)
    ]
    assert len({one["flops"] for one in told}) == 1 and told[0]["flops"] > 0
    held = [one["live"]["activations"] for one in told]
    assert held == sorted(held, reverse=True) and len(set(held)) == 3


def test_what_does_not_fit_may_fit_on_a_base_in_bf16():
    words = [name for name, _ in changes(job_for())]
    assert "bf16 weights" in words
    assert "bf16 weights" not in [name for name, _ in changes(job_for("full"))]
    low = job_for(precision="bf16", weights="bf16")
    assert "bf16 weights" not in [name for name, _ in changes(low)]


# --- placing ------------------------------------------------------------------------------------


def real(job):
    return replace(job, model="minilm-l6", task="sst-2")


def test_small_jobs_on_a_large_machine_are_not_predicted(asked, tmp_path):
    found = admission.foresee([real(job_for())], {}, 2, 2**37, tmp_path)
    assert (found, asked()) == (admission.Foreseen(), [])
    known = {needs_of(real(job_for())): 5}
    assert admission.foresee([real(job_for())], known, 2, 1, tmp_path) == admission.Foreseen()


@pytest.mark.slow
def test_the_rough_bound_is_above_what_is_predicted():
    for job in (job_for("full"), job_for("dora"), job_for("adalora", "nf4")):
        one = real(job)
        size = one.recipe.batch_size, one.recipe.max_length
        form = Form(attention="eager")
        asked = Asked([one], dict(MINILM), "classification", 2, *size, True, form, None)
        told = answer(asked)[0]
        assert told["allocated"] < admission.rough_bytes(replace(one, device="cuda"))


def test_needs_are_predicted_and_what_cannot_fit_is_refused(asked, tmp_path):
    fits, large = real(job_for()), real(job_for(batch_size=512, max_length=512))
    memory = admission.PROCESS_BYTES + 10**8 + 4 * 10**6
    short_rows = real(job_for(batch_size=16, max_length=512))  # too large only at full length
    found = admission.foresee([fits, large, short_rows], {}, 2, memory, tmp_path)
    assert set(found.needs) == {needs_of(job) for job in (fits, large, short_rows)}
    assert set(found.refused) == {needs_of(large)}
    reason = found.refused[needs_of(large)]
    assert "even with rows of 8 tokens" in reason
    assert "gradient checkpointing" in reason and "a batch of 3 at most" in reason


def test_a_refused_job_is_a_row_and_starts_no_worker(tmp_path):
    job = real(job_for())
    order = Order(
        jobs=[(job, 4)],
        places=None,
        logs=tmp_path,
        worker="nowhere:at_all",
        refused={needs_of(job): "too large; use nf4"},
    )
    [done] = run_jobs(order, [Slot()])
    assert (done.attempt, done.outcome.status) == (4, "unsupported")
    assert done.outcome.status_reason == "too large; use nf4"
    assert done.wall_seconds == 0.0
