"""One job, top to bottom: seed, task, base, method, train, evaluate, measure.

Every method runs through this one path; what sets a method apart is in its `Prepared` hooks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from peftmark.catalog.methods import known_method
from peftmark.catalog.task import Task
from peftmark.lab.accelerator import has_bf16
from peftmark.lab.after_training import SHARDED, deployed, probed
from peftmark.lab.build import Build
from peftmark.lab.compiled import compiled
from peftmark.lab.data.batches import Batch
from peftmark.lab.data.job_data import Work, prepare_work, task_of
from peftmark.lab.determinism import ask_for_same_bits
from peftmark.lab.fit import fitted, refusal
from peftmark.lab.forgetting import perplexity, perplexity_before, unrelated_batches
from peftmark.lab.measure import parameter_counts
from peftmark.lab.measure.first_step import FirstStep
from peftmark.lab.measure.meters import Meters, timed_peak
from peftmark.lab.measure.to_outcome import (
    AFTERWARDS,
    FORGOTTEN,
    finished,
    of_meters,
    of_training,
    of_untouched,
    of_work,
    without,
)
from peftmark.lab.measure.watch import Watch
from peftmark.lab.methods import Prepared, trainable
from peftmark.lab.metrics import why_none
from peftmark.lab.models import (
    Unsupported,
    anatomy,
    load_tokenizer,
    target_notes,
    trained_head,
)
from peftmark.lab.quantized_cache import Base
from peftmark.lab.rng import seed_all
from peftmark.lab.sharded import shard
from peftmark.lab.step import Step
from peftmark.lab.team import ALONE, Team, heard
from peftmark.lab.train import Progress, Trained, scored, train
from peftmark.machine.environment import machine
from peftmark.machine.shared_device import SharedDevice
from peftmark.record.job import Job
from peftmark.record.outcome import Outcome
from peftmark.sources.assets import Located, Places, model_files
from peftmark.sources.rows import TaskData
from peftmark.sources.task_data import load_task


@dataclass(frozen=True)
class _Read:
    """What is read before there is a model. `run` keeps it to the end: what is alive when is a part
    of what is measured.

    Attributes:
        files: the model's.
        unrelated: batches of text of another kind; empty where forgetting is not measured.
    """

    task: Task
    data: TaskData
    files: Located
    tokenizer: Any
    work: Work
    unrelated: list[Batch]


@dataclass(frozen=True)
class _Loaded:
    """The base and what is known of it before a method changes it; kept to the end too.

    Attributes:
        total: its parameters, counted.
        parameters: themselves, to tell those of a method from.
        perplexity: of the unrelated text, None where forgetting is not measured.
        sources: fields of the outcome that say what was loaded, rows included.
    """

    build: Build
    base: Base
    total: int
    parameters: list[nn.Parameter]
    perplexity: float | None
    sources: dict[str, Any]


@dataclass(frozen=True)
class _Built:
    """The method on the base before the first step.

    Attributes:
        weights: hash of what trains.
        trainable: its parameters, counted.
    """

    prepared: Prepared
    weights: str
    trainable: int


def run(
    job: Job,
    places: Places,
    progress: Progress,
    outbox: Path | None = None,
    turns: SharedDevice | None = None,
    team: Team = ALONE,
) -> Outcome:
    """Run one job.

    Args:
        job: what to run.
        places: where models and rows may come from.
        progress: called with {"phase": ...} and {"step": i, "steps": n, "metric": x}.
        outbox: folder to leave what was trained in; None for nowhere.
        turns: the device, entered, where other jobs use it too.
        team: the processes that train it together; only what the first one gives is the outcome.

    Raises:
        Diverged, Unsupported, UserError, torch.OutOfMemoryError: see `peftmark.lab.worker`.
    """
    device = torch.device(job.device)
    torch.set_num_threads(job.threads)
    ask_for_same_bits(device)
    meters = Meters(device, turns)
    slow = _slow_precision(job, device)

    progress({"phase": "data"})
    read = _read(job, places, meters)
    task, work = read.task, read.work
    notes = [*slow, *_unknown(task, work)]
    if known_method(job.method).fits:
        return finished(_fitted(job, places, read, meters, progress), job, work, meters, notes)
    progress({"phase": "model"})
    loaded = _loaded(job, places, read, meters)
    if not known_method(job.method).trains:
        outcome = _untouched(job, read, loaded, meters, progress)
        return finished(outcome, job, work, meters, notes)
    built = _built(loaded, meters, team)
    notes += target_notes(job, loaded.build.parts)
    step = Step(job, task, built.prepared, device, team=team)
    first = FirstStep(step, built.prepared.model)
    watch = _watch(job, read, loaded, built, device)
    with compiled(job, task, built.prepared, work, meters, progress) as said, heard(team):
        seed_all(job.seed, "dropout", team.place)
        trained = train(job, task, built.prepared, step, work, meters, device, progress, watch)
    apart = _parted(team, meters, built)
    if not team.leads:  # the rest is the first one's
        return Outcome("ok")
    notes += [*said, *_ended(job, step, trained)]
    outcome = _trained(job, loaded, built, step, trained, meters, apart)
    outcome = replace(outcome, first_step=first.facts(trained.first), **of_meters(meters, trained))
    outcome = _forgotten(outcome, job, read, loaded, built.prepared.model, meters)
    if job.purpose == "tuning":
        outcome = without(outcome, AFTERWARDS, "a tuning trial measures quality")
    else:
        outcome = deployed(outcome, loaded.build, built.prepared, work, meters, progress, outbox)
        del built, step, first, watch
        outcome = probed(outcome, loaded.build, work, meters, progress)
    return finished(outcome, job, work, meters, notes)


def _watch(job: Job, read: _Read, loaded: _Loaded, built: _Built, device: torch.device) -> Watch:
    """What looks at the adapter while it trains."""
    head = trained_head(loaded.build.parts, job.recipe.train_pooler)
    epoch = math.ceil(read.work.train_rows / job.recipe.batch_size)
    return Watch(job, read.task, built.prepared, head, epoch, device)


def _read(job: Job, places: Places, meters: Meters) -> _Read:
    """Read the task, its rows as tokens, and where the model's files are."""
    with meters.phase("load"):
        task = task_of(job)
        data = load_task(task, places)
        files = model_files(job.model_facts, places)
    with meters.phase("tokenise"):
        tokenizer = load_tokenizer(files.path)
        work = prepare_work(job, task, data, tokenizer, files.path, places.cache)
        measured = job.causal is not None and job.purpose != "tuning" and not job.recipe.shard
        unrelated = unrelated_batches(job, places, tokenizer) if measured else []
    return _Read(task, data, files, tokenizer, work, unrelated)


