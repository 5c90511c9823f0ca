"""What a worker reports: quality, time, memory, energy, work and costs of one job.

An unknown is None with a reason. docs/columns.md explains each stored column.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Literal

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


@dataclass(frozen=True)
class Outcome:
    """What a worker reports. A null means unknown or meaningless; `null_reasons` says why.

    docs/columns.md explains each stored column with its unit, its source and when it is null.

    Attributes:
        predictions: class number or score of each evaluation row after the last step, in fp32;
            empty if the job ended early. Where text is written or read: what the row contributes to
            the primary metric (1 or 0 for exact match, its ROUGE-L, its log-likelihood a token).
        references: the labels of those rows, in the same order; where text is written 1, where it
            is read the number of tokens, which weigh the rows.
        completions: what the model wrote on those rows after the last step, in the same order;
            empty for tasks without answers to write.
        unrelated_perplexity_before: perplexity of the loaded base on text that has nothing to do
            with the task, before the method is put on it; of causal language models alone.
        unrelated_perplexity_after: the same of the trained model.
        generated_tokens_per_second: tokens written a second over all evaluations, those of answers
            that ended earlier than others of their batch not counted.
        metrics: every metric of the task on the evaluation rows after the last step.
        metric_value: the primary metric on the evaluation rows after the last step.
        selected_metric_value: the primary metric on the evaluation rows at the step that the
            selection rows pick.
        selected_step: that step: the first with the best `selection_metric_value`.
        selection_metric_value: the primary metric on the selection rows at that step.
        best_metric_value: the best primary metric over the curve: picked on the rows it is
            measured on, so it flatters; what many papers print.
        baseline_value: primary metric of the majority or mean predictor on the same rows.
        target_reached: whether a curve point reached the target.
        steps_to_target: first evaluated step at or past the target.
        collapsed: whether the last predictions are all the same.
        exploding_step: first step that ends three rises in a row of the gradient norm by more
            than half.
        loss: mean training loss of the task over the last interval of the curve.
        penalty: mean of the method's own loss term over that interval.
        optimizer: the optimizer that really ran.
        learning_rate_mean: learning rate that the optimizer applied, mean over steps and over the
            parameters that trained in them.
        base_format: format of the base's weights as loaded -> parameters in it, 4-bit ones counted
            unpacked.
        matched_rank: which rank of the method the cell's rank is: `r` or `target_r`.
        timed_steps: training steps that time, throughput, energy and mfu come from; the others
            are warm-up steps.
        train_seconds: wall seconds of the timed steps.
        step_seconds_p10: 10th percentile of the timed steps' wall seconds; also p50 and p90.
        eval_seconds: wall seconds in evaluation.
        cpu_seconds: user and system CPU seconds of the worker in the timed steps.
        samples_per_second: training rows a second of `train_seconds`.
        tokens_per_second: training tokens without padding a second of `train_seconds`.
        padding_share: share of the training tokens that were padding.
        peak_memory_bytes: the headline figure, and `peak_memory_source` what it is:
            `torch_allocated_bytes` on CUDA, `live_bytes` elsewhere.
        live_bytes: peak bytes of live tensor storages in the probe steps; the seven below are its
            parts at that moment: `live_weight_bytes` (base weights and buffers),
            `live_quantization_bytes` (block constants and code books), `live_adapter_bytes`
            (adapter and head parameters; every trained weight of full fine-tuning),
            `live_gradient_bytes`, `live_optimizer_bytes` (states of optimizer and method),
            `live_activation_bytes` (what is there when the backward pass starts) and
            `live_temporary_bytes` (everything else).
        predicted_live_bytes: the same peak, predicted without values
            (`peftmark.lab.memory.fake_step`).
        prediction_error: that over `live_bytes`, less one.
        torch_allocated_bytes: peak of torch's CUDA allocator in the training steps.
        torch_reserved_bytes: what that allocator held of the device at most in those steps.
        vmhwm_bytes: VmHWM of the worker over its whole life.
        vmhwm_train_bytes: VmHWM of the worker in the training steps alone.
        rss_before_train_bytes: resident memory of the worker before the first training step.
        energy_gpu_joules: NVML's energy counter of the device over the timed steps.
        energy_cpu_joules: RAPL counters of all packages over the timed steps, machine-wide.
        energy_flags: what weakens the energy figures: `short window`, `contended: ...`.
        flops_per_step: floating-point operations of a mean training step (a multiply and an add
            are two), from torch's counter.
        gemm_flops_per_second: rate of a large matrix product on this machine at this moment, with
            the job's threads and precision.
        mfu: share of `gemm_flops_per_second` that the timed steps reached.
        trainable_parameters: parameters with gradients at the start (their peak), head included.
        head_parameters: those of them that belong to classifier and pooler.
        adapter_parameters: those of them that belong to neither.
        solved_size: rank, width or number of tokens that the cell's budget gave; the mean over
            modules, rounded, where they differ.
        budget_parameters: adapter parameters that the budget asked for.
        active_parameters: trainable parameters at the end less those of ranks pruned to zero.
        saved_parameters: parameters in the saved files.
        total_parameters: parameters of the model with adapter, 4-bit weights counted unpacked.
        adapter_bytes: size of the saved adapter (or trained weights) on disk.
        latency_p50_seconds: median wall seconds to score a batch of the latency set; also p95.
        merged_latency_p50_seconds: the same with the adapter merged; also p95.
        merge_target: what the adapter was merged into.
        merge_max_error: largest absolute difference of a logit, merged to unmerged.
        reload_max_error: largest absolute difference of a logit between the trained model and the
            saved files loaded into a fresh base.
        final_rank: sum of active ranks over all adapted modules.
        rank_history: module -> its active rank at each curve point, null where it has none.
        importance_history: module -> mean importance of its rank-one parts at each curve point.
        layer_scores: layer -> the sensitivity that a method found before it was built.
        curve: evaluations during training.
        initial_weights_hash: SHA-256 over the trainable weights before the first step.
        final_weights_hash: the same after the last step.
        batch_order_hash: SHA-256 over the row numbers of every batch.
        train_rows: training rows the batches were drawn from.
        selection_rows: rows cut from the training split for selection.
        eval_rows: evaluation rows scored.
        overlap_rows: evaluation rows whose text also stands in the training split.
        data_source: where the rows came from, in words.
        data_fingerprint: SHA-256 over the rows as loaded.
        model_source: where the weights came from, in words.
        phase_seconds: wall seconds by phase: load, tokenise, quantise, build, warm_up, train,
            evaluate, generate, forget, save, probe, deploy, predict.
        warnings: facts a reader should know, such as rows in both splits.
        null_reasons: field -> why it is null.
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
    steps: int | None = None
    timed_steps: int | None = None
    train_seconds: float | None = None
    step_seconds_p10: float | None = None
    step_seconds_p50: float | None = None
    step_seconds_p90: float | None = None
    eval_seconds: float | None = None
    cpu_seconds: float | None = None
    samples_per_second: float | None = None
    tokens_per_second: float | None = None
    padding_share: float | None = None
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
    latency_p50_seconds: float | None = None
    latency_p95_seconds: float | None = None
    merged_latency_p50_seconds: float | None = None
    merged_latency_p95_seconds: float | None = None
    merge_target: str | None = None
    merge_max_error: float | None = None
    reload_max_error: float | None = None
    final_rank: int | None = None
    rank_history: dict[str, list[int | None]] = field(default_factory=dict)
    importance_history: dict[str, list[float | None]] = field(default_factory=dict)
    layer_scores: dict[str, float] = field(default_factory=dict)
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
    warnings: tuple[str, ...] = ()
    null_reasons: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """JSON text; the inverse of `from_json`."""
        return json.dumps(asdict(self), allow_nan=True, default=list)

    @staticmethod
    def from_json(text: str) -> Outcome:
        """The inverse of `to_json`; an unknown key is an error."""
        data = json.loads(text)
        data["curve"] = tuple(CurvePoint(**p) for p in data["curve"])
        data["warnings"] = tuple(data["warnings"])
        for name in ("energy_flags", "completions"):
            data[name] = tuple(data[name])
        for name in NUMBERS:
            data[name] = numbers(data[name])
        return Outcome(**data)


OUTCOME_FIELDS = tuple(f.name for f in fields(Outcome))
