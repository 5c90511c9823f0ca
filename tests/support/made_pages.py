"""Every kind of page that isn't a report, of made-up rows, for eyes and for the check in a browser.

python tests/support/made_pages.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from factory import LORA, QLORA, make_environment, make_matrix
from gate_history import QLORA as OTHER
from gate_history import make_accepted, make_runs
from gated import CELLS, EIGHT, by_new_code, make_side, noisy, with_counts
from peftmark.compare.held import hold
from peftmark.compare.page import page as compare_page
from peftmark.compare.runs import Run
from peftmark.gate.judge import judge
from peftmark.gate.page import page as gate_page
from peftmark.gate.policy import Policy
from peftmark.gate.snapshot import Snapshot
from peftmark.render import html
from peftmark.render.live import render as render_live
from peftmark.render.page import Page
from peftmark.render.page_files import as_html
from peftmark.render.said_once import said_once
from peftmark.report.live import Going, live_page
from peftmark.trend.page import page as trend_page
from peftmark.trend.series import strands


def dropped(tasks: tuple[str, ...] = ("sst2", "stsb", "cola")) -> tuple[Snapshot, Snapshot]:
    """Two sides, of which the second lost 0.04 with LoRA, has more parameters and lacks a run
    of QLoRA."""
    first, second = noisy(np.random.default_rng(2), 0.006, drop=lambda c, *_: 0.04 * (c == LORA))

    def worse(line):
        made = with_counts(second(line), trainable_parameters=250_000)
        made = replace(made, step_seconds=0.12 + 0.01 * line.seed)
        if line.cell == QLORA and line.seed == 4:
            return replace(made, status="out_of_memory", status_reason="asked for 2 GiB")
        return made

    return make_side(tasks=tasks, change=first), make_side(tasks=tasks, change=worse)


def far(line):
    """The line as another machine would have made it."""
    machine = {"cpu": "AMD EPYC 9999", "cpu_model": "9", "gpus": []}
    made = by_new_code(line, value=line.value - 0.01 * (line.seed % 2))
    return replace(made, environment=make_environment(machine=machine))


def gates() -> Iterator[tuple[str, Page]]:
    """One that fails, one that passes."""
    before, after = dropped()
    yield "gate-failed", gate_page(judge(after, before, Policy()), CELLS)
    side = make_side()
    yield "gate-passed", gate_page(judge(side, side, Policy()), CELLS)


def compared() -> Iterator[tuple[str, Page]]:
    """Three runs, two of the same bits, and two that can't be compared."""
    before, after = dropped()
    runs = (Run("before", before), Run("after", after), Run("far", make_side(change=far)))
    yield "compare-three", said_once(compare_page(hold(runs)))
    side = make_side(tasks=EIGHT)
    yield "compare-same", said_once(compare_page(hold((Run("a", side), Run("b", side)))))
    other = make_side(change=lambda x: replace(x, config={"recipe.steps": 60}))
    runs = (Run("a", make_side()), Run("b", other))
    yield "compare-nothing", said_once(compare_page(hold(runs)))


def trends() -> Iterator[tuple[str, Page]]:
    """A history with steps, one too short to search."""
    drop = make_runs(step_at=13, shift=-0.03)
    grow = make_runs(seed=2, cell=OTHER, step_at=13, memory=1.3)
    calm = make_runs(seed=3, task="rte")
    accepted = [make_accepted(2), make_accepted(15, pinned=True)]
    yield "trend-stepped", trend_page(strands([*drop, *grow, *calm], accepted), "ci", {})
    yield "trend-short", trend_page(strands(make_runs(n=3), []), "ci", {})


def live() -> str:
    """A run in the middle."""
    records = make_matrix([LORA, QLORA], tasks=["sst2"], seeds=range(3))
    planned = [r.job for r in records]
    done = {r.job.job_id: r for r in records[:3]}
    going = {planned[3].job_id: Going(planned[3], 40, [(20, 0.6), (40, 0.7)])}
    return render_live(live_page("demo", planned, done, going, LORA, "3 of 6 jobs have ended."))


def undrawn(page: Page) -> str:
    """The HTML of a page without its pictures, which take long to draw."""
    figures = (*page.figures(), *page.phone_figures())
    return html.render(page, {figure.name: "" for figure in figures})


def pages() -> Iterator[tuple[str, str]]:
    """Name and HTML of each."""
    for name, page in (*gates(), *compared(), *trends()):
        yield name, as_html(page)
    yield "live", live()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
