"""Any tuner of PEFT by its type: `peft:<type>`.

The type's own config class gets the defaults of `peftmark.catalog.peft_types`, what the suite sets
as options, the cell's size and the modules to sit on. Nothing is taken on trust: what was built is
looked at and run once before it may train, since a tuner that does nothing here (a 4-bit layer is
an `nn.Linear` to PEFT) would train its head and look like a result.

What a type wants from its caller is done: AdaLoRA's total of steps, penalty and allocation,
AdaMSS's allocation, the task of Poly and of multitask prompt tuning (there is one here). Virtual
tokens among the input embeddings stand behind [CLS], and all of them before a text that is read
from left to right, as in `peftmark.lab.methods.prompts`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import nn

from peftmark.catalog.methods import PREFIX
from peftmark.catalog.peft_types import PeftType, peft_type
from peftmark.catalog.quantizations import QUANTIZATIONS, of_family
from peftmark.lab.measure.parameter_counts import head_parameters
from peftmark.lab.methods import Prepared, Setting, adalora, prompts, rank_allocation, trainable
from peftmark.lab.methods.lora import load_adapter, merged_into, saver, wrap
from peftmark.lab.methods.peft_options import PREFIXES, config_of, peft_says, quiet
from peftmark.lab.models import Unsupported, trained_head
from peftmark.lab.quantization.table import backend_of, is_quantised
from peftmark.record.job import Job

PLAIN = "none"
"""Weights as loaded."""
HEAD_FILE = "head.safetensors"
NUDGE = 0.1
"""Standard deviation of what `_works` adds to the adapter."""
NUDGES = 5
"""How often it tries: prompts near zero move the loss by so little that a draw now and then rounds
to nothing."""


def any_peft(model: nn.Module, setting: Setting) -> Prepared:
    """Put the type on a base; head and pooler train beside it.

    Raises:
        Unsupported: if PEFT, this base or the options rule it out.
    """
    job = setting.job
    kind = peft_type(job.method.removeprefix(PREFIX))
    assert kind is not None
    _refuse(kind, model, setting)
    head = trained_head(setting.parts, job.recipe.train_pooler)
    head_size = sum(p.numel() for name in head for p in model.get_submodule(name).parameters())
    quantised = _quantised(model)
    config = config_of(kind, model, setting, head)
    if kind.where == "input":
        prompts.has_room(model, replace(setting, size=config.num_virtual_tokens))
    with quiet(), peft_says(kind, f"can't be put on {job.model}"):
        wrapped = wrap(model, config)
    if kind.key == "cpt" and not job.recipe.options.get("cpt_token_ids"):
        raise Unsupported(
            f"{kind.title} starts from the tokens of worked examples (cpt_token_ids), and there "
            "are none: it would be prompt tuning"
        )
    own_head = not hasattr(config, "modules_to_save")
    if own_head:
        for name in head:
            wrapped.get_base_model().get_submodule(name).requires_grad_(True)
    wrapped.to(setting.device)
    _finish(kind, wrapped, job)
    if kind.key == "adalora":
        adalora.freeze_divisors(wrapped)
    if head_parameters(wrapped, head) != head_size:
        raise Unsupported(f"{kind.title} leaves parts of the classification head frozen")
    if _quantised(wrapped) != quantised:
        raise Unsupported(f"{kind.title} replaces quantised weights; use quantization: none")
    _works(kind, wrapped, head, setting)
    return _prepared(kind, wrapped, config, head if own_head else [], setting)


def _refuse(kind: PeftType, model: nn.Module, setting: Setting) -> None:
    """
    Raises:
        Unsupported: for what is known not to work before anything is built.
    """
    job = setting.job
    if kind.refused and setting.declared:
        raise Unsupported(f"{kind.title} can't train a sequence classifier: {kind.refused}")
    backend = backend_of(job.quantization)
    if backend.library and setting.declared and not backend.takes(kind):
        raise Unsupported(
            f"PEFT has no code for {kind.title} on {backend.library}'s layers, and would take "
            "their weights for plain ones; use quantization: none"
        )
    if kind.key in PREFIXES:
        prompts.takes_prefix(model, setting)


def _finish(kind: PeftType, wrapped: Any, job: Job) -> None:
    """What PEFT leaves to the caller of a forward pass, in training and after loading."""
    if kind.where == "input":
        prompts.place(wrapped, job, kind.key in PREFIXES)
    base = wrapped.get_base_model()
    own = kind.where == "input" and prompts.left_to_right(base, job)  # says the task itself
    if kind.key in ("poly", "multitask_prompt_tuning") and job.causal is None and not own:

        def add(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            ids = kwargs["input_ids"]
            return args, {**kwargs, "task_ids": ids.new_zeros(len(ids))}

        wrapped.register_forward_pre_hook(add, with_kwargs=True)


def _beyond(kind: PeftType, model: nn.Module, job: Job) -> str:
    """What `_finish` adds to PEFT's model, in words; empty if nothing."""
    if kind.where == "input":
        return prompts.beyond(model, job, kind.key in PREFIXES)
    return f"{kind.title} wants the number of a task with every batch" if kind.key == "poly" else ""


def _quantised(model: nn.Module) -> int:
    """How many quantised weights a model has."""
    return sum(is_quantised(p) for p in model.parameters())


