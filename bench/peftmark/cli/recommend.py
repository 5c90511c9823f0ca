"""The command `recommend`: methods that fit what the user has, from stored results."""

from __future__ import annotations

import argparse
import json

from peftmark.cli.options import OF_COUNTED_ROWS, add_profile, add_results, add_source
from peftmark.core.errors import Exit

NAME = "recommend"
HELP = "methods that fit, from stored results"

WISHES = {
    "memory": ("SIZE", "most peak memory, such as 24GB or 500MiB"),
    "rows": ("N", "training rows you have"),
    "task": ("TASK", "classification, regression, instruction, language or a task's name"),
    "max-drop": ("POINTS", "points below the best cell that you accept (1.0 is 0.01)"),
    "max-parameters": ("N", "most trainable parameters, such as 1M"),
    "max-time": ("TIME", "most training time, such as 90s or 2h"),
    "price": ("AMOUNT", "what an hour of the machine costs, such as 2.50USD; adds a run's price"),
    "max-money": ("AMOUNT", "most money for a run, such as 5USD; needs --price"),
    "model": ("NAME", "the model you mean; no other is spoken of"),
}
"""Option -> its metavar and what it says."""


def add_options(sub: argparse.ArgumentParser) -> None:
    """What the user has, and the results to choose from."""
    sub.add_argument("suite", nargs="?", help="only the results of this suite")
    add_profile(sub, OF_COUNTED_ROWS)
    add_source(sub, required=False)
    for name, (metavar, text) in WISHES.items():
        sub.add_argument(f"--{name}", metavar=metavar, help=text)
    add_results(sub)


def run(options: argparse.Namespace) -> int:
    """Methods that fit what the user has."""
    from peftmark.advice.answer import advice_text, advise, facts_of

    found = advise(
        options.results,
        options.suite,
        options.source,
        options.profile,
        memory=options.memory,
        rows=options.rows,
        task=options.task,
        max_drop=options.max_drop,
        max_parameters=options.max_parameters,
        max_time=options.max_time,
        model=options.model,
        price=options.price,
        max_money=options.max_money,
    )
    print(json.dumps(facts_of(found), indent=2) if options.json else advice_text(found))
    return Exit.OK
