"""Made-up jobs, outcomes and rows for tests. Every number here is invented and deterministic."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from peftmark.catalog.methods import Cell
from peftmark.record.job import Environment, Job, RadarAxis, Record, ReportOptions
from peftmark.record.outcome import CurvePoint, Outcome, numbers
from peftmark.record.recipe import AdaLoraSchedule, Causal, Recipe

LORA: Cell = Cell("lora", 8, "none")
ADALORA: Cell = Cell("adalora", 8, "none")
QLORA: Cell = Cell("lora", 8, "nf4")
ADALORA_NF4: Cell = Cell("adalora", 8, "nf4")
HEAD: Cell = Cell("head", None, "none")
FULL: Cell = Cell("full", None, "none")
CELLS = (LORA, ADALORA, QLORA, HEAD)
TASKS = {"sst2": ("accuracy", 0.86, 0.51), "stsb": ("spearmanr", 0.78, 0.0)}
"""Task -> metric, score to expect of LoRA, score of the baseline predictor."""

STEPS = (20, 40, 60, 80, 100, 120)

MERGED = (
    "merged_latency_p50_seconds",
    "merged_latency_p95_seconds",
    "merged_latency_1_row_seconds",
    "merged_latency_4_rows_seconds",
    "merged_latency_8_rows_seconds",
    "merge_target",
    "merge_max_error",
)

# cell -> score less LoRA's, seconds a step, memory in MiB, trainable parameters, bytes on disk
TRAITS: dict[Cell, tuple[float, float, int, int, int]] = {
    LORA: (0.0, 0.100, 520, 223_106, 900_000),
    Cell("lora", 16, "none"): (0.002, 0.104, 531, 296_834, 1_200_000),
    ADALORA: (-0.022, 0.131, 548, 259_970, 910_000),
    QLORA: (-0.001, 0.172, 301, 223_106, 900_000),
    ADALORA_NF4: (-0.024, 0.215, 318, 259_970, 910_000),
    HEAD: (-0.094, 0.041, 410, 149_378, 600_000),
    FULL: (0.006, 0.149, 910, 22_713_986, 91_000_000),
}

REPORT_OPTIONS = ReportOptions(
    reference=LORA,
    radar={
        "quality": RadarAxis(0.0, 1.0, "linear"),
        "speed": RadarAxis(0.25, 4.0, "log"),
        "memory": RadarAxis(4.0, 0.25, "log"),
        "parameters": RadarAxis(4.0, 0.25, "log"),
        "steps_to_target": RadarAxis(4.0, 0.25, "log"),
    },
)


def make_recipe(**changes: Any) -> Recipe:
    """A small recipe; name the fields to change."""
    base = Recipe(
        steps=120,
        batch_size=16,
        learning_rate=5e-4,
        schedule="linear",
        warmup_steps=12,
        weight_decay=0.01,
        max_grad_norm=1.0,
        max_length=64,
        precision="fp32",
        optimizer="adamw",
        gradient_checkpointing=False,
        window_batches=1,
        train_rows=1024,
        selection_rows=0,
        eval_rows=512,
        eval_every=20,
        eval_batch_size=64,
        train_pooler=True,
        targets="attention",
        alpha=16.0,
        dropout=0.0,
    )
    return replace(base, **changes)


def make_job(**changes: Any) -> Job:
    """A LoRA r8 job on sst2 with seed 0; name the fields to change.

    A profile named "full" is of full scale, as in the shipped suites.
    """
    base = Job(
        suite="demo",
        suite_version=1,
        profile="quick",
        model="minilm-l6",
        model_identity="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        task="sst2",
        task_version=1,
        data_fingerprint="f" * 64,
        metric="accuracy",
        target=0.8,
        method="lora",
        size=8,
        quantization="none",
        seed=0,
        device="cpu",
        threads=1,
        recipe=make_recipe(),
        scale="full" if changes.get("profile") == "full" else "reduced",
    )
    return replace(base, **changes)


def make_outcome(**changes: Any) -> Outcome:
    """A finished run; name the fields to change."""
    base = Outcome(
        status="ok",
        start_seconds=2.5,
        jobs_before=0,
        metrics={"accuracy": 0.86},
        metric_value=0.86,
        selected_metric_value=0.855,
        selected_step=100,
        selection_metric_value=0.84,
        best_metric_value=0.865,
        baseline_value=0.51,
        target_reached=True,
        steps_to_target=60,
        collapsed=False,
        loss=0.42,
        optimizer="adamw",
        learning_rate_mean=2.6e-4,
        base_format={"float32": 22_713_216},
        matched_rank="r",
        rank_allocator="batched",
        steps=120,
        timed_steps=110,
        train_seconds=12.0,
        step_seconds_p10=0.094,
        step_seconds_p50=0.1,
        step_seconds_p90=0.112,
        eval_seconds=1.5,
        cpu_seconds=11.8,
        samples_per_second=160.0,
        tokens_per_second=2900.0,
        padding_share=0.2,
        cut_share=0.01,
        batch_lengths=12,
        peak_memory_source="live_bytes",
        vmhwm_bytes=900 * 2**20,
        vmhwm_train_bytes=880 * 2**20,
        rss_before_train_bytes=610 * 2**20,
        flops_per_step=48.0e9,
        gemm_flops_per_second=90.0e9,
        mfu=0.5,
        trainable_parameters=223_106,
        head_parameters=149_378,
        adapter_parameters=73_728,
        active_parameters=223_106,
        saved_parameters=223_106,
        total_parameters=22_936_322,
        adapter_bytes=900_000,
        saved_adapter_bytes=302_488,
        saved_head_bytes=597_512,
        latency_p50_seconds=0.031,
        latency_p95_seconds=0.036,
        merged_latency_p50_seconds=0.027,
        merged_latency_p95_seconds=0.031,
        latency_1_row_seconds=0.006,
        latency_4_rows_seconds=0.017,
        latency_8_rows_seconds=0.030,
        merged_latency_1_row_seconds=0.005,
        merged_latency_4_rows_seconds=0.014,
        merged_latency_8_rows_seconds=0.026,
        merge_target="the fp32 base weights",
        merge_max_error=2.4e-6,
        reload_max_error=0.0,
        final_rank=96,
        curve=tuple(
            CurvePoint(s, 0.7 - s / 400, 0.6 + s / 480, s * 0.1, 0.58 + s / 480, None, 1.5)
            for s in STEPS
        ),
        initial_weights_hash="a" * 64,
        batch_order_hash="b" * 64,
        train_rows=1024,
        selection_rows=100,
        eval_rows=512,
        overlap_rows=0,
        data_source="package demo-data 1.0",
        data_fingerprint="f" * 64,
        model_source="package demo-model 1.0",
        phase_seconds={"load": 1.0, "train": 12.0},
        null_reasons={
            "exploding_step": "the gradient norm never rose by half three times in a row",
            "penalty": "the method adds no term to the loss",
            "timed_alone": "the job ran on the CPU",
            "compile_seconds": "the recipe compiles no layers",
            "summed_peak_bytes": "one process trained the job",
            "jobs_on_gpu": "the job ran on the CPU",
            "torch_allocated_bytes": "the job ran on the CPU",
            "torch_reserved_bytes": "the job ran on the CPU",
            "energy_gpu_joules": "the job ran on the CPU",
            "energy_cpu_joules": "no RAPL counters on this machine",
            "solved_size": "the suite gives the size, not a budget",
            "budget_parameters": "the suite gives the size, not a budget",
        },
    )
    sizes = memory_parts(520 * 2**20, 0, base.trainable_parameters or 0)
    return replace(base, **{**sizes, **changes})


def memory_parts(total: int, constants: int, trainable: int) -> dict[str, int]:
    """Live tensor bytes by part; the activations are what is left of the total."""
    fixed = {
        "live_weight_bytes": total // 4,
        "live_quantization_bytes": constants,
        "live_adapter_bytes": 4 * trainable,
        "live_gradient_bytes": 4 * trainable,
        "live_optimizer_bytes": 8 * trainable,
    }
    rest = total - sum(fixed.values())
    return fixed | {
        "live_activation_bytes": rest - rest // 5,
        "live_temporary_bytes": rest // 5,
        "live_bytes": total,
        "predicted_live_bytes": total,
        "prediction_error": 0.0,
        "peak_memory_bytes": total,
    }


def make_failure(status: str = "out_of_memory", reason: str = "asked for 2 GiB") -> Outcome:
    """An outcome that measured nothing."""
    return Outcome(status=status, status_reason=reason)  # type: ignore[arg-type]


def make_environment(**changes: Any) -> Environment:
    """A plain CPU machine; name the fields to change."""
    base = Environment(
        versions={"python": "3.11.7", "torch": "2.9.0", "peft": "0.21.0"},
        commit="0123456789abcdef0123456789abcdef01234567",
        dirty=False,
        machine={"cpu": "Example CPU @ 2 GHz", "cores": 2, "memory_bytes": 8 * 2**30, "gpu": None},
    )
    return replace(base, **changes)


def make_record(**changes: Any) -> Record:
    """A stored row; name the fields to change (`job` and `outcome` among them)."""
    job = changes.get("job") or make_job()
    base = Record(
        job=job,
        outcome=make_outcome(),
        environment=make_environment(),
        attempt=1,
        started_at="2030-01-01T00:00:00Z",
        finished_at="2030-01-01T00:00:20Z",
        wall_seconds=20.0,
        nvml_process_bytes=None,
        nvml_device_bytes=None,
        nvml_reason="the job ran on the CPU",
        command=f"peftmark run suites/demo.yaml --profile quick --job {job.job_id}",
    )
    return replace(base, **changes)


def make_matrix(
    cells: Sequence[Cell] = CELLS,
    tasks: Sequence[str] = tuple(TASKS),
    seeds: Sequence[int] = (0, 1, 2),
    **changes: Any,
) -> list[Record]:
    """A full grid of finished rows with plausible numbers; `changes` go to every job."""
    return [
        _plausible(cell, task, seed, changes) for cell in cells for task in tasks for seed in seeds
    ]


def _drawn_by(cell: Cell) -> str:
    """A cell's name as it was when the tests' numbers were written down."""
    return str(cell).replace("size=", "rank=")


def _plausible(cell: Cell, task: str, seed: int, changes: dict[str, Any]) -> Record:
    method, size, quantization, variant = cell
    metric, level, baseline = TASKS.get(task, ("accuracy", 0.8, 0.5))
    gain, step_seconds, memory, parameters, saved = TRAITS.get(cell, TRAITS[LORA])
    schedule = AdaLoraSchedule(12, 12, 24, 4, 0.85, 0.85, 0.5) if method == "adalora" else None
    job = make_job(
        task=task,
        metric=metric,
        target=round(baseline + 0.85 * (level - baseline), 3),
        method=method,
        size=size,
        quantization=quantization,
        variant=variant,
        seed=seed,
        recipe=make_recipe(adalora=schedule, selection_rows=100),
        **changes,
    )
    # One share of the noise belongs to the seed (data order), as in real runs; it cancels in pairs.
    shared = random.Random(f"{task} {seed}").gauss(0, 0.008)
    noise = random.Random(f"{_drawn_by(cell)} {task} {seed}")
    score = level + gain + shared + noise.gauss(0, 0.003)
    curve = tuple(
        CurvePoint(
            s,
            0.69 * 0.985**s,
            round(baseline + (score - baseline) * (1 - 0.96**s) / (1 - 0.96 ** STEPS[-1]), 4),
            s * step_seconds,
            round(baseline + (score - baseline) * (1 - 0.95**s), 3),
            0.02 * 0.99**s if schedule else None,
            round(1.5 * 0.99**s + abs(noise.gauss(0, 0.1)), 4),
        )
        for s in STEPS
    )
    final = curve[-1].metric
    passed = [p.step for p in curve if job.target is not None and p.metric >= job.target]
    seconds = STEPS[-1] * step_seconds * (1 + noise.gauss(0, 0.01))
    picked = max(curve, key=lambda p: p.selection_metric or 0.0)
    total = int(memory * 2**20)
    outcome = make_outcome(
        metrics={metric: final},
        **_predicted(metric, final, noise),
        metric_value=final,
        selected_metric_value=picked.metric,
        selected_step=picked.step,
        selection_metric_value=picked.selection_metric,
        best_metric_value=max(p.metric for p in curve),
        baseline_value=baseline,
        target_reached=bool(passed),
        steps_to_target=passed[0] if passed else None,
        train_seconds=seconds,
        samples_per_second=STEPS[-1] * 16 / seconds,
        tokens_per_second=STEPS[-1] * 16 * 18 / seconds,
        step_seconds_p10=seconds / STEPS[-1] * 0.94,
        step_seconds_p50=seconds / STEPS[-1],
        step_seconds_p90=seconds / STEPS[-1] * 1.12,
        cpu_seconds=seconds * 0.98,
        flops_per_step=48.0e9 * step_seconds / 0.1,
        mfu=0.5 + noise.gauss(0, 0.01),
        loss=curve[-1].loss,
        penalty=curve[-1].penalty,
        matched_rank=None if size is None else "target_r" if schedule else "r",
        trainable_parameters=parameters,
        adapter_parameters=parameters - 149_378,
        active_parameters=parameters - 36_864 if method == "adalora" else parameters,
        saved_parameters=parameters,
        total_parameters=22_713_216 + (parameters if method != "full" else 0),
        adapter_bytes=saved,
        saved_adapter_bytes=saved - 597_512,
        saved_head_bytes=597_512,
        final_rank=size and size * 12,
        curve=curve,
        **memory_parts(total, 2**20 if quantization != "none" else 0, parameters),
    )
    if size is None:
        unmerged = dict.fromkeys(MERGED)
        reasons = outcome.null_reasons | dict.fromkeys(MERGED, "no adapter to merge")
        outcome = replace(outcome, null_reasons=reasons, **unmerged)  # type: ignore[arg-type]
    return make_record(job=job, outcome=outcome)


def rows_of(**cells: Sequence[float]) -> list[Record]:
    """Rows on one task: method -> its scores by seed."""
    return [
        make_record(
            job=make_job(method=method, seed=seed), outcome=make_outcome(metric_value=value)
        )
        for method, values in cells.items()
        for seed, value in enumerate(values)
    ]


_EASE = [random.Random(row).random() for row in range(512)]
"""How easy each row is for every cell; making a generator takes longer than all else here."""


def _predicted(metric: str, score: float, noise: random.Random) -> dict[str, Any]:
    """Predictions on 512 rows that come to about the score; hard rows are hard for every cell."""
    if metric != "accuracy":
        wanted = [row % 50 / 10 for row in range(512)]
        spread = 1.4 * math.sqrt(1 / max(score, 0.1) ** 2 - 1)
        return {
            "references": numbers(wanted),
            "predictions": numbers(w + noise.gauss(0, spread) for w in wanted),
        }
    wanted = [row % 2 for row in range(512)]
    easy = [ease + noise.gauss(0, 0.05) for ease in _EASE]
    limit = sorted(easy)[round(score * 512) - 1]
    found = [w if e <= limit else 1 - w for w, e in zip(wanted, easy, strict=True)]
    return {"references": numbers(wanted), "predictions": numbers(found)}


def make_repeat(record: Record, **changes: Any) -> Record:
    """The second run of a row's job, with the same numbers; `changes` go to its outcome."""
    job = replace(record.job, purpose="repeat")
    outcome = replace(record.outcome, **changes)
    return replace(record, job=job, outcome=outcome, command=make_record(job=job).command)


