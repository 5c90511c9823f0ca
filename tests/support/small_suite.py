"""A small good suite as plain data, and what the tests of suites do with it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from peftmark.core.errors import SuiteError
from peftmark.record.job import Job
from peftmark.record.recipe import Recipe
from peftmark.suite.expand import expand
from peftmark.suite.load import Suite, load_suite

ONE_METHOD = """
suite: demo
version: 1
summary: made up
reference: {method: lora, rank: 8}
radar: {}
recipe: {batch_size: 16, steps: 10, learning_rate: 1e-3}
methods:
  - method: lora
    rank: [8]
    recipe: {targets: attention, alpha: 8}
profiles:
  quick: {summary: s, needs: nothing, scale: reduced,
         sources: [package], model: minilm-l6, seeds: [0, 1, 2], tasks: {trec: {}}}
"""
"""The shortest that runs: LoRA r8, three seeds of one task, as text."""

BASE: dict[str, Any] = {
    "suite": "demo",
    "version": 1,
    "summary": "made up",
    "reference": {"method": "lora", "rank": 8},
    "radar": {"quality": {"worst": 0.0, "best": 1.0}},
    "recipe": {"batch_size": 16, "steps": 100, "learning_rate": 0.001},
    "methods": [
        {"method": "full"},
        {"method": "head"},
        {"method": "lora", "rank": [8], "recipe": {"targets": "attention", "alpha": 16}},
        {
            "method": "adalora",
            "rank": [8],
            "recipe": {
                "targets": "attention",
                "alpha": 16,
                "adalora": {
                    "init_rank": 12,
                    "tinit": "10%",
                    "tfinal": "30%",
                    "delta_t": 5,
                    "orthogonal_weight": 0.1,
                },
            },
        },
    ],
    "profiles": {
        "quick": {
            "summary": "made up",
            "needs": "nothing",
            "scale": "reduced",
            "sources": ["package"],
            "model": "minilm-l6",
            "seeds": [0],
            "tasks": {"trec": {}},
        }
    },
}
FULL, HEAD, LORA, ADALORA = range(4)
QUICK = ("profiles", "quick")
SCHEDULE = ("methods", ADALORA, "recipe", "adalora")


def changed(*changes: tuple[tuple[Any, ...], Any], base: dict[str, Any] = BASE) -> dict[str, Any]:
    """BASE, or another suite, with the value at each path replaced, or removed where it is None."""
    data = copy.deepcopy(base)
    for path, value in changes:
        at: Any = data
        for part in path[:-1]:
            at = at.setdefault(part, {}) if isinstance(at, dict) else at[part]
        if value is None:
            del at[path[-1]]
        else:
            at[path[-1]] = value
    return data


def write(folder: Path, content: Any, name: str = "demo") -> Path:
    """Write a suite: text and bytes as they are, anything else as YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, str | bytes):
        content = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    raw = content if isinstance(content, bytes) else content.encode()
    path = folder / f"{name}.yaml"
    path.write_bytes(raw)
    return path


def text(*replaced: tuple[str, str]) -> str:
    """BASE as YAML with pieces of its text replaced."""
    result = yaml.safe_dump(BASE, sort_keys=False)
    for old, new in replaced:
        assert result.count(old) == 1, old
        result = result.replace(old, new)
    return result


def refusal(folder: Path, content: Any) -> str:
    """What `load_suite` says about a suite that it must refuse."""
    path = write(folder, content)
    with pytest.raises(SuiteError) as caught:
        load_suite("demo", folder)
    assert str(path) in caught.value.what
    return str(caught.value)


def recipes(folder: Path, content: Any, task: str = "trec") -> dict[str, Recipe]:
    """Method -> resolved recipe of the jobs on one task."""
    write(folder, content)
    jobs = reported(load_suite("demo", folder), "quick")
    return {job.method: job.recipe for job in jobs if job.task == task}


def reported(suite: Suite, profile: str) -> list[Job]:
    """The jobs of a profile that enter comparisons."""
    return [job for job in expand(suite, profile, "cpu").jobs if job.purpose == "report"]
