"""`make gpu-report`: its parts, their time, what a part that fails leaves, and what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from factory import make_environment, make_outcome, make_record
from peftmark.core.errors import UserError
from peftmark.perf import command, gpu_parts, gpu_report, gpu_suites, limited
from peftmark.perf.gpu_parts import Bench, NotRun
from peftmark.perf.gpu_report import PARTS, Part, carry_out
from peftmark.perf.gpu_steps import CELLS
from peftmark.storage.store import Store
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from waiting import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def bench(tmp_path, clock):
    return Bench(tmp_path / "report", "GPU-1", False, until=clock.now + 200, clock=clock.monotonic)


def answers(bench, said, code=0, late=False, took=0.0, clock=None):
    """Have the bench's commands print what a function of their words gives; returns those words."""
    asked = []

    def run(words, log, seconds, environment, now):
        asked.append(SimpleNamespace(words=words, seconds=seconds, environment=environment))
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("warning\nbecause of that\n")
        log.with_suffix(".out").write_text(said(words))
        if clock is not None:
            clock.now += took
        return limited.Ran(code, took, late, log.with_suffix(".out"), log)

    bench.run = run
    return asked


# --- the plan and its time ----------------------------------------------------------------------


def test_parts_are_in_order_of_value_and_can_all_be_begun_in_eight_minutes():
    keys = [part.key for part in PARTS]
    assert keys == [
        "doctor", "steps_minilm", "smoke", "steps_encoder", "alone", "packed", "glue"
    ]  # fmt: skip
    assert all(0 < part.least <= part.limit for part in PARTS)
    assert sum(part.least for part in PARTS) <= 60 * gpu_report.MINUTES == 480
    assert sum(part.limit for part in PARTS[:3]) < 480, "the three that matter most always fit"


def test_each_part_has_its_own_limit_and_what_is_left_of_the_whole(bench, clock):
    given = []

    def takes(seconds):
        def work(bench):
            given.append(bench.until - clock.now)
            clock.now += seconds
            return {"took": seconds}

        return work

    parts = [
        Part("a", "A", takes(30), 50, 10),
        Part("b", "B", takes(60), 500, 10),
        Part("c", "C", takes(1), 50, 11),
        Part("d", "D", takes(1), 50, 10),
    ]
    heard = []
    results = carry_out(parts, bench, 100, heard=lambda so_far, last: heard.append([*so_far, last]))
    assert given == [50, 70, 10], "its limit; all that is left; c needs more than that"
    assert [r.outcome for r in results] == ["done", "done", "not run", "done"]
    assert results[2].reason == "10 s were left, and it needs 11 at least"
    assert [r.seconds for r in results] == [30, 60, 0, 1]
    assert results[0].found == {"took": 30}
    assert [r.reason for r in heard[0]][1:4] == ["not reached yet"] * 3
    assert [of[-1].key for of in heard] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("minutes", "limit"), [(4, 50), (8, 50), (24, 150)])
def test_more_time_is_more_for_each_part(minutes, limit, bench, clock):
    given = []
    part = Part("a", "A", lambda bench: given.append(bench.until - clock.now) or {}, 50, 10)
    carry_out([part], bench, 60 * minutes)
    assert given == [limit]


def test_a_tiny_run_begins_parts_with_less(bench, clock):
    part = Part("a", "A", lambda bench: {}, 50, 45)
    assert carry_out([part], bench, 6)[0].outcome == "not run"
    assert carry_out([part], replace(bench, quick=True), 6)[0].outcome == "done"


def test_a_part_that_fails_is_a_line_and_the_others_go_on(bench):
    def short(bench):
        bench.short.append("half of it is missing")
        return {"half": 1}

    def raises(error):
        def work(bench):
            raise error

        return work

    parts = [
        Part("told", "", raises(UserError("no model", "Bring it.")), 50, 1),
        Part("fault", "", raises(ZeroDivisionError("by zero")), 50, 1),
        Part("nothing", "", raises(NotRun("not offered")), 50, 1),
        Part("short", "", short, 50, 1),
        Part("left out", "", short, 50, 1),
        Part("fine", "", lambda bench: {"all": 1}, 50, 1),
    ]
    only = ["told", "fault", "nothing", "short", "fine"]
    results = carry_out(parts, bench, 100, only)
    assert [(r.outcome, r.reason) for r in results] == [
        ("failed", "no model"),
        ("failed", "ZeroDivisionError: by zero"),
        ("not run", "not offered"),
        ("partly", "half of it is missing"),
        ("not run", "not asked for"),
        ("done", ""),
    ]
    assert "ZeroDivisionError" in (bench.folder / "logs" / "fault.traceback").read_text()


# --- the parts ----------------------------------------------------------------------------------


