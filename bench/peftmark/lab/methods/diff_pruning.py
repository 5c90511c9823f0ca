"""DiffPruning (Guo et al. 2020, arXiv 2012.07463): W + delta, with delta sparse and trained.

Stage one trains a relaxed difference to each target's weight W (biases have none): delta = z * w,
elementwise, with gates z of the hard concrete distribution (Louizos et al. 2017, arXiv 1712.01312)
at temperature 1, stretched to the interval from l = -1.5 to r = 1.5:

    s = sigmoid(log u - log(1 - u) + log_alpha),  u ~ Uniform(0, 1)
    z = min(1, max(0, s (r - l) + l))

and adds `l0_weight` times the expected number of non-zero gates to the loss:

    sum over weights of P(z > 0) = sigmoid(log_alpha - log(-l / r))

In evaluation s has no noise: s = sigmoid(log_alpha). As in the authors' code, w starts at zero and
log_alpha at 5: nearly every gate is open, and the model is the base. It also has the defaults:
`alpha_rate` 0.1, the learning rate of log_alpha, whatever that of w is; `l0_weight` 1.25e-7 for
BERT-large; `density` 0.005.

After `cut_at` of the steps the `density` times all targets' weights that are largest in |z w|, over
all targets together, are kept with that value, and the rest of the difference is gone (the paper's
projection onto the L0 ball). Stage two trains the kept values with the positions fixed, by an
optimizer and a schedule of its own, as the authors do in a second run, at `second_rate` times
the learning rate (theirs: 5e-5 after 1e-5).

The defaults are meant for runs as long as the authors'. In some tens of steps the gates hardly move
at them, the cut takes values the model relies on, and stage two has to recover what they did; a
larger `l0_weight`, `alpha_rate` or `second_rate` helps.

The paper's structured variant, in which the weights of a group share a second gate, is left out.

With `mask: straight-through` the gates are those of a practitioners' guide: masks of zeros and ones
that start closed, at temperature 2/3 and with noise e ~ Uniform(-1/2, 1/2),

    s = sigmoid((log_alpha + e) / (2/3)),  z = 1 if s > 1/2, else 0

where the gradient of s stands for that of z (Bengio et al. 2013, arXiv 1308.3432), and the penalty
is `l0_weight` times the sum of sigmoid(log_alpha). The guide prints the paper's formula with
log(-g/g), which has no value; with l = -g and r = g that is log(1) = 0. log_alpha starts at -1/2,
where no noise opens a mask. A closed mask gives w no gradient and w = 0 would give log_alpha none,
so w is drawn as the guide draws it, from a normal distribution, but with deviation `START`: its 1
is many times that of the weights of a trained model. In evaluation a mask is open where log_alpha
is above 0. The cut keeps open masks alone, as many as there are, at most the `density`: the guide
has no target and cuts once training is over; here the rest of the steps follow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize

from peftmark.catalog.methods import known_method
from peftmark.lab.methods import Prepared, Setting, Stage, trainable
from peftmark.lab.methods.reference import FILE, train_head_alone
from peftmark.lab.models import adapter_targets

LOW, HIGH = -1.5, 1.5
"""l and r: the interval that the concrete distribution is stretched to."""

FIRST_LOG_ALPHA = 5.0

TEMPERATURE, NOISE = 2 / 3, 0.5
"""Of straight-through masks: what log_alpha is divided by, and how far noise reaches."""
START = 0.01
"""Deviation of w under straight-through masks at the start; an assumption."""


class Relaxed(nn.Module):
    """A weight's dense difference z * w, with random gates in training."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros_like(weight, dtype=torch.float32))
        # Flat, because the optimizer decays matrices: decay would pull the gates half open.
        self.log_alpha = nn.Parameter(torch.full_like(self.w.flatten(), FIRST_LOG_ALPHA))

    def noise(self) -> torch.Tensor:
        """log u - log(1 - u) by weight, drawn anew."""
        return torch.logit(torch.rand_like(self.log_alpha), eps=1e-4)

    def gates(self, noise: torch.Tensor | None = None) -> torch.Tensor:
        """z by weight, flat.

        Args:
            noise: log u - log(1 - u) by weight; None for none.
        """
        s = torch.sigmoid(self.log_alpha if noise is None else self.log_alpha + noise)
        return (s * (HIGH - LOW) + LOW).clamp(0, 1)

    def expected(self) -> torch.Tensor:
        """The expected number of gates that are not zero, a scalar with gradient."""
        return torch.sigmoid(self.log_alpha - math.log(-LOW / HIGH)).sum()

    def difference(self) -> torch.Tensor:
        """z * w without noise."""
        return self.gates().view_as(self.w) * self.w

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """W + z * w, of W's shape."""
        if not self.training:
            return weight + self.difference()
        return weight + self.gates(self.noise()).view_as(self.w) * self.w


