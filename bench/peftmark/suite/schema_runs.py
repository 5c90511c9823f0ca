"""The parts of a suite file that say which runs there are: axes, trials, seeds that are added."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from peftmark.core.questions import Question
from peftmark.core.strict import Strict
from peftmark.record.outcome import FIRST_LOOK
from peftmark.record.recipe import Precision

OPTIONS = "options."
"""What stands before the name of a method's own setting."""
TUNED = (
    *("learning_rate", "schedule", "weight_decay", "max_grad_norm", "label_smoothing"),
    *("head_dropout", "alpha", "dropout"),
    *("adalora.beta1", "adalora.beta2", "adalora.orthogonal_weight"),
)
"""Settings that trials may vary: none that changes what a step costs or which rows are
read, and none that is counted in steps, since trials are shorter."""


def _knob(name: str) -> str:
    """The name of a setting that trials may vary."""
    if name in TUNED or (name.startswith(OPTIONS) and len(name) > len(OPTIONS)):
        return name
    raise PydanticCustomError(
        "knob",
        "not a setting that trials vary; allowed: {allowed}, {options}NAME",
        {"allowed": ", ".join(TUNED), "options": OPTIONS},
    )


KnobName = Annotated[str, AfterValidator(_knob)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Vary(Strict):
    """Axes that cross every cell of a profile alike; see `peftmark.suite.load.variants`."""

    precision: Annotated[list[Precision], Field(min_length=2)] | None = None
    weights: Annotated[list[Precision], Field(min_length=2)] | None = None
    gradient_checkpointing: Annotated[list[bool], Field(min_length=2)] | None = None


class Tuning(Strict):
    """Trials of the settings of a grid, before the jobs that are reported.

    Attributes:
        seeds: of the trials; none that is reported.
        trainings: steps that the trials of a cell on a task take together, in trainings as long as
            a reported one, the same for every method (`peftmark.suite.rounds`); without it every
            setting is trained at whole length, and all grids have equally many.
        around: factors of the learning rate of a method's recipe, the rates that are tried where
            its entry has no grid.
        best: how many cells are reported, those that did best in trials, beside the reference
            (`peftmark.suite.search`); without it all are.
    """

    seeds: Annotated[list[Seed], Field(min_length=1)]
    trainings: Annotated[int, Field(ge=4, le=100)] | None = None
    around: Annotated[list[Positive], Field(min_length=2)] | None = None
    best: Annotated[int, Field(ge=1, le=100)] | None = None


def rates_around(rate: float, factors: Iterable[float]) -> list[float]:
    """Multiples of a rate, to three digits: 5e-3 times 0.1 is no 0.0005000000000000001."""
    return [float(f"{rate * factor:.3g}") for factor in factors]


class Decide(Strict):
    """Seeds are added until a question is answered; `peftmark run --until-decided` says the same.

    Attributes:
        question: see `peftmark.core.questions`.
        max_seeds: seeds that there may be at most.
    """

    question: Question = "reference"
    max_seeds: Annotated[int, Field(ge=FIRST_LOOK, le=100)] = 12
