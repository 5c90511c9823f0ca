"""What a run holds."""

from typing import NamedTuple


class Metric(NamedTuple):
    """A number at a step."""

    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    """A setting."""

    key: str
    value: str
