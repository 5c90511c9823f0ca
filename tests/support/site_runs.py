"""Runs of made rows, as the site has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from factory import REPORT_OPTIONS
from peftmark.analysis.table import build
from peftmark.record.job import Record
from peftmark.site.evidence import Run


def run_of(records: Sequence[Record], **changes: Any) -> Run:
    """A run of some rows; `changes` go to the suite that they are of."""
    job = records[0].job
    about = {"name": job.suite, "summary": "made up", "claims": ()} | changes
    profiles = {job.profile: SimpleNamespace(summary="few seeds")}
    suite = SimpleNamespace(report=REPORT_OPTIONS, profiles=profiles, **about)
    plan: Any = SimpleNamespace(suite=suite, profile=job.profile)
    table = build(records, [record.job for record in records], REPORT_OPTIONS.reference)
    return Run((Path("results/published/made/rows.parquet"),), Path("nowhere"), plan, table)
