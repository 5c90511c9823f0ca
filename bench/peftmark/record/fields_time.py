"""Rows of `peftmark.record.fields`: what ran in training, and how long it took."""

from __future__ import annotations

from peftmark.record.field import Field

ROWS: tuple[Field, ...] = (
    Field(
        "optimizer",
        "string",
        "optimizer",
        phase="training",
        meter="the optimizer",
        exact=True,
        kind="fact",
        section="Work",
        summary=(
            "the optimizer that really ran; of a line that needs no fine-tuning the estimator, and "
            "the C that the selection rows chose"
        ),
    ),
    Field(
        "learning_rate_mean",
        "float64",
        "mean learning rate",
        phase="training",
        meter="the optimizer",
        exact=True,
        kind="count",
        section="Work",
        summary=(
            "learning rates in the optimizer at each step, mean over steps and over the "
            "parameters that trained"
        ),
    ),
    Field(
        "base_format",
        "json",
        "format of the base",
        unit="parameters",
        phase="loading",
        meter="loaded weights",
        exact=True,
        kind="count",
        section="Work",
        summary=(
            "format of the base's weights as loaded, such as `nf4 in blocks of 64` -> "
            "parameters in it"
        ),
        null="empty if the job ended early",
    ),
    Field(
        "matched_rank",
        "string",
        "rank that the size means",
        phase="building",
        meter="the method",
        exact=True,
        kind="fact",
        section="Parameters",
        summary="which rank of the method `size` is: `r`, or AdaLoRA's `target_r`",
        null="method without rank, job ended early",
    ),
    Field(
        "rank_allocator",
        "string",
        "code that allocated ranks",
        phase="training",
        meter="the method",
        exact=True,
        kind="fact",
        section="Parameters",
        summary=(
            "whose code took AdaLoRA's penalty and ranks: `batched`, peftmark's for all modules at "
            "once, where need be with the number of the penalty's matrices that went one by one; "
            "or `peft`, PEFT's own. The bits are the same"
        ),
        null="method that allocates no ranks, job ended early, row older than the column",
    ),
    Field(
        "steps",
        "int64",
        "steps",
        unit="steps",
        phase="training",
        meter="count",
        exact=True,
        kind="count",
        section="Time",
        summary="optimizer steps, warm-up included",
    ),
    Field(
        "timed_steps",
        "int64",
        "timed steps",
        unit="steps",
        phase="training",
        meter="count",
        kind="fact",
        section="Time",
        summary=(
            "steps that time, throughput, energy and `mfu` come from: all after the warm-up, or "
            "of a job that shared its GPU those of its timed stretch, at most 50"
        ),
    ),
    Field(
        "timed_alone",
        "bool",
        "timed alone",
        phase="training",
        meter="the run",
        kind="fact",
        section="Time",
        summary=(
            "whether times, throughput and energy are of steps that had the GPU to themselves, as "
            "far as this run goes (`energy_flags` tells of processes of others); false where the "
            "job shared its GPU and was not timed, so that those are null "
            "(docs/executors.md#jobs-a-gpu)"
        ),
        null="job on the CPU, job ended early, row older than the column",
    ),
    Field(
        "train_seconds",
        "float64",
        "training time",
        unit="seconds",
        better="lower",
        phase="training",
        meter="clock",
        kind="cost",
        section="Time",
        summary="wall time of the timed steps",
        null="no timed step, job ended early",
    ),
    Field(
        "step_seconds_p10",
        "float64",
        "step time, 10th percentile",
        unit="seconds",
        better="lower",
        phase="training",
        meter="clock, CUDA events",
        kind="cost",
        section="Time",
        summary="10th percentile of the timed steps, one time stamp a step (a CUDA event on a GPU)",
        null="no timed step, job ended early",
    ),
    Field(
        "step_seconds_p50",
        "float64",
        "step time",
        unit="seconds",
        better="lower",
        phase="training",
        meter="clock, CUDA events",
        kind="cost",
        section="Time",
        summary="median of the timed steps, one time stamp a step (a CUDA event on a GPU)",
        null="no timed step, job ended early",
    ),
    Field(
        "step_seconds_p90",
        "float64",
        "step time, 90th percentile",
        unit="seconds",
        better="lower",
        phase="training",
        meter="clock, CUDA events",
        kind="cost",
        section="Time",
        summary="90th percentile of the timed steps, one time stamp a step (a CUDA event on a GPU)",
        null="no timed step, job ended early",
    ),
    Field(
        "eval_seconds",
        "float64",
        "evaluation time",
        unit="seconds",
        better="lower",
        phase="evaluation",
        meter="clock",
        kind="cost",
        section="Time",
        summary="phase `evaluate`, all passes, without writing answers",
        null="job ended early, GPU shared with other jobs",
    ),
    Field(
        "compile_seconds",
        "float64",
        "compile time",
        unit="seconds",
        better="lower",
        phase="training",
        meter="clock",
        kind="cost",
        section="Time",
        summary=(
            "what torch's compiler took, nearly all of it in phase `compile`, before the first "
            "step; less where its own cache on disk has the kernels"
        ),
        null="recipe without `compile`, job ended early",
    ),
    Field(
        "cpu_seconds",
        "float64",
        "CPU time",
        unit="seconds",
        better="lower",
        phase="training",
        meter="CPU clock",
        kind="cost",
        section="Time",
        summary="user and system time of the worker in the timed steps, all threads",
        null="job ended early, GPU shared and untimed",
    ),
    Field(
        "samples_per_second",
        "float64",
        "training rows a second",
        unit="rows a second",
        better="higher",
        phase="training",
        meter="clock",
        kind="cost",
        section="Time",
        summary="rows of the timed steps a second of `train_seconds`",
        null="no timed step, job ended early",
    ),
    Field(
        "tokens_per_second",
        "float64",
        "training tokens a second",
        unit="tokens a second",
        better="higher",
        phase="training",
        meter="clock",
        kind="cost",
        section="Time",
        summary=(
            "tokens of the timed steps a second of `train_seconds`: without padding, a prompt's too"
        ),
        null="no timed step, job ended early",
    ),
    Field(
        "padding_share",
        "float64",
        "padding share",
        unit="share",
        better="lower",
        phase="data",
        meter="count",
        exact=True,
        kind="cost",
        section="Work",
        summary="padding among the training tokens, all batches",
    ),
    Field(
        "cut_share",
        "float64",
        "share of rows cut",
        unit="share",
        better="lower",
        phase="data",
        meter="count",
        exact=True,
        kind="count",
        section="Work",
        summary="rows longer than `max_length` among the training rows of all batches",
    ),
    Field(
        "batch_lengths",
        "int64",
        "lengths of batches",
        unit="lengths",
        phase="data",
        meter="count",
        kind="count",
        section="Work",
        summary=(
            "distinct lengths, in tokens, that the training batches are padded to, or that the "
            "longest pass of packed rows has; `pad_to` in the recipe makes them few"
        ),
    ),
    Field(
        "class_rows",
        "json",
        "rows of each class",
        unit="rows",
        phase="data",
        meter="count",
        exact=True,
        kind="fact",
        section="Work",
        summary=(
            "number of a class -> rows of it among those that may be trained on; of several "
            "labels, rows that have it"
        ),
        null="empty without classes, or if the job ended early",
    ),
    Field(
        "first_step",
        "json",
        "first step",
        phase="training",
        meter="the optimizer",
        deterministic=True,
        exact=True,
        kind="fact",
        section="Work",
        summary=(
            "when the optimizer took its first step: loss and penalty of the batch, norm of the "
            "gradients before they were clipped, Adam's constants, of every group of the "
            "optimizer its parameters, "
            "learning rate, weight decay and the norm of the gradients as applied, active dropout "
            "modules by their rate"
        ),
        null="empty where nothing trains by steps, or if the job ended early",
    ),
)
