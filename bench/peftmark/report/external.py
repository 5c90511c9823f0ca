"""What others published, beside our rows and never among them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from peftmark.catalog.methods import METHODS
from peftmark.catalog.peft_types import PEFT_TYPES
from peftmark.render import words
from peftmark.render.page import Column, Entry, Grid, Paragraph, Section
from peftmark.report import missing
from peftmark.storage.external import FULL, ExternalRow

TITLE = "Published elsewhere"
QUESTIONS = 1319
"""Rows of GSM8K's test split: what each accuracy is a share of."""


def external_section(rows: Sequence[ExternalRow]) -> Section | None:
    """The published rows under the reasons why they can't be compared with ours.

    Args:
        rows: what `peftmark import` kept, in any order.

    Returns:
        None without rows.
    """
    if not rows:
        return None
    known = sum(row.value is not None for row in rows)
    lead = (
        f"{words.plural(len(rows), 'run')} of PEFT's own method_comparison, {known:,} with a "
        "score, for orientation. They are not comparable with the rows above, and no verdict, "
        "ranking or recommendation uses them."
    )
    ordered = sorted(rows, key=_order)
    paragraphs = tuple(Paragraph(text) for text in caveats(rows))
    return Section("external", TITLE, lead, (*paragraphs, _figures(ordered), _sources(ordered)))


def caveats(rows: Sequence[ExternalRow]) -> tuple[str, ...]:
    """Why the rows are not comparable with ours, and with one another; sentences from the rows."""
    texts = (
        _setting(rows),
        _seeds(rows),
        _times(rows),
        _memory(rows),
        _forgetting(rows),
        _parameters(rows),
        _int4(rows),
        _versions(rows),
        _steps(rows),
    )
    return tuple(filter(None, texts))


def origins(rows: Sequence[ExternalRow]) -> list[str]:
    """Which PEFT made the rows, such as "PEFT 0.21.0 at 514b9e6d11 (3 rows)", most rows first."""
    counts = Counter(
        f"PEFT {row.peft_version or 'of unknown version'}"
        + (f" at {row.peft_commit[:10]}" if row.peft_commit else "")
        for row in rows
    )
    return [f"{name} ({words.plural(n, 'row')})" for name, n in counts.most_common()]


def _order(row: ExternalRow) -> tuple[bool, float, str, str]:
    return (row.value is None, -(row.value or 0.0), row.experiment, row.file)


# --- caveats ------------------------------------------------------------------------------------


def _setting(rows: Sequence[ExternalRow]) -> str:
    models = sorted({row.model or "an unknown model" for row in rows})
    devices = sorted({row.device or "an unknown device" for row in rows})
    return (
        f"Another model, data and machine: {words.some(models)}, trained on MetaMathQA and scored "
        f"by the answers it writes to GSM8K, on {words.some(devices)}. No file has the score of "
        "the model before training."
    )


def _seeds(rows: Sequence[ExternalRow]) -> str:
    seeds = sorted({row.seed for row in rows if row.seed is not None})
    named = (
        f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {words.listing(list(map(str, seeds)))}"
    )
    error = 100 * (0.25 / QUESTIONS) ** 0.5
    return (
        f"Single runs{f', with {named}' if seeds else ''}; the script seeds torch with 0 whatever "
        "its files say. How far another run would fall is unknown, and of "
        f"{QUESTIONS:,} questions alone an accuracy near 0.5 has a standard error of "
        f"{words.number(error, 1)} points."
    )


def _times(rows: Sequence[ExternalRow]) -> str:
    over = [
        row.train_seconds / row.step_seconds - 1
        for row in rows
        if row.train_seconds is not None and row.step_seconds
    ]
    text = (
        "The training time as printed also covers loading and tokenising the data and answering "
        "the test questions"
    )
    if not over:
        return f"{text}."
    low, high = (words.number(100 * share, 0) for share in (min(over), max(over)))
    spread = "" if low == high else f" ({low} to {high})"
    return (
        f"{text}: over the {words.plural(len(over), 'run')} that tell both, it is a median "
        f"{words.number(100 * statistics.median(over), 0)}\u00a0%{spread} above the sum of the "
        "training steps."
    )


def _memory(rows: Sequence[ExternalRow]) -> str:
    if all(row.memory_max_bytes is None for row in rows):
        return ""
    return (
        "Memory is what torch's allocator reserved, its cache included; the maximum covers the "
        "evaluation too, mean and percentile are read after each optimizer step. Our peak is "
        "another quantity."
    )


def _forgetting(rows: Sequence[ExternalRow]) -> str:
    if all(row.forgetting is None for row in rows):
        return ""
    return (
        "Forgetting is the rise of the loss on Wikipedia text. How it is counted was fixed twice "
        "(huggingface/peft pull requests 2986 and 3419), and files carry no version of the "
        "procedure: compare it within one commit only."
    )


def _parameters(rows: Sequence[ExternalRow]) -> str:
    if not any(row.method == "adalora" for row in rows):
        return ""
    return "AdaLoRA's parameters are those before pruning, its size the rank it prunes to."


def _int4(rows: Sequence[ExternalRow]) -> str:
    if not any(row.dtype == "int4" for row in rows):
        return ""
    return "The dtype int4 is FP4 without double quantization, not QLoRA's NF4."


