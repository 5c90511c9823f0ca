"""A card a method: its paper, what it is, what it counts, its measured trade, our verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from peftmark.analysis.comparison import Verdict, against_reference
from peftmark.analysis.table import Ratio, overall_score, ratio
from peftmark.catalog.method import Method
from peftmark.catalog.methods import METHODS
from peftmark.catalog.methods import Cell as Trained
from peftmark.docgen.methods_page import MODEL, SIZES, Counts
from peftmark.render import words
from peftmark.report.score_entries import verdict_entry
from peftmark.report.summary import memory_ratio, trainable
from peftmark.site import text
from peftmark.site.answers import difference_text, step_seconds
from peftmark.site.evidence import Run
from peftmark.site.run_pages import address
from peftmark.site.text import Cell

HEAD = ("cell", "difference of scores", "verdict", "peak memory", "step time", "trained", "run")
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def place(method: Method) -> str:
    """The place of a method's card."""
    return f"methods/{method.key}.md"


def cards(counts: Counts, runs: Sequence[Run]) -> dict[str, str]:
    """Every card by its place, and the list of them."""
    found = {place(method): card(method, counts, runs) for method in METHODS.values()}
    return {"methods/index.md": _list(counts, runs)} | found


def card(method: Method, counts: Counts, runs: Sequence[Run]) -> str:
    """The card of one method."""
    rows = [row for run in runs for row in _trade(method, run)]
    head = f"{method.title}: {method.summary}."
    told = verdict(method, runs)
    return text.page(
        f"# {text.escape(method.title)}",
        text.escape(f"{head[:1].upper()}{head[1:]}"),
        f"**Our verdict.** {text.escape(told[0])}",
        "\n".join(f"- {text.escape(line)}" for line in told[1:]),
        "\n".join(
            [
                f"- In a suite: `method: {method.key}`",
                f"- Source: {_source(method)}",
                f"- Size: {method.size or 'none'}",
                f"- Adapter parameters: {text.escape(_count(method, counts))}",
                f"- Sits on: {text.escape(', '.join(method.quantizations))}",
                f"- Options: {_options(method)}",
            ]
        ),
        "## Measured trade",
        text.table(HEAD, rows, f"{method.title} against each run's reference")
        if rows
        else "Not measured in any published run; `make bench SUITE=methods` runs it.",
        "Ratios are to the reference of the run, geometric means over pairs of the same task and "
        "seed."
        if rows
        else "",
        text.link("All methods, options and formats", "../docs/methods.md"),
    )


def _source(method: Method) -> str:
    """The paper, with links to arXiv."""
    told = text.escape(method.source)
    return _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", told)


def _count(method: Method, counts: Counts) -> str:
    low, high = counts.adapters.get(method.key, (0, 0))
    many = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    size = f", {method.size_word} {SIZES[method.size]}" if method.size else ""
    return f"{many} on {MODEL}{size}" if high else "none"


def _options(method: Method) -> str:
    if method.options is None:
        return "any of its configuration in PEFT"
    return ", ".join(f"`{option.name}`" for option in method.options) or "none"


def _cells(method: Method, run: Run) -> list[Trained]:
    return [cell for cell in run.material.table.cells if cell.method == method.key]


def verdict(method: Method, runs: Sequence[Run]) -> list[str]:
    """What the rows show of a method's scores against each run's reference: how often what in all,
    then a line a run with its scale."""
    counted: Counter[Verdict] = Counter()
    lines = []
    for run in runs:
        told = _of_run(method, run, counted)
        if told:
            lines.append(f"{run.name} ({run.scale}): {'; '.join(told)}.")
    if not lines:
        return ["None yet: no published rows."]
    counts = [f"{n} {COUNTED[one]}" for one in COUNTED if (n := counted[one])]
    if not counts:
        return lines
    total = words.plural(counted.total(), "comparison")
    return [f"Of {total} of scores with a run's reference {words.listing(counts)}.", *lines]


def _of_run(method: Method, run: Run, counted: Counter[Verdict]) -> list[str]:
    """Parts of a sentence on a method's cells in a run; its verdicts are added to those counted."""
    table = run.material.table
    found = against_reference(table)
    cells = _cells(method, run)
    by_verdict: dict[tuple[Verdict, int], list[str]] = {}
    for cell in cells:
        if cell in found:
            one = found[cell]
            by_verdict.setdefault((one.verdict, one.comparison.n), []).append(words.title(cell))
            counted[one.verdict] += 1
    told = [f"{words.title(table.reference)} is the reference"] * (table.reference in cells)
    reference = words.title(table.reference)
    return told + [
        f"{words.listing(names)} {WORDING[kind]} {reference} over {words.plural(seeds, 'seed')}"
        for (kind, seeds), names in by_verdict.items()
    ]


WORDING: dict[Verdict, str] = {
    "higher": "shown to score higher than",
    "lower": "shown to score lower than",
    "equivalent": "shown to score within a point of",
    "undecided": "not told apart from",
    "no interval": "without an interval to tell it from",
}
COUNTED: dict[Verdict, str] = {
    "higher": "shown higher",
    "lower": "shown lower",
    "equivalent": "shown within a point",
    "undecided": "not told apart",
    "no interval": "without an interval",
}
"""Verdict -> how many of them are counted, in words."""


def _trade(method: Method, run: Run) -> list[list[Cell]]:
    table = run.material.table
    found = against_reference(table)
    rows = []
    for cell in _cells(method, run):
        one = found.get(cell)
        score = overall_score(table, cell).estimate
        own = f"score {words.plus_minus(score)}" if score else ""
        if cell == table.reference:
            told = (Cell("reference", own), Cell("reference"))
        elif one is None:
            told = (Cell("–", own), Cell("not comparable", look="open"))
        else:
            told = (
                Cell(difference_text(one), own, sort=one.comparison.estimate.mean),
                Cell(one.verdict, verdict_entry(one).note, look=text.look_of(one.verdict)),
            )
        rows.append(
            [
                Cell(words.title(cell)),
                *told,
                _ratio(memory_ratio(table, cell)),
                _ratio(ratio(table, cell, step_seconds)),
                _ratio(ratio(table, cell, trainable)),
                Cell(run.name, run.scale, address=f"../{address(run)}"),
            ]
        )
    return rows


def _ratio(found: Ratio) -> Cell:
    if found.value is None:
        return Cell("–", found.reason)
    return Cell(words.times(found.value), sort=found.value)


def _list(counts: Counts, runs: Sequence[Run]) -> str:
    rows = [
        [
            Cell(method.title, method.summary, address=place(method).removeprefix("methods/")),
            Cell(method.family),
            Cell(_count(method, counts), sort=float(counts.adapters.get(method.key, (0, 0))[0])),
            Cell(_measured(method, runs)),
        ]
        for method in METHODS.values()
    ]
    return text.page(
        "# Methods",
        "What each method trains, its paper, what it measured here, and our verdict at that scale.",
        text.table(
            ("method", "family", "adapter parameters", "measured"),
            rows,
            "Every method, with a card each",
            filtered=True,
        ),
    )


def _measured(method: Method, runs: Sequence[Run]) -> str:
    names = [run.name for run in runs if _cells(method, run)]
    return words.listing(names) or "not yet"
