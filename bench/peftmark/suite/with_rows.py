"""A suite whose rows may know more than what is installed: those of plug-ins that are gone."""

from __future__ import annotations

from pathlib import Path

from peftmark.core.errors import SuiteError
from peftmark.record.plugin import note
from peftmark.storage.store import Store
from peftmark.suite.load import Suite, find_suite, load_suite


def load_with_rows(name: str, suites: Path | None, results: Path) -> Suite:
    """Read and check a suite; where a name is unknown, stored rows say what they know of it.

    Its rows can be read and reported then; to run a plug-in's jobs it has to be installed
    (`peftmark.record.plugin.check_here`).

    Args:
        suites: the user's folder of suites.
        results: the results folder; it is read only where the suite alone is refused.

    Raises:
        SuiteError: with every fault of the file.
    """
    try:
        return load_suite(name, suites)
    except SuiteError:
        find_suite(name, suites)  # before its name becomes a path
        jobs = [record.job for record in Store(results, name).read().records.values()]
        if not any(job.plugins for job in jobs):
            raise
        for job in jobs:
            note(job.plugins)
        return load_suite(name, suites)