def make_trials(
    cells: Sequence[Cell] = CELLS,
    tasks: Sequence[str] = tuple(TASKS),
    seeds: Sequence[int] = (100,),
    rates: Sequence[float] = (5e-4, 1e-3, 2e-3, 5e-3),
) -> list[Record]:
    """Finished trials of every rate; the score peaks at 2e-3 and falls off differently by cell."""
    rows = []
    for cell in cells:
        width = 0.002 + 0.02 * random.Random(f"width {cell}").random()
        for row in make_matrix([cell], tasks, seeds, purpose="tuning"):
            for rate in rates:
                away = math.log2(rate / 2e-3) ** 2
                score = round((row.outcome.metric_value or 0.0) - width * away, 4)
                job = replace(row.job, recipe=replace(row.job.recipe, learning_rate=rate))
                outcome = make_outcome(metric_value=score, metrics={job.metric: score})
                rows.append(make_record(job=job, outcome=outcome))
    return rows


# --- causal language models ----------------------------------------------------------------------

BASE: Cell = Cell("base", None, "none")
WORDS: Cell = Cell("bag-of-words", None, "none")
SPOKEN = {
    "sst-2": ("accuracy", 0.80, 0.51),
    "chatterbot": ("rouge_l", 0.40, 0.10),
    "reviews": ("log_likelihood", -3.25, -6.50),
}
"""Task -> metric, score to expect of LoRA, score of the baseline predictor."""

