"""The fine-tuning methods a suite may name, as plain data: what each is and what it reads.

`peftmark.lab.methods` holds the code that goes with each key. `METHODS` has the named methods;
`method_of` also knows every tuner of PEFT by its type, as `peft:<type>`.
"""

from __future__ import annotations

from typing import NamedTuple

from peftmark.catalog import absent
from peftmark.catalog.later_options import (
    ALLOCATION,
    LATER_OF_ADAPTER,
    LATER_OF_HYBRID,
    LATER_OF_P_TUNING_V2,
    LATER_OF_TWO_STAGE,
    RANKS_BY,
)
from peftmark.catalog.lora_methods import BATCHES, LORA_METHODS
from peftmark.catalog.method import LORA, Hook, Method, Option, Size
from peftmark.catalog.methods_mixed import MIXED, pruning_options
from peftmark.catalog.peft_types import PEFT_TYPES, PeftType, peft_type
from peftmark.catalog.quantizations import quantization_of

PREFIX = "peft:"

_NO_LINE = "and lines that need no fine-tuning are there for encoders alone; take base"


METHODS: dict[str, Method] = {
    m.key: m
    for m in (
        Method(
            "full", "full fine-tuning", "reference", None,
            "every weight trained: the upper reference line", "reference", sits_on=("none",),
            freezes=False,
        ),
        Method(
            "base", "untouched base", "reference", None,
            "a causal language model as it is, asked the same: what every method starts from",
            "reference", trains=False,
        ),
        Method(
            "head", "head only", "reference", None,
            "classifier (and pooler) trained on a frozen base: the lower reference line",
            "reference", not_causal="which has no head of its own; take base",
        ),
        Method(
            "bag-of-words", "bag of words", "reference", None,
            "logistic regression (ridge for scores) on TF-IDF of words and pairs of words; no "
            "weight of the model is read",
            "reference", sits_on=("none",), trains=False, fits="words", freezes=False,
            not_causal=_NO_LINE,
        ),
        Method(
            "embeddings", "frozen embeddings", "reference", None,
            "logistic regression (ridge for scores) on the mean of the frozen encoder's last "
            "hidden states",
            "reference", trains=False, fits="model", not_causal=_NO_LINE,
        ),
        *LORA_METHODS,
        Method(
            "lora-by-rows", "LoRA, rank by rows", "lora", None,
            "LoRA of rank log2(N) / 2, rounded down, for N training rows",
            "a practitioners' guide; arXiv 2106.09685 (LoRA)", LORA,
            options=(
                Option("min_rank", 4, (1, 1024), "lowest rank, and that below 500 rows"),
                Option("max_rank", 64, (1, 1024), "highest rank, and that above a million rows"),
            ),
        ),
        Method(
            "mora", "MoRA", "lora", "rank",
            "a square matrix of as many parameters as LoRA's pair, between operators that train "
            "nothing",
            "Jiang et al. 2024, arXiv 2405.12130", ("targets", "dropout"),
            options=(
                Option(
                    "kind", "rotation", ("rotation", "sharing"),
                    "how inputs become few and outputs many: rotated pieces, or sums of them",
                ),
            ),
        ),
        Method(
            "adalora", "AdaLoRA", "adalora", "rank",
            "a low-rank update in SVD form, its ranks pruned to a budget during training",
            "Zhang et al. 2023, arXiv 2303.10512", LORA, True, options=ALLOCATION,
            hooks=("extra loss", "after each step"), budget=True,
        ),
        Method(
            "two-stage", "two-stage LoRA → AdaLoRA", "mixed", "rank",
            "LoRA first, then AdaLoRA that starts as exactly that update",
            "a practitioners' recipe; arXiv 2106.09685 (LoRA), arXiv 2303.10512 (AdaLoRA)",
            LORA, True,
            options=(
                Option("first_stage", 0.5, (0.05, 0.95), "share of the steps that LoRA takes"),
                Option("second_rate", 0.25, (0.001, 1), "learning rate of AdaLoRA over LoRA's"),
                *ALLOCATION, *LATER_OF_TWO_STAGE,
            ),
            hooks=("extra loss", "after each step", "second stage"), budget=True,
        ),
        Method(
            "sensitive-layers", "gradient-chosen layers", "lora", "rank",
            "LoRA on the layers whose query and value weights have the largest gradients",
            "a practitioners' recipe; gradients of the base before training", LORA,
            options=(
                BATCHES,
                Option("ratio", 0.3, (0.01, 1), "share of the layers that get an adapter"),
                Option("select", "top", ("top", "bottom", "random"), "which layers"),
            ),
            hooks=("before initialisation",), budget=True,
        ),
        Method(
            "sensitive-ranks", "gradient-scaled ranks", "lora", None,
            "LoRA with each layer's rank growing with the gradients of its query and value",
            "a practitioners' recipe; gradients of the base before training", LORA,
            options=(
                BATCHES,
                Option("min_rank", 2, (2, 1024), "rank of the least sensitive layer, even"),
                Option("max_rank", 16, (2, 1024), "rank of the most sensitive layer, even"),
                RANKS_BY,
            ),
            hooks=("before initialisation",),
        ),
        Method(
            "hybrid", "layered hybrid", "mixed", None,
            "LoRA on query and value in low layers, AdaLoRA on query, key and value in middle "
            "ones, LoRA on query, key, value and output in high ones",
            "a practitioners' recipe; arXiv 2106.09685 (LoRA), arXiv 2303.10512 (AdaLoRA)",
            ("alpha", "dropout"), True,
            options=(
                Option("low", 8, (1, 1024), "rank of the low layers"),
                Option("middle", 16, (2, 1024), "first rank of the middle ones, even if halved"),
                Option("high", 32, (1, 1024), "rank of the high layers"),
                *LATER_OF_HYBRID,
            ),
            hooks=("extra loss", "after each step"),
        ),
        Method(
            "bitfit", "BitFit", "selective", None, "the biases of the base",
            "Ben Zaken et al. 2021, arXiv 2106.10199",
        ),
        Method(
            "ia3", "IA3", "adapter", None,
            "vectors that scale keys, values and the feed-forward activations",
            "Liu et al. 2022, arXiv 2205.05638",
        ),
        Method(
            "adapter", "bottleneck adapter", "adapter", "width",
            "a two-layer bottleneck after each feed-forward block, zero at the start",
            "Houlsby et al. 2019, arXiv 1902.00751; placed as in Pfeiffer et al. 2020, "
            "arXiv 2005.00247",
            options=(
                Option("last_layers", 0, (0, 1000), "only in that many last layers; 0 for all"),
                Option("activation", "gelu", ("relu", "gelu"), "between the two layers"),
                *LATER_OF_ADAPTER,
            ),
            budget=True,
        ),
        Method(
            "prefix-tuning", "prefix tuning", "prompt", "tokens",
            "trained keys and values before each layer's own, through an MLP while training",
            "Li and Liang 2021, arXiv 2101.00190",
            options=(Option("hidden", 0, (0, 65536), "width of the MLP; 0 for the model's"),),
            budget=True,
        ),
        Method(
            "p-tuning-v2", "P-tuning v2", "prompt", "tokens",
            "trained keys and values before each layer's own",
            # No budget: one token is 49,152 parameters of RoBERTa-large, too coarse for 0.1% of it.
            "Liu et al. 2021, arXiv 2110.07602", options=LATER_OF_P_TUNING_V2,
        ),
        Method(
            "prompt-tuning", "prompt tuning", "prompt", "tokens",
            "trained embeddings before the input", "Lester et al. 2021, arXiv 2104.08691",
            budget=True,
        ),
        Method(
            "p-tuning", "P-tuning", "prompt", "tokens",
            "trained embeddings before the input, through an encoder",
            "Liu et al. 2021, arXiv 2103.10385",
            options=(
                Option("hidden", 0, (0, 65536), "width of the encoder; 0 for the model's"),
            ),
            budget=True,
        ),
        Method(
            "diff-pruning", "DiffPruning", "selective", None,
            "a sparse difference to the weights, by a relaxed L0 penalty and a final cut",
            "Guo et al. 2020, arXiv 2012.07463", ("targets",),
            sits_on=("none",),
            options=pruning_options(0.005, 5.0),
            hooks=("extra loss", "second stage"),
        ),
        *MIXED,
    )
}  # fmt: skip


