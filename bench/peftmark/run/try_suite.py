"""The suite of `peftmark try`: which methods fit the memory, and how many steps fit the hours.

A draft is written to a temporary folder and planned there, like any suite; what is predicted of it
decides what the suite says. Nothing is written before that.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.catalog.methods import Cell, cell_title
from peftmark.core.amounts import size_text
from peftmark.core.errors import UserError
from peftmark.duration.estimates import key_of, wall_seconds
from peftmark.machine.gpus import room
from peftmark.memory.plan_estimates import outlooks
from peftmark.own.suite_text import in_form, name_in, recipe_lines, suite_text
from peftmark.run.expected import costs_here, expected, measured_costs, unpredicted
from peftmark.run.own_models import shapes_of
from peftmark.run.progress import clock
from peftmark.run.runner import Selection, make_plan

if TYPE_CHECKING:
    from peftmark.machine.gpus import Device
    from peftmark.run.runner import Plan
    from peftmark.sources.stored_form import StoredForm

METHODS: Mapping[bool, tuple[str, ...]] = {
    False: (
        "lora",
        "{method: lora, quantization: [nf4]}",
        "adalora",
        "full",
        "head",
        "bag-of-words",
    ),
    True: ("lora", "{method: lora, quantization: [nf4]}", "adalora", "full", "base"),
}
"""For encoders and for causal language models: the methods to choose from, and lines to hold them
against that need no fine-tuning."""
TUNING_SEED = 100
TRAININGS = 4
"""Steps of a cell's trials, in trainings as long as a reported one: a grid of four rates once."""
MAX_SEEDS = 12
SHARE = 0.65
"""Of the hours, what trials and the first look may be predicted to take: predictions are off by
some tens of percent (docs/time.md), and the report takes time too."""
FEWEST, MOST_EPOCHS = 40, 5.0
"""Steps below which a comparison says nothing, and the most passes over the rows that are made."""


@dataclass(frozen=True)
class Wanted:
    """What the user asked for.

    Attributes:
        name: of the suite and its task.
        keys: the task's declaration.
        why: what was guessed of it.
        causal: whether the model is a causal language model.
        form: how its weights are quantised already; None for whole ones.
        read_as: what the user's own model is taken for; None for what its configuration says.
        hours: that all may take.
        device: the GPU whose memory must be enough; None for any.
    """

    name: str
    keys: Mapping[str, Any]
    why: Sequence[str]
    model: str
    causal: bool
    form: StoredForm | None
    read_as: str | None
    hours: float
    device: Device | None


@dataclass(frozen=True)
class Fitted:
    """A suite that fits.

    Attributes:
        text: of its file.
        left_out: why methods are not in it, a sentence each.
        steps: of a training.
        epochs: passes over the training rows that these are.
        seconds: that its trials and first look are predicted to take; None if nobody knows.
        five: steps of five passes over the rows, or the fewest.
    """

    text: str
    left_out: tuple[str, ...]
    steps: int
    epochs: float
    seconds: float | None
    five: int

    @property
    def told(self) -> str:
        """How long a training is and why, as a sentence."""
        text = f"Trainings have {self.steps:,} steps ({self.epochs:.1f} passes over the rows)"
        if self.steps < self.five:
            return f"{text}, as many as were predicted to fit into the hours; more may help."
        return f"{text}."


def fitted(wanted: Wanted, selection: Selection, tell: Callable[[str], None]) -> Fitted:
    """The suite with the methods and steps that fit.

    Args:
        selection: where results and the mirror are; its suite and folder of suites don't count.
        tell: is told in a sentence what is being found out.

    Raises:
        UserError: no method fits into the memory, or not even the shortest comparison into the
            hours.
    """
    methods, left_out = in_form(METHODS[wanted.causal], wanted.form), []
    tell("Predicting memory and time")
    plan = _planned(wanted, methods, FEWEST, selection)
    if wanted.device is not None:
        fits = _too_large(plan, wanted.device)
        methods = [m for m in methods if m not in {_entry_of(cell) for cell in fits}]
        left_out = [f"{cell_title(*cell)} {why}" for cell, why in fits.items()]
        if not _trained(methods):
            raise UserError(
                f"--memory: nothing that trains fits: {'; '.join(left_out)}",
                "Give more memory, or a smaller --model.",
            )
        plan = _planned(wanted, methods, FEWEST, selection)
    every = (*plan.jobs, *plan.expanded.waits)
    job = next(job for job in every if job.purpose == "report" and job.cell.trains)
    rows = job.task_facts.train_rows - job.recipe.selection_rows
    most = max(FEWEST, round(MOST_EPOCHS * rows / job.recipe.batch_size))
    steps, seconds = _steps(wanted, methods, selection, plan, most, tell)
    epochs = steps * job.recipe.batch_size / rows
    return Fitted(
        text=_text(wanted, methods, steps, _why_steps(wanted, steps, most)),
        left_out=tuple(left_out),
        steps=steps,
        epochs=epochs,
        seconds=seconds,
        five=most,
    )


