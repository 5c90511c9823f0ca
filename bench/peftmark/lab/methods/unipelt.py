"""UniPELT (Mao et al. 2021, arXiv 2110.07577, section 3): adapter, prefix and LoRA in every layer,
each behind a gate of its own. This is the variant APL, with all three.

A gate is a linear layer g to one number behind a sigmoid. It gives one factor between 0 and 1 a row
and layer, the mean over the row's tokens x_t:

    G(x) = mean over t of sigmoid(g x_t)

The mean leaves padding out, so that a row's logits do not depend on the batch it is in; the
authors' code includes it. With h the layer's input, u the sum before the layer's last LayerNorm LN
(feed-forward output plus residual), and W_q, W_v the projections to queries and values:

    LoRA     W x + G_L(h) (alpha / r) B A x   for W_q and W_v, x = h
    prefix   K = [G_P(h) P_K; K_0],  V = [G_P(h) P_V; V_0]
    adapter  LN(u + G_A(n) (U relu(D n + d) + c))  with n = LN(u)

In the paper G_L stands in place of alpha / r: that is alpha = rank. P_K and P_V are trained as they
are, one pair a layer; the authors draw them from an MLP that is dropped after training.

B, U, c and d start at zero, and every gate near one half. So adapter and LoRA change nothing at the
start; the prefix does: small as it is, each query now shares its attention with it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from peftmark.lab.last_token import reads_last_token
from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.reference import load_trained, save_trained, train_head_alone
from peftmark.lab.models import Block, Unsupported

STARTING_SCALE = 0.02
"""Standard deviation of gates, prefixes and D at the start: that of BERT's own weights."""

ATTENTION = "peftmark_prefix"


