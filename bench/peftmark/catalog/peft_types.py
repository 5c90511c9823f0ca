"""The tuners that PEFT registers, by type: what a suite may name as `peft:<type>`.

The table was made from the source of PEFT 0.21.2. A type that a newer PEFT registers has no row and
can still be named: it is run with PEFT's own defaults.
"""

from __future__ import annotations

import ast
from dataclasses import KW_ONLY, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

Where = Literal["recipe", "values", "ia3", "norms", "embeddings", "input"]

DIVISOR = "largest divisor"
"""Stands for the largest divisor of every target's width that is not above PEFT's default."""
SEEN = "seen tokens"
"""Stands for the ids of the tokens in the first training batches."""


@dataclass(frozen=True)
class PeftType:
    """A tuner of PEFT, run through its own config class.

    Attributes:
        key: PEFT's name of the type, lower-case.
        size: the config's option that the suite's `rank`, `width` or `tokens` sets; None for a
            type without, or where only few numbers are possible.
        grows: whether every size is possible, a larger one trains more parameters, and they can
            be counted without the weights: a budget can then be solved for it.
        where: what it sits on: the recipe's targets, or modules of its own: value projections,
            IA3's three, norms, input embeddings, or the model's input.
        quantized: whether it has code for bitsandbytes' layers, or uses them as they are.
        merges: whether PEFT folds it into float weights only, into bitsandbytes' 8-bit ones too,
            into all quantised ones, or not; what PEFT folds into another model counts as not.
        allocates: whether PEFT wants a call after each optimizer step.
        penalty: whether PEFT adds a term to the model's own loss.
        refused: why it can't train a sequence classifier; empty if it can.
        not_causal: why it can't train a causal language model; empty if it can.
        defaults: options set unless the suite sets them, where PEFT's own default is missing or
            can't be right: "10%" is a share of the steps, and see `DIVISOR` and `SEEN`.
    """

    key: str
    title: str
    summary: str
    source: str
    _: KW_ONLY
    size: str | None = None
    grows: bool = True
    where: Where = "recipe"
    quantized: bool = False
    merges: Literal["no", "float", "8-bit", "any"] = "float"
    allocates: bool = False
    penalty: bool = False
    refused: str = ""
    not_causal: str = ""
    defaults: dict[str, Any] = field(default_factory=dict)


NOT_ON_TORCHAO = frozenset(
    [
        "adamss",
        "deft",
        "delora",
        "frod",
        "glora",
        "hira",
        "hra",
        "osf",
        "peanut",
        "psoft",
        "supertuning",
        "tinylora",
    ]
)
"""Types that do to a weight what torchao's tensors have no code for; the others use the layer."""

ON_8BIT = frozenset(["loha", "lokr"])
"""Types without code for bitsandbytes that use its layers, but need the shape that a weight has as
loaded: 8-bit weights keep it and 4-bit ones don't."""

NOT_ON_QUANTO = frozenset(["frod", "glora", "hra", "peanut", "shira"])
"""Types that change the type of a weight, which quanto refuses, or take plain layers alone, or read
a 4-bit weight where it can't be: a back-end takes a type or doesn't."""

_DOCS = "PEFT documentation"
_R, _TOKENS = "r", "num_virtual_tokens"

