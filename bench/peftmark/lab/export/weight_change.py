"""How far a kept adapter moved the weights of its base, by module."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from peftmark.lab.export.forms import float_base, plain_model
from peftmark.lab.export.opened import Opened
from peftmark.lab.models import trained_head


@dataclass(frozen=True)
class Change:
    """The change of the base's weights, merged in fp32.

    Attributes:
        modules: name of a linear layer of the encoder -> Frobenius norm of what changed over that
            of its weight.
        rest: the same of all other weights without the head together: biases, norms, embeddings.
    """

    modules: dict[str, float]
    rest: float


def weight_change(opened: Opened) -> Change:
    """Hold the merged model's weights against its base's, both in fp32.

    Raises:
        Unsupported: no weights of the base's class give the trained model; says why.
    """
    merged = plain_model(opened).state_dict()
    base = float_base(opened).state_dict()
    linear = {f"{name}.weight": name for name in opened.parts.encoder_linears}
    head = tuple(f"{n}." for n in trained_head(opened.parts, opened.job.recipe.train_pooler))
    modules: dict[str, float] = {}
    change = size = 0.0
    for key, old in base.items():
        if not old.is_floating_point():
            continue
        moved, norm = _norm(merged[key].double() - old.double()), _norm(old.double())
        if key in linear:
            modules[linear[key]] = moved / norm if norm else 0.0
        elif not key.startswith(head):
            change, size = change + moved**2, size + norm**2
    return Change(modules, (change / size) ** 0.5 if size else 0.0)


def _norm(weight: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(weight))
