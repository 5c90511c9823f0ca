"""Process that predicts the memory of jobs: a request a line in, an answer a line out, as JSON.

It runs steps symbolically (`peftmark.lab.memory.fake_step`) and so loads torch, which the program
that asks (`peftmark.memory.forecast`) does not. It opens no file and no socket but for its two
pipes.
"""

from __future__ import annotations

import gc
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from peftmark.catalog.methods import method_of
from peftmark.catalog.positions import usable
from peftmark.catalog.task import Task
from peftmark.core.errors import UserError
from peftmark.lab.data.batches import Shape
from peftmark.lab.duration.work import Amounts
from peftmark.lab.memory.both_stages import run
from peftmark.lab.memory.fake_step import (
    INPUTS,
    PACKED_INPUTS,
    NotSymbolic,
    Seen,
    unforeseen,
)
from peftmark.lab.memory.meta_model import config_of
from peftmark.lab.memory.scaling import Family, family, interpolated
from peftmark.lab.models import Unsupported
from peftmark.lab.plugin_code import bring
from peftmark.machine.gpus import ALLOCATOR_BLOCK
from peftmark.record.job import Form, Job

RANKS = 5
"""Ranks of one cell from which on they are told from those of a few."""

LENGTHS = (64, 128, 192)
"""Tokens that peaks at every other length are told from; kernels on a GPU work in blocks of 32."""

MOST_ROWS = 1 << 20


@dataclass(frozen=True)
class Asked:
    """A request: jobs that differ in their rank alone.

    Attributes:
        config: of the model, as plain data.
        kind: of the task.
        classes: labels of the task; 1 for a score.
        rows, tokens: of the batch.
        padded: whether rows of the batch are padded.
        room: bytes for tensors, to look for what fits into; None not to look.
        flops: whether operations are counted too.
    """

    jobs: list[Job]
    config: dict[str, Any]
    kind: str
    classes: int
    rows: int
    tokens: int
    padded: bool
    form: Form
    room: int | None
    flops: bool = True

    def task(self) -> Task:
        """A task of this kind, for a step's loss."""
        fields: Any = {
            "key": "",
            "title": "",
            "kind": self.kind,
            "metric": "accuracy",
            "also": (),
            "labels": tuple(map(str, range(self.classes))),
            "train_rows": 0,
            "eval_rows": 0,
            "summary": "",
            "licence": "",
        }
        return Task(**fields)

    def run(
        self, job: Job, rows: int | None = None, tokens: int | None = None, flops: bool = False
    ) -> Seen:
        """A step of a job on a batch of this or another size."""
        shape = Shape(rows or self.rows, tokens or self.tokens, self.padded)
        config = config_of(self.config, self.classes)
        config.use_cache = False
        # Every pass after the second is as the second: it finds the gradients there.
        passes = [shape] * min(job.recipe.gradient_accumulation, 2)
        inputs = PACKED_INPUTS if job.recipe.packing else INPUTS
        seen = run(job, self.task(), config, [passes], form=self.form, inputs=inputs, flops=flops)
        left = job.recipe.gradient_accumulation - len(passes)
        return replace(
            seen,
            flops=seen.flops and seen.flops + left * seen.pass_flops,
            work=_more_passes(seen.work, len(passes), left),
        )


