"""Reference pages from code: the command line, the keys of a suite, exit codes, how we measure."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from peftmark.analysis.comparison import ALPHA, MARGIN
from peftmark.cli.parser import COMMANDS
from peftmark.docgen import exit_codes
from peftmark.report.answer import FEW_SEEDS
from peftmark.site import text
from peftmark.site.text import Cell
from peftmark.suite.schema import (
    AdaLoraLayer,
    CellName,
    MethodEntry,
    Profile,
    RecipeLayer,
    SuiteFile,
    TaskEntry,
)
from peftmark.suite.schema_runs import Decide, Tuning, Vary

WIDTH = 96
PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("A suite", SuiteFile),
    ("A profile", Profile),
    ("A method entry", MethodEntry),
    ("A task in a profile", TaskEntry),
    ("A recipe", RecipeLayer),
    ("AdaLoRA's part of a recipe", AdaLoraLayer),
    ("What a profile varies", Vary),
    ("How settings are chosen by trials", Tuning),
    ("When seeds are added", Decide),
    ("The name of a cell", CellName),
)
"""What a suite file is made of."""


def command_line() -> str:
    """Every command with its options, as its own help has them."""
    return text.page(
        "# Options of every command",
        "Every command as `peftmark COMMAND --help` prints it; all take `--json`.",
        *(block for command in COMMANDS for block in _command(command.NAME, command.HELP)),
    )


def _command(name: str, help_: str) -> Iterator[str]:
    command = next(c for c in COMMANDS if name == c.NAME)
    parser = argparse.ArgumentParser(
        prog=f"peftmark {name}",
        description=help_,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=WIDTH),
    )
    command.add_options(parser)
    yield f"## {name}"
    yield f"```text\n{parser.format_help().rstrip()}\n```"


def exit_code_page() -> str:
    """Every exit code with its meaning and what CI should do."""
    return text.page("# Exit codes", exit_codes.table().rstrip())


def suite_keys() -> str:
    """Every key that a suite file may have, by where it stands."""
    return text.page(
        "# Keys of a suite",
        "Every key as the code that reads suites has it; what each is for, with examples: "
        "[Suite files](../docs/suites.md).",
        *(block for title, model in PARTS for block in _part(title, model)),
    )


def _part(title: str, model: type[BaseModel]) -> Iterator[str]:
    said = _attributes(inspect.getdoc(model) or "")
    rows = [
        [
            Cell(field.alias or name),
            Cell(_type(model, name)),
            Cell(_default(field)),
            Cell(said.get(name, "")),
        ]
        for name, field in model.model_fields.items()
    ]
    yield f"## {title}"
    yield text.table(("key", "type", "default", "what it is"), rows, title)


def _attributes(doc: str) -> dict[str, str]:
    """Name -> text of the attributes that a docstring describes."""
    part = doc.partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", part, re.M)
    return {name: " ".join(told.split()) for name, told in found}


def _type(model: type[BaseModel], name: str) -> str:
    """A type as the code writes it, without what only a reader of code needs."""
    written = inspect.get_annotations(model).get(name, "")
    return re.sub(r"\s+", " ", str(written))


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "empty"
    value: Any = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None or value == "":
        return "none"
    if isinstance(value, BaseModel):
        return "empty"
    return str(value).lower() if isinstance(value, bool) else str(value)


def how_we_measure() -> str:
    """What a reader has to know of the figures, in one screen."""
    level = f"{100 * (1 - ALPHA):g} %"
    return text.page(
        "# How we measure",
        "\n".join(f"- **{what}**: {how}" for what, how in _rules(level)),
        "More: [Statistics](../docs/statistics.md), [Columns](../docs/columns.md), "
        "[Predicted memory](../docs/memory.md), [Randomness](../docs/randomness.md).",
    )


def _rules(level: str) -> tuple[tuple[str, str], ...]:
    return (
        (
            "One job, one process",
            "a method, size, quantization, task and seed is trained alone, under seeds of its own. "
            "One job of every run is run twice and must give the same bits.",
        ),
        (
            "Score",
            "one metric a task, after the last step, on rows that training never saw. Steps and "
            "rates are picked on rows cut from training, or the page says that they are not.",
        ),
        (
            "±",
            f"half of a {level} interval (Student's t) over seeds. It says nothing of other tasks "
            "or other rows.",
        ),
        (
            "Verdicts",
            f"cells are compared seed by seed. Higher, lower and equivalent (within {MARGIN:g}) "
            f"hold for all comparisons of a run together (Holm, {level}). Anything else is "
            "undecided, with the seeds that would decide.",
        ),
        (
            "Claims",
            "a verdict needs its whole interval on one side, and all intervals of a run hold "
            "together (Bonferroni).",
        ),
        (
            "Memory",
            "on a CPU the peak of all tensors alive at once, the same on every run; on a GPU the "
            "allocator's.",
        ),
        (
            "Time",
            "training steps alone, without the first ones. On a CPU it says nothing of a GPU.",
        ),
        ("Few seeds", f"up to {FEW_SEEDS} a report warns that they decide little."),
        ("Unknown", "a figure that nobody measured is empty, with its reason."),
    )
