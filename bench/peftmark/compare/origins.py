"""Where the runs come from: what differs between their versions, machines and settings."""

from __future__ import annotations

from collections import Counter

from peftmark.compare.answer import elsewhere
from peftmark.compare.held import Compared
from peftmark.compare.runs import Run
from peftmark.gate.run_lines import Line
from peftmark.gate.show import side_text
from peftmark.render import words
from peftmark.render.page import Column, Entry, Grid, Section

LONGEST = 100
MOST_OPEN = 8
"""Facts up to which the table of them is open."""
UNKNOWN = "not recorded"


def section(of: Compared) -> Section:
    """Versions, machines and commits, those that differ first."""
    facts = [_facts(run) for run in of.runs]
    names = list(dict.fromkeys(name for found in facts for name in found))
    apart = [n for n in names if len({f.get(n, UNKNOWN) for f in facts}) > 1]
    alike = [n for n in names if n not in apart]
    first = of.runs[0].label
    lead = "The runs were made by the same code and versions, on the same kind of machine."
    if apart:
        lead = f"What differs beside the numbers: {words.some(apart)}."
    if named := elsewhere(of):
        lead += (
            f" Times of {words.listing(named)} are not compared with {first}'s: they ran on "
            "another kind of machine."
        )
    differing = (_grid("What differs", of, facts, apart, folded=False),) if apart else ()
    same = (_grid("What is the same", of, facts, alike, folded=True),) if alike else ()
    title = "What differs between the runs?"
    if len(apart) > MOST_OPEN:
        return Section("apart", title, lead, (*differing, *same, _sides(of)), depth="card")
    return Section("apart", title, lead, (*same, _sides(of)), differing, "card")


def _grid(
    caption: str, of: Compared, facts: list[dict[str, str]], names: list[str], *, folded: bool
) -> Grid:
    columns = (Column("fact"), *(Column(run.label) for run in of.runs))
    rows = tuple(
        (Entry(name), *(Entry(found.get(name, UNKNOWN)) for found in facts)) for name in names
    )
    return Grid(caption, columns, rows, folded=folded)


def _sides(of: Compared) -> Grid:
    """Every run in a line."""
    gates = [gate for gate in of.gates if gate is not None]
    sides = [gates[0].before, *(gate.after for gate in gates)]
    rows = tuple(
        (
            Entry(run.label),
            Entry(side_text(side)),
            Entry(side.finished_at or UNKNOWN),
            Entry(_counts(run)),
        )
        for run, side in zip(of.runs, sides, strict=True)
    )
    columns = tuple(Column(title) for title in ("run", "where", "finished", "its runs"))
    return Grid("Where the runs lie", columns, rows)


def _counts(run: Run) -> str:
    """How many runs ended how."""
    counts = Counter(line.status for line in run.side.lines)
    return ", ".join(f"{n} {words.status(status)}" for status, n in sorted(counts.items()))


def _facts(run: Run) -> dict[str, str]:
    """Fact -> its value, or all that the run has of it."""
    found: dict[str, dict[str, None]] = {}
    for line in run.side.lines:
        for name, value in _of_line(line).items():
            found.setdefault(name, {})[value] = None
    return {name: words.some(list(values)) for name, values in found.items()}


def _of_line(line: Line) -> dict[str, str]:
    made = line.environment
    facts = {"peftmark commit": (made.commit or "none, installed")[:12]}
    if made.dirty:
        facts["peftmark commit"] += " with uncommitted changes"
    facts |= {f"version of {name}": value for name, value in made.versions.items()}
    facts |= {f"code of {name}": digest[:12] for name, digest in made.sources.items()}
    facts |= {
        f"machine: {name.replace('_', ' ')}": _text(value) for name, value in made.machine.items()
    }
    facts["device"] = f"{line.device}, {words.plural(line.threads, 'thread')}"
    return facts


def _text(value: object) -> str:
    text = "none" if value is None or value == [] else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
