"""Virtual tokens before the text that a causal language model reads.

PEFT's own class puts them there again in every call, gives logits of them beside those of the text,
and counts positions through the padding between them and a row padded on the left. A step, a score
and an answer here ask a model in three ways: a whole row, a prompt and then its answers from the
prompt's keys and values, and token by token. So PEFT holds, saves and loads the prompt, and the
model reads it here: once, before the first token of the text.

The text's tokens have the positions that they would have after a real text of as many tokens, in
rows with padding too; a virtual token is never hidden. Only the text's hidden states leave the
model, so that logits, loss and scores are those of the text's own places.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft import PeftModel

from peftmark.catalog.positions import first_position

BEFORE_TEXT = (
    "PEFT puts its virtual tokens before the text again in every call, and counts positions "
    "through the padding between them"
)


def read_before_text(wrapped: Any) -> None:
    """Have the base inside PEFT's model read its prompt before the text.

    Args:
        wrapped: with a prompt of embeddings, or of keys and values.
    """
    base = wrapped.get_base_model()
    for name in ("forward", "generate"):  # those that pass on what they are given
        setattr(wrapped, name, partial(getattr(PeftModel, name), wrapped))
    hooks = base.get_decoder()  # OPT's language model asks nothing that has it inside
    hooks.register_forward_pre_hook(partial(_insert, wrapped), with_kwargs=True)
    hooks.register_forward_hook(partial(_cut, wrapped), with_kwargs=True)


def _insert(
    wrapped: Any, _: Any, args: tuple[Any, ...], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs of a forward pass, (rows, tokens), with the prompt before them."""
    [ids] = [*args, *([given["input_ids"]] if "input_ids" in given else [])]
    tokens, rows = wrapped.active_peft_config.num_virtual_tokens, len(ids)
    mask, places = given.get("attention_mask"), given.get("position_ids")
    cache = given.get("past_key_values")
    given = {**given, "input_ids": ids}
    if mask is not None:
        given["attention_mask"] = torch.cat([mask.new_ones(rows, tokens), mask], dim=1)
    if places is not None:
        given["position_ids"] = places = places + tokens
    if cache is not None and cache.get_seq_length():  # the prompt was read with its first tokens
        return (), given
    # A type of PEFT's has a prompt for each task; there is one here.
    prompt = wrapped.get_prompt(rows, task_ids=torch.zeros(rows, dtype=torch.long).to(ids.device))
    if not isinstance(prompt, torch.Tensor):
        given["past_key_values"] = prompt if cache is None else _filled(cache, prompt)
        return (), given
    words = wrapped.get_base_model().get_input_embeddings()(ids)
    given |= {"input_ids": None, "inputs_embeds": torch.cat([prompt.to(words.dtype), words], 1)}
    if places is not None:
        config = wrapped.get_base_model().config
        first = first_position(config.model_type, config.pad_token_id)
        own = torch.arange(first, first + tokens, device=ids.device).expand(len(places), -1)
        given["position_ids"] = torch.cat([own, places], dim=1)
    return (), given


def _filled(cache: Any, prompt: Any) -> Any:
    """An empty cache with a prompt's keys and values."""
    for at, layer in enumerate(prompt.layers):
        cache.update(layer.keys, layer.values, at)
    return cache


def _cut(wrapped: Any, _: Any, __: tuple[Any, ...], given: dict[str, Any], found: Any) -> Any:
    """What the model says, without the hidden states of virtual tokens."""
    if given.get("inputs_embeds") is not None:
        tokens = wrapped.active_peft_config.num_virtual_tokens
        found.last_hidden_state = found.last_hidden_state[:, tokens:]
    return found
