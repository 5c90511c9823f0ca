"""Summaries over many runs: how often one beats another, and a mean that outliers don't pull."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peftmark.analysis.stats.estimates import check_values


def probability_of_improvement(
    a_by_task: Sequence[Sequence[float]], b_by_task: Sequence[Sequence[float]]
) -> float:
    """How likely a run of A scores higher than a run of B on a task drawn among these.

    P(A > B) + P(A = B) / 2 over all pairs of runs of a task, averaged over tasks (Agarwal et
    al., 2021, arXiv 2108.13264, section 4.3).

    Args:
        a_by_task: scores of A, higher is better; runs need not be paired.
        b_by_task: scores of B on the same tasks.

    Raises:
        ValueError: no tasks, other tasks for B, one without runs, a score that isn't finite.
    """
    if not a_by_task or len(a_by_task) != len(b_by_task):
        raise ValueError(f"{len(a_by_task)} tasks cannot meet {len(b_by_task)}")
    shares = []
    for a, b in zip(a_by_task, b_by_task, strict=True):
        check_values(a)
        check_values(b)
        wins = np.sign(np.subtract.outer(np.asarray(a), np.asarray(b)))
        shares.append(0.5 + float(wins.mean()) / 2)
    return float(np.mean(shares))


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean of the middle half of the values (Agarwal et al., 2021, arXiv 2108.13264).

    A quarter of the weight is cut at each end, from part of a value where n is no multiple of
    four. Cutting whole values only, as `scipy.stats.trim_mean` does, would make it the plain mean
    for three values and the middle 60 % for five, so figures of different n could not be compared.

    Args:
        values: at least one finite number.
    """
    check_values(values)
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    edges = np.clip(np.arange(n + 1), n / 4, 3 * n / 4)
    return float(np.average(ordered, weights=np.diff(edges)))
