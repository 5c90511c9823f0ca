"""Every measured figure, once: what columns, reports, claims, gate, trend and advice say of it.

A new figure is an attribute of `peftmark.record.outcome.Outcome`, a row here (in the module of its
kind, at its place among the columns) and the code that measures it.
"""

from __future__ import annotations

from peftmark.record import (
    fields_memory,
    fields_origin,
    fields_quality,
    fields_time,
    fields_watch,
    fields_work,
)
from peftmark.record.field import LIVE_PARTS as LIVE_PARTS
from peftmark.record.field import PHASES, Field

_KINDS = (
    fields_quality,
    fields_time,
    fields_memory,
    fields_work,
    fields_watch,
    fields_origin,
)
FIELDS: dict[str, Field] = {field.key: field for rows in _KINDS for field in rows.ROWS}
"""Key -> field, in the order of the columns."""


def figure(key: str) -> Field:
    """The field of a key.

    Raises:
        KeyError: nothing measures it; says what to write where.
    """
    if key not in FIELDS:
        raise KeyError(
            f"no measured figure is called `{key}`: correct the name, or write its row in "
            "bench/peftmark/record/fields_*.py, its attribute in record/outcome.py and measure it"
        )
    return FIELDS[key]


def title(key: str) -> str:
    """The one name of a figure."""
    return figure(key).title


def side(key: str) -> str:
    """Which way is better, such as "lower is better"; empty where neither is."""
    better = figure(key).better
    return f"{better} is better" if better else ""


def by_phase() -> tuple[Field, ...]:
    """All fields in the order of a job: what differs first may explain the rest."""
    phases = list(PHASES)
    return tuple(sorted(FIELDS.values(), key=lambda field: phases.index(field.phase)))
