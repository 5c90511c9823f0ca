"""What a person should know before a run."""

from __future__ import annotations

from collections.abc import Sequence

from peftmark.machine.environment import machine
from peftmark.record.job import Job
from peftmark.storage.store import Contents
from peftmark.storage.unread import unread


def notes_of_plan(jobs: Sequence[Job], contents: Contents, here: bool) -> list[str]:
    """Of jobs whose times say nothing of elsewhere, and of rows that can't be read."""
    notes = []
    on_cpu = {job.recipe.precision for job in jobs if here and job.device == "cpu"}
    if "fp16" in on_cpu:
        notes.append("fp16 on a CPU is slow; its times say nothing about fp16 elsewhere")
    if "bf16" in on_cpu and machine()["bf16_instructions"] is False:
        notes.append(
            "no fast bf16 path: this CPU has no bf16 instructions, so bf16 jobs run, but their "
            "times say nothing about bf16 elsewhere"
        )
    return [*notes, *unread(contents)]