def test_a_command_gets_what_is_left_less_the_time_to_end_and_one_card(bench, clock):
    asked = answers(bench, lambda words: "")
    clock.now += 50
    bench.python("a", ["peftmark"])
    bench.python("b", ["peftmark"], 30.0)
    replace(bench, card="").python("c", ["peftmark"])
    assert [one.seconds for one in asked] == [150 - limited.GRACE_SECONDS, 30, 142]
    assert [one.environment["CUDA_VISIBLE_DEVICES"] for one in asked] == ["GPU-1", "GPU-1", ""]
    assert asked[0].environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert asked[0].environment["HF_HUB_OFFLINE"] == "1"


def test_the_doctors_findings_are_kept_and_its_failure_has_a_reason(bench):
    answers(bench, lambda words: '[{"what": "gpu", "ok": true}]', code=2)
    assert gpu_parts.doctor(bench) == {"findings": [{"what": "gpu", "ok": True}]}
    answers(bench, lambda words: "no JSON", code=1)
    with pytest.raises(UserError, match="ended with code 1: warning because of that"):
        gpu_parts.doctor(bench)


WATCHED = {"launches": 1200.4, "copies": 3.0, "waits": 0.2, "where": {}, "reason": ""}
UNWATCHED = {"launches": None, "copies": None, "waits": 0.0, "where": {}, "reason": "no CUPTI"}


def pairs(gap=0.0):
    return {
        "ours": [0.22, 0.2, 0.24, 0.22, 0.22, 0.22],
        "bare": [0.2] * 6,
        "steps": 4,
        "losses": 37,
        "loss_gap": gap,
        "watched": {"ours": WATCHED, "bare": UNWATCHED},
    }


def step_lines(words):
    lines = [
        {"cell": "LoRA", "answer": pairs()},
        {"cell": "AdaLoRA, batched", "fault": "OutOfMemoryError: 2 GiB"},
        {"cell": "QLoRA (NF4)", "answer": pairs(float("inf"))},
    ]
    return "chatter\n" + "\n".join(map(json.dumps, lines)) + "\n{half a li"


def test_steps_become_milliseconds_and_ratios_and_a_cell_without_has_its_reason(bench):
    asked = answers(bench, step_lines, late=True)
    found = gpu_parts.encoder_steps(bench)
    ask = json.loads(asked[0].words[1])
    assert ask["shape"] == {"layers": 12, "width": 768, "heads": 12} and ask["device"] == "cuda"
    assert "768" in found["model"]
    lora = found["cells"]["LoRA"]
    assert lora["ours"]["value"] == pytest.approx(55.0), "milliseconds a step"
    assert lora["bare"]["value"] == pytest.approx(50.0)
    assert lora["ratio"]["value"] == pytest.approx(1.1)
    assert (lora["ratio"]["low"], lora["ratio"]["high"]) == pytest.approx((1.0, 1.2))
    assert (lora["losses"], lora["loss_gap"], lora["reason"]) == (37, 0.0, "")
    assert found["cells"]["QLoRA (NF4)"]["loss_gap"] is None
    own, batched = (found["cells"][f"AdaLoRA, {x}"] for x in ("PEFT's own", "batched"))
    assert own["ratio"] is batched["ratio"] is None
    assert batched["reason"] == "OutOfMemoryError: 2 GiB"
    assert own["reason"].startswith("not reached: ended at its limit after")
    assert len(bench.short) == 2


def test_steps_of_which_none_is_there_are_a_failure(bench):
    answers(bench, lambda words: "", code=1)
    with pytest.raises(UserError, match="LoRA: not reached: ended with code 1"):
        gpu_parts.minilm_steps(bench)


def stored(words, change=lambda number, job: {}, only=None):
    """Store a row for each job that a command asks for, as `peftmark run` would; nothing else."""
    if words[1] != "run" or "--results" not in words:
        return ""
    options = dict(pairwise(words))
    own = Path(options["--suites"]) if "--suites" in options else None
    wanted = [word for before, word in pairwise(words) if before == "--job"]
    store = Store(Path(options["--results"]), words[2])
    jobs = expand(load_suite(words[2], own), options["--profile"], "cuda").jobs
    chosen = [job for job in jobs if job.job_id in wanted or not wanted][:only]
    with store.lock():
        for number, job in enumerate(chosen):
            values = {"start_seconds": 0.5 + number, "jobs_before": number, "null_reasons": {}}
            values |= {"energy_gpu_joules": 600.0} | change(number, job)
            made = make_outcome(**values)
            started = f"2030-01-01T00:{number:02}:00Z"
            store.append(
                make_record(job=job, outcome=made, started_at=started, predicted_seconds=10.0)
            )
    return "{}"


