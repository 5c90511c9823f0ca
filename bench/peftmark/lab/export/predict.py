"""What a kept adapter says of new rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from peftmark.catalog.task import Example
from peftmark.lab import metrics
from peftmark.lab.data.causal_rows import ABSENT, Reader, write
from peftmark.lab.export.opened import Opened
from peftmark.lab.number_types import autocast
from peftmark.lab.scoring import outputs_of

Said = dict[str, Any]
"""`prediction`, and beside it what is known of how sure it is."""


def predict(opened: Opened, rows: Sequence[Example]) -> list[Said]:
    """What the model says of rows, in their order, in the precision that it was trained in.

    A class is its name; several labels are a list of names; a score is on the scale of the
    training rows; a choice is its text; of a text it is the mean log-likelihood of a token (nats).
    """
    encoder = opened.encoder(any(row.turns for row in rows))
    size = opened.job.recipe.eval_batch_size
    found: list[Said] = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        with torch.inference_mode():
            found += _of_part(opened, encoder, part)
    return found


def _of_part(opened: Opened, encoder: Any, rows: Sequence[Example]) -> Iterator[Said]:
    kind, model, device = opened.task.kind, opened.trained, opened.device
    if kind in ("ranking", "multiple-choice", "instruction"):
        batch = encoder.asking(encoder.prompts(rows)).to(device)
    else:
        labels = [[0.0] * len(opened.task.labels)] if kind == "multi-label" else [0]
        batch = encoder.batch(encoder.encode(rows), labels * len(rows)).to(device)
    if kind == "instruction":
        return _written(opened, encoder, batch)
    outputs = outputs_of(model, batch, opened.job, device).cpu().numpy()
    if kind == "language":
        return ({"prediction": float(one)} for one in outputs[:, 0])
    if kind == "regression":
        kept = opened.kept
        return ({"prediction": float(one) * kept.scale + kept.mean} for one in outputs[:, 0])
    if kind == "multi-label":
        return (_several(one, opened.task.labels) for one in metrics.sigmoid(outputs))
    names = [row.choices or opened.task.labels for row in rows]
    return (_one(logits, of) for logits, of in zip(outputs, names, strict=True))


def _one(logits: np.ndarray, names: Sequence[str]) -> Said:
    """The likeliest of some names, with its probability."""
    shares = metrics.softmax(logits[None, logits > ABSENT / 2])[0]
    best = int(shares.argmax())
    return {"prediction": names[best], "probability": float(shares[best])}


def _several(shares: np.ndarray, names: Sequence[str]) -> Said:
    """Every label that is likelier there than not, with the probability of each label."""
    chances = {name: float(share) for name, share in zip(names, shares, strict=True)}
    return {"prediction": [n for n, p in chances.items() if p >= 0.5], "probability": chances}


def _written(opened: Opened, reader: Reader, batch: Any) -> Iterator[Said]:
    asked = opened.job.causal
    assert asked is not None and asked.new_tokens is not None
    with autocast(opened.job, opened.device):
        tokens = write(opened.trained, batch, reader, asked.new_tokens)
    return ({"prediction": text} for text in reader.texts(tokens))
