"""Jobs through submitit, with its stand-in for Slurm on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter

import psutil
import pytest

from factory import make_job
from peftmark.cli import parser
from peftmark.core.errors import UserError
from peftmark.executors import slurm
from peftmark.executors.contract import Order
from peftmark.executors.slurm import Settings, settings
from peftmark.record.kept import NOTES, Kept
from peftmark.sources.assets import Places
from places import SOURCE, SUPPORT
from waiting import wait_for

pytestmark = pytest.mark.heavy


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """The folder where workers note that they ran."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    from submitit.core.core import Job

    monkeypatch.setattr(Job, "_results_timeout_s", 0)  # no shared file system to wait for
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), str(SOURCE)]))
    monkeypatch.setenv("CLUSTER_NOTES", str(tmp_path / "notes"))
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture
def run(tmp_path, notes):
    def start(worker, seeds, minutes=60, **changes):
        order = Order(
            jobs=[(make_job(seed=seed), 1) for seed in seeds],
            places=Places(None, ("package",), tmp_path / "cache"),
            logs=tmp_path / "logs",
            worker=f"cluster_worker:{worker}",
            **changes,
        )
        return list(slurm.run_jobs(order, Settings("local", minutes), "cpu", at_once=2))

    return start


def begun(notes):
    return [tuple(map(int, path.name.split(".")[:2])) for path in notes.glob("*.begun")]


def ends(finished):
    return Counter((f.job.seed, f.attempt, f.outcome.status, f.again) for f in finished)


def test_what_jobs_leave_to_be_kept_comes_home(tmp_path, notes):
    job = make_job()
    order = Order(
        jobs=[(job, 1)],
        places=Places(None, ("package",), tmp_path / "cache"),
        logs=tmp_path / "logs",
        worker="fake_worker:leaves",
        outbox=tmp_path / "outbox",
        keep=frozenset([job.job_id]),
    )
    [done] = slurm.run_jobs(order, Settings("local", 60), "cpu", at_once=1)
    assert (done.outcome.status, done.outcome.warnings) == ("ok", ())
    [left] = (tmp_path / "outbox").iterdir()
    assert left == order.leaves(job, 1)
    assert Kept.from_json((left / NOTES).read_text()).job == job


# --- what --slurm takes -------------------------------------------------------------------------


def test_settings_are_read_and_split_from_what_is_ours(monkeypatch):
    monkeypatch.setattr(slurm.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert settings("partition=gpu,time=60,gpus_per_node=2") == Settings(
        "slurm", 60, {"partition": "gpu", "gpus_per_node": 2}
    )
    assert settings("time=5,exclusive=true").others == {"exclusive": True}
    assert settings("time=5,exclusive=user").others == {"exclusive": "user"}
    assert settings("cluster=local") == Settings("local", 24 * 60, {})


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        ("", "--slurm sets no time limit, and submitit's own is 5 minutes", "time=MINUTES"),
        ("partition", "--slurm: found 'partition'", "key=value"),
        ("nodes=2,time=5", "--slurm: found 'nodes=2'", "account, comment"),
        ("time=soon", "--slurm: found 'time=soon'", "whole number"),
        ("time=0", "--slurm: found 'time=0'", "whole number"),
        ("time=5,time=6", "--slurm: found 'time=6', a second time", "once"),
        ("cluster=debug", "--slurm: found cluster=debug", "slurm and local"),
        ("cluster=local,mem=4G", "--slurm: cluster=local has no use for mem", "all but time"),
        ("comment=a\n#SBATCH --x,time=5", "--slurm: found 'comment=a\\n#SBATCH --x'", "printed"),
        ("comment=a\u2028b,time=5", "--slurm: found 'comment=a\\u2028b'", "printed"),
        ("cluster=\x1b[2J", "--slurm: found 'cluster=\\x1b[2J'", "printed"),
        ("time=5", "there is no Slurm here: no command srun", "sbatch"),
    ],
)
def test_what_slurm_does_not_take_is_one_message(monkeypatch, text, what, remedy):
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None)
    with pytest.raises(UserError) as caught:
        settings(text)
    assert caught.value.what == what
    assert remedy in caught.value.remedy


def test_every_key_is_one_that_submitit_knows():
    pytest.importorskip("submitit", reason="submitit is not installed")
    from submitit.slurm.slurm import SlurmExecutor

    assert set(slurm.KEYS) <= SlurmExecutor._valid_parameters()


def test_without_submitit_one_message_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit) as caught:
        parser.main(["run", "smoke", "--executor", "slurm", "--slurm", "cluster=local"])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("peftmark: --executor slurm needs submitit, which can't be loaded: ")
    assert told.endswith('Install it: pip install "peftmark[slurm]"\n')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("state", "message", "status", "outside"),
    [
        ("TIMEOUT", "no output", "timed_out", ""),
        ("OUT_OF_MEMORY", "no output", "out_of_memory", ""),
        ("NODE_FAIL", "no output", "crashed", "its Slurm job ended as NODE_FAIL"),
        ("CANCELLED by 1000", "no output", "crashed", ""),
        ("", "", "crashed", ""),
    ],
)
def test_a_job_without_answer_ends_as_slurm_says(state, message, status, outside):
    lost = slurm._lost(state, message)
    assert (lost.outcome.status, lost.outside) == (status, outside)


# --- on this machine ----------------------------------------------------------------------------


