"""Where a module sits in a model, read from its full name: which layer, and what it does there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from peftmark.catalog.layer_names import Part, part_of
from peftmark.record.job import Record

OUTSIDE = -1
"""The layer of a module that is in none."""

TITLES: Mapping[Part, str] = {
    "query": "query",
    "key": "key",
    "value": "value",
    "query_key_value": "query, key, value",
    "attention_output": "attention output",
    "ffn_in": "feed-forward in",
    "ffn_gate": "feed-forward gate",
    "ffn_out": "feed-forward out",
}
"""What a module does -> how a reader is told, in the order of a forward pass."""


class Place(NamedTuple):
    """A module's layer, from 0 at the input, and its part in it.

    Attributes:
        layer: `OUTSIDE` for a module in no layer.
        module: one of `TITLES`, or what is left of a name that is not known; empty for the layer
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
    part = part_of(rest)
    return Place(layer, rest if part is None else TITLES[part])


def layer_name(layer: int) -> str:
    """A layer in a table or picture."""
    return "outside" if layer == OUTSIDE else str(layer)


def layers_of(rows: Iterable[Record]) -> list[int]:
    """The layers of the model, as far as any row names them."""
    names = {n for r in rows for n in (*r.outcome.rank_history, *r.outcome.layer_scores)}
    return layer_order({place(name).layer for name in names})


def module_order(modules: set[str]) -> list[str]:
    """Modules in the order of a forward pass, unknown ones last."""
    known = list(TITLES.values())
    return sorted(modules, key=lambda m: (known.index(m) if m in known else len(known), m))


def layer_order(layers: set[int]) -> list[int]:
    """Layers from the input up, without gaps; modules outside any layer last."""
    inside = [layer for layer in layers if layer != OUTSIDE]
    found = list(range(max(inside, default=-1) + 1))
    return [*found, OUTSIDE] if OUTSIDE in layers else found
