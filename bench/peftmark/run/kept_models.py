"""Kept adapters in use: found by cell and task, written for others to load, put to new rows,
measured."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from peftmark.catalog.methods import cell_title
from peftmark.catalog.task import Example
from peftmark.core.errors import UserError
from peftmark.core.shown import plain, quoted, quoted_list
from peftmark.core.texts import whole_number
from peftmark.executors.launch import WORKER_ENVIRONMENT
from peftmark.record.job import Record
from peftmark.record.kept import Kept
from peftmark.run.keep import at_least, group
from peftmark.run.model_card import card
from peftmark.run.one_answer import ask
from peftmark.run.runner import places_of
from peftmark.sources.assets import Places
from peftmark.storage.adapters import CARD
from peftmark.storage.store import Store
from peftmark.suite.load import Suite

MODULE = "peftmark.lab.export.worker"


@dataclass(frozen=True)
class Asked:
    """Which kept adapter, as typed.

    Attributes:
        cell: its name as reports have it, in any case.
        seed: None for the best that is kept.
        profile: None where one alone has such an adapter.
    """

    cell: str
    task: str
    seed: int | None = None
    profile: str | None = None


@dataclass(frozen=True)
class Found:
    """A kept adapter with its row.

    Attributes:
        folder: its files.
        record: None if its row is no more.
    """

    folder: Path
    kept: Kept
    record: Record | None

    @property
    def title(self) -> str:
        """It in words."""
        job = self.kept.job
        return f"{cell_title(*job.cell)} on {job.task}, seed {job.seed}"


def find(store: Store, asked: Asked) -> Found:
    """The kept adapter that is asked for.

    Raises:
        UserError: there is none, or more than one profile or model has one.
    """
    entries = store.adapters.entries()
    if not entries:
        raise UserError(
            f"{store.adapters.folder}: no trained adapter is kept there",
            f"They are kept by a run without --keep none: peftmark run {store.folder.name} --again "
            "runs finished jobs too.",
        )
    fit = {p: k for p, k in entries.items() if _is(k, asked)}
    if not fit:
        there = sorted({f"{cell_title(*k.job.cell)} on {k.job.task}" for k in entries.values()})
        which = f" of seed {asked.seed}" if asked.seed is not None else ""
        in_profile = f" in profile {plain(asked.profile)}" if asked.profile else ""
        raise UserError(
            f"no adapter of {quoted(asked.cell)} on {quoted(asked.task)}{which}{in_profile} is "
            "kept",
            f"Kept are {quoted_list(there)}; --keep says which are.",
        )
    profiles = sorted({k.job.profile for k in fit.values()})
    if len(profiles) > 1:
        what = f"{quoted(asked.cell)} on {quoted(asked.task)} is kept of {len(profiles)} profiles"
        raise UserError(what, f"Name one with --profile: {', '.join(profiles)}.")
    if len({group(k.job) for k in fit.values()}) > 1:
        # Of another model or other rows under one name: the newest row's are meant.
        newest = max(fit, key=lambda p: p.stat().st_mtime)
        fit = {p: k for p, k in fit.items() if group(k.job) == group(fit[newest].job)}
    best = reduce(lambda a, b: a if at_least(fit[a], fit[b]) else b, fit)
    store.adapters.check(best, fit[best])
    record = store.read().records.get(fit[best].job.job_id)
    return Found(best, fit[best], record)


def _is(kept: Kept, asked: Asked) -> bool:
    job = kept.job
    return (
        cell_title(*job.cell).casefold() == asked.cell.strip().casefold()
        and job.task == asked.task
        and asked.seed in (None, job.seed)
        and asked.profile in (None, job.profile)
    )


def find_other(store: Store, asked: Asked, found: Found, text: str) -> Found:
    """A second kept adapter, to be fused with one that was found.

    Args:
        asked: what `found` was found by.
        text: the second as typed: SEED, TASK or TASK:SEED, of the same cell and profile.

    Raises:
        UserError: there is none, it is the first one, or it sits on another base.
    """
    task, _, seed = text.rpartition(":") if ":" in text else (text, "", "")
    if whole_number(task) is not None and not seed:
        task, seed = asked.task, task
    number = whole_number(seed) if seed else None
    if not task or (":" in text and number is None):
        raise UserError(
            f"--fuse-with: found {quoted(text)}",
            "Give SEED, TASK or TASK:SEED of another kept adapter of the cell.",
        )
    other = find(store, Asked(asked.cell, task, number, found.kept.job.profile))
    if other.folder == found.folder:
        raise UserError(
            f"--fuse-with {plain(text)}: that is {plain(found.title)} itself",
            "Name another seed or task; what it gives fused with itself is told without the "
            "option.",
        )
    bases = [(j.model_identity, j.recipe.weights) for j in (found.kept.job, other.kept.job)]
    if bases[0] != bases[1]:
        raise UserError(
            f"--fuse-with {plain(text)}: {plain(other.title)} sits on {other.kept.job.model} "
            f"({other.kept.job.recipe.weights}), {plain(found.title)} on {found.kept.job.model} "
            f"({found.kept.job.recipe.weights})",
            "Only adapters of one base can be fused: name one of the same model.",
        )
    return other


# --- export ---------------------------------------------------------------------------------------


def export(
    found: Found, suite: Suite, mirror: Path | None, to: Path, merged: bool, with_base: bool
) -> dict[str, Any]:
    """Write an adapter for others to load, after what was written was loaded and compared.

    Args:
        to: a folder that isn't there, or is empty.
        merged: the whole model without an adapter.
        with_base: the base beside the adapter.

    Returns:
        form, difference (the largest of a logit from the trained model), largest (logit), rows.

    Raises:
        UserError: the folder isn't empty or can't be written; or no form gives the trained model.
    """
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise UserError(f"{to} is there already", "Name a folder that isn't there, or is empty.")
    part = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        part.mkdir(parents=True)
        asked = {"target": str(part.resolve()), "merged": merged, "with_base": with_base}
        told = _ask("export", found, suite, mirror, asked)
        loading = _loading(told)
        text = card(found.record, loading) if found.record else f"# {found.title}\n\n{loading}\n"
        (part / CARD).write_text(text, encoding="utf-8")
        if to.is_dir():
            to.rmdir()
        os.replace(part, to)
    except OSError as error:
        raise UserError(f"can't write {to}: {error.strerror or error}", "Name another.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return told


FORMS = {
    "adapter": "an adapter of PEFT's, with the head in it",
    "lora": "one LoRA adapter of PEFT's, each module with a rank of its own, with the head in it",
    "model": "the whole model as transformers' own class, in fp32",
}


def _loading(told: Mapping[str, Any]) -> str:
    """The part of a card that says how the export is loaded."""
    return (
        f"This is {FORMS[told['form']]}. `load.py` loads it with torch, transformers and PEFT; "
        "peftmark is not needed:\n\n"
        f"```python\n{told['code']}```\n\n"
        f"So loaded, its logits on {told['rows']} rows of drawn tokens differ from the trained "
        f"model's by {told['difference']:.1e} at most (the largest logit is "
        f"{told['largest']:.3g}), both computed in fp32."
    )


# --- predict --------------------------------------------------------------------------------------


def predict(
    found: Found, suite: Suite, mirror: Path | None, rows: Sequence[Example]
) -> list[dict[str, Any]]:
    """What a kept adapter says of rows, as `peftmark.lab.export.predict` has it.

    Raises:
        UserError: it can't be loaded.
    """
    sent = [
        {"text": r.text, "pair": r.pair, "choices": list(r.choices), "turns": list(r.turns)}
        for r in rows
    ]
    said: list[dict[str, Any]] = _ask("predict", found, suite, mirror, {"rows": sent})["said"]
    return said


# --- measure --------------------------------------------------------------------------------------


def measure(
    found: Found,
    suite: Suite,
    mirror: Path | None,
    other: tuple[Found, float] | None = None,
    attention: int | None = None,
) -> dict[str, Any]:
    """How far a kept adapter moved its base's weights, and what ten of it on one base hold.

    Args:
        other: a second one to fuse it with, and the second's weight.
        attention: evaluation rows on which attention is measured, at most; None for none.

    Returns:
        change and several, as `peftmark.lab.export.weight_change` and `.several` have them, each
        with a reason that is empty where it was measured; where asked for, two and attention, as
        `.two` and `.attention` have them.

    Raises:
        UserError: it can't be loaded, or what was asked for can't be measured.
    """
    folder = None if other is None else str(other[0].folder.resolve())
    weight = None if other is None else other[1]
    asked = {"other": folder, "weight": weight, "attention": attention}
    return _ask("measure", found, suite, mirror, asked)


# --- the process that loads -----------------------------------------------------------------------


def _ask(
    do: str, found: Found, suite: Suite, mirror: Path | None, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Have a process that loads torch do something with an adapter.

    Raises:
        UserError: what it refused, or how it ended.
    """
    places = places_of(suite, found.kept.job.profile, mirror)
    asked = {"do": do, "folder": str(found.folder.resolve()), **told_places(places), **more}
    answer = ask(MODULE, asked, WORKER_ENVIRONMENT)
    if answer.value is None:
        last = plain(answer.last) or "it said nothing"
        raise UserError(
            f"{found.title}: loading it ended with exit code {answer.code}: {last}",
            "Its folder is as it was.",
        )
    told: dict[str, Any] = answer.value
    if "fault" in told:
        raise UserError(f"{found.title}: {told['fault']}", told["remedy"])
    return told


def told_places(places: Places) -> dict[str, Any]:
    """Where a base may come from, for a process that is asked to load one."""
    mirror = places.mirror
    return {
        "mirror": str(mirror.resolve()) if mirror else None,
        "sources": places.sources,
        "cache": str(places.cache.resolve()),
    }
