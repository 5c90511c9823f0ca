"""How a cell's trials spend their steps: the same number for every method, whatever its grid.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): all settings are trained for a
few steps, the better ones for more, the last two for as many as a reported job. A short trial is a
whole training of that many steps, with its warm-up and its decay, so that every round compares
ends of training; and each round has a seed of its own, so that no setting goes on by the luck of
one. Grids small enough are trained at whole length in every round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from peftmark.record.recipe import Recipe, first_stage_steps
from peftmark.suite.schema_runs import Tuning

TOLERANCE = 0.02
"""Share of the steps that a method's trials may differ by from what every method gets."""

FINALISTS = 2
SHORTEST = 0.1
"""Steps of the shortest trial, as a share of a reported job's."""
LAST_SHORT = 6
"""Settings that the last of the short rounds takes at most."""
FEWER = 3
"""Settings of a short round over those of the next."""


@dataclass(frozen=True)
class Round:
    """Trials of equal length.

    Attributes:
        settings: how many of the grid are in it, the best so far.
        steps: of each trial.
        seeds: each setting is trained with each.
    """

    settings: int
    steps: int
    seeds: tuple[int, ...]

    @property
    def trials(self) -> int:
        """Number of trials."""
        return self.settings * len(self.seeds)


class UnequalRounds(ValueError):
    """A grid whose trials can't spend what every method gets."""


def rounds_of(settings: int, steps: int, tuning: Tuning) -> tuple[Round, ...]:
    """The rounds of one cell on one task.

    Args:
        settings: of its grid, at least two.
        steps: of a reported job.

    Raises:
        UnequalRounds: no division of the steps comes near enough to what every method gets.
    """
    if tuning.trainings is None:
        return (Round(settings, steps, tuple(tuning.seeds)),)
    found = _divided(settings, steps, tuning.trainings)
    if found is None:
        raise UnequalRounds(_remedy(settings, steps, tuning.trainings))
    return tuple(
        Round(count, length, (seed,))
        for (count, length), seed in zip(found, _seeds(tuning.seeds, len(found)), strict=True)
    )


def seeds_of(settings: int, tuning: Tuning) -> list[int]:
    """Every seed that trials of a grid may take, whatever the steps of a task."""
    if tuning.trainings is None:
        return list(tuning.seeds)
    return _seeds(tuning.seeds, len(_counts(settings, tuning.trainings) or ()))


def shortened(recipe: Recipe, steps: int) -> Recipe:
    """A recipe as a trial of so many steps trains by it: what lasts a share of the training lasts
    that share, and it is scored at its end."""
    share = steps / recipe.steps
    adalora = recipe.adalora
    if adalora is not None:
        tinit, tfinal = round(adalora.tinit * share), round(adalora.tfinal * share)
        first = first_stage_steps(recipe.options, steps) if "first_stage" in recipe.options else 0
        left = max(1, steps - first - tinit - tfinal)
        adalora = replace(adalora, tinit=tinit, tfinal=tfinal, delta_t=min(adalora.delta_t, left))
    evaluated = steps if recipe.early_stopping is None else min(recipe.eval_every, steps)
    if recipe.options.get("from") == "best":
        # One of the first stage's evaluations is what the second starts from.
        evaluated = min(recipe.eval_every, first_stage_steps(recipe.options, steps))
    return replace(
        recipe,
        steps=steps,
        warmup_steps=round(recipe.warmup_steps * share),
        eval_every=evaluated,
        adalora=adalora,
    )


def _seeds(given: Sequence[int], count: int) -> list[int]:
    """As many seeds as there are rounds: those given, then those after the largest."""
    found = list(given[:count])
    while len(found) < count:
        found.append(max(given) + 1 + len(found) - len(given))
    return found


def _counts(settings: int, trainings: int) -> list[int] | None:
    """How many settings each round takes; None where no rounds fit."""
    if settings > trainings - FINALISTS and trainings % settings:
        counts = [settings]
        while counts[-1] > LAST_SHORT:
            counts.append(max(LAST_SHORT - 2, -(-counts[-1] // FEWER)))
        return [*counts, FINALISTS]
    counts, left = [], trainings
    while left:
        taken = min(settings, left, *counts[-1:])
        if left - taken == 1:
            taken -= 1
        if taken < FINALISTS:
            return None
        counts.append(taken)
        left -= taken
    return counts


def _divided(settings: int, steps: int, trainings: int) -> list[tuple[int, int]] | None:
    """(settings, steps) of each round; None where none comes near enough to the steps wanted."""
    counts = _counts(settings, trainings)
    if counts is None:
        return None
    if settings <= trainings - FINALISTS or trainings % settings == 0:
        return [(count, steps) for count in counts]
    short, wanted = counts[:-1], (trainings - FINALISTS) * steps
    lengths = [wanted // len(short) // count for count in short]
    if len(short) > 1:
        # The last short round takes what rounding left over; it has the fewest settings.
        before = sum(n * length for n, length in zip(short[:-1], lengths[:-1], strict=True))
        lengths[-1] = (wanted - before) // short[-1]
        if lengths[-1] > steps:
            lengths[-1] = steps
            others = sum(n * length for n, length in zip(short[1:], lengths[1:], strict=True))
            lengths[0] = (wanted - others) // short[0]
    found = [*zip(short, lengths, strict=True), (FINALISTS, steps)]
    spent = sum(count * length for count, length in found)
    near = abs(spent - trainings * steps) <= TOLERANCE * trainings * steps
    grows = lengths == sorted(lengths) and lengths[-1] <= steps
    return found if near and grows and lengths[0] >= max(2, SHORTEST * steps) else None


def _remedy(settings: int, steps: int, trainings: int) -> str:
    """Why there are no rounds, and what would do."""
    fits = [n for n in range(4, 101) if _divided(settings, steps, n) is not None]
    near = sorted(fits, key=lambda n: (abs(n - trainings), n))[:1]
    would = f"trainings: {near[0]} would do" if near else "take fewer settings or more steps"
    return (
        f"{settings} settings can't be tried in the steps of {trainings} trainings of {steps} "
        f"(the shortest trial has at least a tenth, and methods may differ by 2 %); {would}"
    )
