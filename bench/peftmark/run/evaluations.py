"""Kept adapters of language models put to a harness of others, and what it says kept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peftmark import __version__
from peftmark.catalog.methods import cell_title
from peftmark.core.errors import UserError
from peftmark.core.interpreter import passed_on
from peftmark.core.shown import plain, quoted, quoted_list
from peftmark.executors.contract import utc_now
from peftmark.executors.launch import WORKER_ENVIRONMENT
from peftmark.record.kept import Kept
from peftmark.run.kept_models import told_places
from peftmark.run.runner import places_of
from peftmark.run.task_code import check_tasks
from peftmark.storage.evaluations import Evaluation, Score, of_adapter
from peftmark.storage.store import Store
from peftmark.suite.load import Suite

MODULE = "peftmark.lab.evaluate.worker"
HARNESS = "lm-eval"
TRIED = "0.4.13"
"""The version of lm-eval that this was written for and tested with."""
INSTALL = f'pip install "lm-eval=={TRIED}"'
LIBRARIES = ("torch", "transformers", "peft", "datasets")
KEPT_OF_ENVIRONMENT = ("TOKENIZERS_PARALLELISM", "HF_HUB_DISABLE_TELEMETRY", "PYTHONSAFEPATH")
"""What a worker's environment has that this one takes over: cores are not shared with others."""


@dataclass(frozen=True)
class Question:
    """What a harness is asked.

    Attributes:
        tasks: the harness's names of tasks.
        fewshot: solved rows before each; None for what the task says.
        limit: rows of each task; None for all.
        include: a folder with tasks of the user's own.
        trust_code: whether code that stands in that folder may run.
        online: whether data may be fetched from the hub.
    """

    tasks: tuple[str, ...]
    fewshot: int | None = None
    limit: int | None = None
    batch_size: int = 1
    include: Path | None = None
    trust_code: bool = False
    online: bool = False

    @property
    def settings(self) -> dict[str, int | None]:
        """What figures depend on beside tasks, and the size of batches."""
        return {"fewshot": self.fewshot, "limit": self.limit, "batch_size": self.batch_size}


@dataclass(frozen=True)
class Wanted:
    """Which kept adapters, as typed; None for all."""

    cell: str | None = None
    task: str | None = None
    seed: int | None = None
    profile: str | None = None

    def meets(self, kept: Kept) -> bool:
        """Whether an adapter is one of them."""
        job = kept.job
        named = cell_title(*job.cell).casefold()
        return (
            (self.cell is None or named == self.cell.strip().casefold())
            and self.task in (None, job.task)
            and self.seed in (None, job.seed)
            and self.profile in (None, job.profile)
        )


def adapters_of(store: Store, wanted: Wanted) -> dict[Path, Kept]:
    """Kept adapters of language models, by folder.

    Raises:
        UserError: there are none.
    """
    kept = store.adapters.entries()
    speak = {path: one for path, one in kept.items() if one.job.causal is not None}
    if not speak:
        what = (
            f"{store.adapters.folder}: no trained adapter of a language model is kept there"
            if not kept
            else f"{store.adapters.folder}: what is kept there are classifiers, and a harness asks "
            "language models"
        )
        raise UserError(what, "`peftmark run` keeps the best of each cell and task (--keep).")
    found = {path: one for path, one in speak.items() if wanted.meets(one)}
    if not found:
        there = {title_of(one) for one in speak.values()}
        raise UserError(
            "no kept adapter of a language model is of that cell, task, seed and profile",
            f"Kept are {quoted_list(sorted(there))}.",
        )
    for path, one in found.items():
        store.adapters.check(path, one)
    return found


def title_of(kept: Kept) -> str:
    """An adapter in words."""
    return f"{cell_title(*kept.job.cell)} on {kept.job.task}, seed {kept.job.seed}"


def check_harness() -> str:
    """The installed version of lm-eval, which is not loaded.

    Raises:
        UserError: it isn't installed, or is older than what this was written for.
    """
    try:
        there = version("lm-eval") if find_spec("lm_eval") is not None else ""
    except PackageNotFoundError:
        there = ""
    if not there:
        raise UserError(
            f"--with lm-eval: lm-eval is not installed for {sys.executable}",
            f"Install it there: {INSTALL}",
        )
    if _numbers(there) < _numbers(TRIED):
        raise UserError(
            f"--with lm-eval: version {plain(there)} is installed, and {TRIED} is the oldest that "
            "works",
            f"Install it: {INSTALL}",
        )
    return there


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


