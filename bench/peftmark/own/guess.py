"""What a file of rows may be a task of: kind and columns, guessed, each with its reason.

Where two columns would do, nothing is guessed: the message names them and what to pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftmark.core.errors import UserError
from peftmark.core.shown import plain, quoted, quoted_list
from peftmark.own.labels import MISSING, as_number, label_word
from peftmark.own.table import Table

MOST_LOOKED_AT = 5_000
"""Rows that a guess looks at."""
MOST_CLASSES = 50
"""Distinct values of a column up to which it may hold classes (assumption)."""
ROWS_OF_A_VALUE = 3
"""Rows that a class has on average at least (assumption)."""
SCORES_FROM = 20
"""Distinct numbers from which a column holds scores, where not all are whole (assumption)."""
CONVERSATIONS = ("messages", "conversations", "conversation")
TRIPLES: tuple[tuple[str, ...], ...] = (
    ("instruction", "output"),
    ("prompt", "completion"),
)
ANSWERS = ("answer", "answerKey", "answer_key", "label", "correct")
LABELS = ("label", "labels", "category", "class", "score", "target", "tags", "rating")


@dataclass(frozen=True)
class Guess:
    """A declaration, as far as it was guessed.

    Attributes:
        keys: keys of a task's declaration with their values.
        why: a sentence for each thing that was guessed, without a full stop.
    """

    keys: Mapping[str, Any]
    why: tuple[str, ...]


def guess(table: Table, given: Mapping[str, Any]) -> Guess:
    """Fill in what was not given.

    Args:
        given: keys of a declaration that the user named.

    Raises:
        UserError: the file allows several readings, or none; with what to pass.
    """
    names = list(table.columns)
    if not len(table.lines):
        raise _ask(table, "there are no rows", "Give a file with rows.")
    for key in ("text", "label", "answer", "choices", "messages", "prompt", "completion"):
        _check_there(table, given.get(key))
    kind = given.get("kind")
    if kind in ("language", "text"):
        return _language(table, given)
    shaped = _by_options(names, given) or _by_names(names, given)
    if shaped is not None and kind in (None, shaped.keys["kind"]):
        return shaped
    if kind in ("instruction", "multiple-choice"):
        raise _ask(
            table,
            f"nothing tells which columns a task of kind {kind} has",
            "Pass --text, --choices and --answer."
            if kind == "multiple-choice"
            else "Pass --messages, or --prompt and --completion.",
        )
    if "choices" in given or "answer" in given:
        lacks = [f"--{key}" for key in ("text", "choices", "answer") if key not in given]
        raise _ask(
            table,
            "a task of multiple choice has columns of the text, the choices and the answer",
            f"Pass {' and '.join(lacks)} too." if lacks else "Leave out --label.",
        )
    return _labelled(table, given)


def _check_there(table: Table, named: object) -> None:
    wanted = [named] if isinstance(named, str) else list(named) if isinstance(named, list) else []
    lacking = [name for name in wanted if name not in table.columns]
    if lacking:
        raise _ask(table, f"there is no column {quoted(lacking[0])}", "Pass one of these columns.")


def _by_options(names: Sequence[str], given: Mapping[str, Any]) -> Guess | None:
    """A declaration whose kind the named columns tell, whatever they are called."""
    if "label" in given:
        return None
    if "messages" in given or {"prompt", "completion"} <= given.keys():
        told = [] if "kind" in given else ["its columns tell: kind instruction"]
        return Guess({**given, "kind": "instruction"}, tuple(told))
    if "choices" not in given:
        return None
    answer = given.get("answer") or next((name for name in ANSWERS if name in names), None)
    text = given.get("text") or ("question" if "question" in names else None)
    if answer is None or text is None:
        return None
    found = {"kind": "multiple-choice", "text": text, "answer": answer}
    why = tuple(
        f"{key} {quoted(value)}" if key != "kind" else f"its columns tell: kind {value}"
        for key, value in found.items()
        if key not in given
    )
    return Guess({**given, **found}, why)


def _by_names(names: Sequence[str], given: Mapping[str, Any]) -> Guess | None:
    """A declaration that the columns' names tell by themselves."""
    if "label" in given:
        return None
    for name in CONVERSATIONS:
        if given.get("messages", name) == name and name in names:
            why = f"column {quoted(name)} holds conversations: kind instruction"
            return Guess({**given, "kind": "instruction", "messages": name}, (why,))
    if ("choices" in names and "text" in given) or {"choices", "question"} <= set(names):
        answer = given.get("answer") or next((name for name in ANSWERS if name in names), None)
        if answer is not None:
            text = given.get("text", "question")
            why = f"columns 'choices' and {quoted(answer)}: kind multiple-choice"
            keys = {"kind": "multiple-choice", "text": text, "choices": "choices"}
            return Guess({**given, **keys, "answer": answer}, (why,))
    for needed in TRIPLES:
        if set(needed) <= set(names) and "text" not in given:
            keys = {name: name for name in needed}
            if needed[0] == "instruction" and "input" in names:
                keys["input"] = "input"
            why = f"columns {quoted_list(list(keys))}: kind instruction"
            return Guess({**given, "kind": "instruction", **keys}, (why,))
    return None


