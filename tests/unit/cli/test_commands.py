"""The command line: exit codes, messages, signals, and what `make` hands it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from peftmark.cli import parser
from peftmark.machine import environment
from peftmark.run import doctor, runner
from peftmark.storage import store as store_module
from peftmark.storage.store import Store
from places import ROOT, SUPPORT
from waiting import PATIENCE, wait_for

pytestmark = pytest.mark.heavy

MAKE = shutil.which("make")

# The command line with a worker and assets that cost nothing; the first argument names the worker.
FAKE = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import stand_ins
stand_ins.load_early()
from functools import partial
from peftmark.run import runner
runner.fetch = lambda plan: {{"everything": "nowhere"}}
runner.execute = partial(runner.execute, worker="fake_worker:" + sys.argv[1])
from peftmark.cli.parser import main
main(sys.argv[2:])
"""


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty folder to work in, without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def started(empty):
    """Run a command in a process of its own."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "peftmark", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


@pytest.fixture
def peftmark(empty, monkeypatch, capfd):
    """Run a command in this process, with a fake worker."""
    execute = runner.execute
    monkeypatch.setattr(runner, "fetch", lambda plan: {})

    def run(*arguments, worker="ok"):
        with monkeypatch.context() as patch:
            patch.setattr(runner, "execute", partial(execute, worker=f"fake_worker:{worker}"))
            with pytest.raises(SystemExit) as left:
                parser.main(list(arguments))
        output, errors = capfd.readouterr()
        return SimpleNamespace(returncode=left.value.code, stdout=output, stderr=errors)

    return run


def listing(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# --- light --------------------------------------------------------------------------------------


MODULES_OF_HELP = 380
"""More than it takes by a quarter; the lightest library that computes something brings more."""

HELP = """
import sys
from peftmark.cli.parser import main
try:
    main(["--help"])
finally:
    print(len(sys.modules), file=sys.stderr)
"""


def test_help_is_quick_and_tells_the_exit_codes():
    """By what it loads; a test of `make test-all` compares it with a bare Python."""
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0
    assert "143 by SIGTERM" in done.stdout
    assert 50 < int(done.stderr) < MODULES_OF_HELP


@pytest.mark.slow
def test_help_takes_little_more_than_python_does():
    """Some 0.2 s where Python alone takes 0.02."""

    def seconds(*words):
        start = time.monotonic()
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        return time.monotonic() - start

    ours, bare = zip(
        *((seconds("-m", "peftmark", "--help"), seconds("-c", "")) for _ in range(5)), strict=True
    )
    assert min(ours) < 25 * min(bare)


LOAD = """
import importlib, json, logging, os, sys, signal
environment, handlers = dict(os.environ), [signal.getsignal(n) for n in (2, 15)]
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
assert dict(os.environ) == environment, "environment variables were set"
assert logging.root.handlers == [] and logging.root.level == logging.WARNING
assert [signal.getsignal(n) for n in (2, 15)] == handlers
print(json.dumps(sorted(sys.modules)))
"""


def loaded(*names):
    """Modules in memory after importing these; also that importing them has no other effect."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(names)], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_importing_the_command_line_loads_nothing_heavy_and_changes_nothing():
    heavy = {"torch", "transformers", "pandas", "pyarrow", "numpy", "matplotlib", "pydantic"}
    assert not loaded("peftmark.cli.parser") & heavy


