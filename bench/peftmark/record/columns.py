"""The columns of a stored row, and records to rows and back. docs/columns.md explains each."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from peftmark.record.job import Environment, Job, Record
from peftmark.record.outcome import NUMBERS, OUTCOME_FIELDS, CurvePoint, Outcome, numbers

# Column name -> Arrow type name; the order is the order in the file. Explicit, because inferred
# schemas drop columns and fail on all-null parts.
JOB_COLUMNS = {
    "suite": "string",
    "suite_version": "int64",
    "profile": "string",
    "purpose": "string",
    "job_id": "string",
    "attempt": "int64",
    "model": "string",
    "method": "string",
    "rank": "int64",
    "quantization": "string",
    "variant": "string",
    "task": "string",
    "seed": "int64",
    "device": "string",
    "threads": "int64",
}
OUTCOME_COLUMNS = {
    "status": "string",
    "status_reason": "string",
    "metric_name": "string",
    "metric_value": "float64",
    "selected_metric_value": "float64",
    "selected_step": "int64",
    "selection_metric_value": "float64",
    "best_metric_value": "float64",
    "baseline_value": "float64",
    "metrics": "json",
    "predictions": "numbers",
    "references": "numbers",
    "completions": "strings",
    "unrelated_perplexity_before": "float64",
    "unrelated_perplexity_after": "float64",
    "generated_tokens_per_second": "float64",
    "target_value": "float64",
    "target_reached": "bool",
    "steps_to_target": "int64",
    "collapsed": "bool",
    "exploding_step": "int64",
    "loss": "float64",
    "penalty": "float64",
    "optimizer": "string",
    "learning_rate_mean": "float64",
    "base_format": "json",
    "matched_rank": "string",
    "steps": "int64",
    "timed_steps": "int64",
    "train_seconds": "float64",
    "step_seconds_p10": "float64",
    "step_seconds_p50": "float64",
    "step_seconds_p90": "float64",
    "eval_seconds": "float64",
    "cpu_seconds": "float64",
    "samples_per_second": "float64",
    "tokens_per_second": "float64",
    "padding_share": "float64",
    "peak_memory_bytes": "int64",
    "peak_memory_source": "string",
    "live_bytes": "int64",
    "live_weight_bytes": "int64",
    "live_quantization_bytes": "int64",
    "live_adapter_bytes": "int64",
    "live_gradient_bytes": "int64",
    "live_optimizer_bytes": "int64",
    "live_activation_bytes": "int64",
    "live_temporary_bytes": "int64",
    "predicted_live_bytes": "int64",
    "prediction_error": "float64",
    "torch_allocated_bytes": "int64",
    "torch_reserved_bytes": "int64",
    "nvml_process_bytes": "int64",
    "nvml_device_bytes": "int64",
    "vmhwm_bytes": "int64",
    "vmhwm_train_bytes": "int64",
    "rss_before_train_bytes": "int64",
    "energy_gpu_joules": "float64",
    "energy_cpu_joules": "float64",
    "energy_flags": "strings",
    "flops_per_step": "float64",
    "gemm_flops_per_second": "float64",
    "mfu": "float64",
    "trainable_parameters": "int64",
    "head_parameters": "int64",
    "adapter_parameters": "int64",
    "solved_size": "int64",
    "budget_parameters": "int64",
    "active_parameters": "int64",
    "saved_parameters": "int64",
    "total_parameters": "int64",
    "adapter_bytes": "int64",
    "latency_p50_seconds": "float64",
    "latency_p95_seconds": "float64",
    "merged_latency_p50_seconds": "float64",
    "merged_latency_p95_seconds": "float64",
    "merge_target": "string",
    "merge_max_error": "float64",
    "reload_max_error": "float64",
    "final_rank": "int64",
    "rank_history": "json",
    "importance_history": "json",
    "layer_scores": "json",
    "curve": "curve",
    "initial_weights_hash": "string",
    "final_weights_hash": "string",
    "batch_order_hash": "string",
    "train_rows": "int64",
    "selection_rows": "int64",
    "eval_rows": "int64",
    "overlap_rows": "int64",
    "data_source": "string",
    "data_fingerprint": "string",
    "model_source": "string",
    "phase_seconds": "json",
    "warnings": "strings",
    "null_reasons": "json",
    "wall_seconds": "float64",
    "started_at": "string",
    "finished_at": "string",
    "command": "string",
    "config": "string",
    "environment": "string",
}
COLUMNS = {**JOB_COLUMNS, **OUTCOME_COLUMNS}
JSON_COLUMNS = tuple(name for name, kind in COLUMNS.items() if kind == "json")
_to_json = json.JSONEncoder(sort_keys=True).encode  # `json.dumps` makes an encoder at every call


def to_row(record: Record) -> dict[str, Any]:
    """The stored row of a record."""
    job, outcome = record.job, record.outcome
    row = {name: getattr(job, name, None) for name in JOB_COLUMNS}
    row |= {name: getattr(outcome, name, None) for name in OUTCOME_COLUMNS}
    row |= {
        "attempt": record.attempt,
        "metric_name": job.metric,
        "target_value": job.target,
        "curve": [dict(vars(point)) for point in outcome.curve],
        **{name: getattr(outcome, name).tolist() for name in NUMBERS},
        "warnings": list(outcome.warnings),
        "energy_flags": list(outcome.energy_flags),
        "completions": list(outcome.completions),
        "nvml_process_bytes": record.nvml_process_bytes,
        "nvml_device_bytes": record.nvml_device_bytes,
        "wall_seconds": record.wall_seconds,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "command": record.command,
        "config": job.to_json(),
        "environment": _to_json(vars(record.environment)),
    }
    row["null_reasons"] = _null_reasons(record, row)
    return row | {name: _to_json(row[name]) for name in JSON_COLUMNS}


def _null_reasons(record: Record, row: dict[str, Any]) -> dict[str, str]:
    """A reason for every null of the row."""
    reasons = {n: record.null_reason(n) for n in OUTCOME_COLUMNS if row[n] is None}
    for name in ("target_value", "target_reached", "steps_to_target"):
        if name in reasons and record.job.target is None:
            reasons[name] = "the suite sets no target for this task"
    if row["rank"] is None:
        budget = record.job.recipe.budget is not None
        reasons["rank"] = "a budget decides it" if budget else "the method has no size"
    return reasons


def from_row(row: dict[str, Any]) -> Record:
    """The inverse of `to_row`.

    Raises:
        ValueError, KeyError, TypeError: if the row isn't one of ours.
    """
    job = Job.from_json(row["config"])
    if job.job_id != row["job_id"]:
        raise ValueError(f"job_id {row['job_id']} does not match its config ({job.job_id})")
    values = {name: row[name] for name in OUTCOME_FIELDS}
    values |= {name: json.loads(row[name]) for name in JSON_COLUMNS}
    nvml = [values["null_reasons"].get(f"nvml_{of}_bytes", "") for of in ("process", "device")]
    values |= {name: numbers(row[name]) for name in NUMBERS}
    values["curve"] = tuple(CurvePoint(**point) for point in row["curve"])
    values["warnings"] = tuple(row["warnings"])
    values["energy_flags"] = tuple(row["energy_flags"])
    values["completions"] = tuple(row["completions"])
    return Record(
        job=job,
        outcome=Outcome(**values),
        environment=_environment(row["environment"]),
        attempt=row["attempt"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        wall_seconds=row["wall_seconds"],
        nvml_process_bytes=row["nvml_process_bytes"],
        nvml_device_bytes=row["nvml_device_bytes"],
        nvml_reason=next(filter(None, nvml), ""),
        command=row["command"],
    )


@lru_cache(maxsize=64)
def _environment(text: str) -> Environment:
    """All rows of a run have the same one."""
    return Environment(**json.loads(text))
