"""One job, top to bottom: seed, task, base, method, train, evaluate, measurements.

Every method runs through this one loop; what sets a method apart is in its `Prepared` hooks.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.assets import Places, model_files
from bench.catalog import MODELS
from bench.data import Row, TaskData, load_task, overlap
from bench.lab import metrics
from bench.lab.batches import (
    Batch,
    Encoder,
    draw_rows,
    evaluation_batches,
    group_by_length,
    order_hash,
    subset,
)
from bench.lab.meters import Meters
from bench.lab.methods import Prepared, prepare, trainable
from bench.lab.models import anatomy, load_model, load_tokenizer, trained_head
from bench.lab.seeds import generator, seed_all
from bench.record import CurvePoint, Job, Outcome
from bench.tasks import TASKS, Task

Progress = Callable[[dict[str, Any]], None]

CHECK_EVERY = 10
"""Steps between two looks at the loss: on a GPU each look waits for the device."""


class Diverged(Exception):
    """The loss became NaN or infinite."""


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
    torch.use_deterministic_algorithms(device.type == "cuda", warn_only=True)
    meters = Meters(device)
    task = replace(TASKS[job.task], fingerprint=_known_fingerprint(job))

    progress({"phase": "data"})
    with meters.phase("load_data"):
        data = load_task(task, places)
        model_at = model_files(MODELS[job.model], places)
    with meters.phase("tokenise"):
        work = _prepare_data(job, task, data, load_tokenizer(model_at.path))

    progress({"phase": "model"})
    with meters.phase("build"):
        parts = anatomy(model_at.path, max(1, len(task.labels)))
        base = load_model(model_at.path, job, task, parts)
        total = parameters(base)
        seed_all(job.seed, "adapter")
        prepared = prepare(base, job, parts)
        prepared.model.to(device)
    weights_hash = _weights_hash(prepared.model)
    head_names = trained_head(parts, job.recipe.train_pooler)
    trained = sum(p.numel() for _, p in trainable(prepared.model))

    curve, samples, tokens = _train(job, task, prepared, work, meters, device, progress)

    progress({"phase": "save"})
    with meters.phase("save"):
        adapter_bytes = _saved_bytes(prepared)
    peak, peak_source = meters.peak_memory()
    train_seconds = meters.seconds["train"]
    reached = [p.step for p in curve if job.target is not None and p.metric >= job.target]
    fault = prepared.fault()
    if _weights_hash(prepared.model) == weights_hash:
        fault = "no trainable weight changed in training"
    return Outcome(
        status="invalid" if fault else "ok",
        status_reason=fault or "",
        metrics=work.last_metrics,
        metric_value=curve[-1].metric,
        best_metric_value=max(p.metric for p in curve),
        baseline_value=work.baseline,
        target_reached=bool(reached) if job.target is not None else None,
        steps_to_target=reached[0] if reached else None,
        steps=job.recipe.steps,
        train_seconds=train_seconds,
        eval_seconds=meters.seconds["evaluate"],
        samples_per_second=samples / train_seconds,
        tokens_per_second=tokens / train_seconds,
        padding_share=work.padding_share,
        peak_memory_bytes=peak,
        peak_memory_source=peak_source,
        trainable_parameters=trained,
        head_parameters=_head_parameters(prepared.model, head_names),
        active_parameters=(prepared.active_parameters() if prepared.active_parameters else trained),
        total_parameters=total + _adapter_parameters(prepared.model),
        adapter_bytes=adapter_bytes,
        final_rank=prepared.final_rank(),
        curve=tuple(curve),
        initial_weights_hash=weights_hash,
        batch_order_hash=order_hash(work.order),
        train_rows=work.train_rows,
        eval_rows=len(work.eval_rows),
        data_source=data.source,
        data_fingerprint=data.fingerprint,
        model_source=model_at.source,
        phase_seconds={name: round(value, 4) for name, value in meters.seconds.items()},
        warnings=tuple(work.warnings + _paging_note(job)),
    )


def _known_fingerprint(job: Job) -> str | None:
    known = job.data_fingerprint
    return known if len(known) == 64 else None


# --- data ---------------------------------------------------------------------------------------


@dataclass
class _Work:
    """Batches and labels of one job.

    Attributes:
        order: row numbers of every training batch.
        train: the padded training batches, made one at a time.
        eval: padded evaluation batches, in order of length.
        eval_rows: the evaluation rows in that same order.
        mean, scale: standardisation of regression scores, from the training rows used.
        last_metrics: every metric at the last evaluation.
    """

    order: list[list[int]]
    train: Callable[[int], Batch]
    train_rows: int
    eval: list[Batch]
    eval_rows: Sequence[Row]
    references: np.ndarray
    mean: float
    scale: float
    baseline: float
    padding_share: float
    warnings: list[str]
    last_metrics: dict[str, float]


def _prepare_data(job: Job, task: Task, data: TaskData, tokenizer: Any) -> _Work:
    recipe = job.recipe
    rows = subset(data.train, recipe.train_rows)
    labels = np.array([row.label for row in rows], dtype=np.float64)
    # Regression scores are standardised: on raw 0-5 scores most of the first steps go into
    # finding the mean. Correlations don't depend on it.
    regression = task.kind == "regression"
    mean, scale = (float(labels.mean()), float(labels.std())) if regression else (0.0, 1.0)
    encoder = Encoder(tokenizer, recipe.max_length, torch.float32 if regression else torch.int64)

    # Two generators, so that a longer run begins with the batches of a shorter one.
    drawn = draw_rows(len(rows), recipe.steps * recipe.batch_size, generator(job.seed, "order"))
    used = sorted({int(i) for i in drawn})
    encoded = dict(zip(used, encoder.encode([rows[i] for i in used]), strict=True))
    lengths = {i: len(item["input_ids"]) for i, item in encoded.items()}
    order = group_by_length(
        drawn, lengths, recipe.batch_size, recipe.window_batches, generator(job.seed, "windows")
    )
    padded = sum(len(b) * max(lengths[i] for i in b) for b in order)
    real = sum(lengths[i] for b in order for i in b)

    def batch(step: int) -> Batch:
        numbers = order[step]
        values = [(float(labels[i]) - mean) / scale for i in numbers]
        if not regression:
            values = [int(v) for v in values]
        return encoder.batch([encoded[i] for i in numbers], values)

    batches, eval_rows = evaluation_batches(
        encoder, subset(data.eval, recipe.eval_rows), recipe.eval_batch_size
    )
    references = np.array([row.label for row in eval_rows], dtype=np.float64)
    shared = overlap(data)
    warnings = [f"{shared} evaluation rows also stand in the training rows"] if shared else []
    return _Work(
        order=order,
        train=batch,
        train_rows=len(rows),
        eval=batches,
        eval_rows=eval_rows,
        references=references,
        mean=mean,
        scale=scale,
        baseline=metrics.baseline(task.metric, labels, references, len(task.labels)),
        padding_share=1 - real / padded,
        warnings=warnings,
        last_metrics={},
    )


# --- training -----------------------------------------------------------------------------------


def _train(
    job: Job, task: Task, prepared: Prepared, work: _Work, meters: Meters, device: torch.device,
    progress: Progress,
) -> tuple[list[CurvePoint], int, int]:  # fmt: skip
    """The training loop: the curve, and the rows and tokens (without padding) trained on."""
    recipe, model = job.recipe, prepared.model
    params = [p for _, p in trainable(model)]
    optimizer = _optimizer(model, job)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, job))
    if recipe.gradient_checkpointing:
        enable: Any = model.activation_checkpointing_enable
        enable(activation_checkpointing_kwargs={"use_reentrant": False})
    seed_all(job.seed, "dropout")
    model.train()
    curve: list[CurvePoint] = []
    samples = tokens = since = 0
    loss_sum = torch.zeros((), device=device)
    step = 0
    while step < recipe.steps:
        end = min(recipe.steps, step + recipe.eval_every - step % recipe.eval_every)
        with meters.phase("train"):
            for step in range(step + 1, end + 1):  # noqa: B020 (step goes on after the loop)
                batch = work.train(step - 1).to(device)
                loss = _loss(model, batch, task, job, device)
                penalty = prepared.extra_loss()
                (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(params, recipe.max_grad_norm)
                optimizer.step()
                prepared.after_step(step)
                scheduler.step()
                optimizer.zero_grad(set_to_none=True)
                loss_sum += loss.detach()
                since += 1
                samples += len(batch.labels)
                tokens += batch.tokens
                if step % CHECK_EVERY == 0 or step == end:
                    _check_finite(loss_sum, step)
                    progress({"step": step, "steps": recipe.steps})
        with meters.phase("evaluate"):
            work.last_metrics = _evaluate(model, work, task, job, device)
        metric = work.last_metrics[job.metric]
        loss_mean = loss_sum.item() / since
        curve.append(CurvePoint(step, loss_mean, metric, meters.seconds["train"]))
        progress({"step": step, "steps": recipe.steps, "metric": metric})
        loss_sum.zero_()
        since = 0
    return curve, samples, tokens


def _optimizer(model: nn.Module, job: Job) -> torch.optim.Optimizer:
    """AdamW; as in the published recipes, biases and norms (one-dimensional) do not decay."""
    recipe = job.recipe
    params = [p for _, p in trainable(model)]
    groups = [
        {"params": [p for p in params if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in params if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "paged_adamw_8bit":
        import bitsandbytes

        make: Any = vars(bitsandbytes.optim)["PagedAdamW8bit"]
    else:
        make = torch.optim.AdamW
    optimizer: torch.optim.Optimizer = make(
        [group for group in groups if group["params"]], lr=recipe.learning_rate
    )
    return optimizer


def _paging_note(job: Job) -> list[str]:
    if job.recipe.optimizer == "paged_adamw_8bit" and job.device == "cpu":
        return ["the paged optimizer ran unpaged: there is nothing to page to on the CPU"]
    return []


def _rate(step: int, job: Job) -> float:
    """Share of the peak learning rate in step `step` (from 0): warm-up, then the schedule."""
    recipe = job.recipe
    warmup = max(1, round(recipe.warmup_share * recipe.steps))
    if step < warmup:
        return (step + 1) / warmup
    if recipe.schedule == "constant":
        return 1.0
    return max(0.0, (recipe.steps - step) / max(1, recipe.steps - warmup))


def _logits(model: nn.Module, batch: Batch, job: Job, device: torch.device) -> torch.Tensor:
    """Logits of shape (rows, classes or 1) in fp32."""
    with torch.autocast(device.type, torch.bfloat16, enabled=job.recipe.precision == "bf16"):
        logits: torch.Tensor = model(**batch.inputs).logits
    return logits.float()


def _loss(
    model: nn.Module, batch: Batch, task: Task, job: Job, device: torch.device
) -> torch.Tensor:
    """The task's own loss, from logits: a model's own `.loss` holds AdaLoRA's penalty."""
    logits = _logits(model, batch, job, device)
    if task.kind == "regression":
        return nn.functional.mse_loss(logits.squeeze(-1), batch.labels)
    return nn.functional.cross_entropy(logits, batch.labels)


