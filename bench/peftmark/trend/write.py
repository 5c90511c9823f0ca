"""Every cell over the runs of the gate: `peftmark trend` as a page, as facts and as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from peftmark.core.files import write_all
from peftmark.storage.gate_history import Accepted, Point
from peftmark.trend.changepoints import FEWEST_RUNS
from peftmark.trend.series import Series, Step, strands

NONE: Mapping[Path, str] = MappingProxyType({})


def write(
    points: Sequence[Point],
    accepted: Sequence[Accepted],
    suite: str,
    out_dir: Path,
    damaged: Mapping[Path, str] = NONE,
) -> list[Path]:
    """Write the page and return its paths, `index.html` first.

    Args:
        points: of one suite, in any order.
        accepted: baselines, in any order.
        suite: its name, for the title.
        out_dir: folder to write into, made if needed.
        damaged: files of the history that can't be read, with the reason; the page says so.

    Raises:
        StoreError: the folder can't be written; an older page stays as it was.
    """
    # Drawing needs matplotlib, which takes a second to import: not before it is needed.
    from peftmark.render.page_files import page_files
    from peftmark.trend import page

    shown = page.page(strands(points, accepted), suite, damaged)
    return write_all(page_files(shown, out_dir, "trend.md"))


def text(points: Sequence[Point], accepted: Sequence[Accepted]) -> str:
    """Lines for a terminal: one a step, worst news first, or that there is none."""
    from peftmark.trend import first, wording

    found_in = strands(points, accepted)
    found = first.ranked(s for strand in found_in for s in strand.series)
    if not found:
        return first.finding(found_in, found)
    return "\n".join(
        f"{wording.name(series, found_in)}: {wording.sentence(series, step)}"
        for series, step in found
    )


def facts(points: Sequence[Point], accepted: Sequence[Accepted]) -> dict[str, Any]:
    """The same as plain data for JSON: every series with its steps."""
    found_in = strands(points, accepted)
    return {
        "fewest_runs": FEWEST_RUNS,
        "runs": sum(len(strand.runs) for strand in found_in),
        "series": [_series(series) for strand in found_in for series in strand.series],
    }


def _series(series: Series) -> dict[str, Any]:
    return {
        **series.group._asdict(),
        "task": series.task,
        "cell": series.cell.stored,
        "measure": series.measure.key,
        "metric": series.metric if series.measure.key == "score" else None,
        "unit": series.measure.unit,
        "advisory": series.measure.advisory,
        "runs": len(series.points),
        "searched": series.searched,
        "steps": [_step(step) for step in series.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "at": step.after.at,
        "run": step.after.run,
        "commit_before": step.before.commit,
        "dirty_before": step.before.dirty,
        "commit": step.after.commit,
        "dirty": step.after.dirty,
        "versions": {
            name: {"before": old, "after": new} for name, (old, new) in step.changed.items()
        },
        "before": step.low,
        "after": step.high,
        "size": step.size,
        "worse": step.worse,
        "accepted_at": step.accepted.at if step.accepted else None,
    }
