"""Soft prompts: virtual tokens that train before a frozen base, all four by PEFT.

Two kinds give every layer trained keys and values, to which the text attends:

- prefix tuning (Li and Liang 2021, arXiv 2101.00190): they come out of an MLP over one embedding a
  token, tanh between its two layers (section 4.3). The MLP is dropped when the prefix is saved.
- P-tuning v2 (Liu et al. 2021, arXiv 2110.07602): they are trained as they are.

Like a cache, they move the text's positions back by their number, as in P-tuning v2's code (which
puts dropout on them too; PEFT doesn't). Of encoders only those can have them that take
`past_key_values`: BERT's and RoBERTa's. P-tuning v2 may have them in the top or bottom layers alone
(`peftmark.lab.methods.some_layers`).

Two kinds put trained vectors among the input embeddings:

- prompt tuning (Lester et al. 2021, arXiv 2104.08691): as they are, from embeddings of words drawn
  from the vocabulary (section 3.2; there from its 5,000 commonest words).
- P-tuning (Liu et al. 2021, arXiv 2103.10385): through an encoder. PEFT's three-layer MLP with
  ReLU stands for the paper's LSTM and MLP; only what it puts out is saved.

PEFT puts these before the whole text, [CLS] included. A classifier that reads position 0 would then
read a virtual token. Lester et al. have no such position (T5); P-tuning puts its tokens behind
[CLS]; P-tuning v2's code, where it compares with prompt tuning on RoBERTa, cuts them off before it
pools. So [CLS] is moved back to the front here, where it keeps its pretrained position. The virtual
tokens follow it, and the text follows them. Of a text that is read from left to right they stand in
front (`peftmark.lab.methods.before_text`), also where a decoder classifies by a row's last token.

None starts as the base's own function: random tokens draw attention from the first step.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, PromptTuningInit
from torch import nn

from peftmark.catalog.methods import known_method
from peftmark.catalog.positions import positions_of
from peftmark.lab.last_token import reads_last_token
from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.before_text import BEFORE_TEXT, read_before_text
from peftmark.lab.methods.lora import load_adapter, saver, wrap
from peftmark.lab.methods.some_layers import SOME_LAYERS, chosen_layers, read_in_layers
from peftmark.lab.models import Unsupported, trained_head
from peftmark.record.job import Job

BEHIND_CLS = (
    "its virtual tokens were trained behind [CLS], and PEFT puts them before it, where a "
    "classifier would read one"
)
LAST_PLACE = (
    "PEFT gives the model embeddings in place of the tokens by which a decoder that classifies "
    "finds a row's last one: in a batch it then reads padding"
)


def prefix_tuning(model: nn.Module, setting: Setting) -> Prepared:
    """Keys and values from an MLP of width `hidden` (0: the model's)."""
    takes_prefix(model, setting)
    config = PrefixTuningConfig(
        prefix_projection=True,
        encoder_hidden_size=_hidden(model, setting),
        **_common(model, setting) | of_keys(model),
    )
    return _prepared(model, setting, config)


def p_tuning_v2(model: nn.Module, setting: Setting) -> Prepared:
    """Keys and values as they are, in all layers or those that `layers` and `depth` say.

    Raises:
        Unsupported: see `chosen_layers` and `layers_of`.
    """
    takes_prefix(model, setting)
    option = partial(known_method("p-tuning-v2").option, setting.job.recipe.options)
    common = _common(model, setting) | of_keys(model)
    layers = common["num_layers"]
    chosen = chosen_layers(option("layers"), option("depth"), layers)
    config = PrefixTuningConfig(**common | {"num_layers": len(chosen)})
    return _prepared(model, setting, config, chosen if len(chosen) < layers else None)


def prompt_tuning(model: nn.Module, setting: Setting) -> Prepared:
    """Input embeddings as they are."""
    config = PromptTuningConfig(
        prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB, **_embedded(model, setting)
    )
    return _prepared(model, setting, config)


def p_tuning(model: nn.Module, setting: Setting) -> Prepared:
    """Input embeddings from an MLP of width `hidden` (0: the model's)."""
    config = PromptEncoderConfig(
        encoder_hidden_size=_hidden(model, setting), **_embedded(model, setting)
    )
    return _prepared(model, setting, config)


def _common(model: Any, setting: Setting) -> dict[str, Any]:
    head = trained_head(setting.parts, setting.job.recipe.train_pooler)
    # PEFT reads the sizes from the config's file form, where DistilBERT's have other names.
    return {
        "task_type": task_type(setting.job),
        "num_virtual_tokens": setting.size,
        "token_dim": model.config.hidden_size,
        "num_layers": model.config.num_hidden_layers,
        "num_attention_heads": model.config.num_attention_heads,
        "modules_to_save": head or None,
    }


def of_keys(model: Any) -> dict[str, int]:
    """Numbers and heads of a layer's keys, where fewer than those of its queries and PEFT, which
    reads `num_key_value_heads`, takes them for as many: Falcon's layers may share one head."""
    config = model.config
    heads, width = config.num_attention_heads, config.hidden_size
    if getattr(config, "multi_query", False) and not getattr(
        config, "new_decoder_architecture", False
    ):
        return {"token_dim": width // heads, "num_attention_heads": 1}
    return {"token_dim": width, "num_attention_heads": heads}


def task_type(job: Job) -> str:
    """PEFT's word for what the model does."""
    return "SEQ_CLS" if job.causal is None else "CAUSAL_LM"


def width(model: Any) -> int:
    """Numbers of an input embedding, fewer than of a hidden state in ALBERT and ELECTRA."""
    found: int = model.get_input_embeddings().embedding_dim
    return found


def _embedded(model: Any, setting: Setting) -> dict[str, Any]:
    return _common(model, setting) | {"token_dim": width(model)}


def _hidden(model: Any, setting: Setting) -> int:
    return int(setting.job.recipe.options["hidden"]) or int(model.config.hidden_size)


def _prepared(
    model: nn.Module, setting: Setting, config: Any, chosen: Sequence[int] | None = None
) -> Prepared:
    """Put the prompt on a base; head and pooler train beside it.

    Args:
        chosen: numbers of the layers that get keys and values; None for all.

    Raises:
        Unsupported: if the base has too few positions.
    """
    has_room(model, setting)
    job, deep = setting.job, isinstance(config, PrefixTuningConfig)
    wrapped = wrap(model, config)

    def finish(made: Any) -> Any:
        if chosen is not None:
            read_in_layers(made, chosen)
        place(made, job, deep)
        return made

    return Prepared(
        finish(wrapped),
        beyond=beyond(model, job, deep) or (SOME_LAYERS if chosen is not None else ""),
        save=saver(wrapped),
        load=lambda base, folder: finish(load_adapter(base, folder)),
        merge=None,
        merge_reason="virtual tokens are input to the model: there is no weight to merge them into",
    )


def place(wrapped: Any, job: Job, deep: bool) -> None:
    """Put a prompt where it belongs, after training's and after loading's wrapping.

    Args:
        deep: whether it is of keys and values; else of embeddings.
    """
    if job.causal is not None or (not deep and left_to_right(wrapped.get_base_model(), job)):
        read_before_text(wrapped)
    elif not deep:
        cls_first(wrapped)


def beyond(model: Any, job: Job, deep: bool) -> str:
    """What `place` adds to PEFT's model, in words; empty if nothing.

    Args:
        model: the base.
    """
    if job.causal is not None:
        return BEFORE_TEXT
    if deep:
        return ""
    return LAST_PLACE if left_to_right(model, job) else BEHIND_CLS


def left_to_right(model: Any, job: Job) -> bool:
    """Whether a base reads a text from left to right: a language model, or a decoder that
    classifies by a row's last token."""
    return job.causal is not None or reads_last_token(model.config)


def takes_prefix(model: Any, setting: Setting) -> None:
    """
    Raises:
        Unsupported: if the base can't have trained keys and values.
    """
    job = setting.job
    if "past_key_values" not in inspect.signature(model.base_model.forward).parameters:
        raise Unsupported(
            f"{job.method} gives a model trained keys and values as past_key_values, which "
            f"{type(model).__name__} does not take; use prompt-tuning or p-tuning"
        )
    if job.recipe.gradient_checkpointing:
        raise Unsupported(
            f"{job.method} can't train with gradient_checkpointing: transformers drops the trained "
            f"keys and values in recomputed layers; set gradient_checkpointing: false"
        )


def has_room(model: Any, setting: Setting) -> None:
    """
    Raises:
        Unsupported: if tokens and text together are longer than the base has positions for.
    """
    tokens, length = setting.size, setting.job.recipe.max_length
    assert tokens is not None
    room = _room(model, setting.job)
    if room is not None and tokens + length > room:
        raise Unsupported(
            f"{tokens} virtual tokens and max_length {length} need {tokens + length} positions, "
            f"{setting.job.model} has {room}; lower tokens or max_length"
        )


def _room(model: Any, job: Job) -> int | None:
    """How many positions a base has; None if they have no end."""
    if left_to_right(model, job):
        found = positions_of(model.config.to_dict())
        return found.most if found is not None and found.fixed else None
    for name, module in model.base_model.named_modules():
        if name == "embeddings.position_embeddings":
            # RoBERTa and MPNet keep the first rows of the table for padding.
            taken = 0 if module.padding_idx is None else module.padding_idx + 1
            room: int = module.num_embeddings - taken
            return room
    return None


def cls_first(wrapped: Any) -> None:
    """Move [CLS] to the front of the virtual tokens. Mask and token types stay right: both are
    equal for [CLS] and virtual tokens."""
    tokens = wrapped.active_peft_config.num_virtual_tokens

    def move(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given = kwargs["inputs_embeds"]
        virtual, first, rest = given.split([tokens, 1, given.shape[1] - tokens - 1], dim=1)
        return args, {**kwargs, "inputs_embeds": torch.cat([first, virtual, rest], dim=1)}

    wrapped.base_model.register_forward_pre_hook(move, with_kwargs=True)
