"""`.ci/browser` with stand-ins for the browser, npm and make: what is skipped, and what fails."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from places import ROOT
from waiting import PATIENCE

pytestmark = pytest.mark.heavy
TOOLS = ("bash", "dirname", "head", "mktemp", "rm", "grep", "cat", "env")
MAKE = """#!/bin/bash
case "$*" in
  *node_modules*) echo "$NPM_SAYS" >&2; exit "${NPM_CODE:-0}" ;;
  *) echo "make $* with $CHROMIUM"; exit "${CHECK_CODE:-0}" ;;
esac
"""


@pytest.fixture
def browser(tmp_path):
    """Run the script among stand-ins: exit code and what it said."""
    places = {name: tmp_path / name for name in (".ci", "bin", ".venv/bin", "reports/smoke")}
    for place in places.values():
        place.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "browser", places[".ci"])
    for tool in TOOLS:
        (places["bin"] / tool).symlink_to(shutil.which(tool))

    def put(path, text="#!/bin/bash\n"):
        path.write_text(text)
        path.chmod(0o755)

    put(places["bin"] / "make", MAKE)
    put(places[".venv/bin"] / "python")

    def run(*words, there=("chromium", "npm"), **environment):
        for name in there:
            put(places["bin"] / name)
        done = subprocess.run(
            [tmp_path / ".ci" / "browser", *words],
            env={"PATH": str(places["bin"]), "TMPDIR": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_every_page_is_looked_at_by_the_browser_that_is_there(browser):
    code, said = browser("--thorough", there=("google-chrome", "npm"))
    pages = "ARGS=build/pages reports/smoke --thorough"
    assert code == 0 and f"make test-browser REPORT=docs/example {pages} with" in said
    assert said.rstrip().endswith(f"{os.sep}bin{os.sep}google-chrome")


@pytest.mark.parametrize(
    ("there", "environment", "why"),
    [
        (("npm",), {}, "no Chromium is installed"),
        (("chromium",), {}, "npm is not installed"),
        (
            ("chromium", "npm"),
            {"NPM_CODE": "1", "NPM_SAYS": "npm error code ENOTFOUND"},
            "npm's registry can't be reached",
        ),
    ],
)
def test_what_can_not_be_had_is_said_in_one_line_and_fails_nothing(
    browser, there, environment, why
):
    assert browser(there=there, **environment) == (
        0,
        f"Pages are not looked at in a browser: {why}.\n",
    )


def test_a_fault_of_a_page_or_of_what_npm_is_told_fails(browser):
    assert browser(CHECK_CODE="1")[0] == 1
    code, said = browser(NPM_CODE="1", NPM_SAYS="npm error package-lock.json is not in sync")
    assert code == 1 and "not in sync" in said
