"""The command `list`: every name that a suite may use."""

from __future__ import annotations

import argparse
import json

from peftmark.cli.options import add_suites
from peftmark.core.errors import Exit, UserError

NAME = "list"
HELP = "list suites, methods, quantizations, tasks, metrics, models"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Whose suites."""
    add_suites(sub)


def run(options: argparse.Namespace) -> int:
    """Every name that a suite may use."""
    from peftmark.catalog.methods import all_methods
    from peftmark.catalog.metrics import METRICS, OWN_FORM
    from peftmark.catalog.models import MODELS
    from peftmark.catalog.quantizations import QUANTIZATIONS
    from peftmark.catalog.tasks import TASKS
    from peftmark.suite.load import load_suite, suite_names

    suites: dict[str, str] = {}
    for name in suite_names(options.suites):
        try:
            suite = load_suite(name, options.suites)
            suites[name] = f"{suite.summary} Profiles: {', '.join(suite.profiles)}."
        except UserError as error:
            suites[name] = f"can't be used: {error.what.splitlines()[0]}"
    facts = {
        "suites": suites,
        "methods": {m.key: f"{m.title}: {m.summary}" for m in all_methods().values()},
        "quantizations": {q.key: q.summary for q in QUANTIZATIONS.values()},
        "tasks": {t.key: f"{t.summary} ({t.kind}: {t.metric})" for t in TASKS.values()},
        "metrics": {m.key: f"{m.summary} ({m.direction} is better)" for m in METRICS.values()}
        | {"your own": f"a function of references and predictions, as {OWN_FORM}"},
        "models": {m.key: f"{m.summary} ({m.read_as})" for m in MODELS.values()},
    }
    if options.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return Exit.OK
    for heading, rows in facts.items():
        print(f"{heading}:")
        for key, text in rows.items():
            print(f"  {key:<21} {text}")
    return Exit.OK
