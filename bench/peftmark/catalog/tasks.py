"""Every task a suite can name."""

from __future__ import annotations

from peftmark.catalog.task import Task
from peftmark.catalog.tasks_causal import TEXTS
from peftmark.catalog.tasks_labelled import LABELLED

TASKS: dict[str, Task] = {task.key: task for task in (*LABELLED, *TEXTS)}
