"""AdaLoRA's penalty and rank allocation for all modules at once, with the bits of PEFT's own.

PEFT goes module by module, which on a GPU costs an operation (and for the masks a wait for the
device) each. Here equal shapes are stacked into one batched product, the scores (eq. 8 to 11 of
arXiv 2303.10512) are computed by torch's operations on lists of tensors, and masks stay on the
device. Every number is rounded as PEFT rounds it. Batched products alone need not be: a library may
sum in another order for them. So each shape is tried once, on random numbers, and one whose bits
differ goes matrix by matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from peft.tuners.adalora import RankAllocator
from torch import nn

from peftmark.lab.memory.insides import (
    foreach_abs_,
    foreach_add_,
    foreach_copy_,
    foreach_mul,
    foreach_mul_,
    foreach_sub,
)

PARTS = ("lora_E", "lora_A", "lora_B")
"""Of a module: singular values (r, 1), right vectors (r, inputs), left vectors (outputs, r)."""
STACKED = 4 << 20
"""Bytes of matrices that are stacked at once: what that takes for a moment stays far below what a
step holds."""


def modules(model: nn.Module) -> dict[str, Any]:
    """AdaLoRA's modules, by their names in the base."""
    everything: dict[str, Any] = dict(model.named_modules())
    return {
        name.removeprefix("base_model.model."): module
        for name, module in everything.items()
        if hasattr(module, "lora_E") and len(module.lora_E)
    }


class Penalty:
    """Mean of ||P^T P - I||_F and ||Q Q^T - I||_F over the matrices of all modules.

    This is what PEFT and the authors' own code (loralib's `compute_orth_regu`) add to the loss. The
    paper prints another penalty: squared norms, ||P^T P - I||_F^2 + ||Q Q^T - I||_F^2 (eq. 4),
    summed over modules. One weight is therefore not the same penalty in both: with norms a and b
    of two matrices this is (a + b) / 2, the paper's a^2 + b^2.

    Args:
        model: may have LoRA in it too, which has no such penalty.
        adapter: PEFT's name of AdaLoRA's adapter.
        batched: whether equal shapes are taken together.
        values: whether tensors have values; without, shapes can't be tried and all are batched.
    """

    def __init__(
        self, model: nn.Module, adapter: str = "default", batched: bool = True, values: bool = True
    ) -> None:
        self._model, self._adapter = model, adapter
        self._batched, self._values = batched, values
        self._sources: list[tuple[Any, bool]] = []
        self.alone = 0

    def __call__(self) -> torch.Tensor:
        """The penalty as a scalar with gradient. `alone` then says how many matrices could not be
        batched."""
        if not self._sources:
            self._sources = list(_sources(self._model, self._adapter))
        matrices = [(source[self._adapter], rows) for source, rows in self._sources]
        norms: list[Any] = [None] * len(matrices)
        for places, rows in _groups(matrices) if self._batched else ():
            group = [matrices[place][0] for place in places]
            if not self._values or _same_bits(*_key(group, rows)):
                found = cast(Any, _Norms).apply(rows, *group).unbind()
                for place, norm in zip(places, found, strict=True):
                    norms[place] = norm
        self.alone = sum(norm is None for norm in norms)
        return torch.stack(
            [
                _norm(matrix, rows) if norm is None else norm
                for norm, (matrix, rows) in zip(norms, matrices, strict=True)
            ]
        ).mean()


def _sources(model: nn.Module, adapter: str) -> Iterator[tuple[Any, bool]]:
    """Where each matrix is, in the order of the model's parameters, and whether its rows (or its
    columns) are to be orthogonal."""
    holders = dict(model.named_modules())
    for name, _ in model.named_parameters():
        if name.endswith((f"lora_A.{adapter}", f"lora_B.{adapter}")):
            yield holders[name.rpartition(".")[0]], "lora_A" in name


def _groups(matrices: Sequence[tuple[torch.Tensor, bool]]) -> Iterator[tuple[list[int], bool]]:
    """Places of matrices that can be stacked, two at least and `STACKED` bytes at most."""
    alike: dict[Any, list[int]] = {}
    for place, (matrix, rows) in enumerate(matrices):
        if matrix.dtype is torch.float32:
            alike.setdefault((rows, matrix.shape, matrix.device), []).append(place)
    for (rows, shape, _), places in alike.items():
        most = max(1, STACKED // (4 * shape.numel()))
        for start in range(0, len(places), most):
            if len(chunk := places[start : start + most]) > 1:
                yield chunk, rows


def _norm(matrix: torch.Tensor, rows: bool) -> torch.Tensor:
    """One matrix as PEFT takes it."""
    gram = matrix @ matrix.T if rows else matrix.T @ matrix
    norm: torch.Tensor = torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=matrix.device))
    return norm


