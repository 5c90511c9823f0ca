"""A run from suite to stored records with a fake worker, and what a person sees of it."""

from __future__ import annotations

import io
import os
import shlex
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

import fake_runs
from factory import make_failure, make_job, make_outcome, make_recipe, make_record
from peftmark.core.errors import StoreError, UserError
from peftmark.duration.estimates import Estimate, key_of
from peftmark.executors import select, slots
from peftmark.executors.contract import Finished, needs_of
from peftmark.executors.slots import Slot
from peftmark.machine import nvml
from peftmark.machine.nvml import Devices, Gpu
from peftmark.record.outcome import Outcome
from peftmark.run import notes as plan_notes
from peftmark.run import runner
from peftmark.run.progress import Board, clock, job_title
from peftmark.run.runner import Selection, command, execute, fetch, make_plan
from peftmark.run.stop import Stop
from peftmark.sources.assets import Located
from peftmark.sources.rows import TaskData
from peftmark.storage import part_cache, store

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("no_devices")]

SUITE = """
suite: demo
version: 1
summary: made up
reference: {method: head}
radar: {}
recipe: {batch_size: 16, steps: 10, learning_rate: 1e-3}
methods:
  - method: head
    learning_rates: [3e-3, 4e-3]
  - method: lora
    rank: [4]
    learning_rates: [2e-3, 5e-3]
    recipe: {targets: attention, alpha: 8}
profiles:
  big: {summary: s, needs: gpu, scale: reduced,
         sources: [hub], model: minilm-l6, seeds: [0], tasks: {cola: {}}}
  hub: {summary: s, needs: data, scale: reduced,
         sources: [mirror, hub], model: minilm-l6, seeds: [0],
        tasks: {cola: {}}}
  mirrored: {summary: s, needs: data, scale: reduced,
         sources: [mirror], model: minilm-l6, seeds: [0],
             tasks: {cola: {}}}
  quick: {summary: s, needs: nothing, scale: reduced,
         sources: [package], model: minilm-l6, seeds: [0, 1, 2],
          tasks: {trec: {}}}
  tuned: {summary: s, needs: nothing, scale: reduced,
         sources: [package], model: minilm-l6, seeds: [0],
          tuning: {seeds: [9]}, tasks: {trec: {}}}
"""


@pytest.fixture
def selection(tmp_path):
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "demo.yaml").write_text(SUITE)
    results = tmp_path / "results"
    return Selection("demo", "quick", suites=tmp_path / "suites", results=results, jobs=2)


def run(selection, ways=None, stop=None):
    """Run what is to run with fake workers; returns (seed, method, attempt, status) of each."""
    pairs = fake_runs.run(selection, ways, stop)
    for record, done in pairs:
        assert record.job == done.job
        # The supervisor alone knows what was predicted.
        reasons = dict(record.outcome.null_reasons)
        assert all(
            reasons.pop(name) for name in ("predicted_seconds", "most_seeds", "look", "question")
        )
        assert replace(record.outcome, null_reasons=reasons) == done.outcome
    return sorted((r.job.seed, r.job.method, r.attempt, r.outcome.status) for r, _ in pairs)


def reasons(selection):
    return {(p.job.seed, p.job.method): p.reason for p in make_plan(selection).planned}


ALL = [(seed, method, 1, "ok") for seed in (0, 1, 2) for method in ("head", "lora")]
ALL.insert(1, (0, "lora", 1, "ok"))  # the repeat


# --- run, run again -----------------------------------------------------------------------------


def test_a_run_is_stored_and_running_it_again_does_nothing(selection):
    assert set(reasons(selection).values()) == {"new"}
    assert run(selection) == ALL
    plan = make_plan(selection)
    assert plan.to_run == []
    assert {p.reason for p in plan.planned} == {"ok in attempt 1"}
    before = sorted(p.name for p in plan.store.parts.iterdir())
    assert run(selection) == []
    assert sorted(p.name for p in plan.store.parts.iterdir()) == before
    assert pq.read_table(plan.store.derived).num_rows == 7
    assert len(list(plan.store.logs.glob("*.1.log"))) == 7


