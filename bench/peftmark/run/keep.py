"""Which trained adapters of a run are kept: the best of a cell and task, all, or none.

The best is told by selection rows, which are cut from the training split: an adapter picked on the
rows that score it would make its own score flattering.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from peftmark.catalog.methods import cell_title, known_method
from peftmark.catalog.metrics import sign_of
from peftmark.core.errors import UserError
from peftmark.core.shown import plural, quoted, quoted_list
from peftmark.record.job import Job, Record
from peftmark.record.kept import NOT_KEPT, NOTES, Kept, Unreadable
from peftmark.storage.adapters import Adapters

WHICH = ("best", "all", "none")
FORM = "best, all or none; of some cells or tasks alone as all:CELL, all:@TASK or all:CELL@TASK"
FULL_BYTES = 4
"""Bytes a parameter of a fully fine-tuned model, which is saved in fp32."""
MIB = 2**20


class Rule(NamedTuple):
    """One `--keep`.

    Attributes:
        which: one of `WHICH`.
        cell: name of a cell, in small letters; empty for every one.
        task: a task; empty for every one.
    """

    which: str
    cell: str = ""
    task: str = ""

    def meets(self, job: Job) -> bool:
        """Whether it speaks of a job."""
        named = cell_title(*job.cell).casefold()
        return self.cell in ("", named) and self.task in ("", job.task)


def read_rules(texts: Sequence[str], jobs: Iterable[Job]) -> tuple[Rule, ...]:
    """The rules of a command; of two that speak of a job the later one counts.

    Raises:
        UserError: a malformed rule, or a cell or task that no job has.
    """
    cells: dict[str, str] = {}
    tasks: dict[str, None] = {}
    for job in jobs:
        title = cell_title(*job.cell)
        cells[title.casefold()] = title
        tasks[job.task] = None
    return tuple(_rule(text, cells, tasks) for text in texts)


def _rule(text: str, cells: Mapping[str, str], tasks: Mapping[str, None]) -> Rule:
    which, _, rest = text.partition(":")
    if which not in WHICH:
        raise UserError(f"--keep: found {quoted(text)}", f"Give {FORM}.")
    # A cell's name may have an @ in it.
    cell, at, task = (rest, "", "") if rest.casefold() in cells else rest.rpartition("@")
    cell, task = (cell, task) if at or not task else (task, "")
    cell = cell.strip().casefold()
    if cell and cell not in cells:
        what = f"--keep: there is no cell {quoted(cell)} in this profile"
        raise UserError(what, f"Its cells: {quoted_list(list(cells.values()))}.")
    if task and task not in tasks:
        what = f"--keep: there is no task {quoted(task)} in this profile"
        raise UserError(what, f"Its tasks: {quoted_list(list(tasks))}.")
    return Rule(which, cell, task)


def which_of(rules: Sequence[Rule], job: Job) -> str:
    """What is kept of a job: one of `WHICH`. Of trials and repeats, and of what trains nothing,
    nothing is."""
    if job.purpose != "report" or not known_method(job.method).trains:
        return "none"
    found = [rule.which for rule in rules if rule.meets(job)]
    return found[-1] if found else "best"


@dataclass(frozen=True)
class Need:
    """The disk that kept adapters will take.

    Attributes:
        adapters: how many at most.
        bytes: of those whose size is known.
        unknown: those whose size no earlier row tells.
    """

    adapters: int
    bytes: int
    unknown: int

    def told(self, where: Path) -> str:
        """It in a sentence without a full stop; empty if nothing is kept."""
        if not self.adapters:
            return ""
        sizes = [f"{self.bytes / MIB:,.1f} MiB"] if self.unknown < self.adapters else []
        if self.unknown:
            sizes.append(f"the size of {self.unknown:,} is known after a first run")
        return (
            f"trained adapters are kept in {where} (--keep): {plural(self.adapters, 'folder')} at "
            f"most; {'; '.join(sizes)}"
        )

    def check(self, results: Path) -> None:
        """
        Raises:
            UserError: there is less room than what is known to be needed.
        """
        there = next(f for f in (results, *results.absolute().parents) if f.exists())
        free = shutil.disk_usage(there).free
        if self.bytes > free:
            raise UserError(
                f"{results}: kept adapters need {self.bytes / MIB:,.0f} MiB, and "
                f"{free / MIB:,.0f} MiB are free",
                "Free some space, keep fewer (--keep none:CELL), or choose another --results "
                "folder.",
            )


def need_of(jobs: Iterable[Job], rules: Sequence[Rule], records: Iterable[Record]) -> Need:
    """What the adapters of jobs will take, as earlier rows tell."""
    sizes: dict[tuple[object, ...], int] = {}
    for record in records:
        if (size := record.outcome.adapter_bytes) is not None:
            sizes[_shape(record.job)] = max(size, sizes.get(_shape(record.job), 0))
    kept: dict[object, Job] = {}
    for job in jobs:
        which = which_of(rules, job)
        if which != "none":
            kept[group(job) if which == "best" else job.job_id] = job
    known = [sizes.get(_shape(job)) or _of_full(job) for job in kept.values()]
    return Need(len(known), sum(n or 0 for n in known), known.count(None))


def _of_full(job: Job) -> int | None:
    full = job.method == "full"
    return FULL_BYTES * job.model_facts.parameters if full else None


def _shape(job: Job) -> tuple[object, ...]:
    return (job.model, job.model_identity, job.cell, job.task)


def group(job: Job) -> tuple[object, ...]:
    """What jobs have in common of which the best is kept."""
    return (job.profile, *_shape(job), job.data_fingerprint, job.metric)


def at_least(one: Kept, other: Kept) -> bool:
    """Whether an adapter is as good as another of its group, by selection rows; without them, and
    among equals, the lower seed counts as the better one."""
    sign = sign_of(one.job.metric)
    ranks = [
        (k.selection is not None, sign * (k.selection or 0.0), -k.job.seed) for k in (one, other)
    ]
    return ranks[0] >= ranks[1]


class Keeper:
    """Keeps what the jobs of a run leave.

    Args:
        adapters: of the suite; the results folder is locked.
    """

    def __init__(self, adapters: Adapters, rules: Sequence[Rule]) -> None:
        self._adapters, self._rules = adapters, rules
        # Read once: nobody else changes them while the folder is locked.
        self._known = adapters.entries()

    def wanted(self, jobs: Iterable[Job]) -> frozenset[str]:
        """Ids of the jobs that are to leave what they trained."""
        return frozenset(job.job_id for job in jobs if which_of(self._rules, job) != "none")

    def take(self, record: Record, left: Path | None) -> Record:
        """Keep what a job left, if it is to be; the row with a note if that fails.

        Args:
            left: the folder that it may have left.
        """
        if left is None or not left.is_dir():
            return record
        try:
            if record.ok:
                self._take(record, left)
        except (OSError, UnicodeDecodeError, Unreadable) as error:
            warnings = (*record.outcome.warnings, f"{NOT_KEPT}: {error}")
            record = replace(record, outcome=replace(record.outcome, warnings=warnings))
        finally:
            shutil.rmtree(left, ignore_errors=True)
        return record

    def _take(self, record: Record, left: Path) -> None:
        # What it shows numbers with takes a while to load, and most jobs leave nothing.
        from peftmark.run.model_card import card

        found = Kept.from_json((left / NOTES).read_text(encoding="utf-8"))
        curve = record.outcome.curve
        kept = replace(
            found,
            job=record.job,
            attempt=record.attempt,
            which=which_of(self._rules, record.job),
            selection=curve[-1].selection_metric if curve else None,
        )
        others = self._others(record.job).values()
        if kept.which == "all" or all(at_least(kept, other) for other in others):
            self._known[self._adapters.take(left, kept, card(record))] = kept

    def prune(self, record: Record) -> None:
        """Remove what a row that is stored now has put in the second place, or made anew."""
        mine = {
            path: kept for path, kept in self._known.items() if kept.job.job_id == record.job.job_id
        }
        new = [path for path, kept in mine.items() if kept.attempt == record.attempt]
        if not new:
            return
        old = {*mine} - {*new}
        if mine[new[0]].which == "best":
            others = self._others(record.job)
            # One that was kept as one of all stays.
            old |= {path for path, kept in others.items() if kept.which == "best"}
        for path in old:
            del self._known[path]
            with suppress(OSError):  # what is left over takes room, and no row
                self._adapters.remove(path)

    def _others(self, job: Job) -> dict[Path, Kept]:
        """Kept adapters of other jobs of the group."""
        return {
            path: kept
            for path, kept in self._known.items()
            if group(kept.job) == group(job) and kept.job.job_id != job.job_id
        }
