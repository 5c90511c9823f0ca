"""Options that came to methods later, with what a method did before them, and what options of a
method can't be together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from peftmark.catalog.method import Option

BANDS = ("low", "middle", "high")
BAND_PARTS = (
    "query-value",
    "query-key-value",
    "query-key-value-output",
    "query-key-value-outputs",
)
"""Modules of a layer by name: `output` is that of attention, `outputs` that of feed-forward too."""


def _later(
    name: str,
    value: bool | int | float | str,
    allowed: tuple[str, ...] | tuple[float, float] | None,
    summary: str,
) -> Option:
    """An option that came later, and at whose default a method does what it did before."""
    return Option(name, value, allowed, summary, value)


RANKS_BY = Option(
    "scale",
    "max",
    ("max", "range"),
    "scores over the largest, or over the way from the smallest to it",
    "range",
)
ALLOCATOR = _later(
    "allocator",
    "batched",
    ("batched", "peft"),
    "whether AdaLoRA's penalty and rank allocation take all modules at once or one by one, as "
    "PEFT does; the bits are the same",
)
KEPT_RATE = _later(
    "kept_rate",
    "same",
    ("same", "raised"),
    "learning rate of the singular values that AdaLoRA keeps: as before, or raised by how many "
    "there were at first over how many are left",
)
ALLOCATION = (ALLOCATOR, KEPT_RATE)
LATER_OF_HYBRID: tuple[Option, ...] = (
    _later("middle_target", 0, (0, 1024), "their last rank; 0 for half of the first"),
    _later("low_layers", 5, (1, 10), "of twelve layers, how many are low"),
    _later("high_layers", 3, (1, 10), "of twelve layers, how many are high"),
    *(
        _later(f"{band}_targets", parts, BAND_PARTS, f"modules of the {band} layers")
        for band, parts in zip(BANDS, BAND_PARTS, strict=False)
    ),
    *(
        _later(
            f"{band}_alpha",
            0.0,
            (0, 1024),
            f"alpha of the {band} layers; 0 for the recipe's",
        )
        for band in BANDS
    ),
    *(
        _later(
            f"{band}_dropout",
            -1.0,
            (-1, 0.9),
            f"dropout of the {band} layers; -1 for the recipe's",
        )
        for band in BANDS
    ),
    *ALLOCATION,
)
LATER_OF_ADAPTER: tuple[Option, ...] = (
    _later(
        "place",
        "feed-forward",
        ("feed-forward", "attention", "both", "parallel"),
        "behind which block of a layer, or beside its feed-forward block",
    ),
    _later("bias", True, None, "whether its two layers have biases"),
    _later("norm", False, None, "whether a LayerNorm of its own comes first"),
    _later("dropout", 0.0, (0, 0.9), "dropout on what it adds"),
)
PHASES: tuple[Option, ...] = (
    _later("lora_after", 0.0, (0, 0.9), "share of the steps before LoRA trains too"),
    _later("lora_rate", 1.0, (0.001, 100), "learning rate of LoRA over that of the other part"),
    _later(
        "lora_clip", 0.0, (0, 100), "largest norm of LoRA's gradients; 0 for the recipe's alone"
    ),
    _later("other_clip", 0.0, (0, 100), "the same of the other part's"),
    _later(
        "project_below",
        -1.0,
        (-1, 1),
        "mean cosine of two steps' gradients under which the later ones lose what lies along the "
        "earlier; -1 for never",
    ),
)
"""How LoRA and another part train beside each other (`lab/methods/in_phases`)."""
LATER_OF_P_TUNING_V2: tuple[Option, ...] = (
    _later("layers", "all", ("all", "top", "bottom"), "which layers get keys and values"),
    _later("depth", 0, (0, 1000), "how many of the top or bottom layers; 0 for a third"),
)


MASK = _later(
    "mask",
    "hard-concrete",
    ("hard-concrete", "straight-through"),
    "gates as in the paper, or masks of zeros and ones whose gradient is the sigmoid's",
)

LATER_OF_TWO_STAGE: tuple[Option, ...] = (
    _later(
        "second_quantization",
        "same",
        ("same", "none"),
        "base of the second stage: the first one's, or one that isn't quantised",
    ),
    _later(
        "from",
        "last",
        ("last", "best"),
        "adapter that it starts as: of the first stage's last step, or of its best evaluation",
    ),
)
LATER_OF_UNIPELT: tuple[Option, ...] = (
    _later(
        "gates",
        "paper",
        ("paper", "network"),
        "one a part as in the paper, or one network a layer for all three",
    ),
    _later("entropy_weight", 0.1, (0, 10), "weight of the entropy of a network's gates"),
    _later(
        "prune_below",
        0.1,
        (0, 1),
        "a part is taken out if a network's gate is under it in 9 of 10 layers; 0 for never",
    ),
)


def _bands(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in (f"{band}_dropout" for band in BANDS):
        if -1 < values[name] < 0:
            yield name, f"found {values[name]}; allowed: -1, or 0 to 0.9"
    low, high = values["low_layers"], values["high_layers"]
    if low + high >= 12:
        yield (
            "low_layers",
            f"found {low} with high_layers {high}; together at most 11 of twelve, so that the "
            "middle has one",
        )
    first, last = values["middle"], values["middle_target"]
    if last > first:
        yield "middle_target", f"found {last} with middle {first}; at most that"
    if not last and first % 2:
        yield "middle", f"found {first}; it is halved: make it even or set middle_target"


def _gates(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for option in LATER_OF_UNIPELT[1:]:
        if values["gates"] == "paper" and values[option.name] != option.default:
            yield (
                option.name,
                f"found {values[option.name]} with gates: paper, which have none; "
                "it is for gates: network",
            )


def _ranks(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    low, high = values["min_rank"], values["max_rank"]
    for name, rank in (("min_rank", low), ("max_rank", high)):
        if rank % 2:
            yield name, f"found {rank}; ranks are rounded to even ones: give an even number"
    if low > high:
        yield "min_rank", f"found {low} with max_rank {high}; at most that"


def _by_rows(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    low, high = values["min_rank"], values["max_rank"]
    if low > high:
        yield "min_rank", f"found {low} with max_rank {high}; at most that"


def _depth(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if values["depth"] and values["layers"] == "all":
        yield "depth", f"found {values['depth']} with layers all; set layers to top or bottom"


CONFLICTS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[tuple[str, str]]]] = {
    "hybrid": _bands,
    "lora-by-rows": _by_rows,
    "p-tuning-v2": _depth,
    "sensitive-ranks": _ranks,
    "unipelt": _gates,
}
"""Method -> (option, what is wrong) of values, all given and each allowed by itself."""
