"""The page of `peftmark compare`: what differs between the runs first, then by task and cost."""

from __future__ import annotations

from dataclasses import replace

from peftmark.analysis.stats import Estimate
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.compare import answer, origins
from peftmark.compare.held import Compared, Place, ratio, ratios
from peftmark.compare.tiles import called, tiles
from peftmark.render import words
from peftmark.render.changes import MOST, Change, ChangeChart
from peftmark.render.chart_specs import Lanes, Mark, TaskLane
from peftmark.render.page import (
    Column,
    CostChart,
    Entry,
    Fact,
    Figure,
    FirstScreen,
    Grid,
    Page,
    Paragraph,
    Section,
    marks,
    shorten,
)

LONGEST_AXIS = 20
MOST_LANES = 5
"""Tasks side by side in a picture."""
RATIOS = {
    "memory": "peak memory, × that of {first}",
    "time": "time of a training step, × that of {first}",
}
SAID = ("quality.overall", "quality.task", "quality.non-inferior", "time.step", "bits.declared")
"""What the gate finds and this page says in its own words."""


def page(of: Compared) -> Page:
    """The whole page."""
    side = of.runs[0].side
    return Page(
        title=f"{side.suite}, profile {side.profile}: runs compared",
        facts=(
            ("suite", side.suite),
            ("profile", side.profile),
            ("model", words.listing(list(dict.fromkeys(r.side.model for r in of.runs)))),
            ("runs", words.listing([run.label for run in of.runs])),
            ("score", of.scale.text),
        ),
        finding=answer.sentence(of),
        alarms=(),
        warning="",
        notes=(),
        opening=(),
        sections=(_differences(of), _costs(of), origins.section(of), _found(of), _reading(of)),
        first=_first(of),
    )


def places(of: Compared) -> list[tuple[int, Cell]]:
    """Every cell of every run but the first, in the order of the cells."""
    return [(number, cell) for cell in of.cells for number in of.others]


# --- the first screen -----------------------------------------------------------------------------


def _first(of: Compared) -> FirstScreen:
    seeds = len({line.seed for run in of.runs for line in run.side.lines})
    sizes = (
        words.plural(len(of.runs), "run"),
        words.plural(len(of.cells), "method"),
        words.plural(len(of.tasks), "task"),
        words.plural(seeds, "seed"),
    )
    return FirstScreen(
        scope=" × ".join(sizes),
        answer=answer.sentence(of),
        caveat=answer.caveat(of),
        charts=_charts(of),
        tiles=tiles(of),
        table=_overall(of),
        legend="Change in",
    )


def _charts(of: Compared) -> tuple[CostChart, ...]:
    first, look = of.runs[0].label, marks(of.cells)
    each = "Dots: single seeds. Whiskers: 95 % intervals over seeds, not adjusted."
    axis = f"score less that of {shorten(first, LONGEST_AXIS)}"
    score = ChangeChart("score", _score_finding(of), axis, 0.0, each)
    scores = [_score_change(of, n, c, look) for n, c in places(of)]
    found = [score.of(scores)] if any(change.estimate for change in scores) else []
    for key, text in RATIOS.items():
        changes = [_cost_change(of, n, c, look, key) for n, c in places(of)]
        if any(change.estimate for change in changes):
            chart = ChangeChart(
                key,
                _cost_finding(of, key),
                text.format(first=shorten(first, LONGEST_AXIS)),
                1.0,
                "Dots: single runs; the mark is their geometric mean.",
            )
            found.append(chart.of(changes))
    return tuple(found)


def _mark(of: Compared, number: int, cell: Cell, look: dict[Cell, Mark]) -> Mark:
    """A cell's look; its name says the run where there are several to tell apart."""
    known = look[cell]
    if len(of.runs) < 3:
        return known
    return Mark(f"{known.label}, {of.runs[number].label}", known.series, known.variant)


def _score_change(of: Compared, number: int, cell: Cell, look: dict[Cell, Mark]) -> Change:
    place, mark = (number, cell, ""), _mark(of, number, cell, look)
    if of.identical(place):
        return Change(mark, (), Estimate(0.0, None, len(of.pairs(*place))))
    found = of.found.get(place)
    if found is None:
        return Change(mark, missing="not compared")
    told = found.verdict in ("lower", "higher")
    return Change(mark, found.score.values, found.comparison.estimate, told=told)


def _cost_change(of: Compared, number: int, cell: Cell, look: dict[Cell, Mark], key: str) -> Change:
    mark, pairs = _mark(of, number, cell, look), of.matched[number].of(cell)
    values, why = ratios(pairs, key)
    middle = ratio(pairs, key)
    if middle is None:
        return Change(mark, missing=why)
    return Change(mark, tuple(values), Estimate(middle, None, len(values)))


def _score_finding(of: Compared) -> str:
    counts = [of.verdict((n, c, "")) for n, c in places(of)]
    named = [f"{counts.count(v)} {v}" for v in dict.fromkeys(counts) if v]
    return f"Scores against {of.runs[0].label}: {words.listing(named) or 'nothing to compare'}."


