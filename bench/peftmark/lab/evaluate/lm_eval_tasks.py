"""EleutherAI's lm-evaluation-harness, given models that are loaded already.

It is an optional library: `peftmark.run.evaluations` says which version and how it is installed.
Scores are the harness's own figures, of its own `simple_evaluate` with its own seeds.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from peftmark.core.errors import UserError
from peftmark.core.shown import plain, quoted, quoted_list, short
from peftmark.lab.errors import Unsupported
from peftmark.lab.export.opened import Opened
from peftmark.lab.number_types import TYPES

ScoreFacts = dict[str, Any]
"""What `peftmark.storage.evaluations.Score` holds, by name."""

NO_STDERR = "lm-eval gives none for this metric"
NOT_FINITE = "lm-eval's figure is not a finite number"
NOT_SAID = "lm-eval doesn't say"
OF_GROUP = "a group of tasks: each of them has its own"
MOST_TOLD = 300


class Harness:
    """The harness with its tasks.

    Args:
        tasks: names of tasks, groups or tags.
        include: a folder with tasks of the user's own.
        trusted: whether what stands in that folder may run as code.

    Raises:
        UserError: a task is unknown, or can't be loaded.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        include: Path | None,
        trusted: bool,
        fewshot: int | None,
        limit: int | None,
        batch_size: int,
    ) -> None:
        from lm_eval.tasks import TaskManager

        if include is not None and not trusted:
            confine_templates()
        self._tasks = list(tasks)
        self._settings = {"num_fewshot": fewshot, "limit": limit}
        self._batch_size = batch_size
        self._manager = TaskManager(include_path=str(include) if include else None)
        self._check()

    def _check(self) -> None:
        """Load the tasks once before any model: whatever is wrong with them is so for all."""
        known = self._manager.all_tasks
        if unknown := [name for name in self._tasks if name not in known]:
            close = difflib.get_close_matches(unknown[0], known, 5)
            near = f"Close to it: {quoted_list(close)}. " if close else ""
            raise UserError(
                f"lm-eval has no task {quoted(unknown[0])}",
                f"{near}`lm-eval ls tasks` prints them all; --include names a folder of your own.",
            )
        try:
            loaded = self._manager.load(self._tasks)["tasks"]
        except Exception as error:  # of their tasks, data and libraries: almost anything
            raise UserError(
                f"lm-eval can't load its tasks {quoted_list(self._tasks)}: {told(error)}",
                "Data sets of the hub are fetched with --online alone.",
            ) from error
        for name, task in loaded.items():
            if getattr(task, "UNSAFE_CODE", False):
                raise UserError(
                    f"lm-eval's task {quoted(name)} runs programs that the model writes",
                    "peftmark doesn't: use lm-eval itself on an export, in a sandbox.",
                )

    def ask(self, one: Opened, model: Any) -> list[ScoreFacts]:
        """Scores of a loaded model, in its precision of training.

        Raises:
            Unsupported: the harness can't ask such a model, or failed.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        publish_settings(model, one.files)
        precision = one.job.recipe.precision
        try:
            asked = HFLM(
                pretrained=model,
                tokenizer=one.tokenizer,
                batch_size=self._batch_size,
                mixed_precision_dtype=None if precision == "fp32" else TYPES[precision],
            )
            found = simple_evaluate(
                model=asked, tasks=self._tasks, task_manager=self._manager, **self._settings
            )
        except Exception as error:
            raise Unsupported(f"lm-eval failed: {told(error)}") from error
        return scores_of(found)


def told(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(plain(str(error)).split())
    return short(f"{type(error).__name__}: {text}", MOST_TOLD)


def confine_templates() -> None:
    """Have templates of tasks run in Jinja's sandbox: lm-eval runs them as the code that they are.

    Raises:
        UserError: this lm-eval keeps its templates elsewhere.
    """
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    theirs = getattr(utils, "env", None)
    if theirs is None:
        raise UserError(
            "templates of this version of lm-eval can't be confined",
            "Add --trust-code if you know what stands in the --include folder.",
        )
    if isinstance(theirs, SandboxedEnvironment):
        return
    safe = SandboxedEnvironment(
        loader=theirs.loader,
        undefined=theirs.undefined,
        keep_trailing_newline=theirs.keep_trailing_newline,
    )
    safe.filters.update(theirs.filters)
    utils.env = safe


def publish_settings(model: Any, files: Path) -> None:
    """Give a model the settings of writing that lie beside its base, as lm-eval finds them there:
    for its own answers peftmark takes them away."""
    plain_model = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not hasattr(plain_model, "generation_config"):
        raise Unsupported(f"lm-eval can't ask a {type(model).__name__}: it is no language model")
    beside = (files / "generation_config.json").is_file()
    make: Any = GenerationConfig
    plain_model.generation_config = (
        make.from_pretrained(files) if beside else make.from_model_config(plain_model.config)
    )


# --- what it answers ------------------------------------------------------------------------------


def scores_of(found: Any) -> list[ScoreFacts]:
    """Every figure of the harness's answer, by task, metric and filter."""
    hashes = hashes_of(found.get("samples", {}))
    scores = []
    for task, figures in found["results"].items():
        for key, value in figures.items():
            metric, comma, filtered = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                stderr = figures.get(f"{metric}_stderr,{filtered}")
                scores.append(_score(found, task, metric, filtered, value, stderr, hashes))
    return scores


def _score(
    found: Any,
    task: str,
    metric: str,
    filtered: str,
    value: Any,
    stderr: Any,
    hashes: dict[str, str],
) -> ScoreFacts:
    group = task not in found.get("n-samples", {})
    version = found.get("versions", {}).get(task)
    facts = {
        "value": (finite(value), NOT_FINITE),
        "stderr": (finite(stderr), NO_STDERR),
        "n": (found.get("n-samples", {}).get(task, {}).get("effective"), OF_GROUP),
        "fewshot": (found.get("n-shot", {}).get(task), NOT_SAID),
        "task_version": (None if version in (None, "Yaml") else str(version), NOT_SAID),
        "task_hash": (hashes.get(task), OF_GROUP if group else NOT_SAID),
        "higher_is_better": (found.get("higher_is_better", {}).get(task, {}).get(metric), NOT_SAID),
    }
    return {
        "task": task,
        "metric": metric,
        "filter": filtered,
        "group": group,
        **{name: value for name, (value, _) in facts.items()},
        "null_reasons": {name: why for name, (value, why) in facts.items() if value is None},
    }


def finite(value: Any) -> float | None:
    """A figure as a number; None for a word or what is not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def hashes_of(samples: dict[str, Any]) -> dict[str, str]:
    """Hash of a task's rows, prompts and answers wanted, as lm-eval writes it (`task_hashes`)."""
    from lm_eval.utils import hash_string

    return {
        task: hash_string(
            "".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in rows)
        )
        for task, rows in samples.items()
    }
