"""Stand-ins for a job's worker process, each ending its own way; none loads torch.

They run in processes that `run_jobs(worker="fake_worker:NAME")` starts, which find this module
because pytest puts the folder of the tests on the path that workers inherit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from functools import partial
from pathlib import Path

from peftmark.lab import members, worker
from peftmark.machine.shared_device import SharedDevice
from peftmark.record.job import Job
from peftmark.record.kept import NOTES, Kept
from peftmark.record.outcome import CurvePoint, Outcome
from sharing import blocked
from waiting import FOREVER, wait_for

HANGING_STEP = 3
"""The step that a worker names before it hangs, and no other worker does."""


class Line:
    """A fake worker's end of the pipe, set up as the real worker sets itself up."""

    def __init__(self, connection, job_json, log, redirect=True):
        leave = threading.Thread(
            target=worker._leave_with_supervisor, args=(connection,), daemon=True
        )
        leave.start()
        if redirect:
            worker._redirect(Path(log))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.connection = connection
        self.job = Job.from_json(job_json)
        self.log = Path(log)

    def send(self, **message):
        self.connection.send_bytes(json.dumps(message).encode())

    def finish(self, **changes):
        # Of the rates tried, 0.002 is the best.
        trial = self.job.purpose == "tuning"
        score = 0.5 - abs(self.job.recipe.learning_rate - 0.002) if trial else 0.5
        values = {"status": "ok", "metric_value": score, "steps": self.job.recipe.steps}
        self.send(outcome=Outcome(**{**values, **changes}).to_json())


def ok(connection, job_json, places_json, log, device):
    """Finish at once."""
    line = Line(connection, job_json, log)
    line.send(phase="train")
    line.send(step=1, steps=line.job.recipe.steps, metric=0.25)
    print("some words for the log")
    line.finish(model_source=os.environ["OMP_NUM_THREADS"], data_source=places_json)


def leaves(connection, job_json, places_json, log, device):
    """Finish, having left a file to be kept where it was told to; the higher the seed the better,
    but the evaluation rows say the opposite."""
    line = Line(connection, job_json, log)
    outbox = json.loads(places_json).get("outbox")
    if outbox is not None:
        Path(outbox).mkdir(parents=True)
        (Path(outbox) / "adapter_model.safetensors").write_bytes(b"x" * 10)
        (Path(outbox) / NOTES).write_text(Kept(line.job, mean=1.5).to_json())
    seed = line.job.seed
    point = CurvePoint(1, 0.5, 0.9 - seed / 10, 1.0, 0.5 + seed / 10)
    line.finish(curve=(point,), metric_value=point.metric, adapter_bytes=10)


def raises(connection, job_json, places_json, log, device):
    """A fault nobody caught."""
    Line(connection, job_json, log)
    raise ValueError("no such thing")


def exits(connection, job_json, places_json, log, device):
    """Leave without a word, as a crashing library does."""
    Line(connection, job_json, log).send(phase="model")
    os._exit(3)


def dies(connection, job_json, places_json, log, device):
    """Die as by the kernel's hand."""
    line = Line(connection, job_json, log)
    line.send(phase="train")
    line.send(step=7, steps=120)
    os.kill(os.getpid(), signal.SIGKILL)


def dies_of_a_nameless_signal(connection, job_json, places_json, log, device):
    """Die of a signal Python has no name for."""
    Line(connection, job_json, log)
    os.kill(os.getpid(), signal.SIGRTMIN + 3)
    time.sleep(FOREVER)


def hangs(connection, job_json, places_json, log, device):
    """Stop making progress at step 3."""
    _hang(Line(connection, job_json, log))


def _hang(line):
    line.send(phase="train")
    line.send(step=HANGING_STEP, steps=120)
    time.sleep(FOREVER)