# --- labels and texts -----------------------------------------------------------------------------


def _labelled(table: Table, given: Mapping[str, Any]) -> Guess:
    why: list[str] = []
    label = given.get("label")
    if label is None:
        label = _label_column(table, given, why)
    if label is None:
        return _language(table, given)
    text = given.get("text") or _text_column(table, label, why)
    kind = given.get("kind")
    if kind is None:
        kind, reason = _kind(table, label)
        why.append(reason)
    return Guess({**given, "kind": kind, "text": text, "label": label}, tuple(why))


def _values(table: Table, name: str) -> list[Any]:
    return [v for v in table.columns[name][:MOST_LOOKED_AT] if v is not None and v != ""]


def _kind(table: Table, label: str | list[str]) -> tuple[str, str]:
    if isinstance(label, list):
        return "multi-label", f"{len(label)} label columns of 0 and 1: kind multi-label"
    values, shown = _values(table, label), quoted(label)
    if any(isinstance(value, list) for value in values):
        return "multi-label", f"{shown} holds lists: kind multi-label"
    words = [str(label_word(value)).strip() for value in values]
    distinct = {word for word in words if word not in MISSING}
    numbers = [as_number(word) for word in distinct]
    if distinct and all(number is not None for number in numbers):
        whole = all(number is not None and number.is_integer() for number in numbers)
        if len(distinct) >= SCORES_FROM or (not whole and len(distinct) > 2):
            return "regression", f"{shown} holds {len(distinct):,} different numbers: regression"
        return "classification", f"{shown} holds {len(distinct)} different numbers: classification"
    tags = {tag.strip() for word in distinct for tag in word.split("|")}
    if any("|" in word for word in distinct) and len(tags) < len(distinct) + 1:
        return "multi-label", f"{shown} holds labels with | between them: kind multi-label"
    return "classification", f"{shown} holds {len(distinct):,} different words: classification"


def _label_column(table: Table, given: Mapping[str, Any], why: list[str]) -> str | None:
    """The column that a label's name or few values give; None for a file of texts alone."""
    texts = given.get("text", [])
    names = [n for n in table.columns if n not in ([texts] if isinstance(texts, str) else texts)]
    named = [name for name in names if name.casefold() in LABELS]
    few = [name for name in names if _few(_values(table, name))]
    candidates = named if len(named) == 1 else [name for name in few if name in named] or few
    if len(candidates) == 1:
        why.append(f"label column {quoted(candidates[0])}: by its name or its few values")
        return candidates[0]
    if not candidates and len(names) <= 1 and "kind" not in given:
        return None
    which = quoted_list(candidates or names)
    raise _ask(table, f"the label could be in {which}", "Say which: --label COLUMN.")


def _few(values: Sequence[Any]) -> bool:
    if not values or any(isinstance(value, list | dict) for value in values):
        return False
    distinct = {label_word(value) for value in values}
    return 2 <= len(distinct) <= min(MOST_CLASSES, len(values) / ROWS_OF_A_VALUE)


def _text_column(table: Table, label: str | list[str], why: list[str]) -> str:
    """The column of the longest texts, well ahead of the next one, or the only one."""
    labels = [label] if isinstance(label, str) else label
    lengths: dict[str, float] = {}
    for name in table.columns:
        texts = [v for v in _values(table, name) if isinstance(v, str) and as_number(v) is None]
        if name not in labels and texts:
            lengths[name] = sum(map(len, texts)) / len(texts)
    if not lengths:
        raise _ask(table, "no column holds texts", "Say which: --text COLUMN.")
    ranked = sorted(lengths, key=lambda name: -lengths[name])
    near = [name for name in ranked if 2 * lengths[name] > lengths[ranked[0]]]
    if len(near) > 1:
        raise _ask(
            table,
            f"the text could be in {quoted_list(near)}",
            "Say which: --text COLUMN, or twice for two texts of a row.",
        )
    why.append(f"text column {quoted(ranked[0])}: the longest texts")
    return ranked[0]


def _language(table: Table, given: Mapping[str, Any]) -> Guess:
    why: list[str] = []
    text = given.get("text") or _text_column(table, [], why)
    why.append("texts alone: kind language")
    return Guess({**given, "kind": "language", "text": text}, tuple(why))


def _ask(table: Table, what: str, remedy: str) -> UserError:
    names = quoted_list([name[:40] for name in table.columns])
    shown = f"Its columns: {names}." if names else "It has no columns."
    return UserError(f"{plain(table.file)}: {what}", f"{remedy} {shown}")
