"""What the documentation names and counts is there."""

from __future__ import annotations

import re

import pytest

from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import ROOT, SUITES

PAGES = ("gate.md", "claims.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_is_there(page):
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / page).read_text(encoding="utf-8")))
    found = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 10 and named <= found, sorted(named - found)


def test_the_steps_of_the_full_profile_are_those_that_the_first_page_tells():
    jobs = expand(load_suite("glue", SUITES), "full", "cuda").jobs
    millions = round(sum(job.recipe.steps for job in jobs) / 1e6)
    assert f"**{millions} million optimizer steps**" in (ROOT / "README.md").read_text("utf-8")
