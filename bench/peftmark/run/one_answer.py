"""A question to a process of its own, so that whoever asks loads no torch: JSON in, a line out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftmark.core.interpreter import passed_on


@dataclass(frozen=True)
class Answer:
    """How such a process ended.

    Attributes:
        value: what its last line of output says; None if that is no JSON.
        code: its exit code.
        last: the last line of its error output; empty if it printed none.
    """

    value: Any
    code: int
    last: str


def ask(module: str, question: Any, environment: Mapping[str, str] | None = None) -> Answer:
    """Run a module and have it answer.

    Args:
        module: run as `python -m`; it reads one JSON value from standard input.
        environment: variables beside those of this process.
    """
    ended = subprocess.run(
        [sys.executable, "-P", "-m", module],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=passed_on(environment),
    )
    last = (ended.stderr.strip().splitlines() or [""])[-1]
    try:
        value = json.loads((ended.stdout.splitlines() or [""])[-1])
    except ValueError:
        value = None
    return Answer(value, ended.returncode, last)
