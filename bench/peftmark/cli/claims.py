"""The command `claims`: published claims and figures, and what our own say of them."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence

from peftmark.cli.options import OF_COUNTED_ROWS, add_profile, add_results, add_suites
from peftmark.cli.shared import tell_counts, tell_predictions
from peftmark.core.errors import Exit, UserError
from peftmark.core.shown import quoted

NAME = "claims"
HELP = "compare published claims with stored results"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which claims, and the rows they are held against."""
    sub.add_argument("suite", nargs="?", help="only the claims that this suite tests")
    add_profile(sub, OF_COUNTED_ROWS)
    sub.add_argument(
        "--memory-figures",
        action="store_true",
        help="published memory figures against predictions",
    )
    sub.add_argument(
        "--published",
        action="store_true",
        help="published figures that need no run: parameter counts, bytes, memory, step times",
    )
    # The older spelling: to `recommend`, --memory is a size.
    sub.add_argument("--memory", dest="memory_figures", action="store_true", help=argparse.SUPPRESS)
    add_suites(sub)
    add_results(sub)


def run(options: argparse.Namespace) -> int:
    """Verdicts on published claims."""
    from peftmark.claims.ledger import Claim
    from peftmark.claims.paper import Paper, gather
    from peftmark.claims.standing import look
    from peftmark.claims.text import claims_facts, claims_text
    from peftmark.sources.assets import default_cache
    from peftmark.suite.checks import suite_folders

    if options.published:
        return _published(options)
    if options.memory_figures:
        return _memory_claims(options)

    def compute(claims: Sequence[Claim]) -> Paper:
        folders = suite_folders(options.suites)
        return gather(claims, folders, options.suites, default_cache(), heard=tell_predictions)

    found = look(options.suite, options.profile, options.results, options.suites, compute)
    print(json.dumps(claims_facts(found), indent=2) if options.json else claims_text(found))
    return Exit.OK


def _memory_claims(options: argparse.Namespace) -> int:
    """Verdicts on published memory figures, from predictions."""
    from peftmark.claims.memory_figures import memory_verdicts
    from peftmark.claims.memory_ledger import LEDGER
    from peftmark.claims.memory_text import memory_facts, memory_text
    from peftmark.sources.assets import default_cache

    path = None if options.suites is None else options.suites / LEDGER
    found = memory_verdicts(path, default_cache(), tell_predictions)
    print(json.dumps(memory_facts(found), indent=2) if options.json else memory_text(found))
    return Exit.OK


def _published(options: argparse.Namespace) -> int:
    """Verdicts on published figures that need neither a run nor weights."""
    from peftmark.claims.published import published
    from peftmark.claims.published_text import published_facts, published_text
    from peftmark.sources.assets import default_cache

    if options.suite is not None:
        raise UserError(
            f"claims --published is of no suite, but {quoted(options.suite)} was given",
            f"leave one of them out: peftmark claims {shlex.quote(options.suite)} has the claims "
            "that its rows test",
        )
    found = published(
        options.suites, default_cache(), tell_counts, tell_predictions, options.memory_figures
    )
    print(json.dumps(published_facts(found), indent=2) if options.json else published_text(found))
    return Exit.OK
