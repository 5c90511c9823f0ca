"""The shapes of jobs' batches: read from their rows by a process of its own, and kept.

They depend on the rows, the tokenizer and the recipe; methods and bases share them.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from peftmark.catalog.task import SPOKEN
from peftmark.core.errors import StoreError
from peftmark.core.files import write_all
from peftmark.core.interpreter import passed_on
from peftmark.core.sealed import sealed, unsealed
from peftmark.duration.jobs import Shapes
from peftmark.machine.environment import source_hash, versions
from peftmark.record.job import Job
from peftmark.sources.assets import Places

WORKER = "peftmark.lab.duration.batch_shapes"
TIMED = {False: (8, 8), True: (2, 4)}
"""Whether a language model reads -> batches and rows of each that inference is timed on
(`peftmark.lab.data.held_out`)."""
NOT_YET = "its rows were not looked at on this machine yet"


def shapes_of(
    jobs: Sequence[Job],
    places: Places,
    heard: Callable[[int, int], None] = lambda done, total: None,
    only_kept: bool = False,
) -> list[Shapes]:
    """The shapes of each job's batches; with a reason where its rows can't be read here.

    Nothing is fetched: of rows and models of the hub those count that are there.

    Args:
        only_kept: start no process; what the cache doesn't hold has a reason instead.
    """
    texts = [_text(job) for job in jobs]
    distinct = dict(zip(texts, jobs, strict=True))
    found = {text: one for text in distinct if (one := _kept(places.cache, text)) is not None}
    missing = {text: job for text, job in distinct.items() if text not in found}
    if only_kept:
        found |= dict.fromkeys(missing, Shapes(reason=NOT_YET))
    elif missing:
        with _process() as process:
            for text, job in missing.items():
                heard(len(found), len(distinct))
                found[text] = _told(process, job, places)
                if not found[text].reason:
                    _keep(places.cache, text, found[text])
            process.kill()
    return [found[text] for text in texts]


def longest_shapes(job: Job) -> Shapes:
    """Shapes of batches whose every row is as long as the recipe lets it be: what to reckon with
    where rows or their tokenizer aren't here."""
    recipe, task = job.recipe, job.task_facts
    longest = recipe.max_length
    held = min(recipe.eval_rows or task.eval_rows, task.eval_rows)
    scored = _batches(held, recipe.eval_batch_size, longest)
    selected = _batches(recipe.selection_rows, recipe.eval_batch_size, longest)
    many, rows = TIMED[task.kind in SPOKEN or job.causal is not None]
    new = None if job.causal is None or task.kind != "instruction" else job.causal.new_tokens
    return Shapes(
        train=[longest * (recipe.device_rows if recipe.packing else 1)] * recipe.steps,
        scored=scored,
        selected=selected,
        timed=[(min(held, rows), longest)] * many,
        written=[] if new is None else [(*one, new) for one in (*scored, *selected)],
    )


def _batches(rows: int, size: int, tokens: int) -> list[tuple[int, int]]:
    full, rest = divmod(rows, size)
    return [(size, tokens)] * full + ([(rest, tokens)] if rest else [])


def _text(job: Job) -> str:
    """All of a job that its batches' shapes depend on, as JSON."""
    recipe = job.recipe
    return json.dumps(
        {
            "model": [job.model, job.model_identity],
            "task": [job.task, job.task_version, job.data_fingerprint, job.purpose == "tuning"],
            "causal": None if job.causal is None else asdict(job.causal),
            "recipe": [
                recipe.steps,
                recipe.batch_size,
                recipe.window_batches,
                recipe.max_length,
                recipe.train_rows,
                recipe.selection_rows,
                recipe.eval_rows,
                recipe.eval_batch_size,
                recipe.pad_to,
                recipe.packing and recipe.device_rows,
            ],
            "made_by": [source_hash("peftmark.lab"), versions()],
        },
        sort_keys=True,
        default=str,
    )


def _process() -> subprocess.Popen[str]:
    variables = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=passed_on(variables | {"TOKENIZERS_PARALLELISM": "false"}),
    )


def _told(process: subprocess.Popen[str], job: Job, places: Places) -> Shapes:
    assert process.stdin is not None and process.stdout is not None
    where: dict[str, Any] = {
        "mirror": None if places.mirror is None else str(places.mirror),
        "sources": places.sources,
        "cache": str(places.cache),
        "hashes": {},
    }
    line = ""
    with suppress(OSError, ValueError):  # the pipe of a process that ended
        asked = json.dumps({"job": replace(job, seed=0).to_json(), "places": json.dumps(where)})
        process.stdin.write(f"{asked}\n")
        process.stdin.flush()
        line = process.stdout.readline()
    try:
        return Shapes(**json.loads(line))
    except (ValueError, TypeError):
        return Shapes(reason="the process that reads the rows ended")


def _place(cache: Path, text: str) -> Path:
    return cache / "batch-shapes" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def _kept(cache: Path, text: str) -> Shapes | None:
    try:
        return Shapes(**unsealed(_place(cache, text).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # not there, or damaged: it is read anew


def _keep(cache: Path, text: str, found: Shapes) -> None:
    with suppress(StoreError):  # a cache that can't be written is gone without
        write_all({_place(cache, text): sealed(asdict(found))})
