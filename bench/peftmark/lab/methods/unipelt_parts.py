"""UniPELT's three parts of a layer, each behind a gate (`peftmark.lab.methods.unipelt`), and how a
prefix comes into an attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from peftmark.lab.methods import Setting
from peftmark.lab.methods.unipelt_gates import STARTING_SCALE, small
from peftmark.lab.models import Block, Unsupported

ATTENTION = "peftmark_prefix"

AnyGate = Callable[[torch.Tensor], torch.Tensor]
"""From what a part reads, (rows, tokens, width), to one factor a row, (rows, 1, 1), or a token,
(rows, tokens, 1)."""


def always_open(x: torch.Tensor) -> torch.Tensor:
    """The gate of a part that has none: ones."""
    return x.new_ones(len(x), 1, 1)


def blocks_with_prefix(model: Any, setting: Setting) -> tuple[Block, ...]:
    """The layers of a base whose attention takes a prefix.

    Raises:
        Unsupported: if the layers are not known, or their attention takes none.
    """
    job, blocks = setting.job, setting.parts.blocks
    if not blocks:
        raise Unsupported(
            f"{job.method} needs each layer's query, value and feed-forward block one by one, "
            f"which are not known for the architecture of {job.model}; use lora"
        )
    if not getattr(model, "_supports_attention_backend", False):
        raise Unsupported(
            f"the attention of {job.model} does not go through transformers' attention "
            f"interface, which the prefix needs; use adapter-lora"
        )
    if getattr(model.config, "attn_logit_softcapping", None) is not None:
        raise Unsupported(
            f"the attention of {job.model} caps its scores (attn_logit_softcapping), which "
            "torch's fused attention, in which the prefix stands, can't; use adapter-lora"
        )
    return blocks


def put_prefix(model: nn.Module, block: Block, features: int, tokens: int, gate: AnyGate) -> None:
    """Put a prefix before the keys and values of one layer.

    Args:
        features: that the layer's values have, of all their heads.
        tokens: length of the prefix.
    """
    name = block.query.rpartition(".")[0]
    attention: Any = model.get_submodule(name)
    width = getattr(attention, "attention_head_size", None) or attention.head_dim
    model.set_submodule(name, GatedPrefix(attention, features // width, width, tokens, gate))


class GatedLora(nn.Module):
    """A projection with LoRA behind a gate.

    Args:
        linear: the layer, plain or quantised.
        rank: r.
        scale: alpha / r.
        dropout: on LoRA's input, in training.
        gate: G_L, which query and value share.
    """

    def __init__(self, linear: Any, rank: int, scale: float, dropout: float, gate: AnyGate) -> None:
        super().__init__()
        device = next(linear.parameters()).device
        self.linear, self.gate, self.scale = linear, gate, scale
        self.dropout = nn.Dropout(dropout)
        self.A = nn.Linear(linear.in_features, rank, bias=False, device=device)
        self.B = nn.Linear(rank, linear.out_features, bias=False, device=device)
        nn.init.kaiming_uniform_(self.A.weight, a=math.sqrt(5))  # as in LoRA
        nn.init.zeros_(self.B.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, in) to (rows, tokens, out)."""
        y: torch.Tensor = self.linear(x)
        change: torch.Tensor = self.gate(x) * self.scale * self.B(self.A(self.dropout(x)))
        return y + change


