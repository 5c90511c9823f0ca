"""Plan, run, report, compare and gate from a script: the command line's own, and no exit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import warnings
from functools import partial
from pathlib import Path

import pandas
import pytest

import peftmark
from peftmark.api import reporting
from peftmark.api.running import Progress
from peftmark.cli import parser
from peftmark.compare.write import to_json as compared_json
from peftmark.core.amounts import Price
from peftmark.core.errors import Exit, UserError
from peftmark.gate.show import to_json
from peftmark.memory import forecast
from peftmark.run import runner
from peftmark.storage.store import Store
from places import SUPPORT

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("no_devices")]

SUITE = """
suite: demo
version: 1
summary: made up
reference: {method: lora, rank: 4}
radar: {}
recipe: {batch_size: 16, steps: 10, learning_rate: 1e-3}
methods:
  - method: head
  - method: lora
    rank: [4]
    recipe: {targets: attention, alpha: 8}
profiles:
  quick: {summary: s, needs: nothing, scale: reduced,
         sources: [package], model: minilm-l6, seeds: [0, 1], tasks: {trec: {}}}
"""


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A folder with a suite, whose workers cost nothing and end as `demo` says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "demo.yaml").write_text(SUITE)
    execute = runner.execute
    monkeypatch.setattr(runner, "fetch", lambda plan: {})
    monkeypatch.setattr(runner, "execute", partial(execute, worker="fake_worker:by_seed"))
    logs = [Store(tmp_path / name, "demo").logs for name in ("results", "before")]
    for folder in logs:
        folder.mkdir(parents=True)

    def ends(**ways):
        for folder in logs:
            (folder / "ways").write_text(json.dumps({k.strip("_"): v for k, v in ways.items()}))

    ends()
    return ends


def quietly(**more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return peftmark.run("demo", jobs=2, **more)


# --- run ----------------------------------------------------------------------------------------


def test_a_run_calls_back_for_each_job_and_prints_nothing(demo, capfd):
    told = []
    done = quietly(callback=told.append)
    assert capfd.readouterr() == ("", "")
    assert done.ok and done.code == Exit.OK and done.jobs == {"ok": 5}
    assert (done.suite, done.profile, done.waiting) == ("demo", "quick", 0)
    assert done.results == Path("results/demo/results.parquet") and done.results.is_file()
    assert done.repeat.verdict == "same"
    assert [(p.done, p.total, p.kind, p.status) for p in told] == [
        (i, 5, "ended", "ok") for i in range(1, 6)
    ]
    assert {(p.cell, p.task, p.seed, p.purpose) for p in told} == {
        ("head only", "trec", 0, "report"),
        ("head only", "trec", 1, "report"),
        ("LoRA r4", "trec", 0, "report"),
        ("LoRA r4", "trec", 1, "report"),
        ("LoRA r4", "trec", 0, "repeat"),
    }
    assert {p.score for p in told} == {0.5}
    told.clear()
    assert quietly(callback=told.append).ok and told == [], "nothing was left to run"


def test_progress_hears_what_workers_say(demo):
    heard = []
    quietly(progress=heard.append)
    assert {p.kind for p in heard} == {"going"}
    assert {"start", "train"} <= {p.phase for p in heard}
    [step, *_] = [p for p in heard if p.step is not None]
    assert (step.step, step.steps, step.score, step.seconds) == (1, 10, 0.25, None)


def test_failed_jobs_raise_nothing_and_are_counted(demo):
    demo(_1="exits")
    told = []
    done = quietly(callback=told.append)
    assert (done.ok, done.code, done.jobs) == (False, 6, {"ok": 3, "crashed": 2})
    assert sorted(p.status for p in told) == ["crashed", "crashed", "ok", "ok", "ok"]
    [reason] = {p.reason.partition(",")[0] for p in told if p.status == "crashed"}
    assert reason == "the worker ended with exit code 3 and no outcome"
    with pytest.warns(UserWarning, match="2 rows of failed jobs"):
        runs = peftmark.load_results("demo")
    assert len(runs) == 2 and runs.attrs["reference"] == "LoRA r4"
    demo()
    assert quietly().ok


def test_a_job_that_gives_other_numbers_the_second_time_is_warned_of(demo):
    demo(repeat="scores_otherwise")
    with pytest.warns(UserWarning, match="repeat gave other numbers .* do not trust") as caught:
        done = peftmark.run("demo", jobs=2)
    assert caught[0].filename == __file__
    assert (done.ok, done.code) == (False, 7)


def test_what_a_callback_raises_ends_the_run_and_keeps_what_is_finished(demo):
    class Enough(Exception):
        pass

    def once(told):
        raise Enough

    for name in ("callback", "progress"):
        with pytest.raises(Enough):
            quietly(**{name: once})
    assert len(peftmark.load_results("demo", repeats=True)) >= 1
    assert quietly().ok, "the folder is free again"


def test_an_interrupt_is_a_keyboard_interrupt_and_finished_jobs_are_kept(demo):
    ended = []

    def interrupt(told):
        ended.append(told.status)
        if len(ended) == 1:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        quietly(callback=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert ended[0] == "ok" and peftmark.plan("demo").action.tolist().count("done") >= 1
    assert quietly().ok


def test_a_run_works_off_the_main_thread(demo):
    found = []
    thread = threading.Thread(target=lambda: found.append(quietly()))
    thread.start()
    thread.join()
    assert found[0].ok


def test_the_jobs_are_those_of_the_command_line(demo, capsys):
    with pytest.raises(SystemExit):
        parser.main(["plan", "demo", "--no-memory", "--json"])
    theirs = json.loads(capsys.readouterr().out)["jobs"]
    mine = peftmark.plan("demo")
    assert mine.job_id.tolist() == [job["job_id"] for job in theirs]
    assert mine.reason.tolist() == [job["reason"] for job in theirs]
    one = mine.job_id[0]
    assert quietly(only=[one]).jobs == {"ok": 1}
    assert peftmark.plan("demo").action.tolist() == ["done", "run", "run", "run", "run"]
    assert peftmark.plan("demo", again=True).action.tolist() == ["run"] * 5
    assert peftmark.plan("demo").reason[0] == "ok in attempt 1"


SCRIPT = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
from functools import partial
import stand_ins
stand_ins.load_early()
from peftmark.run import runner
runner.fetch = lambda plan: {{}}
runner.execute = partial(runner.execute, worker="fake_worker:ok")
import peftmark
print("start")
done = peftmark.run("demo", jobs=2, callback=print)
print(done.jobs)
"""


