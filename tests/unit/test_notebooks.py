"""The notebooks of the documentation run from top to bottom and say what is stored in them.

Their code runs in a fresh process each, in order, without a Jupyter kernel (`notebooks.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import notebooks
from places import DOCS, SUPPORT

FOLDER = DOCS / "notebooks"
PAPER, OWN = FOLDER / "results-to-paper.ipynb", FOLDER / "own-data-to-answer.ipynb"


def ran(path, tmp_path, *options):
    """What each cell says now, in a process of its own, whose temporary folder is the test's."""
    script = str(SUPPORT / "notebooks.py")
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", script, str(path), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def stored(path):
    return [
        notebooks.text_of(cell["outputs"]) for cell in notebooks.code_cells(notebooks.read(path))
    ]


def test_all_notebooks_are_tested_and_say_what_they_are_about():
    assert sorted(FOLDER.glob("*.ipynb")) == [OWN, PAPER]
    page = (DOCS / "python.md").read_text("utf-8")
    for path in (OWN, PAPER):
        assert f"notebooks/{path.name}" in page
        first, *cells = notebooks.read(path)["cells"]
        text = "".join(first["source"])
        assert text.startswith("# ") and "Scope: " in text and "Limits: " in text
        assert len({cell["id"] for cell in cells}) == len(cells)
        code = notebooks.code_cells(notebooks.read(path))
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
        assert not any(o["output_type"] == "error" for cell in code for o in cell["outputs"])
        assert "/tmp/" not in json.dumps([cell["outputs"] for cell in code])


@pytest.mark.slow
@pytest.mark.heavy
def test_the_paper_notebook_says_what_is_stored_in_it(tmp_path):
    assert ran(PAPER, tmp_path) == stored(PAPER)


@pytest.mark.slow
@pytest.mark.heavy
def test_the_notebook_of_own_data_runs_with_workers_that_cost_nothing(tmp_path):
    """What needs no training is what is stored: rows, plan, what is filled in, how jobs end."""
    now, then = ran(OWN, tmp_path, "--fake"), stored(OWN)
    assert len(now) == len(then)
    assert now[:5] == then[:5]


@pytest.mark.slow
@pytest.mark.real
def test_the_notebook_of_own_data_gives_its_answer(tmp_path):
    """The very scores need the same libraries and kernels of the processor."""
    now, then = ran(OWN, tmp_path), stored(OWN)
    assert now[:5] == then[:5]
    assert "Nothing was learned" not in now[6][0]
