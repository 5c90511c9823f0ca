"""Names of rows that nobody here knows: a plug-in's that isn't installed, or another peftmark's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftmark.catalog.methods import method_of
from peftmark.catalog.metrics import metric_of
from peftmark.catalog.quantizations import quantization_of
from peftmark.record.job import Job
from peftmark.record.plugin import missing


def unknown_names(jobs: Sequence[Job]) -> Iterator[str]:
    """What a reader is told of them, a clause each without a full stop."""
    yield from missing(one for job in jobs for one in job.plugins)
    unread = "that neither this peftmark nor the row knows: it stands by its name alone"
    for key in _once(job.method for job in jobs):
        if method_of(key) is None:
            yield f"method {key} is one {unread}"
    for key in _once(job.quantization for job in jobs):
        if quantization_of(key) is None:
            yield f"quantization {key} is one {unread}, and reload errors on it can't be judged"
    for key in _once(job.metric for job in jobs):
        if metric_of(key) is None:
            yield f"metric {key} is one {unread}, and more of it is only taken for better"


def _once(keys: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(keys))
