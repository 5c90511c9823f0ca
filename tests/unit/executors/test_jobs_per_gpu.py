"""Several jobs on one GPU: which start together, stretches alone, and an end in each phase."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from factory import make_job, make_outcome
from peftmark.cli import parser
from peftmark.core.errors import UserError
from peftmark.executors import local, process, select
from peftmark.executors.beside import seen_by_nvml
from peftmark.executors.contract import Finished, Order, needs_of
from peftmark.executors.in_turn import RAN_OTHERS
from peftmark.executors.launch import Launcher
from peftmark.executors.select import AUTO, Where, choose
from peftmark.executors.slots import DeviceRoom, Room, Slot, gpu_slots
from peftmark.machine.gpus import CONTEXT_BYTES
from peftmark.machine.visible import Devices, Gpu
from peftmark.record.shared import BESIDE
from peftmark.sources.assets import Places
from watched import Watched

pytestmark = pytest.mark.heavy

GIB = 2**30
CARD = Slot("GPU-a", on_device=4, memory=80 * GIB)


def sized(seed, batch):
    """A job whose need is told apart by its batch."""
    job = make_job(seed=seed)
    return replace(job, recipe=replace(job.recipe, batch_size=batch))


# --- which jobs start ---------------------------------------------------------------------------


def needs(**bytes_of):
    """Needs of jobs by batch size, as in `b8=30 * GIB`."""
    return {needs_of(sized(0, int(key[1:]))): size for key, size in bytes_of.items()}


@pytest.mark.parametrize(
    ("running", "new", "fits"),
    [
        ([], 99, True),  # nothing is known of it, and it is alone
        ([], 80, True),  # larger than the GPU, and alone: the job itself will tell
        ([8], 8, True),  # 60 of 76
        ([8, 8], 8, False),  # 90
        ([8, 8], 16, True),  # 76: what is left of 80 less a twentieth
        ([8, 8], 17, False),
        ([8], 99, False),
        ([99], 8, False),  # beside one that nothing is known of nobody starts
    ],
)
def test_a_job_starts_beside_others_where_predictions_add_up_to_less_than_the_gpu(
    running, new, fits
):
    room = DeviceRoom(needs(b8=30 * GIB, b16=16 * GIB, b17=16 * GIB + 1, b80=90 * GIB))
    jobs = [sized(seed, batch) for seed, batch in enumerate(running)]
    assert room.fits(sized(9, new), CARD, jobs) is fits


def test_processes_that_wait_for_jobs_take_a_context_each():
    room = DeviceRoom(needs(b8=38 * GIB - CONTEXT_BYTES))
    jobs = [sized(0, 8)]
    assert room.fits(sized(1, 8), CARD, jobs, idle=2)
    assert not room.fits(sized(1, 8), CARD, jobs, idle=3)


def test_on_a_gpu_of_unknown_size_one_job_runs_at_a_time():
    room = DeviceRoom(needs(b8=GIB))
    assert not room.fits(sized(1, 8), replace(CARD, memory=None), [sized(0, 8)])
    assert room.fits(sized(1, 8), replace(CARD, memory=None), [])


def test_what_a_job_took_is_known_from_then_on():
    room = DeviceRoom(needs(b8=30 * GIB))
    ends = Finished(sized(0, 8), 1, make_outcome(), "", "", 1.0, 50 * GIB, None, BESIDE)
    room.learn(ends)
    assert not room.fits(sized(1, 8), CARD, [sized(2, 8)])
    room.learn(replace(ends, nvml_process_bytes=1))
    assert not room.fits(sized(1, 8), CARD, [sized(2, 8)]), "the most that was seen"
    unknown = replace(ends, job=sized(0, 99), nvml_process_bytes=None)
    room.learn(replace(unknown, outcome=make_outcome(torch_reserved_bytes=3 * GIB)))
    assert room.fits(sized(1, 99), CARD, [sized(2, 99)])


def waiting(*batches):
    return [local._Waiting(sized(seed, batch), 1, 1) for seed, batch in enumerate(batches)]


def state(waits, running, slots, known):
    """A run: which attempts wait, which run in which place, and the places that are free."""
    held = {number: (SimpleNamespace(slot=slot), one) for number, (one, slot) in enumerate(running)}
    return local._State(waits, held, list(slots), set(), Room(None, {}), DeviceRoom(known))


def chosen(*arguments):
    found = local._next(state(*arguments), lambda device: 0)
    return found and (found[0].job.seed, found[1].device)


def test_the_first_job_that_fits_goes_to_the_gpu_with_the_fewest():
    other = replace(CARD, device="GPU-b")
    known = needs(b8=30 * GIB, b16=16 * GIB)
    beside = [(one, CARD) for one in waiting(8, 8)]
    assert chosen(waiting(8), [], [CARD, other], known) == (0, "GPU-a")
    assert chosen(waiting(8), beside, [CARD, other], known) == (0, "GPU-b")
    assert chosen(waiting(8), beside, [CARD], known) is None
    assert chosen(waiting(8, 99, 16), beside, [CARD], known) == (2, "GPU-a")
    assert chosen(waiting(99), beside, [CARD, other], known) == (0, "GPU-b")


def test_nothing_starts_on_the_gpu_of_a_job_that_is_to_be_alone():
    other = replace(CARD, device="GPU-b")
    known = needs(b8=GIB)
    (alone,) = (replace(one, alone=True) for one in waiting(8))
    assert chosen(waiting(8), [(alone, CARD)], [CARD], known) is None
    assert chosen(waiting(8), [(alone, CARD)], [CARD, other], known) == (0, "GPU-b")
    (beside,) = waiting(8)
    assert chosen([alone], [(beside, CARD)], [CARD], known) is None
    assert chosen([alone], [(beside, CARD)], [CARD, other], known) == (0, "GPU-b")


# --- places -------------------------------------------------------------------------------------


@pytest.fixture
def two_gpus(monkeypatch):
    gpus = (Gpu("GPU-a", "Example GPU", 80 * GIB), Gpu("GPU-b", "Example GPU", None))
    monkeypatch.setattr(select.nvml, "devices", lambda: Devices(gpus, ""))
    monkeypatch.setattr(select.nvml, "near_cores", lambda uuid: frozenset())
    monkeypatch.setattr(select, "cores", lambda: 6)


@pytest.mark.parametrize(
    ("per_gpu", "jobs", "devices", "on_each", "workers"),
    [
        (None, None, "ab", 1, 2),
        (None, 1, "a", 1, 1),
        (1, None, "ab", 1, 2),
        (2, None, "abab", 2, 2),
        (2, 3, "aba", 2, 2),
        (AUTO, None, "ababab", 3, 2),  # one a core
    ],
)
def test_places_fill_one_gpu_after_the_other(two_gpus, per_gpu, jobs, devices, on_each, workers):
    venue = choose(Where(jobs_per_gpu=per_gpu), jobs)
    assert [slot.device for slot in venue.slots] == [f"GPU-{one}" for one in devices]
    assert {slot.on_device for slot in venue.slots} == {on_each}
    assert (venue.gpus, venue.at_once, venue.workers) == (2, len(devices), workers)
    assert venue.slots[0].memory == 80 * GIB
    assert all(slot.shared == (on_each > 1) for slot in venue.slots)


@pytest.mark.parametrize(
    ("per_gpu", "jobs", "says"),
    [(None, 3, "two jobs on one would falsify"), (2, 5, "2 GPUs with 2 jobs on each at most")],
)
def test_more_jobs_than_places_are_refused(two_gpus, per_gpu, jobs, says):
    with pytest.raises(UserError, match=says):
        choose(Where(jobs_per_gpu=per_gpu), jobs)


def test_the_option_needs_gpus_here(monkeypatch, capsys):
    with pytest.raises(UserError, match="--jobs-per-gpu says nothing to the executor slurm"):
        choose(Where(executor="slurm", slurm="time=5", jobs_per_gpu=2), 1)
    monkeypatch.setattr(select.nvml, "devices", lambda: Devices((), "none"))
    with pytest.raises(UserError, match="on a machine without GPUs"):
        choose(Where(jobs_per_gpu=AUTO), None)
    with pytest.raises(SystemExit) as left:
        parser.main(["run", "smoke", "--jobs-per-gpu", "many"])
    assert left.value.code == 2
    assert "'many'; a whole number from 1, or auto" in capsys.readouterr().err


# --- what rows say ------------------------------------------------------------------------------


def test_of_a_shared_gpu_nvml_tells_the_process_and_not_the_device():
    meter = SimpleNamespace(process_bytes=5, device_bytes=9, reason="")

    def told(slot, before=0):
        return tuple(seen_by_nvml(meter, slot, before).values())

    assert told(Slot("GPU-a")) == (5, 9, "")
    assert told(CARD) == (5, None, BESIDE)
    assert told(CARD, before=1) == (None, None, RAN_OTHERS)
    assert told(Slot("GPU-a"), before=1) == (None, None, RAN_OTHERS)
    assert told(Slot(), before=1) == (5, 9, ""), "on the CPU there is nothing to tell apart"


# --- workers ------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run jobs on one GPU that nobody has; returns how each ended, by seed."""
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    # There is no CUDA that a fork could harm, and it starts in no time.
    monkeypatch.setattr(process, "Launcher", lambda gpu, preload: Launcher(False, preload))
    logs = tmp_path / "logs"
    logs.mkdir()

    def start(seeds, ways=None, on_device=2, retries=0, attempt=1, size=30 * GIB, **changes):
        (logs / "ways").write_text(json.dumps(ways or {}))
        (logs / "events").unlink(missing_ok=True)
        watched = Watched()
        monkeypatch.setattr(process, "time", watched.clock)
        jobs = [make_job(seed=seed) for seed in range(seeds)]
        order = Order(
            jobs=[(job, attempt) for job in jobs],
            places=Places(None, ("package",), tmp_path / "cache"),
            logs=logs,
            retries=retries,
            worker="fake_worker:shares",
            on_device={needs_of(job): size for job in jobs},
            **changes,
        )
        slots = on_device * [Slot("GPU-of-nobody", on_device=on_device, memory=80 * GIB)]
        attempts = watched.run(order, slots)
        start.watched, start.attempts = watched, attempts
        start.events = (logs / "events").read_text().splitlines()
        assert not (tmp_path / "scratch").exists(), "no lock is left"
        return {one.job.seed: one for one in attempts if not one.again}

    return start


