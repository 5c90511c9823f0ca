"""Fine-tuning methods: how each turns a loaded base into a model that trains.

A method is a function of a base and a `Setting`, which returns a `Prepared` model. What a method
needs beyond a forward pass has one of six places: before initialisation it may look at batches of
the setting; `extra_loss` is added to the task's loss; `before_step` changes gradients and
`optimizer` uses them its own way; `after_step` runs after each optimizer step; `stage` replaces
what trains from one step on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from peftmark.catalog.methods import PREFIX, known_method
from peftmark.lab.data.batches import Batch
from peftmark.lab.models import Anatomy, Unsupported
from peftmark.lab.plugin_code import named
from peftmark.record.job import Job


def _no_loss() -> torch.Tensor | None:
    return None


def _no_step(step: int) -> None:
    return None


def _no_change() -> None:
    return None


def _unmoved(score: float | None) -> None:
    return None


def _same_rate(name: str) -> float:
    return 1.0


@dataclass(frozen=True)
class Setting:
    """What a method may know when it is put onto a base.

    Attributes:
        job: what to build; `job.recipe.options` has the method's own settings.
        parts: where things are in the base.
        device: where the job runs; the base is there already.
        preview: the first n training batches of a stream of their own, on the device, each in as
            many parts as a step reads its rows in.
        loss: the task's loss of a model on a batch, a scalar with gradient.
        fresh_base: another copy of the base as it was loaded.
        plain_base: the base before it was quantised, on the CPU.
        size: the rank, width or number of tokens: the job's, or what its budget gave (the mean
            over modules, rounded, where they differ).
        sizes: module or layer -> its rank or width, where a budget gave different ones; names
            that get no adapter are absent.
        values: whether tensors have values; what shows in values alone isn't checked without.
        declared: whether what the catalogue rules out is refused untried; a probe of the catalogue
            itself tries it.
    """

    job: Job
    parts: Anatomy
    device: torch.device
    preview: Callable[[int], list[Batch]]
    loss: Callable[[nn.Module, Batch], torch.Tensor]
    fresh_base: Callable[[], nn.Module]
    plain_base: Callable[[], nn.Module]
    size: int | None
    sizes: dict[str, int] | None = None
    values: bool = True
    declared: bool = True

    def sized(self, names: Sequence[str]) -> dict[str, int]:
        """The size of each of the method's modules (or layers); those without one are left out."""
        assert self.size is not None
        if self.sizes is None:
            return dict.fromkeys(names, self.size)
        return {name: self.sizes[name] for name in names if name in self.sizes}


@dataclass(frozen=True)
class Stage:
    """A later stage of training, in which other parameters train.

    Attributes:
        after: last step of the stage before.
        begin: turns the `Prepared` model into this stage's, in place; where another follows, it
            leaves that one as the model's `stage`.
        rate: peak learning rate over that of the first stage.
    """

    after: int
    begin: Callable[[], None]
    rate: float


@dataclass
class Prepared:
    """A model ready to train, with the method's own calls.

    Attributes:
        model: the module to run; its parameters with gradients are what trains.
        save: writes what a user would keep (adapter and head) into an empty folder.
        load: puts what `save` wrote onto a fresh base.
        merge: folds the loaded adapter into its base: the plain model, and what it was merged
            into in words. None if it can't, and `merge_reason` says why.
        extra_loss: added to the task's loss in training, never reported as the loss.
        before_step: called once the gradients are clipped, to change them in place before the
            optimizer reads them; one of them may be no finite number in fp16.
        optimizer: makes an optimizer in the place of the recipe's, from groups as torch's have them
            and `lr` by keyword; None for the recipe's.
        after_step: called with the step number after the optimizer step, while the gradients
            still stand.
        rate_of: learning rate of a trainable tensor, by name, over the recipe's.
        stage: the stage to come, or the last one; None for methods of one.
        ranks: active rank of each adapted module by name; empty for methods without rank.
        importance: mean importance of each adapted module's rank-one parts, by name, for methods
            that score them.
        scored: told the selection score after each evaluation, higher being better; None where
            there is none.
        new_base: whether a later stage has put another base in the place of the first.
        gates: mean gate of each part of each layer, by "layer.part", over the rows that were scored
            since it was asked before, for methods with gates; parts taken out are absent.
        importance_variation: coefficient of variation of each module's scores, by name, likewise.
        part_of: of a method of several parts, the part that a trainable tensor belongs to, by
            name; empty for what is of none, such as a gate or the head. None for one part.
        layer_scores: sensitivity of each layer by its module name, for methods that looked at
            gradients before they were built.
        allocator: called after training, who decided which ranks to keep (`Dynamics.says`); None
            for a method that prunes none.
        matched_rank: which of the method's ranks the cell's rank is; None without rank.
        active_parameters: trainable parameters less those of pruned ranks.
        fault: why the trained model isn't what its name says; None if it is.
        beyond: what the model does that PEFT's own loading of what `save` wrote doesn't; empty if
            that gives the model, or if `save` writes no adapter of PEFT's.
    """

    model: nn.Module
    save: Callable[[Path], None]
    load: Callable[[nn.Module, Path], nn.Module]
    merge: Callable[[nn.Module], tuple[nn.Module, str]] | None
    merge_reason: str = ""
    extra_loss: Callable[[], torch.Tensor | None] = field(default=_no_loss)
    before_step: Callable[[], None] = field(default=_no_change)
    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    after_step: Callable[[int], None] = field(default=_no_step)
    rate_of: Callable[[str], float] = field(default=_same_rate)
    stage: Stage | None = None
    ranks: Callable[[], dict[str, int]] = field(default=dict)
    importance: Callable[[], dict[str, float]] = field(default=dict)
    scored: Callable[[float | None], None] = field(default=_unmoved)
    new_base: bool = False
    gates: Callable[[], dict[str, float]] = field(default=dict)
    importance_variation: Callable[[], dict[str, float | None]] = field(default=dict)
    part_of: Callable[[str], str] | None = None
    layer_scores: dict[str, float] = field(default_factory=dict)
    allocator: Callable[[], str | None] = field(default=lambda: None)
    matched_rank: str | None = None
    active_parameters: Callable[[], int] | None = None
    fault: Callable[[], str | None] = field(default=lambda: None)
    beyond: str = ""