class StraightThrough(Relaxed):
    """A weight's dense difference behind masks of zeros and ones, closed at the start."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__(weight)
        nn.init.normal_(self.w, std=START)
        nn.init.constant_(self.log_alpha, -NOISE)

    def noise(self) -> torch.Tensor:
        """e by weight, drawn anew."""
        return (2 * torch.rand_like(self.log_alpha) - 1) * NOISE

    def gates(self, noise: torch.Tensor | None = None) -> torch.Tensor:
        """z by weight, flat, with the gradient of s.

        Args:
            noise: e by weight; None for none.
        """
        shifted = self.log_alpha if noise is None else self.log_alpha + noise
        s = torch.sigmoid(shifted / TEMPERATURE)
        return (s > 0.5).to(s.dtype) + (s - s.detach())

    def expected(self) -> torch.Tensor:
        """The guide's sum that stands for the number of open masks, a scalar with gradient."""
        return torch.sigmoid(self.log_alpha).sum()


_MASKS: Mapping[str, type[Relaxed]] = {
    "hard-concrete": Relaxed,
    "straight-through": StraightThrough,
}


class Sparse(nn.Module):
    """A weight's difference at fixed positions.

    Args:
        values: the differences, shape (kept,).
        indices: their positions in the flattened weight, shape (kept,), none twice.
    """

    def __init__(self, values: torch.Tensor, indices: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)
        self.register_buffer("indices", indices)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """W plus the differences, of W's shape."""
        flat: torch.Tensor = weight.flatten().to(self.values.dtype)
        flat = flat.index_add(0, self.get_buffer("indices"), self.values)
        return flat.view_as(weight)


def diff_pruning(model: nn.Module, setting: Setting) -> Prepared:
    """Put a difference on the recipe's targets; head and pooler train beside it, whole."""
    job, options = setting.job, setting.job.recipe.options
    weight, rate = float(options["l0_weight"]), float(options["alpha_rate"])
    kind = known_method(job.method).option(options, "mask")
    train_head_alone(model, setting)
    targets = adapter_targets(job, setting.parts)
    for name in targets:
        start = model.get_submodule(name).get_parameter("weight").detach()
        _attach(model, name, _MASKS[kind](start))
    head = sum(p.numel() for name, p in trainable(model) if ".parametrizations." not in name)
    size = sum(part.w.numel() for part in _parts(model, targets, Relaxed).values())
    budget = max(1, round(options["density"] * size))
    steps = job.recipe.steps

    def penalty() -> torch.Tensor | None:
        parts = _parts(model, targets, Relaxed).values()
        if not parts:
            return None
        return weight * torch.stack([part.expected() for part in parts]).sum()

    def kept() -> int:
        return sum(
            int(torch.count_nonzero(part.values))
            for part in _parts(model, targets, Sparse).values()
        )

    def fault() -> str | None:
        found = kept()
        if found == budget or (kind == "straight-through" and 0 < found < budget):
            return None
        if kind == "straight-through" and not found:
            return "no mask was open when DiffPruning cut: nothing of the difference is left"
        return f"DiffPruning ended with {found} differing weights, its budget is {budget}"

    return Prepared(
        model,
        save=lambda folder: _save(model, targets, folder),
        load=_load,
        merge=_merge,
        extra_loss=penalty,
        rate_of=lambda name: rate / job.recipe.learning_rate if name.endswith("log_alpha") else 1.0,
        stage=Stage(
            after=min(steps - 1, max(1, round(options["cut_at"] * steps))),
            begin=lambda: cut(model, targets, budget),
            rate=options["second_rate"],
        ),
        active_parameters=lambda: kept() + head,
        fault=fault,
    )


