"""Quantised bases, made once: every job of a base and a quantization loads the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from peftmark.catalog.task import Task
from peftmark.lab import models
from peftmark.lab.cache import keep, made_by
from peftmark.lab.models import Anatomy, load_model
from peftmark.lab.quantization.stored import is_stored
from peftmark.lab.quantization.table import backend_of, quantization_clock
from peftmark.machine.environment import source_hash
from peftmark.record.job import Job
from peftmark.sources.model_folder import all_hashes


@dataclass(frozen=True)
class Base:
    """A loaded base.

    Attributes:
        quantise_seconds: what quantising took; 0 for a base that isn't quantised.
        now: whether it was quantised just now, and not by an earlier job.
    """

    model: nn.Module
    quantise_seconds: float = 0.0
    now: bool = True


def load_base(folder: Path, job: Job, task: Task, parts: Anatomy, cache: Path | None) -> Base:
    """The job's base (`load_model`), a quantised one from the cache.

    The weights, and the head that the job's seed draws, are the same bits either way.

    Args:
        cache: where quantised bases are kept; None to quantise anew, as a back-end does whose
            bases can't be written (`Backend.kept`).

    Raises:
        Unsupported: if the quantization can't run here.
    """
    device, backend = torch.device(job.loads_on), backend_of(job.quantization)
    settings = backend.config(job, parts.head_linears)
    if settings is None or is_stored(job):
        return Base(load_model(folder, job, task, parts))

    def make(target: Path) -> dict[str, Any]:
        with quantization_clock(job.quantization, device) as spent:
            model: Any = load_model(folder, job, task, parts)
        model.save_pretrained(target, max_shard_size="1000GB")  # in one file
        _take_out(target / "model.safetensors", drawn_by(folder, parts))
        return {"quantise_seconds": sum(spent)}

    libraries = [backend.library] if backend.library else []
    identity = {
        # Configuration and tokenizer too: what is kept holds a copy of the configuration.
        "files": all_hashes(folder),
        "quantization": job.quantization,
        "double": job.recipe.double_quantization,
        "precision": job.recipe.precision,
        "kept_whole": parts.head_linears,
        "device": job.loads_on,
        "by": made_by("torch", "transformers", *libraries, code=str(models.__file__)),
        "quantised by": source_hash("peftmark.lab.quantization"),
        "settings": settings.to_dict(),
        "weights": job.recipe.weights,
        **{f"plug-in {p.key}": p.code for p in job.plugins if p.kind == "quantization"},
    }
    kept = keep(cache, "bases", identity, make) if cache is not None and backend.kept else None
    if kept is not None:
        model = load_model(kept.folder, job, task, parts, quantised=True)
        return Base(model, float(kept.facts["quantise_seconds"]), kept.now)
    with quantization_clock(job.quantization, device) as spent:
        model = load_model(folder, job, task, parts)
    return Base(model, sum(spent))


def drawn_by(folder: Path, parts: Anatomy) -> Callable[[str], bool]:
    """Whether the job's seed draws a tensor: one of the head that isn't among the weights in a
    folder, as a part of ModernBERT's is."""
    tops = tuple(f"{name}." for name in parts.fresh)
    there: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            there |= set(tensors.keys())
    return lambda name: name.startswith(tops) and name not in there


def _take_out(file: Path, drawn: Callable[[str], bool]) -> None:
    """Take tensors out of a file, so that they are drawn anew when it is loaded.

    `save_pretrained` writes all of a quantised model, whichever state it is given.
    """
    with safe_open(file, framework="pt") as tensors:
        facts = tensors.metadata()
        names = [n for n in tensors.keys() if not drawn(n)]  # noqa: SIM118
        kept = {name: tensors.get_tensor(name) for name in names}
    save_file(kept, file.with_suffix(".part"), metadata=facts)
    file.with_suffix(".part").replace(file)
