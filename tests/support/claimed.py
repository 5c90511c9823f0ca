"""Made-up claims and rows for tests of verdicts."""

from __future__ import annotations

from typing import Any

from factory import make_job, make_outcome, make_record
from peftmark.analysis import table as t
from peftmark.catalog.methods import Cell
from peftmark.claims.ledger import Claim
from peftmark.record.job import Record

A, B, C = Cell("adalora", 8, "none"), Cell("lora", 8, "none"), Cell("ia3", None, "none")
NAMED: dict[Cell, dict[str, Any]] = {
    A: {"method": "adalora", "rank": 8},
    B: {"method": "lora", "rank": 8},
    C: {"method": "ia3"},
}
SETTING = {
    "model": "RoBERTa-large",
    "models": ["roberta-large"],
    "tasks": "GLUE",
    "budget": "0.1 %",
    "selection": "not stated",
    "scale": "full GLUE",
}


def claim(*tests: dict[str, Any], **changes: Any) -> Claim:
    """A claim with these tests."""
    base = {
        "id": "C01",
        "statement": "A is better than B.",
        "sources": [{"title": "an article", "where": "table 1"}],
        "setting": SETTING,
        "tests": list(tests),
    }
    return Claim.model_validate({k: v for k, v in (base | changes).items() if v is not None})


def difference(part: str = "quality", of: Cell = A, to: Cell | None = B, **rest: Any) -> Any:
    return _test("difference", part, of, to, rest)


def ratio(part: str = "costs", of: Cell = A, to: Cell = B, **rest: Any) -> Any:
    return _test("ratio", part, of, to, rest)


def spread(part: str = "spread", of: Cell = A, to: Cell = B, **rest: Any) -> Any:
    return _test("spread", part, of, to, rest)


def best_rate(part: str = "rate", of: Cell = A, to: Cell = B, **rest: Any) -> Any:
    return _test("best_rate", part, of, to, rest)


def interaction(of: list[Cell], to: list[Cell], part: str = "more", **rest: Any) -> Any:
    """A change between the cells of `of`, and the same between those of `to`."""
    sides = {"of": [dict(NAMED[c]) for c in of], "to": [dict(NAMED[c]) for c in to]}
    return {"part": part, "suite": "demo", "interaction": sides | rest}


def order(*cells: Cell, part: str = "order", **rest: Any) -> Any:
    test = {k: rest.pop(k) for k in ("tasks", "profiles", "suite") if k in rest}
    return {
        "part": part,
        "suite": "demo",
        **test,
        "order": {"cells": [dict(NAMED[c]) for c in cells], **rest},
    }


def paper(expression: str, claimed: float, tolerance: float = 0.0, part: str = "sum") -> Any:
    inner = {"expression": expression, "claimed": claimed, "tolerance": tolerance, "unit": "GB"}
    return {"part": part, "arithmetic": inner}


def _test(kind: str, part: str, of: Cell, to: Cell | None, rest: dict[str, Any]) -> Any:
    test = {k: rest.pop(k) for k in ("tasks", "profiles", "suite", "differs") if k in rest}
    compared = {"of": dict(NAMED[of])} | ({"to": dict(NAMED[to])} if to is not None else {}) | rest
    return {"part": part, "suite": "demo", **test, kind: compared}


def row(cell: Cell, seed: int, score: float = 0.8, task: str = "sst-2", **outcome: Any) -> Record:
    """A finished run; `outcome` names other fields, `job` fields of the job."""
    named = dict(zip(("method", "size", "quantization", "variant"), cell, strict=True))
    job = {**named, "seed": seed, "task": task, **outcome.pop("job", {})}
    fields = {"metric_value": score, "curve": (), **outcome}  # with one curve they would be twins
    return make_record(job=make_job(**job), outcome=make_outcome(**fields))


def rows(cell: Cell, scores: list[float], task: str = "sst-2", **outcome: Any) -> list[Record]:
    """A run for each score, seeds 0, 1, ..."""
    return [row(cell, i, score, task, **outcome) for i, score in enumerate(scores)]


def build(records: list[Record], planned: list[Record] | None = None) -> t.ResultTable:
    """Records as a table; `planned` rows are planned and not run."""
    jobs = [r.job for r in [*records, *(planned or [])]]
    return t.build(records, jobs, B)
