"""Rows of plug-ins: what is wrong with one, and how a job carries it.

The rules of what a row says hold for peftmark's own rows too (a test holds them to it); what only a
plug-in's may not be stands apart.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import PurePath
from typing import Any, get_args

from peftmark.catalog.absent import Kind
from peftmark.catalog.method import Family, Hook, Method, Option, Size
from peftmark.catalog.metrics import Metric, Unit
from peftmark.catalog.quantizations import QUANTIZATIONS, Quantization
from peftmark.catalog.task import TaskKind

TYPES: Mapping[Kind, str] = {
    "quantization": "peftmark.catalog.quantizations.Quantization",
    "metric": "peftmark.catalog.metrics.Metric",
    "method": "peftmark.catalog.method.Method",
    "model": "peftmark.own.declared_model.OwnModel",
    "task": "peftmark.own.declared.OwnTask",
}
"""What the function of an entry point returns."""
KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
CODE = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")
LONGEST_TITLE, LONGEST_TEXT = 60, 200
OUTSIDE = ("reference", "peft")
"""Families that a plug-in's method can't be of: lines to hold against, and PEFT's own types."""
_TEXTS = ("summary", "source", "merged")
_SETTINGS = {"targets", "alpha", "dropout"}
_NOT_CARRIED = ("key", "code")


# --- what is wrong --------------------------------------------------------------------------------


def row_faults(kind: Kind, row: Any) -> Iterator[str]:
    """What is wrong with what a row says, whosever it is; of models and tasks their types tell."""
    if kind in ("model", "task"):
        return
    yield from _text_faults(row)
    yield from _RULES[kind](row)


def plugin_faults(kind: Kind, key: str, row: Any) -> Iterator[str]:
    """What is wrong with the row of a plug-in beside `row_faults`.

    Args:
        key: the entry point's name.
    """
    if not KEY.fullmatch(key):
        yield "the entry point's name is the key: lower-case letters, digits, - and _, at most 40"
    if kind in ("model", "task"):
        yield from _path_faults(row)
        return
    if row.key != key:
        yield f"its key is {row.key!r} and the entry point's name {key!r}; they must be the same"
    if not isinstance(row.code, str) or not CODE.fullmatch(row.code):
        yield f"code: found {row.code!r}; write package.module:name, what the worker imports"
    if isinstance(row, Method):
        if row.family in OUTSIDE:
            yield f"family {row.family!r} is peftmark's own; take another"
        if not row.trains or row.fits or row.options is None:
            yield "a plug-in's method trains by steps (trains, fits) and names its options"


def _text_faults(row: Any) -> Iterator[str]:
    most = {"title": LONGEST_TITLE} | {name: LONGEST_TEXT for name in _TEXTS if hasattr(row, name)}
    for name, length in most.items():
        text = getattr(row, name)
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            yield f"{name}: a line of text"
        elif len(text) > length:
            yield f"{name}: at most {length} characters, {len(text)} found"


def _method(row: Method) -> Iterator[str]:
    yield from _among("family", [row.family], get_args(Family))
    yield from _among("size", [row.size] if row.size is not None else [], get_args(Size))
    yield from _among("settings", row.settings, sorted(_SETTINGS))
    yield from _among("sits_on", row.sits_on, list(QUANTIZATIONS))
    yield from _among("hooks", row.hooks, get_args(Hook))
    if row.budget and row.size is None:
        yield "budget: a method without a size has nothing to solve for"
    options: tuple[Any, ...] = row.options or ()
    for option in options:
        if not isinstance(option, Option):
            yield f"options: found {type(option).__name__}; each is an Option"
        elif (fault := option.fault(option.default)) is not None:
            yield f"options, {option.name}: its default is {option.default!r}; {fault}"
    names = [o.name for o in options if isinstance(o, Option)]
    if len(set(names)) < len(names):
        yield "options: two have the same name"


def _metric(row: Metric) -> Iterator[str]:
    yield from _among("direction", [row.direction], ("higher", "lower"))
    yield from _among("unit", [row.unit], get_args(Unit))
    yield from _among("kinds", row.kinds, get_args(TaskKind))
    if not row.kinds:
        yield "kinds: name the kinds of task it scores"
    if not (_number(row.low) and _number(row.high) and row.low < row.high):
        yield f"low, high: found {row.low!r}, {row.high!r}; low is the smaller number"


def _quantization(row: Quantization) -> Iterator[str]:
    if not isinstance(row.family, str) or not row.family:
        yield "family: the name of the back-end that makes the weights"
    if not isinstance(row.bits, int) or not 1 <= row.bits <= 32:
        yield f"bits: found {row.bits!r}; 1 to 32"
    if not _number(row.reload_tolerance) or not 0 <= row.reload_tolerance < math.inf:
        yield f"reload_tolerance: found {row.reload_tolerance!r}; a difference of a logit, from 0"


_RULES: Mapping[Kind, Callable[[Any], Iterator[str]]] = {
    "method": _method,
    "metric": _metric,
    "quantization": _quantization,
}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _among(name: str, found: Any, allowed: Any) -> Iterator[str]:
    if not isinstance(found, tuple | list):
        yield f"{name}: found {found!r}; a tuple"
        return
    for value in found:
        if value not in allowed:
            yield f"{name}: found {value!r}; allowed: {', '.join(map(repr, allowed))}"


def _path_faults(row: Any) -> Iterator[str]:
    """Files and folders of a plug-in lie in its own package."""
    given = [*(getattr(row, "train", None) or ()), *(getattr(row, "eval", None) or ())]
    given += [row.path] if getattr(row, "path", None) else []
    for name in given:
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts or name.startswith("~"):
            yield f"found {name!r}; paths are relative to the folder of the entry point's module"


# --- what a job carries ---------------------------------------------------------------------------


def carried(kind: Kind, row: Any) -> dict[str, Any]:
    """A row as plain values that JSON can hold: what differs from a field's default.

    What is read of a stored row stays known from it when the plug-in isn't installed any more.
    """
    if kind in ("model", "task"):
        plain: dict[str, Any] = json.loads(row.model_dump_json(exclude_unset=True))
        return plain
    return {
        f.name: _plain(getattr(row, f.name))
        for f in fields(row)
        if f.name not in _NOT_CARRIED
        and (f.default is MISSING or getattr(row, f.name) != f.default)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return str(value)  # JSON has no such number
    if isinstance(value, Option):
        return {name: _plain(one) for name, one in asdict(value).items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def row_from(kind: Kind, key: str, plain: Mapping[str, Any]) -> Any | None:
    """The row that `carried` was made of, without its code; None if it can't be read as one, as one
    of another peftmark may not be."""
    if kind in ("model", "task"):
        return dict(plain)
    row_type: Any = {"method": Method, "metric": Metric, "quantization": Quantization}[kind]
    known = {f.name for f in fields(row_type)} - set(_NOT_CARRIED)
    values = {name: _tuple(value) for name, value in plain.items() if name in known}
    try:
        if kind == "metric":
            values |= {name: float(values[name]) for name in ("low", "high")}
        if kind == "method":
            values["options"] = tuple(_option(one) for one in plain.get("options", ()))
        row = row_type(key=key, **values)
        return None if any(row_faults(kind, row)) else row
    except (TypeError, ValueError, KeyError):
        return None


def _option(plain: Mapping[str, Any]) -> Option:
    return Option(**{name: _tuple(value) for name, value in plain.items()})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
