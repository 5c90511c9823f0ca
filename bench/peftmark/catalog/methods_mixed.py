"""Methods that put parts of several methods together, as plain data (`METHODS` has them all)."""

from __future__ import annotations

from peftmark.catalog.later_options import LATER_OF_UNIPELT, MASK, PHASES
from peftmark.catalog.method import LORA, Method, Option


def pruning_options(density: float, second_rate: float) -> tuple[Option, ...]:
    """DiffPruning's options, with two of their defaults."""
    return (
        Option("density", density, (1e-5, 1), "share of the targets' weights that differ"),
        Option("l0_weight", 1.25e-7, (0, 1), "weight of the expected differences"),
        Option("alpha_rate", 0.1, (1e-6, 10), "learning rate of the gates' log alpha"),
        Option("cut_at", 0.6, (0.05, 0.95), "share of the steps before the cut"),
        Option("second_rate", second_rate, (0.001, 100), "learning rate after the cut over before"),
        MASK,
    )


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
    ),
    Method(
        "bitfit-lora", "BitFit + LoRA", "mixed", "rank", "LoRA, and the biases of the base",
        "arXiv 2106.10199 (BitFit), arXiv 2106.09685 (LoRA)", LORA, options=PHASES,
        hooks=("before each step",), budget=True,
    ),
    Method(
        "adapter-lora", "adapter + LoRA", "mixed", "rank",
        "LoRA, and a bottleneck adapter after each feed-forward block",
        "arXiv 1902.00751 (adapter), arXiv 2106.09685 (LoRA)", LORA,
        options=(
            Option("width", 16, (1, 4096), "width of the bottleneck adapter"),
            Option("activation", "gelu", ("relu", "gelu"), "between its two layers"),
            *PHASES,
        ),
        hooks=("before each step",), budget=True,
    ),
    Method(
        "lora-prefix", "LoRA + prefix", "mixed", "rank",
        "LoRA, and trained keys and values before each layer's own",
        "arXiv 2106.09685 (LoRA), arXiv 2101.00190 (prefix)", LORA,
        options=(Option("tokens", 20, (1, 512), "length of the prefix"), *PHASES),
        hooks=("before each step",),
    ),
    Method(
        "adapter-ia3", "adapter over IA3", "mixed", "width",
        "IA3 in the lower half of the layers, a bottleneck adapter in the upper half",
        "a practitioners' guide; arXiv 1902.00751 (adapter), arXiv 2205.05638 (IA3)",
        options=(Option("activation", "gelu", ("relu", "gelu"), "between an adapter's layers"),),
    ),
    Method(
        "growing-lora", "growing LoRA", "lora", "rank",
        "LoRA of low rank everywhere, then of the cell's rank in the layers that matter, then with "
        "the lowest layers frozen",
        "a practitioners' article; arXiv 2106.09685 (LoRA)", LORA,
        options=(
            Option("first_rank", 4, (1, 1024), "rank of every layer at first"),
            Option("first_stage", 0.35, (0.05, 0.9), "share of the steps before ranks grow"),
            Option("third_stage", 0.3, (0.05, 0.9), "share of the steps with low layers frozen"),
            Option("important", 0.5, (0.01, 1), "share of the layers that grow"),
            Option("frozen", 0.34, (0.01, 1), "share of the layers that are frozen, lowest first"),
            Option("second_rate", 1.0, (0.001, 100), "learning rate of the second over the first"),
            Option("third_rate", 1.0, (0.001, 100), "learning rate of the third over the first"),
        ),
        hooks=("after each step", "second stage"),
    ),
    Method(
        "diff-pruning-adapter", "DiffPruning, then adapter", "mixed", "width",
        "a sparse difference to the weights, then a bottleneck adapter on the model that it left",
        "a practitioners' guide; arXiv 2012.07463 (DiffPruning), arXiv 1902.00751 (adapter)",
        ("targets",), sits_on=("none",),
        options=(
            *pruning_options(0.05, 10.0),
            Option("activation", "gelu", ("relu", "gelu"), "between an adapter's layers"),
        ),
        hooks=("extra loss", "second stage"),
    ),
    Method(
        "bitfit-distilled", "BitFit from a teacher", "mixed", None,
        "full fine-tuning first, then the biases of a fresh base by labels and by what the tuned "
        "model says",
        "a practitioners' guide; arXiv 2106.10199 (BitFit), arXiv 1503.02531 (distillation)",
        sits_on=("none",),
        options=(
            Option("first_stage", 0.5, (0.05, 0.95), "share of the steps that the teacher takes"),
            Option("second_rate", 50.0, (0.001, 1000), "learning rate of the biases over that"),
            Option("temperature", 4.0, (0.1, 100), "what logits are divided by to be compared"),
            Option("distillation", 1.0, (0, 100), "weight of the comparison; 0 for labels alone"),
        ),
        hooks=("extra loss", "second stage"),
        freezes=False,
        not_causal="and a teacher's logits for every word of a vocabulary are too many to compare "
        "here; take bitfit",
    ),
)  # fmt: skip
