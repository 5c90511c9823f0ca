"""What a person should know before a run."""

from __future__ import annotations

from peftmark.catalog.methods import cell_title
from peftmark.machine.environment import machine
from peftmark.storage.store import Contents
from peftmark.storage.unread import unread
from peftmark.suite.expand import Expanded


def notes_of_plan(expanded: Expanded, contents: Contents, here: bool) -> list[str]:
    """Of cells that trials left out, of jobs whose times say nothing of elsewhere, and of rows that
    can't be read."""
    notes = []
    if expanded.left_out:
        titles = ", ".join(cell_title(*cell) for cell in expanded.left_out)
        notes.append(f"not reported, since other cells did better in trials: {titles}")
    on_cpu = {job.recipe.precision for job in expanded.jobs if here and job.device == "cpu"}
    if "fp16" in on_cpu:
        notes.append("fp16 on a CPU is slow; its times say nothing about fp16 elsewhere")
    if "bf16" in on_cpu and machine()["bf16_instructions"] is False:
        notes.append(
            "no fast bf16 path: this CPU has no bf16 instructions, so bf16 jobs run, but their "
            "times say nothing about bf16 elsewhere"
        )
    return [*notes, *unread(contents)]
