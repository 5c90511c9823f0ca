"""Processes that load torch and answer lines of JSON, and what their answers depend on."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from contextlib import suppress
from typing import IO, Any

from peftmark.core.interpreter import passed_on
from peftmark.machine.environment import software, source_hash
from peftmark.record.job import source_key

ENDED = "the process that predicts ended"
"""How a reason begins that says nothing of what was asked: it is not kept."""


def start(module: str, log: IO[str]) -> subprocess.Popen[str]:
    """A process of one thread, without GPU and network.

    Args:
        module: what it runs; it reads requests from its input and writes an answer a line.
        log: takes what it says on its error stream.
    """
    environment = passed_on(
        {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
    )
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment,
    )


def told(process: subprocess.Popen[str], message: str) -> Any:
    """A process' answer to a line.

    Raises:
        ValueError: it has ended, or wrote something else.
    """
    assert process.stdin is not None and process.stdout is not None
    line = ""
    with suppress(OSError):  # the pipe of a process that ended
        process.stdin.write(message)
        process.stdin.flush()
        line = process.stdout.readline()
    return json.loads(line)


def last_words(process: subprocess.Popen[str], log: IO[str]) -> str:
    """End a process, and say why it gave no answer."""
    end(process)
    log.seek(0)
    last = (log.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    return f"{ENDED}: {last}"


def end(process: subprocess.Popen[str]) -> None:
    """End a process that nobody asks any more."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    process.kill()
    process.wait()


@functools.cache
def made_by() -> str:
    """What an answer depends on beside the request: installed libraries and, of peftmark, what
    runs in such a process."""
    found = {name: one for name, one in software().items() if name != source_key("peftmark")}
    return json.dumps(found | {"lab": source_hash("peftmark.lab")}, sort_keys=True)
