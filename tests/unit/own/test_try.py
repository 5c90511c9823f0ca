"""`peftmark try`: the suite that fits, what it prints, and going on."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from factory import FULL, HEAD, LORA, make_matrix, make_outcome, make_record
from own_files import separated, tickets, write
from peftmark.advice.answer import advise
from peftmark.advice.short_answer import Outcome, _open, lines
from peftmark.analysis.table import build
from peftmark.api import reporting
from peftmark.catalog.methods import Cell, cell_title
from peftmark.cli import parser, try_out
from peftmark.core.strict_yaml import read_yaml
from peftmark.duration.estimates import Estimate, key_of
from peftmark.executors.contract import Finished
from peftmark.machine import nvml
from peftmark.machine.environment import capture
from peftmark.memory.forecast import Forecast
from peftmark.run import runner, time_budget, try_suite
from peftmark.suite.load import load_suite
from waiting import Clock

COLUMNS = ("--text", "body", "--label", "category")
A_START, A_STEP = 2.0, 0.02
"""Seconds that a job and a step of it are predicted to take."""
CLOCK = Clock()
TOOK = {"seconds": 1.0}
"""What a job takes, as its row says."""
SCORES = {"full": 0.90, "lora": 0.905, "adalora": 0.85, "head": 0.7, "bag-of-words": 0.6}


def predicted(plan, costs, *_):
    jobs = [*plan.jobs, *plan.expanded.waits]
    return {key_of(j): Estimate({"train": A_START + A_STEP * j.recipe.steps}) for j in jobs}


def outcome_of(job):
    value = SCORES[job.method] - 0.002 * (job.quantization != "none")
    value += 0.0005 * (job.seed % 3) + 0.001 * (job.recipe.learning_rate == 1e-3)
    return make_outcome(metric_value=value)


def executed(plan, jobs, selection, listener, stop):
    here = capture()
    for job in jobs:
        outcome, took = outcome_of(job), TOOK["seconds"]
        made = make_record(job=job, outcome=outcome, environment=here, wall_seconds=took)
        made = runner.with_look(made, selection.most_seeds, selection.look, selection.question, 3)
        plan.store.append(made)
        at = made.finished_at
        CLOCK.now += took / 2  # two at once
        yield made, Finished(job, 1, made.outcome, at, at, took, None, None, "no GPU")


def prepare(patch, folder):
    """What the fixtures share: a folder with 240 tickets, whose jobs end at once."""
    patch.chdir(folder)
    patch.setenv("PEFTMARK_CACHE", str(folder / "cache"))
    write(folder, "tickets.csv", separated(("body", "category"), tickets(240)))
    patch.setattr(time_budget, "time", CLOCK)
    patch.setattr(try_out, "time", CLOCK)
    for module in (try_suite, time_budget):
        patch.setattr(module, "costs_here", lambda plan: SimpleNamespace(device="cpu"))
        patch.setattr(module, "expected", predicted)
    patch.setattr(runner, "fetch", lambda plan: {})
    patch.setattr(runner, "execute", executed)
    page = Path("reports/tickets/index.html")
    patch.setattr(reporting, "write_report", lambda plan, results, reports: [page])


def run(capsys, *words):
    """A command; its exit code and what it said."""
    with pytest.raises(SystemExit) as left:
        parser.main(list(words))
    said = capsys.readouterr()
    return left.value.code, said.out, said.err


@pytest.fixture
def peftmark(no_devices, tmp_path, monkeypatch, capsys):
    """Run a command in a folder of the test's own."""
    prepare(monkeypatch, tmp_path)
    return partial(run, capsys)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which `try` has ended."""
    folder = tmp_path_factory.mktemp("try")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvml, "devices", lambda: nvml.Devices((), "none"))
        prepare(patch, folder)
        with pytest.raises(SystemExit):
            parser.main(["try", "tickets.csv", *COLUMNS, "--hours", "1", "--jobs", "2"])
    return folder


@pytest.fixture
def again(no_devices, finished, monkeypatch, capsys):
    """Run a command in the folder in which `try` has ended."""
    prepare(monkeypatch, finished)
    return partial(run, capsys)


# --- the suite that fits --------------------------------------------------------------------------


@pytest.mark.slow
def test_as_many_steps_as_fit_into_the_hours_and_at_most_five_passes(finished):
    suite = load_suite("tickets", finished / "suites")
    jobs = suite.profiles["default"]
    assert suite.file.recipe.steps == 54, "five passes of 172 rows, 16 at a time"
    assert (jobs.tuning.seeds, jobs.tuning.trainings) == ([100], 4)
    assert (jobs.decide.question, jobs.decide.max_seeds) == ("best", 12)


def test_hours_that_hold_fewer_steps_get_fewer(monkeypatch):
    seconds = {40: 1000.0, 400: 4600.0}
    asked = []

    def planned(wanted, methods, steps, selection):
        asked.append(steps)
        return steps

    monkeypatch.setattr(try_suite, "_planned", planned)
    monkeypatch.setattr(try_suite, "_seconds", lambda steps, tell: seconds.get(steps, 2339.0))
    wanted = SimpleNamespace(hours=1.0)
    found = try_suite._steps(wanted, ["lora"], None, 40, 400, lambda text: None)
    assert found == (174, 2339.0), "of 0.65 hours 2340 s, 10 s a step above 1000 s at 40"
    assert asked == [400, 174]


def test_hours_too_few_for_any_comparison_are_refused_with_those_that_do(peftmark, tmp_path):
    code, out, err = peftmark("try", "tickets.csv", *COLUMNS, "--hours", "0.02", "--jobs", "2")
    assert (code, out) == (2, "")
    assert "--hours 0.02: the shortest comparison of 6 methods takes about" in err
    enough = float(re.search(r"Give --hours ([0-9.]+) or more", err)[1])
    minutes, seconds = map(int, re.search(r"about (\d+):(\d+) here", err).groups())
    assert 0 <= enough * try_suite.SHARE * 3600 - 60 * minutes - seconds < 40
    assert not (tmp_path / "suites").exists() and not (tmp_path / "results").exists()


def fits_below(most):
    def outlooks(jobs, cache, device, shapes):
        one_each = {job.cell: job for job in jobs if job.purpose == "report"}
        sizes = {"full": 900, "adalora": 310, "lora": 300, "head": 100}
        return [
            SimpleNamespace(
                job=job,
                forecast=Forecast(live={"all": 1024**2 * sizes[cell.method]}),
                fits=sizes[cell.method] < most,
            )
            for cell, job in one_each.items()
        ]

    return outlooks


@pytest.mark.slow
def test_what_does_not_fit_the_memory_is_left_out_and_told(peftmark, tmp_path, monkeypatch):
    monkeypatch.setattr(try_suite, "outlooks", fits_below(500))
    code, out, _ = peftmark("try", "tickets.csv", *COLUMNS, "--memory", "1GB", "--jobs", "2")
    assert code == 0
    methods = [entry.method for entry in load_suite("tickets", tmp_path / "suites").file.methods]
    assert methods == ["lora", "lora", "adalora", "head", "bag-of-words"]
    assert re.search(r"Not tried: full fine-tuning would take 900 MiB where \d+ MiB are left", out)


def test_memory_that_nothing_fits_is_refused(peftmark, tmp_path, monkeypatch):
    monkeypatch.setattr(try_suite, "outlooks", fits_below(200))
    code, _, err = peftmark("try", "tickets.csv", *COLUMNS, "--memory", "1GB")
    assert code == 2 and "--memory: nothing that trains fits: LoRA r8 would take 300 MiB" in err
    assert not (tmp_path / "suites").exists()


def test_a_machine_whose_speed_nobody_knows_takes_one_pass(monkeypatch):
    monkeypatch.setattr(try_suite, "_seconds", lambda plan, tell: None)
    said = []
    found = try_suite._steps(SimpleNamespace(hours=1.0), ["lora"], None, None, 500, said.append)
    assert found == (100, None) and "Nobody knows how long a step takes" in said[0]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tickets.csv", "tickets"),
        ("My Tickets (2).final.csv.gz", "my-tickets-2"),
        ("reviews.csv", "my-reviews"),
        ("glue.csv", "my-glue"),
        ("\N{SNOWMAN}.csv", "rows"),
    ],
)
def test_a_suite_is_named_after_the_file_and_hides_none_of_ours(file, name):
    assert try_out._name(Path(file)) == name


# --- the answer -----------------------------------------------------------------------------------


def test_it_answers_in_ten_lines_and_goes_on_where_it_was(again, finished):
    """The same answer, and why methods are missing is not lost."""
    parts = finished / "results" / "tickets" / "parts"
    rows = len(list(parts.glob("*.parquet")))
    code, out, err = again("try", "tickets.csv", *COLUMNS, "--hours", "1", "--jobs", "2")
    assert len(list(parts.glob("*.parquet"))) == rows
    assert "Goes on with suites/tickets.yaml" in err
    told = out.splitlines()
    assert code == 0 and len(told) <= 10
    assert told[0] == "Use LoRA r8, learning rate 1e-3 (the best of 4 by trials)."
    assert told[1].startswith("Because: Nothing that takes less peak memory than LoRA r8 (520 MiB)")
    assert any(line.startswith("Report: reports") for line in told)
    assert "Trainings have 54 steps (5.0 passes over the rows)." in out


@pytest.mark.slow
def test_where_jobs_take_longer_than_predicted_some_seeds_answer(peftmark, monkeypatch):
    """Trials took five times as long: the first look doesn't fit any more, a seed of it does."""
    monkeypatch.setitem(TOOK, "seconds", 15.0)
    code, out, err = peftmark("try", "tickets.csv", *COLUMNS, "--hours", "0.08", "--jobs", "2")
    assert code == 6, "its repeat is missing"
    assert "Left out: seeds 0, 1, 2" in err and "\nseed 0 (6 jobs): about 0:45" in err
    assert out.startswith("Use LoRA r8, learning rate 1e-3")
    assert "at 1 seed:" in out and "planned runs did not fit or failed: the same command" in out


