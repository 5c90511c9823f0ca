"""Real runs of a tiny model held against rows of the same jobs, as if those had been published."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

import tiny
import tiny_worker
from factory import make_record
from peftmark.analysis.reproduction import held
from peftmark.lab import recipe
from peftmark.machine.environment import capture
from peftmark.record.sent import outcome_of
from peftmark.sources.assets import Places
from places import SUPPORT
from waiting import PATIENCE

MODEL = "minilm-l6"
OLD_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
}
"""Keeps torch, oneDNN and MKL to the kernels of a processor without AVX."""

ELSEWHERE = f"""
import pickle, sys
from pathlib import Path
sys.path.insert(0, {str(SUPPORT)!r})
from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.lab import recipe
from peftmark.record.job import Job
from peftmark.sources.assets import Places
mirror = Path(sys.argv[1])
model, tasks = pickle.loads((mirror / "tables").read_bytes())
MODELS[model.key] = model
OF_MODELS.pop(model.key, None)
TASKS.update(tasks)
places = Places(mirror, ("mirror",), mirror.parent / "cache")
print(recipe.run(Job.from_json(sys.argv[2]), places, lambda message: None).to_json())
"""


@pytest.fixture
def row(tmp_path, monkeypatch):
    """Run a job, here or in a process that has an older processor's kernels; its row."""
    mirror = tmp_path / "mirror"
    tiny.install(mirror, monkeypatch)
    names = {"tiny-class": "tiny-class", "tiny-score": "tiny-score"}
    tiny_worker.name_as(mirror, monkeypatch, MODEL, **names)
    places = Places(mirror, ("mirror",), tmp_path / "cache")

    def run(job, older=False):
        if not older:
            outcome = recipe.run(job, places, lambda message: None)
        else:
            done = subprocess.run(
                [sys.executable, "-c", ELSEWHERE, str(mirror), job.to_json()],
                env={**os.environ, **OLD_PROCESSOR, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            assert done.returncode == 0, done.stderr[-1000:]
            outcome = outcome_of(done.stdout.splitlines()[-1])
        assert outcome.status == "ok"
        with monkeypatch.context() as patch:
            for name, value in OLD_PROCESSOR.items() if older else ():
                patch.setenv(name, value)
            return make_record(job=job, outcome=outcome, environment=capture())

    return run


def job(seed=0):
    asked = tiny.job(seed=seed, task="tiny-score", learning_rate=2e-3, eval_rows=40)
    return replace(asked, model=MODEL)


@pytest.mark.slow
def test_a_job_made_again_is_identical_and_on_an_older_processor_within_what_seeds_allow(row):
    """Other kernels add up in another order."""
    first, *others = [row(job(seed)) for seed in range(6)]
    assert held(first, row(job()), others).verdict == "identical"
    older = row(job(), older=True)
    here = replace(older, environment=first.environment)
    assert held(first, here, others).verdict == "differs", "other kernels give other bits"
    found = held(first, older, others)
    assert (found.verdict, found.interval.n) == ("within", 5)
