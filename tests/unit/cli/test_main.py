"""`python -m peftmark` in a folder whose files are named like modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import peftmark

BENCH = Path(peftmark.__file__).parent.parent


@pytest.mark.heavy
def test_a_file_of_the_users_takes_no_modules_place(tmp_path):
    for name in ("statistics", "yaml", "tempfile", "json"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a file of the user was run')\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    ended = subprocess.run(
        [sys.executable, "-m", "peftmark", "budget", "smoke"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(BENCH)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