# Option -> the key that gives a type's size; "rank" for others.
_SIZE_OF: dict[str | None, Size | None] = {
    None: None,
    "num_virtual_tokens": "tokens",
    "n_frequency": "width",
}


def _of_peft(kind: PeftType) -> Method:
    hooks: tuple[Hook, ...] = ("extra loss",) if kind.penalty else ()
    return Method(
        f"{PREFIX}{kind.key}",
        kind.title,
        "peft",
        _SIZE_OF.get(kind.size, "rank"),
        kind.summary,
        kind.source,
        ("targets",) if kind.where == "recipe" else (),
        options=None,
        hooks=(*hooks, "after each step") if kind.allocates else hooks,
        budget=bool(kind.size) and kind.grows and not kind.refused,
        not_causal=f"and {kind.not_causal}" if kind.not_causal else "",
    )


def method_of(key: str) -> Method | None:
    """The method of a key: of the catalogue, PEFT's, or a plug-in's as stored rows have it; None if
    there is none."""
    if key.startswith(PREFIX):
        kind = peft_type(key.removeprefix(PREFIX))
        return _of_peft(kind) if kind else None
    return METHODS.get(key) or absent.seen("method", key)


def all_methods() -> dict[str, Method]:
    """Every method by key, PEFT's types last."""
    return METHODS | {f"{PREFIX}{kind.key}": _of_peft(kind) for kind in PEFT_TYPES.values()}


