"""Trained keys and values in some layers alone, as P-tuning v2's paper compares them (Liu et al.
2021, arXiv 2110.07602, prompt depth in its ablations).

The other layers are kept from attending to the prompt by their attention masks, and the text's
positions stay where they are with prompts in all layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import DynamicCache

from peftmark.lab.errors import Unsupported

SOME_LAYERS = "its keys and values are those of some layers alone, and PEFT gives them to the first"


def chosen_layers(which: str, depth: int, layers: int) -> list[int]:
    """The numbers of the layers, from the input up, that get a prompt.

    Args:
        which: all, top or bottom.
        depth: how many; 0 for a third, rounded.
        layers: of the model.

    Raises:
        Unsupported: the model has fewer.
    """
    if which == "all":
        return list(range(layers))
    if depth > layers:
        raise Unsupported(f"depth is {depth}, and the model has {layers} layers; at most that")
    count = depth or max(1, round(layers / 3))
    return list(range(layers))[-count:] if which == "top" else list(range(count))


def layers_of(base: Any) -> list[nn.Module]:
    """A model's layers from the input up.

    Raises:
        Unsupported: they aren't in one list, or take no attention mask.
    """
    count = base.config.num_hidden_layers
    lists = (m for m in base.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
    found = list(next(lists, ()))
    taken = [inspect.signature(layer.forward).parameters for layer in found]
    if not found or any("attention_mask" not in one for one in taken):
        raise Unsupported(
            f"where the layers of {type(base).__name__} are told what to attend to is not known; "
            "set layers: all"
        )
    return found


def read_in_layers(wrapped: Any, chosen: Sequence[int]) -> None:
    """Have only some layers of the base inside PEFT's model attend to its keys and values.

    Args:
        wrapped: with keys and values for as many layers as are chosen.
        chosen: numbers of the layers, ascending.

    Raises:
        Unsupported: see `layers_of`.
    """
    layers = layers_of(wrapped.get_base_model())
    if len(chosen) == len(layers):
        return
    wrapped.get_prompt = partial(_prompt, wrapped, chosen, len(layers))
    tokens = wrapped.active_peft_config.num_virtual_tokens
    config = wrapped.get_base_model().config
    for at, layer in enumerate(layers):
        if at not in chosen:
            hook = partial(_look_away, at, tokens, config)
            layer.register_forward_pre_hook(hook, with_kwargs=True)


def _prompt(wrapped: Any, chosen: Sequence[int], layers: int, *args: Any, **kwargs: Any) -> Any:
    """The keys and values of all layers; zeros, which nothing attends to, where none are chosen."""
    of_peft: Any = PeftModel.get_prompt(wrapped, *args, **kwargs)
    made = of_peft.layers
    found: Any = DynamicCache()
    nothing = torch.zeros_like(made[0].keys)
    for at in range(layers):
        own = made[chosen.index(at)] if at in chosen else None
        found.update(own.keys if own else nothing, own.values if own else nothing, at)
    return found


def _look_away(
    at: int,
    tokens: int,
    config: Any,
    layer: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A layer's inputs with the prompt hidden from it."""
    given = inspect.signature(layer.forward).bind(*args, **kwargs)
    mask = given.arguments.get("attention_mask")
    if mask is None:  # everything is seen
        hidden, cache = given.arguments["hidden_states"], given.arguments["past_key_values"]
        length = cache.get_seq_length(at) + hidden.shape[1]
        mask = torch.ones(1, 1, 1, length, dtype=torch.bool, device=hidden.device)
        if config._attn_implementation == "eager":  # which adds its mask to the scores
            mask = torch.zeros_like(mask, dtype=hidden.dtype)
    mask = mask.clone()
    mask[..., :tokens] = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    given.arguments["attention_mask"] = mask
    return given.args, given.kwargs
