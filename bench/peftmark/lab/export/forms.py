"""The forms in which a trained model is written for plain PEFT or plain transformers.

| form | what is written | of |
|---|---|---|
| adapter | PEFT's adapter, the head in it | what PEFT saved and loads again |
| lora | one LoRA adapter with a rank for each module | a mix of tuners, which PEFT can't save |
| model | the whole model, in fp32 | methods that change the base's own weights, and merged ones |

A quantised base is unpacked to fp32 before an adapter is merged into it: the sum of both is exact
but for rounding in fp32, where a merge into 4-bit weights would round them again.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import nn

from peftmark.lab.errors import Unsupported
from peftmark.lab.export.opened import Opened
from peftmark.lab.methods.bitfit import BIAS
from peftmark.lab.methods.reference import FILE
from peftmark.lab.models import load_model, trained_head
from peftmark.lab.quantization.stored import is_stored, packed_of, saved_as_it_is
from peftmark.lab.quantization.table import backend_of
from peftmark.record.job import Job
from peftmark.record.kept import NOTES

Form = Literal["adapter", "lora", "model"]
ADAPTER = "adapter_model.safetensors"
ALMOST_ZERO = 1e-5
"""What PEFT adds to an AdaLoRA module's divisor."""


def form_of(opened: Opened, merged: bool, with_base: bool = False) -> Form:
    """The form that an export has.

    Args:
        merged: whether weights without an adapter are asked for.
        with_base: whether the base is written beside an adapter.

    Raises:
        Unsupported: neither PEFT nor transformers could give the model.
    """
    if not merged and not with_base and is_stored(opened.job):
        trained = trained_head(opened.parts, opened.job.recipe.train_pooler)
        packed = packed_of(opened.parts.head_linears, opened.files)
        if lost := [n for n in packed if any(n == t or n.startswith(f"{t}.") for t in trained)]:
            raise Unsupported(
                f"{', '.join(lost)} trained as a plain layer, and the model's files have it "
                "packed, so that no adapter goes onto them; export with --with-base, or --merged"
            )
    if opened.is_adapter and not merged:
        return "adapter"
    if opened.kept.beyond:
        raise Unsupported(f"PEFT's own loading gives another model: {opened.kept.beyond}")
    return "lora" if opened.job.method == "hybrid" and not merged else "model"


def write_adapter(opened: Opened, target: Path) -> None:
    """Copy PEFT's adapter."""
    for file in sorted(opened.folder.iterdir()):
        if file.is_file() and file.name not in (NOTES, "README.md"):
            shutil.copyfile(file, target / file.name)


# --- one LoRA -------------------------------------------------------------------------------------


def write_lora(opened: Opened, target: Path) -> None:
    """Write LoRA and AdaLoRA modules as one LoRA adapter."""
    job, tuner = opened.job, opened.trained
    plain: Any = tuner.model
    tensors: dict[str, torch.Tensor] = {}
    ranks, alphas = {}, {}
    for name, module in plain.named_modules():
        if not len(getattr(module, "lora_A", ())):
            continue
        down, up, scale = _factors(module)
        if not len(down):  # pruned to nothing
            continue
        ranks[name], alphas[name] = len(down), scale * len(down)
        tensors[f"{_of_peft(name)}.lora_A.weight"] = down
        tensors[f"{_of_peft(name)}.lora_B.weight"] = up
    head = trained_head(opened.parts, job.recipe.train_pooler)
    for top in head:
        for key, value in plain.get_submodule(top).state_dict().items():
            tensors[f"{_of_peft(top)}.{key}"] = value
    most = max(ranks.values())
    make: Any = LoraConfig  # its alpha is annotated as a whole number
    config = make(
        r=most,
        lora_alpha=alphas[max(ranks, key=lambda name: ranks[name])],
        target_modules=list(ranks),
        rank_pattern={_exactly(name): rank for name, rank in ranks.items()},
        alpha_pattern={_exactly(name): alpha for name, alpha in alphas.items()},
        modules_to_save=head or None,
        fan_in_fan_out=opened.parts.turned and job.quantization == "none",
        inference_mode=True,
    )
    hub = job.model_facts.hub
    config.base_model_name_or_path = hub.repository if hub else None
    config.revision = hub.revision if hub else None
    config.save_pretrained(str(target))
    ready = {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}
    save_file(ready, target / ADAPTER, {"format": "pt"})