def test_a_stored_record_says_what_it_was_predicted_to_take(selection, monkeypatch):
    known = {}

    def predicted(plan):
        known.update({key_of(job): Estimate({"train": 7.25}) for job in plan.jobs[:1]})
        return known

    monkeypatch.setattr(runner, "known_predictions", predicted)
    told = {record.job.method: record for record, _ in fake_runs.run(selection)}
    assert told["head"].predicted_seconds == 7.25
    assert told["lora"].predicted_seconds is None
    stored = make_plan(selection).contents.records.values()
    assert {r.predicted_seconds for r in stored} == {7.25, None}


def test_a_stored_record_says_where_and_how_it_was_made(selection):
    run(selection)
    record = next(iter(make_plan(selection).contents.records.values()))
    assert record.environment.versions["torch"]
    assert record.environment.machine["cores"] >= 1
    assert record.started_at <= record.finished_at
    assert record.started_at.endswith("Z")
    assert record.job.job_id in record.command


def test_a_failed_job_runs_again_with_its_reason_and_the_others_do_not(selection):
    assert run(selection, {"1": "exits"}) == [
        (seed, method, 1, "crashed" if seed == 1 else "ok") for seed, method, _, _ in ALL
    ]
    told = reasons(selection)
    assert told[1, "head"].startswith("attempt 1 crashed: the worker ended with exit code 3")
    assert told[0, "head"] == "ok in attempt 1"
    once = replace(selection, retries=0)
    assert run(once, {"1": "dies"}) == [(1, m, 2, "crashed") for m in ("head", "lora")]
    tries = [(1, "head", 3), (1, "head", 4), (1, "lora", 3), (1, "lora", 4)]
    assert sorted(run(selection, {"1": "dies"})) == [(*tried, "crashed") for tried in tries]
    assert run(selection) == [(1, m, 5, "ok") for m in ("head", "lora")]
    assert run(selection) == []


def test_results_of_other_library_versions_are_made_again(selection, monkeypatch):
    run(selection)
    installed = runner.software()
    changed = {**installed, "torch": "99.0", "pandas": "99.0"}
    monkeypatch.setattr(runner, "software", lambda: changed)
    told = f"made with other versions: torch {installed['torch']} -> 99.0"
    assert set(reasons(selection).values()) == {told}
    assert len(make_plan(selection).to_run) == 7


def test_again_runs_finished_jobs_and_only_runs_just_those(selection):
    run(selection)
    again = Selection(**{**vars(selection), "again": True})
    assert set(reasons(again).values()) == {"ok in attempt 1, run again as asked"}
    job = make_plan(selection).jobs[3]
    one = Selection(**{**vars(again), "only": (job.job_id,)})
    assert run(one) == [(job.seed, job.method, 2, "ok")]
    assert make_plan(selection).contents.records[job.job_id].attempt == 2


def test_a_job_that_ran_ok_stays_done_when_running_it_again_fails(selection):
    run(selection)
    again = Selection(**{**vars(selection), "again": True})
    run(again, {"0": "exits"})
    assert make_plan(selection).to_run == []


def test_a_damaged_part_is_set_aside_and_its_job_runs_again(selection):
    run(selection)
    plan = make_plan(selection)
    job = plan.jobs[0]
    part = plan.store.parts / f"{job.job_id}.1.parquet"
    part.write_bytes(part.read_bytes()[:-7])
    assert run(selection) == [(job.seed, job.method, 2, "ok")]
    assert [p.name for p in (plan.store.folder / "quarantine").iterdir()] == [part.name]
    assert make_plan(selection).contents.damaged == {}


def test_a_full_disk_stops_the_run_and_keeps_what_was_stored(selection, monkeypatch):
    plan = make_plan(selection)
    kept = []

    def append(record):
        if len(kept) == 2:
            raise StoreError("the disk is full")
        kept.append(record)
        return type(plan.store).append(plan.store, record)

    monkeypatch.setattr(plan.store, "append", append)
    with plan.store.lock(), pytest.raises(StoreError, match="disk is full"):
        (plan.store.logs / "ways").write_text('{"2": "hangs"}')
        list(execute(plan, plan.to_run, selection, lambda *_: None, Stop(), "fake_worker:by_seed"))
    assert len(make_plan(selection).to_run) == 5


