"""Memory, operations and parameters of a training step, predicted without weights or a device.

Requests are answered by processes that run the step symbolically (`peftmark.lab.memory.worker`),
so this module loads no torch. An answer depends on the request and on installed code alone, and is
kept in the cache; jobs that differ in nothing that shapes a step, such as the seed, share one.
"""

from __future__ import annotations

import hashlib
import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from peftmark.catalog.lora_methods import STEP_OF
from peftmark.catalog.task import Task, TaskKind
from peftmark.core.errors import StoreError
from peftmark.core.files import write_all
from peftmark.core.sealed import sealed, unsealed
from peftmark.machine.environment import cores
from peftmark.memory.process import ENDED, end, last_words, made_by, start, told
from peftmark.record.job import Form, Job
from peftmark.record.recipe import Causal

WORKER = "peftmark.lab.memory.worker"
NOT_YET = "not predicted on this machine yet"


@dataclass(frozen=True)
class Request:
    """A step to predict.

    Attributes:
        job: its method, recipe and device count, nothing else of it.
        config: of the model, as plain data (`peftmark.catalog.architectures`).
        kind: of the task.
        classes: labels of the task; 1 for a score.
        rows, tokens: of a pass: a batch, or the part of one that is read at once.
        padded: whether rows of the batch are padded to the longest.
        room: bytes that a device has for tensors, to look for what fits; None not to look.
        flops: whether operations are counted too, which takes another step.
    """

    job: Job
    config: Mapping[str, Any]
    kind: TaskKind
    classes: int
    rows: int
    tokens: int
    padded: bool = True
    form: Form = field(default_factory=Form)
    room: int | None = None
    flops: bool = True