def _loaded(job: Job, places: Places, read: _Read, meters: Meters) -> _Loaded:
    """Load the base, after what it makes of unrelated text is known."""
    with meters.phase("load"):
        parts = anatomy(read.files.path, read.task)
        build = Build(job, read.task, read.files.path, parts, read.work, places.cache)
    perplexity = None
    if read.unrelated:
        with meters.phase("forget"):
            perplexity = perplexity_before(build, read.unrelated)
    with meters.phase("load"):
        base = build.loaded()
    meters.book("quantise", base.quantise_seconds, "load" if base.now else None)
    sources = {"base_format": parameter_counts.base_format(base.model), **_sources(read)}
    total, parameters = parameter_counts.parameters(base.model), list(base.model.parameters())
    return _Loaded(build, base, total, parameters, perplexity, sources)


def _sources(read: _Read) -> dict[str, Any]:
    """Fields of the outcome that say what was read, rows included."""
    return {
        "data_source": read.data.source,
        "data_fingerprint": read.data.fingerprint,
        "model_source": read.files.source,
        **of_work(read.work),
    }


def _untouched(
    job: Job, read: _Read, loaded: _Loaded, meters: Meters, progress: Progress
) -> Outcome:
    """The outcome of a method that trains nothing: the base as it is, evaluated."""
    progress({"phase": "evaluate"})
    base, work = loaded.base.model, read.work
    scores = scored(base, work.eval, work, read.task, job, meters, torch.device(job.device))
    outcome = Outcome(
        status="ok",
        metric_value=scores.metrics[job.metric],
        total_parameters=loaded.total,
        **loaded.sources,
        **of_untouched(scores, meters),
    )
    return _forgotten(outcome, job, read, loaded, base, meters)


def _fitted(job: Job, places: Places, read: _Read, meters: Meters, progress: Progress) -> Outcome:
    """The outcome of a line that needs no fine-tuning; one of words loads no model."""
    if refused := refusal(job, read.task):
        raise Unsupported(refused)
    sources: dict[str, Any] = _sources(read)
    base = None
    if known_method(job.method).fits == "model":
        progress({"phase": "model"})
        loaded = _loaded(job, places, read, meters)
        sources, base = loaded.sources, loaded.base.model
    outcome = fitted(job, read.task, read.work, base, meters, progress)
    # No batch was drawn for a step.
    drawn = ("padding_share", "cut_share", "batch_lengths", "batch_order_hash")
    outcome = replace(outcome, **{k: v for k, v in sources.items() if k not in drawn})
    if outcome.selection_metric_value is None:
        outcome = without(outcome, ("selection_metric_value",), "the recipe cuts no selection rows")
    return without(outcome, FORGOTTEN, "an encoder reads no text on")


def _built(loaded: _Loaded, meters: Meters, team: Team) -> _Built:
    """Put the method on the base."""
    build, base = loaded.build, loaded.parameters
    with meters.phase("build"), heard(team):
        prepared = build.prepare(loaded.base.model)
        if build.job.recipe.shard:
            base[:] = shard(prepared.model, base, build.parts, team)
    weights = parameter_counts.weights_hash(prepared.model)
    return _Built(prepared, weights, _trainable(prepared))


