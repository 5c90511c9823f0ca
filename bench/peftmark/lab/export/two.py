"""Two kept adapters of one cell fused by PEFT, held against the weighted sum of their updates.

A classifier's head is no part of an adapter that PEFT fuses, and no two heads are the same: each
fused adapter is scored under the head of either, on the rows of the task that the head is for.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from torch import nn

from peftmark.lab.errors import Unsupported
from peftmark.lab.export.opened import Opened
from peftmark.lab.export.several import (
    FIRST,
    OTHER,
    bytes_of,
    drop_fused,
    fuse,
    load_beside,
    ways_of,
    why_not_fused,
    without_head,
)
from peftmark.lab.export.task_rows import Split, task_rows
from peftmark.lab.models import trained_head
from peftmark.lab.quantization.table import backend_of
from peftmark.lab.quantized_cache import load_base
from peftmark.lab.scoring import evaluate
from peftmark.lab.step import Diverged
from peftmark.sources.assets import Places


@dataclass(frozen=True)
class Way:
    """One of PEFT's ways to fuse.

    Attributes:
        error: Frobenius norm of the fused update less the weighted sum of the two, over that of
            the sum, all modules together; None where it isn't known.
        why_no_error: why it isn't; empty if it is.
        bytes: of the fused adapter's tensors; None where PEFT refuses.
        seconds: wall seconds that fusing took; None where PEFT refuses.
        reason: PEFT's own, where it refuses.
    """

    error: float | None = None
    why_no_error: str = ""
    bytes: int | None = None
    seconds: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Scored:
    """Scores on one set of rows.

    Attributes:
        task: whose rows they are.
        split: selection or evaluation rows.
        rows: how many.
        metric: the task's primary one.
        head: whose head the model has, first or second; empty for a language model, which has none.
        scores: `first` and `second` (each alone), and each way to fuse -> score; None where the
            outputs aren't finite.
    """

    task: str
    split: Split
    rows: int
    metric: str
    head: str
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Two:
    """Two adapters fused.

    Attributes:
        weights: of the first and of the second; they add up to one.
        bytes_of_one: bytes of the first one's tensors without its head.
        ways: way to fuse -> what it gives.
        scored: by set of rows and head.
    """

    weights: tuple[float, float]
    bytes_of_one: int
    ways: dict[str, Way] = field(default_factory=dict)
    scored: list[Scored] = field(default_factory=list)


def two(first: Opened, second: Opened, weight: float, places: Places) -> Two:
    """Fuse two adapters of one base and one method.

    Args:
        weight: of the second, from 0 to 1; the first has what is left.

    Raises:
        Unsupported: PEFT can't fuse them, in any way.
    """
    for one in (first, second):
        if one.kept.beyond:
            raise Unsupported(f"PEFT's own loading gives another model: {one.kept.beyond}")
        if not one.is_adapter:
            raise Unsupported("what it saved is no adapter of PEFT's, so that nothing fuses it")
    reason = why_not_fused(first.load())
    if reason:
        raise Unsupported(reason)
    weights = (1 - weight, weight)
    with both_on_one_base(first, second) as model:
        ways, size = _ways(first, model, list(weights))
    possible = [way for way, found in ways.items() if not found.reason]
    if not possible:
        reasons = {found.reason for found in ways.values()}
        raise Unsupported(f"PEFT fuses none of it: {'; '.join(sorted(reasons))}")
    pairs = {"first": (first, second), "second": (second, first)}
    if not trained_head(first.parts, first.job.recipe.train_pooler):
        same = first.job.task == second.job.task
        pairs = {name: of for name, of in pairs.items() if name == "first" or not same}
    scored: list[Scored] = []
    for name, (owner, guest) in pairs.items():
        scored += _scored(name, owner, guest, list(weights), possible, places)
    return Two(weights, size, ways, scored)


@contextmanager
def both_on_one_base(owner: Opened, guest: Opened) -> Iterator[Any]:
    """PEFT's model of two adapters without heads; the base has the owner's head."""
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch:
        folders = [Path(scratch, name) for name in ("owner", "guest")]
        for folder, of in zip(folders, (owner, guest), strict=True):
            folder.mkdir()
            without_head(of, folder)
        base = load_base(owner.files, owner.job, owner.task, owner.parts, owner.cache).model
        model: Any = replace(owner, folder=folders[0]).put(base).to(owner.device).eval()
        load_beside(model, folders[1], OTHER)
    model.eval()
    yield model


# --- the updates ---------------------------------------------------------------------------------


def _ways(first: Opened, model: Any, weights: list[float]) -> tuple[dict[str, Way], int]:
    """What each way gives, and the bytes of the first adapter."""
    named = model.named_parameters()
    size = sum(p.numel() * p.element_size() for n, p in named if FIRST in n.split("."))
    found = {}
    for way in ways_of(model):
        before, start = bytes_of(model), time.perf_counter()
        reason = fuse(model, [FIRST, OTHER], weights, way)
        seconds = time.perf_counter() - start
        if reason:
            found[way] = Way(reason=reason)
            continue
        try:
            error, why = _error(first, model, weights, way), ""
        except Unsupported as unknown:
            error, why = None, str(unknown)
        found[way] = Way(error, why, bytes_of(model) - before, seconds)
        drop_fused(model, way)
    return found, size


@torch.no_grad()
def _error(first: Opened, model: nn.Module, weights: list[float], way: str) -> float | None:
    """How far a fused update is from the weighted sum, as `Way.error`.

    Raises:
        Unsupported: see `update_of`.
    """
    off = size = 0.0
    for layer in model.modules():
        if not isinstance(layer, LoraLayer | IA3Layer):
            continue
        parts = [update_of(layer, name, first) for name in (FIRST, OTHER, way)]
        shape = next((part for part in parts if part is not None), None)
        if shape is None:
            continue
        # An adapter that isn't on a module, as where ranks are chosen, adds nothing there.
        a, b, fused = (torch.zeros_like(shape) if part is None else part for part in parts)
        wanted = weights[0] * a + weights[1] * b
        off += float((fused - wanted).square().sum())
        size += float(wanted.square().sum())
    return (off / size) ** 0.5 if size else None


def update_of(layer: Any, name: str, opened: Opened) -> torch.Tensor | None:
    """What an adapter adds to a layer's weight, in fp64; None if it isn't on that layer.

    Of LoRA the product s B A, shape (out, in) (Hu et al. 2021, arXiv 2106.09685, section 4.1); of
    DoRA m (W + s B A) / |W + s B A| - W, norms by output (Liu et al. 2024, arXiv 2402.09353,
    equation 5); of IA3 l - 1, in units of the weight that it scales, (out, 1) or (1, in) (Liu et
    al. 2022, arXiv 2205.05638, section 3.3).

    Raises:
        Unsupported: a layer of another kind.
    """
    if isinstance(layer, IA3Layer):
        return layer.ia3_l[name].double() - 1 if name in layer.ia3_l else None
    if name in layer.lora_embedding_A:
        raise Unsupported("it is on an embedding, whose update is not worked out here")
    if name not in layer.lora_A:
        return None
    a, b = layer.lora_A[name].weight.double(), layer.lora_B[name].weight.double()
    product: torch.Tensor = layer.scaling[name] * (b @ a)
    variant = layer.lora_variant.get(name)
    if variant is None:
        return product
    if not isinstance(variant, DoraLinearVariant):
        what = type(variant).__name__
        raise Unsupported(f"the update of PEFT's {what} is not worked out here")
    weight = _weight_of(layer, opened)
    moved = weight + product
    length = layer.lora_magnitude_vector[name].weight.double()
    update: torch.Tensor = length[:, None] * moved / moved.norm(dim=1, keepdim=True) - weight
    return update


def _weight_of(layer: Any, opened: Opened) -> torch.Tensor:
    """The weight below an adapter in fp64, shape (out, in).

    Raises:
        Unsupported: the quantization has no such numbers.
    """
    below, quantization = layer.get_base_layer(), opened.job.quantization
    if quantization == "none":
        weight: torch.Tensor = below.weight.double()
        return weight.T if layer.fan_in_fan_out else weight
    unpacked = backend_of(quantization).unpacked
    if unpacked is None:
        raise Unsupported(f"layers of quantization {quantization} are no plain weights")
    return unpacked(below).double()


# --- the scores ----------------------------------------------------------------------------------


def _scored(
    name: str, owner: Opened, guest: Opened, weights: list[float], ways: list[str], places: Places
) -> list[Scored]:
    """Scores on the owner's rows, under the owner's head.

    Args:
        name: first or second, which the owner is.
    """
    # The base's head is the owner's, whose adapter is therefore the one that was loaded first.
    names = {"first": FIRST, "second": OTHER}
    if name == "second":
        names = {"first": OTHER, "second": FIRST}
    head = name if trained_head(owner.parts, owner.job.recipe.train_pooler) else ""
    held = task_rows(owner, places)
    found: dict[Split, dict[str, float | None]] = {split: {} for split in held}
    with both_on_one_base(owner, guest) as model:
        for one, loaded in names.items():
            model.set_adapter(loaded)
            model.eval()
            for split in held:
                found[split][one] = _score(owner, model, held[split])
        for way in ways:
            fuse(model, list(names.values()), weights, way)
            for split in held:
                found[split][way] = _score(owner, model, held[split])
            drop_fused(model, way)
    task = owner.task
    return [
        Scored(task.key, split, len(held[split].references), task.metric, head, scores)
        for split, scores in found.items()
    ]


def _score(owner: Opened, model: Any, held: Any) -> float | None:
    try:
        scores = evaluate(model, held, owner.kept, owner.task, owner.job, owner.device)
    except Diverged:
        return None
    return scores.metrics.get(owner.task.metric)
