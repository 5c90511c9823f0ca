"""The command `plan`: the jobs of a suite, what each would take, and what fits a device."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from peftmark.catalog.methods import cell_title
from peftmark.cli.options import (
    OF_MACHINE,
    add_mirror,
    add_profile,
    add_results,
    add_suite,
    add_suites,
    add_which_jobs_and_where,
    selection_of,
)
from peftmark.cli.plan_time import time_facts, time_lines, times_of
from peftmark.cli.shared import tell_predictions, waiting_text
from peftmark.core.amounts import parse_hour_price
from peftmark.core.errors import Exit, UserError
from peftmark.machine.gpus import (
    ALLOCATOR_SHARE,
    CONTEXT_BYTES,
    WORKSPACE_BYTES,
    Device,
    device,
    room,
)
from peftmark.record.fields import LIVE_PARTS
from peftmark.record.job import DEVICES
from peftmark.render.plain_table import aligned

if TYPE_CHECKING:
    from peftmark.memory.plan_estimates import Outlook
    from peftmark.run.runner import Plan

NAME = "plan"
HELP = "print the jobs of a suite, why each would run, and the memory and time it takes"

MIB = 2**20


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which jobs, where, and what their memory is held against."""
    add_suite(sub)
    add_profile(sub, OF_MACHINE)
    add_suites(sub)
    add_results(sub)
    add_mirror(sub)
    add_which_jobs_and_where(sub)
    sub.add_argument(
        "--device",
        dest="gpu",
        metavar="GPU",
        help="say what fits a GPU, by name (RTX 4090, A100-40) or size (24GB), and how long jobs "
        "take there",
    )
    sub.add_argument(
        "--price",
        metavar="AMOUNT",
        help="what an hour of the machine costs, such as 2.50USD; says what the run would",
    )
    sub.add_argument(
        "--model",
        metavar="NAME",
        help="another architecture for the memory: a name, a model's folder or config.json, or "
        "hub:owner/name",
    )
    sub.add_argument("--no-memory", action="store_true", help="list the jobs alone")


def run(options: argparse.Namespace) -> int:
    """The jobs, why each would run or is done, and what they take."""
    from peftmark.memory.plan_estimates import outlooks
    from peftmark.run.own_models import shapes_of
    from peftmark.run.runner import make_plan

    target = None if options.gpu is None else _gpu(options.gpu)
    price = None if options.price is None else parse_hour_price("--price", options.price)
    made = make_plan(selection_of(options))
    if not options.json:
        # At once: to predict memory takes seconds, or minutes for models that were never seen.
        print("\n".join(_job_lines(made)), flush=True)
    found: list[Outlook] = []
    if not options.no_memory:
        found = outlooks(
            made.jobs,
            made.places.cache,
            target,
            options.model,
            shapes_of(made.own_files),
            tell_predictions,
        )
    timed = None
    if options.model is None and not options.no_memory:
        timed = times_of(made, target, options.jobs)
    if options.json:
        print(json.dumps(_facts(made, found, target) | {"time": time_facts(timed)}, indent=2))
        return Exit.OK
    if found:
        print("\n".join(memory_lines(found, target)))
    if timed is not None:
        print("\n".join(time_lines(timed, price)))
    return Exit.OK


def _gpu(text: str) -> Device:
    """What `--device` names.

    Raises:
        UserError: no such GPU, or what earlier versions took for the kind of a cluster's nodes.
    """
    if text in DEVICES:
        raise UserError(
            f"--device {text}: to `peftmark plan` it is a GPU, by name or size (such as 24GB), of "
            "which to say what fits",
            f"For what a cluster's nodes have use --node-device {text}.",
        )
    return device(text)


def _facts(plan: Plan, found: Sequence[Outlook], target: Device | None) -> dict[str, Any]:
    rows = [
        {
            "job_id": p.job.job_id,
            "action": p.action,
            "reason": p.reason,
            "scale": p.job.scale,
            "config": json.loads(p.job.to_json()),
        }
        for p in plan.planned
    ]
    memory = [
        {
            "cell": one.job.cell.stored,
            "task": one.job.task,
            "rows": one.job.recipe.batch_size,
            "tokens": one.job.recipe.max_length,
            **asdict(one.forecast),
            "fits": one.fits,
        }
        for one in found
    ]
    return {
        "suite": plan.suite.name,
        "version": plan.suite.version,
        "profile": plan.profile,
        "profile_reason": plan.profile_reason,
        "jobs": rows,
        "waiting": plan.expanded.waiting,
        "notes": plan.notes,
        "filled": list(plan.suite.filled),
        "memory": memory,
        "device": None if target is None else asdict(target) | {"room": room(target.memory_bytes)},
    }


