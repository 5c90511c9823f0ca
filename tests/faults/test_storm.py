"""Random sequences of trouble end in the rows of an undisturbed run."""

from __future__ import annotations

import os
import random
import resource
import sys

import psutil
import pytest

from peftmark.run.runner import Selection
from peftmark.storage.store import Store
from places import SUPPORT
from storm import INCOMPLETE, Broken, Storm, faults, figures

SEEDS = range(int(os.environ.get("STORM_SEEDS", "2")))
TROUBLES = 7
FULL_DISK = 2

SUITE = """
suite: storm
version: 1
summary: made up
reference: {method: head}
radar: {}
recipe: {batch_size: 16, steps: 20, learning_rate: 1e-3}
methods:
  - {method: head}
  - {method: lora, rank: [2, 4, 8], recipe: {targets: attention, alpha: 8}}
profiles:
  quick: {summary: s, needs: nothing, scale: reduced,
         sources: [package], model: minilm-l6, seeds: [0, 1, 2, 3, 4],
          tasks: {trec: {}}}
"""
JOBS = 4 * 5 + 1

# Trials in rounds, and seeds that are added until cells are told apart: which jobs there are
# follows from rows. Rank 8 is told from rank 4 at the first look, the others are not at once.
GROWING = """
suite: storm
version: 1
summary: made up
reference: {method: lora, rank: 4}
radar: {}
recipe: {batch_size: 16, steps: 20, learning_rate: 1e-3}
methods:
  - {method: head, tune: {learning_rate: [1e-3, 2e-3, 3e-3]}}
  - method: lora
    rank: [2, 4, 8]
    tune: {learning_rate: [1e-3, 2e-3, 3e-3], alpha: [8, 16]}
    recipe: {targets: attention}
profiles:
  quick: {summary: s, needs: nothing, scale: reduced,
         sources: [package], model: minilm-l6, seeds: [0, 1, 2],
          tuning: {seeds: [100], trainings: 5}, tasks: {trec: {}}}
"""

# The command line with a worker and assets that cost nothing.
FAKE = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import stand_ins
stand_ins.load_early()
from functools import partial
from peftmark.run import runner
runner.fetch = lambda plan: {{}}
runner.execute = partial(runner.execute, worker="fault_worker:" + sys.argv[1])
from peftmark.cli.parser import main
main(["run", "storm", "--profile", "quick", "--suites", "suites", "--jobs", "2", "--no-report",
      *sys.argv[2:]])
