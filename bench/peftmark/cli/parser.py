"""The command line: parses, prints and exits; heavy modules load inside the commands."""

from __future__ import annotations

import argparse
import errno
import os
import resource
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn

from peftmark import __version__
from peftmark.catalog import plugins
from peftmark.cli import (
    adapter,
    alarms,
    baseline,
    budget,
    claims,
    comment,
    compare,
    doctor,
    evaluate,
    export,
    fetch,
    gate,
    import_results,
    inspect,
    list_names,
    merge,
    methods,
    new,
    pin,
    plan,
    predict,
    publish,
    pull,
    recommend,
    report,
    reproduce,
    run,
    simulate,
    table,
    track,
    trend,
    try_out,
    versions,
)
from peftmark.cli.command import Command
from peftmark.cli.shared import tell_reading
from peftmark.cli.terminal import Terminal
from peftmark.core.errors import Exit, Leave, UserError
from peftmark.core.interpreter import start_afresh
from peftmark.core.shown import plain, without_secrets
from peftmark.run.stop import sigterm_leaves
from peftmark.storage.store import Store

SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of a machine that has no more to give, whatever asks."""
COMMANDS: tuple[Command, ...] = (
    try_out,
    run,
    report,
    table,
    alarms,
    plan,
    export,
    predict,
    adapter,
    evaluate,
    new,
    inspect,
    pin,
    fetch,
    budget,
    claims,
    recommend,
    list_names,
    baseline,
    gate,
    compare,
    comment,
    trend,
    versions,
    reproduce,
    merge,
    import_results,
    publish,
    pull,
    track,
    methods,
    doctor,
    simulate,
)
"""Every command, in the order of the help; each module holds its options beside what it does."""

INT, TERM = Exit.INTERRUPTED, Exit.TERMINATED


def _exit_codes() -> str:
    """The end of the help: every code and its meaning."""
    lines = [f"  {c.value:<5}{c.meaning}" for c in Exit if c not in (INT, TERM)]
    by_signal, kept = INT.meaning.split("; ")
    other = TERM.meaning.removesuffix(f"; {kept}").removeprefix("stopped ")
    lines.append(f"  {INT.value:<5}{by_signal}, {TERM.value} {other}; {kept}")
    return "\n".join(["exit codes:", *lines, ""])


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `peftmark`."""
    if arguments is None:
        start_afresh()
    sys.excepthook = _traceback
    terminal = Terminal()
    code = _carry_out(arguments)
    lost = terminal.lost()
    if lost and code == Exit.OK:
        print(f"peftmark: standard output could not be written: {lost}", file=sys.stderr)
        code = Exit.USAGE
    sys.exit(code)


def _carry_out(arguments: Sequence[str] | None) -> int:
    """Do what is asked for; the exit code."""
    try:
        options = _parser().parse_args(arguments)
        _in_a_folder()
        plugins.load()
        Store.tell = tell_reading
        with sigterm_leaves():
            return int(options.command(options))
    except SystemExit as left:  # of the parser
        return left.code if isinstance(left.code, int) else int(Exit.OK)
    except UserError as error:
        # A key of a suite or a name of a file may hold what a terminal would act on.
        print("\n".join(map(plain, f"peftmark: {error}".split("\n"))), file=sys.stderr)
        return int(error.code)
    except MemoryError:
        print(f"peftmark: there is no memory left{_limit('RLIMIT_AS', 'v')}", file=sys.stderr)
        return int(Exit.USAGE)
    except OSError as error:
        if error.errno not in SCARCE:
            raise
        limit = _limit("RLIMIT_NOFILE", "n") if error.errno == errno.EMFILE else ""
        print(f"peftmark: {(error.strerror or str(error)).lower()}{limit}", file=sys.stderr)
        return int(Exit.USAGE)
    except KeyboardInterrupt as left:
        return int(left.code if isinstance(left, Leave) else Exit.INTERRUPTED)
    except BrokenPipeError:  # of a stream that a program has put in place of ours
        return int(Exit.OK)


def _in_a_folder() -> None:
    """Make sure that there is a folder to work in.

    Raises:
        UserError: it was removed, so no path means anything.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError(
            "the folder that this shell is in was removed", "Go to another one: cd FOLDER."
        ) from None


def _limit(name: str, option: str) -> str:
    """A limit of this process in words; empty where it has none."""
    soft, _ = resource.getrlimit(getattr(resource, name))
    return "" if soft == resource.RLIM_INFINITY else f" (this shell's limit: ulimit -{option})"


def _traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A fault of ours, which may quote a URL."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(without_secrets(text), end="", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="peftmark",
        description="Compare parameter-efficient fine-tuning methods by running them.",
        epilog=_exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"peftmark {__version__}")
    subparsers = parser.add_subparsers(metavar="command", required=True)
    for command in COMMANDS:
        sub = subparsers.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        sub.set_defaults(command=command.run)
        sub.add_argument("--json", action="store_true", help="print facts as JSON")
        command.add_options(sub)
    return parser
