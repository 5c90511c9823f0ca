"""Copies of shipped suites for parts of `make gpu-report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peftmark.perf.suites import Change, copy_suite

PACKED = 8
"""Jobs that share a card."""


def smoke(folder: Path, quick: bool) -> Path | None:
    """A tiny `smoke`; None for the shipped suite itself."""
    return copy_suite("smoke", folder, _tiny, _seeds([0])) if quick else None


def packed(folder: Path) -> Path:
    """`smoke` with as many seeds of LoRA as share a card."""
    return copy_suite("smoke", folder, _only_lora, _seeds(range(PACKED)))


def glue(folder: Path, quick: bool, model: str) -> Path:
    """`glue` with profile `gpu-offline`, on MPNet or on MiniLM."""
    changes: list[Change] = [] if model == "mpnet-base" else [_on_minilm]
    changes += [_tiny, _seeds([0])] if quick else []
    return copy_suite("glue", folder, *changes, profile="gpu-offline")


def _profile(suite: dict[str, Any]) -> dict[str, Any]:
    (profile,) = suite["profiles"].values()
    return dict(profile)


def _changed(suite: dict[str, Any], **values: Any) -> None:
    (name,) = suite["profiles"]
    suite["profiles"][name] |= values


def _seeds(numbers: Sequence[int]) -> Change:
    return lambda suite: _changed(suite, seeds=list(numbers))


def _only_lora(suite: dict[str, Any]) -> None:
    suite["methods"] = [m for m in suite["methods"] if m["method"] == "lora"][:1]


def _tiny(suite: dict[str, Any]) -> None:
    """One task, twenty steps on small batches, few rows; of methods with rates LoRA alone."""
    small = {"steps": 20, "batch_size": 2, "eval_every": 10, "max_length": 20}
    small |= {"eval_rows": 20, "selection_rows": 20, "eval_batch_size": 20}
    profile = _profile(suite)
    task, facts = list(profile["tasks"].items())[-1]
    _changed(suite, tasks={task: facts}, recipe={**profile.get("recipe", {}), **small})
    if "methods" in profile:
        lora = next(m for m in profile["methods"] if m["method"] == "lora")
        few = {"quantization": ["none"], "learning_rates": [1e-3, 2e-3]}
        _changed(suite, methods=[{**lora, **few}])


def _on_minilm(suite: dict[str, Any]) -> None:
    """Another base, which then needs no cell of its own."""
    methods = [m for m in _profile(suite)["methods"] if "model" not in m]
    _changed(suite, model="minilm-l6", methods=methods)
