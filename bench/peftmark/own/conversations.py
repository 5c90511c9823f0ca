"""Conversations, choices and answers of a row, in the forms that data sets have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftmark.core.texts import read_json, shows_nothing

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
}
"""A role as it is written -> as chat templates know it."""
Turns = tuple[tuple[str, str], ...]


class Odd(Exception):
    """A row that is not what it should be; the message says how, without the row's text."""


def turns_of(value: Any) -> Turns:
    """The turns of a conversation, (role, content) each, OpenAI's form or ShareGPT's.

    Raises:
        Odd: it is no conversation.
    """
    if isinstance(value, str):
        try:
            value = read_json(value)
        except (ValueError, RecursionError) as error:
            raise Odd("a conversation is text that is no JSON, or has a key twice") from error
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise Odd("a conversation is no list of turns")
    return tuple(_turn(turn) for turn in value)


def _turn(turn: dict[str, Any]) -> tuple[str, str]:
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    known = ROLES.get(role.casefold()) if isinstance(role, str) else None
    if known is None:
        raise Odd("the role of a turn is not system, user or assistant (human, gpt)")
    if isinstance(content, list):
        parts = [p.get("text") if isinstance(p, dict) else None for p in content]
        if all(isinstance(part, str) for part in parts):
            content = "".join(map(str, parts))
    if not isinstance(content, str):
        raise Odd("the content of a turn is not text")
    if shows_nothing(content):
        raise Odd("a turn is empty")
    return known, content


def choices_of(value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The choices of a row and the keys they are called by, empty where they have none.

    Args:
        value: a list of texts, or an object with `text` and `label` (or `labels`).

    Raises:
        Odd: it is neither.
    """
    keys: tuple[str, ...] = ()
    if isinstance(value, dict):
        called = value.get("label", value.get("labels"))
        keys = tuple(map(str, called)) if isinstance(called, list) else ()
        value = value.get("text", value.get("texts"))
        if not isinstance(value, list) or len(keys) not in (0, len(value)):
            raise Odd("the choices are an object without a list `text` and one `label` for each")
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        raise Odd("the choices are no list of texts")
    if len(value) < 2:
        raise Odd("a row has fewer than two choices")
    if any(map(shows_nothing, value)):
        raise Odd("a choice is empty")
    if len(set(value)) < len(value):
        raise Odd("two choices of a row are the same")
    return tuple(value), keys


def numbers_start(answers: Sequence[int], counts: Sequence[int]) -> int | None:
    """Whether numbers of choices count from 0 or from 1; None where nothing tells.

    Args:
        answers: the number of the right choice, a row each.
        counts: how many choices the row has.
    """
    if 0 in answers:
        return 0
    return 1 if any(a == n for a, n in zip(answers, counts, strict=True)) else None
