"""The first two sentences of a comparison: what differs and how sure that is, and what speaks
against it. Nothing undecided is called equal."""

from __future__ import annotations

from collections.abc import Sequence

from peftmark.analysis.comparison import MARGIN
from peftmark.catalog.methods import Cell
from peftmark.compare.held import Compared
from peftmark.gate.result import Finding
from peftmark.render import words

MOST_NAMED = 3
FEW_SEEDS = 4
"""Seeds up to which the caveat says that they are few, as in reports."""


def sentence(of: Compared) -> str:
    """What differs between the runs over all tasks, the shown first."""
    by_run = {n: groups(of, n) for n in of.others}
    known = [n for n in of.others if by_run[n]]
    lost = [
        f"{of.runs[n].label} can't be compared with {of.runs[0].label}: {why_not(of, n)}"
        for n in of.others
        if n not in known
    ]
    if known and all(set(by_run[n]) == {"identical"} for n in known):
        runs = words.plural(sum(len(of.matched[n].pairs) for n in known), "run")
        same = (
            f"{_names(of, known)} gave the same bits as {of.runs[0].label} in all {runs} compared"
        )
        return f"{'; '.join([same, *lost])}."
    shown = _shown(of, known)
    rest = _rest(of, known, alone=not shown) if known else []
    return f"{'; '.join([*shown, *rest, *lost])}."


def groups(of: Compared, number: int) -> dict[str, list[Cell]]:
    """What is shown -> the cells it is shown of; "unknown" is what is shown of nothing."""
    found: dict[str, list[Cell]] = {}
    for cell in of.cells:
        verdict = of.verdict((number, cell, ""))
        key = "unknown" if verdict in ("undecided", "no interval") else verdict
        if verdict:
            found.setdefault(key, []).append(cell)
    return found


def _names(of: Compared, numbers: Sequence[int]) -> str:
    return words.listing([of.runs[n].label for n in numbers])


def _shown(of: Compared, known: Sequence[int]) -> list[str]:
    """What scored lower or higher; runs of which the same is shown are told together."""
    told = []
    for key in ("lower", "higher"):
        alike: dict[tuple[Cell, ...], list[int]] = {}
        for n in known:
            if cells := tuple(groups(of, n).get(key, ())):
                alike.setdefault(cells, []).append(n)
        for cells, numbers in alike.items():
            seeds = min(of.found[n, c, ""].comparison.n for n in numbers for c in cells)
            named = words.some([words.title(c) for c in cells], MOST_NAMED)
            told.append(
                f"{_names(of, numbers)} scored {key} than {of.runs[0].label} with {named}, as "
                f"{words.plural(seeds, 'seed')} show"
            )
    return told


def _rest(of: Compared, known: Sequence[int], *, alone: bool) -> list[str]:
    """What is not shown, or, where all is, what is shown to be close.

    Args:
        alone: whether nothing was said before it.
    """
    first, open_ones = of.runs[0].label, _with(of, known, "unknown")
    cells = dict.fromkeys(c for n in open_ones for c in groups(of, n)["unknown"])
    if cells and alone:
        told = f"{_show(of, open_ones)} to {first} with {_some(of, list(cells), 'any')}"
        return [f"{_names(of, open_ones)}: {told}"]
    if cells:
        return [_show(of, open_ones).replace("no difference", "no other difference")]
    close = _with(of, known, "equivalent")
    if not close:
        return []
    cells = dict.fromkeys(c for n in close for c in groups(of, n)["equivalent"])
    verb = "is" if len(close) == 1 else "are"
    near = f"{_names(of, close)} {verb} within {MARGIN:g} of {first}"
    return [f"{near} with {_some(of, list(cells), 'all')}"]


def _with(of: Compared, known: Sequence[int], key: str) -> list[int]:
    """The runs of which something is shown of some cell."""
    return [n for n in known if key in groups(of, n)]


def _some(of: Compared, cells: Sequence[Cell], word: str) -> str:
    """The names of cells, or that they are all of them."""
    if len(cells) == len(of.cells) > 1:
        return f"{word} of {len(cells)} methods"
    return words.some([words.title(c) for c in cells], MOST_NAMED)


def _show(of: Compared, known: Sequence[int]) -> str:
    """What the seeds fail to show, by the cell that has the fewest."""
    found = [of.found[n, c, ""] for n in known for c in groups(of, n)["unknown"]]
    n = min(d.comparison.n for d in found)
    if n == 1:
        return "one seed can't show a difference"
    if all(d.verdict == "no interval" for d in found):
        return f"{n} seeds that all moved alike can't show a difference"
    return f"{n} seeds show no difference"


def why_not(of: Compared, number: int) -> str:
    """Why no cell of a run is held against the first."""
    gate = of.gates[number]
    for kind in ("not comparable", "incomplete"):
        for finding in gate.findings if gate is not None else ():
            if finding.kind == kind and finding.check != "procedure.none":
                return worded(of, number, finding)
    return of.scale.why_none or "no seed has a score on both sides"


def worded(of: Compared, number: int, finding: Finding) -> str:
    """A finding of the gate's in the names of the runs, where the gate has a baseline, there and
    here."""
    first, text = of.runs[0].label, finding.sentence
    if finding.check.startswith("procedure."):
        text = text.replace(" there, ", f" in {first}, ")
        text = text.replace(" here", f" in {of.runs[number].label}")
    return text.replace("the baseline", first)


# --- what matters most against it -----------------------------------------------------------------


def caveat(of: Compared) -> str:
    """The heaviest of what speaks against the answer: other bits by the same code, runs that are
    not compared, another machine, few seeds."""
    if named := doubtful(of):
        return f"The same code gave other numbers in {words.listing(named)}: trust none of them."
    if left := uncompared(of):
        total = sum(_either(of, n) for n in of.others)
        return (
            f"{left} of {words.plural(total, 'run')} are not compared: failed, missing on one "
            "side, or asked for something else."
        )
    if named := elsewhere(of):
        verb = "ran" if len(named) == 1 else "each ran"
        return (
            f"{words.listing(named)} {verb} on another kind of machine than {of.runs[0].label}: "
            "scores may be compared, times are not."
        )
    seeds = [d.comparison.n for (_, _, task), d in of.found.items() if not task]
    if seeds and min(seeds) <= FEW_SEEDS:
        return f"Only {words.plural(min(seeds), 'seed')}: more may show what these can't."
    return (
        "Times are a hint: the runs were not made in turns on an idle machine, as far as is known."
    )


def doubtful(of: Compared) -> list[str]:
    """Runs that differ from the first by the same code on the same kind of machine."""
    return [
        of.runs[n].label
        for n in of.others
        if (gate := of.gates[n]) and any(f.kind == "not deterministic" for f in gate.findings)
    ]


def elsewhere(of: Compared) -> list[str]:
    """Runs that were made on another kind of machine than the first, as a whole or in part."""
    kinds = [{tuple(x.machine.values()) for x in run.side.lines} for run in of.runs]
    return [of.runs[n].label for n in of.others if kinds[n] != kinds[0]]


def _either(of: Compared, number: int) -> int:
    """How many runs there are on either side."""
    return len(of.runs[0].side.by_key.keys() | of.runs[number].side.by_key.keys())


def uncompared(of: Compared) -> int:
    """How many runs of either side have no partner, over all runs but the first."""
    return sum(_either(of, n) - len(of.matched[n].pairs) for n in of.others)
