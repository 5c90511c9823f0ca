"""What `peftmark recommend` reads and prints: results folders and a wish, to answers as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from peftmark.advice import plain_lines, training_lines
from peftmark.advice.candidates import (
    COSTS,
    Candidate,
    Wish,
    points,
    seeds_wanted,
    short_standing,
    standing_text,
    to_the_best,
)
from peftmark.advice.recommend import Answer, recommend_all, train_rows
from peftmark.analysis.machines import sentence
from peftmark.analysis.table import ResultTable, build
from peftmark.catalog.task import TaskKind
from peftmark.catalog.tasks import TASKS
from peftmark.core.amounts import parse_count, parse_points, parse_seconds, parse_size
from peftmark.core.errors import UserError
from peftmark.record.job import PROTOCOL, Job, Record
from peftmark.render import words
from peftmark.render.plain_table import aligned
from peftmark.storage.store import Contents, Store
from peftmark.storage.unread import no_results, together, unread

KINDS = tuple(kind for kind in get_args(TaskKind) if kind != "ranking")


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
) -> Advised:
    """Read the results and answer.

    Args:
        results: the results folder, with one folder a suite.
        suite: which of them; None for all of them.
        source: a folder with `parts/` to read in place of those.
        profile: the profile whose rows count; None for each of them apart.
        memory: `--memory` as written, and so on.

    Raises:
        UserError: a value that can't be, or no results.
    """
    wish = Wish(
        memory=None if memory is None else parse_size("--memory", memory),
        rows=None if rows is None else parse_count("--rows", rows),
        task=task or "",
        max_drop=None if max_drop is None else parse_points("--max-drop", max_drop),
        parameters=(
            None if max_parameters is None else parse_count("--max-parameters", max_parameters)
        ),
        seconds=None if max_time is None else parse_seconds("--max-time", max_time),
        model=model or "",
    )
    tables: list[ResultTable] = []
    notes: list[str] = []
    looked: list[Contents] = []
    for folder in _folders(results, suite, source):
        contents = Store(folder.parent, folder.name).read()
        found, left_out = tables_of(contents.rows)
        tables += found
        looked.append(contents)
        notes += [f"{folder}: {clause}." for clause in unread(contents)]
        notes += [f"{folder}: {note}" for note in left_out]
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
        raise no_results(where, together(looked), _to_run(suite), "results of finished jobs")
    return Advised(recommend_all(chosen, wish), tuple(notes))


def _to_run(suite: str | None) -> str:
    return f"Run some first: peftmark run {suite or 'SUITE'}"


def _folders(results: Path, suite: str | None, source: Path | None) -> list[Path]:
    if source is not None:
        if not (source / "parts").is_dir():
            raise UserError(
                f"--from: {source} has no folder parts",
                "Name a folder of one suite, such as results/glue.",
            )
        return [source.absolute()]
    folders = [results / suite] if suite else sorted(results.glob("*"))
    found = [f for f in folders if (f / "parts").is_dir()]
    if not found:
        raise UserError(f"{results / suite if suite else results} holds no results", _to_run(suite))
    return found


def tables_of(records: Sequence[Record]) -> tuple[list[ResultTable], list[str]]:
    """Rows as tables, one for each suite, profile, model and device, and what was left out.

    Only rows of the newest version of a suite and of today's procedure count. Of two jobs of the
    same cell, task and seed (an older recipe) the later counts, on every machine that ran it.
    Trials enter no figure; they tell where learning rates come from.
    """
    reported = [r for r in records if r.job.purpose == "report"]
    newest: dict[str, int] = {}
    for r in reported:
        newest[r.job.suite] = max(newest.get(r.job.suite, 0), r.job.suite_version)
    groups: dict[tuple[str, ...], dict[tuple[object, ...], list[Record]]] = {}
    old = replaced = 0
    for r in sorted(reported, key=lambda r: (r.finished_at, r.job.job_id)):
        job = r.job
        if job.protocol != PROTOCOL or job.suite_version != newest[job.suite]:
            old += 1
            continue
        rows = groups.setdefault(_kind(job), {}).setdefault((job.cell, job.task, job.seed), [])
        if rows and rows[-1].job.job_id != job.job_id:
            replaced += len(rows)
            rows.clear()
        rows.append(r)
    left = {"of an older suite or procedure": old, "that a later recipe replaced": replaced}
    notes = [f"{count} rows {which} are left out." for which, count in left.items() if count]
    trials = [
        r
        for r in records
        if r.job.purpose == "tuning"
        and (r.job.protocol, r.job.suite_version) == (PROTOCOL, newest.get(r.job.suite))
    ]
    tables = [
        _table(list(chain(*groups[key].values())), [r for r in trials if _kind(r.job) == key])
        for key in sorted(groups)
    ]
    return tables, [*notes, *filter(None, (sentence(t.machines) for t in tables))]


def _kind(job: Job) -> tuple[str, ...]:
    """What rows of one table share."""
    return job.suite, job.profile, job.model, job.model_identity, job.device


def _table(rows: Sequence[Record], trials: Sequence[Record]) -> ResultTable:
    ordered = sorted(rows, key=lambda r: (r.job.task, r.job.method, r.job.seed, r.job.job_id))
    cells = [r.job.cell for r in ordered]
    reference = next((c for c in cells if c.method == "lora"), cells[0])
    places = {(r.job.cell, r.job.task) for r in ordered}
    ordered += [r for r in trials if (r.job.cell, r.job.task) in places]
    return build(ordered, [r.job for r in ordered], reference)


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
            f"Undecided: no cell that fits is shown to stay {within}; {first.title} may, at "
            f"{standing_text(first)}{seeds_wanted(first, wish)}."
        )
    cost = answer.cost
    if cost is None:
        return (
            f"{first.title} has the highest score of the cells shown to stay {within}; they can't "
            f"be compared by {wish.cost.title}."
        )
    figure = first.figures[cost.key]
    amount = f" ({cost.text(figure)})" if figure is not None else ""
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
        if c.keeps == "possible" and mine is not None and (c.figures[key] or mine) < mine
    ]
    if not less:
        return ""
    names = ", ".join(f"{c.title}{seeds_wanted(c, answer.wish)}" for c in less[:3])
    return f" Perhaps, but not shown: {names}."


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
    head = (
        "cell",
        "verdict",
        "score",
        to_the_best(answer.table.scale.in_points),
        *(c.title for c in COSTS.values()),
        "seeds",
        "jobs",
    )
    metric = answer.table.scale.metric
    rows = [
        (c.title, state(answer, c), *_figures(c, metric)) for c in (*answer.picks, *answer.others)
    ]
    return aligned(head, rows, numbers=(4, 5, 6, 7, 8))


def _figures(c: Candidate, metric: str) -> tuple[str, ...]:
    score = "-" if c.score is None else words.plus_minus(c.score, metric)
    costs = ["-" if (v := c.figures[key]) is None else cost.text(v) for key, cost in COSTS.items()]
    against = short_standing(c) if c.score is not None else "-"
    return score, against, *costs, str(c.seeds), f"{c.ok}/{c.jobs}"


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
        return "learned too little"
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
        "tasks": list(answer.table.tasks),
        "cells": [
            _cell_facts(answer, c, c in answer.picks) for c in (*answer.picks, *answer.others)
        ],
        "caveats": list(answer.caveats),
        "to_find_out": list(answer.run),
    }


def _cell_facts(answer: Answer, c: Candidate, picked: bool) -> dict[str, Any]:
    behind = c.behind.estimate if c.behind else None
    return {
        "cell": c.title,
        "picked": picked,
        "state": state(answer, c),
        "score": c.score and c.score.mean,
        "against_best": behind and behind.mean,
        "interval": [behind.low, behind.high] if behind and behind.half_width is not None else None,
        **{cost.name: c.figures[key] for key, cost in COSTS.items()},
        "seeds": c.seeds,
        "jobs_ok": c.ok,
        "jobs": c.jobs,
    }