@pytest.mark.slow
def test_hours_that_hold_no_whole_seed_any_more_hold_the_cells_with_the_best_trials(
    peftmark, monkeypatch
):
    monkeypatch.setitem(TOOK, "seconds", 18.0)
    code, out, err = peftmark("try", "tickets.csv", *COLUMNS, "--hours", "0.08", "--jobs", "2")
    assert code == 6 and "Left out: seeds 0, 1, 2 (19 jobs)" in err
    assert "seed 0 (2 jobs) of those fit: bag of words, LoRA r8" in err
    assert out.startswith("Use LoRA r8") and "the same command goes on" in out


@pytest.mark.slow
def test_hours_that_only_trials_fit_into_give_no_answer(peftmark, monkeypatch):
    monkeypatch.setitem(TOOK, "seconds", 40.0)
    code, out, err = peftmark("try", "tickets.csv", *COLUMNS, "--hours", "0.08", "--jobs", "2")
    assert code == 6 and "Left out: trials of seed 101" in err
    assert out.startswith("No answer yet") and "the same command goes on" in out


@pytest.mark.slow
def test_other_hours_or_another_file_begin_anew_where_nothing_has_run(peftmark, tmp_path):
    """Two hours of an old file fit no half hour of a new one."""
    command = ("try", "tickets.csv", *COLUMNS, "--jobs", "2", "--hours")
    assert peftmark(*command, "1")[0] == 0
    shutil.rmtree(tmp_path / "results")
    assert "Goes on with suites/tickets.yaml" in peftmark(*command, "1")[2]
    shutil.rmtree(tmp_path / "results")
    assert "Wrote suites/tickets.yaml" in peftmark(*command, "2")[2]
    shutil.rmtree(tmp_path / "results")
    write(tmp_path, "tickets.csv", separated(("body", "category"), tickets(300)))
    assert "Wrote suites/tickets.yaml" in peftmark(*command, "2")[2]
    assert "Goes on with suites/tickets.yaml" in peftmark(*command, "3")[2], "rows are there"


