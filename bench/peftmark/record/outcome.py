"""What a worker reports: quality, time, memory, energy, work and costs of one job.

An unknown is None with a reason.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

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
Numbers = array  # of C floats: a tuple of Python floats takes eight times the memory
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
class CurvePoint:
    """One evaluation during training.

    Attributes:
        step: optimizer steps taken.
        loss: mean training loss of the task (no penalty) since the previous point.
        metric: primary metric on the evaluation rows.
        seconds: seconds of training steps so far, warm-up steps included, evaluation excluded.
        selection_metric: primary metric on the selection rows; None without such rows.
        penalty: mean of the method's own loss term since the previous point, already weighted;
            None for methods without one.
        gradient_norm: largest gradient norm, before clipping, since the previous point.
    """

    step: int
    loss: float
    metric: float
    seconds: float
    selection_metric: float | None = None
    penalty: float | None = None
    gradient_norm: float | None = None


NUMBERS = ("predictions", "references")


def numbers(values: Iterable[float]) -> Numbers[float]:
    """Values as fp32."""
    return array("f", values)


FIRST_LOOK = 3
"""Seeds at the first look of a run that adds them until it is decided: two have one degree of
freedom."""


@dataclass(frozen=True)
class Outcome:
    """What a worker reports. A null means unknown or meaningless; `null_reasons` says why.

    `peftmark.record.fields` says of each attribute what it is, in which unit, what measures it and
    when it is null.
    """

    status: Status
    status_reason: str = ""
    predictions: Numbers[float] = field(default_factory=lambda: numbers(()))
    references: Numbers[float] = field(default_factory=lambda: numbers(()))
    completions: tuple[str, ...] = ()
    unrelated_perplexity_before: float | None = None
    unrelated_perplexity_after: float | None = None
    generated_tokens_per_second: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    metric_value: float | None = None
    selected_metric_value: float | None = None
    selected_step: int | None = None
    selection_metric_value: float | None = None
    best_metric_value: float | None = None
    baseline_value: float | None = None
    target_reached: bool | None = None
    steps_to_target: int | None = None
    collapsed: bool | None = None
    exploding_step: int | None = None
    loss: float | None = None
    penalty: float | None = None
    optimizer: str | None = None
    learning_rate_mean: float | None = None
    base_format: dict[str, int] = field(default_factory=dict)
    matched_rank: str | None = None
    rank_allocator: str | None = None
    steps: int | None = None
    timed_steps: int | None = None
    timed_alone: bool | None = None
    train_seconds: float | None = None
    step_seconds_p10: float | None = None
    step_seconds_p50: float | None = None
    step_seconds_p90: float | None = None
    eval_seconds: float | None = None
    compile_seconds: float | None = None
    cpu_seconds: float | None = None
    samples_per_second: float | None = None
    tokens_per_second: float | None = None
    padding_share: float | None = None
    cut_share: float | None = None
    batch_lengths: int | None = None
    class_rows: dict[str, int] = field(default_factory=dict)
    first_step: dict[str, float | None] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    peak_memory_source: str | None = None
    live_bytes: int | None = None
    live_weight_bytes: int | None = None
    live_quantization_bytes: int | None = None
    live_adapter_bytes: int | None = None
    live_gradient_bytes: int | None = None
    live_optimizer_bytes: int | None = None
    live_activation_bytes: int | None = None
    live_temporary_bytes: int | None = None
    predicted_live_bytes: int | None = None
    prediction_error: float | None = None
    torch_allocated_bytes: int | None = None
    torch_reserved_bytes: int | None = None
    vmhwm_bytes: int | None = None
    vmhwm_train_bytes: int | None = None
    rss_before_train_bytes: int | None = None
    summed_peak_bytes: int | None = None
    energy_gpu_joules: float | None = None
    energy_cpu_joules: float | None = None
    energy_flags: tuple[str, ...] = ()
    flops_per_step: float | None = None
    gemm_flops_per_second: float | None = None
    mfu: float | None = None
    trainable_parameters: int | None = None
    head_parameters: int | None = None
    adapter_parameters: int | None = None
    solved_size: int | None = None
    budget_parameters: int | None = None
    active_parameters: int | None = None
    saved_parameters: int | None = None
    total_parameters: int | None = None
    adapter_bytes: int | None = None
    saved_adapter_bytes: int | None = None
    saved_head_bytes: int | None = None
    latency_p50_seconds: float | None = None
    latency_p95_seconds: float | None = None
    merged_latency_p50_seconds: float | None = None
    merged_latency_p95_seconds: float | None = None
    latency_1_row_seconds: float | None = None
    latency_4_rows_seconds: float | None = None
    latency_8_rows_seconds: float | None = None
    merged_latency_1_row_seconds: float | None = None
    merged_latency_4_rows_seconds: float | None = None
    merged_latency_8_rows_seconds: float | None = None
    merge_target: str | None = None
    merge_max_error: float | None = None
    reload_max_error: float | None = None
    final_rank: int | None = None
    rank_history: dict[str, list[int | None]] = field(default_factory=dict)
    importance_history: dict[str, list[float | None]] = field(default_factory=dict)
    gate_history: dict[str, list[float | None]] = field(default_factory=dict)
    layer_scores: dict[str, float] = field(default_factory=dict)
    norm_history: dict[str, list[float | None]] = field(default_factory=dict)
    importance_variation: dict[str, list[float | None]] = field(default_factory=dict)
    gradient_shares: dict[str, list[float | None]] = field(default_factory=dict)
    part_cosines: dict[str, list[float | None]] = field(default_factory=dict)
    rate_halvings: dict[str, float] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    initial_weights_hash: str | None = None
    final_weights_hash: str | None = None
    batch_order_hash: str | None = None
    train_rows: int | None = None
    selection_rows: int | None = None
    eval_rows: int | None = None
    overlap_rows: int | None = None
    data_source: str | None = None
    data_fingerprint: str | None = None
    model_source: str | None = None
    phase_seconds: dict[str, float] = field(default_factory=dict)
    start_seconds: float | None = None
    jobs_before: int | None = None
    jobs_on_gpu: int | None = None
    warnings: tuple[str, ...] = ()
    null_reasons: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """JSON text; the inverse of `from_json`."""
        return json.dumps(asdict(self), allow_nan=True, default=list)

    @staticmethod
    def from_json(text: str) -> Outcome:
        """The inverse of `to_json`; an unknown key is an error. What others may have written is
        for `peftmark.record.sent` to read."""
        return Outcome.from_data(json.loads(text))

    @staticmethod
    def from_data(data: dict[str, Any]) -> Outcome:
        """An outcome from what its JSON says, which becomes its own."""
        data["curve"] = tuple(CurvePoint(**p) for p in data["curve"])
        data["warnings"] = tuple(data["warnings"])
        for name in ("energy_flags", "completions"):
            data[name] = tuple(data[name])
        for name in NUMBERS:
            data[name] = numbers(data[name])
        return Outcome(**data)


OUTCOME_FIELDS = tuple(f.name for f in fields(Outcome))
