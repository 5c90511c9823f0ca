"""A gate's result as text: for a terminal, as Markdown, as JUnit XML and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree as Xml

from pydantic import ValidationError

from peftmark.analysis.scale import limits_of, of_difference
from peftmark.analysis.stats import Estimate
from peftmark.core.errors import Exit, UserError
from peftmark.core.shown import visible
from peftmark.gate.checks import CHECKS, group_of
from peftmark.gate.result import GATE, KINDS, MARKS, CellResult, Change, Finding, Gate, Side
from peftmark.render import words
from peftmark.render.markdown import escape
from peftmark.render.plain_table import aligned

MARKER = "<!-- peftmark gate -->"
"""First line of a comment, by which the next run finds it."""

SUMMARY_BYTES = 1000 * 1024
"""What a job summary may take is 1 MiB."""
COMMENT_CHARACTERS = 60_000
"""What a comment may take is 65,536 characters; some room is left for a wrapper."""
MOST_JSON = 16 * 2**20
MOST_FIRST = 3
"""Findings that a comment shows unfolded."""

WHOSE = (
    "The figures are what the change's own run reported, made with the change's own code; nothing "
    "was run again for this comment."
)
"""A comment repeats a file of that run: a change that edits the harness writes its own figures."""


# --- terminal -----------------------------------------------------------------------------------


def text(gate: Gate) -> str:
    """The verdict, a line a cell, and every finding."""
    lines = [
        f"peftmark {'gate' if gate.code is not None else 'compare'}: suite {gate.suite}, profile "
        f"{gate.profile}, {gate.machine}",
        gate.sentence,
        f"  before  {side_text(gate.before)}",
        f"  after   {side_text(gate.after)}",
    ]
    if gate.release is not None:
        lines.append(f"  release {side_text(gate.release)}")
    lines += ["", *_table(gate.cells)]
    if gate.findings:
        lines += ["", *(_line(f) for f in gate.findings)]
    if gate.code is not None:
        lines += ["", f"{gate.timings} Exit code {gate.code}: {meaning(gate.code)}."]
    return "\n".join(lines)


def _table(cells: Sequence[CellResult]) -> list[str]:
    head = ("", "cell", "verdict", "score", "change, better is +", "memory", "step time", "runs")
    return aligned(head, [_row(c) for c in cells])


def _row(cell: CellResult) -> tuple[str, ...]:
    runs = f"{cell.runs}" if not cell.identical else f"{cell.runs}, {cell.identical} identical"
    return (
        MARKS[cell.kind],
        cell.cell,
        cell.verdict,
        scores(cell.change),
        moved(cell.change),
        ratio(cell.memory),
        ratio(cell.time),
        runs,
    )


def scores(change: Change) -> str:
    """`0.843 → 0.801`."""
    if change.before is None or change.after is None:
        return words.MISSING
    before, after = (words.score(change.metric, v) for v in (change.before, change.after))
    return f"{before} → {after}"


def moved(change: Change) -> str:
    """`−0.042 ± 0.010 (5 seeds; 0.012 would show)`; "0" for what is the same."""
    if change.difference is None:
        return words.MISSING
    seeds = words.plural(change.seeds, "seed")
    if change.low is None or change.high is None:
        return f"{words.score(change.metric, change.difference, signed=True)} ({seeds})"
    half = (change.high - change.low) / 2
    told = words.plus_minus(
        Estimate(change.difference, half, change.seeds), change.metric, signed=True
    )
    most = of_difference(limits_of(change.metric))
    shows = ""
    if change.detectable and most is not None and change.detectable > most[1]:
        shows = "; no drop would show"
    elif change.detectable:
        shows = f"; {words.score(change.metric, change.detectable)} would show"
    return f"{told} ({seeds}{shows})"


def ratio(value: float | None) -> str:
    """`1.00×`, or n/a."""
    return words.MISSING if value is None else f"{value:.3f}×"


def _line(found: Finding) -> str:
    return f"{MARKS[found.kind]} {said(found)}"


def said(found: Finding) -> str:
    """A finding as one line: kind, cell and sentence."""
    against = " against the release" if found.against == "release" else ""
    who = f"{found.cell}: " if found.cell else "all cells: " if _of_cells(found) else ""
    return f"{found.kind}{against} [{found.check}] {who}{found.sentence}"


def _of_cells(found: Finding) -> bool:
    known = CHECKS.get(group_of(found.check))
    return known is not None and known.of_cells


def side_text(side: Side) -> str:
    """Where a side came from, in one line."""
    parts = [side.where]
    if side.accepted:
        parts.append(side.accepted)
    if side.commit:
        parts.append(f"peftmark at {side.commit}")
    if side.versions:
        parts.append(", ".join(f"{name} {value}" for name, value in side.versions.items()))
    return "; ".join(parts)


def meaning(code: int) -> str:
    """An exit code in words."""
    return next((known.verdict for known in Exit if known == code), "") or "unknown"


# --- Markdown -----------------------------------------------------------------------------------


def markdown(gate: Gate, most_bytes: int = SUMMARY_BYTES) -> str:
    """A job summary: the verdict, the cells, the findings, the tasks; cut from the end."""
    return _fit([*_head(gate), *_pieces(gate)], most_bytes)


def comment(gate: Gate) -> str:
    """A comment on a pull request, found again by its first line."""
    telling = _telling(gate)
    pieces = [
        *_head(gate),
        f"{WHOSE}\n",
        *(f"- {_safe(said(f))}" for f in telling[:MOST_FIRST]),
        f"\n<details><summary>{_rest(gate, len(telling))}</summary>\n",
        *_pieces(gate, told=MOST_FIRST),
        "\n</details>",
    ]
    # Four bytes at most a character, so that bytes bound characters too.
    body = _fit(pieces, COMMENT_CHARACTERS - len(MARKER) - 1)
    return f"{MARKER}\n{body}"


def _fit(pieces: Sequence[str], most: int) -> str:
    """As many pieces as fit, and a line that says how many don't."""
    kept: list[str] = []
    size = 200
    for piece in pieces:
        size += len(piece.encode()) + 1
        if size > most:
            left = len(pieces) - len(kept)
            kept.append(f"\n{left} lines are left out here; gate.json beside this has them all.")
            break
        kept.append(piece)
    return "\n".join(kept) + "\n"


