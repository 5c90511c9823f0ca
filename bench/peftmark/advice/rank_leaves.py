"""The ranks that a published rule gives for measured tasks, as branches that rows can judge."""

from __future__ import annotations

from peftmark.advice.branches import Advice, Bounds, Group, Test, When
from peftmark.advice.guides import ENOUGH_ROWS, FEW, LORA, MANY, RANKS
from peftmark.advice.rank_rule import Made, made, ranks
from peftmark.advice.recommend import train_rows
from peftmark.advice.situation import parameters_of
from peftmark.analysis.table import ResultTable

SPANS: dict[str, Bounds] = {
    "fewer than 1,000": FEW,
    "1,000 to 10,000": (ENOUGH_ROWS[0], MANY[0]),
    "more than 10,000": MANY,
}
"""Numbers of training rows between which the rule gives the same ranks."""
DROP = 1.0
"""Points that the article's own figure allows its mixed ranks to lose."""


def rank_leaves(table: ResultTable) -> tuple[Advice, ...]:
    """The rule's ranks for every kind of task and number of training rows that was measured."""
    found: dict[tuple[Made, str], list[str]] = {}
    for task in table.tasks:
        known, rows = table.example(task).known_task, train_rows(table, task)
        span = next((s for s, at in SPANS.items() if rows and _inside(rows, at)), "")
        if known is not None and span:
            found.setdefault((made(known.kind), span), []).append(task)
    return tuple(_leaf(table, what, span, tasks) for (what, span), tasks in found.items())


def _inside(rows: tuple[int, int], span: Bounds) -> bool:
    return span[0] <= rows[0] and rows[1] < span[1]


def _leaf(table: ResultTable, what: Made, span: str, tasks: list[str]) -> Advice:
    at, parameters = SPANS[span], parameters_of(table)
    given = ranks(what, int(at[0]), parameters)
    large = " of such a model" if parameters and parameters > 1e9 else ""
    kinds = {t.kind for name in tasks if (t := table.example(name).known_task) is not None}
    bands = tuple(given._asdict().items())
    title = f"ranks {given.low}, {given.middle} and {given.high}"
    return Advice(
        f"the task is {what} and there are {span} training rows",
        f"{title} for lower, middle and upper layers{large}",
        RANKS,
        Test(
            f"{title} lose {DROP:g} point at most against LoRA of one rank",
            "score",
            Group(f"a layered hybrid of {title}", ("hybrid",), options=bands),
            LORA,
            rows=at,
            drop=DROP,
            kinds=tuple(sorted(kinds)),
        ),
        when=When(at),
    )
