"""What a tracker must do, which ones there are, and how one is opened.

A tracker is a module of this folder with `open_tracker(place)`; it alone imports its library, and
only when it is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from peftmark.core.errors import UserError
from peftmark.core.shown import quoted, quoted_list

if TYPE_CHECKING:
    from peftmark.track.entry import Entry

Ending = Literal["finished", "stopped"]


class Tracker(Protocol):
    """An open tracker. Whatever its library raises goes through.

    Attributes:
        where: where it writes, in words.
    """

    where: str

    def job(self, entry: Entry) -> bool:
        """Send a job, whole; False if all of it is there already."""

    def adapter(self, entry: Entry, folder: Path) -> bool:
        """Send the adapter that is kept of a job that was sent; False if it is there already."""

    def report(self, suite: str, profile: str, files: Sequence[Path]) -> None:
        """Send the report of a suite's profile."""

    def end(self, ending: Ending) -> None:
        """Say that nothing more comes."""


@dataclass(frozen=True)
class Kind:
    """A tracker that there is.

    Attributes:
        module: of this folder.
        library: what it imports, which is also the name of the extra.
        place: what may stand behind the equals sign, in words.
        quiet: variables that its library reads, with what they are unless somebody set them:
            nothing is sent home, and nobody is waited for long.
    """

    module: str
    library: str
    place: str
    quiet: dict[str, str]


KINDS: dict[str, Kind] = {
    "mlflow": Kind(
        "peftmark.track.mlflow",
        "mlflow",
        "a tracking URI, such as sqlite:///runs.db or http://host:5000",
        {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        },
    ),
    "wandb": Kind(
        "peftmark.track.wandb",
        "wandb",
        "a folder",
        {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"},
    ),
    "tensorboard": Kind("peftmark.track.tensorboard", "tensorboard", "a folder", {}),
    "trackio": Kind("peftmark.track.trackio", "trackio", "a folder", {}),
}
"""Name on the command line -> the tracker."""


@dataclass(frozen=True)
class Target:
    """A tracker, and where it writes.

    Attributes:
        name: one of `KINDS`.
        place: as typed; None for where its library writes by itself.
    """

    name: str
    place: str | None = None

    @property
    def typed(self) -> str:
        """As it is typed."""
        return self.name if self.place is None else f"{self.name}={self.place}"


def read_target(option: str, text: str) -> Target:
    """A tracker as typed: its name, or name=place.

    Raises:
        UserError: there is none of that name, its library isn't installed, or the place is empty.
    """
    name, equals, place = text.partition("=")
    if name not in KINDS:
        raise UserError(
            f"{option}: found {quoted(text)}", f"Give one of {quoted_list(list(KINDS))}."
        )
    kind = KINDS[name]
    if equals and (not place.strip() or not place.isprintable()):
        raise UserError(
            f"{option}: {name} with the place {quoted(place)}", f"Give {kind.place}, or none."
        )
    if find_spec(kind.library) is None:
        raise UserError(
            f"{option} {name}: {kind.library} is not installed for {sys.executable}",
            f'Install it there: pip install "peftmark[{name}]"',
        )
    return Target(name, place if equals else None)


def open_tracker(target: Target) -> Tracker:
    """Load a tracker's library, and open it."""
    kind = KINDS[target.name]
    for name, value in kind.quiet.items():
        os.environ.setdefault(name, value)
    found: Tracker = import_module(kind.module).open_tracker(target.place)
    return found
