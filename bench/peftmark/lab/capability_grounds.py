"""Tiny random bases that methods are tried on, and a method's model after some steps on one.

Three layers, since the layered hybrid has three bands. A classifier's head stays as it was drawn:
what is looked at is what the adapter does.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig
from transformers.utils import logging

from peftmark.catalog.methods import known_method
from peftmark.catalog.tried_architectures import SMALL, TRIED, Class
from peftmark.lab.architecture_trials import job_of, random_batch, save_random, task_of
from peftmark.lab.data.batches import Batch
from peftmark.lab.measure.parameter_counts import belongs_to
from peftmark.lab.methods import Prepared, Setting, prepare, trainable
from peftmark.lab.models import Anatomy, Unsupported, anatomy, load_model, trained_head
from peftmark.lab.quantization.table import backend_of, is_quantised
from peftmark.lab.rng import seed_all
from peftmark.lab.scoring import all_outputs
from peftmark.lab.step import Step, task_loss
from peftmark.record.job import Job
from peftmark.record.stages import ends_as

STEPS = 8
LOUDER = 20
"""A classifier's random head is this many times as large as it is drawn."""
RATE = 2e-2
TASKS: Mapping[Class, str] = {"classifier": "mnli", "language model": "reviews"}
"""Tasks whose facts a method may look up: how many rows there are, what they are labelled with."""
BASES: Mapping[Class, tuple[str, Mapping[str, Any]]] = {
    "classifier": ("bert", {"num_hidden_layers": 3}),
    # Biases, three layers and words of its own to say: what some method sits on.
    "language model": (
        "llama",
        {
            "num_hidden_layers": 3,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
        },
    ),
}


@dataclass(frozen=True)
class Ground:
    """A tiny base that methods are tried on.

    Attributes:
        made: what it is.
        folder: its files.
        device: where it is tried.
        bases: quantization -> the base, as loaded; filled as it is asked for.
        said: quantization -> what the base alone says, and LoRA on it; filled likewise.
    """

    made: Class
    folder: Path
    device: torch.device
    bases: dict[str, nn.Module] = field(default_factory=dict)
    said: dict[str, torch.Tensor] = field(default_factory=dict)

    @cached_property
    def parts(self) -> Anatomy:
        """Where things are in it."""
        return anatomy(self.folder, task_of(self.made))

    @cached_property
    def batches(self) -> list[Batch]:
        """Random rows, the same whenever they are made."""
        config = AutoConfig.from_pretrained(self.folder)
        generator = torch.Generator().manual_seed(3)
        rows = [random_batch(config, task_of(self.made), generator) for _ in range(2 * STEPS)]
        return [batch.to(self.device) for batch in rows]

    def preview(self, count: int) -> list[Batch]:
        """The first rows, from the start again where more are asked for than there are."""
        return [self.batches[i % len(self.batches)] for i in range(count)]

    def base(self, job: Job) -> nn.Module:
        """The base as a job has it, loaded once for each quantization and copied."""
        if job.quantization not in self.bases:
            same_head = replace(job, seed=0)
            loaded = load_model(self.folder, same_head, task_of(self.made), self.parts)
            with torch.no_grad():  # as drawn its logits are so small that all models say the same
                for name in self.parts.fresh:
                    for p in loaded.get_submodule(name).parameters():
                        p.mul_(LOUDER)
            self.bases[job.quantization] = loaded.to(self.device)
        return copy.deepcopy(self.bases[job.quantization])

    def job(self, method: str, quantization: str = "none", seed: int = 0) -> Job:
        """A job of a method here."""
        known = known_method(method)
        # VeLoRA keeps every number of inputs as narrow as these where groups are many.
        small = {"batches": 16 if method == "eva" else 2, "first_rank": 1, "groups": 8}
        options = {o.name: small[o.name] for o in known.options or () if o.name in small}
        made = job_of(
            BASES[self.made][0],
            self.made,
            method,
            quantization,
            steps=STEPS,
            learning_rate=RATE,
            targets="query-value" if "targets" in known.settings else None,
            alpha=8.0 if "alpha" in known.settings else None,
            dropout=0.0 if "dropout" in known.settings else None,
            options=copy.deepcopy(known.resolved_options(options)),
        )
        place: Any = self.device.type
        return replace(made, task=TASKS[self.made], seed=seed, device=place)

    def outputs(self, model: nn.Module, job: Job) -> torch.Tensor:
        """What a model says of the last rows: logits, or the log-likelihoods of texts."""
        with backend_of(job.quantization).exact(model):
            return all_outputs(model, self.batches[-2:], job, self.device)

    def base_says(self, quantization: str) -> torch.Tensor:
        """The same of the base alone."""
        if quantization not in self.said:
            job = self.job("full", quantization)
            self.said[quantization] = self.outputs(self.base(job), job)
        return self.said[quantization]

    def rounding(self, quantization: str) -> float:
        """How far quantising moves the outputs of the base."""
        return apart(self.base_says(quantization), self.base_says("none"))


