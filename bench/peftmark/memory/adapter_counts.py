"""How many parameters a configuration of PEFT trains on a model, counted without weights.

A process that loads torch counts (`peftmark.lab.memory.count_worker`), so this module doesn't. An
answer depends on the request and on installed code alone, and is kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peftmark.core.errors import StoreError
from peftmark.core.files import write_all
from peftmark.core.sealed import sealed, unsealed
from peftmark.memory.process import ENDED, end, last_words, made_by, start, told

WORKER = "peftmark.lab.memory.count_worker"
NOT_YET = "not counted on this machine yet"


@dataclass(frozen=True)
class Adapter:
    """What to count.

    Attributes:
        model: configuration of a language model, as plain data (`peftmark.catalog.architectures`).
        kind: a type of PEFT, lower-case; None for full fine-tuning.
        options: of the type, as far as they are not PEFT's defaults.
        frozen: tensors with this in their name don't train, whatever PEFT says; empty for none.
    """

    model: Mapping[str, Any]
    kind: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    frozen: str = ""


@dataclass(frozen=True)
class Count:
    """What was counted.

    Attributes:
        trainable, parameters: of the model with its adapter; None where nothing could be counted.
        absent: what the installed PEFT lacks for it; empty if nothing.
        reason: why there is no count though PEFT has the type; empty if there is one.
    """

    trainable: int | None = None
    parameters: int | None = None
    absent: str = ""
    reason: str = ""


def counts(
    asked: Sequence[Adapter],
    cache: Path | None,
    heard: Callable[[int, int], None] = lambda done, total: None,
    only_kept: bool = False,
) -> list[Count]:
    """Count, each from the cache or by a process.

    Args:
        cache: folder of the cache; None to keep nothing.
        heard: told how many of how many adapters are counted.
        only_kept: start no process; what the cache doesn't hold has a reason instead.
    """
    texts = [json.dumps(asdict(one), sort_keys=True) for one in asked]
    known = {text: found for text in set(texts) if (found := _kept(cache, text)) is not None}
    if only_kept:
        return [known.get(text, Count(reason=NOT_YET)) for text in texts]
    waiting = [text for text in dict.fromkeys(texts) if text not in known]
    total = len(known) + len(waiting)
    heard(len(known), total)
    process: subprocess.Popen[str] | None = None
    with tempfile.TemporaryFile("w+", prefix="peftmark-") as log:
        try:
            for text in waiting:
                if process is None or process.poll() is not None:
                    process = start(WORKER, log)
                try:
                    known[text] = Count(**told(process, f"{text}\n"))
                except (ValueError, TypeError):
                    known[text] = Count(reason=last_words(process, log))
                _keep(cache, text, known[text])
                heard(len(known), total)
        finally:
            if process is not None:
                end(process)
    return [known[text] for text in texts]


def _place(cache: Path, text: str) -> Path:
    digest = hashlib.sha256((text + made_by()).encode()).hexdigest()
    return cache / "adapter-counts" / f"{digest}.json"


def _kept(cache: Path | None, text: str) -> Count | None:
    if cache is None:
        return None
    try:
        return Count(**unsealed(_place(cache, text).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # not there, or damaged: it is counted anew


def _keep(cache: Path | None, text: str, found: Count) -> None:
    # A process that ended may do better the next time.
    if cache is None or found.reason.startswith(ENDED):
        return
    with suppress(StoreError):  # a cache that can't be written is gone without
        write_all({_place(cache, text): sealed(asdict(found))})