@dataclass(frozen=True)
class Forecast:
    """What a step takes.

    Attributes:
        reason: why nothing could be predicted; empty where the rest holds.
        live: bytes at the peak by component (`peftmark.lab.memory.live_tensors.LiveBytes`).
        allocated: bytes at the peak with every storage rounded up as CUDA's allocator does.
        paged: bytes of optimizer states that the driver may page out; not in the peak.
        flops: floating-point operations of the step.
        trainable, parameters: of the model.
        largest_rows: most rows whose peak leaves nothing of the room over, at these tokens; None
            where nobody asked or the program changes with the rows.
        largest_tokens: likewise for the longest row, in steps of 64, at these rows.
        changes: single change -> bytes at the peak with it, rounded up; for what doesn't fit.
        work: of the step, as `peftmark.lab.duration.work.Amounts`; empty if nothing was counted.
    """

    reason: str = ""
    live: dict[str, int] = field(default_factory=dict)
    allocated: int = 0
    paged: int = 0
    flops: int = 0
    trainable: int = 0
    parameters: int = 0
    largest_rows: int | None = None
    largest_tokens: int | None = None
    changes: dict[str, int] = field(default_factory=dict)
    work: dict[str, list[int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Bytes of tensors at the peak."""
        return sum(self.live.values())


def request(job: Job, task: Task, config: Mapping[str, Any], room: int | None = None) -> Request:
    """What to ask for a job: a batch of rows of the recipe's greatest length, the most there can
    be; packed ones as the one row that they stand in."""
    recipe = job.recipe
    # What a causal language model is trained on are tokens, whatever the task.
    kind: TaskKind = task.kind if job.causal is None else "language"
    classes = 1 if job.causal is not None else max(1, len(task.labels))
    rows, tokens = recipe.device_rows, recipe.max_length
    if recipe.packing:
        return Request(job, config, kind, classes, 1, rows * tokens, padded=False, room=room)
    return Request(job, config, kind, classes, rows, tokens, room=room)


def forecasts(
    requests: Sequence[Request],
    cache: Path | None,
    processes: int | None = None,
    heard: Callable[[int, int], None] = lambda done, total: None,
    only_kept: bool = False,
) -> list[Forecast]:
    """Answer requests, each from the cache or by a process.

    Args:
        cache: folder of the cache; None to keep nothing.
        processes: how many at once; None for one a core, at most eight.
        heard: told how many of how many steps are predicted.
        only_kept: start no process; what the cache doesn't hold has a reason instead.
    """
    texts = [_text(one) for one in requests]
    known = {text: found for text in set(texts) if (found := _kept(cache, text)) is not None}
    if only_kept:
        return [known.get(text, Forecast(reason=NOT_YET)) for text in texts]
    groups = _groups([text for text in dict.fromkeys(texts) if text not in known])
    heard(len(known), len(set(texts)))

    def answered(group: list[str], told: list[Forecast]) -> None:
        for text, one in zip(group, told, strict=True):
            known[text] = one
            _keep(cache, text, one)
        heard(len(known), len(set(texts)))

    if groups:
        count = min(processes or min(8, cores()), len(groups))
        _ask(groups, count, answered)
    return [known[text] for text in texts]


def _text(asked: Request) -> str:
    """All that an answer depends on, as JSON; what doesn't shape a step is set to one value."""
    job, recipe = asked.job, asked.job.recipe
    method = STEP_OF.get(job.method, job.method)
    # One device that reads as many rows, but where the weights of a layer are shared out.
    devices = recipe.devices if recipe.shard else 1
    recipe = replace(
        recipe,
        learning_rate=1e-3,
        weight_decay=0.01,
        max_grad_norm=1.0,
        window_batches=1,
        train_rows=None,
        selection_rows=0,
        eval_rows=None,
        eval_every=1,
        eval_batch_size=1,
        schedule="constant",
        warmup_steps=0,
        batch_size=asked.rows * devices * recipe.gradient_accumulation,
        early_stopping=None,
        label_smoothing=recipe.label_smoothing and 0.1,
        halve_on_growth=False,
        pad_to=None,  # the greatest length is what it ends at
        devices=devices,
        max_length=asked.tokens,
        options=recipe.options if method == job.method else {},
        dropout=recipe.dropout and 0.1,
        alpha=recipe.alpha and 8.0,
        steps=100 if recipe.adalora is None else recipe.steps,
    )
    job = replace(
        job,
        suite="",
        suite_version=0,
        profile="",
        model="",
        model_identity="",
        task="",
        task_version=0,
        data_fingerprint="",
        metric="",
        target=None,
        seed=0,
        threads=1,
        purpose="report",
        variant="",
        method=method,
        recipe=recipe,
        causal=None if job.causal is None else Causal("", None, ""),
        own=None,
        own_model=None,
        plugins=tuple(one for one in job.plugins if one.kind in ("method", "quantization")),
    )
    fields = {name: value for name, value in vars(asked).items() if name not in ("job", "form")}
    fields |= {"jobs": [job.to_json()], "form": asdict(asked.form)}
    return json.dumps(fields, sort_keys=True, default=dict)


def _groups(texts: Sequence[str]) -> list[list[str]]:
    """Requests that differ in the rank alone, together."""
    found: dict[str, list[str]] = {}
    for text in texts:
        fields = json.loads(text)
        job = json.loads(fields["jobs"][0])
        key = json.dumps(fields | {"jobs": [job | {"rank": job["rank"] is not None}]})
        found.setdefault(key, []).append(text)
    return list(found.values())


def _message(group: Sequence[str]) -> str:
    fields = [json.loads(text) for text in group]
    return json.dumps(fields[0] | {"jobs": [one["jobs"][0] for one in fields]}) + "\n"


def _ask(
    groups: Sequence[list[str]], count: int, answered: Callable[[list[str], list[Forecast]], None]
) -> None:
    """Give groups to processes, one at a time to each."""
    waiting: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
    for group in sorted(groups, key=len, reverse=True):
        waiting.put(group)
    lock = threading.Lock()
    running: list[subprocess.Popen[str]] = []

    def serve(log: Any) -> None:
        process: subprocess.Popen[str] | None = None
        while True:
            try:
                group = waiting.get_nowait()
            except queue.Empty:
                return
            if process is None or process.poll() is not None:
                process = start(WORKER, log)
                with lock:
                    running.append(process)
            found = _told(process, group, log)
            with lock:
                answered(group, found)

    with tempfile.TemporaryFile("w+", prefix="peftmark-") as log:
        threads = [threading.Thread(target=serve, args=(log,), daemon=True) for _ in range(count)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for process in running:
                end(process)


def _told(process: subprocess.Popen[str], group: list[str], log: Any) -> list[Forecast]:
    """A process' answer, or why there is none."""
    try:
        return [Forecast(**one) for one in told(process, _message(group))]
    except (ValueError, TypeError):
        return [Forecast(reason=last_words(process, log))] * len(group)


# --- the cache ----------------------------------------------------------------------------------


def _place(cache: Path, text: str) -> Path:
    digest = hashlib.sha256((text + made_by()).encode()).hexdigest()
    return cache / "forecasts" / f"{digest}.json"


def _kept(cache: Path | None, text: str) -> Forecast | None:
    if cache is None:
        return None
    try:
        return Forecast(**unsealed(_place(cache, text).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # not there, or damaged: it is predicted anew


def _keep(cache: Path | None, text: str, found: Forecast) -> None:
    # A process that ended may do better the next time.
    if cache is None or found.reason.startswith(ENDED):
        return
    with suppress(StoreError):  # a cache that can't be written is gone without
        write_all({_place(cache, text): sealed(asdict(found))})