def _more_passes(work: Amounts, passes: int, left: int) -> Amounts:
    """The work of a step with more passes, each as those that were taken."""
    return {
        name: amounts
        if name.startswith(("update", "scored"))
        else [n + n * left // passes for n in amounts]
        for name, amounts in work.items()
    }


def answer(asked: Asked) -> list[dict[str, Any]]:
    """What `peftmark.memory.forecast.Forecast` holds, for each job asked about."""
    if asked.room is None and len(asked.jobs) >= RANKS and (told := _by_rank(asked)):
        return told
    return [_guarded(lambda job=job: _one(asked, job)) for job in asked.jobs]  # type: ignore[misc]


def _guarded(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return make()
    except (Unsupported, NotSymbolic) as error:
        return {"reason": " ".join(str(error).split())}
    except Exception as error:
        return {"reason": unforeseen(error)}


def _one(asked: Asked, job: Job) -> dict[str, Any]:
    told = _told(asked.run(job, flops=asked.flops))
    if asked.room is not None:
        told |= {
            "largest_rows": _largest_rows(asked, job),
            "largest_tokens": _largest_tokens(asked, job),
            "changes": {} if told["allocated"] <= asked.room else _changes(asked, job),
        }
    return told


def _told(seen: Seen) -> dict[str, Any]:
    """A step's answer."""
    return _facts(seen) | {
        "live": asdict(seen.trace.peak()),
        "allocated": seen.trace.peak(ALLOCATOR_BLOCK).total,
        "work": seen.work,
    }


def _facts(seen: Seen) -> dict[str, int]:
    return {
        "paged": seen.paged,
        "flops": seen.flops or 0,
        "trainable": seen.trainable,
        "parameters": seen.total,
    }


def _by_rank(asked: Asked) -> list[dict[str, Any]] | None:
    """Answers for many ranks from those of two or three, if one in between comes out right."""
    ranked = {job.size: job for job in asked.jobs if job.size is not None}
    if len(ranked) < RANKS:
        return None
    ranks = sorted(ranked)
    low, middle, high = ranks[0], ranks[len(ranks) // 2], ranks[-1]
    seen: dict[int, Seen] = {}
    try:
        for runs, check in (((low, high), middle), ((low, middle, high), ranks[1])):
            for rank in (*runs, check):
                if rank not in seen:
                    seen[rank] = asked.run(ranked[rank], flops=asked.flops)
            told = _between({rank: seen[rank] for rank in runs})
            if told is not None and told(check) == _told(seen[check]):
                return [
                    _told(seen[rank]) if rank in seen else told(rank)
                    for rank in (job.size or 0 for job in asked.jobs)
                ]
    except Exception:
        return None  # each will say for itself what is wrong
    return None


def _between(seen: dict[int, Seen]) -> Callable[[int], dict[str, Any]] | None:
    """Answers for any rank, of the polynomials through these; None if the runs differ."""
    found = family({rank: one.trace for rank, one in seen.items()})
    if found is None:
        return None
    facts = [_facts(seen[rank]) for rank in found.sizes]
    values = np.array([list(one.values()) for one in facts])
    work = [seen[rank].work for rank in found.sizes]
    if any(one.keys() != work[0].keys() for one in work):
        return None
    amounts = np.array([list(one.values()) for one in work]).reshape(len(work), -1, 3)

    def told(rank: int) -> dict[str, Any]:
        numbers = interpolated(found.sizes, values, rank)
        return dict(zip(facts[0], map(int, numbers), strict=True)) | {
            "live": asdict(found.peak_at(rank)),
            "allocated": found.total_at(rank, ALLOCATOR_BLOCK),
            "work": dict(
                zip(work[0], interpolated(found.sizes, amounts, rank).tolist(), strict=True)
            ),
        }

    return told


def _largest_rows(asked: Asked, job: Job) -> int | None:
    if job.recipe.packing:
        return None  # they stand in one row
    found = family({rows: asked.run(job, rows=rows).trace for rows in (2, 3)})
    return _fitting(found, asked, 1, MOST_ROWS)


def _largest_tokens(asked: Asked, job: Job) -> int | None:
    highest = positions(config_of(asked.config, asked.classes))
    step = LENGTHS[0]
    if job.recipe.packing or highest is None or highest < LENGTHS[-1]:
        return None
    found = family({tokens: asked.run(job, tokens=tokens).trace for tokens in LENGTHS})
    return _fitting(found, asked, step, highest)


def _fitting(found: Family | None, asked: Asked, step: int, highest: int) -> int | None:
    assert asked.room is not None
    return None if found is None else found.largest(asked.room, ALLOCATOR_BLOCK, step, highest)


def positions(config: Any) -> int | None:
    """Tokens that a model's positions reach; None where its configuration sets no end."""
    found = getattr(config, "max_position_embeddings", None)
    if not isinstance(found, int) or found <= 0:
        return None
    return usable(found, config.model_type, config.pad_token_id or 0)


def _changes(asked: Asked, job: Job) -> dict[str, int]:
    """Bytes that tensors would take after each single change that helps."""
    found = {}
    for name, changed in changes(job):
        told = _guarded(lambda changed=changed: _peak(asked, changed))  # type: ignore[misc]
        if "allocated" in told:
            found[name] = told["allocated"]
    return found


def _peak(asked: Asked, job: Job) -> dict[str, Any]:
    return {"allocated": asked.run(job).trace.peak(ALLOCATOR_BLOCK).total}


def changes(job: Job) -> Iterator[tuple[str, Job]]:
    """Single changes of a job that save memory."""
    recipe, method = job.recipe, method_of(job.method)
    if not recipe.gradient_checkpointing:
        yield (
            "gradient checkpointing",
            replace(job, recipe=replace(recipe, gradient_checkpointing=True)),
        )
    if job.quantization == "none" and method is not None and "nf4" in method.quantizations:
        quantised = replace(recipe, double_quantization=True)
        yield "an nf4 base", replace(job, quantization="nf4", recipe=quantised)
    if recipe.weights == "fp32" and method is not None and method.freezes:
        stored = replace(recipe, precision="bf16", weights="bf16")
        yield "bf16 weights", replace(job, recipe=stored)
    if job.device == "cuda" and recipe.optimizer == "adamw":
        yield (
            "the paged 8-bit AdamW",
            replace(job, recipe=replace(recipe, optimizer="paged_adamw_8bit")),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Answers alone on the output; warnings of libraries are of no use here."""
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Answer requests until the input ends."""
    torch.set_num_threads(1)
    gc.disable()  # a fifth of the time; what is left over goes between two requests
    out = sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        jobs = [Job.from_json(text) for text in request.pop("jobs")]
        asked = Asked(jobs=jobs, **{**request, "form": Form(**request["form"])})
        with _quiet():
            try:
                bring(jobs[0])  # the others differ in their rank alone
                told = answer(asked)
            except UserError as error:
                told = [{"reason": error.what}] * len(jobs)
        print(json.dumps(told), file=out, flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
