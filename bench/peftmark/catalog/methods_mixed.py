"""Methods that put parts of several methods together, as plain data (`METHODS` has them all)."""

from __future__ import annotations

from peftmark.catalog.later_options import LATER_OF_UNIPELT
from peftmark.catalog.method import LORA, Method, Option

MIXED: tuple[Method, ...] = (
    Method(
        "unipelt", "UniPELT", "mixed", "rank",
        "adapter, prefix and LoRA in every layer, each behind a gate of its own",
        "Mao et al. 2021, arXiv 2110.07577", ("alpha", "dropout"),
        options=(
            Option("width", 48, (1, 4096), "width of the bottleneck adapter"),
            Option("tokens", 10, (1, 512), "length of the prefix"),
            *LATER_OF_UNIPELT,
        ), budget=True,
        not_causal="and each gate is a mean over a whole row, with the tokens in it that are "
        "to be predicted; take adapter-lora",
    ),
    Method(
        "bitfit-lora", "BitFit + LoRA", "mixed", "rank", "LoRA, and the biases of the base",
        "arXiv 2106.10199 (BitFit), arXiv 2106.09685 (LoRA)", LORA, budget=True,
    ),
    Method(
        "adapter-lora", "adapter + LoRA", "mixed", "rank",
        "LoRA, and a bottleneck adapter after each feed-forward block",
        "arXiv 1902.00751 (adapter), arXiv 2106.09685 (LoRA)", LORA,
        options=(
            Option("width", 16, (1, 4096), "width of the bottleneck adapter"),
            Option("activation", "gelu", ("relu", "gelu"), "between its two layers"),
        ),
        budget=True,
    ),
    Method(
        "lora-prefix", "LoRA + prefix", "mixed", "rank",
        "LoRA, and trained keys and values before each layer's own",
        "arXiv 2106.09685 (LoRA), arXiv 2101.00190 (prefix)", LORA,
        options=(Option("tokens", 20, (1, 512), "length of the prefix"),),
        not_causal="and where a prefix comes into the attention is known of encoders alone; take "
        "lora or p-tuning-v2",
    ),
    Method(
        "adapter-ia3", "adapter over IA3", "mixed", "width",
        "IA3 in the lower half of the layers, a bottleneck adapter in the upper half",
        "a practitioners' guide; arXiv 1902.00751 (adapter), arXiv 2205.05638 (IA3)",
        options=(Option("activation", "gelu", ("relu", "gelu"), "between an adapter's layers"),),
    ),
)  # fmt: skip
