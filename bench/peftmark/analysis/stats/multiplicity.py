"""Many comparisons at once: corrected p values and ranks that they leave possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def holm(ps: Sequence[float | None]) -> tuple[float | None, ...]:
    """Holm's step-down p values: below alpha with a family-wise error rate of at most alpha.

    The k-th smallest of m is multiplied by m − k + 1, then none is smaller than one before it
    (Scandinavian Journal of Statistics 6, 1979). Nothing is assumed of how the tests depend.

    Args:
        ps: p values of one family; None, which stays None and doesn't count, for a test that
            could not be made.

    Raises:
        ValueError: a p outside 0 to 1.
    """
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    if not all(0 <= p <= 1 for p, _ in known):
        raise ValueError(f"p values lie between 0 and 1, got {list(ps)}")
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for k, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - k) * p))
        adjusted[place] = highest
    return tuple(adjusted)


def rank_ranges(better: Mapping[tuple[int, int], bool], n: int) -> tuple[tuple[int, int], ...]:
    """The ranks that shown differences leave possible, for each of n.

    Args:
        better: (i, j) -> whether i is shown to be better than j; a missing pair counts as not
            shown.

    Returns:
        (best, worst) rank of each, 1 first: 1 + how many are shown to be better than it, and
        n − how many it is shown to be better than.

    Raises:
        ValueError: a pair that names none of the n, or two shown to be better than each other.
    """
    shown = {pair for pair, is_better in better.items() if is_better}
    for i, j in shown:
        if not (0 <= i < n and 0 <= j < n) or (j, i) in shown:
            raise ValueError(f"({i}, {j}) is no order of two of {n}")
    return tuple(
        (1 + sum(j == i for _, j in shown), n - sum(j == i for j, _ in shown)) for i in range(n)
    )
