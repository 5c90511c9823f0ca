"""AdaLoRA's penalty by hand: PEFT's mean of norms, which is not the paper's sum of squares."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peftmark.lab.methods.rank_allocation import Penalty


def test_the_penalty_is_the_mean_of_norms_and_not_the_sum_of_their_squares():
    model = nn.Module()
    model.lora_A = nn.ParameterDict({"default": nn.Parameter(torch.tensor([[2.0, 0.0]]))})
    model.lora_B = nn.ParameterDict({"default": nn.Parameter(torch.tensor([[1.0], [2.0]]))})
    # Q Q^T - I is 4 - 1 = 3, P^T P - I is 5 - 1 = 4.
    assert Penalty(model)().item() == pytest.approx((3 + 4) / 2)
    assert Penalty(model)().item() != pytest.approx(3**2 + 4**2)
