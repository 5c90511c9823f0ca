"""Our training step against a bare loop, in one process, in pairs, at equal work.

    python -m peftmark.perf.step '{"cell": "lora", "pairs": 40, "steps": 10}'

A pair is two blocks of the same batches from the same state, ours as a job runs it (meters, time
stamps) and the bare loop's, in drawn order. Both start from the same random state, so the losses of
the two must be the same bits. The last line printed is JSON. On a GPU (`peftmark.perf.gpu_steps`)
the device is waited for before each time is read.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
    Found = tuple[Any, list[torch.Tensor]]

CELLS = {"lora": ("lora", "none"), "adalora": ("adalora", "none"), "qlora": ("lora", "nf4")}
SIDES = ("ours", "bare")
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
        losses: losses that were compared.
        flops: floating-point operations of the steps of one side, over all pairs.
        peaks: rates of a large matrix product on one thread, before and after.
        loss_gap: largest difference between a loss of ours and of the bare loop's; 0 if all are the
            same bits, infinite where one is no number.
        watched: side -> what `peftmark.perf.gpu_watch` saw of some steps halfway; empty if none
            were watched.
    """

    ours: tuple[float, ...]
    bare: tuple[float, ...]
    steps: int
    first_ours: int
    losses: int
    flops: int
    peaks: tuple[float, ...]
    loss_gap: float = 0.0
    watched: dict[str, Any] = field(default_factory=dict)


def job_of(cell: str, total: int, device: Literal["cpu", "cuda"] = "cpu") -> Job:
    """The job of suite `perf` with this cell, stretched to a number of steps."""
    method, quantization = CELLS[cell]
    jobs = expand(load_suite("perf"), "offline", device).jobs
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


def measure(
    job: Job,
    places: Places,
    pairs: int,
    steps: int,
    base: Path | None = None,
    exact: bool = True,
    watched: int = 0,
) -> Pairs:
    """Time pairs of blocks.

    Args:
        job: its recipe's steps are those of one side's blocks and warm-up, and of those watched.
        base: files of a model in place of the job's.
        exact: refuse losses that differ; else they are told.
        watched: steps halfway that are not timed, and watched in place of that.

    Raises:
        UserError: the losses differ, so the two did not do the same work.
    """
    import torch

    from peftmark.lab.determinism import ask_for_same_bits
    from peftmark.lab.measure.meters import gemm_peak
    from peftmark.lab.rng import seed_all
    from peftmark.perf.gpu_watch import watch

    device = torch.device(job.device)
    ask_for_same_bits(device)
    sides = _sides(job, places, device, base)
    seed_all(job.seed, "dropout")
    coin = np.random.default_rng(0)
    race = _Race(job, sides, device, exact)
    peaks = [gemm_peak(device, job.recipe.precision)]
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    firsts = flops = 0
    seen: dict[str, Any] = {}
    for pair in range(-WARM_UP_BLOCKS, pairs):
        if watched and pair == pairs // 2:
            seen = race.take(watched, SIDES, lambda train, batches: watch(train, batches, device))
        at = race.at
        turns = SIDES if coin.integers(2) else SIDES[::-1]
        found = race.take(steps, turns, lambda train, batches: _timed(train, batches, device))
        if pair >= 0:
            firsts += turns[0] == "ours"
            flops += sum(sides.flops[at : at + steps])
            for side in turns:
                seconds[side].append(found[side])
    peaks.append(gemm_peak(device, job.recipe.precision))
    return Pairs(
        ours=tuple(seconds["ours"]),
        bare=tuple(seconds["bare"]),
        steps=steps,
        first_ours=firsts,
        losses=race.compared,
        flops=flops,
        peaks=tuple(peaks),
        loss_gap=race.gap,
        watched=seen,
    )


class _Race:
    """Hands the same further batches to both sides, from the same random state, and compares.

    Attributes:
        at: steps that each side has taken.
        compared: losses that were compared.
        gap: their largest difference so far.
    """

    def __init__(self, job: Job, sides: _Sides, device: torch.device, exact: bool) -> None:
        self._job, self._sides, self._device, self._exact = job, sides, device, exact
        self.at = self.compared = 0
        self.gap = 0.0

    def take(
        self, steps: int, turns: Sequence[str], run: Callable[[Train, list[Batch]], Found]
    ) -> dict[str, Any]:
        """Have both sides take steps; side -> what `run` gives besides the losses.

        Raises:
            UserError: losses differ and mustn't.
        """
        import torch

        batches = [self._sides.work.train(self.at + i) for i in range(steps)]
        self.at += steps
        devices = [self._device] if self._device.type == "cuda" else []
        found: dict[str, Found] = {}
        for side in turns:
            # Leaves the generators as they were before, for the side that comes second.
            with torch.random.fork_rng(devices, enabled=side != turns[-1]):
                found[side] = run(self._sides.ours if side == "ours" else self._sides.bare, batches)
        ours, bare = (torch.stack(found[side][1]) for side in SIDES)
        if not torch.equal(ours, bare):
            if self._exact:
                raise UserError(
                    f"{self._job.method} {self._job.quantization}: the losses of our step and of "
                    f"the bare loop differ by step {self.at}",
                    "They did not do the same work, so that no ratio of their times means "
                    "anything.",
                )
            gaps = (ours - bare).abs().nan_to_num(nan=float("inf"))
            self.gap = max(self.gap, float(gaps.max()))
        self.compared += steps
        return {side: given for side, (given, _) in found.items()}


def _sides(job: Job, places: Places, device: torch.device, base: Path | None) -> _Sides:
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
    folder = base or model_files(MODELS[job.model], places).path
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


def _timed(train: Train, batches: list[Batch], device: torch.device) -> Found:
    """Seconds of a block of steps, and its losses."""
    _wait_for(device)
    start = time.perf_counter()
    losses = train(batches)
    _wait_for(device)
    return time.perf_counter() - start, losses


def _wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
