"""Limits of control groups, read from made-up folders."""

from __future__ import annotations

import pytest

from peftmark.machine import environment, groups
from peftmark.machine.environment import cores
from peftmark.machine.groups import cpu_quota, memory_left

UNLIMITED_V1 = 9_223_372_036_854_771_712


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Make files of a tree of groups, and tell in which group this process is."""
    mount, own = tmp_path / "cgroup", tmp_path / "own"
    mount.mkdir()
    monkeypatch.setattr(groups, "_MOUNT", mount)
    monkeypatch.setattr(groups, "_OWN", own)

    def write(told, files):
        own.write_text(told)
        for name, text in files.items():
            (mount / name).parent.mkdir(parents=True, exist_ok=True)
            (mount / name).write_text(f"{text}\n")

    return write


@pytest.mark.parametrize(
    ("text", "quota"),
    [("max 100000", None), ("250000 100000", 2.5), ("50000 100000", 0.5), ("", None), ("x", None)],
)
def test_a_quota_is_time_over_period(put, text, quota):
    put("0::/\n", {"cpu.max": text})
    assert cpu_quota() == quota


def test_the_least_of_a_group_and_those_around_it_holds(put):
    put(
        "0::/kube/pod/box\n",
        {
            "kube/cpu.max": "800000 100000",
            "kube/pod/cpu.max": "300000 100000",
            "kube/pod/box/cpu.max": "max 100000",
            "kube/other/cpu.max": "100000 100000",
        },
    )
    assert cpu_quota() == 3.0


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_version_1_has_quota_and_period_in_files_of_their_own(put, folder):
    put(
        "5:memory:/box\n4:cpu,cpuacct:/batch/job\n",
        {
            f"{folder}/cpu.cfs_quota_us": "-1",
            f"{folder}/cpu.cfs_period_us": "100000",
            f"{folder}/batch/job/cpu.cfs_quota_us": "150000",
            f"{folder}/batch/job/cpu.cfs_period_us": "50000",
        },
    )
    assert cpu_quota() == 3.0


@pytest.mark.parametrize(
    "told", ["0::/docker/0123\n", "0::/../../other\n", "", "4:cpu:/docker/1\n"]
)
def test_in_a_container_the_path_may_be_the_hosts(put, told):
    put(told, {"cpu.max": "200000 100000", "memory.max": "3000", "memory.current": "1000"})
    assert (cpu_quota(), memory_left()) == (2.0, 2000)
    put(told, {"cpu.max": "max 1", "cpu/cpu.cfs_quota_us": "70", "cpu/cpu.cfs_period_us": "10"})
    assert cpu_quota() == 7.0


def test_what_is_above_the_folder_is_nobodys_group(put, tmp_path):
    (tmp_path / "cpu.max").write_text("100000 100000")
    put("0::/..\n", {"cpu.max": "200000 100000"})
    assert cpu_quota() == 2.0


def test_memory_left_is_the_least_that_any_group_leaves(put):
    put(
        "0::/slice/box\n",
        {
            "slice/memory.max": "10000",
            "slice/memory.current": "9500",
            "slice/box/memory.max": "5000",
            "slice/box/memory.current": "1000",
        },
    )
    assert memory_left() == 500
    put("0::/slice/box\n", {"slice/memory.max": "max"})
    assert memory_left() == 4000
    put("0::/slice/box\n", {"slice/box/memory.max": "max"})
    assert memory_left() is None


def test_memory_of_version_1(put):
    put(
        "5:memory:/box\n",
        {
            "memory/memory.limit_in_bytes": UNLIMITED_V1,
            "memory/memory.usage_in_bytes": "7",
            "memory/box/memory.limit_in_bytes": "900",
            "memory/box/memory.usage_in_bytes": "1000",
        },
    )
    assert memory_left() == -100


def test_without_control_groups_there_is_no_limit(put, tmp_path):
    assert (cpu_quota(), memory_left()) == (None, None)


@pytest.mark.parametrize(
    ("quota", "count"), [(None, 8), (0.5, 1), (1.0, 1), (2.9, 2), (8.0, 8), (64.0, 8)]
)
def test_jobs_at_once_are_the_least_of_cores_and_quota(monkeypatch, quota, count):
    monkeypatch.setattr(environment, "allowed_cores", lambda: list(range(8)))
    monkeypatch.setattr(environment, "cpu_quota", lambda: quota)
    assert cores() == count
    assert environment.machine()["cores"] == 8, "a machine is named by its cores in stored rows"
