"""The command `publish`: a suite's results to a data set on the Hub, or any other place."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from peftmark.cli.options import add_results, add_suite
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.storage.publish import Bundle

NAME = "publish"
HELP = "send a suite's results to a folder, an object store or a data set on the Hub"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which results, and where to."""
    add_suite(sub)
    sub.add_argument(
        "--to",
        dest="url",
        required=True,
        metavar="URL",
        help="file:///path, s3://bucket/path, hf://datasets/owner/name, or what else fsspec knows",
    )
    sub.add_argument("--dry-run", action="store_true", help="list what would be sent, send nothing")
    sub.add_argument("--with-logs", action="store_true", help="the workers' logs too")
    sub.add_argument(
        "--with-texts",
        action="store_true",
        help="rows too that hold what models wrote to rows of your own",
    )
    sub.add_argument(
        "--again", action="store_true", help="send every file again, as after damage in the store"
    )
    add_results(sub)


def run(options: argparse.Namespace) -> int:
    """Publish what is not there yet."""
    from peftmark.storage.publish import publish
    from peftmark.storage.remote import open_remote

    what = _bundle(options)
    to = open_remote(options.url)
    folder = (options.results / options.suite).resolve()
    if to.local is not None and to.local.resolve().is_relative_to(folder):
        raise UserError(f"--to: {to.shown} lies in the results themselves", "Name another place.")
    left = len(what.contents.damaged) + len(what.contents.older)
    code = Exit.INCOMPLETE if left else Exit.OK
    if options.dry_run:
        _tell(options.json, _facts(what, to.shown), _listing(what, to.shown))
        return code
    sent = publish(what, to, options.again)
    facts: dict[str, object]
    facts = {"url": to.shown, "written": sent.written, "removed": sent.removed}
    facts |= {"unchanged": len(sent.kept), "left_out": left}
    text = [
        f"{to.shown}: {len(sent.written):,} files written, {len(sent.kept):,} stand in its "
        "manifest already, which `peftmark pull` checks and --again sends again"
        + (f", {len(sent.removed):,} removed." if sent.removed else "."),
        *_unread(what),
        f"Fetch them: peftmark pull {to.shown} --to DIR",
    ]
    _tell(options.json, facts, text)
    return code


def _bundle(options: argparse.Namespace) -> Bundle:
    """What may be sent.

    Raises:
        UserError: there are no results, or rows hold texts that nobody said may be seen.
    """
    from peftmark.core.files import SUITE_NAME
    from peftmark.core.shown import plural, quoted
    from peftmark.storage.publish import bundle
    from peftmark.storage.store import Store
    from peftmark.storage.unread import no_results

    if not SUITE_NAME.fullmatch(options.suite):
        raise UserError(f"no suite is called {quoted(options.suite)}", "See: peftmark list.")
    store = Store(options.results, options.suite)
    what = bundle(store, options.with_logs)
    if not what.contents.records:
        raise no_results(
            store.folder, what.contents, f"Run them first: peftmark run {options.suite}"
        )
    if what.texts and not options.with_texts:
        raise UserError(
            f"{plural(what.texts, 'row')} of {store.folder} hold what models wrote to rows of your "
            "own (they were run with --show-texts)",
            "Say --with-texts if others may see that. Nothing was sent.",
        )
    return what


def _facts(what: Bundle, url: str) -> dict[str, object]:
    return {
        "url": url,
        "suite": what.suite,
        "files": what.sizes,
        "bytes": sum(what.sizes.values()),
        "rows_of_own_tasks": what.own,
        "rows_with_texts": what.texts,
        "holds": list(_holds(what)),
    }


def _listing(what: Bundle, url: str) -> Iterator[str]:
    """What would be sent, file by file."""
    sizes = what.sizes
    for name, size in sizes.items():
        yield f"  {size:>12,}  {name}"
    total = sum(sizes.values())
    yield f"{len(sizes):,} files, {total:,} bytes, would go to {url}. Nothing was sent."
    yield from _holds(what)
    yield from _unread(what)


def _holds(what: Bundle) -> Iterator[str]:
    """What a reader of the files learns, beside figures."""
    from peftmark.core.shown import plural

    yield (
        "Rows hold settings, scores, predicted and true classes as numbers, the command with the "
        "paths in it, reasons of failures, versions and the machine."
    )
    if what.own:
        yield (
            f"{plural(what.own, 'row')} of tasks of your own, with names of columns, classes and "
            "files and with the prompt; no text of a row."
        )
    if what.texts:
        yield f"{plural(what.texts, 'row')} with what models wrote to rows of your own."
    logs = sum(name.startswith("logs/") for name in what.files)
    if logs:
        yield f"{plural(logs, 'log')} with what workers printed, paths of this machine among it."


def _unread(what: Bundle) -> Iterator[str]:
    from peftmark.storage.unread import unread

    for clause in unread(what.contents):
        yield f"Left out: {clause}."


def _tell(as_json: bool, facts: object, lines: Iterator[str] | list[str]) -> None:
    print(json.dumps(facts, indent=2) if as_json else "\n".join(lines))
