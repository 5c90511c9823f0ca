"""Published results of another benchmark, read from its own files and kept apart from ours.

    results/external/peft-method-comparison.parquet     one row a file, sealed (`sealed`)

They are shown, never judged: no comparison, claim, gate or recommendation reads this module.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftmark.core.errors import StoreError
from peftmark.core.files import sync, write_all
from peftmark.storage.parquet import read_table, table_bytes

EXTERNAL_VERSION = 1
"""Version of the columns below; files of a newer one are refused."""

FOLDER = "external"
METHOD_COMPARISON = "peft-method-comparison"
SUCCESS = "success"
FULL = "full"
"""Method of a run that trained the whole model."""

_VERSION_KEY = b"peftmark_external"


@dataclass(frozen=True)
class ExternalRow:
    """One run of another benchmark, as its own file tells it.

    A null means that the file doesn't say, or says something that can't be meant; `null_reasons`
    has a reason for each.

    Attributes:
        source: name of the benchmark.
        file: path of the file in the folder that was read.
        sha256: hash of the file's bytes.
        experiment: name of the experiment.
        status: how the run ended, in the file's word; only "success" has measured values.
        error: what the file says of its end; empty if nothing.
        method: PEFT's type in lower case, or "full".
        size: rank or what else the type is sized by, the option named `size_option`.
        dtype: the base weights' type as printed, such as "bfloat16" or "int4".
        quantization: what that dtype means: "none", "int8" or "fp4".
        model: id of the base model on the Hub.
        model_revision: the Hub's newest commit of the model at that time; the run asked for none.
        task: what the metric is measured on.
        task_revision: the same of the data set.
        metric: name of the metric; higher is better.
        value: the metric after training, a share in 0 to 1.
        baseline: the metric before training.
        seed: the configured seed.
        steps: optimizer steps.
        trainable_parameters: before any pruning.
        file_bytes: size of the saved adapter.
        train_seconds: the training time as printed, with all that it covers.
        step_seconds: sum of the times of the training steps, evaluation left out.
        total_seconds: wall time of the process's work.
        memory_max_bytes: most bytes that torch's allocator reserved, evaluation included.
        memory_mean_bytes: reserved bytes after each optimizer step, mean.
        memory_p99_bytes: the same, 99th percentile.
        forgetting: rise of the loss on other text, in nats a token.
        tokens_per_second: over the training steps, padding left out.
        peft_commit: git commit of PEFT.
        branch: git branch of PEFT.
        dirty: whether that checkout had uncommitted changes.
        device: name of the accelerator.
        date: UTC, ISO 8601, when the run began.
    """

    source: str
    file: str
    sha256: str
    experiment: str
    status: str
    error: str
    method: str
    size: int | None
    size_option: str | None
    dtype: str | None
    quantization: str | None
    model: str | None
    model_revision: str | None
    task: str
    task_revision: str | None
    metric: str
    value: float | None
    baseline: float | None
    seed: int | None
    steps: int | None
    trainable_parameters: int | None
    file_bytes: int | None
    train_seconds: float | None
    step_seconds: float | None
    total_seconds: float | None
    memory_max_bytes: int | None
    memory_mean_bytes: int | None
    memory_p99_bytes: int | None
    forgetting: float | None
    tokens_per_second: float | None
    peft_version: str | None
    transformers_version: str | None
    torch_version: str | None
    peft_commit: str | None
    branch: str | None
    dirty: bool | None
    device: str | None
    date: str | None
    null_reasons: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the run went to its end."""
        return self.status == SUCCESS


def path_of(results: Path) -> Path:
    """Where the rows of PEFT's method comparison lie in a results folder."""
    return results / FOLDER / f"{METHOD_COMPARISON}.parquet"


def write_external(results: Path, rows: Sequence[ExternalRow]) -> Path:
    """Keep rows, in place of those of an earlier import.

    Args:
        results: the results folder (`results/`).
        rows: all of one benchmark.

    Raises:
        StoreError: if it can't be written; what was there before is as it was.
    """
    path = path_of(results)
    write_all({path: _content(rows)})
    try:
        sync(path.parent)
    except OSError as error:
        raise _unreadable(path.parent, error) from error
    return path


def load_external(results: Path) -> list[ExternalRow]:
    """The rows of the last import, in its order; none if nothing was imported.

    Raises:
        StoreError: if the file can't be read, is damaged, or was written by a newer peftmark.
    """
    path = path_of(results)
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        return _rows(path, raw)
    except StoreError:
        raise
    except Exception as error:  # damaged bytes make the reader raise almost anything
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreError(
            f"{path} is damaged: {why}",
            f"Import again: peftmark import {METHOD_COMPARISON} DIR. It replaces the file.",
        ) from error


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: {error.strerror or error}",
        "Check the folder and its permissions, or choose another --results folder.",
    )


# --- rows and bytes -----------------------------------------------------------------------------

_COLUMNS = {
    **dict.fromkeys(
        ("source", "file", "sha256", "experiment", "status", "error", "method", "size_option",
         "dtype", "quantization", "model", "model_revision", "task", "task_revision", "metric",
         "peft_version", "transformers_version", "torch_version", "peft_commit", "branch",
         "device", "date", "null_reasons"),
        "string",
    ),
    **dict.fromkeys(
        ("size", "seed", "steps", "trainable_parameters", "file_bytes", "memory_max_bytes",
         "memory_mean_bytes", "memory_p99_bytes"),
        "int64",
    ),
    **dict.fromkeys(
        ("value", "baseline", "train_seconds", "step_seconds", "total_seconds", "forgetting",
         "tokens_per_second"),
        "float64",
    ),
    "dirty": "bool",
}  # fmt: skip
"""Column -> type; `null_reasons` is a JSON object."""


def _schema() -> Any:
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
    }
    fields = [pa.field(name, types[kind]) for name, kind in _COLUMNS.items()]
    return pa.schema(fields, metadata={_VERSION_KEY: str(EXTERNAL_VERSION).encode()})


def _content(rows: Sequence[ExternalRow]) -> bytes:
    """A sealed file; the same rows give the same bytes."""
    plain = [
        {name: getattr(row, name) for name in _COLUMNS}
        | {"null_reasons": json.dumps(row.null_reasons, sort_keys=True)}
        for row in rows
    ]
    return table_bytes(_schema(), [plain])


def _rows(path: Path, raw: bytes) -> list[ExternalRow]:
    table = read_table(raw)
    version = int((table.schema.metadata or {}).get(_VERSION_KEY, b"0"))
    if version > EXTERNAL_VERSION:
        raise StoreError(
            f"{path} was written by a newer peftmark (version {version}, known {EXTERNAL_VERSION})",
            "Update peftmark, or give this command its own --results folder.",
        )
    if version < EXTERNAL_VERSION:
        raise ValueError("it holds no imported rows")
    return [
        ExternalRow(**(row | {"null_reasons": json.loads(row["null_reasons"])}))
        for row in table.to_pylist()
    ]
