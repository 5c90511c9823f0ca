"""Four facts beside the first chart: what changed, what it costs, what is open, what to trust."""

from __future__ import annotations

from peftmark.catalog.methods import Cell
from peftmark.compare.answer import doubtful, elsewhere, groups, uncompared
from peftmark.compare.held import Compared, ratio
from peftmark.render import words
from peftmark.render.page import Sign, Tile

MOST_NAMED = 3
COST_WORDS = {"memory": "memory", "time": "step time"}


def tiles(of: Compared) -> tuple[Tile, ...]:
    """The facts, in their order."""
    return (changed(of), costs(of), undecided(of), trust(of))


def called(of: Compared, number: int, cell: Cell) -> str:
    """A cell, and its run where there are several to tell apart."""
    return words.title(cell) + (f" in {of.runs[number].label}" if len(of.runs) > 2 else "")


def changed(of: Compared) -> Tile:
    """Which scores are shown to differ."""
    title, judged = "What changed", sum(not task for _, _, task in of.found)
    told = [
        f"{key}: {words.some(shown, MOST_NAMED)}"
        for key in ("lower", "higher")
        if (shown := _named(of, key))
    ]
    count = sum(len(groups(of, n).get("identical", ())) for n in of.others)
    same = f"{count} with the same bits" if count else ""
    note = f"{words.plural(judged, 'comparison')} judged together" if judged else ""
    if not judged and not count:
        return Tile(title, words.MISSING, "nothing could be compared")
    value = "; ".join(told) or ("nothing that is shown" if judged else "nothing")
    return Tile(title, value, "; ".join(filter(None, (same, note))))


def costs(of: Compared) -> Tile:
    """Memory and step time against the first run, from the lowest to the highest over methods."""
    told = []
    for key, word in COST_WORDS.items():
        known = [
            found
            for n in of.others
            for cell in of.cells
            if (found := ratio(of.matched[n].of(cell), key)) is not None
        ]
        if known:
            ends = dict.fromkeys((words.times(min(known)), words.times(max(known))))
            told.append(f"{word} {' to '.join(ends)}")
    if not told:
        return Tile("What it costs", "not compared", "made on other kinds of machine, or unknown")
    first = of.runs[0].label
    note = f"of {first}'s, geometric mean of each method's runs"
    return Tile("What it costs", ", ".join(told), note)


def undecided(of: Compared) -> Tile:
    """Cells that the seeds can't tell from the first run's."""
    title = "What can't be told apart"
    places = [(n, c) for n in of.others for c in groups(of, n).get("unknown", ())]
    if not places:
        decided = any(groups(of, n) for n in of.others)
        return Tile(title, "nothing", "every method is decided") if decided else Tile(title, "n/a")
    wanted = sorted(s for n, c in places if (s := of.found[n, c, ""].seeds) is not None)
    note = f"from {of.runs[0].label}"
    if wanted:
        note += f"; {words.seeds_that_decide(*wanted)}"
    return Tile(title, words.some(_named(of, "unknown"), MOST_NAMED), note)


def _named(of: Compared, key: str) -> list[str]:
    """The cells of which something is shown, each with its runs where there are several."""
    runs: dict[Cell, list[str]] = {}
    for n in of.others:
        for cell in groups(of, n).get(key, ()):
            runs.setdefault(cell, []).append(of.runs[n].label)
    if len(of.runs) < 3:
        return [words.title(cell) for cell in runs]
    every = len(of.others)
    return [
        words.title(cell) + ("" if len(names) == every else f" in {words.listing(names)}")
        for cell, names in runs.items()
    ]


def trust(of: Compared) -> Tile:
    """One mark each for the same code, the machines and what is not compared."""
    bad, other, left = doubtful(of), elsewhere(of), uncompared(of)
    pairs = sum(len(of.matched[n].pairs) for n in of.others)
    signs = (
        Sign("bad", "the same code gave other numbers", "found")
        if bad
        else Sign("care", "no run can be checked against another", "found")
        if not pairs
        else Sign("good", "no run differs by the same code", "found"),
        Sign("care", "other kinds of machine", "apart")
        if other
        else Sign("good", "one kind of machine", "apart"),
        Sign("care", f"{words.plural(left, 'run')} not compared", "found")
        if left
        else Sign("good", f"all {words.plural(pairs, 'pair')} of runs compared", "found"),
    )
    states = {sign.state for sign in signs}
    value = (
        "no"
        if "bad" in states
        else "with care"
        if "care" in states
        else "yes, as far as is checked"
    )
    return Tile("Can it be trusted", value, signs=signs)
