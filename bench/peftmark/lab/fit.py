"""A reference line that needs no fine-tuning: features of the rows, and a linear model on them.

The rows are those of every method: selection rows are left out of training and choose C alone.
Nothing is drawn, so every seed gives the same.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from peftmark.catalog.methods import known_method
from peftmark.catalog.metrics import sign_of
from peftmark.catalog.task import Task
from peftmark.lab import metrics
from peftmark.lab.data.held_out import HeldOut
from peftmark.lab.data.job_data import Work
from peftmark.lab.deploy import ROUNDS
from peftmark.lab.measure import parameter_counts
from peftmark.lab.measure.meters import Meters
from peftmark.lab.measure.to_outcome import of_fit
from peftmark.lab.methods.estimator import (
    KINDS,
    MOST_ITERATIONS,
    STRENGTHS,
    Chosen,
    Guess,
    Linear,
    choose,
    linear_from,
)
from peftmark.lab.methods.features import (
    Embeddings,
    Features,
    Frozen,
    Words,
    embeddings_from,
    learn_embeddings,
    learn_words,
    words_from,
)
from peftmark.lab.scoring import Scores
from peftmark.lab.train import Progress
from peftmark.record.job import Job
from peftmark.record.outcome import Outcome

FILE = "estimator.safetensors"


@dataclass(frozen=True)
class Line:
    """A fitted reference line.

    Attributes:
        labels: classes or labels of the task.
    """

    features: Features
    linear: Linear
    labels: int

    def guess(self, held: HeldOut) -> Guess:
        """What it says of rows, in their order."""
        return self.linear.guess(self.features.of(held), self.labels)

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole line but a frozen encoder."""
        return self.features.arrays() | self.linear.arrays()

    @property
    def stored(self) -> int:
        """Parameters in its arrays: all but the terms and the class numbers."""
        return sum(a.size for a in self.arrays().values() if np.issubdtype(a.dtype, np.floating))


def refusal(job: Job, task: Task) -> str:
    """Why a job's task has no such line; empty if it has."""
    if job.causal is None and task.kind in KINDS:
        return ""
    kinds = ", ".join(KINDS)
    return f"{job.method} is there for encoders and tasks of kind {kinds}, not for {task.kind}"


def score(guess: Guess, held: HeldOut, keys: Sequence[str]) -> dict[str, float]:
    """Metrics of what a line says of held-out rows."""
    return metrics.score(tuple(keys), guess.predictions, held.references, guess.probabilities)


def fitted(
    job: Job,
    task: Task,
    work: Work,
    base: nn.Module | None,
    meters: Meters,
    progress: Progress,
) -> Outcome:
    """Fit, evaluate, save, reload and time a line.

    Args:
        base: the encoder with its classifier, of which the encoder alone is read; None for a line
            of words.

    Raises:
        Unsupported: rows without words.
        Diverged: embeddings that are not finite.
    """
    device = torch.device(job.device)
    frozen = None if base is None else Frozen(encoder_of(base), job, device)
    with meters.phase("tokenise"):
        rows = work.hold_out(work.examples)
    progress({"phase": "fit"})
    with meters.phase("fit"):
        line, chosen = _fit(task, work, rows, frozen)
    progress({"phase": "evaluate"})
    with meters.phase("evaluate"):
        scores = _scores(line, work.eval, task)
    outcome = Outcome(
        status="ok",
        metric_value=scores.metrics[job.metric],
        selection_metric_value=chosen.score,
        optimizer=_solver(chosen),
        trainable_parameters=line.linear.parameters,
        saved_parameters=line.stored,
        total_parameters=line.stored + _parameters(frozen),
        final_weights_hash=arrays_hash(line.arrays()),
        **of_fit(scores, meters, known_method(job.method).untrained),
    )
    if not chosen.linear.settled:
        text = f"logistic regression had not settled after {MOST_ITERATIONS:,} iterations"
        outcome = replace(outcome, warnings=(f"{text} at C = {chosen.strength:g}",))
    progress({"phase": "save"})
    return _deployed(outcome, line, frozen, work, meters, progress)


