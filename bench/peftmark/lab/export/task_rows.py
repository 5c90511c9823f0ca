"""The rows of the task that a kept adapter was trained on, as its job read them."""

from __future__ import annotations

from typing import Literal

from peftmark.lab.data.batches import subset
from peftmark.lab.data.held_out import HeldOut, held_out
from peftmark.lab.data.job_data import cut_selection, readable
from peftmark.lab.export.opened import Opened
from peftmark.sources.assets import Places
from peftmark.sources.task_data import load_task

Split = Literal["selection", "evaluation"]
SPLITS: tuple[Split, ...] = ("selection", "evaluation")


def task_rows(opened: Opened, places: Places, most: int | None = None) -> dict[Split, HeldOut]:
    """The job's selection rows, if it cut some, and its evaluation rows.

    Args:
        most: rows of each at most, the same for every seed and cell; None for all of the job's.

    Raises:
        AssetError: they aren't to be had, or are others now.
    """
    job, task = opened.job, opened.task
    data = load_task(task, places)
    encoder = opened.encoder(any(row.turns for row in data.train))
    data = readable(data, task, encoder)
    _, cut = cut_selection(data.train, job.recipe.selection_rows)
    rows = {"selection": cut, "evaluation": subset(data.eval, job.recipe.eval_rows)}
    size = job.recipe.eval_batch_size
    return {
        split: held_out(encoder, subset(rows[split], most), size, task, job)
        for split in SPLITS
        if rows[split]
    }