class _Norms(torch.autograd.Function):
    """`_norm` of matrices of one shape, shape (matrices,).

    The backward pass is written out, in the products and the order of torch's own for one matrix;
    what is kept for it is what torch keeps, since the stack is made again.
    """

    @staticmethod
    def forward(ctx: Any, rows: bool, *matrices: torch.Tensor) -> torch.Tensor:
        stacked = torch.stack(matrices)
        gram = stacked @ stacked.mT if rows else stacked.mT @ stacked
        difference = gram - torch.eye(gram.shape[-1], device=gram.device)
        norms: torch.Tensor = torch.linalg.vector_norm(difference, dim=(1, 2))
        ctx.rows = rows
        ctx.save_for_backward(difference, norms, *matrices)
        return norms

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        difference, norms, *matrices = ctx.saved_tensors
        size = norms[:, None, None]
        slope = (difference / size).masked_fill_(size == 0, 0).mul_(gradient[:, None, None])
        stacked = torch.stack(matrices)
        if ctx.rows:
            whole = (slope @ stacked).add_(slope.mT @ stacked)
        else:
            whole = (stacked @ slope.mT).add_(stacked @ slope)
        # A gradient of its own each: views would keep the whole until the last one is used.
        own = [torch.empty_like(matrix) for matrix in matrices]
        foreach_copy_(own, list(whole.unbind()))
        return None, *own


def _key(group: Sequence[torch.Tensor], rows: bool) -> tuple[Any, ...]:
    first = group[0]
    return len(group), tuple(first.shape), rows, first.device, torch.get_num_threads()


@lru_cache(maxsize=1024)
def _same_bits(
    count: int, shape: tuple[int, int], rows: bool, device: torch.device, threads: int
) -> bool:
    """Whether matrices of a shape give the same norms and gradients together as one by one.

    The order of a sum depends on shapes, device and threads, not on values: random ones tell.
    """
    noise = torch.Generator(device).manual_seed(0)
    scale = max(shape) ** -0.5
    drawn = torch.randn((count, *shape), generator=noise, device=device) * scale
    weights = torch.rand(count, generator=noise, device=device)
    found = []
    for together in (True, False):
        matrices = [one.clone().requires_grad_() for one in drawn]
        with torch.enable_grad():
            if together:
                norms = cast(Any, _Norms).apply(rows, *matrices)
            else:
                norms = torch.stack([_norm(matrix, rows) for matrix in matrices])
            gradients = torch.autograd.grad(norms, matrices, weights)
        found.append([norms.detach(), *gradients])
    return all(torch.equal(one, other) for one, other in zip(*found, strict=True))


