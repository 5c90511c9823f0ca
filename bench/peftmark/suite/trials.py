"""Settings chosen by trials, scored on selection rows: what the trials' rows say.

A profile with `tuning` tries the settings of a method's grid on each cell and task, in rounds that
give every method the same steps (`peftmark.suite.rounds`). Which setting a cell's reported jobs
train with, and how much the choice mattered, is told here from the trials alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.record.job import Job, Record

SLACK = 1e-9
"""Rounding of differences such as 0.80 - 0.79, which is above 0.01 in binary."""

RATE = "learning_rate"

Setting = tuple[Any, ...]
"""A value of each setting that was tried, in the order of `Choice.knobs`."""


@dataclass(frozen=True)
class Tried:
    """A setting of a grid.

    Attributes:
        setting: its values.
        score: mean metric on the selection rows after the first round, which every setting is in;
            None if a trial of it is not ok.
        whole: mean over its trials as long as a reported job; None if one is not ok, or if it has
            none.
        trials: number of trials as long as a reported job.
        key: of its recipe (`Recipe.key`).
    """

    setting: Setting
    score: float | None
    whole: float | None
    trials: int
    key: str


@dataclass(frozen=True)
class Length:
    """Trials of equal length and seed.

    Attributes:
        steps: of each.
        seed: of each.
        settings: how many there are.
    """

    steps: int
    seed: int
    settings: int


@dataclass(frozen=True)
class Choice:
    """The trials of one cell on one task, and what they say.

    Attributes:
        metric: that the scores are of.
        knobs: names of the settings that were varied, the learning rate first.
        tried: every setting, in the order of the grid: ascending in the first of the knobs.
        chosen: of those with most trials at whole length the one with the best mean over them, the
            first of equals; where these failed the best of the first round. None without any
            score.
        missing: trials that are still to be made: without a row, or stopped by the user.
        lengths: the trials by length and seed, in the order in which they are made.
    """

    cell: Cell
    task: str
    metric: str
    knobs: tuple[str, ...]
    tried: tuple[Tried, ...]
    chosen: Setting | None
    missing: int
    lengths: tuple[Length, ...]

    @property
    def steps(self) -> int:
        """Steps of all its trials."""
        return sum(one.steps * one.settings for one in self.lengths)

    @property
    def first_steps(self) -> int:
        """Steps of a trial of the first round."""
        return self.lengths[0].steps

    @property
    def chosen_key(self) -> str | None:
        """The key of the chosen setting's recipe; None without any."""
        return next((one.key for one in self.tried if one.setting == self.chosen), None)

    @property
    def best(self) -> float | None:
        """The best score after the first round; None if no setting has one."""
        sign = sign_of(self.metric)
        known = [one.score for one in self.tried if one.score is not None]
        return max(known, key=lambda score: sign * score, default=None)

    @property
    def gain(self) -> float | None:
        """How far the best setting is above the middle one after the first round, positive where
        it is better; None if fewer than two settings have a score.

        The best of several is flattered by the luck of its seed.
        """
        known = [one.score for one in self.tried if one.score is not None]
        if len(known) < 2 or self.best is None:
            return None
        return sign_of(self.metric) * (self.best - median(known))

    def within(self, tolerance: float) -> float | None:
        """Share of the settings that score as well as the best after the first round, or nearly.

        Args:
            tolerance: largest distance to the best score, in units of the metric.

        Returns:
            A share between 1/len(tried) and 1; a setting without score counts as too far. None if
            none has a score.
        """
        if self.best is None:
            return None
        return sum(self._near(one.score, tolerance) for one in self.tried) / len(self.tried)

    def along(self, knob: str) -> list[tuple[Any, float | None]]:
        """Value of one of the knobs -> the best score over the others, after the first round, in
        the order of the grid."""
        at, sign = self.knobs.index(knob), sign_of(self.metric)
        scores: dict[Any, list[float]] = {}
        for one in self.tried:
            known = scores.setdefault(one.setting[at], [])
            known += [] if one.score is None else [one.score]
        return [
            (value, max(known, key=lambda score: sign * score) if known else None)
            for value, known in scores.items()
        ]

    def flat(self, knob: str, tolerance: float) -> list[Any]:
        """Values of a knob that score as well as the best, or nearly, with the others chosen for
        each."""
        return [value for value, score in self.along(knob) if self._near(score, tolerance)]

    def at_edge(self, knob: str) -> bool:
        """Whether the chosen value is the first or the last of those tried, of numbers."""
        if self.chosen is None or knob not in self.knobs:
            return False
        values = [value for value, _ in self.along(knob)]
        ordered = all(isinstance(value, int | float) for value in values)
        return ordered and self.chosen[self.knobs.index(knob)] in (values[0], values[-1])

    def _near(self, score: float | None, tolerance: float) -> bool:
        if score is None or self.best is None:
            return False
        return abs(score - self.best) <= tolerance + SLACK


