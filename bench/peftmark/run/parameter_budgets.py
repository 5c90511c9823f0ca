"""What a suite's parameter budgets give, counted on the architectures without weights or a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.methods import Cell, cell_title
from peftmark.core.errors import UserError
from peftmark.record.job import Job
from peftmark.render.plain_table import aligned
from peftmark.run.own_models import read_own_models, shapes_of
from peftmark.suite.expand import expand
from peftmark.suite.load import Suite, load_suite


@dataclass(frozen=True)
class BudgetRow:
    """What a cell's budget gives.

    Attributes:
        tasks: the tasks it holds for; a task with other classes has another head.
        wanted: adapter parameters asked for; what follows is None where nothing could be counted.
        size: rank, width or tokens; the mean over modules, rounded, where they differ.
        smallest, largest: the sizes of the modules that get any.
        used, modules: how many modules get any, and how many share the budget; 0 for a method
            with one size.
        parameters: adapter parameters of that size.
        off: how far that is from what was asked for, as a share of it.
        head_parameters: trained parameters of classifier and pooler, on top.
        refusal: why the cell can't run; empty if it can.
    """

    cell: str
    tasks: tuple[str, ...]
    budget: int | str
    wanted: int | None = None
    size: int | None = None
    smallest: int | None = None
    largest: int | None = None
    used: int = 0
    modules: int = 0
    parameters: int | None = None
    off: float | None = None
    head_parameters: int | None = None
    refusal: str = ""


def budgets(
    name: str, profile: str | None, suites: Path | None, model: str | None
) -> dict[str, list[BudgetRow]]:
    """Profile -> a row for each cell with a budget.

    Args:
        name: of the suite.
        profile: the only one to look at; None for all.
        suites: a folder of suites besides those shipped.
        model: replaces the profiles' models.

    Raises:
        UserError: unknown suite, profile or model.
    """
    suite = load_suite(name, suites)
    if profile is not None and profile not in suite.profiles:
        known = ", ".join(suite.profiles)
        raise UserError(f"suite {name} has no profile {profile!r}", f"Its profiles: {known}.")
    wanted = [profile] if profile is not None else list(suite.profiles)
    found = {}
    for one in wanted:
        read, files = read_own_models(suite, one)
        shapes = {**OF_MODELS, **shapes_of(files)}
        name = model or read.profiles[one].model
        if name not in shapes:
            known = ", ".join(shapes)
            raise UserError(f"the architecture of model {name!r} is unknown", f"Known: {known}.")
        found[one] = list(_rows(read, one, shapes[name]))
    return found


def _rows(suite: Suite, profile: str, model: Mapping[str, Any]) -> Iterator[BudgetRow]:
    groups: dict[tuple[Cell, str], list[Job]] = {}
    for job in expand(suite, profile, "cpu").jobs:
        if job.recipe.budget is not None:
            groups.setdefault((job.cell, _matters(job)), []).append(job)
    solved: dict[tuple[str, str], dict[str, Any]] = {}
    for (cell, matters), jobs in groups.items():
        key = (cell.method, matters)
        if key not in solved:
            solved[key] = _solve(jobs[0], model)
        tasks = tuple(dict.fromkeys(job.task for job in jobs))
        budget = jobs[0].recipe.budget
        assert budget is not None
        yield BudgetRow(cell_title(*cell), tasks, budget, **solved[key])


def _matters(job: Job) -> str:
    """What of a job its count can depend on, as text."""
    recipe = job.recipe
    return repr(
        (
            recipe.budget,
            recipe.targets,
            recipe.options,
            recipe.train_pooler,
            recipe.max_length,
            recipe.adalora and recipe.adalora.init_ratio,
            _classes(job),
        )
    )


def _classes(job: Job) -> int:
    return max(1, len(job.task_facts.labels))


def _solve(job: Job, model: Mapping[str, Any]) -> dict[str, Any]:
    from peftmark.lab.memory.meta_model import config_of
    from peftmark.lab.models import Unsupported
    from peftmark.lab.parameter_budget import solve

    try:
        found = solve(job, config_of(model, _classes(job)))
    except Unsupported as refused:
        return {"refusal": str(refused)}
    sizes = list((found.sizes or {"": found.size}).values())
    return {
        "wanted": found.wanted,
        "size": found.size,
        "smallest": min(sizes),
        "largest": max(sizes),
        "used": len(sizes) if found.sizes else 0,
        "modules": found.modules,
        "parameters": found.parameters,
        "off": found.off,
        "head_parameters": found.head,
        "refusal": found.refusal or "",
    }


def facts_of(found: Mapping[str, Sequence[BudgetRow]]) -> dict[str, list[dict[str, Any]]]:
    """The rows as plain data."""
    return {name: [asdict(row) for row in rows] for name, rows in found.items()}


def budget_text(found: Mapping[str, Sequence[BudgetRow]]) -> str:
    """The rows as tables for a terminal, refusals after each."""
    lines = []
    for name, rows in found.items():
        lines.append(f"Profile {name}:" if rows else f"Profile {name}: no cell has a budget.")
        lines += [f"  {line}" for line in _budget_table(rows)] if rows else []
    return "\n".join(lines)


def _budget_table(rows: Sequence[BudgetRow]) -> list[str]:
    head = ("cell", "tasks", "wanted", "achieved", "off by", "size", "head beside it")
    table = [
        (
            row.cell,
            ", ".join(row.tasks),
            _count(row.wanted),
            _count(row.parameters),
            "-" if row.off is None else f"{row.off:+.2%}",
            _sizes(row),
            _count(row.head_parameters),
        )
        for row in rows
    ]
    refused = [f"refused: {row.cell}: {row.refusal}" for row in rows if row.refusal]
    return [*aligned(head, table, numbers=(2, 3, 4, 6)), *refused]


def _sizes(row: BudgetRow) -> str:
    if row.size is None:
        return "-"
    size = f"{row.smallest}" if row.smallest == row.largest else f"{row.smallest}-{row.largest}"
    return f"{size} in {row.used} of {row.modules}" if row.modules else size


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
