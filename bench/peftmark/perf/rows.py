"""The rows of a job as files that a script can read, and what it has to train.

    python -m peftmark.perf.rows '{"suites": ..., "out": ...}'

The last line printed is JSON: what the scripts ask for, without kind, seed and threads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peftmark.catalog.models import MODELS
from peftmark.catalog.task import Example
from peftmark.record.job import Job
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.task_data import load_task
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite


def prepare(job: Job, places: Places, out: Path) -> dict[str, Any]:
    """Write the job's training and evaluation rows; scores are standardised as in a job."""
    import numpy as np

    from peftmark.lab.data.batches import subset
    from peftmark.lab.data.job_data import cut_selection

    recipe, task = job.recipe, job.task_facts
    data = load_task(task, places)
    train = subset(cut_selection(data.train, recipe.selection_rows)[0], recipe.train_rows)
    held_out = subset(data.eval, recipe.eval_rows)
    labels = np.array([row.label for row in train], dtype=np.float64)
    out.mkdir(parents=True, exist_ok=True)

    def write(name: str, rows: Sequence[Example]) -> str:
        lines = []
        for row in rows:
            label = (float(row.label) - float(labels.mean())) / float(labels.std())
            pair = {} if row.pair is None else {"pair": row.pair}
            lines.append(json.dumps({"text": row.text, **pair, "label": label}) + "\n")
        path = out / f"{name}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        return str(path)

    return {
        "model": str(model_files(MODELS[job.model], places).path),
        "train": write("train", train),
        "eval": write("eval", held_out),
        "steps": recipe.steps,
        "eval_every": recipe.eval_every,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": recipe.warmup_steps,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "max_length": recipe.max_length,
        "rank": job.size,
        "alpha": recipe.alpha,
        "train_rows": len(train),
        "eval_rows": len(held_out),
    }


def main(text: str) -> str:
    """Write the rows of the LoRA job of suite `perf` that the JSON names."""
    ask = json.loads(text)
    jobs = expand(load_suite("perf", Path(ask["suites"])), "offline", "cpu").jobs
    job = next(j for j in jobs if (j.method, j.quantization) == ("lora", "none"))
    places = Places(None, ("package",), default_cache())
    return json.dumps(prepare(job, places, Path(ask["out"])))


if __name__ == "__main__":
    print(main(sys.argv[1]))
