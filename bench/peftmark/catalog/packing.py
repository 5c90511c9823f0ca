"""What can be trained on rows that stand end to end in one (`packing`), and why the rest can't.

transformers keeps attention within such a row where a model makes its mask by
`create_causal_mask` and hands its positions on: where they begin again, another row begins. It does
so without a word where a model doesn't, and rows read each other then. So only models that were
tried are allowed: each gives the loss of the same rows one below the other to 1e-5 in fp32
(tests/lab/test_packing.py).
"""

from __future__ import annotations

from peftmark.catalog.method import Method
from peftmark.catalog.peft_types import PEFT_TYPES
from peftmark.catalog.task import Task

PACKED: tuple[str, ...] = (
    *("gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite", "llama", "mistral", "olmo2", "phi3"),
    *("qwen2", "qwen3", "smollm3"),
)
"""Architectures (`model_type` of their config) whose attention stays within a packed row."""

WITHOUT = "set packing: false"

_WITH_PREFIX = ("unipelt", "lora-prefix")
"""Methods that have a prefix for one of their parts."""

OF_A_PASS = ("lily", "peft:lily")
"""Methods that average over all tokens of a pass, those of padding too: Lily's router."""


def model_fault(kind: str) -> str:
    """Why a model of an architecture can't read packed rows; empty if it can."""
    if kind in PACKED:
        return ""
    return (
        f"a model of type {kind} was not seen to keep attention within its rows where they stand "
        f"end to end; types that do: {', '.join(PACKED)}; {WITHOUT}"
    )


def task_fault(task: Task) -> str:
    """Why rows of a task aren't packed; empty if they are."""
    if task.kind == "instruction":
        return ""
    return (
        f"{task.key} is a task of kind {task.kind}; packed are rows of instructions and their "
        f"answers alone, not what is read by class or as plain text; {WITHOUT}"
    )


def method_fault(method: Method) -> str:
    """Why a method can't train on packed rows; empty if it can."""
    kind = PEFT_TYPES.get(method.key.removeprefix("peft:"))
    before = method.family == "prompt" or method.key in _WITH_PREFIX
    if before or (method.family == "peft" and kind is not None and kind.where == "input"):
        return (
            f"{method.key} puts what it trains before each row, and packed rows have one beginning "
            f"for all; {WITHOUT}"
        )
    if method.key in OF_A_PASS:
        return (
            f"{method.key} averages over all tokens of a pass, padding among them, so packed rows "
            f"would train something else; {WITHOUT}"
        )
    if method.code or (method.family == "peft" and kind is None):
        return f"whether {method.key} keeps rows apart isn't known; {WITHOUT}"
    return ""
