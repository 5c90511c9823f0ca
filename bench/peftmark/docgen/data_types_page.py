"""`python -m peftmark.docgen.data_types_page` computes the errors of 4-bit data types on trained
weights, and writes them into the ledger of claims and docs/data-types.md.

It needs the weights of the packaged encoders (fetched once) and seconds, no training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from peftmark.catalog.models import MODELS
from peftmark.claims.comparisons import DataType
from peftmark.claims.weight_errors import ERRORS, WeightErrors
from peftmark.core.files import write_all
from peftmark.sources.assets import Places, default_cache, model_files

PAGE = Path("docs") / "data-types.md"
LEDGER = Path("suites") / ERRORS
KINDS: tuple[DataType, ...] = get_args(DataType)
OF = ("minilm-l6", "mpnet-base")
"""Encoders that packages hold as they were trained; SmolLM2's packaged ones went through 4 bits."""

HEAD = """\
# 4-bit data types on trained weights

Scope: how far the weights of packaged encoders lie from what a 4-bit type makes of them, for claim
C08. Limits: an error of weights, not of a model's scores or perplexity; encoders of 11 and 85
million weights, not language models; nothing was trained.

Written by `python -m peftmark.docgen.data_types_page`, which computes everything anew from the
packaged weights, in under a minute on one core, and keeps the figures in
`suites/claims/weight-errors.yaml`; don't edit.

Every type is told alike: the {block} weights of a block are divided by the largest magnitude among
them, and each becomes the nearest level of the type. Levels of NF4 and FP4 are bitsandbytes'; int4
is a uniform grid of 15 levels, -7/7 to 7/7, and no quantization that a suite can name. The error is
the root mean squared difference over the root mean square of the weights of all matrices in the
layers.

| model | weights | NF4 | FP4 | int4 | NF4 / FP4 | NF4 / int4 |
|---|---|---|---|---|---|---|
"""


def compute() -> dict[str, WeightErrors]:
    """Model -> the errors on its weights."""
    from peftmark.lab.quantization.weight_error import BLOCK, errors, linear_weights

    places = Places(None, ("package",), default_cache())
    found = {}
    for name in OF:
        folder = model_files(MODELS[name], places).path
        count, lost = errors(linear_weights(folder / MODELS[name].weights_file), KINDS)
        rounded = {kind: round(value, 5) for kind, value in lost.items()}
        found[name] = WeightErrors(weights=count, block=BLOCK, **rounded)
    return found


def ledger(found: Mapping[str, WeightErrors]) -> str:
    """The figures as the ledger of claims reads them."""
    lines = [
        "# Errors of 4-bit data types on trained weights: docs/data-types.md says what they are.",
        "# Written by `python -m peftmark.docgen.data_types_page`; don't edit.",
        "models:",
    ]
    for name, one in found.items():
        kinds = ", ".join(f"{kind}: {one.of(kind):.5f}" for kind in KINDS)
        lines.append(f"  {name}: {{weights: {one.weights}, block: {one.block}, {kinds}}}")
    return "\n".join([*lines, ""])


def page(found: Mapping[str, WeightErrors]) -> str:
    """The page of the documentation."""
    block = next(iter(found.values())).block
    rows = [
        f"| {MODELS[name].title} | {one.weights:,} | {one.nf4:.2%} | {one.fp4:.2%} "
        f"| {one.int4:.2%} | {one.nf4 / one.fp4:.3f} | {one.nf4 / one.int4:.3f} |"
        for name, one in found.items()
    ]
    return HEAD.format(block=block) + "\n".join([*rows, ""])


def main() -> None:
    """Write both files below the working directory."""
    found = compute()
    write_all({LEDGER: ledger(found), PAGE: page(found)})


if __name__ == "__main__":
    main()
