"""Jobs on a Ray cluster of two nodes on this machine's loopback, one of which is killed."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from factory import make_job
from peftmark.cli import parser
from peftmark.core.errors import UserError
from peftmark.executors import node as remote
from peftmark.executors import ray as on_ray
from peftmark.executors.contract import Order
from peftmark.sources.assets import Places
from places import SOURCE, SUPPORT
from waiting import wait_for

pytestmark = pytest.mark.heavy

SETTINGS = {
    # Where nodes find the fake workers, and the peftmark of this checkout.
    "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SOURCE)]),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for "loopback only"
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "600000",  # one that is gone refuses; one that is slow may be
    "RAY_health_check_failure_threshold": "3",
}


@pytest.fixture(scope="module", autouse=True)
def folder():
    """The folder of notes and of Ray's own files. Ray reads the settings when it is loaded."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as made:
        for name, value in {**SETTINGS, "CLUSTER_NOTES": made, "RAY_TMPDIR": made}.items():
            patch.setenv(name, value)
        yield Path(made)


@pytest.fixture(scope="module")
def cluster(folder):
    """A head and a second node, one CPU each."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    utils = pytest.importorskip("ray.cluster_utils")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    made = utils.Cluster(initialize_head=True, head_node_args=node)
    made.second = made.add_node(**node)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def notes(folder):
    """The folder of notes, empty."""
    for path in folder.glob("*.*.*"):
        path.unlink()
    return folder


@pytest.fixture
def order(tmp_path):
    def make(worker, seeds, **changes):
        return Order(
            jobs=[(make_job(seed=seed), 1) for seed in seeds],
            places=Places(None, ("package",), tmp_path / "cache"),
            logs=tmp_path / "logs",
            worker=f"cluster_worker:{worker}",
            **changes,
        )

    return make


def run(cluster, order):
    return list(on_ray.run_jobs(order, cluster.address, "cpu", at_once=2))


def begun(folder):
    """(seed, process id) of every worker that began."""
    return [tuple(map(int, path.name.split(".")[:2])) for path in folder.glob("*.begun")]


def running_on(node, folder):
    """Seeds of workers that run on a node."""
    raylet = node.all_processes["raylet"][0].process.pid
    found = []
    for seed, pid in begun(folder):
        with suppress(psutil.NoSuchProcess):
            ours = raylet in {parent.pid for parent in psutil.Process(pid).parents()}
            if ours and not (folder / f"{seed}.{pid}.ended").exists():
                found.append(seed)
    return found


# --- without a cluster --------------------------------------------------------------------------


def exit_code(arguments):
    with pytest.raises(SystemExit) as caught:
        parser.main(arguments)
    return caught.value.code


def test_without_ray_one_message_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["run", "smoke", "--executor", "ray", "--ray-address", "127.0.0.1:6379"]
    assert exit_code(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("peftmark: --executor ray needs Ray, which can't be loaded: ")
    assert told.endswith('Install it: pip install "peftmark[ray]"\n')
    assert not list(tmp_path.iterdir())


def test_an_address_without_a_cluster_is_one_message(monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=f"no connection to a Ray cluster at 127.0.0.1:{port}: "):
        on_ray.connect(f"127.0.0.1:{port}")
    with pytest.raises(UserError, match=r"--ray-address: found 'ray://here:1'\nGive HOST:PORT"):
        on_ray.connect("ray://here:1")


# --- on two nodes -------------------------------------------------------------------------------


@pytest.mark.slow  # a cluster of Ray takes long to start
def test_jobs_run_on_the_nodes_and_come_back_with_log_and_machine(cluster, notes, order):
    told = []
    one = order("meets", (0, 1), listener=lambda job, message: told.append((job.seed, message)))
    assert on_ray.resources(cluster.address) == (2, 0)
    finished = run(cluster, one)
    assert {f.job.seed: f.outcome.status for f in finished} == {0: "ok", 1: "ok"}
    assert {f.environment.machine["cores"] for f in finished} == {os.cpu_count()}
    assert {f.outcome.data_source for f in finished} == {"up to 2"}, "two jobs on one machine"
    assert {f.outcome.model_source for f in finished} == {"without Ray"}
    assert all(f.wall_seconds > f.outcome.train_seconds > 0 for f in finished), (
        "one is in the other"
    )
    for seed in (0, 1):
        assert [m["phase"] for s, m in told if s == seed] == ["queued", "start", "end"]
        log = one.logs / f"{make_job(seed=seed).job_id}.1.log"
        assert log.read_bytes() == b"worked on a node\n"


@pytest.mark.slow  # a cluster of Ray takes long to start
def test_ray_gets_our_function_by_its_name(cluster):
    from ray import cloudpickle

    text = cloudpickle.dumps(remote.run_here)
    assert len(text) < 100
    assert b"peftmark.executors.node" in text
    assert b"run_here" in text


@pytest.mark.slow  # a cluster of Ray takes long to start
def test_a_worker_killed_on_its_node_is_tried_again_by_us(cluster, notes, order):
    finished = run(cluster, order("is_killed_once", (0,), retries=1))
    assert [(f.attempt, f.outcome.status, f.again) for f in finished] == [
        (1, "crashed", "its worker was killed"),
        (2, "ok", ""),
    ]


@pytest.mark.slow  # a cluster of Ray takes long to start
def test_a_node_with_other_versions_refuses_and_says_which(cluster, notes, order, monkeypatch):
    here = remote._versions()
    monkeypatch.setattr(remote, "_versions", lambda: {**here, "torch": "1.0"})
    (done,) = run(cluster, order("works", (0,)))
    assert done.outcome.status == "crashed"
    assert f"torch 1.0 -> {here['torch']}" in done.outcome.status_reason
    assert done.environment.versions["torch"] == here["torch"]
    assert not begun(notes)


@pytest.mark.slow  # a cluster of Ray takes long to start
def test_stopping_interrupts_what_runs_and_starts_no_more(cluster, notes, order):
    one = order("hangs", range(5), stop=lambda: len(begun(notes)) == 2)
    finished = run(cluster, one)
    assert {f.job.seed: f.outcome.status for f in finished} == {0: "interrupted", 1: "interrupted"}
    assert {seed for seed, _ in begun(notes)} == {0, 1}
    wait_for(lambda: not any(psutil.pid_exists(pid) for _, pid in begun(notes)))


@pytest.mark.slow
def test_jobs_of_a_node_that_dies_run_elsewhere_and_count_once(cluster, notes, order, capfd):
    killed = []

    def kill():
        killed.extend(wait_for(lambda: running_on(cluster.second, notes)))
        for seed in killed:
            (notes / f"{seed}.doomed").touch()
        cluster.remove_node(cluster.second, allow_graceful=False)
        (notes / "gone").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    finished = run(cluster, order("waits_for_a_death", range(6)))
    killer.join()
    assert len(killed) == 1
    assert Counter((f.job.seed, f.attempt, f.outcome.status, f.again) for f in finished) == {
        (seed, 1, "ok", ""): 1 for seed in range(6)
    }
    tries = Counter(seed for seed, _ in begun(notes))
    assert {seed for seed, count in tries.items() if count > 1} == set(killed)
    assert capfd.readouterr().out == "", "Ray tells of the node in what `--json` prints"
