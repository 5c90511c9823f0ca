"""quanto's 8-bit and 4-bit weights: what trains on them, what they take, and what PEFT can't do."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import citizen
import tiny
from citizen import base_of, build, logits, train
from citizen import job as job_for
from peftmark.catalog.peft_types import NOT_ON_QUANTO, PEFT_TYPES
from peftmark.catalog.quantizations import QUANTIZATIONS, of_family
from peftmark.catalog.tasks import TASKS
from peftmark.lab import recipe
from peftmark.lab.deploy import deploy
from peftmark.lab.measure.flop_counter import Operations
from peftmark.lab.measure.parameter_counts import base_format
from peftmark.lab.measure.probe import probe
from peftmark.lab.memory.both_stages import predicted_peak
from peftmark.lab.methods import prepare
from peftmark.lab.models import Unsupported, anatomy
from peftmark.lab.quantization import quanto, table
from peftmark.lab.quantization.table import BACKENDS, is_quantised, maker_of_weight
from peftmark.lab.quantized_cache import load_base

KEYS = of_family("quanto")
CPU = torch.device("cpu")
LINEAR = 2 * (4 * 64 * 64 + 2 * 64 * 64)
"""Numbers in the linear layers of the tiny encoder."""
FORMATS = {
    "int8-quanto": "int8 with a scale a row (quanto)",
    "fp8-quanto": "fp8 with a scale a row (quanto)",
    "int4-quanto": "int4 in rows with scale and shift (quanto)",
}

pytest.importorskip("optimum.quanto", reason="pip install peftmark[quanto]")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny.make_model(folder, "bert")
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    with tiny.installed(tmp_path_factory.mktemp("places")) as found:
        yield found


@pytest.mark.parametrize("key", KEYS)
def test_a_weight_lies_within_half_a_step(bert, key):
    base, parts = base_of(bert, job_for("lora", key))
    plain, _ = base_of(bert, job_for("lora"))
    assert base_format(base)[FORMATS[key]] == LINEAR
    for name in parts.encoder_linears:
        layer, exact = base.get_submodule(name), plain.get_parameter(f"{name}.weight")
        off = (quanto.BACKEND.unpacked(layer) - exact).abs()
        largest = exact.abs().amax(1, keepdim=True)
        if key == "int8-quanto":
            half = largest / 127 / 2
        elif key == "int4-quanto":
            half = (exact.amax(1, keepdim=True) - exact.amin(1, keepdim=True)) / 15 / 2
        else:  # three bits behind the point; below 2^-6 of 448ths the steps are even
            half = torch.maximum(exact.abs() / 16, largest / 448 * 2**-10)
        assert (off <= half * 1.001).all(), name
        assert off.max() > 0


def test_four_bits_are_packed_and_unpacked_without_a_compiler(bert):
    base_of(bert, job_for("lora", "int4-quanto"))
    from optimum.quanto.library.extensions.extension import get_extension
    from optimum.quanto.tensor.packed import PackedTensor

    assert get_extension("quanto_cpp").lib.unpack is quanto._unpack
    for rows in (5, 6):
        numbers = torch.randint(0, 16, (rows, 3), dtype=torch.uint8)
        packed = PackedTensor.pack(numbers, 4)
        assert packed._data.shape == (3, 3) and torch.equal(packed.unpack(), numbers)


@pytest.mark.parametrize("key", KEYS)
def test_a_copy_of_a_base_holds_the_same_packed_numbers_and_none_of_the_same_memory(bert, key):
    base, _ = base_of(bert, job_for("lora", key))
    for one, other in zip(base.parameters(), copy.deepcopy(base).parameters(), strict=True):
        assert type(one) is type(other)
        values = maker_of_weight(one).values
        for a, b in zip(values(one), values(other), strict=True):
            assert torch.equal(a, b) and a.data_ptr() != b.data_ptr()


def test_a_base_is_not_kept_and_each_job_quantises_its_own(places):
    folder, job = places.mirror / "models" / "tiny", tiny.job("lora", "int4-quanto")
    task = TASKS["sst-2"]
    loaded = [load_base(folder, job, task, anatomy(folder, task), places.cache) for _ in range(2)]
    assert all(base.now and base.quantise_seconds > 0 for base in loaded)
    for one, other in zip(*(base.model.parameters() for base in loaded), strict=True):
        assert torch.equal(*(p.dequantize() if is_quantised(p) else p for p in (one, other)))


CELLS = [("lora", "int4-quanto", "bf16"), ("adalora", "int4-quanto", "fp32")]
CELLS += [("lora", "fp8-quanto", "bf16"), ("adalora", "fp8-quanto", "bf16")]
CELLS += [("lora", "int8-quanto", "fp32"), ("dora", "int8-quanto", "bf16")]


@pytest.mark.parametrize(("method", "key", "precision"), CELLS)
def test_it_trains_reloads_to_the_tolerance_and_says_why_it_merges_nothing(
    places, tmp_path, method, key, precision
):
    job = tiny.job(method, key, precision=precision, steps=10)
    builder = tiny.builder(places, job)
    prepared = builder.prepare(builder.base())
    losses, missing = train(prepared, 10)
    assert losses[-1] < losses[0] and not missing
    prepared.save(tmp_path)
    found = deploy(job, prepared, tmp_path, builder.base, builder.work.preview(2), CPU)
    assert found.reload_max_error <= QUANTIZATIONS[key].reload_tolerance
    assert found.merge_target is None and "can't merge" in found.merge_reason


def test_pefts_own_merge_loses_the_adapter(bert):
    """Why it is refused; if this fails, PEFT has learned it: let `_unmergeable` pass it."""
    _, prepared, parts = build(bert, job_for("lora", "int8-quanto", steps=10))
    train(prepared)
    trained = logits(prepared.model)
    name = parts.encoder_linears[0]
    before = base_of(bert, job_for("lora", "int8-quanto"))[0].get_submodule(name).weight
    merged = prepared.model.merge_and_unload()
    after = merged.get_submodule(name).weight
    assert torch.equal(after._data, before._data) and torch.equal(after._scale, before._scale)
    assert (logits(merged) - trained).abs().max() > 0.1


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.sweep(2)
def test_live_bytes_are_predicted_to_the_byte(places, key, precision):
    method = {"int8-quanto": "adalora", "fp8-quanto": "bitfit"}.get(key, "lora")
    job = tiny.job(method, key, precision=precision)
    builder = tiny.builder(places, job)
    found = probe(job, TASKS[job.task], builder.prepare(builder.base()), builder.work, CPU)
    assert predicted_peak(builder, found) == found.live.total
    constants = 2 if key == "int4-quanto" else 1
    assert found.live.quantization == LINEAR // 64 * 4 * constants, "fp32 scales, and shifts"


def test_its_products_are_counted_as_those_of_plain_weights(bert):
    counts = {}
    for key in ("none", *KEYS):
        job = job_for("lora", key)
        _, prepared, _ = build(bert, job)
        with Operations(job) as counter:
            train(prepared, 1)
        counts[key] = counter.total
    assert len(set(counts.values())) == 1, counts


@pytest.mark.parametrize("key", ["fp8-quanto", "int4-quanto"])
def test_weights_of_16_bits_are_refused_where_quanto_would_make_others_of_them(bert, key):
    with pytest.raises(Unsupported, match=r"use weights: fp32, or quantization: int8-quanto"):
        base_of(bert, job_for("lora", key, weights="bf16", precision="bf16"))


@pytest.mark.parametrize("weights", ["bf16", "fp16"])
@pytest.mark.sweep(1)
def test_int8_takes_a_base_of_16_bits(places, weights):
    job = tiny.job("lora", "int8-quanto", precision=weights, weights=weights, steps=10)
    found = recipe.run(job, places, lambda message: None)
    assert found.status == "ok", found.status_reason
    assert found.curve[-1].loss < found.curve[0].loss
    assert found.base_format[FORMATS["int8-quanto"]] == LINEAR
    assert found.reload_max_error <= QUANTIZATIONS["int8-quanto"].reload_tolerance_with(weights)
    # With fp16 the scaler of the loss keeps a few numbers of its own, which nothing predicts.
    assert 0 <= found.live_bytes - found.predicted_live_bytes <= (16 if weights == "fp16" else 0)
    assert found.live_quantization_bytes == LINEAR // 64 * 2, "scales of 16 bits"


def test_a_missing_library_is_told_with_its_remedy(bert, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "optimum.quanto", None)
    with pytest.raises(
        Unsupported, match=r"can't be loaded: .*pip install \"peftmark\[quanto\]\"$"
    ):
        base_of(bert, job_for("lora", "int8-quanto"))


TYPES = [k for k in PEFT_TYPES.values() if not k.refused and k.where in ("recipe", "ia3")]
OFTEN = {"lora", "boft", "oft", "vera", "road", *NOT_ON_QUANTO}
WORDS = r"dtype of a .* cannot be changed|is not a plain torch.nn.Linear"


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=() if k.key in OFTEN else pytest.mark.slow, id=k.key) for k in TYPES],
)
@pytest.mark.parametrize(
    "key", ["int8-quanto", pytest.param("int4-quanto", marks=pytest.mark.slow)]
)
def test_a_type_of_peft_trains_on_it_and_reloads_or_refuses(bert, tmp_path, kind, key, monkeypatch):
    size = 200 if kind.size == "n_frequency" else 4
    job = replace(job_for(f"peft:{kind.key}", key), size=size)
    if kind.key not in NOT_ON_QUANTO:
        _, prepared, _ = build(bert, job)
        losses, _ = train(prepared)
        assert losses[-1] < losses[0]
        prepared.save(tmp_path)
        loaded = prepared.load(base_of(bert, job)[0], tmp_path)
        assert (logits(loaded) - logits(prepared.model)).abs().max() < 1e-4
        assert prepared.merge is None and "can't merge" in prepared.merge_reason
        return
    base, _ = base_of(bert, job)
    with pytest.raises(Unsupported, match=r"no code for .* on optimum-quanto's layers"):
        prepare(base, citizen.setting_of(bert, job))
    if kind.key in ("hra", "peanut", "shira"):  # they fail in inference mode, as was probed
        return
    everything = replace(quanto.BACKEND, takes=lambda kind: True)
    monkeypatch.setattr(table, "BACKENDS", {**BACKENDS, key: everything})
    with pytest.raises(Unsupported, match=WORDS):
        prepare(base, citizen.setting_of(bert, job))
