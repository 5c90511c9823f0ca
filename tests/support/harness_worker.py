"""The real process that puts adapters to a harness, where the tables have tiny models and tasks.

It starts afresh, so what the tables of the test say comes in a file.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from peftmark.catalog.models import MODELS
from peftmark.catalog.prompts import PROMPTS
from peftmark.catalog.tasks import TASKS
from peftmark.lab.evaluate import worker

TABLES = {"models": MODELS, "tasks": TASKS, "prompts": PROMPTS}


def stand_in(file: Path, monkeypatch) -> None:
    """Have this module started in place of the real one, with the tables as they are here."""
    from peftmark.run import evaluations

    tiny = {n: {k: v for k, v in t.items() if k.startswith("tiny")} for n, t in TABLES.items()}
    file.write_bytes(pickle.dumps(tiny))
    monkeypatch.setenv("TINY_TABLES", str(file))
    paths = [str(Path(__file__).parent), str(Path(worker.__file__).parents[3])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setattr(evaluations, "MODULE", "harness_worker")


if __name__ == "__main__":
    for name, rows in pickle.loads(Path(os.environ["TINY_TABLES"]).read_bytes()).items():
        TABLES[name].update(rows)
    worker.main()