def _parted(team: Team, meters: Meters, built: _Built) -> str | None:
    """Take in what the job's other processes measured, and leave them; what is wrong if they did
    not all train the same weights."""
    if team.size == 1:
        return None
    # As much of the hash as a number holds.
    weights = float(int(parameter_counts.weights_hash(built.prepared.model)[:13], 16))
    alike = len({tuple(said) for said in team.gathered([weights])}) == 1
    meters.take_in(team)
    team.part()
    return None if alike else "the job's processes ended with different weights"


def _trained(
    job: Job,
    loaded: _Loaded,
    built: _Built,
    step: Step,
    trained: Trained,
    meters: Meters,
    apart: str | None,
) -> Outcome:
    """What training gave, invalid if the method did not do what it should have.

    Args:
        apart: what is wrong with how the job's processes did it together.
    """
    peak_rate = timed_peak(meters, torch.device(job.device), job.recipe.precision)
    build, prepared = loaded.build, built.prepared
    fault = apart or prepared.fault()
    last_hash = parameter_counts.weights_hash(prepared.model)
    if last_hash == built.weights:
        fault = "no trainable weight changed in training"
    trained_count = max(built.trainable, _trainable(prepared))  # of two stages, the larger
    head_count = parameter_counts.head_parameters(
        prepared.model, trained_head(build.parts, job.recipe.train_pooler)
    )
    added = parameter_counts.added_parameters(prepared.model, loaded.parameters)
    return Outcome(
        status="invalid" if fault else "ok",
        status_reason=fault or "",
        optimizer=step.optimizer_name,
        learning_rate_mean=step.learning_rate_mean,
        matched_rank=prepared.matched_rank,
        rank_allocator=prepared.allocator(),
        steps=trained.steps,
        trainable_parameters=trained_count,
        head_parameters=head_count,
        adapter_parameters=trained_count - head_count,
        solved_size=build.solved.size if build.solved else None,
        budget_parameters=build.solved.wanted if build.solved else None,
        active_parameters=(
            prepared.active_parameters() if prepared.active_parameters else trained_count
        ),
        total_parameters=(0 if prepared.new_base else loaded.total) + added,
        layer_scores=prepared.layer_scores,
        initial_weights_hash=built.weights,
        final_weights_hash=last_hash,
        gemm_flops_per_second=peak_rate,
        **loaded.sources,
        **of_training(job, trained),
    )


def _forgotten(
    outcome: Outcome, job: Job, read: _Read, loaded: _Loaded, model: nn.Module, meters: Meters
) -> Outcome:
    """The outcome with the perplexity of unrelated text, before and after; of an untouched model
    they are one."""
    before = loaded.perplexity
    if before is None:
        trial = job.purpose == "tuning"
        why = "a tuning trial measures quality" if trial else SHARDED
        why = "an encoder reads no text on" if job.causal is None else why
        return without(outcome, FORGOTTEN, why)
    after = before
    if known_method(job.method).trains:
        with meters.phase("forget"):
            after = perplexity(model, read.unrelated, job, torch.device(job.device))
    return replace(outcome, unrelated_perplexity_before=before, unrelated_perplexity_after=after)


def _trainable(prepared: Prepared) -> int:
    return sum(p.numel() for _, p in trainable(prepared.model))


def _unknown(task: Task, work: Work) -> list[str]:
    """Which further metrics don't exist for the evaluation rows, and why; the primary one does."""
    found = [why_none(key, work.eval.references) for key in task.also]
    return [f"no value: {why}" for why in found if why]


def _ended(job: Job, step: Step, trained: Trained) -> list[str]:
    """What of the recipe's steps was not taken."""
    found = []
    if trained.steps < job.recipe.steps:
        found.append(
            f"early stopping ended training after {trained.steps} of {job.recipe.steps} steps "
            f"(evaluations without a better selection score: {job.recipe.early_stopping})"
        )
    if step.skipped:
        found.append(
            f"{step.skipped} of {trained.steps} steps were left out: their gradients overflowed "
            "fp16"
        )
    return found


def _slow_precision(job: Job, device: torch.device) -> list[str]:
    """A warning where 16-bit arithmetic has no fast path on the CPU.

    Raises:
        Unsupported: where the GPU has none.
    """
    if job.recipe.precision == "fp32":
        return []
    if job.recipe.precision == "fp16":
        # GPUs have had it since long before bf16.
        return ["fp16 on a CPU is slow"] if device.type == "cpu" else []
    if device.type != "cpu":
        if not has_bf16(device):
            raise Unsupported("this GPU has no bf16 arithmetic; use precision: fp32")
        return []
    if machine()["bf16_instructions"] is False:
        return ["the CPU has no bf16 instructions: bf16 is emulated and slow"]
    return []
