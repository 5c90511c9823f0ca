"""Plug-ins: methods, metrics, quantizations, models and tasks of other packages, by entry points.

A package names a function for each in a group of `GROUPS`; the entry point's name is the key that
suites use. The function takes nothing and returns the row, and its module says for which version of
this interface it was written (`PEFTMARK_API`). Nothing is looked for before `load` is called, which
the command line and workers do. What can't be used is kept with the reason: it ends what asks for
it, and nothing else.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

from peftmark import __version__
from peftmark.catalog.absent import Kind, seen
from peftmark.catalog.architectures import ARCHITECTURES, LANGUAGE_MODELS
from peftmark.catalog.methods import METHODS
from peftmark.catalog.metrics import METRICS
from peftmark.catalog.models import MODELS
from peftmark.catalog.own_metric import binds, on_path
from peftmark.catalog.plugin_code import code_hash, files_of, versions_of
from peftmark.catalog.plugin_rows import CODE, TYPES, plugin_faults, row_faults
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import UserError
from peftmark.core.shown import plain

API = 1
"""Version of what a plug-in may rely on: the entry points, the types of their rows, and what the
code that a row names is called with."""
GROUPS: Mapping[Kind, str] = {kind: f"peftmark.{kind}s" for kind in get_args(Kind)}
_TABLES: Mapping[Kind, MutableMapping[str, Any]] = {
    "quantization": QUANTIZATIONS,
    "metric": METRICS,
    "method": METHODS,
}
_TAKEN: Mapping[Kind, Collection[str]] = {
    **_TABLES,
    "model": {*MODELS, *ARCHITECTURES, *LANGUAGE_MODELS},
    "task": TASKS,
}
LONGEST = 200
"""Characters of a plug-in's own message that are repeated."""


@dataclass(frozen=True)
class Plugin:
    """One entry point that was found.

    Attributes:
        key: what suites call it.
        distribution, version: the package that it comes from, as it is installed.
        target: `module:function` of the entry point.
        row: what the function returned; None if it can't be used.
        fault: why it can't be used; empty if it can.
        installed: the distribution.
    """

    kind: Kind
    key: str
    distribution: str
    version: str
    target: str
    installed: metadata.Distribution
    row: Any = None
    fault: str = ""

    @property
    def origin(self) -> str:
        """The package with its version."""
        return f"{self.distribution} {self.version}"

    @property
    def told(self) -> str:
        """Which entry point of which package it is, and why it can't be used."""
        entry = f"[{GROUPS[self.kind]}] {self.key} = {self.target}"
        return plain(f"plug-in {self.origin}, entry point {entry}: {self.fault}")

    @property
    def folder(self) -> Path:
        """The folder of the entry point's module, to which paths of its row are relative."""
        home = on_path(self.target.partition(":")[0].split("."))
        assert home is not None
        return home.parent

    @cached_property
    def code(self) -> str:
        """Hash of its package's code, as it is when this is first asked for."""
        return code_hash(files_of(self.installed, self.target.partition(":")[0]))

    @property
    def versions(self) -> dict[str, str]:
        """Versions of its package and of what that needs."""
        return versions_of(self.installed)


_FOUND: dict[tuple[Kind, str], Plugin] = {}


def load(only: Collection[tuple[Kind, str]] | None = None) -> None:
    """Find plug-ins and put their rows into the tables, in place of those found before.

    Args:
        only: (kind, key) of those that are wanted; None for all. No other is imported.
    """
    unload()
    entries = metadata.entry_points()
    for kind, group in GROUPS.items():
        there = [e for e in entries.select(group=group) if only is None or (kind, e.name) in only]
        names = Counter(entry.name for entry in there)
        for entry in sorted(there, key=lambda e: (e.name, str(e.dist and e.dist.name))):
            found = _loaded(kind, entry, names[entry.name] > 1)
            if (kind, entry.name) not in _FOUND:
                _FOUND[kind, entry.name] = found
                if found.row is not None and kind in _TABLES:
                    _TABLES[kind][found.key] = found.row


def unload() -> None:
    """Take the rows of plug-ins out of the tables."""
    for (kind, key), found in _FOUND.items():
        if kind in _TABLES and _TABLES[kind].get(key) is found.row is not None:
            del _TABLES[kind][key]
    _FOUND.clear()


def all_found() -> tuple[Plugin, ...]:
    """Every plug-in that was found, usable or not."""
    return tuple(_FOUND.values())


def plugin_of(kind: Kind, key: str) -> Plugin | None:
    """The usable plug-in of a key; None for what is peftmark's own, or there isn't."""
    found = _FOUND.get((kind, key))
    return found if found is not None and found.row is not None else None


