"""Token numbers of a task's rows, made once for a tokenizer and a length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from peftmark.catalog.task import Example
from peftmark.lab.cache import keep, made_by
from peftmark.sources.model_folder import all_hashes
from peftmark.sources.rows import TaskData

Encode = Callable[[Sequence[Example]], list[dict[str, list[int]]]]

_FILE = "tokens.safetensors"
_ENCODER = str(Path(__file__).with_name("batches.py"))


class TokenTable:
    """Token lists of every row of a task.

    Args:
        rows: distinct rows, in the order of the table.
        arrays: "offsets", shape (rows + 1,), and per model input the lists one after the other.
    """

    def __init__(self, rows: Sequence[Example], arrays: dict[str, np.ndarray]) -> None:
        self._place = {row.read: i for i, row in enumerate(rows)}
        self._offsets = arrays.pop("offsets")
        self._arrays = arrays

    def encode(self, rows: Sequence[Example]) -> list[dict[str, list[int]]]:
        """Token lists of each row, special tokens included, not padded."""
        found = []
        for row in rows:
            place = self._place[row.read]
            start, end = self._offsets[place], self._offsets[place + 1]
            found.append({name: v[start:end].tolist() for name, v in self._arrays.items()})
        return found


def token_table(
    data: TaskData, folder: Path, max_length: int, encode: Encode, cache: Path
) -> TokenTable | None:
    """The table of both splits of a task; None if the cache can't be written.

    Args:
        folder: files of the model, its tokenizer's among them.
        encode: what the table remembers.
    """
    rows = list({r.read: r for split in (data.train, data.eval) for r in split}.values())

    def make(target: Path) -> dict[str, Any]:
        encoded = encode(rows)
        names = list(encoded[0])
        lengths = [len(item[names[0]]) for item in encoded]
        arrays = {
            name: np.concatenate([np.array(e[name], dtype=np.int32) for e in encoded])
            for name in names
        }
        arrays["offsets"] = np.concatenate([[0], np.cumsum(lengths)])
        save_file(arrays, target / _FILE)
        return {"rows": len(rows)}

    identity = {
        "data": data.fingerprint,
        "tokenizer": all_hashes(folder, weights=False),
        "max_length": max_length,
        "by": made_by("transformers", "tokenizers", code=_ENCODER),
    }
    kept = keep(cache, "tokens", identity, make)
    return TokenTable(rows, load_file(kept.folder / _FILE)) if kept is not None else None
