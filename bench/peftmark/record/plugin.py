"""What a job says of the plug-ins that it uses: whose they are, their code, and their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from peftmark.catalog import absent, plugins
from peftmark.catalog.absent import Kind
from peftmark.catalog.plugin_rows import carried, row_from
from peftmark.core.errors import UserError


@dataclass(frozen=True)
class UsedPlugin:
    """A plug-in as the jobs that use it carry it.

    Attributes:
        distribution: the package that it comes from; its version is in the row's environment.
        code: first 16 hex digits of a hash over the files of that package.
        row: what the catalogue says of it (`peftmark.catalog.plugin_rows.carried`).
    """

    kind: Kind
    key: str
    distribution: str
    code: str
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def here(self) -> bool:
        """Whether it is installed here, whatever its code."""
        return plugins.plugin_of(self.kind, self.key) is not None

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"{self.kind} {self.key}"


_SEEN: dict[tuple[Kind, str], UsedPlugin] = {}


def used(asked: Iterable[tuple[Kind, str]]) -> tuple[UsedPlugin, ...]:
    """Those of some names that are plug-ins': as they are installed, or as stored rows have them.

    Names of peftmark's own give nothing, so the jobs that use no plug-in are what they ever were.
    """
    found = {}
    for kind, key in asked:
        plugin = plugins.plugin_of(kind, key)
        if plugin is not None:
            row = carried(kind, plugin.row)
            found[kind, key] = UsedPlugin(kind, key, plugin.distribution, plugin.code, row)
        elif (kind, key) in _SEEN and not plugins.taken(kind, key):
            found[kind, key] = _SEEN[kind, key]
    return tuple(found[name] for name in sorted(found))


def note(stored: Iterable[UsedPlugin], newest: bool = False) -> None:
    """Keep what a stored row says of plug-ins, for those that aren't installed here.

    Args:
        newest: no row that was read before is newer.
    """
    for one in stored:
        name = (one.kind, one.key)
        if name in _SEEN and not newest:
            continue
        row = row_from(one.kind, one.key, one.row)
        if row is not None:
            _SEEN[name] = one
            absent.note(one.kind, one.key, row)


def forget() -> None:
    """Know nothing of earlier rows, as in a fresh process."""
    _SEEN.clear()
    absent.forget()


def plugins_from(data: Iterable[Mapping[str, Any]]) -> tuple[UsedPlugin, ...]:
    """The inverse of what plug-ins are in JSON."""
    return tuple(UsedPlugin(**one) for one in data)


def check_here(wanted: Iterable[UsedPlugin]) -> None:
    """Refuse plug-ins that aren't here as the job has them.

    Raises:
        UserError: one isn't installed, can't be used, or is of other code.
    """
    for one in wanted:
        found = plugins.plugin_of(one.kind, one.key)
        if found is None:
            why = plugins.fault_of(one.kind, one.key)
            if why:
                raise UserError(f"{one.title}: {why}", "Fix or update that package.")
            raise UserError(
                f"{one.title} is of the package {one.distribution}, which isn't installed here",
                f"Install it: pip install {one.distribution}",
            )
        if found.distribution != one.distribution or found.code != one.code:
            raise UserError(
                f"{one.title}: the code of {found.origin} here is not what the job was planned "
                f"with ({found.code} in place of {one.code} of {one.distribution})",
                "Install the same on every machine, and leave it as it is while jobs run.",
            )


def missing(wanted: Iterable[UsedPlugin]) -> Iterator[str]:
    """What a reader of rows is told of the plug-ins among them that aren't installed here, a
    sentence each without a full stop."""
    by_package: dict[str, list[str]] = {}
    for one in {(p.kind, p.key): p for p in wanted if not p.here}.values():
        by_package.setdefault(one.distribution, []).append(one.title)
    for package, names in sorted(by_package.items()):
        are = "is" if len(names) == 1 else "are"
        yield (
            f"{', '.join(sorted(names))} {are} of the package {package}, which isn't installed "
            "here: what is said of them is what the rows say, and they can't be run"
        )


def without_code(wanted: Iterable[UsedPlugin]) -> tuple[UsedPlugin, ...]:
    """The same with nothing of their code: what is asked for, whatever it is made of."""
    return tuple(replace(one, code="") for one in wanted)
