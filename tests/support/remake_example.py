"""Write docs/example anew from the rows that lie there, with the present code.

    python tests/support/remake_example.py

Every row becomes a part again, as a run left it, and `peftmark report` reads those. Rows say which
schema they were written with, so making it twice changes nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from places import DOCS

EXAMPLE = DOCS / "example"
KEPT = ("README.md",)


def remake(example: Path, scratch: Path) -> int:
    """Replace what the report writes; what is read stays untouched until the report is whole."""
    table = pq.ParquetFile(example / "rows.parquet").read(use_threads=False)
    schema = table.schema.metadata[b"peftmark_schema"]  # and not the seal of the file as a whole
    table = table.replace_schema_metadata({b"peftmark_schema": schema})
    parts = scratch / "results" / "glue" / "parts"
    parts.mkdir(parents=True)
    for i in range(table.num_rows):
        row = table.slice(i, 1)
        name = f"{row['job_id'][0]}.{row['attempt'][0]}.parquet"
        pq.write_table(row, parts / name, write_page_checksum=True)
    folders = ("--results", str(scratch / "results"), "--reports", str(scratch / "reports"))
    (profile,) = set(table["profile"].to_pylist())
    command = (sys.executable, "-m", "peftmark", "report", "glue", "--profile", profile)
    code = subprocess.run([*command, *folders], check=False).returncode
    if code == 0:
        for old in example.iterdir():
            if old.name not in KEPT:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        shutil.copytree(scratch / "reports" / "glue", example, dirs_exist_ok=True)
    return code


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(remake(EXAMPLE, Path(folder)))
