"""What was asked, where, what happened and what was measured: the types every part shares.

`Job` is one cell of the matrix for one task and seed, fully resolved. `Outcome` is what its
worker reports. `Record` is the stored row: job, outcome and environment together. All are plain
frozen data that survive a round trip through JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

SCHEMA_VERSION = 1
"""Version of the stored columns; readers accept older files and refuse newer ones."""

PROTOCOL = 1
"""Version of the measuring procedure itself. Bumped by hand when the same configuration would
give other numbers (seeding, batching, training step, metric); part of every job's identity."""

Status = Literal[
    "ok",
    "out_of_memory",
    "timed_out",
    "diverged",
    "crashed",
    "invalid",
    "unsupported",
    "interrupted",
]
STATUSES: dict[str, str] = {
    "ok": "finished and valid",
    "out_of_memory": "the device or the host ran out of memory",
    "timed_out": "stopped at the time limit of the job",
    "diverged": "the loss or the logits became NaN or infinite",
    "crashed": "the worker died or raised an unexpected error",
    "invalid": "finished, but not what its name says (AdaLoRA off its budget, no weight changed)",
    "unsupported": "this machine or these library versions can't run the cell",
    "interrupted": "stopped by the user before it finished",
}


@dataclass(frozen=True)
class AdaLoraSchedule:
    """AdaLoRA's own settings in optimizer steps (arXiv 2303.10512, section 3.3).

    Attributes:
        init_rank: rank of every module at the start (init_r), above the job's rank (target_r).
        tinit: steps before the budget starts to fall.
        tfinal: steps at the end with the budget fixed.
        delta_t: steps between two budget allocations.
        beta1: smoothing of the sensitivity.
        beta2: smoothing of its uncertainty.
        orthogonal_weight: weight of the orthogonality penalty.
    """

    init_rank: int
    tinit: int
    tfinal: int
    delta_t: int
    beta1: float
    beta2: float
    orthogonal_weight: float


@dataclass(frozen=True)
class Recipe:
    """How a job trains, with every value resolved.

    Attributes:
        steps: optimizer steps.
        batch_size: rows a step.
        learning_rate: peak learning rate of the method's parameters and the head.
        schedule: shape after the warm-up.
        warmup_share: share of the steps in which the learning rate rises linearly.
        weight_decay: AdamW's decoupled weight decay.
        max_grad_norm: gradient norm above which gradients are scaled down.
        max_length: tokens a row is cut at.
        precision: arithmetic of matrix products; bf16 is autocast over fp32 weights.
        optimizer: AdamW, or bitsandbytes' paged 8-bit AdamW.
        gradient_checkpointing: recompute activations in the backward pass.
        window_batches: batches a length-grouping window spans (1: random batches).
        train_rows: training rows used at most, None for all of them.
        eval_rows: evaluation rows used at most, None for all of them.
        eval_every: steps between two evaluations.
        eval_batch_size: rows an evaluation batch.
        train_pooler: whether the pooler trains with the classifier.
        targets: modules that get an adapter: a named set or name suffixes; None without adapter.
        alpha: LoRA's alpha; the update is scaled by alpha/r.
        dropout: dropout on the adapter's input.
        double_quantization: quantise the block constants too; None without quantization.
        adalora: AdaLoRA's schedule; None for other methods.
    """

    steps: int
    batch_size: int
    learning_rate: float
    schedule: Literal["linear", "constant"]
    warmup_share: float
    weight_decay: float
    max_grad_norm: float
    max_length: int
    precision: Literal["fp32", "bf16"]
    optimizer: Literal["adamw", "paged_adamw_8bit"]
    gradient_checkpointing: bool
    window_batches: int
    train_rows: int | None
    eval_rows: int | None
    eval_every: int
    eval_batch_size: int
    train_pooler: bool
    targets: str | tuple[str, ...] | None = None
    alpha: float | None = None
    dropout: float | None = None
    double_quantization: bool | None = None
    adalora: AdaLoraSchedule | None = None


