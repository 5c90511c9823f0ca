"""Holds an export against the trained model: the export's own code loads it, logits are compared.

Both compute in fp32, so that only what was written can make a difference, and rounding.
"""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path
from typing import Any

import torch

from peftmark.lab.errors import Unsupported
from peftmark.lab.export.code import FILE
from peftmark.lab.export.opened import Opened
from peftmark.lab.number_types import raised
from peftmark.lab.quantization.table import backend_of

ROWS, TOKENS = 6, 12
ALLOWED = 1e-3
"""Difference of a logit, over the largest logit, up to which both are one model: far above rounding
in fp32 (about 1e-6), far below what another head or a lost module makes (assumption)."""


def probe_rows(opened: Opened) -> dict[str, torch.Tensor]:
    """Token numbers drawn once, every second row shorter and padded on the right."""
    draw = torch.Generator().manual_seed(0)
    tokenizer = opened.tokenizer
    pad = opened.parts.padding
    pad = pad if pad is not None else tokenizer.pad_token_id or 0
    ids = torch.randint(0, len(tokenizer), (ROWS, TOKENS), generator=draw)
    ids[ids == pad] = (pad + 1) % len(tokenizer)
    mask = torch.ones_like(ids)
    mask[::2, TOKENS - 4 :] = 0
    ids[mask == 0] = pad
    return {"input_ids": ids, "attention_mask": mask}


def logits_of(model: Any, rows: dict[str, torch.Tensor], device: torch.device) -> torch.Tensor:
    """What a model says of rows, on the CPU; of a padded place nothing."""
    with torch.inference_mode():
        found = model(**{name: value.to(device) for name, value in rows.items()}).logits
    logits: torch.Tensor = found.float().cpu()
    return logits[rows["attention_mask"] == 1] if logits.dim() == 3 else logits


def exact_logits(opened: Opened, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same of the trained model, in fp32 arithmetic."""
    model = opened.trained
    with backend_of(opened.job.quantization).exact(model), raised(model):
        return logits_of(model, rows, opened.device)


def difference(opened: Opened, target: Path, with_base: bool, plain: bool) -> tuple[float, float]:
    """The largest difference of a logit, export to trained model, and the largest logit.

    Args:
        target: the export.
        with_base: whether it holds its base.
        plain: whether it needs none.

    Raises:
        Unsupported: it is another model.
    """
    rows = probe_rows(opened)
    wanted = exact_logits(opened, rows)
    # What is run is what was just written here; nothing of it came from elsewhere.
    load = runpy.run_path(str(target / FILE))["load"]
    given = {} if with_base or plain else {"base": str(opened.files), "revision": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of AdaLoRA's final ranks, and loads them
        model = load(device=opened.job.device, **given)
    found = logits_of(model, rows, opened.device)
    apart = float((found - wanted).abs().max())
    largest = float(wanted.abs().max())
    if not apart <= ALLOWED * max(1.0, largest):
        more = (
            ""
            if with_base or plain
            else "; the base's published files may lack a part: --with-base"
        )
        raise Unsupported(
            f"loaded without peftmark it is another model: a logit differs by {apart:.3g}{more}"
        )
    return apart, largest
