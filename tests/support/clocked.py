"""Columns that a clock or a counter of energy decides: two runs of one job differ in them."""

from peftmark.record.fields import FIELDS

CLOCKED = frozenset(
    key
    for key, field in FIELDS.items()
    if field.unit in ("seconds", "joules") or field.unit.endswith("a second")
)