@dataclass(frozen=True)
class Adapter:
    """A method's model after its steps, and what it saved.

    Attributes:
        folder: what it saved.
        start_says: the outputs of the model before its first step.
    """

    ground: Ground
    job: Job
    prepared: Prepared
    folder: Path
    start_says: torch.Tensor

    def loaded(self) -> nn.Module:
        """What was saved on a fresh base."""
        return self.prepared.load(self.ground.base(self.ends), self.folder).to(self.ground.device)

    @property
    def ends(self) -> Job:
        """The job on the base that its last stage trained on."""
        return ends_as(self.job)

    @cached_property
    def trained_says(self) -> torch.Tensor:
        """The outputs of the model that trained."""
        return self.ground.outputs(self.prepared.model, self.ends)

    @property
    def base_says(self) -> torch.Tensor:
        """The outputs of its base alone."""
        return self.ground.base_says(self.ends.quantization)

    @cached_property
    def says(self) -> torch.Tensor:
        """The outputs of the loaded model."""
        return self.ground.outputs(self.loaded(), self.ends)


def trained(ground: Ground, job: Job, folder: Path) -> Adapter:
    """Train a method for a few steps, and save it; a classifier's head stays as it is.

    Raises:
        Exception: whatever the method, or the library that makes it, can't do.
    """
    device, task = ground.device, task_of(ground.made)
    setting = Setting(
        job=job,
        parts=ground.parts,
        device=device,
        preview=ground.preview,
        loss=lambda model, batch: task_loss(model, batch, task, job, device),
        fresh_base=lambda: ground.base(job),
        plain_base=lambda: ground.base(replace(job, quantization="none")),
        size=job.size,
        declared=False,
    )
    base = ground.base(job)
    seed_all(job.seed, "adapter")
    prepared = prepare(base, setting)
    prepared.model.to(device)
    head = trained_head(ground.parts, job.recipe.train_pooler)
    of_head = {name: belongs_to(name, head) for name, _ in trainable(prepared.model)}
    for name, p in trainable(prepared.model):
        p.requires_grad_(not of_head[name] or all(of_head.values()))
    start_says = ground.outputs(prepared.model, job)
    if whole := [name for name, p in trainable(prepared.model) if is_quantised(p)]:
        raise Unsupported(f"{whole[0]} is to train, and quantised weights get no gradients")
    step = Step(job, task, prepared, device)
    for number in range(1, STEPS + 1):
        step(number, ground.batches[(number + job.seed) % STEPS])
    if fault := prepared.fault():
        raise RuntimeError(fault)
    prepared.save(folder)
    return Adapter(ground, job, prepared, folder, start_says)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference of two models' outputs; NaN if one is no number."""
    return float((one - other).abs().max())


@contextmanager
def grounds() -> Iterator[dict[Class, Ground]]:
    """The tiny bases, for as long as it is open; torch has one thread from then on."""
    torch.set_num_threads(1)
    quiet: Any = logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch:
        found: dict[Class, Ground] = {}
        for made, (key, settings) in BASES.items():
            folder = Path(scratch) / key
            config = AutoConfig.for_model(key, **{**SMALL, **TRIED[key].settings, **settings})
            save_random(config, made == "language model", folder)
            found[made] = Ground(made, folder, torch.device("cpu"))
        yield found
