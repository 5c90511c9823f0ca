"""Our training step against a bare loop, in one process, in pairs, at equal work.

    python -m peftmark.perf.step '{"cell": "lora", "pairs": 40, "steps": 10}'

A pair is two blocks of the same batches from the same state, ours as a job runs it (meters, time
stamps) and the bare loop's, in drawn order. Both start from the same random state, so the losses of
the two must be the same bits. The last line printed is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from peftmark.catalog.models import MODELS
from peftmark.core.errors import UserError
from peftmark.record.job import Job
from peftmark.record.recipe import Recipe
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.task_data import load_task
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite

if TYPE_CHECKING:
    import torch

    from peftmark.lab.data.batches import Batch
    from peftmark.lab.data.job_data import Work

    Train = Callable[[list[Batch]], list[torch.Tensor]]

CELLS = {"lora": ("lora", "none"), "adalora": ("adalora", "none"), "qlora": ("lora", "nf4")}
WARM_UP_BLOCKS = 2


@dataclass(frozen=True)
class _Sides:
    """What is compared: two ways to train on further batches, each from the same start.

    Attributes:
        ours, bare: train on the batches they are given, and give their losses.
        work: where the batches come from.
        flops: floating-point operations of each training step, by step.
    """

    ours: Train
    bare: Train
    work: Work
    flops: tuple[int, ...]


@dataclass(frozen=True)
class Pairs:
    """What the pairs of blocks gave.

    Attributes:
        ours, bare: seconds of each block, in pairs.
        steps: steps a block.
        first_ours: pairs in which ours ran first.
        losses: losses that were compared, all the same bits.
        flops: floating-point operations of the steps of one side, over all pairs.
        peaks: rates of a large matrix product on one thread, before and after.
    """

    ours: tuple[float, ...]
    bare: tuple[float, ...]
    steps: int
    first_ours: int
    losses: int
    flops: int
    peaks: tuple[float, ...]


def job_of(cell: str, total: int) -> Job:
    """The job of suite `perf` with this cell, stretched to a number of steps."""
    method, quantization = CELLS[cell]
    jobs = expand(load_suite("perf"), "offline", "cpu").jobs
    job = next(j for j in jobs if (j.method, j.quantization) == (method, quantization))
    return replace(job, recipe=stretched(job.recipe, total))


def stretched(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with other steps and the same shares of warm-up and of AdaLoRA's phases."""

    def scaled(value: int) -> int:
        return round(value * steps / recipe.steps)

    plan = recipe.adalora
    if plan is not None:
        plan = replace(plan, tinit=scaled(plan.tinit), tfinal=scaled(plan.tfinal))
    return replace(
        recipe, steps=steps, warmup_steps=max(1, scaled(recipe.warmup_steps)), adalora=plan
    )


def measure(job: Job, places: Places, pairs: int, steps: int) -> Pairs:
    """Time pairs of blocks.

    Args:
        job: its recipe's steps are those of one side's blocks and warm-up.

    Raises:
        UserError: the losses differ, so the two did not do the same work.
    """
    import torch

    from peftmark.lab.measure.meters import gemm_peak
    from peftmark.lab.rng import seed_all

    device = torch.device("cpu")
    sides = _sides(job, places, device)
    seed_all(job.seed, "dropout")
    coin = np.random.default_rng(0)
    peaks = [gemm_peak(device, job.recipe.precision)]
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    firsts = compared = flops = 0
    for pair in range(-WARM_UP_BLOCKS, pairs):
        at = (pair + WARM_UP_BLOCKS) * steps
        batches = [sides.work.train(at + i) for i in range(steps)]
        turns = ["ours", "bare"] if coin.integers(2) else ["bare", "ours"]
        state, found = torch.get_rng_state(), {}
        for side in turns:
            torch.set_rng_state(state)
            found[side] = _block(sides.ours if side == "ours" else sides.bare, batches)
        losses = {side: torch.stack(found[side][1]) for side in turns}
        if not torch.equal(losses["ours"], losses["bare"]):
            raise UserError(
                f"{job.method} {job.quantization}: the losses of our step and of the bare loop "
                f"differ by step {at + steps}",
                "They did not do the same work, so that no ratio of their times means anything.",
            )
        compared += steps
        if pair >= 0:
            firsts += turns[0] == "ours"
            flops += sum(sides.flops[at : at + steps])
            for side in turns:
                seconds[side].append(found[side][0])
    peaks.append(gemm_peak(device, job.recipe.precision))
    return Pairs(
        tuple(seconds["ours"]), tuple(seconds["bare"]), steps, firsts, compared, flops, tuple(peaks)
    )


def _sides(job: Job, places: Places, device: torch.device) -> _Sides:
    """Both ways to train, built from the same seeds."""
    import torch

    from peftmark.lab.build import Build
    from peftmark.lab.data.job_data import prepare_work, task_of
    from peftmark.lab.measure.meters import Meters
    from peftmark.lab.measure.probe import probe
    from peftmark.lab.models import adapter_targets, anatomy, load_tokenizer, trained_head
    from peftmark.lab.step import Step
    from peftmark.perf.bare import loop

    task = task_of(job)
    torch.set_num_threads(job.threads)
    folder = model_files(MODELS[job.model], places).path
    work = prepare_work(job, task, load_task(task, places), load_tokenizer(folder), folder)
    parts = anatomy(folder, task)
    build = Build(job, task, folder, parts, work)
    counted = probe(job, task, build.prepare(build.base()), work, device).flops
    head = trained_head(parts, job.recipe.train_pooler)
    bare = loop(job, folder, len(task.labels), adapter_targets(job, parts), head)
    step = Step(job, task, build.prepare(build.base()), device)
    meters, number = Meters(device), 0

    def ours(batches: list[Batch]) -> list[torch.Tensor]:
        nonlocal number
        losses = []
        with meters.phase("train"):
            for batch in batches:
                number += 1
                losses.append(step(number, batch.to(device)).loss)
                meters.step()
        return losses

    return _Sides(ours, bare, work, counted)


def _block(train: Train, batches: list[Batch]) -> tuple[float, list[torch.Tensor]]:
    """Seconds of a block of steps, and its losses."""
    start = time.perf_counter()
    losses = train(batches)
    return time.perf_counter() - start, losses


def main(text: str) -> str:
    """Measure what the JSON asks for; the pairs as JSON."""
    from peftmark.lab.worker import quiet_libraries

    quiet_libraries()
    ask = json.loads(text)
    job = job_of(ask["cell"], (ask["pairs"] + WARM_UP_BLOCKS) * ask["steps"])
    places = Places(None, ("package",), default_cache())
    return json.dumps(asdict(measure(job, places, ask["pairs"], ask["steps"])))


if __name__ == "__main__":
    print(main(sys.argv[1]))
