"""Made-up points of gate runs for tests. Every number is invented and deterministic."""

import random

from peftmark.catalog.methods import Cell
from peftmark.storage.gate_history import Accepted, Point

LORA = Cell("lora", 8, "none")
QLORA = Cell("lora", 8, "nf4")
VERSIONS = {"peft": "0.20.0", "torch": "2.13.0"}
NEWER = {"peft": "0.21.2", "torch": "2.13.0"}


def at(run):
    return f"2026-11-{run + 1:02d}T06:00:00+00:00"


def commit(run):
    return f"{run + 10:02x}" * 20


def make_point(number=0, **changes):
    base = {
        "at": at(number),
        "run": f"{number:016x}",
        "suite": "ci",
        "suite_version": 1,
        "profile": "quick",
        "machine": "cpu",
        "commit": commit(number),
        "dirty": False,
        "versions": VERSIONS,
        "cell": LORA,
        "task": "sst2",
        "metric": "accuracy",
        "values": ((0, 0.84), (1, 0.85), (2, 0.83), (3, 0.845), (4, 0.835)),
        "planned": 5,
        "memory_bytes": 520 * 2**20,
        "step_seconds": 0.1 + number * 1e-5,
        "loss": 0.31,
        "verdict": "same",
        "code": 0,
    }
    return Point(**{**base, **changes})


def make_runs(
    n=20, seed=1, cell=LORA, step_at=None, shift=0.0, memory=1.0, seeds=5, sd=0.006, **changes
):
    """One point a run: scores with noise over seeds and runs; from `step_at` on shifted.

    Args:
        memory: factor on memory from `step_at` on; the peft version changes there, too.
    """
    rng = random.Random(seed)
    points = []
    for run in range(n):
        after = step_at is not None and run >= step_at
        values = tuple((s, 0.843 + after * shift + rng.gauss(0, sd)) for s in range(seeds))
        facts = {
            "cell": cell,
            "values": values,
            "planned": seeds,
            "memory_bytes": round(520 * 2**20 * (memory if after else 1)),
            "step_seconds": 0.1 * (1 + rng.gauss(0, 0.01)),
            "loss": 0.31 * (1 + rng.gauss(0, 0.005)),
            "versions": NEWER if after else VERSIONS,
        }
        points.append(make_point(run, **{**facts, **changes}))
    return points


def make_accepted(run, pinned=False, machine="cpu", reason="after the update of PEFT"):
    return Accepted(at(run), commit(run), machine, pinned, reason)