def _works(kind: PeftType, wrapped: nn.Module, head: Sequence[str], setting: Setting) -> None:
    """Run the model as it is and with its adapter nudged: the loss must change.

    Raises:
        Unsupported: if nothing but the head trains, the forward pass fails, or the adapter has no
            part in it.
    """
    tops = tuple(f"{name}." for name in head)
    adapter = [
        p
        for name, p in trainable(wrapped)
        if not name.removeprefix("base_model.").removeprefix("model.").startswith(tops)
    ]
    if not adapter:
        raise Unsupported(f"{kind.title} trains nothing on {setting.job.model}")
    if any(p.is_meta for p in wrapped.parameters()):
        return  # only counted
    batch = setting.preview(1)[0]
    wrapped.eval()
    fails = f"fails in the forward pass of {setting.job.model}"
    with torch.no_grad(), quiet(), peft_says(kind, fails):
        plain = setting.loss(wrapped, batch)
        before = [p.clone() for p in adapter]
        moved = False
        for _ in range(NUDGES):
            for p in adapter:
                p.add_(NUDGE * torch.randn_like(p))
            nudged = setting.loss(wrapped, batch)
            moved = not setting.values or not torch.equal(plain, nudged)
            for p, old in zip(adapter, before, strict=True):
                p.copy_(old)
            if moved:
                break
    wrapped.train()
    if not moved:
        raise Unsupported(
            f"{kind.title} has no part in the forward pass of {setting.job.model} with "
            f"quantization {setting.job.quantization}"
        )


def _prepared(
    kind: PeftType, wrapped: Any, config: Any, own_head: Sequence[str], setting: Setting
) -> Prepared:
    """The model with its hooks.

    Args:
        own_head: modules of the head that the type's own file does not hold.
    """
    job, tuner = setting.job, wrapped.base_model
    save_adapter = saver(wrapped)

    def save(folder: Path) -> None:
        with quiet():
            save_adapter(folder)
        if own_head:
            plain = wrapped.get_base_model()
            tensors = {
                f"{name}.{key}": tensor.detach().cpu().contiguous()
                for name in own_head
                for key, tensor in plain.get_submodule(name).state_dict().items()
            }
            save_file(tensors, folder / HEAD_FILE)

    def load(base: nn.Module, folder: Path) -> nn.Module:
        if own_head:
            base.load_state_dict(load_file(folder / HEAD_FILE), strict=False)
        with quiet():
            loaded = load_adapter(base, folder)
        _finish(kind, loaded, job)
        return loaded

    obstacle = _obstacle(kind, job.quantization) or backend_of(job.quantization).unmergeable(config)

    def merge(model: nn.Module) -> tuple[nn.Module, str]:
        found: Any = model
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Merge .* module to")
            merged: nn.Module = found.merge_and_unload()
        for name, module in list(merged.named_modules()):  # LayerNorm tuning leaves them wrapped
            if isinstance(module, ModulesToSaveWrapper):
                merged.set_submodule(name, module.modules_to_save["default"])
        linear = kind.where not in ("norms", "embeddings")
        return merged, merged_into(job) if linear else QUANTIZATIONS["none"].merged

    prepared = Prepared(
        wrapped,
        save=save,
        load=load,
        merge=None if obstacle else merge,
        merge_reason=obstacle,
        beyond=_beyond(kind, wrapped.get_base_model(), job),
        matched_rank=kind.size if setting.size is not None else None,
    )
    if hasattr(tuner, "update_and_allocate"):
        prepared.after_step = tuner.update_and_allocate
    if kind.key == "adalora":
        _with_adalora(prepared, wrapped, config)
    if kind.key == "adamss" and config.use_asa:
        _with_adamss(prepared, wrapped, config)
    return prepared


def _obstacle(kind: PeftType, quantization: str) -> str:
    """Why a type can't be merged into a quantised base; empty if it can."""
    into = {"no": (), "float": (PLAIN,), "8-bit": (PLAIN, *of_family("bitsandbytes-8bit"))}
    if kind.merges == "any" or quantization in into[kind.merges]:
        return ""
    if kind.where == "input":
        return "virtual tokens are input to the model: there is no weight to merge them into"
    if kind.merges == "no":
        return f"PEFT can't merge {kind.title}: its update depends on the input or on other layers"
    return f"PEFT can't merge {kind.title} into quantised weights"


def _with_adalora(prepared: Prepared, wrapped: Any, config: Any) -> None:
    budget = config.target_r * len(adalora.ranks(wrapped))

    def fault() -> str | None:
        found = sum(adalora.ranks(wrapped).values())
        if found == budget:
            return None
        return f"AdaLoRA ended with an active rank of {found}, its budget is {budget}"

    penalty = rank_allocation.Penalty(wrapped, batched=False)
    prepared.extra_loss = lambda: config.orth_reg_weight * penalty()
    prepared.allocator = lambda: adalora.PEFT
    prepared.ranks = lambda: adalora.ranks(wrapped)
    prepared.active_parameters = lambda: adalora.active_parameters(wrapped)
    prepared.fault = fault


def _with_adamss(prepared: Prepared, wrapped: Any, config: Any) -> None:
    """Adaptive subspace allocation: pruned subspaces stop training."""

    def active() -> int:
        return sum(".adamss_A." in name for name, _ in trainable(wrapped))

    def fault() -> str | None:
        found, wanted = active(), config.asa_target_subspaces
        # PEFT keeps those above the score that is number `wanted`, which is one fewer.
        if found in (wanted - 1, wanted):
            return None
        return f"AdaMSS ended with {found} active subspaces, its target is {wanted}"

    prepared.active_parameters = lambda: sum(p.numel() for _, p in trainable(wrapped))
    prepared.fault = fault
