"""Process that tells the shapes of a job's batches: a job a line in, an answer a line out, as JSON.

It reads the job's rows and makes tokens of them as the job does, so it loads what a job loads; the
program that asks (`peftmark.duration.shapes`) does not.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import torch

from peftmark.core.errors import UserError
from peftmark.lab.data.batches import Batch
from peftmark.lab.data.held_out import HeldOut
from peftmark.lab.data.job_data import Work, prepare_work, task_of
from peftmark.lab.models import Unsupported, load_tokenizer
from peftmark.lab.plugin_code import bring
from peftmark.lab.worker import _places, quiet_libraries
from peftmark.record.job import Job
from peftmark.sources.assets import Places, model_files
from peftmark.sources.task_data import load_task


def shapes(job: Job, places: Places) -> dict[str, Any]:
    """What `peftmark.duration.shapes.Shapes` holds.

    Rows are read twice, and the second time is what it takes: a run's first job finds files that
    are hashed and tokens that are made.

    Raises:
        UserError, Unsupported: rows or a tokenizer that can't be had.
    """
    _work(job, places)
    start = time.perf_counter()
    work = _work(job, places)
    seconds = time.perf_counter() - start
    return {
        "train": work.longest,
        "scored": _passes(work.eval.batches),
        "selected": [] if work.selection is None else _passes(work.selection.batches),
        "timed": _passes(work.latency),
        "written": _written(work.eval)
        + ([] if work.selection is None else _written(work.selection)),
        "read_seconds": seconds,
    }


def _work(job: Job, places: Places) -> Work:
    task = task_of(job)
    data = load_task(task, places)
    files = model_files(job.model_facts, places)
    tokenizer = load_tokenizer(files.path)
    return prepare_work(job, task, data, tokenizer, files.path, places.cache)


def _passes(batches: Sequence[Batch]) -> list[tuple[int, int]]:
    """(rows, tokens) of every pass: of a batch, and of the words that are asked about after it."""
    found = []
    for batch in batches:
        found.append((batch.shape.rows, batch.shape.tokens))
        asked = [ids for row in batch.asked for ids in row]
        most = max(map(len, asked), default=0)
        if most > 1:
            found.append((len(asked), most - 1))
    return found


def _written(held: HeldOut) -> list[tuple[int, int, int]]:
    """(rows, tokens, new tokens at most) of prompts that answers are written to."""
    if held.answers is None:
        return []
    most = held.answers.new_tokens
    return [(b.shape.rows, b.shape.tokens, most) for b in held.answers.batches]


def main() -> None:
    """Answer until the input ends."""
    torch.set_num_threads(1)
    quiet_libraries()
    out = sys.stdout
    for line in sys.stdin:
        asked = json.loads(line)
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            job = Job.from_json(asked["job"])
            try:
                bring(job)
                told = shapes(job, _places(asked["places"]))
            except (UserError, Unsupported, OSError, ValueError) as error:
                what = error.what if isinstance(error, UserError) else str(error)
                told = {"reason": " ".join(what.split())[:300].rstrip(".")}
        print(json.dumps(told), file=out, flush=True)


if __name__ == "__main__":
    main()
