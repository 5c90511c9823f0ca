"""Where a kept adapter's model looks: its attention by layer and head, before and after training.

The maps are those of transformers' eager attention, the only one that gives them, in fp32. The
trained model's logits are held against those under the attention that it was trained with, so that
a method with an attention of its own is refused and not measured without it.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from peftmark.catalog.task import SPOKEN
from peftmark.lab.data.batches import Batch
from peftmark.lab.data.causal_rows import token_positions
from peftmark.lab.errors import Unsupported
from peftmark.lab.export.attention_maps import (
    ByHead,
    Sums,
    figures_of,
    split,
    variation,
    virtual_places,
)
from peftmark.lab.export.check import ALLOWED, logits_of, probe_rows
from peftmark.lab.export.opened import Opened
from peftmark.lab.export.task_rows import task_rows
from peftmark.lab.number_types import raised
from peftmark.lab.quantization.table import backend_of
from peftmark.lab.quantized_cache import load_base
from peftmark.sources.assets import Places

ROWS = 4
"""Rows of a forward pass: the maps of all layers are there at once."""


@dataclass(frozen=True)
class Looks:
    """Where one model looks: means over every token of the rows, padding left out.

    Attributes:
        entropy: of a token's attention over all that it sees, nats.
        first: share on the row's first token.
        itself: share on the token itself.
        distance: mean distance of what is attended to, tokens; virtual ones have none, and are
            left out.
        virtual: share on virtual tokens.
    """

    entropy: ByHead
    first: ByHead
    itself: ByHead
    distance: ByHead
    virtual: ByHead


@dataclass(frozen=True)
class Attention:
    """Attention before and after training.

    Attributes:
        rows: evaluation rows that were read.
        tokens: of them, without padding and virtual ones.
        first: the token that every row begins with; empty where rows begin differently.
        virtual_tokens: that the method puts before the text, or behind its first token.
        before, after: of the base, and of the trained model.
        moved: total variation between a token's attention before and after, mean: the share that
            went elsewhere.
        eager_difference: largest difference of a logit that eager attention makes.
    """

    rows: int
    tokens: int
    first: str
    virtual_tokens: int
    before: Looks
    after: Looks
    moved: ByHead
    eager_difference: float


def attention(opened: Opened, places: Places, rows: int) -> Attention:
    """Attention of the base and of the trained model on the first evaluation rows.

    Args:
        rows: how many at most.

    Raises:
        Unsupported: the model gives no maps, or not of all that it attends to.
        AssetError: the task's rows aren't to be had.
    """
    trained: Any = opened.load()
    virtual = virtual_tokens(trained)
    apart = eager_of(opened, trained)
    base: Any = load_base(opened.files, opened.job, opened.task, opened.parts, opened.cache).model
    base.to(opened.device).eval().set_attn_implementation("eager")
    batches = task_rows(opened, places, rows)["evaluation"].batches
    exact = backend_of(opened.job.quantization).exact
    before, after, read = Sums(), Sums(), _Read()
    with ExitStack() as stack, torch.inference_mode():
        for model in (base, trained):
            stack.enter_context(exact(model))
            stack.enter_context(raised(model))
        for batch in (part.to(opened.device) for one in batches for part in one.parts(ROWS)):
            mask = read.add(batch)
            both = (maps_of(model, batch, opened) for model in (base, trained))
            for layer, (old, new) in enumerate(zip(*both, strict=True)):
                tokens, behind = mask.shape[1], opened.job.causal is None
                p = split(old, mask, virtual_places(old, tokens, 0, behind))
                q = split(new, mask, virtual_places(new, tokens, virtual, behind))
                before.add(layer, figures_of(p, mask))
                after.add(layer, {**figures_of(q, mask), "moved": variation(p, q, mask)})
    return Attention(
        rows=read.rows,
        tokens=read.tokens,
        first=read.first(opened.tokenizer),
        virtual_tokens=virtual,
        before=_looks(before),
        after=_looks(after),
        moved=after.mean("moved"),
        eager_difference=apart,
    )


def _looks(sums: Sums) -> Looks:
    names = ("entropy", "first", "itself", "virtual")
    return Looks(
        **{name: sums.mean(name) for name in names}, distance=sums.mean("distance", "text")
    )


class _Read:
    """What was read so far."""

    def __init__(self) -> None:
        self.rows = self.tokens = 0
        self._firsts: set[int] = set()

    def add(self, batch: Batch) -> torch.Tensor:
        """Count a batch; returns which of its tokens are real, (rows, tokens), on the CPU."""
        ids = batch.inputs["input_ids"].cpu()
        given = batch.inputs.get("attention_mask")
        mask = torch.ones_like(ids).bool() if given is None else given.bool().cpu()
        self.rows += len(ids)
        self.tokens += int(mask.sum())
        self._firsts |= set(ids[torch.arange(len(ids)), mask.int().argmax(1)].tolist())
        return mask

    def first(self, tokenizer: Any) -> str:
        """The token that all rows begin with; empty if they begin differently."""
        if len(self._firsts) != 1:
            return ""
        return str(tokenizer.convert_ids_to_tokens(next(iter(self._firsts))))


def virtual_tokens(model: Any) -> int:
    """Virtual tokens that a model attends to beside its text.

    Raises:
        Unsupported: a type of PEFT's whose prompt its layers' maps don't show.
    """
    if not isinstance(model, PeftModel):
        return 0
    config: Any = model.active_peft_config
    if config.is_adaption_prompt:
        raise Unsupported("its prompt has an attention of its own, which no map shows")
    return int(config.num_virtual_tokens) if config.is_prompt_learning else 0


def eager_of(opened: Opened, model: nn.Module) -> float:
    """Give the trained model eager attention; returns the largest change of a logit.

    Raises:
        Unsupported: it is another model then.
    """
    padded = probe_rows(opened)
    # Without padding a model leaves its mask out, and other code runs.
    both = (padded, {name: value[1::2] for name, value in padded.items()})
    with backend_of(opened.job.quantization).exact(model), raised(model):
        wanted = torch.cat([logits_of(model, rows, opened.device) for rows in both])
        _plain(model).set_attn_implementation("eager")
        found = torch.cat([logits_of(model, rows, opened.device) for rows in both])
    apart = float((found - wanted).abs().max())
    if not apart <= ALLOWED * max(1.0, float(wanted.abs().max())):
        raise Unsupported(
            "maps are given by eager attention alone, with which it is another model: a logit "
            f"differs by {apart:.3g}"
        )
    return apart


def _plain(model: Any) -> Any:
    """transformers' model inside PEFT's."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def maps_of(model: Any, batch: Batch, opened: Opened) -> list[torch.Tensor]:
    """The maps of every layer, each (rows, heads, queries, keys), fp64 on the CPU.

    Raises:
        Unsupported: the model doesn't give one for each of its layers.
    """
    more: dict[str, Any] = {}
    if opened.task.kind in SPOKEN:
        mask = batch.inputs["attention_mask"]
        # Rows may be padded on the left, and of the logits none is looked at.
        more = {"position_ids": token_positions(model, mask), "logits_to_keep": 1}
    found = model(**batch.inputs, **more, output_attentions=True).attentions
    layers = _plain(model).config.get_text_config().num_hidden_layers
    there = [one for one in found or () if one is not None]
    if len(there) != layers:
        raise Unsupported(
            f"{type(_plain(model)).__name__} gives {len(there)} attention maps for its {layers} "
            "layers"
        )
    return [one.double().cpu() for one in there]
