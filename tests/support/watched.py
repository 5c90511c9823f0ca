"""Runs of the local executor under a clock that stands still, and what ran beside what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fake_worker import HANGING_STEP
from peftmark.executors import process
from peftmark.executors.contract import Finished, Order
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import Room, Slot
from peftmark.record.job import Job
from waiting import Clock

OVER = 1.0
"""Seconds over its limit that a job gets to."""


def watched_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """A supervisor with the clock that stands still, and a folder of logs; its workers that must
    be ended don't get long for it."""
    watched = Watched()
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(process, "time", watched.clock)
    (folder / "logs").mkdir()
    return watched


@dataclass
class Watched:
    """What the supervisor did.

    While every worker that runs hangs, time passes: first until the limit, then beyond it.

    Attributes:
        clock: what the supervisor takes for the time.
        events: ("start" or "end", seed), in order.
    """

    clock: Clock = field(default_factory=Clock)
    events: list[tuple[str, int]] = field(default_factory=list)

    def run(
        self,
        order: Order,
        slots: Sequence[Slot],
        room: Room | None = None,
        jobs_per_process: int | None = None,
        ended: Callable[[Finished], None] | None = None,
    ) -> list[Finished]:
        """Run jobs here; each seed stands once among them.

        Args:
            ended: called with each that ended, before another starts.
        """
        running: set[int] = set()
        hanging: dict[int, int] = {}  # seed -> how often time passed since

        def listener(job: Job, message: dict[str, Any]) -> None:
            if message.get("phase") == "start":
                running.add(job.seed)
                self.events.append(("start", job.seed))
            if message.get("step") == HANGING_STEP:
                hanging[job.seed] = 0
            order.listener(job, message)

        def stop() -> bool:
            """Asked in every round, whoever stops the run."""
            if order.seconds_limit is not None and running == set(hanging):
                reached = [seed for seed, times in hanging.items() if times < 2]
                if reached:
                    first = not any(hanging.values())
                    self.clock.now += order.seconds_limit if first else OVER
                for seed in reached:
                    hanging[seed] += 1
            return order.stop()

        finished = []
        heard = replace(order, listener=listener, stop=stop)
        for one in run_jobs(heard, slots, room, jobs_per_process):
            running.discard(one.job.seed)
            hanging.pop(one.job.seed, None)
            self.events.append(("end", one.job.seed))
            finished.append(one)
            if ended is not None:
                ended(one)
        return finished

    @property
    def most(self) -> int:
        """The most workers that there were at once."""
        now = found = 0
        for event, _ in self.events:
            now += 1 if event == "start" else -1
            found = max(found, now)
        return found

    def beside(self, seed: int, attempt: int) -> set[int]:
        """Seeds whose workers were there during an attempt at a seed."""
        running: set[int] = set()
        found: set[int] = set()
        number = 0
        for event, other in self.events:
            if event == "start":
                running.add(other)
                number += other == seed
            if seed in running and number == attempt:
                found |= running
            if event == "end":
                running.discard(other)
        return found - {seed}
