"""Back-ends of quantised bases: the table, and what torchao does and does not do."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import nn

import citizen
import tiny
from citizen import base_of, build, logits, train
from citizen import job as job_for
from peftmark.catalog.methods import METHODS
from peftmark.catalog.peft_types import NOT_ON_TORCHAO, PEFT_TYPES
from peftmark.catalog.quantizations import QUANTIZATIONS, of_family
from peftmark.catalog.tasks import TASKS
from peftmark.lab.deploy import deploy
from peftmark.lab.measure.parameter_counts import base_format, parameters
from peftmark.lab.measure.probe import probe
from peftmark.lab.memory.both_stages import predicted_peak
from peftmark.lab.memory.live_tensors import resident
from peftmark.lab.methods import prepare
from peftmark.lab.models import Unsupported, anatomy
from peftmark.lab.quantization import table, torchao_8bit
from peftmark.lab.quantization.table import BACKENDS, backend_of, is_quantised, quantization_clock
from peftmark.lab.quantized_cache import load_base

CPU = torch.device("cpu")
KEY = "int8-torchao"
FP8 = "fp8-torchao"
LINEAR = 2 * (4 * 64 * 64 + 2 * 64 * 64)
"""Numbers in the linear layers of the tiny encoder."""
torchao_only = pytest.mark.skipif(
    find_spec("torchao") is None, reason="torchao is not installed: pip install peftmark[torchao]"
)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny.make_model(folder, "bert")
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    with tiny.installed(tmp_path_factory.mktemp("places")) as found:
        yield found


# --- the table ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", QUANTIZATIONS)
def test_every_quantization_has_its_back_end(key):
    assert key in BACKENDS, (
        f"{key} stands in catalog/quantizations.py and has no back-end: write BACKEND in a file of "
        "bench/peftmark/lab/quantization and name it for the key in BACKENDS of table.py there"
    )
    row, backend = QUANTIZATIONS[key], BACKENDS[key]
    assert backend.family == row.family, (
        f"the catalogue says that {key} is of {row.family}, its back-end in table.py is "
        f"{backend.family}: one of them names the other's family"
    )
    assert bool(backend.classes) == bool(backend.library) == (key != "none"), (
        f"the back-end of {key} must name its library and the classes of its weights"
    )
    assert row.merged and row.reload_tolerance > 0
    assert row.optional in ("", backend.library)


def test_no_back_end_stands_for_what_the_catalogue_does_not_have():
    assert list(BACKENDS) == list(QUANTIZATIONS), (
        "BACKENDS of lab/quantization/table.py needs the rows of catalog/quantizations.py, in order"
    )
    classes = [name for backend in table._FAMILIES.values() for name in backend.classes]
    assert len(classes) == len(set(classes)), "a weight's class tells whose it is"


def test_an_unknown_quantization_is_refused_by_name(bert):
    with pytest.raises(
        Unsupported, match="'int3'; known are none, nf4, fp4, int8, int8-torchao, f"
    ):
        backend_of("int3")
    with pytest.raises(Unsupported, match="no back-end for quantization 'int3'"):
        base_of(bert, replace(job_for(), quantization="int3"))


@pytest.mark.parametrize("key", QUANTIZATIONS)
def test_a_base_of_every_back_end_is_what_its_back_end_says(bert, key):
    if key not in BACKENDS:
        pytest.fail("no back-end; the test above says what to write")
    pytest.importorskip(QUANTIZATIONS[key].imported or BACKENDS[key].library or "torch")
    with quantization_clock(key, CPU) as spent:
        base, parts = base_of(bert, job_for("lora", key))
    assert (len(spent) > 0) == (key != "none")
    quantised = {n.removesuffix(".weight") for n, p in base.named_parameters() if is_quantised(p)}
    assert quantised == (set() if key == "none" else set(parts.encoder_linears))
    plain, _ = base_of(bert, job_for("lora"))
    assert parameters(base) == parameters(plain)
    held = {"weights": 0, "quantization": 0, "adapter": 0}
    seen = set()
    for component, tensor in resident(base.requires_grad_(False)):
        if tensor.untyped_storage().data_ptr() not in seen:
            seen.add(tensor.untyped_storage().data_ptr())
            held[component] += tensor.untyped_storage().nbytes()
    saved = sum(p.numel() * p.element_size() for p in plain.parameters()) - held["weights"]
    bits = QUANTIZATIONS[key].bits
    assert saved >= LINEAR * (32 - bits) // 8 - 8 * 1024  # buffers, and biases that stay
    assert (held["quantization"] > 0) == (key != "none")


def test_a_missing_library_is_told_with_its_remedy(bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(Unsupported, match=r"torchao can't be loaded: .*\"peftmark\[torchao\]\""):
        base_of(bert, job_for("lora", KEY))


# --- torchao ------------------------------------------------------------------------------------


@torchao_only
def test_weights_are_eight_bits_with_a_scale_a_row(bert):
    base, parts = base_of(bert, job_for("lora", KEY))
    plain, _ = base_of(bert, job_for("lora"))
    assert base_format(base)["int8 with a scale a row"] == LINEAR
    for name in parts.encoder_linears:
        weight, exact = base.get_parameter(f"{name}.weight"), plain.get_parameter(f"{name}.weight")
        assert weight.qdata.dtype is torch.int8 and weight.scale.shape == (len(exact), 1)
        rows = exact.abs().amax(dim=1, keepdim=True)
        # A step of a symmetric scale over 127.5: half of it is lost at most.
        assert ((weight.dequantize() - exact).abs() <= rows / 127.5 / 2 * 1.02).all()


@torchao_only
def test_floats_of_eight_bits_have_three_behind_the_point(bert):
    base, parts = base_of(bert, job_for("lora", FP8))
    plain, _ = base_of(bert, job_for("lora"))
    assert base_format(base)["fp8 with a scale a row"] == LINEAR
    for name in parts.encoder_linears:
        weight, exact = base.get_parameter(f"{name}.weight"), plain.get_parameter(f"{name}.weight")
        assert weight.qdata.dtype is torch.float8_e4m3fn and weight.scale.shape == (len(exact), 1)
        # Below 2^-6 the steps of e4m3 are even; the largest of a row is 448.
        even = exact.abs().amax(dim=1, keepdim=True) / 448 * 2**-10
        off = (weight.dequantize() - exact).abs()
        assert (off <= torch.maximum(exact.abs() / 16, even) * 1.001).all() and off.max() > 0


@torchao_only
@pytest.mark.parametrize("key", [KEY, FP8])
def test_a_base_from_the_cache_has_the_same_bits(places, key):
    folder, job = places.mirror / "models" / "tiny", tiny.job("lora", key)
    parts, task = anatomy(folder, TASKS["sst-2"]), TASKS["sst-2"]
    loaded = [load_base(folder, job, task, parts, places.cache) for _ in range(2)]
    assert [base.now for base in loaded] == [True, False]
    anew = load_base(folder, job, task, parts, None)
    assert anew.quantise_seconds > 0 and loaded[0].quantise_seconds > 0
    values = torchao_8bit.BACKEND.values
    for base in loaded:
        for (name, one), other in zip(
            base.model.named_parameters(), anew.model.parameters(), strict=True
        ):
            assert type(one) is type(other), name
            ours, theirs = (
                (*values(p), p.scale) if is_quantised(p) else (p,) for p in (one, other)
            )
            pairs = zip(ours, theirs, strict=True)
            assert all(torch.equal(a.float(), b.float()) for a, b in pairs), name


DEPLOYED = [
    ("lora", KEY, ""),
    ("adalora", KEY, "can't merge AdaLoRA"),
    ("dora", KEY, "without its magnitudes"),
    ("lora", FP8, ""),
    ("adalora", FP8, "can't merge AdaLoRA"),
]


@torchao_only
@pytest.mark.parametrize(("method", "key", "reason"), DEPLOYED)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.sweep(4)
def test_it_trains_reloads_to_the_tolerance_and_merges_or_says_why_not(
    places, tmp_path, method, key, reason, precision
):
    job = tiny.job(method, key, precision=precision, steps=10)
    builder = tiny.builder(places, job)
    prepared = builder.prepare(builder.base())
    losses, missing = train(prepared, 10)
    assert losses[-1] < losses[0] and not missing
    prepared.save(tmp_path)
    found = deploy(job, prepared, tmp_path, builder.base, builder.work.preview(2), CPU)
    assert found.reload_max_error <= QUANTIZATIONS[key].reload_tolerance
    if reason:
        assert found.merge_target is None and reason in found.merge_reason
    else:
        assert found.merge_target == QUANTIZATIONS[key].merged
        assert found.merge_max_error < 0.05


@torchao_only
def test_pefts_own_merge_of_dora_is_another_model(bert, tmp_path):
    """Why it is refused; if this fails, PEFT has learned it: let `_unmergeable` pass it."""
    errors = {}
    for method in ("lora", "dora"):
        job = job_for(method, KEY, steps=10)
        _, prepared, _ = build(bert, job)
        train(prepared)
        trained = logits(prepared.model)
        prepared.save(tmp_path / method)
        loaded = prepared.load(base_of(bert, job)[0], tmp_path / method)
        errors[method] = (logits(loaded.merge_and_unload()) - trained).abs().max().item()
    assert errors["dora"] > 5 * errors["lora"]


@torchao_only
@pytest.mark.parametrize("method", ["lora", "adalora", "bitfit", "head"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.sweep(3)
def test_live_bytes_are_predicted_to_the_byte(places, method, precision):
    job = tiny.job(method, KEY, precision=precision)
    builder = tiny.builder(places, job)
    found = probe(job, TASKS[job.task], builder.prepare(builder.base()), builder.work, CPU)
    assert predicted_peak(builder, found) == found.live.total
    assert found.live.quantization == LINEAR // 64 * (4 + 1), "fp32 scales and 8-bit zero points"


@torchao_only
def test_weights_are_unpacked_from_the_forward_pass_to_the_backward_one(places):
    peaks = {}
    for key in ("none", KEY, FP8):
        job = tiny.job("lora", key)
        builder = tiny.builder(places, job)
        found = probe(job, TASKS[job.task], builder.prepare(builder.base()), builder.work, CPU)
        assert predicted_peak(builder, found) == found.live.total
        constants = {"none": 0, KEY: 4 + 1, FP8: 4}[key]
        assert found.live.quantization == LINEAR // 64 * constants
        peaks[key] = found.live.activations
    # The first layer's query, key and value get no gradient of their input to pass on.
    assert min(peaks[KEY], peaks[FP8]) - peaks["none"] > 4 * LINEAR // 2


TYPES = [k for k in PEFT_TYPES.values() if not k.refused and k.where in ("recipe", "ia3")]


@torchao_only
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.key)
@pytest.mark.sweep(5)
def test_a_type_of_peft_trains_on_it_or_torchaos_tensors_refuse(bert, kind, monkeypatch):
    size = 200 if kind.size == "n_frequency" else 4
    job = replace(job_for(f"peft:{kind.key}", KEY), size=size)
    base, _ = base_of(bert, job)
    if kind.key not in NOT_ON_TORCHAO:
        _, prepared, _ = build(bert, job)
        losses, _ = train(prepared)
        assert losses[-1] < losses[0]
        trained = logits(prepared.model)
        if prepared.merge is not None:
            merged, said = prepared.merge(prepared.model)
            assert said == QUANTIZATIONS[KEY].merged
            assert (logits(merged) - trained).abs().max() < 0.05
        else:
            assert "can't merge" in prepared.merge_reason
        return
    with pytest.raises(Unsupported, match=r"no code for .* on torchao's layers"):
        prepare(base, citizen.setting_of(bert, job))
    everything = replace(torchao_8bit.BACKEND, takes=lambda kind: True)
    monkeypatch.setattr(table, "BACKENDS", {**BACKENDS, KEY: everything})
    with pytest.raises(Unsupported, match="unimplemented operator"):
        prepare(base, citizen.setting_of(bert, job))


def test_every_method_on_a_quantised_base_says_which_back_ends(bert):
    """By family: a new quantization of a family needs no edit of the methods."""
    families = {q.family for q in QUANTIZATIONS.values()}
    for method in METHODS.values():
        for family in families:
            keys = set(of_family(family))
            assert keys <= set(method.quantizations) or not keys & set(method.quantizations)


def test_tensors_of_weights_as_loaded_are_their_own(bert):
    layer = nn.Linear(3, 2)
    assert [t.shape for t in table.maker_of_weight(layer.weight).values(layer.weight)] == [(2, 3)]
    assert table.size_of(layer.weight) == 6 and not list(table.constants_of(layer))
