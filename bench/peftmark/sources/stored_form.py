"""What a checkpoint's configuration says of weights that are quantised already."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.catalog.quantizations import QUANTIZATIONS, of_family
from peftmark.core.errors import AssetError
from peftmark.core.shown import plain

QUANTISED = "quantization_config"
"""The key of a configuration that says by what the weights are quantised."""
READ = of_family("bitsandbytes-4bit", "bitsandbytes-8bit")
"""Quantizations whose weights are read as they are stored."""
_NEEDS_GPTQMODEL = (
    "which is read by the package gptqmodel, and that asks for other versions of torch or numpy "
    "than peftmark's"
)
_WHY = {
    "gptq": _NEEDS_GPTQMODEL,
    "awq": _NEEDS_GPTQMODEL,
    "hqq": "which transformers no longer loads",
    "quanto": "which transformers can't write as safetensors",
}
"""What quantised weights -> why they can't be read."""
_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)
_OTHER = "of which peftmark has no back-end that reads such files"


@dataclass(frozen=True)
class StoredForm:
    """How the weights of a checkpoint are quantised.

    Attributes:
        quantization: the key of `peftmark.catalog.quantizations` that makes the same form.
        double: whether block constants are quantised too.
        whole: names, or patterns of them, of modules that were left as they were.
    """

    quantization: str
    double: bool = False
    whole: tuple[str, ...] = ()


def stored_form(config: Mapping[str, Any], path: Path) -> StoredForm | None:
    """How weights are quantised already, by a model's configuration; None for whole ones.

    Args:
        path: the file of the configuration, for messages.

    Raises:
        AssetError: in a form that can't be a base here.
    """
    settings = config.get(QUANTISED)
    if not settings:
        return None
    if not isinstance(settings, dict):
        raise unreadable(path, f"{QUANTISED} is no mapping")
    by = settings.get("quant_method")
    # bitsandbytes' older files don't say by what.
    four, eight = (
        bool(settings.get(key) or settings.get(f"_{key}"))
        for key in ("load_in_4bit", "load_in_8bit")
    )
    if by != "bitsandbytes" and (by is not None or not (four or eight)):
        named = plain(str(by))[:40] if by else "it doesn't say by what"
        raise unreadable(path, f"{QUANTISED}: {named}", _WHY.get(str(by), _OTHER))
    skipped = settings.get("llm_int8_skip_modules") or ()
    # transformers takes each for a regular expression: none may be anything but a name, or hang it.
    if not isinstance(skipped, list | tuple) or not all(
        isinstance(one, str) and _NAME.fullmatch(one) for one in skipped
    ):
        raise unreadable(path, f"{QUANTISED}.llm_int8_skip_modules is no list of names")
    if eight:
        if settings.get("llm_int8_has_fp16_weight"):
            raise unreadable(path, "llm_int8_has_fp16_weight: true, weights of both kinds")
        return StoredForm("int8", whole=tuple(skipped))
    kind, storage = (
        settings.get("bnb_4bit_quant_type", "fp4"),
        settings.get("bnb_4bit_quant_storage"),
    )
    if kind not in of_family("bitsandbytes-4bit"):
        raise unreadable(path, f"bnb_4bit_quant_type: {plain(str(kind))[:40]}")
    if storage not in (None, "uint8"):
        raise unreadable(
            path,
            f"bnb_4bit_quant_storage: {plain(str(storage))[:40]}",
            "and peftmark reads such numbers stored as uint8",
        )
    return StoredForm(str(kind), bool(settings.get("bnb_4bit_use_double_quant")), tuple(skipped))


def unreadable(path: Path, seen: str, why: str = _OTHER) -> AssetError:
    """The refusal of weights that are quantised in a form that can't be read.

    Args:
        path: the file where it was seen.
        seen: what was seen there.
    """
    read = ", ".join(READ)
    return AssetError(
        f"{path}: the weights are quantised already ({seen}), {why}",
        f"Use a checkpoint in a form that is read as it is ({read}, of bitsandbytes), or the model "
        "that they were made of, with quantization: one of "
        f"{', '.join(key for key in QUANTIZATIONS if key != 'none')} (docs/quantizations.md).",
    )