def test_a_suite_is_as_it_was_written_only_for_other_hours_and_unchanged():
    text = "suite: a\nmethods: [lora]\n"
    fits, other = (f"{try_out.FITS}[{hours}]" for hours in (1, 2))

    def lines(body, header):
        whole = f"asked\ntold\n{header}\n{body}"
        return [*whole.splitlines(), "", ""]

    header = f"{fits} {try_out._hash(text.encode())}"
    assert try_out._as_written(lines(text, header), other)
    assert not try_out._as_written(lines(text, header), fits), "nothing has changed"
    assert not try_out._as_written(lines(text.replace("lora", "ia3"), header), other), "edited"
    assert not try_out._as_written(lines(text, "suite: a"), other), "of an earlier version"


def test_another_suite_of_that_name_is_not_touched(peftmark, tmp_path):
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "tickets.yaml").write_text("mine")
    code, _, err = peftmark("try", "tickets.csv", *COLUMNS)
    assert code == 2 and "there is a suite suites/tickets.yaml" in err
    assert "another name with --suite-name, or remove suites/tickets.yaml" in err
    assert (tmp_path / "suites" / "tickets.yaml").read_text() == "mine"


def test_facts_are_the_same_as_json(again):
    code, out, _ = again("try", "tickets.csv", *COLUMNS, "--jobs", "2", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["use"] == "LoRA r8" and facts["suite"] == "tickets"
    assert facts["lines"][0].startswith("Use LoRA r8")


def test_without_rows_there_is_no_answer_and_what_is_missing_is_said():
    left_out, length = ("full would take 9 GiB",), "Trainings have 40 steps."
    outcome = Outcome("tickets", left_out, length, {}, None, 5, fault="no run has ended.")
    assert lines(None, outcome) == [
        "No answer yet: no run has ended.",
        "Not tried: full would take 9 GiB.",
        "Trainings have 40 steps. 5 planned runs did not fit or failed: the same command goes on.",
    ]


def test_an_adapter_is_named_with_how_plain_peft_loads_it(finished):
    [answer] = advise(finished / "results", "tickets", max_drop="1").answers
    cell = Cell("lora", 8, "none", "")
    outcome = Outcome("tickets", (), "", {cell: Path("results/tickets/adapters/x")}, None, 0)
    told = "\n".join(lines(answer, outcome))
    assert "Adapter: results/tickets/adapters/x; for plain PEFT: peftmark export tickets" in told
    assert f"--cell '{cell_title(*cell)}' --task tickets --to DIR" in told
    elsewhere = replace(outcome, where=("--results", "my rows"))
    assert "--to DIR --results 'my rows'" in "\n".join(lines(answer, elsewhere))
    none = replace(outcome, adapters={})
    assert "Adapter" not in "\n".join(lines(answer, none))


def test_the_suite_says_what_made_it_and_is_a_suite_like_others(again, finished):
    path = finished / "suites" / "tickets.yaml"
    assert path.read_text().startswith("# Made by `peftmark try` from ")
    assert read_yaml(path)["tasks"]["tickets"]["label"] == "category"
    assert "tickets" in again("plan", "tickets", "--no-memory")[1]


# --- what is refused before hours are spent -------------------------------------------------------


def test_a_limit_that_is_none_and_rows_too_few_are_refused_at_once(peftmark, tmp_path):
    code, out, err = peftmark("try", "tickets.csv", *COLUMNS, "--max-drop", "abc")
    assert (code, out) == (2, "") and "--max-drop" in err and "Predicting" not in err
    write(tmp_path, "few.csv", separated(("body", "category"), tickets(12)))
    code, _, err = peftmark("try", "few.csv", *COLUMNS)
    assert code == 2 and "few.csv: 12 rows; methods can't be told apart on so few" in err
    assert not (tmp_path / "suites").exists()


def test_a_suite_that_was_removed_is_made_again_and_its_rows_count(again, finished):
    (finished / "suites" / "tickets.yaml").unlink()
    code, out, err = again("try", "tickets.csv", *COLUMNS, "--hours", "1", "--jobs", "2")
    assert code == 0 and out.startswith("Use LoRA r8") and "Wrote suites/tickets.yaml" in err


# --- what may be as good --------------------------------------------------------------------------


def table_with(scores):
    rows = []
    for place, (cell, level) in enumerate(scores.items(), 2):
        for one in make_matrix([cell], ["sst2"], range(8)):
            value = level + 0.0005 * (one.job.seed * place % 5)
            rows.append(replace(one, outcome=replace(one.outcome, metric_value=value)))
    return build(rows, [one.job for one in rows], LORA)


def test_what_is_said_of_the_others_is_what_is_shown():
    apart = table_with({LORA: 0.9, FULL: 0.8, HEAD: 0.7})
    assert _open(apart, LORA) == "Every other method is shown to score lower (8 seeds)."
    assert _open(apart, FULL) == (
        "Shown to score lower (8 seeds) than: LoRA r8; it is chosen for what it costs."
    )
    close = table_with({LORA: 0.9, FULL: 0.9, HEAD: 0.7})
    assert _open(close, LORA) == (
        "Not told apart from it at 8 seeds: full fine-tuning; the choice among them is by cost."
    )