class GatedPrefix(nn.Module):
    """A self-attention with trained keys and values before its own, behind a gate.

    Args:
        attention: the module; it hands keywords it doesn't know to the attention function.
        heads, width: number of heads and width of one.
        tokens: length of the prefix.
        gate: G_P.
    """

    def __init__(
        self, attention: nn.Module, heads: int, width: int, tokens: int, gate: AnyGate
    ) -> None:
        super().__init__()
        device = next(attention.parameters()).device
        self.attention, self.gate = attention, gate
        self.keys = nn.Parameter(torch.empty(heads, tokens, width, device=device))
        self.values = nn.Parameter(torch.empty(heads, tokens, width, device=device))
        nn.init.normal_(self.keys, std=STARTING_SCALE)
        nn.init.normal_(self.values, std=STARTING_SCALE)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the attention returns, (rows, tokens, width) first."""
        gate = self.gate(hidden_states).unsqueeze(1)
        if gate.shape[2] == 1:  # one a row: every query sees the same prefix
            kwargs["prefix"] = (gate * self.keys, gate * self.values)
        else:
            kwargs |= {"prefix": (self.keys[None], self.values[None]), "prefix_gate": gate}
        return self.attention(hidden_states, *args, **kwargs)


def bottleneck(hidden: int, width: int, device: torch.device) -> tuple[nn.Linear, nn.Linear]:
    """D and U of an adapter that adds nothing at the start: D drawn small, U zero."""
    down = small(nn.Linear(hidden, width, device=device))
    up = nn.Linear(width, hidden, device=device)
    nn.init.zeros_(up.weight)
    nn.init.zeros_(up.bias)
    return down, up


class GatedAdapter(nn.Module):
    """An encoder layer's last LayerNorm with a bottleneck adapter inside, behind a gate.

    Args:
        norm: the LayerNorm.
        width: of the bottleneck.
        gate: G_A.
    """

    def __init__(self, norm: nn.LayerNorm, width: int, gate: AnyGate) -> None:
        super().__init__()
        self.norm, self.gate = norm, gate
        self.down, self.up = bottleneck(norm.normalized_shape[0], width, norm.weight.device)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """The layer's output, of u's shape."""
        n = self.norm(u)
        change = self.gate(n) * self.up(torch.relu(self.down(n)))
        summed: torch.Tensor = self.norm(u + change)
        return summed


class GatedBottleneck(nn.Module):
    """The last linear layer of a decoder's feed-forward block with a bottleneck adapter behind it,
    behind a gate.

    Args:
        linear: the layer, plain or quantised.
        width: of the bottleneck.
        gate: G_A.
    """

    def __init__(self, linear: Any, width: int, gate: AnyGate) -> None:
        super().__init__()
        device = next(linear.parameters()).device
        self.linear, self.gate = linear, gate
        self.down, self.up = bottleneck(linear.out_features, width, device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, in) to (rows, tokens, hidden)."""
        y: torch.Tensor = self.linear(x)
        change: torch.Tensor = self.gate(y) * self.up(torch.relu(self.down(y)))
        return y + change


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    prefix: tuple[torch.Tensor, torch.Tensor] | None = None,
    prefix_gate: torch.Tensor | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function with a prefix that every token sees.

    Args:
        query, key, value: (rows, heads, tokens, width); keys and values may have fewer heads.
        attention_mask: True or 0 where a key is seen, (rows, 1, 1 or tokens, tokens); None if all
            are that a token may see.
        prefix: keys and values, each (rows or 1, heads, length, width); None where it was taken
            out.
        prefix_gate: what each query scales the prefix by, (rows, 1, tokens, 1); None where it is
            scaled already.
    """
    if prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **rest)
    if attention_mask is None and query.shape[2] > 1 and getattr(module, "is_causal", True):
        attention_mask = _earlier(query, key)
    length = prefix[0].shape[2]
    before = (part.to(key.dtype).expand(len(key), -1, -1, -1) for part in prefix)
    if attention_mask is not None:
        seen = 1 if attention_mask.dtype == torch.bool else 0
        attention_mask = nn.functional.pad(attention_mask, (length, 0), value=seen)
    if prefix_gate is None:
        key, value = (
            torch.cat([part, own], dim=2) for part, own in zip(before, (key, value), strict=True)
        )
        return sdpa_attention_forward(module, query, key, value, attention_mask, **rest)
    # As many numbers again, which only the prefix's keys and values have: there the queries are
    # scaled, and what they find.
    key, value = (
        torch.cat([nn.functional.pad(part, (part.shape[-1], 0)), _wider(own)], dim=2)
        for part, own in zip(before, (key, value), strict=True)
    )
    rest["scaling"] = rest.get("scaling") or query.shape[-1] ** -0.5
    query = torch.cat([query, (prefix_gate * query).to(query.dtype)], dim=-1)
    found, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **rest)
    of_text, of_prefix = found.chunk(2, dim=-1)
    return of_text + (prefix_gate.transpose(1, 2) * of_prefix).to(found.dtype), None


def _wider(own: torch.Tensor) -> torch.Tensor:
    return nn.functional.pad(own, (0, own.shape[-1]))


def _earlier(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """The mask by which a token sees itself and those before it, (1, 1, queries, keys)."""
    rows, columns = query.shape[2], key.shape[2]
    every = torch.ones(rows, columns, dtype=torch.bool, device=query.device)
    return every.tril(columns - rows)[None, None]


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)
