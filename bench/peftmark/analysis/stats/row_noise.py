"""Noise of the choice of evaluation rows, which intervals over seeds don't contain.

All methods and seeds are scored on the same rows. Other rows of the same task would have given
other differences, by about the standard errors here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from peftmark.analysis.stats.estimates import Estimate
from peftmark.analysis.stats.paired import Comparison

BLOCK = 4_000_000
"""Most weights drawn at a time, to bound memory."""


def row_noise(per_row: NDArray[np.float64]) -> float | None:
    """Standard error of a mean difference that the choice of rows adds.

    For metrics that are means over rows, such as accuracy. Differences are averaged over seeds
    first, as rows are the same for all: sd over rows / sqrt(rows). It still contains a little of
    the seeds' own noise, so it errs on the large side.

    Args:
        per_row: paired differences of what each row contributes, of shape (seeds, rows).

    Returns:
        None below two rows.

    Raises:
        ValueError: another shape, no seeds, or a number that isn't finite.
    """
    if per_row.ndim != 2 or per_row.shape[0] < 1 or not np.isfinite(per_row).all():
        raise ValueError(f"needs finite (seeds, rows), got shape {per_row.shape}")
    rows = per_row.shape[1]
    if rows < 2:
        return None
    return float(per_row.mean(axis=0).std(ddof=1)) / math.sqrt(rows)


def resample_rows(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    rows: int,
    n_resamples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """A statistic of evaluation rows drawn again with replacement, one value a resample.

    Args:
        statistic: from how often each row was drawn, of shape (resamples, rows), to one value a
            resample.
        rows: number of evaluation rows.
        n_resamples: how many times to draw, at least 2.
    """
    if n_resamples < 2:
        raise ValueError(f"a standard error needs at least 2 resamples, got {n_resamples}")
    chances = np.full(rows, 1 / rows)
    values: list[NDArray[np.float64]] = []
    block = max(1, BLOCK // rows)
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        value = np.asarray(statistic(rng.multinomial(rows, chances, size=size)))
        if value.shape != (size,):
            raise ValueError(f"the statistic gave shape {value.shape} for {size} resamples")
        values.append(value)
    return np.concatenate(values)


def bootstrap_rows(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    rows: int,
    n_resamples: int,
    rng: np.random.Generator,
) -> float | None:
    """Standard error that the choice of rows adds to any statistic, by drawing rows again.

    For metrics that are no means over rows: Matthews correlation, F1, correlations (Efron, Annals
    of Statistics 7, 1979). A statistic that is itself a mean of paired differences over seeds
    gives the noise of a comparison.

    Args:
        statistic, rows, n_resamples: as `resample_rows` has them.

    Returns:
        None below two rows, or if the statistic isn't finite for some resample.
    """
    if rows < 2:
        return None
    found = resample_rows(statistic, rows, n_resamples, rng)
    return float(found.std(ddof=1)) if np.isfinite(found).all() else None


def two_level(comparison: Comparison, row_se: float | None, level: float = 0.95) -> Estimate:
    """A comparison's mean with an interval for other seeds and other rows of the same tasks.

    Variances add; the rows' is taken as known (infinite degrees of freedom), so the sum has
    df * (SE² + row SE²)² / SE⁴ of them (Satterthwaite, 1946).

    Args:
        row_se: standard error of the same mean from the choice of rows; None if unknown. Over
            several tasks that of the mean, `comparison.overall_row_error`.

    Returns:
        Without half-width where either standard error is unknown.

    Raises:
        ValueError: a row_se that is negative or not finite.
    """
    if row_se is not None and not (math.isfinite(row_se) and row_se >= 0):
        raise ValueError(f"a standard error is finite and not negative, got {row_se}")
    mean, n = comparison.estimate.mean, comparison.n
    if comparison.se is None or comparison.df is None or row_se is None:
        return Estimate(mean, None, n)
    seeds, total = comparison.se**2, comparison.se**2 + row_se**2
    df = comparison.df * (total / seeds) ** 2
    return Estimate(mean, float(stdtrit(df, 0.5 + level / 2)) * math.sqrt(total), n)
