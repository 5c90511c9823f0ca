"""Made-up rows of metrics that are better the lower they are: AdaLoRA best, then LoRA, then the
head alone. Every number is invented."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from factory import ADALORA, HEAD, LORA, make_matrix
from peftmark.analysis.table import ResultTable, build
from peftmark.catalog.methods import Cell
from peftmark.record.job import Record

COST = "mine.costs:cost:lower"
GAIN = "mine.costs:profit"
CELLS = (ADALORA, LORA, HEAD)
LEVELS: dict[str, tuple[float, float, tuple[float, float, float]]] = {
    "rmse": (40.0, 20.0, (12.0, 16.0, 28.0)),
    "log_loss": (0.69, 0.35, (0.20, 0.30, 0.55)),
    COST: (900.0, 500.0, (300.0, 400.0, 700.0)),
    GAIN: (10.0, 20.0, (40.0, 30.0, 15.0)),
    "accuracy": (0.5, 0.7, (0.9, 0.8, 0.6)),
    "macro_f1": (0.33, 0.6, (0.85, 0.75, 0.5)),
    "auroc": (0.5, 0.8, (0.95, 0.9, 0.7)),
}
"""Metric -> value of the constant guess, target, and values of AdaLoRA, LoRA and the head alone."""


def rows_in(
    metrics: Sequence[str], seeds: int = 5, baseline: bool = True, unit: float = 1.0
) -> list[Record]:
    """A full grid, with a task named after each metric.

    Args:
        baseline: whether the constant guess has a value.
        unit: what every value is multiplied by.
    """
    return [
        _row(cell, metric, seed, baseline, unit)
        for cell in CELLS
        for metric in metrics
        for seed in range(seeds)
    ]


def task_of(metric: str) -> str:
    """The task that is named after a metric."""
    return metric.removesuffix(":lower").rpartition(":")[2]


def _row(cell: Cell, metric: str, seed: int, baseline: bool, unit: float) -> Record:
    constant, target, levels = LEVELS[metric]
    (row,) = make_matrix([cell], [task_of(metric)], [seed])
    level = levels[CELLS.index(cell)]
    value = unit * level * (1 + random.Random(f"{cell} {metric} {seed}").gauss(0, 0.01))
    job = replace(row.job, metric=metric, target=unit * target)
    reasons = {"baseline_value": f"of the constant guess: metric {metric} returned nan"}
    outcome = replace(
        row.outcome,
        metrics={metric: value},
        metric_value=value,
        selected_metric_value=value,
        best_metric_value=value,
        baseline_value=unit * constant if baseline else None,
        predictions=type(row.outcome.predictions)("f"),
        references=type(row.outcome.references)("f"),
        null_reasons=row.outcome.null_reasons | ({} if baseline else reasons),
    )
    return replace(row, job=job, outcome=outcome)


def table_in(metrics: Sequence[str], **changes: object) -> ResultTable:
    """The same as a table, with LoRA as the reference."""
    rows = rows_in(metrics, **changes)  # type: ignore[arg-type]
    return build(rows, [r.job for r in rows], LORA)
