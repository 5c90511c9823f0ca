"""What is measured of a trained model once training is over: its saved files, and its steps.

What fails here is a fact about the method, not about its training: it leaves nulls with the reason.
"""

from __future__ import annotations

import tempfile
import traceback
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from peftmark.lab.build import Build
from peftmark.lab.data.job_data import Work
from peftmark.lab.deploy import deploy, saved_size
from peftmark.lab.leave import leave
from peftmark.lab.measure.meters import Meters
from peftmark.lab.measure.probe import Probed, of_both, probe
from peftmark.lab.measure.to_outcome import (
    DEPLOYED,
    PREDICTED,
    PROBED,
    of_deployment,
    of_probe,
    without,
)
from peftmark.lab.memory.both_stages import predicted_peak
from peftmark.lab.memory.fake_step import NotSymbolic, unforeseen
from peftmark.lab.methods import Prepared
from peftmark.lab.models import Unsupported, trained_head
from peftmark.lab.train import Progress
from peftmark.machine.accelerators import kind_of
from peftmark.record.field import LIVE_PARTS
from peftmark.record.kept import NOT_KEPT
from peftmark.record.outcome import Outcome
from peftmark.record.stages import ends_as, second_stage

LIVE = ("live_bytes", *(part.column for part in LIVE_PARTS))
SHARDED = "its base was sharded, and what is measured apart from training takes a whole one"
COUNTED = ("flops_per_step", "mfu")
OF_PASSES = "each packed pass of a step has a length of its own, and three steps tell no others"
OF_FLASH = "operations of FlashAttention's kernels are not counted"
OF_COMPILED = "a compiled step keeps other tensors than one that is followed"


def deployed(
    outcome: Outcome,
    build: Build,
    prepared: Prepared,
    work: Work,
    meters: Meters,
    progress: Progress,
    outbox: Path | None = None,
) -> Outcome:
    """Save, reload, merge and time; what was saved is left in a folder where one is given."""
    progress({"phase": "save"})
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch:
        folder = Path(scratch)
        with meters.phase("save"):
            prepared.save(folder)
        head = trained_head(build.parts, build.job.recipe.train_pooler)
        size = saved_size(folder, head)
        outcome = replace(
            outcome,
            saved_parameters=size.parameters,
            adapter_bytes=size.bytes,
            saved_adapter_bytes=size.bytes - size.head_bytes,
            saved_head_bytes=size.head_bytes,
        )
        if build.job.recipe.shard:
            outcome = without(outcome, DEPLOYED, SHARDED)
        else:
            progress({"phase": "deploy"})
            outcome = _deployed(outcome, build, prepared, folder, work, meters)
        if outbox is not None and outcome.status == "ok":
            outcome = _left(outcome, folder, outbox, build, prepared, work)
    return outcome


def _deployed(
    outcome: Outcome, build: Build, prepared: Prepared, folder: Path, work: Work, meters: Meters
) -> Outcome:
    """Reload what was saved, merge and time it."""
    device, last = torch.device(build.job.device), replace(build, job=ends_as(build.job))
    try:
        with meters.phase("deploy"):
            batches, by_rows = work.latency, work.latency_by_rows
            alone = meters.turns.alone if meters.turns.timed else nullcontext
            found = deploy(last.job, prepared, folder, last.base, batches, device, by_rows, alone)
        return replace(outcome, **of_deployment(found, outcome))
    except Exception as error:
        return _failed(outcome, DEPLOYED, "reloading and merging", error)


def _left(
    outcome: Outcome, folder: Path, outbox: Path, build: Build, prepared: Prepared, work: Work
) -> Outcome:
    """The outcome after what was saved is left for whoever keeps it: it costs no row if that
    fails."""
    try:
        leave(folder, outbox, build, prepared, work)
    except (OSError, ValueError) as error:
        traceback.print_exc()
        reason = f"{NOT_KEPT}: {' '.join(str(error).split())[:200]}"
        return replace(outcome, warnings=(*outcome.warnings, reason))
    return outcome


def probed(
    outcome: Outcome, build: Build, work: Work, meters: Meters, progress: Progress
) -> Outcome:
    """Count operations and live bytes of a few steps apart, and predict the bytes."""
    if build.job.recipe.shard:
        return without(outcome, (*PROBED, *PREDICTED), SHARDED)
    progress({"phase": "probe"})
    try:
        with meters.phase("probe"):
            found = _probed(build, work)
            if second := second_stage(build.job):
                other = _probed(replace(build, job=second), work)
                found = of_both(found, other, build.job.recipe.steps - second.recipe.steps)
    except Exception as error:
        outcome = without(outcome, PREDICTED, "there is nothing to compare it with")
        return _failed(outcome, PROBED, "the probe steps", error)
    outcome = replace(outcome, **of_probe(found, outcome, build.job.recipe.devices))
    if build.job.recipe.compile:
        unknown: dict[str, Any] = dict.fromkeys(LIVE)
        outcome = without(replace(outcome, **unknown), LIVE, OF_COMPILED)
    outcome = _counted(outcome, build)
    if build.job.device != "cpu" and (why := kind_of(build.job.device).unpredicted):
        return without(outcome, PREDICTED, why)
    try:
        with meters.phase("predict"):
            peak = predicted_peak(build, found)
    except (NotSymbolic, Unsupported) as error:
        return without(outcome, PREDICTED, str(error))
    except Exception as error:  # a limit of the prediction, not of the job
        traceback.print_exc()
        return without(outcome, PREDICTED, unforeseen(error))
    error_share = peak / found.live.total - 1
    return replace(outcome, predicted_live_bytes=peak, prediction_error=error_share)


def _counted(outcome: Outcome, build: Build) -> Outcome:
    """The outcome without operations where steps were counted that others aren't told from."""
    recipe = build.job.recipe
    packed = recipe.packing and recipe.device_rows != recipe.batch_size
    if not packed and recipe.attention != "flash":
        return outcome
    why = OF_PASSES if packed else OF_FLASH
    return without(replace(outcome, flops_per_step=None, mfu=None), COUNTED, why)


def _probed(build: Build, work: Work) -> Probed:
    """A probe of the job's model, built anew, which is gone afterwards."""
    model = build.prepare(build.base())
    return probe(build.job, build.task, model, work, torch.device(build.job.device))


def _failed(outcome: Outcome, names: tuple[str, ...], what: str, error: Exception) -> Outcome:
    traceback.print_exc()
    text = " ".join(str(error).split())[:200]
    reason = f"{what} failed: {type(error).__name__}: {text}"
    return without(replace(outcome, warnings=(*outcome.warnings, reason)), names, reason)