def ignores_sigterm(connection, job_json, places_json, log, device):
    """Hang, and not be moved by politeness."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hangs(connection, job_json, places_json, log, device)


def floods(connection, job_json, places_json, log, device):
    """Print megabytes, some of it no text at all, from Python and from below it."""
    line = Line(connection, job_json, log)
    os.write(1, b"\xff\xfe\x00\x1b[2J" * 100)
    for _ in range(40):
        print("x" * 100_000)
    subprocess.run(["echo", "from a child"], check=True)
    sys.stderr.write("an error\n")
    line.finish()


def floods_the_pipe(connection, job_json, places_json, log, device):
    """Send far more progress than a pipe holds."""
    line = Line(connection, job_json, log)
    for step in range(5000):
        line.send(step=step, steps=5000, note="x" * 200)
    line.finish()


def nan(connection, job_json, places_json, log, device):
    """Call a score that is no number a success."""
    line = Line(connection, job_json, log)
    line.send(step=1, steps=1, metric=float("nan"))
    line.finish(metric_value=float("nan"), train_seconds=float("inf"))


def leaves_a_child(connection, job_json, places_json, log, device):
    """End, while a forked child keeps the pipe and the log open."""
    line = Line(connection, job_json, log)
    child = os.fork()
    if child == 0:
        time.sleep(FOREVER)
        os._exit(0)
    line.finish(data_source=str(child))


def counts(connection, job_json, places_json, log, device):
    """Note how many workers are alive beside this one, and how many it was told."""
    line = Line(connection, job_json, log)
    mine = line.log.with_suffix(".alive")
    mine.touch()
    alive = len(list(line.log.parent.glob("*.alive")))
    mine.unlink()
    line.finish(steps=alive, data_source=os.environ["PEFTMARK_JOBS_AT_ONCE"])


def scores_otherwise(connection, job_json, places_json, log, device):
    """Finish with metrics that no other worker reports."""
    Line(connection, job_json, log).finish(metrics={"accuracy": 0.125})


def collapses(connection, job_json, places_json, log, device):
    """Finish, having learned to say one thing."""
    Line(connection, job_json, log).finish(collapsed=True)


def by_seed(connection, job_json, places_json, log, device):
    """End in the way that stands in the file `ways` beside the log.

    It stands there under the job's purpose, its learning rate as in "rate 0.002", or its seed.
    """
    ways = json.loads(Path(log).with_name("ways").read_text())
    job = Job.from_json(job_json)
    keys = (job.purpose, f"rate {job.recipe.learning_rate:g}", str(job.seed))
    way = next((ways[key] for key in keys if key in ways), "ok")
    globals()[way](connection, job_json, places_json, log, device)


def hangs_with_its_number(connection, job_json, places_json, log, device):
    """Hang after writing down who hangs."""
    line = Line(connection, job_json, log)
    line.log.with_suffix(".pid").write_text(str(os.getpid()))  # from here on SIGINT is ignored
    _hang(line)


def _real(run, *arguments):
    """The real worker's `main` around a recipe that loads nothing."""
    recipe, meters = (
        types.ModuleType("peftmark.lab.recipe"),
        types.ModuleType("peftmark.lab.measure.meters"),
    )
    recipe.run = run
    meters.reset_high_water_mark = lambda: None
    import peftmark.lab

    peftmark.lab.recipe = recipe
    sys.modules |= {"peftmark.lab.recipe": recipe, "peftmark.lab.measure.meters": meters}
    worker.quiet_libraries = lambda: None
    worker.classify = lambda error: ("diverged", str(error))
    worker.main(*arguments)


def _good_recipe(job, places, progress, outbox, turns):
    progress({"step": 1, "steps": 2})
    print("printed by the recipe")
    facts = [places.sources, os.environ["CUDA_VISIBLE_DEVICES"]]
    return Outcome("ok", metric_value=1.0, data_source=json.dumps(facts))


def _bad_recipe(job, places, progress, outbox, turns):
    raise FloatingPointError("the loss was nan")


real_ok = partial(_real, _good_recipe)
real_diverged = partial(_real, _bad_recipe)


class _Afresh:
    """Puts nothing back."""

    def again(self, job):
        return "a thread goes on" if _way(job) == "leaves a thread" else ""


def _way(job):
    ways = json.loads((Path(os.environ["TMPDIR"]).parents[1] / "logs" / "ways").read_text())
    return ways.get(str(job.seed), "ok")


def _recipe_by_way(job, places, progress, outbox, turns):
    """End in the way that stands in the file `ways`; say which process it was, and how many files
    others left in its folder."""
    progress({"phase": "data"})
    print(f"printed by seed {job.seed}")
    scratch = Path(os.environ["TMPDIR"])
    found = len(list(scratch.iterdir()))
    (scratch / f"left by {job.seed}").mkdir()
    way = _way(job)
    if way == "raises":
        raise FloatingPointError("the loss was nan")
    if way == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "hangs":
        progress({"step": HANGING_STEP, "steps": 120})
        time.sleep(FOREVER)
    if way == "ends":
        sys.exit(3)
    score = float("nan") if way == "nan" else 0.5
    facts = json.dumps([os.getpid(), found])
    sizes = {"vmhwm_bytes": 7, "vmhwm_train_bytes": 6, "rss_before_train_bytes": 5}
    return Outcome("ok", metric_value=score, data_source=facts, live_bytes=job.seed, **sizes)


