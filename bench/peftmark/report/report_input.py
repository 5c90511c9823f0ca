"""What a report is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peftmark.claims.ledger import Claim
from peftmark.core.amounts import Price
from peftmark.record.job import Job, Record, ReportOptions
from peftmark.storage.external import ExternalRow


@dataclass(frozen=True)
class ReportInput:
    """Everything that the report of one profile of one suite is made from.

    Attributes:
        records: one row a job, in any order; rows of other jobs are counted and left out.
        planned: every job of the profile.
        options: reference cell and radar anchors.
        summary: the suite's one-line description.
        notes: extra lines for the top of the page.
        results: folder that the rows come from, to link its logs.
        claims: published claims to hold against the rows.
        elsewhere: published rows that are shown and never judged.
        price: what an hour of the machine costs, where the reader says.
    """

    records: Sequence[Record]
    planned: Sequence[Job]
    options: ReportOptions
    summary: str = ""
    notes: Sequence[str] = ()
    results: Path | None = None
    claims: Sequence[Claim] = ()
    elsewhere: Sequence[ExternalRow] = ()
    price: Price | None = None
