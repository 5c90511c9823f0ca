"""Rows of a padded batch against each row read alone."""

from __future__ import annotations

from typing import Any

import torch


def read_alone_each_row_says_the_same(
    model: Any, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Assert that a classifier says of padded rows, to 1e-5, what it says of each without padding.

    Args:
        ids, mask: tokens and attention mask, (rows, tokens); padding on the right.

    Returns:
        The logits of the batch, (rows, classes).
    """
    with torch.no_grad():
        together: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
        for row, length in enumerate(mask.sum(1).tolist()):
            own = ids[row : row + 1, :length]
            alone = model(input_ids=own, attention_mask=torch.ones_like(own)).logits
            torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)
    return together
