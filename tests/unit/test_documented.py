"""What the documentation names and counts is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import ROOT, SUITES
from waiting import PATIENCE

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


def test_the_steps_of_the_full_profile_are_those_that_the_page_of_suites_tells():
    jobs = expand(load_suite("glue", SUITES), "full", "cuda").jobs
    millions = round(sum(job.recipe.steps for job in jobs) / 1e6)
    page = ROOT / "docs" / "shipped-suites.md"
    assert f"**{millions} million optimizer steps**" in page.read_text("utf-8")


SCRIPT = re.compile(r"(PYTHONPATH=\S+ )?(?:\.venv/bin/)?python (tests/[\w/]+\.py)")


def scripts():
    """Every script of the tests that a page, or the script itself, says how to start."""
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "tests").rglob("*.py")]
    told = (SCRIPT.findall(page.read_text(encoding="utf-8")) for page in pages)
    return sorted({call for calls in told for call in calls})


@pytest.mark.heavy
@pytest.mark.parametrize(("path", "script"), scripts())
def test_a_script_that_is_told_loads_as_it_is_told(path, script):
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    given = dict([path.strip().split("=")]) if path else {}
    # As `python FILE` does: its own folder first.
    code = "import runpy, sys\nsys.path[0] = sys.argv[2]\nrunpy.run_path(sys.argv[1])\n"
    done = subprocess.run(
        [sys.executable, "-c", code, script, str((ROOT / script).parent)],
        cwd=ROOT, env={**bare, **given}, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