PEFT_TYPES: dict[str, PeftType] = {
    kind.key: kind
    for kind in (
        PeftType(
            "adalora", "PEFT AdaLoRA", "SVD-form update whose ranks are pruned to a budget",
            "Zhang et al. 2023, arXiv 2303.10512", size="target_r", grows=False,
            quantized=True, allocates=True, penalty=True,
            defaults={"tinit": "10%", "tfinal": "30%"},
        ),
        PeftType(
            "adamss", "AdaMSS", "low-rank updates inside clusters of the weight's row space",
            _DOCS, size=_R, grows=False, allocates=True,
            defaults={"init_warmup": "10%", "final_warmup": "70%", "mask_interval": "5%"},
        ),
        PeftType(
            "adaption_prompt", "LLaMA-Adapter", "gated prompts in the attention of the top layers",
            "Zhang et al. 2023, arXiv 2303.16199", where="input", merges="no",
            refused="PEFT has it for LLaMA, Mistral and GPT-2 alone, which generate text",
            not_causal="there are no settings for it so far; take prefix-tuning",
        ),
        PeftType(
            "beft", "BEFT", "a trained bias on the value projections alone",
            "arXiv 2509.15974", where="values", quantized=True, merges="any",
        ),
        PeftType(
            "boft", "BOFT", "weights turned by a product of sparse orthogonal butterfly factors",
            "Liu et al. 2023, arXiv 2311.06243", quantized=True, merges="any",
        ),
        PeftType(
            "c3a", "C3A", "block-circulant update, multiplied by fast Fourier transform",
            "Chen et al. 2024, arXiv 2407.19342", defaults={"block_size": DIVISOR},
        ),
        PeftType(
            "cartridge", "Cartridge",
            "trained keys and values before each layer's own, the first token's frozen",
            "Eyuboglu et al. 2025, arXiv 2506.06266", size=_TOKENS, where="input", quantized=True,
            merges="no", defaults={_TOKENS: 20},
        ),
        PeftType(
            "cpt", "CPT", "prompt embeddings from in-context examples, refined within a radius",
            "Blau et al. 2024, arXiv 2410.17222", size=_TOKENS, where="input", merges="no",
            refused="PEFT has it for causal language models alone",
            not_causal="it starts from the tokens of worked examples, which a suite can't give",
        ),
        PeftType(
            "deft", "DEFT", "part of the weight projected away and a low-rank one put in its place",
            _DOCS, size=_R,
        ),
        PeftType(
            "delora", "DeLoRA", "low-rank update with normalised factors and a trained strength",
            "Bini et al. 2025, arXiv 2503.18225", size=_R,
        ),
        PeftType(
            "fourierft", "FourierFT", "update with few trained coefficients in its 2-D spectrum",
            "Gao et al. 2024, arXiv 2405.03003", size="n_frequency", quantized=True,
        ),
        PeftType(
            "frod", "FRoD", "sparse rotation and scale in a basis shared by modules of one role",
            "doi 10.1609/aaai.v40i31.39813", defaults={"progressbar": False},
        ),
        PeftType(
            "glora", "GLoRA", "low-rank, scaling and shifting updates of weight and bias together",
            "Chavan et al. 2023, arXiv 2306.07967", size=_R,
        ),
        PeftType(
            "gralora", "GraLoRA", "a small LoRA in each block of a grid over the weight",
            "Jung et al. 2025, arXiv 2505.20355", size=_R, grows=False,
        ),
        PeftType(
            "hira", "PEFT HiRA", "weight multiplied element by element with a low-rank matrix",
            "Huang et al. 2025, openreview.net TwJrTz9cRS", size=_R, quantized=True, merges="any",
        ),
        PeftType(
            "hra", "HRA", "weight turned by a chain of Householder reflections",
            "Yuan et al. 2024, arXiv 2405.17484", size=_R, grows=False,
        ),
        PeftType(
            "ia3", "PEFT IA3", "vectors that scale keys, values and feed-forward activations",
            "Liu et al. 2022, arXiv 2205.05638", where="ia3", quantized=True,
        ),
        PeftType(
            "lily", "PEFT Lily", "LoRA whose B matrices all layers share through a router",
            "Zhong et al. 2024, arXiv 2407.09946", size=_R, quantized=True, merges="no",
        ),
        PeftType(
            "ln_tuning", "LayerNorm tuning", "scale and shift of the normalisation layers",
            "Zhao et al. 2023, arXiv 2312.11420", where="norms", quantized=True, merges="any",
        ),
        PeftType(
            "loha", "LoHa", "element-wise product of two low-rank matrices as the update",
            "Hyeon-Woo et al. 2021, arXiv 2108.06098", size=_R,
        ),
        PeftType(
            "lokr", "LoKr", "Kronecker product of a small and a low-rank matrix as the update",
            "Yeh et al. 2023, arXiv 2309.14859", size=_R, grows=False,
        ),
        PeftType(
            "lora", "PEFT LoRA", "low-rank update BA of the weight",
            "Hu et al. 2021, arXiv 2106.09685", size=_R, quantized=True, merges="any",
        ),
        PeftType(
            "miss", "MiSS", "one small matrix, repeated over shards of the weight, as the update",
            "Kang and Yin 2024, arXiv 2409.15371", size=_R, quantized=True, merges="any",
        ),
        PeftType(
            "multitask_prompt_tuning", "multitask prompt tuning",
            "shared prompt times a low-rank matrix of the task; one task here",
            "Wang et al. 2023, arXiv 2303.02861", size=_TOKENS, where="input", quantized=True,
            merges="no", defaults={_TOKENS: 20},
        ),
        PeftType(
            "oft", "OFT", "weight turned by a block-diagonal orthogonal matrix",
            "Qiu et al. 2023, arXiv 2306.07280", quantized=True, merges="any",
        ),
        PeftType(
            "osf", "OSF", "the weight's smaller singular triplets, the large ones kept",
            "Nayak et al. 2025, arXiv 2504.07097",
        ),
        PeftType(
            "peanut", "PEANuT", "a small network of the weight itself computes the update",
            "Zhong et al. 2024, arXiv 2410.01870", size=_R,
        ),
        PeftType(
            "poly", "Poly", "a trained mixture of LoRA modules; one task here",
            "Ponti et al. 2022, arXiv 2202.13914", size=_R, merges="no",
            not_causal="it wants a number for each task, which rows of a language model don't have",
        ),
        PeftType(
            "prefix_tuning", "PEFT prefix tuning",
            "trained keys and values before each layer's own",
            "Li and Liang 2021, arXiv 2101.00190", size=_TOKENS, where="input", quantized=True,
            merges="no", defaults={_TOKENS: 20},
        ),
        PeftType(
            "prompt_tuning", "PEFT prompt tuning", "trained embeddings among the input's",
            "Lester et al. 2021, arXiv 2104.08691", size=_TOKENS, where="input", quantized=True,
            merges="no", defaults={_TOKENS: 20},
        ),
        PeftType(
            "psoft", "PSOFT", "rotation inside the weight's principal subspace",
            "openreview.net FSHrinMArK", size=_R,
        ),
        PeftType(
            "pvera", "PVeRA", "VeRA whose latent activations are drawn at random in training",
            "arXiv 2512.07703", size=_R, quantized=True, merges="8-bit",
        ),
        PeftType(
            "p_tuning", "PEFT P-tuning", "trained embeddings among the input's, through an encoder",
            "Liu et al. 2021, arXiv 2103.10385", size=_TOKENS, where="input", quantized=True,
            merges="no", defaults={_TOKENS: 20},
        ),
        PeftType(
            "randlora", "RandLoRA", "full-rank update from scaled random matrices; a larger rank "
            "trains fewer numbers", "Albert et al. 2025, arXiv 2502.00987", size=_R, grows=False,
            quantized=True,
        ),
        PeftType(
            "road", "RoAd", "outputs turned and scaled in pairs",
            "Liao et al. 2024, arXiv 2409.00119", quantized=True, merges="any",
            defaults={"group_size": DIVISOR},
        ),
        PeftType(
            "shadow", "ShadowPEFT", "a small network beside the decoder corrects its layers",
            _DOCS, size=_R, merges="no",
            refused="PEFT's code wraps decoder blocks of text generators; the layers of an encoder "
            "can't carry its second state",
            not_causal="there are no settings for it so far; take lora",
        ),
        PeftType(
            "shira", "SHiRA", "a fixed random choice of the weight's entries",
            "Bhardwaj et al. 2024, arXiv 2406.13175", size=_R, grows=False,
            quantized=True, merges="any",
        ),
        PeftType(
            "supertuning", "Super-Tuning", "the largest entries of the weight",
            "arXiv 2607.09287",
        ),
        PeftType(
            "tinylora", "TinyLoRA", "a tiny vector, projected at random between singular vectors",
            "arXiv 2602.04118", size=_R, grows=False,
        ),
        PeftType(
            "trainable_tokens", "trainable tokens", "the embeddings of some tokens",
            _DOCS, where="embeddings", quantized=True, merges="any",
            defaults={"token_indices": SEEN},
        ),
        PeftType(
            "unilora", "Uni-LoRA", "one trained vector spread at random over all LoRA factors",
            "arXiv 2506.00799", size=_R, grows=False,
        ),
        PeftType(
            "vblora", "VB-LoRA", "LoRA factors mixed from a bank of vectors that all share",
            "Li et al. 2024, arXiv 2405.15179", size=_R, quantized=True,
            defaults={"vector_length": DIVISOR},
        ),
        PeftType(
            "vera", "VeRA", "random A and B that all modules share, with trained scales",
            "Kopiczko et al. 2023, arXiv 2310.11454", size=_R, quantized=True, merges="any",
        ),
        PeftType(
            "waveft", "WaveFT", "update with few trained coefficients in the wavelet domain",
            "arXiv 2505.12532", size="n_frequency", quantized=True,
        ),
        PeftType(
            "xlora", "X-LoRA", "a gate that mixes LoRA adapters trained before",
            "Buehler and Buehler 2024, arXiv 2402.07148", where="input", merges="no",
            refused="it mixes adapters that were trained before, which a suite can't name",
            not_causal="it mixes adapters that were trained before, which a suite can't name",
        ),
    )
}  # fmt: skip


@cache
def installed_types() -> frozenset[str]:
    """Lower-case names of the types that the installed PEFT has, read from its source: importing
    it would load torch. Empty without PEFT."""
    try:
        source = Path(str(distribution("peft").locate_file("peft/utils/peft_types.py")))
        tree = ast.parse(source.read_text("utf-8"))
    except (PackageNotFoundError, OSError, SyntaxError):
        return frozenset()
    kinds = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "PeftType"]
    return frozenset(
        str(line.value.value).lower()
        for kind in kinds
        for line in kind.body
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
    )


def peft_type(key: str) -> PeftType | None:
    """The type of a key; one without a row if only the installed PEFT knows it; else None."""
    if key in PEFT_TYPES:
        return PEFT_TYPES[key]
    if key not in installed_types():
        return None
    summary = "a tuner that is newer than peftmark's table of them"
    return PeftType(key, f"PEFT {key.upper()}", summary, _DOCS, merges="no")
