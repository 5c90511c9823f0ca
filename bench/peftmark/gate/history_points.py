"""What a run of the gate leaves in the history."""

from __future__ import annotations

import hashlib
import statistics

from peftmark.catalog.methods import cell_title
from peftmark.gate.result import Gate
from peftmark.gate.snapshot import Snapshot
from peftmark.storage.gate_history import Point


def points(gate: Gate, after: Snapshot) -> list[Point]:
    """One point a cell and task; the same rows give the same points."""
    verdicts = {(cell.cell, t.task): t.verdict for cell in gate.cells for t in cell.tasks}
    groups: dict[tuple[object, str], list[int]] = {}
    for i, line in enumerate(after.lines):
        groups.setdefault((line.cell, line.task), []).append(i)
    planned: dict[tuple[object, str], int] = {}
    for cell, task, _ in after.planned:
        planned[cell, task] = planned.get((cell, task), 0) + 1
    seen = "\n".join(f"{x.key} {x.bits} {x.status} {x.finished_at}" for x in after.lines)
    run = hashlib.sha256(f"{after.suite} {after.profile}\n{seen}".encode()).hexdigest()[:16]
    found = []
    for (_, task), places in groups.items():
        lines = [after.lines[i] for i in places]
        ok = [line for line in lines if line.ok and line.value is not None]
        first = lines[0]
        memory = [line.peak for line in ok if line.peak is not None]
        times = [line.step_seconds for line in ok if line.step_seconds is not None]
        losses = [line.loss for line in ok if line.loss is not None]
        found.append(
            Point(
                at=after.finished_at,
                run=run,
                suite=after.suite,
                suite_version=after.suite_version,
                profile=after.profile,
                machine=after.machine,
                commit=first.environment.commit,
                dirty=first.environment.dirty,
                versions=first.environment.software,
                cell=first.cell,
                task=task,
                metric=first.metric,
                values=tuple((x.seed, x.value) for x in ok if x.value is not None),
                planned=planned.get((first.cell, task), len(lines)),
                memory_bytes=max(memory, default=None),
                step_seconds=statistics.median(times) if times else None,
                loss=statistics.fmean(losses) if losses else None,
                verdict=verdicts.get((cell_title(*first.cell), task), "not compared"),
                code=gate.code or 0,
            )
        )
    return found
