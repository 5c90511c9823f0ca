"""LoRA's other starts: MiLoRA, Init[B], Init[AB] and MiCA against their equations."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from citizen import build, job, train
from lora_parts import QUERY, SCALE, WIDE, factors, layer_of, rest, update, weight
from peftmark.lab.methods import trainable
from peftmark.lab.models import Unsupported


def test_milora_trains_the_smallest_singular_triplets(bert):
    base, prepared, _ = build(bert, job("milora"))
    for name in (QUERY, WIDE):
        u, s, v = torch.linalg.svd(weight(base, name))
        torch.testing.assert_close(
            update(prepared, name), u[:, 62:] * s[62:] @ v[62:64], rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            rest(prepared, name), u[:, :62] * s[:62] @ v[:62], rtol=1e-4, atol=1e-5
        )
        a, b = factors(prepared, name)
        torch.testing.assert_close(a @ a.T, torch.diag(s[62:] / SCALE), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(b.T @ b, torch.diag(s[62:] / SCALE), rtol=1e-4, atol=1e-5)


def test_init_b_draws_b_as_peft_draws_a_and_starts_with_a_at_zero(bert):
    _, prepared, parts = build(bert, job("init-b", rank=4))
    drawn = []
    for name in parts.encoder_linears:
        a, b = factors(prepared, name)
        assert not a.any()
        drawn.append(b.flatten())
    values = torch.cat(drawn)
    # Evenly within 1 / sqrt(4): the variance of which is a third of its square.
    assert 0.49 < values.abs().max() <= 0.5
    assert values.var().item() == pytest.approx(0.5**2 / 3, rel=0.05)
    _, plain, _ = build(bert, job("lora", rank=64))
    a, _ = factors(plain)  # fan-in 64
    assert a.var().item() == pytest.approx(1 / 64 / 3, rel=0.1)


def test_init_ab_draws_both_and_takes_their_product_out_of_the_weight(bert):
    base, prepared, _ = build(bert, job("init-ab", rank=16))
    _, plain, _ = build(bert, job("lora", rank=16))
    for name in (QUERY, WIDE):
        a, b = factors(prepared, name)
        for factor in (a, b):
            assert factor.abs().max() <= 1 / a.shape[1] ** 0.5
            assert factor.var().item() == pytest.approx(1 / a.shape[1] / 3, rel=0.15)
        assert torch.equal(a, factors(plain, name)[0])
        torch.testing.assert_close(
            rest(prepared, name) + layer_of(prepared, name).scaling["default"] * b @ a,
            weight(base, name),
        )
        assert (rest(prepared, name) - weight(base, name)).norm() > 0.01


@pytest.mark.parametrize("key", ["milora", "init-ab"])
def test_a_start_taken_from_the_weights_is_saved_as_a_plain_lora(bert, tmp_path, key):
    base, prepared, _ = build(bert, job(key))
    train(prepared)
    prepared.save(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    of = f"base_model.model.{QUERY}.lora_{{}}.weight"
    change = SCALE * saved[of.format("B")] @ saved[of.format("A")]
    assert saved[of.format("A")].shape == (4, 64)
    torch.testing.assert_close(
        weight(base) + change, rest(prepared) + update(prepared), rtol=1e-4, atol=1e-5
    )


def test_mica_trains_a_in_the_span_of_the_smallest_left_vectors(bert):
    base, prepared, _ = build(bert, job("mica"))
    names = {name for name, _ in trainable(prepared.model)}
    assert any("lora_A" in name for name in names)
    assert not any("lora_B" in name for name in names)
    for name in (QUERY, WIDE):
        a, b = factors(prepared, name)
        assert not a.any()
        u, _, _ = torch.linalg.svd(weight(base, name), full_matrices=False)
        torch.testing.assert_close(b, u[:, -2:])
        assert torch.equal(rest(prepared, name), weight(base, name))
    train(prepared)
    a, b = factors(prepared)
    assert a.any()
    u, _, _ = torch.linalg.svd(weight(base), full_matrices=False)
    torch.testing.assert_close(b, u[:, -2:])
    # What it adds has no part outside of that span.
    torch.testing.assert_close(u[:, :-2].T @ update(prepared), torch.zeros(62, 64))


@pytest.mark.parametrize("key", ["milora", "mica"])
def test_more_triplets_than_a_weight_has_are_unsupported(bert, key):
    with pytest.raises(Unsupported, match=r"needs 65 singular triplets of bert.* has 64"):
        build(bert, job(key, rank=65))


def test_same_seed_draws_the_same_start(bert):
    for key in ("init-b", "init-ab"):
        one, other = (dict(build(bert, job(key))[1].model.named_parameters()) for _ in range(2))
        assert all(torch.equal(p, other[name]) for name, p in one.items())
