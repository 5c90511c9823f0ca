"""Amounts as people write them, such as 24GB, 1M and 15min: strictly to numbers, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from peftmark.core.errors import UserError

SIZES: Mapping[str, int] = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
COUNTS: Mapping[str, int] = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}
TIMES: Mapping[str, int] = {"s": 1, "min": 60, "h": 3600}
WATTS: Mapping[str, int] = {"": 1, "W": 1}


_SIZE = re.compile(rf"([0-9]+(?:\.[0-9]+)?)\s*({'|'.join(SIZES)})", re.IGNORECASE | re.ASCII)
_BY_CASE = {unit.lower(): unit for unit in SIZES}


class Size(NamedTuple):
    """A size as it was written.

    Attributes:
        unit: one of `SIZES`.
        value: in bytes.
    """

    number: str
    unit: str
    value: float


def read_size(text: str) -> Size | None:
    """A size in any letter case, with or without space before its unit; None if it is none."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    unit = _BY_CASE[match[2].lower()]
    return Size(match[1], unit, float(match[1]) * SIZES[unit])


def parse_size(option: str, text: str) -> float:
    """Bytes of a size such as 24GB (24e9) or 24GiB (24·2³⁰), in the letter case of `SIZES`."""
    units = f"a number and one of {', '.join(SIZES)}, such as 24GB (24e9 bytes) or 24GiB"
    size = read_size(text)
    if size is None or text not in (f"{size.number}{size.unit}", f"{size.number} {size.unit}"):
        raise _fault(option, text, units)
    return _usable(option, text, size.value, units)


def parse_count(option: str, text: str) -> int:
    """A whole number from 1 such as 1000000, 1M or 250k."""
    allowed = "a whole number from 1, also with k, M or B for thousands, millions and billions"
    value = _parse(option, text, COUNTS, allowed)
    if not value.is_integer():
        raise _fault(option, text, allowed)
    return int(value)


def parse_seconds(option: str, text: str) -> float:
    """Seconds of a time such as 90s, 15min or 2h."""
    return _parse(option, text, TIMES, "a number and one of s, min, h, such as 90s or 15min")


def parse_points(option: str, text: str) -> float:
    """Points from 0 to 100 such as 1.0; one point is 0.01 of the metric."""
    allowed = "a number of points from 0 to 100, such as 1.0; a point is 0.01 of the metric"
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or float(text) > 100:
        raise _fault(option, text, allowed)
    return float(text)


def parse_watts(option: str, text: str) -> float:
    """A power such as 15 or 15W."""
    allowed = "a number of watts above 0 and below 100,000, such as 15 or 15W"
    value = _parse(option, text, WATTS, allowed)
    if value >= 1e5:
        raise _fault(option, text, allowed)
    return value


class Price(NamedTuple):
    """What an hour of a machine costs.

    Attributes:
        currency: three capital letters, such as USD.
    """

    hour: float
    currency: str

    @property
    def text(self) -> str:
        """Such as "2.50 USD an hour"."""
        return f"{money_text(self.hour, self.currency)} an hour"


PRICES = "an amount and a currency of three capital letters, such as 2.50USD"


def read_price(text: str) -> Price | None:
    """A price such as 2.50USD or "2.5 EUR"; None if it is none."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([A-Z]{3})", text)
    return Price(float(match[1]), match[2]) if match and float(match[1]) > 0 else None


def parse_price(option: str, text: str) -> Price:
    """An amount of money above 0; of an hour, where an hour's is asked for."""
    price = read_price(text)
    if price is None:
        raise _fault(option, text, PRICES)
    return price


def parse_hour_price(option: str, text: str) -> Price:
    """What an hour of a machine costs, such as 2.50USD or 2.50USD/h."""
    price = read_price(text.removesuffix("/h"))
    if price is None:
        raise _fault(option, text, PRICES)
    return price


def money_text(value: float, currency: str) -> str:
    """An amount of money: two digits after the point, more of what is below 1."""
    if value >= 100:
        return f"{value:,.0f} {currency}"
    return f"{value:.{2 if value >= 1 else places(value)}f} {currency}"


def _parse(option: str, text: str, units: Mapping[str, int], allowed: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text)
    if match is None or match[2] not in units:
        raise _fault(option, text, allowed)
    return _usable(option, text, float(match[1]) * units[match[2]], allowed)


def _usable(option: str, text: str, value: float, allowed: str) -> float:
    # A decimal such as 0.1 times 10**6 must stay whole.
    value = round(value, 6)
    if not 0 < value < math.inf:
        raise _fault(option, text, allowed)
    return value


def _fault(option: str, text: str, allowed: str) -> UserError:
    return UserError(f"{option}: found {text!r}", f"Allowed: {allowed}.")


def digits(value: float) -> str:
    """Three significant digits at most, thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


NOTHING = 1e-9
"""A difference below this is rounding."""


def places(value: float) -> int:
    """Digits after the point that a value is shown with where its size alone says: three of one
    about 1, more of smaller and fewer of larger ones."""
    size = abs(value)
    if not NOTHING < size < math.inf:
        return 3
    power = math.floor(math.log10(size))
    return max(0, 3 - power) if power >= 0 else min(12, 2 - power)


def size_text(value: float) -> str:
    """Bytes in MiB, the unit of every report."""
    return f"{digits(value / 2**20)} MiB"


def seconds_text(value: float) -> str:
    """Seconds."""
    return f"{digits(value)} s"


def count_text(value: float) -> str:
    """A count in full."""
    return f"{value:,.0f}"
