"""Reads the results of `method_comparison`, the benchmark inside huggingface/peft.

One JSON file a run: `run_info` (configuration), `train_info` (figures) and `meta_info` (versions).
Only its language-model task is read, MetaMathQA: trained there, scored on GSM8K. Names of keys
changed over time; both are known. Nothing is guessed: what a file lacks is null, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from peftmark.catalog.peft_types import PEFT_TYPES
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.core.errors import UserError
from peftmark.core.texts import keys_once
from peftmark.storage.external import FULL, METHOD_COMPARISON, SUCCESS, ExternalRow
from peftmark.storage.json_facts import Facts, clean

TASK = "gsm8k"
RUN_FOLDERS = ("results", "temporary_results", "cancelled_results")
MOST_FILES = 5_000
MOST_BYTES = 4 * 2**20
"""Of one file; the longest that was published holds 80 kB, most of it AdaLoRA's ranks."""
MOST_FAULTS = 8
NO_SIZE = 99_999_999
"""What the benchmark prints where the adapter could not be saved."""

# int4 is `load_in_4bit=True` and nothing else: bitsandbytes' default is FP4.
QUANTIZED = dict.fromkeys(("float32", "float16", "bfloat16"), "none")
QUANTIZED |= {"int8": "int8", "int4": "fp4"}
# What peftmark itself writes (`method_comparison_export`) has the type's own name.
QUANTIZED |= {key: key for key in QUANTIZATIONS if key != "none"}
MEASURED = (
    "value", "file_bytes", "train_seconds", "step_seconds", "total_seconds", "memory_max_bytes",
    "memory_mean_bytes", "memory_p99_bytes", "forgetting", "tokens_per_second",
)  # fmt: skip

REMEDY = (
    "Name the folder method_comparison/MetaMathQA/results of a checkout of huggingface/peft, or "
    "method_comparison itself. Nothing was written."
)


class Skipped(NamedTuple):
    """A result that is not imported.

    Attributes:
        file: its path in the folder.
        why: what it is, in words that stand for all files of its kind.
    """

    file: str
    why: str


def read_method_comparison(folder: Path) -> tuple[list[ExternalRow], list[Skipped]]:
    """Every run of the language-model task under a folder, and the results of other tasks.

    Args:
        folder: a checkout, its `method_comparison`, one task of it, or a folder with such files.

    Returns:
        rows in the order of their files, also of runs that failed, and what was left out.

    Raises:
        UserError: there is no such file, or one is malformed; all malformed ones are named.
    """
    rows: list[ExternalRow] = []
    skipped: list[Skipped] = []
    faults: list[str] = []
    seen: dict[str, str] = {}
    for path in _files(folder):
        name = clean(path.relative_to(folder).as_posix())
        try:
            raw = _read(path, folder)
            digest = hashlib.sha256(raw).hexdigest()
            tree = _parse(raw)
            if why := _other_task(tree):
                skipped.append(Skipped(name, why))
            elif digest in seen:
                skipped.append(Skipped(name, "the same bytes as another file"))
            else:
                rows.append(_row(name, digest, tree))
                seen[digest] = name
        except ValueError as error:
            faults.append(f"  {name}: {error}")
    if faults:
        more = [f"  and {len(faults) - MOST_FAULTS:,} more"] if len(faults) > MOST_FAULTS else []
        verb = "file can't" if len(faults) == 1 else "files can't"
        listed = "\n".join([*faults[:MOST_FAULTS], *more])
        raise UserError(f"{folder}: {len(faults):,} {verb} be read:\n{listed}", REMEDY)
    return rows, skipped


# --- files --------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}", REMEDY)
    found: list[Path] = []
    for start in ("", "*/", "method_comparison/*/"):
        found = found or [p for n in RUN_FOLDERS for p in folder.glob(f"{start}{n}/*.json")]
    found = sorted(p for p in found or folder.glob("*.json") if not p.name.startswith("."))
    if not found:
        raise UserError(f"{folder} holds no results of {METHOD_COMPARISON} (*.json)", REMEDY)
    if len(found) > MOST_FILES:
        raise UserError(f"{folder} holds {len(found):,} files; at most {MOST_FILES:,}", REMEDY)
    return found