Method = Callable[[nn.Module, Setting], Prepared]


# Method -> (module of this package, function). By name, so that a worker loads one alone.
_HOMES = {
    "full": ("reference", "full"),
    "head": ("reference", "head"),
    "lora": ("lora", "lora"),
    "lora-by-rows": ("lora", "lora_by_rows"),
    "growing-lora": ("growing_lora", "growing_lora"),
    "rslora": ("lora_variants", "rslora"),
    "dora": ("lora_variants", "dora"),
    "pissa": ("lora_variants", "pissa"),
    "olora": ("lora_variants", "olora"),
    "lora-plus": ("lora_variants", "lora_plus"),
    "loftq": ("lora_variants", "loftq"),
    "eva": ("lora_data", "eva"),
    "corda": ("lora_data", "corda"),
    "lora-ga": ("lora_data", "lora_ga"),
    "kasa": ("lora_variants", "kasa"),
    "mora": ("mora", "mora"),
    "mica": ("lora_starts", "mica"),
    "milora": ("lora_starts", "milora"),
    "init-b": ("lora_starts", "init_b"),
    "init-ab": ("lora_starts", "init_ab"),
    "lora-fa": ("lora_gradients", "lora_fa"),
    "riemannian-lora": ("lora_gradients", "riemannian_lora"),
    "velora": ("lora_gradients", "velora"),
    "loft": ("loft", "loft"),
    "lily": ("lily", "lily"),
    "hira": ("any_peft", "any_peft"),
    "adalora": ("adalora", "adalora"),
    "two-stage": ("two_stage", "two_stage"),
    "sensitive-layers": ("sensitivity", "sensitive_layers"),
    "sensitive-ranks": ("sensitivity", "sensitive_ranks"),
    "hybrid": ("hybrid", "hybrid"),
    "bitfit": ("bitfit", "bitfit"),
    "bitfit-lora": ("bitfit", "bitfit_lora"),
    "bitfit-distilled": ("bitfit_distilled", "bitfit_distilled"),
    "ia3": ("ia3", "ia3"),
    "adapter": ("adapter", "adapter"),
    "adapter-lora": ("adapter", "adapter_lora"),
    "prefix-tuning": ("prompts", "prefix_tuning"),
    "p-tuning-v2": ("prompts", "p_tuning_v2"),
    "prompt-tuning": ("prompts", "prompt_tuning"),
    "p-tuning": ("prompts", "p_tuning"),
    "diff-pruning": ("diff_pruning", "diff_pruning"),
    "diff-pruning-adapter": ("diff_pruning_adapter", "diff_pruning_adapter"),
    "unipelt": ("unipelt", "unipelt"),
    "lora-prefix": ("lora_prefix", "lora_prefix"),
    "adapter-ia3": ("adapter_ia3", "adapter_ia3"),
}


def _method(key: str) -> Method:
    """The function of a method."""
    if code := known_method(key).code:
        of_plugin: Method = named(code)
        return of_plugin
    home, name = ("any_peft", "any_peft") if key.startswith(PREFIX) else _HOMES[key]
    found: Method = getattr(import_module(f"peftmark.lab.methods.{home}"), name)
    return found


_STRAIGHT = frozenset(
    {"pissa", "olora", "loftq", "eva", "corda", "lora-ga", "kasa", "mica", "milora"}
)
"""Methods that decompose weights, or what goes into them, as `nn.Linear` holds them."""


def prepare(model: nn.Module, setting: Setting) -> Prepared:
    """Apply the job's method.

    Raises:
        Unsupported: if the method can't sit on this base.
    """
    job = setting.job
    why = known_method(job.method).not_causal if setting.declared else ""
    if job.causal is not None and why:
        raise Unsupported(f"{job.model} is a causal language model, {why}")
    if setting.parts.turned and job.method in _STRAIGHT:
        raise Unsupported(
            f"{job.method} reads the weights of linear layers as (out, in), and {job.model} holds "
            "them as (in, out) (Conv1D); use lora, rslora, dora or lora-plus"
        )
    return _method(setting.job.method)(model, setting)


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Named parameters that train, in a fixed order."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]
