"""Strict YAML: what a suite and the ledger of claims are written in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from peftmark.core.errors import SuiteError
from peftmark.core.files import refuse_special

MAX_SUITE_BYTES = 256 * 1024
MOST_WHOLE = 2**63 - 1
MOST_DIGITS = len(str(MOST_WHOLE))
# What libyaml reads otherwise than PyYAML does: tabs, odd ends of lines, marks of byte order, a
# comment that follows | or > without a space, and question marks outside comments.
_DOUBTFUL = re.compile(
    "[^\\n -~\u00a1-\u1fff\u2030-\ud7ff\U00010000-\U0010ffff]|[|>]#|^[^#\\n]*[?]", re.MULTILINE
)


class _Strict(yaml.composer.Composer, yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """YAML 1.2 scalars; aliases, tags and duplicate keys are refused."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[attr-defined]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases (& and *) are not allowed here",
                problem_mark=event.start_mark,
            )
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem="tags (!) are not allowed here", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands here twice",
                        problem_mark=key.start_mark,
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1, PyYAML's default, reads `no` as False, `1e-4` as text and `1:30` as 90.
_Strict.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", list("tf")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        list("-+.0123456789"),
    ),
):
    _Strict.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


def _whole(_: Any, node: yaml.ScalarNode) -> int:
    """A whole number, decimal (PyYAML reads `010` as 8), that a column of 64 bits can hold."""
    digits = node.value.lstrip("+-").lstrip("0") or "0"
    # More digits than some thousand Python makes no number of.
    value = int(digits) if len(digits) <= MOST_DIGITS else MOST_WHOLE + 1
    if value > MOST_WHOLE:
        shown = node.value if len(node.value) <= 24 else f"{node.value[:20]}..."
        raise yaml.MarkedYAMLError(
            problem=f"found {shown}; whole numbers go up to {MOST_WHOLE} (64 bits)",
            problem_mark=node.start_mark,
        )
    return -value if node.value.startswith("-") else value


_Strict.add_constructor("tag:yaml.org,2002:int", _whole)


class _Loader(_Strict, yaml.SafeLoader):
    """PyYAML's own parser."""


if yaml.__with_libyaml__:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    class _Quick(_Strict, CParser):
        """libyaml's parser, which takes a fifth of the time."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            yaml.composer.Composer.__init__(self)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

else:
    _Quick = _Loader  # type: ignore[assignment,misc]


def _values(text: str) -> Any:
    """The plain values of a text, or PyYAML's own error, whichever parser is there."""
    if not _DOUBTFUL.search(text):
        with suppress(yaml.YAMLError, ValueError):
            return yaml.load(text, Loader=_Quick)  # type: ignore[arg-type]  # noqa: S506
    return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)


def read_yaml(path: Path) -> Any:
    """The plain values of a file.

    Raises:
        SuiteError: with file, line and column, if it isn't YAML as allowed here.
        AssetError: it is no file.
    """
    return values_of(path, bytes_of(path))


def bytes_of(path: Path) -> bytes:
    """What stands in a file that `values_of` is to read.

    Raises:
        SuiteError: it can't be read, or is too large.
        AssetError: it is no file.
    """
    refuse_special(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SUITE_BYTES + 1)
    except OSError as error:
        raise SuiteError(f"{path}: can't be read: {error.strerror}") from error
    if len(raw) > MAX_SUITE_BYTES:
        raise SuiteError(f"{path}: too large; at most {MAX_SUITE_BYTES} bytes are read")
    return raw


def values_of(path: Path, raw: bytes) -> Any:
    """The plain values of what stands in a file.

    Raises:
        SuiteError: with file, line and column, if it isn't YAML as allowed here.
    """
    try:
        return _values(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise SuiteError(f"{path}: nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = ", ".join(text for text in (error.context, error.problem) if text)
        raise SuiteError(f"{path}{where}: {what}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SuiteError(f"{path}: not YAML: {error}") from error


@dataclass(frozen=True)
class Word:
    """A value and where it stands in a text.

    Attributes:
        value: what it says; empty for what is no word or number on one line.
        line: its line, from 1.
        start: its first character in the text, the quote if there is one.
        end: the character behind it.
        quote: what it stands in: nothing, `'` or `"`.
    """

    value: str
    line: int
    start: int
    end: int
    quote: str


def words_under(text: str, under: str, key: str) -> Iterator[tuple[str, Word]]:
    """The word at a key of every mapping in the mapping `under`, in their order.

    Args:
        text: of a file that `read_yaml` reads.

    Yields:
        the name of the mapping, and the word.
    """
    for name, entry in _pairs(yaml.compose(text, Loader=yaml.SafeLoader), under):
        for found, node in _pairs(entry):
            if found == key:
                yield name, _word(node)


def words_named(text: str, key: str) -> Iterator[Word]:
    """The word at a key of every mapping of a file that `read_yaml` reads, wherever it stands."""
    waiting = [yaml.compose(text, Loader=yaml.SafeLoader)]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        for found, value in _pairs(node):
            if found == key:
                yield _word(value)
            waiting.append(value)


def _pairs(node: yaml.Node | None, key: str | None = None) -> list[tuple[str, yaml.Node]]:
    """Keys and values of a mapping, or of the one at its key; none of anything else."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    found = [(str(name.value), value) for name, value in pairs]
    if key is None:
        return found
    return _pairs(next((value for name, value in found if name == key), None))


def _word(node: yaml.Node) -> Word:
    start, end = node.start_mark, node.end_mark
    if not isinstance(node, yaml.ScalarNode) or node.style not in (None, "'", '"'):
        return Word("", start.line + 1, start.index, end.index, "")
    return Word(node.value, start.line + 1, start.index, end.index, node.style or "")


# --- files of others, which need not be strict ---------------------------------------------------

_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in (
        "null", "bool", "int", "float", "str", "seq", "map", "timestamp", "binary", "set", "omap",
        "pairs", "merge", "value",
    )
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """A value of a file of others.

    Attributes:
        key: that it stands at, itself or in a list; empty for none.
        value: what it says; empty for a mapping.
        tag: that no plain value has; empty for a plain one.
        line: from 1.
    """

    key: str
    value: str
    tag: str
    line: int


def said_in(text: str) -> list[Said]:
    """Every value of a text of YAML with its key and its tag; nothing is made of them.

    Raises:
        ValueError: it isn't YAML.
    """
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    try:
        top = yaml.compose(text, Loader=loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not YAML: {error}") from error
    waiting: list[tuple[str, yaml.Node | None]] = [("", top)]
    seen: set[tuple[str, int]] = set()
    said: list[Said] = []
    while waiting:
        key, node = waiting.pop(0)
        if node is None or (key, id(node)) in seen:  # an alias may lead back
            continue
        seen.add((key, id(node)))
        word = node.value if isinstance(node, yaml.ScalarNode) else ""
        tag = "" if node.tag in _PLAIN_TAGS else str(node.tag)
        if tag or not isinstance(node, yaml.SequenceNode):
            said.append(Said(key, word, tag, node.start_mark.line + 1))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(key, item) for item in node.value]
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                waiting += [("", name), (str(name.value), value)]
    return said
