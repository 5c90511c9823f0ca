"""What a job raises that can't run here."""

from __future__ import annotations


class Unsupported(Exception):
    """The cell can't run on this machine or with these library versions."""
