"""`peftmark track`, and `peftmark run --track`: what is said, and what it never costs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

import tracker_libraries
from factory import make_job, make_record
from peftmark.cli import parser
from peftmark.run import runner
from peftmark.storage.store import Store
from peftmark.track import beside
from small_suite import ONE_METHOD


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """A command in an empty folder: its exit code and what it said."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as left:
            parser.main([str(word) for word in words])
        said = capfd.readouterr()
        return left.value.code, said.out, said.err

    return run


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Three rows of two profiles, and MLflow's stand-in."""
    tracker_libraries.mlflow(monkeypatch)
    store = Store(tmp_path / "results", "demo")
    with store.lock():
        for job in (make_job(), make_job(seed=1), make_job(profile="full")):
            store.append(make_record(job=job))
    return store


TO = ("--to", "mlflow=kept.json")


def kept():
    """The runs that MLflow's stand-in has."""
    return json.loads(Path("kept.json").read_text())["runs"]


# --- track ----------------------------------------------------------------------------------------


def test_rows_of_every_profile_are_sent_once(command, rows):
    assert command("track", "demo", *TO) == (0, "Tracked by mlflow in kept.json: 3 jobs.\n", "")
    names = {run["name"] for run in kept() if "peftmark.job" not in run["tags"]}
    assert names == {"demo, profile quick", "demo, profile full"}
    again = "Tracked by mlflow in kept.json: 0 jobs, 3 there already.\n"
    assert command("track", "demo", *TO) == (0, again, "")


def test_the_report_that_is_there_goes_to_its_profile(command, rows):
    folder = Path("reports/demo")
    folder.mkdir(parents=True)
    (folder / "report.md").write_text("# demo, profile full\n")
    assert command("track", "demo", *TO)[0] == 0
    [run] = [run for run in kept() if "report/report.md" in run["files"]]
    assert run["name"] == "demo, profile full"


def test_one_profile_alone_as_facts(command, rows):
    code, out, _ = command("track", "demo", *TO, "--profile", "full", "--json")
    assert code == 0
    assert json.loads(out) == {
        "tracker": "mlflow", "where": "kept.json", "sent": 1, "there": 0, "adapters": 0,
        "faults": {},
    }  # fmt: skip


def test_rows_that_are_refused_are_told_of_by_the_exit_code(command, rows, monkeypatch):
    monkeypatch.setenv("STAND_IN_MLFLOW", "down")
    code, out, _ = command("track", "demo", *TO)
    assert code == 6
    first, second = out.splitlines()
    assert first == "Tracked by mlflow in kept.json: 0 jobs."
    assert second.startswith("Not tracked by mlflow: ") and "refused to answer" in second
    assert "secret" not in out and "\x1b" not in out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("demo", "--to", "neptune"), "--to: found 'neptune'"),
        (("nowhere", *TO), "results/nowhere holds no results"),
        (("../demo", *TO), "no suite is called '../demo'"),
        (("demo", *TO, "--profile", "x"), "has no rows of profile 'x'"),
        (("demo", "--to", "mlflow=."), "--to mlflow=. can't be opened: IsADirectoryError"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(command, rows, monkeypatch, words, what):
    if words[-1] == "mlflow=.":
        import mlflow

        def open_it(place):
            raise IsADirectoryError(place)

        monkeypatch.setattr(mlflow, "MlflowClient", lambda tracking_uri: open_it(tracking_uri))
    code, out, err = command("track", *words)
    assert (code, out) == (2, "")
    assert what in err
    assert not Path("kept.json").exists()


# --- run --track ----------------------------------------------------------------------------------


@pytest.fixture
def suite(tmp_path, monkeypatch, no_devices):
    """A suite of three jobs whose workers cost nothing, and MLflow's stand-in."""
    tracker_libraries.mlflow(monkeypatch)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "demo.yaml").write_text(ONE_METHOD)
    monkeypatch.setattr(runner, "fetch", lambda plan: {})
    execute = partial(runner.execute, worker="fake_worker:by_seed")
    monkeypatch.setattr(runner, "execute", execute)
    logs = Store(tmp_path / "results", "demo").logs
    logs.mkdir(parents=True)
    ways = logs / "ways"
    ways.write_text("{}")
    return ways


def jobs_of(runs):
    return sorted(run["params"]["seed"] for run in runs if "peftmark.job" in run["tags"])


RUN = ("run", "demo", "--jobs", "2", "--track", "mlflow=kept.json")


@pytest.mark.heavy
def test_a_run_sends_its_rows_and_its_report(command, suite):
    code, out, _ = command(*RUN)
    assert "Tracked by mlflow in kept.json: " in out
    parent, *jobs = kept()
    assert code == 0 and (parent["status"], len(jobs)) == ("FINISHED", 4)
    assert {"report/index.html", "report/report.md"} <= set(parent["files"])
    assert jobs_of(jobs) == ["0", "0", "1", "2"], "the repeat among them"
    again, out, _ = command(*RUN)
    assert (again, len(kept())) == (code, 5)
    assert "Tracked by mlflow in kept.json: 0 jobs, 4 there already." in out


@pytest.mark.heavy
@pytest.mark.parametrize("way", ["full", "hangs", "killed 1"])
def test_a_tracker_that_fails_costs_a_run_nothing(command, suite, monkeypatch, way):
    monkeypatch.setenv("STAND_IN_MLFLOW", way)
    monkeypatch.setattr(beside, "PATIENCE", 1.0 if way == "hangs" else beside.PATIENCE)
    code, said, _ = command(*RUN)
    assert code == 0 and "4 jobs: 4 ok" in said
    assert "Not tracked by mlflow: " in said and "later: `peftmark track demo --to " in said
    assert "Report: " in said
    monkeypatch.delenv("STAND_IN_MLFLOW")
    assert command("track", "demo", *TO)[0] == 0
    whole = [run for run in kept() if not run["removed"]]
    assert len(jobs_of(whole)) == 4 and {run["status"] for run in whole} <= {"FINISHED", "FAILED"}


@pytest.mark.heavy
def test_a_run_without_a_tracker_loads_none_of_it(command, suite, monkeypatch):
    monkeypatch.setattr(beside, "Beside", None)
    assert "racked" not in command(*RUN[:-2])[1]


def test_a_tracker_that_there_is_not_ends_a_run_before_it_begins(command, suite):
    code, _, err = command("run", "demo", "--track", "neptune")
    assert code == 2 and "--track: found 'neptune'" in err
    assert not Path("results/demo/parts").exists()