class Cell(NamedTuple):
    """What a suite compares, one column of every table.

    Attributes:
        size: the method's rank, width or number of virtual tokens (`Method.size`); None for a
            method without size, or where a budget decides it.
        variant: what else sets it apart, such as "rising", "budget 0.1%" or "bf16"; empty if
            nothing does.
    """

    method: str
    size: int | None
    quantization: str
    variant: str = ""

    @property
    def stored(self) -> dict[str, str | int | None]:
        """The cell as files name it: the size, of whatever kind, is `rank` there."""
        return dict(zip(("method", "rank", "quantization", "variant"), self, strict=True))

    @property
    def trains(self) -> bool:
        """Whether it trains anything, as an unknown method does."""
        return getattr(method_of(self.method), "trains", True)

    @property
    def fits(self) -> bool:
        """Whether it is a line that needs no fine-tuning: an estimator that is fitted."""
        return bool(getattr(method_of(self.method), "fits", ""))


_SIZE_WORDS: dict[Size, str] = {"rank": "r{}", "width": "w{}", "tokens": "{} tokens"}


def size_text(method: str, size: int | None) -> str:
    """A size with its kind, such as "rank 8", "width 64" or "20 tokens"; empty without one."""
    if size is None:
        return ""
    known = method_of(method)
    kind = known.size if known and known.size else "rank"
    return f"{size} tokens" if kind == "tokens" else f"{kind} {size}"


def cell_title(method: str, size: int | None, quantization: str, variant: str = "") -> str:
    """The name of a cell in reports, such as "QLoRA r8" or "LoRA r8, bf16"."""
    known = method_of(method)
    name = known.title if known else method
    if method == "lora" and quantization == "nf4":
        name, quantization = "QLoRA", "none"
    if quantization != "none":
        base = quantization_of(quantization)
        name = f"{name} + {base.title if base else quantization}"
    if size is not None:
        kind = known.size if known and known.size else "rank"
        name = f"{name} {_SIZE_WORDS[kind].format(size)}"
    return f"{name}, {variant}" if variant else name


def known_method(key: str) -> Method:
    """The method of a key that was checked."""
    method = method_of(key)
    assert method is not None, key
    return method
