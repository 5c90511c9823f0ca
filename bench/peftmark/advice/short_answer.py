"""The answer of `peftmark try` in at most ten lines: what to use, why, what it costs, what is open.

Every line is what a report says at length; nothing is said that it doesn't.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peftmark.advice import plain_lines
from peftmark.advice.answer import headline
from peftmark.advice.candidates import Candidate
from peftmark.advice.recommend import Answer
from peftmark.analysis.questions import contenders
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell, cell_title
from peftmark.core.amounts import size_text
from peftmark.render import words
from peftmark.suite import trials

MOST_OPEN = 4


@dataclass(frozen=True)
class Outcome:
    """What `try` knows beside the rows.

    Attributes:
        name: of the suite and its task.
        left_out: why methods were not tried, as parts of a sentence.
        length: how long a training was and why, as a sentence.
        adapters: cell -> its kept adapter's folder.
        report: the page.
        unfinished: jobs that were planned and are not there.
        fault: why there is no answer; empty with one.
        where: options of the folders that were given.
    """

    name: str
    left_out: Sequence[str]
    length: str
    adapters: dict[Cell, Path]
    report: Path | None
    unfinished: int
    fault: str = ""
    where: Sequence[str] = ()


def lines(answer: Answer | None, outcome: Outcome) -> list[str]:
    """The lines.

    Args:
        answer: of the suite's rows; None where there are none.
    """
    return [line for line in _lines(answer, outcome) if line]


def _lines(answer: Answer | None, outcome: Outcome) -> Iterator[str]:
    pick = answer.picks[0] if answer is not None and answer.picks else None
    if answer is None or pick is None:
        why = " ".join(answer.reasons) if answer is not None else outcome.fault
        yield f"No answer yet: {why}"
    else:
        yield f"Use {pick.title}{_setting(answer.table, pick.cell)}."
        yield f"Because: {headline(answer)}"
        yield _costs(pick, answer)
        yield plain_lines.sentence(answer.table)
        yield _open(answer.table, pick.cell)
    yield f"Not tried: {'; '.join(outcome.left_out)}." if outcome.left_out else ""
    yield outcome.length + _unfinished(outcome)
    if pick is not None:
        yield _adapter(pick.cell, outcome)
    if outcome.report is not None:
        yield f"Report: {outcome.report}"


def _setting(table: ResultTable, cell: Cell) -> str:
    """What trials chose for it, such as ", learning rate 1e-3"; empty where nothing was tuned."""
    found = [c for (of, _), c in trials.choices(table.jobs, table.records).items() if of == cell]
    if not found:
        jobs = [slot.job for slot in table.of(cell) if slot.ok]
        return f", learning rate {words.rate(jobs[0].recipe.learning_rate)}" if jobs else ""
    [choice, *_] = found
    if choice.chosen is None:
        return ""
    told = [
        f"{words.knob(knob)} {words.knob_value(knob, value)}"
        for knob, value in zip(choice.knobs, choice.chosen, strict=True)
    ]
    return f", {words.listing(told)} (the best of {len(choice.tried)} by trials)"


def _costs(pick: Candidate, answer: Answer) -> str:
    parts = []
    for key, cost in answer.wish.costs.items():
        figure = pick.figures[key]
        if figure is not None:
            parts.append(f"{cost.title} {cost.text(figure)}")
    sizes = [
        slot.record.outcome.adapter_bytes
        for slot in answer.table.of(pick.cell)
        if slot.ok and slot.record is not None and slot.record.outcome.adapter_bytes
    ]
    if sizes:
        parts.append(f"{size_text(max(sizes))} on disk")
    return f"It costs: {', '.join(parts)}." if parts else ""


def _open(table: ResultTable, pick: Cell) -> str:
    """Which others may be as good; that nothing is told apart by one seed."""
    counts = {len({slot.job.seed for slot in table.of(c) if slot.ok}) for c in table.cells}
    seeds = f"{words.span(counts)} seed{'' if counts == {1} else 's'}"
    first = contenders(table, table.cells)
    if pick not in first:
        above = words.some([cell_title(*cell) for cell in first], MOST_OPEN)
        return f"Shown to score lower ({seeds}) than: {above}; it is chosen for what it costs."
    left = [cell_title(*cell) for cell in first if cell != pick]
    if not left:
        return f"Every other method is shown to score lower ({seeds})."
    return (
        f"Not told apart from it at {seeds}: {words.some(left, MOST_OPEN)}; the choice among them "
        "is by cost."
    )


def _unfinished(outcome: Outcome) -> str:
    if not outcome.unfinished:
        return ""
    return (
        f" {words.plural(outcome.unfinished, 'planned run')} did not fit or failed: the same "
        "command goes on."
    )


def _adapter(cell: Cell, outcome: Outcome) -> str:
    folder = outcome.adapters.get(cell)
    if folder is None:
        return ""
    command = ["peftmark", "export", outcome.name, "--cell", cell_title(*cell)]
    command += ["--task", outcome.name, "--to", "DIR", *outcome.where]
    return f"Adapter: {folder}; for plain PEFT: {shlex.join(command)}"
