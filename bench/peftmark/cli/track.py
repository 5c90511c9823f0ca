"""The command `track`: stored rows to an experiment tracker."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from peftmark.cli.options import OF_ALL, add_profile, add_reports, add_results, add_suite
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.track.seam import Target, Tracker

NAME = "track"
HELP = "send stored rows to MLflow, Weights & Biases, TensorBoard or Trackio"
TRACKERS = "mlflow, wandb, tensorboard or trackio"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which rows, and where to."""
    add_suite(sub)
    sub.add_argument(
        "--to",
        dest="track",
        default="mlflow",
        metavar="TRACKER[=PLACE]",
        help=f"{TRACKERS} (default: mlflow), and where it writes (docs/trackers.md)",
    )
    add_profile(sub, OF_ALL)
    add_results(sub)
    add_reports(sub)


def run(options: argparse.Namespace) -> int:
    """Send what isn't there yet."""
    from peftmark.core.files import SUITE_NAME
    from peftmark.core.shown import plain, quoted, quoted_list
    from peftmark.storage.store import Store
    from peftmark.storage.unread import no_results
    from peftmark.track.beside import later, sentences
    from peftmark.track.seam import read_target
    from peftmark.track.send import Sender, report_of

    target = read_target("--to", options.track)
    if not SUITE_NAME.fullmatch(options.suite):
        raise UserError(f"no suite is called {quoted(options.suite)}", "See: peftmark list.")
    store = Store(options.results, options.suite)
    contents = store.read()
    if not contents.records:
        run = f"Run them first: peftmark run {options.suite}"
        raise no_results(store.folder, contents, run)
    there = sorted({record.job.profile for record in contents.records.values()})
    if options.profile is not None and options.profile not in there:
        raise UserError(
            f"{store.folder} has no rows of profile {quoted(options.profile)}",
            f"It has rows of {quoted_list(there)}.",
        )
    with redirect_stdout(sys.stderr):  # whatever libraries print
        tracker = _opened(target)
        sender = Sender(tracker, store, options.profile)
        rows = sender.rows()
        sender.send(rows)
        if sender.result.faults:
            sender.send(rows)  # once more, what failed
        sender.finish(report_of(options.reports / options.suite), "finished")
    result, where = sender.result, tracker.where
    if options.json:
        print(json.dumps({"tracker": target.name, "where": where, **result.facts}, indent=2))
    else:
        told = sentences(target, result, where, later(options.suite, target, options.results))
        print("\n".join(map(plain, told)))
    return Exit.INCOMPLETE if result.faults else Exit.OK


def target_of(text: str | None) -> Target | None:
    """The tracker that a run is asked for.

    Raises:
        UserError: there is none of that name, or its library isn't installed.
    """
    from peftmark.track.seam import read_target

    return None if text is None else read_target("--track", text)


def _opened(target: Target) -> Tracker:
    """
    Raises:
        UserError: it can't be opened; its library says why.
    """
    from peftmark.track.entry import controlled
    from peftmark.track.seam import KINDS, open_tracker

    try:
        return open_tracker(target)
    except Exception as error:  # a library of others may raise anything
        why = f"{type(error).__name__}: {controlled(str(error))}"
        raise UserError(
            f"--to {target.typed} can't be opened: {why}",
            f"Its place is {KINDS[target.name].place}, or none.",
        ) from error
