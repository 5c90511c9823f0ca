"""Copies of shipped suites with a few values changed, in a folder for `--suites`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peftmark.core.strict_yaml import read_yaml
from peftmark.suite.load import find_suite, load_suite

Change = Callable[[dict[str, Any]], None]


def copy_suite(name: str, folder: Path, *changes: Change, profile: str = "offline") -> Path:
    """Write a changed copy of a shipped suite, with one of its profiles alone.

    Returns:
        The folder, which `peftmark run NAME --suites` takes. The copy is JSON, which is YAML.
    """
    suite: dict[str, Any] = read_yaml(find_suite(name))
    suite["profiles"] = {profile: suite["profiles"][profile]}
    suite["claims"] = []
    for change in changes:
        change(suite)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(json.dumps(suite, indent=1), encoding="utf-8")
    load_suite(name, folder)  # a copy that is no suite is our fault, and seen here
    return folder


def seeds(count: int) -> Change:
    """The first seeds alone, from 0."""

    def change(suite: dict[str, Any]) -> None:
        suite["profiles"]["offline"]["seeds"] = list(range(count))

    return change


def precision(value: str) -> Change:
    """One precision for every cell."""

    def change(suite: dict[str, Any]) -> None:
        suite.setdefault("recipe", {})["precision"] = value

    return change


def tiny(task: str, cells: int) -> Change:
    """A size that shows in a minute or two that everything runs: one task, 20 steps, few rows."""

    def change(suite: dict[str, Any]) -> None:
        profile = suite["profiles"]["offline"]
        small = {"steps": 20, "batch_size": 8, "eval_every": 10}
        small |= {"eval_rows": 60, "selection_rows": 60}
        profile["tasks"] = {task: {**profile["tasks"][task], "recipe": small}}
        suite["methods"] = [m for m in suite["methods"] if m["method"] not in ("full", "head")]
        for method in suite["methods"]:
            method["quantization"] = ["none", "nf4"][:cells]

    return change