@dataclass(frozen=True)
class Answer:
    """What came of one adapter.

    Attributes:
        title: the adapter in words.
        evaluation: None if it could not be asked; `fault` says why.
    """

    title: str
    evaluation: Evaluation | None = None
    fault: str = ""


@dataclass(frozen=True)
class Loads:
    """How many bases were loaded to be shared, and how many models whole."""

    bases: int
    own: int


def ask(
    adapters: dict[Path, Kept],
    suite: Suite,
    mirror: Path | None,
    question: Question,
    tell: Callable[[Answer], None],
) -> Loads:
    """Put every adapter to the harness.

    Args:
        tell: gets each answer as soon as it is there.

    Raises:
        UserError: the harness isn't here, its tasks can't be had, or it broke off.
    """
    there = check_harness()
    check_tasks(question.include, question.trust_code)
    folders = list(adapters)
    sent = {
        "tasks": question.tasks,
        "include": str(question.include.resolve()) if question.include else None,
        "trust_code": question.trust_code,
        **question.settings,
        "adapters": [
            {
                "folder": str(folder.resolve()),
                **told_places(places_of(suite, adapters[folder].job.profile, mirror)),
            }
            for folder in folders
        ],
    }
    for line in _lines(sent, question.online):
        if "done" in line:
            return Loads(line["bases"], line["own"])
        if "adapter" not in line:
            raise UserError(line["fault"], line["remedy"])
        tell(_answer(line, adapters[folders[line["adapter"]]], question, there))
    raise AssertionError("the last line says that it is done")


def _answer(line: dict[str, Any], kept: Kept, question: Question, there: str) -> Answer:
    title = title_of(kept)
    if "fault" in line:
        return Answer(title, fault=" ".join(filter(None, (line["fault"], line["remedy"]))))
    found = Evaluation(
        harness=HARNESS,
        harness_version=there,
        when=utc_now(),
        peftmark=__version__,
        device=line["device"],
        precision=line["precision"],
        settings=question.settings,
        libraries={name: version(name) for name in LIBRARIES},
        scores=tuple(Score(**one) for one in line["scores"]),
        **of_adapter(kept),
    )
    return Answer(title, found)


def _lines(sent: dict[str, Any], online: bool) -> Iterator[dict[str, Any]]:
    """What the process that loads says, as it says it.

    Raises:
        UserError: it ended without saying that it is done.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            errors="replace",
            env=environment(online),
        )
        try:
            assert process.stdin is not None and process.stdout is not None
            with process.stdin:
                process.stdin.write(json.dumps(sent))
            for text in process.stdout:
                line = json.loads(text)
                yield line
                if "done" in line:
                    return
            process.wait()
            log.seek(0)
            said = log.read().decode("utf-8", "replace").strip().splitlines()
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    raise UserError(
        f"lm-eval ended with exit code {process.returncode}: "
        f"{plain((said or ['it said nothing'])[-1])}",
        "What it had answered before is kept.",
    )


def environment(online: bool) -> dict[str, str]:
    """Variables of the process that loads: without network unless it is asked for, and metrics are
    never fetched, for those are programs."""
    found = passed_on({name: WORKER_ENVIRONMENT[name] for name in KEPT_OF_ENVIRONMENT})
    found["HF_EVALUATE_OFFLINE"] = "1"
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if not online:
            found[name] = "1"
    return found


def read_names(text: str) -> tuple[str, ...]:
    """Names of tasks as typed, with commas between them.

    Raises:
        UserError: there is none, or one that no task can have.
    """
    names = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    if not names:
        raise UserError(f"--tasks: found {quoted(text)}", "Give names, with commas between them.")
    for name in names:
        if not name.isprintable() or name.startswith("-"):
            raise UserError(f"--tasks: {quoted(name)} is no name of a task", "Give another.")
    return names
