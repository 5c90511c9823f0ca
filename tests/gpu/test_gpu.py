"""What only a CUDA device can confirm: `make test-gpu`."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from itertools import cycle, islice

import pytest
import torch

import tiny
import tiny_causal
from peftmark.catalog.methods import METHODS
from peftmark.catalog.peft_types import PEFT_TYPES
from peftmark.catalog.tasks import TASKS
from peftmark.executors.contract import Order
from peftmark.executors.launch import WORKER_ENVIRONMENT
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import Slot
from peftmark.lab import recipe
from peftmark.lab.step import BITSANDBYTES
from peftmark.machine import nvml
from peftmark.perf import step
from peftmark.sources.assets import Places

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    # The recipe asks torch to warn of such operations and to go on; whether they change bits is
    # asked below.
    pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation"),
]

CELLS = [
    (method.key, quantization)
    for method in METHODS.values()
    for quantization in ("none", "nf4")
    if method.trains and quantization in method.quantizations
]
CELLS += [
    (f"peft:{kind.key}", quantization)
    for kind in PEFT_TYPES.values()
    if not kind.refused
    for quantization in ("none", "nf4")
    if quantization == "none" or kind.quantized
]
SIZES = {"peft:fourierft": 200, "peft:c3a": 16}


@pytest.fixture(autouse=True)
def as_in_a_worker(monkeypatch):
    """cuBLAS repeats itself only with fixed workspaces."""
    name = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.setenv(name, WORKER_ENVIRONMENT[name])
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setitem(tiny.SMALL, "num_hidden_layers", 3)  # the hybrid has three bands
    tiny.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


def job(method="lora", quantization="none", **changes):
    return replace(tiny.job(method, quantization, **changes), device="cuda")


def silent(message):
    return None


# --- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("quantization", ["none", "nf4", "fp4", "int8"])
@pytest.mark.parametrize("optimizer", ["adamw", "paged_adamw", "paged_adamw_8bit"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cells_train_on_the_device_and_say_what_measured_memory(
    places, quantization, optimizer, precision
):
    wanted = job("lora", quantization, optimizer=optimizer, precision=precision, steps=40)
    done = recipe.run(wanted, places, silent)
    assert (done.status, done.warnings) == ("ok", ())
    assert done.metric_value > done.baseline_value + 0.1
    assert done.peak_memory_source == "torch_allocated_bytes"
    assert 0 < done.peak_memory_bytes < 2**30
    assert done.optimizer.split()[-1] == {"adamw": "AdamW", **BITSANDBYTES}[optimizer]


@pytest.mark.parametrize("task", ["tiny-rank", "tiny-answer", "tiny-text"])
@pytest.mark.parametrize(
    ("method", "quantization"),
    [("lora", "none"), ("lora", "nf4"), ("adalora", "none"), ("adalora", "nf4"), ("full", "none")],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_language_models_learn_and_their_memory_is_predicted(
    tmp_path, monkeypatch, task, method, quantization, precision
):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    plan = {"steps": 60, "eval_every": 30, "optimizer": "paged_adamw", "precision": precision}
    asked = tiny_causal.job(method, task, quantization, gradient_checkpointing=True, **plan)
    done = recipe.run(replace(asked, device="cuda"), places, silent)
    before = recipe.run(
        replace(tiny_causal.job("base", task, precision=precision), device="cuda"), places, silent
    )
    assert (done.status, done.warnings) == ("ok", ())
    assert done.metric_value > before.metric_value
    assert done.unrelated_perplexity_after > 1
    assert (done.generated_tokens_per_second is not None) == (task == "tiny-answer")
    assert abs(done.prediction_error) < 0.001


def test_a_language_model_on_the_device_scores_and_writes_as_on_the_processor(
    tmp_path, monkeypatch
):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    for task in ("tiny-rank", "tiny-answer", "tiny-text"):
        asked = tiny_causal.job("base", task)
        here = recipe.run(asked, places, silent)
        there = recipe.run(replace(asked, device="cuda"), places, silent)
        assert there.completions == here.completions
        assert there.metric_value == pytest.approx(here.metric_value, abs=1e-4)


@pytest.mark.parametrize(("method", "quantization"), CELLS)
def test_every_method_trains_loads_and_is_probed_on_the_device(places, method, quantization):
    wanted = job(method, quantization, rank=SIZES.get(method, 2), steps=20)
    done = recipe.run(wanted, places, silent)
    assert (done.status, done.status_reason) == ("ok", "")
    assert done.reload_max_error is not None
    assert done.warnings == ()
    assert done.live_bytes > 0


def test_every_cell_draws_the_same_head(places):
    from peftmark.catalog.models import MODELS
    from peftmark.lab.models import anatomy, load_model

    folder = places.mirror / "models" / MODELS["tiny"].key
    heads = [
        load_model(
            folder, job("lora", q), TASKS["tiny-class"], anatomy(folder, TASKS["sst-2"])
        ).classifier
        for q in ("none", "nf4", "int8")
    ]
    assert all(torch.equal(head.weight, heads[0].weight) for head in heads)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "paged_adamw_8bit"])
@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_same_job_same_bits(places, quantization, optimizer, precision):
    wanted = job("lora", quantization, optimizer=optimizer, precision=precision)
    one, two = (recipe.run(wanted, places, silent) for _ in range(2))
    assert [(p.loss, p.metric) for p in one.curve] == [(p.loss, p.metric) for p in two.curve]
    assert one.final_weights_hash == two.final_weights_hash
    assert one.live_bytes == two.live_bytes


@pytest.fixture
def long_rows(monkeypatch, request):
    """The places, with room in the tiny model for tiny-class's rows of 100 to 500 words."""
    monkeypatch.setitem(tiny.SMALL, "max_position_embeddings", 520)
    places = request.getfixturevalue("places")
    for name in ("train", "dev"):
        path = places.mirror / "tiny-class" / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for i, row in enumerate(rows):
            words = row["sentence"].split()
            row["sentence"] = " ".join(islice(cycle(words), 100 + 50 * (i % 9)))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return places


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_long_rows_train_to_the_same_bits(long_rows, precision):
    """Attention sums several blocks of keys here; rows of other tests fit into one."""
    wanted = job("lora", precision=precision, max_length=512)
    one, two = (recipe.run(wanted, long_rows, silent) for _ in range(2))
    assert one.final_weights_hash == two.final_weights_hash


