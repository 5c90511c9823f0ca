"""What guides to choosing a method advise, as plain data, and which comparison would judge it.

The advice is retold in our words. A row without a test says why measured rows can't judge it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from peftmark.catalog.task import TaskKind

RANKS = "an article on choosing LoRA ranks, decision function"
FAMILIES = "a guide to PEFT families, decision tree"
FAMILIES_TEXT = "a guide to PEFT families, text beside the tree"
TWO = "a guide to AdaLoRA and QLoRA, decision tree"
TWO_TEXT = "a guide to AdaLoRA and QLoRA, results"

Figure = Literal["score", "memory", "latency"]


@dataclass(frozen=True)
class Group:
    """Some cells.

    Attributes:
        title: what to call them.
        methods: their methods.
        quantized: whether their base is quantised; None for either.
        ranks: lowest and highest size allowed.
    """

    title: str
    methods: tuple[str, ...]
    quantized: bool | None = False
    ranks: tuple[float, float] | None = None


@dataclass(frozen=True)
class Test:
    """A comparison that judges an advice: every pair of a cell of `better` and one of `than`.

    Attributes:
        says: what the guide's advice implies for measured rows, as a statement.
        figure: the score, where higher is better, or a cost, where lower is.
        alike: fields of a cell that a pair must share.
        rows: training rows that a task must have: at least the first, less than the second.
        drop: points of the score that `better` may lie below `than`.
        share: largest share of the base's parameters that both cells' adapters may have.
        kinds: kinds that a task must be one of; empty for any.
    """

    __test__ = False  # pytest takes a class of this name for its own

    says: str
    figure: Figure
    better: Group
    than: Group
    alike: tuple[str, ...] = ()
    rows: tuple[float, float] = (0, math.inf)
    drop: float = 0.0
    share: float | None = None
    kinds: tuple[TaskKind, ...] = ()


@dataclass(frozen=True)
class When:
    """What a condition asks of rows, memory, task and model; what is left open asks nothing.

    Attributes:
        rows: at least the first, less than the second.
        memory: bytes that the GPU has, likewise.
        large_or_text: text is generated, or the model has more than a billion parameters.
    """

    rows: tuple[float, float] = (0, math.inf)
    memory: tuple[float, float] = (0, math.inf)
    large_or_text: bool = False

    def holds(
        self, rows: int | None, memory: int | None, writes: bool, parameters: int | None
    ) -> bool | None:
        """Whether it holds for what a user has; None where that isn't known.

        Args:
            writes: whether the task is to generate text.
        """
        told: list[bool | None] = []
        for value, (low, high) in ((rows, self.rows), (memory, self.memory)):
            if (low, high) != (0, math.inf):
                told.append(None if value is None else low <= value < high)
        if self.large_or_text:
            told.append(True if writes else None if parameters is None else parameters > 1e9)
        return False if False in told else None if None in told else True


@dataclass(frozen=True)
class Advice:
    """One branch of a guide.

    Attributes:
        condition: what follows "if".
        when: the same of what a user has; an empty one where only the user knows.
        advice: what the guide says then.
        test: the comparison that judges it; None where none can.
        reason: why not; empty with a test.
    """

    condition: str
    advice: str
    source: str
    test: Test | None = None
    reason: str = ""
    when: When = When()


FEW = (0, 1000)
MANY = (10_001, math.inf)
SMALL, ENOUGH = When(memory=(0, 24e9)), When(FEW, (24e9, math.inf))
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

ADVICE: tuple[Advice, ...] = (
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
    Advice(
        "the GPU has less than 24 GB",
        "QLoRA",
        FAMILIES,
        Test("QLoRA needs less memory than LoRA", "memory", QLORA, LORA, SAME_SIZE),
        when=SMALL,
    ),
    Advice(
        "the GPU has less than 24 GB",
        "IA3",
        FAMILIES,
        Test("IA3 needs less memory than LoRA", "memory", Group("IA3", ("ia3",)), LORA),
        when=SMALL,
    ),
    Advice(
        "memory is enough, with fewer than 1,000 training rows",
        "an adapter or LoRA",
        FAMILIES,
        Test(
            "adapters and LoRA score higher than prompt methods",
            "score",
            Group("adapters and LoRA", ("adapter", "lora")),
            PROMPTS,
            rows=FEW,
        ),
        when=ENOUGH,
    ),
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
        "memory and rows are enough and the task is close to pre-training",
        "prompt or prefix tuning (in the text: BitFit or DiffPruning)",
        FAMILIES,
        reason="closeness to pre-training is not measured",
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
    ),
    Advice(
        "the GPU has less than 24 GB and a little loss is fine",
        "QLoRA, at the price of one or two points",
        TWO,
        Test("QLoRA loses 2 points at most", "score", QLORA, LORA, SAME_SIZE, drop=2.0),
        when=SMALL,
    ),
    Advice(
        "the highest score is needed",
        "AdaLoRA, 1.5 to 2.1 points above LoRA of the same size",
        TWO,
        Test("AdaLoRA scores higher than LoRA", "score", ADALORA, LORA, SAME_SIZE),
    ),
    Advice(
        "the adapter may have at most 0.1 % of the model's parameters",
        "AdaLoRA",
        TWO,
        Test(
            "within 0.1 %, AdaLoRA scores higher than LoRA",
            "score", ADALORA, LORA, SAME_SIZE, share=0.001,
        ),
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
    ),
)  # fmt: skip
