"""Names that a suite may use: of the catalogue and of plug-ins, declared by itself, or a path."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from peftmark.catalog import plugins
from peftmark.catalog.absent import Kind
from peftmark.catalog.methods import METHODS, PREFIX, method_of
from peftmark.catalog.models import MODELS
from peftmark.catalog.peft_types import PEFT_TYPES
from peftmark.catalog.plugin_rows import carried
from peftmark.catalog.quantizations import QUANTIZATIONS, quantization_of
from peftmark.catalog.tasks import TASKS
from peftmark.own.declared_model import (
    inline_declared,
    inline_fault,
    inline_key,
    is_inline,
    model_name_fault,
)

OWN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Declared:
    """Names that a suite declares; the context of its validation."""

    tasks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def declared_of(info: ValidationInfo) -> Declared:
    """What the suite that is validated declares."""
    return info.context or Declared()


def _unusable(kind: Kind, value: str) -> None:
    """Tell of a plug-in that has the name and can't be used."""
    if fault := plugins.fault_of(kind, value):
        raise PydanticCustomError("plugin", "{fault}", {"fault": fault})


def known(what: str, table: Collection[str]) -> AfterValidator:
    """A validator that refuses any other name and says which there are.

    Args:
        table: read when a name is checked: what plug-ins add is there too.
    """

    def check(value: str) -> str:
        return _one_of(value, what, table)

    return AfterValidator(check)


def _one_of(value: str, what: str, table: Collection[str]) -> str:
    if value not in table:
        close = difflib.get_close_matches(value, table, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise PydanticCustomError(
            "unknown",
            "unknown {what}{hint}; allowed: {names}",
            {"what": what, "hint": hint, "names": ", ".join(table)},
        )
    return value


def _quantization(value: str) -> str:
    if quantization_of(value) is None:
        _unusable("quantization", value)
        return _one_of(value, "quantization", QUANTIZATIONS)
    return value


def _method(value: str) -> str:
    if method_of(value) is None:
        _unusable("method", value)
        close = difflib.get_close_matches(value, [*METHODS, *map(PREFIX.__add__, PEFT_TYPES)], n=1)
        raise PydanticCustomError(
            "unknown",
            "unknown method{hint}; allowed: {names}, and peft:<type> with a type of {types}",
            {
                "hint": f" (did you mean {close[0]}?)" if close else "",
                "names": ", ".join(METHODS),
                "types": ", ".join(PEFT_TYPES),
            },
        )
    return value


def _task(value: str, info: ValidationInfo) -> str:
    """A task of the catalogue, or one that the suite declares, as it does those of plug-ins."""
    names = (*declared_of(info).tasks, *TASKS)
    if value in names:
        return value
    _unusable("task", value)
    names = (*names, *plugins.names("task"))
    close = difflib.get_close_matches(value, names, n=1)
    raise PydanticCustomError(
        "unknown",
        "unknown task{hint}; allowed: {names}; for rows of your own declare it at the top of the "
        "suite, such as tasks: {{name}: {kind: classification, train: FILE.csv, text: COLUMN, "
        "label: COLUMN}}",
        {
            "hint": f" (did you mean {close[0]}?)" if close else "",
            "names": ", ".join(names),
            "name": value if OWN_NAME.fullmatch(value) else "NAME",
        },
    )


def _model(value: str, info: ValidationInfo) -> str:
    """A model of the catalogue, or one that the suite declares, as it does those of plug-ins."""
    names = (*declared_of(info).models, *MODELS)
    if value in names:
        return value
    _unusable("model", value)
    names = (*names, *plugins.names("model"))
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
AnyTask = Annotated[str, AfterValidator(_task)]
MethodName = Annotated[str, AfterValidator(_method)]
QuantizationName = Annotated[str, AfterValidator(_quantization)]
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


def with_plugins(raw: Any) -> tuple[Any, frozenset[tuple[Kind, str]]]:
    """A filled suite's plain values with the declarations of the plug-ins' tasks and models that it
    uses, as if it had written them itself; and which those are. What it declares is its own.

    Args:
        raw: with profiles; stays as it is.
    """
    if not isinstance(raw, dict):
        return raw, frozenset()
    used = [part["tasks"] for part in _profiles(raw) if isinstance(part.get("tasks"), dict)]
    tasks = {str(name) for names in used for name in names}
    asked: dict[Kind, set[str]] = {
        "task": tasks - TASKS.keys(),
        "model": {str(one["model"]) for one in model_users(raw)} - MODELS.keys(),
    }
    found, added = dict(raw), set()
    for kind, names in asked.items():
        section = found.get(f"{kind}s", {})
        if not isinstance(section, dict):
            continue
        for name in sorted(names - section.keys()):
            if (row := plugins.declaration(kind, name)) is not None:
                section = {**section, name: row if isinstance(row, dict) else carried(kind, row)}
                found[f"{kind}s"] = section
                added.add((kind, name))
    return found, frozenset(added)


def _profiles(raw: dict[str, Any]) -> list[dict[str, Any]]:
    profiles = raw.get("profiles")
    found = profiles.values() if isinstance(profiles, dict) else ()
    return [part for part in found if isinstance(part, dict)]


def model_users(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every part of a suite that names a model."""
    for part in (raw, *_profiles(raw)):
        if "model" in part:
            yield part
        methods = part.get("methods")
        for entry in methods if isinstance(methods, list) else []:
            if isinstance(entry, dict) and "model" in entry:
                yield entry
