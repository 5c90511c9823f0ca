"""Whether a share of rows that are right is above a given share."""

from __future__ import annotations

from scipy.special import bdtrc


def chance_of_hits(hits: int, rows: int, share: float) -> float:
    """Chance of at least so many hits among independent rows that each hit with a probability.

    At most alpha exactly where the one-sided lower bound of Clopper and Pearson (1934) of level
    1 − alpha is at least `share`.

    Args:
        hits: rows that are right, from 0 to `rows`.
        share: the probability, from 0 to 1.
    """
    if not 0 <= hits <= rows or not 0 <= share <= 1:
        raise ValueError(f"no {hits} hits of {rows} rows with a chance of {share} each")
    return 1.0 if hits == 0 else float(bdtrc(hits - 1, rows, share))
