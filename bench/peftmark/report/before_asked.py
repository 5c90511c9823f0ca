"""From the options of `peftmark recommend` to what is known before any run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peftmark.advice.answer import KINDS
from peftmark.advice.candidates import Wish
from peftmark.advice.rank_rule import made, ranks
from peftmark.advice.recommend import Answer
from peftmark.advice.situation import Situation, elsewhere
from peftmark.catalog.models import MODELS
from peftmark.catalog.task import TaskKind
from peftmark.catalog.tasks import TASKS
from peftmark.core.amounts import parse_count
from peftmark.core.errors import UserError
from peftmark.core.shown import plain
from peftmark.machine.gpus import device
from peftmark.own.declared_model import inline_fault, is_inline
from peftmark.own.suite_text import default_model
from peftmark.report.before import Before
from peftmark.run.foresee import TASKS as TASKS_OF
from peftmark.run.foresee import foresee, parameters_of, shape_of

Heard = Callable[[int, int], None]


def known_before(
    answers: Sequence[Answer],
    model: str | None,
    task: str | None,
    rows: str | None,
    memory: str | None,
    most_parameters: str | None = None,
    unused: Sequence[str] = (),
    why: str = "",
    heard: Heard = lambda done, total: None,
    heard_time: Heard = lambda done, total: None,
) -> Before:
    """What is known before a run.

    Args:
        answers: of rows that are of something else; none where there are no rows.
        model, task, rows, memory, most_parameters: options as written; None where they were left
            out.
        unused: options that were given and that only rows can answer.
        why: why there are no answers, as a sentence; empty where there are.
        heard, heard_time: told how many of how many steps are predicted.

    Raises:
        UserError: a value that can't be, or a model that reads no such task.
    """
    most = None if most_parameters is None else parse_count("--max-parameters", most_parameters)
    has, shape = _situation(model, _kind(task, answers), task, rows, memory)
    gigabytes = None if has.device is None else has.device.memory_bytes / 1e9
    rule = ranks(made(has.kind), has.rows, has.parameters, gigabytes)
    found, recipe, known_rows = foresee(
        shape, has.causal, has.kind, rule.middle, has.device, heard, heard_time
    )
    wish = answers[0].wish if answers else Wish()
    return Before(
        has=has,
        why=why or _why(answers),
        foreseen=tuple(found),
        near=elsewhere([answer.table for answer in answers], has, wish),
        rule=rule,
        recipe=recipe,
        run=tuple(_commands(has.model, memory, has.causal)),
        lengths=f"rows as long as those of {TASKS_OF[has.kind]}" if known_rows else LONGEST,
        most=most,
        unused=tuple(unused),
    )


def _situation(
    model: str | None, kind: TaskKind | None, task: str | None, rows: str | None, memory: str | None
) -> tuple[Situation, Mapping[str, Any] | None]:
    """What the user has, with what is taken for what wasn't said, and the model's configuration.

    Raises:
        UserError: a value that can't be, or a model that reads no such task.
    """
    assumed = []
    if model is None:
        model = default_model(kind or "classification")
        assumed.append(f"the model {model}, for want of --model")
    gpu = None if memory is None else device(memory)
    count = None if rows is None else parse_count("--rows", rows)
    shape, causal = shape_of(model, kind)
    if kind is None:
        kind = "instruction" if causal else "classification"
        assumed.append(f"a task of kind {kind}, for want of --task")
    known = MODELS[model].parameters if model in MODELS else parameters_of(shape)
    has = Situation(
        model=model,
        causal=causal,
        parameters=known,
        kind=kind,
        task="" if task in KINDS else task or "",
        rows=count,
        device=gpu,
        assumed=tuple(assumed),
    )
    return has, shape


def _kind(task: str | None, answers: Sequence[Answer]) -> TaskKind | None:
    """The kind of task that was asked for; None where nothing was said.

    Raises:
        UserError: no such kind or task.
    """
    if task is None:
        return None
    if task in TASKS:
        return TASKS[task].kind
    for kind in KINDS:
        if task == kind:
            return kind
    for answer in answers:
        if task in answer.table.tasks:
            known = answer.table.example(task).known_task
            return known.kind if known is not None else None
    raise UserError(f"--task: found {task!r}", f"Allowed: {', '.join((*KINDS, *TASKS))}.")


LONGEST = "the longest rows there may be"


def _why(answers: Sequence[Answer]) -> str:
    """Why no rows answer."""
    reasons = dict.fromkeys(answer.reasons[0] for answer in answers)
    if len(reasons) == 1:
        return next(iter(reasons))
    told = (f"{plain(a.table.jobs[0].suite)}: {a.reasons[0]}" for a in answers)
    return " ".join(("No rows are near enough.", *dict.fromkeys(told)))


def _commands(model: str, memory: str | None, causal: bool) -> list[str]:
    """What would measure it."""
    named = model in MODELS or (is_inline(model) and not inline_fault(model))
    limit = ["--memory", memory] if memory else []
    words = [*(["--model", model] if named else ["--model", "YOUR_MODEL"]), *limit]
    told = [f"On your rows: peftmark try YOUR_FILE {plain(shlex.join(words))}"]
    if not named:
        told.append(
            f"YOUR_MODEL is the folder with the weights of {plain(model)}, with a slash in its "
            "name, or hub:owner/name@ and 40 hexadecimal digits."
        )
    suite = "instruct" if causal else "glue"
    told.append(f"On ours: make bench SUITE={suite}, or another suite of `peftmark list`.")
    return told
