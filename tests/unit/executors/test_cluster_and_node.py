"""What runs on a node, without a cluster around it; and which executor a user's words choose."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from factory import make_environment, make_job, make_outcome, make_recipe
from peftmark.core.errors import UserError
from peftmark.executors import node as remote
from peftmark.executors import parcel, process, select
from peftmark.executors.cluster import Lost, drive
from peftmark.executors.contract import WORKER, Finished, Order
from peftmark.executors.select import Where, choose
from peftmark.machine import nvml
from peftmark.machine.environment import capture
from peftmark.machine.nvml import Devices
from peftmark.record.kept import NOTES, Kept
from peftmark.record.outcome import Outcome
from peftmark.record.plugin import UsedPlugin
from peftmark.run.runner import Selection, command
from peftmark.sources.assets import Places
from waiting import Clock

pytestmark = pytest.mark.heavy


@pytest.fixture
def order(tmp_path):
    def make(worker="fake_worker:ok", **changes):
        places = changes.pop("places", Places(None, ("package",), tmp_path / "cache"))
        jobs = changes.pop("jobs", [(make_job(), 1)])
        return Order(jobs, places, tmp_path / "logs", worker=worker, **changes)

    return make


def run(order, attempt=1, job=None, /, **changes):
    """Run a job here as a node would, with changes to what it is told."""
    job = job or make_job()
    asked = json.loads(remote.payload(order, job, attempt, beside=0))
    told = remote.answer(job, remote.run_here(json.dumps({**asked, **changes})))
    return told.finished, told.refused, told.node, told.log


# --- on the node --------------------------------------------------------------------------------


def test_a_job_comes_back_with_its_log_and_the_node_and_leaves_nothing(order, tmp_path):
    done, refused, node, log = run(order(), 3)
    assert (done.attempt, done.outcome.status, refused, node) == (3, "ok", "", None)
    assert done.job == make_job()
    assert done.environment.machine == capture().machine
    assert log == "some words for the log\n"
    assert not list(tmp_path.rglob("*.log"))


def test_what_a_job_left_comes_home_with_its_answer(order, tmp_path):
    keep = {"outbox": tmp_path / "outbox", "keep": frozenset([make_job().job_id])}
    [done] = drive(order("fake_worker:leaves", **keep), Scripted(None), at_once=1)
    [left] = (tmp_path / "outbox").iterdir()
    assert left.name == f"{make_job().job_id}.1"
    assert (left / "adapter_model.safetensors").read_bytes() == b"x" * 10
    assert Kept.from_json((left / NOTES).read_text()) == Kept(make_job(), mean=1.5)
    assert done.outcome.warnings == ()


def test_what_is_too_large_or_leads_out_of_its_folder_stays_away_and_costs_no_row(
    order, tmp_path, monkeypatch
):
    keep = {"outbox": tmp_path / "outbox", "keep": frozenset([make_job().job_id])}
    monkeypatch.setattr(parcel, "LARGEST", 9)
    [done] = drive(order("fake_worker:leaves", **keep), Scripted(None), at_once=1)
    assert done.outcome.status == "ok"
    assert done.outcome.warnings[0].startswith("the adapter was not kept: it weighs 0 MiB, and a n")
    answer = json.dumps({"finished": done.to_json(), "log": "", "left": {"../x": "eA=="}})
    [done] = drive(order("fake_worker:leaves", **keep), Scripted(answer), at_once=1)
    assert done.outcome.status == "ok"
    assert done.outcome.warnings[-1] == "the adapter was not kept: a node sent a file '../x'"
    assert not (tmp_path / "x").exists()
    assert not [path for path in (tmp_path / "outbox").iterdir() if path.suffix != ".part"]


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        "{}",
        '{"finished": "{}"}',
        '{"finished": 3, "log": ""}',
        '{"refused": "no", "environment": {"word": 1}}',
    ],
)
def test_an_answer_that_is_none_is_the_end_of_its_own_job_alone(order, sent):
    [done] = drive(order(), Scripted(sent), at_once=1)
    assert done.outcome.status == "crashed"
    assert done.outcome.status_reason.startswith("the node sent what is no answer of ours (")


def test_of_a_job_that_is_not_kept_nothing_is_sent(order, tmp_path):
    [done] = drive(order("fake_worker:leaves", outbox=tmp_path / "o"), Scripted(None), at_once=1)
    assert done.outcome.status == "ok"
    assert not (tmp_path / "o").exists()


class Passing(Clock):
    """A clock that moves on by a second whenever somebody looks."""

    def monotonic(self):
        self.now += 1
        return self.now


@pytest.mark.slow
def test_the_time_limit_is_kept_on_the_node(order, monkeypatch):
    monkeypatch.setattr(process, "time", Passing())
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    done, *_ = run(order("fake_worker:hangs", seconds_limit=30))
    assert done.outcome.status == "timed_out"
    assert done.wall_seconds > 30
    assert done.outside == ""


def test_a_node_without_the_plug_in_of_a_job_refuses_it(order):
    used = UsedPlugin("method", "lora-more", "lora-more-package", "0" * 16)
    done, refused, *_ = run(order(), 1, make_job(plugins=(used,)))
    assert done is None
    assert "method lora-more is of the package lora-more-package, which isn't installed" in refused


def test_a_killed_worker_is_told_as_a_cause_outside_the_job(order):
    done, *_ = run(order("fake_worker:dies"))
    assert (done.outcome.status, done.outside, done.again) == (
        "crashed",
        "its worker was killed",
        "",
    )


@pytest.mark.parametrize("name", ["torch", "peftmark", "peftmark's protocol"])
def test_other_versions_are_refused_before_the_job_is_read(order, name):
    here = remote._versions()
    done, refused, node, _ = run(order(), versions={**here, name: "0.1"}, job="{}")
    assert done is None
    assert refused.startswith("other versions on the node than where the run was started: ")
    assert f"{name} 0.1 -> {here[name]}; " in refused
    assert node.versions == capture().versions


def test_what_a_node_lacks_is_a_reason(order, tmp_path, monkeypatch):
    (tmp_path / "mirror").mkdir()
    there = order(places=Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache"))
    assert "is in none of the sources tried" in run(there, worker=WORKER)[1]
    gone = str(tmp_path / "gone")
    assert run(there, mirror=gone)[1].startswith(f"the node lacks something: the mirror {gone}")
    monkeypatch.setattr(nvml, "devices", lambda: Devices((), "no driver"))
    job = make_job(device="cuda")
    assert run(order(), 1, job)[1] == "the node lacks something: the job needs a GPU: no driver"


def test_the_real_worker_gets_its_assets_fetched_first(order, monkeypatch, tmp_path):
    fetched = []
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "node"))
    monkeypatch.setattr(remote, "model_files", lambda model, places: fetched.append(places.cache))
    monkeypatch.setattr(remote, "load_task", lambda task, places: fetched.append(task.fingerprint))
    monkeypatch.setattr(remote, "WORKER", "fake_worker:ok")
    for known, asked in (("a" * 64, "a" * 64), ("revision:abc", None)):
        fetched.clear()
        job = make_job(task="cola", data_fingerprint=known)
        assert run(order(), 1, job)[0].outcome.status == "ok"
        assert fetched == [tmp_path / "node", asked]


def test_an_ending_survives_json():
    done = Finished(
        make_job(),
        2,
        make_outcome(),
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:01:00Z",
        60.5,
        None,
        7,
        "why",
        "outside",
        "again",
        make_environment(),
    )
    assert Finished.from_json(make_job(), done.to_json()) == done
    bare = replace(done, environment=None)
    assert Finished.from_json(make_job(), bare.to_json()) == bare


# --- the driver ---------------------------------------------------------------------------------


class Scripted:
    """A cluster whose calls end at once as a script says."""

    def __init__(self, *results):
        self.results, self.calls, self.cancelled = list(results), 0, []
        self.devices = []

    def submit(self, payloads, devices):
        self.calls += len(payloads)
        self.devices += [devices] * len(payloads)
        return [(self.calls, text) for text in payloads]

    def started(self, handle):
        return False

    def wait(self, handles):
        return list(handles)[: len(self.results)]

    def take(self, handle):
        result = self.results.pop(0)
        return remote.run_here(handle[1]) if result is None else result

    def cancel(self, handles):
        self.cancelled += handles


LOST = Lost(Outcome("crashed", "lost"), "its node failed", "a trace")
FAULT = Lost(Outcome("crashed", "no peftmark there"), "", "a trace")


def test_calls_are_handed_over_with_the_devices_of_their_jobs(order):
    counts = enumerate((1, 2, 1))
    jobs = [(make_job(seed=seed, recipe=make_recipe(devices=n)), 1) for seed, n in counts]
    cluster = Scripted(*[FAULT] * 3)
    done = list(drive(order(jobs=jobs), cluster, at_once=3))
    assert [one.job.recipe.devices for one in done] == cluster.devices == [1, 2, 1]


def test_a_lost_call_is_tried_again_while_there_are_tries(order, tmp_path):
    finished = list(drive(order(retries=2), Scripted(LOST, LOST, LOST), at_once=1))
    assert [(f.attempt, f.again) for f in finished] == [
        (1, "its node failed"),
        (2, "its node failed"),
        (3, ""),
    ]
    assert all(f.environment.machine == {} for f in finished), "nobody knows which node it was"
    logs = sorted((tmp_path / "logs").iterdir())
    assert [path.read_text() for path in logs] == ["a trace"] * 3


def test_a_fault_of_the_job_is_not_tried_again(order):
    (done,) = drive(order(retries=2), Scripted(FAULT), at_once=1)
    assert (done.outcome.status_reason, done.again) == ("no peftmark there", "")


def test_a_call_lost_while_the_user_stops_is_interrupted_and_queued_ones_leave_no_row(order):
    jobs = [(make_job(seed=seed), 1) for seed in range(3)]
    asked = iter([False, True])
    cluster = Scripted(LOST)
    finished = list(drive(order(jobs=jobs, stop=lambda: next(asked)), cluster, at_once=2))
    assert [(f.job.seed, f.outcome.status) for f in finished] == [(0, "interrupted")]
    assert (cluster.calls, len(cluster.cancelled)) == (2, 1)


def test_leaving_the_driver_early_cancels_what_runs(order):
    jobs = [(make_job(seed=seed), 1) for seed in range(3)]
    cluster = Scripted(None)
    finished = drive(order(jobs=jobs), cluster, at_once=3)
    assert next(finished).outcome.status == "ok"
    finished.close()
    assert [handle[0] for handle in cluster.cancelled] == [3, 3]


# --- the choice ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (Where(ray_address="a:1"), "--ray-address says nothing to the executor local"),
        (Where("slurm", ray_address="a:1"), "--ray-address says nothing to the executor slurm"),
        (Where("ray", slurm="time=5"), "--slurm says nothing to the executor ray"),
        (Where(device="cuda"), "--node-device says nothing to the executor local"),
        (Where("ray"), "--executor ray needs the address of a Ray cluster that runs"),
    ],
)
def test_options_that_contradict_each_other_are_one_message(where, what):
    with pytest.raises(UserError) as caught:
        choose(where, None)
    assert caught.value.what == what
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("found", "device", "jobs", "chosen"),
    [
        ((8, 0), None, None, ("cpu", 8)),
        ((8, 2), None, None, ("cuda", 2)),
        ((1, 2), None, None, ("cuda", 1)),
        ((8, 2), "cpu", 3, ("cpu", 3)),
        ((8, 0), None, 99, ("cpu", 8)),
    ],
)
def test_ray_is_asked_what_it_has(monkeypatch, found, device, jobs, chosen):
    monkeypatch.setattr(select.ray, "resources", lambda address: found)
    venue = choose(Where("ray", "a:1", device=device), jobs)
    assert (venue.device, venue.at_once) == chosen


def test_a_ray_cluster_without_the_device_is_refused(monkeypatch):
    monkeypatch.setattr(select.ray, "resources", lambda address: (8, 0))
    with pytest.raises(UserError, match="8 CPUs and 0 GPUs: no GPU with a CPU beside it"):
        choose(Where("ray", "a:1", device="cuda"), None)


def test_slurm_holds_as_many_jobs_as_asked(monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setattr(select, "cores", lambda: 5)
    where = Where("slurm", slurm="cluster=local")
    assert choose(where, None).at_once == 5
    assert choose(where, 3).at_once == 3
    monkeypatch.setattr(select.slurm.shutil, "which", lambda name: f"/usr/bin/{name}")
    venue = choose(Where("slurm", slurm="time=60", device="cuda"), None)
    assert (venue.device, venue.at_once) == ("cuda", select.QUEUED)


def test_the_words_of_a_choice_are_the_options_that_were_typed():
    assert Where().words() == []
    assert Where("ray", "a:1", device="cuda").words() == [
        "--executor",
        "ray",
        "--ray-address",
        "a:1",
        "--node-device",
        "cuda",
    ]
    selection = Selection("demo", where=Where("slurm", slurm="time=5"))
    assert command(make_job(), selection).endswith(" --again --executor slurm --slurm time=5")
