"""The shape of a model that a suite declares (`models:`), or names where it is used."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from peftmark.catalog.architectures import ARCHITECTURES, LANGUAGE_MODELS
from peftmark.catalog.models import MODELS
from peftmark.core.strict import Strict
from peftmark.own.declared import PINNED, Name, Shown, not_pinned, pinned

HUB = "hub:"
_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_DECLARE = "declare it at the top of the suite, such as models: {{mine: {{{key}: {value}}}}}"


class OwnModel(Strict):
    """A model of one's own, as a suite's `models:` declares it.

    Attributes:
        path: its folder.
        hub: in place of it, a model of the hub at a pinned commit: `owner/name@<40 hex>`.
        read_as: an encoder with a fresh classifier, or a causal language model; without it, what
            its configuration says.
        title: how results name it; without it, its key.
    """

    path: Name | None = None
    hub: Annotated[str, BeforeValidator(pinned("a model of the hub"))] | None = None
    read_as: Literal["classifier", "language-model"] | None = None
    title: Annotated[Shown, Field(max_length=60)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> OwnModel:
        if (self.path is None) == (self.hub is None):
            given = "neither" if self.path is None else "both"
            raise PydanticCustomError(
                "own_model",
                "a model is in a folder (path) or on the hub (hub); {given} is given",
                {"given": given},
            )
        return self


def model_name_fault(key: str, taken: Collection[str] = ()) -> str | None:
    """Why a model of one's own can't have a name; None if it can."""
    if not _KEY.fullmatch(key):
        return "a model is named by lower-case letters, digits, - and _, at most 40"
    if key in MODELS:
        return "the catalogue has a model of this name (peftmark list); take another"
    if key in ARCHITECTURES or key in LANGUAGE_MODELS:
        return "claims and memory tables know an architecture of this name; take another"
    if key in taken:
        return "another model of the suite has this name; take another"
    return None


def is_inline(value: object) -> bool:
    """Whether a `model:` is a path or an address on the hub, and no name."""
    return isinstance(value, str) and ("/" in value or value.startswith((HUB, ".", "~")))


def inline_key(value: str) -> str:
    """The name that a model gets where a suite gives its path or address: the last part of it."""
    where = value.removeprefix(HUB).partition("@")[0] if value.startswith(HUB) else value
    last = PurePosixPath(where).name.casefold()
    return re.sub(r"[^a-z0-9_-]+", "-", last).strip("-_")[:40].rstrip("-_")


def inline_declared(value: str) -> dict[str, str]:
    """The declaration that a path or an address on the hub stands for."""
    if value.startswith(HUB):
        return {"hub": value.removeprefix(HUB)}
    return {"path": value}


def inline_fault(value: str, taken: Collection[str] = ()) -> str | None:
    """What is wrong with a path or an address as a `model:`; None if it can be one."""
    key, value_of = next(iter(inline_declared(value).items()))
    if key == "hub" and not PINNED.fullmatch(value_of):
        return not_pinned("a model of the hub")
    name = inline_key(value)
    if fault := model_name_fault(name, taken):
        shown = f"it would be named {name!r}: {fault}" if name else "it gives no name"
        return f"{shown}; {_DECLARE.format(key=key, value=value_of)}"
    return None
