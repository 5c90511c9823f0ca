"""Columns in which two runs of one job differ: those that a clock, a counter of energy, or the
system's or an allocator's view of memory decides, and what tells of the run."""

from peftmark.record.fields import FIELDS

CLOCK_AND_MACHINE = frozenset(key for key, field in FIELDS.items() if not field.pooled) | {
    "attempt", "phase_seconds", "null_reasons", "environment", "command",
}  # fmt: skip
