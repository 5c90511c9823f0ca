"""Series, figures and steps in words."""

from __future__ import annotations

from collections.abc import Sequence

from peftmark.render import words
from peftmark.render.page import shorten
from peftmark.storage.gate_history import Point
from peftmark.trend.changepoints import FEWEST_RUNS
from peftmark.trend.series import MEASURES, Group, Key, Series, Step, Strand, better_side

COMMIT = 7
LONGEST_VERSION = 24
MOST_CHANGES = 2
"""Packages named in a sentence; tables have them all."""
_SHOWN = {measure.key: measure.shown for measure in MEASURES}


def day(at: str) -> str:
    """The date of a time in ISO 8601."""
    return at.partition("T")[0]


def commit(name: str | None, dirty: bool | None = None) -> str:
    """A short commit; "abc1234+" where the checkout had changes of its own."""
    return "no commit" if name is None else name[:COMMIT] + ("+" if dirty else "")


def measure_title(series: Series) -> str:
    """The name of what a series follows, such as "accuracy" or "peak memory"."""
    key = series.measure.key
    return words.metric_title(series.metric) if key == "score" else series.measure.title


def unit(key: Key) -> str:
    """The unit that `in_unit` gives; empty for plain numbers."""
    return _SHOWN[key]


def in_unit(key: Key, value: float) -> float:
    """A stored figure in the unit that is shown."""
    return value / words.SCALES.get(_SHOWN[key], 1.0)


def amount(key: Key, value: float) -> str:
    """A figure without its unit."""
    shown = in_unit(key, value)
    return words.number(shown) if key in ("score", "loss") else words.short(shown)


def from_to(series: Series, step: Step) -> str:
    """The two levels, such as "from 520 to 676 MiB"."""
    key = series.measure.key
    text = f"from {amount(key, step.low)} to {amount(key, step.high)}"
    return f"{text} {unit(key)}".rstrip()


def change(series: Series, step: Step) -> str:
    """The size: a difference of a score, else a percentage."""
    if series.measure.key == "score" or step.share is None:
        # Of the levels as they are shown, or the three would not add up.
        return words.number(round(step.high, 3) - round(step.low, 3), signed=True)
    return f"{words.number(100 * step.share, 1, signed=True)} %"


def worse(step: Step) -> str:
    """Which way it went, judged by the figure's direction."""
    if step.worse is None:
        return "better or worse, as the unknown metric has it"
    return "worse" if step.worse else "better"


def versions(step: Step, most: int | None = None) -> str:
    """What changed between the two runs, such as "peft 0.20.0 → 0.21.2"; empty if nothing did."""
    found = [version_change(name, old, new) for name, (old, new) in step.changed.items()]
    if most is not None and len(found) > most:
        found = [*found[:most], f"{len(found) - most} more"]
    return ", ".join(found)


def version_change(name: str, old: str | None, new: str | None) -> str:
    """One changed version; a hash of code in its place is cut short."""
    before, after = (shorten(text or "none", LONGEST_VERSION) for text in (old, new))
    return f"{name} {before} → {after}"


def cause(step: Step) -> str:
    """What stands beside a step: changed versions, or that nothing recorded changed."""
    if step.changed:
        return versions(step, MOST_CHANGES)
    before, after = step.before, step.after
    if before.commit == after.commit and not (before.dirty or after.dirty):
        return "same commit and versions as before"
    return f"no version changed since {commit(before.commit, before.dirty)}"


def at(point: Point) -> str:
    """Where a step was seen first: the commit, or the day where there is none."""
    if point.commit is None:
        return f"on {day(point.at)}"
    return f"at {commit(point.commit, point.dirty)}"


def sentence(series: Series, step: Step) -> str:
    """A step without the name of its cell."""
    advice = ", advisory" if series.measure.advisory else ""
    return (
        f"{measure_title(series)} {from_to(series, step)} {at(step.after)} ({cause(step)}): "
        f"{change(series, step)}, {worse(step)}{advice}"
    )


def name(series: Series, strands: Sequence[Strand]) -> str:
    """Cell and task, and what tells the runs apart where there are several kinds."""
    parts = [f"{words.title(series.cell)} on {series.task}"]
    return ", ".join([*parts, *kind(series.group, [s.group for s in strands])])


def kind(group: Group, among: Sequence[Group]) -> list[str]:
    """What sets a group's runs apart from those of the others, in words."""
    shown = (
        ("machine", group.machine),
        ("profile", f"profile {group.profile}"),
        ("suite_version", f"suite version {group.suite_version}"),
        ("protocol", f"procedure {group.protocol}"),
    )
    return [text for field, text in shown if len({getattr(g, field) for g in among}) > 1]


def too_short(series: Series) -> str:
    """Why a series was not searched."""
    return f"{len(series.points)} of {FEWEST_RUNS} runs that a search needs"


def direction(series: Series) -> str:
    """An arrow to the better side; one to both where nobody here knows the metric."""
    better = better_side(series.measure, series.metric)
    return {"lower": "↓", "higher": "↑"}.get(better or "", "↕")
