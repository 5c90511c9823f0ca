"""The first two sentences of a report: what was learned, and what matters most against it.

Neither has an interval in it: those stand in the tables below. Nothing undecided is called equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from peftmark.advice import plain_lines, rates_lines, training_lines
from peftmark.analysis.comparison import MARGIN, Difference, against_reference
from peftmark.analysis.floor import LITTLE, NOT_SHOWN, why_below
from peftmark.analysis.guess import Unbeaten, unbeaten
from peftmark.analysis.stats import NEARLY_ZERO
from peftmark.analysis.table import ResultTable, overall_score, ratio
from peftmark.catalog.methods import Cell, method_of
from peftmark.render import words
from peftmark.render.page import shorten
from peftmark.report import summary

MOST_NAMED = 3
LONGEST_REASON = 160
"""Characters of a reason on the first screen; the list of failures has more."""
FEW_SEEDS = 4
"""Seeds up to which the caveat says that they are few: of five a t test finds a difference of 1.7
times its spread over seeds four times in five, of three one of 3.3 times; as one of five that are
held together 2.6 and 7.3 (`peftmark.analysis.stats.minimum_detectable_effect`)."""

WHY_NOTHING = {
    LITTLE: f"{LITTLE} to compare anything with it",
    NOT_SHOWN: f"is {NOT_SHOWN}, so nothing is compared with it",
}
"""Why a reference is below the quality floor -> what is said of it."""


def sentence(table: ResultTable) -> str:
    """What was learned of quality against the reference, over all tasks."""
    if why := summary.nothing_to_compare(table):
        return why
    lost = unbeaten(table)
    if lost and len(lost) == len(table.tasks):
        return _nobody(table, lost)
    floor = why_below(table)
    if table.reference in floor:
        name, why = words.title(table.reference), WHY_NOTHING[floor[table.reference]]
        return f"{name}, the reference, {why}{_leader(table)}."
    against = against_reference(table)
    found = {c: d for c, d in against.items() if _is_rival(c) and c not in floor}
    if not found:
        return _alone(table, against, floor)
    if higher := [c for c, d in found.items() if d.verdict == "higher"]:
        return _ahead(table, found, higher)
    full = next((c for c in found if c.method == "full"), None)
    told = _groups(table, found) if full is None else _against_full(table, full, found[full])
    if any(d.comparison.n > 1 for d in found.values()):
        return told
    return f"{told.removesuffix('.')}{_leader(table)}."


def _is_rival(cell: Cell) -> bool:
    """Whether a cell is a way to fine-tune: no reference line but full fine-tuning."""
    method = method_of(cell.method)
    return method is None or method.family != "reference" or cell.method == "full"


def _nobody(table: ResultTable, lost: Sequence[Unbeaten]) -> str:
    """No cell that trains is shown to beat a guess on any task, and why that is."""
    leader = _leader(table)
    if all(one.guess is None for one in lost):
        return (
            f"What a constant guess scores is not recorded, so none is shown to be beaten{leader}."
        )
    who = plain_lines.nobody(lost).replace("cell", "method")
    if all(one.above is False for one in lost):
        return f"{who} scored better than a constant guess on any task, by mean score."
    seeds = words.plural(max(one.score.n for one in lost), "seed").replace("1 seed", "one seed")
    alike = " that are all alike" if all(one.alike for one in lost) else ""
    return f"{who} is shown to beat a constant guess on any task by {seeds}{alike}{leader}."


def _alone(table: ResultTable, against: Mapping[Cell, Difference], floor: Collection[Cell]) -> str:
    """No other way to fine-tune can be held against the reference: why, and how reference lines,
    such as a frozen head or a bag of words, stand to it."""
    name = words.title(table.reference)
    rivals = [c for c in table.others if _is_rival(c)]
    if not _is_rival(table.reference):
        text = f"No method that fine-tunes can be compared with {name}"
    elif not rivals:
        text = f"{name} is the only method here that fine-tunes"
    elif any(c in floor for c in rivals):
        text = f"{name} is the only method that fine-tunes and is above the quality floor"
    else:
        text = f"{name} is the only method that fine-tunes and finished"
    lines = {c: d for c, d in against.items() if not _is_rival(c)}
    return (
        f"{text}; {'; '.join(_stand(table, lines))}." if lines else f"{text}: nothing to compare."
    )


def _leader(table: ResultTable) -> str:
    """Which cell has the highest mean, shown or not."""
    means = {c: e.mean for c in table.cells if (e := overall_score(table, c).estimate)}
    if not means:
        return ""
    best = max(means.values())
    titles = [words.title(c) for c, mean in means.items() if best - mean <= NEARLY_ZERO]
    return f"; the highest mean is that of {words.some(titles, MOST_NAMED)}"


def seeds(table: ResultTable) -> str:
    """How many seeds the reference finished on every task, such as "3 seeds"."""
    return words.plural(len(overall_score(table, table.reference).by_seed), "seed")


def _show(table: ResultTable, cell: Cell, found: Difference) -> str:
    """What the seeds say of a cell's difference to the reference that is not shown."""
    n = found.comparison.n
    if n == 1:
        return "one seed can't show a difference"
    if found.verdict == "no interval":
        one, other = (overall_score(table, c).values for c in (cell, table.reference))
        spread = max(max(values) - min(values) for values in (one, other))
        how = "are all alike" if spread <= NEARLY_ZERO else "all differ by the same"
        return f"{n} seeds that {how} can't show a difference"
    return f"{n} seeds show no difference"


