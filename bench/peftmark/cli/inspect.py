"""The command `inspect`: what is in rows of one's own before anything is trained on them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.cli.options import add_suites, count
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.own.declared import OwnTask
    from peftmark.own.guess import Guess
    from peftmark.own.look import Look
    from peftmark.own.read import OwnRows
    from peftmark.suite.load import Suite

NAME = "inspect"
HELP = "look at rows of your own: classes, copies, lengths, and what to beware of"
SHOWN_ROWS = 3

KINDS = (
    "classification",
    "multi-label",
    "regression",
    "multiple-choice",
    "instruction",
    "language",
)


GIVEN = (
    "kind",
    "text",
    "label",
    "choices",
    "answer",
    "messages",
    "prompt",
    "completion",
    "eval",
    "separator",
    "encoding",
    "drop",
)
"""Options that are keys of a declaration as they stand."""


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which file, and what its columns are."""
    sub.add_argument(
        "file",
        type=Path,
        metavar="FILE|SUITE",
        help="rows as CSV, TSV, JSON lines, Parquet or Arrow, or a suite with tasks of its own",
    )
    add_columns(sub)
    add_suites(sub)
    sub.add_argument(
        "--model",
        default=None,
        metavar="NAME",
        help="whose tokens are counted: a name, or the folder of one of yours",
    )
    sub.add_argument("--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json instead")
    sub.add_argument("--max-length", type=count, metavar="TOKENS", help="where rows are cut")
    sub.add_argument("--show-texts", action="store_true", help=f"show the first {SHOWN_ROWS} rows")


def add_columns(sub: argparse.ArgumentParser) -> None:
    """What the columns of a file are; what is left out is guessed."""
    sub.add_argument("--kind", choices=(*KINDS, "text"), help="kind of task")
    sub.add_argument("--text", action="append", metavar="COLUMN", help="the text (twice for two)")
    sub.add_argument("--label", action="append", metavar="COLUMN", help="the label or score")
    sub.add_argument("--choices", action="append", metavar="COLUMN", help="choices of a row")
    sub.add_argument("--answer", metavar="COLUMN", help="the right choice")
    sub.add_argument("--messages", metavar="COLUMN", help="conversations")
    sub.add_argument("--prompt", metavar="COLUMN", help="prompts, with --completion")
    sub.add_argument("--completion", metavar="COLUMN", help="what answers the prompts")
    sub.add_argument("--labels", metavar="A,B,...", help="the classes in order")
    sub.add_argument("--eval", action="append", metavar="FILE", help="rows to evaluate on")
    sub.add_argument("--separator", metavar="CHARACTER", help="what separates columns of a CSV")
    sub.add_argument("--encoding", metavar="NAME", help="of a file that is not UTF-8")
    sub.add_argument(
        "--drop",
        action="append",
        choices=("empty", "unlabelled"),
        help="leave such rows out and count them (repeatable)",
    )


def run(options: argparse.Namespace) -> int:
    """What is in the file, or in every task of a suite's own."""
    from peftmark.own.look import MAX_LENGTH, lines, look

    given = MAX_LENGTH if options.max_length is None else options.max_length
    if given < 1:
        raise UserError(f"--max-length {given}: no row fits", "Give a number from 1.")
    if options.file.exists() or not _is_suite(options):
        why, model, every = _of_file(options, given)
    else:
        why, model, every = _of_suite(options, options.max_length)
    seen = [
        look(own, options.tokenizer or tokenizer_of(model, own.task.kind), length)
        for own, length in every
    ]
    if options.json:
        told = [facts(one) for one in seen]
        print(json.dumps(told[0] if len(told) == 1 else told, indent=2, ensure_ascii=True))
        return Exit.OK
    for reason in why:
        print(f"Guessed: {reason}.")
    for one, (own, _) in zip(seen, every, strict=True):
        for line in (*lines(one), *(texts(own) if options.show_texts else ())):
            print(line)
    return Exit.OK


Rows = tuple[Sequence[str], str | None, list[tuple["OwnRows", int]]]
"""What was guessed, the model whose tokens are counted, and rows with where they are cut."""


def _is_suite(options: argparse.Namespace) -> bool:
    from peftmark.suite.load import suite_names

    return str(options.file) in suite_names(options.suites)


def _of_file(options: argparse.Namespace, length: int) -> Rows:
    from peftmark.own.read import read_own
    from peftmark.sources.assets import default_cache

    found, task = declared(options, options.file)
    own = read_own(_name(options.file), task, [Path.cwd()], default_cache())
    return found.why, options.model, [(own, length)]


