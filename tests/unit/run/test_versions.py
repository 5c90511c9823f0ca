"""Two versions of a library: environments on top of this one, runs in turns, one table."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from factory import make_environment
from gate_cli import smoke_rows
from peftmark.core.errors import Exit, UserError
from peftmark.core.files import PACKAGE
from peftmark.run import versions
from peftmark.run.versions import Version, parse, prepare, turns

pytestmark = pytest.mark.heavy


def wheel(folder: Path, version: str) -> str:
    """A wheel of a made-up package that says its version, built without any tool."""
    name = f"tinything-{version}"
    path = folder / f"{name}-py3-none-any.whl"
    files = {
        "tinything.py": f"VERSION = {version!r}\n",
        f"{name}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: tinything\nVersion: {version}\n"
        ),
        f"{name}.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    names = [*files, f"{name}.dist-info/RECORD"]
    files[f"{name}.dist-info/RECORD"] = "".join(f"{n},,\n" for n in names)
    with zipfile.ZipFile(path, "w") as archive:
        for at, text in files.items():
            archive.writestr(at, text)
    return str(path)


@pytest.mark.slow
def test_an_environment_has_its_version_and_everything_else_of_this_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    sides = prepare(
        "smoke", (wheel(tmp_path, "1.0"),), (wheel(tmp_path, "2.0"),), tmp_path, said.append
    )
    assert len(said) == 2 and sides[0].results != sides[1].results
    ask = (
        "import tinything, peftmark, yaml, importlib.metadata as m\n"
        "print(tinything.VERSION, m.version('tinything'), peftmark.__file__)"
    )
    for side, version in zip(sides, ("1.0", "2.0"), strict=True):
        done = subprocess.run(
            [side.python, "-c", ask], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert done.stdout.split()[:2] == [version, version]
        assert Path(done.stdout.split()[2]).parent == PACKAGE
    with pytest.raises(ModuleNotFoundError):
        __import__("tinything")


@pytest.mark.slow
def test_what_pip_can_t_install_is_one_clear_message(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"can't install .*nowhere\.whl"):
        prepare("smoke", (str(tmp_path / "nowhere.whl"),), ("x==1",), tmp_path, lambda line: None)


@pytest.mark.parametrize("text", ["", "  ", "--index-url=evil peft", "-r file", "'open"])
def test_options_and_nothing_are_refused(text):
    with pytest.raises(UserError):
        parse(text, "--old")


def test_requirements_are_split_as_a_shell_would():
    assert parse("peft==0.20.0 'transformers >=5, <6'", "--old") == (
        "peft==0.20.0",
        "transformers >=5, <6",
    )


def test_the_sides_take_turns_and_the_first_changes():
    old, new = (Version((name,), Path(), Path()) for name in ("old", "new"))
    order = [(number, side.requirements[0]) for number, side in turns(old, new, 3)]
    assert order == [(0, "old"), (0, "new"), (1, "new"), (1, "old"), (2, "old"), (2, "new")]


def test_the_command_runs_both_in_turns_and_prints_one_table(peftmark, monkeypatch, tmp_path):
    ran: list[tuple[str, bool]] = []

    def fake_prepare(suite, old, new, results, say):
        found = []
        for name in (old, new):
            found.append(Version(name, Path(sys.executable), results / "versions" / name[0]))
        return tuple(found)

    def fake_run(side, suite, profile, again, more):
        ran.append((side.requirements[0], again))
        if not again:
            made = make_environment(versions={"peft": side.requirements[0].split("==")[1]})
            smoke_rows(side.results, made)

    monkeypatch.setattr(versions, "prepare", fake_prepare)
    monkeypatch.setattr(versions, "run_side", fake_run)
    code, said = peftmark(
        "versions", "smoke", "--old", "peft==1", "--new", "peft==2", "--rounds", "2"
    )
    assert code == 0
    assert ran == [("peft==1", False), ("peft==2", False), ("peft==2", True), ("peft==1", True)]
    assert "peft 1" in said and "peft 2" in said and "gave the same bits as" in said
    folder = Path("reports/smoke/versions")
    assert {"index.html", "versions.json", "versions.md"} < {p.name for p in folder.iterdir()}


def test_a_run_that_can_t_start_stops_the_comparison_with_its_code(tmp_path):
    side = Version(("peft==1",), Path(sys.executable), tmp_path)
    with pytest.raises(UserError, match="ended with code 2"):
        versions.run_side(side, "no-such-suite", None, again=False, more=[])
    assert Exit.USAGE == 2