@pytest.mark.slow
def test_jobs_run_and_leave_their_logs_and_nothing_of_submitit(run, tmp_path):
    told = []
    finished = run("works", range(3), listener=lambda job, m: told.append((job.seed, m["phase"])))
    assert ends(finished) == {(seed, 1, "ok", ""): 1 for seed in range(3)}
    for seed in range(3):
        assert [phase for s, phase in told if s == seed] == ["queued", "start", "end"]
        log = tmp_path / "logs" / f"{make_job(seed=seed).job_id}.1.log"
        assert log.read_bytes() == b"worked on a node\n"
    assert not list((tmp_path / "logs" / "submitit").iterdir())


@pytest.mark.slow
def test_a_worker_killed_on_its_node_is_tried_again_by_us(run):
    assert ends(run("is_killed_once", (0,))) == {
        (0, 1, "crashed", "its worker was killed"): 1,
        (0, 2, "ok", ""): 1,
    }


def submitted(pid):
    """The process that submitit started for a worker: not the worker's, which a server forks."""
    return next(
        parent
        for parent in psutil.Process(pid).parents()
        if any("submitit.core._submit" in word for word in parent.cmdline())
    )


@pytest.mark.slow
def test_a_slurm_job_killed_whole_leaves_an_ending_and_its_worker_goes(run, notes):
    def kill():
        (_, pid) = wait_for(lambda: begun(notes))[0]
        submitted(pid).kill()

    killer = threading.Thread(target=kill)
    killer.start()
    (done,) = run("hangs", (0,), retries=0)
    killer.join()
    assert done.outcome.status == "crashed"
    assert done.outcome.status_reason.startswith("lost by Slurm in state FINISHED: ")
    wait_for(lambda: not any(psutil.pid_exists(pid) for _, pid in begun(notes)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("minutes", "status", "times"), [(60, "ok", 2), (1, "timed_out", 1)]
)  # to submitit the signal means preemption, or near the end of its time that this is over
def test_a_preempted_job_is_queued_again_from_scratch(run, notes, minutes, status, times):
    def signal_it():
        (_, pid) = wait_for(lambda: begun(notes))[0]
        os.kill(submitted(pid).pid, signal.SIGUSR2)

    killer = threading.Thread(target=signal_it)
    killer.start()
    (done,) = run("hangs_at_first", (0,), minutes=minutes)
    killer.join()
    assert (done.attempt, done.outcome.status, done.again) == (1, status, "")
    assert len(begun(notes)) == times


@pytest.mark.slow
def test_stopping_interrupts_what_runs_and_starts_no_more(run, notes):
    finished = run("hangs", range(4), stop=lambda: len(begun(notes)) == 2)
    assert ends(finished) == {(seed, 1, "interrupted", ""): 1 for seed in (0, 1)}
    assert {seed for seed, _ in begun(notes)} == {0, 1}
    wait_for(lambda: not any(psutil.pid_exists(pid) for _, pid in begun(notes)))


def test_a_folder_that_would_be_lines_of_its_own_in_the_script_is_refused(tmp_path, notes):
    order = Order(
        jobs=[(make_job(), 1)],
        places=Places(None, ("package",), tmp_path / "cache"),
        logs=tmp_path / "a\n#SBATCH --x" / "logs",
        worker="cluster_worker:works",
    )
    with pytest.raises(UserError, match="--results: Slurm can't write to "):
        list(slurm.run_jobs(order, Settings("local", 60), "cpu", at_once=1))
    assert not order.logs.exists()


# --- through commands that stand in for Slurm's -------------------------------------------------

OF_AN_ALLOCATION = ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_MEM_PER_NODE", "SBATCH_GRES", "RANK")
SBATCH = """#!{python}
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
with open({seen!r}, "a") as seen:
    seen.write(text)
if set(os.environ) & set({allocation!r}) or os.environ["SLURM_CONF"] != "/etc/slurm/other.conf":
    open({seen!r}.removesuffix("seen") + "inherited", "w").close()
tasks = re.search(r"--array=0-(\\d+)", text)
number = str(os.getpid())
for task in range(int(tasks[1]) + 1) if tasks else [None]:
    extra = {{"SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1",
             "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}}
    if tasks:
        extra |= {{"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(task)}}
    subprocess.Popen(["bash", sys.argv[1]], env={{**os.environ, **extra}},
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job " + number)
"""
SRUN = """#!{python}
import os, sys
command = sys.argv[sys.argv.index({python!r}):]
os.execv(command[0], command)
"""
SACCT = """#!{python}
import sys
print("JobID|State|NodeList")
for name in [b for a, b in zip(sys.argv, sys.argv[1:]) if a == "-j"]:
    print(name + "|RUNNING|here")
"""


def test_jobs_go_through_sbatch_as_an_array_and_singly(tmp_path, notes, monkeypatch):
    seen, commands = tmp_path / "seen", tmp_path / "bin"
    told_to = {"python": sys.executable, "seen": str(seen), "allocation": OF_AN_ALLOCATION}
    commands.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        (commands / name).write_text(text.format(**told_to))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    for name in OF_AN_ALLOCATION:
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/other.conf")
    jobs = [(make_job(seed=seed), 1) for seed in range(3)]
    order = Order(
        jobs,
        Places(None, ("package",), tmp_path / "cache"),
        tmp_path / "logs",
        worker="cluster_worker:works",
    )
    given = settings("partition=short,time=7,exclusive=true")
    assert ends(slurm.run_jobs(order, given, "cuda", at_once=2)) == {
        (seed, 1, "ok", ""): 1 for seed in range(3)
    }
    told = seen.read_text().splitlines()
    assert not (tmp_path / "inherited").exists()
    wanted = ["partition=short", "time=7", "exclusive", "gpus-per-node=1", "job-name=peftmark"]
    for option in wanted:
        assert told.count(f"#SBATCH --{option}") == 2, option
    assert sum("--array=0-1" in line for line in told) == 1, "two as an array, then one"