@pytest.mark.slow
def test_a_plain_script_needs_no_guard(demo, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stderr == ""
    lines = done.stdout.split("\n")
    assert (lines[0], lines[-2]) == ("start", "{'ok': 5}")
    assert all("/5 " in line and ": accuracy 0.500, 0:0" in line for line in lines[1:6])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"status": "ok", "score": 0.5}, "2/9 LoRA r8 on trec, seed 1: accuracy 0.500, 1:05"),
        (
            {"status": "crashed", "reason": "it fell"},
            "2/9 LoRA r8 on trec, seed 1: crashed: it fell, 1:05",
        ),
        (
            {"kind": "tried", "status": "crashed", "reason": "killed"},
            "2/9 LoRA r8 on trec, seed 1: crashed: killed, 1:05; it is tried again",
        ),
        (
            {"kind": "going", "step": 7, "steps": 60},
            "2/9 LoRA r8 on trec, seed 1: step 7 of 60",
        ),
        ({"kind": "going", "phase": "load"}, "2/9 LoRA r8 on trec, seed 1: load"),
    ],
)
def test_what_a_callback_gets_prints_as_a_line(changes, line):
    given = {"kind": "ended", "seconds": 65.0, **changes}
    title = "LoRA r8 on trec, seed 1"
    run = {"cell": "LoRA r8", "task": "trec", "seed": 1, "purpose": "report", "metric": "accuracy"}
    one = Progress(done=2, total=9, title=title, **run, **given)
    assert str(one) == line


# --- plan ---------------------------------------------------------------------------------------


def test_a_plan_has_a_row_a_job_with_its_recipe(demo):
    plan = peftmark.plan("demo")
    assert plan.purpose.tolist() == ["report"] * 4 + ["repeat"]
    assert plan.cell.tolist() == ["head only", "LoRA r4"] * 2 + ["LoRA r4"]
    assert list(plan.cell.cat.categories) == ["LoRA r4", "head only"]
    assert plan.learning_rate.tolist() == [1e-3] * 5
    assert (
        plan["recipe.steps"].tolist() == [10] * 5 and plan.attrs["units"]["recipe.steps"] == "steps"
    )
    assert (plan.attrs["suite"], plan.attrs["profile"]) == ("demo", "quick")
    assert plan.attrs["waiting"] == 0 and plan.attrs["notes"] == []
    assert "live_bytes" not in plan


