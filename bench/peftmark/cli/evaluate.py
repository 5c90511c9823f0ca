"""The command `evaluate`: trained adapters of language models, asked by a harness of others."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.cli.options import (
    OF_ALL,
    add_mirror,
    add_profile,
    add_results,
    add_suite,
    add_suites,
    count,
    count_from_zero,
)
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.run.evaluations import Answer, Question
    from peftmark.storage.evaluations import Evaluation, Score

NAME = "evaluate"
HELP = "what an evaluation harness says of trained adapters, or said of them"
HARNESSES = ("lm-eval",)
HEAD = ("adapter", "asked", "metric", "value", "stderr", "rows", "few-shot", "harness")


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which adapters, and what they are asked."""
    add_suite(sub)
    sub.add_argument(
        "--with", dest="harness", choices=HARNESSES, help="the harness (default: lm-eval)"
    )
    sub.add_argument(
        "--tasks",
        metavar="A,B",
        help="the harness's names of tasks; left out, the scores that are kept are printed",
    )
    sub.add_argument("--cell", metavar="NAME", help="only its adapters")
    sub.add_argument("--task", metavar="TASK", help="only adapters that were trained on it")
    sub.add_argument("--seed", type=count_from_zero, help="only adapters of this seed")
    sub.add_argument(
        "--fewshot",
        type=count_from_zero,
        metavar="N",
        help="solved rows before each (default: the task's)",
    )
    sub.add_argument(
        "--limit", type=count, metavar="N", help="only the first rows of each task: for a try"
    )
    sub.add_argument(
        "--batch-size", type=count, metavar="N", help="rows at once (default: 1, as lm-eval's)"
    )
    sub.add_argument(
        "--include", type=Path, metavar="DIR", help="a folder of lm-eval tasks of yours"
    )
    sub.add_argument(
        "--trust-code", action="store_true", help="run code that stands in the --include folder"
    )
    sub.add_argument(
        "--online", action="store_true", help="fetch what the tasks need from the Hugging Face Hub"
    )
    add_profile(sub, OF_ALL)
    add_suites(sub)
    add_mirror(sub)
    add_results(sub)


def run(options: argparse.Namespace) -> int:
    """Ask, or print what is kept."""
    from peftmark.storage.evaluations import FOLDER, Evaluations
    from peftmark.storage.store import Store
    from peftmark.suite.load import load_suite

    suite = load_suite(options.suite, options.suites)
    store = Store(options.results, suite.name)
    there = Evaluations(store.folder / FOLDER)
    if options.tasks is None:
        _check_no_question(options)
        return _show(there, options.json)
    from peftmark.core.shown import plain
    from peftmark.run.evaluations import adapters_of, ask

    wanted = _wanted(options)
    adapters = adapters_of(store, wanted)
    done: list[Evaluation] = []
    faults: list[str] = []

    def tell(answer: Answer) -> None:
        if answer.evaluation is None:
            faults.append(f"{answer.title}: {answer.fault}")
            print(plain(f"Not asked: {faults[-1]}"), file=sys.stderr)
            return
        there.add(answer.evaluation)
        done.append(answer.evaluation)
        if not options.json:
            print(line_of(answer.evaluation), flush=True)

    loads = ask(adapters, suite, options.mirror, _question(options), tell)
    if options.json:
        facts = [one.facts for one in done]
        told = {"bases": loads.bases, "models": loads.own, "faults": faults}
        print(json.dumps({"evaluations": facts, **told}, indent=2, ensure_ascii=False))
    elif done:
        print(f"{_counts(len(done), loads.bases, loads.own)} Kept in {there.folder}")
    if not done:
        raise UserError(f"{suite.name}: no adapter could be asked", "The lines above say why.")
    return Exit.INCOMPLETE if faults else Exit.OK


def _wanted(options: argparse.Namespace) -> Any:
    from peftmark.run.evaluations import Wanted

    return Wanted(options.cell, options.task, options.seed, options.profile)


def _question(options: argparse.Namespace) -> Question:
    from peftmark.run.evaluations import Question, read_names

    return Question(
        read_names(options.tasks),
        options.fewshot,
        options.limit,
        options.batch_size or 1,
        options.include,
        options.trust_code,
        options.online,
    )


def _check_no_question(options: argparse.Namespace) -> None:
    """
    Raises:
        UserError: there is more than which suite, and no task.
    """
    of_question = ("harness", "cell", "task", "seed", "fewshot", "limit", "batch_size", "include",
                   "trust_code", "online", "profile", "mirror")  # fmt: skip
    given = [name for name in of_question if getattr(options, name) not in (None, False)]
    if given:
        names = ", ".join(
            f"--{name.replace('_', '-')}".replace("harness", "with") for name in given
        )
        raise UserError(
            f"{names}: no task is asked for",
            "Add --tasks NAMES; without it the scores that are kept are printed.",
        )


# --- what is printed ------------------------------------------------------------------------------


def _counts(adapters: int, bases: int, own: int) -> str:
    from peftmark.core.shown import plural

    whole = f", {plural(own, 'whole model')} loaded" if own else ""
    return f"{plural(adapters, 'adapter')}, {plural(bases, 'base')} loaded{whole}."


def line_of(one: Evaluation) -> str:
    """An adapter and its scores in a line."""
    from peftmark.core.shown import plain

    said = [f"{score.task} {figure(score)}" for score in one.scores]
    return plain(f"{one.title}: {'; '.join(said) or 'no figure'}")


def figure(score: Score) -> str:
    """Metric, value and standard error, in the harness's own units."""
    error = "" if score.stderr is None else f" ± {score.stderr:.4f}"
    return f"{_metric(score)} {_number(score.value)}{error}"


def _metric(score: Score) -> str:
    return score.metric if score.filter in ("", "none") else f"{score.metric} ({score.filter})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _show(there: Any, as_json: bool) -> int:
    """Print what is kept."""
    from peftmark.core.shown import plain
    from peftmark.render.plain_table import aligned

    if as_json:
        facts = [one.facts for one in there.entries()]
        print(json.dumps({"evaluations": facts}, indent=2, ensure_ascii=False))
        return Exit.OK
    rows = [[plain(cell) for cell in _row(one, score)] for one, score in there.newest()]
    if not rows:
        print(f"{there.folder}: no scores of a harness are kept. --tasks NAMES asks for some.")
        return Exit.OK
    print("\n".join(aligned(HEAD, rows, numbers=(3, 4, 5, 6))))
    return Exit.OK


def _row(one: Evaluation, score: Score) -> Sequence[str]:
    limit = one.settings.get("limit")
    return (
        one.title,
        f"{score.task} (first {limit:,} rows)" if limit is not None else score.task,
        _metric(score),
        _number(score.value),
        "" if score.stderr is None else f"{score.stderr:.4f}",
        "" if score.n is None else f"{score.n:,}",
        "" if score.fewshot is None else str(score.fewshot),
        f"{one.harness} {one.harness_version}",
    )
