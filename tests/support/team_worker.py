"""The real worker on a tiny model that several processes train, without the probe after it.

One of the processes may end on the way: `run_jobs(worker="team_worker:member_dies")`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tiny_worker

FIFTH = 5


def main(*arguments: Any) -> None:
    """Run the job for real, but for what is measured on a copy of its model."""
    _in_fifth_step(lambda place: None, *arguments)


def _in_fifth_step(act: Callable[[int], None], *arguments: Any) -> None:
    """The same; in its fifth step each process writes its number into `pids` and acts."""
    from peftmark.lab import recipe
    from peftmark.lab.measure.to_outcome import PREDICTED, PROBED, without
    from peftmark.lab.step import Step

    recipe.probed = lambda outcome, *_: without(outcome, (*PROBED, *PREDICTED), "left out")
    plain, mirror = Step.__call__, Path(json.loads(arguments[2])["mirror"])

    def step(self: Step, number: int, batch: Any) -> Any:
        if number == FIFTH:
            with (mirror / "pids").open("a") as notes:
                notes.write(f"{os.getpid()}\n")
            act(self.team.place)
        return plain(self, number, batch)

    Step.__call__ = step  # type: ignore[method-assign]
    tiny_worker.main(*arguments)


def _dies(place: int) -> None:
    if place == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def _lacks_memory(place: int) -> None:
    if place == 1:
        raise MemoryError("planted")


def _lead_lacks_memory(place: int) -> None:
    if place == 0:
        raise MemoryError("planted")


member_dies = partial(_in_fifth_step, _dies)
member_lacks_memory = partial(_in_fifth_step, _lacks_memory)
lead_lacks_memory = partial(_in_fifth_step, _lead_lacks_memory)
