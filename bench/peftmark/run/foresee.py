"""Memory and time of methods on a model before anything has run, for `peftmark recommend`.

A draft of a suite with one task of the kind is planned in a temporary folder, and its jobs are
predicted on the user's model; nothing is fetched, nothing is measured but what the cache has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftmark.advice.situation import Foreseen
from peftmark.catalog.architectures import LANGUAGE_MODELS, OF_MODELS, sizes_of
from peftmark.catalog.models import MODELS, read_as
from peftmark.catalog.task import TaskKind
from peftmark.core.amounts import size_text
from peftmark.core.errors import UserError
from peftmark.duration.cards import CARDS
from peftmark.duration.estimates import Estimate, estimates, key_of
from peftmark.machine.gpus import Device, room
from peftmark.memory.plan_estimates import Outlook, config_of, outlooks, ways_to_fit
from peftmark.own.model import is_causal
from peftmark.own.suite_text import default_model, reads
from peftmark.record.recipe import Recipe
from peftmark.run.expected import costs_here
from peftmark.run.runner import Plan, Selection, make_plan

TASKS: Mapping[TaskKind, str] = {
    "classification": "trec",
    "multi-label": "trec",
    "regression": "sts-b",
    "multiple-choice": "labelled-instructions",
    "instruction": "labelled-instructions",
    "language": "reviews",
}
"""Kind of task -> the packaged one whose shape stands for it."""
LARGE = 1_000_000_000
TOO_LARGE = (
    "a step of more than a billion parameters takes minutes to predict, as peftmark plan SUITE "
    "--device GPU does"
)
NAMED_ALONE = "name the GPU, and not its memory alone, as --memory"


def shape_of(model: str, kind: TaskKind | None) -> tuple[Mapping[str, Any] | None, bool]:
    """The configuration of a model (None where only its files tell it), and whether it is a causal
    language model.

    Args:
        kind: of the task, which it has to read; None for any.

    Raises:
        UserError: no such model, or it reads no task of the kind.
    """
    shape: Mapping[str, Any] | None
    if model in MODELS:
        shape, causal = OF_MODELS.get(model), MODELS[model].causal
    elif model in LANGUAGE_MODELS:
        shape, causal = LANGUAGE_MODELS[model], True
    else:
        shape = config_of(model)
        causal = is_causal(shape)
    if kind is not None and not reads(causal, kind):
        raise UserError(
            f"--model {model}: {read_as(causal)}s don't read tasks of kind {kind}",
            "Name another model, or leave out --task.",
        )
    return shape, causal


def foresee(
    shape: Mapping[str, Any] | None,
    causal: bool,
    kind: TaskKind,
    rank: int,
    device: Device | None,
    heard: Callable[[int, int], None],
    heard_time: Callable[[int, int], None],
) -> tuple[list[Foreseen], Recipe, bool]:
    """What is predicted of some methods, the recipe that it is predicted of, and whether times are
    of rows as long as those of the task that stands for the kind (else of the longest there may
    be).

    Args:
        shape: configuration of the model; None where only its files tell it.
        device: the GPU it has to fit; None for this machine.
        heard, heard_time: told how many of how many steps are predicted.
    """
    plan = _draft(causal, kind, rank)
    jobs = [job for job in plan.jobs if job.purpose == "report"]
    shapes = {} if shape is None else {job.model: shape for job in jobs}
    if shape is None:
        reason = "the model's architecture is told by its files alone"
        return (
            [Foreseen(job.cell, reason=reason, no_time=reason) for job in jobs],
            jobs[0].recipe,
            True,
        )
    found = outlooks(jobs, plan.places.cache, device, shapes=shapes, heard=heard)
    costs = costs_here(plan) if device is None else CARDS.get(device.key)
    timed: dict[Any, Estimate] = {}
    why = "peftmark doctor --calibrate measures this machine" if device is None else NAMED_ALONE
    if costs is not None and (parameters_of(shape) or 0) > LARGE:
        costs, why = None, TOO_LARGE
    if costs is not None:
        jobs = [replace(job, device=costs.device) for job in jobs]
        timed = estimates(jobs, costs, plan.places, shapes, heard_time)
    told = [_foreseen(one, device, timed.get(key_of(one.job)), why) for one in found]
    return told, jobs[0].recipe, not any(one.at_most for one in timed.values())


def parameters_of(shape: Mapping[str, Any] | None) -> int | None:
    """Parameters of a model by its configuration, about: those of its layers' matrices and of its
    embeddings, as a transformer of such sizes has them; None where the configuration doesn't tell.

    Good enough to order rows by and for a rule that asks for billions; nothing is built for it.
    """
    if shape is None or (sizes := sizes_of(shape)) is None:
        return None
    layers, width, heads = sizes
    vocabulary, inner = shape.get("vocab_size"), shape.get("intermediate_size")
    if not isinstance(vocabulary, int):
        return None
    inner = inner if isinstance(inner, int) else 4 * width
    head = shape.get("head_dim") or width // heads
    kept = shape.get("num_key_value_heads") or heads
    attention = 2 * width * head * (heads + kept)
    # What is gated names heads of keys and values, or an activation that gates.
    gated = "num_key_value_heads" in shape or shape.get("hidden_act") in ("silu", "swish")
    feed_forward = (3 if gated else 2) * width * inner
    embeddings = vocabulary * width * (1 if shape.get("tie_word_embeddings", True) else 2)
    return int(layers * (attention + feed_forward) + embeddings)


def _draft(causal: bool, kind: TaskKind, rank: int) -> Plan:
    """The plan of a suite with one task of the kind and the methods that are predicted."""
    model = default_model("instruction" if causal else "classification")
    methods = [
        f"{{method: lora, rank: [{rank}]}}",
        f"{{method: lora, rank: [{rank}], quantization: [nf4]}}",
        f"{{method: adalora, rank: [{rank}]}}",
        "full",
    ]
    text = (
        f"suite: draft\nmodel: {model}\nseeds: [0]\ntasks: [{TASKS[kind]}]\n"
        f"methods: [{', '.join(methods)}]\n"
    )
    with tempfile.TemporaryDirectory(prefix="peftmark-") as folder:
        (Path(folder) / "draft.yaml").write_text(text, encoding="utf-8")
        return make_plan(Selection("draft", suites=Path(folder), results=Path(folder)))


def _foreseen(one: Outlook, device: Device | None, timed: Estimate | None, why: str) -> Foreseen:
    told, steps = one.forecast, one.job.recipe.steps
    seconds, no_time = None, why
    if timed is not None:
        seconds = timed.phases["train"] / steps if timed.phases else None
        no_time = timed.reason
    if told.reason:
        return Foreseen(one.job.cell, reason=told.reason, step_seconds=seconds, no_time=no_time)
    live = told.live
    return Foreseen(
        one.job.cell,
        bytes_=told.total,
        trainable=told.trainable,
        adapter_bytes=live["adapter"] + live["gradients"] + live["optimizer"],
        fits=one.fits,
        help=_help(one, device) if one.fits is False else "",
        step_seconds=seconds,
        no_time=no_time,
    )


def _help(one: Outlook, device: Device | None) -> str:
    """What single change would make a cell fit."""
    left = 0 if device is None else room(device.memory_bytes)
    ways = ways_to_fit(one.forecast, left, size_text)
    return f"would fit with {' or '.join(ways)}" if ways else "no single change makes it fit"