def fault_of(kind: Kind, key: str) -> str:
    """Why a plug-in of a key can't be used; empty if it can, or there is none."""
    found = _FOUND.get((kind, key))
    return found.told if found is not None and found.row is None else ""


def taken(kind: Kind, key: str) -> bool:
    """Whether a key is peftmark's own, or a plug-in's that is there."""
    return key in _TAKEN[kind] or plugin_of(kind, key) is not None


def names(kind: Kind) -> list[str]:
    """Keys of a kind that usable plug-ins add."""
    return [key for (of, key), found in _FOUND.items() if of == kind and found.row is not None]


def origins(kind: Kind, keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Key -> the package that it comes from, with its version, for `--json`."""
    found = {}
    for key in keys:
        plugin = plugin_of(kind, key)
        name, version = ("peftmark", __version__)
        if plugin is not None:
            name, version = plugin.distribution, plugin.version
        found[key] = {"package": name, "version": version}
    return found


def declaration(kind: Kind, key: str) -> Any | None:
    """What a plug-in declares as a model or a task, as a suite would: of one that is installed its
    row, of another what stored rows have; None if there is neither."""
    found = plugin_of(kind, key)
    return found.row if found is not None else seen(kind, key)


# --- from an entry point to a row -----------------------------------------------------------------


def _loaded(kind: Kind, entry: metadata.EntryPoint, twice: bool) -> Plugin:
    assert entry.dist is not None
    try:
        name, version = str(entry.dist.name), str(entry.dist.version)
    except (KeyError, TypeError):
        name, version = "of unknown name", "without a version"
    made = (kind, entry.name, plain(name), plain(version), entry.value, entry.dist)
    if twice:
        return Plugin(*made, fault="another installed package has an entry point of this name too")
    if entry.name in _TAKEN[kind]:
        return Plugin(*made, fault=f"peftmark has a {kind} of this name; it needs another")
    try:
        row = _row(kind, entry)
    except UserError as error:
        return Plugin(*made, fault=error.what)
    if faults := [*_faults(kind, entry, row)]:
        return Plugin(*made, fault="; ".join(faults))
    return Plugin(*made, row=row)


def _row(kind: Kind, entry: metadata.EntryPoint) -> Any:
    """What the function of an entry point returns.

    Raises:
        UserError: it can't be had, or is of another type; only `what` is told.
    """
    heavy = "torch" not in sys.modules
    try:
        with redirect_stdout(sys.stderr):  # what it prints is no answer of ours
            function = entry.load()
            wanted = getattr(sys.modules[entry.module], "PEFTMARK_API", None)
            row = function() if wanted == API else None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it may try to end the program
        text = " ".join(str(error).split())[:LONGEST]
        raise UserError(f"it raised {type(error).__name__}: {text}") from error
    if heavy and "torch" in sys.modules:
        raise UserError("it loads torch, which only the code that a row names may")
    if wanted is None:
        raise UserError(f"{entry.module} doesn't say PEFTMARK_API = {API}, what it is written for")
    if wanted != API:
        raise UserError(
            f"it is written for version {wanted!r} of the plug-in interface, and this peftmark has "
            f"version {API}; install a release of either that fits"
        )
    found = f"{type(row).__module__}.{type(row).__qualname__}"
    if found != TYPES[kind]:
        raise UserError(f"it returned {found}, not a {TYPES[kind]}")
    return row


def _faults(kind: Kind, entry: metadata.EntryPoint, row: Any) -> Iterator[str]:
    try:
        found = [*row_faults(kind, row), *plugin_faults(kind, entry.name, row)]
    except Exception as error:  # a value of a type that no rule expects
        found = [f"its row can't be read: {type(error).__name__}: {error}"]
    yield from found
    if not found and kind in _TABLES:
        yield from _code_faults(entry, row.code)


def _code_faults(entry: metadata.EntryPoint, code: str) -> Iterator[str]:
    """What is wrong with the code that a row names: it is looked at, not imported."""
    named = CODE.fullmatch(code)
    assert named is not None
    assert entry.dist is not None
    path = on_path(named["module"].split("."))
    if path is None:
        yield f"code {code}: there is no module {named['module']}"
        return
    if not any(path.samefile(one) for one in files_of(entry.dist, entry.module).values()):
        yield f"code {code}: {path} is no file of its package, so no hash would cover it"
        return
    try:
        if not binds(path, named["name"]):
            yield f"code {code}: {path} has no {named['name']}"
    except (SyntaxError, ValueError) as error:
        yield f"code {code}: {path} is no Python: {error}"
