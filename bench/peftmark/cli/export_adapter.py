"""What `export` and `predict` share: a kept adapter by its cell and task; and its export."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from peftmark.cli.options import (
    add_mirror,
    add_profile,
    add_results,
    add_suite,
    add_suites,
    count_from_zero,
)
from peftmark.core.errors import Exit

if TYPE_CHECKING:
    from peftmark.run.kept_models import Asked, Found
    from peftmark.storage.store import Store
    from peftmark.suite.load import Suite

OF_KEPT = "profile of the suite; needed where several kept such an adapter"


def add_cell_and_task(sub: argparse.ArgumentParser, required: bool) -> None:
    """Which kept adapter of a suite, and what its base is read from."""
    sub.add_argument(
        "--cell",
        required=required,
        metavar="NAME",
        help='as reports name it, such as "LoRA r8"',
    )
    sub.add_argument("--task", required=required, metavar="TASK", help="what it was trained on")
    sub.add_argument(
        "--seed", type=count_from_zero, help="(default: the best that is kept, by selection rows)"
    )
    add_suites(sub)
    add_mirror(sub)


def add_which_adapter(sub: argparse.ArgumentParser) -> None:
    """A kept adapter of a suite."""
    add_suite(sub)
    add_cell_and_task(sub, required=True)
    add_profile(sub, OF_KEPT)
    add_results(sub)


def found_by(options: argparse.Namespace) -> tuple[Suite, Found]:
    """The suite and the kept adapter that the options name.

    Raises:
        UserError: there is none.
    """
    from peftmark.run.kept_models import find
    from peftmark.suite.load import load_suite

    suite = load_suite(options.suite, options.suites)
    return suite, find(*asked_by(options, suite))


def asked_by(options: argparse.Namespace, suite: Suite) -> tuple[Store, Asked]:
    """Where the kept adapter that the options name is to be looked for, and which it is."""
    from peftmark.run.kept_models import Asked
    from peftmark.storage.store import Store

    asked = Asked(options.cell, options.task, options.seed, options.profile)
    return Store(options.results, suite.name), asked


def export_adapter(options: argparse.Namespace) -> int:
    """Write the export, and say what the check of it found."""
    from peftmark.run.kept_models import FORMS, export

    suite, found = found_by(options)
    told = export(found, suite, options.mirror, options.to, options.merged, options.with_base)
    if options.json:
        facts = {name: told[name] for name in ("form", "with_base", "difference", "largest")}
        print(json.dumps({"to": str(options.to), "from": str(found.folder), **facts}, indent=2))
        return Exit.OK
    print(f"{found.title}: {FORMS[told['form']]}.")
    print(
        f"Loaded without peftmark, its logits differ from the trained model's by "
        f"{told['difference']:.1e} at most (largest logit: {told['largest']:.3g})."
    )
    print(f"Wrote {options.to}; {options.to / 'load.py'} loads it.")
    return Exit.OK
