"""Where a module sits in a model, read from its full name: which layer, and what it does there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from peftmark.record.job import Record

OUTSIDE = -1
"""The layer of a module that is in none."""

MODULES: dict[str, tuple[str, ...]] = {
    "query": ("query", "query_proj", "q_lin", "q_proj", "q"),
    "key": ("key", "key_proj", "k_lin", "k_proj", "k"),
    "value": ("value", "value_proj", "v_lin", "v_proj", "v"),
    "query, key, value": ("Wqkv", "qkv_proj", "in_proj"),
    "attention output": ("attention.output.dense", "out_lin", "out_proj", "o_proj", "attn.Wo", "o"),
    "feed-forward in": ("intermediate.dense", "lin1", "fc1", "up_proj", "mlp.Wi"),
    "feed-forward gate": ("gate_proj",),
    "feed-forward out": ("output.dense", "lin2", "fc2", "down_proj", "mlp.Wo"),
}
"""What a module does -> how architectures call it, at the end of its name. The first match counts:
`attention.output.dense` is also an `output.dense`."""


class Place(NamedTuple):
    """A module's layer, from 0 at the input, and its part in it.

    Attributes:
        layer: `OUTSIDE` for a module in no layer.
        module: one of `MODULES`, or what is left of a name that is not known; empty for the layer
            itself.
    """

    layer: int
    module: str


def place(name: str) -> Place:
    """Read a full module name, such as `bert.encoder.layer.3.attention.self.query`.

    The first part of the name that is a number is the layer: later ones count experts or blocks
    inside it.
    """
    parts = name.removesuffix(".base_layer").split(".")
    at = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    layer = OUTSIDE if at is None else int(parts[at])
    rest = ".".join(parts if at is None else parts[at + 1 :])
    for module, endings in MODULES.items():
        if any(f".{rest}".endswith(f".{ending}") for ending in endings):
            return Place(layer, module)
    return Place(layer, rest)


def layer_name(layer: int) -> str:
    """A layer in a table or picture."""
    return "outside" if layer == OUTSIDE else str(layer)


def layers_of(rows: Iterable[Record]) -> list[int]:
    """The layers of the model, as far as any row names them."""
    names = {n for r in rows for n in (*r.outcome.rank_history, *r.outcome.layer_scores)}
    return layer_order({place(name).layer for name in names})


def module_order(modules: set[str]) -> list[str]:
    """Modules in the order of a forward pass, unknown ones last."""
    known = list(MODULES)
    return sorted(modules, key=lambda m: (known.index(m) if m in known else len(known), m))


def layer_order(layers: set[int]) -> list[int]:
    """Layers from the input up, without gaps; modules outside any layer last."""
    inside = [layer for layer in layers if layer != OUTSIDE]
    found = list(range(max(inside, default=-1) + 1))
    return [*found, OUTSIDE] if OUTSIDE in layers else found
