"""A job on a machine where no folder but its own can be written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile

import pytest

from places import SOURCE, SUPPORT, TESTS
from waiting import PATIENCE

GOLDEN = TESTS / "golden" / "rows"

JOB = """
import json, sys
from pathlib import Path
import pytest
import tiny

from peftmark.lab import recipe
from peftmark.sources.assets import Places
from peftmark.sources.cache_folder import default_cache

patch = pytest.MonkeyPatch()
mirror = Path(sys.argv[1])
tiny.install(mirror, patch)
found = recipe.run(tiny.job(), Places(mirror, ("mirror",), default_cache()), lambda told: None)
print(json.dumps([found.status, found.metric_value, [point.loss for point in found.curve]]))
"""


@pytest.mark.slow
@pytest.mark.heavy
def test_a_job_needs_no_home_and_no_folder_of_the_hubs(tmp_path):
    """Neither is there, and neither can be made: a file stands in their place."""
    told = []
    for name in ("usual", "neither"):
        here = tmp_path / name
        (here / "temporary").mkdir(parents=True)
        (here / "file").touch()
        (here / "home").mkdir()
        lost = name == "neither"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PEFTMARK")},
            "HOME": str(here / "file" / "home") if lost else str(here / "home"),
            "HF_HOME": str(here / "file" / "hub") if lost else str(here / "home" / "hub"),
            "TMPDIR": str(here / "temporary"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (SOURCE, SUPPORT))),
        }
        done = subprocess.run(
            [sys.executable, "-c", JOB, str(here / "mirror")],
            env=environment, cwd=here, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout.splitlines()[-1]))
        assert (here / "file").read_bytes() == b""
    assert told[0][0] == "ok"
    assert told[0] == told[1]


# --- the same bytes everywhere --------------------------------------------------------------------

PAGES = """
import hashlib, os, sys
os.umask(int(sys.argv[1], 8))
from factory import make_matrix
from peftmark.cli import parser
from peftmark.storage.parquet import parquet_bytes, row_groups
content = parquet_bytes(row_groups(make_matrix()))
open("row", "w").write(hashlib.sha256(content).hexdigest())
parser.main(["report", "smoke", "--suites", "suites"])
"""
PLACES = {
    "022": {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC", "USER": "one"},
    "077": {"PYTHONHASHSEED": "4242", "LC_ALL": "C", "TZ": "Asia/Kathmandu", "USER": "two"},
}


@pytest.mark.slow
def test_seed_of_hashes_language_zone_mask_and_user_change_no_byte(tmp_path):
    """Of a row, and of the pages of stored rows; nor does a home that isn't there."""
    found = []
    for mask, variables in PLACES.items():
        here = tmp_path / mask
        (here / "suites").mkdir(parents=True)
        shutil.copy(GOLDEN / "smoke-2.yaml", here / "suites" / "smoke.yaml")
        with tarfile.open(GOLDEN / "schema-7.tar.xz") as packed:
            packed.extractall(here, filter="data")
        (here / "file").touch()
        environment = {
            **os.environ,
            "HOME": str(here / "file" / "home") if mask == "077" else str(here),
            "LOGNAME": variables["USER"],
            "PYTHONPATH": os.pathsep.join(map(str, (SOURCE, SUPPORT))),
            **variables,
        }
        done = subprocess.run(
            [sys.executable, "-c", PAGES, mask],
            env=environment, cwd=here, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        pages = [path for path in (here / "reports").rglob("*") if path.is_file()]
        found.append({str(p.relative_to(here)): p.read_bytes() for p in [*pages, here / "row"]})
    one, other = found
    assert len(one) > 5
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
