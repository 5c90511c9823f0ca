"""MoRA: the square matrix against its two equations, and what it merges into."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from citizen import base_of, build, check, logits, train
from citizen import job as job_for
from peftmark.catalog.method import ANY
from peftmark.lab.methods import trainable
from peftmark.lab.methods.mora import Square, rotated, squares

KINDS = ("rotation", "sharing")


def layer(inputs: int, outputs: int, rank: int, rotation: bool) -> Square:
    """A square matrix of random numbers beside a layer."""
    torch.manual_seed(inputs * outputs)
    made = Square(nn.Linear(inputs, outputs), rank, rotation, 0.0)
    nn.init.normal_(made.M)
    return made


@pytest.mark.parametrize("quantization", ANY)
@pytest.mark.parametrize("kind", KINDS)
def test_it_freezes_starts_at_identity_trains_and_saves(bert, tmp_path, quantization, kind):
    prepared = check(bert, tmp_path, job_for("mora", quantization, options={"kind": kind}))
    assert (prepared.merge is None) == (quantization != "none")


def test_every_architecture_has_a_place_for_it(folder, tmp_path):
    check(folder, tmp_path, job_for("mora"))


def test_shared_pieces_are_summed_and_the_product_is_written_over_and_over():
    """Of 5 inputs and 7 outputs at rank 1 the matrix is 3 wide: √12 = 3.46."""
    made = layer(5, 7, 1, rotation=False)
    assert made.M.shape == (3, 3)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    short = torch.tensor([1.0 + 4.0, 2.0 + 5.0, 3.0 + 1.0])  # the last piece ends with the start
    product = made.M @ short
    expected = torch.cat([product, product, product[:1]])
    torch.testing.assert_close(made.change(x), expected)
    torch.testing.assert_close(made(x), made.linear(x) + expected)


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 8), (10, 7), (4, 20)])
def test_rotated_pieces_each_pass_the_matrix(inputs, outputs):
    """As complex numbers: piece j is multiplied by e^(i (j - 1) θ)."""
    made = layer(inputs, outputs, 1, rotation=True)
    side = len(made.M)
    assert side == 4 and side % 2 == 0
    x = torch.randn(3, inputs)
    filled = torch.cat([x, x], dim=-1)
    rows = []
    for j in range(math.ceil(inputs / side)):
        piece = filled[:, j * side : (j + 1) * side]
        pairs = torch.complex(piece[:, : side // 2], piece[:, side // 2 :])
        angles = torch.tensor([j * 10_000 ** (-2 * i / side) for i in range(side // 2)])
        turned = pairs * torch.polar(torch.ones(side // 2), angles)
        rows.append(torch.cat([turned.real, turned.imag], dim=-1) @ made.M.T)
    whole = torch.cat(rows, dim=-1).repeat(1, 10)
    torch.testing.assert_close(made.change(x), whole[:, :outputs])


def test_the_first_piece_stays_as_it_is_and_no_length_changes():
    pieces = torch.randn(2, 3, 6)
    found = rotated(pieces)
    torch.testing.assert_close(found[:, 0], pieces[:, 0])
    assert not torch.allclose(found[:, 1], pieces[:, 1])
    torch.testing.assert_close(found.norm(dim=-1), pieces.norm(dim=-1))


@pytest.mark.parametrize("rotation", [True, False])
def test_the_change_is_a_matrix_of_a_rank_that_lora_of_equal_size_has_not(rotation):
    made = layer(12, 12, 1, rotation)
    x = torch.randn(4, 12)
    torch.testing.assert_close(made.change(x), x @ made.weight().T, rtol=1e-4, atol=1e-5)
    assert made.M.numel() <= 1.1 * (12 + 12)
    assert int(torch.linalg.matrix_rank(made.weight())) >= len(made.M) > 1


def test_it_has_about_as_many_parameters_as_lora(bert):
    def count(method):
        _, prepared, _ = build(bert, job_for(method, rank=8))
        names = [n for n, _ in trainable(prepared.model) if n.endswith(".M") or ".lora_" in n]
        return sum(p.numel() for n, p in trainable(prepared.model) if n in names)

    assert 0.9 < count("mora") / count("lora") <= 1.01


@pytest.mark.parametrize("kind", KINDS)
def test_it_merges_into_the_weights(folder, tmp_path, kind):
    job = job_for("mora", options={"kind": kind})
    _, prepared, _ = build(folder, job)
    train(prepared)
    prepared.save(tmp_path)
    loaded = prepared.load(base_of(folder, job)[0], tmp_path)
    before = logits(loaded)
    merged, into = prepared.merge(loaded)
    assert squares(merged) == {} and into == "fp32 weights"
    torch.testing.assert_close(logits(merged), before, rtol=1e-4, atol=1e-5)


def test_kinds_and_lora_learn_other_weights(bert):
    curves = []
    for options in ({"kind": "rotation"}, {"kind": "sharing"}):
        _, prepared, _ = build(bert, job_for("mora", options=options))
        curves.append(train(prepared)[0])
    _, lora, _ = build(bert, job_for("lora"))
    curves.append(train(lora)[0])
    assert len({tuple(curve) for curve in curves}) == 3
