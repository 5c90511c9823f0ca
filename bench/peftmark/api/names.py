"""What may be named in a suite, as mappings that can be read and printed and not changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from peftmark.catalog import plugins
from peftmark.catalog.method import Method
from peftmark.catalog.methods import all_methods
from peftmark.catalog.models import MODELS as _MODELS
from peftmark.catalog.models import Model
from peftmark.catalog.task import Task
from peftmark.catalog.tasks import TASKS as _TASKS


class _Described(Protocol):
    @property
    def summary(self) -> str: ...


Entry = TypeVar("Entry", bound=_Described)


class Names(Mapping[str, Entry]):
    """Name -> what it is; printed it is a line a name.

    Args:
        entries: in the order in which they are listed.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise KeyError(f"{name!r}; known: {', '.join(self._entries)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __repr__(self) -> str:
        width = max(map(len, self._entries), default=0)
        return "\n".join(f"{name:<{width}}  {e.summary}" for name, e in self._entries.items())


plugins.load()  # their methods are listed too
METHODS: Names[Method] = Names(all_methods())
TASKS: Names[Task] = Names(_TASKS)
MODELS: Names[Model] = Names(_MODELS)
