"""The first screen of a trend: what moved, after which commit, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from peftmark.render import words
from peftmark.render.chart_specs import History
from peftmark.render.page import CostChart, Figure, FirstScreen, Sign, Tile
from peftmark.trend import wording
from peftmark.trend.changepoints import FEWEST_RUNS
from peftmark.trend.panels import Panel, figure_of
from peftmark.trend.series import Series, Step, Strand

WIDE = 640
"""Pixels of the picture on a first screen."""
MOST_TOLD = 2
MOST_RUNS = 3
"""Steps of a run, and runs, that the first lines tell of."""

Found = tuple[Series, Step]


# --- in short -----------------------------------------------------------------------------------


def ranked(series: Iterable[Series]) -> list[Found]:
    """Every step: for the worse first, advisory ones last, scores before costs, then the latest."""
    order = ("score", "memory", "loss", "time")
    found = sorted(
        ((s, step) for s in series for step in s.steps),
        key=lambda f: (f[1].after.at, f[1].index),
        reverse=True,
    )
    return sorted(
        found,
        key=lambda f: (f[0].measure.advisory, not f[1].worse, order.index(f[0].measure.key)),
    )


def finding(strands: Sequence[Strand], found: Sequence[Found]) -> str:
    """What was found, in words."""
    series = [s for strand in strands for s in strand.series]
    runs = sum(len(strand.runs) for strand in strands)
    searched = [s for s in series if s.searched]
    if not runs:
        return "No run of the gate is stored for this suite yet."
    many = words.plural(runs, "run")
    if not searched:
        return (
            f"Too few runs to search for steps: {many} so far, and a series needs {FEWEST_RUNS} "
            "with a figure."
        )
    long = sum(len(strand.runs) for strand in strands if any(s.searched for s in strand.series))
    where = f"{words.plural(len(searched), 'series', 'series')} of {words.plural(long, 'run')}"
    short = len(series) - len(searched)
    rest = f" {words.plural(short, 'series is', 'series are')} too short to tell." if short else ""
    if not found:
        return f"No step found in {where}.{rest}"
    worse = sum(step.worse is True for _, step in found)
    count = f"{words.plural(len(found), 'step')} found in {where}, {worse or 'none'} for the worse."
    return f"{count}{rest}"


def runs_of(found: Sequence[Found]) -> list[list[Found]]:
    """What stepped at each run, the run of the worst step first."""
    by_run: dict[tuple[str, str], list[Found]] = {}
    for series, step in found:
        by_run.setdefault((step.after.at, step.after.run), []).append((series, step))
    return list(by_run.values())


def at_run(found: Sequence[Found], strands: Sequence[Strand]) -> str:
    """What stepped at one run, which probably has one cause."""
    first = found[0][1]
    told = [
        f"{wording.measure_title(series)} of {wording.name(series, strands)} "
        f"{wording.from_to(series, step)}"
        for series, step in found[:MOST_TOLD]
    ]
    more = len(found) - MOST_TOLD
    listed = words.listing([*told, f"{more} more"] if more > 0 else told)
    where = wording.at(first.after)
    return f"{where[0].upper()}{where[1:]} ({wording.cause(first)}): {listed}."


# --- the first screen -----------------------------------------------------------------------------


def first_screen(
    strands: Sequence[Strand],
    found: Sequence[Found],
    panels: Sequence[Panel],
    damaged: Mapping[Path, str],
) -> FirstScreen:
    """What moved first; where nothing did, how much was looked at."""
    runs = [run for strand in strands for run in strand.runs]
    days = sorted(wording.day(run.at) for run in runs)
    scope = words.plural(len(runs), "run") + " of the gate"
    if days:
        scope += f", {' to '.join(dict.fromkeys((days[0], days[-1])))}"
        scope += f", {words.listing(sorted({s.group.machine for s in strands}))}"
    return FirstScreen(
        scope=scope,
        answer=_answer(strands, found),
        caveat=_caveat(strands, found),
        charts=_chart(strands, found, panels),
        tiles=(_moved(strands, found), _commit(found), _short(strands), *_trust(strands, damaged)),
        reasons=tuple(at_run(group, strands) for group in runs_of(found)[:MOST_RUNS]),
    )


def _answer(strands: Sequence[Strand], found: Sequence[Found]) -> str:
    """The worst step in a sentence; without one what `finding` says."""
    if not found:
        return finding(strands, found)
    series, step = found[0]
    what = f"{wording.measure_title(series)} of {wording.name(series, strands)}"
    side = wording.worse(step) if step.worse is None else f"the {wording.worse(step)}"
    return (
        f"{what[0].upper()}{what[1:]} went {wording.from_to(series, step)} "
        f"{wording.at(step.after)}, for {side}."
    )


def _caveat(strands: Sequence[Strand], found: Sequence[Found]) -> str:
    if found and found[0][0].measure.advisory:
        return "Times depend on what else the machine does: a step in them is advice to look."
    if found:
        return (
            "The cause lies between that run and the one before it. Every series is judged by "
            "itself, so one of many may step by chance."
        )
    if any(s.searched for strand in strands for s in strand.series):
        return "A step shows in the third run after it; a slow drift is not looked for."
    return "Until then nothing can be said."


def _chart(
    strands: Sequence[Strand], found: Sequence[Found], panels: Sequence[Panel]
) -> tuple[CostChart, ...]:
    """The series that stepped worst, or the first there is."""
    if not panels:
        return ()
    series = found[0][0] if found else panels[0].series[0]
    panel = next(p for p in panels if series in p.series)
    full = figure_of(replace(panel, series=(series,)), strands)
    wide = replace(full.drawing, width=WIDE) if isinstance(full.drawing, History) else full.drawing
    figure = Figure("first", f"{full.title}: {full.finding}", wide)
    phone = Figure("first-phone", figure.finding, full.drawing)
    return (CostChart("steps", figure, phone),)


def _moved(strands: Sequence[Strand], found: Sequence[Found]) -> Tile:
    title = "What moved"
    if not any(s.searched for strand in strands for s in strand.series):
        return Tile(title, "can't be told yet")
    if not found:
        return Tile(title, "nothing", "no level is shown to have changed")
    worse = sum(step.worse is True for _, step in found)
    named = dict.fromkeys(wording.measure_title(series) for series, _ in found)
    note = f"in {words.listing(list(named))}"
    return Tile(title, f"{words.plural(len(found), 'step')}, {worse or 'none'} for the worse", note)


def _commit(found: Sequence[Found]) -> Tile:
    title = "After which commit"
    if not found:
        return Tile(title, "none")
    step = found[0][1]
    where = wording.at(step.after)
    return Tile(title, where.partition(" ")[2], wording.cause(step))


def _short(strands: Sequence[Strand]) -> Tile:
    title = "What can't be told yet"
    every = [s for strand in strands for s in strand.series]
    short = sum(not s.searched for s in every)
    if not short:
        return Tile(title, "nothing" if every else words.MISSING)
    told = f"{short} of {words.plural(len(every), 'series', 'series')}"
    return Tile(title, told, f"too short: fewer than {FEWEST_RUNS} runs with a figure")


def _trust(strands: Sequence[Strand], damaged: Mapping[Path, str]) -> tuple[Tile, ...]:
    """One mark each for the files, the checkouts and the latest gate."""
    runs = sorted((run for s in strands for run in s.runs), key=lambda run: (run.at, run.run))
    if not runs:
        return ()
    dirty, last = sum(bool(run.dirty) for run in runs), runs[-1].code
    signs = (
        Sign("bad", f"{words.plural(len(damaged), 'file')} can't be read", "runs")
        if damaged
        else Sign("good", "every file of the history is whole", "runs"),
        Sign("care", f"{words.plural(dirty, 'run')} with uncommitted changes", "runs")
        if dirty
        else Sign("good", "no run with uncommitted changes", "runs"),
        Sign("care", f"the latest gate ended with {last}", "runs")
        if last
        else Sign("good", "the latest gate passed", "runs"),
    )
    states = {sign.state for sign in signs}
    value = "in part" if "bad" in states else "with care" if "care" in states else "yes"
    return (Tile("Can it be trusted", value, signs=signs),)
