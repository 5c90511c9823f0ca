"""One job on a node of a cluster: what Ray and Slurm run there.

JSON text goes in and comes out. On the node the local executor watches over the worker as it does
anywhere; nothing is stored there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from peftmark.catalog import plugins
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import UserError
from peftmark.executors.contract import WORKER, Finished, Order, log_file
from peftmark.executors.local import run_jobs
from peftmark.executors.parcel import packed
from peftmark.executors.slots import Slot, gpu_slots
from peftmark.machine import nvml
from peftmark.machine.accelerators import kind_of
from peftmark.machine.environment import NUMERIC, capture, changed_versions, of_job, versions
from peftmark.record.job import PROTOCOL, Environment, Job
from peftmark.record.kept import NOT_KEPT
from peftmark.record.plugin import check_here
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.task_data import load_task

OURS = ("peftmark", "peftmark's protocol")
FINGERPRINT_LENGTH = 64  # a job names other data by their revision


def payload(order: Order, job: Job, attempt: int, beside: int) -> str:
    """What a node is told about a job.

    Args:
        beside: jobs of the run that may share the node with this one.
    """
    mirror = order.places.mirror
    return json.dumps(
        {
            "versions": _versions(),
            "job": job.to_json(),
            "attempt": attempt,
            "mirror": str(mirror.resolve()) if mirror else None,
            "sources": order.places.sources,
            "seconds_limit": order.seconds_limit,
            "worker": order.worker,
            "beside": beside,
            "keep": order.leaves(job, attempt) is not None,
        }
    )


def run_here(payload_json: str) -> str:
    """Run a job on this machine.

    Args:
        payload_json: what `payload` made.

    Returns:
        JSON for `answer`: how the job ended and its log, or why it was refused here.
    """
    asked = json.loads(payload_json)
    here = _versions()
    changed = _changed(asked["versions"], here)
    if changed:  # before the job is read: another peftmark may know other fields
        return _refused(
            f"other versions on the node than where the run was started: {changed}; "
            "install the same on both"
        )
    job, attempt = Job.from_json(asked["job"]), asked["attempt"]
    try:
        mirror = Path(asked["mirror"]) if asked["mirror"] else None
        places = Places(mirror, tuple(asked["sources"]), default_cache())
        if job.plugins:
            plugins.load({(one.kind, one.key) for one in job.plugins})
            check_here(job.plugins)
        if asked["worker"] == WORKER:
            _fetch(job, places)
        slots = _slots(job)
    except UserError as error:
        return _refused(f"the node lacks something: {error}")
    with tempfile.TemporaryDirectory(prefix="peftmark-") as folder:
        logs = Path(folder) / "logs"
        logs.mkdir()
        order = Order(
            jobs=[(job, attempt)],
            places=places,
            logs=logs,
            seconds_limit=asked["seconds_limit"],
            retries=0,
            worker=asked["worker"],
            beside=asked["beside"],
            outbox=Path(folder) / "outbox" if asked.get("keep") else None,
            keep=frozenset([job.job_id]),
        )
        (done,) = run_jobs(order, slots)
        done, left = _left(order, done)
        log = log_file(logs, job, attempt)
        text = log.read_bytes().decode("utf-8", "replace") if log.exists() else ""
    ended = replace(done, environment=of_job(capture(), job)).to_json()
    return json.dumps({"finished": ended, "log": text, "left": left})


def _left(order: Order, done: Finished) -> tuple[Finished, dict[str, str]]:
    """The files that a job left to be kept; if they can't be sent, its row says why."""
    folder = order.leaves(done.job, done.attempt)
    try:
        return done, packed(folder) if folder is not None else {}
    except (OSError, ValueError) as error:
        return noted(done, error), {}


def noted(done: Finished, error: Exception) -> Finished:
    """An ending with the note that what the job left can't be kept."""
    warnings = (*done.outcome.warnings, f"{NOT_KEPT}: {error}")
    return replace(done, outcome=replace(done.outcome, warnings=warnings))


@dataclass(frozen=True)
class Answer:
    """What `run_here` returned.

    Attributes:
        finished: how the job ended; None if the node refused it.
        refused: why it did.
        node: the node that did.
        log: of the job.
        left: name -> content of the files that it left to be kept.
    """

    finished: Finished | None
    refused: str = ""
    node: Environment | None = None
    log: str = ""
    left: Mapping[str, str] = field(default_factory=dict)


def answer(job: Job, result_json: str) -> Answer:
    """The inverse of what `run_here` made."""
    result = json.loads(result_json)
    if "refused" in result:
        return Answer(None, result["refused"], Environment(**result["environment"]))
    finished = Finished.from_json(job, result["finished"])
    return Answer(finished, log=str(result["log"]), left=result.get("left", {}))


def _refused(reason: str) -> str:
    return json.dumps({"refused": reason, "environment": asdict(capture())})


def _versions() -> dict[str, str]:
    """Versions that must be the same on every machine of a run."""
    installed = versions()
    found = {name: installed[name] for name in (*NUMERIC, OURS[0]) if name in installed}
    return {**found, OURS[1]: str(PROTOCOL)}


def _changed(asked: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    ours = [
        f"{name} {asked.get(name, 'none')} -> {here.get(name, 'none')}"
        for name in OURS
        if asked.get(name) != here.get(name)
    ]
    return ", ".join(filter(None, [changed_versions(asked, here), *ours]))


def _fetch(job: Job, places: Places) -> None:
    """Put model and rows into the node's cache: the worker uses no network."""
    known = job.data_fingerprint
    seen = known if len(known) == FINGERPRINT_LENGTH else None
    model_files(job.model_facts, places)
    load_task(replace(job.task_facts, fingerprint=seen), places)
    if job.causal is not None:
        load_task(TASKS[job.causal.unrelated.partition(":")[0]], places)


def _slots(job: Job) -> list[Slot]:
    """The places of the job: the first GPUs that the cluster left visible here, or the CPU."""
    count = job.recipe.devices
    if job.device == "cpu":
        return [Slot()] * count
    gpus = nvml.devices()
    if not gpus.found:
        raise UserError(f"the job needs a GPU: {gpus.reason}")
    if gpus.device != job.device:
        there = kind_of(gpus.device).title
        raise UserError(
            f"the job needs a GPU that torch calls {job.device}: there are {there}",
            f"Say so by --node-device {gpus.device}.",
        )
    if len(gpus.found) < count:
        raise UserError(f"the job needs {count} GPUs: {len(gpus.found)} are visible")
    uuids = [gpu.uuid for gpu in gpus.found[:count]]
    return gpu_slots({uuid: nvml.near_cores(uuid) for uuid in uuids})
