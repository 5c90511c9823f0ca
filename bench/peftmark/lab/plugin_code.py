"""The code of plug-ins in a worker: held against what the job was planned with, then imported."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from peftmark.catalog import plugins
from peftmark.core.errors import UserError
from peftmark.record.job import Job
from peftmark.record.plugin import check_here


def bring(job: Job) -> None:
    """Put the rows of the plug-ins that a job uses into the tables, and of no others; nothing is
    done for a job without.

    Raises:
        UserError: one isn't here with the code that the job was planned with.
    """
    # What a suite declares of models and tasks is in the job, and their files are in the cache.
    wanted = [one for one in job.plugins if one.kind not in ("model", "task")]
    if wanted:
        plugins.load({(one.kind, one.key) for one in wanted})
        check_here(wanted)


@cache
def named(code: str) -> Any:
    """What the row of a plug-in names as its code.

    Args:
        code: `module:name`.

    Raises:
        UserError: importing it raised, or it isn't there.
    """
    module, _, name = code.partition(":")
    try:
        return getattr(import_module(module), name)
    except Exception as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"the plug-in's code {code} can't be imported: {type(error).__name__}: {text}",
            f"Try it: python -c 'from {module} import {name}'.",
        ) from error
