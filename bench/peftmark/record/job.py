"""What was asked, where, what happened and what was measured: the types every part shares.

`Job` is one cell of the matrix for one task and seed, fully resolved. `Outcome` is what its
worker reports. `Record` is the stored row: job, outcome and environment together. All are plain
frozen data that survive a round trip through JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast, get_args

from peftmark.catalog.method import Size
from peftmark.catalog.methods import Cell, method_of
from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.task import Task
from peftmark.catalog.tasks import TASKS
from peftmark.record.identity import BESIDE, LATER, hashed, identity_of, named
from peftmark.record.outcome import Outcome
from peftmark.record.own import Own, rows_text, task_from
from peftmark.record.own_model import OwnModel, model_from
from peftmark.record.plugin import UsedPlugin, plugins_from
from peftmark.record.recipe import FORM, OF_TRAINING, AdaLoraSchedule, Attention, Causal, Recipe

SCHEMA_VERSION = 8
"""Version of the stored columns. Rows of older ones are migrated (`peftmark.storage.migrations`),
newer ones refused."""

PROTOCOL = 2
"""Version of the measuring procedure itself. Bumped by hand when the same configuration would
give other numbers (seeding, batching, training step, metric); part of every job's identity."""

Device = Literal["cpu", "cuda", "xpu"]
"""Where a job runs, by torch's name of it: `cuda` are NVIDIA's and AMD's GPUs, `xpu` Intel's."""
DEVICES: tuple[Device, ...] = get_args(Device)

Purpose = Literal["report", "tuning", "repeat"]
Scale = Literal["full", "reduced"]