def _of_suite(options: argparse.Namespace, length: int | None) -> Rows:
    """The tasks of a suite's own, cut where its first profile cuts them.

    Raises:
        UserError: it has none, or options say what a suite says itself.
    """
    from peftmark.run.own_tasks import read_own_tasks
    from peftmark.suite.load import load_suite
    from peftmark.suite.recipes import DEFAULTS

    if said := [f"--{key}" for key in _given(options)]:
        raise UserError(
            f"{', '.join(said)}: suite {options.file} says itself what its columns are",
            "Leave them out, or give a file.",
        )
    suite = load_suite(str(options.file), options.suites)
    every: list[tuple[OwnRows, int]] = []
    for name, profile in suite.profiles.items():
        suite, rows = read_own_tasks(suite, name)  # each once, by the first profile that has it
        cut = length or profile.recipe.max_length or suite.file.recipe.max_length
        every += [(own, cut or DEFAULTS["max_length"]) for own in rows.values()]
    if not every:
        raise UserError(
            f"suite {options.file} has no task of its own", "Give a file, or another suite."
        )
    model = options.model or _typed(suite)
    return (), model, every


def _typed(suite: Suite) -> str:
    """The model of a suite's first profile, one of its own as it would be typed."""
    from peftmark.own.declared_model import HUB
    from peftmark.own.places import find

    name = next(iter(suite.profiles.values())).model
    own = suite.file.models.get(name)
    if own is None:
        return name
    if own.hub is not None:
        return f"{HUB}{own.hub}"
    return f"{find(str(own.path), suite.places, folder=True)}/"


def declared(options: argparse.Namespace, file: Path) -> tuple[Guess, OwnTask]:
    """What was guessed of a file, and the declaration of its task.

    Raises:
        UserError: the file can't be read, allows several readings, or the options don't fit.
    """
    from pydantic import ValidationError

    from peftmark.own.declared import OwnTask
    from peftmark.own.guess import guess
    from peftmark.own.places import find
    from peftmark.own.tables import read_table, saved_folder, split_of
    from peftmark.suite.faults import fault_lines

    keys = _given(options)
    path = find(str(file), [Path.cwd()])
    try:
        OwnTask(kind="language", train=(str(file),), text=("-",), **_reading(keys))
        if path.is_dir():
            table = split_of(path, saved_folder(path), "train")
        else:
            table = read_table(path, keys.get("separator"), keys.get("encoding"))
        found = guess(table, keys)
        return found, OwnTask.model_validate({**found.keys, "train": str(file)})
    except ValidationError as error:
        faults = [line.removeprefix("file: ") for line in fault_lines(error)]
        # What is wrong with several options together begins with no key.
        told = "\n".join(f"  --{f}" if f.partition(":")[0] in keys else f"  {f}" for f in faults)
        raise UserError(f"{file}: what was asked for doesn't fit:\n{told}") from error


def _reading(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: keys[key] for key in ("separator", "encoding") if key in keys}


def _given(options: argparse.Namespace) -> dict[str, Any]:
    keys = {name: getattr(options, name) for name in GIVEN}
    if keys["separator"] == "\\t":
        keys["separator"] = "\t"
    if options.labels is not None:
        keys["labels"] = [label.strip() for label in options.labels.split(",")]
    single = {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in keys.items()}
    several = {key: keys[key] for key in ("drop", "labels") if keys.get(key)}
    return {key: value for key, value in (single | several).items() if value is not None}


def tokenizer_of(model: str | None, kind: str) -> Path | None:
    """The tokenizer of a model, or of the kind's usual one, if it is at hand; nothing is fetched.

    Args:
        model: its name, or the folder of one's own.

    Raises:
        UserError: no model has that name, or there is no such folder.
    """
    from peftmark.catalog.models import MODELS
    from peftmark.own.declared_model import HUB, is_inline
    from peftmark.own.look import tokenizer_in
    from peftmark.own.suite_text import default_model
    from peftmark.sources.assets import default_cache

    key = model or default_model(kind)
    if is_inline(key):
        return None if key.startswith(HUB) else _tokenizer_of_folder(key)
    if key not in MODELS:
        raise UserError(
            f"--model {key}: unknown",
            f"Known are {', '.join(MODELS)}; a folder is given with a slash, such as ./{key}.",
        )
    return tokenizer_in(default_cache(), [f"{p.name}-{p.version}" for p in MODELS[key].packages])


def _tokenizer_of_folder(name: str) -> Path | None:
    from peftmark.own.places import find

    file = find(name, [Path.cwd()], folder=True) / "tokenizer.json"
    return file if file.is_file() else None


def _name(file: Path) -> str:
    from peftmark.core.shown import plain

    return plain(file.name.split(".")[0]) or "rows"


def facts(seen: Look) -> dict[str, Any]:
    """A look as JSON has it."""
    told = asdict(seen)
    task = told.pop("task")
    kept = ("key", "title", "kind", "labels", "metric", "also", "train_rows", "eval_rows")
    return {**{key: task[key] for key in kept}, "fingerprint": task["fingerprint"], **told}


def texts(own: OwnRows) -> list[str]:
    """The first rows as lines, without what a terminal would act on; only on demand."""
    from peftmark.core.shown import plain
    from peftmark.own.look import texts_of

    lines = [""]
    for number, row in enumerate(own.data.train[:SHOWN_ROWS], 1):
        shown = " | ".join(plain(" ".join(text.split()))[:200] for text in texts_of(row))
        lines.append(f"  training row {number}: {shown}")
    return lines