def _cost_finding(of: Compared, key: str) -> str:
    known = [v for n, c in places(of) if (v := ratio(of.matched[n].of(c), key)) is not None]
    ends = dict.fromkeys((words.times(min(known)), words.times(max(known))))
    what = "Peak memory" if key == "memory" else "A training step"
    return f"{what}: {' to '.join(ends)} of {of.runs[0].label}'s."


# --- tables ---------------------------------------------------------------------------------------


def _difference_fact(of: Compared, place: Place) -> Fact:
    number, cell, task = place
    found = of.found.get(place)
    value = 0.0 if found is None else found.comparison.estimate.mean
    name = words.title(cell)
    return Fact(
        "difference",
        f"{name} in {of.runs[number].label}",
        value,
        f"{name} in {of.runs[0].label}",
        task,
        of.verdict(place),
    )


def _score(of: Compared, number: int, cell: Cell) -> Entry:
    """A run's own score."""
    score = of.score(number, cell)
    if score.estimate is None:
        return words.missing("no score on every task")
    count = f"n = {score.estimate.n}" + ("" if score.complete else f"/{score.planned} incomplete")
    text = words.plus_minus(score.estimate, of.scale.metric)
    mean = score.estimate.mean
    fact = Fact("score", f"{words.title(cell)} in {of.runs[number].label}", mean)
    return Entry(text, count, "number", mean, fact)


def _change(of: Compared, place: Place, metric: str) -> tuple[Entry, Entry]:
    """A difference and its verdict."""
    if of.identical(place):
        fact = _difference_fact(of, place)
        return Entry("0", "the same bits", "number", 0.0, fact), Entry("identical", fact=fact)
    found = of.found.get(place)
    if found is None:
        lone = words.missing("not compared")
        return lone, lone
    fact, estimate = _difference_fact(of, place), found.comparison.estimate
    text = words.plus_minus(estimate, metric, signed=True)
    p = "" if found.adjusted is None else f"p = {words.p_value(found.adjusted)}"
    side = {True: "better", False: "worse", None: ""}[found.better] if found.sign < 0 else ""
    note = "; ".join(filter(None, (side, p.replace("= <", "<"))))
    count = f"n = {estimate.n}"
    return Entry(text, count, "number", estimate.mean, fact), Entry(found.verdict, note, fact=fact)


def _cost(of: Compared, number: int, cell: Cell, key: str) -> Entry:
    """A ratio to the first run."""
    pairs = of.matched[number].of(cell)
    found = ratio(pairs, key)
    if found is None:
        return words.missing(ratios(pairs, key)[1])
    fact = Fact(f"{key}, ratio", f"{words.title(cell)} in {of.runs[number].label}", found)
    return Entry(words.times(found), "", "number", found, fact)


def _overall(of: Compared) -> Grid:
    """Every cell of every run against the first, over all tasks."""
    first = of.runs[0].label
    columns = (
        Column("method"),
        Column(f"score of {first}", of.scale.text, numeric=True),
        Column("score of the other", numeric=True),
        Column("difference", f"other less {first}, 95 % interval", numeric=True),
        Column("what is shown"),
        Column("peak memory", "lower is better", numeric=True),
        Column("step time", "lower is better", numeric=True),
    )
    rows = tuple(
        (
            Entry(called(of, n, cell)),
            _score(of, 0, cell),
            _score(of, n, cell),
            *_change(of, (n, cell, ""), of.scale.metric),
            _cost(of, n, cell, "memory"),
            _cost(of, n, cell, "time"),
        )
        for n, cell in places(of)
    )
    return Grid("Every method over all tasks", columns, rows)


def _differences(of: Compared) -> Section:
    """Single tasks."""
    count = words.plural(_judged_by_task(of), "comparison")
    lead = (
        "A difference is shown where it stands out from seeds, each paired with itself, at 5 % "
        f"over all {count} of methods on tasks (Holm). Undecided means that "
        "these seeds can't tell, not that nothing changed."
    )
    if not _judged_by_task(of):
        lead = (
            "No pair of runs is left to test: they are the same to the last bit, or not compared."
        )
    columns = (
        Column("method"),
        *(Column(task, _task_hint(metric), numeric=True) for task, metric in of.tasks.items()),
    )
    rows = tuple(
        (Entry(called(of, n, cell)), *(_on_task(of, (n, cell, task)) for task in of.tasks))
        for n, cell in places(of)
    )
    caption = f"Score less that of {of.runs[0].label}, by task"
    grid = Grid(caption, columns, rows, filter=True)
    picture = (_lanes(of),) if any(of.found.values()) else ()
    return Section("differences", "Where do they differ?", lead, (grid,), picture, "card")


