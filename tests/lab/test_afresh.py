"""A process that ran a job: what is put back, and that what else is left is found."""

from __future__ import annotations

import gc
import logging
import os
import random
import subprocess
import sys
import tempfile
import threading
import warnings
from dataclasses import replace

import bitsandbytes.functional
import numpy as np
import peft
import pytest
import torch
from bitsandbytes.backends.default.ops import _get_4bit_quantize_bounds
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import tiny
from peftmark.lab import afresh, leftovers
from peftmark.lab.afresh import Afresh
from peftmark.lab.memory.insides import FakeTensorMode
from peftmark.record.plugin import UsedPlugin

pytestmark = pytest.mark.heavy

JOB = tiny.job()


@pytest.fixture
def start(monkeypatch):
    """The process before its first job; of the libraries PEFT and what torch's modules hold are
    looked at, since each look at all of them takes a second."""
    monkeypatch.setattr(leftovers, "LIBRARIES", ("peft",))
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    before = Afresh()
    modules = before._photograph._modules
    for name in ("torch.nn.modules.module", "torch.optim.adamw", "bitsandbytes.functional"):
        modules[name] = leftovers._kept(leftovers._named(name, sys.modules[name]))
    return before


def settings():
    """Each setting as text, and what loggers were set to; pytest changes handlers itself."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)  # pytest's own, another in each phase of a test
    states = [repr(state) for state in afresh._generators()]
    level, handlers = logging.getLogger("peft").level, logging.getLogger().handlers
    told = any(type(handler) is logging.NullHandler for handler in handlers)
    return [*states, *(repr(get()) for get, _ in afresh.SETTINGS[1:]), f"{level} {told}"]


def _generators():
    for draw in (random.random, np.random.rand, lambda: torch.rand(1)):
        draw()


def _torch_settings():
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    torch.set_grad_enabled(False)
    torch.set_anomaly_enabled(True)
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cudnn.benchmark = True
    torch.set_autocast_enabled("cpu", True)
    torch.set_autocast_dtype("cpu", torch.float16)


def _python_settings():
    os.environ["OMP_NUM_THREADS"] = "7"
    os.environ["NEW_VARIABLE"] = "1"
    os.chdir("/")
    sys.path.insert(0, "/nowhere")
    tempfile.tempdir = "/nowhere"
    gc.set_threshold(5, 5, 5)
    gc.disable()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    sys.setrecursionlimit(5000)
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("peft").setLevel(1)


@pytest.mark.parametrize(
    "job",
    [
        _torch_settings,
        *(pytest.param(j, marks=pytest.mark.slow) for j in (_generators, _python_settings)),
    ],
)
def test_what_a_job_sets_is_put_back(start, job):
    before = settings()
    job()
    assert settings() != before
    for _ in range(2):  # a second job's too
        assert start.again(JOB) == ""
        assert settings() == before
        job()
    start.again(JOB)


@pytest.mark.slow
def test_every_setting_that_torch_was_asked_for_is_among_them(start):
    """`_torch_settings` and `_python_settings` change most of them; none may be there for show."""
    values = [get() for get, _ in afresh.SETTINGS]
    for (get, put), value in zip(afresh.SETTINGS, values, strict=True):
        put(value)
        assert repr(get()) == repr(value)


@pytest.mark.slow
def test_caches_that_hold_tensors_or_parameters_are_emptied(start):
    bitsandbytes.functional.name2qmap["dynamic"] = torch.zeros(256)
    bitsandbytes.functional.GlobalPageManager.get_instance().paged_tensors.append(torch.zeros(9))
    bitsandbytes.optim.GlobalOptimManager.get_instance().pid2config[id(JOB)] = {"optim_bits": 32}
    _get_4bit_quantize_bounds("nf4", torch.device("cpu"))
    with FakeTensorMode(), torch.device("cpu"):
        torch.zeros(3) + 1
    assert start.again(JOB) == ""
    assert not bitsandbytes.functional.name2qmap
    assert not bitsandbytes.functional.GlobalPageManager.get_instance().paged_tensors
    assert not bitsandbytes.optim.GlobalOptimManager.get_instance().pid2config
    assert not _get_4bit_quantize_bounds.cache_info().currsize
    assert not FakeTensorMode.cache


@pytest.mark.slow
def test_an_optimizer_that_was_used_is_no_leftover(start):
    layer = nn.Linear(2, 2)
    torch.optim.AdamW(layer.parameters(), lr=0.1).step()
    del layer
    assert start.again(JOB) == ""


@pytest.mark.slow
def test_a_function_that_was_replaced_is_found(start, monkeypatch):
    monkeypatch.setattr(peft.tuners.lora.layer.Linear, "merge", lambda self: None)
    assert start.again(JOB) == "peft.tuners.lora.layer.Linear.merge was replaced"


@pytest.mark.slow
def test_a_method_that_was_put_over_an_inherited_one_is_found(start):
    peft.tuners.lora.layer.Linear.__call__ = lambda self, x: x
    try:
        assert start.again(JOB) == "peft.tuners.lora.layer.Linear.__call__ was added"
    finally:
        del peft.tuners.lora.layer.Linear.__call__


@pytest.mark.slow
def test_a_setting_of_a_library_that_was_changed_is_found(start, monkeypatch):
    monkeypatch.setattr(peft.utils.constants, "CONFIG_NAME", "another.json")
    assert start.again(JOB) == "peft.utils.constants.CONFIG_NAME was replaced"


@pytest.mark.slow
def test_a_registry_with_another_entry_is_found(start, monkeypatch):
    registry = peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING
    monkeypatch.setitem(registry, "NEW", object)
    assert start.again(JOB).endswith("PEFT_TYPE_TO_TUNER_MAPPING holds something else")
    monkeypatch.undo()


@pytest.mark.slow
def test_a_hook_on_all_modules_is_found(start):
    handle = register_module_forward_hook(lambda module, inputs, out: None)
    try:
        assert start.again(JOB).endswith("_global_forward_hooks holds something else")
    finally:
        handle.remove()
    assert start.again(JOB) == ""


@pytest.mark.slow
def test_a_mode_that_is_still_on_is_found(start):
    with torch.device("meta"):
        assert start.again(JOB) == "a mode of torch is still on: DeviceContext"


@pytest.mark.slow
def test_a_thread_and_a_process_that_go_on_are_found(start):
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="mine")
    thread.start()
    assert start.again(JOB) == "a thread goes on: mine"
    over.set()
    thread.join()
    child = subprocess.Popen(["sleep", "600"])
    assert start.again(JOB) == "a process that was started goes on"
    child.kill()
    child.wait()
    assert start.again(JOB) == ""


@pytest.mark.slow
def test_tensors_that_stay_are_found_and_those_in_a_circle_are_freed(start):
    kept = torch.zeros(1000)
    assert start.again(JOB) == "1 tensors of 4,000 bytes stay"
    circle = [kept]
    circle.append(circle)
    del kept, circle
    assert start.again(JOB) == ""


@pytest.mark.slow
def test_code_of_users_ends_the_process(start, tmp_path, monkeypatch):
    plugged = replace(JOB, plugins=(UsedPlugin("method", "x", "x", "0" * 16),))
    assert start.again(plugged) == "code of a plug-in ran"
    (tmp_path / "my_costs.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("my_costs")
    assert start.again(JOB) == "code of the user's own was loaded: my_costs"
    sys.modules.pop("my_costs")
