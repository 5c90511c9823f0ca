"""What the module of a command has."""

from __future__ import annotations

import argparse
from typing import Protocol


class Command(Protocol):
    """One command; the modules in `peftmark.cli.parser.COMMANDS` are such.

    Attributes:
        NAME: what the user types after `peftmark`.
        HELP: what the command does, in one line.
    """

    NAME: str
    HELP: str

    def add_options(self, sub: argparse.ArgumentParser) -> None:
        """Tell the command's parser what the user may add."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it; the exit code."""
