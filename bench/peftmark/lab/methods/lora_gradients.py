"""LoRA's variants that differ in their gradients alone: LoRA-FA, Riemannian LoRA and VeLoRA.

As in `lora_variants`, h = W x + s B A x with s = alpha / r, A of shape (r, in) and B of shape
(out, r). What LoRA-FA and Riemannian LoRA make of a gradient stands in PEFT's optimizers of their
names, each of which brings AdamW of its own; here it comes before the recipe's optimizer, once the
gradients are clipped, as PEFT's do it. Head and pooler train as with any method.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from peft.tuners.lora.config import VeloraConfig
from torch import nn

from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.lora import as_lora, lora_config, ranks_of, wrap
from peftmark.lab.methods.lora_variants import scale_of
from peftmark.lab.models import Unsupported

FA_DAMPING = 1e-8
"""What PEFT's LoRA-FA adds to A A' before it is inverted."""

PROJECTIONS = {
    "first-batch": "batch_average_once",
    "each-batch": "batch_average",
    "random": "random",
}
"""VeLoRA's option -> PEFT's word for it."""


def lora_fa(model: nn.Module, setting: Setting) -> Prepared:
    """LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): A stays as it was drawn, and B's gradient G
    becomes G (A A')^-1 / s^2.

    That step of s B A is the nearest to the one of W's own gradient that B can make. Without a
    gradient of A the inputs of a module needn't be kept.

    Raises:
        Unsupported: if A A' of some module can't be inverted.
    """
    ranks = ranks_of(setting)
    wrapped = wrap(model, lora_config(ranks, setting))
    pairs = _pairs(wrapped, ranks)
    for name, (a, _) in zip(ranks, pairs, strict=True):
        if len(a) > a.shape[1]:
            raise Unsupported(
                f"LoRA-FA inverts A A', and {name} has {a.shape[1]} inputs for rank {len(a)}; "
                "use a smaller rank"
            )
        a.requires_grad_(False)
    scale = scale_of(setting)
    inverses = [
        one / scale**2 for one in _inverses([(a @ a.T).detach() for a, _ in pairs], FA_DAMPING)
    ]

    @torch.no_grad()
    def precondition() -> None:
        for (_, b), inverse in zip(pairs, inverses, strict=True):
            if b.grad is not None:
                b.grad.copy_(b.grad @ inverse)

    return as_lora(wrapped, ranks, setting, before_step=precondition)


def riemannian_lora(model: nn.Module, setting: Setting) -> Prepared:
    """Riemannian preconditioned LoRA (Zhang and Pilanci 2024, arXiv 2402.02347): A's gradient G
    becomes (B'B + d I)^-1 G, and B's becomes G (A A' + d I)^-1; d is the option `damping`."""
    ranks = ranks_of(setting)
    wrapped = wrap(model, lora_config(ranks, setting))
    pairs = _pairs(wrapped, ranks)
    damping = float(setting.job.recipe.options["damping"])

    @torch.no_grad()
    def precondition() -> None:
        of_a = _inverses([b.T @ b for _, b in pairs], damping)
        of_b = _inverses([a @ a.T for a, _ in pairs], damping)
        for (a, b), left, right in zip(pairs, of_a, of_b, strict=True):
            if a.grad is not None and b.grad is not None:
                a.grad.copy_(left @ a.grad)
                b.grad.copy_(b.grad @ right)

    return as_lora(wrapped, ranks, setting, before_step=precondition)


def velora(model: nn.Module, setting: Setting) -> Prepared:
    """VeLoRA (Miles et al. 2024, arXiv 2405.17991): A's gradient is made of inputs of which one
    number a group was kept.

    Each token's x is cut into `groups` vectors; with v of length one, x' = c (x v) v stands for x
    in A's gradient alone, with c the option `scale`. v is the mean over groups and tokens of the
    first batch (`projection: first-batch`, the paper's fixed subspace), of each batch, or drawn.
    """
    ranks, options = ranks_of(setting), setting.job.recipe.options
    config = VeloraConfig(
        num_groups=int(options["groups"]),
        scale=float(options["scale"]),
        init_type=PROJECTIONS[options["projection"]],  # type: ignore[arg-type]
    )
    if not setting.values:
        # PEFT looks whether v is zero, and without values nothing is; shapes are the same.
        config.init_type = "batch_average"
    wrapped = wrap(model, lora_config(ranks, setting, velora_config=config))
    for name in ranks if not setting.values else ():
        wrapped.get_base_model().get_submodule(name).lora_velora_init_type["default"] = "random"
    return as_lora(wrapped, ranks, setting)


def _pairs(wrapped: Any, names: Iterable[str]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A and B of each module."""
    layers = [wrapped.get_base_model().get_submodule(name) for name in names]
    return [(m.lora_A["default"].weight, m.lora_B["default"].weight) for m in layers]


def _inverses(grams: Sequence[torch.Tensor], damping: float) -> list[torch.Tensor]:
    """(M + damping I)^-1 of each M; those of one shape at once, as a GPU wants many small ones."""
    found = dict.fromkeys(range(len(grams)), torch.empty(0))
    for size in sorted({len(gram) for gram in grams}):
        same = [i for i, gram in enumerate(grams) if len(gram) == size]
        damped = torch.stack([grams[i] for i in same])
        damped.diagonal(dim1=-2, dim2=-1).add_(damping)
        # Without a look at whether it worked, for which a GPU would wait: damped, it does.
        found.update(zip(same, torch.linalg.inv_ex(damped).inverse, strict=True))
    return list(found.values())