def test_stopping_keeps_finished_jobs_and_stores_the_running_ones(selection):
    stop = Stop()
    plan = make_plan(selection)

    seen = []

    def see(what):
        seen.append(what)
        if "hangs" in seen and seen.count("ok") == 2:  # both of seed 0
            stop.signal = signal.SIGINT

    def listener(job, message):
        if message.get("step") == 3:
            see("hangs")

    with plan.store.lock():
        (plan.store.logs / "ways").write_text('{"1": "hangs"}')
        for record, _ in execute(
            plan, plan.to_run, selection, listener, stop, "fake_worker:by_seed"
        ):
            see(record.outcome.status)
    statuses = {
        (r.job.seed, r.outcome.status) for r in make_plan(selection).contents.records.values()
    }
    assert statuses == {(0, "ok"), (1, "interrupted")}
    assert run(selection)[-1] == (2, "lora", 1, "ok")


def test_a_job_whose_trials_all_failed_uses_the_recipes_rate_and_its_row_says_so(
    selection,
):
    tuned = Selection(**{**vars(selection), "profile": "tuned"})
    ways = {"rate 0.004": "exits", "rate 0.003": "exits"}
    run(tuned, ways)
    plan = make_plan(tuned)
    jobs = [job for job in plan.to_run if job.purpose != "tuning"]
    assert {(job.method, job.recipe.learning_rate) for job in jobs} == {
        ("head", 0.001),
        ("lora", 0.002),
    }
    with plan.store.lock():
        for record, _ in execute(plan, jobs, tuned, lambda *_: None, Stop(), "fake_worker:by_seed"):
            untuned = record.job.method == "head"
            assert (runner.UNTUNED in record.outcome.warnings) == untuned


def test_trials_of_other_library_versions_choose_nothing(selection, monkeypatch):
    tuned = Selection(**{**vars(selection), "profile": "tuned"})
    assert make_plan(tuned).expanded.waiting == 3
    run(tuned)
    assert make_plan(tuned).expanded.waiting == 0
    changed = {**runner.software(), "peft": "99.0"}
    monkeypatch.setattr(runner, "software", lambda: changed)
    plan = make_plan(tuned)
    assert (plan.expanded.waiting, len(plan.to_run)) == (3, 4)


# --- the plan -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "mirror", "hub", "chosen"),
    [
        (1, False, True, "big"),
        (1, False, False, "quick"),
        (0, True, False, "hub"),
        (0, False, True, "hub"),
        (0, False, False, "quick"),
    ],
)
def test_the_profile_fits_the_machine(selection, monkeypatch, tmp_path, gpus, mirror, hub, chosen):
    found = tuple(Gpu(f"GPU-{i}", "Example", None) for i in range(gpus))
    monkeypatch.setattr(nvml, "devices", lambda: Devices(found, None))
    monkeypatch.setattr(runner, "hub_reachable", lambda: (hub, "asked"))
    values = {
        **vars(selection),
        "jobs": None,
        "profile": None,
        "mirror": tmp_path if mirror else None,
    }
    plan = make_plan(Selection(**values))
    assert plan.profile == chosen
    assert {job.device for job in plan.jobs} == {"cuda" if gpus else "cpu"}


def test_slots_are_gpus_or_cores_or_what_was_asked(selection, monkeypatch):
    monkeypatch.setattr(select, "cores", lambda: 3)
    monkeypatch.setattr(slots, "allowed_cores", lambda: [0, 1, 4])
    free = Selection(**{**vars(selection), "jobs": None})
    assert make_plan(selection).slots == [Slot(), Slot()]
    assert make_plan(free).slots == [Slot(cores=frozenset({core})) for core in (0, 1, 4)]
    found = (Gpu("GPU-a", "Example", None), Gpu("GPU-b", "Example", None))
    monkeypatch.setattr(nvml, "devices", lambda: Devices(found, None))
    monkeypatch.setattr(nvml, "near_cores", {"GPU-a": frozenset({0, 9}), "GPU-b": frozenset()}.get)
    assert make_plan(free).slots == [Slot("GPU-a", frozenset({0})), Slot("GPU-b")]
    assert make_plan(Selection(**{**vars(selection), "jobs": 1})).slots == [
        Slot("GPU-a", frozenset({0}))
    ]
    with pytest.raises(UserError, match="--jobs 3: there are 2 GPUs"):
        make_plan(Selection(**{**vars(selection), "jobs": 3}))


