"""What scales UniPELT's three parts: the paper's gates, one a part, or a guide's, one network for
all three of a layer; of a row, or of each of its tokens (`peftmark.lab.methods.unipelt`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

STARTING_SCALE = 0.02
"""Standard deviation of gates, prefixes and D at the start: that of BERT's own weights."""

PARTS = ("adapter", "prefix", "lora")
"""The parts of a layer, in the order of the network's outputs."""

NETWORK_WIDTH = 128
FIRST_TEMPERATURE, LAST_TEMPERATURE = 5.0, 1.0
PRUNED_SHARE = 0.9
"""Share of the layers in which a part's gate must be low for the part to be taken out of all."""


class Rows:
    """The rows that pass through the model now.

    Args:
        each: whether each token has gates of its own; else those of its row, the mean over the
            row's real tokens.

    Attributes:
        mask: their attention mask, (rows, tokens) or None.
        go_on: whether they go on from keys and values of tokens that passed before.
    """

    def __init__(self, each: bool = False) -> None:
        self.each = each
        self.mask: torch.Tensor | None = None
        self.go_on = False

    def see(self, model: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        """A hook before the model's forward pass."""
        self.mask = inputs.get("attention_mask")
        cache = inputs.get("past_key_values")
        self.go_on = cache is not None and cache.get_seq_length() > 0

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over each row's real tokens: (rows, tokens, n) to (rows, 1, n)."""
        if self.mask is None:
            return values.mean(dim=1, keepdim=True)
        real = self.mask.unsqueeze(-1).to(values.dtype)
        return (values * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)

    def gates(self, values: torch.Tensor) -> torch.Tensor:
        """The gates by those of each token, (rows, tokens, n): as they are, or (rows, 1, n)."""
        return values if self.each else self.mean(values)

    def by_row(self, gates: torch.Tensor) -> torch.Tensor:
        """What `gates` gave, or one number of it a place, by row: (rows, 1, n)."""
        return self.mean(gates) if self.each else gates


class Mean:
    """The mean of gates over rows, on their device until it is asked for."""

    def __init__(self) -> None:
        self._sum: torch.Tensor | None = None
        self._rows = 0

    def add(self, gates: torch.Tensor) -> None:
        """Take in the gates of some rows, shape (rows, 1, n)."""
        summed = gates.detach().sum((0, 1))
        self._sum = summed if self._sum is None else self._sum + summed
        self._rows += len(gates)

    def read(self) -> list[float]:
        """The n means since the last reading; none if no row passed."""
        found = [] if self._sum is None else (self._sum / self._rows).tolist()
        self._sum, self._rows = None, 0
        return found


class Gate(nn.Module):
    """G: (rows, tokens, width) to (rows, 1, 1), or (rows, tokens, 1) where each token has its own.

    Attributes:
        held_out: of the rows that passed in evaluation; None where nobody asks.
    """

    def __init__(self, width: int, rows: Rows, device: torch.device) -> None:
        super().__init__()
        self.rows = rows
        self.linear = small(nn.Linear(width, 1, device=device))
        self.held_out: Mean | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One factor a row or token, in fp32."""
        found = self.rows.gates(torch.sigmoid(self.linear(x).float()))
        if self.held_out is not None and not self.training and not self.rows.go_on:
            self.held_out.add(self.rows.by_row(found))
        return found


class GateNetwork(nn.Module):
    """A layer's gates of all three parts, from the layer's input: (rows, tokens, width) to
    (rows, 1, 3), or (rows, tokens, 3) where each token has its own.

    Attributes:
        temperature: what the network's outputs are divided by.
        now: the gates of the rows that pass through the layer now; of the last ones after that,
            for a layer whose activations are computed again.
        entropy: of the gates of the last rows that passed in training (`entropy`), a scalar.
        trained: of the rows that passed in training.
        held_out: of the rows that passed in evaluation; None where nobody asks.
    """

    def __init__(self, width: int, rows: Rows, device: torch.device) -> None:
        super().__init__()
        self.rows = rows
        self.first = small(nn.Linear(width, NETWORK_WIDTH, device=device))
        self.second = small(nn.Linear(NETWORK_WIDTH, len(PARTS), device=device))
        self.temperature = FIRST_TEMPERATURE
        self.now: torch.Tensor | None = None
        self.entropy: torch.Tensor | None = None
        self.trained = Mean()
        self.held_out: Mean | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Three factors a row or token, in fp32."""
        outputs = self.second(torch.relu(self.first(x))).float()
        return self.rows.gates(torch.sigmoid(outputs / self.temperature))

    def look(self, layer: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        """A hook before the layer's forward pass, which asks for the gates."""
        self.now = self(args[0] if args else inputs["hidden_states"])
        if self.training:
            self.entropy = entropy(self.now, self.rows)
            self.trained.add(self.rows.by_row(self.now))
        elif self.held_out is not None and not self.rows.go_on:
            self.held_out.add(self.rows.by_row(self.now))


class OneGate:
    """G of one part, of those that the layer's network gave."""

    def __init__(self, network: GateNetwork, part: str) -> None:
        self._network, self._at = network, PARTS.index(part)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """One factor a row or token, in fp32, whatever comes in."""
        gates = self._network.now
        assert gates is not None
        return gates[..., self._at : self._at + 1]


def entropy(gates: torch.Tensor, rows: Rows) -> torch.Tensor:
    """-sum of p ln p, in nats, where p are gates over their sum: mean over rows, of each row over
    its tokens where those have gates of their own.

    Args:
        gates: shape (rows, 1 or tokens, 3).
    """
    shares = gates / gates.sum(-1, keepdim=True)
    found: torch.Tensor = torch.special.entr(shares).sum(-1, keepdim=True)
    return rows.by_row(found).mean()


def temperature_after(step: int, steps: int) -> float:
    """The temperature after a step (from 1) of so many: linear from 5 in the first to 1 in the
    last, and 1 from there on."""
    share = min(1.0, step / max(1, steps - 1))
    return FIRST_TEMPERATURE + (LAST_TEMPERATURE - FIRST_TEMPERATURE) * share


def low_parts(means: Sequence[Sequence[float]], threshold: float) -> list[str]:
    """The parts whose gate lies below a threshold in nine of ten layers or more.

    Args:
        means: of each layer, by part.
    """
    found = []
    for part, gates in zip(PARTS, zip(*means, strict=True), strict=True):
        if sum(gate < threshold for gate in gates) >= PRUNED_SHARE * len(means):
            found.append(part)
    return found


def small(linear: nn.Linear) -> nn.Linear:
    """A layer at its small start."""
    nn.init.normal_(linear.weight, std=STARTING_SCALE)
    nn.init.zeros_(linear.bias)
    return linear
