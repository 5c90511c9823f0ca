"""A kept adapter measured: what it changed by layer, and ten of it on one base."""

from __future__ import annotations

from itertools import cycle
from types import SimpleNamespace

import pytest
import torch

import tiny
import tiny_causal
from peftmark.lab import recipe
from peftmark.lab.export import several as module
from peftmark.lab.export.check import logits_of, probe_rows
from peftmark.lab.export.opened import opened
from peftmark.lab.export.several import COMBINATIONS, bytes_of, several
from peftmark.lab.export.weight_change import weight_change
from peftmark.lab.models import Unsupported
from peftmark.sources.assets import Places

pytestmark = pytest.mark.usefixtures("unprobed")


@pytest.fixture
def leave(tmp_path, places):
    """What a tiny job leaves, opened again."""

    def run(job):
        return tiny.left(job, places, tmp_path / "left")[0]

    return run


@pytest.fixture
def clock(monkeypatch):
    """Loads take 1 to 9 seconds, then switches 0.01 and so on; fusing loads again."""
    lasting = [*range(1, module.COPIES), *(n / 100 for n in range(1, 2 * module.SWITCHES + 1))]
    readings = cycle([at for seconds in lasting for at in (0.0, seconds)])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(readings)))


@pytest.mark.slow
def test_ten_of_a_lora_on_one_base_and_fused_with_itself(leave, clock):
    """`linear` adds the factors of the updates, not the updates: (2 sqrt(s/2))^2 BA = 2 s BA."""
    one = leave(tiny.job("lora"))
    found = several(one)
    model = one.trained
    own = [p for n, p in model.named_parameters() if "modules_to_save" in n or "lora_" in n]
    bytes_of_one = 4 * sum(p.numel() for p in own)
    assert found.one_bytes - found.base_bytes == bytes_of_one
    assert found.all_bytes == found.base_bytes + 10 * bytes_of_one
    assert found.ratio == found.all_bytes / (10 * found.base_bytes) < 1
    assert found.load_seconds > found.switch_seconds > 0
    assert found.load_seconds == module.COPIES / 2, "the median of nine loads"
    assert found.switch_seconds == pytest.approx((2 * module.SWITCHES + 1) / 200)
    assert found.apart > 1e-3 and found.equal_after
    assert found.largest == float(logits_of(model, probe_rows(one), one.device).abs().max())
    fused = found.fused
    assert tuple(fused) == COMBINATIONS
    assert {kind: one.reason for kind, one in fused.items()} == dict.fromkeys(COMBINATIONS, "")
    assert fused["cat"].factor == pytest.approx(1, abs=1e-5)
    assert fused["svd"].factor == pytest.approx(1, abs=1e-4)
    assert fused["cat"].difference < 1e-4 * max(1, found.largest)
    assert fused["svd"].difference < 1e-3 * max(1, found.largest)
    assert fused["linear"].factor == pytest.approx(2, abs=1e-4)
    assert fused["ties"].factor == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("method", "quantization"),
    [("lora", "nf4"), ("prefix-tuning", "none")],
)
def test_a_switch_shows_and_switching_back_gives_the_same_bits(leave, method, quantization):
    found = several(leave(tiny.job(method, quantization)))
    assert found.apart > 1e-3
    assert found.equal_after


@pytest.mark.slow
def test_a_switch_that_does_not_come_back_is_told(leave, monkeypatch):
    one = leave(tiny.job("lora"))
    real = module.logits_of

    def spoilt(model, rows, device):
        found = real(model, rows, device)
        calls.append(1)
        return found + 1e-7 * (len(calls) == 3)

    calls = []
    monkeypatch.setattr(module, "logits_of", spoilt)
    assert not several(one).equal_after


@pytest.mark.slow
def test_fusing_on_a_language_model_needs_no_head(tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    job = tiny_causal.job("lora", "tiny-rank", steps=4)
    recipe.run(job, places, lambda message: None, tmp_path / "left")
    found = several(opened(tmp_path / "left", places))
    assert found.fused["cat"].factor == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_what_the_library_cannot_fuse_it_says_itself(leave):
    adalora = several(leave(tiny.job("adalora")))
    assert adalora.apart > 1e-3 and adalora.equal_after
    assert {one.reason for one in adalora.fused.values()} == {
        "TypeError: AdaLoraModel does not support add_weighted_adapter method."
    }
    ia3 = several(leave(tiny.job("ia3")))
    assert ia3.apart > 1e-3 and ia3.equal_after
    assert ia3.fused["weighted"].difference < 1e-4
    assert ia3.fused["weighted"].factor is None


@pytest.mark.slow
def test_views_count_once():
    layer = torch.nn.Linear(3, 5, bias=False)
    layer.register_buffer("part", layer.weight.detach()[:2])
    assert bytes_of(layer) == 4 * 15


# --- what changed ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_change_of_a_lora_is_the_norm_of_its_product(leave):
    one = leave(tiny.job("lora"))
    found = weight_change(one)
    layers = {n: m for n, m in one.trained.named_modules() if hasattr(m, "lora_A")}
    assert len(found.modules) == len(one.parts.encoder_linears)
    for name, layer in layers.items():
        plain = name.removeprefix("base_model.model.")
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        wanted = layer.scaling["default"] * (b @ a).norm() / layer.base_layer.weight.norm()
        assert found.modules[plain] == pytest.approx(float(wanted.detach()), rel=1e-3)
    untouched = set(found.modules) - {n.removeprefix("base_model.model.") for n in layers}
    assert all(found.modules[name] == 0 for name in untouched)
    assert found.rest == 0


@pytest.mark.slow
def test_biases_alone_move_no_matrix(leave):
    one = leave(tiny.job("bitfit"))
    found = weight_change(one)
    assert set(found.modules.values()) == {0.0}
    assert found.rest > 0
    with pytest.raises(Unsupported, match="each needs a base of its own"):
        several(one)


@pytest.mark.slow
def test_what_cannot_be_merged_has_no_change_of_weights(leave):
    with pytest.raises(Unsupported, match="no weights of BertForSequenceClassification give"):
        weight_change(leave(tiny.job("adapter")))