def test_an_executor_is_told_what_earlier_jobs_of_like_memory_took(selection):
    plan = make_plan(selection)
    told = []

    def run_nothing(order):
        told.append(order)
        return iter(())

    def orders(records):
        venue = replace(plan.venue, run=run_nothing)
        contents = replace(plan.contents, records=records)
        with plan.store.lock():
            again = replace(plan, venue=venue, contents=contents)
            list(execute(again, plan.jobs[:1], selection, lambda *_: None, Stop()))
        return told[-1].needs

    assert orders({}) == {}
    first, second = plan.jobs[0], replace(plan.jobs[0], seed=99)
    rows = [
        make_record(job=first, outcome=make_outcome(vmhwm_bytes=5)),
        make_record(job=second, outcome=make_outcome(vmhwm_bytes=7)),
        make_record(job=plan.jobs[-1], outcome=make_failure()),
    ]
    assert orders({row.job.job_id: row for row in rows}) == {needs_of(first): 7}


@pytest.mark.parametrize(
    ("changes", "what", "remedy"),
    [
        ({"suite": "none"}, "no suite 'none'", "demo"),
        ({"profile": "none"}, "no profile 'none'", "quick"),
        ({"only": ("feed",)}, "no job feed", "peftmark plan demo --profile quick"),
        ({"mirror": Path("/no/such/folder")}, "'/no/such/folder' is not a folder", "GLUE"),
        ({"profile": "mirrored"}, "from a mirror alone", "--mirror"),
        ({"results": Path(__file__)}, "test_runner.py is not a folder", "--results"),
    ],
)
def test_a_plan_that_cannot_be_made_says_why_and_what_to_do(selection, changes, what, remedy):
    with pytest.raises(UserError) as caught:
        make_plan(Selection(**{**vars(selection), **changes}))
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert not selection.results.exists()


@pytest.mark.parametrize("instructions", [False, True, None])
def test_bf16_on_a_cpu_without_its_instructions_is_noted(selection, monkeypatch, instructions):
    monkeypatch.setattr(plan_notes, "machine", lambda: {"bf16_instructions": instructions})
    assert make_plan(selection).notes == []
    suite = selection.suites / "demo.yaml"
    suite.write_text(suite.read_text().replace("recipe: {batch", "recipe: {precision: bf16, batch"))
    notes = make_plan(selection).notes
    assert [note.startswith("no fast bf16 path") for note in notes] == [True] * (
        instructions is False
    )


def test_rows_of_an_older_peftmark_are_counted(selection, monkeypatch):
    run(selection)
    newer = store.SCHEMA_VERSION + 1
    for module in (store, part_cache):
        monkeypatch.setattr(module, "SCHEMA_VERSION", newer)
    monkeypatch.setattr(part_cache, "_read", {})  # another process
    plan = make_plan(selection)
    assert [note[:29] for note in plan.notes] == ["7 rows of an older peftmark ("]
    assert len(plan.to_run) == 7


