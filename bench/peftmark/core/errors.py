"""Errors meant for people, and the exit codes of the command line.

A `UserError` is shown as one message without a traceback. Any other exception is a bug of ours
and keeps its traceback.
"""

from __future__ import annotations

from enum import IntEnum

from peftmark.core.shown import without_secrets


class Exit(IntEnum):
    """Exit codes; each has one meaning and none is reused.

    The help and docs are made from this table (`peftmark.docgen.exit_codes`).

    Attributes:
        meaning: in one line.
        verdict: the same as a gate's verdict; empty for a code that no gate's comparison ends with.
    """

    meaning: str
    verdict: str

    def __new__(cls, code: int, meaning: str, verdict: str = "") -> Exit:
        """A code, which its number alone finds again."""
        made = int.__new__(cls, code)
        made._value_ = code
        made.meaning, made.verdict = meaning, verdict
        return made

    OK = 0, "everything asked for was done", "no regression"
    BUG = 1, "a fault of peftmark itself (with a traceback)"
    USAGE = 2, "bad input, a missing asset, a full disk; nothing was lost"
    REGRESSION = 3, "gate: something got worse", "a regression is shown"
    UNDECIDED = (
        4,
        "gate: too little data for a verdict that the policy demands",
        "too little data for a verdict that the policy demands",
    )
    NOT_COMPARABLE = (
        5,
        "gate: no baseline, or one of another procedure",
        "another procedure than the baseline's",
    )
    INCOMPLETE = (
        6,
        "some jobs are not ok, or missing (the report says which and why)",
        "runs failed or are missing",
    )
    # Of a run: the job that ran twice did, whatever else happened to other jobs. Of a gate: also a
    # run that differs from its baseline by the same code on the same kind of machine.
    NOT_REPEATABLE = (
        7,
        "the same code gave other numbers: the results can't be trusted",
        "the same code gave other numbers",
    )
    CORRUPT = 8, "gate: a baseline, or gate.json, is damaged"
    NUMBERS_CHANGED = (
        9,
        "gate: other numbers than the baseline's on the same kind of machine, undeclared",
        "numbers changed and nobody said why",
    )
    INTERRUPTED = 130, "stopped by Ctrl-C; finished jobs are kept"
    TERMINATED = 143, "stopped by SIGTERM; finished jobs are kept"


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
        # Whatever a message quotes, a library's words among it.
        self.what = without_secrets(what)
        self.remedy = without_secrets(remedy)
        super().__init__(self.what)
        self.code = code

    def __str__(self) -> str:
        return f"{self.what}\n{self.remedy}" if self.remedy else self.what


class SuiteError(UserError):
    """A suite file that can't be used; carries every fault found, not just the first."""


class AssetError(UserError):
    """A model or data set that is missing, damaged or not what its identity says."""


class StoreError(UserError):
    """The results folder can't be read or written."""
