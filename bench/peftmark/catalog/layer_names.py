"""What architectures call the linear layers inside one of their layers: one table for lab and
report.

A name is the end of a module's full name, below the layer it is in. Architectures that share names
need no row of their own: names are looked up over all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Part = Literal[
    "query",
    "key",
    "value",
    "query_key_value",
    "attention_output",
    "ffn_in",
    "ffn_gate",
    "ffn_out",
]
"""What a linear layer does, in the order of a forward pass."""

PARTS: tuple[Part, ...] = get_args(Part)
"""The first part that a name fits counts: `attention.output.dense` is also an `output.dense`."""


@dataclass(frozen=True)
class LayerNames:
    """The names of one architecture; empty for what it has not.

    Attributes:
        query_key_value: the three in one module.
        attention_output: projects the heads' outputs back.
        ffn_in: first layer of the feed-forward block, the gate in it where they are one module.
        ffn_gate: the gate of the feed-forward block, if it is a module of its own.
        ffn_out: second layer of the feed-forward block.
        head_dropout: setting of the config with the dropout before the classifier.
        masks_by_query: whether its attention masks scores with the least number of the type that
            the queries have.
        in_lab: whether methods that need a layer's parts one by one run on it. What gets an adapter
            (`targets`) is found in every architecture.
    """

    query: str = ""
    key: str = ""
    value: str = ""
    query_key_value: str = ""
    attention_output: str = ""
    ffn_in: str = ""
    ffn_gate: str = ""
    ffn_out: str = ""
    head_dropout: str = ""
    masks_by_query: bool = False
    in_lab: bool = True

    def of(self, part: Part) -> str:
        """The name of a part; empty for what it has not."""
        name: str = getattr(self, part)
        return name


_BERT = LayerNames(
    query="query",
    key="key",
    value="value",
    attention_output="attention.output.dense",
    ffn_in="intermediate.dense",
    ffn_out="output.dense",
    head_dropout="classifier_dropout",
)
_LLAMA = LayerNames(
    query="q_proj",
    key="k_proj",
    value="v_proj",
    attention_output="o_proj",
    ffn_in="up_proj",
    ffn_gate="gate_proj",
    ffn_out="down_proj",
)
_BLOOM = LayerNames(
    query_key_value="query_key_value",
    attention_output="self_attention.dense",
    ffn_in="dense_h_to_4h",
    ffn_out="dense_4h_to_h",
    in_lab=False,
)

LAYER_NAMES: Mapping[str, LayerNames] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "deberta-v2": LayerNames(
        query="query_proj",
        key="key_proj",
        value="value_proj",
        attention_output="attention.output.dense",
        ffn_in="intermediate.dense",
        ffn_out="output.dense",
        head_dropout="cls_dropout",
        masks_by_query=True,
    ),
    "distilbert": LayerNames(
        query="q_lin",
        key="k_lin",
        value="v_lin",
        attention_output="out_lin",
        ffn_in="lin1",
        ffn_out="lin2",
        head_dropout="seq_classif_dropout",
    ),
    "mpnet": LayerNames(
        query="q",
        key="k",
        value="v",
        attention_output="o",
        ffn_in="intermediate.dense",
        ffn_out="output.dense",
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "olmo2": _LLAMA,
    "granite": _LLAMA,
    "smollm3": _LLAMA,
    # One stored layer stands for all of them, so there is no layer to pick or to put a module in.
    "albert": LayerNames(
        query="query",
        key="key",
        value="value",
        attention_output="attention.dense",
        ffn_in="ffn",
        ffn_out="ffn_output",
        head_dropout="classifier_dropout_prob",
        in_lab=False,
    ),
    "modernbert": LayerNames(
        query_key_value="Wqkv",
        attention_output="attn.Wo",
        ffn_in="mlp.Wi",
        ffn_out="mlp.Wo",
        head_dropout="classifier_dropout",
        in_lab=False,
    ),
    "deberta": LayerNames(
        query_key_value="in_proj",
        attention_output="attention.output.dense",
        ffn_in="intermediate.dense",
        ffn_out="output.dense",
        in_lab=False,
    ),
    "opt": LayerNames(
        query="q_proj",
        key="k_proj",
        value="v_proj",
        attention_output="out_proj",
        ffn_in="fc1",
        ffn_out="fc2",
        in_lab=False,
    ),
    "phi3": LayerNames(
        query_key_value="qkv_proj",
        attention_output="o_proj",
        ffn_in="gate_up_proj",
        ffn_out="down_proj",
        in_lab=False,
    ),
    "gpt_neox": LayerNames(
        query_key_value="query_key_value",
        attention_output="attention.dense",
        ffn_in="dense_h_to_4h",
        ffn_out="dense_4h_to_h",
        in_lab=False,
    ),
    "bloom": _BLOOM,
    "falcon": _BLOOM,
    "gpt2": LayerNames(
        query_key_value="c_attn",
        attention_output="attn.c_proj",
        ffn_in="c_fc",
        ffn_out="mlp.c_proj",
        in_lab=False,
    ),
}
"""Architecture (`model_type` of its config) -> what it calls its layers."""


def endings(part: Part, lab: bool = False) -> tuple[str, ...]:
    """Every name of a part, each once.

    Args:
        lab: of architectures alone that methods which need a layer's parts one by one run on.
    """
    rows = (row for row in LAYER_NAMES.values() if row.in_lab or not lab)
    return tuple(dict.fromkeys(name for row in rows if (name := row.of(part))))


def ends_with(name: str, names: tuple[str, ...]) -> bool:
    """Whether a module's name ends with one of some names, at a dot."""
    return any(f".{name}".endswith(f".{one}") for one in names)


def part_of(name: str, lab: bool = False) -> Part | None:
    """What a module does by its name; None if no row knows it.

    Args:
        lab: by architectures alone that methods which need a layer's parts run on.
    """
    return next((part for part in PARTS if ends_with(name, endings(part, lab))), None)


def head_dropout(architecture: str) -> str:
    """The setting of the config with the dropout before the classifier; empty if unknown."""
    row = LAYER_NAMES.get(architecture)
    return row.head_dropout if row is not None else ""


def masks_by_query(architecture: str) -> bool:
    """Whether an architecture masks its scores with a number of the queries' type."""
    row = LAYER_NAMES.get(architecture)
    return row is not None and row.masks_by_query
