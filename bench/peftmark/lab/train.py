"""The training loop: steps, evaluations between them, and what the run itself shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from peftmark.catalog.metrics import sign_of
from peftmark.catalog.task import Task
from peftmark.lab.data.held_out import HeldOut
from peftmark.lab.data.job_data import Work
from peftmark.lab.measure.meters import Meters
from peftmark.lab.measure.watch import Watch, series
from peftmark.lab.methods import Prepared, Stage
from peftmark.lab.scoring import Scores, evaluate
from peftmark.lab.step import Diverged, Step, Taken
from peftmark.lab.team import Team
from peftmark.record.job import Job
from peftmark.record.outcome import CurvePoint
from peftmark.record.shared import TIMED_STEPS

Progress = Callable[[dict[str, Any]], None]

CHECK_EVERY = 10
"""Steps between two looks at the loss: on a GPU each look waits for the device."""

EXPLODING_RATIO = 1.5
EXPLODING_STEPS = 3


@dataclass(frozen=True)
class Trained:
    """What training gave.

    Attributes:
        last: scores on the evaluation rows after the last step.
        rank_history: module -> active rank at each curve point.
        importance_history: module -> mean importance at each curve point.
        samples, tokens: rows, and tokens without padding, of the timed steps.
        first: the first step.
        steps: that were taken; fewer than the recipe's where early stopping ended them.
        written: tokens of answers written in all evaluations.
        gate_history: layer and part -> mean gate over the rows scored at each curve point.
        watched: columns of what was looked at to be warned by, and why some are empty.
    """

    curve: tuple[CurvePoint, ...]
    last: Scores
    exploding_step: int | None
    rank_history: dict[str, list[int | None]]
    importance_history: dict[str, list[float | None]]
    samples: int
    tokens: int
    first: Taken
    written: int = 0
    steps: int = 0
    watched: tuple[dict[str, Any], dict[str, str]] = ({}, {})
    gate_history: dict[str, list[float | None]] = field(default_factory=dict)


def warm_up_steps(steps: int) -> int:
    """Steps kept out of the timing: caches fill and kernels are chosen in the first few."""
    return min(5, steps // 5)


def timed_steps(steps: int, meters: Meters) -> int:
    """Steps after the warm-up that are timed: all, or where the device is shared those of one
    stretch, if the job is to have one."""
    if not meters.turns.shared:
        return steps
    return TIMED_STEPS if meters.turns.timed else 0


def train(
    job: Job,
    task: Task,
    prepared: Prepared,
    step: Step,
    work: Work,
    meters: Meters,
    device: torch.device,
    progress: Progress,
    watch: Watch,
) -> Trained:
    """Train to the end, evaluating as the recipe says.

    Args:
        watch: looks at the adapter after each interval, before it is evaluated.

    Raises:
        Diverged: the loss or the logits became NaN or infinite.
    """
    recipe = job.recipe
    warm, timed = warm_up_steps(recipe.steps), timed_steps(recipe.steps, meters)
    curve: list[CurvePoint] = []
    norms: list[float] = []
    told: list[tuple[Mapping[str, Any], ...]] = []
    first: list[Taken] = []  # not in the step: the probe counts what a step keeps
    samples = tokens = done = written = 0
    while done < recipe.steps:
        end = min(recipe.steps, done + recipe.eval_every - done % recipe.eval_every)
        phases = _phases(done + 1, end, warm, timed)
        taken, seen = _interval(phases, step, work, meters, progress, recipe.steps)
        samples, tokens = samples + seen[0], tokens + seen[1]
        done, first = end, first or taken[:1]
        with meters.phase("watch"):
            watch.look(step, done, work.train(done - 1), float(taken[-1].norm))
        scores, picked = _evaluated(prepared.model, work, task, job, meters, device, step.team)
        written += sum(s.written.tokens for s in (scores, picked) if s is not None)
        norms += (new_norms := _norms(taken, recipe.precision))
        told.append((prepared.ranks(), prepared.importance(), prepared.gates()))
        curve.append(_point(done, taken, new_norms, scores, picked, job, meters))
        prepared.scored(_selection(curve[-1], job))
        progress({"step": done, "steps": recipe.steps, "metric": curve[-1].metric})
        if stops(curve, job, prepared.stage):
            break
    ranks, importance, gates = map(series, zip(*told, strict=True))
    return Trained(
        first=first[0],
        curve=tuple(curve),
        last=scores,
        exploding_step=exploding_step(norms),
        rank_history=ranks,
        importance_history=importance,
        gate_history=gates,
        samples=samples,
        tokens=tokens,
        written=written,
        steps=done,
        watched=watch.columns(),
    )


def _interval(
    phases: Sequence[tuple[str, range]],
    step: Step,
    work: Work,
    meters: Meters,
    progress: Progress,
    steps: int,
) -> tuple[list[Taken], tuple[int, int]]:
    """The steps of some phases, the last with its gradients held; rows and tokens of the timed."""
    taken: list[Taken] = []
    samples = tokens = 0
    step.held = phases[-1][1][-1]
    for phase, numbers in phases:
        with meters.phase(phase):
            for number in numbers:
                batch = work.train(number - 1)
                taken.append(step(number, batch))
                meters.step()
                if phase == "train":
                    samples, tokens = samples + batch.rows, tokens + batch.tokens
                if number % CHECK_EVERY == 0 or number == numbers[-1]:
                    _check_finite(taken[-CHECK_EVERY:], number)
                    progress({"step": number, "steps": steps})
    return taken, (samples, tokens)


def stops(curve: Sequence[CurvePoint], job: Job, stage: Stage | None = None) -> bool:
    """Whether early stopping ends training after the last point of a curve: so many evaluations
    since the best selection score, all of them where the method's own schedule is over.

    Args:
        stage: the method's second stage; None without one.
    """
    patience, steps, schedule = job.recipe.early_stopping, job.recipe.steps, job.recipe.adalora
    # Ranks are final, the second stage has begun, and some step was timed.
    ends = max(
        steps - schedule.tfinal if schedule is not None else 0,
        stage.after + 1 if stage is not None else 0,
        warm_up_steps(steps) + 1,
    )
    found = [_selection(p, job) for p in curve if p.step >= ends]
    scores = [score for score in found if score is not None]
    if patience is None or not scores:
        return False
    return len(scores) - 1 - scores.index(max(scores)) >= patience


def _selection(point: CurvePoint, job: Job) -> float | None:
    """A point's score on the selection rows, higher being better; None without one."""
    # A trial is scored on the selection rows alone.
    score = point.metric if job.purpose == "tuning" else point.selection_metric
    return None if score is None else sign_of(job.metric) * score


