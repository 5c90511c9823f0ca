"""The trials of a profile: which are known, which follow from their rows, and what they chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.record.job import Job, Record
from peftmark.record.recipe import Recipe
from peftmark.suite.load import Suite
from peftmark.suite.recipes import cells, resolve_recipe
from peftmark.suite.rounds import Round, rounds_of, shortened
from peftmark.suite.schema import MethodEntry, Profile
from peftmark.suite.schema_runs import Tuning
from peftmark.suite.trials import Choice, choices, score_of, to_be_made

BY_TRIALS = "chosen by trials on selection rows"


@dataclass(frozen=True)
class Tuned:
    """Trials of a profile as far as they are known.

    Attributes:
        trials: in running order.
        later: stand-ins for trials whose settings the rounds before are still to choose.
        choices: cell and task -> what the trials say so far.
        recipes: cell and task -> the recipe of its reported jobs, which is the suite's own where no
            trial has a score; None while trials are to be made.
    """

    trials: list[Job]
    later: list[Job]
    choices: dict[tuple[Cell, str], Choice]
    recipes: dict[tuple[Cell, str], Recipe | None]

    @property
    def made(self) -> bool:
        """Whether no trial is left to be made."""
        return not self.later and not any(choice.missing for choice in self.choices.values())


def rates_text(profile: Profile) -> str:
    """Where a profile's learning rates come from."""
    if profile.tuning is not None:
        equally = "equally many for every cell"
        if profile.tuning.trainings is not None:
            equally = "equally many steps for every cell"
        return f"{BY_TRIALS}, {equally}"
    return f"fixed in the suite: {profile.rates}" if profile.rates else "fixed in the suite"


def tuned(
    suite: Suite, profile_name: str, base: Sequence[Job], records: Mapping[str, Record]
) -> Tuned:
    """The trials of a profile.

    Args:
        base: a job for each task and cell.
        records: job id -> the record that counts.
    """
    profile = suite.profiles[profile_name]
    if profile.tuning is None:
        return Tuned([], [], {}, {})
    entries = {
        cell: entry for entry in suite.methods(profile_name) for cell in cells(entry, profile)
    }
    placed: list[tuple[tuple[int, ...], Job]] = []
    later, waits = list[Job](), set[tuple[Cell, str]]()
    own = {(job.cell, job.task): job.recipe for job in base}
    recipes: dict[tuple[Cell, str], dict[str, Recipe]] = {}
    for at, job in enumerate(base):
        entry = entries[job.cell]
        settings = [_recipe(suite, profile, entry, job, setting) for setting in entry.settings()]
        if not settings:
            continue
        recipes[job.cell, job.task] = {recipe.key: recipe for recipe in settings}
        known, more = _of_cell(job, settings, profile.tuning, records)
        placed += [((*place[:2], at, place[2]), trial) for place, trial in known]
        later += more
        if more:
            waits.add((job.cell, job.task))
    ordered = [trial for _, trial in sorted(placed, key=lambda one: one[0])]
    found = choices(ordered, records)
    return Tuned(
        trials=ordered,
        later=later,
        choices=found,
        recipes={
            key: None
            if choice.missing or key in waits
            else recipes[key].get(choice.chosen_key or "", own[key])
            for key, choice in found.items()
        },
    )


def _recipe(
    suite: Suite, profile: Profile, entry: MethodEntry, job: Job, setting: Mapping[str, Any]
) -> Recipe:
    return resolve_recipe(suite.file, profile, entry, job.cell, suite.task(job.task), setting)


def _of_cell(
    job: Job, settings: Sequence[Recipe], tuning: Tuning, records: Mapping[str, Record]
) -> tuple[list[tuple[tuple[int, int, int], Job]], list[Job]]:
    """The trials of one cell on one task that are known, each with its place (round, seed and
    setting), and stand-ins for those that are not."""
    rounds = rounds_of(len(settings), job.recipe.steps, tuning)
    sign, whole = sign_of(job.metric), job.recipe.steps
    left = list(range(len(settings)))
    at_whole: dict[int, list[Job]] = {}
    found: list[tuple[tuple[int, int, int], Job]] = []
    for number, one in enumerate(rounds):
        left = left[: one.settings]
        mine: dict[int, list[Job]] = {}
        for place, seed in enumerate(one.seeds):
            for index in sorted(left):
                recipe = settings[index]
                if tuning.trainings is not None:
                    recipe = shortened(recipe, one.steps)
                trial = replace(job, purpose="tuning", seed=seed, recipe=recipe)
                mine.setdefault(index, []).append(trial)
                found.append(((number, place, index), trial))
        if any(to_be_made(records.get(t.job_id)) for trials in mine.values() for t in trials):
            return found, _stand_ins(job, settings, rounds[number + 1 :])
        if one.steps == whole:
            for index, trials in mine.items():
                at_whole.setdefault(index, []).extend(trials)
            mine = {index: at_whole[index] for index in mine}
        scores = {index: score_of(trials, records) for index, trials in mine.items()}
        left = sorted(left, key=lambda i: _rank(scores[i], sign, i))
    return found, []


def _stand_ins(job: Job, settings: Sequence[Recipe], rounds: Sequence[Round]) -> list[Job]:
    return [
        replace(job, purpose="tuning", seed=seed, recipe=shortened(recipe, one.steps))
        for one in rounds
        for seed in one.seeds
        for recipe in settings[: one.settings]
    ]


def _rank(score: float | None, sign: float, index: int) -> tuple[bool, float, int]:
    """Where a setting stands: the best first, the first of equals, those without a score last."""
    return score is None, -sign * (score or 0.0), index
