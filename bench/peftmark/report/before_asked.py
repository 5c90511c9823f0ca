"""From the options of `peftmark recommend` to what is known before any run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import get_args

from peftmark.advice.candidates import Wish
from peftmark.advice.rank_rule import made, ranks
from peftmark.advice.recommend import Answer
from peftmark.advice.situation import Situation, elsewhere
from peftmark.catalog.models import MODELS
from peftmark.catalog.task import TaskKind
from peftmark.catalog.tasks import TASKS
from peftmark.core.amounts import parse_count
from peftmark.core.errors import UserError
from peftmark.machine.gpus import device
from peftmark.own.suite_text import default_model
from peftmark.report.before import Before
from peftmark.run.foresee import foresee, parameters_of, shape_of

Heard = Callable[[int, int], None]


def known_before(
    answers: Sequence[Answer],
    model: str | None,
    task: str | None,
    rows: str | None,
    memory: str | None,
    unused: Sequence[str] = (),
    heard: Heard = lambda done, total: None,
    heard_time: Heard = lambda done, total: None,
) -> Before:
    """What is known before a run.

    Args:
        answers: of rows that are of something else; none where there are no rows.
        model, task, rows, memory: options as written; None where they were left out.
        unused: options that were given and that only rows can answer.
        heard, heard_time: told how many of how many steps are predicted.

    Raises:
        UserError: a value that can't be, or a model that reads no such task.
    """
    tables = [answer.table for answer in answers]
    kind = _kind(task, answers)
    assumed = []
    if model is None:
        model = default_model(kind or "classification")
        assumed.append(f"the model {model}, for want of --model")
    shape, causal = shape_of(model, kind)
    if kind is None:
        kind = "instruction" if causal else "classification"
        assumed.append(f"a task of kind {kind}, for want of --task")
    gpu = None if memory is None else device(memory)
    count = None if rows is None else parse_count("--rows", rows)
    known = MODELS[model].parameters if model in MODELS else parameters_of(shape, causal, kind)
    gigabytes = None if gpu is None else gpu.memory_bytes / 1e9
    rule = ranks(made(kind), count, known, gigabytes)
    found, recipe = foresee(shape, causal, kind, rule.middle, gpu, heard, heard_time)
    has = Situation(
        model=model,
        causal=causal,
        parameters=known,
        kind=kind,
        task=task if task in TASKS or (task and task not in get_args(TaskKind)) else "",
        rows=count,
        device=gpu,
        assumed=tuple(assumed),
    )
    wish = answers[0].wish if answers else Wish()
    return Before(
        has=has,
        why=_why(answers),
        foreseen=tuple(found),
        near=elsewhere(tables, has, wish),
        rule=rule,
        recipe=recipe,
        run=tuple(_commands(model, memory)),
        unused=tuple(unused),
    )


def _kind(task: str | None, answers: Sequence[Answer]) -> TaskKind | None:
    """The kind of task that was asked for; None where nothing was said.

    Raises:
        UserError: no such kind or task.
    """
    if task is None:
        return None
    if task in TASKS:
        return TASKS[task].kind
    kinds: tuple[TaskKind, ...] = tuple(k for k in get_args(TaskKind) if k != "ranking")
    for kind in kinds:
        if task == kind:
            return kind
    for answer in answers:
        if task in answer.table.tasks:
            known = answer.table.example(task).known_task
            return known.kind if known is not None else None
    raise UserError(f"--task: found {task!r}", f"Allowed: {', '.join((*kinds, *TASKS))}.")


def _why(answers: Sequence[Answer]) -> str:
    """Why no rows answer."""
    if not answers:
        return "No rows are here."
    return answers[0].reasons[0]


def _commands(model: str, memory: str | None) -> list[str]:
    """What would measure it."""
    named = ["--model", model] if model in MODELS or "/" in model or ":" in model else []
    limit = ["--memory", memory] if memory else []
    text = shlex.join([*named, *limit])
    first = f"peftmark try YOUR_FILE {text}".rstrip()
    told = [f"On your rows: {first}"]
    if not named:
        told.append(
            f"{model} is known here by its shape alone: give its folder, or hub:owner/name@ and 40 "
            "hexadecimal digits, as --model."
        )
    told.append("On ours: make bench SUITE=glue, or another suite of `peftmark list`.")
    return told
