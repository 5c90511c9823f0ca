"""Made-up lines and snapshots for tests of the gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from factory import ADALORA, HEAD, LORA, QLORA, make_environment
from peftmark.catalog.methods import Cell
from peftmark.gate.judge import judge
from peftmark.gate.policy import Policy
from peftmark.gate.result import Gate
from peftmark.gate.run_lines import Line, Round
from peftmark.gate.snapshot import Snapshot

CELLS = (LORA, ADALORA, QLORA, HEAD)
EIGHT = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
NEW = make_environment(
    commit="1" * 40, sources={"peftmark": "new", "peft": "p", "bitsandbytes": "b"}
)
OLD = make_environment(
    commit="0" * 40, sources={"peftmark": "old", "peft": "p", "bitsandbytes": "b"}
)

Score = Callable[[Cell, str, int], float]


def make_line(cell: Cell = LORA, task: str = "sst2", seed: int = 0, **changes: Any) -> Line:
    """An ok run; name the fields to change."""
    base = Line(
        cell=cell,
        task=task,
        seed=seed,
        status="ok",
        status_reason="",
        device="cpu",
        threads=1,
        config={"recipe.learning_rate": 5e-4, "recipe.steps": 120, "protocol": 2},
        environment=OLD,
        finished_at="2030-01-01T00:00:20Z",
        metric="accuracy",
        value=0.84,
        baseline_value=0.5,
        loss=0.4,
        collapsed=False,
        has_target=True,
        steps_to_target=60,
        eval_every=20,
        bits=f"{cell} {task} {seed}",
        initial=f"{seed}",
        counts={
            "learning_rate_mean": 2.5e-4,
            "trainable_parameters": 223_106,
            "batch_order_hash": f"order {task} {seed}",
            "base_format": "float32: 22,713,216",
            "live_bytes": 500 * 2**20,
            "live_activation_bytes": 300 * 2**20,
            "live_optimizer_bytes": 2 * 2**20,
            "adapter_bytes": 900_000,
        },
        memory={"vmhwm_train_bytes": 900 * 2**20, "torch_allocated_bytes": None},
        step_seconds=0.1,
        rounds=(Round("2030-01-01T00:00:00Z", "2030-01-01T00:00:20Z", 0.094),),
    )
    return replace(base, **changes)


def make_side(
    cells: Sequence[Cell] = CELLS,
    tasks: Sequence[str] = ("sst2", "stsb"),
    seeds: int = 5,
    change: Callable[[Line], Line | None] = lambda line: line,
    **facts: Any,
) -> Snapshot:
    """Every run of a small suite; `change` alters a line, or leaves it out with None."""
    all_lines = [make_line(c, t, s) for c in cells for t in tasks for s in range(seeds)]
    lines = [made for line in all_lines if (made := change(line)) is not None]
    base = Snapshot(
        where="results/demo",
        suite="demo",
        suite_version=1,
        profile="quick",
        model="minilm-l6",
        lines=tuple(lines),
        planned=tuple(line.key for line in all_lines),
    )
    return replace(base, **facts)


def by_new_code(line: Line, **changes: Any) -> Line:
    """The line as another commit would have made it, with other bits."""
    return replace(line, environment=NEW, bits=f"{line.bits} by new code", **changes)


def with_counts(line: Line, **counts: Any) -> Line:
    """The line with some counts changed."""
    return replace(line, counts={**line.counts, **counts})


def noisy(
    rng: np.random.Generator, sd: float, shared: float = 0.0, drop: Score = lambda *_: 0.0
) -> tuple[Callable[[Line], Line], Callable[[Line], Line]]:
    """Two sides whose paired differences have a standard deviation of `sd` on each task.

    Args:
        shared: part of the variance, 0 to 1, that a seed shares over the tasks of a cell.
        drop: (cell, task, seed) -> what the second side's true score is lower.
    """
    lucks: dict[tuple[Cell, int], float] = {}

    def luck(line: Line) -> float:
        key = (line.cell, line.seed)
        if key not in lucks:
            lucks[key] = rng.normal()
        return float(sd * (shared**0.5 * lucks[key] + (1 - shared) ** 0.5 * rng.normal()))

    def first(line: Line) -> Line:
        return replace(line, value=0.8 + 0.01 * line.seed, steps_to_target=_steps(rng))

    def second(line: Line) -> Line:
        base = 0.8 + 0.01 * line.seed
        score = base + luck(line) - drop(line.cell, line.task, line.seed)
        return by_new_code(line, value=score, steps_to_target=_steps(rng))

    return first, second


def _steps(rng: np.random.Generator) -> int | None:
    step = 20 * int(rng.integers(2, 7))
    return step if step <= 100 else None


def declared(
    after: Snapshot, before: Snapshot, policy: Policy, release: Snapshot | None = None
) -> Gate:
    """A gate of changes that were declared, without the note that says so: other bits alone fail
    nothing."""
    found = judge(after, before, policy, release, declared="a test")
    kept = tuple(f for f in found.findings if f.check != "bits.declared")
    return replace(found, findings=kept)
