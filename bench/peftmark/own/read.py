"""A task of one's own from its declaration: files found, read, checked, split and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from peftmark.catalog.prompts import template_of
from peftmark.catalog.task import Example, Task
from peftmark.core.errors import UserError
from peftmark.core.shown import plain, plural, quoted_list
from peftmark.own.declared import OwnTask
from peftmark.own.examples import check_values, classes_of, examples_of
from peftmark.own.hub import hub_splits
from peftmark.own.places import find
from peftmark.own.rows import Part, read_part, sheet_error
from peftmark.own.split import draw
from peftmark.own.table import Sheet, Table, below_each_other
from peftmark.own.tables import read_table, saved_folder, split_of
from peftmark.own.warn import UNEVEN, class_counts, uneven, warnings
from peftmark.sources.rows import TaskData, fingerprint

TRAIN_SPLIT = "train"
METRICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "multi-label": ("micro_f1", ("macro_f1",)),
    "regression": ("rmse", ("pearson", "spearmanr")),
    "multiple-choice": ("accuracy", ()),
    "instruction": ("rouge_l", ("exact_match", "completion_perplexity")),
    "language": ("log_likelihood", ("perplexity",)),
}
"""Metric of a kind and those beside it where none is declared; of classes see `_metrics`."""


@dataclass(frozen=True)
class OwnRows:
    """A task of one's own with its rows.

    Attributes:
        task: own, with counts, classes, metrics and fingerprint of these rows.
        notes: what was done with the rows, and what to beware of, a sentence each without a full
            stop; no text of a row stands in them.
        files: where the rows are from, as declared.
    """

    task: Task
    data: TaskData
    notes: tuple[str, ...]
    files: tuple[str, ...]


def read_own(name: str, declared: OwnTask, places: Sequence[Path], cache: Path) -> OwnRows:
    """Read and check the rows of a task.

    Args:
        name: the task's key.
        places: folders in which relative paths are looked for, in order.
        cache: our folder for fetched files.

    Raises:
        UserError: with file, lines and remedy of what is wrong.
    """
    trained, evaluated = _sheets(declared, places, cache)
    train = read_part(trained, declared)
    evaluation = read_part(evaluated, declared) if evaluated is not None else None
    classes = classes_of(declared, train, evaluation)
    check_values(declared, train)
    rows = examples_of(declared, train, classes)
    notes = list(_done(train, evaluation))
    if evaluation is not None:
        evaluating = examples_of(declared, evaluation, classes)
    else:
        rows, evaluating = _cut(declared, train, rows)
        notes.append(_cut_note(declared, evaluating))
    files = (*(declared.train or ()), *(declared.eval or ()))
    files = files or (declared.hub or "",)
    found = fingerprint(rows, evaluating)
    data = TaskData(
        tuple(rows), tuple(evaluating), f"own rows: {', '.join(map(plain, files))}", found
    )
    task = _task(name, declared, data, classes, files)
    return OwnRows(task, data, (*notes, *warnings(task, data)), files)


# --- finding files --------------------------------------------------------------------------------


def _sheets(declared: OwnTask, places: Sequence[Path], cache: Path) -> tuple[Sheet, Sheet | None]:
    wanted = [declared.train_split or TRAIN_SPLIT]
    wanted += [declared.eval_split] if declared.eval_split else []
    if declared.hub is not None:
        tables = hub_splits(declared.hub, declared.config, tuple(wanted), cache)
        return _two([below_each_other([table]) for table in tables])
    assert declared.train is not None
    paths = _each_once([find(name, places) for name in declared.train])
    if any(path.is_dir() for path in paths):
        return _two(_of_folder(declared, paths, wanted, places))
    if declared.train_split or (declared.eval_split and declared.eval is None):
        raise UserError(
            f"{', '.join(plain(str(path)) for path in paths)}: a file has no splits",
            "Leave out train_split and eval_split, and name an evaluation file as eval.",
        )
    sheets = [below_each_other([_read(path, declared) for path in paths])]
    if declared.eval is not None:
        sheets.append(_evaluation(declared, declared.eval, places))
    return _two(sheets)


def _two(sheets: Sequence[Sheet]) -> tuple[Sheet, Sheet | None]:
    return sheets[0], sheets[1] if len(sheets) > 1 else None


def _each_once(paths: Sequence[Path]) -> Sequence[Path]:
    """Files that are read together.

    Raises:
        UserError: one is named twice, also by another path or a link.
    """
    seen: dict[Path, Path] = {}
    for path in paths:
        before = seen.setdefault(path.resolve(), path)
        if before is not path:
            other = "" if before == path else f", also as {plain(str(before))}"
            raise UserError(
                f"{plain(str(path))}: this file is named twice{other}",
                "Name it once: each of its rows would count twice.",
            )
    return paths


def _evaluation(declared: OwnTask, names: Sequence[str], places: Sequence[Path]) -> Sheet:
    paths = _each_once([find(name, places) for name in names])
    tables = [
        _folder(path, declared.eval_split or TRAIN_SPLIT)
        if path.is_dir()
        else _read(path, declared)
        for path in paths
    ]
    return below_each_other(tables)


def _of_folder(
    declared: OwnTask, paths: Sequence[Path], wanted: Sequence[str], places: Sequence[Path]
) -> list[Sheet]:
    if len(paths) > 1:
        what = f"{quoted_list([str(path) for path in paths])}: folders and other files together"
        raise UserError(what, "Name one folder that datasets saved, or files alone.")
    splits = saved_folder(paths[0])
    sheets = [below_each_other([split_of(paths[0], splits, wanted[0])])]
    if declared.eval is not None:
        sheets.append(_evaluation(declared, declared.eval, places))
    elif declared.eval_split is not None:
        if "" in splits:
            what = f"{plain(str(paths[0]))}: this folder has one set of rows and no splits"
            raise UserError(what, "Leave out eval_split, or name an evaluation folder as eval.")
        sheets.append(below_each_other([split_of(paths[0], splits, declared.eval_split)]))
    return sheets


def _folder(path: Path, split: str) -> Table:
    return split_of(path, saved_folder(path), split)


def _read(path: Path, declared: OwnTask) -> Table:
    return read_table(path, declared.separator, declared.encoding)


# --- splits and notes -----------------------------------------------------------------------------


def _cut(
    declared: OwnTask, part: Part, rows: Sequence[Example]
) -> tuple[list[Example], list[Example]]:
    train, evaluation = draw(rows, declared.eval_share, declared.kind == "classification")
    if not evaluation:
        raise sheet_error(
            part.sheet,
            f"{plural(len(rows), 'row')}, and no two different ones (of a class): "
            "none can be cut for evaluation",
            "Give more rows, or a file of evaluation rows as eval.",
        )
    return [rows[n] for n in train], [rows[n] for n in evaluation]


def _cut_note(declared: OwnTask, evaluation: Sequence[Example]) -> str:
    by = "by class, " if declared.kind == "classification" else ""
    cut = plural(len(evaluation), "is cut", "are cut")
    return (
        f"no evaluation rows were given: {cut}, {by}drawn by a hash of the "
        "text, copies of a text on one side"
    )


def _done(train: Part, evaluation: Part | None) -> list[str]:
    notes = []
    for what, part in (("training", train), ("evaluation", evaluation)):
        if part is None:
            continue
        for reason, count in part.dropped.items():
            which = "with an empty text" if reason == "empty" else "without a label"
            notes.append(f"{plural(count, f'{what} row')} {which} left out")
        if part.cut_rows:
            count, where = len(part.cut_rows), part.sheet.where(part.cut_rows)
            notes.append(
                f"{plural(count, f'{what} conversation')} went on after the "
                f"assistant's last turn; what follows it is left out ({where})"
            )
    return notes


# --- the task -------------------------------------------------------------------------------------


def _task(
    name: str, declared: OwnTask, data: TaskData, classes: tuple[str, ...], files: Sequence[str]
) -> Task:
    task = Task(
        key=name,
        title=name,
        kind=declared.kind,
        labels=classes,
        metric="",
        also=(),
        train_rows=len(data.train),
        eval_rows=len(data.eval),
        summary=f"own rows of {', '.join(map(plain, files))}",
        licence="your own",
        fingerprint=data.fingerprint,
        fields=declared.text or (),
        own=True,
        prompt=_template(declared),
        words=_words(declared, classes),
    )
    metric, also = _metrics(task, data)
    metric = declared.metric or metric
    beside = declared.also if declared.also is not None else also
    return replace(task, metric=metric, also=tuple(key for key in beside if key != metric))


def _metrics(task: Task, data: TaskData) -> tuple[str, tuple[str, ...]]:
    """The usual metrics of the kind; of classes accuracy where they are about as frequent."""
    if task.kind != "classification":
        return METRICS[task.kind]
    even = uneven(class_counts(task, data.train)) <= UNEVEN
    return ("accuracy", ("macro_f1",)) if even else ("macro_f1", ("accuracy",))


def _template(declared: OwnTask) -> str:
    if declared.messages is not None:
        return ""
    return declared.template or template_of(declared.kind, len(declared.text or ()) > 1)


def _words(declared: OwnTask, classes: tuple[str, ...]) -> tuple[str, ...]:
    return (declared.words or classes) if declared.kind == "classification" else ()
