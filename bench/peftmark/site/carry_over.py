"""Does it carry over? The same comparisons and claims, held beside one another across models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peftmark.analysis.comparison import Difference, against_reference
from peftmark.catalog.methods import Cell as Trained
from peftmark.catalog.models import MODELS
from peftmark.claims.standing import Line
from peftmark.render import words
from peftmark.site import text
from peftmark.site.answers import difference_text, together
from peftmark.site.evidence import Run
from peftmark.site.text import Cell
from peftmark.suite.load import Suite

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Column:
    """A model that is asked about, and what was run on it.

    Attributes:
        key: the model, as suites name it.
        runs: every published run of it, those of most weight first.
        planned: suites and profiles that train it and have no published rows.
    """

    key: str
    title: str
    runs: tuple[Run, ...]
    planned: tuple[tuple[str, str], ...]


def columns(runs: Sequence[Run], suites: Mapping[str, Suite]) -> list[Column]:
    """The models with published rows, and those that packages hold, so that anybody can run them
    without a hub; in the catalogue's order."""
    every = [
        (one.model, suite.name, profile)
        for suite in suites.values()
        for profile, one in suite.profiles.items()
    ]
    run = {key: [r for r in runs if r.model and r.model.key == key] for key in MODELS}
    there = {(r.suite, r.profile) for r in runs}
    found = []
    for key, model in MODELS.items():
        planned = tuple((s, p) for m, s, p in every if m == key and (s, p) not in there)
        if run[key] or (model.packages and planned):
            found.append(Column(key, model.title, tuple(run[key]), planned))
    return found


Pair = tuple[Trained, Trained]
"""A cell and the reference that it is held against."""


def differences(runs: Sequence[Run]) -> dict[Pair, dict[str, Difference]]:
    """Pair -> key of a run -> what is shown there over all of its tasks."""
    found: dict[Pair, dict[str, Difference]] = {}
    for run in runs:
        table = run.material.table
        for cell, one in against_reference(table).items():
            found.setdefault((cell, table.reference), {})[run.key] = one
    return found


def carry_over_page(runs: Sequence[Run], suites: Mapping[str, Suite], lines: Sequence[Line]) -> str:
    """The page.

    Args:
        runs: every published run.
        suites: every suite that there is.
        lines: every claim with its verdict by each run.
    """
    found = columns(runs, suites)
    pairs = differences(runs)
    return text.page(
        "# Does it carry over?",
        "A verdict holds at the scale it was measured at. Here the same comparison stands beside "
        "itself at every model that was run, and where nothing was run it says so.",
        text.escape(summary(pairs, runs)),
        "## Methods against their reference",
        text.table(
            ("method", *(column.title for column in found)),
            [_pair_row(pair, by_run, found) for pair, by_run in pairs.items()],
            "Difference of scores and verdict, by model",
        ),
        "## Claims",
        text.table(
            ("claim", *(column.title for column in found)),
            [_claim_row(line, found) for line in lines if line.standings],
            "Verdict on each claim that rows test, by model",
        ),
        "## What would tell",
        text.table(
            ("model", "published runs", "not run yet"),
            [_model_row(column) for column in found],
            "Models, and the commands that would measure them",
        ),
        hide=["toc"],
    )


def summary(pairs: Mapping[Pair, Mapping[str, Difference]], runs: Sequence[Run]) -> str:
    """How many comparisons were made at several models, and how many of them agree."""
    model = {run.key: run.model.title if run.model else run.key for run in runs}
    several = [
        {one.verdict for one in by_run.values()}
        for by_run in pairs.values()
        if len({model[key] for key in by_run}) > 1
    ]
    if not several:
        names = words.listing(list(dict.fromkeys(model.values()))) or "no model"
        return (
            f"Everything published was run on {names}, so nothing here shows yet whether a verdict "
            "carries over to another model."
        )
    same = sum(len(verdicts) == 1 for verdicts in several)
    against = sum({"higher", "lower"} <= verdicts for verdicts in several)
    return (
        f"{words.plural(len(several), 'comparison')} at more than one model: {same} with the same "
        f"verdict everywhere, {against} with opposite ones, "
        f"{len(several) - same - against} decided at one and not at another."
    )


def _pair_row(pair: Pair, by_run: Mapping[str, Difference], found: Sequence[Column]) -> list[Cell]:
    cell, reference = pair
    row = [Cell(words.title(cell), f"against {words.title(reference)}")]
    for column in found:
        mine = [(run, by_run[run.key]) for run in column.runs if run.key in by_run]
        if not mine:
            row.append(Cell(NOT_MEASURED, look="open"))
            continue
        run, one = mine[0]
        seeds = words.plural(one.comparison.n, "seed")
        more = "; ".join(
            f"{other.verdict} in {r.name} ({difference_text(other)}, "
            f"{words.plural(other.comparison.n, 'seed')}{together(other)})"
            for r, other in mine[1:]
        )
        note = f"{difference_text(one)}, {seeds}{together(one)}, {run.name}" + (
            f"; {more}" if more else ""
        )
        row.append(Cell(one.verdict, note, f"{run.key}.md", look=text.look_of(one.verdict)))
    return row


def _claim_row(line: Line, found: Sequence[Column]) -> list[Cell]:
    row = [Cell(line.claim.id, line.claim.statement, address=f"claims.md#{line.claim.id.lower()}")]
    for column in found:
        of = {(run.suite, run.profile): run for run in column.runs}
        mine = [s for s in line.standings if (s.suite, s.profile) in of]
        if not mine:
            row.append(Cell(NOT_MEASURED, look="open"))
            continue
        first, *others = mine
        told = [f"{first.suite}, profile {first.profile}"]
        told += [f"{s.verdict.kind} in {s.suite}, profile {s.profile}" for s in others]
        kind = first.verdict.kind
        row.append(Cell(kind, "; ".join(told), look=text.look_of(kind)))
    return row


def _model_row(column: Column) -> list[Cell]:
    model = MODELS[column.key]
    size = f"{words.short(model.parameters / 1e6)} million parameters, {model.read_as}"
    runs = [f"{run.name}: {run.scale}" for run in column.runs]
    left = [f"make bench SUITE={suite} PROFILE={profile}" for suite, profile in column.planned]
    return [
        Cell(column.title, size),
        Cell("; ".join(runs) or "none"),
        Cell("; ".join(left) or "nothing"),
    ]