def test_a_plan_predicts_memory_where_it_is_asked_to(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "WORKER", "fake_forecasts")
    monkeypatch.setenv("FAKE_FORECASTS", str(tmp_path / "asked"))
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT), prepend=":")
    plan = peftmark.plan("demo", memory=True)
    assert plan.live_weight_bytes.tolist() == [10**8] * 5
    assert (plan.live_bytes > 10**8).all() and plan.fits.isna().all()
    assert plan.attrs["units"]["live_bytes"] == "bytes"
    fits = peftmark.plan("demo", device="24GB")
    assert fits.fits.tolist() == [True] * 5 and fits.fits.dtype == pandas.BooleanDtype()


# --- report, gate, compare ----------------------------------------------------------------------


def test_a_report_is_the_command_lines(demo, monkeypatch):
    quietly()
    asked = []

    def write(given, folder):
        asked.append((given, folder))
        return [folder / "index.html", folder / "report.md"]

    monkeypatch.setattr(reporting, "write", write)
    assert peftmark.report("demo") == Path("reports/demo/index.html")
    with pytest.raises(SystemExit) as left:
        parser.main(["report", "demo"])
    assert left.value.code == 0
    mine, theirs = asked
    assert mine == theirs and len(mine[0].records) == len(mine[0].planned) == 5
    assert peftmark.report("demo", reports="else") == Path("else/demo/index.html")
    peftmark.report("demo", watts="15", price="2USD/h")
    with pytest.raises(SystemExit):
        parser.main(["report", "demo", "--watts", "15 W", "--price", "2USD"])
    for given, _ in asked[-2:]:
        assert given.options.watts == 15.0 and given.price == Price(2.0, "USD")
    assert mine[0].options.watts is None
    text = SUITE.replace("needs: nothing,", "needs: nothing, watts: 65,")
    (Path("suites") / "demo.yaml").write_text(text)
    for watts in (None, "15"):
        peftmark.report("demo", watts=watts)
    assert [given.options.watts for given, _ in asked[-2:]] == [65.0, 15.0]


def test_a_gate_is_the_command_lines_and_writes_nothing(demo, tmp_path, capsys):
    quietly()
    quietly(results="before")
    before = sorted(tmp_path.rglob("*"))
    found = peftmark.gate("demo", "before")
    assert sorted(tmp_path.rglob("*")) == before
    assert isinstance(found.code, int) and found.sentence
    assert {cell.cell for cell in found.cells} == {"LoRA r4", "head only"}
    with pytest.raises(SystemExit) as left:
        parser.main(["gate", "demo", "--against", "before", "--json"])
    assert left.value.code == found.code
    assert capsys.readouterr().out == to_json(found)


def test_two_folders_side_by_side(demo, capsys):
    quietly()
    quietly(results="before")
    found = peftmark.compare("before/demo", "results/demo", names=("old", "new"))
    assert [run.label for run in found.runs] == ["old", "new"]
    assert len(found.cells) == 2
    assert {found.verdict((1, cell, "")) for cell in found.cells} == {"identical"}
    with pytest.raises(SystemExit):
        parser.main(["compare", "before/demo", "results/demo", "--json"])
    assert capsys.readouterr().out.rstrip() == compared_json(found).rstrip()


@pytest.mark.parametrize(
    ("call", "words", "code"),
    [
        (lambda: peftmark.plan("glew"), "there is no suite 'glew'", 2),
        (lambda: peftmark.plan("demo", device="abacus"), "abacus", 2),
        (lambda: peftmark.run("../demo"), "never by a path", 2),
        (lambda: peftmark.run("demo", profile="big"), "no profile 'big'", 2),
        (lambda: peftmark.run("demo", mirror="nowhere"), "'nowhere' is not a folder", 2),
        (lambda: peftmark.report("demo"), "Run them first: peftmark run demo", 2),
        (lambda: peftmark.table("demo"), "Run them first: peftmark run demo", 2),
        (lambda: peftmark.curves("demo"), "Run them first: peftmark run demo", 2),
        (lambda: peftmark.gate("demo", "nowhere"), "holds no results", 6),
        (lambda: peftmark.compare("nowhere", "demo"), "there is no nowhere", 2),
    ],
)
def test_an_error_is_an_exception_with_the_command_lines_message(demo, call, words, code):
    with pytest.raises(UserError) as caught:
        call()
    assert words in str(caught.value) and caught.value.code == code
    assert peftmark.UserError is UserError