class Rows:
    """The attention mask of the rows that pass through the model now, (rows, tokens) or None."""

    def __init__(self) -> None:
        self.mask: torch.Tensor | None = None

    def see(self, model: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        """A hook before the model's forward pass."""
        self.mask = inputs.get("attention_mask")

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over each row's real tokens: (rows, tokens, n) to (rows, 1, n)."""
        if self.mask is None:
            return values.mean(dim=1, keepdim=True)
        real = self.mask.unsqueeze(-1).to(values.dtype)
        return (values * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)


class Gate(nn.Module):
    """G: (rows, tokens, width) to (rows, 1, 1)."""

    def __init__(self, width: int, rows: Rows, device: torch.device) -> None:
        super().__init__()
        self.rows = rows
        self.linear = _small(nn.Linear(width, 1, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One factor a row, in fp32."""
        return self.rows.mean(torch.sigmoid(self.linear(x).float()))


class GatedLora(nn.Module):
    """A projection with LoRA behind a gate.

    Args:
        linear: the layer, plain or quantised.
        rank: r.
        scale: alpha / r.
        dropout: on LoRA's input, in training.
        gate: G_L, which query and value share.
    """

    def __init__(self, linear: Any, rank: int, scale: float, dropout: float, gate: Gate) -> None:
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
        self, attention: nn.Module, heads: int, width: int, tokens: int, gate: Gate
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
        gate = self.gate(hidden_states).unsqueeze(-1)
        prefix = (gate * self.keys, gate * self.values)
        return self.attention(hidden_states, *args, prefix=prefix, **kwargs)


class GatedAdapter(nn.Module):
    """A layer's last LayerNorm with a bottleneck adapter inside, behind a gate.

    Args:
        norm: the LayerNorm.
        width: of the bottleneck.
        gate: G_A.
    """

    def __init__(self, norm: nn.LayerNorm, width: int, gate: Gate) -> None:
        super().__init__()
        device, hidden = norm.weight.device, norm.normalized_shape[0]
        self.norm, self.gate = norm, gate
        self.down = _small(nn.Linear(hidden, width, device=device))
        self.up = nn.Linear(width, hidden, device=device)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """The layer's output, of u's shape."""
        n = self.norm(u)
        change = self.gate(n) * self.up(torch.relu(self.down(n)))
        summed: torch.Tensor = self.norm(u + change)
        return summed


def _small(linear: nn.Linear) -> nn.Linear:
    nn.init.normal_(linear.weight, std=STARTING_SCALE)
    nn.init.zeros_(linear.bias)
    return linear


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    prefix: tuple[torch.Tensor, torch.Tensor],
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function with a prefix that every token sees.

    Args:
        query, key, value: (rows, heads, tokens, width).
        attention_mask: True or 0 where a key is seen, (rows, 1, 1 or tokens, tokens); None if all
            are.
        prefix: keys and values, each (rows, heads, length, width).
    """
    key, value = (
        torch.cat([before.to(own.dtype), own], dim=2)
        for before, own in zip(prefix, (key, value), strict=True)
    )
    if attention_mask is not None:
        seen = 1 if attention_mask.dtype == torch.bool else 0
        length = prefix[0].shape[2]
        attention_mask = nn.functional.pad(attention_mask, (length, 0), value=seen)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **rest)


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)


def unipelt(model: nn.Module, setting: Setting) -> Prepared:
    """Put the three parts into every layer; head and pooler train beside them.

    A budget may give LoRA unequal ranks, by query and value; the other two parts are as the options
    say.

    Raises:
        Unsupported: if the layers are not known, or their attention takes no prefix.
    """
    blocks = setting.parts.blocks
    if not blocks or not getattr(model, "_supports_attention_backend", False):
        raise Unsupported(
            f"the attention of {setting.job.model} does not go through transformers' attention "
            f"interface, which the prefix needs; use adapter-lora"
        )
    if reads_last_token(model.config):
        raise Unsupported(
            f"unipelt knows where its parts sit in an encoder, and {setting.job.model} is a "
            "decoder; use adapter-lora"
        )
    ranks = setting.sized([name for block in blocks for name in (block.query, block.value)])

    def put(base: nn.Module) -> nn.Module:
        train_head_alone(base, setting)
        rows = Rows()
        base.register_forward_pre_hook(rows.see, with_kwargs=True)
        for block in blocks:
            _insert(base, block, ranks, rows, setting)
        switch: Any = base
        switch.set_attn_implementation(ATTENTION)
        return base

    put(model)

    def load(base: nn.Module, folder: Path) -> nn.Module:
        return load_trained(put(base), folder)

    return Prepared(
        model,
        save=lambda folder: save_trained(model, folder),
        load=load,
        merge=None,
        merge_reason="the gates depend on the input: no weight can hold what they scale",
        ranks=lambda: ranks,
        matched_rank="r",
        part_of=_part_of,
    )


def _part_of(name: str) -> str:
    """The part that a tensor belongs to; none for gates."""
    places = set(name.split("."))
    parts = {"LoRA": {"A", "B"}, "prefix": {"keys", "values"}, "adapter": {"down", "up"}}
    return next((part for part, own in parts.items() if places & own), "")


def _insert(
    model: nn.Module, block: Block, ranks: dict[str, int], rows: Rows, setting: Setting
) -> None:
    """Put the three parts into one layer."""
    recipe, options = setting.job.recipe, setting.job.recipe.options
    assert recipe.alpha is not None and recipe.dropout is not None and setting.size is not None
    linears: Any = {name: model.get_submodule(name) for name in (block.query, block.value)}
    query = linears[block.query]
    device, hidden = next(query.parameters()).device, query.in_features

    lora_gate = Gate(hidden, rows, device)
    scale = recipe.alpha / setting.size  # the same for all where ranks differ
    for name in (block.query, block.value):
        if name in ranks:
            wrapped = GatedLora(linears[name], ranks[name], scale, recipe.dropout, lora_gate)
            _replace(model, name, wrapped)

    name = block.query.rpartition(".")[0]
    attention: Any = model.get_submodule(name)
    width = attention.attention_head_size
    heads = query.out_features // width
    gate = Gate(hidden, rows, device)
    _replace(model, name, GatedPrefix(attention, heads, width, options["tokens"], gate))

    inside = model.get_submodule(block.name).named_modules()
    name, norm = [pair for pair in inside if isinstance(pair[1], nn.LayerNorm)][-1]
    gate = Gate(hidden, rows, device)
    assert isinstance(norm, nn.LayerNorm)
    _replace(model, f"{block.name}.{name}", GatedAdapter(norm, options["width"], gate))


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
