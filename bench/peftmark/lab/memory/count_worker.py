"""Process that counts what a configuration of PEFT trains: a request a line in, a count a line out.

The adapter is PEFT's own, put on a model without values, so a count needs no weights and no memory
of the model's size. `peftmark.memory.adapter_counts` asks; only this process loads torch.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import torch
from peft import get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from peftmark.core.shown import short
from peftmark.lab.memory.meta_model import blank, config_of

LONGEST = 90
"""Characters of what PEFT or torch says; the rest is advice on something else."""


class Absent(Exception):
    """The installed PEFT has no such type, or its type no such option."""


def adapter_config(kind: str, options: Mapping[str, Any]) -> Any:
    """The configuration of a type.

    Args:
        kind: PEFT's name of it, lower-case.
        options: what is not at PEFT's default.

    Raises:
        Absent: a type or an option that the installed PEFT doesn't know.
    """
    classes = {one.value.lower(): made for one, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind not in classes:
        raise Absent(f"the installed PEFT has no type {kind.upper()}")
    known = {field.name for field in dataclasses.fields(classes[kind])}
    if strange := [name for name in options if name not in known]:
        raise Absent(f"{kind.upper()} of the installed PEFT has no {', '.join(strange)}")
    return classes[kind](**{"task_type": "CAUSAL_LM", **options})


def count(
    model: Mapping[str, Any], kind: str | None, options: Mapping[str, Any], frozen: str
) -> dict[str, int]:
    """Parameters that train, and all there are.

    Args:
        model: configuration of a language model, as plain data.
        kind: a type of PEFT; None for full fine-tuning.
        frozen: tensors with this in their name don't train, though PEFT would; empty for none.

    Raises:
        Absent: as `adapter_config`.
    """
    base: Any = blank(config_of(model, 1), "language", weights="bf16")
    if kind is not None:
        with torch.device("meta"):
            base = get_peft_model(base, adapter_config(kind, options))
    named = list(base.named_parameters())
    learns = [p for name, p in named if p.requires_grad and not (frozen and frozen in name)]
    return {
        "trainable": sum(p.numel() for p in learns),
        "parameters": sum(p.numel() for _, p in named),
    }


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """What `peftmark.memory.adapter_counts.Count` holds."""
    try:
        return count(**request)
    except Absent as error:
        return {"absent": str(error)}
    except Exception as error:  # PEFT raises any kind
        text = short(" ".join(str(error).split()), LONGEST)
        return {"reason": f"PEFT can't build it without weights: {type(error).__name__}: {text}"}


def main() -> None:
    """Answer requests until the input ends."""
    torch.set_num_threads(1)
    out = sys.stdout
    for line in sys.stdin:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            found = answer(json.loads(line))
        print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
