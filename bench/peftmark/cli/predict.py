"""The command `predict`: what a trained adapter says of new rows."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.cli.export_adapter import add_which_adapter, found_by
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.own.new_rows import NewRows

NAME = "predict"
HELP = "what a trained adapter says of new rows, read as its task's rows were"
ENDS = (".csv", ".tsv", ".jsonl")


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which adapter, and which rows."""
    add_which_adapter(sub)
    sub.add_argument(
        "--input", type=Path, required=True, metavar="FILE", help="rows; labels may be missing"
    )
    sub.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"where to ({', '.join(ENDS)}; default: CSV on standard output)",
    )


def run(options: argparse.Namespace) -> int:
    """Read the rows, have the model say what it makes of them, write it by line."""
    from peftmark.core.files import write_all
    from peftmark.core.shown import plain, plural
    from peftmark.own.new_rows import columns_of, read_new
    from peftmark.run.kept_models import predict

    _check_output(options)
    suite, found = found_by(options)
    name = found.kept.job.task
    own = suite.file.tasks.get(name)
    declared = own if own is not None else columns_of(found.kept.job.task_facts)
    new = read_new(options.input, declared)
    for line in new.told():
        print(f"Not read: {line}.", file=sys.stderr)
    said = predict(found, suite, options.mirror, [row for row in new.rows if row is not None])
    rows = list(by_line(new, said))
    form = options.output.suffix if options.output else ".jsonl" if options.json else ".csv"
    text = written(rows, form, declared.separator_of_labels)
    if options.output is None:
        sys.stdout.write(text)
        return Exit.OK
    write_all({options.output: text})
    print(f"{plain(found.title)}: {plural(len(said), 'row')}. Wrote {options.output}")
    return Exit.OK


def _check_output(options: argparse.Namespace) -> None:
    """
    Raises:
        UserError: the output has no known end, or is the input.
    """
    output = options.output
    if output is None:
        return
    if output.suffix not in ENDS:
        raise UserError(
            f"--output {output}: the end of its name says no form that is known",
            f"Known are {', '.join(ENDS)}.",
        )
    if output.exists() and options.input.exists() and output.samefile(options.input):
        raise UserError(f"--output {output} is the input", "Name another file.")


def by_line(new: NewRows, said: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What was said of each row with its line; of a row that wasn't read nothing."""
    answers = iter(said)
    for line, row in zip(new.lines, new.rows, strict=True):
        yield {"line": line, **(next(answers) if row is not None else {"prediction": None})}


def written(rows: Sequence[Mapping[str, Any]], form: str, between: str) -> str:
    """Rows as text.

    Args:
        form: .csv, .tsv or .jsonl.
        between: what stands between the labels of a row.
    """
    if form == ".jsonl":
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    flat = [_flat(row, between) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(
        text, names, delimiter="\t" if form == ".tsv" else ",", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Mapping[str, Any], between: str) -> dict[str, Any]:
    """A row with a column for the probability of each of several labels."""
    found = dict(row)
    if isinstance(found["prediction"], list):
        found["prediction"] = between.join(found["prediction"])
    chances = found.pop("probability", None)
    if isinstance(chances, dict):
        return found | {f"probability of {name}": share for name, share in chances.items()}
    return found if chances is None else found | {"probability": chances}
