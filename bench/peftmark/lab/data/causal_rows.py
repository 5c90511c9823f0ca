"""How a causal language model is shown rows, and what it says of them.

Training batches hold prompt and answer with the prompt masked, so that the loss is of the answer
alone. Classes are ranked by the likelihood of their words, normalised by length (Brown et al. 2020,
arXiv 2005.14165, section 2.4); answers are written greedily, with a fixed number of tokens at most.
Rows of a batch are of similar length and padded on the left where the model goes on from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GenerationConfig

from peftmark.catalog.prompts import Prompt
from peftmark.catalog.task import Example
from peftmark.lab.data.batches import Batch, Encoded
from peftmark.lab.models import Unsupported

IGNORED = -100
"""Label of a token that is not to be predicted, as torch's cross-entropy has it."""

FEWEST_WORDS = 8
"""Words below which a row of a language task (a heading, a blank line) isn't read."""


class Reader:
    """Turns the rows of a task into tokens for a causal language model.

    Args:
        tokenizer: a fast tokenizer.
        max_length: tokens of a row at most: of a text that is read, the first ones; before an
            answer, the last ones of the prompt, whose end holds the question.
        prompt: how a row is shown; None for a text that is read as it is.
        new_tokens: tokens of an answer at most, its end among them; None where classes are ranked,
            whose words have no end.

    Raises:
        Unsupported: a tokenizer without an end of text, or rows too short for an answer.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        prompt: Prompt | None = None,
        new_tokens: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._length = max_length
        self._prompt = prompt
        self._new_tokens = new_tokens
        if tokenizer.eos_token_id is None:
            raise Unsupported("the model's tokenizer has no end of text")
        self.vocabulary = len(tokenizer)
        self.end = int(tokenizer.eos_token_id)
        self._start = tokenizer.bos_token_id
        self.pad = self.end if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        words = prompt.words if prompt is not None else ()
        self.choices = tuple(tuple(ids) for ids in self._tokens([f" {w}" for w in words], False))
        self._room = new_tokens or max(map(len, self.choices), default=0)
        if self._room >= max_length:
            raise Unsupported(
                f"an answer of {self._room} tokens leaves none of {max_length} for its prompt"
            )

    def _tokens(self, texts: Sequence[str], start: bool) -> list[list[int]]:
        if not texts:
            return []
        found = [
            list(ids) for ids in self._tokenizer(list(texts), add_special_tokens=start)["input_ids"]
        ]
        # Special tokens at the start alone: some tokenizers also end a text.
        return [ids[:-1] if start and ids[-1:] == [self.end] else ids for ids in found]

    def encode(self, rows: Sequence[Example]) -> list[Encoded]:
        """Prompt and answer of each row, not padded, with what is to be predicted as labels."""
        if self._prompt is None:
            texts = self._tokens([row.text for row in rows], True)
            cut = [ids[: self._length] for ids in texts]
            return [_encoded(ids, 0) for ids in cut]
        prompts = self.prompts(rows)
        answers = self._tokens([self._prompt.answer(row) for row in rows], False)
        if self._new_tokens is not None:
            answers = [[*ids, self.end][: self._new_tokens] for ids in answers]
        return [
            _encoded(asked["input_ids"] + answer, len(asked["input_ids"]))
            for asked, answer in zip(prompts, answers, strict=True)
        ]

    def prompts(self, rows: Sequence[Example]) -> list[Encoded]:
        """Prompts alone, with room left for the answer."""
        assert self._prompt is not None
        shown = self._tokens([self._prompt.shown(row) for row in rows], True)
        return [_encoded(self._cut(ids, self._length - self._room), 0) for ids in shown]

    def _cut(self, ids: list[int], most: int) -> list[int]:
        """The last tokens, after the one that begins a text, if there is one."""
        if len(ids) <= most:
            return ids
        first = ids[:1] if ids[0] == self._start and most > 1 else []
        return first + ids[len(ids) - most + len(first) :]

    def batch(self, encoded: Sequence[Encoded], labels: Sequence[float] = ()) -> Batch:
        """Pad to the longest row, on the right.

        Args:
            labels: not looked at; what is to be predicted stands in the encoded rows.
        """
        width = max(len(one["input_ids"]) for one in encoded)
        filled = {"input_ids": self.pad, "attention_mask": 0, "labels": IGNORED}
        tensors = {
            name: torch.tensor([one[name] + [fill] * (width - len(one[name])) for one in encoded])
            for name, fill in filled.items()
        }
        wanted = tensors.pop("labels")
        return Batch(tensors, wanted, sum(len(one["input_ids"]) for one in encoded))

    def asking(self, encoded: Sequence[Encoded], labels: Sequence[float] = ()) -> Batch:
        """Prompts for a model to go on from, padded on the left; of classes, with their words."""
        width = max(len(one["input_ids"]) for one in encoded)
        filled = {"input_ids": self.pad, "attention_mask": 0}
        inputs = {
            name: torch.tensor([[fill] * (width - len(one[name])) + one[name] for one in encoded])
            for name, fill in filled.items()
        }
        tokens = sum(len(one["input_ids"]) for one in encoded)
        return Batch(inputs, torch.tensor(list(labels)), tokens, self.choices)

    def texts(self, written: Iterable[Sequence[int]]) -> tuple[str, ...]:
        """What was written, as text."""
        decode = self._tokenizer.decode
        return tuple(decode(list(ids), skip_special_tokens=True).strip() for ids in written)


def _encoded(ids: list[int], prompt: int) -> Encoded:
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": masked(ids, prompt),
    }


def masked(labels: Sequence[int], prompt: int) -> list[int]:
    """Labels of a row whose first `prompt` tokens are not to be predicted."""
    return [IGNORED] * prompt + list(labels[prompt:])


def predicted_tokens(batch: Batch) -> np.ndarray:
    """Tokens of each row that are predicted, shape (rows,); a row's first token has nothing before
    it."""
    counts: np.ndarray = (batch.labels[:, 1:] != IGNORED).sum(dim=1).numpy()
    return counts


def row_likelihoods(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Mean log-likelihood of each row's predicted tokens, shape (rows,), in nats."""
    wanted = batch.labels[:, 1:]
    # Logits of the places alone that some row's answer needs, and in fp32 a row at a time: they
    # would be the largest tensors of the job.
    places = (wanted != IGNORED).any(dim=0).nonzero()[:, 0]
    logits = model(**batch.inputs, logits_to_keep=places).logits
    found = []
    for row, tokens in zip(logits, wanted[:, places], strict=True):
        known = tokens != IGNORED
        chances = row[known].float().log_softmax(-1)
        found.append(chances.gather(-1, tokens[known][:, None]).mean())
    return torch.stack(found)


