"""Exports as somebody without peftmark loads them, beside what the trained model says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import outside


@dataclass(frozen=True)
class Export:
    """An export and what it should say.

    Attributes:
        folder: its files.
        base: folder of the base it needs; None if it needs none.
        rows: token numbers and their mask.
        wanted: what the trained model says of them.
    """

    folder: Path
    base: str | None
    rows: dict[str, torch.Tensor]
    wanted: torch.Tensor


def loaded_outside(scratch: Path, exports: Sequence[Export]) -> list[float]:
    """Largest difference of a logit of each, loaded in one process without peftmark."""
    asked = []
    for number, one in enumerate(exports):
        rows, to = scratch / f"{number}.rows", scratch / f"{number}.logits"
        save_file(one.rows, rows)
        where = {"folder": str(one.folder), "base": one.base}
        asked.append({**where, "rows": str(rows), "to": str(to)})
    ended = subprocess.run(
        [sys.executable, "-P", outside.__file__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.split()[-1] == "0", "modules of peftmark were loaded"
    found = []
    for number, one in enumerate(exports):
        there = load_file(scratch / f"{number}.logits")["logits"]
        if there.dim() == 3:
            there = there[one.rows["attention_mask"] == 1]
        found.append(float((there - one.wanted).abs().max()))
    return found
