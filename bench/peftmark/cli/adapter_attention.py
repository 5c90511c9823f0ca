"""What `adapter` prints and draws of attention by layer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftmark.render.layer_specs import BeforeAfter

Pair = tuple[float, float]


def figures(attention: Mapping[str, Any]) -> dict[str, str]:
    """What is told of attention, and how it is called."""
    from peftmark.core.shown import plain

    first = plain(attention["first"]) or "first token"
    found = {
        "entropy": "entropy, nats",
        "first": f"on {first}",
        "itself": "on itself",
        "distance": "distance",
    }
    return found | ({"virtual": "on virtual"} if attention["virtual_tokens"] else {})


def by_layer(values: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Means over heads; None for a layer of which none has a figure."""
    known = [[v for v in heads if v is not None] for heads in values]
    return [statistics.fmean(heads) if heads else None for heads in known]


def pairs(attention: Mapping[str, Any], name: str) -> list[Pair | None]:
    """A figure by layer before and after training."""
    both = (by_layer(attention[when][name]) for when in ("before", "after"))
    return [None if a is None or b is None else (a, b) for a, b in zip(*both, strict=True)]


def attention_lines(attention: Mapping[str, Any]) -> list[str]:
    """The table of attention."""
    from peftmark.core.shown import plural
    from peftmark.render.plain_table import aligned

    named = figures(attention)
    columns = [pairs(attention, name) for name in named]
    moved = by_layer(attention["moved"])
    rows = [
        [str(layer), *map(_told, row), "" if share is None else f"{100 * share:.2f}"]
        for layer, (share, row) in enumerate(zip(moved, zip(*columns, strict=True), strict=True))
    ]
    head = ["layer", *named.values(), "moved, %"]
    prompt = plural(attention["virtual_tokens"], "virtual token")
    virtual = f"; {prompt} apart" if attention["virtual_tokens"] else ""
    return [
        f"Attention of a token, mean over heads and over {plural(attention['tokens'], 'token')} of "
        f"{plural(attention['rows'], 'evaluation row')} (padding left out{virtual}; eager "
        "attention, fp32), before and after training:",
        *(f"  {line}" for line in aligned(head, rows, range(1, len(head)))),
        "Moved: share of a token's attention that went elsewhere (total variation); distance in "
        "tokens",
        f"Eager attention moves a logit of the trained model by "
        f"{attention['eager_difference']:.2g} at most",
    ]


def _told(pair: Pair | None) -> str:
    return "" if pair is None else f"{pair[0]:.3f} → {pair[1]:.3f}"


def lanes(attention: Mapping[str, Any], layers: Sequence[int]) -> tuple[BeforeAfter, ...]:
    """The same to be drawn, over the layers of a picture."""
    from peftmark.render.layer_specs import BeforeAfter

    found = []
    for name, title in figures(attention).items():
        known = dict(enumerate(pairs(attention, name)))
        found.append(BeforeAfter(title, tuple(known.get(layer) for layer in layers)))
    return tuple(found)
