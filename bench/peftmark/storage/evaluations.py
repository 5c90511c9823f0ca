"""What an evaluation harness of others said of kept adapters, apart from the suite's own rows.

    results/<suite>/evaluations/<adapter>-<time>.json     one adapter, asked once

These scores are shown, never judged: no comparison, claim, gate or recommendation reads this
module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from peftmark.catalog.methods import cell_title
from peftmark.core.errors import StoreError
from peftmark.core.files import write_all
from peftmark.core.shown import plain, short
from peftmark.record.kept import Kept
from peftmark.storage.adapters import ID_DIGITS, slug

FORMAT = 1
FOLDER = "evaluations"


@dataclass(frozen=True)
class Score:
    """One figure of a harness.

    A null means that the harness doesn't say; `null_reasons` has a reason for each.

    Attributes:
        task: the harness's name of a task or of a group of tasks.
        metric: the harness's name.
        filter: what the harness does to answers before it scores them; "none" for nothing.
        group: whether it is of a group of tasks.
        value: as the harness has it: a share in 0 to 1 for an accuracy.
        stderr: standard error of the value, in its unit, as the harness estimates it.
        n: rows that were scored.
        fewshot: solved rows before each.
        task_version: of the task's definition.
        task_hash: SHA-256 of the task's rows, prompts and wanted answers.
    """

    task: str
    metric: str
    filter: str
    group: bool
    value: float | None
    stderr: float | None
    n: int | None
    fewshot: int | None
    task_version: str | None
    task_hash: str | None
    higher_is_better: bool | None
    null_reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What a harness said of one kept adapter.

    Attributes:
        harness: its name, with `harness_version`.
        when: UTC, ISO 8601.
        job: id of the job that trained the adapter, with `attempt`.
        cell: as reports name it.
        trained_on: the suite's task.
        precision: of the computation, the one that the adapter was trained in.
        settings: what was asked beside tasks: fewshot, limit, batch_size; null where left to the
            harness.
        libraries: name -> version.
    """

    harness: str
    harness_version: str
    when: str
    peftmark: str
    job: str
    attempt: int
    profile: str
    model: str
    cell: str
    trained_on: str
    seed: int
    device: str
    precision: str
    settings: dict[str, int | None]
    libraries: dict[str, str]
    scores: tuple[Score, ...]

    @property
    def title(self) -> str:
        """The adapter in words."""
        return f"{self.cell} on {self.trained_on}, seed {self.seed}"

    @property
    def facts(self) -> dict[str, Any]:
        """It as JSON holds it."""
        return asdict(self)


def of_adapter(kept: Kept) -> dict[str, Any]:
    """The values of an `Evaluation` that say which adapter it is of."""
    job = kept.job
    return {
        "job": job.job_id,
        "attempt": kept.attempt,
        "profile": job.profile,
        "model": job.model,
        "cell": cell_title(*job.cell),
        "trained_on": job.task,
        "seed": job.seed,
    }


class Evaluations:
    """The evaluations of one suite.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, one: Evaluation) -> Path:
        """Keep an evaluation beside earlier ones.

        Raises:
            StoreError: it can't be written.
        """
        time = "".join(c for c in one.when if c.isalnum())
        adapter = f"{slug(one.cell)}-seed{one.seed}-{one.job[:ID_DIGITS]}.{one.attempt}"
        path = self.folder / f"{adapter}-{time}.json"
        text = json.dumps({"format": FORMAT, **one.facts}, indent=1, ensure_ascii=False)
        write_all({path: f"{text}\n"})
        return path

    def entries(self) -> list[Evaluation]:
        """Every evaluation, the oldest first.

        Raises:
            StoreError: one can't be read, or was written by a newer peftmark.
        """
        return sorted(map(read, self.folder.glob("[!.]*.json")), key=lambda e: (e.when, e.job))

    def newest(self) -> list[tuple[Evaluation, Score]]:
        """Every score that no later evaluation of the same adapter, task and settings replaces."""
        found: dict[object, tuple[Evaluation, Score]] = {}
        for one in self.entries():
            settings = {k: v for k, v in one.settings.items() if k != "batch_size"}
            for score in one.scores:
                asked = (score.task, score.metric, score.filter, tuple(sorted(settings.items())))
                found[(one.job, one.harness, *asked)] = (one, score)
        return list(found.values())


def read(path: Path) -> Evaluation:
    """An evaluation as it was written.

    Raises:
        StoreError: it can't be read, is damaged, or was written by a newer peftmark.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data.pop("format")
        if version == FORMAT:
            return _evaluation(data)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}", "Check its permissions.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = short(plain(" ".join(str(error).split())) or type(error).__name__, 200)
        raise StoreError(
            f"{path} is damaged: {why}", "Remove it; `peftmark evaluate` makes it again."
        ) from error
    raise StoreError(
        f"{path} was written by a newer peftmark (format {plain(str(version))}, known {FORMAT})",
        "Update peftmark, or give this command its own --results folder.",
    )


def _evaluation(data: Mapping[str, Any]) -> Evaluation:
    """
    Raises:
        ValueError, TypeError: names are missing, or there are others.
    """
    scores = tuple(Score(**one) for one in data["scores"])
    if {f.name for f in fields(Evaluation)} != set(data):
        raise ValueError("it has other names than an evaluation has")
    return Evaluation(**{**data, "scores": scores})
