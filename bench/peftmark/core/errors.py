"""Errors meant for people, and the exit codes of the command line.

A `UserError` is shown as one message without a traceback. Any other exception is a bug of ours
and keeps its traceback.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; each has one meaning and none is reused.

    Attributes:
        REGRESSION: a gate found that something got worse.
        UNDECIDED: a gate has too little data for a verdict that its policy demands.
        NOT_COMPARABLE: a gate has no baseline, or one of another procedure.
        INCOMPLETE: jobs are not ok.
        NOT_REPEATABLE: the job that ran twice gave other numbers the second time, whatever else
            happened to other jobs; for a gate also a run that differs from its baseline by the
            same code on the same kind of machine.
        CORRUPT: a baseline or a gate's own file is damaged.
    """

    OK = 0
    BUG = 1
    USAGE = 2
    REGRESSION = 3
    UNDECIDED = 4
    NOT_COMPARABLE = 5
    INCOMPLETE = 6
    NOT_REPEATABLE = 7
    CORRUPT = 8
    INTERRUPTED = 130
    TERMINATED = 143


class Leave(KeyboardInterrupt):
    """A second signal: leave at once, with the code of that signal."""

    def __init__(self, code: Exit) -> None:
        super().__init__()
        self.code = code


class UserError(Exception):
    """Something the user can mend: bad input, a missing asset, a full disk.

    Args:
        what: what happened, with the offending value and where it stands.
        remedy: what to do about it (allowed values, a command), one sentence or more.
        code: the exit code to leave with.
    """

    def __init__(self, what: str, remedy: str = "", *, code: Exit = Exit.USAGE) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.code = code

    def __str__(self) -> str:
        return f"{self.what}\n{self.remedy}" if self.remedy else self.what


class SuiteError(UserError):
    """A suite file that can't be used; carries every fault found, not just the first."""


class AssetError(UserError):
    """A model or data set that is missing, damaged or not what its identity says."""


class StoreError(UserError):
    """The results folder can't be read or written."""
