"""Writes rows as results of `method_comparison`, the benchmark inside huggingface/peft.

One JSON file a run, as its app's loader wants it (`processing.py`, read in version of July 2026):
every key below must be there, whole numbers must be numbers, and one file that lacks any of them
keeps the app from loading all. A whole number that peftmark did not measure is therefore
`NOT_MEASURED`, which no reader can take for a measurement, and `meta_info.peftmark.not_measured`
names it; the importer here reads it as null.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from peftmark.catalog.methods import METHODS, PREFIX, cell_title
from peftmark.catalog.peft_types import PEFT_TYPES
from peftmark.record.job import Job, Record
from peftmark.record.outcome import Outcome
from peftmark.storage.external import SUCCESS
from peftmark.storage.peft_method_comparison import NO_SIZE

NOT_MEASURED = -1
SHARES = ("accuracy", "exact_match")
"""Metrics that are a share of answers that are right, which is what the benchmark's accuracy is."""
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
TYPES = {
    "adalora": "ADALORA",
    "ia3": "IA3",
    "prefix-tuning": "PREFIX_TUNING",
    "p-tuning-v2": "PREFIX_TUNING",
    "prompt-tuning": "PROMPT_TUNING",
    "p-tuning": "P_TUNING",
}
"""Method -> PEFT's type, besides those of LoRA's family and `peft:<type>`."""
PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")


def exported(records: Iterable[Record]) -> dict[str, str]:
    """Path below the target folder -> JSON, a file a run.

    Args:
        records: finished rows with a metric of `SHARES`.
    """
    files: dict[str, str] = {}
    for record in records:
        tree = _tree(record)
        name = tree["run_info"]["experiment_name"]
        path = f"{_slug(record.job.task)}/results/{name.replace('/', '--')}.json"
        if path in files:
            tree["run_info"]["experiment_name"] = name = f"{name}-{record.job.job_id[:8]}"
            path = f"{_slug(record.job.task)}/results/{name.replace('/', '--')}.json"
        files[path] = json.dumps(_finite(tree), indent=2, allow_nan=False) + "\n"
    return files


def unfit(record: Record) -> str:
    """Why a row can't be a result of the benchmark, in words that stand for all of its kind; empty
    if it can."""
    if not record.ok:
        return "did not finish"
    if record.job.metric not in SHARES:
        return f"metric {record.job.metric}, where the benchmark has an accuracy"
    if record.outcome.metric_value is None:
        return "no score"
    return ""


def _tree(record: Record) -> dict[str, Any]:
    missing: list[str] = []

    def whole(place: str, value: float | None) -> float:
        if value is None or not math.isfinite(value):
            missing.append(place)
            return NOT_MEASURED
        return value

    tree = {
        "run_info": _run_info(record, whole),
        "train_info": _train_info(record, whole),
        "meta_info": _meta_info(record),
    }
    tree["meta_info"]["peftmark"]["not_measured"] = missing
    return tree


# --- run_info -----------------------------------------------------------------------------------


def _run_info(record: Record, whole: Any) -> dict[str, Any]:
    job, recipe = record.job, record.job.recipe
    beside_others = (record.outcome.jobs_on_gpu or 1) > 1
    return {
        "created_at": record.started_at.replace("Z", "+00:00"),
        "total_time": whole("run_info.total_time", None if beside_others else record.wall_seconds),
        "experiment_name": _name(job),
        "peft_branch": None,
        "train_config": {
            "model_id": _model_id(job),
            "dtype": DTYPES[recipe.weights] if job.quantization == "none" else job.quantization,
            "max_seq_length": recipe.max_length,
            "batch_size": recipe.batch_size,
            "batch_size_eval": recipe.eval_batch_size,
            "max_steps": record.outcome.steps or recipe.steps,
            "eval_steps": recipe.eval_every,
            "compile": recipe.compile,
            "use_gc": recipe.gradient_checkpointing,
            "query_template": None,
            "seed": job.seed,
            "grad_norm_clip": recipe.max_grad_norm,
            "optimizer_type": record.outcome.optimizer or recipe.optimizer,
            "optimizer_kwargs": {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay},
            "lr_scheduler": recipe.schedule,
            "use_amp": recipe.precision != "fp32",
        },
        "peft_config": _peft_config(record),
        "error_msg": "",
    }


def _name(job: Job) -> str:
    """Method and experiment, as the benchmark names its runs."""
    cell = cell_title(*job.cell)
    return f"{_slug(job.method)}/{_slug(job.model)}-{_slug(cell)}-seed{job.seed}"


