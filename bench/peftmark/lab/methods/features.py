"""What the reference lines without fine-tuning look at: words, or a frozen encoder's embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler
from torch import nn

from peftmark.catalog.task import Example
from peftmark.lab.data.batches import Batch
from peftmark.lab.data.held_out import HeldOut
from peftmark.lab.methods.estimator import Matrix
from peftmark.lab.models import Unsupported
from peftmark.lab.number_types import autocast
from peftmark.lab.step import Diverged
from peftmark.record.job import Job

MOST_WORDS = 100_000
"""Terms that are kept, the most frequent ones (assumption): beyond, the weights of a task with many
classes take gigabytes and the rarest pairs of words stand in one row each."""

WORD = r"(?u)\b\w+\b"
"""A word. scikit-learn's own pattern drops words of one character, "I" and "5" among them."""


class Features(Protocol):
    """Numbers of rows, as learned from the training rows."""

    def of(self, held: HeldOut) -> Matrix:
        """Features of rows, shape (rows, features), in their order."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """What was learned, as arrays: parameters as floats, anything else as bytes."""
        ...


# --- words --------------------------------------------------------------------------------------


def _vectorizer(vocabulary: Sequence[str] | None = None) -> Any:
    most = None if vocabulary is not None else MOST_WORDS
    return TfidfVectorizer(
        ngram_range=(1, 2), token_pattern=WORD, max_features=most, vocabulary=vocabulary
    )


@dataclass(frozen=True)
class Words:
    """TF-IDF of words and pairs of words (Salton and Buckley 1988), rows of Euclidean length 1.

    Of tasks with two texts both have the same terms and weights, and their features stand side by
    side.
    """

    vectorizer: Any

    def of(self, held: HeldOut) -> Matrix:
        """TF-IDF of each text's terms, sparse."""
        parts = [self.vectorizer.transform(texts) for texts in _columns(held.examples)]
        return sparse.hstack(parts, format="csr")

    def arrays(self) -> dict[str, np.ndarray]:
        """Inverse document frequencies, and the terms as text, one a line."""
        terms = "\n".join(self.vectorizer.get_feature_names_out())
        return {
            "idf": np.asarray(self.vectorizer.idf_, dtype=np.float64),
            "terms": np.frombuffer(terms.encode(), dtype=np.uint8),
        }


def learn_words(rows: HeldOut) -> Words:
    """Terms and their weights from the training rows.

    Raises:
        Unsupported: no row has a word.
    """
    vectorizer = _vectorizer()
    try:
        vectorizer.fit([text for texts in _columns(rows.examples) for text in texts])
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        raise Unsupported("the training rows have no words to count") from error
    return Words(vectorizer)


def words_from(arrays: Mapping[str, np.ndarray]) -> Words:
    """The inverse of `Words.arrays`."""
    terms = arrays["terms"].tobytes().decode().split("\n")
    vectorizer = _vectorizer(terms)
    vectorizer.idf_ = arrays["idf"]
    return Words(vectorizer)


def _columns(rows: Sequence[Example]) -> list[list[str]]:
    """The texts of the rows, one list a text of a row."""
    first = [row.text for row in rows]
    return [first] if rows[0].pair is None else [first, [str(row.pair) for row in rows]]


# --- embeddings ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frozen:
    """A frozen encoder and how it is run.

    Attributes:
        encoder: the base without classifier, on the device; its pooler is not read.
    """

    encoder: nn.Module
    job: Job
    device: torch.device

    def embed(self, held: HeldOut) -> np.ndarray:
        """Mean of the last hidden states over each row's tokens, special ones included and padding
        not, as sentence encoders take it (Reimers and Gurevych 2019, arXiv 1908.10084); two texts
        are read as one row. Shape (rows, width), float64.

        Raises:
            Diverged: one is no finite number.
        """
        self.encoder.eval()
        with torch.inference_mode():
            parts = [self._mean(batch.to(self.device)).cpu() for batch in held.batches]
        found = torch.cat(parts).double().numpy()
        if not np.isfinite(found).all():
            raise Diverged("the embeddings are not finite")
        return found

    def _mean(self, batch: Batch) -> torch.Tensor:
        with autocast(self.job, self.device):
            hidden = self.encoder(**batch.inputs).last_hidden_state
        real = batch.inputs["attention_mask"][..., None].float()
        mean: torch.Tensor = (hidden.float() * real).sum(1) / real.sum(1)
        return mean


@dataclass(frozen=True)
class Embeddings:
    """Embeddings, each dimension standardised by the training rows.

    A few dimensions of an encoder's states are far larger than the others (Timkey and van Schijndel
    2021, arXiv 2109.04404); as they are, one C would hardly bind those and rule out the rest.
    """

    frozen: Frozen
    mean: np.ndarray
    scale: np.ndarray

    def of(self, held: HeldOut) -> Matrix:
        """Standardised embeddings."""
        return self.standardised(self.frozen.embed(held))

    def standardised(self, embedded: np.ndarray) -> np.ndarray:
        """Embeddings less the mean, over the scale."""
        found: np.ndarray = (embedded - self.mean) / self.scale
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Mean and scale."""
        return {"mean": self.mean, "scale": self.scale}


def learn_embeddings(frozen: Frozen, embedded: np.ndarray) -> Embeddings:
    """Mean and scale from the embeddings of the training rows; a dimension that is the same in all
    of them has scale 1."""
    scaler = StandardScaler().fit(embedded)
    return Embeddings(frozen, scaler.mean_, scaler.scale_)


def embeddings_from(frozen: Frozen, arrays: Mapping[str, np.ndarray]) -> Embeddings:
    """The inverse of `Embeddings.arrays`."""
    return Embeddings(frozen, arrays["mean"], arrays["scale"])
