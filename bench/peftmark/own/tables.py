"""Files, folders and what is in them as tables: the form is told by the end of the name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peftmark.core.files import refuse_special
from peftmark.core.shown import quoted, quoted_list
from peftmark.own.table import Table, refuse
from peftmark.own.text_files import PACKED, read_text_file

TEXT_FORMS = ("csv", "tsv", "jsonl")
FORMS = (*TEXT_FORMS, "parquet", "arrow")
OTHER_NAMES = {"json": "jsonl", "ndjson": "jsonl", "feather": "arrow"}
ARROW_FILE = b"ARROW1"
"""What a file in Arrow's file format starts with; one of its streams does not."""


def read_table(path: Path, separator: str | None = None, encoding: str | None = None) -> Table:
    """Read one file.

    Args:
        separator: of a CSV file; None for what its name says (comma, or tab for TSV).
        encoding: of a text file; None for UTF-8.

    Raises:
        UserError: it can't be read, is of no known form, or is malformed, with its line.
    """
    form, pack = _form(path)
    refuse_special(path)
    if form in TEXT_FORMS:
        return read_text_file(path, form, pack, separator, encoding)
    return _columns(path, form)


def _form(path: Path) -> tuple[str, str]:
    parts = path.name.lower().split(".")
    pack = parts.pop() if parts[-1] in PACKED else ""
    form = OTHER_NAMES.get(parts[-1], parts[-1])
    if len(parts) < 2 or form not in FORMS or (pack and form not in TEXT_FORMS):
        sheet = "Save the sheet as CSV in UTF-8. " if form in ("xlsx", "xls", "ods") else ""
        raise refuse(
            str(path),
            "",
            "the end of its name says no form that is known",
            f"{sheet}Known are {', '.join(f'.{f}' for f in (*FORMS, *OTHER_NAMES))}; text may be "
            f"packed as {', '.join(f'.{p}' for p in PACKED)}; and folders that datasets saved.",
        )
    return form, pack


# --- columns --------------------------------------------------------------------------------------


def _columns(path: Path, form: str) -> Table:
    """Rows of a Parquet or an Arrow file, values with their types."""
    import pandas as pd

    try:
        if form == "arrow":
            with path.open("rb") as file:
                stream = file.read(len(ARROW_FILE)) != ARROW_FILE
            if stream:
                import datasets

                return of_dataset(str(path), datasets.Dataset.from_file(str(path)))
        read: Any = pd.read_parquet if form == "parquet" else pd.read_feather
        frame = read(path, dtype_backend="pyarrow")
    except Exception as error:  # damaged files make the reader raise almost anything
        what = f"no whole .{form} file ({type(error).__name__})"
        raise refuse(str(path), "", what, "Write it again.") from error
    names = [str(name) for name in frame.columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        what, remedy = f"two columns are named {quoted(twice[0])}", "Give each its own name."
        raise refuse(str(path), "", what, remedy)
    columns = {name: _plain(frame.iloc[:, i].tolist()) for i, name in enumerate(names)}
    return Table(str(path), columns, range(1, len(frame) + 1), "row")


def _plain(values: list[Any]) -> list[Any]:
    """Values as Python has them; missing ones are None."""
    if {type(value) for value in values} <= {str, int, float, bool, list, dict}:
        return values
    return [None if type(v).__name__ in ("NAType", "NaTType") else _number(v) for v in values]


def _number(value: Any) -> Any:
    """A value without NumPy around it, or a decimal as a float."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return float(value) if type(value).__name__ == "Decimal" else value


# --- datasets -------------------------------------------------------------------------------------


def saved_folder(path: Path) -> dict[str, Table]:
    """Splits of a folder saved by `datasets` (`save_to_disk`), by name; `""` for one without.

    Raises:
        UserError: it is no such folder.
    """
    marks = ("dataset_dict.json", "state.json")
    for file in path.rglob("*"):
        refuse_special(file)
    if not any((path / mark).is_file() for mark in marks):
        raise refuse(
            str(path),
            "",
            "a folder that datasets did not save",
            "Name a file, a list of files, or a folder written by save_to_disk.",
        )
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
        parts = dict(found) if isinstance(found, dict) else {"": found}
        return {str(n): of_dataset(str(path / str(n)), part) for n, part in parts.items()}
    except Exception as error:  # damaged folders make the reader raise almost anything
        what = f"no whole folder of datasets ({type(error).__name__})"
        raise refuse(str(path), "", what, "Save it again with save_to_disk.") from error


def of_dataset(file: str, rows: Any) -> Table:
    """A data set of the library `datasets` as a table; its class labels become their names."""
    columns = with_names(rows.to_dict(), class_names(rows))
    return Table(file, columns, range(1, len(rows) + 1), "row")


def class_names(rows: Any) -> dict[str, list[str]]:
    """Columns of class numbers, with the names of their classes."""
    labels = {n: f for n, f in rows.features.items() if type(f).__name__ == "ClassLabel"}
    return {name: list(feature.names) for name, feature in labels.items()}


def with_names(
    columns: Mapping[str, Sequence[Any]], classes: Mapping[str, Sequence[str]]
) -> dict[str, Sequence[Any]]:
    """Columns with names in place of class numbers; -1, which the hub writes for hidden ones, is
    missing."""
    named: dict[str, Sequence[Any]] = dict(columns)
    for name, names in classes.items():
        known = dict(enumerate(names))
        named[name] = [known.get(number) for number in columns[name]]
    return named


def split_of(path: Path, splits: Mapping[str, Table], wanted: str) -> Table:
    """One split of a saved folder.

    Raises:
        UserError: it has none of that name.
    """
    if "" in splits:
        return splits[""]
    if wanted not in splits:
        what = f"there is no split {quoted(wanted)}"
        remedy = f"Its splits: {quoted_list(list(splits))}; name one as train_split or eval_split."
        raise refuse(str(path), "", what, remedy)
    return splits[wanted]
