"""Which method, before anything was run: a few questions with what is known to each, on a page and
in a terminal.

Every answer says what it rests on: a prediction, rows that were measured elsewhere and how far off
they are, or advice that nobody measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.advice.answer import headline
from peftmark.advice.branches import Advice
from peftmark.advice.guide_verdicts import Word, judge
from peftmark.advice.guides import ADVICE, RANKS
from peftmark.advice.rank_rule import Ranks, made
from peftmark.advice.situation import Foreseen, Near, Situation, start, told
from peftmark.catalog.methods import cell_title
from peftmark.core.amounts import size_text
from peftmark.core.shown import plain
from peftmark.machine.gpus import room
from peftmark.record.recipe import Recipe
from peftmark.render import words
from peftmark.render.page import Block, Column, Entry, Grid, Page, Paragraph, Section
from peftmark.render.plain_table import aligned

WIDEST = 140
"""Characters of a terminal's table; a wider one is a list there."""
SAID: dict[Word, str] = {"agree": "agrees", "disagree": "disagrees", "mixed": "mixed"}
"""What rows elsewhere say to an advice, where they show anything."""
MOST_NEAR = 4
"""Sets of rows that are shown, the nearest ones."""


@dataclass(frozen=True)
class Before:
    """What is known before a run.

    Attributes:
        why: why no measured answer is given, as a sentence.
        foreseen: what is predicted of methods.
        near: what rows say that were measured elsewhere, the nearest first.
        rule: ranks of a published rule, by layer.
        recipe: that predictions are of.
        run: commands that would measure it.
        lengths: whose rows the times are of, in words.
        most: trained parameters at most; None for any number.
        unused: options that were given and that only rows can answer.
    """

    has: Situation
    why: str
    foreseen: tuple[Foreseen, ...]
    near: tuple[Near, ...]
    rule: Ranks
    recipe: Recipe
    run: tuple[str, ...]
    lengths: str = ""
    most: int | None = None
    unused: tuple[str, ...] = ()


def sentence(of: Before) -> str:
    """The answer: where to begin and what that rests on."""
    found = start(of.foreseen, of.near, of.most)
    if found is None:
        near = [one for one in of.foreseen if one.help.startswith("would fit")]
        if not near:
            return "Nothing that was predicted fits, and no single change makes it fit."
        least = min(near, key=lambda one: one.bytes_ or 0)
        return f"Nothing fits as it is; {cell_title(*least.cell)} {least.help}."
    first, rows = found
    title = cell_title(*first.cell)
    took = "" if first.bytes_ is None else f", predicted to take {size_text(first.bytes_)}"
    if first.fits and of.has.device is not None:
        took += f" of the {size_text(room(of.has.device.memory_bytes))} that are left for tensors"
    if rows is None:
        why = "it is what the other methods are compared with"
    else:
        job = rows.answer.table.jobs[0]
        why = f"the nearest rows of such a task (suite {plain(job.suite)}) pick it"
    if any(one.fits is False for one in of.foreseen):
        why += " among those that fit"
    return f"Begin with {title}{took}: {why}. Nothing was measured on what you have."


def sections(of: Before) -> tuple[Section, ...]:
    """The questions in the order in which a person would ask them."""
    return (_given(of), _fits(of), _elsewhere(of), _advice(of), _rank(of), _next(of))


def _given(of: Before) -> Section:
    told_too = []
    if of.has.assumed:
        told_too.append(f"Taken, as it was not said: {'; '.join(of.has.assumed)}.")
    if of.unused:
        told_too.append(f"Not used before a run: {', '.join(of.unused)}.")
    blocks = tuple(Paragraph(text) for text in told_too)
    return Section("given", "What do you have?", f"{told(of.has)}.", blocks)