def makespan(events):
    """How long a run takes whose jobs take the same time each, by what began and ended when."""
    now, began = 0, {}
    for event, seed in events:
        if event == "start":
            began[seed] = now
        else:
            now = max(now, began[seed] + 1)
    return now


def stretches_are_alone(events):
    """Nothing of other jobs is between the two ends of a timed stretch; returns the seeds of all
    that came to their end."""
    told = [tuple(line.split(" ", 1)) for line in events]
    found = []
    for place, (seed, what) in enumerate(told):
        own = [later for later in range(place + 1, len(told)) if told[later][0] == seed]
        if what == "stretch" and told[own[0]][1] == "over":  # its process was not killed
            assert own[0] == place + 1, told[place : own[0]]
            found.append(int(seed))
    return found


def test_two_of_four_jobs_at_a_time_take_half_as_long_and_are_timed_one_by_one(run):
    meets = {str(seed): seed ^ 1 for seed in range(4)}  # hangs unless both are there at once
    found = run(4, {"meets": meets}, on_device=4)
    assert {one.outcome.status for one in found.values()} == {"ok"}
    assert run.watched.most == 2, "three of 30 GiB don't fit into 80"
    assert makespan(run.watched.events) == 2
    assert sorted(stretches_are_alone(run.events)) == list(range(4))
    outcomes = [one.outcome for one in found.values()]
    assert {(o.jobs_on_gpu, o.timed_alone, o.start_seconds) for o in outcomes} == {(4, True, None)}
    assert {o.null_reasons["start_seconds"] for o in outcomes} == {BESIDE}
    assert {one.nvml_device_bytes for one in found.values()} == {None}


