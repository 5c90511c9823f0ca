"""What an hour of a machine costs, as a suite writes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from peftmark.core.amounts import PRICES, read_price


def _price(value: str) -> str:
    if read_price(value) is None:
        raise PydanticCustomError("price", "{allowed}", {"allowed": PRICES})
    return value


PriceText = Annotated[str, AfterValidator(_price)]
"""Such as 2.50USD."""