def _lanes(of: Compared) -> Figure:
    """Every method on every task, side by side."""
    look, shown = marks(of.cells), places(of)[:MOST]
    tasks = list(of.tasks)[:MOST_LANES]
    lanes = tuple(
        TaskLane(
            task,
            f"{_task_hint(of.tasks[task])}: difference",
            tuple(
                Estimate(0.0, None, 1)
                if of.identical((n, cell, task))
                else found.comparison.estimate
                if (found := of.found.get((n, cell, task)))
                else None
                for n, cell in shown
            ),
            0.0,
        )
        for task in tasks
    )
    verdicts = [of.verdict(place) for place in of.found if place[2]]
    told = [f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)]
    note = "Marker and line: mean difference and interval over seeds. Dashes: no change."
    if len(tasks) < len(of.tasks) or len(shown) < len(places(of)):
        note += " The table has all tasks and methods."
    drawing = Lanes(tuple(_mark(of, n, cell, look) for n, cell in shown), lanes)
    phone = replace(drawing, narrow=True)
    finding = f"On single tasks: {words.listing(told)}."
    return Figure("differences-by-task", finding, drawing, note, wide=True, phone=phone)


def _judged_by_task(of: Compared) -> int:
    """How many differences on single tasks are judged together."""
    return sum(bool(task) for *_, task in of.found)


def _task_hint(metric: str) -> str:
    way = f", {words.direction(metric)}" if sign_of(metric) < 0 else ""
    return f"{words.metric_title(metric)}{way}"


def _on_task(of: Compared, place: Place) -> Entry:
    """A difference on one task with its verdict in the small line."""
    shown, verdict = _change(of, place, of.tasks[place[2]])
    if shown.kind == "missing":
        return shown
    notes = (verdict.text, verdict.note) if of.found.get(place) else (shown.note,)
    return Entry(shown.text, "; ".join(filter(None, notes)), "number", shown.sort, shown.fact)


def _costs(of: Compared) -> Section:
    first = of.runs[0].label
    told = [_cost_finding(of, chart.label) for chart in _charts(of) if chart.label in RATIOS]
    lead = " ".join(told) or f"No cost can be compared with {first}'s."
    if len(told) > 1:
        lead += " Times of runs that were not made in turns are a hint."
    columns = (
        Column("method"),
        Column("peak memory", f"× {first}, lower is better", numeric=True),
        Column("step time", f"× {first}, lower is better", numeric=True),
        Column("trained parameters", f"× {first}", numeric=True),
    )
    rows = tuple(
        (
            Entry(called(of, n, cell)),
            *(_cost(of, n, cell, key) for key in ("memory", "time", "parameters")),
        )
        for n, cell in places(of)
    )
    note = (
        "Geometric means over the pairs of runs. Memory is what rows are headed by: live tensor "
        "bytes on a CPU, torch's peak on a GPU."
    )
    grid = Grid("Costs against the first run", columns, rows, note=note)
    return Section("costs", "What do they cost?", lead, (grid,), depth="card")


def _found(of: Compared) -> Section:
    """What the gate's checks find beside scores and times."""
    told = [
        (n, finding)
        for n in of.others
        if (gate := of.gates[n]) is not None
        for finding in gate.findings
        if finding.check not in SAID
    ]
    if not told:
        lead = "Counts, saved files, speed of learning and missing runs: nothing stands out."
        return Section("found", "What else changed?", lead, (Paragraph(lead),), depth="card")
    number, first = told[0]
    lead = (
        f"{words.plural(len(told), 'thing')} beside scores and times, as the gate looks at them. "
        f"First, of {of.runs[number].label}, {first.cell or 'all methods'}: "
        f"{answer.worded(of, number, first)}."
    )
    rows = tuple(
        (
            Entry(of.runs[n].label),
            Entry(f.cell or "all methods"),
            Entry(answer.worded(of, n, f)),
            Entry(f.check, kind="code"),
        )
        for n, f in told
    )
    columns = tuple(Column(title) for title in ("run", "method", "what was found", "check"))
    grid = Grid(f"Found against {of.runs[0].label}", columns, rows, filter=True)
    return Section("found", "What else changed?", lead, (grid,), depth="card")


def _reading(of: Compared) -> Section:
    lead = f"Every run is compared with {of.runs[0].label}, the first that was named."
    texts = (
        "Two runs are compared if both ended well and everything that was asked for is the same: "
        "model, rows, every setting of the recipe. They are paired by method, task and seed.",
        "Verdicts are those of a report: higher or lower where the paired t test over seeds shows "
        "it at 5 % after Holm's adjustment over all methods of all runs; equivalent where the "
        "difference is shown to lie within 0.01; undecided where neither is; no interval where "
        "seeds have no spread. Identical are scores, losses and weights that are the same to the "
        "last bit.",
        "Scores of runs on different machines may be compared: other kernels add noise of their "
        "own, which seeds cover only in part. Times are compared on one kind of machine alone, "
        "memory on one kind of device.",
    )
    blocks = tuple(Paragraph(text) for text in texts)
    return Section("reading", "How to read this", lead, blocks, depth="appendix")
