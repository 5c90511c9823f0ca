"""What `make perf` says: the statistics, what is timed against what, and what it writes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy import stats

import tiny
from factory import ADALORA, LORA, make_job, make_outcome, make_record
from peftmark.core.errors import SuiteError, UserError
from peftmark.lab.data.batches import Batch
from peftmark.perf import __main__ as tool
from peftmark.perf import (
    bare,
    count,
    launch,
    launches,
    matrix,
    notebook_script,
    page,
    pairs,
    peak,
    rows,
    step,
    suites,
    trainer_script,
    trainers,
)
from peftmark.perf.figures import (
    difference_figure,
    efficiency_figure,
    extrapolate,
    median_figure,
    ratio_figure,
)
from peftmark.perf.ours import Ran
from peftmark.sources.assets import Places
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import ROOT

# --- figures ------------------------------------------------------------------------------------


def test_the_medians_interval_is_that_of_order_statistics():
    values = [5.0, 1.0, 4.0, 2.0, 6.0, 3.0]
    found = median_figure(values)
    assert (found.value, found.low, found.high, found.n) == (3.5, 1.0, 6.0, 6)  # 1 - 2/64 = 96.9 %
    few = median_figure(values[:5])  # 1 - 2/32 = 93.75 % at most
    assert (few.value, few.low, few.high) == (4.0, None, None)
    assert "too few" in few.how


def test_a_ratio_is_a_geometric_mean_with_a_t_interval_of_logarithms():
    found = ratio_figure([2.0, 8.0])
    half = 12.706204736 * math.log(4) / 2  # t(0.975, 1) s / sqrt(2), s = ln 4 / sqrt(2)
    assert found.value == pytest.approx(4.0)
    assert found.low == pytest.approx(4.0 / math.exp(half), rel=1e-6)
    assert found.high == pytest.approx(4.0 * math.exp(half), rel=1e-6)
    alone = ratio_figure([3.0])
    assert (alone.value, alone.low, alone.high) == (pytest.approx(3.0), None, None)


def test_efficiency_takes_its_interval_from_the_rates():
    found = efficiency_figure(600.0, 10.0, 2, [100.0, 60.0, 50.0])
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.3, 0.6))
    assert "peak" in found.how


def test_a_difference_has_welchs_interval_and_none_from_too_few():
    found = difference_figure([0.8, 0.9, 0.85], [0.7, 0.74])
    assert found.value == pytest.approx(0.13)
    test = stats.ttest_ind([0.8, 0.9, 0.85], [0.7, 0.74], equal_var=False)
    assert (found.low < found.value < found.high) and (found.low > 0) == (test.pvalue < 0.05)
    assert difference_figure([0.8], [0.7, 0.74]).low is None
    assert difference_figure([0.8, 0.8], [0.7, 0.7]).low is None


def test_extrapolation_is_exact_where_time_is_linear():
    # 8 s of start-up, 1 s a step, 2 s an evaluation, 1 s to leave: stopped after 40 of 80 steps.
    marks = [(20, 30.0), (40, 52.0)]
    assert extrapolate(8 + 44 + 1, marks, 80) == pytest.approx(8 + 80 + 4 * 2 + 1)
    assert extrapolate(97.0, [(20, 30.0), (80, 96.0)], 80) == 97.0, "a whole run is as measured"
    with pytest.raises(ValueError, match="two evaluations"):
        extrapolate(30.0, [(20, 30.0)], 80)


# --- the step -----------------------------------------------------------------------------------

CELLS = [("lora", "none"), ("adalora", "none"), ("lora", "nf4")]


def places_of(tmp_path, monkeypatch) -> Places:
    tiny.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


def steps():
    """Every cell in both precisions; in `make test` each in one."""
    for number, (method, quantization) in enumerate(CELLS):
        for precision in ("bf16", "fp32"):
            often = (precision == "bf16") == (number != 1)
            marks = () if often else pytest.mark.slow
            yield pytest.param(method, quantization, precision, marks=marks)


@pytest.mark.parametrize(("method", "quantization", "precision"), [*steps()])
def test_our_step_and_the_bare_loop_do_the_same_work(
    method, quantization, precision, tmp_path, monkeypatch
):
    places = places_of(tmp_path, monkeypatch)
    job = tiny.job(method, quantization, "tiny-score", steps=12, precision=precision)
    found = step.measure(job, places, 4, 2)
    assert (len(found.ours), len(found.bare), found.steps, found.losses) == (4, 4, 2, 12)
    assert 0 < found.first_ours < 4, "the order is drawn"
    assert min(found.ours) > 0 and min(found.bare) > 0 and min(found.peaks) > 0
    assert found.flops > 0


def test_other_work_is_refused(tmp_path, monkeypatch):
    places, plain = places_of(tmp_path, monkeypatch), bare.loop

    def heavier(job, *rest):
        recipe = replace(job.recipe, weight_decay=0.5)
        return plain(replace(job, recipe=recipe), *rest)

    monkeypatch.setattr(bare, "loop", heavier)
    job = tiny.job("lora", task="tiny-class", steps=12)
    with pytest.raises(UserError, match="losses of our step and of the bare loop differ"):
        step.measure(job, places, 4, 2)


def test_a_stretched_recipe_keeps_its_shares():
    job = step.job_of("adalora", 400)
    plan = job.recipe.adalora
    assert (job.recipe.steps, job.recipe.warmup_steps) == (400, 60)
    assert (plan.tinit, plan.tfinal, plan.delta_t) == (40, 120, 5)
    assert step.job_of("qlora", 80).quantization == "nf4"


def test_pairs_become_figures():
    one = {"ours": [2.2] * 6, "bare": [2.0] * 6, "steps": 4, "first_ours": 3, "losses": 32}
    found = pairs.summary({"lora": {**one, "flops": 600.0, "peaks": [100.0, 100.0]}})
    assert found["step_ratio"]["lora"]["value"] == pytest.approx(1.1)
    assert found["step_ratio"]["lora"]["bare_step_seconds"]["value"] == 0.5
    assert found["step_efficiency"]["lora"]["value"] == pytest.approx(0.5)


# --- the scripts --------------------------------------------------------------------------------


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """What the scripts are asked for, on the tiny model."""
    places = places_of(tmp_path, monkeypatch)
    job = tiny.job("lora", task="tiny-score", steps=6, eval_every=2, selection_rows=10)
    found = rows.prepare(job, places, tmp_path / "rows")
    return {**found, "seed": 0, "threads": 1, "stop_after": None}


def test_rows_are_those_of_a_job(ask):
    assert (ask["train_rows"], ask["eval_rows"], ask["steps"], ask["rank"]) == (86, 40, 6, 2)
    lines = [json.loads(line) for line in Path(ask["train"]).read_text().splitlines()]
    labels = torch.tensor([line["label"] for line in lines])
    assert len(lines) == 86, "96, less the 10 that select"
    assert float(labels.mean()) == pytest.approx(0, abs=1e-6)
    assert float(labels.std(correction=0)) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")
@pytest.mark.parametrize("kind", ["example", "tuned", "notebook"])
def test_a_script_trains_and_scores(kind, ask, capsys):
    module = notebook_script if kind == "notebook" else trainer_script
    found = module.train({**ask, "kind": kind})
    assert [at for at, _ in found["marks"]] == [2, 4, 6]
    assert len(found["curve"]) == 3 and all(-1 <= value <= 1 for value in found["curve"])
    stopped = module.train({**ask, "kind": kind, "stop_after": 4})
    assert [at for at, _ in stopped["marks"]] == [2, 4]
    assert stopped["curve"] == found["curve"][:2], "stopping early changes nothing before"
    assert found["threads"] == 1
    capsys.readouterr()


@pytest.mark.slow
def test_scripts_run_side_by_side_in_processes_of_their_own(ask, tmp_path):
    layout = trainers.Layout(2, 1)
    found = trainers.run_scripts("notebook", layout, ask, 0, None, tmp_path / "n.log")
    assert found.whole and len(found.quality) == 2
    assert found.quality[0] != found.quality[1], "two seeds"
    assert found.seconds > 0.5, "imports are in it"


def answer(*points: tuple[int, float]) -> dict[str, object]:
    return {"marks": [list(point) for point in points], "curve": [0.1] * len(points)}


def test_scripts_side_by_side_share_their_wall_time():
    marks = ((20, 10.0), (40, 20.0), (60, 30.0), (80, 40.0))
    two = trainers.script_of([(45.0, answer(*marks)), (50.0, answer(*marks))], 80)
    assert (two.seconds, two.whole, two.quality) == (25.0, True, (0.1, 0.1))
    one = trainers.script_of([(45.0, answer(*marks))], 80)
    assert one.error == pytest.approx(0), "these marks are linear"
    slower = trainers.script_of([(55.0, answer(*marks[:3], (80, 50.0)))], 80)
    assert slower.error == pytest.approx(-10 / 55)
    early = trainers.script_of([(25.0, answer(*marks[:2]))], 80)
    assert (early.seconds, early.whole, early.quality) == (45.0, False, ())


def test_a_process_that_fails_is_told_with_what_it_said(tmp_path):
    with pytest.raises(UserError, match="code 1") as raised:
        launch.python("peftmark.perf.peak", ["no JSON"], tmp_path / "p.log")
    assert "JSONDecodeError" in str(raised.value) and "p.log" in str(raised.value)


# --- our side -----------------------------------------------------------------------------------


def ran(seconds: float, *cells: tuple[tuple, float, float], **outcome: object) -> Ran:
    """A run of (cell, wall seconds, quality) jobs."""
    records = []
    for number, (cell, wall, quality) in enumerate(cells):
        job = make_job(
            method=cell.method, size=cell.size, quantization=cell.quantization, seed=number
        )
        records.append(
            make_record(
                job=job, wall_seconds=wall, outcome=make_outcome(metric_value=quality, **outcome)
            )
        )
    return Ran(seconds, tuple(records))


def test_a_matrix_costs_its_wall_time_shared_by_its_jobs():
    found = ran(60.0, (LORA, 20.0, 0.8), (ADALORA, 40.0, 0.7), (LORA, 20.0, 0.9))
    assert found.per_job == 20.0
    assert found.per_job_of("lora", "none") == pytest.approx(60 * 20 / 80)
    assert found.quality("lora", "none") == [0.8, 0.9]


@pytest.mark.parametrize("whole", [False, True])
def test_pieces_take_turns_and_padded_scripts_stop_early_after_round_one(
    whole, tmp_path, monkeypatch
):
    ask = {"steps": 80, "eval_every": 20, "train_rows": 1, "eval_rows": 1, "batch_size": 32}
    started = []

    def run_scripts(kind, layout, ask, seed, stop_after, log):
        started.append((kind, layout.at_once, seed, stop_after))
        # Two at once take least a job, which is said, but one after the other is compared.
        seconds = 60.0 / layout.at_once + 10.0 * (layout.threads == 1)
        return trainers.Script(seconds, stop_after is None, (0.8,), None)

    monkeypatch.setattr(trainers, "cores", lambda: 2)
    monkeypatch.setattr(trainers, "run_scripts", run_scripts)
    monkeypatch.setattr(trainers, "python", lambda *_: launch.Ended(1.0, ask))
    own = ran(40.0, (LORA, 20.0, 0.8), (ADALORA, 20.0, 0.7))
    monkeypatch.setattr(trainers.ours, "run", lambda *_: own)
    found = trainers.measure(tmp_path, False, 2, whole, lambda text: None)
    assert found["orders"] == [
        ["trainer", "ours", "trainer_tuned", "notebook"],
        ["ours", "trainer_tuned", "notebook", "trainer"],
    ]
    assert found["tuned_layout"] == {"at_once": 1, "threads": 2}
    assert found["tuned_layouts"] == {
        "1 at once, 1 threads": 70.0,
        "1 at once, 2 threads": 60.0,
        "2 at once, 1 threads": 40.0,
    }
    early = None if whole else 40
    assert started[3:] == [
        ("trainer", 1, 0, None),
        ("trainer_tuned", 1, 0, None),
        ("notebook", 1, 0, None),
        ("trainer_tuned", 1, 1, None),
        ("notebook", 1, 1, early),
        ("trainer", 1, 1, early),
    ]
    assert found["trainer_ratio"]["value"] == pytest.approx(1 / 3)
    assert found["trainer_tuned_ratio"]["value"] == pytest.approx(1 / 3)
    assert found["notebook_ratio"]["extrapolated_rounds"] == (0 if whole else 1)


def test_rounds_become_ratios_against_the_same_round():
    def a_round(speed: float) -> trainers.Round:
        whole = trainers.Script(40.0 * speed, True, (0.8, 0.82), 0.01)
        own = ran(60.0 * speed, (LORA, 20.0, 0.8), (ADALORA, 40.0, 0.7), (LORA, 20.0, 0.9))
        return trainers.Round(("ours",), dict.fromkeys(trainers.KINDS, whole), own)

    ask = {"train_rows": 1, "eval_rows": 1, "steps": 80, "batch_size": 32}
    found = trainers.summary([a_round(1.0), a_round(1.5), a_round(3.0)], ask)
    for kind in trainers.KINDS:
        figure = found[f"{kind}_ratio"]
        assert (figure["value"], figure["low"], figure["high"]) == pytest.approx((0.5, 0.5, 0.5))
        assert figure["lora"]["value"] == pytest.approx(15 / 40)
        assert figure["pearson_ours_less_theirs"]["value"] == pytest.approx(0.04)
    assert found["ours"]["pearson_lora"] == [0.8, 0.9], "a seed's job counts once"


# --- the matrix ---------------------------------------------------------------------------------

RATES = {"busy": [100.0, 120.0], "alone": [200.0]}


def test_efficiency_counts_training_and_every_evaluation(monkeypatch):
    monkeypatch.setattr(matrix, "cores", lambda: 2)
    run = ran(10.0, (LORA, 8.0, 0.8), (ADALORA, 6.0, 0.7), flops_per_step=3.0, steps=100)
    run = Ran(
        10.0,
        tuple(
            replace(r, outcome=replace(r.outcome, phase_seconds={"load": 1.0, "train": 4.0}))
            for r in run.records
        ),
    )
    kinds = [(str(r.job.cell), r.job.task) for r in run.records]
    counted = dict(zip(kinds, (10, 20), strict=True))  # six points of the curve each
    peaks = [{"bf16": RATES, "fp32": RATES}]
    found = matrix.summary({"bf16": run, "fp32": run}, peaks, counted)
    share = found["matrix_efficiency"]["bf16"]
    work = 2 * 300 + 6 * 30
    assert share["value"] == pytest.approx(work / (2 * 110 * 10))
    assert share["low"] == pytest.approx(work / (2 * 120 * 10))
    assert found["gemm_gflops"]["fp32"]["alone"]["value"] == pytest.approx(200e-9)
    spent = found["matrix"]["bf16"]["core_seconds"]
    assert spent == {"train": 8.0, "load": 2.0, "other in jobs": 4.0, "no job": 6.0}
    assert sum(spent.values()) == 2 * 10.0


def test_operations_that_were_not_counted_leave_no_share():
    run = ran(10.0, (LORA, 8.0, 0.8), flops_per_step=None)
    counted = {(str(run.records[0].job.cell), run.records[0].job.task): 10}
    found = matrix.summary({"bf16": run, "fp32": run}, [{"bf16": RATES, "fp32": RATES}], counted)
    assert found["matrix_efficiency"]["bf16"]["value"] is None
    assert "not counted" in found["matrix_efficiency"]["bf16"]["how"]


def test_a_base_that_was_quantised_once_is_counted_once():
    run = ran(10.0, (LORA, 8.0, 0.8), (LORA, 8.0, 0.8), phase_seconds={"quantise": 2.0})
    assert matrix.breakdown(run, 2)["quantise"] == 2.0


@pytest.mark.slow
def test_every_core_reads_its_rate():
    found = peak.rates(2, "fp32", 2)
    assert len(found) == 4 and min(found) > 1e8


def test_an_evaluations_operations_are_those_on_paper(tmp_path, monkeypatch):
    places = places_of(tmp_path, monkeypatch)
    job = tiny.job("lora", task="tiny-class", selection_rows=10)
    work = tiny.work(places, job)
    width, rank, layers, classes = 64, 2, 2, 2

    def on_paper(batch: Batch) -> int:
        count, length = batch.inputs["input_ids"].shape
        linear = 6 * (width * width + rank * 2 * width) * count * length
        attention = 2 * count * length * length * width
        head = count * (width * width + width * classes)
        return 2 * (layers * (linear + attention) + head)

    batches = [*work.eval.batches, *work.selection.batches]
    wanted = sum(on_paper(batch) for batch in batches)
    assert count.evaluation_flops(job, places) == wanted
    half = replace(job, recipe=replace(job.recipe, precision="bf16"))
    assert count.evaluation_flops(half, places) == wanted


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_quantised_base_multiplies_as_much(precision, tmp_path, monkeypatch):
    places = places_of(tmp_path, monkeypatch)
    plain = tiny.job("lora", task="tiny-class", precision=precision)
    packed = tiny.job("lora", "nf4", task="tiny-class", precision=precision)
    assert count.evaluation_flops(packed, places) == count.evaluation_flops(plain, places)


# --- suites -------------------------------------------------------------------------------------


def test_the_timed_suite_has_the_recipes_of_glue():
    def recipes(name: str) -> dict[str, object]:
        jobs = expand(load_suite(name), "offline", "cpu").jobs
        return {str(j.cell): j.recipe for j in jobs if j.task == "sts-b"}

    glue = recipes("glue")
    for cell, recipe in recipes("perf").items():
        assert replace(step.stretched(glue[cell], 80), eval_every=20) == recipe


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_copy_has_what_was_changed(precision, tmp_path):
    changes = [suites.seeds(2), suites.precision(precision)]
    folder = suites.copy_suite("glue", tmp_path / "own", *changes)
    jobs = expand(load_suite("glue", folder), "offline", "cpu").jobs
    assert {job.recipe.precision for job in jobs} == {precision}
    assert {job.seed for job in jobs} == {0, 1}
    assert len(jobs) == 6 * 4 * 2 + 1
    small = suites.copy_suite("glue", tmp_path / "small", suites.tiny("trec", 2), *changes)
    few = expand(load_suite("glue", small), "offline", "cpu").jobs
    assert {(job.task, job.recipe.steps) for job in few} == {("trec", 20)}


def test_a_copy_that_is_no_suite_is_refused(tmp_path):
    with pytest.raises(SuiteError, match="precision"):
        suites.copy_suite("glue", tmp_path / "own", suites.precision("fp7"))


# --- what is written ----------------------------------------------------------------------------


def figure(value: float | None, how: str = "made up") -> dict[str, object]:
    return {"value": value, "low": value, "high": value, "n": 3, "how": how}


def script_figure() -> dict[str, object]:
    return {**figure(4.0), "lora": figure(5.0), "pearson_ours_less_theirs": figure(-0.01)}


LAUNCHES = [
    launches.Counted("LoRA", "lora", "none", "", 1000, 500, 450, 50, 0, {}),
    launches.Counted("AdaLoRA", "adalora", "none", "final", 1500, 700, 750, 50, 2, {"to": 2}),
]
PARTS = {
    "launches": {"launches": [vars(one) for one in LAUNCHES]},
    "step": {"step_ratio": {"lora": figure(1.01)}, "step_efficiency": {"lora": figure(0.4)}},
    "trainers": {f"{kind}_ratio": script_figure() for kind in trainers.KINDS},
    "matrix": {
        "matrix_efficiency": {"bf16": figure(0.3), "fp32": figure(None, "not counted")},
        "gemm_gflops": {"bf16": {"busy": figure(400.0), "alone": figure(410.0)}},
        "matrix": {"bf16": {"core_seconds": {"train": 3.0, "no job": 1.0}}},
    },
}


@pytest.fixture
def stand(tmp_path, monkeypatch):
    """A folder to run the tool in, with parts that measure nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    tables = "\n\n".join("\nold\n".join(page.marks(name)) for name in ("perf", "launches"))
    text = f"# Performance\n\nbefore\n\n{tables}\n\nafter\n"
    (tmp_path / tool.PAGE).write_text(text)
    monkeypatch.setattr(tool, "_measure", lambda part, *_: PARTS[part])
    monkeypatch.setattr(tool.os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    monkeypatch.setattr(tool, "capture", lambda: environment([]))
    return tmp_path


def environment(gpus: list[str]):
    from factory import make_environment

    return make_environment(machine={"cpu": "Example CPU", "cores": 2, "gpus": gpus})


def test_a_whole_run_writes_json_and_the_pages_table(stand, capsys):
    assert tool.main([]) == 0
    found = json.loads((stand / tool.WHOLE).read_text())
    keys = {"step_ratio", "trainer_ratio", "trainer_tuned_ratio", "notebook_ratio"}
    keys |= {"matrix_efficiency", "gemm_gflops", "machine", "versions", "date", "counts"}
    assert keys <= set(found)
    assert found["load_at_start"] == 1.5 and "disturb" in found["load_note"]
    text = (stand / tool.PAGE).read_text()
    assert text.startswith("# Performance\n\nbefore\n") and text.endswith("\nafter\n")
    assert "old" not in text
    assert "| training step, LoRA: ours over a bare loop | 1.010 | 1.010 to 1.010 | " in text
    assert "| pairs with equal losses: 3 |" in text
    assert "| −0.010 | −0.010 to −0.010 |" in text
    assert "| not measured | not counted |" in text
    assert "| train | 75.0% |" in text
    assert "| AdaLoRA | final | 1,500 | 700 | 750 | 50 | 1.50 | 2 |" in text
    printed = capsys.readouterr().out
    assert "load 1.50" in printed and "others disturb" in printed


def test_a_part_or_a_quick_run_leaves_the_measured_table_alone(stand, capsys):
    assert tool.main(["--only", "step"]) == 0
    assert (stand / tool.PAGE).read_text().count("old") == 2
    found = json.loads((stand / tool.PARTIAL).read_text())
    assert found["step_ratio"] and found["trainer_ratio"] is None and found["gemm_gflops"] is None
    assert tool.main(["--quick"]) == 0
    assert json.loads((stand / tool.PARTIAL).read_text())["quick"] is True
    assert "old" in (stand / tool.PAGE).read_text()
    assert not (stand / tool.WHOLE).exists()
    assert "perf-partial.json" in capsys.readouterr().out


def test_counts_of_operations_are_written_to_the_page_by_themselves(stand, capsys):
    assert tool.main(["--only", "launches"]) == 0
    text = (stand / tool.PAGE).read_text()
    assert "| LoRA | any | 1,000 | 500 | 450 | 50 | 1.00 | 0 |" in text
    assert text.count("old") == 1  # the measured table stays
    printed = capsys.readouterr().out
    assert "| AdaLoRA | final | 1,500 |" in printed and "interval" not in printed


def test_a_machine_with_a_gpu_is_refused(stand, monkeypatch, capsys):
    monkeypatch.setattr(tool, "capture", lambda: environment(["Example GPU"]))
    assert tool.main([]) == 2
    assert "Example GPU" in capsys.readouterr().err
    assert not (stand / "results").exists()


def test_a_page_without_markers_is_refused(tmp_path):
    (tmp_path / "p.md").write_text("nothing\n")
    with pytest.raises(UserError, match="markers"):
        page.write_table(tmp_path / "p.md", {})


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--only", "all"], ["--pairs", "x"]])
def test_an_option_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(SystemExit) as left:
        tool.parse(wrong)
    assert left.value.code == 2


def test_quick_is_small():
    quick, whole = tool.parse(["--quick"]), tool.parse([])
    assert (quick.rounds, quick.pairs, quick.steps) == (1, 6, 2)
    assert (whole.rounds, whole.pairs, whole.steps, whole.seeds) == (3, 16, 10, 1)
    assert tool.parse(["--quick", "--pairs", "9"]).pairs == 9


def test_the_shipped_page_has_its_markers():
    text = (ROOT / tool.PAGE).read_text(encoding="utf-8")
    for mark in (*page.marks("perf"), *page.marks("launches")):
        assert text.count(mark) == 1