def _versions(rows: Sequence[ExternalRow]) -> str:
    made = {(row.peft_version, row.peft_commit) for row in rows}
    dirty = sum(row.dirty is True for row in rows)
    silent = sum(row.dirty is None for row in rows)
    parts = []
    if len(made) > 1:
        parts.append(f"The rows come from {len(made):,} states of PEFT, which differ in code.")
    if dirty:
        parts.append(f"{words.plural(dirty, 'run')} had uncommitted changes.")
    if silent:
        parts.append(f"{words.plural(silent, 'file')} can't tell whether there were any.")
    return " ".join(parts)


def _steps(rows: Sequence[ExternalRow]) -> str:
    found = {row.steps for row in rows if row.steps is not None}
    return f"Runs have {words.span(found)} optimizer steps." if len(found) > 1 else ""


# --- tables -------------------------------------------------------------------------------------


def _figures(rows: Sequence[ExternalRow]) -> Grid:
    columns = (
        Column("experiment", "and its PEFT"),
        Column("method"),
        Column("size", "rank or tokens", numeric=True),
        Column("model", "and its dtype"),
        Column("accuracy", "GSM8K, higher is better", numeric=True),
        Column("parameters", "trained", numeric=True),
        Column("train time", "s, as printed, with evaluation", numeric=True),
        Column("steps alone", "s, sum of the training steps", numeric=True),
        Column("memory", "MiB reserved, maximum, with evaluation", numeric=True),
        Column("forgetting", "rise of loss, lower is better", numeric=True),
    )
    grid = Grid(
        "Published runs of PEFT's method_comparison",
        columns,
        tuple(_row(row) for row in rows),
        note="Sorted by accuracy. Variants such as DoRA or rsLoRA stand in an experiment's name.",
        filter=True,
    )
    return missing.fold_missing(grid, fixed=2)


def _row(row: ExternalRow) -> tuple[Entry, ...]:
    version = f"PEFT {row.peft_version}" if row.peft_version else "PEFT's version unknown"
    size = row.size if row.size is None else float(row.size)
    option = f"{row.size_option}" if row.size_option else ""
    accuracy = _number(row, "value", 3)
    if not row.ok:
        accuracy = Entry(row.status, row.error or "the file has no reason", "failed")
    mean, top = row.memory_mean_bytes, row.memory_p99_bytes
    reserved = ""
    if mean is not None and top is not None:
        reserved = f"mean {words.short(mean / words.MIB)}, 99 % {words.short(top / words.MIB)}"
    return (
        Entry(row.experiment, version),
        Entry(_title(row.method)),
        _missing(row, "size") if size is None else Entry(f"{row.size:,}", option, "number", size),
        Entry(row.model, row.dtype or "") if row.model else _missing(row, "model"),
        accuracy,
        _number(row, "trainable_parameters", 0),
        _number(row, "train_seconds"),
        _number(row, "step_seconds"),
        _number(row, "memory_max_bytes", scale=words.MIB, note=reserved),
        _number(row, "forgetting", 3, signed=True),
    )


def _title(method: str) -> str:
    if method == FULL:
        return METHODS[FULL].title
    known = METHODS.get(method) or PEFT_TYPES.get(method)
    return known.title if known else method


def _missing(row: ExternalRow, name: str) -> Entry:
    return words.missing(row.null_reasons.get(name, ""))


def _number(
    row: ExternalRow,
    name: str,
    digits: int | None = None,
    *,
    scale: float = 1.0,
    note: str = "",
    signed: bool = False,
) -> Entry:
    """A figure of a row; three significant digits unless `digits` says how many decimals."""
    value = getattr(row, name)
    if value is None:
        return _missing(row, name)
    shown = value / scale
    text = words.short(shown) if digits is None else words.number(shown, digits, signed=signed)
    return Entry(text, note, "number", shown)


def _sources(rows: Sequence[ExternalRow]) -> Grid:
    columns = (
        Column("experiment"),
        Column("file"),
        Column("SHA-256"),
        Column("began"),
        Column("PEFT's commit"),
        Column("uncommitted changes"),
        Column("with", "transformers and torch"),
        Column("model revision", "newest at that time"),
    )
    return Grid(
        "Files that the published rows come from",
        columns,
        tuple(_source(row) for row in rows),
        folded=True,
        note="The files name the model's newest revision; the runs asked for none.",
    )


def _source(row: ExternalRow) -> tuple[Entry, ...]:
    made = (row.transformers_version, row.torch_version)
    changed = "yes" if row.dirty else "no"
    return (
        Entry(row.experiment),
        Entry(row.file, kind="code"),
        Entry(row.sha256[:16], kind="code"),
        Entry(row.date) if row.date else _missing(row, "date"),
        Entry(row.peft_commit[:10], kind="code")
        if row.peft_commit
        else _missing(row, "peft_commit"),
        Entry(changed) if row.dirty is not None else _missing(row, "dirty"),
        Entry(", ".join(version or words.MISSING for version in made)),
        Entry(row.model_revision[:10], kind="code")
        if row.model_revision
        else _missing(row, "model_revision"),
    )