def _rest(gate: Gate, telling: int) -> str:
    """What is folded away in a comment, in words."""
    more = telling - MOST_FIRST
    found = f"{words.plural(more, 'finding')} more, " if more > 0 else ""
    return f"{found}{words.plural(len(gate.cells), 'cell')} and both sides"


def _head(gate: Gate) -> Iterator[str]:
    name = f"{gate.suite} ({gate.profile}, {gate.machine})"
    yield f"## peftmark {'gate' if gate.code is not None else 'compare'}: {_safe(name)}\n"
    yield f"**{_safe(gate.sentence)}**\n"


def _telling(gate: Gate) -> list[Finding]:
    return [f for f in gate.findings if f.kind != "note"]


def _pieces(gate: Gate, told: int = 0) -> Iterator[str]:
    """What stands below the verdict.

    Args:
        told: findings that stand above it already.
    """
    if gate.code is not None:
        yield f"Exit code {gate.code}: {meaning(gate.code)}. {_safe(gate.timings)}\n"
    telling = _telling(gate)[told:]
    for found in telling:
        yield f"- {_safe(said(found))}"
    if telling:
        yield ""
    yield "| | cell | verdict | score | change, better is + | memory | step time | runs |"
    yield "|---|---|---|---|---|---:|---:|---|"
    for cell in gate.cells:
        yield _grid_row(_row(cell))
    yield ""
    for found in gate.findings:
        if found.kind == "note":
            yield f"- {_safe(said(found))}"
    yield f"\n- before: {_safe(side_text(gate.before))}"
    yield f"- after: {_safe(side_text(gate.after))}"
    if gate.release is not None:
        yield f"- release: {_safe(side_text(gate.release))}"
    yield "\n<details><summary>Every task</summary>\n"
    yield "| cell | task | verdict | score | change, better is + |"
    yield "|---|---|---|---|---|"
    for cell in gate.cells:
        for task in cell.tasks:
            label = f"{task.task}, {words.metric_title(task.metric)}"
            yield _grid_row(
                (cell.cell, label, task.verdict, scores(task.change), moved(task.change))
            )
    yield "\n</details>"


