"""Statistics as pure functions. Too little data gives "no interval", never a made-up number.

What each one is for, its formula and its limits stand in docs/statistics.md.
"""

from peftmark.analysis.stats.aggregates import interquartile_mean, probability_of_improvement
from peftmark.analysis.stats.estimates import (
    NEARLY_ZERO,
    Estimate,
    Limits,
    Sign,
    geometric_mean,
    prediction_interval,
    sign,
    t_interval,
)
from peftmark.analysis.stats.multiplicity import holm, rank_ranges
from peftmark.analysis.stats.paired import (
    Comparison,
    bound,
    chance_to_tell,
    compare,
    equivalent,
    minimum_detectable_effect,
    one_sided,
    seeds_to_decide,
)
from peftmark.analysis.stats.proportions import chance_of_hits
from peftmark.analysis.stats.resampling import effect_size, sign_flip, sign_flip_floor, wilcoxon
from peftmark.analysis.stats.row_noise import (
    bootstrap_rows,
    resample_rows,
    row_noise,
    two_level,
)
from peftmark.analysis.stats.spread import FEWEST_FOR_SPREAD, SpreadRatio, spread_ratio
from peftmark.analysis.stats.survival import KmPoint, kaplan_meier, median

__all__ = [
    "FEWEST_FOR_SPREAD",
    "NEARLY_ZERO",
    "Comparison",
    "Estimate",
    "KmPoint",
    "Limits",
    "Sign",
    "SpreadRatio",
    "bootstrap_rows",
    "bound",
    "chance_of_hits",
    "chance_to_tell",
    "compare",
    "effect_size",
    "equivalent",
    "geometric_mean",
    "holm",
    "interquartile_mean",
    "kaplan_meier",
    "median",
    "minimum_detectable_effect",
    "one_sided",
    "prediction_interval",
    "probability_of_improvement",
    "rank_ranges",
    "resample_rows",
    "row_noise",
    "seeds_to_decide",
    "sign",
    "sign_flip",
    "sign_flip_floor",
    "spread_ratio",
    "t_interval",
    "two_level",
    "wilcoxon",
]
