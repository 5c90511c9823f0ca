"""What guides to choosing a method advise, as plain data, and which comparison would judge it.

Two decision trees, a rule for ranks and what stands in the text beside them, retold in our words. A
branch without a test says why measured rows can't judge it.
"""

from __future__ import annotations

import math

from peftmark.advice.branches import (
    Advice,
    Group,
    Leaf,
    Question,
    Side,
    Test,
    When,
    branches,
)
from peftmark.advice.rank_rule import FEW as FEW_ROWS
from peftmark.advice.rank_rule import MANY as MANY_ROWS

RANKS = "an article on choosing LoRA ranks, decision function"
FAMILIES = "a guide to PEFT families, decision tree"
FAMILIES_TEXT = "a guide to PEFT families, text beside the tree"
TWO = "a guide to AdaLoRA and QLoRA, decision tree"
TWO_TEXT = "a guide to AdaLoRA and QLoRA, results"

FEW, ENOUGH_ROWS, MANY = (0, FEW_ROWS), (FEW_ROWS, math.inf), (MANY_ROWS + 1, math.inf)
SMALL, LARGE = When(memory=(0, 24e9)), When(memory=(24e9, math.inf))
ONLY_YOU = When(yours=True)
SAME_SIZE = ("size", "variant")
SAME_METHOD = ("method", "quantization", "variant")

LORA = Group("LoRA", ("lora",))
QLORA = Group("LoRA on a quantised base", ("lora",), True)
ADALORA = Group("AdaLoRA", ("adalora",))
PROMPTS = Group(
    "prompt methods", ("prompt-tuning", "prefix-tuning", "p-tuning", "p-tuning-v2"), None
)
LOW = Group("rank up to 8", ("lora", "adalora"), None, (1, 8))
HIGH = Group("rank from 16", ("lora", "adalora"), None, (16, math.inf))

RULE = (
    Advice(
        "there are fewer than 1,000 training rows",
        "halve the ranks, as low ones overfit less",
        RANKS,
        Test("low ranks score higher than high ones", "score", LOW, HIGH, SAME_METHOD, FEW),
        when=When(FEW),
    ),
    Advice(
        "there are more than 10,000 training rows",
        "raise the ranks by half",
        RANKS,
        Test("high ranks score higher than low ones", "score", HIGH, LOW, SAME_METHOD, MANY),
        when=When(MANY),
    ),
    Advice(
        "memory is short",
        "scale the ranks down until they fit",
        RANKS,
        Test("low ranks need less memory than high ones", "memory", LOW, HIGH, SAME_METHOD),
        when=ONLY_YOU,
    ),
    Advice(
        "the task is to generate text, or the model has more than a billion parameters",
        "raise the ranks",
        RANKS,
        Test(
            "high ranks score higher than low ones where text is generated", "score", HIGH, LOW,
            SAME_METHOD, kinds=("instruction",),
        ),
        when=When(large_or_text=True),
    ),
)  # fmt: skip
"""Steps of the rule for ranks; each whose condition holds applies. Its numbers are in
`peftmark.advice.rank_rule`."""

NOT_CLOSE = "closeness to pre-training is not measured"
_BY_CLOSENESS = Question(
    yes=Side(
        "the task is close to pre-training",
        ONLY_YOU,
        (Leaf("prompt or prefix tuning (in the text: BitFit or DiffPruning)", reason=NOT_CLOSE),),
    ),
    no=Side(
        "the task is not close to pre-training",
        ONLY_YOU,
        (Leaf("LoRA, or full fine-tuning if it can be afforded", reason=NOT_CLOSE),),
    ),
)
_BY_ROWS = Question(
    yes=Side(
        "there are fewer than 1,000 training rows",
        When(FEW),
        (
            Leaf(
                "an adapter or LoRA",
                Test(
                    "adapters and LoRA score higher than prompt methods",
                    "score",
                    Group("adapters and LoRA", ("adapter", "lora")),
                    PROMPTS,
                    rows=FEW,
                ),
            ),
        ),
    ),
    no=Side("there are at least 1,000 training rows", When(ENOUGH_ROWS), _BY_CLOSENESS),
)
FAMILIES_TREE = Question(
    yes=Side(
        "the GPU has less than 24 GB",
        SMALL,
        (
            Leaf(
                "QLoRA",
                Test("QLoRA needs less memory than LoRA", "memory", QLORA, LORA, SAME_SIZE),
            ),
            Leaf(
                "IA3",
                Test("IA3 needs less memory than LoRA", "memory", Group("IA3", ("ia3",)), LORA),
            ),
        ),
    ),
    no=Side("the GPU has 24 GB or more", LARGE, _BY_ROWS),
)