def _read(path: Path, folder: Path) -> bytes:
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ValueError("a link that leaves the folder")
    if not path.is_file():
        raise ValueError("not a file")
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"can't be opened: {error.strerror}") from error
    if len(raw) > MOST_BYTES:
        raise ValueError(f"too large; at most {MOST_BYTES // 2**20} MiB are read")
    return raw


def _parse(raw: bytes) -> dict[str, Any]:
    """The object that a file holds; its three parts are objects too.

    Raises:
        ValueError: it is something else.
    """
    try:
        tree = json.loads(raw.decode("utf-8"), object_pairs_hook=keys_once)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"not JSON that is read here: {clean(str(error))}") from error
    parts = ("run_info", "meta_info")
    if not isinstance(tree, dict) or any(not isinstance(tree.get(p), dict) for p in parts):
        raise ValueError("no result of method_comparison: it has no run_info and meta_info")
    return tree


def _other_task(tree: dict[str, Any]) -> str:
    """What a result is of, if not of the language-model task; else empty."""
    if "generation_info" in tree:
        return "text generation, which trains nothing"
    config = tree["run_info"].get("train_config")
    if not isinstance(config, dict) or not isinstance(tree.get("train_info"), dict):
        raise ValueError("it has no train_info, or no train_config in its run_info")
    if "query_template" in config:
        return ""
    return "image generation" if "dino_model_id" in config else "a task that is not known"


# --- one file -----------------------------------------------------------------------------------


_PACKAGES = "meta_info.package_info"
_NEW, _OLD = "train_info.accelerator_memory", "train_info.cuda_memory"

_TEXTS = {
    "model": ("run_info.train_config.model_id",),
    "model_revision": ("meta_info.model_info.sha",),
    "task_revision": (f"meta_info.dataset_info.{TASK}.sha",),
    "peft_version": (f"{_PACKAGES}.peft-version",),
    "transformers_version": (f"{_PACKAGES}.transformers-version",),
    "torch_version": (f"{_PACKAGES}.torch-version",),
    "peft_commit": (f"{_PACKAGES}.peft-commit-hash",),
    "branch": ("run_info.peft_branch",),
    "device": ("meta_info.system_info.accelerator", "meta_info.system_info.gpu"),
}
_COUNTS = {
    "seed": ("run_info.train_config.seed",),
    "trainable_parameters": ("train_info.num_trainable_params",),
    "memory_max_bytes": (f"{_NEW}_max", f"{_OLD}_max"),
    "memory_mean_bytes": (f"{_NEW}_reserved_avg", f"{_OLD}_reserved_avg"),
    "memory_p99_bytes": (f"{_NEW}_reserved_99th", f"{_OLD}_reserved_99th"),
}
_NUMBERS = {
    "train_seconds": ("train_info.train_time",),
    "total_seconds": ("run_info.total_time",),
}
"""Fields that are read as they stand -> their places, the newest name first."""


def _row(name: str, digest: str, tree: dict[str, Any]) -> ExternalRow:
    """The row of one file.

    Raises:
        ValueError: it doesn't say what it is a result of.
    """
    metrics = tree["train_info"].get("metrics")
    if not isinstance(metrics, list):
        raise ValueError("its train_info has no list of metrics")
    facts = Facts({**tree, "last": metrics[-1] if metrics else None})
    status = facts.needed("train_info.status")
    error = tree["run_info"].get("error_msg")
    method = _method(facts, tree["run_info"])
    size, option = _size(facts, method)
    dtype = facts.text("dtype", "run_info.train_config.dtype")
    steps = facts.count("steps", "run_info.train_config.max_steps")
    seconds, rate = _steps(facts, metrics, steps)
    facts.reasons["baseline"] = "the file has no score of the model before training"
    own = {name: text for name in ("task", "metric") if (text := facts.own(name))}
    values: dict[str, Any] = {
        "experiment": facts.needed("run_info.experiment_name"),
        "size": size,
        "size_option": option,
        "dtype": dtype,
        "quantization": _quantization(facts, dtype),
        "value": facts.number("value", "last.test accuracy", most=1.0),
        "baseline": None,
        "steps": steps,
        "file_bytes": _file_bytes(facts, method),
        "step_seconds": seconds,
        "forgetting": facts.number("forgetting", "last.forgetting", least=-(2.0**63)),
        "tokens_per_second": rate,
        "dirty": facts.flag("dirty", "run_info.peft_worktree_is_dirty"),
        "date": _date(facts),
        **{name: facts.text(name, *places) for name, places in _TEXTS.items()},
        **{name: facts.count(name, *places) for name, places in _COUNTS.items()},
        **{name: facts.number(name, *places) for name, places in _NUMBERS.items()},
    }
    if status != SUCCESS:
        values |= dict.fromkeys(MEASURED)
        for field in MEASURED:
            facts.reasons[field] = f'the run ended as "{status}"'
    return ExternalRow(
        source=METHOD_COMPARISON,
        file=name,
        sha256=digest,
        status=status,
        method=method,
        error=clean(error) if isinstance(error, str) else "",
        task=own.get("task", TASK),
        metric=own.get("metric", "accuracy"),
        null_reasons=facts.reasons,
        **values,
    )


