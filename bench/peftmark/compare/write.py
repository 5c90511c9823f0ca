"""`peftmark compare` as a page, as lines of a terminal and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from peftmark.compare import answer
from peftmark.compare.held import Compared, ratio
from peftmark.compare.page import SAID, page, places
from peftmark.compare.tiles import called
from peftmark.core.files import write_all
from peftmark.gate.show import ratio as ratio_text
from peftmark.gate.show import said, side_text
from peftmark.render import words
from peftmark.render.plain_table import aligned

HEAD = ("method", "score", "difference", "what is shown", "memory", "step time", "pairs")


def write(of: Compared, folder: Path) -> list[Path]:
    """Write the page and return its paths, `index.html` and the Markdown first.

    Raises:
        StoreError: the folder can't be written; an older page stays as it was.
    """
    return write_all(files(of, folder, "compare.md"))


def files(of: Compared, folder: Path, text_name: str) -> dict[Path, str | bytes]:
    """Path -> content of the page, its Markdown under a name, and its pictures."""
    # Drawing needs matplotlib, which takes a second to import: not before it is needed.
    from peftmark.render.page_files import page_files
    from peftmark.render.said_once import said_once

    shown = replace(page(of), links=(("this page as Markdown", text_name),))
    return page_files(said_once(shown), folder, text_name)


def text(of: Compared) -> str:
    """What differs, a line a cell, and what else was found."""
    side = of.runs[0].side
    gates = [gate for gate in of.gates if gate is not None]
    sides = [gates[0].before, *(gate.after for gate in gates)]
    width = max(len(run.label) for run in of.runs)
    found = [
        f"{run.label}: {said(finding)}" if len(of.runs) > 2 else said(finding)
        for run, gate in zip(of.runs, of.gates, strict=True)
        if gate is not None
        for finding in gate.findings
        if finding.check not in SAID
    ]
    lines = [
        f"peftmark compare: suite {side.suite}, profile {side.profile}",
        answer.sentence(of),
        answer.caveat(of),
        *(f"  {r.label:{width}}  {side_text(s)}" for r, s in zip(of.runs, sides, strict=True)),
        "",
        *aligned(HEAD, [_row(of, place) for place in places(of)]),
    ]
    return "\n".join([*lines, *(["", *found] if found else [])])


def _row(of: Compared, at: tuple[int, Any]) -> tuple[str, ...]:
    number, cell = at
    place, pairs = (number, cell, ""), of.matched[number].of(cell)
    verdict, found = of.verdict(place), of.found.get(place)
    before, after = (of.score(n, cell).estimate for n in (0, number))
    metric = of.scale.metric
    scores = words.MISSING
    if before is not None and after is not None:
        scores = " → ".join(words.score(metric, e.mean) for e in (before, after))
    moved = "0" if verdict == "identical" else words.MISSING
    if found is not None:
        estimate = found.comparison.estimate
        seeds = words.plural(estimate.n, "seed")
        moved = f"{words.plus_minus(estimate, metric, signed=True)} ({seeds})"
    costs = (ratio_text(ratio(pairs, key)) for key in ("memory", "time"))
    name = called(of, number, cell)
    return (name, scores, moved, verdict or "not compared", *costs, str(len(pairs)))


def to_json(of: Compared) -> str:
    """Of two runs what the gate writes; of more, their labels and the same of each further one."""
    gates = [asdict(gate) for gate in of.gates if gate is not None]
    if len(gates) == 1:
        found: Any = gates[0]
    else:
        found = {"peftmark_compare": 1, "runs": [r.label for r in of.runs], "against_first": gates}
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