def _job_lines(plan: Plan) -> Iterator[str]:
    from peftmark.run.neighbours import neighbours_text
    from peftmark.run.progress import job_title

    yield f"Suite {plan.suite.name} v{plan.suite.version}: {plan.suite.summary}"
    yield f"Profile {plan.profile} ({plan.profile_reason})"
    if beside := neighbours_text(plan):
        yield beside
    for planned in plan.planned:
        title = job_title(planned.job)
        yield f"  {planned.job.job_id}  {planned.action:4}  {title}: {planned.reason}"
    yield f"{len(plan.planned)} jobs, {len(plan.to_run)} to run{waiting_text(plan)}"
    for note in plan.notes:
        yield f"Note: {note}."
    if plan.suite.filled:
        yield "Filled in, since the suite leaves it out:"
        yield from (f"  {line}" for line in plan.suite.filled)


def memory_lines(found: Sequence[Outlook], target: Device | None) -> Iterator[str]:
    """What cells take, as a table a task, and what fits the device."""
    on_gpu = target is not None or found[0].job.device != "cpu"
    yield ""
    yield (
        "Memory of a training step's tensors at its peak, predicted without weights, on "
        f"{'a GPU' if on_gpu else 'the CPU'}, in MiB;"
    )
    yield "rows are taken as long as the recipe lets them be (docs/memory.md)."
    if target is not None:
        yield _of_device(target)
    batches: dict[str, list[Outlook]] = {}
    for one in found:
        recipe = one.job.recipe
        batch = f"{one.job.task}, {recipe.batch_size} rows of {recipe.max_length} tokens"
        batches.setdefault(batch, []).append(one)
    for batch, alike in batches.items():
        yield ""
        yield batch
        yield from _table(alike, target)


def _of_device(target: Device) -> str:
    return (
        f"{target.title}, {target.memory_bytes / MIB:,.0f} MiB ({target.source}): less "
        f"{CONTEXT_BYTES / MIB:,.0f} MiB for CUDA's context and libraries,\n"
        f"{WORKSPACE_BYTES / MIB:,.0f} MiB for cuBLAS' workspaces and {ALLOCATOR_SHARE:.1%} for "
        f"torch's allocator, {room(target.memory_bytes) / MIB:,.0f} MiB are left for tensors."
    )


def _table(found: Sequence[Outlook], target: Device | None) -> Iterator[str]:
    head = ["cell", "peak", *(part.head for part in LIVE_PARTS), "trainable", "GFLOP"]
    if target is not None:
        head += ["fits", "most rows", "longest"]
    rows = [_row(one, target) for one in found]
    first, *lines = aligned(head, rows, numbers=range(1, len(head)))
    yield f"  {first}"
    for line, one in zip(lines, found, strict=True):
        yield f"  {line}"
        if one.fits is False:
            yield f"    {advice(one, target)}"


def _row(one: Outlook, target: Device | None) -> list[str]:
    title, told = cell_title(*one.job.cell), one.forecast
    if told.reason:
        return [title, f"not predicted: {told.reason}"]
    row = [
        title,
        _mib(told.total),
        *(_mib(told.live[part.key]) for part in LIVE_PARTS),
        f"{told.trainable:,}",
        f"{told.flops / 1e9:,.1f}",
    ]
    if target is None:
        return row
    rows, tokens = told.largest_rows, told.largest_tokens
    return [
        *row,
        "yes" if one.fits else "no",
        *("?" if most is None else f"{most:,}" if most else "none" for most in (rows, tokens)),
    ]


def advice(one: Outlook, target: Device | None) -> str:
    """What single change would make a cell fit a device."""
    from peftmark.memory.plan_estimates import ways_to_fit

    assert target is not None
    told, left = one.forecast, room(target.memory_bytes)
    helps = ways_to_fit(told, left, _mib)
    over = f"{_mib(told.allocated)} MiB are {_mib(told.allocated - left)} too many. "
    if not helps:
        tried = ", ".join(f"{name} ({_mib(size)})" for name, size in told.changes.items())
        return f"{over}No single change makes it fit{f'; tried: {tried}' if tried else ''}."
    return f"{over}It would fit with one of: {'; '.join(helps)}."


def _mib(size: int) -> str:
    return f"{size / MIB:,.1f}" if size < 10 * MIB else f"{size / MIB:,.0f}"