def encoder_of(base: nn.Module) -> nn.Module:
    """The encoder of a model with a classifier."""
    found: nn.Module = base.base_model  # type: ignore[assignment]
    return found


def _fit(task: Task, work: Work, rows: HeldOut, frozen: Frozen | None) -> tuple[Line, Chosen]:
    """The line of the training rows, with the C that the selection rows choose."""
    features: Words | Embeddings
    if frozen is None:
        features = learn_words(rows)
        learned = features.of(rows)
    else:
        embedded = frozen.embed(rows)
        features = learn_embeddings(frozen, embedded)
        learned = features.standardised(embedded)
    labels, held = len(task.labels), work.selection
    seen = None if held is None else features.of(held)

    def on_selection(linear: Linear) -> float:
        assert held is not None
        return score(linear.guess(seen, labels), held, (task.metric,))[task.metric]

    chosen = choose(
        task.kind,
        learned,
        rows.references.astype(np.int64) if task.kind == "classification" else rows.references,
        None if held is None else on_selection,
        sign_of(task.metric),
    )
    return Line(features, chosen.linear, labels), chosen


def _scores(line: Line, held: HeldOut, task: Task) -> Scores:
    guess = line.guess(held)
    found = score(guess, held, (task.metric, *task.also))
    same = bool((guess.predictions == guess.predictions[0]).all())
    return Scores(found, same, guess.predictions)


def _solver(chosen: Chosen) -> str:
    """The estimator with its C, as the row tells what ran."""
    name = "ridge regression" if chosen.linear.kind == "regression" else "logistic regression"
    if chosen.score is None:
        return f"{name}, C = {chosen.strength:g} for lack of selection rows"
    grid = ", ".join(f"{c:g}" for c in STRENGTHS)
    return f"{name}, C = {chosen.strength:g} of {grid}"


def _parameters(frozen: Frozen | None) -> int:
    return 0 if frozen is None else parameter_counts.parameters(frozen.encoder)


def arrays_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names and bytes of arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _deployed(
    outcome: Outcome,
    line: Line,
    frozen: Frozen | None,
    work: Work,
    meters: Meters,
    progress: Progress,
) -> Outcome:
    """Save the arrays, make the line from them again, compare and time."""
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch:
        file = Path(scratch) / FILE
        with meters.phase("save"):
            saved(line, file)
        size = file.stat().st_size
        progress({"phase": "deploy"})
        with meters.phase("deploy"):
            again = loaded(file, line, frozen)
            parts = _latency_parts(work)
            middle, high = _latency(again, parts)
            error = max(
                float(np.abs(again.guess(part).outputs - line.guess(part).outputs).max())
                for part in parts
            )
    return replace(
        outcome,
        adapter_bytes=size,
        latency_p50_seconds=middle,
        latency_p95_seconds=high,
        reload_max_error=error,
    )


def saved(line: Line, file: Path) -> None:
    """Write a line's arrays."""
    # safetensors writes what lies in memory: an array in Fortran's order would come back mixed up.
    save_file({k: np.ascontiguousarray(v) for k, v in line.arrays().items()}, file)


def loaded(file: Path, like: Line, frozen: Frozen | None) -> Line:
    """A line from its saved arrays, on the same frozen encoder if it has one."""
    arrays: dict[str, Any] = load_file(file)
    features: Features
    features = words_from(arrays) if frozen is None else embeddings_from(frozen, arrays)
    return replace(like, features=features, linear=linear_from(like.linear.kind, arrays))


def _latency_parts(work: Work) -> list[HeldOut]:
    """The latency set, each batch as held-out rows."""
    pairs = zip(work.latency, work.latency_examples, strict=True)
    return [HeldOut([b], b.labels.numpy(), examples=rows) for b, rows in pairs]


def _latency(line: Line, parts: Sequence[HeldOut]) -> tuple[float, float]:
    """(p50, p95) wall seconds to tell one batch: of tokens for embeddings, of text for words."""
    seconds = []
    for timed in (False, *[True] * ROUNDS):
        for part in parts:
            start = time.perf_counter()
            line.guess(part)
            if timed:
                seconds.append(time.perf_counter() - start)
    middle, high = np.percentile(seconds, [50, 95])
    return float(middle), float(high)