class BatchedAllocator(RankAllocator):
    """PEFT's allocator for all modules at once, which never waits for the device.

    What it masks is kept as tensors: PEFT's `rank_pattern` of the configuration holds tensors too
    until `settle` makes lists of them, as saving needs.

    Args:
        tuner: an `AdaLoraModel`, or another tuner with its allocator, whose place it takes.
        values: whether tensors have values; without, shapes can't be tried and all are batched.
    """

    def __init__(self, tuner: Any, values: bool = True) -> None:
        adapter: str = tuner.trainable_adapter_name
        begin: Any = super().__init__
        begin(tuner.model, tuner.peft_config[adapter], adapter)
        self.target_bgt = tuner.rankallocator.target_bgt
        self._modules = modules(tuner.model)
        self._pruned: torch.Tensor | None = None
        self._values = values

    def update_ipt(self, model: nn.Module) -> None:
        """Smooth sensitivity and uncertainty of every weight by its gradient (eq. 8 to 10)."""
        weights = {
            f"{name}.{part}.{self.adapter_name}": getattr(module, part)[self.adapter_name]
            for name, module in self._modules.items()
            for part in PARTS
        }
        if not self.ipt:
            for kept in (self.ipt, self.exp_avg_ipt, self.exp_avg_unc):
                kept |= {name: torch.zeros_like(p) for name, p in weights.items()}
            if self._values:
                self._try_means()
        now, mean, doubt = (
            [kept[name] for name in weights]
            for kept in (self.ipt, self.exp_avg_ipt, self.exp_avg_unc)
        )
        with torch.no_grad():
            foreach_copy_(now, list(weights.values()))
            foreach_mul_(now, [p.grad for p in weights.values()])
            foreach_abs_(now)
            _smooth(mean, now, self.beta1)
            change = list(foreach_sub(now, mean))
            foreach_abs_(change)
            _smooth(doubt, change, self.beta2)

    def mask_to_budget(self, model: nn.Module, budget: int) -> dict[str, torch.Tensor]:
        """Zero the singular values of the least important triplets, over all modules (eq. 7).

        Returns:
            Singular values by name -> which are kept, shape (r,), on the device.
        """
        names = list(self._modules)
        with torch.no_grad():
            values, right, left = (self._scores(names, part) for part in PARTS)
            means = torch.stack([*self._means(right, 1), *self._means(left, 0)])
            means = means.view(2, len(names), -1)
            triplets = torch.stack(values).squeeze(2) + (means[0] + means[1])
            last = torch.kthvalue(triplets.flatten(), k=self.init_bgt - budget)[0]
            self._pruned = triplets <= last
            self._mask()
        kept = (~self._pruned).unbind()
        return {
            f"{name}.lora_E.{self.adapter_name}": row for name, row in zip(names, kept, strict=True)
        }

    def mask_using_rank_pattern(self, model: nn.Module, rank_pattern: Any) -> None:
        """Zero again what is pruned, from the mask that is on the device."""
        with torch.no_grad():
            self._mask()

    def settle(self) -> None:
        """Make the configuration's `rank_pattern` what PEFT's is: lists. Waits for the device."""
        pattern = self.peft_config.rank_pattern
        if pattern and all(isinstance(row, torch.Tensor) for row in pattern.values()):
            rows = torch.stack(list(pattern.values())).tolist()
            self.peft_config.rank_pattern = dict(zip(pattern, rows, strict=True))

    def _scores(self, names: Iterable[str], part: str) -> tuple[torch.Tensor, ...]:
        """Importance of each weight of a part: sensitivity times uncertainty (eq. 11)."""
        keys = [f"{name}.{part}.{self.adapter_name}" for name in names]
        sensitivity, doubt = (
            [kept[key] for key in keys] for kept in (self.exp_avg_ipt, self.exp_avg_unc)
        )
        multiply: Callable[..., tuple[torch.Tensor, ...]] = foreach_mul
        return multiply(sensitivity, doubt)

    def _try_means(self) -> None:
        """Try what shapes have the same means together, so that no step that masks has to wait."""
        for part, dim in (("lora_A", 1), ("lora_B", 0)):
            self._means(self._scores(self._modules, part), dim)

    def _means(self, scores: Sequence[torch.Tensor], dim: int) -> list[torch.Tensor]:
        """The mean of each matrix over one of its dimensions, equal shapes at once where that gives
        the same bits."""
        means: list[Any] = [None] * len(scores)
        for places, _ in _groups([(score, True) for score in scores]):
            group = [scores[place] for place in places]
            count, shape, _, device, threads = _key(group, True)
            if not self._values or _same_means(count, shape, dim, device, threads):
                found = torch.stack(group).mean(dim=dim + 1).unbind()
                for place, mean in zip(places, found, strict=True):
                    means[place] = mean
        return [
            score.mean(dim=dim) if mean is None else mean
            for score, mean in zip(scores, means, strict=True)
        ]

    def _mask(self) -> None:
        assert self._pruned is not None
        values = [module.lora_E[self.adapter_name] for module in self._modules.values()]
        whole = torch.stack(values).masked_fill_(self._pruned[:, :, None], 0.0)
        foreach_copy_(values, list(whole.unbind()))


@lru_cache(maxsize=1024)
def _same_means(
    count: int, shape: tuple[int, int], dim: int, device: torch.device, threads: int
) -> bool:
    """Whether matrices of a shape have the same means together as one by one, tried like norms."""
    noise = torch.Generator(device).manual_seed(0)
    drawn = torch.rand((count, *shape), generator=noise, device=device)
    alone = [one.clone().mean(dim=dim) for one in drawn]
    return torch.equal(drawn.mean(dim=dim + 1), torch.stack(alone))


def _smooth(mean: list[torch.Tensor], now: list[torch.Tensor], beta: float) -> None:
    """mean = beta mean + (1 - beta) now, in place; each product is rounded, as PEFT's are."""
    foreach_mul_(mean, beta)
    foreach_add_(mean, foreach_mul(now, 1 - beta))