def test_with_one_place_a_gpu_nothing_is_shared(run):
    found = run(2, on_device=1)
    assert makespan(run.watched.events) == 2
    outcomes = [one.outcome for one in found.values()]
    assert {(o.jobs_on_gpu, o.timed_alone) for o in outcomes} == {(1, None)}
    assert all(o.start_seconds is not None for o in outcomes)


def test_trials_repeats_and_seeds_that_the_suite_leaves_out_are_not_timed(run):
    trial, repeat, last = (make_job(seed=seed) for seed in (0, 1, 2))
    order = Order([], Places(None, ("package",), Path()), Path(), untimed=frozenset([last.job_id]))
    timed = [replace(trial, purpose="tuning"), replace(repeat, purpose="repeat"), last, trial]
    assert [order.times(job) for job in timed] == [False, False, False, True]
    found = run(3, untimed=frozenset([last.job_id]))
    assert [found[seed].outcome.timed_alone for seed in range(3)] == [True, True, False]
    assert sorted(stretches_are_alone(run.events)) == [0, 1]


WAYS = {
    "dies beside": {"1": "dies beside"},
    "dies waiting": {"0": "holds", "1": "dies waiting"},
    "dies alone": {"1": "dies alone"},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_kill_in_each_phase_costs_one_attempt_and_no_neighbour(run, way):
    found = run(3, WAYS[way], retries=1)
    assert {one.outcome.status for one in found.values()} == {"ok"}
    tried = sorted((one.job.seed, one.attempt) for one in run.attempts)
    assert tried == [(0, 1), (1, 1), (1, 2), (2, 1)]
    (killed,) = (one for one in run.attempts if one.again)
    assert killed.outcome.status == "crashed"
    assert "SIGKILL" in killed.outcome.status_reason
    assert set(stretches_are_alone(run.events)) == {0, 1, 2}


@pytest.mark.parametrize("way", WAYS)
def test_another_run_goes_on_where_one_was_killed(run, way):
    found = run(2, WAYS[way])
    assert [found[seed].outcome.status for seed in (0, 1)] == ["ok", "crashed"]
    again = run(2, WAYS[way], attempt=2)
    assert {one.outcome.status for one in again.values()} == {"ok"}


def test_places_of_a_lost_gpu_take_no_job(run, monkeypatch):
    monkeypatch.setattr(local.nvml, "lost", lambda uuid: True)
    with pytest.raises(UserError, match="every GPU is lost"):
        run(6, {"0": "dies beside", "1": "dies beside"}, on_device=2)


def test_slots_know_their_gpus():
    found = gpu_slots({"GPU-a": frozenset()}, 2, {"GPU-a": 7})
    assert found == [Slot("GPU-a", on_device=2, memory=7)] * 2
