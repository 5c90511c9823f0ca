"""The real worker on a tiny model that stands under the name of a real one.

It starts afresh, so what the tables of the test say comes with the mirror:
`run_jobs(worker="tiny_worker:main")`.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.lab import worker


def name_as(mirror: Path, monkeypatch, model: str, **tasks: str) -> None:
    """Name the tiny model, and tiny tasks, as a suite may name them, here and in workers."""
    found = {name: replace(TASKS[tiny], key=name) for name, tiny in tasks.items()}
    named = replace(MODELS["tiny"], key=model)
    (mirror / "models" / "tiny").rename(mirror / "models" / model)
    (mirror / "tables").write_bytes(pickle.dumps((named, found)))
    monkeypatch.setitem(MODELS, model, named)
    # Its configuration is the tiny one's, and not what is known of the real one's.
    monkeypatch.delitem(OF_MODELS, model, raising=False)
    for name, task in found.items():
        monkeypatch.setitem(TASKS, name, task)


def main(connection, job_json, places_json, log, device, *more):
    """Run the job for real."""
    mirror = Path(json.loads(places_json)["mirror"])
    model, tasks = pickle.loads((mirror / "tables").read_bytes())
    MODELS[model.key] = model
    OF_MODELS.pop(model.key, None)
    TASKS.update(tasks)
    worker.main(connection, job_json, places_json, log, device, *more)


def _seventh(end, *arguments):
    """Run jobs for real; the seventh of the process ends otherwise, in its fifth step."""
    from peftmark.lab import recipe

    plain, count = recipe.run, iter(range(1, 1000))

    def run(job, places, progress, outbox=None, turns=None):
        number = next(count)

        def told(message):
            if number == 7 and message.get("step", 0) >= 5:
                end()
            progress(message)

        return plain(job, places, told, outbox, turns)

    recipe.run = run
    main(*arguments)


def _raise():
    raise RuntimeError("planted")


seventh_raises = partial(_seventh, _raise)
seventh_dies = partial(_seventh, lambda: os.kill(os.getpid(), signal.SIGKILL))
