"""An outcome that a worker sent, held to the columns that it goes into before anyone uses it.

A worker runs other people's code, so what it sends may be anything. A row that no Parquet file
takes, such as one with 10**30 steps, would end the whole run and not just its job.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from peftmark.core.shown import quoted
from peftmark.record.fields import FIELDS
from peftmark.record.outcome import CurvePoint, Outcome

MOST_REASON = 2000
"""Characters of a reason or a warning that are kept; a row may repeat a reason in each null."""
MOST_WARNINGS = 1000
MOST_TEXT = 100_000
"""Characters of any other text but a model's own."""
MOST_COUNT = 2**63 - 1
"""The largest whole number of a column."""
MOST_EXACT = 2**53
"""The largest whole number up to which a column of floats holds every one."""

_KINDS: dict[str, Any] = get_type_hints(Outcome, localns={"Numbers": list})
_POINT: dict[str, Any] = get_type_hints(CurvePoint)
_POINT_NEEDS = {"step", "loss", "metric", "seconds"}


def outcome_of(text: str) -> Outcome:
    """The inverse of `Outcome.to_json`, of text that anyone may have written.

    Figures that are no finite number are null with the reason. Long reasons are cut.

    Raises:
        ValueError: it is no outcome; says in which column.
    """
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("lists in lists without end") from None
    if not isinstance(data, dict):
        raise ValueError("no object")
    if data.keys() != _KINDS.keys():
        odd = sorted(data.keys() ^ _KINDS.keys())
        which = "no column" if odd[0] in data else "missing"
        raise ValueError(f"{quoted(odd[0])} is {which}")
    for name, value in data.items():
        if not _fits(value, _KINDS[name]):
            raise ValueError(f"{name} can't be {quoted(value)}")
        if isinstance(value, str) and name != "status_reason" and len(value) > MOST_TEXT:
            raise ValueError(f"{name} is a text of {len(value):,} characters")
        if name in FIELDS and FIELDS[name].kind == "cost" and _below_zero(value):
            raise ValueError(f"{name} can't be {value}")
    return _finite(_short(Outcome.from_data(data)))


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a type; no bool is a number, and no count is below zero."""
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if kind is CurvePoint:
        known = isinstance(value, dict) and _POINT_NEEDS <= value.keys() <= _POINT.keys()
        return known and all(_fits(one, _POINT[name]) for name, one in value.items())
    if origin in (tuple, list):
        return isinstance(value, list) and all(_fits(one, parts[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(one, parts[1]) for one in value.values())
    if parts:  # a union
        return any(_fits(value, one) for one in parts)
    if kind is int:
        return type(value) is int and 0 <= value <= MOST_COUNT
    if kind is float:
        return type(value) is float or (type(value) is int and abs(value) <= MOST_EXACT)
    return type(value) is kind


def _below_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value < 0


def _short(outcome: Outcome) -> Outcome:
    """An outcome whose words are no longer than a row can bear to repeat."""
    reasons = {name: cut(why) for name, why in outcome.null_reasons.items()}
    warnings = tuple(map(cut, outcome.warnings[:MOST_WARNINGS]))
    reason = cut(outcome.status_reason)
    return replace(outcome, status_reason=reason, warnings=warnings, null_reasons=reasons)


def cut(text: str) -> str:
    """A reason, cut where it is too long to be one."""
    if len(text) <= MOST_REASON:
        return text
    return f"{text[:MOST_REASON]} [{len(text) - MOST_REASON:,} characters cut here]"


def _finite(outcome: Outcome) -> Outcome:
    """An outcome whose figures are finite numbers or null; an ok one without a score is invalid."""
    odd: Mapping[str, float] = {
        name: value
        for name in FIELDS
        if isinstance(value := getattr(outcome, name, None), float) and not math.isfinite(value)
    }
    if outcome.status == "ok" and (outcome.metric_value is None or "metric_value" in odd):
        outcome = replace(
            outcome, status="invalid", status_reason="the metric is not a finite number"
        )
    if not odd:
        return outcome
    nulls: dict[str, Any] = dict.fromkeys(odd)
    reasons = {name: f"the job gave no finite number but {value}" for name, value in odd.items()}
    return replace(outcome, **nulls, null_reasons={**outcome.null_reasons, **reasons})
