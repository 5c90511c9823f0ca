"""Metrics of one's own and of plug-ins: importing the function that a key names, and calling it."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from peftmark.catalog.metrics import OWN, metric_of
from peftmark.catalog.own_metric import file_of
from peftmark.core.errors import UserError
from peftmark.lab.plugin_code import named as named_code

LONGEST = 200
"""Characters of a function's own message that are repeated."""


class NoValue(UserError):
    """A metric of one's own that gave no finite number; `what` says why."""


def value_of(
    key: str,
    references: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray | None = None,
) -> float:
    """What a metric of one's own says: `function(references, predictions)`.

    A function with a parameter `probabilities` is given them under that name; None where the
    task's predictions come without. The arrays are copies: nothing done to them is seen elsewhere.

    Args:
        key: `package.module:function`, or with `:lower` behind it.
        references: shape (rows,), or (rows, classes) of 0 and 1 for several labels.
        predictions: shaped like the references.
        probabilities: shape (rows, classes).

    Raises:
        UserError: the function can't be found or imported.
        NoValue: it raised, or returned something that is no finite number.
    """
    function = _function(key)
    given: dict[str, Any] = {}
    if _reads_probabilities(function):
        given["probabilities"] = None if probabilities is None else probabilities.copy()
    try:
        value = float(function(references.copy(), predictions.copy(), **given))
    except Exception as error:
        texts = references.dtype == object
        what = f"{type(error).__name__} {_where(error)}" if texts else _told(error)
        # The message of a function that read texts may hold one, and texts are nobody else's.
        raise NoValue(
            f"metric {key} raised {what}",
            "It is called as function(references, predictions) with arrays of numpy.",
        ) from (None if texts else error)
    if not math.isfinite(value):
        raise NoValue(f"metric {key} returned {value}", "It has to return a finite number.")
    return value


@cache
def _function(key: str) -> Callable[..., Any]:
    """The function, imported with the working directory before everything else.

    Raises:
        UserError: there is none, or its module raised.
    """
    known = metric_of(key)
    if known is not None and known.code:
        of_plugin: Callable[..., Any] = named_code(known.code)
        return of_plugin
    named = OWN.fullmatch(key)
    wanted = file_of(key)
    assert named is not None
    module = _imported(key, named["module"], wanted)
    function = getattr(module, named["function"], None)
    if not callable(function):
        raise UserError(
            f"metric {key}: {wanted} has no function {named['function']}",
            "Write it there: function(references, predictions) -> float.",
        )
    checked: Callable[..., Any] = function
    return checked


def _imported(key: str, name: str, wanted: Path) -> ModuleType:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise UserError(
            f"metric {key}: importing {wanted} raised {_told(error)}",
            f"Try it: python -c 'import {name}' in {here}.",
        ) from error
    finally:
        sys.path.remove(here)
    found = getattr(module, "__file__", None)
    if found is None or not Path(found).exists() or not Path(found).samefile(wanted):
        raise UserError(
            f"metric {key}: Python has another module {name} than {wanted}: {found or 'built in'}",
            "Give your module a name that nothing else has.",
        )
    return module


def _told(error: Exception) -> str:
    plain = "".join(c if c.isprintable() else " " for c in str(error))
    return f"{type(error).__name__}: {' '.join(plain.split())[:LONGEST]}"


def _where(error: Exception) -> str:
    """The place that an error comes from, and none of what it says."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"in {Path(last.filename).name}, line {last.lineno}"


def _reads_probabilities(function: Callable[..., Any]) -> bool:
    try:
        return "probabilities" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C, without a signature
        return False