def test_planning_writes_nothing(selection, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    make_plan(selection)
    assert sorted(tmp_path.rglob("*")) == before


def test_fetching_asks_for_the_model_and_every_task_once(selection, monkeypatch):
    asked = []

    def model(model, places):
        asked.append(model.key)
        return Located(Path("/m"), "from there")

    def task(task, places):
        asked.append(task.key)
        return TaskData([], [], "from here", "f" * 64)

    monkeypatch.setattr(runner, "model_files", model)
    monkeypatch.setattr(runner, "load_task", task)
    assert fetch(make_plan(selection)) == {"minilm-l6": "from there", "trec": "from here"}
    assert asked == ["minilm-l6", "trec"]


def test_the_command_of_a_record_survives_a_shell(selection):
    job = make_job()
    odd = Selection(**{**vars(selection), "mirror": Path("a b; touch p")})
    words = shlex.split(command(job, odd))
    assert words[:5] == ["peftmark", "run", "demo", "--profile", "quick"]
    assert words[words.index("--job") + 1] == job.job_id
    assert words[words.index("--mirror") + 1] == "a b; touch p"


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_asks_to_stop_and_a_second_one_leaves(number, code):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    stop = Stop()
    with pytest.raises(KeyboardInterrupt), stop.watching():
        assert not stop.asked()
        os.kill(os.getpid(), number)
        assert stop.asked()
        assert stop.code == code
        os.kill(os.getpid(), number)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


# --- what a person sees -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599.6, "1:00:00"), (36_061, "10:01:01")],
)
def test_a_duration_reads_like_a_clock(seconds, text):
    assert clock(seconds) == text


def ended(seed, outcome):
    moment = "2030-01-01T00:00:00Z"
    return Finished(make_job(seed=seed), 1, outcome, moment, moment, 65.0, None, None, "none here")


def test_a_title_tells_what_a_job_is_for():
    recipe = make_recipe(learning_rate=0.002)
    assert job_title(make_job(variant="bf16")) == "LoRA r8, bf16 on sst2, seed 0"
    assert job_title(make_job(purpose="repeat")) == "LoRA r8 on sst2, seed 0, repeat"
    trial = make_job(purpose="tuning", seed=9, recipe=recipe)
    assert job_title(trial) == "LoRA r8 on sst2, seed 9, trial of learning rate 0.002, 120 steps"


@pytest.mark.parametrize("live", [True, False])
def test_every_finished_job_leaves_a_line(live):
    text = io.StringIO()
    console = Console(file=text, force_terminal=live, width=60, color_system=None)
    jobs = [make_job(seed=seed) for seed in range(3)]
    with Board(console, jobs, slots=2) as board:
        for job in jobs:
            board.event(job, {"phase": "start"})
            board.event(job, {"phase": "train"})
            board.event(job, {"step": 20, "steps": 120, "metric": 0.51234})
            board.event(job, {"step": 40, "steps": 120})
        board.finished(ended(0, make_outcome()))
        board.finished(ended(1, Outcome("crashed", "KeyError: '[/red] [bold] x'")))
        board.finished(ended(2, Outcome("ok")))
    shown = text.getvalue()
    assert "1/3 LoRA r8 on sst2, seed 0: accuracy 0.860, 1:05, about 1:05 left\n" in shown
    assert "2/3 LoRA r8 on sst2, seed 1: crashed: KeyError: '[/red] [bold] x', 1:05" in shown
    assert "3/3 LoRA r8 on sst2, seed 2" in shown
    assert "done in 0:0" in shown
    assert live or len(shown.splitlines()) == 3
    assert live == ("all jobs" in shown)


def test_the_time_left_is_what_is_predicted_and_then_what_ended_jobs_say():
    jobs = [make_job(seed=seed) for seed in range(5)]
    known = {key_of(jobs[0]): Estimate({"train": 100.0})}
    console = Console(file=io.StringIO(), width=200)
    with Board(console, jobs, slots=2, predicted=known) as board:
        assert board.left() == "about 4:10 left", "five of 100 s, two at once"
        board.finished(ended(0, make_outcome()))
        assert board.left() == "about 2:10 left", "four of 65 s, as the first took"


def test_a_later_plan_of_a_command_keeps_its_jobs_and_takes_rows_anew(selection):
    """Their ids are hashes, and ten thousand of them take a second: a run plans four times."""
    first = make_plan(selection)
    run(selection)
    later = make_plan(selection, before=first)
    assert later.expanded is first.expanded
    assert later.to_run == [] and later.planned == make_plan(selection).planned


def test_where_trials_choose_rates_a_later_plan_has_other_jobs(selection):
    tuned = replace(selection, profile="tuned")
    first = make_plan(tuned)
    run(tuned)
    later = make_plan(tuned, before=first)
    assert later.expanded.waiting < first.expanded.waiting
    assert later.planned == make_plan(tuned).planned
