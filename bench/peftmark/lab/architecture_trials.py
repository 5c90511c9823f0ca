"""Architectures tried on tiny random models: does a method train, and is it what it was when it is
loaded again?

Made of the lab's own parts, so that what is tried is what a job does: load a base, put the method
on it, take steps, save, reload, compare, merge.
"""

from __future__ import annotations

import copy
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
)

from peftmark.catalog.methods import known_method
from peftmark.catalog.task import Task, TaskKind
from peftmark.catalog.tried_architectures import METHODS, SMALL, TRIED, Class
from peftmark.lab.data.batches import Batch
from peftmark.lab.deploy import deploy
from peftmark.lab.last_token import config_padding
from peftmark.lab.memory.meta_model import blank
from peftmark.lab.methods import Prepared, Setting, prepare
from peftmark.lab.models import (
    Unsupported,
    adapter_targets,
    anatomy,
    anatomy_of,
    load_model,
    target_notes,
)
from peftmark.lab.rng import seed_all
from peftmark.lab.step import Step, task_loss
from peftmark.record.job import Job
from peftmark.record.recipe import AdaLoraSchedule, Causal, Recipe

CPU = torch.device("cpu")
STEPS = 4
RANK = 2
ROWS, TOKENS = 4, 12
LABELS = ("a", "b", "c")
KINDS: dict[Class, TaskKind] = {"classifier": "classification", "language model": "language"}
LOUDER = 3
"""Random weights are this many times as large as usual: in two layers they say little otherwise."""


@dataclass(frozen=True)
class Trial:
    """What came of one method on one architecture.

    Attributes:
        error: largest difference of a logit (of a language model's log-likelihood of a token)
            between the trained model and its saved files loaded again; None if it was refused.
        reason: why it was refused; empty if it was not.
        adapted: layers with an adapter.
        notes: what its row would say of its targets.
    """

    error: float | None
    reason: str = ""
    adapted: int = 0
    notes: tuple[str, ...] = ()


def tiny_config(key: str, made: Class) -> Any:
    """The tiny configuration of an architecture, for a class."""
    tried = TRIED[key]
    config = AutoConfig.for_model(key, **{**SMALL, **tried.settings})
    if tried.family == "encoder" and made == "language model":
        config.is_decoder = True
    return config


def make_tiny(key: str, made: Class, folder: Path) -> None:
    """Save a random base of an architecture, without a tokenizer."""
    speaks = made == "language model" or TRIED[key].family == "decoder"
    save_random(tiny_config(key, made), speaks, folder)


def save_random(config: Any, speaks: bool, folder: Path) -> None:
    """Save a random base of a configuration.

    Args:
        speaks: whether it has a language model's head.
    """
    torch.manual_seed(7)
    maker: Any = AutoModelForCausalLM if speaks else AutoModel
    model = maker.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(LOUDER)
    model.save_pretrained(folder)


def trials(key: str, made: Class) -> Iterator[tuple[str, Trial]]:
    """Every method on a class of an architecture, by the method's title."""
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch:
        folder = Path(scratch)
        make_tiny(key, made, folder)
        for title, method, quantization in METHODS:
            yield title, trial(folder, made, job_of(key, made, method, quantization))


def library_says(key: str, made: Class, quantization: str = "none") -> str:
    """What transformers itself says of what is refused here: its error, or its warning.

    Args:
        quantization: "none" to ask for the class alone.
    """
    speaks = made == "language model"
    maker: Any = AutoModelForCausalLM if speaks else AutoModelForSequenceClassification
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch, _heard() as said:
        try:
            if quantization == "none":
                maker.from_config(tiny_config(key, made))
            else:
                make_tiny(key, made, Path(scratch))
                settings: Any = BitsAndBytesConfig
                four = settings(load_in_4bit=True, bnb_4bit_quant_type=quantization)
                maker.from_pretrained(scratch, quantization_config=four)
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    return " ".join(" ".join(said).split())


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What transformers logs of layers that it quantises."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers.integrations.bitsandbytes")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)  # also where a job has silenced the library
    try:
        yield said
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def target_names(key: str, made: Class, targets: str) -> tuple[str, ...]:
    """What gets an adapter with a recipe's word for targets, by name inside a layer."""
    job = job_of(key, made, "lora", targets=targets)
    model = blank(tiny_config(key, made), KINDS[made])
    names = adapter_targets(job, anatomy_of(model))
    inside = (re.sub(r"^.*?\.\d+\.(albert_layers\.0\.)?", "", name) for name in names)
    return tuple(dict.fromkeys(inside))