def _method(facts: Facts, run: dict[str, Any]) -> str:
    if "peft_config" in run and run["peft_config"] is None:
        return FULL
    return facts.needed("run_info.peft_config.peft_type").lower()


def _size(facts: Facts, method: str) -> tuple[int | None, str | None]:
    """The size and the option that holds it: AdaLoRA ignores `r`, prompts have tokens."""
    kind = PEFT_TYPES.get(method)
    option = (kind and kind.size) or "r"
    size = None if method == FULL else facts.count("size", f"run_info.peft_config.{option}")
    if size:
        return size, option
    why = "full fine-tuning has no size" if method == FULL else f"its configuration has no {option}"
    facts.reasons |= {"size": why, "size_option": why}
    return None, None


def _quantization(facts: Facts, dtype: str | None) -> str | None:
    found = QUANTIZED.get(dtype or "")
    if found is None:
        why = f"the dtype {dtype} is not known" if dtype else facts.reasons["dtype"]
        facts.reasons["quantization"] = why
    return found


def _file_bytes(facts: Facts, method: str) -> int | None:
    size = facts.count("file_bytes", "train_info.file_size")
    if size is not None and method == FULL:
        facts.reasons["file_bytes"] = "nothing was saved: the printed size is computed"
    elif size == NO_SIZE:
        facts.reasons["file_bytes"] = "the printed size stands for one that wasn't taken"
    return None if "file_bytes" in facts.reasons else size


def _date(facts: Facts) -> str | None:
    text = facts.text("date", "run_info.created_at")
    try:
        datetime.fromisoformat(text or "")
    except ValueError:
        facts.reasons.setdefault("date", "created_at is not a date in the file")
        return None
    return text


def _steps(facts: Facts, metrics: list[Any], steps: int | None) -> tuple[float | None, ...]:
    """Seconds of all training steps, and tokens a second in them.

    Both come from intervals between validations, and are null unless these cover every step.
    """
    fields = ("step_seconds", "tokens_per_second")
    intervals = [Facts(m) for m in metrics if isinstance(m, dict) and "train time" in m]
    ends = [i.count("step", "step") for i in intervals]
    width = ends[0] if ends else None
    even = width is not None and ends == [width * (n + 1) for n in range(len(ends))]
    if not even or ends[-1] != steps:
        for field in fields:
            facts.reasons[field] = "the file's intervals don't cover every step"
        return None, None
    times = [i.number("seconds", "train time") for i in intervals]
    known = [t for t in times if t is not None]
    rates = [i.number("rate", "tokens / sec") for i in intervals]
    paired = [r * t for r, t in zip(rates, times, strict=True) if r is not None and t is not None]
    seconds = sum(known) if len(known) == len(times) else None
    rate = sum(paired) / seconds if seconds and len(paired) == len(times) else None
    for field, value, name in zip(fields, (seconds, rate), ("time", "tokens"), strict=True):
        if value is None:
            facts.reasons[field] = f"an interval of the file has no {name} that can be read"
    return seconds, rate
