"""One job, top to bottom: seed, task, base, method, train, evaluate, measure.

Every method runs through this one path; what sets a method apart is in its `Prepared` hooks.
"""

from __future__ import annotations

import tempfile
import traceback
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bench.assets import Places, model_files
from bench.catalog import MODELS
from bench.data import load_task
from bench.environment import machine
from bench.lab import counts
from bench.lab.batches import Batch
from bench.lab.build import Build
from bench.lab.deploy import deploy, saved_size
from bench.lab.forgetting import perplexity, perplexity_before, unrelated_batches
from bench.lab.meters import Meters, gemm_peak
from bench.lab.methods import Prepared, trainable
from bench.lab.models import (
    Unsupported,
    anatomy,
    load_tokenizer,
    trained_head,
)
from bench.lab.outcome import (
    DEPLOYED,
    FORGOTTEN,
    PREDICTED,
    PROBED,
    SAVED,
    finished,
    of_deployment,
    of_meters,
    of_probe,
    of_training,
    of_untouched,
    of_work,
    without,
)
from bench.lab.probe import probe
from bench.lab.repeatable import ask_for_same_bits
from bench.lab.seeds import seed_all
from bench.lab.step import Step
from bench.lab.symbolic import NotSymbolic, predicted_peak, unforeseen
from bench.lab.train import Progress, scored, train
from bench.lab.work import Work, prepare_work, task_of
from bench.outcome import Outcome
from bench.record import Job
from bench.resolve import known_method


def run(job: Job, places: Places, progress: Progress) -> Outcome:
    """Run one job.

    Args:
        job: what to run.
        places: where models and rows may come from.
        progress: called with {"phase": ...} and {"step": i, "steps": n, "metric": x}.

    Raises:
        Diverged, Unsupported, UserError, torch.OutOfMemoryError: see `bench.lab.worker`.
    """
    device = torch.device(job.device)
    torch.set_num_threads(job.threads)
    ask_for_same_bits(device)
    meters = Meters(device)
    slow = _slow_precision(job, device)

    progress({"phase": "data"})
    with meters.phase("load"):
        task = task_of(job)
        data = load_task(task, places)
        model_at = model_files(MODELS[job.model], places)
    with meters.phase("tokenise"):
        tokenizer = load_tokenizer(model_at.path)
        work = prepare_work(job, task, data, tokenizer, model_at.path, places.cache)
        measured = job.causal is not None and job.purpose != "tuning"
        unrelated = unrelated_batches(job, places, tokenizer) if measured else []

    progress({"phase": "model"})
    with meters.phase("load"):
        parts = anatomy(model_at.path, task)
        build = Build(job, task, model_at.path, parts, work, places.cache)
    before_training = None
    if unrelated:
        with meters.phase("forget"):
            before_training = perplexity_before(build, unrelated)
    with meters.phase("load"):
        loaded = build.loaded()
    base = loaded.model
    meters.book("quantise", loaded.quantise_seconds, "load" if loaded.now else None)
    total, before = counts.parameters(base), list(base.parameters())
    base_format = counts.base_format(base)
    sources = {
        "base_format": base_format,
        "data_source": data.source,
        "data_fingerprint": data.fingerprint,
        "model_source": model_at.source,
        **of_work(work),
    }
    if not known_method(job.method).trains:
        progress({"phase": "evaluate"})
        scores = scored(base, work.eval, work, task, job, meters, device)
        found = Outcome(
            status="ok", metric_value=scores.metrics[job.metric], total_parameters=total,
            **sources, **of_untouched(scores, meters),
        )  # fmt: skip
        found = _forgotten(found, job, unrelated, before_training, base, meters)
        return finished(found, job, work, meters, slow)
    with meters.phase("build"):
        prepared = build.prepare(base)
    first_hash = counts.weights_hash(prepared.model)
    trained_count = _trained(prepared)

    step = Step(job, task, prepared, device)
    seed_all(job.seed, "dropout")
    trained = train(job, task, prepared, step, work, meters, device, progress)
    peak_rate = gemm_peak(device, job.recipe.precision)

    fault = prepared.fault()
    last_hash = counts.weights_hash(prepared.model)
    if last_hash == first_hash:
        fault = "no trainable weight changed in training"
    trained_count = max(trained_count, _trained(prepared))  # of two stages, the larger
    head_count = counts.head_parameters(
        prepared.model, trained_head(build.parts, job.recipe.train_pooler)
    )
    outcome = Outcome(
        status="invalid" if fault else "ok",
        status_reason=fault or "",
        optimizer=step.optimizer_name,
        learning_rate_mean=step.learning_rate_mean,
        matched_rank=prepared.matched_rank,
        steps=job.recipe.steps,
        trainable_parameters=trained_count,
        head_parameters=head_count,
        adapter_parameters=trained_count - head_count,
        solved_size=build.solved.size if build.solved else None,
        budget_parameters=build.solved.wanted if build.solved else None,
        active_parameters=(
            prepared.active_parameters() if prepared.active_parameters else trained_count
        ),
        total_parameters=total + counts.added_parameters(prepared.model, before),
        layer_scores=prepared.layer_scores,
        initial_weights_hash=first_hash,
        final_weights_hash=last_hash,
        gemm_flops_per_second=peak_rate,
        **sources,
        **of_training(job, trained),
    )
    outcome = replace(outcome, **of_meters(meters, trained))
    outcome = _forgotten(outcome, job, unrelated, before_training, prepared.model, meters)
    if job.purpose == "tuning":
        names = (*SAVED, *DEPLOYED, *PROBED, *PREDICTED)
        outcome = without(outcome, names, "a tuning trial measures quality")
    else:
        outcome = _deployed(outcome, build, prepared, work, meters, progress)
        del prepared, step, base
        outcome = _probed(outcome, build, work, meters, progress)
    return finished(outcome, job, work, meters, slow)