def _steps(
    wanted: Wanted,
    methods: Sequence[str],
    selection: Selection,
    shortest: Plan,
    most: int,
    tell: Callable[[str], None],
) -> tuple[int, float | None]:
    """As many steps as fit into the hours, at most so many, and what all is predicted to take.

    Time is a start and an evaluation a job, and so much a step: two predictions tell both.

    Raises:
        UserError: not even the fewest fit.
    """
    room = SHARE * 3600 * wanted.hours
    low = _seconds(shortest, tell)
    if low is None:
        tell("Nobody knows how long a step takes here: steps are those of a pass over the rows")
        return max(FEWEST, round(most / MOST_EPOCHS)), None
    if low > room:
        needed = math.ceil(100 * low / SHARE / 3600) / 100
        raise UserError(
            f"--hours {wanted.hours:g}: the shortest comparison of {len(methods)} methods takes "
            f"about {clock(low)} here ({FEWEST} steps, {TRAININGS} trials and 3 seeds each)",
            f"Give --hours {needed:g} or more.",
        )
    if most == FEWEST:
        return FEWEST, low
    high = _seconds(_planned(wanted, methods, most, selection), tell)
    if high is None or high <= room:
        return most, high
    steps = int(FEWEST + (most - FEWEST) * (room - low) / (high - low))
    return steps, _seconds(_planned(wanted, methods, steps, selection), tell)


def _seconds(plan: Plan, tell: Callable[[str], None]) -> float | None:
    """Seconds that trials and the first look take; None where nobody knows."""
    if not plan.slots or unpredicted(plan):
        return None
    costs = costs_here(plan)
    if costs is None:
        tell("This machine is measured first, once, in some 20 seconds")
        costs = measured_costs(plan)
    found = expected(plan, costs)
    jobs = [*plan.jobs, *plan.expanded.waits]
    known = [s for job in jobs if (s := found[key_of(job)].seconds) is not None]
    if not known:
        return None
    mean = sum(known) / len(known)
    return wall_seconds([*known, *[mean] * (len(jobs) - len(known))], plan.venue.at_once)


def _too_large(plan: Plan, device: Device) -> dict[Cell, str]:
    """The cells whose tensors don't fit, with what they would take."""
    jobs = [job for job in (*plan.jobs, *plan.expanded.waits) if job.cell.trains]
    found = outlooks(jobs, plan.places.cache, device, shapes=shapes_of(plan.own_files))
    most = size_text(max(0, room(device.memory_bytes)))
    return {
        one.job.cell: f"would take {size_text(one.forecast.total)} where {most} are left"
        for one in found
        if one.fits is False
    }


def _planned(wanted: Wanted, methods: Sequence[str], steps: int, selection: Selection) -> Plan:
    """The plan of a draft."""
    with tempfile.TemporaryDirectory(prefix="peftmark-") as folder:
        draft = Path(folder) / f"{wanted.name}.yaml"
        draft.write_text(_text(wanted, methods, steps, ""), encoding="utf-8")
        asked = replace(selection, suite=wanted.name, suites=Path(folder))
        return make_plan(asked)


def _text(wanted: Wanted, methods: Sequence[str], steps: int, why: str) -> str:
    more = [
        *(f"{line}{why}" for line in recipe_lines(wanted.form, f"steps: {steps}")),
        f"tuning: {{seeds: [{TUNING_SEED}], trainings: {TRAININGS}}}",
        f"decide: {{question: best, max_seeds: {MAX_SEEDS}}}",
    ]
    return suite_text(
        wanted.name,
        wanted.keys,
        wanted.model,
        methods,
        wanted.why,
        wanted.read_as,
        more,
    )


def _why_steps(wanted: Wanted, steps: int, most: int) -> str:
    if steps == most:
        return ""
    return f"  # as many as were predicted to fit into {wanted.hours:g} h; five passes are {most:,}"


def _entry_of(cell: Cell) -> str:
    """The entry of a list of methods that makes a cell."""
    if cell.quantization == "none":
        return cell.method
    return f"{{method: {cell.method}, quantization: [{cell.quantization}]}}"


def _trained(methods: Sequence[str]) -> bool:
    """Whether anything of a list trains an adapter or the whole model."""
    return any(name_in(m) not in ("head", "base", "bag-of-words") for m in methods)
