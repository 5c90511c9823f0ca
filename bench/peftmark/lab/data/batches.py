"""Rows to padded batches: drawn by seed, grouped by length, padded to the longest of the batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftmark.catalog.task import Example
from peftmark.lab.data.token_cache import TokenTable, token_table
from peftmark.lab.last_token import padding_of
from peftmark.sources.rows import TaskData

Encoded = dict[str, list[int]]
Choices = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Shape:
    """What of a batch decides the memory of a step.

    Attributes:
        rows: rows of the batch.
        tokens: tokens of its longest row.
        padded: whether shorter rows are padded to it; without padding a model skips the mask.
    """

    rows: int
    tokens: int
    padded: bool = True


@dataclass(frozen=True)
class Batch:
    """One padded batch.

    Attributes:
        inputs: model inputs, each of shape (rows, longest row in tokens), int64.
        labels: shape (rows,), int64 classes or float32 scores; of several labels shape (rows,
            classes), float32 ones and zeros; of text to be predicted shape (rows, longest row in
            tokens), int64 tokens, -100 where none is.
        tokens: tokens without padding.
        choices: tokens of each class's words, where classes are ranked by their likelihood after
            the inputs.
        row_choices: tokens of each choice of each row, where rows have choices of their own.
        pad_to: tokens that its length is a multiple of, and that of its parts; None where it is
            that of the longest row.
        row_tokens: tokens of each of the task's rows, where they stand end to end in one row of
            the tensors; empty where each is a row of its own.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    tokens: int
    choices: Choices = ()
    row_choices: tuple[Choices, ...] = ()
    pad_to: int | None = None
    row_tokens: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the task that it holds."""
        return len(self.row_tokens) or self.shape.rows

    @property
    def text(self) -> bool:
        """Whether the labels are tokens to be predicted."""
        return self.labels.dim() == 2 and not self.labels.is_floating_point()

    @property
    def asked(self) -> tuple[Choices, ...]:
        """What is to be ranked after each row; empty where nothing is."""
        return self.row_choices or (self.choices,) * (self.shape.rows if self.choices else 0)

    @property
    def shape(self) -> Shape:
        """The batch without its values."""
        rows, tokens = next(iter(self.inputs.values())).shape[:2]
        return Shape(rows, tokens, self.tokens < rows * tokens)

    def parts(self, rows: int) -> list[Batch]:
        """The batch as batches of so many rows at most, each cut at its own length."""
        if rows >= self.rows:
            return [self]
        cut = self._packed_part if self.row_tokens else self._part
        return [cut(slice(start, start + rows)) for start in range(0, self.rows, rows)]

    def _packed_part(self, rows: slice) -> Batch:
        start, length = sum(self.row_tokens[: rows.start]), sum(self.row_tokens[rows])
        places = slice(start, start + length)
        return replace(
            self,
            inputs={name: value[:, places] for name, value in self.inputs.items()},
            labels=self.labels[:, places],
            tokens=length,
            row_tokens=self.row_tokens[rows],
        )

    def _part(self, rows: slice) -> Batch:
        mask = self.inputs.get("attention_mask")
        if mask is None:
            mask = torch.ones_like(next(iter(self.inputs.values())))
        real = mask[rows].sum(1)
        length = padded_length(int(real.max()), self.pad_to, self.shape.tokens)
        # Rows that a model goes on from are padded on the left, others on the right.
        places = slice(-length, None) if self.asked else slice(length)
        return replace(
            self,
            inputs={name: value[rows, places] for name, value in self.inputs.items()},
            labels=self.labels[rows, places] if self.text else self.labels[rows],
            tokens=int(real.sum()),
            row_choices=self.row_choices[rows],
        )

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        moved = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        labels = self.labels.to(device, non_blocking=True)
        return replace(self, inputs=moved, labels=labels)


def padded_length(longest: int, pad_to: int | None, most: int) -> int:
    """Tokens that a batch is padded to: of its longest row, or the next multiple of `pad_to`, but
    none beyond `most` on account of that."""
    if pad_to is None:
        return longest
    return max(longest, min(-(-longest // pad_to) * pad_to, most))


def draw_rows(rows: int, wanted: int, generator: np.random.Generator) -> np.ndarray:
    """`wanted` row numbers: whole shuffled passes over the rows, one after the other."""
    passes = [generator.permutation(rows) for _ in range(-(-wanted // rows))]
    return np.concatenate(passes)[:wanted]


def group_by_length(
    drawn: np.ndarray,
    lengths: dict[int, int],
    batch_size: int,
    window_batches: int,
    generator: np.random.Generator,
) -> list[list[int]]:
    """Cut the drawn rows into batches of similar length.

    Each window of `window_batches` batches is sorted by length, cut into batches, and its batches
    are shuffled, so that padding is small while the order of lengths stays random.

    Args:
        drawn: row numbers in drawn order; a multiple of `batch_size`.
        lengths: row number -> tokens.
    """
    batches: list[list[int]] = []
    window = batch_size * window_batches
    for start in range(0, len(drawn), window):
        rows = [int(i) for i in drawn[start : start + window]]
        if window_batches > 1:
            rows.sort(key=lambda i: lengths[i])
        cut = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        batches += [cut[int(i)] for i in generator.permutation(len(cut))]
    return batches


def order_hash(batches: Sequence[Sequence[int]]) -> str:
    """SHA-256 over the row numbers of every batch in order."""
    text = ";".join(",".join(map(str, batch)) for batch in batches)
    return hashlib.sha256(text.encode()).hexdigest()


class Encoder:
    """Tokenises rows and pads them into batches.

    Args:
        tokenizer: a fast tokenizer.
        max_length: tokens a row is cut at.
        label_type: torch type of the labels.
        pad_to: tokens that a batch's length is a multiple of (`padded_length`).
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        label_type: torch.dtype,
        pad_to: int | None = None,
    ) -> None:
        self.pad_to = pad_to
        self._tokenizer = tokenizer
        self._known: TokenTable | None = None
        self._max_length = max_length
        self._label_type = label_type
        self._pad = {
            "input_ids": padding_of(tokenizer) or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0) or 0,
            "attention_mask": 0,
        }

    def length(self, longest: int) -> int:
        """Tokens that a batch is padded to, by those of its longest row."""
        return padded_length(longest, self.pad_to, self._max_length)

    def remember(self, data: TaskData, folder: Path, cache: Path) -> None:
        """Look rows of a task up from now on, in a table that all jobs share.

        Args:
            folder: files of the tokenizer.
        """
        self._known = token_table(data, folder, self._max_length, self.encode, cache)

    def encode(self, rows: Sequence[Example]) -> list[Encoded]:
        """Token lists of each row, special tokens included, not padded."""
        if not rows:
            return []
        if self._known is not None:
            return self._known.encode(rows)
        encoded = self._tokenized(rows, self._max_length)
        names = [name for name in encoded if name in self._pad]
        return [{name: encoded[name][i] for name in names} for i in range(len(rows))]

    def _tokenized(self, rows: Sequence[Example], most: int) -> Any:
        pairs = [row.pair for row in rows] if rows[0].pair is not None else None
        texts = [row.text for row in rows]
        return self._tokenizer(texts, pairs, truncation=True, max_length=most)

    def cut(self, rows: Sequence[Example], encoded: Sequence[Encoded]) -> list[bool]:
        """Which rows were longer than there is room for: those that would take one token more."""
        lengths = [len(item["input_ids"]) for item in encoded]
        full = [at for at, length in enumerate(lengths) if length >= self._max_length]
        if not full:
            return [False] * len(rows)
        longer = self._tokenized([rows[at] for at in full], self._max_length + 1)["input_ids"]
        cut = {at for at, ids in zip(full, longer, strict=True) if len(ids) > lengths[at]}
        return [at in cut for at in range(len(rows))]

    def batch(self, encoded: Sequence[Encoded], labels: Sequence[Any]) -> Batch:
        """Pad to the longest row, or up to a multiple.

        Args:
            labels: a class or a score a row, or a list of ones and zeros.
        """
        width = self.length(max(len(item["input_ids"]) for item in encoded))
        inputs = {
            name: torch.tensor(
                [item[name] + [self._pad[name]] * (width - len(item[name])) for item in encoded]
            )
            for name in encoded[0]
        }
        tokens = sum(len(item["input_ids"]) for item in encoded)
        wanted = torch.tensor(labels, dtype=self._label_type)
        return Batch(inputs, wanted, tokens, pad_to=self.pad_to)