def _slug(text: str) -> str:
    """A name that stays in its folder on every system."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:80] or "unnamed"


def _model_id(job: Job) -> str:
    model = job.known_model
    return model.hub.repository if model is not None and model.hub is not None else job.model


def _peft_config(record: Record) -> dict[str, Any] | None:
    """What the row says of the adapter; None where the whole model trained."""
    job, recipe = record.job, record.job.recipe
    if job.method == "full":
        return None
    kind = _type(job.method)
    known = PEFT_TYPES.get(kind.lower())
    size = job.size if job.size is not None else record.outcome.solved_size
    config: dict[str, Any] = {"peft_type": kind, "base_model_name_or_path": _model_id(job)}
    if size is not None:
        config[(known and known.size) or "r"] = size
    if recipe.targets is not None:
        config["target_modules"] = recipe.targets
    if recipe.alpha is not None:
        config["lora_alpha"] = recipe.alpha
    if recipe.dropout is not None:
        config["lora_dropout"] = recipe.dropout
    return config


def _type(method: str) -> str:
    """PEFT's type, or peftmark's own name of what PEFT does not have."""
    if method.startswith(PREFIX):
        return method.removeprefix(PREFIX).upper()
    if method in METHODS and METHODS[method].family == "lora":
        return "LORA"
    return TYPES.get(method, f"PEFTMARK:{method.upper()}")


# --- train_info ---------------------------------------------------------------------------------


def _train_info(record: Record, whole: Any) -> dict[str, Any]:
    outcome, at = record.outcome, "train_info."
    steps = outcome.curve[-1].seconds if outcome.curve else None
    reserved = f"{at}accelerator_memory"
    return {
        # Of torch's allocator the highest reserved bytes are recorded, and no course of them.
        "accelerator_memory_reserved_avg": whole(f"{reserved}_reserved_avg", None),
        "accelerator_memory_max": whole(f"{reserved}_max", outcome.torch_reserved_bytes),
        "accelerator_memory_reserved_99th": whole(f"{reserved}_reserved_99th", None),
        "train_time": whole(f"{at}train_time", steps),
        "file_size": NO_SIZE if outcome.adapter_bytes is None else outcome.adapter_bytes,
        "num_trainable_params": whole(f"{at}num_trainable_params", outcome.trainable_parameters),
        "num_total_params": whole(f"{at}num_total_params", outcome.total_parameters),
        "status": SUCCESS,
        "metrics": [*_intervals(record), _last(record, whole)],
    }


def _intervals(record: Record) -> Iterable[dict[str, Any]]:
    """What lies between two evaluations."""
    rows = record.job.recipe.batch_size
    starts = [0.0, *(point.seconds for point in record.outcome.curve)]
    for point, (start, end) in zip(record.outcome.curve, pairwise(starts), strict=True):
        interval = {
            "step": point.step,
            "train loss": point.loss,
            "train samples": point.step * rows,
            "train time": end - start,
        }
        if point.selection_metric is not None:
            interval["valid accuracy"] = point.selection_metric
        yield interval


def _last(record: Record, whole: Any) -> dict[str, Any]:
    outcome, recipe = record.outcome, record.job.recipe
    steps = outcome.steps if outcome.steps is not None else recipe.steps
    found = {
        "step": steps,
        "test accuracy": outcome.metric_value,
        "train loss": outcome.loss,
        "train samples": steps * recipe.batch_size,
        "train total tokens": whole("train_info.metrics.train total tokens", None),
    }
    forgotten = _forgetting(outcome)
    return found if forgotten is None else found | {"forgetting": forgotten}


def _forgetting(outcome: Outcome) -> float | None:
    """By how many nats a token the loss on unrelated text rose."""
    before, after = outcome.unrelated_perplexity_before, outcome.unrelated_perplexity_after
    if not before or not after:
        return None
    return math.log(after / before)


# --- meta_info ----------------------------------------------------------------------------------


def _meta_info(record: Record) -> dict[str, Any]:
    job, made = record.job, record.environment
    model = job.known_model
    hub = model.hub if model is not None else None
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        packages |= {f"{name}-version": made.versions.get(name), f"{name}-commit-hash": None}
    machine = made.machine
    gpus = machine.get("gpus") or []
    return {
        "model_info": {"sha": hub.revision if hub is not None else None, "created_at": None},
        "dataset_info": {job.task: {"sha": None, "created_at": None}},
        "package_info": packages,
        "system_info": {
            "system": machine.get("system"),
            "processor": machine.get("cpu"),
            "accelerator": gpus[0] if job.device != "cpu" and gpus else machine.get("cpu"),
        },
        "peftmark": {
            "version": made.versions.get("peftmark"),
            "suite": f"{job.suite}, version {job.suite_version}, profile {job.profile}",
            "job": job.job_id,
            "method": job.method,
            "cell": cell_title(*job.cell),
            "task": job.task,
            "metric": job.metric,
            "device": job.device,
        },
    }


def _finite(value: Any) -> Any:
    """The same with null for what is no number: JSON has neither NaN nor infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