TRAINING = (
    "timed_steps", "train_seconds", "step_seconds_p10", "step_seconds_p50", "step_seconds_p90",
    "cpu_seconds", "samples_per_second", "tokens_per_second",
    "peak_memory_bytes", "peak_memory_source", "live_bytes", "live_weight_bytes",
    "live_quantization_bytes", "live_adapter_bytes", "live_gradient_bytes",
    "live_optimizer_bytes", "live_activation_bytes", "live_temporary_bytes",
    "predicted_live_bytes", "prediction_error", "vmhwm_train_bytes", "rss_before_train_bytes",
    "flops_per_step", "gemm_flops_per_second", "mfu", "loss", "optimizer", "learning_rate_mean",
    "head_parameters", "adapter_parameters", "active_parameters",
    "saved_parameters", "adapter_bytes", "saved_adapter_bytes", "saved_head_bytes",
    "latency_p50_seconds", "latency_p95_seconds",
    "latency_1_row_seconds", "latency_4_rows_seconds", "latency_8_rows_seconds",
    "selected_metric_value", "selected_step", "selection_metric_value", "best_metric_value",
    "penalty", "reload_max_error", "initial_weights_hash",
    "final_weights_hash", "matched_rank", "final_rank", "target_reached", "steps_to_target",
    "exploding_step", *MERGED,
)  # fmt: skip
"""Fields that are null where nothing trains."""