"""


@pytest.fixture
def storm(tmp_path):
    """A storm that is over with its test, however that ends."""
    found = storm_in(tmp_path / "storm", random.Random(0))
    yield found
    if found.process is not None and found.process.poll() is None:
        found.kill_supervisor()


def storm_in(folder, luck, suite=SUITE, arguments=("steady",)):
    (folder / "suites").mkdir(parents=True)
    (folder / "suites" / "storm.yaml").write_text(suite)
    return Storm([sys.executable, "-c", FAKE, *arguments], folder, luck)


def selection(folder):
    return Selection("storm", "quick", suites=folder / "suites", results=folder / "results")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    storm = storm_in(tmp_path_factory.mktemp("storm") / "calm", random.Random(0))
    storm.calm()
    found = figures(selection(storm.folder))
    assert len(found) == JOBS
    assert faults(selection(storm.folder), storm.folder, found) == []
    return found


# --- kinds of trouble ---------------------------------------------------------------------------


def kill_worker(storm):
    storm.kill_worker()


def kill_supervisor(storm):
    storm.kill_supervisor()


def fill_disk(storm):
    """From now on no file that the supervisor writes may pass 4 KiB: the next part breaks off."""
    try:
        resource.prlimit(storm.process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
    except ProcessLookupError:
        return
    storm.done["disks filled"] += 1
    storm.process.wait()


def corrupt(storm):
    """Flip a bit of a part, or cut it, or empty it."""
    parts = Store(storm.folder / "results", "storm").parts.glob("*.parquet")
    parts = sorted(path for path in parts if path.stat().st_size)
    if not parts:
        return
    part = storm.luck.choice(parts)
    raw = bytearray(part.read_bytes())
    at = storm.luck.randrange(len(raw))
    way = storm.luck.choice(("flip", "cut", "empty"))
    if way == "flip":
        raw[at] ^= 1 << storm.luck.randrange(8)
    part.write_bytes({"flip": raw, "cut": raw[:at], "empty": b""}[way])
    storm.done["parts damaged"] += 1


def resume(storm):
    """Leave the run alone to its end."""
    storm.process.wait()


KINDS = (kill_worker, kill_worker, kill_supervisor, fill_disk, corrupt, corrupt, resume)


def more_rows(storm, count):
    """Wait until a run has stored so many rows more, or has ended."""
    parts = Store(storm.folder / "results", "storm").parts
    wanted = len(list(parts.glob("*.parquet"))) + count
    while storm.running(0.01) and len(list(parts.glob("*.parquet"))) < wanted:
        pass


@pytest.mark.slow
def test_any_sequence_of_trouble_ends_in_the_rows_of_an_undisturbed_run(undisturbed, storm):
    """Every kind of it, each after some rows; `test_storms` plays many, at any moment."""
    luck = storm.luck = random.Random(0)
    kinds = list(dict.fromkeys(KINDS))
    luck.shuffle(kinds)

    def trouble():
        more_rows(storm, luck.randrange(4))
        return kinds.pop()

    rage(storm, undisturbed, len(kinds), trouble)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_storms(undisturbed, storm, seed):
    luck = storm.luck = random.Random(seed)

    def trouble():
        # Most of a short run is its start: trouble comes when the first rows are there.
        if luck.random() < 0.8:
            more_rows(storm, 1)
        storm.running(luck.uniform(0.0, 0.5))
        return luck.choice(KINDS)

    rage(storm, undisturbed, TROUBLES, trouble)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_storms_while_trials_and_looks_decide_what_comes_next(tmp_path, seed):
    """Same looks, same verdicts, same jobs, whenever it was killed."""
    luck = random.Random(seed)
    arguments = ("told_apart", "--until-decided", "--max-seeds", "6")
    calm = storm_in(tmp_path / "calm", luck, GROWING, arguments)
    calm.calm()
    undisturbed = figures(selection(calm.folder))
    looks = {(row["look"], row["method"]) for row in undisturbed.values()}
    assert {("1", "'lora'"), ("2", "'lora'")} <= looks, "seeds were added"
    purposes = [row["purpose"] for row in undisturbed.values()]
    assert purposes.count("'tuning'") == 3 * (6 + 2) + 3 + 2, "and rounds"
    mine = storm_in(tmp_path / "storm", luck, GROWING, arguments)

    def trouble():
        if luck.random() < 0.8:
            more_rows(mine, 1)
        mine.running(luck.uniform(0.0, 0.5))
        return luck.choice(KINDS)

    try:
        rage(mine, undisturbed, TROUBLES, trouble)
    finally:
        if mine.process is not None and mine.process.poll() is None:
            mine.kill_supervisor()


def rage(storm, undisturbed, count, trouble):
    """So much trouble in runs that are started again, and the rows that are there in the end."""
    for _ in range(count):
        if storm.process is None or storm.process.poll() is not None:
            storm.start()
        trouble()(storm)
        code = storm.process.poll()
        assert code in (None, 0, FULL_DISK, INCOMPLETE, -9), storm.tail()
    storm.process.wait()
    storm.calm((0, INCOMPLETE), starts=3)
    assert faults(selection(storm.folder), storm.folder, undisturbed) == [], storm.done


@pytest.mark.slow
def test_a_storm_notices_what_is_wrong(undisturbed, storm):
    """The judge of these tests can say no."""
    storm.calm()
    chosen, folder = selection(storm.folder), storm.folder
    store = Store(chosen.results, "storm")
    first, second, third = sorted(store.parts.glob("*.parquet"))[:3]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    (store.parts / ".x.parquet.tmp").write_text("half")
    (folder / "tmp" / "peftmark-x").mkdir()
    wrong = {k: {**v, "loss": "0"} if k in third.name else v for k, v in undisturbed.items()}
    found = "\n".join(faults(chosen, folder, wrong))
    for words in (
        f"job {first.name[:16]} is lost",
        f"job {second.name[:16]} is lost",
        f"{second.name} can't be read",
        f"job {third.name[:16]}: loss differ",
        "parts/.x.parquet.tmp was left behind",
        "tmp/peftmark-x was left behind",
        "other jobs than in the undisturbed run",
    ):
        assert words in found
    third.unlink()
    with pytest.raises(Broken, match="exit code 2"):
        Storm([sys.executable, "-m", "peftmark", "run", "no-such-suite"], folder, storm.luck).calm()


@pytest.mark.slow
def test_workers_are_told_from_the_processes_around_them(storm):
    """What the storm kills are the workers: not the fork server, nor the tracker beside it."""
    hold = Store(storm.folder / "results", "storm").logs / "hold"
    hold.parent.mkdir(parents=True)
    hold.touch()
    storm.start()
    while storm.running(0.02) and not storm.kill_worker():
        assert len(psutil.Process(storm.process.pid).children()) <= 2
    hold.unlink()
    assert storm.process.wait() in (0, INCOMPLETE)  # 0 where a killed job was tried again
    assert storm.done["workers killed"] == 1
    assert storm.tail().count("killed by SIGKILL") == 1
