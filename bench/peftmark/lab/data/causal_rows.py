"""How a causal language model is shown rows, and what it says of them.

Training batches hold prompt and answer with the prompt masked, so that the loss is of the answer
alone, or a conversation with everything but the assistant's turns masked. Classes, and the choices
of a row, are ranked by the likelihood of their words, normalised by length (Brown et al. 2020,
arXiv 2005.14165, section 2.4); answers are written greedily, with a fixed number of tokens at most.
Rows of a batch are of similar length and padded on the left where the model goes on from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GenerationConfig

from peftmark.catalog.positions import first_position
from peftmark.catalog.prompts import Prompt
from peftmark.catalog.task import Example
from peftmark.lab.data.batches import Batch, Choices, Encoded, padded_length
from peftmark.lab.data.conversations import Conversations
from peftmark.lab.models import Unsupported

IGNORED = -100
"""Label of a token that is not to be predicted, as torch's cross-entropy has it."""

ABSENT = -1e9
"""In place of a log-likelihood a token where there is no choice: finite, and below any."""

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
        chat: how conversations become tokens, for rows that are some.
        pad_to: tokens that a batch's length is a multiple of (`padded_length`).

    Attributes:
        ends: tokens that end an answer.

    Raises:
        Unsupported: a tokenizer without an end of text, or rows too short for an answer.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        prompt: Prompt | None = None,
        new_tokens: int | None = None,
        chat: Conversations | None = None,
        pad_to: int | None = None,
    ) -> None:
        self.pad_to = pad_to
        self._tokenizer = tokenizer
        self._chat = chat
        self._length = max_length
        self._prompt = prompt
        self._new_tokens = new_tokens
        if tokenizer.eos_token_id is None:
            raise Unsupported("the model's tokenizer has no end of text")
        self.vocabulary = len(tokenizer)
        self.end = int(tokenizer.eos_token_id)
        self._start = tokenizer.bos_token_id
        self.pad = self.end if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.ends = tuple(dict.fromkeys((self.end, *(chat.ends if chat is not None else ()))))
        words = prompt.spoken if prompt is not None else ()
        self.choices = tuple(tuple(ids) for ids in self._tokens(words, False))
        self._room = self._checked(new_tokens or max(map(len, self.choices), default=0))

    def _checked(self, room: int) -> int:
        """Tokens of an answer, if they leave some for its prompt."""
        if room >= self._length:
            raise Unsupported(
                f"an answer of {room} tokens leaves none of {self._length} for its prompt"
            )
        return room

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
        if self._chat is not None:
            read = (self._chat.read(row.turns, self._length) for row in rows)
            return [_encoded(ids, spoken(ids, said), cut) for ids, said, cut in read]
        if self._prompt is None:
            texts = self._tokens([row.text for row in rows], True)
            most = self._length
            return [_encoded(ids[:most], ids[:most], len(ids) > most) for ids in texts]
        prompts = self.prompts(rows)
        answers = self._tokens([self._prompt.answer(row) for row in rows], False)
        if self._new_tokens is not None:
            answers = [[*ids, self.end][: self._new_tokens] for ids in answers]
        return [
            _encoded(whole, masked(whole, len(whole) - len(answer)), bool(asked["cut"][0]))
            for asked, answer in zip(prompts, answers, strict=True)
            for whole in [asked["input_ids"] + answer]
        ]

    def prompts(self, rows: Sequence[Example]) -> list[Encoded]:
        """Prompts alone, with room left for the answer; beside each the choices of its row."""
        if self._chat is not None:
            most = self._length - self._room
            asked = (self._chat.prompt(row.turns, most) for row in rows)
            return [_encoded(ids, ids) for ids in asked]
        assert self._prompt is not None
        shown = self._tokens([self._prompt.shown(row) for row in rows], True)
        said = [choice for row in rows for choice in self._prompt.choices(row)]
        tokens = iter(self._tokens(said, False))
        found = []
        for row, ids in zip(rows, shown, strict=True):
            choices = [next(tokens) for _ in row.choices]
            if not ids or not all(choices):
                raise Unsupported("a row's prompt or one of its choices has no tokens")
            room = self._checked(max(map(len, choices))) if choices else self._room
            cut = self._cut(ids, self._length - room)
            beside = {"choices": list(chain(*choices)), "choice_lengths": list(map(len, choices))}
            one = _encoded(cut, cut, len(cut) < len(ids))
            found.append(one | (beside if choices else {}))
        return found

    def _cut(self, ids: list[int], most: int) -> list[int]:
        """The last tokens, after the one that begins a text, if there is one."""
        if len(ids) <= most:
            return ids
        first = ids[:1] if ids[0] == self._start and most > 1 else []
        return first + ids[len(ids) - most + len(first) :]

    def cut(self, rows: Sequence[Example], encoded: Sequence[Encoded]) -> list[bool]:
        """Which rows were longer than there is room for."""
        return [bool(one["cut"][0]) for one in encoded]

    def batch(self, encoded: Sequence[Encoded], labels: Sequence[float] = ()) -> Batch:
        """Pad to the longest row, or up to a multiple, on the right.

        Args:
            labels: not looked at; what is to be predicted stands in the encoded rows.
        """
        width = self.length(max(len(one["input_ids"]) for one in encoded))
        filled = {"input_ids": self.pad, "attention_mask": 0, "labels": IGNORED}
        tensors = {
            name: torch.tensor([one[name] + [fill] * (width - len(one[name])) for one in encoded])
            for name, fill in filled.items()
        }
        wanted = tensors.pop("labels")
        real = sum(len(one["input_ids"]) for one in encoded)
        return Batch(tensors, wanted, real, pad_to=self.pad_to)

    def packed(self, encoded: Sequence[Encoded]) -> Batch:
        """Rows end to end in one, shape (1, tokens of all), without padding.

        There is no mask: transformers keeps attention within a row by positions that begin again
        (`peftmark.catalog.packing` names the models that it does it for). No row's first token is
        predicted, as none is of rows one below the other.
        """
        lengths = tuple(len(one["input_ids"]) for one in encoded)
        wanted = chain.from_iterable([IGNORED, *one["labels"][1:]] for one in encoded)
        inputs = {
            "input_ids": torch.tensor(
                [[*chain.from_iterable(one["input_ids"] for one in encoded)]]
            ),
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        }
        return Batch(inputs, torch.tensor([[*wanted]]), sum(lengths), row_tokens=lengths)

    def asking(self, encoded: Sequence[Encoded], labels: Sequence[float] = ()) -> Batch:
        """Prompts for a model to go on from, padded on the left, with the words of the classes or
        the choices of each row."""
        width = self.length(max(len(one["input_ids"]) for one in encoded))
        filled = {"input_ids": self.pad, "attention_mask": 0}
        inputs = {
            name: torch.tensor([[fill] * (width - len(one[name])) + one[name] for one in encoded])
            for name, fill in filled.items()
        }
        tokens = sum(len(one["input_ids"]) for one in encoded)
        own = tuple(_choices(one) for one in encoded) if "choices" in encoded[0] else ()
        return Batch(inputs, torch.tensor(list(labels)), tokens, self.choices, own, self.pad_to)

    def length(self, longest: int) -> int:
        """Tokens that a batch is padded to, by those of its longest row."""
        return padded_length(longest, self.pad_to, self._length)

    def texts(self, written: Iterable[Sequence[int]]) -> tuple[str, ...]:
        """What was written, as text."""
        decode = self._tokenizer.decode
        said = ([i for i in ids if i not in self.ends] for ids in written)
        return tuple(decode(ids, skip_special_tokens=True).strip() for ids in said)


