"""From what was measured to the fields of an `Outcome`, with a reason for every null."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from peftmark.catalog.metrics import metric_title, sign_of
from peftmark.lab.data.batches import order_hash
from peftmark.lab.data.job_data import Work
from peftmark.lab.deploy import Deployed
from peftmark.lab.measure.meters import Meters
from peftmark.lab.measure.probe import Probed
from peftmark.lab.scoring import Scores
from peftmark.lab.step import plain_instead
from peftmark.lab.train import Trained, warm_up_steps
from peftmark.record.fields import LIVE_PARTS
from peftmark.record.fields_batch_latency import BATCH_LATENCY, MERGED_BATCH_LATENCY
from peftmark.record.fields_watch import WATCHED
from peftmark.record.job import Job
from peftmark.record.outcome import Outcome, numbers
from peftmark.record.shared import without_neighbours
from peftmark.record.stages import in_stages

DEPLOYED = (
    "latency_p50_seconds",
    "latency_p95_seconds",
    "merged_latency_p50_seconds",
    "merged_latency_p95_seconds",
    *BATCH_LATENCY.values(),
    *MERGED_BATCH_LATENCY.values(),
    "merge_target",
    "merge_max_error",
    "reload_max_error",
)
SAVED = ("saved_parameters", "adapter_bytes", "saved_adapter_bytes", "saved_head_bytes")
PROBED = (
    "live_bytes",
    *(part.column for part in LIVE_PARTS),
    "flops_per_step",
    "mfu",
)
PREDICTED = ("predicted_live_bytes", "prediction_error")
AFTERWARDS = (*SAVED, *DEPLOYED, *PROBED, *PREDICTED)
"""Columns of what is measured once training is over."""
FORGOTTEN = ("unrelated_perplexity_before", "unrelated_perplexity_after")


UNTOUCHED = (
    *SAVED, *DEPLOYED, *PROBED, *PREDICTED, "selected_metric_value", "selected_step",
    "selection_metric_value", "best_metric_value", "target_reached", "steps_to_target",
    "exploding_step", "loss", "penalty", "optimizer", "learning_rate_mean", "matched_rank",
    "rank_allocator",
    "timed_steps", "train_seconds", "step_seconds_p10", "step_seconds_p50", "step_seconds_p90",
    "cpu_seconds", "samples_per_second", "tokens_per_second", "torch_allocated_bytes",
    "torch_reserved_bytes", "vmhwm_train_bytes", "rss_before_train_bytes", "summed_peak_bytes",
    "energy_gpu_joules", "energy_cpu_joules", "gemm_flops_per_second", "head_parameters",
    "adapter_parameters",
    "solved_size", "budget_parameters", "active_parameters", "final_rank", "initial_weights_hash",
    "final_weights_hash", "peak_memory_bytes", "peak_memory_source", *WATCHED,
)  # fmt: skip
"""Columns of what a job does in training and after it."""

NOT_FITTED = (
    *(name for name in UNTOUCHED if name not in {
        "saved_parameters", "adapter_bytes", "latency_p50_seconds", "latency_p95_seconds",
        "reload_max_error", "selection_metric_value", "optimizer", "final_weights_hash",
    }),
    "steps", "padding_share", "cut_share", "batch_lengths", "batch_order_hash",
)  # fmt: skip
"""Columns of training that a reference line without fine-tuning has no figure for."""


def without(outcome: Outcome, names: tuple[str, ...], reason: str) -> Outcome:
    """The outcome with one reason for several nulls."""
    return replace(outcome, null_reasons=outcome.null_reasons | dict.fromkeys(names, reason))


def of_work(work: Work) -> dict[str, Any]:
    """Counts and hashes of the rows."""
    return {
        "baseline_value": work.baseline,
        "padding_share": work.padding_share,
        "cut_share": work.cut_share,
        "batch_lengths": len(set(work.longest)),
        "class_rows": work.class_rows,
        "batch_order_hash": order_hash(work.order),
        "references": numbers(work.eval.references.ravel()),
        "train_rows": work.train_rows,
        "selection_rows": work.selection_rows,
        "eval_rows": len(work.eval.references),
        "overlap_rows": work.overlap_rows,
    }


def of_training(job: Job, trained: Trained) -> dict[str, Any]:
    """Quality: the curve, the last and the selected step, and what went wrong on the way."""
    curve, last = trained.curve, trained.curve[-1]
    reasons = {}
    better = sign_of(job.metric)
    wanted = math.inf if job.target is None else better * job.target
    reached = [p.step for p in curve if better * p.metric >= wanted]
    if not reached:
        reasons["steps_to_target"] = "the target was not reached"
    if trained.exploding_step is None:
        reasons["exploding_step"] = "the gradient norm never rose by half three times in a row"
    if last.penalty is None:
        reasons["penalty"] = "the method adds no term to the loss"
    if not trained.rank_history:
        reasons |= dict.fromkeys(("final_rank", "matched_rank"), "the method has no rank")
    scored = [p for p in curve if p.selection_metric is not None]
    # The first of equals: no further step was needed.
    picked = max(
        scored, key=lambda p: (better * (p.selection_metric or 0.0), -p.step), default=None
    )
    if picked is None:
        trial = job.purpose == "tuning"
        reason = "the recipe cuts no selection rows"
        if job.recipe.selection_rows:
            reason = f"the selection rows have no {metric_title(job.metric)}"
        if trial:
            reason = "a tuning trial is scored on the selection rows alone"
        names = ("selected_metric_value", "selected_step", "selection_metric_value")
        reasons |= dict.fromkeys(names, reason)
    watched, unwatched = trained.watched
    reasons |= unwatched
    if not trained.written:
        reasons["generated_tokens_per_second"] = "no answers are written"
    ranks = [end for history in trained.rank_history.values() if (end := history[-1]) is not None]
    return {
        "metrics": trained.last.metrics,
        "predictions": numbers(trained.last.predictions.ravel()),
        "completions": trained.last.written.texts,
        "metric_value": last.metric,
        "selected_metric_value": picked.metric if picked else None,
        "selected_step": picked.step if picked else None,
        "selection_metric_value": picked.selection_metric if picked else None,
        "best_metric_value": max((p.metric for p in curve), key=lambda metric: better * metric),
        "target_reached": bool(reached) if job.target is not None else None,
        "steps_to_target": reached[0] if reached else None,
        "collapsed": trained.last.constant,
        "exploding_step": trained.exploding_step,
        "loss": last.loss,
        "penalty": last.penalty,
        "final_rank": sum(ranks) if ranks else None,
        "rank_history": trained.rank_history,
        "importance_history": trained.importance_history,
        "gate_history": trained.gate_history,
        **watched,
        "curve": curve,
        "null_reasons": reasons,
    }


def of_meters(meters: Meters, trained: Trained) -> dict[str, Any]:
    """Time, memory and energy of the training steps, read right after them."""
    seconds = meters.seconds.get("train")
    percentiles = meters.step_percentiles() or (None, None, None)
    gpu, cpu, flags = meters.energy()
    return {
        "timed_steps": len(meters.step_seconds()),
        "train_seconds": seconds,
        "eval_seconds": meters.seconds["evaluate"],
        "step_seconds_p10": percentiles[0],
        "step_seconds_p50": percentiles[1],
        "step_seconds_p90": percentiles[2],
        "cpu_seconds": meters.cpu_seconds,
        "samples_per_second": trained.samples / seconds if seconds else None,
        "tokens_per_second": trained.tokens / seconds if seconds else None,
        **of_writing(meters, trained.written),
        "torch_allocated_bytes": meters.allocated,
        "torch_reserved_bytes": meters.reserved,
        "vmhwm_train_bytes": meters.vmhwm_train,
        "energy_gpu_joules": gpu.value,
        "energy_cpu_joules": cpu.value,
        "energy_flags": flags,
    }


def of_writing(meters: Meters, tokens: int) -> dict[str, Any]:
    """How fast answers were written."""
    seconds = meters.seconds.get("generate")
    return {"generated_tokens_per_second": tokens / seconds if seconds else None}


def of_untouched(scores: Scores, meters: Meters) -> dict[str, Any]:
    """Quality and speed of a model that nothing was done to."""
    reasons = dict.fromkeys(UNTOUCHED, "nothing trains")
    if not scores.written.tokens:
        reasons["generated_tokens_per_second"] = "no answers are written"
    return {
        "metrics": scores.metrics,
        "predictions": numbers(scores.predictions.ravel()),
        "completions": scores.written.texts,
        "collapsed": scores.constant,
        "steps": 0,
        "trainable_parameters": 0,
        "eval_seconds": meters.seconds["evaluate"],
        "null_reasons": reasons,
        **of_writing(meters, scores.written.tokens),
    }


def of_fit(scores: Scores, meters: Meters, untrained: str) -> dict[str, Any]:
    """Quality of a reference line without fine-tuning, and why the rest is null.

    Args:
        untrained: what was done in place of training.
    """
    reasons = dict.fromkeys(NOT_FITTED, untrained)
    names = (name for name in DEPLOYED if name.startswith("merge"))
    reasons |= dict.fromkeys(names, "there is no adapter to merge")
    reasons["generated_tokens_per_second"] = "no answers are written"
    return {
        "metrics": scores.metrics,
        "predictions": numbers(scores.predictions.ravel()),
        "collapsed": scores.constant,
        "eval_seconds": meters.seconds["evaluate"],
        "null_reasons": reasons,
    }


def of_deployment(found: Deployed, outcome: Outcome) -> dict[str, Any]:
    """Latency, merge and reload."""
    merged = found.merged_latency or (None, None)
    columns = (*BATCH_LATENCY.values(), *MERGED_BATCH_LATENCY.values())
    reasons = dict.fromkeys(columns, f"there are only {outcome.eval_rows} evaluation rows")
    if found.merged_latency is None:
        names = (name for name in DEPLOYED if name.startswith("merge"))
        reasons |= dict.fromkeys(names, found.merge_reason)
    by_rows = {
        "latency_1_row_seconds": found.by_rows.get(1),
        "latency_4_rows_seconds": found.by_rows.get(4),
        "latency_8_rows_seconds": found.by_rows.get(8),
        "merged_latency_1_row_seconds": found.merged_by_rows.get(1),
        "merged_latency_4_rows_seconds": found.merged_by_rows.get(4),
        "merged_latency_8_rows_seconds": found.merged_by_rows.get(8),
    }
    reasons = {name: why for name, why in reasons.items() if by_rows.get(name) is None}
    return {
        "latency_p50_seconds": found.latency[0],
        "latency_p95_seconds": found.latency[1],
        "merged_latency_p50_seconds": merged[0],
        "merged_latency_p95_seconds": merged[1],
        **by_rows,
        "merge_target": found.merge_target,
        "merge_max_error": found.merge_max_error,
        "reload_max_error": found.reload_max_error,
        "null_reasons": outcome.null_reasons | reasons,
    }


def of_probe(probed: Probed, outcome: Outcome, devices: int) -> dict[str, Any]:
    """Live bytes, operations, and the share of the peak of all the job's devices that the timed
    steps reached."""
    live = probed.live
    rate = outcome.gemm_flops_per_second
    flops = probed.flops[: outcome.steps]
    first = warm_up_steps(len(probed.flops))
    timed = sum(flops[first : first + (outcome.timed_steps or 0)])
    reached = timed / outcome.train_seconds if outcome.train_seconds else None
    return {
        "live_bytes": live.total,
        **{part.column: getattr(live, part.key) for part in LIVE_PARTS},
        "flops_per_step": sum(flops) / len(flops),
        "mfu": reached / (rate * devices) if reached and rate else None,
    }


def finished(
    outcome: Outcome, job: Job, work: Work, meters: Meters, warnings: Sequence[str]
) -> Outcome:
    """The headline memory figure, the reasons of what is null, and the warnings."""
    gpu, cpu, _ = meters.energy()
    on_cpu = "the job ran on the CPU"
    reasons = {
        "solved_size": "the suite gives the size, not a budget",
        "budget_parameters": "the suite gives the size, not a budget",
        "rank_allocator": "the method allocates no ranks",
        "compile_seconds": "the recipe compiles no layers",
        "baseline_value": work.baseline_reason,
        "collapsed": "every evaluation row has the same label or answer: to say it of all is right",
        "torch_allocated_bytes": on_cpu,
        "torch_reserved_bytes": on_cpu,
        "energy_gpu_joules": gpu.reason,
        "energy_cpu_joules": cpu.reason,
        "timed_alone": on_cpu,
        "summed_peak_bytes": (
            "one process trained the job"
            if job.recipe.devices == 1
            else "a process can't tell its own peak"
        ),
        "vmhwm_bytes": "no /proc on this system",
        "vmhwm_train_bytes": "no /proc on this system",
        "rss_before_train_bytes": "no /proc on this system",
    }
    on_gpu = job.device != "cpu"
    headline = outcome.torch_allocated_bytes if on_gpu else outcome.live_bytes
    source = "torch_allocated_bytes" if on_gpu else "live_bytes"
    if headline is None:
        why = outcome.null_reasons.get("live_bytes", "not measured")
        reasons |= dict.fromkeys(("peak_memory_bytes", "peak_memory_source"), why)
    warnings = list(warnings)
    if work.overlap_rows:
        text = f"{work.overlap_rows} evaluation rows also stand in the training rows"
        warnings.append(text)
    if job.recipe.optimizer != "adamw" and (why := plain_instead(job)):
        warnings.append(f"plain AdamW ran: {why}")
    outcome = replace(
        outcome,
        collapsed=None if outcome.collapsed and work.eval.alike else outcome.collapsed,
        timed_alone=True if on_gpu else None,
        peak_memory_bytes=headline,
        peak_memory_source=source if headline is not None else None,
        vmhwm_bytes=meters.life_peak(),
        phase_seconds={name: round(value, 4) for name, value in meters.seconds.items()},
        warnings=(*outcome.warnings, *warnings),
        **meters.noted,
    )
    if meters.turns.shared:
        outcome = without_neighbours(outcome, meters.turns.timed, in_stages(job))
    nulls = {n: why for n, why in reasons.items() if getattr(outcome, n) is None}
    return replace(outcome, null_reasons={**nulls, **outcome.null_reasons})
