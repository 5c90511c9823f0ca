"""Leaves the saved files of a trained model where its supervisor takes them up."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from peftmark.lab.build import Build
from peftmark.lab.data.job_data import Work
from peftmark.lab.methods import Prepared
from peftmark.record.job import Job
from peftmark.record.kept import NOTES, Kept

CONFIG = "adapter_config.json"
"""PEFT's configuration of an adapter."""
_CARD = "README.md"
"""PEFT's own card: it says nothing that ours doesn't, and names a folder of this machine."""


def leave(folder: Path, outbox: Path, build: Build, prepared: Prepared, work: Work) -> None:
    """Move saved files into an outbox, with a note of what loading them takes; all or nothing.

    Args:
        folder: what the method saved; it is empty afterwards.
        outbox: a folder that isn't there.

    Raises:
        OSError: they can't be written.
    """
    part = outbox.with_name(f"{outbox.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.name != _CARD:
            target = part / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, target)
    _name_base(part / CONFIG, build.job)
    kept = Kept(build.job, prepared.beyond, work.mean, work.scale)
    (part / NOTES).write_text(kept.to_json(), encoding="utf-8")
    os.replace(part, outbox)


def _name_base(file: Path, job: Job) -> None:
    """Have PEFT's configuration name the base as anybody can have it: it names a folder of this
    machine."""
    if not file.is_file():
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    hub = job.model_facts.hub
    config["base_model_name_or_path"] = hub.repository if hub else None
    config["revision"] = hub.revision if hub else None
    file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