def _fits(of: Before) -> Section:
    lead = (
        f"Predicted, not measured (docs/memory.md, docs/time.md): batches of "
        f"{of.recipe.batch_size} rows of {of.recipe.max_length} tokens, peftmark's own settings "
        "for such a model."
    )
    device = of.has.device
    if device is not None:
        lead += (
            f" {device.title} leaves {size_text(room(device.memory_bytes))} for tensors."
            if room(device.memory_bytes)
            else f" {device.title} leaves nothing for tensors beside CUDA's context."
        )
    columns = [
        Column("method"),
        Column("peak of tensors", numeric=True),
        Column("trained parameters", numeric=True),
    ]
    if _timed(of):
        columns.append(Column("time a step", numeric=True))
    if _timed(of) and of.has.rows is not None:
        columns.append(Column("time a pass over the rows", numeric=True))
    if device is not None:
        columns.append(Column("fits"))
    rows = tuple(tuple(_row(of, one)) for one in of.foreseen)
    unknown = dict.fromkeys(one.no_time for one in of.foreseen if one.step_seconds is None)
    notes = [f"Time unknown: {why}." for why in unknown if why]
    if of.lengths and _timed(of):
        notes.insert(0, f"Times are of {of.lengths}; memory is of the longest rows there may be.")
    note = " ".join(notes)
    return Section(
        "fits", "What fits?", lead, (Grid("Predicted", tuple(columns), rows, note=note),)
    )


def _row(of: Before, one: Foreseen) -> Iterator[Entry]:
    yield Entry(cell_title(*one.cell))
    if one.bytes_ is None or one.trainable is None:
        yield words.missing(one.reason)
        yield words.missing(one.reason)
    else:
        yield Entry(size_text(one.bytes_), kind="number", sort=one.bytes_)
        over = "more than asked for" if of.most and one.trainable > of.most else ""
        yield Entry(f"{one.trainable:,}", over, "number", one.trainable)
    if _timed(of):
        yield from _times(of, one)
    if of.has.device is not None:
        if one.fits is None:
            yield words.missing(one.reason)
        else:
            yield Entry("yes" if one.fits else f"no; {one.help}")


def _timed(of: Before) -> bool:
    """Whether any time is known; else why not stands under the table alone."""
    return any(one.step_seconds is not None for one in of.foreseen)


def _times(of: Before, one: Foreseen) -> Iterator[Entry]:
    step, rows = one.step_seconds, of.has.rows
    count = 1 if rows is None else 2
    if step is None:
        yield from [words.missing(one.no_time)] * count
        return
    yield Entry(_time(step), "", "number", step)
    if rows is not None:
        whole = step * rows / of.recipe.batch_size
        yield Entry(_time(whole), "", "number", whole)


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{words.short(1000 * seconds)} ms"
    if seconds < 120:
        return f"{words.short(seconds)} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _elsewhere(of: Before) -> Section:
    title = "What was measured elsewhere?"
    if not of.near:
        return Section("elsewhere", title, "No rows of any suite are there.", ())
    rows = tuple(
        (
            Entry(_suite(one)),
            Entry("; ".join(one.away) or "as yours"),
            Entry(headline(one.answer)),
        )
        for one in of.near[:MOST_NEAR]
    )
    more = len(of.near) - MOST_NEAR
    note = (
        f"{words.plural(more, 'set')} of rows that are further off: not shown." if more > 0 else ""
    )
    lead = "Measured, but not on what you have: orders of methods need not carry over."
    columns = (Column("suite"), Column("how far from yours"), Column("what its rows say"))
    return Section("elsewhere", title, lead, (Grid("Nearest rows", columns, rows, note=note),))


def _suite(one: Near) -> str:
    job = one.answer.table.jobs[0]
    return f"{plain(job.suite)} {plain(job.profile)}, {job.device}"


def _advice(of: Before) -> Section:
    has, kept = of.has, list[tuple[Advice, str]]()
    memory = None if has.device is None else has.device.memory_bytes
    for one in ADVICE:
        writes = made(has.kind) == "generation"
        holds = one.when.holds(has.rows, memory, writes, has.parameters)
        if holds is not False:
            open_ = "only you know" if one.when.yours else "you didn't say"
            kept.append((one, "holds for you" if holds else open_))
    rows = tuple(
        (
            Entry(f"if {one.condition}: {one.advice}"),
            Entry(standing),
            Entry(_measured(of, one)),
            Entry(one.source),
        )
        for one, standing in sorted(kept, key=lambda two: two[1] != "holds for you")
    )
    gone = len(ADVICE) - len(kept)
    note = f"{words.plural(gone, 'branch', 'branches')} of the guides left out that ask for "
    note = f"{note}something else than you have." if gone else ""
    columns = (Column("advice"), Column("its condition"), Column("measured"), Column("source"))
    lead = "Advice of guides, not measured on what you have; guides rarely say on what they rest."
    return Section(
        "advice", "What do guides advise?", lead, (Grid("Advice", columns, rows, note=note),)
    )