def right_answer(row: Example) -> str:
    """The text that a model is to write for a row."""
    return row.turns[-1][1] if row.turns else str(row.pair)


def _choices(encoded: Encoded) -> Choices:
    ids = iter(encoded["choices"])
    return tuple(tuple(islice(ids, length)) for length in encoded["choice_lengths"])


def _encoded(ids: list[int], labels: list[int], cut: bool = False) -> Encoded:
    """A row's tokens, with what is to be predicted, and whether some were left out."""
    mask = [1] * len(ids)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "cut": [int(cut)]}


def masked(labels: Sequence[int], prompt: int) -> list[int]:
    """Labels of a row whose first `prompt` tokens are not to be predicted."""
    return [IGNORED] * prompt + list(labels[prompt:])


def spoken(labels: Sequence[int], said: Sequence[bool]) -> list[int]:
    """Labels of a conversation, of which only what the assistant says is to be predicted."""
    return [label if by else IGNORED for label, by in zip(labels, said, strict=True)]


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


def choice_likelihoods(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Log-likelihood a token of what is asked about each row after its prompt, shape (rows, most
    choices of a row): the words of each class, or the row's own choices. `ABSENT` where a row has
    fewer choices.

    The prompt is read once; the words go on from its keys and values.
    """
    mask = batch.inputs["attention_mask"]
    asked = [(row, at, ids) for row, of in enumerate(batch.asked) for at, ids in enumerate(of)]
    rows = torch.tensor([row for row, _, _ in asked], device=mask.device)
    places = token_positions(model, mask)
    most = max(len(ids) for _, _, ids in asked)
    read = model(**batch.inputs, position_ids=places, use_cache=most > 1, logits_to_keep=1)
    first = read.logits[:, -1].float().log_softmax(-1)
    totals: torch.Tensor = first[rows, [ids[0] for _, _, ids in asked]]
    lengths = torch.tensor([float(len(ids)) for _, _, ids in asked], device=totals.device)
    if most > 1:
        tails = torch.tensor([[*ids, *[0] * (most - len(ids))] for _, _, ids in asked])
        known = torch.tensor([[i < len(ids) for i in range(most)] for _, _, ids in asked])
        tails, known = tails.to(mask.device), known.to(mask.device)
        cache: Any = read.past_key_values
        cache.batch_select_indices(rows)
        said = model(
            input_ids=tails[:, :-1],
            attention_mask=torch.cat([mask[rows], known[:, :-1].long()], 1),
            position_ids=places[rows, -1:] + 1 + torch.arange(most - 1, device=mask.device),
            past_key_values=cache,
            use_cache=True,
        )
        chances = said.logits.float().log_softmax(-1).gather(-1, tails[:, 1:, None])[..., 0]
        totals = totals + (chances * known[:, 1:]).sum(-1)
    width = max(map(len, batch.asked))
    found = torch.full((len(mask), width), ABSENT, device=totals.device)
    found[rows, [at for _, at, _ in asked]] = totals / lengths
    return found


def token_positions(model: Any, mask: torch.Tensor) -> torch.Tensor:
    """The position of each token, (rows, tokens), where rows are padded in front."""
    first = first_position(model.config.model_type, model.config.pad_token_id)
    return (mask.cumsum(-1) - 1).clamp(min=0) + first


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
        eos_token_id=list(reader.ends),
    )
    given = dict(batch.inputs)
    if first_position(model.config.model_type, model.config.pad_token_id):
        # transformers would count from 0, where the model was trained from behind its padding.
        given["position_ids"] = token_positions(model, batch.inputs["attention_mask"])
    written = model.generate(**given, generation_config=settings)
    width = batch.inputs["input_ids"].shape[1]
    return [_to_end(ids, reader.ends) for ids in written[:, width:].tolist()]


def _to_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    first = next((at for at, one in enumerate(ids) if one in ends), len(ids))
    return ids[: first + 1]


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
