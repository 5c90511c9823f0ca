"""Faults from outside: disks, caches, downloads, homes, and files that are none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from made_wheels import FILES, sha256, tiny_model, write
from own_files import labelled
from peftmark.core.errors import AssetError, UserError
from peftmark.core.sealed import sealed, unsealed
from peftmark.memory import forecast
from peftmark.own.declared import OwnTask
from peftmark.own.read import read_own
from peftmark.sources import cache_folder
from peftmark.sources.assets import Places, model_files
from peftmark.sources.cache_folder import cache_error, default_cache, fetching, sweep
from peftmark.sources.children import run_module
from peftmark.sources.hub import sweep_partials
from peftmark.sources.model_folder import blob_fault
from waiting import PATIENCE, wait_for

# --- downloads ------------------------------------------------------------------------------------


def test_what_killed_downloads_left_is_gone_at_the_next_start(tmp_path):
    dead = tmp_path / "fetching" / "dead"
    write(dead, {".lock": b"", "half": b"x" * 1000})
    write(tmp_path / "fetching" / "before its lock", {"half": b"x"})
    with fetching(tmp_path) as mine:
        assert not dead.exists()
        (mine / "half").write_bytes(b"x")
        with fetching(tmp_path) as other:
            assert mine.is_dir(), "one that lives keeps its own"
        assert not other.exists()
        sweep(tmp_path)
        assert mine.is_dir()
    assert [path.name for path in (tmp_path / "fetching").iterdir()] == [".lock"]


KILLED = """
import os, signal, sys
from pathlib import Path
from peftmark.sources.cache_folder import fetching
with fetching(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.heavy
def test_three_kills_leave_nothing_after_the_next_start(tmp_path):
    for _ in range(3):
        subprocess.run([sys.executable, "-c", KILLED, tmp_path], timeout=PATIENCE, check=False)
        left = list((tmp_path / "fetching").glob("*/half"))
        assert len(left) == 1, "each sweeps what the one before left"
    with fetching(tmp_path):
        pass
    assert list((tmp_path / "fetching").glob("*/")) == []


def test_what_a_killed_download_of_the_hub_left_goes_and_a_living_one_stays(tmp_path, monkeypatch):
    import fcntl

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    dead, alive = ("a" * 40, "b" * 64)
    blobs = tmp_path / "models--me--it" / "blobs"
    write(blobs, {f"{dead}.0123abcd.incomplete": b"x", f"{alive}.0123abcd.incomplete": b"x"})
    write(blobs, {dead: b"whole"})
    locks = write(tmp_path / ".locks" / "models--me--it", {f"{n}.lock": b"" for n in (dead, alive)})
    with (locks / f"{alive}.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sweep_partials("me/it", "model")
        assert sorted(p.name for p in blobs.iterdir()) == [dead, f"{alive}.0123abcd.incomplete"]


@pytest.mark.heavy
def test_a_process_that_fetches_ends_when_its_starter_is_killed(tmp_path):
    """By a pipe that closes, whatever ended the starter: no signal reaches a child by itself."""
    (tmp_path / "slow.py").write_text(
        "import os, signal\nopen('pid', 'w').write(str(os.getpid()))\nos.rename('pid', 'there')\n"
        "signal.pause()\n"
    )
    starter = (
        "from pathlib import Path\nfrom peftmark.sources.children import run_module\n"
        f"run_module('slow', [], folder=Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", starter])
    child = wait_for(lambda: _number(tmp_path / "there"))
    process.kill()
    process.wait()
    wait_for(lambda: _is_gone(child))


def _number(path):
    """What a process has written of itself; None until it has."""
    return int(path.read_text()) if path.exists() else None


def _is_gone(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().split(")")[-1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.heavy
def test_a_child_that_ends_by_itself_gives_what_it_printed(tmp_path):
    (tmp_path / "said.py").write_text("import sys\nprint(sys.argv[1:])\nsys.exit(3)\n")
    done = run_module("said", ["a", "b"], folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, "['a', 'b']\n", "")


@pytest.mark.heavy
def test_sigterm_while_files_are_fetched_leaves_as_ctrl_c_does(tmp_path):
    told = tmp_path / "there"
    code = (
        "import signal, sys\nfrom pathlib import Path\nfrom peftmark.cli import parser, doctor\n"
        "from peftmark.sources.cache_folder import fetching\n"
        "def slow(options):\n"
        f"    with fetching(Path({str(tmp_path)!r})):\n"
        f"        Path({str(told)!r}).touch()\n"
        "        signal.pause()\n"
        "doctor.run = slow\nparser.main(['doctor'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_for(told.exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 143
    assert list((tmp_path / "fetching").glob("*/")) == []


# --- caches ---------------------------------------------------------------------------------------


def test_a_seal_tells_every_changed_bit():
    text = sealed({"a": [1, None, "é"], "b": 0.5})
    assert unsealed(text) == {"a": [1, None, "é"], "b": 0.5}
    raw = text.encode()
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError):
            unsealed(changed.decode("utf-8", "surrogateescape"))
    for length in range(len(text)):
        with pytest.raises(ValueError):
            unsealed(text[:length])


def test_a_forecast_with_a_flipped_bit_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "made_by", lambda: "")
    forecast._keep(tmp_path, "asked", forecast.Forecast(allocated=1000, live={"weights": 8}))
    assert forecast._kept(tmp_path, "asked").allocated == 1000
    (file,) = (tmp_path / "forecasts").iterdir()
    file.write_text(file.read_text().replace("1000", "1001"))
    assert forecast._kept(tmp_path, "asked") is None


def test_a_file_of_the_hubs_cache_is_held_against_its_name(tmp_path):
    import hashlib

    blobs = tmp_path / "blobs"
    for content in (b"{}", b"weights"):
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        for name in (git, sha256(content)):
            write(blobs, {name: content})
            link = tmp_path / "link"
            link.unlink(missing_ok=True)
            link.symlink_to(blobs / name)
            assert blob_fault(link) == (name, name)
            (blobs / name).write_bytes(content[:-1] + b"?")
            expected, found = blob_fault(link)
            assert expected == name != found
    assert blob_fault(write(tmp_path, {"plain": b"x"}) / "plain") == ("", "")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (28, "is full (2.00 MiB free): there is no room for package x, of 3.00 MiB"),
        (122, "is full (2.00 MiB free): there is no room for package x, of 3.00 MiB"),
        (30, "can't be written (Read-only file system), and package x belongs there"),
        (13, "can't be written (Permission denied), and package x belongs there"),
    ],
)
def test_a_cache_that_takes_nothing_is_named_as_that(tmp_path, monkeypatch, number, said):
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * 2**20)
    monkeypatch.setattr(cache_folder.shutil, "disk_usage", lambda path: usage)
    error = cache_error(
        tmp_path / "c", OSError(number, os.strerror(number)), "package x", 3 * 2**20
    )
    assert error.what == f"the cache {tmp_path / 'c'} {said}"
    assert "PEFTMARK_CACHE" in error.remedy


