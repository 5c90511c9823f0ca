"""Published figures and what is said of each, as text for a terminal and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from peftmark.claims.part import KINDS
from peftmark.claims.published import SUBJECTS, Finding, Subject, equal
from peftmark.core.shown import plural
from peftmark.memory.forecast import NOT_YET
from peftmark.render.plain_table import aligned

PREDICT = "peftmark claims --published --memory-figures predicts them"

TITLES: dict[Subject, str] = {
    "parameters": "Parameters that train",
    "bytes": "Bytes",
    "memory": "Memory",
    "step time": "Step times",
}


def published_facts(found: Sequence[Finding]) -> dict[str, Any]:
    """Verdicts as plain data."""
    same, of = equal(found)
    return {
        "figures": len(found),
        "verdicts": {kind: sum(one.kind == kind for one in found) for kind in KINDS},
        "counts_equal": same,
        "counts": of,
        "not_predicted_yet": _waiting(found),
        "published": [_fact(one) for one in found],
    }


def _fact(one: Finding) -> dict[str, Any]:
    fields = asdict(one)
    low_and_high = fields.pop("our_values")
    text = {name: fields.pop(name) for name in ("claimed", "ours")}
    return fields | {
        "claimed": fields.pop("claimed_value"),
        "ours": [low_and_high[0], low_and_high[-1]] if low_and_high else None,
        "claimed_text": text["claimed"],
        "ours_text": text["ours"] or None,
        "verdict": fields.pop("kind"),
        "date": fields["date"] or None,
    }


def published_text(found: Sequence[Finding]) -> str:
    """Verdicts for a terminal: how many first, then a table for each subject."""
    same, of = equal(found)
    lines = [
        f"{len(found)} published figures: {_kinds(found)}.",
        f"Parameter counts: {same} of {of} equal.",
    ]
    for subject in SUBJECTS:
        if rows := [one for one in found if one.subject == subject]:
            lines += ["", *_table(subject, rows)]
    if waits := _waiting(found):
        lines += ["", f"{plural(waits, 'figure')} not predicted yet: {PREDICT}, in minutes."]
    return "\n".join(lines)


def _waiting(found: Sequence[Finding]) -> int:
    return sum(NOT_YET in one.reason for one in found)


def _kinds(found: Sequence[Finding]) -> str:
    numbers = ((kind, sum(one.kind == kind for one in found)) for kind in KINDS)
    return ", ".join(f"{number} {kind}" for kind, number in numbers if number)


def _table(subject: Subject, rows: Sequence[Finding]) -> Iterator[str]:
    yield f"{TITLES[subject]}: {_kinds(rows)}"
    head = ("figure", "published", "ours", "verdict", "")
    cells = [(one.name, one.claimed, one.ours or "-", one.kind, one.reason) for one in rows]
    yield from (f"  {line}" for line in aligned(head, cells, numbers=(1, 2)))