@dataclass(frozen=True)
class Job:
    """One run: a cell of the matrix on one task with one seed, fully resolved.

    Attributes:
        model_identity: SHA-256 of the model's weights.
        data_fingerprint: expected fingerprint of the task's rows, or `revision:<sha>` where
            only the pinned revision is known.
        target: metric value that counts as "target reached"; None if the suite sets none.
        device: cpu or cuda.
        threads: torch threads of the worker.
    """

    suite: str
    suite_version: int
    profile: str
    model: str
    model_identity: str
    task: str
    task_version: int
    data_fingerprint: str
    metric: str
    target: float | None
    method: str
    rank: int | None
    quantization: str
    seed: int
    device: Literal["cpu", "cuda"]
    threads: int
    recipe: Recipe
    protocol: int = PROTOCOL

    @property
    def job_id(self) -> str:
        """First 16 hex digits of SHA-256 over the canonical JSON of every field."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, no NaN; the text that the identity hashes."""
        return json.dumps(
            asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
        )

    @staticmethod
    def from_json(text: str) -> Job:
        """The inverse of `to_json`."""
        data = json.loads(text)
        recipe = dict(data["recipe"])
        if isinstance(recipe["targets"], list):
            recipe["targets"] = tuple(recipe["targets"])
        if recipe["adalora"] is not None:
            recipe["adalora"] = AdaLoraSchedule(**recipe["adalora"])
        return Job(**{**data, "recipe": Recipe(**recipe)})

    @property
    def cell(self) -> tuple[str, int | None, str]:
        """(method, rank, quantization)."""
        return (self.method, self.rank, self.quantization)


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation during training.

    Attributes:
        step: optimizer steps taken.
        loss: mean training loss of the task (no penalty) since the previous point.
        metric: primary metric on the evaluation rows.
        seconds: training seconds so far, evaluation excluded.
    """

    step: int
    loss: float
    metric: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What a worker reports. A null means unknown; why is in `status_reason` or `warnings`.

    Attributes:
        metrics: every metric of the task on the evaluation rows after the last step.
        metric_value: the primary metric after the last step.
        best_metric_value: the best primary metric over the curve (picked on the same rows).
        baseline_value: primary metric of the majority or mean predictor on the same rows.
        target_reached: whether a curve point reached the target; None without a target.
        steps_to_target: first evaluated step at or past the target; None if never.
        train_seconds: time in training steps, evaluation excluded.
        eval_seconds: time in evaluation.
        samples_per_second: training rows a second of `train_seconds`.
        tokens_per_second: training tokens without padding a second of `train_seconds`.
        peak_memory_bytes: peak memory of the job.
        peak_memory_source: what measured it (`torch max_memory_allocated`, `VmHWM of worker`).
        trainable_parameters: parameters with gradients, head included.
        head_parameters: those of them that belong to classifier and pooler.
        active_parameters: trainable parameters less those of ranks pruned to zero.
        total_parameters: parameters of the model with adapter, 4-bit weights counted unpacked.
        adapter_bytes: size of the saved adapter (or trained weights) on disk.
        final_rank: sum of active ranks over all adapted modules; None without rank.
        initial_weights_hash: SHA-256 over the trainable weights before the first step.
        batch_order_hash: SHA-256 over the row numbers of every batch.
        padding_share: share of the training tokens that were padding.
        train_rows: training rows the batches were drawn from.
        eval_rows: evaluation rows scored.
        data_source: where the rows came from, in words.
        data_fingerprint: SHA-256 over the rows as loaded.
        model_source: where the weights came from, in words.
        warnings: facts a reader should know, such as rows in both splits.
        phase_seconds: wall seconds by phase (load, tokenise, build, train, evaluate, save).
    """

    status: Status
    status_reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    metric_value: float | None = None
    best_metric_value: float | None = None
    baseline_value: float | None = None
    target_reached: bool | None = None
    steps_to_target: int | None = None
    steps: int | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    samples_per_second: float | None = None
    tokens_per_second: float | None = None
    padding_share: float | None = None
    peak_memory_bytes: int | None = None
    peak_memory_source: str | None = None
    trainable_parameters: int | None = None
    head_parameters: int | None = None
    active_parameters: int | None = None
    total_parameters: int | None = None
    adapter_bytes: int | None = None
    final_rank: int | None = None
    curve: tuple[CurvePoint, ...] = ()
    initial_weights_hash: str | None = None
    batch_order_hash: str | None = None
    train_rows: int | None = None
    eval_rows: int | None = None
    data_source: str | None = None
    data_fingerprint: str | None = None
    model_source: str | None = None
    phase_seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """JSON text; the inverse of `from_json`."""
        return json.dumps(asdict(self), allow_nan=True)

    @staticmethod
    def from_json(text: str) -> Outcome:
        """The inverse of `to_json`; an unknown key is an error."""
        data = json.loads(text)
        data["curve"] = tuple(CurvePoint(**p) for p in data["curve"])
        data["warnings"] = tuple(data["warnings"])
        return Outcome(**data)


@dataclass(frozen=True)
class Environment:
    """The machine and software a job ran on.

    Attributes:
        versions: package name -> version; `numeric` of them can change bits.
        commit: git commit of peftmark itself, None for an installed wheel.
        dirty: whether that checkout had uncommitted changes, None if unknown.
        machine: system, python, cpu, cores, memory_bytes, bf16_instructions, gpus and driver.
    """

    versions: dict[str, str]
    commit: str | None
    dirty: bool | None
    machine: dict[str, Any]


@dataclass(frozen=True)
class Record:
    """One stored row: a job, the attempt's outcome and where it ran.

    Attributes:
        attempt: 1 for the first try of the job, then 2, ...
        started_at: UTC, ISO 8601, seconds.
        finished_at: UTC, ISO 8601, seconds.
        wall_seconds: seconds from the worker's start to its end.
        nvml_peak_memory_bytes: device memory in use over the idle reading, sampled by the
            supervisor through NVML; None without an NVIDIA device.
        command: shell command that runs just this job again.
    """

    job: Job
    outcome: Outcome
    environment: Environment
    attempt: int
    started_at: str
    finished_at: str
    wall_seconds: float
    nvml_peak_memory_bytes: int | None
    command: str

    @property
    def ok(self) -> bool:
        """Whether the row may enter comparisons."""
        return self.outcome.status == "ok"


OUTCOME_FIELDS = tuple(f.name for f in fields(Outcome))


@dataclass(frozen=True)
class RadarAxis:
    """Fixed anchors of one radar axis, written in the suite.

    Attributes:
        worst: value drawn at the centre.
        best: value drawn at the rim.
        scale: linear, or log for ratios.
    """

    worst: float
    best: float
    scale: Literal["linear", "log"]


@dataclass(frozen=True)
class ReportOptions:
    """What a suite says about its report.

    Attributes:
        reference: (method, rank, quantization) the others are compared with.
        radar: axis key -> anchors. `quality` is (metric - baseline) / (highest possible -
            baseline), averaged over tasks; `speed`, `memory`, `parameters` and
            `steps_to_target` are ratios to the reference cell on the same task and seed,
            averaged geometrically.
    """

    reference: tuple[str, int | None, str]
    radar: dict[str, RadarAxis]
