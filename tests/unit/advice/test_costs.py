"""Every cost that cells are traded by can be read from a row."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from factory import make_outcome, make_record
from peftmark.advice import trade
from peftmark.advice.money import costs_of, money
from peftmark.advice.trade import Cost
from peftmark.core.amounts import Price
from peftmark.record.outcome import Outcome

PRICE = Price(2.5, "USD")
ALL = [*(value for value in vars(trade).values() if isinstance(value, Cost)), money(PRICE)]


def faults(cost: Cost) -> list[str]:
    """Why a cost can't be read."""
    row = make_record(
        outcome=make_outcome(
            peak_memory_bytes=10,
            train_seconds=11.0,
            trainable_parameters=12,
            unrelated_perplexity_before=10.0,
            unrelated_perplexity_after=11.0,
        ),
    )
    found = []
    if cost.name not in {field.name for field in fields(Outcome)}:
        return [f"name {cost.name!r} is no field of Outcome, so a gap would have no reason"]
    value = cost.read(row)
    if value is None or not value > 0:
        return [f"reads {value} from a row that has {cost.name}"]
    if not cost.text(value) or not cost.title:
        found.append("has no text")
    empty = replace(row, outcome=replace(row.outcome, **{cost.name: None}))
    if cost.read(empty) is not None:
        found.append(f"reads {cost.read(empty)} from a row without {cost.name}")
    if cost.meter is not None and not isinstance(cost.meter(row), str):
        found.append("meter names nothing in a row that was measured")
    return found


@pytest.mark.parametrize("cost", ALL, ids=lambda cost: cost.key)
def test_a_cost_is_read_from_a_row(cost):
    found = faults(cost)
    assert not found, "\n".join(f"peftmark/advice/trade.py, {cost.key}: {f}" for f in found)


def test_the_costs_that_may_be_limited_are_among_them_each_once():
    found = costs_of(PRICE)
    assert {cost.key: cost for cost in found.values()} == found
    assert set(found) - set(costs_of(None)) == {"money"}
    assert all(cost in ALL for cost in found.values())
    assert len({cost.key for cost in ALL}) == len(ALL) >= 4


def test_a_cost_that_no_row_has_is_noticed():
    novel = replace(trade.MEMORY, name="novel_bytes")
    assert "is no field of Outcome" in faults(novel)[0]
    blind = replace(trade.MEMORY, read=lambda row: None)
    assert faults(blind) == ["reads None from a row that has peak_memory_bytes"]