def test_importing_anything_but_the_lab_loads_no_torch_and_changes_nothing():
    root = ROOT / "bench"
    files = (path.relative_to(root) for path in root.rglob("*.py"))
    names = [".".join(path.with_suffix("").parts) for path in files]
    names = [n for n in names if not n.startswith("peftmark.lab") and not n.endswith("__main__")]
    assert len(names) > 20
    heavy = {"torch", "transformers", "peft", "bitsandbytes", "datasets", "pandas", "pyarrow"}
    assert not loaded(*names) & heavy


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["run", "glew"],
            ["no suite 'glew'", "Known suites: adalora-settings, adalora-tuned, base-weights, "],
        ),
        (["run", "../glue"], ["'../glue'", "never by a path"]),
        (["report", "/etc/passwd"], ["'/etc/passwd'", "never by a path"]),
        (["plan", "glue; touch p"], ["'glue; touch p'", "never by a path"]),
        (["run", "smoke", "--profile", "big"], ["no profile 'big'", "Its profiles: offline"]),
        (["run", "smoke", "--job", "feed"], ["no job feed", "peftmark plan smoke"]),
        (["run", "smoke", "--mirror", "file"], ["'file' is not a folder"]),
        (["run", "smoke", "--suites", "file"], ["'file' is not a folder"]),
        (["run", "smoke", "--results", "file"], ["/file is not a folder", "--results"]),
        (["report", "smoke", "--results", "file"], ["/file is not a folder"]),
        (["run", "smoke", "--results", "/proc/nowhere"], ["/proc/nowhere", "--results folder"]),
        (["run", "smoke", "--jobs", "0"], ["--jobs: found '0'; a whole number from 1"]),
        (["run", "smoke", "--timeout", "-1"], ["--timeout"]),
        (["plan", "smoke", "--device", "cpu"], ["--device cpu", "a GPU", "--node-device cpu"]),
        (["plan", "smoke", "--device", "cuda"], ["--node-device cuda"]),
        (["plan", "smoke", "--node-device", "24GB"], ["--node-device: invalid choice: '24GB'"]),
        (["run", "smoke", "--device", "24GB"], ["--device: invalid choice: '24GB'"]),
        (["simulate", "--repeats", "0"], ["--repeats: found '0'; a whole number from 1"]),
        (["simulate", "--suites", "mine"], ["--suites: found 'mine'; a whole number from 1"]),
        (["report", "smoke"], ["holds no results", "Run them first: peftmark run smoke"]),
        (["run"], ["required: suite"]),
        (["walk"], ["invalid choice: 'walk'"]),
        ([], ["required: command"]),
    ],
)
def test_bad_input_is_one_message_on_stderr_and_nothing_is_written(
    peftmark, tmp_path, arguments, words
):
    (tmp_path / "file").write_text("mine")
    done = peftmark(*arguments)
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr
    assert listing(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_a_command_says_what_is_wrong_in_a_process_of_its_own_too(started, tmp_path):
    done = started("run", "glew")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no suite 'glew'" in done.stderr
    assert "Traceback" not in done.stderr
    assert listing(tmp_path) == []


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_fault(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    # More and less than Python buffers.
    for command in (["list"], ["plan", "smoke", "--no-memory"]):
        done = subprocess.run(
            [sys.executable, "-m", "peftmark", *command],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
    os.close(writer)


# --- run ----------------------------------------------------------------------------------------


def test_a_run_ends_with_0_or_6_and_says_how_the_jobs_stand(peftmark, tmp_path):
    results = "out[/b]"  # also text that the console must not read as markup
    command = ["run", "smoke", "--results", results, "--jobs", "2", "--no-report"]
    logs = tmp_path / results / "smoke" / "logs"
    logs.mkdir(parents=True)
    (logs / "ways").write_text('{"1": "exits"}')
    done = peftmark(*command, worker="by_seed")
    assert (done.returncode, done.stderr) == (6, "")
    assert f"9 jobs: 4 crashed, 5 ok. Results: {results}/smoke/results.parquet" in done.stdout
    assert "9/9 " in done.stdout
    assert "with exit code 3 and no outcome" in done.stdout

    done = peftmark(*command, "--json", worker="ok")
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert facts["jobs"] == {"ok": 9}
    assert facts["repeatability"] == {"verdict": "same", "detail": ""}
    assert (facts["flags"], facts["waiting"]) == ([], 0)
    assert "5 already done, 4 to run" in done.stderr
    assert "the job that ran twice gave the same bits" in done.stderr

    done = peftmark(*command, worker="exits")
    assert done.returncode == 0, "nothing was left to run"
    assert listing(tmp_path / results)[0] == "smoke"
    assert not (tmp_path / "reports").exists()


def test_only_the_jobs_asked_for_run_and_decide_the_exit_code(peftmark):
    jobs = json.loads(peftmark("plan", "smoke", "--no-memory", "--json").stdout)["jobs"]
    one = ["--job", jobs[0]["job_id"], "--no-report"]
    done = peftmark("run", "smoke", *one, worker="ok")
    assert done.returncode == 0
    assert "1 jobs: 1 ok" in done.stdout


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_keeps_what_is_finished_and_stores_what_ran(peftmark, tmp_path, number, code):
    store = Store(tmp_path / "results", "smoke")
    store.logs.mkdir(parents=True)
    (store.logs / "ways").write_text('{"1": "hangs_with_its_number"}')
    arguments = ["by_seed", "run", "smoke", "--jobs", "2", "--no-report"]
    with subprocess.Popen(
        [sys.executable, "-c", FAKE, *arguments],
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        wait_for(lambda: len(list(store.logs.glob("*.pid"))) == 2)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does: to everyone
        else:
            process.send_signal(number)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (code, "")
    assert "9 jobs: 2 interrupted, 3 not run, 4 ok" in output
    assert "Stopped. The same command goes on; without running more, `peftmark report" in output
    statuses = [r.outcome.status for r in store.read().records.values()]
    assert sorted(statuses) == ["interrupted"] * 2 + ["ok"] * 4

    done = peftmark("run", "smoke", "--no-report", worker="ok")
    assert done.returncode == 0
    assert "4 already done, 5 to run" in done.stdout


def test_a_plan_says_what_time_it_takes_where_the_machine_was_measured(peftmark, monkeypatch):
    from peftmark.duration import rates
    from peftmark.duration.estimates import UNCALIBRATED, Estimate, key_of
    from peftmark.memory import plan_estimates
    from peftmark.run import expected

    monkeypatch.setattr(plan_estimates, "outlooks", lambda *_: [])
    facts = json.loads(peftmark("plan", "smoke", "--json").stdout)["time"]
    assert facts["unknown"] == {UNCALIBRATED: 9} and facts["jobs"][0]["seconds"] is None
    assert "`peftmark doctor --calibrate` measures it" in peftmark("plan", "smoke").stdout
    told = peftmark("plan", "smoke", "--no-memory", "--json")
    assert json.loads(told.stdout)["time"] is None, "nobody asked"

    def measured(command, **options):
        sizes = [[9, 10**8, 2**20, 1e-3], [9, 10**9, 2**21, 9e-3]]
        text = json.dumps({"mm float32": sizes, "view -": [[9, 0, 0, 1e-6]]})
        return SimpleNamespace(communicate=lambda: (text, None), kill=int, wait=int)

    monkeypatch.setattr(rates.subprocess, "Popen", measured)
    done = peftmark("doctor", "--calibrate")
    assert done.returncode == 0 and "2 operations measured by" in done.stdout
    assert "GFLOP/s in float32" in done.stdout

    def estimates(jobs, found, *_):
        assert found.costs.keys() == {"mm float32", "view -"}, "as it was measured"
        return {key_of(job): Estimate({"train": 30.0, "evaluate": 3.0}) for job in jobs}

    monkeypatch.setattr(expected, "estimates", estimates)
    told = peftmark("plan", "smoke", "--jobs", "2").stdout
    assert "9 jobs to run, 2 at once: about 2:45." in told and "0:33" in told
    facts = json.loads(peftmark("plan", "smoke", "--jobs", "2", "--json").stdout)["time"]
    assert facts["total_seconds"] == 165.0 and facts["jobs"][0]["phases"]["train"] == 30.0


@pytest.mark.slow
def test_a_run_that_is_stopped_reads_no_row_again_and_writes_no_report(
    peftmark, tmp_path, monkeypatch
):
    assert peftmark("run", "smoke", "--no-report", worker="exits").returncode == 6
    append, read, asked, late = Store.append, Store.read, [], []

    def press_once(store, record):
        path = append(store, record)
        if not asked:
            asked.append(record.job.job_id)
            signal.raise_signal(signal.SIGINT)
        return path

    def watched(store):
        late.extend(asked)
        return read(store)

    monkeypatch.setattr(Store, "append", press_once)
    monkeypatch.setattr(Store, "read", watched)
    monkeypatch.setattr(store_module, "TOLD", 5)
    done = peftmark("run", "smoke", "--jobs", "1", "--json")
    assert done.returncode == 130 and late == []
    facts = json.loads(done.stdout)
    assert facts["jobs"] == {"crashed": 8, "ok": 1}, "what ended before and what ended now"
    assert (facts["flags"], facts["repeatability"]) == (None, None), "nobody looked"
    assert Path(facts["results"]) == Path("results/smoke/parts")
    assert not (tmp_path / "reports" / "smoke" / "index.html").exists()
    page = (tmp_path / "reports" / "smoke" / "live.html").read_text(encoding="utf-8")
    assert "Stopped. The same command goes on. 9 of 9 jobs have ended." in page


@pytest.mark.slow
def test_hours_run_whole_seeds_and_leave_the_rest_out(peftmark, tmp_path, monkeypatch):
    from peftmark.duration.estimates import Estimate, key_of
    from peftmark.run import time_budget

    def expected(plan, _):
        return {key_of(job): Estimate({"train": 1000.0}) for job in plan.jobs}

    monkeypatch.setattr(time_budget, "costs_here", lambda plan: ())
    monkeypatch.setattr(time_budget, "expected", expected)
    monkeypatch.setattr(time_budget, "corrected", lambda found, records: found)
    done = peftmark("run", "smoke", "--hours", "0.5", "--jobs", "2")
    assert done.returncode == 2 and not (tmp_path / "results").exists()
    assert "--hours: seed 0 (5 jobs) alone takes about 50:00 here with 2 at once" in done.stderr

    left = iter([3600.0, 3600.0, 600.0])  # as the plan is made, and before each seed
    monkeypatch.setattr(time_budget.TimeBudget, "_left", lambda self: next(left))
    done = peftmark("run", "smoke", "--hours", "1", "--jobs", "2")
    assert done.returncode == 0, "all that was asked for"
    assert "seed 0 (5 jobs): about 50:00 of 1:00:00 left." in done.stdout
    assert "Left out: seed 1 (4 jobs), about 33:20 more" in done.stdout
    assert "9 jobs: 4 not run, 5 ok" in done.stdout
    report = (tmp_path / "reports" / "smoke" / "report.md").read_text(encoding="utf-8")
    assert "not run yet" in report
    assert peftmark("run", "smoke", "--no-report").returncode == 0
    assert peftmark("run", "smoke", "--hours", "0").returncode == 2


def test_a_job_that_gives_other_numbers_the_second_time_is_told_loudly(peftmark, tmp_path):
    logs = tmp_path / "results" / "smoke" / "logs"
    logs.mkdir(parents=True)
    (logs / "ways").write_text('{"repeat": "scores_otherwise", "1": "exits"}')
    done = peftmark("run", "smoke", worker="by_seed")
    assert done.returncode == 7, "this weighs more than jobs that are not ok"
    told = "NOT REPEATABLE: AdaLoRA r8 on trec, seed 0, repeat gave other numbers"
    assert told in done.stdout
    assert "metrics: {} and {'accuracy': 0.125}" in done.stdout
    assert (tmp_path / "reports" / "smoke" / "index.html").is_file()

    done = peftmark("run", "smoke", "--json", "--no-report", worker="ok")
    assert done.returncode == 7, "nothing was mended by running nothing"
    assert json.loads(done.stdout)["repeatability"]["verdict"] == "different"


def test_suspect_jobs_are_told_a_line_each_kind(peftmark, tmp_path):
    logs = tmp_path / "results" / "smoke" / "logs"
    logs.mkdir(parents=True)
    (logs / "ways").write_text('{"1": "collapses"}')
    done = peftmark("run", "smoke", "--no-report", "--json", worker="by_seed")
    assert done.returncode == 0
    told = "Suspect (collapsed): 4 jobs predicted the same for every row: LoRA r8 on trec, seed 1; "
    assert told in done.stderr
    assert "and 1 more." in done.stderr
    assert {flag["kind"] for flag in json.loads(done.stdout)["flags"]} == {"collapsed"}


# --- tuning -------------------------------------------------------------------------------------

TUNED = """
suite: tuned
version: 1
summary: made up
reference: {method: head}
radar: {}
recipe: {batch_size: 16, steps: 10, learning_rate: 0.05}
methods:
  - method: head
    learning_rates: [1e-3, 2e-3, 3e-3]
  - method: lora
    rank: [4]
    learning_rates: [2e-3, 4e-3, 8e-3]
    recipe: {targets: attention, alpha: 8}
profiles:
  quick: {summary: s, needs: nothing, scale: reduced,
         sources: [package], model: minilm-l6, seeds: [0, 1],
          tuning: {seeds: [7, 8]}, tasks: {trec: {}}}
"""


@pytest.fixture
def tuned(peftmark, tmp_path):
    """Run the tuned suite with workers that end as `ways` says; `tuned.store` holds its rows."""
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "tuned.yaml").write_text(TUNED)
    store = Store(tmp_path / "results", "tuned")
    store.logs.mkdir(parents=True)

    def run(*options, ways=None, report=False):
        (store.logs / "ways").write_text(json.dumps(ways or {}))
        options = [*options] if report else [*options, "--no-report"]
        return peftmark("run", "tuned", "--jobs", "2", *options, worker="by_seed")

    run.store = store
    return run


def rows(store, *purposes):
    """(method, rate, seed, attempt, status) of the rows made for these purposes."""
    records = (r for r in store.read().records.values() if r.job.purpose in purposes)
    return sorted(
        (r.job.method, r.job.recipe.learning_rate, r.job.seed, r.attempt, r.outcome.status)
        for r in records
    )


def test_one_command_runs_the_trials_and_then_the_jobs_with_the_rates_they_chose(
    tuned, peftmark, tmp_path
):
    plan = peftmark("plan", "tuned", "--no-memory")
    assert "12 jobs, 12 to run, then 5 that wait for trials" in plan.stdout
    facts = json.loads(peftmark("plan", "tuned", "--no-memory", "--json").stdout)
    assert (len(facts["jobs"]), facts["waiting"]) == (12, 5)

    done = tuned(report=True)
    assert (done.returncode, done.stderr) == (0, "")
    told = ["12 to run, then 5 that wait for trials", "12 trials of learning rates:", "12/12 "]
    told += ["5 jobs with the chosen learning rates:", "5/5 ", "17 jobs: 17 ok."]
    places = [done.stdout.index(text) for text in told]
    assert places == sorted(places)
    assert rows(tuned.store, "report") == [
        (method, 0.002, seed, 1, "ok") for method in ("head", "lora") for seed in (0, 1)
    ]
    assert rows(tuned.store, "repeat") == [("lora", 0.002, 0, 1, "ok")]
    assert (tmp_path / "reports" / "tuned" / "index.html").is_file()

    before = listing(tuned.store.parts)
    done = tuned()
    assert "17 jobs, 17 already done, 0 to run, 2 at once" in done.stdout
    assert (done.returncode, listing(tuned.store.parts)) == (0, before)


@pytest.mark.slow
def test_a_failed_trial_does_not_hold_up_the_jobs_and_runs_again_with_the_next_command(tuned):
    done = tuned(ways={"rate 0.002": "exits"})
    assert done.returncode == 6
    assert rows(tuned.store, "report") == [
        (method, rate, seed, 1, "ok")
        for method, rate in (("head", 0.001), ("lora", 0.004))
        for seed in (0, 1)
    ]
    done = tuned()
    assert done.returncode == 0
    assert "4 trials of learning rates:" in done.stdout
    assert "5 jobs with the chosen learning rates:" in done.stdout, "other rates are other jobs"
    chosen = {(method, rate) for method, rate, *_ in rows(tuned.store, "report")}
    assert chosen == {("head", 0.001), ("head", 0.002), ("lora", 0.004), ("lora", 0.002)}


def stopped_in_its_trials(tuned, *options):
    """What a run prints whose trials of seed 8 hang until SIGTERM comes."""
    (tuned.store.logs / "ways").write_text('{"8": "hangs_with_its_number"}')
    arguments = ["by_seed", "run", "tuned", "--jobs", "2", "--no-report", *options]
    with subprocess.Popen(
        [sys.executable, "-c", FAKE, *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        wait_for(lambda: len(list(tuned.store.logs.glob("*.pid"))) == 2)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (143, "")
    return output


@pytest.mark.slow
def test_a_run_stopped_in_its_trials_goes_on_later(tuned):
    output = stopped_in_its_trials(tuned)
    assert "2 interrupted" in output
    assert "then 5 that wait for trials. Results:" in output
    assert rows(tuned.store, "report", "repeat") == []

    done = tuned()
    assert done.returncode == 0
    assert "6 trials of learning rates:" in done.stdout
    assert "17 jobs: 17 ok." in done.stdout


@pytest.mark.slow
def test_a_run_stopped_in_its_trials_starts_nothing_else(tuned):
    assert tuned().returncode == 0
    output = stopped_in_its_trials(tuned, "--again")
    assert "12 trials of learning rates:" in output
    assert "jobs with the chosen learning rates" not in output


@pytest.mark.slow
def test_again_runs_every_job_once(tuned):
    tuned()
    done = tuned("--again")
    assert "12/12 " in done.stdout
    assert "5/5 " in done.stdout
    again = rows(tuned.store, "tuning", "report", "repeat")
    assert [attempt for *_, attempt, _ in again] == [2] * 17


def test_only_the_trials_asked_for_run(tuned, peftmark):
    planned = peftmark("plan", "tuned", "--no-memory", "--json")
    trial = json.loads(planned.stdout)["jobs"][0]["job_id"]
    done = tuned("--job", trial)
    assert done.returncode == 0
    assert "1 jobs: 1 ok" in done.stdout
    assert rows(tuned.store, "report", "repeat") == []
    done = peftmark("run", "tuned", "--job", "feed", worker="ok")
    assert "5 jobs have none before their trials are made" in done.stderr


def test_a_second_run_on_the_same_folder_is_refused(peftmark, tmp_path):
    with Store(tmp_path / "results", "smoke").lock():
        done = peftmark("run", "smoke", worker="ok")
    assert done.returncode == 2
    assert f"in use by another run (process {os.getpid()} on " in done.stderr


# --- plan, list, doctor -------------------------------------------------------------------------


def test_plan_prints_every_job_with_what_would_happen_and_why(peftmark, tmp_path):
    text = peftmark("plan", "smoke", "--no-memory")
    facts = json.loads(peftmark("plan", "smoke", "--no-memory", "--json").stdout)
    assert (text.returncode, text.stderr) == (0, "")
    assert "9 jobs, 9 to run" in text.stdout
    assert len(facts["jobs"]) == 9
    assert {(job["action"], job["reason"]) for job in facts["jobs"]} == {("run", "new")}
    assert all(job["job_id"] in text.stdout for job in facts["jobs"])
    assert facts["jobs"][0]["config"]["recipe"]["steps"] > 0
    assert listing(tmp_path) == []


@pytest.mark.slow
def test_list_names_everything_a_suite_can_hold(peftmark, tmp_path):
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "broken.yaml").write_text("[")
    done = peftmark("list")
    facts = json.loads(peftmark("list", "--json").stdout)
    assert (done.returncode, done.stderr) == (0, "")
    origins = facts.pop("from")
    assert set(facts) == {"suites", "methods", "quantizations", "tasks", "metrics", "models"}
    assert set(origins) == set(facts) - {"suites"}
    for kind, found in origins.items():
        assert set(found) == set(facts[kind]) - {"your own"}
        assert {one["package"] for one in found.values()} == {"peftmark"}
    assert {"broken", "glue", "smoke"} <= set(facts["suites"])
    assert facts["suites"]["broken"].startswith("can't be used: ")
    for names in facts.values():
        assert all(f"\n  {name}" in done.stdout for name in names)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A doctor that loads no library and asks no hub; returns the libraries that fail to load."""
    broken = {}

    def load(name):
        if name in broken:
            raise broken[name]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.importlib, "import_module", load)
    monkeypatch.setattr(doctor, "hub_reachable", lambda: (False, "no hub here"))
    monkeypatch.setattr(doctor, "default_cache", lambda: tmp_path / "not" / "there")
    return broken


def run_doctor(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        parser.main(["doctor", *arguments])
    return left.value.code, capsys.readouterr().out


def test_doctor_says_what_is_there_and_what_is_missing(machine, capsys):
    code, text = run_doctor(capsys)
    assert code == 0
    assert "ok    torch: 2." in text
    assert "miss  model hub: no hub here\n      Use --mirror" in text
    code, text = run_doctor(capsys, "--json")
    findings = {finding["what"]: finding for finding in json.loads(text)}
    assert findings["suite glue"]["found"].startswith("would run profile ")
    assert findings["suite smoke"]["ok"]
    assert findings["results"]["ok"]
    assert all(f["ok"] or f["remedy"] for f in findings.values())


@pytest.mark.slow
def test_doctor_says_what_a_container_limits(machine, capsys, monkeypatch):
    monkeypatch.setattr(environment, "allowed_cores", lambda: list(range(8)))
    for module in (doctor, environment):
        monkeypatch.setattr(module, "cpu_quota", lambda: 2.5)
    monkeypatch.setattr(doctor, "memory_left", lambda: 2**29)
    _, text = run_doctor(capsys)
    quota = "a control group gives 2.5 of 8 cores' time: 2 jobs at once"
    assert f"ok    quota of processor time: {quota}\n" in text
    left = "a control group leaves 0.5 GiB to this process and its jobs"
    assert f"ok    limit of memory: {left}\n" in text
    monkeypatch.setattr(doctor, "cpu_quota", lambda: None)
    monkeypatch.setattr(doctor, "memory_left", lambda: None)
    _, text = run_doctor(capsys)
    assert "control group" not in text


@pytest.mark.slow
def test_doctor_names_a_library_that_does_not_load_and_a_folder_that_is_a_file(machine, capsys):
    machine["bitsandbytes"] = OSError("libfoo.so: cannot\nopen shared object")
    Path("results").write_text("mine")
    code, text = run_doctor(capsys, "--json")
    findings = {finding["what"]: finding for finding in json.loads(text)}
    assert code == 2
    assert "fails to load: libfoo.so: cannot open" in findings["bitsandbytes"]["found"]
    assert "pip install" in findings["bitsandbytes"]["remedy"]
    assert not findings["results"]["ok"]


def test_doctor_names_a_library_that_is_not_installed(machine, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "versions", lambda: {})
    code, text = run_doctor(capsys)
    assert code == 2
    assert "miss  torch: not installed" in text


# --- make ---------------------------------------------------------------------------------------

RECORDER = f"""#!{sys.executable}
import json, sys
from pathlib import Path
Path("argv.json").write_text(json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def make(tmp_path):
    """Run make in a copy of the repository whose `peftmark` writes down what it is given."""
    if MAKE is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    program = tmp_path / ".venv" / "bin" / "peftmark"
    program.parent.mkdir(parents=True)
    program.write_text(RECORDER)
    program.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()

    def run(*arguments, **environment):
        (tmp_path / "argv.json").unlink(missing_ok=True)
        done = subprocess.run(
            [MAKE, *arguments],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads((tmp_path / "argv.json").read_text())

    return run


NASTY = [
    "glue; touch p",
    "$(shell touch p)",
    "`touch p`",
    "'; touch p; '",
    "$(error no)",
    "*",
]
MORE_OF_THEM = [
    "$(touch p)",
    '"; touch p; "',
    "$$(touch p)",
    "a | tee p",
    "> p",
    "${HOME}",
    "a\\",
    "~",
]


@pytest.mark.parametrize(
    "text", [*NASTY, *(pytest.param(text, marks=pytest.mark.slow) for text in MORE_OF_THEM)]
)
def test_what_the_user_types_is_one_word_for_peftmark_and_nothing_for_make(make, tmp_path, text):
    before = {*listing(tmp_path), "argv.json"}
    for target, command in (
        ("bench", "run"),
        ("report", "report"),
        ("reproduce", "reproduce"),
    ):
        assert make(target, f"SUITE={text}") == [command, text]
    assert make("bench", SUITE=text) == ["run", text]
    profile, mirror = f"--profile={text}", f"--mirror={text}"
    assert make("bench", "SUITE=a", f"PROFILE={text}") == ["run", "a", profile]
    assert make("bench", f"MIRROR={text}", SUITE="a") == ["run", "a", mirror]
    both = make("bench", f"SUITE={text}", f"PROFILE={text}", f"MIRROR={text}")
    assert both == ["run", text, profile, mirror]
    assert make("bench", "SUITE=a", f"ARGS={text}") == ["run", "a", *text.split()]
    assert make("try", f"DATA={text}") == ["try", "--", text]
    columns = [f"--text={text}", f"--label={text}", "--", text]
    assert make("try", f"TEXT={text}", f"LABEL={text}", DATA=text) == ["try", *columns]
    assert set(listing(tmp_path)) == before


def test_make_without_a_suite_runs_the_smoke_suite_and_splits_args(make):
    assert make("bench") == ["run", "smoke"]
    words = make("bench", "SUITE=glue", "PROFILE=cpu", "MIRROR=my data", "ARGS=--jobs 2 --json")
    assert words == ["run", "glue", "--profile=cpu", "--mirror=my data", "--jobs", "2", "--json"]


@pytest.mark.slow
def test_a_long_profile_runs_only_where_somebody_says_so(peftmark, tmp_path, monkeypatch):
    from peftmark.core.errors import UserError

    def told(plan, console):
        raise UserError("told, so nobody asked", "It ends here.")

    def job_of_full():
        done = peftmark("plan", "glue", "--profile", "full", "--no-memory", "--json")
        return json.loads(done.stdout)["jobs"][0]["job_id"]

    done = peftmark("run", "glue", "--profile", "full", "--jobs", "2")
    assert done.returncode == 2 and not (tmp_path / "results").exists()
    assert (
        "profile full of suite glue is long: 401 jobs of 11,258,770 training steps" in done.stderr
    )
    assert "Add --yes to run them (make: ARGS=--yes)" in done.stderr
    # From here on it would run, so it ends where the plan is told.
    monkeypatch.setattr("peftmark.cli.run._announce", told)
    for agreed in (["--yes"], ["--job", job_of_full()], ["--hours", "1"], []):
        done = peftmark("run", "glue", "--profile", "full", *agreed)
        assert ("is long" in done.stderr) == (not agreed)
        assert ("told, so nobody asked" in done.stderr) == bool(agreed)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--max-cost", "5USD"], "--max-cost 5USD with no --price"),
        (["--max-cost", "5USD", "--price", "2EUR"], "--max-cost 5USD with --price in EUR"),
        (["--max-cost", "5", "--price", "2USD"], "--max-cost: found '5'"),
        (["--price", "2.5/h"], "--price: found '2.5/h'"),
    ],
)
def test_a_cost_needs_a_price_in_its_currency(peftmark, tmp_path, options, told):
    done = peftmark("run", "smoke", *options)
    assert done.returncode == 2 and told in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_cost_is_the_hours_that_it_buys():
    from argparse import Namespace

    from peftmark.cli.options import time_limit

    def limit(hours, cost, price):
        return time_limit(Namespace(hours=hours, max_cost=cost, price=price))[0]

    assert limit(None, "5USD", "2.50USD/h") == 2.0
    assert limit(1.5, "5USD", "2.50USD") == 1.5
    assert limit(3.0, "5USD", "2.50USD") == 2.0
    assert limit(None, None, "2.50USD") is None


def test_a_plan_says_how_long_jobs_take_on_a_named_gpu(peftmark, monkeypatch):
    from peftmark.duration.cards import CARDS
    from peftmark.duration.estimates import Estimate, key_of
    from peftmark.run import expected

    asked = []

    def found(plan, costs, heard, only_kept=False):
        asked.append(costs)
        return {key_of(job): Estimate({"train": 60.0}) for job in plan.jobs}

    monkeypatch.setattr(expected, "expected", found)
    monkeypatch.setattr("peftmark.memory.plan_estimates.outlooks", lambda *_: [])
    done = peftmark("plan", "smoke", "--device", "rtx4090", "--price", "2.00USD/h")
    assert done.returncode == 0, done.stderr
    assert asked == [CARDS["rtx-4090"]]
    assert "Time of a job on one RTX 4090, predicted" in done.stdout
    assert "9 jobs to run, 1 at once: about 9:00." in done.stdout
    assert "At 2.00 USD an hour that is about 0.300 USD." in done.stdout
    done = peftmark("plan", "smoke", "--device", "24GB", "--jobs", "3")
    assert "Not known for 9 of 9 jobs to run: no rates are known of 24GB." in done.stdout
    facts = json.loads(peftmark("plan", "smoke", "--device", "t4", "--json").stdout)["time"]
    assert (facts["card"], facts["total_seconds"], facts["later_seconds"]) == ("T4", 540.0, None)


def test_how_far_predictions_were_off_is_told():
    from peftmark.cli.run import took_text

    assert took_text([]) == ""
    assert took_text([(10.0, 15.0)]) == "Time: the job took 1.50 times what was predicted."
    assert took_text([(10.0, 15.0), (10.0, 8.0), (20.0, 22.0)]) == (
        "Time: 3 jobs took 1.10 times what was predicted (median; 0.80 to 1.50 times)."
    )


@pytest.mark.slow
def test_seeds_are_added_look_by_look_and_a_rerun_comes_to_the_same(peftmark, tmp_path):
    done = peftmark("run", "smoke", "--until-decided", "--max-seeds", "4", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "Look 1 of 2: 3 seeds, 3 cells in question." in done.stdout
    assert "Look 2 of 2: 4 seeds, 3 cells in question." in done.stdout
    assert "17 jobs: 17 ok" in done.stdout, "four cells on four seeds, and the repeat"
    report = (tmp_path / "reports" / "smoke" / "report.md").read_text(encoding="utf-8")
    assert "Seeds were added until each cell was told from the reference, at most 4" in report
    again = peftmark("run", "smoke", "--until-decided", "--max-seeds", "4")
    assert again.returncode == 0 and "Look" not in again.stdout
    other = peftmark("run", "smoke", "--until-decided", "--max-seeds", "6")
    assert other.returncode == 2 and "were made with at most 4 seeds" in other.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--max-seeds", "5"], "--max-seeds says nothing without --until-decided"),
        (["--until-decided", "--again"], "--until-decided chooses the jobs, and so does --again"),
        (["--until-decided", "--max-seeds", "2"], "--max-seeds 2: the first look takes 3 seeds"),
    ],
)
def test_options_that_contradict_looks_are_refused(peftmark, tmp_path, options, told):
    done = peftmark("run", "smoke", *options)
    assert done.returncode == 2 and told in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_run_says_how_far_its_predictions_were_off(peftmark, monkeypatch):
    from peftmark.duration.estimates import Estimate, key_of
    from peftmark.run import runner

    def known(plan):
        return {key_of(job): Estimate({"train": 1e-3}) for job in plan.jobs}

    monkeypatch.setattr(runner, "known_predictions", known)
    done = peftmark("run", "smoke")
    assert "Time: 9 jobs took " in done.stdout and " times what was predicted" in done.stdout