SHARE = 0.001
"""Of a model's parameters that an adapter may have, by the second tree."""
_BY_SCORE = Question(
    yes=Side(
        "the highest score is needed",
        ONLY_YOU,
        (
            Leaf(
                "AdaLoRA",
                Test("AdaLoRA scores higher than QLoRA", "score", ADALORA, QLORA, SAME_SIZE),
            ),
        ),
    ),
    no=Side(
        "a little loss is fine",
        ONLY_YOU,
        (
            Leaf(
                "QLoRA",
                Test("QLoRA needs less memory than AdaLoRA", "memory", QLORA, ADALORA, SAME_SIZE),
            ),
            Leaf(
                "QLoRA, at the price of one or two points",
                Test("QLoRA loses 2 points at most", "score", QLORA, LORA, SAME_SIZE, drop=2.0),
            ),
        ),
    ),
)
_BY_SHARE = Question(
    yes=Side(
        "the adapter may have at most 0.1 % of the model's parameters",
        ONLY_YOU,
        (
            Leaf(
                "AdaLoRA",
                Test(
                    "within 0.1 %, AdaLoRA scores higher than LoRA, quantised or not",
                    "score",
                    ADALORA,
                    Group("LoRA", ("lora",), None),
                    SAME_SIZE,
                    share=(0.0, SHARE),
                ),
            ),
        ),
    ),
    no=Side(
        "the adapter may have more than 0.1 % of them",
        ONLY_YOU,
        (
            Leaf(
                "QLoRA",
                Test(
                    "above 0.1 %, QLoRA needs less memory than AdaLoRA",
                    "memory",
                    QLORA,
                    ADALORA,
                    SAME_SIZE,
                    share=(SHARE, math.inf),
                ),
            ),
        ),
    ),
)
_BY_ROUNDS = Question(
    yes=Side(
        "adapters are trained again and again",
        ONLY_YOU,
        (
            Leaf(
                "AdaLoRA, whose importance scores serve the next time too",
                reason="no run begins with the importance scores of another",
            ),
        ),
    ),
    no=Side("adapters are trained once", ONLY_YOU, _BY_SHARE),
)
TWO_TREE = Question(
    yes=Side("the GPU has less than 24 GB", SMALL, _BY_SCORE),
    no=Side("the GPU has 24 GB or more", LARGE, _BY_ROUNDS),
)

BESIDE_FAMILIES = (
    Advice(
        "there are fewer than 1,000 training rows",
        "prompt or prefix tuning, against its own tree",
        FAMILIES_TEXT,
        Test(
            "prompt and prefix tuning score higher than full fine-tuning",
            "score",
            Group("prompt and prefix tuning", ("prompt-tuning", "prefix-tuning")),
            Group("full fine-tuning", ("full",)),
            rows=FEW,
        ),
        when=When(FEW),
    ),
    Advice(
        "only the score counts",
        "UniPELT",
        FAMILIES_TEXT,
        Test(
            "UniPELT scores higher than LoRA, adapter and prefix tuning alone",
            "score",
            Group("UniPELT", ("unipelt",)),
            Group("its parts alone", ("lora", "adapter", "prefix-tuning")),
        ),
        when=ONLY_YOU,
    ),
    Advice(
        "only the score counts",
        "an adapter together with LoRA",
        FAMILIES_TEXT,
        Test(
            "an adapter with LoRA scores higher than either alone",
            "score",
            Group("adapter with LoRA", ("adapter-lora",)),
            Group("adapter and LoRA alone", ("adapter", "lora")),
        ),
        when=ONLY_YOU,
    ),
    Advice(
        "latency counts",
        "LoRA or IA3, which merge into the base, rather than an adapter",
        FAMILIES_TEXT,
        Test(
            "merged LoRA and IA3 answer faster than an adapter",
            "latency",
            Group("LoRA and IA3", ("lora", "ia3")),
            Group("adapter", ("adapter",)),
        ),
        when=ONLY_YOU,
    ),
)
BESIDE_TWO = (
    Advice(
        "the score matters",
        "AdaLoRA, 1.5 to 2.1 points above LoRA of the same size",
        TWO_TEXT,
        Test("AdaLoRA scores higher than LoRA", "score", ADALORA, LORA, SAME_SIZE),
        when=ONLY_YOU,
    ),
    Advice(
        "both memory and score matter",
        "AdaLoRA on a quantised base, 1.2 points above QLoRA",
        TWO_TEXT,
        Test(
            "on a quantised base, AdaLoRA scores higher than LoRA",
            "score",
            Group("AdaLoRA on a quantised base", ("adalora",), True),
            QLORA,
            ("size", "quantization", "variant"),
        ),
        when=ONLY_YOU,
    ),
)

ADVICE: tuple[Advice, ...] = (
    *RULE,
    *branches(FAMILIES_TREE, FAMILIES),
    *BESIDE_FAMILIES,
    *branches(TWO_TREE, TWO),
    *BESIDE_TWO,
)
"""Every branch of every guide."""
