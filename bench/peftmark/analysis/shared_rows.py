"""Tasks whose evaluation rows are partly the same texts. Pure.

Results keep no texts, so how many rows two tasks share isn't known of a row; that they are cut from
the same published files is, from the catalogue. Two tasks of the user's own share rows if their
fingerprints are equal; parts of one file under two names aren't recognised.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from peftmark.analysis.table import ResultTable
from peftmark.catalog.task import Task
from peftmark.record.job import Job


def share_rows(one: Job, other: Job) -> bool:
    """Whether two tasks are cut from the same evaluation rows, or their rows are equal."""
    if one.own is not None and other.own is not None:
        return one.data_fingerprint == other.data_fingerprint
    first, second = one.known_task, other.known_task
    return first is not None and second is not None and bool(_origins(first) & _origins(second))


def _origins(task: Task) -> set[object]:
    """Splits on the hub, and files of packages by their content, that a task's rows come from."""
    found: set[object] = set()
    if task.eval_hub is not None:
        found.add((task.eval_hub.repository, task.eval_hub.config, task.eval_hub.eval))
    if task.package is not None:
        found.update(digest for _, digest in task.package.files)
    return found


def sharing_pairs(table: ResultTable, tasks: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs among some tasks that share evaluation rows."""
    pairs = itertools.combinations(tasks, 2)
    return [(a, b) for a, b in pairs if share_rows(table.example(a), table.example(b))]


def families(table: ResultTable, tasks: Sequence[str]) -> list[tuple[str, ...]]:
    """Tasks that hang together by shared rows, in the order of the tasks; those alone left out."""
    of = {task: {task} for task in tasks}
    for a, b in sharing_pairs(table, tasks):
        joined = of[a] | of[b]
        of.update(dict.fromkeys(joined, joined))
    found = {id(group): group for group in of.values() if len(group) > 1}
    return [tuple(t for t in tasks if t in group) for group in found.values()]
