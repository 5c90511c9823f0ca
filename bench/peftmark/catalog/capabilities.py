"""What each method can do, as probed on tiny models: the file beside this module, as plain data.

`python -m peftmark.docgen.capabilities` writes the file; nothing in it is typed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PROBED = Path(__file__).with_name("capabilities.json")
LIBRARIES = ("peft", "torch", "transformers", "bitsandbytes", "torchao", "optimum-quanto")
"""What was tried is mostly theirs: a file names the versions of these."""
AGAIN = "python -m peftmark.docgen.capabilities"
NOT_TRIED = f"not tried yet: {AGAIN} --missing does"
"""The reason of an answer that a run which was stopped left open."""

_WHOLE_FAMILY = "a back-end takes a type of PEFT or doesn't, and this one fails on"
_MASKED = "what its masks and its merge do to such weights was not looked at"
ALL_THE_SAME: dict[tuple[str, str], str] = {
    ("peft:peanut", "int8"): "its network reads the 8-bit numbers in place of the weights that "
    "they stand for; it trains and is the same after loading, and starts at zero, which hides it",
    ("peft:deft", "fp8-torchao"): f"{_WHOLE_FAMILY} int8-torchao",
    ("peft:hra", "int8-quanto"): f"{_WHOLE_FAMILY} int4-quanto",
    ("peft:hra", "fp8-quanto"): f"{_WHOLE_FAMILY} int4-quanto",
    ("peft:shira", "int8-quanto"): f"{_WHOLE_FAMILY} int4-quanto",
    ("peft:shira", "fp8-quanto"): f"{_WHOLE_FAMILY} int4-quanto",
    **{
        (method, base): _MASKED
        for method in ("diff-pruning", "diff-pruning-adapter")
        for base in ("int8-quanto", "fp8-quanto", "int4-quanto")
    },
}
"""(method, base) -> why a suite is refused it though it ran where it was tried."""


@dataclass(frozen=True)
class Answer:
    """Whether something can be.

    Attributes:
        holds: None where it isn't known, or where the question doesn't arise.
        reason: why not, in the words of the library that refuses, or why it isn't known; empty
            where it holds.
    """

    holds: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What a method can do.

    Attributes:
        merges: base format -> whether what was trained folds into such a base and leaves a plain
            model that says the same.
        several: whether two adapters of it are held on one base, each saying what it says alone
            once it is switched to.
        hot_swaps: whether PEFT's `hotswap_adapter` puts another's weights in place of one's, to the
            bits of that other loaded afresh.
        encoders: whether it trains on an encoder with a classifier and is the same after loading.
        language_models: the same of causal language models.
        sits_on: base format -> whether it trains there and is the same after loading.
        devices: "cpu" or "cuda" -> whether it trains there.
    """

    merges: Mapping[str, Answer]
    several: Answer
    hot_swaps: Answer
    encoders: Answer
    language_models: Answer
    sits_on: Mapping[str, Answer]
    devices: Mapping[str, Answer]


@dataclass(frozen=True)
class Probed:
    """The whole file.

    Attributes:
        versions: library -> its version where the methods were probed.
        methods: method -> what it can do.
    """

    versions: Mapping[str, str]
    methods: Mapping[str, Capabilities] = field(default_factory=dict)


@cache
def probed() -> Probed:
    """What the package's file says."""
    return read(PROBED.read_text(encoding="utf-8"))


def read(text: str) -> Probed:
    """The inverse of `written`."""
    content = json.loads(text)
    methods = {key: _capabilities(found) for key, found in content["methods"].items()}
    return Probed(content["versions"], methods)


def written(found: Probed) -> str:
    """A file's text, methods in their order."""
    methods = {
        key: {name: _plain(value) for name, value in vars(one).items()}
        for key, one in found.methods.items()
    }
    content = {"versions": dict(found.versions), "methods": methods}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """An answer as JSON has it: true, or [false or null, why]."""
    if isinstance(value, Answer):
        return True if value.holds else [value.holds, value.reason]
    return {name: _plain(one) for name, one in value.items()}


def _capabilities(content: Mapping[str, Any]) -> Capabilities:
    return Capabilities(**{name: _answer(value) for name, value in content.items()})


def _answer(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _answer(one) for name, one in value.items()}
    return Answer(True) if value is True else Answer(*value)
