"""Where a series of figures stepped to another level and stayed there.

Candidates are the cuts of the least-squares fit of a piecewise constant level, with a penalty of
2 σ² log n for each cut (Yao 1988, doi:10.1016/0167-7152(88)90118-6). σ comes from the differences
of neighbours, which steps hardly touch: their median absolute deviation over 0.6745 √2. By that
alone, short series of noise show a step far too often; so a candidate must also pass a t test of
the runs on its two sides, and be as large as one cares for. Scores must pass a third test, over
seeds: runs with the same seeds and the same bits are no new evidence, and another version of a
library draws all seeds anew at once.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtr

from peftmark.analysis.stats import sign, t_interval

FEWEST_RUNS = 8
"""Below this a series is too short for a search."""
SHORTEST = 3
"""Runs at least on each side of a step; so a step is seen in the third run after it."""
ALPHA = 0.01
"""Of both tests; that over runs is divided by the number of places a step could be at."""
MOST_STEPS = 20
_MAD_TO_SIGMA = 0.6745 * math.sqrt(2)

BySeed = Sequence[Mapping[int, float]]


def find(
    values: Sequence[float],
    *,
    floor: float,
    least: float = 0.0,
    by_seed: BySeed | None = None,
) -> tuple[int, ...]:
    """Index of the first run after each step; empty for a series that is too short.

    Args:
        values: one figure a run, in order, finite.
        floor: the least standard deviation to reckon with, positive: what the figures' own
            uncertainty and their rounding amount to.
        least: smallest step that counts, as a share of the level before it.
        by_seed: for figures that are means over seeds: each run's values by seed. Steps that
            could be another draw of the seeds are left out then.
    """
    if len(values) < FEWEST_RUNS:
        return ()
    cuts = _candidates(np.asarray(values, dtype=float), max(floor, noise(values)))
    while cuts:
        tested = {cut: _p_value(values, cuts, cut, floor, least, by_seed) for cut in cuts}
        weakest = max(cuts, key=lambda cut: tested[cut])
        if tested[weakest] <= ALPHA:
            break
        cuts.remove(weakest)
    return tuple(cuts)


def noise(values: Sequence[float]) -> float:
    """Standard deviation from run to run, by the differences of neighbours."""
    moves = np.diff(np.asarray(values, dtype=float))
    return float(np.median(np.abs(moves - np.median(moves)))) / _MAD_TO_SIGMA


def spread(by_seed: BySeed) -> float:
    """Standard error of a run's mean over seeds, median over the runs that have several."""
    errors = [
        statistics.stdev(run.values()) / math.sqrt(len(run)) for run in by_seed if len(run) > 1
    ]
    return statistics.median(errors) if errors else 0.0


def levels(values: Sequence[float], cuts: Sequence[int]) -> list[tuple[int, int, float]]:
    """(first index, index past the last, mean) of each stretch between steps."""
    ends = [0, *cuts, len(values)]
    return [
        (start, end, statistics.fmean(values[start:end])) for start, end in itertools.pairwise(ends)
    ]


def _candidates(values: np.ndarray[tuple[int], np.dtype[np.float64]], sigma: float) -> list[int]:
    """Cuts of the best penalised fit, exact for up to `MOST_STEPS`.

    Dynamic programming for each number of cuts: the pruning of PELT, which would be faster, is not
    exact with a least distance between cuts.
    """
    import ruptures

    scaled = (values - np.median(values)) / sigma
    search = ruptures.KernelCPD(kernel="linear", min_size=SHORTEST).fit(scaled.reshape(-1, 1))
    most = min(len(values) // SHORTEST - 1, MOST_STEPS)
    search.predict(n_bkps=most)  # holds the best fits of fewer cuts, too
    fits = [[len(values)], *(search.predict(n_bkps=k) for k in range(1, most + 1))]
    penalty = 2 * math.log(len(values))
    costs = [search.cost.sum_of_costs(ends) + penalty * len(ends) for ends in fits]
    return [int(end) for end in fits[int(np.argmin(costs))][:-1]]


def _p_value(
    values: Sequence[float],
    cuts: Sequence[int],
    cut: int,
    floor: float,
    least: float,
    by_seed: BySeed | None,
) -> float:
    """How likely a step as large is by chance, over all places; above 1 if it can't count."""
    place = list(cuts).index(cut)
    start = cuts[place - 1] if place else 0
    end = cuts[place + 1] if place + 1 < len(cuts) else len(values)
    before, after = values[start:cut], values[cut:end]
    low, high = statistics.fmean(before), statistics.fmean(after)
    if abs(high - low) < least * abs(low) or _is_early(values, start, cut, end):
        return 2.0
    if by_seed is not None and not _over_seeds(by_seed[start:cut], by_seed[cut:end]):
        return 2.0
    degrees = len(before) + len(after) - 2
    squares = sum((v - low) ** 2 for v in before) + sum((v - high) ** 2 for v in after)
    sigma = max(floor, math.sqrt(squares / degrees))
    t = abs(high - low) / (sigma * math.sqrt(1 / len(before) + 1 / len(after)))
    places = len(values) - 2 * SHORTEST + 1
    return min(1.0, 2 * float(stdtr(degrees, -t)) * places)


def _is_early(values: Sequence[float], start: int, cut: int, end: int) -> bool:
    """Whether the true place seems to be nearer to an end, where a stretch would be too short.

    Two runs after a step the fit takes a third one in from before it, and would name a commit
    that is not to blame; so would one or two runs that are off.
    """

    def squares(place: int) -> float:
        return sum(
            (v - mean) ** 2
            for a, b, mean in levels(values[start:end], [place - start])
            for v in values[start + a : start + b]
        )

    near = range(max(start + 1, cut - SHORTEST + 1), min(end, cut + SHORTEST))
    short = [place for place in near if min(place - start, end - place) < SHORTEST]
    return any(squares(place) < squares(cut) for place in short)


def _over_seeds(before: BySeed, after: BySeed) -> bool:
    """Whether the seeds, paired, agree that the level changed: their t interval leaves out zero.

    Each seed counts once, with its mean over the runs of a side. Below two common seeds nothing can
    be said, and the answer is no.
    """
    first, then = _by_seed(before), _by_seed(after)
    moved = [then[seed] - first[seed] for seed in sorted(first.keys() & then.keys())]
    return len(moved) > 1 and sign(t_interval(moved, 1 - ALPHA)) in ("higher", "lower")


def _by_seed(runs: BySeed) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for run in runs:
        for seed, value in run.items():
            found.setdefault(seed, []).append(value)
    return {seed: statistics.fmean(values) for seed, values in found.items()}
