"""Numbers and lists in words: one place decides digits, signs and units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from peftmark.analysis.scale import limits_of, of_difference
from peftmark.analysis.stats import Estimate
from peftmark.analysis.stats.estimates import NEARLY_ZERO
from peftmark.catalog.methods import Cell, cell_title
from peftmark.catalog.metrics import decimals, metric_of, sign_of
from peftmark.catalog.metrics import metric_title as metric_title
from peftmark.core.shown import plural as plural
from peftmark.render.page import Entry

MISSING = "n/a"
MIB = 2**20
SHOWN_IN = {
    "bytes": "MiB",
    "seconds": "s",
    "joules": "J",
    "share": "%",
    "operations": "GFLOP",
}
"""Unit of a stored figure -> the one it is shown in; others are shown as they are."""
SCALES = {"MiB": MIB, "KiB": 2**10, "ms": 1e-3, "s": 1.0, "J": 1.0, "%": 0.01, "GFLOP": 1e9}
"""Shown unit -> what a stored figure is divided by."""


def title(cell: Cell) -> str:
    """A cell's name."""
    return cell_title(*cell)


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """Fixed digits with a true minus sign and no negative zero."""
    text = f"{abs(value):,.{digits}f}"
    zero = not text.strip("0.,")
    if zero:
        return text
    return ("−" if value < 0 else "+" if signed else "") + text


def short(value: float) -> str:
    """Three significant digits at most, thousands separated."""
    size = abs(value)
    return number(value, 0 if size >= 100 else 1 if size >= 10 else 2)


def score(metric: str, value: float, *, signed: bool = False) -> str:
    """A metric's value, or a difference of two, with the digits that the metric's scale asks for;
    `metric` is empty for what is on the scale of no one metric."""
    return number(value, decimals(metric, value), signed=signed)


def plus_minus(estimate: Estimate, metric: str = "", *, signed: bool = False) -> str:
    """Mean ± half-width; the mean alone without an interval, also where all values are the same,
    which says nothing of a spread (but for differences that are all zero). Where the interval would
    reach beyond what there can be, its ends; where it holds all of that, that nothing is shown.

    Args:
        metric: whose values they are; empty for what is on the scale of no one metric.
        signed: whether it is a difference.
    """
    half = estimate.half_width
    if half is None or half <= NEARLY_ZERO < abs(estimate.mean):
        return score(metric, estimate.mean, signed=signed)
    digits = max(decimals(metric, estimate.mean), decimals(metric, half) - 1)
    mean = number(estimate.mean, digits, signed=signed)
    if estimate.limits is None:
        limits = limits_of(metric)
        estimate = estimate.within(of_difference(limits) if signed else limits)
    if estimate.says_nothing:
        return f"{mean}, but {nothing_shown(estimate.n, signed=signed)}"
    if estimate.cut:
        low, high = (number(end, digits, signed=signed) for end in (estimate.low, estimate.high))
        return f"{mean}, {low} to {high}"
    return f"{mean} ± {number(half, digits)}"


def nothing_shown(seeds: int, *, signed: bool) -> str:
    """That some seeds tell nothing of a difference, or of a value."""
    verb = "can't show any difference" if signed else "allow any value"
    return f"{plural(seeds, 'seed')} {verb}"


def error(value: float) -> str:
    """A numerical error, such as 2.4e-6 or 0.53: two significant digits."""
    if not value:
        return "0"
    return f"{value:.2g}" if 1e-3 <= value < 100 else _scientific(value, 1)


def rate(value: float) -> str:
    """A learning rate, such as 5e-4."""
    return _scientific(value, 3)


def _scientific(value: float, decimals: int) -> str:
    digits, _, power = f"{value:.{decimals}e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


KNOBS = {"adalora.orthogonal_weight": "penalty"}
"""Setting that trials vary -> its name; of others the suite's own, without what stands before a
dot."""


def knob(name: str) -> str:
    """The name of a setting that trials vary."""
    return KNOBS.get(name) or name.rpartition(".")[2].replace("_", " ")


def knob_value(name: str, value: Any) -> str:
    """A value of a setting that trials vary."""
    if name == "learning_rate":
        return rate(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def times(value: float) -> str:
    """A ratio, such as 0.58×."""
    return f"{value:.2g}×" if value < 0.1 else f"{short(value)}×"


def listing(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def some(items: Sequence[str], most: int = 6) -> str:
    """All items, or where there are more than `most` the first three and how many more."""
    if len(items) <= most:
        return listing(items)
    return f"{', '.join(items[:3])} and {len(items) - 3:,} more"


def span(values: Iterable[int]) -> str:
    """`120` if all are the same, else `60 to 120`; empty without a value."""
    known = sorted(set(values))
    return " to ".join(f"{v:,}" for v in dict.fromkeys((known[0], known[-1]))) if known else ""


def seeds_that_decide(*seeds: int | None) -> str:
    """How many seeds in all, those that there are included, would decide a difference, or the
    fewest and the most that several would need; None stands for more than are looked for."""
    known = [count for count in seeds if count is not None]
    if not known:
        return "needs over 1,000 seeds"
    low, high = min(known), max(known)
    counts = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"needs about {counts} seeds in all"


def status(name: str) -> str:
    """A status for readers."""
    return name.replace("_", " ")


def direction(key: str) -> str:
    """Which way a metric is better, in words."""
    if metric_of(key) is None:
        return "which way is better isn't known"
    return "lower is better" if sign_of(key) < 0 else "higher is better"


def missing(reason: str) -> Entry:
    """An unknown figure with its reason."""
    return Entry(MISSING, reason or "not recorded", "missing")


def p_value(p: float) -> str:
    """A p such as 0.012 or <\u202f0.001."""
    return "<\u202f0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
