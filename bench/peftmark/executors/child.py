"""The first code of a worker process, and what it is told of places."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from peftmark.core.hashes import known_hashes
from peftmark.sources.assets import Places

JOBS_AT_ONCE = "PEFTMARK_JOBS_AT_ONCE"
"""Variable that tells a worker how many jobs run at once: they share the machine's counters."""


def child(setup: Mapping[str, Any], worker: str, connection: Any, *arguments: Any) -> None:
    """First code of a worker process: the named function, imported there and not here."""
    # Set here, since a fork server keeps the environment that it was once started with.
    os.environ[JOBS_AT_ONCE] = setup["jobs_at_once"]
    with suppress(OSError):  # without it temporary files go where the system has them
        os.makedirs(setup["scratch"])
        os.environ["TMPDIR"] = tempfile.tempdir = setup["scratch"]
    with suppress(OSError):
        os.setsid()  # a group of its own, so that what it starts can be ended with it
    if setup["cores"] and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, setup["cores"])
    module, _, function = worker.partition(":")
    getattr(importlib.import_module(module), function)(connection, *arguments)


def places_told(places: Places) -> dict[str, Any]:
    """Where workers find models and rows, as JSON."""
    return {
        "mirror": str(places.mirror.resolve()) if places.mirror else None,
        "sources": places.sources,
        "cache": str(places.cache.resolve()),
        "hashes": known_hashes(),
    }
