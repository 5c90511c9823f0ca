"""Methods on tiny models, without rows: built, trained a few steps, saved and loaded."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.catalog.tasks import TASKS
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import Prepared, Setting, prepare, trainable
from peftmark.lab.models import Anatomy, anatomy, load_model, trained_head
from peftmark.lab.quantization.table import maker_of_weight
from peftmark.lab.rng import seed_all
from peftmark.record.job import Job

LABELS = torch.tensor([0, 1, 0, 1, 0, 1])
CPU = torch.device("cpu")


def job(method: str = "lora", quantization: str = "none", **recipe: Any) -> Job:
    """A job of ten steps without dropout; further names change the recipe, as in `tiny.job`."""
    settings = {"steps": 10, **recipe}
    made = tiny.job(method, quantization, **settings)
    if made.recipe.dropout and "dropout" not in recipe:
        return tiny.job(method, quantization, dropout=0.0, **settings)
    return made


def inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    """Six rows of nine words."""
    ids = torch.randint(4, 44, (6, 9), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    return nn.functional.cross_entropy(model(**batch.inputs).logits.float(), batch.labels)


def base_of(folder: Path, job: Job) -> tuple[nn.Module, Anatomy]:
    """The tiny model in a folder as the job's base; a test is skipped that lacks its library."""
    row = QUANTIZATIONS.get(job.quantization)
    if row is not None and row.optional:
        pytest.importorskip(row.imported, reason=f"pip install {row.install}")
    parts = parts_of(folder)
    return load_model(folder, job, TASKS["sst-2"], parts), parts


@cache
def parts_of(folder: Path) -> Anatomy:
    """The anatomy of the tiny model in a folder, which stays the one that it was."""
    return anatomy(folder, TASKS["sst-2"])


def setting_of(folder: Path, job: Job, **changes: Any) -> Setting:
    values: dict[str, Any] = {
        "job": job,
        "parts": parts_of(folder),
        "device": CPU,
        "loss": loss,
        "size": job.size,
        "preview": lambda count: [Batch(inputs(i + 1), LABELS, 54) for i in range(count)],
        "fresh_base": lambda: base_of(folder, job)[0],
        "plain_base": lambda: base_of(folder, replace(job, quantization="none"))[0],
    }
    return Setting(**{**values, **changes})


def build(folder: Path, job: Job, **changes: Any) -> tuple[nn.Module, Prepared, Anatomy]:
    """(plain base, the method on a copy of it, anatomy); further names change the setting."""
    base, parts = base_of(folder, job)
    seed_all(job.seed, "adapter")
    return base, prepare(copy.deepcopy(base), setting_of(folder, job, **changes)), parts


def logits(model: nn.Module) -> torch.Tensor:
    """Logits in evaluation mode."""
    training = model.training
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(**inputs()).logits.float()
    model.train(training)
    return found


def train(prepared: Prepared, steps: int = 10) -> tuple[list[float], list[str]]:
    """Train on one batch; returns the losses and the trainable tensors without a gradient."""

    def optimizer() -> torch.optim.Optimizer:
        make: Any = prepared.optimizer or torch.optim.AdamW
        made: torch.optim.Optimizer = make([p for _, p in trainable(prepared.model)], lr=5e-3)
        return made

    losses, missing, now = [], [], optimizer()
    prepared.model.train()
    for step in range(1, steps + 1):
        if prepared.stage is not None and step == prepared.stage.after + 1:
            prepared.stage.begin()
            prepared.model.train()
            now = optimizer()
        task_loss = loss(prepared.model, Batch(inputs(), LABELS, 54))
        penalty = prepared.extra_loss()
        (task_loss if penalty is None else task_loss + penalty).backward()
        prepared.before_step()
        now.step()
        prepared.after_step(step)
        missing = [name for name, p in trainable(prepared.model) if p.grad is None]
        now.zero_grad()
        losses.append(task_loss.item())
    return losses, missing


def _held(parameter: nn.Parameter) -> list[torch.Tensor]:
    """The numbers of a parameter, packed ones as they are: libraries' own classes can neither be
    compared nor, some of them, copied as a whole."""
    return [t.detach().clone() for t in maker_of_weight(parameter).values(parameter)]


def _same(parameter: nn.Parameter, before: list[torch.Tensor]) -> bool:
    """Whether a parameter holds the bits that it held."""
    return all(torch.equal(a, b) for a, b in zip(_held(parameter), before, strict=True))


def check(folder: Path, scratch: Path, job: Job, identity: bool = True) -> Prepared:
    """What every method must be: frozen base, identity at the start, a gradient everywhere,
    falling loss, and saved files that give the trained model's logits on a fresh base.

    Args:
        folder: the tiny model.
        scratch: an empty folder.
        identity: whether the method starts as the base's own function.
    """
    base, prepared, parts = build(folder, job)
    before = {n: _held(p) for n, p in prepared.model.named_parameters()}
    trained = {n for n, _ in trainable(prepared.model)}
    for head in trained_head(parts, job.recipe.train_pooler):
        assert any(f".{head}." in f".{name}" for name in trained), f"{head} does not train"
    if identity:
        torch.testing.assert_close(logits(prepared.model), logits(base), rtol=1e-4, atol=1e-5)
    losses, missing = train(prepared, job.recipe.steps)
    assert losses[-1] < losses[0]
    assert missing == []
    if prepared.stage is None:
        for name, parameter in prepared.model.named_parameters():
            same = _same(parameter, before[name])
            # AdaLoRA's E starts at zero, and is zero again where its rank was pruned.
            moves = name in trained and "lora_E" not in name
            if moves or name not in trained:
                assert same != moves, f"{name} should {'have moved' if moves else 'be frozen'}"
    assert prepared.fault() is None
    prepared.save(scratch)
    assert list(scratch.rglob("*.safetensors"))
    assert not [p for p in scratch.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]
    fresh, _ = base_of(folder, job)
    loaded = prepared.load(fresh, scratch)
    torch.testing.assert_close(logits(loaded), logits(prepared.model), rtol=1e-4, atol=2e-5)
    return prepared