def in_turn(*arguments):
    """The real worker around a recipe that loads nothing, for several jobs."""
    afresh = types.ModuleType("peftmark.lab.afresh")
    afresh.Afresh = _Afresh
    sys.modules["peftmark.lab.afresh"] = afresh
    _real(_recipe_by_way, *arguments)


def _in_turn_saying(said, *arguments):
    """As `in_turn`, but for what it says: each message in place of the list that is given for it.

    Args:
        said: message (as JSON) -> messages.
    """
    plain = json.dumps

    def others(message, *more, **named):
        instead = said.get(plain(message))
        if instead is None:
            return plain(message, *more, **named)
        *first, last = instead
        for one in first:
            arguments[0].send_bytes(plain(one).encode())
        return plain(last)

    worker.json = types.SimpleNamespace(dumps=others, loads=json.loads)
    in_turn(*arguments)


READY, TAKES, OF_NO_JOB = {"ready": True}, {"takes": True}, {"phase": "of no job"}
talks_when_ready = partial(_in_turn_saying, {json.dumps(READY): [READY, OF_NO_JOB]})
talks_before_it_takes = partial(_in_turn_saying, {json.dumps(TAKES): [OF_NO_JOB, TAKES]})
takes_with_an_outcome = partial(_in_turn_saying, {json.dumps(TAKES): [{"outcome": "{}"}]})


def never_takes(*arguments):
    """As `in_turn`, but it waits for ever when it is given another job."""
    dumps = json.dumps

    def hang(message, *more, **named):
        if message == TAKES:
            time.sleep(FOREVER)
        return dumps(message, *more, **named)

    worker.json = types.SimpleNamespace(dumps=hang, loads=json.loads)
    in_turn(*arguments)


def tells_its_cores(connection, job_json, places_json, log, device):
    """Finish with the cores it may use."""
    Line(connection, job_json, log).finish(data_source=json.dumps(sorted(os.sched_getaffinity(0))))


def dies_once(connection, job_json, places_json, log, device):
    """Die the first time."""
    if Path(log).name.endswith(".1.log"):
        dies(connection, job_json, places_json, log, device)
    ok(connection, job_json, places_json, log, device)


def out_of_memory(connection, job_json, places_json, log, device):
    """Say that there was no memory."""
    Line(connection, job_json, log).finish(status="out_of_memory", metric_value=None)


def out_of_memory_beside_others(connection, job_json, places_json, log, device):
    """Have no memory in the first attempts of seeds 0 to 2, which are alive together, nor later
    beside another worker."""
    line = Line(connection, job_json, log)
    mine = line.log.with_suffix(".alive")
    mine.touch()
    together = line.job.seed < 3 and line.log.name.endswith(".1.log")
    if together:
        begun = line.log.parent
        line.log.with_suffix(".begun").touch()
        wait_for(lambda: len(list(begun.glob("*.begun"))) == 3)
    alive = len(list(line.log.parent.glob("*.alive")))
    mine.unlink()
    if together or alive > 1:
        line.finish(status="out_of_memory", metric_value=None)
    else:
        line.finish(steps=alive)


def crashes_on_gpu_a(connection, job_json, places_json, log, device):
    """Crash on one device, finish on others."""
    line = Line(connection, job_json, log)
    if device == "GPU-a":
        line.finish(status="crashed", status_reason="CUDA error", metric_value=None)
    else:
        line.finish(data_source=device)


def hangs_with_a_child(connection, job_json, places_json, log, device):
    """Hang beside a child that ignores everything polite."""
    line = Line(connection, job_json, log)
    child = subprocess.Popen(["sh", "-c", "trap '' TERM USR1; sleep 600"])
    line.log.with_suffix(".child").write_text(str(child.pid))
    _hang(line)


def steps_on(connection, job_json, places_json, log, device):
    """Say of 24 steps that they are done, as fast as can be."""
    _says_steps(Line(connection, job_json, log), pause=0.0)


def steps_on_slowly(connection, job_json, places_json, log, device):
    """Work for six seconds and say so four times a second; a real job does every ten steps."""
    _says_steps(Line(connection, job_json, log), pause=0.25)


