"""What safetensors files hold, told from their headers, and values in them that are no numbers.

The form is simple and public: eight bytes with the length of a JSON header, the header, then the
tensors one after the other. Nothing of it can run code, and nothing of it needs torch.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.core.errors import AssetError
from peftmark.core.shown import quoted
from peftmark.sources.stored_form import unreadable

MOST_HEADER = 100_000_000
"""Bytes that a header may have, as the library that reads the weights has it."""
EMBEDDINGS = (
    "word_embeddings.weight",
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)
"""What architectures call the table with a row for each token."""
_EXPONENT = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F800000, "F64": 0x7FF0000000000000}
"""Type -> the bits that are all ones in an infinity or NaN, and in no number."""
_BLOCK = 1 << 24


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        kind: its type as the form names it, such as F32.
        start, end: its bytes in the file.
    """

    name: str
    file: Path
    kind: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def tensors_of(files: Sequence[Path]) -> list[Tensor]:
    """Every tensor of some files.

    Raises:
        AssetError: a file is damaged, or is no safetensors file.
    """
    return [tensor for file in files for tensor in _tensors(file)]


def _tensors(file: Path) -> Iterator[Tensor]:
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(MOST_HEADER, size):
                raise ValueError(f"its header would have {length:,} bytes")
            header: dict[str, Any] = json.loads(opened.read(length))
        begin = 8 + length
        for name, one in header.items():
            if name == "__metadata__":
                continue
            start, end = map(int, one["data_offsets"])
            if begin + end > size:
                raise ValueError(f"it ends before the tensor {quoted(name)} does: {size:,} bytes")
            shape = tuple(map(int, one["shape"]))
            yield Tensor(name, file, str(one["dtype"]), shape, begin + start, begin + end)
    except OSError as error:
        why = error.strerror or str(error)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        why = str(error) or type(error).__name__
    else:
        return
    raise AssetError(f"{file} is no whole safetensors file: {why}", "Copy or fetch it again.")


def embedding_rows(tensors: Sequence[Tensor]) -> int | None:
    """Rows of the table of tokens; None where none is recognised."""
    rows = [t.shape[0] for t in tensors if t.name.endswith(EMBEDDINGS) and len(t.shape) == 2]
    return max(rows, default=None)


def refuse_packed(tensors: Sequence[Tensor]) -> None:
    """Refuse weights in a type that stands for others by constants beside it: loaded as they are,
    their numbers would be taken for the weights.

    Raises:
        AssetError: with the first such tensor.
    """
    for tensor in tensors:
        if tensor.name.endswith("weight") and tensor.kind not in _EXPONENT:
            seen = f"{quoted(tensor.name)} has numbers of type {tensor.kind}"
            raise unreadable(tensor.file, seen, "and its configuration doesn't say by what")


def refuse_no_numbers(tensors: Sequence[Tensor]) -> None:
    """Refuse weights with an infinity or NaN in them.

    Raises:
        AssetError: with the first such tensor.
    """
    for tensor in tensors:
        if bad := _no_numbers(tensor):
            hint = "; fp16 holds nothing above 65,504" if tensor.kind == "F16" else ""
            raise AssetError(
                f"{tensor.file}: {bad:,} of the {tensor.count:,} values of "
                f"{quoted(tensor.name)} ({tensor.kind}) are infinite or no number{hint}",
                "Nothing trained on them would be a number either. Save the weights again from "
                "where they are whole, as bf16 or fp32.",
            )


def _no_numbers(tensor: Tensor) -> int:
    import numpy as np

    bits = _EXPONENT.get(tensor.kind)
    if bits is None:
        return 0
    kind = np.dtype(f"<u{ {'F16': 2, 'BF16': 2, 'F32': 4, 'F64': 8}[tensor.kind] }")
    bad, mask = 0, kind.type(bits)
    with tensor.file.open("rb") as opened:
        opened.seek(tensor.start)
        left = tensor.end - tensor.start
        while left > 0:
            block = opened.read(min(_BLOCK, left))
            if not block:
                break
            left -= len(block)
            values = np.frombuffer(block, dtype=kind)
            bad += int(np.count_nonzero((values & mask) == mask))
    return bad
