"""What share of the machine's rate a whole matrix reaches, and where the rest of its time goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peftmark.machine.environment import cores
from peftmark.perf import ours, suites
from peftmark.perf.figures import efficiency_figure, missing, range_figure
from peftmark.perf.launch import ONE_THREAD, python, together
from peftmark.record.job import Job, Record

Say = Callable[[str], None]
Peaks = dict[str, dict[str, list[float]]]
PRECISIONS = ("bf16", "fp32")


def measure(folder: Path, small: bool, seeds: int, say: Say) -> dict[str, Any]:
    """All figures of this part, as plain data for JSON."""
    readings = 2 if small else 5
    peaks = [read_peaks(folder / "peak-0.log", readings)]
    runs: dict[str, ours.Ran] = {}
    for number, precision in enumerate(PRECISIONS, start=1):
        changes = [suites.tiny("trec", 2)] if small else []
        own = suites.copy_suite(
            "glue",
            folder / f"suites-{precision}",
            *changes,
            suites.seeds(seeds),
            suites.precision(precision),
        )
        say(f"matrix: suite glue in {precision}")
        runs[precision] = ours.run("glue", own, folder / precision, cores())
        found = runs[precision]
        say(f"  {len(found.records)} jobs in {found.seconds:.0f} s")
        peaks.append(read_peaks(folder / f"peak-{number}.log", readings))
    say("matrix: counting the operations of evaluations")
    counted = count(runs["bf16"].records, folder)
    return summary(runs, peaks, counted)


def read_peaks(log: Path, readings: int) -> Peaks:
    """Rates per core now, by precision, with all cores busy and with one."""
    ask = json.dumps({"cores": cores(), "readings": readings})
    found: Peaks = python("peftmark.perf.peak", [ask], log, ONE_THREAD).answer
    return found


def count(records: Sequence[Record], folder: Path) -> dict[tuple[str, str], int]:
    """(cell, task) -> operations of one evaluation, counted by one process a core.

    They depend neither on the seed nor on the precision: held-out rows are the same and so are the
    shapes of what is multiplied.
    """
    jobs: dict[tuple[str, str], Job] = {_kind(r.job): r.job for r in records}
    shares = [list(jobs)[i :: cores()] for i in range(cores())]
    shares = [share for share in shares if share]
    files = []
    for number, share in enumerate(shares):
        files.append(folder / f"count-{number}.json")
        files[-1].write_text(json.dumps([jobs[kind].to_json() for kind in share]))
    ended = together(
        "peftmark.perf.count", [[str(f)] for f in files], folder / "count.log", ONE_THREAD
    )
    return {
        kind: flops
        for share, one in zip(shares, ended, strict=True)
        for kind, flops in zip(share, one.answer, strict=True)
    }


def _kind(job: Job) -> tuple[str, str]:
    return str(job.cell), job.task


def summary(
    runs: Mapping[str, ours.Ran], peaks: Sequence[Peaks], counted: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    """Figures as plain data.

    Args:
        runs: precision -> the matrix.
        peaks: readings before, between and after the matrices.
        counted: (cell, task) -> operations of one evaluation.
    """
    found: dict[str, Any] = {"matrix_efficiency": {}, "gemm_gflops": {}, "matrix": {}}
    for precision in PRECISIONS:
        readings = {
            state: [rate for at in peaks for rate in at[precision][state]]
            for state in ("busy", "alone")
        }
        found["gemm_gflops"][precision] = {
            state: range_figure([rate / 1e9 for rate in rates]).to_dict()
            for state, rates in readings.items()
        }
        run = runs[precision]
        training, evaluation = flops_of(run.records, counted)
        figure = (
            missing("operations of some training steps were not counted")
            if training is None
            else efficiency_figure(training + evaluation, run.seconds, cores(), readings["busy"])
        )
        found["matrix_efficiency"][precision] = figure.to_dict()
        steps = [r.outcome.mfu for r in run.records if r.outcome.mfu is not None]
        found["matrix"][precision] = {
            "wall_seconds": run.seconds,
            "jobs": len(run.records),
            "training_flops": training,
            "evaluation_flops": evaluation,
            "median_mfu_of_timed_steps": float(np.median(steps)) if steps else None,
            "core_seconds": breakdown(run, cores()),
        }
    return found


def flops_of(
    records: Sequence[Record], counted: Mapping[tuple[str, str], int]
) -> tuple[float | None, float]:
    """Operations of all training steps (None if some are unknown), and of all evaluations."""
    training: float | None = 0.0
    evaluation = 0.0
    for record in records:
        outcome = record.outcome
        if outcome.flops_per_step is None or outcome.steps is None or training is None:
            training = None
        else:
            training += outcome.flops_per_step * outcome.steps
        evaluation += counted[_kind(record.job)] * len(outcome.curve)
    return training, evaluation


def breakdown(run: ours.Ran, slots: int) -> dict[str, float]:
    """Where the cores' time went: phase -> core seconds; all add up to cores times wall time.

    `other in jobs` is what a worker does between phases (start, hashes of weights, the matrix
    product that is timed); `no job` is a core's time without a worker: start-up, the end of the
    matrix, the report.
    """
    phases: dict[str, float] = {}
    quantised: set[float] = set()
    for record in run.records:
        for name, seconds in record.outcome.phase_seconds.items():
            if name == "quantise" and seconds in quantised:
                continue  # a base that an earlier job made: each job reports what making it took
            quantised |= {seconds} if name == "quantise" else set()
            phases[name] = phases.get(name, 0.0) + seconds
    in_jobs = sum(record.wall_seconds for record in run.records)
    ordered = dict(sorted(phases.items(), key=lambda item: -item[1]))
    rest = {"other in jobs": in_jobs - sum(phases.values())}
    return ordered | rest | {"no job": slots * run.seconds - in_jobs}