def evaluation_batches(
    encode: Callable[[Sequence[Example]], list[Encoded]],
    join: Callable[[Sequence[Encoded], Sequence[Any]], Batch],
    rows: Sequence[Example],
    batch_size: int,
    label_of: Callable[[Example], Any] = lambda row: row.label,
) -> tuple[list[Batch], list[Example]]:
    """Evaluation rows sorted by length and cut into fixed batches, and the rows in that order.

    Args:
        encode: an encoder's way from rows to tokens.
        join: its way from tokens and labels to a batch.
        label_of: what it takes for a row's label.
    """
    encoded = encode(rows)
    order = sorted(range(len(rows)), key=lambda i: len(encoded[i]["input_ids"]))
    batches = [
        join([encoded[i] for i in part], [label_of(rows[i]) for i in part])
        for part in _parts(order, batch_size)
    ]
    return batches, [rows[i] for i in order]


def _parts(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def subset(rows: Sequence[Example], count: int | None) -> Sequence[Example]:
    """The first `count` rows in the order of a hash of their text: the same for every seed.

    A plain head of the file would be one genre of a sorted data set (STS-B's first rows are all
    image captions, the easiest kind).
    """
    if count is None or count >= len(rows):
        return rows

    def key(row: Example) -> bytes:
        more = row.read[2:]
        tail = f"\n{json.dumps(more, ensure_ascii=False)}" if more else ""
        return hashlib.sha256(f"{row.text}\n{row.pair}{tail}".encode()).digest()

    return sorted(rows, key=key)[:count]