def _measured(of: Before, advice: Advice) -> str:
    """What rows measured elsewhere say to an advice."""
    found = [
        f"{SAID[word]} elsewhere ({_suite(one)})"
        for one in of.near
        if (word := judge(one.answer.table, advice).word) in SAID
    ]
    return "; ".join(found) or "not measured"


def _rank(of: Before) -> Section:
    low, middle, high = of.rule
    lead = (
        f"Rank {middle} to begin with, beside {max(1, middle // 2)} and {2 * middle}: the rule of "
        f"{RANKS} gives {low}, {middle} and {high} for lower, middle and upper layers of such a "
        "model with such rows. The rule was never measured."
    )
    lora = [one for one in of.foreseen if one.cell.method == "lora" and one.adapter_bytes]
    blocks = tuple(
        Paragraph(
            f"{cell_title(*one.cell)}: what is trained takes, with gradients and optimizer, "
            f"{size_text(one.adapter_bytes or 0)} of {size_text(one.bytes_ or 0)}; no lower rank "
            "saves more than that."
        )
        for one in lora
    )
    return Section("rank", "Which rank?", lead, blocks)


def _next(of: Before) -> Section:
    lead = "Only rows of your own decide: a comparison on them is one command."
    return Section("next", "What next?", lead, tuple(Paragraph(one) for one in of.run))


# --- shown ----------------------------------------------------------------------------------------


def page(of: Before) -> Page:
    """The same as a page."""
    return Page(
        title="Which method, before any run",
        facts=(("you have", told(of.has)),),
        finding=f"{of.why} {sentence(of)}".strip(),
        alarms=(),
        warning="",
        notes=(),
        opening=(),
        sections=sections(of),
    )


def page_files(of: Before, folder: Path) -> dict[Path, str | bytes]:
    """Path -> content of the page and of its Markdown."""
    # Drawing needs matplotlib, which takes a second to import: not before it is needed.
    from peftmark.render import page_files as files

    return files.page_files(page(of), folder, "recommend.md")


def lines(of: Before) -> list[str]:
    """The same for a terminal."""
    found = [*filter(None, (of.why,)), sentence(of)]
    for number, section in enumerate(sections(of), 1):
        found += ["", f"{number}. {section.title}", f"   {section.lead}"]
        for block in section.blocks:
            found += [f"   {line}" for line in _plain(block)]
    return found


def _plain(block: Block) -> Sequence[str]:
    if isinstance(block, Paragraph):
        return [block.text]
    assert isinstance(block, Grid)
    numbers = [i for i, column in enumerate(block.columns) if column.numeric]
    rows = [[_cell(entry) for entry in row] for row in block.rows]
    table = aligned([column.title for column in block.columns], rows, numbers)
    if not numbers and max(map(len, table)) > WIDEST:
        table = [f"- {first} ({'; '.join(rest)})" for first, *rest in rows]
    return [*table, block.note] if block.note else table


def _cell(entry: Entry) -> str:
    told = entry.note and entry.kind != "missing"  # why it is missing stands under the table
    return f"{entry.text} ({entry.note})" if told else entry.text


def facts(of: Before) -> dict[str, Any]:
    """The same as plain data."""
    found = start(of.foreseen, of.near, of.most)
    return {
        "answer": sentence(of),
        "begin_with": None if found is None else cell_title(*found[0].cell),
        "you_have": told(of.has),
        "assumed": list(of.has.assumed),
        "predicted": [
            {
                "cell": cell_title(*one.cell),
                "peak_bytes": one.bytes_,
                "trainable_parameters": one.trainable,
                "step_seconds": one.step_seconds,
                "fits": one.fits,
                "why_no_memory": one.reason,
                "why_no_time": one.no_time if one.step_seconds is None else "",
            }
            for one in of.foreseen
        ],
        "measured_elsewhere": [
            {
                "suite": one.answer.table.jobs[0].suite,
                "profile": one.answer.table.jobs[0].profile,
                "away": list(one.away),
                "distance": one.distance,
                "answer": headline(one.answer),
            }
            for one in of.near
        ],
        "ranks": of.rule._asdict(),
        "ranks_from": f"{RANKS}; not measured",
        "next": list(of.run),
        "not_used": list(of.unused),
    }
