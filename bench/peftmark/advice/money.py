"""What a run costs in money: stored wall time times the price of an hour that the reader gives.

It is worked out when rows are read and stored nowhere. The time is that of what anyone who trains
does, from loading the model to saving what was trained; peftmark's own measurements after that are
left out, though the machine stood for them too.
"""

from __future__ import annotations

from functools import cache

from peftmark.advice.trade import MEMORY, PARAMETERS, TIME, Cost, Front, device
from peftmark.core.amounts import Price, money_text
from peftmark.record.job import Record

TITLE, NAME = "price of a run", "Price of a run"
OURS = ("watch", "forget", "deploy", "probe", "predict")
"""Phases that are there to measure: no one who trains would pay for them."""
HOUR = 3600.0
NO_PRICE = "no price of an hour was given; --price 2.50USD"
MEANING = (
    "wall time of loading, training, evaluating and saving, without peftmark's own measurements"
)
"""What is paid for, in words."""


def run_seconds(record: Record) -> float | None:
    """Seconds from loading to saving; None where no phase was recorded."""
    phases = record.outcome.phase_seconds
    return sum(s for name, s in phases.items() if name not in OURS) if phases else None


@cache
def money(price: Price) -> Cost:
    """The money of a run as a cost; the same one for the same price."""

    def read(record: Record) -> float | None:
        seconds = run_seconds(record)
        return None if seconds is None else seconds / HOUR * price.hour

    def text(value: float) -> str:
        return money_text(value, price.currency)

    return Cost("money", "phase_seconds", read, False, text, device, TITLE)


def costs_of(price: Price | None) -> dict[str, Cost]:
    """The costs that may be limited, by key, and money where there is a price."""
    known = (MEMORY, TIME, PARAMETERS, *([money(price)] if price else []))
    return {cost.key: cost for cost in known}


def no_price() -> Front:
    """The trade of score against money where nobody said what an hour costs."""
    return Front(money(Price(1.0, "")), fault=NO_PRICE)