def _of_peft(name: str) -> str:
    return f"base_model.model.{name}"


def _exactly(name: str) -> str:
    return f"^{re.escape(name)}$"


def _factors(module: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A module's update as scale times a product: A of shape (r, in), B of shape (out, r)."""
    [key] = module.lora_A
    scale = float(module.scaling[key])
    if not hasattr(module, "lora_E"):
        return module.lora_A[key].weight, module.lora_B[key].weight, scale
    values = module.lora_E[key]
    alive = values[:, 0] != 0
    down = (module.lora_A[key] * values)[alive]
    divisor = float(module.ranknum[key]) + ALMOST_ZERO
    return down, module.lora_B[key][:, alive], scale / divisor


# --- the whole model ------------------------------------------------------------------------------


def plain_model(opened: Opened) -> nn.Module:
    """The trained model as transformers' own class, in fp32, the adapter merged.

    Raises:
        Unsupported: no weights of that class give the model.
    """
    base = float_base(opened)
    keys = set(base.state_dict())
    job = replace(opened.job, quantization="none")
    prepared = opened.on_base(job)
    with tempfile.TemporaryDirectory() as scratch:
        folder = _with_plain_biases(opened.folder, Path(scratch))
        loaded = opened.put(base) if opened.is_adapter else prepared.load(base, folder)
    if prepared.merge is not None:
        loaded, _ = prepared.merge(loaded)
    if set(loaded.state_dict()) != keys:
        raise Unsupported(
            f"no weights of {type(base).__name__} give the model: {prepared.merge_reason}"
        )
    return loaded.float().eval()


def float_base(opened: Opened) -> Any:
    """The base in fp32, a quantised one unpacked.

    Raises:
        Unsupported: what the quantised layers compute is no product with any weights.
    """
    job = opened.job

    def loaded(one: Job) -> Any:
        return load_model(opened.files, one, opened.task, opened.parts)

    if job.quantization == "none":
        return loaded(job).float()
    unpacked = backend_of(job.quantization).unpacked
    if unpacked is None:
        raise Unsupported(
            f"layers of quantization {job.quantization} round what goes into them, so that no fp32 "
            "weights give their results; export the adapter instead"
        )
    base = loaded(replace(job, quantization="none")).float()
    if is_stored(job):
        return base
    quantised = loaded(job)
    with torch.no_grad():
        for name in opened.parts.encoder_linears:
            weight: Any = base.get_submodule(name).weight
            found = unpacked(quantised.get_submodule(name))
            weight.copy_(found.T if opened.parts.turned else found)
    return base


def _with_plain_biases(folder: Path, scratch: Path) -> Path:
    """The saved files, biases that were taken out of quantised layers under their plain names."""
    file = folder / FILE
    if not file.is_file():
        return folder
    tensors = load_file(file)
    if not any(name.endswith(BIAS) for name in tensors):
        return folder
    named = {re.sub(rf"{BIAS}$", "bias", name): value for name, value in tensors.items()}
    save_file(named, scratch / FILE)
    return scratch


def write_model(opened: Opened, target: Path) -> None:
    """Write the whole model, with its classes and its tokenizer.

    Raises:
        Unsupported: see `plain_model`.
    """
    model: Any = plain_model(opened)
    name_classes(model, opened.task.labels)
    model.save_pretrained(target)
    opened.tokenizer.save_pretrained(target)


def name_classes(model: Any, labels: tuple[str, ...]) -> None:
    """Have a classifier's configuration name its classes."""
    if model.config.num_labels == len(labels) > 1:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {name: at for at, name in enumerate(labels)}


def write_base(opened: Opened, target: Path) -> None:
    """Write the base that the adapter was trained on, as its class holds it: with a pooler that the
    published files lack, for one. It is not quantised yet, unless its files are."""
    job: Job = opened.job
    if not is_stored(job):
        job = replace(job, quantization="none")
    base: Any = load_model(opened.files, job, opened.task, opened.parts)
    if is_stored(job):
        # What it had packed outside the pretrained base is whole now.
        base.config.quantization_config.llm_int8_skip_modules += opened.parts.head_linears
        saved_as_it_is(base)
    base.save_pretrained(target)
    opened.tokenizer.save_pretrained(target)
