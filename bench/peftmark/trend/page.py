"""The page of `peftmark trend`: what stepped, at which commit, and every cell over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from peftmark.record.fields import side
from peftmark.render import words
from peftmark.render.page import Block, Column, Entry, Fact, Grid, Page, Paragraph, Section
from peftmark.storage.gate_history import Accepted
from peftmark.trend import wording
from peftmark.trend.changepoints import SHORTEST
from peftmark.trend.first import MOST_RUNS, Found, finding, first_screen, ranked, runs_of
from peftmark.trend.panels import Panel, all_panels, figures
from peftmark.trend.series import MEASURES, Measure, Run, Series, Step, Strand


def page(strands: Sequence[Strand], suite: str, damaged: Mapping[Path, str]) -> Page:
    """The whole page."""
    series = [s for strand in strands for s in strand.series]
    found = ranked(series)
    panels = all_panels(strands)
    worst_first = [next(p for p in panels if series in p.series) for series, _ in found]
    stepped = [p for i, p in enumerate(worst_first) if p not in worst_first[:i]]
    steady = [p for p in panels if p not in stepped]
    sections = [
        _steps(found, stepped, strands),
        _steady(steady, strands),
        _runs(strands),
        _reading(),
    ]
    return Page(
        title=f"{suite}: trend",
        facts=_facts(strands),
        finding=finding(strands, found),
        alarms=(),
        warning="",
        notes=tuple(f"{path.name} can't be read: {why}" for path, why in sorted(damaged.items())),
        opening=(),
        sections=tuple(s for s in sections if s is not None),
        links=(("this page as Markdown", "trend.md"),),
        first=first_screen(strands, found, panels, damaged),
    )


def _facts(strands: Sequence[Strand]) -> tuple[tuple[str, str], ...]:
    runs = sorted(run.at for strand in strands for run in strand.runs)
    if not runs:
        return (("gate runs", "0"),)
    first, last = wording.day(runs[0]), wording.day(runs[-1])
    groups = [strand.group for strand in strands]
    facts = [
        ("gate runs", f"{len(runs):,}"),
        ("from", first if first == last else f"{first} to {last}"),
        ("machines", ", ".join(sorted({g.machine for g in groups}))),
        ("profiles", ", ".join(sorted({g.profile for g in groups}))),
        ("suite version", ", ".join(str(v) for v in sorted({g.suite_version for g in groups}))),
    ]
    return tuple(facts)


# --- steps --------------------------------------------------------------------------------------


def _steps(
    found: Sequence[Found], panels: Sequence[Panel], strands: Sequence[Strand]
) -> Section | None:
    if not found:
        return None
    more = len(runs_of(found)) - MOST_RUNS
    also = f" Steps at {words.plural(more, 'more run')} are in the table." if more > 0 else ""
    lead = (
        f"{finding(strands, found)}{also} What stepped at the same run probably has one cause; the "
        "commit and the versions are those of the first run after the step, and the cause lies "
        "between it and the run before."
    )
    grid = Grid(
        "Every step, the worst first",
        (
            Column("cell and task"),
            Column("level before and after"),
            Column("first run after it"),
            Column("changed since the run before"),
            Column("accepted since"),
        ),
        tuple(_step_row(series, step, strands) for series, step in found),
        filter=True,
    )
    drawn, *rest = figures(panels, strands)
    return Section("steps", "What moved, and when?", lead, (grid, drawn, *rest), depth="card")


def _step_row(series: Series, step: Step, strands: Sequence[Strand]) -> tuple[Entry, ...]:
    advice = ", advisory" if series.measure.advisory else ""
    change = f"{wording.change(series, step)}, {wording.worse(step)}"
    changed = wording.versions(step) or "no version"
    before, after = step.before, step.after
    if before.commit != after.commit:
        changed += f"; commit {wording.commit(before.commit, before.dirty)} → "
        changed += wording.commit(after.commit, after.dirty)
    accepted = step.accepted
    return (
        Entry(wording.name(series, strands), f"{wording.measure_title(series)}{advice}"),
        Entry(
            wording.from_to(series, step),
            change,
            sort=step.share or step.size,
            fact=_fact(series, step),
        ),
        Entry(wording.commit(after.commit, after.dirty), wording.day(after.at), sort=step.index),
        Entry(changed),
        Entry(wording.day(accepted.at), accepted.reason) if accepted else Entry("no"),
    )


def _fact(series: Series, step: Step) -> Fact:
    """What is claimed of a step."""
    what = f"{series.measure.key} stepped at {step.after.at}"
    cell = f"{words.title(series.cell)}, {' '.join(map(str, series.group))}"
    return Fact(what, cell, step.size, task=series.task, verdict=wording.worse(step))


def _steady(panels: Sequence[Panel], strands: Sequence[Strand]) -> Section | None:
    everything = [s for strand in strands for s in strand.series]
    if not everything:
        return None
    short = sum(not s.searched for s in everything)
    lead = f"{words.plural(len(panels), 'cell and task', 'cells and tasks')} without a step"
    lead += f"; {short} series are too short for a search." if short else "."
    blocks = (*figures(panels, strands), _all(strands))
    title = "What stayed where it was?" if panels and short < len(everything) else "All series"
    return Section("steady", title, lead, blocks, depth="card")


def _all(strands: Sequence[Strand]) -> Grid:
    """The latest figure of every series: the pictures' numbers as text."""
    rows = []
    for panel in all_panels(strands):
        by_key = {s.measure.key: s for s in panel.series}
        latest = [_latest(by_key.get(measure.key)) for measure in MEASURES]
        rows.append((Entry(wording.name(panel.series[0], strands)), *latest))
    columns = (
        Column("cell and task"),
        *(Column(measure.title, _hint(measure), numeric=True) for measure in MEASURES),
    )
    return Grid("Latest figures of every series", columns, tuple(rows), folded=True)


