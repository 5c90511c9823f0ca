"""Floating-point operations of one evaluation of each job: all of its held-out rows, once.

    python -m peftmark.perf.count jobs.json

The file has a list of jobs as `Job.to_json` gives them. The last line printed is JSON: a number a
job.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from peftmark.catalog.models import MODELS
from peftmark.record.job import Job
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.task_data import load_task


def evaluation_flops(job: Job, places: Places) -> int:
    """Operations of one pass over the rows that report and the rows that select."""
    import torch

    from peftmark.lab.build import Build
    from peftmark.lab.data.job_data import prepare_work, task_of
    from peftmark.lab.measure.flop_counter import Operations
    from peftmark.lab.models import anatomy, load_tokenizer
    from peftmark.lab.step import logits_of

    device, task = torch.device(job.device), task_of(job)
    folder = model_files(MODELS[job.model], places).path
    work = prepare_work(job, task, load_task(task, places), load_tokenizer(folder), folder)
    build = Build(job, task, folder, anatomy(folder, task), work)
    model = build.prepare(build.base()).model.eval()
    held_out = [work.eval, *([work.selection] if work.selection else [])]
    with torch.no_grad(), Operations(job) as counter:
        for batch in (batch for part in held_out for batch in part.batches):
            logits_of(model, batch.to(device), job, device)
    return int(counter.total)


def main(path: str) -> str:
    """Count for every job of the file."""
    from peftmark.lab.worker import quiet_libraries

    quiet_libraries()
    places = Places(None, ("package",), default_cache())
    jobs = [Job.from_json(text) for text in json.loads(Path(path).read_text(encoding="utf-8"))]
    return json.dumps([evaluation_flops(job, places) for job in jobs])


if __name__ == "__main__":
    print(main(sys.argv[1]))