def _against_full(table: ResultTable, full: Cell, found: Difference) -> str:
    """The reference held against full fine-tuning, which nothing is shown to beat the former."""
    name, other = words.title(table.reference), words.title(full)
    price = for_parameters(table, full)
    if found.verdict == "lower":
        return f"{name} scored higher than {other}{price}."
    if found.verdict == "equivalent":
        return f"{name} is within {MARGIN:g} of {other} over {seeds(table)}{price}."
    return f"{name}: {_show(table, full, found)} to {other}{price}."


def _ahead(table: ResultTable, found: Mapping[Cell, Difference], higher: Sequence[Cell]) -> str:
    """One or more cells are shown to score higher than the reference."""
    best = max(higher, key=lambda c: found[c].comparison.estimate.mean)
    rest = words.plural(len(higher) - 1, "other cell")
    also = f", as did {rest}" if len(higher) > 1 else ""
    known = ratio(table, best, summary.trainable).value
    price = f", with {_parameters(known)}" if known else ""
    return f"{words.title(best)} scored higher than {words.title(table.reference)}{price}{also}."


def _groups(table: ResultTable, found: Mapping[Cell, Difference]) -> str:
    """What is shown of each cell, where there is no full fine-tuning to name."""
    return f"{words.title(table.reference)}: {'; '.join(_stand(table, found))}."


def _stand(table: ResultTable, found: Mapping[Cell, Difference]) -> Iterator[str]:
    """How some cells stand to the reference, as parts of a sentence."""
    by = {
        verdict: [words.title(c) for c, d in found.items() if d.verdict == verdict]
        for verdict in ("higher", "equivalent", "lower")
    }
    if higher := by["higher"]:
        yield f"{words.some(higher, MOST_NAMED)} scored higher"
    if alike := by["equivalent"]:
        yield f"{words.some(alike, MOST_NAMED)} within {MARGIN:g} of it"
    unknown: dict[str, list[str]] = {}
    for cell, difference in found.items():
        if difference.verdict in ("undecided", "no interval"):
            unknown.setdefault(_show(table, cell, difference), []).append(words.title(cell))
    yield from (f"{shown} to {words.some(names, MOST_NAMED)}" for shown, names in unknown.items())
    if lower := by["lower"]:
        yield f"{words.some(lower, MOST_NAMED)} scored lower"


def for_parameters(table: ResultTable, full: Cell) -> str:
    """For which share of another cell's trained parameters the reference gets there; empty if
    unknown."""
    value = ratio(table, full, summary.trainable).value
    return f", for {_parameters(1 / value)}" if value else ""


def _parameters(share: float) -> str:
    """A share of some cell's trained parameters, such as "2 % of its trained parameters"."""
    if share >= 1.05:
        return f"{words.short(share)} times its trained parameters"
    if share > 0.95:
        return "as many trained parameters"
    percent = 100 * share
    text = f"{percent:.0f}" if percent >= 1 else f"{percent:.1g}"
    return f"{text}\u00a0% of its trained parameters"


# --- what matters most against it -----------------------------------------------------------------


def caveat(table: ResultTable) -> str:
    """The heaviest of what speaks against the answer: no gain on a task, unequal training, failures
    with scale and seeds, tuning."""
    if not any(r.ok for r in table.rows):
        return _why_none(table)
    lost = unbeaten(table)
    if lost and len(lost) < len(table.tasks):
        tasks = words.some([one.task for one in lost])
        return (
            f"{plain_lines.nobody(lost)} is shown to beat a constant guess on {tasks}, so nothing "
            "is recommended there."
        )
    named = _named(table)
    if unequal := training_lines.sentence(table, named) if named else "":
        return unequal
    if weak := list(filter(None, (_failed(table), _scale(table), _seeds(table)))):
        longer = "a longer run" if _scale(table) else "a complete run with more seeds"
        text = words.listing(weak)
        return f"{text[0].upper()}{text[1:]}: {longer} may order methods differently."
    if unequal := training_lines.sentence(table):
        return unequal
    if rates_lines.by_trials(table)[1]:
        return (
            "Learning rates were not picked by trials for every method, so some may be badly set."
        )
    return "Intervals cover other seeds, not other tasks or other evaluation rows."


def _why_none(table: ResultTable) -> str:
    """What most runs ended with, where none finished; empty where none has run."""
    ends = Counter(
        (r.outcome.status, " ".join(r.outcome.status_reason.split())) for r in table.rows
    )
    if not ends:
        return ""
    (status, reason), most = ends.most_common(1)[0]
    runs = words.plural(len(table.slots), "run")
    told = f": {shorten(reason, LONGEST_REASON).rstrip('.')}" if reason else ""
    return f"{most} of {runs} ended with {words.status(status)}{told}."


def _named(table: ResultTable) -> set[Cell]:
    """The cells that the answer is most likely of: the reference, full fine-tuning, any ahead."""
    found = against_reference(table)
    ahead = {c for c, d in found.items() if d.verdict == "higher" and _is_rival(c)}
    return {table.reference, *ahead, *(c for c in found if c.method == "full")}


def _failed(table: ResultTable) -> str:
    """That runs failed or are still to come; empty where all finished."""
    failed, left = table.failed, table.left
    if not failed and not left:
        return ""
    runs = words.plural(len(table.slots), "run")
    if not failed:
        return f"{left} of {runs} not run yet"
    return f"{failed} of {runs} failed" + (f", {left} not run yet" if left else "")


def _scale(table: ResultTable) -> str:
    """That the scale is reduced, and the steps; empty at full scale."""
    if table.jobs[0].scale == "full":
        return ""
    steps = words.span(j.recipe.steps for j in table.jobs if j.cell.trains)
    return f"reduced scale ({steps} steps)" if steps else "reduced scale"


def _seeds(table: ResultTable) -> str:
    n = len(overall_score(table, table.reference).by_seed)
    return f"only {words.plural(n, 'seed')}" if 0 < n <= FEW_SEEDS else ""