def test_smoke_tells_starts_energy_times_and_the_repeat(bench):
    asked = answers(bench, stored)
    found = gpu_parts.shared(bench)
    assert [one.words[1] for one in asked] == ["plan", "run"]
    assert asked[0].seconds < 0.5 * asked[1].seconds, "predicting leaves time for the run"
    assert asked[1].words[asked[1].words.index("--jobs-per-process") + 1] == "8"
    assert len(found["jobs"]) == 9 and found["repeat"] == {"verdict": "same", "detail": ""}
    first, last = found["jobs"][0], found["jobs"][-1]
    assert (first["start_seconds"], first["jobs_before"]) == (0.5, 0)
    assert (first["energy_gpu_joules"], first["wall_seconds"]) == (600.0, 20.0)
    assert first["predicted_seconds"] == 10.0 and first["null_reasons"] == {}
    assert last["job"].endswith("repeat") and bench.short == []


def test_a_run_that_ended_early_gives_what_it_stored(bench):
    broken = {"status": "crashed", "status_reason": "CUDA error"}
    answers(bench, lambda w: stored(w, lambda n, job: broken if n == 1 else {}, only=3), late=True)
    found = gpu_parts.shared(bench)
    assert len(found["jobs"]) == 3 and found["repeat"]["verdict"] == "not run"
    told = "; ".join(bench.short)
    for words in ("not predicted", "ended at its limit", "3 of 9 jobs", "crashed (CUDA error)"):
        assert words in told
    bench.folder = bench.folder / "empty"
    answers(bench, lambda words: "", code=2)
    with pytest.raises(UserError, match="peftmark run smoke: ended with code 2"):
        gpu_parts.shared(bench)


def test_jobs_of_a_shared_process_are_held_against_processes_of_their_own(bench):
    for rows in ((), (make_record(outcome=make_outcome(jobs_before=0)),)):
        bench.rows["smoke"] = rows
        with pytest.raises(NotRun, match="no job that shared a process"):
            gpu_parts.alone(bench)
    answers(bench, stored)
    gpu_parts.shared(bench)
    other = [{"metrics": {"accuracy": 0.5}}, {}, {"final_weights_hash": "f" * 64}]
    asked = answers(bench, lambda words: stored(words, lambda number, job: other[number]))
    found = gpu_parts.alone(bench)
    words = asked[0].words
    assert words[words.index("--jobs-per-process") + 1] == "1" and words.count("--job") == 3
    first = next(j for j in expand(load_suite("smoke"), "offline", "cuda").jobs)
    assert first.job_id not in words, "it had its process to itself before"
    assert [one["differs"] for one in found["compared"]] == [
        "metrics: {'accuracy': 0.86} and {'accuracy': 0.5}",
        "",
        "final_weights_hash",
    ]
    assert bench.short == []


def test_packed_jobs_need_the_option_and_a_card(bench):
    answers(bench, lambda words: "--jobs-per-process N")
    with pytest.raises(NotRun, match="not offered"):
        gpu_parts.packed(bench)
    help_text = "--jobs-per-process N  --jobs-per-gpu N|auto"
    without = replace(bench, card="")
    answers(without, lambda words: help_text)
    with pytest.raises(NotRun, match="no CUDA device"):
        gpu_parts.packed(without)


def test_packed_jobs_are_eight_twice_and_timed(bench, clock):
    help_text = "--jobs-per-process N  --jobs-per-gpu N|auto"
    asked = answers(
        bench,
        lambda words: help_text if "--help" in words else stored(words),
        took=20.0,
        clock=clock,
    )
    found = gpu_parts.packed(bench)
    _, turns, together = (one.words for one in asked)
    assert turns.count("--job") == together.count("--job") == 8
    assert "--jobs-per-gpu" not in turns
    assert together[together.index("--jobs-per-gpu") + 1] == "8"
    assert (found["in_turn_seconds"], found["packed_seconds"], found["whole"]) == (20, 20, True)
    assert [one["differs"] for one in found["compared"]] == [""] * 8
    bench.folder = bench.folder / "again"
    answers(bench, lambda w: help_text if "--help" in w else stored(w, only=5))
    assert not gpu_parts.packed(bench)["whole"], "some are missing, so no time stands for eight"


TIME = {"total_seconds": 900.0, "later_seconds": 60.5, "unknown": {}}


