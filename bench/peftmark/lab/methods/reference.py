"""The two reference lines: full fine-tuning, and the head alone on a frozen base."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from peftmark.lab.methods import Prepared, Setting, trainable
from peftmark.lab.models import trained_head
from peftmark.lab.number_types import raise_parameters

FILE = "trained.safetensors"


def full(model: nn.Module, setting: Setting) -> Prepared:
    """Train every weight; a pooler the recipe leaves frozen stays frozen."""
    model.requires_grad_(True)
    pooler = setting.parts.pooler
    if pooler and not setting.job.recipe.train_pooler:
        model.get_submodule(pooler).requires_grad_(False)
    return _prepared(model)


def head(model: nn.Module, setting: Setting) -> Prepared:
    """Train classifier and pooler on a frozen base."""
    train_head_alone(model, setting)
    return _prepared(model)


def train_head_alone(model: nn.Module, setting: Setting) -> None:
    """Freeze everything but classifier and pooler."""
    model.requires_grad_(False)
    for name in trained_head(setting.parts, setting.job.recipe.train_pooler):
        model.get_submodule(name).requires_grad_(True)


def _prepared(model: nn.Module) -> Prepared:
    return Prepared(
        model,
        save=lambda folder: save_trained(model, folder),
        load=load_trained,
        merge=None,
        merge_reason="the method has no adapter to merge",
    )


def save_trained(model: nn.Module, folder: Path) -> None:
    """Write the trained weights alone."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in trainable(model)}
    save_file(tensors, folder / FILE)


def load_trained(base: nn.Module, folder: Path) -> nn.Module:
    """Put saved weights onto a base of the same architecture."""
    tensors = load_file(folder / FILE)
    raise_parameters(base, tensors.keys())  # what trained is fp32, whatever the base is stored in
    unknown = base.load_state_dict(tensors, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the saved weights {unknown} have no place in the base")
    return base
