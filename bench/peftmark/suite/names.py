"""Names that a suite declares itself, and models that it gives by path in place of a name."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from peftmark.catalog.models import MODELS
from peftmark.own.declared_model import (
    inline_declared,
    inline_fault,
    inline_key,
    is_inline,
    model_name_fault,
)


@dataclass(frozen=True)
class Declared:
    """Names that a suite declares; the context of its validation."""

    tasks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def declared_of(info: ValidationInfo) -> Declared:
    """What the suite that is validated declares."""
    return info.context or Declared()


def _model(value: str, info: ValidationInfo) -> str:
    """A model of the catalogue, or one that the suite declares."""
    names = (*declared_of(info).models, *MODELS)
    if value in names:
        return value
    if is_inline(value) and (fault := inline_fault(value, names)):
        raise PydanticCustomError("inline", "{fault}", {"fault": fault})
    close = difflib.get_close_matches(value, names, n=1)
    raise PydanticCustomError(
        "unknown",
        "unknown model{hint}; allowed: {names}; for a model of your own give its folder with a "
        "slash, such as ./{name}, or hub:owner/name@ and 40 hexadecimal digits",
        {
            "hint": f" (did you mean {close[0]}?)" if close else "",
            "names": ", ".join(names),
            "name": value if re.fullmatch(r"[\w.-]{1,40}", value) else "FOLDER",
        },
    )


def _own_model_name(value: str) -> str:
    if fault := model_name_fault(value):
        raise PydanticCustomError("name", "{fault}", {"fault": fault})
    return value


AnyModel = Annotated[str, AfterValidator(_model)]
OwnModelName = Annotated[str, AfterValidator(_own_model_name)]


def model_word(name: str) -> str:
    """What tells cells of another model than the profile's; of one's own its name alone, since a
    suite is read before the model is."""
    return f"{MODELS[name].title} ({MODELS[name].read_as})" if name in MODELS else name


def declare(raw: Any) -> Any:
    """A suite's plain values with every path and address under `models:` and a name in its place.

    What can't be named is left as it is, for the types to tell (`peftmark.suite.schema`).

    Args:
        raw: as read from the file; stays as it is.
    """
    if not isinstance(raw, dict) or not any(is_inline(one["model"]) for one in model_users(raw)):
        return raw
    found = copy.deepcopy(raw)
    declared = found.setdefault("models", {})
    if not isinstance(declared, dict):
        return raw
    given: dict[str, str] = {}
    for one in model_users(found):
        value = one["model"]
        if not is_inline(value):
            continue
        if value not in given:
            if inline_fault(value, declared):
                continue
            given[value] = inline_key(value)
            declared[given[value]] = inline_declared(value)
        one["model"] = given[value]
    return found if declared else raw


def model_users(raw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every part of a suite that names a model."""
    profiles = raw.get("profiles")
    parts = list(profiles.values()) if isinstance(profiles, dict) else []
    for part in (raw, *parts):
        if not isinstance(part, dict):
            continue
        if "model" in part:
            yield part
        methods = part.get("methods")
        for entry in methods if isinstance(methods, list) else []:
            if isinstance(entry, dict) and "model" in entry:
                yield entry
