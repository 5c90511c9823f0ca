"""The text of a suite for a task of one's own: as short as a suite may be, with comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peftmark.catalog.lora_methods import FROM_WHOLE
from peftmark.catalog.methods import METHODS
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.core.shown import plain
from peftmark.own.declared_model import inline_declared, inline_key
from peftmark.sources.stored_form import StoredForm

ENCODER = "minilm-l6"
CAUSAL = "smollm2-135m-q4"
OF_ENCODERS = ("classification", "multi-label", "regression")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*", re.ASCII)
_WORDS = ("true", "false", "null", "yes", "no", "on", "off")
_ORDER = ("kind", "train", "eval")


def default_model(kind: str) -> str:
    """The model of a kind of task that needs nothing but a package."""
    return ENCODER if kind in OF_ENCODERS else CAUSAL


def reads(causal: bool, kind: str) -> bool:
    """Whether a causal language model, or an encoder, reads tasks of a kind."""
    return causal if kind not in OF_ENCODERS else not causal or kind == "classification"


def in_form(methods: Sequence[str], form: StoredForm | None) -> list[str]:
    """Entries of a list of methods for a model, of one whose weights are quantised already those
    that can be put on them.

    Args:
        methods: names, and entries with a quantization.
        form: how the weights are quantised; None for whole ones.
    """
    if form is None:
        return list(methods)
    found = []
    for entry in methods:
        method = METHODS[name_in(entry)]
        if method.fits == "words":
            found.append(entry)
        elif form.quantization in method.quantizations and method.key not in FROM_WHOLE:
            found.append(f"{{method: {method.key}, quantization: [{form.quantization}]}}")
    return list(dict.fromkeys(found))


def name_in(entry: str) -> str:
    """The method of an entry, as it stands in a list."""
    return re.sub(r"^\{method: ([^,}]+).*", r"\1", entry)


def recipe_lines(form: StoredForm | None, *more: str) -> list[str]:
    """The line of a suite's recipe, where there is something to say.

    Args:
        form: how the model's weights are quantised already; None for whole ones.
        more: settings, as YAML.
    """
    doubles = form is not None and QUANTIZATIONS[form.quantization].double
    said = (
        ["double_quantization: false"] if form is not None and doubles and not form.double else []
    )
    settings = [*more, *said]
    return [f"recipe: {{{', '.join(settings)}}}"] if settings else []


def suite_text(
    name: str,
    keys: Mapping[str, Any],
    model: str,
    methods: Sequence[str],
    why: Sequence[str],
    read_as: str | None = None,
    more: Sequence[str] = (),
) -> str:
    """A suite of one task as YAML.

    Args:
        name: of the suite and its task.
        keys: the task's declaration.
        why: what was guessed and why, for the comments.
        methods: each as it stands in a list.
        read_as: what the user's own model is taken for; None for what its configuration says.
        more: further lines at the top level.
    """
    ordered = sorted(keys, key=lambda key: _ORDER.index(key) if key in _ORDER else 9)
    given = [key for key in ordered if keys[key] is not None and keys[key] != []]
    declared = [f"    {key}: {yaml_value(keys[key])}" for key in given]
    return "\n".join(
        [
            f"# Which method suits {name}? `peftmark plan {name}` shows what is filled in.",
            *(f"# Guessed: {plain(reason)}." for reason in why),
            f"suite: {yaml_value(name)}",
            *_model(model, read_as),
            *more,
            "tasks:",
            f"  {yaml_value(name)}:  # `peftmark inspect` looks at the rows",
            *declared,
            f"methods: [{', '.join(methods)}]  # `peftmark methods` names the others",
            "",
        ]
    )


def _model(model: str, read_as: str | None) -> Iterator[str]:
    if read_as is None:
        yield f"model: {yaml_value(model)}  # `peftmark list` names the others"
        return
    key = inline_key(model)
    said = {**inline_declared(model), "read_as": read_as}
    yield "models:"
    yield f"  {key}: {{{', '.join(f'{k}: {yaml_value(v)}' for k, v in said.items())}}}"
    yield f"model: {key}"


def yaml_value(value: Any) -> str:
    """A word, a number or a list of them as YAML on one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml_value, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.casefold() not in _WORDS:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    # What JSON leaves as it is and YAML does not allow, or would take for the end of a line.
    return "".join(c if c.isprintable() else _escaped(c) for c in quoted)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
