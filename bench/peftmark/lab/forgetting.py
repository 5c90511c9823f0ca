"""What training made a language model forget: how well it still reads text of another kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from peftmark.catalog.tasks import TASKS
from peftmark.lab import metrics
from peftmark.lab.accelerator import name_of
from peftmark.lab.build import Build
from peftmark.lab.cache import keep, made_by
from peftmark.lab.data.batches import Batch, evaluation_batches, subset
from peftmark.lab.data.causal_rows import FEWEST_WORDS, Reader, predicted_tokens
from peftmark.lab.quantization.table import backend_of
from peftmark.lab.scoring import all_outputs
from peftmark.machine.environment import machine, source_hash
from peftmark.record.job import Job
from peftmark.sources.assets import Places
from peftmark.sources.model_folder import all_hashes
from peftmark.sources.task_data import load_task

ROWS = 40
"""Passages of the unrelated text: the same for every job, so that their choice is in no
difference."""
LENGTH = 128
"""Tokens of a passage at most, whatever the job's own rows may have."""
BATCH = 8


def unrelated_batches(job: Job, places: Places, tokenizer: Any) -> list[Batch]:
    """The evaluation rows of the language task that the job names, a few of them.

    Raises:
        AssetError: no source has them.
    """
    assert job.causal is not None
    task = TASKS[job.causal.unrelated.partition(":")[0]]
    rows = [r for r in load_task(task, places).eval if len(r.text.split()) >= FEWEST_WORDS]
    reader = Reader(tokenizer, LENGTH)
    return evaluation_batches(reader.encode, reader.batch, subset(rows, ROWS), BATCH)[0]


def perplexity_before(build: Build, batches: list[Batch]) -> float:
    """Perplexity of the job's base as it is loaded, the same for all jobs of a base: read once.

    On a base of its own, since a first pass may change what a quantised layer holds.
    """
    job = build.job
    device = torch.device(job.device)

    def read() -> float:
        return perplexity(build.base(), batches, job, device)

    assert job.causal is not None
    libraries = filter(None, ["bitsandbytes", backend_of(job.quantization).library])
    identity = {
        "files": all_hashes(build.folder),
        "quantization": job.quantization,
        "double": job.recipe.double_quantization,
        "precision": job.recipe.precision,
        "weights": job.recipe.weights,
        **({} if job.recipe.attention is None else {"attention": job.recipe.attention}),
        **({} if job.recipe.kernels is None else {"kernels": job.recipe.kernels}),
        "text": job.causal.unrelated,
        "protocol": job.causal.protocol,
        "device": name_of(device),
        "cpu": machine()["cpu"],
        "threads": job.threads,
        "by": made_by("torch", "transformers", "tokenizers", *libraries),
        "code": source_hash("peftmark.lab"),
    }
    # A repeat is there to read anew.
    cache = build.cache if job.purpose != "repeat" else None
    kept = keep(cache, "unrelated", identity, lambda _: {"perplexity": read()}) if cache else None
    return float(kept.facts["perplexity"]) if kept is not None else read()


def perplexity(model: nn.Module, batches: list[Batch], job: Job, device: torch.device) -> float:
    """Perplexity of a model on batches of text."""
    by_row = all_outputs(model, batches, job, device)[:, 0].numpy()
    tokens = np.concatenate([predicted_tokens(batch) for batch in batches])
    return math.exp(-metrics.mean_likelihood(by_row, tokens))
