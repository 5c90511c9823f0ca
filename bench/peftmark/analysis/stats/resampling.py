"""Tests that assume no normal distribution, and a standardised size of an effect."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from peftmark.analysis.stats.estimates import NEARLY_ZERO

EXACT_UP_TO = 16
"""Most differences whose 2^n signs are all tried."""
DRAWS = 20_000
"""Random signs tried above that."""


def sign_flip(differences: Sequence[float], rng: np.random.Generator | None = None) -> float | None:
    """Two-sided permutation p of "differences are symmetric around zero".

    The share of sign patterns whose sum is at least as far from zero as the one seen: all 2^n up
    to `EXACT_UP_TO` differences, else `DRAWS` random ones with (1 + hits) / (1 + draws) (Phipson
    and Smyth, 2010).

    Args:
        differences: paired differences, one a seed.
        rng: draws the signs where not all are tried.

    Returns:
        None without differences, and where signs must be drawn but there is no `rng`.
    """
    values = _finite(differences)
    n = len(values)
    if n == 0:
        return None
    seen = abs(values.sum()) - 1e-9 * np.abs(values).sum()  # sums that differ in rounding tie
    if n <= EXACT_UP_TO:
        # The overall sign doesn't matter to a two-sided test: the first one stays.
        sums = values[:1]
        for value in values[1:]:
            sums = np.concatenate((sums + value, sums - value))
        return float(np.mean(np.abs(sums) >= seen))
    if rng is None:
        return None
    signs = rng.integers(0, 2, size=(DRAWS, n), dtype=np.int8) * 2 - 1
    return float((1 + np.sum(np.abs(signs @ values) >= seen)) / (1 + DRAWS))


def sign_flip_floor(n: int) -> float:
    """The smallest p that `sign_flip` can give for n differences: 2 / 2^n."""
    if n < 1:
        raise ValueError(f"a sign-flip test needs at least one difference, got {n}")
    return 2.0 ** (1 - n)


def wilcoxon(differences: Sequence[float]) -> float | None:
    """Exact two-sided p of the signed-rank test (Wilcoxon, 1945).

    Differences of zero are left out; ties get their mean rank, and the distribution is the exact
    one of those ranks. All zero gives p = 1.

    Returns:
        None without differences.
    """
    values = _finite(differences)
    if len(values) == 0:
        return None
    values = values[np.abs(values) > NEARLY_ZERO]
    if len(values) == 0:
        return 1.0
    ranks = _doubled_ranks(np.abs(values))
    total = int(ranks.sum())
    chances = np.zeros(total + 1)  # of each sum of the positive ranks
    chances[0] = 1.0
    for rank in ranks:
        with_it = np.zeros_like(chances)
        with_it[rank:] = chances[: total + 1 - rank]
        chances = (chances + with_it) / 2
    positive = int(ranks[values > 0].sum())
    tail = chances[: min(positive, total - positive) + 1].sum()
    return min(1.0, 2 * float(tail))


def _doubled_ranks(sizes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Twice the mean ranks, whole numbers also for ties; sizes that differ in rounding tie."""
    rounded = np.round(sizes / sizes.max(), 9)
    _, places, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    doubled: NDArray[np.int64] = (2 * last - counts + 1)[places]
    return doubled


def effect_size(differences: Sequence[float]) -> float | None:
    """Mean paired difference in standard deviations of the differences, corrected for small n.

    d_z times Hedges' exact factor gamma(v/2) / (sqrt(v/2) gamma((v-1)/2)) with v = n − 1, without
    which it is too large on average (Journal of Educational Statistics 6, 1981).

    Returns:
        None below three differences or without spread.
    """
    values = _finite(differences)
    if len(values) < 3:
        return None
    spread = float(values.std(ddof=1))
    if spread <= NEARLY_ZERO * max(1.0, float(np.abs(values).max())):
        return None
    v = len(values) - 1
    factor = math.exp(gammaln(v / 2) - gammaln((v - 1) / 2)) / math.sqrt(v / 2)
    return factor * float(values.mean()) / spread


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"a test needs finite differences, got {list(values)}")
    return array
