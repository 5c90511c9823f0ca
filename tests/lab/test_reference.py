"""The harness against `reference_loop.py`: the same job written out by hand, without our code."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import AssetError
from peftmark.lab import recipe
from peftmark.record.job import Job
from peftmark.record.outcome import Outcome
from peftmark.record.recipe import AdaLoraSchedule, Recipe
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.task_data import load_task
from places import SUPPORT
from waiting import PATIENCE

pytestmark = pytest.mark.real

REFERENCE = SUPPORT / "reference_loop.py"
MODEL = MODELS["minilm-l6"]
PLACES = Places(None, ("package",), default_cache())

RECIPE = Recipe(
    steps=24, batch_size=16, learning_rate=2e-3, schedule="linear", warmup_steps=5,
    weight_decay=0.01, max_grad_norm=1.0, max_length=24, precision="bf16", optimizer="adamw",
    gradient_checkpointing=False, window_batches=8, train_rows=None, selection_rows=64,
    eval_rows=64, eval_every=8, eval_batch_size=32, train_pooler=True, targets="all-linear",
    alpha=16.0, dropout=0.1,
)  # fmt: skip
SCHEDULE = AdaLoraSchedule(
    init_rank=12, tinit=3, tfinal=8, delta_t=4, beta1=0.85, beta2=0.85, orthogonal_weight=0.1
)


def job(method: str, quantization: str, task: str, recipe: Recipe) -> Job:
    known = TASKS[task]
    return Job(
        suite="x",
        suite_version=1,
        profile="p",
        model=MODEL.key,
        model_identity=MODEL.weights_sha256,
        task=task,
        task_version=known.version,
        data_fingerprint=str(known.fingerprint),
        metric=known.metric,
        target=None,
        method=method,
        size=8,
        quantization=quantization,
        seed=3,
        device="cpu",
        threads=1,
        recipe=recipe,
    )


JOBS = {
    "short": job(
        "lora", "none", "trec",
        replace(
            RECIPE, steps=14, learning_rate=4e-3, warmup_steps=3, selection_rows=32, eval_rows=32,
            eval_every=7,
        ),
    ),
    "lora": job("lora", "none", "trec", RECIPE),
    "adalora": job(
        "adalora", "none", "trec",
        replace(RECIPE, learning_rate=4e-3, alpha=64.0, adalora=SCHEDULE),
    ),
    "qlora": job("lora", "nf4", "trec", replace(RECIPE, double_quantization=True)),
    "regression": job("lora", "none", "sts-b", RECIPE),
}  # fmt: skip


def by_hand(line: str) -> dict:
    """What the reference makes of a job, in a process of its own with one thread."""
    done = subprocess.run(
        [sys.executable, str(REFERENCE)],
        input=line,
        text=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        cwd=REFERENCE.parent,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def written_out(job: Job) -> str:
    """A job for the reference: texts, labels and row numbers, but no tokens."""
    from peftmark.lab.data.batches import subset
    from peftmark.lab.data.job_data import cut_selection, prepare_work
    from peftmark.lab.models import load_tokenizer

    task, folder = TASKS[job.task], model_files(MODEL, PLACES).path
    data = load_task(task, PLACES)
    train, selection = cut_selection(data.train, job.recipe.selection_rows)

    def columns(rows):
        texts = [[row.text] if row.pair is None else [row.text, row.pair] for row in rows]
        return {"texts": texts, "labels": [row.label for row in rows]}

    held_out = {"metric": subset(data.eval, job.recipe.eval_rows), "selection_metric": selection}
    plain = {
        "model": str(folder),
        "method": job.method,
        "rank": job.size,
        "quantization": job.quantization,
        "classes": len(task.labels),
        "seed": job.seed,
        "threads": job.threads,
        "recipe": asdict(job.recipe),
        "train": columns(train),
        "held_out": {name: columns(rows) for name, rows in held_out.items()},
        "batches": prepare_work(job, task, data, load_tokenizer(folder), folder).order,
    }
    return json.dumps(plain)


def both(name: str) -> tuple[Outcome, dict]:
    """Outcome of the harness and result of the reference for a job."""
    one = JOBS[name]
    try:
        model_files(MODEL, PLACES)
        load_task(TASKS[one.task], PLACES)
    except AssetError as error:
        pytest.skip(f"the packaged model and rows can't be had here: {error}")
    return recipe.run(one, PLACES, lambda message: None), by_hand(written_out(one))


# Each trains twice; on every push the gate of the smoke suite holds bits against the baseline's.
@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_the_harness_gives_what_a_loop_written_by_hand_gives(name, training_alone):
    ours, theirs = both(name)
    assert ours.status == "ok"
    assert [point.step for point in ours.curve] == [point["step"] for point in theirs["curve"]]
    for point, other in zip(ours.curve, theirs["curve"], strict=True):
        assert point.metric == pytest.approx(other["metric"], abs=1e-6)
        assert point.selection_metric == pytest.approx(other["selection_metric"], abs=1e-6)
        loss, penalty = other["losses"]
        assert point.loss == pytest.approx(loss, abs=1e-5)
        assert (point.penalty or 0.0) == pytest.approx(penalty, abs=1e-5)
    assert ours.metric_value == pytest.approx(theirs["curve"][-1]["metric"], abs=1e-6)
    if name == "adalora":
        assert ours.final_rank == theirs["final_rank"] == 8 * 36
    # The job learned something, so that equality means something.
    assert ours.metric_value > ours.baseline_value + 0.05
    assert len({point.metric for point in ours.curve}) > 1


def test_the_reference_is_short_and_knows_nothing_of_the_harness():
    text = REFERENCE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    libraries = {"numpy", "torch", "peft", "scipy", "sklearn", "transformers"}
    assert names <= libraries | set(sys.stdlib_module_names)
