"""Our training step against a bare loop, in one process, in pairs, at equal work.

    python -m bench.perf.step '{"cell": "lora", "pairs": 40, "steps": 10}'

A pair is two blocks of the same batches from the same state, ours as a job runs it (meters, time
stamps) and the bare loop's, in drawn order. Both start from the same random state, so the losses of
the two must be the same bits. The last line printed is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bench.assets import Places, default_cache, model_files
from bench.catalog import MODELS
from bench.data import load_task
from bench.errors import UserError
from bench.matrix import expand
from bench.record import Job, Recipe
from bench.suite import load_suite

CELLS = {"lora": ("lora", "none"), "adalora": ("adalora", "none"), "qlora": ("lora", "nf4")}
WARM_UP_BLOCKS = 2


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

    from bench.lab.build import Build
    from bench.lab.meters import Meters, gemm_peak
    from bench.lab.models import adapter_targets, anatomy, load_tokenizer, trained_head
    from bench.lab.probe import probe
    from bench.lab.seeds import seed_all
    from bench.lab.step import Step
    from bench.lab.work import prepare_work, task_of
    from bench.perf.bare import loop

    device, task = torch.device("cpu"), task_of(job)
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

    def ours(batches: list[Any]) -> list[torch.Tensor]:
        nonlocal number
        losses = []
        with meters.phase("train"):
            for batch in batches:
                number += 1
                losses.append(step(number, batch.to(device)).loss)
                meters.step()
        return losses

    def block(side: str, batches: list[Any]) -> tuple[float, list[torch.Tensor]]:
        train = ours if side == "ours" else bare
        start = time.perf_counter()
        losses = train(batches)
        return time.perf_counter() - start, losses

    seed_all(job.seed, "dropout")
    coin = np.random.default_rng(0)
    peaks = [gemm_peak(device, job.recipe.precision)]
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    firsts = compared = flops = 0
    for pair in range(-WARM_UP_BLOCKS, pairs):
        at = (pair + WARM_UP_BLOCKS) * steps
        batches = [work.train(at + i) for i in range(steps)]
        sides = ["ours", "bare"] if coin.integers(2) else ["bare", "ours"]
        state, found = torch.get_rng_state(), {}
        for side in sides:
            torch.set_rng_state(state)
            found[side] = block(side, batches)
        losses = {side: torch.stack(found[side][1]) for side in sides}
        if not torch.equal(losses["ours"], losses["bare"]):
            raise UserError(
                f"{job.method} {job.quantization}: the losses of our step and of the bare loop "
                f"differ by step {at + steps}",
                "They did not do the same work, so that no ratio of their times means anything.",
            )
        compared += steps
        if pair >= 0:
            firsts += sides[0] == "ours"
            flops += sum(counted[at : at + steps])
            for side in sides:
                seconds[side].append(found[side][0])
    peaks.append(gemm_peak(device, job.recipe.precision))
    return Pairs(
        tuple(seconds["ours"]), tuple(seconds["bare"]), steps, firsts, compared, flops, tuple(peaks)
    )


def main(text: str) -> str:
    """Measure what the JSON asks for; the pairs as JSON."""
    from bench.lab.worker import quiet_libraries

    quiet_libraries()
    ask = json.loads(text)
    job = job_of(ask["cell"], (ask["pairs"] + WARM_UP_BLOCKS) * ask["steps"])
    places = Places(None, ("package",), default_cache())
    return json.dumps(asdict(measure(job, places, ask["pairs"], ask["steps"])))


if __name__ == "__main__":
    print(main(sys.argv[1]))
