"""How many tokens a model has positions for, by its configuration as plain data.

Read in the models of transformers 5: which have a table with a row a position, and which rows of it
they keep for padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AFTER_PADDING: tuple[str, ...] = (
    *("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke"),
    *("markuplm", "mpnet", "roberta", "roberta-prelayernorm"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Architectures whose positions are counted from behind the number of the padding token."""

TABLES: tuple[str, ...] = (
    *AFTER_PADDING,
    *("albert", "bart", "bert", "bert-generation", "big_bird", "biogpt", "codegen", "convbert"),
    *("ctrl", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "flaubert", "fnet"),
    *("gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "layoutlm", "mbart", "megatron-bert"),
    *("mobilebert", "mra", "mvp", "nystromformer", "openai-gpt", "opt", "plbart", "rembert"),
    *("roc_bert", "roformer", "splinter", "squeezebert", "tapas", "xlm", "yoso"),
)
"""Architectures with a table of positions: a longer row has none, and fails."""

ENDLESS: tuple[str, ...] = (
    *("bloom", "falcon_mamba", "funnel", "mamba", "mamba2", "mpt", "mt5", "rwkv", "t5", "umt5"),
    *("xlnet", "xlstm"),
)
"""Architectures without positions, or with distances alone, whatever their configuration says."""

_NAMES = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True)
class Positions:
    """How far a model's positions reach.

    Attributes:
        most: tokens of a row.
        fixed: whether they stand in a table that ends there; else that is as far as the model was
            trained, and longer rows run.
    """

    most: int
    fixed: bool


def positions_of(config: Mapping[str, Any]) -> Positions | None:
    """How far positions reach; None where they have no end, or none is known.

    Args:
        config: as `config.json` has it.
    """
    kind = config.get("model_type")
    if kind in ENDLESS or config.get("alibi") is True:
        return None
    if kind in ("deberta", "deberta-v2") and not config.get("position_biased_input", True):
        return None
    if kind == "esm" and config.get("position_embedding_type") == "rotary":
        return None
    found = next((config[name] for name in _NAMES if _is_count(config.get(name))), None)
    if found is None:
        inner = config.get("text_config")
        return positions_of(inner) if isinstance(inner, Mapping) else None
    return Positions(usable(found, kind, config.get("pad_token_id")), kind in TABLES)


def usable(positions: int, kind: object, padding: object) -> int:
    """Positions that tokens can have, of all that a configuration counts."""
    return positions - first_position(kind, padding)


def first_position(kind: object, padding: object) -> int:
    """The position of a text's first token, by an architecture and its padding token."""
    if kind not in AFTER_PADDING:
        return 0
    # RoBERTa's own number of the padding token, where a file leaves it out.
    return (padding if isinstance(padding, int) else 1) + 1


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
