"""What a fine-tuning method is: its size, its options, what it reads and needs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from peftmark.catalog.quantizations import QUANTIZATIONS

Size = Literal["rank", "width", "tokens"]
Family = Literal["reference", "lora", "adalora", "adapter", "selective", "prompt", "mixed", "peft"]
Hook = Literal[
    "before initialisation",
    "extra loss",
    "before each step",
    "own optimizer",
    "after each step",
    "second stage",
]
ANY: tuple[str, ...] = ()
"""As what a method sits on: every quantization there is."""
LORA = ("targets", "alpha", "dropout")
"""Settings of the recipe that LoRA reads."""


@dataclass(frozen=True)
class Option:
    """A setting that one method alone has.

    Attributes:
        default: its value where a suite says nothing; its type is the option's type.
        allowed: the values it may take, or (lowest, highest) of a number.
        summary: one line, with the unit.
        before: what jobs did before there was the option; where a job does that, the option is not
            stored, so that ids stay. None for an option that the method has had from the start.
    """

    name: str
    default: bool | int | float | str
    allowed: tuple[str, ...] | tuple[float, float] | None
    summary: str
    before: bool | int | float | str | None = None

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value; None if nothing is."""
        if isinstance(self.default, bool):
            return None if isinstance(value, bool) else "allowed: true, false"
        if isinstance(self.default, str):
            allowed = self.allowed or ()
            fine = isinstance(value, str) and value in allowed
            return None if fine else f"allowed: {', '.join(map(str, allowed))}"
        kinds = (int,) if isinstance(self.default, int) else (int, float)
        what = "a whole number" if isinstance(self.default, int) else "a number"
        low, high = self.allowed or (-math.inf, math.inf)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return f"allowed: {what} from {low:g} to {high:g}"
        fine = float(low) <= value <= float(high)
        return None if fine else f"allowed: {what} from {low:g} to {high:g}"


@dataclass(frozen=True)
class Method:
    """A fine-tuning method.

    Attributes:
        size: what the suite's `size` is: a rank, a width or a number of tokens; None for a method
            without.
        settings: the recipe's adapter settings that it reads: targets, alpha, dropout.
        schedule: whether it reads the recipe's `adalora`.
        sits_on: base formats it can sit on; `ANY` for all (`quantizations` has their names).
        options: settings of its own; None where any name goes (PEFT checks them when it runs).
        hooks: which calls of the training loop it needs.
        budget: whether a parameter budget may stand in place of its size.
        source: the paper that defines it.
        trains: whether it trains anything, step by step.
        fits: what an estimator is fitted on in place of that: on the words alone, or on what the
            model makes of a text; empty for every other method. Such a method is there for
            encoders' tasks, and no seed changes it.
        freezes: whether weights of the base stay frozen, so that they may be stored in fewer bits.
        not_causal: why it can't be put on a causal language model, as a clause after "is a causal
            language model, "; empty if it can, as far as is known without the model.
        code: `module:function` of a plug-in's; empty for peftmark's own (`peftmark.lab.methods`).
    """

    key: str
    title: str
    family: Family
    size: Size | None
    summary: str
    source: str
    settings: tuple[str, ...] = ()
    schedule: bool = False
    sits_on: tuple[str, ...] = ANY
    options: tuple[Option, ...] | None = ()
    hooks: tuple[Hook, ...] = ()
    budget: bool = False
    trains: bool = True
    fits: Literal["", "words", "model"] = ""
    freezes: bool = True
    not_causal: str = ""
    code: str = ""

    @property
    def quantizations(self) -> tuple[str, ...]:
        """The base formats that it can sit on, by name."""
        return self.sits_on or tuple(QUANTIZATIONS)

    @property
    def untrained(self) -> str:
        """What is done in place of training, as a clause; empty for a method that trains."""
        if self.trains:
            return ""
        return "an estimator is fitted, nothing trains by steps" if self.fits else "nothing trains"

    @property
    def size_word(self) -> str:
        """What one size is called: rank, width or number of tokens; "size" without one."""
        return "number of tokens" if self.size == "tokens" else self.size or "size"

    def option_faults(self, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(name, what is wrong) of each option that can't be."""
        if self.options is None:
            return
        known = {option.name: option for option in self.options}
        for name, value in given.items():
            if name not in known:
                names = ", ".join(known) or "none"
                yield name, f"unknown option of {self.key}; its options: {names}"
            elif fault := known[name].fault(value):
                yield name, f"found {value!r}; {fault}"

    def resolved_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every option with its value, but those that came later and are as before."""
        found = {option.name: option.default for option in self.options or ()} | dict(given)
        later = {o.name: o.before for o in self.options or () if o.before is not None}
        return {
            name: value
            for name, value in found.items()
            if name not in later or value != later[name]
        }

    def option(self, stored: Mapping[str, Any], name: str) -> Any:
        """The value of an option in a recipe, which may be older than the option."""
        if name in stored:
            return stored[name]
        return next(o.before for o in self.options or () if o.name == name)
