"""A job over several devices: its places, and how it ends when one of its processes does."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from factory import make_job, make_outcome, make_recipe
from peftmark.core.errors import UserError
from peftmark.executors import local, node, ray, slurm
from peftmark.executors.beside import SEVERAL, seen_by_nvml
from peftmark.executors.contract import Order, needs_of
from peftmark.executors.in_turn import most_jobs
from peftmark.executors.local import run_jobs
from peftmark.executors.select import Venue
from peftmark.executors.slots import DeviceRoom, Room, Slot, together
from peftmark.machine.visible import Devices, Gpu
from peftmark.sources.assets import Places
from waiting import wait_for
from watched import watched_in

pytestmark = pytest.mark.heavy  # they wait for workers

PAIR = (Slot(), Slot())
GRES = {"slurm_gres": "gpu:4", "slurm_cpus_per_task": 6}


def job_of(devices, seed=0, **changes):
    return make_job(seed=seed, recipe=make_recipe(devices=devices), **changes)


TWO = job_of(2)


def order_of(tmp_path, worker, jobs, **changes):
    return Order(
        jobs=[(job, 1) for job in jobs],
        places=Places(None, ("package",), tmp_path / "cache"),
        logs=tmp_path / "logs",
        worker=f"fake_worker:{worker}",
        **changes,
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run jobs with a fake worker; returns the attempts in the order they ended."""
    watched = watched_in(tmp_path, monkeypatch)

    def start(worker, jobs=(TWO,), places=PAIR, retries=0, **changes):
        order = order_of(tmp_path, worker, jobs, retries=retries, **changes)
        watched.events.clear()
        return watched.run(order, list(places))

    start.watched = watched
    return start


def processes(tmp_path, attempt=1):
    """The numbers of a job's processes, and what the others told of their places."""
    log = (tmp_path / "logs" / f"{job_of(2).job_id}.{attempt}.log").read_text()
    found = re.findall(r"process (\d+) ?(.*)", log)
    return [int(pid) for pid, _ in found], [json.loads(told) for _, told in found if told]


