"""The parts of `make gpu-report`: what each runs, and the figures it takes from that."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from peftmark.analysis.validity import first_difference, repeatability
from peftmark.catalog.methods import cell_title
from peftmark.catalog.models import MODELS
from peftmark.core.errors import UserError
from peftmark.executors.launch import WORKER_ENVIRONMENT
from peftmark.perf import gpu_suites, limited
from peftmark.perf.figures import median_figure
from peftmark.perf.gpu_steps import CELLS, WATCHED
from peftmark.perf.gpu_suites import PACKED
from peftmark.record.fields import by_phase
from peftmark.record.job import Job, Record
from peftmark.sources.assets import default_cache
from peftmark.storage.store import Store
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite

SHARE_OF_PLAN = 0.3
"""Of a part's time that predicting may take, before what is predicted runs."""
END_SECONDS = 25.0
"""Left of a run's time for its last job, its repeat and its rows, beyond its `--hours`."""
ENCODER = {"layers": 12, "width": 768, "heads": 12}
SMALL = {"layers": 2, "width": 64, "heads": 2}
ALONE = 3
"""Jobs that also run in processes of their own."""


class NotRun(Exception):
    """A part has nothing to run here; says why."""


@dataclass
class Bench:
    """Where a part works, and how long it may.

    Attributes:
        folder: of the report.
        card: what CUDA_VISIBLE_DEVICES names the device by; empty for the CPU.
        quick: whether everything is at a tiny size.
        until: when the part is over, by `clock`.
        clock: seconds that only rise.
        run: `peftmark.perf.limited.python`.
        rows: rows of earlier parts, by part.
        short: reasons why the part's figures are not all there.
    """

    folder: Path
    card: str
    quick: bool
    until: float
    clock: Callable[[], float]
    run: Callable[..., limited.Ran] = limited.python
    rows: dict[str, tuple[Record, ...]] = field(default_factory=dict)
    short: list[str] = field(default_factory=list)

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where jobs run."""
        return "cuda" if self.card else "cpu"

    @property
    def left(self) -> float:
        """Seconds until the part's next command has to be told to end."""
        return self.until - limited.GRACE_SECONDS - self.clock()

    def python(self, name: str, words: Sequence[str], seconds: float | None = None) -> limited.Ran:
        """Run `python -m` with these words, in what is left or fewer seconds."""
        limit = self.left if seconds is None else min(seconds, self.left)
        environment = {**WORKER_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": self.card}
        return self.run(words, self.folder / "logs" / f"{name}.log", limit, environment, self.clock)


# --- what is there ------------------------------------------------------------------------------


def doctor(bench: Bench) -> dict[str, Any]:
    """What `peftmark doctor` finds."""
    ran = bench.python("doctor", ["peftmark", "doctor", "--json"])
    try:
        findings = json.loads(ran.printed())
    except ValueError:
        raise UserError(f"peftmark doctor: {ran.why() or 'it printed no JSON'}") from None
    return {"findings": findings}


# --- steps --------------------------------------------------------------------------------------


def minilm_steps(bench: Bench) -> dict[str, Any]:
    """Steps of MiniLM."""
    return _steps(bench, "MiniLM-L6 (6 layers of 384)", None)


def encoder_steps(bench: Bench) -> dict[str, Any]:
    """Steps of an encoder of base size, with random weights."""
    shape = SMALL if bench.quick else ENCODER
    return _steps(bench, "BERT of {layers} layers of {width}, random".format(**shape), shape)


def _steps(bench: Bench, title: str, shape: Mapping[str, int] | None) -> dict[str, Any]:
    ask: dict[str, Any] = {"device": bench.device, "cells": list(CELLS), "shape": shape}
    if bench.quick:
        ask |= {"pairs": 2, "steps": 1, "watched": 1, "batch_size": 2}
    else:
        # Twice the layers take twice the time; six pairs still have an interval.
        ask |= {"pairs": 6, "steps": 5} if shape else {"pairs": 8, "steps": 10}
        ask |= {"watched": WATCHED}
    name = "steps-minilm" if shape is None else "steps-encoder"
    ran = bench.python(name, ["peftmark.perf.gpu_steps", json.dumps(ask)])
    rows = {line["cell"]: line for line in ran.lines()}
    cells = {cell: _cell(rows.get(cell), ran) for cell in CELLS}
    lacking = [f"{cell}: {one['reason']}" for cell, one in cells.items() if one["reason"]]
    if len(lacking) == len(cells):
        raise UserError(lacking[0])
    bench.short += lacking
    return {"model": title, "cells": cells}


def _cell(line: Mapping[str, Any] | None, ran: limited.Ran) -> dict[str, Any]:
    """Figures of one cell; null with a reason where there are none."""
    if line is None or "fault" in line:
        why = line["fault"] if line else f"not reached: {ran.why() or 'nothing was printed of it'}"
        return {"reason": why, "ours": None, "bare": None, "ratio": None, "watched": None}
    found = line["answer"]
    ratios = [ours / bare for ours, bare in zip(found["ours"], found["bare"], strict=True)]
    sides = {
        side: median_figure([1000 * seconds / found["steps"] for seconds in found[side]]).to_dict()
        for side in ("ours", "bare")
    }
    gap = found["loss_gap"]
    return {
        "reason": "",
        **sides,
        "ratio": median_figure(ratios).to_dict(),
        "losses": found["losses"],
        "loss_gap": gap if math.isfinite(gap) else None,
        "watched": found["watched"],
    }


# --- runs ---------------------------------------------------------------------------------------


def shared(bench: Bench) -> dict[str, Any]:
    """Suite `smoke`, eight jobs a process: its starts, its repeat, its energy and its times."""
    own = gpu_suites.smoke(bench.folder / "suites-smoke", bench.quick)
    words = ["smoke", "--profile", "offline", *_from(own)]
    predicted = bench.python(
        "smoke-plan", ["peftmark", "plan", *words, "--json"], bench.left * SHARE_OF_PLAN
    )
    if why := predicted.why():
        bench.short.append(f"times were not predicted: peftmark plan {why}")
    ran, rows = _run(bench, "smoke", [*words, "--jobs", "1", "--jobs-per-process", "8"])
    by_id = {row.job.job_id: row for row in rows}
    jobs = expand(load_suite("smoke", own), "offline", bench.device).jobs
    twice = repeatability(jobs, by_id)
    if len(rows) < len(jobs):
        bench.short.append(f"{len(rows)} of {len(jobs)} jobs have a row")
    repeat = None if twice is None else {"verdict": twice.verdict, "detail": twice.detail}
    return {"seconds": ran.seconds, "repeat": repeat, "jobs": [_job(row) for row in rows]}


def alone(bench: Bench) -> dict[str, Any]:
    """Some of the same jobs in processes of their own, and what differs."""
    rows = [row for row in bench.rows.get("smoke", ()) if row.ok and row.job.purpose == "report"]
    # A process's first job had it to itself in both.
    chosen = [row for row in rows if row.outcome.jobs_before][:ALONE]
    if not chosen:
        raise NotRun("no job that shared a process has a row to compare with")
    own = gpu_suites.smoke(bench.folder / "suites-smoke", bench.quick)
    words = ["smoke", "--profile", "offline", *_from(own), "--jobs", "1", "--jobs-per-process", "1"]
    for row in chosen:
        words += ["--job", row.job.job_id]
    ran, again = _run(bench, "alone", words)
    return {"seconds": ran.seconds, "compared": _compared(chosen, again, bench)}


def packed(bench: Bench) -> dict[str, Any]:
    """Jobs that share the card against the same jobs in turn."""
    offered = bench.python("run-help", ["peftmark", "run", "--help"], 30.0)
    if "--jobs-per-gpu" not in offered.printed():
        raise NotRun("not offered: `peftmark run` has no --jobs-per-gpu")
    if bench.device == "cpu":
        raise NotRun("no CUDA device that jobs could share")
    own = gpu_suites.packed(bench.folder / "suites-packed")
    jobs = expand(load_suite("smoke", own), "offline", bench.device).jobs
    words = ["smoke", "--profile", "offline", *_from(own)]
    for job in jobs:
        words += ["--job", job.job_id] if job.purpose == "report" else []
    one, turns = _run(bench, "in-turn", [*words, "--jobs-per-process", "8"], bench.left * 0.6)
    together, rows = _run(bench, "packed", [*words, "--jobs-per-gpu", str(PACKED)])
    return {
        "jobs": PACKED,
        "in_turn_seconds": one.seconds,
        "packed_seconds": together.seconds,
        "whole": len(turns) == len(rows) == PACKED and not one.why() and not together.why(),
        "compared": _compared(turns, rows, bench),
        "in_turn": [_job(row) for row in turns],
        "packed": [_job(row) for row in rows],
    }


def glue(bench: Bench) -> dict[str, Any]:
    """Suite `glue`, profile `gpu-offline`, in the time that is left."""
    mpnet = MODELS["mpnet-base"].packages[0]
    whole = (default_cache() / "packages" / f"{mpnet.name}-{mpnet.version}").is_dir()
    model = "mpnet-base" if whole and not bench.quick else "minilm-l6"
    own = gpu_suites.glue(bench.folder / "suites-glue", bench.quick, model)
    words = ["glue", "--profile", "gpu-offline", *_from(own)]
    predicted = bench.python(
        "glue-plan", ["peftmark", "plan", *words, "--json"], bench.left * SHARE_OF_PLAN
    )
    total, why = _planned_seconds(predicted)
    hours = max(0.0, bench.left - END_SECONDS) / 3600
    words += ["--hours", f"{hours:.4f}", "--jobs", "1"]
    ran, rows = _run(bench, "glue", words)
    told = [row for row in rows if row.ok and row.predicted_seconds is not None]
    return {
        "model": model,
        "hours": hours,
        "plan_seconds": total,
        "plan_reason": why,
        "seconds": ran.seconds,
        "jobs": len(rows),
        "ok": sum(row.ok for row in rows),
        "timed_jobs": len(told),
        "jobs_seconds": sum(row.wall_seconds for row in told) if told else None,
        "jobs_predicted_seconds": sum(row.predicted_seconds or 0 for row in told) if told else None,
    }


def _from(own: Path | None) -> list[str]:
    """Options that name a folder of suites; none for the shipped ones."""
    return [] if own is None else ["--suites", str(own)]


def _planned_seconds(ran: limited.Ran) -> tuple[float | None, str]:
    """Seconds that a plan predicts of a whole profile, and why there are none."""
    if why := ran.why():
        return None, f"peftmark plan {why}"
    try:
        time = json.loads(ran.printed())["time"]
    except (ValueError, KeyError):
        return None, "peftmark plan printed no times"
    if time is None or time["unknown"]:
        return None, "; ".join(time["unknown"]) if time else "nothing is predicted here"
    return time["total_seconds"] + (time["later_seconds"] or 0.0), ""


def _run(
    bench: Bench, name: str, words: Sequence[str], seconds: float | None = None
) -> tuple[limited.Ran, tuple[Record, ...]]:
    """`peftmark run` into a folder of its own; the rows that it stored, in order.

    Raises:
        UserError: it stored none.
    """
    results = bench.folder / "runs" / name
    words = [*words, "--results", str(results), "--no-report", "--json"]
    ran = bench.python(name, ["peftmark", "run", *words], seconds)
    rows = tuple(Store(results, words[0]).read().records.values()) if results.is_dir() else ()
    rows = tuple(sorted(rows, key=lambda row: row.started_at))
    if not rows:
        raise UserError(f"peftmark run {words[0]}: {ran.why() or 'no job was stored'}")
    if why := ran.why():
        bench.short.append(f"peftmark run {words[0]} {why}")
    for row in rows:
        if not row.ok:
            status = f"{row.outcome.status} ({row.outcome.status_reason})"
            bench.short.append(f"{_title(row.job)} ended as {status}")
    bench.rows[name] = rows
    return ran, rows


def _job(row: Record) -> dict[str, Any]:
    """What the report says of a job; nulls with their reasons."""
    outcome = row.outcome
    values = {
        "start_seconds": outcome.start_seconds,
        "jobs_before": outcome.jobs_before,
        "step_seconds_p50": outcome.step_seconds_p50,
        "energy_gpu_joules": outcome.energy_gpu_joules,
        "predicted_seconds": row.predicted_seconds,
    }
    return {
        "job": _title(row.job),
        "status": outcome.status,
        "wall_seconds": row.wall_seconds,
        **values,
        "energy_flags": list(outcome.energy_flags),
        "null_reasons": {
            name: outcome.null_reasons.get(name, "")
            for name, value in values.items()
            if value is None
        },
    }


def _title(job: Job) -> str:
    purpose = "" if job.purpose == "report" else f", {job.purpose}"
    return f"{cell_title(*job.cell)}, {job.task}, seed {job.seed}{purpose}"


def _compared(
    first: Sequence[Record], second: Sequence[Record], bench: Bench
) -> list[dict[str, str]]:
    """Each job of the first rows, and where its second row differs; empty for the same bits."""
    others = {row.job.job_id: row for row in second if row.ok}
    found = []
    for row in first:
        other = others.get(row.job.job_id)
        if other is None or not row.ok:
            bench.short.append(f"{_title(row.job)} can't be compared: a row is missing or not ok")
        else:
            found.append({"job": _title(row.job), "differs": _difference(row, other)})
    return found


def _difference(first: Record, second: Record) -> str:
    """What differs that no clock decides; empty for the same bits."""
    told = first_difference(first, second)
    other = [
        name
        for name in (*(f.key for f in by_phase() if f.exact), "final_weights_hash", "predictions")
        if getattr(first.outcome, name) != getattr(second.outcome, name)
    ]
    return told or ", ".join(other)
