"""Parameters and weights of a model, counted and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from peftmark.lab.methods import trainable
from peftmark.lab.quantization.table import maker_of_weight, size_of


def parameters(model: nn.Module) -> int:
    """Parameters of a model, 4-bit weights counted unpacked and tied ones once."""
    return sum(size_of(p) for p in model.parameters())


def base_format(model: nn.Module) -> dict[str, int]:
    """Format of a base's weights -> parameters in it, 4-bit ones counted unpacked."""
    found: dict[str, int] = {}
    for p in model.parameters():
        name = maker_of_weight(p).format(p)
        found[name] = found.get(name, 0) + size_of(p)
    return dict(sorted(found.items()))


def added_parameters(model: nn.Module, base: Sequence[nn.Parameter]) -> int:
    """Parameters that a method added, the head's copy apart.

    Args:
        model: the base with the method on it.
        base: the parameters of the base before.
    """
    known = {id(p) for p in base}
    return sum(
        p.numel()
        for name, p in model.named_parameters()
        if id(p) not in known and "modules_to_save" not in name
    )


def head_parameters(model: nn.Module, head: Sequence[str]) -> int:
    """Trainable parameters of classifier and pooler.

    Args:
        model: with or without PEFT's wrapping.
        head: module names in the plain model.
    """
    return sum(p.numel() for name, p in trainable(model) if belongs_to(name, head))


def belongs_to(name: str, modules: Sequence[str]) -> bool:
    """Whether a tensor is one of some modules'.

    Args:
        name: of the tensor, with or without PEFT's wrapping.
        modules: names in the plain model.
    """
    bare = name.removeprefix("base_model.").removeprefix("model.")
    return any(bare.startswith(f"{top}.") for top in modules)


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names and values (as fp32) of the trainable weights."""
    digest = hashlib.sha256()
    for name, p in trainable(model):
        digest.update(name.encode())
        digest.update(p.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