def _forgotten(
    outcome: Outcome, job: Job, unrelated: list[Batch], before: float | None, model: nn.Module,
    meters: Meters,
) -> Outcome:  # fmt: skip
    """The outcome with the perplexity of unrelated text, before and after; of an untouched model
    they are one."""
    if before is None:
        trial = job.causal is not None
        why = "a tuning trial measures quality" if trial else "an encoder reads no text on"
        return without(outcome, FORGOTTEN, why)
    after = before
    if known_method(job.method).trains:
        with meters.phase("forget"):
            after = perplexity(model, unrelated, job, torch.device(job.device))
    return replace(outcome, unrelated_perplexity_before=before, unrelated_perplexity_after=after)


def _trained(prepared: Prepared) -> int:
    return sum(p.numel() for _, p in trainable(prepared.model))


def _slow_precision(job: Job, device: torch.device) -> list[str]:
    """A warning where bf16 has no fast path on the CPU.

    Raises:
        Unsupported: where the GPU has none.
    """
    if job.recipe.precision != "bf16":
        return []
    if device.type == "cuda":
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise Unsupported("this GPU has no bf16 arithmetic; use precision: fp32")
        return []
    if machine()["bf16_instructions"] is False:
        return ["the CPU has no bf16 instructions: bf16 is emulated and slow"]
    return []


def _deployed(
    outcome: Outcome, build: Build, prepared: Prepared, work: Work, meters: Meters,
    progress: Progress,
) -> Outcome:  # fmt: skip
    """Save, reload, merge and time. What fails here is a fact about the method, not about its
    training: it leaves nulls with the reason."""
    device = torch.device(build.job.device)
    progress({"phase": "save"})
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch:
        folder = Path(scratch)
        with meters.phase("save"):
            prepared.save(folder)
        size, saved = saved_size(folder)
        outcome = replace(outcome, adapter_bytes=size, saved_parameters=saved)
        progress({"phase": "deploy"})
        try:
            with meters.phase("deploy"):
                found = deploy(build.job, prepared, folder, build.base, work.latency, device)
        except Exception as error:
            return _failed(outcome, DEPLOYED, "reloading and merging", error)
    return replace(outcome, **of_deployment(found, outcome))


def _probed(
    outcome: Outcome, build: Build, work: Work, meters: Meters, progress: Progress
) -> Outcome:
    progress({"phase": "probe"})
    try:
        with meters.phase("probe"):
            model = build.prepare(build.base())
            found = probe(build.job, build.task, model, work, torch.device(build.job.device))
    except Exception as error:
        outcome = without(outcome, PREDICTED, "there is nothing to hold it against")
        return _failed(outcome, PROBED, "the probe steps", error)
    del model
    outcome = replace(outcome, **of_probe(found, outcome))
    try:
        with meters.phase("predict"):
            peak = predicted_peak(build, found)
    except (NotSymbolic, Unsupported) as error:
        return without(outcome, PREDICTED, str(error))
    except Exception as error:  # a limit of the prediction, not of the job
        traceback.print_exc()
        return without(outcome, PREDICTED, unforeseen(error))
    error_share = peak / found.live.total - 1
    return replace(outcome, predicted_live_bytes=peak, prediction_error=error_share)


def _failed(outcome: Outcome, names: tuple[str, ...], what: str, error: Exception) -> Outcome:
    traceback.print_exc()
    text = " ".join(str(error).split())[:200]
    reason = f"{what} failed: {type(error).__name__}: {text}"
    return without(replace(outcome, warnings=(*outcome.warnings, reason)), names, reason)
