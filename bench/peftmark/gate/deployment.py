"""Whether what was saved is still what was trained: errors after loading and after merging."""

from __future__ import annotations

from collections.abc import Iterator

from peftmark.gate.matching import Matched, finding
from peftmark.gate.policy import Policy
from peftmark.gate.result import Finding, Kind
from peftmark.record.fields import title
from peftmark.render import words

GROWTH = 3.0
"""An error may grow to so many times the baseline's: what rounds, rounds otherwise elsewhere."""
SMALL = 1e-3
"""Difference of a logit that is none: fp32 sums in another order make less."""


def deployment(matched: Matched, policy: Policy) -> Iterator[Finding]:
    """Errors that grew, one finding a cell and error, with its worst run.

    An error that is no number any more has grown.
    """
    kind: Kind = "regression" if policy.counts == "binding" else "note"
    for cell in matched.cells:
        pairs = matched.of(cell)
        for name in dict.fromkeys(name for p in pairs for name in p.before.errors):
            both = [(p.before.errors[name], p.after.errors.get(name)) for p in pairs]
            known = [(a, b) for a, b in both if a is not None]
            if any(b is None for _, b in known):
                yield finding(
                    "incomplete", f"deployment.{name}", cell, f"{title(name)} is not known any more"
                )
                continue
            grown = [(a, b) for a, b in known if b is not None and not b <= GROWTH * a + SMALL]
            if grown:
                a, b = max(grown, key=lambda ab: ab[1])
                text = f"{title(name)} went from {words.error(a)} to {words.error(b)}"
                text += f", in {len(grown)} of {words.plural(len(pairs), 'run')}"
                yield finding(kind, f"deployment.{name}", cell, text)
