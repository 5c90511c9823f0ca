"""The command `new`: a suite for a file of one's own, written after a look at it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.cli.inspect import add_columns, declared, tokenizer_of
from peftmark.cli.options import add_suites
from peftmark.core.errors import Exit, UserError
from peftmark.core.shown import quoted

if TYPE_CHECKING:
    from peftmark.sources.stored_form import StoredForm

NAME = "new"
HELP = "write a suite for rows of your own; what you don't say is guessed and told"
METHODS = {False: ("lora", "full", "head", "bag-of-words", "embeddings"), True: ("lora", "base")}
"""For encoders and for causal language models: an adapter, and lines to hold it against."""
OR_FORCE = ", or pass --force"
READ_AS = ("classifier", "language-model")


def add_options(sub: argparse.ArgumentParser) -> None:
    """Name, file, and what its columns are."""
    sub.add_argument("name", help="name of the suite and of its task")
    sub.add_argument("--data", type=Path, required=True, metavar="FILE", help="a file of rows")
    add_columns(sub)
    sub.add_argument(
        "--model",
        metavar="NAME",
        help="the model to fine-tune: a name (see: peftmark list), or the folder of one of yours",
    )
    sub.add_argument(
        "--read-as",
        choices=READ_AS,
        help="what your own model is taken for: under a fresh classifier, or to write text; "
        "without it, what its config.json says",
    )
    add_suites(sub)
    sub.add_argument("--force", action="store_true", help="write over a suite of that name")


def run(options: argparse.Namespace) -> int:
    """Look at the file, write the suite, name the next command."""
    from peftmark.core.files import write_all
    from peftmark.own.look import lines, look
    from peftmark.own.read import read_own
    from peftmark.own.suite_text import default_model, in_form, recipe_lines, suite_text
    from peftmark.sources.assets import default_cache
    from peftmark.suite.short_form import batch_of_few

    name = options.name
    if not str(options.data).isprintable():
        raise UserError(
            f"--data: the file's name {quoted(str(options.data))} holds what can't be printed",
            "Rename it: letters, digits and what UTF-8 has.",
        )
    path = place(name, options.suites, options.force)
    found, task = declared(options, options.data)
    model = options.model or default_model(task.kind)
    causal, form = check_model(model, task.kind, options.read_as)
    own = read_own(name, task, [Path.cwd()], default_cache())
    keys: dict[str, Any] = {**found.keys, "train": str(options.data)}
    methods = in_form(METHODS[causal], form)
    rows = own.task.train_rows
    batch = batch_of_few(rows)
    more = recipe_lines(form, *([] if batch is None else [f"batch_size: {batch}"]))
    if batch is not None:
        more = [f"{line}  # of {rows} training rows" for line in more]
    text = suite_text(name, keys, model, methods, found.why, options.read_as, more)
    write_all({path: text})
    if options.json:
        print(json.dumps({"suite": str(path), "declared": keys, "why": list(found.why)}, indent=2))
        return Exit.OK
    for reason in found.why:
        print(f"Guessed: {reason}.")
    for line in lines(look(own, tokenizer_of(model, task.kind))):
        print(line)
    made = f"  make bench SUITE={name}\nor\n" if Path("Makefile").is_file() else ""
    print(f"\nWrote {path}. Next:\n{made}  {_command(options)}")
    return Exit.OK


def _command(options: argparse.Namespace) -> str:
    import shlex

    where = f" --suites {shlex.quote(str(options.suites))}" if options.suites else ""
    return f"peftmark run {options.name}{where}"


def place(name: str, suites: Path | None, force: bool, remedy: str = OR_FORCE) -> Path:
    """Where a suite is written.

    Args:
        suites: the user's folder of suites.
        force: whether another of that name may be written over, or hidden.
        remedy: what else to do about a name that is taken.

    Raises:
        UserError: the name can't be a suite's or a task's, or there is such a suite.
    """
    from peftmark.catalog.tasks import TASKS
    from peftmark.core.files import SUITE_NAME
    from peftmark.core.shown import quoted
    from peftmark.suite.checks import suite_folders
    from peftmark.suite.load import RESERVED

    if not SUITE_NAME.fullmatch(name):
        raise UserError(
            f"suite {quoted(name)}: a suite is named by lower-case letters, digits, - and _, at "
            "most 64",
            "Choose such a name, such as tickets.",
        )
    if name in RESERVED:
        raise UserError(f"no suite can be named {name!r}", "Its results have another meaning.")
    if name in TASKS:
        what = f"{name!r} is a task of the catalogue"
        raise UserError(what, f"Choose another name, such as my-{name}.")
    path = (suites or Path("suites")) / f"{name}.yaml"
    if (path.exists() or path.is_symlink()) and not force:
        raise UserError(f"there is a suite {path}", f"Choose another name{remedy}.")
    if (suite_folders(None)[-1] / path.name).is_file() and not force:
        what = f"{name!r} is a suite of peftmark's, which yours would hide"
        raise UserError(what, f"Choose another name, such as my-{name}{remedy}.")
    return path


def check_model(name: str, kind: str, asked: str | None) -> tuple[bool, StoredForm | None]:
    """Whether a model is a causal language model, and how its weights are quantised already.

    Args:
        asked: what `--read-as` says; None for what its configuration says.

    Raises:
        UserError: there is no such model, or it doesn't read tasks of the kind.
    """
    from peftmark.catalog.models import MODELS, read_as
    from peftmark.own.suite_text import reads

    if asked is not None and name in MODELS:
        raise UserError(
            f"--read-as {asked}: {name} is a model of the catalogue, which says what it is",
            "Leave the option out, or name a folder of yours as --model.",
        )
    causal, form = (MODELS[name].causal, None) if name in MODELS else _own(name, asked)
    if not reads(causal, kind):
        fit = [key for key, one in MODELS.items() if reads(one.causal, kind)]
        raise UserError(
            f"--model {name}: {read_as(causal)}s don't read tasks of kind {kind}",
            f"Those that do: {', '.join(fit)}.",
        )
    return causal, form


def _own(name: str, asked: str | None) -> tuple[bool, StoredForm | None]:
    """What `check_model` tells of the user's own model; nothing but its configuration is read, or
    fetched.

    Raises:
        UserError: there is none, or it can't be read.
    """
    from peftmark.catalog.models import MODELS
    from peftmark.own.declared_model import (
        HUB,
        OwnModel,
        inline_declared,
        inline_fault,
        inline_key,
        is_inline,
    )
    from peftmark.own.model import told_of

    if not is_inline(name):
        raise UserError(
            f"--model {name}: unknown",
            f"Known are {', '.join(MODELS)}; a folder is given with a slash, such as ./{name}, and "
            f"a model of the hub as {HUB}owner/name@ and 40 hexadecimal digits.",
        )
    if fault := inline_fault(name):
        raise UserError(f"--model {name}: {fault}", "Name a folder, or a model of the hub.")
    declared = OwnModel.model_validate({**inline_declared(name), "read_as": asked})
    return told_of(inline_key(name), declared, [Path.cwd()])
