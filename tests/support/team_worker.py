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

import tiny_causal
import tiny_worker
from peftmark.catalog.prompts import PROMPTS
from waiting import wait_for

FIFTH = 5


def main(*arguments: Any) -> None:
    """Run the job for real, but for what is measured on a copy of its model."""
    _in_fifth_step(lambda place: None, *arguments)


def _in_fifth_step(act: Callable[[int], None], *arguments: Any) -> None:
    """The same; in its fifth step each process writes its number into `pids` and acts."""
    from peftmark.lab import recipe
    from peftmark.lab.measure.to_outcome import PREDICTED, PROBED, without
    from peftmark.lab.step import Step

    PROMPTS.setdefault("tiny-answer", tiny_causal.ASKED)
    real = recipe.probed

    def probed(outcome: Any, build: Any, *more: Any) -> Any:
        if build.job.recipe.shard:
            return real(outcome, build, *more)
        return without(outcome, (*PROBED, *PREDICTED), "left out")

    recipe.probed = probed
    plain, mirror = Step.__call__, Path(json.loads(arguments[2])["mirror"])

    def step(self: Step, number: int, batch: Any) -> Any:
        if number == FIFTH:
            with (mirror / "pids").open("a") as notes:
                notes.write(f"{os.getpid()}\n")
            # Who ends the job must not end it before the others have said that they are there.
            wait_for(lambda: len((mirror / "pids").read_text().split()) >= self.team.size)
            act(self.team.place)
            if self._job.recipe.shard:
                _weigh(mirror, self.team.place)
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


def _weigh(mirror: Path, place: int) -> None:
    """Have each process write the most bytes of its layers' frozen weights that were there at once,
    in a step or an evaluation from now on, into `bytes.N`."""
    import gc

    from torch.distributed.fsdp import FSDPModule
    from torch.utils._python_dispatch import TorchDispatchMode

    held: list[Any] = [
        (group, one)
        for module in gc.get_objects()
        if issubclass(type(module), FSDPModule)
        for group in module._get_fsdp_state()._fsdp_param_groups
        for one in group.fsdp_params
    ]

    class Weighing(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            result = func(*args, **(kwargs or {}))
            there = [one._sharded_param_data for _, one in held]
            there += [t for _, one in held for t in one.all_gather_outputs]
            there += [
                g._all_gather_result.all_gather_output
                for g in {id(g): g for g, _ in held}.values()
                if g._all_gather_result is not None
            ]
            size = sum({id(s): s.nbytes() for s in (t.untyped_storage() for t in there)}.values())
            if size > Weighing.most:
                Weighing.most = size
                (mirror / f"bytes.{place}").write_text(str(size))
            return result

    Weighing().__enter__()


member_dies = partial(_in_fifth_step, _dies)
member_lacks_memory = partial(_in_fifth_step, _lacks_memory)
lead_lacks_memory = partial(_in_fifth_step, _lead_lacks_memory)