def make_causal(
    cells: Sequence[Cell] = (LORA, ADALORA, BASE),
    tasks: Sequence[str] = tuple(SPOKEN),
    seeds: Sequence[int] = (0, 1, 2),
    **changes: Any,
) -> list[Record]:
    """A full grid of finished rows of a causal language model; `changes` go to every job.

    The untouched base trains nothing, and its rows of all seeds are equal.
    """
    return [
        _spoken(cell, task, seed, changes) for cell in cells for task in tasks for seed in seeds
    ]


def _spoken(cell: Cell, task: str, seed: int, changes: dict[str, Any]) -> Record:
    metric, level, baseline = SPOKEN[task]
    untouched = cell.method == "base"
    noise = random.Random("base" if untouched else f"{_drawn_by(cell)} {task} {seed}")
    way = (level - baseline) * (0.4 if untouched else 1 + 4 * TRAITS.get(cell, TRAITS[LORA])[0])
    score = baseline + way * (1 if untouched else 1 + noise.gauss(0, 0.01))
    asked = Causal(
        prompt="" if metric == "log_likelihood" else "1:0123456789abcdef",
        new_tokens=32 if metric == "rouge_l" else None,
        unrelated="editorials:" + "e" * 64,
    )
    metrics = {
        "sst-2": {},
        "chatterbot": {"exact_match": score / 2, "completion_perplexity": 9.5 - 5 * score},
        "reviews": {"perplexity": math.exp(-score)},
    }[task]
    wanted = {"sst-2": [0, 1] * 4, "chatterbot": [1] * 8, "reviews": [5, 9, 7, 30] * 2}[task]
    found = wanted if task == "sst-2" else [score + 0.1 * noise.random() for _ in wanted]
    (row,) = make_matrix([cell], [task], [seed])
    written = tuple(f"answer {n} of {cell.method}" for n in range(8) if task == "chatterbot")
    forgot = 1.0 if untouched else 1.04 + noise.gauss(0, 0.002)
    outcome = replace(
        row.outcome,
        metrics={metric: score} | metrics,
        metric_value=score,
        selected_metric_value=score,
        best_metric_value=score,
        baseline_value=baseline,
        predictions=numbers(found),
        references=numbers(wanted),
        completions=written,
        unrelated_perplexity_before=25.0,
        unrelated_perplexity_after=25.0 * forgot,
        generated_tokens_per_second=80.0 if written else None,
        null_reasons=row.outcome.null_reasons
        | ({} if written else {"generated_tokens_per_second": "the task has no answers to write"}),
    )
    if untouched:
        nulls: Any = dict.fromkeys(TRAINING)
        reasons = outcome.null_reasons | dict.fromkeys(TRAINING, "nothing trains")
        nulls |= {"steps": 0, "trainable_parameters": 0, "curve": ()}
        outcome = replace(outcome, null_reasons=reasons, **nulls)
    job = replace(
        row.job,
        model="smollm2-135m-q4",
        model_identity="a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
        metric=metric,
        target=None,
        causal=asked,
        **changes,
    )
    return make_record(job=job, outcome=outcome)
