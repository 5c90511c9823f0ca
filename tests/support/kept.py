"""An adapter that is kept, and a stand-in for the process that loads it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

from factory import make_job, make_outcome, make_record
from peftmark.record.kept import Kept
from peftmark.run import one_answer

LORA = make_job(task="trec", metric="accuracy")


def keep(store, selection=0.5, **changes):
    """An adapter that is kept, with its row."""
    kept = Kept(replace(LORA, **changes), attempt=1, selection=selection)
    left = store.adapters.incoming / "left"
    left.mkdir(parents=True)
    (left / "adapter_model.safetensors").write_bytes(b"weights")
    store.parts.mkdir(parents=True, exist_ok=True)
    store.append(make_record(job=kept.job, outcome=make_outcome(), attempt=1))
    return store.adapters.take(left, kept, "a card")


def stand_in(monkeypatch, answer):
    """Answers in place of the process that loads; returns what it was asked."""
    seen = []

    def run(command, input, **_):
        asked = json.loads(input)
        seen.append(asked)
        told = answer(asked) if callable(answer) else answer
        return SimpleNamespace(stdout=told, stderr="a trace\nthe last line\n", returncode=3)

    monkeypatch.setattr(one_answer.subprocess, "run", run)
    return seen
