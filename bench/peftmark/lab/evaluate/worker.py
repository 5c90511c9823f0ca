"""Process that puts kept adapters to a harness, so that whoever asks loads no torch.

A line of JSON comes in on standard input. For each adapter one goes out as soon as its scores are
there, or what is wrong with it; then one that says how many bases were loaded. What is wrong with
all of them is a single line, before any model is loaded. What libraries print goes to standard
error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from peftmark.core.errors import UserError
from peftmark.lab.errors import Unsupported
from peftmark.lab.export.worker import opened_of
from peftmark.lab.worker import quiet_libraries


def main() -> None:
    """Put adapters to a harness."""
    asked = json.load(sys.stdin)
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # What is written below Python goes to standard error as well.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    quiet_libraries()
    try:
        evaluate(asked, told)
    except UserError as error:
        tell(told, fault=error.what, remedy=error.remedy)


def tell(to: TextIO, **facts: Any) -> None:
    """Write a line."""
    to.write(f"{json.dumps(facts)}\n")
    to.flush()


def evaluate(asked: dict[str, Any], told: TextIO) -> None:
    """Ask every adapter, those of one base one after the other.

    Raises:
        UserError: the tasks can't be had.
    """
    from peftmark.lab.evaluate.lm_eval_tasks import Harness
    from peftmark.lab.evaluate.one_base import OneBase, base_of

    include = Path(asked["include"]) if asked["include"] else None
    settings = {name: asked[name] for name in ("fewshot", "limit", "batch_size")}
    harness = Harness(asked["tasks"], include, asked["trust_code"], **settings)
    ready = []
    for number, adapter in enumerate(asked["adapters"]):
        try:
            one = opened_of(adapter)
            ready.append((base_of(one), number, one))
        except (UserError, Unsupported) as error:
            _tell_fault(told, number, error)
    bases = OneBase()
    # Whole models last: none of them leaves a base.
    for _, number, one in sorted(ready, key=lambda r: (not r[0], r[0], r[1])):
        try:
            with bases.model(one) as model:
                scores = harness.ask(one, model)
        except (UserError, Unsupported) as error:
            _tell_fault(told, number, error)
        else:
            precision = one.job.recipe.precision
            tell(told, adapter=number, scores=scores, device=one.job.device, precision=precision)
    tell(told, done=True, bases=bases.loads, own=bases.own)


def _tell_fault(to: TextIO, number: int, error: UserError | Unsupported) -> None:
    remedy = error.remedy if isinstance(error, UserError) else ""
    tell(to, adapter=number, fault=str(error).split("\n")[0], remedy=remedy)


if __name__ == "__main__":
    main()