def cut(model: nn.Module, targets: list[str], budget: int) -> None:
    """Keep the `budget` largest differences of all targets together; the rest is zero for good.

    Where straight-through masks are open for fewer weights, those alone are kept.
    """
    with torch.no_grad():
        parts = _parts(model, targets, Relaxed)
        flat = {name: part.difference().flatten() for name, part in parts.items()}
        sizes = [len(values) for values in flat.values()]
        if all(isinstance(part, StraightThrough) for part in parts.values()):
            budget = min(budget, sum(int(torch.count_nonzero(v)) for v in flat.values()))
        largest = torch.cat([values.abs() for values in flat.values()]).topk(budget).indices
        chosen = torch.zeros(sum(sizes), dtype=torch.bool, device=largest.device)
        chosen[largest] = True
        masks = torch.split(chosen, sizes)
        for (name, values), mask in zip(flat.items(), masks, strict=True):
            indices = mask.nonzero().flatten()
            short = torch.int32 if len(values) <= torch.iinfo(torch.int32).max else torch.int64
            _attach(model, name, Sparse(values[indices], indices.to(short)))


def _attach(model: nn.Module, name: str, part: nn.Module) -> None:
    """Make a target's weight W plus the part's difference, in place of one that is there."""
    module = model.get_submodule(name)
    if parametrize.is_parametrized(module, "weight"):
        there: Any = module.parametrizations
        there["weight"][0] = part
    else:
        # Unsafe: W plus a difference is fp32 where W is stored in fewer bits.
        parametrize.register_parametrization(module, "weight", part, unsafe=True)


def _parts(model: nn.Module, targets: list[str], kind: type[nn.Module]) -> Mapping[str, Any]:
    """The targets' differences of one kind, by the target's name."""
    found = {}
    for name in targets:
        part = model.get_submodule(f"{name}.parametrizations.weight.0")
        if isinstance(part, kind):
            found[name] = part
    return found


def _save(model: nn.Module, targets: list[str], folder: Path) -> None:
    """Write head, and positions and values of the difference."""
    tensors = {n: p for n, p in trainable(model) if ".parametrizations." not in n}
    for name, part in _parts(model, targets, Sparse).items():
        tensors[f"{name}.values"] = part.values
        tensors[f"{name}.indices"] = part.indices
    save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, folder / FILE)


def _load(base: nn.Module, folder: Path) -> nn.Module:
    """Put a saved difference and head onto a fresh base."""
    tensors = load_file(folder / FILE)
    base.requires_grad_(False)
    for key in [key for key in tensors if key.endswith(".indices")]:
        name = key.removesuffix(".indices")
        part = Sparse(tensors.pop(f"{name}.values"), tensors.pop(key))
        _attach(base, name, part.to(base.get_submodule(name).get_parameter("weight").device))
    unknown = base.load_state_dict(tensors, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the saved weights {unknown} have no place in the base")
    return base


def _merge(model: nn.Module) -> tuple[nn.Module, str]:
    """Add the differences into the weights."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            layer: Any = module
            summed = layer.weight.detach()  # fp32, whatever W is stored in
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
            layer.weight = nn.Parameter(summed, requires_grad=False)
    return model, "fp32 weights"
