"""Tells transformers whether a batch is padded, which the host knows, and which transformers would
ask the mask on the device: on a GPU that waits until all is done that was started before. And
whether tokens without values are packed rows, which nothing could be asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import masking_utils

ROWS_OF = "find_packed_sequence_indices"
"""Where transformers looks in the positions for rows that were packed together."""
BOTH_WAYS, CAUSAL = "_ignore_bidirectional_mask_sdpa", "_ignore_causal_mask_sdpa"
"""Where transformers asks whether attention may go without a mask (`lab.memory.insides`)."""


@contextmanager
def known_padding(padded: bool) -> Iterator[None]:
    """What runs inside gets the same mask or none as without, and doesn't look at its values.

    Args:
        padded: whether the batch's mask leaves out any token.
    """
    inside: Any = masking_utils
    both_ways, causal = getattr(inside, BOTH_WAYS), getattr(inside, CAUSAL)

    def ignore_both_ways(padding_mask: torch.Tensor | None, *args: Any, **kwargs: Any) -> bool:
        if padding_mask is not None and padded:
            return False
        found: bool = both_ways(None, *args, **kwargs)
        return found

    def ignore_causal(
        padding_mask: torch.Tensor | None, q_length: int, kv_length: int, *args: Any, **kwargs: Any
    ) -> bool:
        mask = padding_mask
        # Of anything but a mask over just these tokens the values may matter in other ways.
        if mask is not None and mask.shape[-1] == q_length == kv_length:
            if padded:
                return False
            mask = None
        found: bool = causal(mask, q_length, kv_length, *args, **kwargs)
        return found

    setattr(inside, BOTH_WAYS, ignore_both_ways)
    setattr(inside, CAUSAL, ignore_causal)
    try:
        yield
    finally:
        setattr(inside, BOTH_WAYS, both_ways)
        setattr(inside, CAUSAL, causal)


@contextmanager
def packed_without_values(packed: bool) -> Iterator[None]:
    """What runs inside takes tokens without values for rows that stand end to end, or for none,
    where transformers would ask their positions.

    Args:
        packed: whether the tokens of a row, (1, tokens), are several rows of the task.
    """

    def rows_of(positions: torch.Tensor) -> torch.Tensor | None:
        before = positions[:, :1] - 1
        return (torch.diff(positions, prepend=before, dim=-1) != 1).cumsum(-1) if packed else None

    inside: Any = masking_utils
    kept = getattr(inside, ROWS_OF)
    setattr(inside, ROWS_OF, rows_of)
    try:
        yield
    finally:
        setattr(inside, ROWS_OF, kept)
