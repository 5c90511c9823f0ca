"""What the meters cost: training steps metered and bare, in pairs, in one run.

    python -m peftmark.lab.measure.overhead [--pairs 60] [--steps 10] [--json]

A pair is two blocks of the same batches, one with everything that a timed phase of a job does
(readings at its edges, a time stamp a step, the sampler of the device beside it) and one without,
in drawn order. Ten steps a block is the shortest interval between two evaluations in the shipped
suites, so the edges' share of a step is no smaller here than in a job.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.lab.build import Build
from peftmark.lab.data.batches import Batch
from peftmark.lab.data.job_data import prepare_work, task_of
from peftmark.lab.measure.meters import Meters
from peftmark.lab.models import anatomy, load_tokenizer
from peftmark.lab.rng import seed_all
from peftmark.lab.step import Step
from peftmark.lab.worker import quiet_libraries
from peftmark.machine.nvml import DeviceMeter, devices
from peftmark.machine.visible import see_only
from peftmark.record.job import Job
from peftmark.record.recipe import Recipe
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.task_data import load_task

WARM_UP_BLOCKS = 2


@dataclass(frozen=True)
class Overhead:
    """What the meters add to a step.

    Attributes:
        median: median over pairs of the relative difference in time, metered to bare.
        low, high: ends of the median's exact 95 % interval (order statistics); None where there
            are too few pairs for one (below 6).
        pairs: pairs of blocks.
        steps: steps a block.
        step_seconds: median seconds of a bare step.
        load: load of the machine in the last minute, at the start: above 1 others disturb.
        device: cpu or cuda.
    """

    median: float
    low: float | None
    high: float | None
    pairs: int
    steps: int
    step_seconds: float
    load: float
    device: str


def job_to_meter(device: str, steps: int) -> Job:
    """A job like those of the suite `smoke`: MiniLM, LoRA r8, TREC, 16 rows a step."""
    model, task = MODELS["minilm-l6"], TASKS["trec"]
    recipe = Recipe(
        steps=steps,
        batch_size=16,
        learning_rate=2e-3,
        schedule="linear",
        warmup_steps=6,
        weight_decay=0.01,
        max_grad_norm=1.0,
        max_length=64,
        precision="bf16",
        optimizer="adamw",
        gradient_checkpointing=False,
        window_batches=16,
        train_rows=None,
        selection_rows=100,
        eval_rows=200,
        eval_every=10,
        eval_batch_size=100,
        train_pooler=True,
        targets="all-linear",
        alpha=16.0,
        dropout=0.0,
    )
    return Job(
        suite="overhead",
        suite_version=1,
        profile="offline",
        model=model.key,
        model_identity=model.weights_sha256,
        task=task.key,
        task_version=task.version,
        data_fingerprint=str(task.fingerprint),
        metric=task.metric,
        target=None,
        method="lora",
        size=8,
        quantization="none",
        seed=0,
        device="cuda" if device == "cuda" else "cpu",
        threads=1,
        recipe=recipe,
    )


def measure(
    job: Job,
    places: Places,
    pairs: int,
    steps: int,
    uuid: str | None = None,
    make: Callable[[torch.device], Meters] = Meters,
) -> Overhead:
    """Time pairs of blocks of the job's training steps.

    Args:
        job: its recipe's steps must be those of both blocks of all pairs and of the warm-up.
        pairs: pairs of blocks.
        steps: steps a block.
        uuid: the GPU to sample, None on the CPU.
        make: the meters to measure.
    """
    load = os.getloadavg()[0]
    device, task = torch.device(job.device), task_of(job)
    torch.set_num_threads(job.threads)
    folder = model_files(MODELS[job.model], places).path
    work = prepare_work(job, task, load_task(task, places), load_tokenizer(folder), folder)
    parts = anatomy(folder, task)
    build = Build(job, task, folder, parts, work)
    prepared = build.prepare(build.base())
    step, meters = Step(job, task, prepared, device), make(device)
    seed_all(job.seed, "dropout")
    number = 0

    def block(batches: list[Batch], metered: bool) -> float:
        """Seconds of a block of steps."""
        nonlocal number
        sampler: AbstractContextManager[object] = DeviceMeter(uuid) if metered else nullcontext()
        with sampler:  # opened and closed outside the clock, as a supervisor does
            _synchronise(device)
            start = time.perf_counter()
            with meters.phase("train") if metered else nullcontext():
                for batch in batches:
                    number += 1
                    step(number, batch.to(device))
                    if metered:
                        meters.step()
            _synchronise(device)
            return time.perf_counter() - start

    def batches_of(pair: int) -> list[Batch]:
        return [work.train(pair * steps + i) for i in range(steps)]

    for _ in range(WARM_UP_BLOCKS):
        block(batches_of(0), metered=True)
    coin = np.random.default_rng(0)
    ratios, bare = [], []
    for pair in range(pairs):
        batches = batches_of(pair)
        first = bool(coin.integers(2))
        seconds = {metered: block(batches, metered) for metered in (first, not first)}
        ratios.append(seconds[True] / seconds[False] - 1)
        bare.append(seconds[False] / steps)
    return _summary(ratios, bare, steps, load, device)


def _summary(
    ratios: list[float], bare: list[float], steps: int, load: float, device: torch.device
) -> Overhead:
    """The figures of the pairs.

    Args:
        ratios: relative difference in time of each pair, metered to bare.
        bare: seconds of a step of each bare block.
    """
    test: Any = stats.quantile_test(ratios, p=0.5)
    interval = test.confidence_interval(0.95)
    ends = [float(end) if np.isfinite(end) else None for end in (interval.low, interval.high)]
    return Overhead(
        median=float(np.median(ratios)),
        low=ends[0],
        high=ends[1],
        pairs=len(ratios),
        steps=steps,
        step_seconds=float(np.median(bare)),
        load=load,
        device=device.type,
    )


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def line(found: Overhead) -> str:
    """The figures in one line."""
    interval = "no interval, too few pairs"
    if found.low is not None and found.high is not None:
        interval = f"95 % interval {found.low:+.2%} to {found.high:+.2%}"
    return (
        f"meters add {found.median:+.2%} to a step of {found.step_seconds * 1000:.0f} ms "
        f"({interval}; {found.pairs} pairs of {found.steps} steps on {found.device}; "
        f"load {found.load:.2f} at the start)"
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print one line, or JSON with it."""
    parser = argparse.ArgumentParser(
        prog="python -m peftmark.lab.measure.overhead", description=__doc__
    )
    parser.add_argument("--pairs", type=_positive, default=60, help="pairs of blocks")
    parser.add_argument("--steps", type=_positive, default=10, help="steps a block")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON too")
    options = parser.parse_args(arguments)
    quiet_libraries()
    gpus = devices().found if torch.cuda.is_available() else ()
    uuid = gpus[0].uuid if gpus else None
    see_only(uuid)  # as a worker does
    total = (2 * options.pairs + WARM_UP_BLOCKS) * options.steps
    job = job_to_meter("cuda" if uuid else "cpu", total)
    places = Places(None, ("package",), default_cache())
    found = measure(job, places, options.pairs, options.steps, uuid)
    print(line(found))
    if options.json:
        print(json.dumps(asdict(found)))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    main()