def _says_steps(line, pause):
    for step in range(1, 25):
        line.send(step=step, steps=24, metric=0.5)
        time.sleep(pause)
    line.finish()


def _to_the_events(line, text):
    """Write down what a job does, whole, whoever else does."""
    events = os.open(line.log.parent / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(events, f"{line.job.seed} {text}\n".encode())
    os.close(events)


def _die_once_it_waits():
    """Die as soon as this process waits for a lock."""

    def look():
        wait_for(lambda: blocked(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, daemon=True).start()


def _met(line, device, ways):
    """Whether the job that this one is to meet has begun; others may have the device meanwhile."""
    device.pause()
    other = ways["meets"][str(line.job.seed)]
    return f"{other} begins" in (line.log.parent / "events").read_text().splitlines()


def shares(connection, job_json, places_json, log, device):
    """Use a GPU beside others as the real worker does, with a timed stretch between steps; at a
    first attempt end where the file `ways` says, or hold the stretch until another has died."""
    line = Line(connection, job_json, log)
    ways = json.loads((line.log.parent / "ways").read_text())
    way = ways.get(str(line.job.seed)) if line.log.name.endswith(".1.log") else None
    line.send(phase="train")
    if way == "dies waiting":
        line.log.with_name("number").write_text(str(os.getpid()))
        _die_once_it_waits()
    with SharedDevice.told(json.loads(places_json)) as gpu:
        _to_the_events(line, "begins")
        if way == "dies beside":
            os.kill(os.getpid(), signal.SIGKILL)
        if "meets" in ways:
            wait_for(lambda: _met(line, gpu, ways))
        if way == "dies waiting":
            wait_for(gpu._wanted)
        if gpu.timed:
            with gpu.alone():
                _to_the_events(line, "stretch")
                if way == "dies alone":
                    os.kill(os.getpid(), signal.SIGKILL)
                if way == "holds":
                    wait_for(lambda: _is_over(line))
                _to_the_events(line, "over")
        gpu.pause()
        _to_the_events(line, "ends")
    line.finish(timed_alone=gpu.timed if gpu.shared else None, data_source=device)


def _is_over(line):
    """Whether the process that wrote down its number has ended."""
    found = line.log.with_name("number")
    if not found.exists() or not (number := found.read_text()):
        return False
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def _in_team(member, lead, connection, job_json, places_json, log, device):
    """Be a job of several processes, which write their numbers into its log.

    Args:
        member: what another process does, with its link and its seat.
        lead: what the first one does, with its end of the pipe.
    """
    members.GRACE_SECONDS = 0.1  # nobody here has better words to wait for
    worker._redirect(Path(log))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begun = Path(log).with_suffix(".begun")

    def run(link, seat, its_device):
        told = threading.Thread(target=worker._leave_with_supervisor, args=(link,), daemon=True)
        told.start()
        cores = sorted(os.sched_getaffinity(0))
        print(f"process {os.getpid()}", json.dumps([seat.place, its_device, cores]), flush=True)
        wait_for(begun.exists)
        member(link, seat)

    team = members.started(json.loads(places_json), connection, run)
    line = Line(connection, job_json, log, redirect=False)
    print(f"process {os.getpid()}", flush=True)
    team.watch(lambda message: line.send(**message))
    line.send(phase="train")
    line.send(step=3, steps=120)
    begun.touch()
    lead(line)
    team.end(all_well=True)
    line.finish()


def _dies(link, seat):
    os.kill(os.getpid(), signal.SIGKILL)


def _hangs(*_):
    time.sleep(FOREVER)


def _fails(link, seat):
    link.send_bytes(Outcome("out_of_memory", "no room").to_json().encode())
    members.wait_for_end()


def _both_are_there(line):
    """The test asks for both, and a slow one is not waited for when the job is over."""
    wait_for(lambda: line.log.read_text().count("process ") == 2)


def _lead_dies(line):
    _both_are_there(line)
    os.kill(os.getpid(), signal.SIGKILL)


team_ok = partial(_in_team, lambda link, seat: None, _both_are_there)
team_member_dies = partial(_in_team, _dies, _hangs)
team_member_fails = partial(_in_team, _fails, _hangs)
team_member_leaves = partial(_in_team, lambda link, seat: os._exit(3), _hangs)
team_lead_dies = partial(_in_team, _hangs, _lead_dies)
team_hangs = partial(_in_team, _hangs, _hangs)
