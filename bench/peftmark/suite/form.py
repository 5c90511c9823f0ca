"""What can't be as a recipe says that steps are computed: packed rows, kernels of others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from peftmark.catalog import flash, kernels, packing
from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.method import Method
from peftmark.catalog.task import Task
from peftmark.core.errors import SuiteError
from peftmark.record.job import Job
from peftmark.suite.positions import check_positions


def form_faults(values: Mapping[str, Any], method: Method, task: Task) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of a recipe that packs rows or takes kernels of others."""
    if values["attention"] == "flash":
        if values["precision"] == "fp32":
            yield "attention", flash.NEEDS_16_BITS
        if values["compile"]:
            yield "attention", flash.NOT_COMPILED
        if values["packing"]:
            yield "attention", flash.NOT_PACKED
    if values["kernels"] is not None and values["compile"]:
        yield (
            "kernels",
            f"found {values['kernels']} with compile: true, which makes kernels of its own; "
            f"{kernels.WITHOUT}, or compile: false",
        )
    if not values["packing"]:
        return
    if fault := packing.task_fault(task) or packing.method_fault(method):
        yield "packing", f"found true; {fault}"
    if values["pad_to"] is not None:
        yield "pad_to", f"found {values['pad_to']}; packed rows have no padding: leave it out"
    if values["compile"]:
        yield (
            "packing",
            "found true with compile: true; compiled layers were tried on padded rows alone; "
            f"{packing.WITHOUT}, or compile: false",
        )


def check_models(jobs: Iterable[Job], shapes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What to tell of jobs on their models, as `check_positions` has it.

    Args:
        shapes: model of the user's own -> its configuration, where it was read.

    Raises:
        SuiteError: jobs that `check_form` or `check_positions` refuses.
    """
    every = list(jobs)
    check_form(every, shapes)
    return check_positions(every, shapes)


def check_form(jobs: Iterable[Job], shapes: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse jobs whose model or device can't compute steps as their recipe says, as far as that is
    known before a model is loaded.

    Args:
        shapes: model of the user's own -> its configuration, where it was read.

    Raises:
        SuiteError: all that can't.
    """
    known = {**OF_MODELS, **shapes}
    faults = dict.fromkeys(
        fault for job in jobs for fault in _faults(job, known.get(job.model, {}))
    )
    if faults:
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise SuiteError(
            f"steps can't be computed as the recipe says{lines}", "Change the keys named."
        )


def _faults(job: Job, config: Mapping[str, Any]) -> Iterator[str]:
    kind, recipe = config.get("model_type"), job.recipe
    if recipe.packing and kind is not None and (fault := packing.model_fault(str(kind))):
        yield f"packing, model {job.model}: {fault}"
    if recipe.attention == "flash" and job.device != "cuda":
        yield flash.NEEDS_GPU
    if recipe.kernels is None:
        return
    if job.device != "cuda":
        yield kernels.NEEDS_GPU
    elif kind is not None and (fault := kernels.model_fault(str(kind))):
        yield f"model {job.model}: {fault}"