def _grid_row(parts: Sequence[str]) -> str:
    return f"| {' | '.join(_safe(part) for part in parts)} |"


def _safe(text_: str) -> str:
    """Text that Markdown shows as it is, addresses not made into links: it may be a stranger's."""
    broken = escape(text_).replace("://", ":\u200b//")
    return re.sub(r"(?i)www\.", "www\u200b.", broken)


# --- JUnit --------------------------------------------------------------------------------------


def junit(gate: Gate) -> str:
    """A test case for every cell and group of checks: failed, in error, skipped or passed."""
    cells = ["", *(cell.cell for cell in gate.cells)]
    suite = Xml.Element("testsuite", name=_clean(f"peftmark gate {gate.suite}"))
    tally = {"failure": 0, "error": 0, "skipped": 0}
    count = 0
    for cell in cells:
        for check in CHECKS:
            mine = [f for f in gate.findings if f.cell == cell and group_of(f.check) == check]
            if not cell and not mine:
                continue
            name = f"{check} of {cell}" if cell else check
            case = Xml.SubElement(
                suite, "testcase", classname=_clean(f"{gate.suite}.gate"), name=_clean(name)
            )
            count += 1
            _outcome(case, mine, tally)
    suite.attrib.update(
        tests=str(count),
        failures=str(tally["failure"]),
        errors=str(tally["error"]),
        skipped=str(tally["skipped"]),
    )
    root = Xml.Element("testsuites")
    root.append(suite)
    Xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Xml.tostring(root, "unicode") + "\n"


def _outcome(case: Xml.Element, found: Sequence[Finding], tally: dict[str, int]) -> None:
    """The worst finding decides how the case ended; the others are printed with it."""
    telling = [f for f in found if KINDS[f.kind]]
    rest = [f for f in found if not KINDS[f.kind]]
    if telling:
        kind = telling[0].kind
        tag = {"regression": "failure", "undecided": "skipped"}.get(kind, "error")
        tally[tag] += 1
        entry = Xml.SubElement(case, tag, message=_clean(telling[0].sentence))
        if tag != "skipped":
            entry.set("type", kind)
        entry.text = "\n".join(_clean(said(f)) for f in telling)
    if rest:
        Xml.SubElement(case, "system-out").text = "\n".join(_clean(said(f)) for f in rest)


def _clean(value: str) -> str:
    """Without the characters that XML can't hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", visible(value))


# --- JSON ---------------------------------------------------------------------------------------


def to_json(gate: Gate) -> str:
    """The content of gate.json; the same gate gives the same text."""
    return json.dumps(asdict(gate), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(path: Path) -> Gate:
    """A gate.json, checked strictly: it may come from a fork's pull request.

    Raises:
        UserError: as corrupt, if it isn't one; not a word of it is repeated.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_JSON + 1)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}", "Check the path.") from error
    try:
        if len(raw) > MOST_JSON:
            raise ValueError("too large")
        return GATE.validate_json(raw)
    except (ValidationError, ValueError) as error:
        raise UserError(
            f"{path} is not what `peftmark gate` writes",
            "Let the gate write it again. Nothing was shown.",
            code=Exit.CORRUPT,
        ) from error
