"""Faults of folders, names, limits and files around the results, as docs/faults.md numbers them."""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
from dataclasses import replace

import pytest

from factory import LORA, make_matrix
from peftmark.cli import parser
from peftmark.core.errors import StoreError, SuiteError, UserError
from peftmark.own.declared import OwnTask
from peftmark.own.read import read_own
from peftmark.record.kept import Kept
from peftmark.run import doctor
from peftmark.run.kept_models import Asked, find
from peftmark.storage import part_cache
from peftmark.storage.publish import bundle, publish, pull
from peftmark.storage.remote import open_remote
from peftmark.storage.store import Store
from peftmark.suite import load
from waiting import PATIENCE

ROWS = make_matrix([LORA], ["sst2"], range(3))


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "results", "demo")
    with made.lock():
        for record in ROWS:
            made.append(record)
        made.rebuild()
    return made


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """The command line in a folder of its own: code and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            parser.main([str(word) for word in words])
        return ended.value.code, capsys.readouterr().err

    return run


def refused(monkeypatch, name, error):
    """Have a function of `os` raise for the folder of parts."""
    plain = getattr(os, name)

    def stands_in(path, *more, **named):
        if str(path).endswith("parts"):
            raise error
        return plain(path, *more, **named)

    monkeypatch.setattr(os, name, stands_in)


# --- rows ---------------------------------------------------------------------------------------


def test_a_row_that_came_meanwhile_is_never_written_over(store):
    before = {path: path.read_bytes() for path in store.parts.iterdir()}
    path = store.append(replace(ROWS[0], started_at="2030-01-01T00:00:00+00:00"))
    assert path.name == f"{ROWS[0].job.job_id}.2.parquet"
    assert {p: p.read_bytes() for p in before} == before
    found = Store(store.folder.parent, "demo").read()
    assert found.attempts == 4 and found.damaged == {}
    assert found.records[ROWS[0].job.job_id].attempt == 2


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(40, "Too many levels of links")]
)
def test_a_folder_of_rows_that_cannot_be_listed_is_never_taken_for_an_empty_one(
    store, monkeypatch, error
):
    refused(monkeypatch, "listdir", error)
    with pytest.raises(StoreError, match=r"parts can't be read \(.*\), so nobody knows"):
        store.read()


def test_a_results_folder_that_goes_while_a_run_writes_is_told_as_that(store):
    os.rename(store.folder, store.folder.with_name("moved"))
    with pytest.raises(StoreError, match="is not there any more: it was moved or removed"):
        store.append(replace(ROWS[0], attempt=2))
    assert not store.folder.exists()


@pytest.mark.parametrize(("name", "make"), [("run.lock", os.mkdir), ("logs", "file")])
def test_what_is_in_the_way_in_a_results_folder_is_named(tmp_path, name, make):
    made = Store(tmp_path, "demo")
    made.folder.mkdir()
    place = made.folder / name
    place.write_text("x") if make == "file" else make(place)
    with pytest.raises(StoreError, match=rf"demo/{name}: "), made.lock():
        pass


def test_results_in_a_folder_whose_name_is_no_text_are_read(tmp_path, monkeypatch):
    root = tmp_path / os.fsdecode(b"x\xff")
    made = Store(root, "demo")
    with made.lock():
        for record in ROWS:
            made.append(record)
        made.rebuild()
    monkeypatch.setattr(part_cache, "_read", {})
    assert len(Store(root, "demo").read().records) == 3


# --- adapters, published results ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["flipped", "gone", "swapped"])
def test_a_kept_adapter_that_is_not_what_was_trained_is_refused(store, how):
    for number, content in enumerate((b"weights", b"others!")):
        left = store.adapters.incoming / "left"
        left.mkdir(parents=True)
        (left / "adapter_model.safetensors").write_bytes(content)
        job = replace(ROWS[number].job, task="trec")
        folder = store.adapters.take(left, Kept(job, attempt=1, selection=0.5), "a card")
        path = folder / "adapter_model.safetensors"
    asked = Asked("LoRA r8", "trec", seed=1)
    assert find(store, asked).folder == folder
    if how == "flipped":
        path.write_bytes(b"otherS!")
    elif how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"weights")
    why = "is missing" if how == "gone" else "is not what was trained"
    with pytest.raises(UserError, match=f"{path} {why}") as caught:
        find(store, asked)
    assert f"--again --job {job.job_id}" in str(caught.value)


def test_damage_in_a_store_is_mended_by_sending_all_again(store, tmp_path):
    to = open_remote(f"file://{tmp_path}/there")
    publish(bundle(store, False), to)
    part = next((tmp_path / "there" / "parts").iterdir())
    raw = bytearray(part.read_bytes())
    raw[50] ^= 1
    part.write_bytes(raw)
    with pytest.raises(UserError, match=part.name):
        pull(to, tmp_path / "got")
    assert publish(bundle(store, False), to).written == []
    assert len(publish(bundle(store, False), to, again=True).written) == 4
    assert pull(to, tmp_path / "got")[0] == "demo"


# --- files of people ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "raw", "what", "remedy"),
    [
        ("rows.csv", gzip.compress(b"a,b\n1,2\n", mtime=0), r"compressed \(gz\)", "rows.csv.gz"),
        ("rows.csv", b"PK\x03\x04" + b"x" * 50, r"compressed \(zip\)", "Unpack it"),
        ("rows.jsonl", b"\x28\xb5\x2f\xfd" + b"x" * 50, r"compressed \(zst\)", "Unpack it"),
        ("rows.csv", "a,b\nx,y\n".encode("utf-32"), "it is UTF-32", "encoding: utf-32"),
    ],
    ids=["gzip", "zip", "zstandard", "utf-32"],
)
def test_a_file_in_another_dress_is_told_as_what_it_is(tmp_path, name, raw, what, remedy):
    (tmp_path / name).write_bytes(raw)
    task = OwnTask(kind="classification", train=(name,), text=("a",), label=("b",))
    with pytest.raises(UserError, match=what) as caught:
        read_own("mine", task, [tmp_path], tmp_path / "cache")
    assert remedy in str(caught.value)


def test_a_file_whose_name_is_no_text_gets_no_suite(call):
    code, said = call("new", "odd", "--data", os.fsdecode(b"od\xe9\n.csv"))
    assert code == 2
    assert "the file's name 'od\\udce9\\n.csv' holds what can't be printed" in said


def test_a_reason_that_is_no_text_accepts_no_baseline(call):
    code, said = call("baseline", "accept", "--from", "results/x", "--reason", "a\udcff")
    assert (code, said.splitlines()[0]) == (2, "peftmark: --reason holds what can't be printed")


def test_a_folder_of_suites_that_cannot_be_entered_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "suite_folders", lambda own: [tmp_path])

    def fails(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.is_file", fails)
    with pytest.raises(SuiteError, match=f"{tmp_path} can't be read: Permission denied"):
        load.find_suite("smoke")


# --- limits of a process ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "peftmark: there is no memory left"),
        (OSError(24, "Too many open files"), "peftmark: too many open files"),
        (OSError(12, "Cannot allocate memory"), "peftmark: cannot allocate memory"),
    ],
)
def test_a_machine_that_has_no_more_to_give_is_one_line(call, monkeypatch, error, said):
    def fails(*_):
        raise error

    monkeypatch.setattr("peftmark.cli.list_names.run", fails)
    code, told = call("list")
    assert code == 2 and told.startswith(said) and "Traceback" not in told


def test_no_library_is_loaded_in_an_address_space_that_is_too_small(monkeypatch):
    """Native code asks again and again, and hears no signal meanwhile."""

    def never(name):
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr(doctor.importlib, "import_module", never)
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: (2**30, resource.RLIM_INFINITY))
    found = doctor._library("torch", "2.13.0")
    assert (found.ok, found.needed) == (False, True)
    assert found.found == "2.13.0, not loaded: this shell allows 1.0 GiB of address space"


@pytest.mark.heavy
def test_a_working_folder_that_was_removed_is_told(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, runpy, sys\nos.chdir({str(gone)!r})\nos.rmdir({str(gone)!r})\n"
    code += "sys.argv = ['peftmark', 'list']\nrunpy.run_module('peftmark', run_name='__main__')\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[0] == ("peftmark: the folder that this shell is in was removed")
