"""Models without values: an architecture on torch's meta device, where tensors have shapes alone.

Building one takes a fraction of a second and no memory, whatever its size, so the parameters of
the real method on the real architecture can be counted.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
)

from peftmark.catalog.lora_methods import STEP_OF
from peftmark.catalog.task import SPOKEN, TaskKind
from peftmark.lab.last_token import config_padding, read_last_token
from peftmark.lab.methods import Setting, prepare, trainable
from peftmark.lab.models import (
    Anatomy,
    Unsupported,
    anatomy_of,
    check_class,
    maker_of,
    trained_head,
)
from peftmark.lab.number_types import TYPES
from peftmark.record.job import Job

CHOOSES_BY_DATA = ("sensitive-layers", "sensitive-ranks")
"""Methods whose shapes data decide."""

_COUNTED_AS = STEP_OF | dict.fromkeys(CHOOSES_BY_DATA, "lora") | {"two-stage": "adalora"}


def config_of(source: Path | Mapping[str, Any], classes: int) -> Any:
    """A model's configuration, from its folder or from plain data, for a number of classes."""
    if isinstance(source, Path):
        return AutoConfig.from_pretrained(source, num_labels=classes, local_files_only=True)
    return AutoConfig.for_model(**source, num_labels=classes)


def blank(
    config: Any, kind: TaskKind = "classification", weights: str = "fp32", attention: str = "sdpa"
) -> nn.Module:
    """A model for a kind of task without values, on the meta device.

    Raises:
        Unsupported: if transformers has no such model.
    """
    check_class(config, kind)
    # "sdpa" is what transformers takes by itself, where an architecture has it: as loading does.
    asked = None if attention == "sdpa" else attention
    with torch.device("meta"):
        model: nn.Module = maker_of(kind).from_config(
            config, dtype=TYPES[weights], attn_implementation=asked
        )
    if kind not in SPOKEN:
        # Which token pads shapes nothing, and a bare config may name none.
        read_last_token(model, config_padding(config) or 0)
    return model


@dataclass(frozen=True)
class _Recorder(Setting):
    """A setting that notes which modules a method asks the sizes of."""

    asked: list[str] = field(default_factory=list)

    def sized(self, names: Sequence[str]) -> dict[str, int]:
        self.asked[:] = names
        return super().sized(names)


@dataclass(frozen=True)
class Counter:
    """Counts a job's adapter parameters for any size.

    Args:
        job: its quantization doesn't matter.
        config: of the model, with the task's number of labels.
    """

    job: Job
    config: Any

    def _blank(self) -> nn.Module:
        return blank(self.config, "classification" if self.job.causal is None else "language")

    def parts(self) -> Anatomy:
        """Where things are in the architecture."""
        return anatomy_of(self._blank())

    def split(self) -> tuple[int, int]:
        """Parameters of the base and of the head (with the pooler, if it trains)."""
        model = self._blank()
        parts = anatomy_of(model)
        names = trained_head(parts, self.job.recipe.train_pooler)
        head = sum(p.numel() for name in names for p in model.get_submodule(name).parameters())
        return sum(p.numel() for p in model.parameters()) - head, head

    def tensors(
        self, size: int | None, sizes: dict[str, int] | None = None
    ) -> tuple[dict[str, int], list[str]]:
        """Elements of every trainable tensor, and the modules whose sizes the method asked for.

        Raises:
            Unsupported: if the method can't sit on this architecture.
        """
        model = self._blank()
        recipe = self.job.recipe
        schedule = recipe.adalora
        if schedule is not None and size is not None:  # AdaLoRA as it ends
            schedule = replace(schedule, init_rank=size)
        job = replace(
            self.job,
            method=_COUNTED_AS.get(self.job.method, self.job.method),
            quantization="none",
            size=size,
            recipe=replace(recipe, adalora=schedule),
        )
        setting = _Recorder(
            job=job,
            parts=anatomy_of(model),
            device=torch.device("meta"),
            preview=_nothing,
            loss=_nothing,
            fresh_base=self._blank,
            plain_base=self._blank,
            size=size,
            sizes=sizes,
        )
        with torch.device("meta"), warnings.catch_warnings():
            # PEFT asks transformers for a property under its old name.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            prepared = prepare(model, setting)
        # PEFT's name for the layer inside: a bias has it or not as its module gets an adapter.
        bare = ((name.replace(".base_layer", ""), p) for name, p in trainable(prepared.model))
        return {name: p.numel() for name, p in bare}, setting.asked

    def adapter(self, size: int | None, sizes: dict[str, int] | None = None) -> int:
        """Trainable parameters less those of the head."""
        return sum(self.tensors(size, sizes)[0].values()) - self.split()[1]


def _nothing(*_: Any) -> Any:
    raise Unsupported("only counted: there is no data")
