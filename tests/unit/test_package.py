"""What people get without this checkout: the wheel, the source archive, and commands of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from peftmark.advice import read_rows
from places import ROOT
from waiting import PATIENCE

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ADDED = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]


def files(folder):
    """Every file below a folder by its path in it, without what Python leaves there."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)) for p in paths if "__pycache__" not in p.parts}


def wanted():
    """What the wheel must hold: the package, and what stands elsewhere in the checkout."""
    found = {f"peftmark/{name}" for name in files(ROOT / "bench" / "peftmark")}
    for source, target in ADDED.items():
        found |= {f"{target}/{name}" for name in files(ROOT / source)}
    return found


def built(kind, source, to):
    """The file that hatchling builds, as pip has it do."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(to)],
        cwd=source, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = to.iterdir()
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The source archive, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    path = built("sdist", ROOT, folder / "dist")
    with tarfile.open(path) as file:
        file.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def wheel(archive, tmp_path_factory):
    """The wheel that is built of the source archive, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(built("wheel", archive, folder / "dist")) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.mark.heavy
def test_the_wheel_has_the_whole_package_and_nothing_else(wheel):
    found = files(wheel)
    assert {name for name in found if ".dist-info/" not in name} == wanted()
    for name in (
        "py.typed",
        "render/page.css",
        "_suites/smoke.yaml",
        "_suites/claims/claims.yaml",
        "_published/adalora-tuned/rows.parquet",
    ):
        assert f"peftmark/{name}" in found
    entry = wheel / f"peftmark-{PROJECT['project']['version']}.dist-info" / "entry_points.txt"
    assert "peftmark = peftmark.cli.parser:main" in entry.read_text("utf-8")


@pytest.mark.heavy
def test_the_source_archive_has_what_tests_and_make_need(archive):
    for folder in ("bench", "suites", "tests", "docs", "results/published", "results/baselines"):
        there = files(archive / folder)
        assert there and there <= files(ROOT / folder)
    for name in ("Makefile", "constraints.txt", "LICENSE", "CITATION.cff", "SECURITY.md"):
        assert (archive / name).read_bytes() == (ROOT / name).read_bytes()
    assert (archive / ".ci" / "requirements.lock").is_file()


@pytest.fixture
def command(wheel, tmp_path, monkeypatch):
    """Run a command of the wheel in an empty folder."""
    monkeypatch.setenv("PYTHONPATH", str(wheel))
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*words):
        code = (
            "import sys, peftmark; from peftmark.cli.parser import main\n"
            f"assert peftmark.__file__.startswith({str(wheel)!r}), peftmark.__file__\n"
            "sys.exit(main(sys.argv[1:]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=empty, capture_output=True, text=True, timeout=PATIENCE, env=os.environ.copy(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder = empty
    return run


@pytest.mark.slow
@pytest.mark.heavy
def test_commands_of_the_wheel_work_in_an_empty_folder(command):
    text = command("list")
    assert all(f"\n  {path.stem} " in text for path in (ROOT / "suites").glob("*.yaml"))
    assert "9 jobs, 9 to run" in command("plan", "smoke", "--no-memory")
    assert "usage: peftmark claims" in command("claims", "--help")
    assert list(command.folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.heavy
def test_a_suite_for_rows_of_ones_own_is_written_and_planned_with_the_wheel(command):
    rows = [f"lent it to {n},lent\nsold {n} of it,sold\n" for n in range(40)]
    (command.folder / "books.csv").write_text("text,label\n" + "".join(rows), encoding="utf-8")
    command("new", "books", "--data", "books.csv", "--text", "text", "--label", "label")
    assert "Suite books" in command("plan", "books", "--no-memory")


@pytest.mark.slow
@pytest.mark.heavy
def test_the_wheel_advises_from_the_rows_that_are_in_it(command):
    assert "Rows: suite adalora-tuned" in command("recommend", "--memory", "24GB")


def test_published_rows_are_those_of_the_results_folder_else_those_installed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert read_rows.folders(Path("results"), "adalora-tuned", None) == [
        ROOT / "results" / "published" / "adalora-tuned" / "rows.parquet"
    ]
    with pytest.raises(read_rows.NothingMeasured, match="the folder mine holds no results"):
        read_rows.folders(Path("mine"), None, None)
    own = Path("results") / "published" / "books"
    own.mkdir(parents=True)
    (own / "rows.parquet").touch()
    assert read_rows.folders(Path("results"), None, None) == [own / "rows.parquet"]