@pytest.mark.parametrize(
    ("method", "quantization"), [("lora", "none"), ("adalora", "none"), ("lora", "nf4")]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_gives_the_losses_of_a_bare_loop_and_never_waits(
    places, method, quantization, precision
):
    asked = job(method, quantization, task="tiny-score", steps=17, precision=precision)
    found = step.measure(asked, places, 4, 2, exact=False, watched=5)
    assert (found.losses, found.loss_gap) == (17, 0.0)
    assert found.watched["ours"]["waits"] == 0, found.watched["ours"]["where"]
    assert 100 < found.watched["ours"]["launches"] < 10_000


# --- workers ------------------------------------------------------------------------------------


@pytest.fixture
def uuid():
    """The device that torch uses here."""
    found = nvml.devices()
    assert found.found and found.driver
    mine = str(torch.cuda.get_device_properties(0).uuid)
    return next(gpu.uuid for gpu in found.found if gpu.uuid.endswith(mine))


def run(tmp_path, uuid, worker):
    """Run one job in a worker on the device; returns how it ended."""
    order = Order(
        jobs=[(job(), 1)],
        places=Places(None, ("package",), tmp_path / "cache"),
        logs=tmp_path / "logs",
        retries=0,
        worker=f"gpu_worker:{worker}",
    )
    [done] = run_jobs(order, [Slot(uuid)])
    return done


def test_a_worker_is_metered_from_outside(tmp_path, uuid):
    done = run(tmp_path, uuid, "trains")
    assert done.outcome.status == "ok"
    assert done.nvml_device_bytes > done.outcome.torch_reserved_bytes
    if done.nvml_process_bytes is None:
        assert done.nvml_reason.startswith("process memory: ")
    else:
        assert done.nvml_process_bytes > done.outcome.torch_reserved_bytes


def test_memory_that_the_device_lacks_has_its_own_status_and_harms_no_other_job(tmp_path, uuid):
    ended = [run(tmp_path, uuid, name) for name in ("asks_for_too_much", "trains")]
    assert [e.outcome.status for e in ended] == ["out_of_memory", "ok"]
    assert "out of memory" in ended[0].outcome.status_reason


def test_a_device_that_is_full_is_out_of_memory_too(tmp_path, uuid):
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(free - 64 * 2**20, dtype=torch.uint8, device="cuda")
    done = run(tmp_path, uuid, "trains")
    del hog
    torch.cuda.empty_cache()
    assert done.outcome.status == "out_of_memory"


def test_a_failed_assertion_on_the_device_is_a_crash_and_harms_no_other_job(tmp_path, uuid):
    ended = [run(tmp_path, uuid, name) for name in ("reads_behind_the_end", "trains")]
    assert [e.outcome.status for e in ended] == ["crashed", "ok"]
    assert "device-side assert" in ended[0].outcome.status_reason


# --- meters -------------------------------------------------------------------------------------


def busy(seconds, dtype=torch.float32, size=2048):
    """Multiply matrices for at least this long; returns seconds a product."""
    block = torch.randn(size, size, dtype=dtype, device="cuda")
    block @ block
    torch.cuda.synchronize()
    products, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(20):
            block @ block
        products += 20
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / products


def test_the_energy_counter_rises_with_work(uuid):
    counter = nvml.EnergyCounter(uuid)
    start, reason = counter.read()
    if start is None:
        pytest.skip(reason)
    busy(1.0)
    end, _ = counter.read()
    counter.close()
    assert 1 < end - start < 3000, "between a watt and three kilowatts"


def test_nvml_sees_the_memory_of_the_device_and_of_the_process(uuid):
    torch.cuda.empty_cache()
    with nvml.DeviceMeter(uuid, period_seconds=0.02) as meter:
        meter.pid = os.getpid()
        block = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
        busy(0.5)
    assert meter.device_bytes >= block.numel()
    if meter.process_bytes is None:
        assert meter.reason.startswith("process memory: ")
    else:
        assert meter.process_bytes >= block.numel()


def test_what_torch_counts_lies_within_what_nvml_counts(places, uuid):
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    with nvml.DeviceMeter(uuid, period_seconds=0.005) as meter:
        meter.pid = os.getpid()
        done = recipe.run(job(), places, silent)
    assert done.status == "ok"
    assert 0 < done.torch_allocated_bytes <= done.torch_reserved_bytes
    assert done.torch_reserved_bytes <= meter.device_bytes + before + 64 * 2**20


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="no bf16 tensor cores before compute capability 8.0",
)
def test_bf16_takes_the_fast_path():
    assert busy(0.5, torch.bfloat16, 4096) < busy(0.5, torch.float32, 4096) / 2