def _hint(measure: Measure) -> str:
    """Unit and direction; a score has those of its metric."""
    if measure.key == "score":
        return "mean ± half-width over seeds"
    hint = ", ".join(filter(None, (measure.shown, side(measure.column))))
    return f"{hint}; advisory" if measure.advisory else hint


def _latest(series: Series | None) -> Entry:
    if series is None:
        return words.missing("no run has it")
    _, _, found = series.points[-1]
    key = series.measure.key
    score = words.plus_minus(found, series.metric)
    text = score if key == "score" else wording.amount(key, found.mean)
    note = words.plural(len(series.steps), "step") if series.searched else wording.too_short(series)
    cell = f"{words.title(series.cell)}, {' '.join(map(str, series.group))}"
    return Entry(
        text, note, "number", found.mean, Fact(f"{key}, latest", cell, found.mean, task=series.task)
    )


# --- runs, and how to read the page -------------------------------------------------------------


def _runs(strands: Sequence[Strand]) -> Section | None:
    runs = [(strand, run) for strand in strands for run in strand.runs]
    if not runs:
        return None
    blocks: list[Block] = [_run_grid(strand, strands) for strand in strands]
    accepted = [a for strand in strands for a in strand.accepted]
    unique = sorted(set(accepted), key=lambda a: (a.at, a.machine), reverse=True)
    if unique:
        blocks.append(_accepted_grid(unique))
    lead = (
        f"{words.plural(len(runs), 'run')}, the latest first; "
        f"{words.plural(len(unique), 'accepted baseline')}."
    )
    return Section("runs", "Runs of the gate", lead, tuple(blocks), depth="appendix")


def _run_grid(strand: Strand, strands: Sequence[Strand]) -> Grid:
    kind = wording.kind(strand.group, [s.group for s in strands])
    before: list[Run | None] = [None, *strand.runs[:-1]]
    rows = [_run_row(run, old) for run, old in zip(strand.runs, before, strict=True)]
    columns = (
        Column("finished"),
        Column("commit", "+ with changes of its own"),
        Column("changed since the run before"),
        Column("the gate's words"),
        Column("exit code", numeric=True),
    )
    return Grid(", ".join(["Runs of the gate", *kind]), columns, tuple(reversed(rows)), folded=True)


def _run_row(run: Run, before: Run | None) -> tuple[Entry, ...]:
    if before is None:
        changed = "first run"
    else:
        names = sorted(before.versions.keys() | run.versions.keys())
        pairs = [(n, before.versions.get(n), run.versions.get(n)) for n in names]
        moved = [wording.version_change(n, old, new) for n, old, new in pairs if old != new]
        changed = ", ".join(moved) or "no version"
    verdicts = ", ".join(f"{word} {n}" for word, n in sorted(run.verdicts.items()))
    return (
        Entry(run.at, run.run),
        Entry(wording.commit(run.commit, run.dirty)),
        Entry(changed),
        Entry(verdicts),
        Entry(str(run.code), kind="number", sort=float(run.code)),
    )


def _accepted_grid(accepted: Sequence[Accepted]) -> Grid:
    rows = tuple(
        (
            Entry(a.at),
            Entry(wording.commit(a.commit)),
            Entry(a.machine),
            Entry("pinned" if a.pinned else "latest"),
            Entry(a.reason or "no reason given"),
        )
        for a in accepted
    )
    columns = tuple(Column(title) for title in ("accepted", "commit", "machine", "kind", "reason"))
    return Grid("Accepted baselines", columns, rows, folded=True)


def _reading() -> Section:
    lead = (
        "A step is a change of level that at least "
        f"{SHORTEST} runs on each side agree on; drifts are not looked for."
    )
    texts = (
        "In the pictures a point is one run of the gate, with the 95 % interval of the score over "
        "seeds. A line through the points is the mean level of a stretch, an upright line a step. "
        "A dotted line is an accepted baseline, a triangle or (pinned) a square its head. A ring "
        "is a score that the gate called worse, a cross a run without a figure.",
        "Steps are found by a least-squares fit with a penalty for each step, and must pass a t "
        "test over runs at 1 %, divided by the number of places they could be at. Those of a score "
        "must show over seeds, too, each paired with itself, at 1 %: another version of a library "
        "draws all seeds again at once, and so moves the mean without being worse. A training loss "
        "must move by 5 %, memory by 1 %, time by 10 %. Every series is judged by itself.",
        "Time depends on what else the machine does, and machines of one class differ: a step in "
        "time is advice to look, no finding. Runs are compared only within one machine class, "
        "profile, version of the suite and of the procedure.",
    )
    blocks = tuple(Paragraph(text) for text in texts)
    return Section("reading", "How to read this", lead, blocks, depth="appendix")