@dataclass(frozen=True)
class Job:
    """One run: a cell of the matrix on one task with one seed, fully resolved.

    Attributes:
        model_identity: SHA-256 of the model's weights; of the user's own that over all its files.
        data_fingerprint: expected fingerprint of the task's rows, or `revision:<sha>` where
            only the pinned revision is known.
        target: metric value that counts as "target reached"; None if the suite sets none.
        size: the method's rank, width or number of virtual tokens (`size_kind`); None for a
            method without size, or where `recipe.budget` decides it. Called `rank` in the JSON.
        device: one of `DEVICES`.
        threads: torch threads of the worker.
        purpose: `report` for a row that enters comparisons; `tuning` for a trial of one learning
            rate, scored on the selection split and measured no further; `repeat` for a second run
            of a reported job, whose numbers must be the same bits.
        variant: what else sets the cell apart: the entry's own word, its budget, and the value of
            every axis the profile varies for all cells alike; the values are in the recipe.
        causal: how a causal language model is asked; None for an encoder.
        own: what the catalogue would say of the task, where it is the user's own.
        own_model: what the catalogue would say of the model, where it is the user's own.
        plugins: the plug-ins that it uses, with the hashes of their code.
        scale: whether the profile is the whole experiment or a cut-down one; it says what scores
            are worth and changes none, so it is no part of the identity.
        rates: where the learning rates come from, in words; beside the identity like `scale`.
        stored_id: of a job read from a row of an older configuration, whose id today's would not
            be: the id it was stored under. Empty for every other job.
    """

    suite: str
    suite_version: int
    profile: str
    model: str
    model_identity: str
    task: str
    task_version: int
    data_fingerprint: str
    metric: str
    target: float | None
    method: str
    size: int | None = field(metadata=named("rank"))
    quantization: str
    seed: int
    device: Device
    threads: int
    recipe: Recipe
    purpose: Purpose = "report"
    variant: str = ""
    protocol: int = PROTOCOL
    causal: Causal | None = field(default=None, metadata=LATER)
    own: Own | None = field(default=None, metadata=LATER)
    own_model: OwnModel | None = field(default=None, metadata=LATER)
    plugins: tuple[UsedPlugin, ...] = field(default=(), metadata=LATER)
    scale: Scale = field(default="reduced", compare=False, metadata=BESIDE)
    rates: str = field(default="", compare=False, metadata=BESIDE)
    stored_id: str = field(default="", compare=False, metadata=BESIDE)

    @cached_property
    def job_id(self) -> str:
        """First 16 hex digits of SHA-256 over the canonical JSON of what a job does."""
        return self.stored_id or identity_of(self.to_json())

    @property
    def size_kind(self) -> Size | None:
        """What the method's size is; None for a method without one."""
        return getattr(method_of(self.method), "size", None)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, no NaN; the text that the identity hashes."""
        return self._json

    @cached_property
    def _json(self) -> str:
        # As `asdict` would have it, without its deep copies: plans have thousands of jobs.
        return json.dumps(
            hashed(self),
            default=hashed,
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
            ensure_ascii=False,
        )

    @staticmethod
    def from_json(text: str) -> Job:
        """The inverse of `to_json`; what stands beside the identity is at its default."""
        data = json.loads(text)
        data["size"] = data.pop("rank")
        recipe = dict(data["recipe"])
        if isinstance(recipe["targets"], list):
            recipe["targets"] = tuple(recipe["targets"])
        if recipe["adalora"] is not None:
            recipe["adalora"] = AdaLoraSchedule(**recipe["adalora"])
        causal = data.get("causal")
        model = data.get("own_model")
        read: dict[str, Any] = {
            "recipe": Recipe(**recipe),
            "causal": Causal(**causal) if causal is not None else None,
            "own": _own(data.get("own")),
            "own_model": OwnModel(**model) if model is not None else None,
            "plugins": plugins_from(data.get("plugins", ())),
        }
        return Job(**{**data, **read})

    @property
    def known_task(self) -> Task | None:
        """The task: the user's own, or the catalogue's; None if this catalogue has it no more."""
        if self.own is None:
            return TASKS.get(self.task)
        return task_from(self.own, self.task, self.metric, self.data_fingerprint)

    @property
    def task_facts(self) -> Task:
        """The task; a job that is to run has one."""
        return TASKS[self.task] if self.own is None else cast(Task, self.known_task)

    @property
    def task_title(self) -> str:
        """The task as results name it, with the rows of one's own."""
        if self.own is None:
            return self.task
        return rows_text(self.task, self.own.train_rows, self.own.eval_rows)

    @property
    def known_model(self) -> Model | None:
        """The model: the user's own, or the catalogue's; None if this catalogue has it no more."""
        if self.own_model is None:
            return MODELS.get(self.model)
        return model_from(self.own_model, self.model, self.model_identity)

    @property
    def model_facts(self) -> Model:
        """The model; a job that is to run has one."""
        return MODELS[self.model] if self.own_model is None else cast(Model, self.known_model)

    @property
    def model_name(self) -> str:
        """The model as results name it."""
        model = self.known_model
        return self.model if model is None else model.title

    @property
    def form(self) -> dict[str, Any]:
        """How its steps are computed (`FORM`), which all that is compared must share; what trains
        nothing says nothing of those of training."""
        names = [name for name in FORM if self.cell.trains or name not in OF_TRAINING]
        return {name: getattr(self.recipe, name) for name in names}

    @property
    def loads_on(self) -> str:
        """Where its base is loaded: a sharded one may be larger than its device."""
        return "cpu" if self.recipe.shard else self.device

    @property
    def cell(self) -> Cell:
        """What is compared: method, size, quantization and variant."""
        return Cell(self.method, self.size, self.quantization, self.variant)


def _own(data: Mapping[str, Any] | None) -> Own | None:
    """The inverse of what `Own` is in JSON, where tuples are lists."""
    if data is None:
        return None
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return Own(**values)


@dataclass(frozen=True)
class Form:
    """What shapes a step besides the recipe; the defaults are what jobs do.

    Attributes:
        attention: torch's fused attention, or one product after the other.
        fused_loss: a language model's loss in chunks, so that its logits are never all there.
        pure: what trains is of the type that the base is loaded in, where a job has it in fp32.
    """

    attention: Attention = "sdpa"
    fused_loss: bool = False
    pure: bool = False