@pytest.mark.parametrize(
    ("printed", "seconds", "why"),
    [
        (json.dumps({"time": TIME}), 960.5, ""),
        (json.dumps({"time": {**TIME, "unknown": {"not calibrated": 3}}}), None, "not calibrated"),
        (json.dumps({"time": None}), None, "nothing is predicted here"),
        ("no JSON", None, "peftmark plan printed no times"),
    ],
)
def test_glue_takes_the_hours_that_are_left(printed, seconds, why, bench, monkeypatch, tmp_path):
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path))
    asked = answers(bench, lambda words: printed if words[1] == "plan" else stored(words, only=4))
    found = gpu_parts.glue(bench)
    assert (found["plan_seconds"], found["plan_reason"]) == (seconds, why)
    hours = float(asked[1].words[asked[1].words.index("--hours") + 1])
    left = 200 - limited.GRACE_SECONDS - gpu_parts.END_SECONDS
    assert 3600 * hours == pytest.approx(left, abs=0.5)
    assert (found["model"], found["jobs"], found["ok"]) == ("minilm-l6", 4, 4)
    assert (found["jobs_seconds"], found["jobs_predicted_seconds"]) == (80.0, 40.0)


# --- copies of suites ---------------------------------------------------------------------------


def test_copies_of_suites_are_the_sizes_that_their_parts_want(tmp_path):
    assert gpu_suites.smoke(tmp_path / "none", False) is None
    tiny = expand(
        load_suite("smoke", gpu_suites.smoke(tmp_path / "s", True)), "offline", "cpu"
    ).jobs
    assert {job.recipe.steps for job in tiny} == {20} and len(tiny) == 5
    packed = expand(load_suite("smoke", gpu_suites.packed(tmp_path / "p")), "offline", "cuda").jobs
    assert [job.method for job in packed] == ["lora"] * 9
    assert {job.quantization for job in packed} == {"none"}
    assert {job.recipe.steps for job in packed} == {40}, "the recipe is the suite's own"
    for model, cells in (("minilm-l6", 6), ("mpnet-base", 7)):
        suite = load_suite("glue", gpu_suites.glue(tmp_path / model, False, model))
        found = expand(suite, "gpu-offline", "cuda")
        assert model in {job.model for job in found.jobs}
        assert len({(job.cell, job.model) for job in found.jobs}) == cells
    small = load_suite("glue", gpu_suites.glue(tmp_path / "t", True, "minilm-l6"))
    found = expand(small, "gpu-offline", "cpu")
    assert len(found.jobs) == 2 and len(found.waits) == 2, "two trials, then a job and its repeat"


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def no_gpu(monkeypatch):
    nothing = SimpleNamespace(found=(), refused="", told="", reason="NVML: no driver")
    monkeypatch.setattr(gpu_report.nvml, "devices", lambda: nothing)
    machine = {"cpu": "Example", "cores": 2, "gpus": [], "driver": None}
    monkeypatch.setattr(gpu_report, "capture", lambda: make_environment(machine=machine))
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(gpu_report, "PARTS", [])


def test_without_a_device_nothing_is_begun(no_gpu, tmp_path, capsys):
    assert gpu_report.main(["--to", str(tmp_path / "r")]) == 2
    assert "no CUDA device: NVML: no driver" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_folder_that_holds_something_is_refused(no_gpu, tmp_path, capsys):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "report.md").write_text("an earlier one\n")
    assert gpu_report.main(["--device", "cpu", "--to", str(tmp_path / "r")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_the_report_is_written_after_every_part(no_gpu, tmp_path, monkeypatch, capsys):
    seen = []

    def look(bench):
        path = bench.folder / "facts.json"
        seen.append(json.loads(path.read_text())["parts"] if path.exists() else None)
        return {"findings": []}

    parts = [replace(part, work=look) for part in PARTS[:2]]
    monkeypatch.setattr(gpu_report, "PARTS", parts)
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    assert gpu_report.main(["--device", "cpu", "--quick", "--to", str(tmp_path / "r")]) == 0
    assert seen[0] is None
    assert [part["outcome"] for part in seen[1]] == ["done", "not run"]
    facts = json.loads((tmp_path / "r" / "facts.json").read_text())
    assert [part["outcome"] for part in facts["parts"]] == ["done", "done"]
    assert (facts["device"], facts["card"], facts["quick"]) == ("cpu", None, True)
    text = (tmp_path / "r" / "report.md").read_text()
    assert "Nothing here was run on a GPU." in text and "At a tiny size" in text
    assert "not in the cache" in text, "what must be fetched is said"
    assert "what the machine is: done" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", [["--minutes", "0"], ["--minutes", "nan"], ["--only", "all"], ["--device", "tpu"]]
)
def test_an_option_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(SystemExit) as left:
        gpu_report.main(wrong)
    assert left.value.code == 2


def test_every_cell_is_one_of_the_steps():
    assert list(CELLS) == ["LoRA", "AdaLoRA, batched", "QLoRA (NF4)", "AdaLoRA, PEFT's own"]
