"""A page a published run, and the list of suites with what was run of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from peftmark.render import draw, svg, words
from peftmark.render.page import Tile
from peftmark.report import summary, view
from peftmark.site import text
from peftmark.site.evidence import Run
from peftmark.site.text import Cell
from peftmark.suite.load import Suite


def address(run: Run) -> str:
    """The place of a run's page."""
    return f"evidence/{run.key}.md"


def report_of(run: Run) -> str:
    """The place of its whole report."""
    return f"reports/{run.profile}/{run.suite}/index.html"


def charts(run: Run) -> dict[str, str]:
    """Place -> the picture of score against memory, for a window and for a phone; empty where
    nothing finished."""
    found = view.first_screen(run.material).charts
    if not found:
        return {}
    wide, narrow = found[0].figure, found[0].phone
    drawn = draw.render_all([wide, narrow])
    return {
        f"evidence/{run.key}.svg": svg.standalone(drawn[wide.name]),
        f"evidence/{run.key}-phone.svg": svg.standalone(drawn[narrow.name]),
    }


def picture(run: Run, up: str) -> str:
    """The picture of score against memory, from a page that lies `up` from the first one."""
    found = view.first_screen(run.material).charts
    if not found:
        return "No run finished, so there is nothing to draw."
    figure = found[0].figure
    label = text.plain(figure.finding)
    return (
        f'<figure class="pm-chart"><picture>'
        f'<source media="(max-width: 600px)" srcset="{up}evidence/{run.key}-phone.svg">'
        f'<img src="{up}evidence/{run.key}.svg" alt="{label}"></picture>'
        f"<figcaption>{label} {text.plain(figure.note)}</figcaption></figure>"
    )


def run_page(run: Run) -> str:
    """What a run found, with links to its report and rows."""
    table, suite = run.material.table, run.plan.suite
    first = view.first_screen(run.material)
    tiles = "\n".join(_tile(tile) for tile in first.tiles)
    report = f"../{report_of(run)}"
    folder = report.removesuffix("index.html")
    return text.page(
        f"# {text.escape(run.name)}",
        text.escape(f"{suite.summary} This profile: {suite.profiles[run.profile].summary}"),
        f"**{text.escape(first.answer)}** {text.escape(first.caveat)}",
        f"Measured at: {text.escape(run.scale)}.",
        picture(run, "../"),
        f'<dl class="pm-tiles">{tiles}</dl>' if tiles else "",
        text.grid(summary.verdicts(table)),
        "## Rows and report",
        "\n".join(
            [
                f"- {text.link('The whole report', report)}: one page, readable offline.",
                f"- {text.link('Rows as Parquet', f'{folder}rows.parquet')}, "
                f"{text.link('as CSV', f'{folder}rows.csv')}: "
                f"{words.plural(len(table.records), 'row')}.",
                f"- The same from the repository: `{run.sources[0].as_posix()}`.",
                f"- To run it: `peftmark run {run.suite} --profile {run.profile}`.",
            ]
        ),
    )


def _tile(tile: Tile) -> str:
    signs = [f"{sign.mark} {sign.text}" for sign in tile.signs]
    note = "; ".join(filter(None, [tile.note, *signs]))
    return (
        f"<div><dt>{text.plain(tile.title)}</dt><dd>{text.plain(tile.value)}"
        f"<small>{text.plain(note)}</small></dd></div>"
    )


def suites_page(suites: Mapping[str, Suite], runs: Sequence[Run]) -> str:
    """Every suite with its profiles, and which of them have published rows."""
    rows = [
        [
            Cell(name),
            Cell(profile, suite.profiles[profile].summary),
            Cell(suite.profiles[profile].model),
            Cell(suite.profiles[profile].scale or "", sort=None),
            _published(name, profile, runs),
        ]
        for name, suite in suites.items()
        for profile in suite.profiles
    ]
    head = ("suite", "profile", "model", "scale", "published rows")
    questions = "\n".join(
        f"- **{text.escape(name)}**: {text.escape(suite.summary)}" for name, suite in suites.items()
    )
    return text.page(
        "# Suites and runs",
        f"{words.plural(len(runs), 'run')} of {words.plural(len(suites), 'suite')} "
        f"{'is' if len(runs) == 1 else 'are'} published with "
        "rows and report; `make bench SUITE=NAME PROFILE=PROFILE` makes any of the others.",
        "## What each suite asks",
        questions,
        "## Every profile",
        text.table(head, rows, "Every profile of every suite", filtered=True),
        hide=["toc"],
    )


def _published(suite: str, profile: str, runs: Sequence[Run]) -> Cell:
    mine = [run for run in runs if (run.suite, run.profile) == (suite, profile)]
    if not mine:
        return Cell("none", sort=0.0)
    count = sum(len(run.table.records) for run in mine)
    place = Path(address(mine[0])).name
    return Cell(words.plural(count, "row"), address=place, sort=float(count))
