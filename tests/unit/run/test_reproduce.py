"""`peftmark reproduce`: published rows run again by fake workers; an exit code a verdict."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from factory import make_failure, make_job, make_record
from peftmark.analysis.reproduction import Reproduced
from peftmark.cli import parser
from peftmark.cli.reproduce import verdict_line
from peftmark.core.errors import Exit, UserError
from peftmark.executors import local
from peftmark.executors.contract import Finished
from peftmark.executors.select import on_cpu
from peftmark.machine.environment import capture
from peftmark.record.outcome import Outcome
from peftmark.run import reproduce, runner
from peftmark.run.reproduce import Asked, choose
from peftmark.run.runner import Selection
from peftmark.run.stop import Stop
from peftmark.storage.parquet import parquet_bytes, row_groups
from peftmark.storage.store import Store
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from small_suite import ONE_METHOD, write

pytestmark = pytest.mark.heavy

FIVE = ONE_METHOD.replace("[0, 1, 2]", "[0, 1, 2, 3, 4]").replace("rank: [8]", "rank: [8, 16]")
TRIALS = FIVE.replace("tasks:", "tuning: {seeds: [9], around: [1, 2]}, tasks:")


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty folder to work in with a suite of two cells and five seeds, without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "suites", FIVE)
    return tmp_path


def score_of(job):
    """What the fake worker scores: of the rates tried, 0.002 is the best."""
    return 0.5 - abs(job.recipe.learning_rate - 0.002) if job.purpose == "tuning" else 0.5


def at_once(order, slots, jobs_per_process):
    """Every job as the fake worker ends it, without a process."""
    for job, attempt in order.jobs:
        outcome = Outcome("ok", metric_value=score_of(job), steps=job.recipe.steps)
        then = "2030-01-01T00:00:00Z"
        yield Finished(job, attempt, outcome, then, then, 1.0, None, None, "no GPU")


@pytest.fixture
def reproduced(empty, monkeypatch, capfd):
    """Reproduce rows of that suite: exit code and what was said. Jobs end at once, or as a fake
    worker that is named ends them."""
    execute = runner.execute
    monkeypatch.setattr(runner, "fetch", lambda plan: {})

    def run(*words, worker=""):
        with monkeypatch.context() as patch:
            if worker:
                patch.setattr(runner, "execute", partial(execute, worker=f"fake_worker:{worker}"))
            else:
                patch.setattr(local, "run_jobs", at_once)
            with pytest.raises(SystemExit) as left:
                parser.main(["reproduce", "demo", "--suites", "suites", *words])
        said = capfd.readouterr()
        return SimpleNamespace(code=left.value.code, out=said.out, err=said.err)

    return run


def jobs(purpose="report", records=None):
    plan = expand(load_suite("demo", Path("suites")), "quick", "cpu", records or {}).jobs
    return [job for job in plan if job.purpose == purpose]


def rows(score=score_of, environment=None, purpose="report", **changes):
    """What the fake worker makes of every job, as somebody may have published it; the first of a
    cell took least time."""
    made = environment or capture()
    return [
        make_record(
            job=job,
            outcome=Outcome("ok", metric_value=score(job), steps=job.recipe.steps, **changes),
            environment=made,
            wall_seconds=10.0 + job.seed,
        )
        for job in jobs(purpose)
    ]


def publish(records, suite="demo", results=Path("results")):
    """Put rows where those that come with the project are."""
    file = results / "published" / suite / "rows.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(parquet_bytes(row_groups(records)))
    return file


def elsewhere():
    here = capture()
    return replace(here, machine={**here.machine, "cpu": "Another CPU"})


def other_code():
    here = capture()
    return replace(here, sources={**here.sources, "peftmark": "0" * 16})


def verdicts(done):
    return [row["verdict"] for row in json.loads(done.out)["rows"]]


# --- verdicts and exit codes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "worker"), [(None, ""), (elsewhere, ""), (other_code, ""), (None, "ok")]
)
def test_the_same_bits_are_identical_and_nothing_of_the_users_is_touched(reproduced, where, worker):
    file = publish(rows(environment=where and where()))
    before = hashlib.sha256(file.read_bytes()).digest()
    mine = Store(Path("results"), "demo")
    with mine.lock():
        mine.append(rows()[0])
    parts = sorted(mine.folder.rglob("*"))
    done = reproduced("--json", worker=worker)
    told = json.loads(done.out)
    assert done.code == 0 and verdicts(done) == ["identical", "identical"]
    assert told["sentence"] == "Reproduced (exit code 0): 2 identical."
    assert len({row["title"] for row in told["rows"]}) == 2
    assert told["rows"][0]["elsewhere"] == (
        ["made on other machines: cpu Another CPU -> " + capture().machine["cpu"]]
        if where is elsewhere
        else []
    )
    # Both lie in a folder of their own; the user's, and what was published, are as they were.
    assert len(Store(Path("results/reproduced"), "demo").read().records) == 2
    assert sorted(mine.folder.rglob("*")) == parts
    assert hashlib.sha256(file.read_bytes()).digest() == before


@pytest.mark.parametrize(("where", "code"), [(None, 7), (other_code, 9)])
def test_other_bits_in_the_same_place_fail_by_whose_code_they_are(reproduced, where, code):
    publish(rows(environment=where and where(), metrics={"accuracy": 0.5}))
    done = reproduced("--sample", "1", "--json")
    assert (done.code, verdicts(done)) == (code, ["differs"])
    [row] = json.loads(done.out)["rows"]
    assert row["detail"] == "metrics: {'accuracy': 0.5} and {}"
    assert row["low"] is None


@pytest.mark.parametrize(("mean", "verdict", "code"), [(0.5, "within", 0), (0.7, "differs", 3)])
def test_on_another_machine_the_score_must_lie_where_one_more_seed_would(
    reproduced, mean, verdict, code
):
    publish(rows(lambda job: mean + 0.01 * job.seed, elsewhere(), metrics={"accuracy": 0.5}))
    done = reproduced("--sample", "1", "--json")
    assert (done.code, verdicts(done)) == (code, [verdict])
    [row] = json.loads(done.out)["rows"]
    assert row["seeds"] == 4
    assert (row["low"] <= 0.5 <= row["high"]) == (verdict == "within")
    said = reproduced("--sample", "1").out
    assert f"{verdict}: LoRA r" in said and "(4 other seeds)" in said and "Another CPU" in said
    assert ("Not reproduced" in said) == (verdict == "differs")


def test_too_few_published_seeds_are_undecided_and_pass_for_nothing(reproduced):
    few = rows(lambda job: 0.5 + 0.01 * job.seed, elsewhere(), metrics={"accuracy": 0.5})
    publish([row for row in few if row.job.seed < 3])
    done = reproduced()
    assert done.code == 4
    assert "2 published runs of other seeds; an interval needs 3" in done.out
    assert "Not reproduced (exit code 4): 2 undecided." in done.out


def test_a_job_that_fails_is_not_reproduced(reproduced):
    publish(rows())
    done = reproduced("--sample", "1", "--json", worker="exits")
    assert (done.code, verdicts(done)) == (6, ["not run"])
    assert json.loads(done.out)["rows"][0]["detail"].startswith("it ended as crashed")


def test_of_several_rows_the_worst_decides(reproduced):
    good, bad = rows(), rows(metrics={"accuracy": 0.5})
    publish([b if b.job.size == 8 else g for g, b in zip(good, bad, strict=True)])
    done = reproduced("--json")
    assert (done.code, sorted(verdicts(done))) == (7, ["differs", "identical"])


def test_a_run_that_is_stopped_passes_for_nothing(reproduced, monkeypatch):
    publish(rows())
    monkeypatch.setattr(Stop, "asked", lambda self: True)
    monkeypatch.setattr(Stop, "code", Exit.TERMINATED)
    done = reproduced("--json")
    assert (done.code, verdicts(done)) == (143, ["not run", "not run"])
    assert "what had not run was not checked" in done.err
    assert not Path("results/reproduced").exists()


def test_nothing_reproduced_is_no_success():
    assert reproduce.code_of([]) == Exit.INCOMPLETE


# --- which rows -----------------------------------------------------------------------------------


def test_it_is_told_beforehand_what_runs_and_how_long_that_takes(reproduced, monkeypatch):
    publish(rows())
    done = reproduced("--sample", "1")
    assert "1 published row of results/published/demo/rows.parquet to run again:" in done.out
    assert "(job " in done.out and "took 0:10 when it was published" in done.out
    monkeypatch.setattr(
        reproduce, "_predicted", lambda plan: {job.job_id: 75.0 for job in plan.jobs}
    )
    done = reproduced("--sample", "1")
    assert ": 1:15 predicted here, took 0:10 when it was published" in done.out


def test_a_job_is_chosen_by_its_id_and_leaves_the_command_that_runs_it(reproduced):
    publish(rows())
    wanted = jobs()[7].job_id
    done = reproduced("--job", wanted, "--json")
    told = json.loads(done.out)
    assert (done.code, [row["job"] for row in told["rows"]]) == (0, [wanted])
    [row] = Store(Path("results/reproduced"), "demo").read().records.values()
    assert row.command == f"peftmark reproduce demo --job {wanted} --suites suites"
    # A second time it runs anew: an earlier row proves nothing of today.
    assert reproduced("--job", wanted, worker="exits").code == 6


def test_a_command_names_a_results_folder_other_than_the_usual(empty):
    job = jobs()[0]
    chosen = Asked("demo", results=Path("far")).selection
    words = f"peftmark reproduce demo --job {job.job_id} --results far"
    assert runner.command(job, chosen) == words
    assert runner.command(job, Selection("demo")).startswith("peftmark run demo --profile quick")


def test_without_published_rows_it_says_which_suites_have_some(reproduced):
    done = reproduced("--results", "mine")
    assert done.code == 2
    assert "no published rows of suite demo" in done.err
    assert "mine/published has none of any suite" in done.err
    assert (
        "Suites with published rows: adalora-settings, adalora-tuned, glue, " in reproduced().err
    ), "those installed"
    publish(rows(), "smoke")
    publish(rows(), "glue")
    assert "Suites with published rows: glue, smoke." in reproduced().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--job", "no-such"], "has no row of job no-such"),
        (["--job", "no-such", "--sample", "1"], "--sample says nothing beside --job"),
        (["--sample", "0"], "a whole number from 1"),
    ],
)
def test_bad_input_is_one_message(reproduced, words, told):
    publish(rows())
    done = reproduced(*words)
    assert done.code == 2 and told in done.err
    assert not Path("results/reproduced").exists()


def test_damaged_rows_are_refused(reproduced):
    file = publish(rows())
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    done = reproduced()
    assert done.code == 2 and "is damaged" in done.err
    assert not Path("results/reproduced").exists()


def test_one_damaged_row_among_good_ones_is_refused(reproduced):
    file = publish(rows())
    [group] = row_groups(rows())
    group[4]["config"] = group[4]["config"].replace('"seed":', '"seat":')
    file.write_bytes(parquet_bytes([group]))
    done = reproduced()
    assert done.code == 2 and "rows.parquet, row 5: " in done.err and "1 damaged in all" in done.err
    assert not Path("results/reproduced").exists()


def changed(**changes):
    return [replace(row, job=replace(row.job, **changes)) for row in rows()]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"protocol": 1}, "made by protocol 1, and this peftmark has 2"),
        ({"stored_id": "0123456789abcdef"}, "of a configuration that peftmark wrote in schema"),
        ({"method": "gone"}, "there is no method gone here"),
        ({"quantization": "gone"}, "there is no quantization gone here"),
        ({"model": "gone"}, "there is no model or task gone here"),
        ({"task": "gone"}, "there is no model or task gone here"),
        ({"model_identity": "0" * 64}, "of other weights of model minilm-l6"),
        ({"data_fingerprint": "0" * 64}, "of other rows, or another metric, of task trec"),
        ({"task_version": 9}, "of other rows, or another metric, of task trec"),
        ({"device": "cuda"}, "it needs a GPU"),
    ],
)
def test_rows_whose_job_is_none_here_are_not_comparable(empty, monkeypatch, changes, told):
    # What a file holds is read as it is; rows of such jobs can't all be written here.
    held = changed(**changes)
    good = rows()[5:6]

    def reading(file):
        return SimpleNamespace(
            records={row.job.job_id: row for row in (*held[:3], *there)},
            rows=(),
            damaged={},
            older={},
        )

    there: list = []
    publish(good)
    monkeypatch.setattr(reproduce, "read_rows_file", reading)
    asked = Asked("demo", suites=Path("suites"))
    with pytest.raises(UserError) as caught:
        choose(asked)
    assert caught.value.code == Exit.NOT_COMPARABLE and told in caught.value.what
    named = replace(asked, only=(held[0].job.job_id,))
    with pytest.raises(UserError) as caught:
        choose(named)
    assert caught.value.code == Exit.NOT_COMPARABLE and told in caught.value.what
    # Beside them one that can be run is run, and they are told.
    there += good
    found = choose(asked)
    assert [row.job for row in found.rows] == [good[0].job]
    assert [told in why for why in found.left_out] == [True]
    assert sum(found.left_out.values()) == len({row.job.job_id for row in held[:3]})


def test_a_published_row_that_failed_is_not_run_again(reproduced):
    failed = [replace(row, outcome=make_failure()) for row in rows()]
    publish(failed)
    done = reproduced()
    assert done.code == 5
    assert "none of its 10 rows can be run again here" in done.err
    assert "the published run ended as out_of_memory (10)" in done.err


@pytest.mark.parametrize(
    ("suite", "told"),
    [
        (FIVE.replace("version: 1", "version: 2"), "of version 1 of suite demo, which is at 2"),
        (FIVE.replace("1e-3", "2e-3"), "another recipe than quick has today"),
        (FIVE.replace("quick:", "quicker:"), "suite demo has no profile quick today"),
    ],
)
def test_rows_of_another_state_of_the_suite_are_told_and_run_as_they_are(reproduced, suite, told):
    published = rows()
    publish(published)
    write(Path("suites"), suite)
    done = reproduced("--json")
    assert (done.code, verdicts(done)) == (0, ["identical", "identical"])
    assert json.loads(done.out)["notes"] == [f"2 of the jobs: {told}; it is run as its row has it"]
    stored = Store(Path("results/reproduced"), "demo").read().records
    assert all(r.job in [row.job for row in published] for r in stored.values())


def test_where_trials_are_all_that_is_published_trials_are_run(reproduced):
    write(Path("suites"), TRIALS)
    trials = rows(purpose="tuning")
    publish(trials)
    done = reproduced("--json")
    told = json.loads(done.out)
    assert (done.code, verdicts(done)) == (0, ["identical", "identical"])
    assert {row["purpose"] for row in told["rows"]} == {"tuning"} and not told["notes"]
    assert ", trial at 0.00" in told["rows"][0]["title"]


def test_jobs_whose_rates_published_trials_chose_are_those_of_the_suite(reproduced):
    write(Path("suites"), TRIALS)
    trials = rows(purpose="tuning")
    chose = jobs(records={row.job.job_id: row for row in trials})
    assert {job.recipe.learning_rate for job in chose} == {0.002}
    reported = [
        make_record(
            job=job,
            outcome=Outcome("ok", metric_value=0.5, steps=job.recipe.steps),
            environment=capture(),
        )
        for job in chose
    ]
    publish([*trials, *reported])
    told = json.loads(reproduced("--json").out)
    assert [row["verdict"] for row in told["rows"]] == ["identical", "identical"]
    assert {row["purpose"] for row in told["rows"]} == {"report"} and not told["notes"]


def test_a_row_of_this_kind_of_machine_is_held_to_before_one_of_another(empty):
    there = elsewhere()
    later = [replace(r, finished_at="2031-01-01T00:00:00Z", attempt=2) for r in rows()]
    publish([*rows(), *(replace(row, environment=there) for row in later)])
    found = choose(Asked("demo", suites=Path("suites")))
    assert {row.environment.machine["cpu"] for row in found.rows} == {capture().machine["cpu"]}


def test_a_row_of_a_processor_runs_on_the_processor_where_there_is_a_gpu(empty, monkeypatch):
    publish(rows())
    made = runner.make_plan
    monkeypatch.setattr(
        runner,
        "make_plan",
        lambda asked: replace(p := made(asked), venue=replace(p.venue, device="cuda", gpus=1)),
    )
    [plan] = choose(Asked("demo", suites=Path("suites"), jobs=1)).plans
    assert (plan.venue.device, plan.venue.at_once) == ("cpu", 1)
    assert [slot.device for slot in on_cpu(1).slots] == [None]


def test_no_suite_has_the_name_of_its_folder():
    with pytest.raises(UserError, match="no suite can be named 'reproduced'"):
        load_suite("reproduced")


def test_a_metric_is_named_by_its_title():
    job = make_job(metric="matthews_correlation")
    row = make_record(job=job, outcome=Outcome("ok", metric_value=0.5, steps=1))
    told = verdict_line(Reproduced("identical", row, row))
    assert told.endswith(": MCC 0.500 here, 0.500 published")
