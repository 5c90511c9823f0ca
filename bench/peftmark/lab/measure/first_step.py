"""What the first step shows: what the code decides before the noise of training is in it.

It is read when the optimizer takes the step, so it is what was applied, not what was meant.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import nn

from peftmark.lab.step import Step, Taken

DROPOUT = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
"""Every module of torch that leaves numbers out."""


class FirstStep:
    """Looks at the first step that the optimizer of a job takes; changes nothing in it.

    Args:
        step: the job's, before it was called.
        model: what trains.
    """

    def __init__(self, step: Step, model: nn.Module) -> None:
        self._model = model
        self._groups: list[dict[str, Any]] = []
        self._adam: dict[str, float] = {}
        self._dropout: Counter[float] = Counter()
        self._watching = step.optimizer.register_step_pre_hook(self._look)

    def _look(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._watching.remove()
        shared = optimizer.param_groups[0]
        self._adam = dict(zip(("beta 1", "beta 2"), map(float, shared["betas"]), strict=True))
        self._adam["epsilon"] = float(shared["eps"])
        for group in optimizer.param_groups:
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            # Left on the device: to ask for the number now would wait for it.
            norms = [torch.linalg.vector_norm(g.detach().float()) for g in gradients]
            self._groups.append(
                {
                    "parameters": sum(p.numel() for p in group["params"]),
                    "learning rate": float(group["lr"]),
                    "weight decay": float(group["weight_decay"]),
                    "gradient norm": torch.linalg.vector_norm(torch.stack(norms)) if norms else 0,
                }
            )
        self._dropout = Counter(
            float(m.p)
            for m in self._model.modules()
            if isinstance(m, DROPOUT) and m.training and m.p > 0
        )

    def facts(self, taken: Taken) -> dict[str, float | None]:
        """Name -> value, None for what is no finite number.

        Loss and penalty of the batch, the gradients' norm before they are clipped; Adam's
        constants; of every group of the optimizer its parameters, learning rate, weight decay and
        the gradients' norm as they were applied; active dropout modules by their rate.

        Args:
            taken: what the first step gave back.
        """
        found = {"loss": float(taken.loss), "gradient norm": float(taken.norm)}
        if taken.penalty is not None:
            found["penalty"] = float(taken.penalty)
        found |= self._adam
        for number, group in enumerate(self._groups, 1):
            found |= {f"group {number} {name}": float(value) for name, value in group.items()}
        rates = sorted(self._dropout.items())
        found |= {f"dropout modules at {rate:.4g}": float(count) for rate, count in rates}
        return {name: value if math.isfinite(value) else None for name, value in found.items()}