def _norms(taken: Sequence[Taken], precision: str) -> list[float]:
    """Gradient norm of each step; NaN for one of fp16 that was left out."""
    norms: list[float] = torch.stack([t.norm for t in taken]).tolist()
    left_out = math.nan if precision == "fp16" else math.inf
    return [norm if math.isfinite(norm) else left_out for norm in norms]


def _evaluated(
    model: nn.Module,
    work: Work,
    task: Task,
    job: Job,
    meters: Meters,
    device: torch.device,
    team: Team,
) -> tuple[Scores, Scores | None]:
    """Scores on the evaluation rows, and on the selection rows where there are some.

    Of several processes the first one scores; with a sharded base the others read the same rows
    beside it, since no process has the weights alone. They are told the metric, so that all go on,
    and stop, alike.
    """
    held = [work.eval] if work.selection is None else [work.eval, work.selection]
    reads = team.leads or job.recipe.shard
    found = [scored(model, one, work, task, job, meters, device) for one in held if reads]
    if team.size > 1:
        said = team.told([one.metrics.get(job.metric) for one in found] or [None] * len(held))
        found = found if team.leads else [_heard(job.metric, value) for value in said]
    return found[0], found[1] if len(held) > 1 else None


def _heard(metric: str, value: float | None) -> Scores:
    """Scores of which only a metric is known; NaN where it has no value."""
    return Scores({metric: math.nan if value is None else value}, False, np.empty(0))


def _phases(first: int, last: int, warm: int, timed: int) -> list[tuple[str, range]]:
    """The steps from `first` to `last` by phase: the run's first `warm` are kept apart, the next
    `timed` are timed, and the rest is beside other jobs."""
    found = (
        ("warm_up", range(first, min(last, warm) + 1)),
        ("train", range(max(first, warm + 1), min(last, warm + timed) + 1)),
        ("beside", range(max(first, warm + timed + 1), last + 1)),
    )
    return [(name, steps) for name, steps in found if steps]


def _point(
    step: int,
    taken: Sequence[Taken],
    norms: Sequence[float],
    scores: Scores,
    picked: Scores | None,
    job: Job,
    meters: Meters,
) -> CurvePoint:
    """The point of the curve after a step.

    Args:
        taken: the steps since the last point.
        norms: gradient norms of these steps.
        picked: scores on the selection rows.
    """
    penalties = [t.penalty for t in taken if t.penalty is not None]
    return CurvePoint(
        step=step,
        loss=_mean([t.loss for t in taken]),
        metric=scores.metrics[job.metric],
        seconds=meters.seconds.get("warm_up", 0.0) + meters.seconds.get("train", 0.0),
        selection_metric=picked.metrics.get(job.metric) if picked else None,
        penalty=_mean(penalties) if penalties else None,
        gradient_norm=max((norm for norm in norms if not math.isnan(norm)), default=None),
    )


def scored(
    model: nn.Module,
    held: HeldOut,
    work: Work,
    task: Task,
    job: Job,
    meters: Meters,
    device: torch.device,
) -> Scores:
    """Scores on held-out rows; the time that answers took to write is a phase of its own."""
    with meters.phase("evaluate"):
        scores = evaluate(model, held, work, task, job, device)
    if held.answers is not None:
        meters.book("generate", scores.written.seconds, "evaluate")
    return scores


def _mean(values: Sequence[torch.Tensor]) -> float:
    return float(torch.stack(list(values)).double().mean())


def _check_finite(taken: Sequence[Taken], number: int) -> None:
    """Raise `Diverged` if one of the last losses is no number; `number` is the last one's step."""
    losses = torch.stack([t.loss for t in taken]).tolist()
    if all(map(math.isfinite, losses)):
        return
    first = number - len(losses) + 1
    finite = [(first + i, loss) for i, loss in enumerate(losses) if math.isfinite(loss)]
    last = "no finite loss" if not finite else f"last finite loss {finite[-1][1]:.4g}"
    where = f"from step {first} on" if not finite else f"in step {finite[-1][0]}"
    raise Diverged(
        f"the training loss was {next(x for x in losses if not math.isfinite(x))} by step "
        f"{number} ({last} {where})"
    )


def exploding_step(norms: Sequence[float]) -> int | None:
    """First step (from 1) that ends three rises in a row of the norm by more than half.

    Args:
        norms: gradient norm of every step, before clipping; NaN for a step that was left out.
    """
    run = 0
    for number in range(2, len(norms) + 1):
        before, now = norms[number - 2], norms[number - 1]
        run = run + 1 if now > EXPLODING_RATIO * before else 0
        if run == EXPLODING_STEPS:
            return number
    return None