# --- no home --------------------------------------------------------------------------------------


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """A user whose home isn't there, with temporary files elsewhere."""
    monkeypatch.delenv("PEFTMARK_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setattr(cache_folder.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"peftmark-{os.getuid()}"


def test_without_a_home_the_cache_is_a_folder_of_the_users_own(homeless):
    assert default_cache() == homeless
    assert homeless.stat().st_mode & 0o777 == 0o700
    assert default_cache() == homeless
    assert not (homeless.parent / "nowhere").exists()


def test_a_folder_that_others_can_write_is_no_cache(homeless):
    homeless.mkdir(mode=0o700)
    homeless.chmod(0o777)
    with pytest.raises(AssetError, match=r"not this user's alone\n.*PEFTMARK_CACHE"):
        default_cache()


def test_a_link_in_its_place_is_no_cache(homeless, tmp_path):
    homeless.symlink_to(tmp_path)
    with pytest.raises(AssetError, match="is not this user's alone"):
        default_cache()


# --- what is no file ------------------------------------------------------------------------------


def pipe(path):
    os.mkfifo(path)


def listening(path):
    made = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(path.parent)  # such a path has some 100 bytes at most
    try:
        made.bind(path.name)
    finally:
        os.chdir(here)
        made.close()


def device(path):
    path.symlink_to("/dev/zero")


ODD = {"a pipe (FIFO)": pipe, "a socket": listening, "a device": device}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_what_is_no_file_in_a_mirror_is_refused_and_not_opened(tmp_path, kind, name):
    folder = write(tmp_path / "mirror" / "minilm-l6", FILES)
    (folder / name).unlink()
    ODD[kind](folder / name)
    places = Places(tmp_path / "mirror", ("mirror", "hub"), tmp_path / "cache")
    with pytest.raises(AssetError) as told:
        model_files(tiny_model(), places)
    assert told.value.what == f"{folder / name} is {kind}, and not a file: it was not opened"


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_among_ones_own_rows_is_refused_and_not_opened(tmp_path, kind):
    ODD[kind](tmp_path / "rows.csv")
    keys = {"kind": "classification", "text": "body", "label": "category"}
    with pytest.raises(UserError, match=r"rows\.csv is .*, and not a file: it was not opened"):
        read_own("t", OwnTask(train="rows.csv", **keys), [tmp_path], tmp_path / "cache")
    (tmp_path / "whole.csv").write_text(labelled())
    read_own("t", OwnTask(train="whole.csv", **keys), [tmp_path], tmp_path / "cache")
