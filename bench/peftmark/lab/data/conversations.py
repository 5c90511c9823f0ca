"""Conversations as tokens: a tokenizer's own chat template, and which tokens the assistant says.

The tokens are those that the template gives for the whole conversation. What the assistant says is
found in one of two ways: by the template's own `{% generation %}` markers where it has some, else
by prefixes. What the template gives for the turns before the assistant's, with the prompt that asks
for it, has to begin the conversation, and so has what it gives up to the end of that turn; what
stands between is the assistant's: its words and what ends them, without the header. A template that
writes a turn otherwise once there are later ones is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from peftmark.lab.errors import Unsupported

Turns = Sequence[tuple[str, str]]
"""(role, content) of each turn."""

ASSISTANT = "assistant"

_MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = (("user", "question"), (ASSISTANT, "answer"))


class Conversations:
    """Turns conversations into tokens.

    Args:
        tokenizer: a fast tokenizer.

    Attributes:
        ends: the token that ends an assistant's turn, as the template writes it; empty where it
            writes no token of that kind.

    Raises:
        Unsupported: there is no chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        try:
            self._template = tokenizer.get_chat_template()
        except ValueError as error:
            raise Unsupported(
                "the model's tokenizer has no chat template of its own, and none is made up; "
                "give the rows as prompt and completion, or take a model that was made for "
                "conversations"
            ) from error
        self._marked = _MARKERS.search(self._template) is not None
        self.ends = self._end()

    def read(self, turns: Turns, most: int) -> tuple[list[int], list[bool], bool]:
        """Tokens of a conversation, which of them the assistant says, and whether it was cut.

        A conversation that is too long loses whole turns at its start; if its last two turns alone
        are too long, the first of their tokens. What begins a text stays.

        Args:
            most: tokens at most.

        Raises:
            Unsupported: the template refuses the conversation or writes it in a way that hides
                what the assistant says, or the assistant says nothing in it.
        """
        if not turns or turns[-1][0] != ASSISTANT:
            raise Unsupported("a conversation does not end with a turn of the assistant")
        ids = self._tokens(turns)
        said = self._by_markers(turns) if self._marked else None
        if said is None:
            said = self._by_prefixes(turns, ids)
        kept = self._kept(turns, ids, most)
        cut = len(kept) < len(ids)
        ids, said = [ids[at] for at in kept], [said[at] for at in kept]
        if not any(said[1:]):
            raise Unsupported(
                f"of a conversation cut at {most} tokens nothing is left that the assistant says; "
                "raise max_length"
            )
        return ids, said, cut

    def prompt(self, turns: Turns, most: int) -> list[int]:
        """Tokens of everything before the last turn, with what asks for it, cut as in `read`."""
        ids = self._tokens(turns[:-1], asking=True)
        if not ids:
            raise Unsupported("the chat template gives nothing to ask for a last turn")
        return [ids[at] for at in self._kept(turns[:-1], ids, most)]

    def _by_markers(self, turns: Turns) -> list[bool] | None:
        """What the template marks; None if that is less than every turn of the assistant.

        transformers gives up at the first turn that begins within no token.
        """
        found = self._apply(turns, return_assistant_tokens_mask=True)
        said = [bool(one) for one in found["assistant_masks"][0]]
        runs = sum(marked for marked, _ in groupby(said))
        wanted = sum(role == ASSISTANT for role, _ in turns)
        return said if runs >= wanted else None

    def _by_prefixes(self, turns: Turns, ids: Sequence[int]) -> list[bool]:
        """What stands between the prompt for each of the assistant's turns and its end."""
        said = [False] * len(ids)
        for at, (role, _) in enumerate(turns):
            if role != ASSISTANT:
                continue
            asked = self._tokens(turns[:at], asking=True)
            end = list(ids) if at == len(turns) - 1 else self._tokens(turns[: at + 1])
            if not _begins(ids, asked) or not _begins(ids, end) or len(end) < len(asked):
                raise Unsupported(
                    f"the chat template writes turn {at + 1} ({role}) of a conversation of "
                    f"{len(turns)} otherwise within it than when it is asked for, so that what the "
                    "assistant says can't be told; take away white space at the start of turns, "
                    "give one exchange a row, or rows as prompt and completion"
                )
            said[len(asked) : len(end)] = [True] * (len(end) - len(asked))
        return said

    def _kept(self, turns: Turns, ids: Sequence[int], most: int) -> list[int]:
        """Places of the tokens that are kept."""
        if len(ids) <= most:
            return list(range(len(ids)))
        for at in range(1, len(turns)):
            # An answer without what it answers is no place to begin.
            start = self._start_of(turns, at, ids) if turns[at][0] != ASSISTANT else None
            if start and (kept := self._from(start, ids)) and len(kept) <= most:
                return kept
        kept = self._from(len(ids) - most, ids)
        return kept if len(kept) <= most else [kept[0], *kept[len(kept) - most + 1 :]]

    def _from(self, start: int, ids: Sequence[int]) -> list[int]:
        """Places from a start on, after the token that begins a text, if there is one."""
        begins = self._tokenizer.bos_token_id
        first = [0] if begins is not None and ids[0] == begins and ids[start] != begins else []
        return [*first, *range(start, len(ids))]

    def _start_of(self, turns: Turns, at: int, ids: Sequence[int]) -> int | None:
        """Where a turn begins; None where the template doesn't tell."""
        try:
            before = self._tokens(turns[:at])
        except Unsupported:  # some templates refuse to end there
            return None
        return len(before) if _begins(ids, before) else None

    def _tokens(self, turns: Turns, asking: bool = False) -> list[int]:
        return list(self._apply(turns, add_generation_prompt=asking)["input_ids"][0])

    def _apply(self, turns: Turns, **settings: Any) -> Any:
        """What transformers' own sandbox makes of the template."""
        shown = [{"role": role, "content": content} for role, content in turns]
        try:
            # In a batch of one: alone, no turns at all would be refused.
            return self._tokenizer.apply_chat_template(
                [shown], chat_template=self._template, return_dict=True, **settings
            )
        except Exception as error:  # a template may raise whatever it likes
            roles = ", ".join(role for role, _ in turns[:6]) + (", …" if len(turns) > 6 else "")
            raise Unsupported(
                f"the chat template refuses a conversation of {len(turns)} turns ({roles})"
                f"{_reason(error, turns)}"
            ) from None  # a traceback would show what the reason leaves out

    def _end(self) -> tuple[int, ...]:
        """What ends an answer, as a probe shows it: the first added token after its words."""
        try:
            ids = self._apply(_PROBE, tokenize=False)
        except Unsupported:
            return ()
        tail = ids[0].rpartition(_PROBE[-1][1])[2]
        added = self._tokenizer.added_tokens_decoder
        found = self._tokenizer(tail, add_special_tokens=False)["input_ids"]
        return tuple(one for one in found if one in added)[:1]


def _begins(ids: Sequence[int], with_: Sequence[int]) -> bool:
    return list(ids[: len(with_)]) == list(with_)


def _reason(error: Exception, turns: Turns) -> str:
    """What the template says itself; nothing where that could hold a turn's words."""
    text = " ".join(str(error).split())[:200]
    own = any(content.strip() and content.strip() in text for _, content in turns)
    plain = "".join(c for c in text if c.isprintable())
    return "" if own or not plain else f": {plain}"
