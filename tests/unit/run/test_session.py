"""How the jobs of a run stand that was stopped."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from factory import LORA, make_matrix
from peftmark.run.session import _counts

ROWS = make_matrix([LORA], ["sst2"], range(5))


def test_an_ok_row_from_before_counts_whatever_became_of_the_job_since():
    crashed = replace(ROWS[1], outcome=replace(ROWS[1].outcome, status="crashed"))
    ids = [row.job.job_id for row in ROWS]
    plan = SimpleNamespace(
        jobs=[row.job for row in ROWS],
        contents=SimpleNamespace(records={ids[0]: ROWS[0], ids[1]: crashed}),
    )
    ended = {ids[0]: "crashed", ids[1]: "ok", ids[2]: "interrupted", ids[3]: "ok"}
    assert _counts(plan, ended) == {"ok": 3, "interrupted": 1, "not run": 1}
    assert _counts(plan, {}) == {"ok": 1, "crashed": 1, "not run": 3}