def all_gone(pids):
    """Wait until no process of these runs."""

    def gone(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    return wait_for(lambda: all(map(gone, pids)))


# --- places -------------------------------------------------------------------------------------


def test_a_job_of_two_devices_has_two_processes_each_in_its_place(run, tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    first, last = frozenset({cores[0]}), frozenset({cores[-1]})
    (done,) = run("team_ok", places=[Slot(cores=first), Slot(cores=last)])
    assert (done.outcome.status, done.outcome.metric_value) == ("ok", 0.5)
    pids, told = processes(tmp_path)
    assert len(set(pids)) == 2 and all_gone(pids)
    assert told == [[1, None, sorted(last)]]


def test_jobs_have_as_many_places_as_they_ask_for(run):
    events = run.watched.events
    run("team_ok", [job_of(2, seed) for seed in range(2)], [Slot()] * 3)
    assert [kind for kind, _ in events] == ["start", "end"] * 2
    run("ok", [job_of(1, seed) for seed in range(3)], [Slot()] * 3)
    assert [kind for kind, _ in events][:3] == ["start"] * 3
    run("team_ok", [job_of(2, seed) for seed in range(2)], [Slot()] * 4)
    assert [kind for kind, _ in events][:2] == ["start"] * 2


def test_a_venue_runs_so_many_fewer_jobs_at_once():
    here = Venue("cpu", 0, 4, run_jobs, [Slot()] * 4)
    assert [here.of([job_of(1), job_of(n)]).at_once for n in (1, 2, 3, 8)] == [4, 2, 1, 1]
    queue = Venue("cpu", 0, 64, run_jobs)
    assert queue.of([job_of(2)]) is queue


@pytest.mark.parametrize(
    ("devices", "places", "said"),
    [
        (3, PAIR, "asks for 3 processor cores a job (devices), and there are places for 2"),
        (2, [Slot("GPU-a")], "asks for 2 GPUs a job (devices), and there are places for 1"),
        (2, [Slot("GPU-a", on_device=2)] * 2, "jobs that share a GPU have one each"),
    ],
)
def test_jobs_that_could_never_start_are_refused_before_any_starts(tmp_path, devices, places, said):
    order = order_of(tmp_path, "ok", [job_of(1), job_of(devices, 1)])
    with pytest.raises(UserError, match=re.escape(said)):
        next(run_jobs(order, list(places)))
    assert not (tmp_path / "logs").exists()


def test_jobs_for_which_too_few_gpus_are_left_end_the_run():
    """They would wait for ever."""
    waits = [local._Waiting(job_of(2), 1, 0), local._Waiting(job_of(3, 1), 1, 0)]
    rooms = Room(None, {}), DeviceRoom({})
    left = local._State(waits, {}, [Slot("GPU-a")], {"GPU-b", "GPU-c"}, *rooms)
    with pytest.raises(UserError, match="every GPU is lost but 1; 2 jobs were not started"):
        local._check_left(left)
    local._check_left(replace(left, free=[Slot("GPU-a"), Slot("GPU-b")]))
    local._check_left(replace(left, waiting=[]))


def test_each_of_its_processes_takes_memory():
    two, one = job_of(2), job_of(1, 1)
    room = Room(10, {needs_of(two): 4, needs_of(one): 3})
    assert needs_of(two) != needs_of(one)
    assert not room.fits(two, [one]) and not room.fits(one, [two])
    room.learn(replace(one, seed=5), make_outcome(vmhwm_bytes=2))
    assert room.fits(job_of(1, 2), [one]) and Room(11, {needs_of(two): 4}).fits(two, [one])


def test_its_process_runs_no_other_job():
    assert most_jobs(job_of(1), False, 5) == 5
    assert most_jobs(job_of(2), False, 5) == 1
    assert most_jobs(job_of(2, purpose="tuning"), True, None) == 1


def test_the_driver_is_not_said_to_have_seen_all_of_its_gpus():
    meter = SimpleNamespace(process_bytes=7, device_bytes=9, reason="")
    alone, pair = Slot("GPU-a"), together([Slot("GPU-a"), Slot("GPU-b")])
    assert seen_by_nvml(meter, alone, 0)["nvml_process_bytes"] == 7
    seen = seen_by_nvml(meter, pair, 0)
    assert set(seen.values()) == {None, SEVERAL}
    assert pair.devices == ["GPU-a", "GPU-b"] and pair.places == (alone, Slot("GPU-b"))


# --- a process that ends ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worker", "status", "reason"),
    [
        ("team_member_dies", "crashed", "process 2 of 2 was killed by SIGKILL, at step 3 of 120"),
        ("team_lead_dies", "crashed", "the worker was killed by SIGKILL, at step 3 of 120"),
    ],
)
def test_a_killed_process_ends_its_job_which_is_tried_again(run, tmp_path, worker, status, reason):
    first, again = run(worker, retries=1)
    assert (first.outcome.status, first.outcome.status_reason) == (status, reason)
    assert (first.again, again.again) == ("its worker was killed", "")
    for attempt in (1, 2):
        pids, _ = processes(tmp_path, attempt)
        assert len(pids) == 2 and all_gone(pids)


@pytest.mark.parametrize(
    ("worker", "status", "reason"),
    [
        ("team_member_fails", "out_of_memory", "in process 2 of 2: no room"),
        ("team_member_leaves", "crashed", "process 2 of 2 ended with exit code 3 and no outcome"),
    ],
)
def test_what_fails_in_another_process_is_the_jobs_reason(run, tmp_path, worker, status, reason):
    (done,) = run(worker, retries=1)
    assert done.outcome.status == status and done.outcome.status_reason.startswith(reason)
    assert all_gone(processes(tmp_path)[0])


def test_a_job_over_its_limit_leaves_no_process(run, tmp_path):
    (done,) = run("team_hangs", seconds_limit=100)
    assert done.outcome.status == "timed_out"
    assert all_gone(processes(tmp_path)[0])


# --- elsewhere ----------------------------------------------------------------------------------


def test_on_a_node_a_job_has_the_first_gpus_that_are_visible(monkeypatch):
    found = tuple(Gpu(f"GPU-{name}", "card", 1) for name in "abc")
    monkeypatch.setattr(node.nvml, "devices", lambda: Devices(found, None))
    monkeypatch.setattr(node.nvml, "near_cores", lambda uuid: frozenset())
    slots = node._slots(job_of(2, device="cuda"))
    assert [slot.device for slot in slots] == ["GPU-a", "GPU-b"]
    assert node._slots(job_of(2)) == [Slot(), Slot()]
    with pytest.raises(UserError, match="needs 4 GPUs: 3 are visible"):
        node._slots(job_of(4, device="cuda"))


def test_ray_is_not_asked_for_a_node_that_there_is_not():
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 8.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    ray._check_nodes(nodes, "cpu", 8)
    ray._check_nodes(nodes, "cuda", 2)
    with pytest.raises(UserError, match="largest node has 2 GPUs"):
        ray._check_nodes(nodes, "cuda", 3)
    with pytest.raises(UserError, match="largest node has 8 CPUs"):
        ray._check_nodes(nodes, "cpu", 9)


def test_ray_gives_a_job_as_many_of_each_as_it_has_devices():
    asked = []

    class Task:
        def options(self, **resources):
            asked.append(resources)
            return self

        def remote(self, text):
            return text

    stand_in = SimpleNamespace(remote=lambda **_: lambda function: Task())
    assert ray._Tasks(stand_in, "cpu").submit(["a"], 2) == ["a"]
    assert ray._Tasks(stand_in, "cuda").submit(["b"], 3) == ["b"]
    assert asked == [{"num_cpus": 2}, {"num_cpus": 3, "num_gpus": 3}]


@pytest.mark.parametrize(
    ("device", "others", "asked"),
    [
        ("cpu", {}, [{}, {"cpus_per_task": 2}]),
        ("cpu", {"cpus_per_task": 6}, [{"slurm_cpus_per_task": 6}] * 2),
        (
            "cuda",
            {},
            [{"gpus_per_node": 1}, {"gpus_per_node": 2, "cpus_per_task": 2}],
        ),
        ("cuda", {"gres": "gpu:4", "cpus_per_task": 6}, [GRES] * 2),
    ],
)
def test_slurm_is_asked_for_as_many_as_a_job_has_devices(tmp_path, device, others, asked):
    made = []

    class Executor:
        def __init__(self, **_):
            made.append({})

        def update_parameters(self, **parameters):
            made[-1] |= parameters

        def submit(self, function, text):
            return text

    order = order_of(tmp_path, "ok", [])
    given = slurm.Settings("slurm", 5, others)
    cluster = slurm._Submitted(SimpleNamespace(AutoExecutor=Executor), order, given, device)
    assert [cluster.submit(["a"], n) for n in (1, 2, 1)] == [["a"]] * 3
    plain = {"name": "peftmark", "timeout_min": 5, "stderr_to_stdout": True}
    assert made == [plain | more for more in asked]
