"""Whether a page says one thing of each fact: every figure and verdict of it, held together.

Reads the page alone, by a parser of its own. An entry that claims something carries it as
attributes: data-figure, data-cell, data-against (a difference to that cell), data-task, data-value,
data-verdict, data-beaten-by (that cell is said to be shown to score higher).

    python tests/support/consistent.py docs/example/index.html
"""

from __future__ import annotations

import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

OTHER_WAY = {"higher": "lower", "lower": "higher"}
CLAIM = re.compile(r"[\d.,]+×|higher|lower|equivalent|undecided|no interval")
"""A text of a table that claims something: a ratio or a verdict."""
CLOSE = 1e-4


class Claim(NamedTuple):
    """One figure or verdict of a page."""

    figure: str
    cell: str
    against: str
    task: str
    value: float | None
    verdict: str

    @property
    def key(self) -> tuple[str, ...]:
        """What it is about; a difference is about both cells alike."""
        return self.figure, self.task, *sorted((self.cell, self.against))

    def turned(self) -> Claim:
        """The same with the cells of a difference in the order of their names."""
        if not self.against or self.cell < self.against:
            return self
        value = None if self.value is None else -self.value
        verdict = OTHER_WAY.get(self.verdict, self.verdict)
        return Claim(self.figure, self.against, self.cell, self.task, value, verdict)


class Claims(HTMLParser):
    """Collects the claims of a page, and entries that claim something without saying what; what a
    paper claims is not of this page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Claim] = []
        self.silent: list[str] = []
        self.text: str | None = None
        self.part = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("div", "section") and dict(attrs).get("id"):
            self.part = dict(attrs)["id"] or ""
        known = {k.removeprefix("data-"): v or "" for k, v in attrs}
        if "figure" in known and tag != "figure":
            value = float(known["value"]) if known.get("value") else None
            at = known["figure"], known["cell"], known.get("against", ""), known.get("task", "")
            self.found.append(Claim(*at, value, known.get("verdict", "")))
            if by := known.get("beaten-by"):
                self.found.append(Claim("difference", known["cell"], by, "", None, "lower"))
        elif tag == "td" and self.part != "claims":
            self.text = ""
        elif tag == "span":
            self._end()  # the small line below

    def handle_data(self, data: str) -> None:
        if self.text is not None:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._end()

    def _end(self) -> None:
        if self.text and CLAIM.fullmatch(self.text.strip()):
            self.silent.append(self.text.strip())
        self.text = None


def faults(page: str) -> list[str]:
    """Every fact of which a page says two things, and how many entries can't be told."""
    read = Claims()
    read.feed(page)
    by_key: dict[tuple[str, ...], list[Claim]] = {}
    for claim in read.found:
        by_key.setdefault(claim.key, []).append(claim.turned())
    found = [fault for claims in by_key.values() for fault in _apart(claims)]
    found += [f"{text!r} is claimed without saying of what" for text in read.silent]
    if not read.found:
        found.append("no entry carries what it claims")
    return found


def _apart(claims: list[Claim]) -> list[str]:
    first = claims[0]
    name = " less ".join(filter(None, (first.cell, first.against)))
    about = f"{first.figure} of {name}" + (f" on {first.task}" if first.task else "")
    values = sorted({c.value for c in claims if c.value is not None})
    told = []
    if values and not math.isclose(values[0], values[-1], rel_tol=CLOSE, abs_tol=1e-9):
        told.append(f"{about}: {' and '.join(f'{v:g}' for v in values)}")
    verdicts = sorted({c.verdict for c in claims if c.verdict})
    if len(verdicts) > 1:
        told.append(f"{about}: {' and '.join(verdicts)}")
    return told


if __name__ == "__main__":
    wrong = 0
    for name in sys.argv[1:]:
        found = faults(Path(name).read_text("utf-8"))
        wrong += len(found)
        print("\n".join([f"{name}: {fault}" for fault in found] or [f"{name}: no disagreement"]))
    sys.exit(bool(wrong))
