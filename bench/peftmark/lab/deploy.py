"""What a user would deploy: the saved files, reloaded, merged and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from peftmark.lab.data.batches import Batch
from peftmark.lab.measure.parameter_counts import belongs_to
from peftmark.lab.methods import Prepared
from peftmark.lab.number_types import raised
from peftmark.lab.quantization.table import backend_of
from peftmark.lab.scoring import all_outputs, outputs_of
from peftmark.record.job import Job

ROUNDS = 4
"""Timed passes over the latency set, after one that is not timed."""
ROUNDS_BY_ROWS = 2
"""The same over the batches of each number of rows."""


@dataclass(frozen=True)
class Deployed:
    """Figures of the saved model.

    Attributes:
        latency: (p50, p95) wall seconds to score one batch of the latency set, adapter apart.
        merged_latency: the same with the adapter merged; None if it can't be merged.
        merge_target: what it was merged into.
        merge_max_error: largest absolute difference of a logit (of a language model's
            log-likelihood a token), merged to unmerged.
        merge_reason: why it was not merged.
        reload_max_error: the same, reloaded to trained.
        by_rows: rows of a batch -> median wall seconds to score one, adapter apart.
        merged_by_rows: the same with the adapter merged.
    """

    latency: tuple[float, float]
    merged_latency: tuple[float, float] | None
    merge_target: str | None
    merge_max_error: float | None
    merge_reason: str
    reload_max_error: float
    by_rows: Mapping[int, float]
    merged_by_rows: Mapping[int, float]


@dataclass(frozen=True)
class Saved:
    """Sizes of the safetensors files in a folder.

    Attributes:
        bytes: of the files.
        head_bytes: of the head's tensors in them.
        parameters: in them.
    """

    bytes: int
    head_bytes: int
    parameters: int


def saved_size(folder: Path, head: Sequence[str]) -> Saved:
    """What a method's `save` wrote into a folder.

    Args:
        head: names of the head's modules in the plain model, as `trained_head` gives them.
    """
    files = sorted(folder.rglob("*.safetensors"))
    head_bytes = parameters = 0
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118
                tensor = tensors.get_tensor(key)
                parameters += tensor.numel()
                if belongs_to(key, head):
                    head_bytes += tensor.numel() * tensor.element_size()
    return Saved(sum(file.stat().st_size for file in files), head_bytes, parameters)


def deploy(
    job: Job,
    prepared: Prepared,
    folder: Path,
    fresh_base: Callable[[], nn.Module],
    batches: Sequence[Batch],
    device: torch.device,
    by_rows: Mapping[int, Sequence[Batch]] = MappingProxyType({}),
    alone: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Deployed:
    """Load the saved files onto a fresh base, compare with the trained model, merge and time.

    Logits are compared in fp32 arithmetic, 4-bit layers and a base stored in fewer bits included,
    so that only what was saved, or rounded by merging, can make a difference. int8 layers round
    activations, which no setting avoids. Latency is in the job's own precision.

    Args:
        prepared: the trained model with its method's `load` and `merge`.
        folder: what the method saved.
        fresh_base: loads the base anew.
        batches: the latency set.
        by_rows: rows of a batch -> batches of so many to time too.
        alone: within it no other job uses the device; batches are timed there.
    """
    trained = _exact_logits(prepared.model, batches, job, device)
    if job.recipe.weights != "fp32" and job.quantization == "none":
        prepared.model.to("cpu")  # room for the fp32 copy of the one that is loaded
    model = prepared.load(fresh_base(), folder).to(device)
    # First: a 4-bit layer rounds its bias to the job's precision at its first forward pass.
    with alone():
        latency = _latency(model, batches, job, device)
        latencies, merged_latencies = _by_rows(model, by_rows, job, device), {}
    reloaded = _exact_logits(model, batches, job, device)
    merged_latency = target = error = None
    if prepared.merge is not None:
        model, target = prepared.merge(model)
        with alone():
            merged_latency = _latency(model, batches, job, device)
            merged_latencies = _by_rows(model, by_rows, job, device)
        error = _distance(_exact_logits(model, batches, job, device), reloaded)
    return Deployed(
        latency=latency,
        merged_latency=merged_latency,
        merge_target=target,
        merge_max_error=error,
        merge_reason=prepared.merge_reason,
        reload_max_error=_distance(reloaded, trained),
        by_rows=latencies,
        merged_by_rows=merged_latencies,
    )


def _exact_logits(
    model: nn.Module, batches: Sequence[Batch], job: Job, device: torch.device
) -> torch.Tensor:
    exact = replace(job, recipe=replace(job.recipe, precision="fp32"))
    with backend_of(job.quantization).exact(model), raised(model):
        return all_outputs(model, batches, exact, device)


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def _by_rows(
    model: nn.Module, by_rows: Mapping[int, Sequence[Batch]], job: Job, device: torch.device
) -> dict[int, float]:
    return {
        rows: _latency(model, batches, job, device, ROUNDS_BY_ROWS)[0]
        for rows, batches in by_rows.items()
    }


def _latency(
    model: nn.Module,
    batches: Sequence[Batch],
    job: Job,
    device: torch.device,
    rounds: int = ROUNDS,
) -> tuple[float, float]:
    model.eval()
    moved = [batch.to(device) for batch in batches]
    seconds = []
    with torch.inference_mode():
        for timed in (False, *[True] * rounds):
            for batch in moved:
                start = time.perf_counter()
                outputs_of(model, batch, job, device).cpu()  # waits for the device
                if timed:
                    seconds.append(time.perf_counter() - start)
    middle, high = np.percentile(seconds, [50, 95])
    return float(middle), float(high)
