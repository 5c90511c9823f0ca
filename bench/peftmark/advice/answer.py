"""What `peftmark recommend` reads and prints: results folders and a wish, to answers as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from peftmark.advice import guide_lines, plain_lines, training_lines
from peftmark.advice.candidates import (
    Candidate,
    Wish,
    of_a_task,
    points,
    seeds_wanted,
    short_standing,
    standing_text,
    to_the_best,
)
from peftmark.advice.money import NO_PRICE
from peftmark.advice.read_rows import folders, read, to_run
from peftmark.advice.recommend import Answer, recommend_all, train_rows
from peftmark.advice.tables import tables_of as tables_of
from peftmark.advice.trade import Cost
from peftmark.catalog.task import TaskKind
from peftmark.catalog.tasks import TASKS
from peftmark.core.amounts import (
    parse_count,
    parse_hour_price,
    parse_points,
    parse_price,
    parse_seconds,
    parse_size,
    read_size,
)
from peftmark.core.errors import UserError
from peftmark.machine.gpus import device
from peftmark.render import words
from peftmark.render.plain_table import aligned
from peftmark.storage.unread import no_results, together

KINDS: tuple[TaskKind, ...] = tuple(kind for kind in get_args(TaskKind) if kind != "ranking")
"""Kinds that a task may be asked for by."""


@dataclass(frozen=True)
class Advised:
    """Answers and what was left out on the way to them."""

    answers: tuple[Answer, ...]
    notes: tuple[str, ...]


def advise(
    results: Path,
    suite: str | None = None,
    source: Path | None = None,
    profile: str | None = None,
    *,
    memory: str | None = None,
    rows: str | None = None,
    task: str | None = None,
    max_drop: str | None = None,
    max_parameters: str | None = None,
    max_time: str | None = None,
    model: str | None = None,
    price: str | None = None,
    max_money: str | None = None,
) -> Advised:
    """Read the results and answer.

    Args:
        results: the results folder, with one folder a suite.
        suite: which of them; None for all of them.
        source: a folder with `parts/` to read in place of those.
        profile: the profile whose rows count; None for each of them apart.
        memory: `--memory` as written, and so on.

    Raises:
        NothingMeasured: no results.
        UserError: a value that can't be, or none of the results can be read.
    """
    wish = Wish(
        memory=None if memory is None else memory_of(memory),
        rows=None if rows is None else parse_count("--rows", rows),
        task=task or "",
        max_drop=None if max_drop is None else parse_points("--max-drop", max_drop),
        parameters=(
            None if max_parameters is None else parse_count("--max-parameters", max_parameters)
        ),
        seconds=None if max_time is None else parse_seconds("--max-time", max_time),
        model=model or "",
        **_money(price, max_money),
    )
    tables, notes, looked = read(folders(results, suite, source))
    profiles = sorted({t.jobs[0].profile for t in tables})
    chosen = [t for t in tables if profile in (None, t.jobs[0].profile)]
    if tables and not chosen:
        known = ", ".join(profiles)
        raise UserError(f"--profile: no row of profile {profile!r}", f"Measured: {known}.")
    own = {t for table in tables for t in table.tasks} - TASKS.keys()
    if wish.task and wish.task not in (allowed := (*KINDS, *sorted(own), *TASKS)):
        raise UserError(f"--task: found {wish.task!r}", f"Allowed: {', '.join(allowed)}.")
    if not tables:
        where = source or (results / suite if suite else results)
        raise no_results(where, together(looked), to_run(suite), "results of finished jobs")
    return Advised(recommend_all(chosen, wish), tuple(notes))


def memory_of(text: str) -> float:
    """Bytes of `--memory`: a size, or what the GPU of a name has.

    Raises:
        UserError: it is neither.
    """
    if read_size(text) or text.replace(".", "").isdigit():
        return parse_size("--memory", text)
    return float(device(text).memory_bytes)


def _money(price: str | None, most: str | None) -> dict[str, Any]:
    """What the wish says of money.

    Raises:
        UserError: an amount that can't be, or a limit in another currency than the price's.
    """
    hour = None if price is None else parse_hour_price("--price", price)
    if most is None:
        return {"price": hour}
    limit = parse_price("--max-money", most)
    if hour is None or hour.currency != limit.currency:
        raise UserError(
            f"--max-money: found {most!r}, and {f'--price {price}' if price else 'no --price'}",
            f"Give what an hour of the machine costs in {limit.currency} with --price.",
        )
    return {"price": hour, "money": limit.hour}


# --- text ---------------------------------------------------------------------------------------


def headline(answer: Answer) -> str:
    """The answer in one sentence or more, with the factor where a cell that it rests on saw
    another amount of training."""
    told = filter(None, (_headline(answer), _unequal(answer)))
    return " ".join(told)


def _unequal(answer: Answer) -> str:
    """That what is picked, or the best cell that it is held against, trained longer or shorter."""
    cells = {c.cell for c in answer.picks} | {c for c in [answer.best] if c is not None}
    return training_lines.sentence(answer.table, cells) if answer.picks else ""


def _headline(answer: Answer) -> str:
    if answer.verdict == "unknown":
        return f"Unknown. {' '.join(answer.reasons)}"
    if answer.verdict == "none fits":
        return f"None fits. {' '.join(answer.reasons)}"
    wish, first = answer.wish, answer.picks[0]
    if wish.max_drop is None:
        return _highest(answer)
    within = f"within {points(wish.max_drop)} of the best measured score"
    if answer.verdict == "possible":
        return (
            f"Undecided: no cell that fits is shown to stay {within}; "
            f"{f'{first.title} may' if first.perhaps else f'{first.title} comes closest'}, at "
            f"{standing_text(first)}{seeds_wanted(first, wish)}."
        )
    cost = answer.cost
    if cost is None:
        return (
            f"{first.title} has the highest score of the cells shown to stay {within}; they can't "
            f"be compared by {wish.cost.title}."
        )
    amount = _amount(answer, first, cost)
    if first.keeps == "best":
        text = (
            f"Nothing that takes less {cost.title} than {first.title}{amount}, the best measured "
            f"score, is shown to stay within {points(wish.max_drop)} of it"
        )
    else:
        text = (
            f"{first.title} has the least {cost.title}{amount} of the cells shown to stay "
            f"{within}, at {standing_text(first)}"
        )
    return f"{text}.{_cheaper(answer)}"


def _amount(answer: Answer, first: Candidate, cost: Cost) -> str:
    """What a cell costs, in brackets: under a limit, what that is held against."""
    if cost.key in answer.wish.limits and (most := first.largest[cost.key]) is not None:
        return f" ({cost.text(most)}{of_a_task(answer.table)})"
    figure = first.figures[cost.key]
    return f" ({cost.text(figure)}{_mean(answer)})" if figure is not None else ""


def _mean(answer: Answer) -> str:
    """Which aggregate a cost is; empty where there is one task."""
    return ", mean over tasks" if len(answer.table.tasks) > 1 else ""


def _highest(answer: Answer) -> str:
    first, *rest = answer.picks
    metric = answer.table.scale.metric
    score = f" ({words.score(metric, first.score.mean)})" if first.score else ""
    text = f"{first.title} has the highest score{score} of the cells that fit."
    if rest:
        names = ", ".join(c.title for c in rest[:5])
        more = f" and {len(rest) - 5} more" if len(rest) > 5 else ""
        text += (
            f" Nothing that fits is shown to beat these either at no more {answer.wish.cost.title}"
            f": {names}{more}."
        )
    return text


def _cheaper(answer: Answer) -> str:
    """Cells that might do for less than the pick; empty without one."""
    key, first = answer.wish.cost.key, answer.picks[0]
    mine = first.figures[key]
    less = [
        c
        for c in answer.picks
        if c.perhaps and mine is not None and (c.figures[key] or mine) < mine
    ]
    if not less:
        return ""
    less.sort(key=lambda c: -c.behind.estimate.mean if c.behind else 0.0)
    names = ", ".join(f"{c.title}{seeds_wanted(c, answer.wish)}" for c in less[:3])
    return f" Perhaps, but not shown, the nearest first: {names}."


def advice_text(advised: Advised) -> str:
    """Every answer with its evidence, for a terminal."""
    parts = ["\n".join(_answer(answer)) for answer in advised.answers]
    if advised.notes:
        parts.append("\n".join(f"Note: {note}" for note in advised.notes))
    return "\n\n".join(parts)


def scale(answer: Answer) -> str:
    """The sentence on reduced scale; empty at full scale."""
    if not answer.reduced:
        return ""
    jobs = [s.job for s in answer.table.slots]
    steps = words.span(j.recipe.steps for j in jobs if j.cell.trains)
    trained = f"{steps} optimizer steps" if steps else "nothing trained"
    rows = [n for j in jobs if (n := j.recipe.train_rows) is not None]
    at_most = f" and at most {max(rows):,} training rows" if len(rows) == len(jobs) else ""
    return (
        f"Reduced scale (profile {jobs[0].profile}, {trained}{at_most}): scores and "
        "orderings may differ at full scale."
    )


def _answer(answer: Answer) -> Iterator[str]:
    if small := scale(answer):
        yield small
    if told := plain_lines.sentence(answer.table):
        yield told
    yield headline(answer)
    yield f"Rows: {evidence(answer)}."
    if answer.picks or answer.others:
        yield ""
        yield from _evidence_table(answer)
    if guided := list(guide_lines.lines(answer)):
        yield ""
        yield from guided
    if answer.caveats:
        yield ""
        yield "What this does not say:"
        yield from (f"- {note}" for note in answer.caveats)
    if answer.run:
        yield f"To find out: {'; '.join(answer.run)}."


def evidence(answer: Answer) -> str:
    """What the answer rests on, in a few words."""
    table = answer.table
    job = table.jobs[0]
    ok = sum(s.ok for s in table.slots)
    tasks = [f"{task}{_rows(train_rows(table, task))}" for task in table.tasks]
    return (
        f"suite {job.suite}, profile {job.profile}, model {job.model}, {job.device}; "
        f"{ok} of {len(table.slots)} jobs ok; {len(table.cells)} cells on {', '.join(tasks)}"
    )


def _rows(span: tuple[int, int] | None) -> str:
    return f" ({words.span(span)} training rows)" if span else ""


def _evidence_table(answer: Answer) -> list[str]:
    costs = answer.wish.costs
    head = (
        "cell",
        "verdict",
        "score",
        to_the_best(answer.table.scale.in_points),
        *(f"{c.title}{_mean(answer)}" for c in costs.values()),
        *(f"largest {costs[key].title} of a task" for key in _apart(answer)),
        "seeds",
        "jobs",
    )
    metric = answer.table.scale.metric
    rows = [
        (c.title, state(answer, c), *_figures(answer, c, metric))
        for c in (*answer.picks, *answer.others)
    ]
    return aligned(head, rows, numbers=range(4, len(head)))


def _apart(answer: Answer) -> list[str]:
    """Costs with a limit, which is held against the largest of a task and not against the mean."""
    return list(answer.wish.limits) if len(answer.table.tasks) > 1 else []


def _figures(answer: Answer, c: Candidate, metric: str) -> tuple[str, ...]:
    score = "-" if c.score is None else words.plus_minus(c.score, metric)
    costs = answer.wish.costs
    shown = [(cost, c.figures[key]) for key, cost in costs.items()]
    shown += [(costs[key], c.largest[key]) for key in _apart(answer)]
    texts = ["-" if v is None else cost.text(v) for cost, v in shown]
    against = short_standing(c) if c.score is not None else "-"
    return score, against, *texts, str(c.seeds), f"{c.ok}/{c.jobs}"


def state(answer: Answer, c: Candidate) -> str:
    """What became of a cell, in a few words, and that it saw another amount of training."""
    return "; ".join(filter(None, (_state(answer, c), training_lines.saw(answer.table, c.cell))))


def _state(answer: Answer, c: Candidate) -> str:
    if not c.trains:
        return f"{'needs no fine-tuning' if c.cell.fits else 'trains nothing'}, for comparison"
    if c.unknown:
        return f"unknown: {', '.join(c.unknown)}"
    if c.over:
        return f"over: {', '.join(c.over)}"
    if c.low:
        return c.low
    if c.keeps == "dropped":
        return f"loses more than {points(answer.wish.max_drop or 0)}"
    if c.by is not None:
        beater = next(x.title for x in (*answer.picks, *answer.others) if x.cell == c.by)
        return f"beaten by {beater}"
    return "fits, drop undecided" if c.keeps == "possible" else "fits"


def facts_of(advised: Advised) -> dict[str, Any]:
    """The same as plain data for JSON."""
    return {"answers": [_facts(a) for a in advised.answers], "notes": list(advised.notes)}


def _facts(answer: Answer) -> dict[str, Any]:
    job = answer.table.jobs[0]
    return {
        "verdict": answer.verdict,
        "answer": headline(answer),
        "not_above": plain_lines.sentence(answer.table),
        "reduced_scale": answer.reduced,
        "suite": job.suite,
        "profile": job.profile,
        "model": job.model,
        "device": job.device,
        "price": answer.wish.price and answer.wish.price._asdict(),
        "why_no_money": "" if answer.wish.price else NO_PRICE,
        "tasks": list(answer.table.tasks),
        "cells": [
            _cell_facts(answer, c, c in answer.picks) for c in (*answer.picks, *answer.others)
        ],
        "guides": guide_lines.facts(answer),
        "caveats": list(answer.caveats),
        "to_find_out": list(answer.run),
    }


def _cell_facts(answer: Answer, c: Candidate, picked: bool) -> dict[str, Any]:
    behind, costs = c.behind.estimate if c.behind else None, answer.wish.costs
    return {
        "cell": c.title,
        "picked": picked,
        "state": state(answer, c),
        "score": c.score and c.score.mean,
        "against_best": behind and behind.mean,
        "interval": [behind.low, behind.high] if behind and behind.half_width is not None else None,
        "money": None,
        **{cost.figure: c.figures[key] for key, cost in costs.items()},
        "largest_of_a_task": {cost.figure: c.largest[key] for key, cost in costs.items()},
        "seeds": c.seeds,
        "jobs_ok": c.ok,
        "jobs": c.jobs,
    }
