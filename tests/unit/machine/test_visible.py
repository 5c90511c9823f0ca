"""Which GPUs CUDA_VISIBLE_DEVICES leaves, and which lists are refused."""

from __future__ import annotations

import os

import pytest

from peftmark.core.errors import UserError
from peftmark.executors import select
from peftmark.executors.select import HERE
from peftmark.machine import nvml
from peftmark.machine.visible import Devices, Gpu, choose, see_only

A, B, S, T = (
    Gpu(uuid, f"Example {uuid[-1]}", None) for uuid in ("GPU-aa1", "GPU-ab2", "MIG-cc3", "MIG-cd4")
)
LISTED = (A, B, S, T)
SLICES = {"GPU-e5": (S, T)}


def chosen(visible, listed=LISTED):
    return choose(listed, visible, "575.01", SLICES)


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, LISTED),
        ("1,0", (B, A)),
        (" 0 , 2", (A, S)),
        ("GPU-aa1", (A,)),
        ("GPU-ab", (B,)),
        ("MIG-cc3", (S,)),
        ("MIG-cd,GPU-aa", (T, A)),
        ("3,1", (T, B)),
        ("0,-1,1", (A,)),
        ("0,,1", (A,)),
        ("1,7,0", (B,)),
        ("1,GPU-no,0", (B,)),
    ],
)
def test_the_list_is_read_as_cuda_reads_it(visible, found):
    assert chosen(visible) == Devices(found, None, "575.01")


@pytest.mark.parametrize("visible", ["", "-1", "-1,0", " ", "NoDevFiles"])
def test_a_list_that_hides_every_gpu_is_followed_and_told(visible):
    found = chosen(visible)
    assert (found.found, found.refused) == ((), "")
    assert found.reason == "CUDA_VISIBLE_DEVICES leaves none"
    assert found.told.endswith("hides the GPUs of this machine: jobs run on the CPU")


@pytest.mark.parametrize(
    ("visible", "why"),
    [
        ("0,0", "GPU-aa1 stands in it twice"),
        ("0,GPU-aa", "GPU-aa1 stands in it twice"),
        ("MIG-cc3,1,MIG-cc", "MIG-cc3 stands in it twice"),
        ("7", "'7' names no device of this machine"),
        ("99999999999999999999", "'99999999999999999999' names no device of this machine"),
        ("GPU-zz", "'GPU-zz' names no device of this machine"),
        ("MIG-zz,0", "'MIG-zz' names no device of this machine"),
        ("all", "'all' names no device of this machine"),
        ("GPU-a", "'GPU-a' names 2 of them (GPU-aa1, GPU-ab2)"),
        ("GPU-e5", "'GPU-e5' names 2 of them (MIG-cc3, MIG-cd4)"),
    ],
)
def test_a_list_that_leaves_cuda_nothing_is_refused_in_words(visible, why):
    found = chosen(visible)
    there = "0 GPU-aa1 (Example 1), 1 GPU-ab2 (Example 2), 2 MIG-cc3 (Example 3), 3 MIG-cd4"
    assert found.found == ()
    assert found.refused.startswith(f"CUDA_VISIBLE_DEVICES={visible}: {why}; there are {there}")


def test_a_divided_gpu_with_one_slice_is_that_slice():
    assert choose((A, S), "GPU-e5", None, {"GPU-e5": (S,)}).found == (S,)


def test_what_is_no_text_of_a_list_reaches_no_terminal():
    assert "\x1b" not in chosen("\x1b[31m").refused


def test_devices_that_are_refused_end_a_command_and_never_mean_the_cpu(monkeypatch):
    monkeypatch.setattr(nvml, "devices", lambda: chosen("0,0"))
    with pytest.raises(UserError, match="GPU-aa1 stands in it twice") as caught:
        select.choose(HERE, None)
    assert (caught.value.code, "each once" in caught.value.remedy) == (2, True)
    monkeypatch.setattr(nvml, "devices", lambda: chosen("-1"))
    venue = select.choose(HERE, 1)
    assert (venue.device, "jobs run on the CPU" in venue.told) == ("cpu", True)


@pytest.mark.parametrize(("device", "seen"), [("3", "3"), ("GPU-aa1", "GPU-aa1"), (None, "")])
def test_a_worker_sees_its_own_gpu_alone(monkeypatch, device, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    see_only(device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
    assert "HIP_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,3")
    see_only(device)
    assert os.environ["HIP_VISIBLE_DEVICES"] == seen