def _check_finite(loss_sum: torch.Tensor, step: int) -> None:
    value = loss_sum.item()
    if not math.isfinite(value):
        raise Diverged(f"the training loss was {value} by step {step}")


def _evaluate(
    model: nn.Module, work: _Work, task: Task, job: Job, device: torch.device
) -> dict[str, float]:
    """Every metric of the task on the evaluation rows."""
    model.eval()
    with torch.inference_mode():
        parts = [_logits(model, batch.to(device), job, device).cpu() for batch in work.eval]
    model.train()
    logits = torch.cat(parts).numpy()
    regression = task.kind == "regression"
    predictions = logits[:, 0] * work.scale + work.mean if regression else logits.argmax(axis=1)
    if not np.isfinite(logits).all():
        raise Diverged("the logits on the evaluation rows are not finite")
    return metrics.score((task.metric, *task.also), predictions.astype(np.float64), work.references)


# --- counting -----------------------------------------------------------------------------------


def parameters(model: nn.Module) -> int:
    """Parameters of a model, 4-bit weights counted unpacked."""
    total = 0
    for module in model.modules():
        for p in module.parameters(recurse=False):
            state = getattr(p, "quant_state", None)
            total += math.prod(state.shape) if state is not None else p.numel()
    return total


def _adapter_parameters(model: nn.Module) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)


def _head_parameters(model: nn.Module, head: Sequence[str]) -> int:
    def belongs(name: str) -> bool:
        bare = name.removeprefix("base_model.model.")
        return any(bare.startswith(f"{top}.") for top in head)

    return sum(p.numel() for name, p in trainable(model) if belongs(name))


def _weights_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, p in trainable(model):
        digest.update(name.encode())
        digest.update(p.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _saved_bytes(prepared: Prepared) -> int:
    with tempfile.TemporaryDirectory(prefix="peftmark-") as folder:
        prepared.save(Path(folder))
        return sum(f.stat().st_size for f in Path(folder).rglob("*.safetensors"))
