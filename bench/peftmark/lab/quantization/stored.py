"""Bases whose files are quantised already: loaded in the form that they are in.

Such a checkpoint is one of the user's own (`peftmark.sources.stored_form`). Its numbers are those
that a cell of the same quantization would have made; how a layer computes with them is the job's
affair, as for any other base.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from peft.utils.integrations import dequantize_module_weight
from safetensors import safe_open
from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.quantizers_utils import should_convert_module

from peftmark.catalog.quantizations import QUANTIZATIONS
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


def packed_of(head: Sequence[str], folder: Path) -> list[str]:
    """Those of some layers whose weights are packed in a folder's files."""
    packed = _packed_in(folder)
    return [name for name in head if any(f".{name}".endswith(f".{one}") for one in packed)]


def compute_as(config: Any, job: Job, prefix: str, whole: Iterable[str]) -> dict[str, Any]:
    """Have layers of a checkpoint compute as the job says, whatever they computed in before.

    Args:
        config: its configuration, which is changed.
        whole: linear layers outside the pretrained base that aren't packed in the files.

    Returns:
        What its configuration says of the form now.
    """
    left = [*(left_whole(config, prefix) or ()), *whole]
    found: dict[str, Any] = backend_of(job.quantization).config(job, left).to_dict()
    setattr(config, QUANTISED, found)
    return found


def as_stored(job: Job) -> Job:
    """A job on whole weights as one on those that the files hold."""
    own = job.own_model
    assert own is not None
    double = own.stored_double if QUANTIZATIONS[own.stored_as].double else None
    recipe = replace(job.recipe, double_quantization=double)
    return replace(job, quantization=own.stored_as, recipe=recipe)


def unpack(model: nn.Module, names: Iterable[str]) -> None:
    """Put plain layers in the place of packed ones, as those outside the pretrained base, which
    train or are kept whole in every other cell. Layers that aren't packed stay."""
    for name in names:
        layer: Any = model.get_submodule(name)
        if not any(map(is_quantised, layer.parameters(recurse=False))):
            continue
        weight = dequantize_module_weight(layer).detach().float()
        plain: Any
        if getattr(layer, "source_cls", None) is Conv1D:  # a linear layer with its weights turned
            turned: Any = Conv1D  # without annotations
            plain = turned(layer.out_features, layer.in_features)
            weight = weight.T.contiguous()
        else:
            plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        plain.weight.data = weight
        if layer.bias is not None:
            plain.bias.data = layer.bias.detach().float()
        model.set_submodule(name, plain)


def unpack_all(model: Any) -> Any:
    """The same model in fp32, every packed layer a plain one."""
    unpack(model, [name for name, _ in model.named_modules() if name])
    delattr(model.config, QUANTISED)
    model.is_quantized, model.hf_quantizer = False, None
    saved_as_it_is(model)
    return model.float()


def saved_as_it_is(model: Any) -> None:
    """Have a loaded model written with the numbers that it has: transformers would turn them back
    into those of the files, which it can't of packed ones."""
    model._weight_conversions = None


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
