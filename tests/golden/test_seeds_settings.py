"""Suites that carry a document's setting have what it prints: cells, rates, lengths, options."""

from __future__ import annotations

import re
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
import yaml

from peftmark.catalog.methods import cell_title, known_method
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import SUITES

FILE = yaml.safe_load(Path(__file__).with_name("seeds_settings.yaml").read_text("utf-8"))
SETTINGS = {f"{one['suite']}:{one['profile']}": one for one in FILE["settings"]}


@cache
def jobs_of(name):
    suite, _, profile = name.partition(":")
    jobs = expand(load_suite(suite, SUITES), profile, "cuda").jobs
    return tuple(job for job in jobs if job.purpose == "report")


def value(job, key):
    """A setting of a job by its name in the file."""
    kind, _, name = key.partition(".")
    if kind == "options":
        return known_method(job.method).option(job.recipe.options, name)
    if kind == "adalora":
        return asdict(job.recipe.adalora)[name]
    found = getattr(job.recipe, key)
    return list(found) if isinstance(found, tuple) else found


def faults(name):
    """What a profile has otherwise than its document, in words."""
    one, jobs = SETTINGS[name], jobs_of(name)
    found = []
    if {job.model for job in jobs} != {one["model"]}:
        found.append(f"model {sorted({job.model for job in jobs})}")
    if {job.task for job in jobs} != set(one["tasks"]):
        found.append(f"tasks {sorted({job.task for job in jobs})}")
    seeds = sorted({job.seed for job in jobs})
    every = dict(one["every"])
    wanted = every.pop("seeds", seeds)
    if (len(seeds) if isinstance(wanted, int) else seeds) != wanted:
        found.append(f"seeds {seeds}")
    by_cell = {}
    for job in jobs:
        by_cell.setdefault(cell_title(*job.cell), []).append(job)
    for title in one["cells"].keys() - by_cell.keys():
        found.append(f"no cell {title}; its cells: {sorted(by_cell)}")
    for title, mine in by_cell.items():
        for key, printed in (every | one["cells"].get(title, {})).items():
            own = key in one["cells"].get(title, {})
            for job in mine:
                # A rate of the document is one of its methods', not of the reference lines.
                if not own and (not job.cell.trains or title not in one["cells"]):
                    continue
                allowed = printed if isinstance(printed, list) else [printed]
                # Shares of a short run stand for what a listing has in steps (see `differs`).
                if (got := value(job, key)) not in allowed:
                    found.append(f"{title} on {job.task}: {key} is {got}, printed {printed}")
    return sorted(set(found))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_profile_has_its_documents_setting(name):
    assert faults(name) == []


@pytest.mark.parametrize("name", SETTINGS)
def test_what_remains_different_is_told_to_readers(name):
    """By the words of the file, in the page that people read."""
    page = (SUITES.parent / "docs" / "published-recipes.md").read_text("utf-8")
    suite, _, profile = name.partition(":")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{suite}`, `{profile}` |")]
    for what, why in SETTINGS[name]["differs"].items():
        assert isinstance(why, str) and why, "a comma in braces ends a value"
        assert f"{what}: {why}" in row


def test_every_profile_of_full_scale_is_of_a_document_or_says_what_it_is_of():
    full = {
        f"{path.stem}:{profile}"
        for path in SUITES.glob("*.yaml")
        for profile, one in load_suite(path.stem, SUITES).file.profiles.items()
        if one.scale == "full"
    }
    assert full == SETTINGS.keys() | FILE["others"].keys()
    assert not SETTINGS.keys() & FILE["others"].keys()
    assert all(FILE["others"].values())


def test_another_value_is_seen():
    one = SETTINGS["seeds-main:full"]
    cell = one["cells"]["QLoRA, budget 0.1%"]
    before = cell["dropout"]
    try:
        cell["dropout"] = 0.1
        assert any("dropout is 0.05, printed 0.1" in fault for fault in faults("seeds-main:full"))
    finally:
        cell["dropout"] = before


TABLES = {"Their methods, beside ours": 15, "Newer methods of LoRA's family, beside ours": 12}


@pytest.mark.parametrize("heading", TABLES)
def test_every_method_of_the_table_names_tests_that_exist(heading):
    page = (SUITES.parent / "docs" / "published-recipes.md").read_text("utf-8")
    table = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= TABLES[heading]
    for row in rows:
        *_, named = row.strip("| ").split(" | ")
        tests = re.findall(r"`(test_\w+\.py)::(test_\w+)`", named)
        assert tests, f"no test holds: {row}"
        for file, test in tests:
            assert f"\ndef {test}(" in (SUITES.parent / "tests" / "lab" / file).read_text("utf-8")
