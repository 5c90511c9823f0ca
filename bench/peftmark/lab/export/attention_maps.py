"""Attention maps to figures: what a token's attention is like, summed over the tokens of rows."""

from __future__ import annotations

from typing import NamedTuple

import torch

from peftmark.lab.errors import Unsupported

WHOLE = 1e-3
"""How far a token's attention may be from adding up to one (rounding in fp32 is about 1e-6)."""

ByHead = list[list[float | None]]
"""A figure by layer from the input up, then by head."""


class Map(NamedTuple):
    """Attention of a text's tokens.

    Attributes:
        text: to the text, (rows, heads, tokens, tokens).
        virtual: to virtual tokens, (rows, heads, tokens, virtual tokens).
    """

    text: torch.Tensor
    virtual: torch.Tensor


def virtual_places(maps: torch.Tensor, tokens: int, virtual: int, behind_first: bool) -> range:
    """Where the virtual tokens are among the keys of a map.

    Args:
        maps: (rows, heads, queries, keys).
        tokens: of the text, padding included.
        virtual: tokens that there are.
        behind_first: whether embeddings stand behind the text's first token, as with [CLS].

    Raises:
        Unsupported: there are others than the text's tokens and these.
    """
    queries, keys = maps.shape[-2:]
    if keys != tokens + virtual or queries not in (tokens, keys):
        raise Unsupported(
            f"a map of {queries} by {keys} places for {tokens} tokens: what its method adds to "
            "them is not known"
        )
    start = int(behind_first and queries == keys)  # keys and values alone come before all
    return range(start, start + virtual)


def split(maps: torch.Tensor, mask: torch.Tensor, virtual: range) -> Map:
    """Attention of the text's tokens to the text, padding left out, and to virtual tokens.

    Args:
        maps: (rows, heads, queries, keys).
        mask: real tokens of the text, (rows, tokens).
        virtual: places of virtual tokens among the keys, and among the queries where there are as
            many.

    Raises:
        Unsupported: what a real token sees doesn't add up to one.
    """
    keys = [at for at in range(maps.shape[-1]) if at not in virtual]
    if maps.shape[-2] == maps.shape[-1]:
        maps = maps[:, :, keys]
    text, prompt = maps[..., keys] * mask[:, None, None], maps[..., list(virtual)]
    off = (text.sum(-1) + prompt.sum(-1)).transpose(1, 2)[mask] - 1
    worst = float(off.abs().max())
    if not worst <= WHOLE:
        raise Unsupported(
            f"a token's attention to the tokens of its row is {worst:.3g} away from adding up to "
            "one: its maps don't show all that it attends to"
        )
    return Map(text, prompt)


def figures_of(found: Map, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sums over the real tokens of rows, (heads,) each.

    Args:
        mask: real tokens, (rows, tokens).

    Returns:
        entropy (nats, over text and virtual tokens), first (share on the row's first real token),
        itself, distance (tokens times share, of text), virtual (share); text (share on it) and
        tokens (how many), to divide by.
    """
    text, prompt = found
    rows, heads, tokens, _ = text.shape
    at = torch.arange(tokens)
    first = mask.int().argmax(1)[:, None, None, None].expand(rows, heads, tokens, 1)
    by_token = {
        "entropy": -torch.xlogy(text, text).sum(-1) - torch.xlogy(prompt, prompt).sum(-1),
        "first": text.gather(-1, first)[..., 0],
        "itself": text.diagonal(dim1=-2, dim2=-1),
        "distance": (text * (at[:, None] - at).abs()).sum(-1),
        "virtual": prompt.sum(-1),
        "text": text.sum(-1),
        "tokens": torch.ones_like(text[..., 0]),
    }
    return {name: _over_tokens(value, mask) for name, value in by_token.items()}


def variation(before: Map, after: Map, mask: torch.Tensor) -> torch.Tensor:
    """Total variation of attention, of which that before has no virtual tokens: half the sum of
    absolute differences, summed over real tokens, (heads,)."""
    apart = (after.text - before.text).abs().sum(-1) + after.virtual.sum(-1)
    return _over_tokens(apart / 2, mask)


def _over_tokens(value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (value * mask[:, None]).sum(dim=(0, 2))


class Sums:
    """Sums of batch after batch, by layer."""

    def __init__(self) -> None:
        self._layers: list[dict[str, torch.Tensor]] = []

    def add(self, layer: int, found: dict[str, torch.Tensor]) -> None:
        """Add a batch's sums; a layer's first batch comes after that of the layer below."""
        if layer == len(self._layers):
            self._layers.append(found)
            return
        own = self._layers[layer]
        self._layers[layer] = {name: own[name] + value for name, value in found.items()}

    def mean(self, name: str, over: str = "tokens") -> ByHead:
        """One sum over another; None where that is 0."""
        pairs = ((one[name].tolist(), one[over].tolist()) for one in self._layers)
        return [[a / b if b else None for a, b in zip(*pair, strict=True)] for pair in pairs]