def class_likelihoods(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Log-likelihood a token of each class's words after each prompt, shape (rows, classes).

    The prompt is read once; the words go on from its keys and values.
    """
    mask, choices = batch.inputs["attention_mask"], batch.choices
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    most = max(map(len, choices))
    read = model(**batch.inputs, position_ids=places, use_cache=most > 1, logits_to_keep=1)
    first = read.logits[:, -1].float().log_softmax(-1)
    totals: torch.Tensor = first[:, [words[0] for words in choices]]
    lengths = torch.tensor([float(len(words)) for words in choices], device=totals.device)
    if most == 1:
        return totals / lengths
    rows, classes = len(mask), len(choices)
    cache: Any = read.past_key_values
    cache.batch_repeat_interleave(classes)
    padded = torch.tensor([[*words, *[0] * (most - len(words))] for words in choices])
    there = torch.tensor([[i < len(words) for i in range(most)] for words in choices])
    padded, there = padded.to(mask.device), there.to(mask.device)
    tails, known = padded.repeat(rows, 1), there.repeat(rows, 1)
    after = places[:, -1:].repeat_interleave(classes, 0) + 1
    said = model(
        input_ids=tails[:, :-1],
        attention_mask=torch.cat([mask.repeat_interleave(classes, 0), known[:, :-1].long()], 1),
        position_ids=after + torch.arange(most - 1, device=mask.device),
        past_key_values=cache,
        use_cache=True,
    )
    chances = said.logits.float().log_softmax(-1).gather(-1, tails[:, 1:, None])[..., 0]
    rest: torch.Tensor = (chances * known[:, 1:]).sum(-1).view(rows, classes)
    return (totals + rest) / lengths


def write(model: Any, batch: Batch, reader: Reader, new_tokens: int) -> list[list[int]]:
    """What the model writes after each prompt, greedily, up to its end of text or `new_tokens`.

    Args:
        batch: prompts padded on the left.

    Returns:
        The tokens of each row, its end of text among them.
    """
    make: Any = GenerationConfig
    settings = make(
        max_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=reader.pad,
        eos_token_id=reader.end,
    )
    written = model.generate(**batch.inputs, generation_config=settings)
    width = batch.inputs["input_ids"].shape[1]
    return [_to_end(ids, reader.end) for ids in written[:, width:].tolist()]


def _to_end(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids


def unigram_likelihood(train: Iterable[Encoded], held: Iterable[Encoded], vocabulary: int) -> float:
    """Log-likelihood a token of a predictor that knows how often a token stands in training rows
    and nothing else; each token counts once more than it was seen."""

    def predicted(rows: Iterable[Encoded]) -> np.ndarray:
        return np.concatenate([np.array(row["input_ids"][1:], dtype=np.int64) for row in rows])

    counts = 1 + np.bincount(predicted(train), minlength=vocabulary)
    return float(np.log(counts / counts.sum())[predicted(held)].mean())


@dataclass(frozen=True)
class Answers:
    """Prompts whose answers are written and compared.

    Attributes:
        batches: prompts padded on the left, in the order of the held-out rows.
        wanted: the right answers.
        reader: turns tokens into text.
        new_tokens: tokens of an answer at most.
        pattern: what counts of an answer for exact match; empty if all of it does.
    """

    batches: list[Batch]
    wanted: tuple[str, ...]
    reader: Reader
    new_tokens: int
    pattern: str = ""
