"""Every tracker, with a stand-in for its library: whole curves, no second run of a job."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest

import tracker_libraries
from factory import make_failure, make_job, make_outcome, make_record
from peftmark.core.errors import UserError
from peftmark.track import seam
from peftmark.track.entry import entry_of
from peftmark.track.seam import KINDS, Target, open_tracker, read_target
from places import ROOT

OK = make_record(job=make_job(seed=1))
FAILED = make_record(job=make_job(seed=2), outcome=make_failure())


class Kept:
    """What a tracker holds, read back."""

    def __init__(self, name, monkeypatch, folder):
        self.name, self._folder = name, folder
        self.place = str(folder / "kept.json" if name == "mlflow" else folder)
        if name == "trackio":
            self._runs, self._files = tracker_libraries.trackio(monkeypatch, folder)
        else:
            getattr(tracker_libraries, name)(monkeypatch)

    def open(self):
        return open_tracker(Target(self.name, self.place))

    def curves(self):
        """Name of a curve -> (step, value) of every run that there is, in any order."""
        return getattr(self, f"_{self.name}")()

    def _mlflow(self):
        runs = json.loads(Path(self.place).read_text())["runs"]
        return [
            [(key, step, value) for key, value, _, step in run["metrics"]]
            for run in runs
            if "peftmark.job" in run["tags"] and not run["removed"]
        ]

    def _wandb(self):
        runs = [json.loads(p.read_text()) for p in self._folder.glob("wandb/*/run.json")]
        return [
            [(key, step, value) for step, values in run["logs"] for key, value in values.items()]
            + [(key, None, value) for key, value in run["summary"].items()]
            for run in runs
            if run["job_type"] == "job"
        ]

    def _trackio(self):
        return [
            [(key, step, value) for step, values in run for key, value in values.items()]
            for name, run in self._runs.items()
            if not name.startswith(("adapter-", "report-"))
        ]

    def _tensorboard(self):
        found = []
        for path in self._folder.glob("demo/quick/*.1/events*"):
            events = [json.loads(line) for line in path.read_bytes().splitlines()]
            values = [(e["step"], v) for e in events for v in e.get("summary", {}).get("value", ())]
            assert all(v["tensor"]["dtype"] == 2 for _, v in values if v["tensor"]["double_val"])
            found.append(
                [(v["tag"], step, *v["tensor"]["double_val"]) for step, v in values
                 if v["tensor"]["double_val"]]
            )  # fmt: skip
        return found


@pytest.fixture(params=sorted(KINDS))
def kept(request, monkeypatch, tmp_path):
    return Kept(request.param, monkeypatch, tmp_path)


def expected(record, name):
    """(step, value) of a curve as the row stores it."""
    return [(p.step, getattr(p, name)) for p in record.outcome.curve]


def test_the_curve_that_is_read_back_is_the_rows(kept):
    assert kept.open().job(entry_of(OK))
    [run] = kept.curves()
    for name in ("loss", "metric", "selection_metric", "gradient_norm"):
        there = [(step, value) for key, step, value in run if key == f"curve/{name}"]
        assert there == expected(OK, name)
    assert [value for key, _, value in run if key == "final/train_seconds"] == [12.0]
    assert not [key for key, *_ in run if key == "curve/penalty"]


def test_a_job_is_tracked_once_however_often_it_is_sent(kept):
    for round in range(3):
        tracker = kept.open()
        for record in (OK, FAILED):
            assert tracker.job(entry_of(record)) is (round == 0)
        tracker.end("finished")
    assert len(kept.curves()) == 2


def test_another_attempt_is_a_run_of_its_own(kept):
    tracker = kept.open()
    assert tracker.job(entry_of(make_record(outcome=make_failure())))
    assert tracker.job(entry_of(make_record(attempt=2)))
    assert kept.open().job(entry_of(make_record(attempt=2))) is False


def test_a_failed_job_without_a_curve_is_tracked_too(kept):
    assert kept.open().job(entry_of(FAILED))
    [run] = kept.curves()
    assert not [key for key, *_ in run if key.startswith("curve/")]


def test_an_adapter_is_sent_once_and_a_report_as_often_as_it_changes(kept, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter.safetensors").touch()
    page = tmp_path / "report.md"
    page.write_text("# demo, profile quick\n")
    entry = entry_of(OK)
    for first in (True, False):
        tracker = kept.open()
        tracker.job(entry)
        assert tracker.adapter(entry, folder) is first
        tracker.report("demo", "quick", [page])
        tracker.end("finished")
    assert len(kept.curves()) == 1


# --- what is special of one -----------------------------------------------------------------------


@pytest.fixture
def mlflow(monkeypatch, tmp_path):
    kept = Kept("mlflow", monkeypatch, tmp_path)
    kept.runs = lambda: json.loads(Path(kept.place).read_text())["runs"]
    return kept


def test_mlflow_has_a_run_for_the_profile_and_below_it_the_jobs(mlflow):
    tracker = mlflow.open()
    for record in (OK, FAILED):
        tracker.job(entry_of(record))
    tracker.end("finished")
    parent, ok, failed = mlflow.runs()
    assert [run["status"] for run in (parent, ok, failed)] == ["FINISHED", "FINISHED", "FAILED"]
    assert parent["name"] == "demo, profile quick"
    for run, record in ((ok, OK), (failed, FAILED)):
        assert run["tags"]["mlflow.parentRunId"] == parent["id"]
        assert run["tags"]["peftmark.job"] == record.job.job_id
        assert run["params"]["method"] == "lora"
        assert "\ntrain_seconds," in run["files"]["figures.csv"]
    assert failed["tags"]["status_reason"] == "asked for 2 GiB"
    again = mlflow.open()
    again.job(entry_of(make_record(job=make_job(seed=3))))
    again.end("stopped")
    parent, *others = mlflow.runs()
    assert parent["status"] == "KILLED"
    assert {run["tags"]["mlflow.parentRunId"] for run in others} == {parent["id"]}


def test_mlflow_sends_a_run_again_that_was_broken_off(mlflow, monkeypatch):
    tracker = mlflow.open()
    monkeypatch.setattr(tracker._client, "set_terminated", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tracker.job(entry_of(OK))
    assert mlflow.open().job(entry_of(OK)) is True
    assert mlflow.open().job(entry_of(OK)) is False
    assert len(mlflow.curves()) == 1


def test_mlflow_cuts_nothing_off_a_long_curve(mlflow):
    points = tuple(OK.outcome.curve[0] for _ in range(700))
    long = make_record(outcome=make_outcome(curve=points))
    assert mlflow.open().job(entry_of(long))
    [run] = mlflow.curves()
    assert sum(key == "curve/loss" for key, *_ in run) == 700


def test_tensorboard_leaves_nothing_of_a_job_that_it_could_not_write(monkeypatch, tmp_path):
    kept = Kept("tensorboard", monkeypatch, tmp_path)
    tracker = kept.open()
    from peftmark.track import tensorboard

    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tensorboard.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            tracker.job(entry_of(OK))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert tracker.job(entry_of(OK)) is True


def test_wandb_writes_a_run_again_that_was_broken_off(monkeypatch, tmp_path):
    kept = Kept("wandb", monkeypatch, tmp_path)
    kept.open().job(entry_of(OK))
    [folder] = tmp_path.glob("wandb/offline-run-*")
    (folder / "peftmark.whole").unlink()
    assert kept.open().job(entry_of(OK)) is True
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1
    shutil.rmtree(tmp_path / "wandb")


def test_trackio_that_loses_a_point_is_found_out(monkeypatch, tmp_path):
    tracker_libraries.trackio(monkeypatch, tmp_path, loses=(40,))
    tracker = open_tracker(Target("trackio"))
    with pytest.raises(Exception, match="6 of 7 entries"):
        tracker.job(entry_of(OK))


# --- which there are ------------------------------------------------------------------------------


def test_every_tracker_is_an_extra_of_its_own_and_no_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for name, kind in KINDS.items():
        [wanted] = project["optional-dependencies"][name]
        assert wanted.split(">=")[0] == kind.library
        assert not any(one.startswith(kind.library) for one in project["dependencies"])


def test_a_tracker_is_typed_with_or_without_a_place(monkeypatch):
    monkeypatch.setattr(seam, "find_spec", lambda name: object())
    assert read_target("--track", "mlflow") == Target("mlflow", None)
    target = read_target("--track", "mlflow=http://host:5000/?a=b")
    assert target == Target("mlflow", "http://host:5000/?a=b")
    assert target.typed == "mlflow=http://host:5000/?a=b"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("neptune", "--track: found 'neptune'"),
        ("", "--track: found ''"),
        ("MLFLOW", "--track: found 'MLFLOW'"),
        ("wandb=", "--track: wandb with the place ''"),
        ("tensorboard=a\x1b[31m", r"--track: tensorboard with the place 'a\\x1b[31m'"),
    ],
)
def test_what_is_no_tracker_is_refused(monkeypatch, text, what):
    monkeypatch.setattr(seam, "find_spec", lambda name: object())
    with pytest.raises(UserError) as caught:
        read_target("--track", text)
    assert caught.value.what == what.replace("\\\\", "\\")
    assert caught.value.remedy.startswith("Give ")


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch, name):
    monkeypatch.setattr(seam, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"{KINDS[name].library} is not installed") as caught:
        read_target("--to", name)
    assert caught.value.remedy == f'Install it there: pip install "peftmark[{name}]"'
