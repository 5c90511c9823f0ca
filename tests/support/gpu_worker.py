"""Worker processes of the GPU checks: real ones on the tiny model, two of which go wrong.

`run_jobs(worker="gpu_worker:NAME")` starts them afresh, so each puts the tiny model into its own
tables. torch is loaded inside the functions alone, after the device is named, as in the real one.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from peftmark.lab import worker


def trains(connection, job_json, places_json, log, device, train=None):
    """Run the job, with another function in place of the training if one is given."""
    os.environ["CUDA_VISIBLE_DEVICES"] = device or ""
    import pytest

    import tiny
    from peftmark.lab import recipe

    if train is not None:
        recipe.train = train
    with tempfile.TemporaryDirectory() as scratch:
        mirror = Path(scratch) / "mirror"
        tiny.install(mirror, pytest.MonkeyPatch())
        places = {**json.loads(places_json), "mirror": str(mirror), "sources": ["mirror"]}
        worker.main(connection, job_json, json.dumps(places), log, device)


def asks_for_too_much(*arguments):
    """Ask for more memory in training than any device has."""
    trains(*arguments, train=_four_tebibytes)


def reads_behind_the_end(*arguments):
    """Fail an assertion on the device: after it no CUDA call of the process succeeds."""
    trains(*arguments, train=_behind_the_end)


def _four_tebibytes(*_):
    import torch

    torch.empty(2**42, dtype=torch.uint8, device="cuda")


def _behind_the_end(job, task, prepared, step, work, meters, device, progress):
    import torch

    with meters.phase("train"):
        row = torch.tensor([10**6], device=device)
        print(torch.zeros(2, device=device)[row])
