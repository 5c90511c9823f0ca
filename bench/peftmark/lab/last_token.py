"""Decoders as sequence classifiers: they read a row's last real token, and so must know padding.

transformers' class looks for the last token of a row that is not the padding token of its config,
which many decoders lack. Rows are padded on the right with the tokenizer's padding token or, where
it has none, with its end of text; the config is told the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from peftmark.lab.errors import Unsupported

_LANGUAGE: Any = AutoModelForCausalLM
_MASKED: Any = AutoModelForMaskedLM


def is_encoder(config: Any) -> bool:
    """Whether a model of this configuration was trained to fill gaps, and reads in both directions
    unless its config says otherwise."""
    return type(config) in _MASKED._model_mapping


def reads_last_token(config: Any) -> bool:
    """Whether a sequence classifier of this configuration is a decoder, which reads a row's last
    real token; an encoder reads its first one."""
    return type(config) in _LANGUAGE._model_mapping and not is_encoder(config)


def padding_of(tokenizer: Any) -> int | None:
    """The token that rows are padded with: the tokenizer's padding token or its end of text; None
    if it has neither."""
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    found: int | None = end if pad is None else pad
    return found


def config_padding(config: Any) -> int | None:
    """The padding token that a config names, or its end of text; None if it names neither."""
    text = config.get_text_config()
    for token in (text.pad_token_id, text.eos_token_id):
        one = token[0] if isinstance(token, list) else token  # several may end a text
        if one is not None and one >= 0:
            return int(one)
    return None


def padding_in(folder: Path, config: Any) -> int | None:
    """What `read_last_token` needs of a model's folder: of a base kept without its tokenizer, what
    its config says; None for an encoder."""
    if not reads_last_token(config):
        return None
    if not (folder / "tokenizer_config.json").exists():
        return config_padding(config)
    make: Any = AutoTokenizer.from_pretrained
    return padding_of(make(folder, local_files_only=True, use_fast=True))


def read_last_token(model: Any, pad: int | None) -> None:
    """Tell a decoder that classifies which token its rows are padded with; an encoder is left as it
    is.

    Args:
        pad: the token; None if there is none.

    Raises:
        Unsupported: no token, or one that the model hasn't.
    """
    if not reads_last_token(model.config):
        return
    config = model.config.get_text_config()
    if pad is None or pad >= config.vocab_size:
        has = "neither" if pad is None else f"token {pad}, beyond its {config.vocab_size} tokens"
        raise Unsupported(
            f"a sequence classifier of type {config.model_type} needs a padding token or an end of "
            f"text, to find the last token of a row; the model has {has}"
        )
    config.pad_token_id = pad
    config.use_cache = False  # keys and values would only be kept