def trial(folder: Path, made: Class, job: Job) -> Trial:
    """Train, save, reload and merge one job on a tiny base."""
    try:
        return _trial(folder, made, job)
    except Unsupported as error:
        return Trial(None, str(error))


def trained(folder: Path, made: Class, job: Job) -> tuple[Prepared, list[Batch]]:
    """A job's model after its steps, and the batches of those.

    Raises:
        Unsupported: if the base or the method can't be.
    """
    task, config = task_of(made), AutoConfig.from_pretrained(folder)
    parts = anatomy(folder, task)
    generator = torch.Generator().manual_seed(3)
    batches = [random_batch(config, task, generator) for _ in range(STEPS)]

    def base(quantization: str = job.quantization) -> nn.Module:
        return load_model(folder, replace(job, quantization=quantization), task, parts)

    setting = Setting(
        job=job,
        parts=parts,
        device=CPU,
        preview=lambda count: batches[:count],
        loss=lambda model, batch: task_loss(model, batch, task, job, CPU),
        fresh_base=base,
        plain_base=lambda: base("none"),
        size=job.size,
    )
    seed_all(job.seed, "adapter")
    prepared = prepare(base(), setting)
    step = Step(job, task, prepared, CPU)
    for number, batch in enumerate(batches, 1):
        step(number, batch)
    return prepared, batches


def _trial(folder: Path, made: Class, job: Job) -> Trial:
    prepared, batches = trained(folder, made, job)
    if fault := prepared.fault():
        raise RuntimeError(fault)
    parts = anatomy(folder, task_of(made))
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch:
        prepared.save(Path(scratch))
        found = deploy(
            job,
            prepared,
            Path(scratch),
            lambda: load_model(folder, job, task_of(made), parts),
            batches[:2],
            CPU,
        )
    adapted = len(prepared.ranks())
    return Trial(found.reload_max_error, "", adapted, tuple(target_notes(job, parts)))


def task_of(made: Class) -> Task:
    """The task that a class is tried on."""
    return Task(
        key="tried",
        title="tried",
        kind=KINDS[made],
        metric="accuracy" if made == "classifier" else "perplexity",
        also=(),
        labels=LABELS if made == "classifier" else (),
        train_rows=STEPS * ROWS,
        eval_rows=ROWS,
        summary="",
        licence="",
    )


def random_batch(config: Any, task: Task, generator: torch.Generator) -> Batch:
    """Random rows of different lengths, padded on the right."""
    ids = torch.randint(4, config.vocab_size, (ROWS, TOKENS), generator=generator)
    lengths = torch.tensor([TOKENS - 2 * row for row in range(ROWS)])
    mask = (torch.arange(TOKENS)[None] < lengths[:, None]).long()
    ids = torch.where(mask.bool(), ids, config_padding(config) or 0)
    labels = torch.randint(0, len(LABELS), (ROWS,), generator=generator)
    if task.kind == "language":
        labels = torch.where(mask.bool(), ids, -100)
    return Batch({"input_ids": ids, "attention_mask": mask}, labels, int(mask.sum()))


def job_of(key: str, made: Class, method: str, quantization: str = "none", **recipe: Any) -> Job:
    """A job of a method on a tiny base; further names change its recipe."""
    known = known_method(method)
    adapts = "targets" in known.settings
    base = Recipe(
        steps=STEPS,
        batch_size=ROWS,
        learning_rate=5e-3,
        schedule="linear",
        warmup_steps=1,
        weight_decay=0.01,
        max_grad_norm=1.0,
        max_length=TOKENS,
        precision="fp32",
        optimizer="adamw",
        gradient_checkpointing=False,
        window_batches=1,
        train_rows=None,
        selection_rows=0,
        eval_rows=None,
        eval_every=STEPS,
        eval_batch_size=ROWS,
        train_pooler=True,
        targets="all-linear" if adapts else None,
        alpha=8.0 if adapts else None,
        dropout=0.1 if adapts else None,
        double_quantization=True if quantization == "nf4" else None,
        adalora=AdaLoraSchedule(2 * RANK, 1, 1, 1, 0.85, 0.85, 0.1) if known.schedule else None,
        options=copy.deepcopy(known.resolved_options({})),
    )
    return Job(
        suite="tried",
        suite_version=1,
        profile="tried",
        model=key,
        model_identity="",
        task="tried",
        task_version=1,
        data_fingerprint="none",
        metric=task_of(made).metric,
        target=None,
        method=method,
        size=RANK if known.size else None,
        quantization=quantization,
        seed=0,
        device="cpu",
        threads=1,
        recipe=replace(base, **recipe),
        causal=Causal("", None, "") if made == "language model" else None,
    )