@dataclass(frozen=True)
class Environment:
    """The machine and software a job ran on.

    Attributes:
        versions: package name -> version; `numeric` of them can change bits.
        sources: package name -> hash of its Python files as they are installed, for those whose
            code decides what is trained; a version doesn't tell two commits apart.
        commit: git commit of peftmark itself, None for an installed wheel.
        dirty: whether that checkout had uncommitted changes, None if unknown.
        machine: system, python, cpu, cores, memory_bytes, simd, kernels (those of another
            processor, where they were asked for), bf16_instructions, gpus and driver.
    """

    versions: dict[str, str]
    commit: str | None
    dirty: bool | None
    machine: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def software(self) -> dict[str, str]:
        """Versions and hashes in one mapping, for `machine.environment.changed_versions`."""
        return self.versions | {source_key(name): v for name, v in self.sources.items()}


def source_key(package: str) -> str:
    """What the hash of a package's code is called beside its version."""
    return f"{package} (source)"


@dataclass(frozen=True)
class Record:
    """One stored row: a job, the attempt's outcome and where it ran.

    Attributes:
        attempt: 1 for the first try of the job, then 2, ...
        started_at: UTC, ISO 8601, seconds.
        finished_at: UTC, ISO 8601, seconds.
        wall_seconds: seconds from the worker's start to its end.
        nvml_process_bytes: peak device memory of the worker's process as NVML saw it, sampled by
            the supervisor over the worker's whole life.
        nvml_device_bytes: peak device memory in use over the idle reading, sampled likewise.
        nvml_reason: why one or both are None; empty if neither is.
        command: shell command that runs just this job again.
        schema: version of the stored columns that the row was written with.
        predicted_seconds, most_seeds, look, question, profile_seeds: what the supervisor knew
            before the job ran (`peftmark.record.fields`); why one is None stands among the
            outcome's reasons.
    """

    job: Job
    outcome: Outcome
    environment: Environment
    attempt: int
    started_at: str
    finished_at: str
    wall_seconds: float
    nvml_process_bytes: int | None
    nvml_device_bytes: int | None
    nvml_reason: str
    command: str
    schema: int = SCHEMA_VERSION
    predicted_seconds: float | None = None
    most_seeds: int | None = None
    look: int | None = None
    question: str | None = None
    profile_seeds: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the run finished and is valid."""
        return self.outcome.status == "ok"

    @property
    def settled(self) -> bool:
        """Whether running the job again would tell nothing new.

        A trial that diverged has its answer: the learning rate is too high.
        """
        return self.ok or (self.job.purpose == "tuning" and self.outcome.status == "diverged")

    def null_reason(self, name: str) -> str:
        """Why a field of the outcome, or an NVML reading, is null; empty if it isn't."""
        if getattr(self.outcome, name, None) is not None or getattr(self, name, None) is not None:
            return ""
        if name.startswith("nvml_"):
            return self.nvml_reason or "not recorded"
        outcome = self.outcome
        if name in outcome.null_reasons:
            return outcome.null_reasons[name]
        if self.ok:
            return "not recorded"
        reason = outcome.status_reason.splitlines()
        return f"the job ended as {outcome.status}" + (f": {reason[0]}" if reason else "")


@dataclass(frozen=True)
class RadarAxis:
    """Fixed anchors of one radar axis, written in the suite.

    Attributes:
        worst: value drawn at the centre.
        best: value drawn at the rim.
        scale: linear, or log for ratios.
    """

    worst: float
    best: float
    scale: Literal["linear", "log"]


@dataclass(frozen=True)
class ReportOptions:
    """What a suite says about its report.

    Attributes:
        reference: the cell the others are compared with.
        radar: axis key -> anchors. `quality` is (metric - baseline) / (highest possible -
            baseline), averaged over tasks; `speed`, `memory`, `parameters` and
            `steps_to_target` are ratios to the reference cell on the same task and seed,
            averaged geometrically; `energy` likewise, or what stands in for it
            (`peftmark.report.energy`); `ease_of_use` is a share of the settings that were tried.
        watts: that the machine's processor takes while it works, as somebody stated; None where
            nobody did. They are never assumed.
    """

    reference: Cell
    radar: dict[str, RadarAxis]
    watts: float | None = None
