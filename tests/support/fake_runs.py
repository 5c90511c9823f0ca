"""Runs with fake workers: from a plan to stored rows in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping

from peftmark.executors.contract import Finished
from peftmark.record.job import Record
from peftmark.run.runner import Selection, execute, fetch, make_plan
from peftmark.run.stop import Stop


def run(
    selection: Selection,
    ways: Mapping[str, str] | None = None,
    stop: Stop | None = None,
    fetched: bool = False,
) -> list[tuple[Record, Finished]]:
    """Run what is to run.

    Args:
        ways: seed -> how its workers end, where not well (`fake_worker.by_seed`).
        fetched: whether models and rows are fetched before, as the command does.
    """
    plan = make_plan(selection)
    if fetched:
        fetch(plan)
    with plan.store.lock():
        (plan.store.logs / "ways").write_text(json.dumps(ways or {}))
        order = (plan, plan.to_run, selection, lambda *_: None, stop or Stop())
        pairs = list(execute(*order, "fake_worker:by_seed"))
        plan.store.rebuild()
    return pairs
