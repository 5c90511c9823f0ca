"""LoFT (Tastan et al. 2025, arXiv 2505.21289): LoRA whose optimizer does what AdamW would do on W.

With U = s B and V = A', so that W' = W + U V', and G the gradient of W, each factor is trained in
turn, B first, while the moments of both follow every step. For U (for V the roles change):

    g = G V (V'V)^-1                              the gradient that is nearest to G in V's span
    C = V_before' V (V'V)^-1                      what V's change makes of moments of V_before
    m = b1 m C + (1 - b1) g                       first moment, shape (out, r)
    P_i = b2 C' P_i C + (1 - b2) g_i' g_i         second, a matrix of (r, r) for each row i
    U = U - rate (m V' / (sqrt(diag(V P_i V')) + e)) V (V'V)^-1

Where r is the full rank and U and V can be inverted, this is AdamW on W, which a test holds it to.
In the authors' own code C' P C is C P C', which isn't; the formula above is what the theorem needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.lora import as_lora, lora_config, ranks_of, wrap
from peftmark.lab.methods.lora_variants import scale_of
from peftmark.lab.models import Unsupported

DAMPING = {"A": 1e-6, "B": 1e-8}
"""What the authors' code adds to a factor's V'V, by the factor that trains: B is zero at first."""
BETAS = (0.9, 0.999)


def loft(model: nn.Module, setting: Setting) -> Prepared:
    """LoRA with LoFT's optimizer; head and pooler have AdamW.

    s changes nothing: a step of W is the same whatever alpha is. Gradients are clipped by the norm
    of the factors' own, as with any method; the authors clip by the norm of g V'.

    Raises:
        Unsupported: with an optimizer of bitsandbytes, which keeps states that this has no use for.
    """
    job = setting.job
    if job.recipe.optimizer != "adamw":
        raise Unsupported(
            f"LoFT has an optimizer of its own, and the recipe asks for {job.recipe.optimizer}; "
            "set optimizer: adamw"
        )
    ranks = ranks_of(setting)
    wrapped = wrap(model, lora_config(ranks, setting))
    factors: list[Factor] = []
    for name in ranks:
        layer = wrapped.get_base_model().get_submodule(name)
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        factors += [Factor(b, a, scale_of(setting), "B"), Factor(a, b, scale_of(setting), "A")]
    make = partial(LoftAdamW, factors=factors, epsilon=float(job.recipe.options["epsilon"]))
    return as_lora(wrapped, ranks, setting, optimizer=make)


@dataclass(frozen=True)
class Factor:
    """One of a module's two factors, and the other.

    Attributes:
        kind: B stands for U = s B of shape (out, r), A for V = A' of shape (in, r).
    """

    mine: Any
    other: Any
    scale: float
    kind: str

    def basis(self) -> torch.Tensor:
        """The other factor, a copy of shape (r, columns of mine in W)."""
        other: torch.Tensor = self.other.detach()
        return other.clone() if self.kind == "B" else self.scale * other.T

    def gradient(self) -> torch.Tensor:
        """The gradient of U or V, shape (rows, r)."""
        found: torch.Tensor = self.mine.grad
        return found / self.scale if self.kind == "B" else found.T

    def subtract(self, step: torch.Tensor) -> None:
        """Take a step of U or V, shape (rows, r), off the parameter."""
        self.mine.sub_(step / self.scale if self.kind == "B" else step.T)


class LoftAdamW(torch.optim.Optimizer):
    """LoFT's optimizer of LoRA's factors, and AdamW of all else in its groups."""

    def __init__(self, groups: Any, lr: float, factors: Iterable[Factor], epsilon: float) -> None:
        self._plain = torch.optim.AdamW(groups, lr=lr, betas=BETAS)
        # The same groups, so the same rates; and one place for all states.
        super().__init__(self._plain.param_groups, self._plain.defaults)
        self._plain.state = self.state
        self._factors, self._epsilon = list(factors), epsilon
        self._steps = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step by the gradients that are there."""
        rates = {id(p): group for group in self.param_groups for p in group["params"]}
        with_gradient = [f for f in self._factors if f.mine.grad is not None]
        held = [f.mine.grad for f in with_gradient]
        for factor in with_gradient:
            factor.mine.grad = None
        self._plain.step()
        for factor, gradient in zip(with_gradient, held, strict=True):
            factor.mine.grad = gradient
        self._steps += 1
        turn = "B" if self._steps % 2 else "A"
        # All moments see the factors as they were in the forward pass.
        bases = [(factor, factor.basis()) for factor in with_gradient]
        for factor, basis in bases:
            self._follow(factor, basis, rates[id(factor.mine)], factor.kind == turn)

    def _follow(
        self, factor: Factor, basis: torch.Tensor, group: dict[str, Any], moves: bool
    ) -> None:
        """Bring a factor's moments up to date and, in its turn, move it.

        Args:
            basis: the other factor, shape (r, columns).
            group: what the rate and the weight decay stand in.
        """
        gram = basis @ basis.T
        gram.diagonal().add_(DAMPING[factor.kind])
        inverse = torch.linalg.inv_ex(gram).inverse
        g = factor.gradient() @ inverse
        state = self.state[factor.mine]
        if not state:
            state["exp_avg"] = torch.zeros_like(g)
            state["products"] = g.new_zeros(*g.shape, g.shape[1])
            state["basis"] = basis
        first, second = BETAS
        change = state["basis"] @ basis.T @ inverse
        state["basis"] = basis
        state["exp_avg"] = first * state["exp_avg"] @ change + (1 - first) * g
        state["products"] = second * (change.T @ state["products"] @ change)
        state["products"] += (1 - second) * g[:, :, None] * g[:, None, :]
        if not moves:
            return
        rank = len(basis)
        pairs = (basis[:, None] * basis[None]).reshape(rank**2, -1)
        squares = state["products"].reshape(-1, rank**2) @ pairs / (1 - second**self._steps)
        whole = state["exp_avg"] @ basis / (1 - first**self._steps)
        whole /= squares.clamp(min=0).sqrt() + self._epsilon
        factor.mine.mul_(1 - group["lr"] * group["weight_decay"])
        factor.subtract(group["lr"] * (whole @ basis.T) @ inverse)