def trials(jobs: Iterable[Job]) -> list[Job]:
    """The trials among the jobs."""
    return [job for job in jobs if job.purpose == "tuning"]


def choices(jobs: Sequence[Job], records: Mapping[str, Record]) -> dict[tuple[Cell, str], Choice]:
    """What the trials among the jobs say, by cell and task in the order of the jobs.

    Args:
        jobs: jobs of one profile; other purposes than tuning are passed over.
        records: job id -> the record that counts.
    """
    grids: dict[tuple[Cell, str], list[Job]] = {}
    for job in trials(jobs):
        grids.setdefault((job.cell, job.task), []).append(job)
    return {key: _choice(*key, mine, records) for key, mine in grids.items()}


def score_of(jobs: Sequence[Job], records: Mapping[str, Record]) -> float | None:
    """Mean metric of trials; None without any, or if one of them is not ok."""
    found = [records.get(job.job_id) for job in jobs]
    values = [r.outcome.metric_value for r in found if r is not None and r.ok]
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(jobs) > 0 else None


def to_be_made(record: Record | None) -> bool:
    """Whether a trial with this row has told nothing yet."""
    return record is None or record.outcome.status == "interrupted"


def _choice(cell: Cell, task: str, jobs: Sequence[Job], records: Mapping[str, Record]) -> Choice:
    parts = {job.job_id: job.recipe.lasting for job in jobs}
    knobs = _knobs(list(parts.values()))
    by_setting: dict[Setting, list[Job]] = {}
    for job in jobs:
        setting = tuple(_value(parts[job.job_id][knob]) for knob in knobs)
        by_setting.setdefault(setting, []).append(job)
    lengths = _lengths(jobs)
    first = {(one.steps, one.seed) for one in lengths if one.settings == len(by_setting)}
    whole = max(job.recipe.steps for job in jobs)
    tried = []
    for setting, mine in sorted(by_setting.items(), key=lambda item: _order(item[0])):
        early = [job for job in mine if (job.recipe.steps, job.seed) in first]
        late = [job for job in mine if job.recipe.steps == whole]
        tried.append(
            Tried(
                setting=setting,
                score=score_of(early, records),
                whole=score_of(late, records),
                trials=len(late),
                key=mine[0].recipe.key,
            )
        )
    return Choice(
        cell=cell,
        task=task,
        metric=jobs[0].metric,
        knobs=knobs,
        tried=tuple(tried),
        chosen=_chosen(tried, sign_of(jobs[0].metric)),
        missing=sum(to_be_made(records.get(job.job_id)) for job in jobs),
        lengths=lengths,
    )


def _chosen(tried: Sequence[Tried], sign: float) -> Setting | None:
    """The best of the settings with most trials at whole length, which are those of the last round;
    where all of these failed the best of the first."""
    most = max(one.trials for one in tried)
    last = [(one.whole, one.setting) for one in tried if one.trials == most]
    first = [(one.score, one.setting) for one in tried]
    return _best(last, sign) or _best(first, sign)


def _best(scored: Sequence[tuple[float | None, Setting]], sign: float) -> Setting | None:
    """The setting with the best score, the first of equals; None without any."""
    known = [(sign * score, setting) for score, setting in scored if score is not None]
    best = max((score for score, _ in known), default=None)
    return next((setting for score, setting in known if score == best), None)


def _lengths(jobs: Sequence[Job]) -> tuple[Length, ...]:
    found: dict[tuple[int, int], int] = {}
    for job in jobs:
        key = job.recipe.steps, job.seed
        found[key] = found.get(key, 0) + 1
    return tuple(Length(steps, seed, count) for (steps, seed), count in found.items())


def _knobs(parts: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What differs between trials, the learning rate first; it alone where nothing does."""
    names = [name for name in parts[0] if len({_text(part.get(name)) for part in parts}) > 1]
    return tuple(sorted(names, key=lambda name: name != RATE)) or (RATE,)


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _value(value: object) -> object:
    """A value that can be a key."""
    return tuple(value) if isinstance(value, list) else value


def _order(setting: Setting) -> tuple[tuple[bool, Any], ...]:
    """Numbers by size, before words."""
    numbers = (isinstance(value, int | float) for value in setting)
    return tuple((not n, v if n else str(v)) for n, v in zip(numbers, setting, strict=True))
