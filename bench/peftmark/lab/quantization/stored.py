"""Bases whose files are quantised already: loaded in the form that they are in.

Such a checkpoint is one of the user's own (`peftmark.sources.stored_form`). Its numbers are those
that a cell of the same quantization would have made; how a layer computes with them is the job's
affair, as for any other base.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from peft.utils.integrations import dequantize_module_weight
from safetensors import safe_open
from torch import nn
from transformers.quantizers.quantizers_utils import should_convert_module

from peftmark.lab.errors import Unsupported
from peftmark.lab.quantization.table import backend_of, is_quantised
from peftmark.record.job import Job
from peftmark.sources.model_folder import CONFIG
from peftmark.sources.stored_form import QUANTISED, stored_form


def is_stored(job: Job) -> bool:
    """Whether the files of a job's model are quantised already."""
    return job.own_model is not None and bool(job.own_model.stored_as)


def left_whole(config: Any, prefix: str) -> list[str] | None:
    """Names, or patterns of them, of modules that such a checkpoint left as they were; None for a
    checkpoint of whole weights.

    Args:
        config: the model's configuration.
        prefix: what stands before a base's names where a head sits on it.
    """
    settings = getattr(config, QUANTISED, None)
    form = stored_form({QUANTISED: settings}, Path(CONFIG)) if settings else None
    if form is None:
        return None
    return [*form.whole, *(f"{prefix}.{name}" for name in form.whole)]


def stays_whole(name: str, whole: Sequence[str]) -> bool:
    """Whether transformers leaves a layer as it is by such names."""
    return not should_convert_module(name, list(whole))


def compute_as(config: Any, folder: Path, job: Job, prefix: str, head: Sequence[str]) -> None:
    """Have layers of a checkpoint compute as the job says, whatever they computed in before.

    Args:
        config: its configuration, which is changed.
        head: linear layers outside the pretrained base; those that aren't packed stay whole.
    """
    packed = _packed_in(folder)
    fresh = [n for n in head if not any(f".{n}".endswith(f".{one}") for one in packed)]
    whole = [*(left_whole(config, prefix) or ()), *fresh]
    setattr(config, QUANTISED, backend_of(job.quantization).config(job, whole).to_dict())


def unpack(model: nn.Module, names: Iterable[str]) -> None:
    """Put plain layers in the place of packed ones, as those outside the pretrained base, which
    train or are kept whole in every other cell. Layers that aren't packed stay."""
    for name in names:
        layer: Any = model.get_submodule(name)
        if not any(map(is_quantised, layer.parameters(recurse=False))):
            continue
        bias = layer.bias is not None
        plain = nn.Linear(layer.in_features, layer.out_features, bias, layer.weight.device)
        plain.weight.data = dequantize_module_weight(layer).detach().float()
        if bias:
            plain.bias.data = layer.bias.detach().float()
        model.set_submodule(name, plain)


def unpack_all(model: Any) -> Any:
    """The same model in fp32, every packed layer a plain one."""
    unpack(model, [name for name, _ in model.named_modules() if name])
    delattr(model.config, QUANTISED)
    # Or saving would turn the numbers back into those of the files.
    model.is_quantized, model.hf_quantizer, model._weight_conversions = False, None, None
    return model.float()


def refuse_whole(method: str) -> NoReturn:
    """
    Raises:
        Unsupported: a method asks for whole weights, and the model's files hold none.
    """
    raise Unsupported(
        f"{method} starts from weights before they were quantised, and the model's files hold "
        "quantised ones alone; use the model that they were made of"
    )


def _packed_in(folder: Path) -> set[str]:
    """Names of the layers whose weights are packed, in a folder's files."""
    found: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                for mark in (".weight.absmax", ".SCB"):
                    if name.endswith(mark):
                        found.add(name.removesuffix(mark))
    return found
