"""What can be trained on a base whose weights are sharded over the devices of a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peftmark.catalog.methods import Cell
from peftmark.catalog.quantizations import of_family

METHODS = ("lora", "rslora", "lora-plus", "adalora")
"""Methods that add tensors of their own to frozen weights, and never look at those but to compute.
What reads the weights (norms, starts from them), changes or trains them would find a part of each;
of others it was not tried."""
BASES = of_family("none", "bitsandbytes-4bit")
"""How a base may be stored: its weights are plain tensors then, as FSDP cuts them."""


def sharding_faults(cell: Cell, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) where a recipe asks for sharded weights and they can't be.

    Args:
        values: of the recipe.
    """
    if not values["shard"]:
        return
    if values["devices"] == 1:
        yield "shard", "found true with devices: 1; weights are sharded over 2 devices at least"
    for key in ("packing", "kernels"):
        if values.get(key):
            yield "shard", f"found true with {key}; the two were not tried together: leave one out"
    if not cell.trains:
        return
    if cell.method not in METHODS:
        yield (
            "shard",
            f"found true with {cell.method}, which reads, changes or trains weights of the base, "
            f"or was not tried on a part of them; allowed: {', '.join(METHODS)}, or shard: false",
        )
    if cell.quantization not in BASES:
        yield (
            "shard",
            f"found true on a base of {cell.quantization}, whose weights aren't plain tensors "
            f"that can be cut; allowed: {', '.join(BASES)}, or shard: false",
        )
