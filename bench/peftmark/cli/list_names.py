"""The command `list`: every name that a suite may use."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from peftmark.cli.options import add_suites
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.catalog.plugins import Plugin

NAME = "list"
HELP = "list suites, methods, quantizations, tasks, metrics, models"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Whose suites."""
    add_suites(sub)


def run(options: argparse.Namespace) -> int:
    """Every name that a suite may use."""
    from peftmark.catalog import plugins
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
    for plugin in plugins.all_found():
        if plugin.row is not None:
            text = facts[f"{plugin.kind}s"].get(plugin.key) or _declared(plugin)
            facts[f"{plugin.kind}s"][plugin.key] = f"{text} [{plugin.origin}]"
    if options.json:
        told = {
            f"{kind}s": plugins.origins(kind, facts[f"{kind}s"].keys() - {"your own"})
            for kind in plugins.GROUPS
        }
        print(json.dumps({**facts, "from": told}, indent=2, ensure_ascii=False))
        return Exit.OK
    for heading, rows in facts.items():
        print(f"{heading}:")
        for key, text in rows.items():
            print(f"  {key:<21} {text}")
    return Exit.OK


def _declared(plugin: Plugin) -> str:
    """What a plug-in's model or task is, in words."""
    row = plugin.row
    if plugin.kind == "task":
        return f"rows of the package ({row.kind}: {row.metric or 'its usual metric'})"
    return f"{row.title or 'a model'} of the package, or named by it"
