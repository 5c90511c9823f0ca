"""What a run would do, as a data frame: one row a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftmark.api.frames import OF_JOB, SETTINGS, frame_of, settings, unit_of
from peftmark.catalog.methods import cell_title
from peftmark.machine.gpus import Device, device
from peftmark.memory.plan_estimates import Outlook, outlooks
from peftmark.record.columns import JOB_COLUMNS
from peftmark.record.field import LIVE_PARTS
from peftmark.run.own_models import shapes_of
from peftmark.run.runner import Plan, Selection, make_plan

if TYPE_CHECKING:
    from pandas import DataFrame

MEMORY = {part.column: "int64" for part in LIVE_PARTS} | {
    "live_bytes": "int64",
    "trainable_parameters": "int64",
    "fits": "bool",
    "not_predicted": "string",
}
"""Column of what is predicted of a job -> its kind."""


def plan_frame(selection: Selection, *, memory: bool, gpu: str | None) -> DataFrame:
    """One row a job in running order; see `peftmark.plan`."""
    target = None if gpu is None else device(gpu)
    plan = make_plan(selection)
    predicted = _predicted(plan, target) if memory or target is not None else {}
    rows = [
        {name: getattr(planned.job, name) for name in OF_JOB}
        | {"cell": cell_title(*planned.job.cell), "metric_name": planned.job.metric}
        | {"action": planned.action, "reason": planned.reason}
        | settings(planned.job)
        | predicted.get((planned.job.cell, planned.job.task), {})
        for planned in plan.planned
    ]
    kinds = {"cell": "string", **{n: JOB_COLUMNS[n] for n in OF_JOB}, "metric_name": "string"}
    kinds |= {"action": "string", "reason": "string"} | (MEMORY if predicted else {}) | SETTINGS
    frame = frame_of(rows, kinds, plan.expanded.jobs, plan.suite.report.reference)
    frame.attrs = {
        "suite": plan.suite.name,
        "profile": plan.profile,
        "profile_reason": plan.profile_reason,
        "waiting": plan.expanded.waiting,
        "notes": list(plan.notes),
        "filled": list(plan.suite.filled),
        "units": {str(name): unit_of(str(name)) for name in frame.columns},
    }
    return frame


def _predicted(plan: Plan, target: Device | None) -> dict[Any, dict[str, Any]]:
    """(cell, task) -> what a step takes."""
    found = outlooks(
        plan.jobs,
        plan.places.cache,
        target,
        shapes=shapes_of(plan.own_files),
    )
    return {(one.job.cell, one.job.task): _of_outlook(one) for one in found}


def _of_outlook(one: Outlook) -> dict[str, Any]:
    told = one.forecast
    if told.reason:
        return {"not_predicted": told.reason}
    parts = {part.column: told.live[part.key] for part in LIVE_PARTS}
    total = {"live_bytes": told.total, "trainable_parameters": told.trainable}
    return {**parts, **total, "fits": one.fits, "not_predicted": ""}
