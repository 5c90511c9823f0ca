"""Recommendations from made-up rows: what fits, what doesn't, and what isn't known."""

import json
import random
from dataclasses import replace

import pytest

from factory import (
    ADALORA,
    FULL,
    HEAD,
    LORA,
    QLORA,
    make_environment,
    make_failure,
    make_matrix,
    make_recipe,
    make_repeat,
)
from peftmark.advice import answer as advice
from peftmark.advice.candidates import POINT, Wish, candidate
from peftmark.advice.recommend import recommend, recommend_all
from peftmark.catalog.methods import Cell
from peftmark.core import amounts
from peftmark.core.errors import UserError
from peftmark.storage.store import Store

LORA16 = Cell("lora", 16, "none")
CELLS = (FULL, LORA, LORA16, QLORA, ADALORA, HEAD)
TASKS = ("sst-2", "sts-b")
SEEDS = tuple(range(5))


def rows(cells=CELLS, tasks=TASKS, seeds=SEEDS, **changes):
    return make_matrix(cells, tasks, seeds, **changes)


def table_of(records):
    (found,), _ = advice.tables_of(records)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_verdicts_do_not_hang_on_the_order_of_the_rows(seed):
    records = rows((QLORA, LORA16, LORA, ADALORA, Cell("lora", 4, "none", "frozen A")))
    random.Random(seed).shuffle(records)
    assert table_of(records).reference == LORA
    assert table_of([r for r in records if r.job.method != "lora"]).reference == ADALORA


def ask(records=None, **wish):
    return recommend(table_of(rows() if records is None else records), Wish(**wish))


def changed(records, cell, **outcome):
    return [
        replace(r, outcome=replace(r.outcome, **outcome)) if r.job.cell == cell else r
        for r in records
    ]


def shifted(records, **points):
    """Rows whose scores are a level, a little noise by seed, and some points by method."""
    found = []
    for r in records:
        gain = points.get(f"{r.job.method}_{r.job.quantization}", 0.0)
        noise = random.Random(f"{r.job.cell} {r.job.task} {r.job.seed}").gauss(0, 0.0004)
        score = 0.8 + 0.01 * r.job.seed + gain * POINT + noise
        outcome = replace(r.outcome, metric_value=score)
        found.append(replace(r, outcome=outcome))
    return found


def titles(candidates):
    return [c.title for c in candidates]


# --- constraints decide ------------------------------------------------------------------------


def three():
    cells = (FULL, LORA, QLORA, HEAD)
    return shifted(rows(cells), full_none=0.0, lora_none=-0.3, lora_nf4=-0.6, head_none=-0.8)


def test_three_constraints_have_three_answers():
    records = three()
    assert ask(records, max_drop=1.0, least="memory").picks[0].cell == QLORA
    assert ask(records, max_drop=1.0, least="time").picks[0].cell == HEAD
    assert ask(records, max_drop=0.45, least="parameters").picks[0].cell == LORA
    for answer in (ask(records, max_drop=1.0), ask(records, max_drop=0.45)):
        assert answer.verdict == "fits" and answer.best == FULL


def test_a_limit_rules_out_what_is_over_it():
    answer = ask(three(), memory=450 * 2**20)
    assert set(titles(answer.picks)) <= {"QLoRA r8", "head only"}
    over = {c.title: c.over for c in answer.others if c.over}
    assert over == {
        "LoRA r8": ("peak memory 520 MiB on its largest task",),
        "full fine-tuning": ("peak memory 910 MiB on its largest task",),
    }
    exact = ask(three(), memory=520 * 2**20)
    assert "LoRA r8" in titles(exact.picks)  # at most the limit


def test_the_limit_decides_what_is_least():
    assert Wish().cost.key == "memory"
    assert Wish(seconds=5.0).cost.key == "time"
    assert Wish(parameters=10, seconds=5.0).cost.key == "time"
    assert Wish(parameters=10).cost.key == "parameters"
    assert Wish(parameters=10, least="memory").cost.key == "memory"


def test_without_a_drop_the_front_is_listed_from_the_highest_score_down():
    answer = ask(three())
    assert titles(answer.picks) == ["full fine-tuning", "LoRA r8", "QLoRA r8"]
    (beaten,) = answer.others
    assert (beaten.cell, beaten.by) == (HEAD, QLORA)
    text = advice.headline(answer)
    assert text.startswith("full fine-tuning has the highest score (0.820) of the cells that fit.")
    assert "at no more peak memory: LoRA r8, QLoRA r8." in text


def test_a_drop_is_shown_possible_or_too_large():
    records = shifted(rows((FULL, LORA, QLORA, ADALORA)), lora_none=-0.3, adalora_none=-5.0)
    wide = []
    for r in records:  # QLoRA's differences straddle the limit
        swing = 0.03 * (r.job.seed - 2) if r.job.cell == QLORA else 0.0
        outcome = replace(
            r.outcome, metric_value=r.outcome.metric_value + swing - 0.005 * bool(swing)
        )
        wide.append(replace(r, outcome=outcome))
    answer = ask(wide, max_drop=1.0)
    kept = {c.title: c.keeps for c in (*answer.picks, *answer.others)}
    assert kept == {
        "full fine-tuning": "best",
        "LoRA r8": "shown",
        "QLoRA r8": "possible",
        "AdaLoRA r8": "dropped",
    }
    assert answer.picks[0].title == "LoRA r8"
    assert "not shown, the nearest first: QLoRA r8 (needs about " in advice.headline(answer)
    assert advice.state(answer, next(c for c in answer.others if c.cell == ADALORA)) == (
        "loses more than 1 point"
    )


def test_a_mean_beyond_the_drop_is_not_yet_a_drop_shown():
    records = shifted(rows((FULL, LORA), seeds=(0, 1, 2)), lora_none=-1.2)
    swung = [
        replace(r, outcome=replace(r.outcome, metric_value=r.outcome.metric_value + swing))
        for r in records
        for swing in [0.01 * (r.job.seed - 1) if r.job.cell == LORA else 0.0]
    ]
    answer = ask(swung, max_drop=1.0)
    lora = next(c for c in answer.picks if c.cell == LORA)
    assert lora.behind.estimate.mean < -0.01 and lora.keeps == "possible"


def swung(records, **by):
    """Records whose scores swing around their mean, evenly over three seeds."""
    return [
        replace(r, outcome=replace(r.outcome, metric_value=r.outcome.metric_value + swing))
        for r in records
        for swing in [by.get(f"{r.job.method}_{r.job.quantization}", 0.0) * (r.job.seed - 1)]
    ]


def test_what_its_own_interval_rules_out_is_no_perhaps():
    """Of five cells judged together QLoRA's loss is not shown, and it is clear all the same."""
    away = {"lora_none": -0.8, "lora_nf4": -5.0, "adalora_none": -0.2, "head_none": -0.3}
    swings = {"lora_none": 0.004, "lora_nf4": 0.0144, "adalora_none": 0.02, "head_none": 0.02}
    cells = (FULL, LORA, QLORA, ADALORA, HEAD)
    records = swung(shifted(rows(cells, seeds=(0, 1, 2)), **away), **swings)
    answer = ask(records, max_drop=1.0)
    kept = {c.title: (c.keeps, c.perhaps) for c in answer.picks}
    assert kept["QLoRA r8"] == ("possible", False) and kept["LoRA r8"] == ("possible", True)
    assert answer.picks[-1].cell == QLORA  # though it takes the least
    text = advice.headline(answer)
    assert "LoRA r8 (" in text and "QLoRA" not in text
    small = ask(changed(records, HEAD, peak_memory_bytes=10**9), max_drop=1.0, memory=350 * 2**20)
    assert titles(small.picks) == ["QLoRA r8"] and small.verdict == "possible"
    assert "; QLoRA r8 comes closest, at 5.0 points below" in advice.headline(small)


def test_the_nearest_of_those_that_may_do_comes_first():
    records = shifted(rows((FULL, LORA, QLORA), seeds=(0, 1, 2)), lora_none=-0.4, lora_nf4=-0.9)
    text = advice.headline(ask(swung(records, lora_none=0.02, lora_nf4=0.02), max_drop=1.0))
    assert "nearest first: LoRA r8 (needs about 89 seeds in all), QLoRA r8 (" in text


def test_under_a_limit_the_figure_is_that_which_the_limit_is_held_against():
    answer = ask(three(), memory=1e9, max_drop=0.45)
    assert "LoRA r8 has the least peak memory (520 MiB on its largest task)" in (
        advice.headline(answer)
    )
    assert "LoRA r8 has the least peak memory (520 MiB, mean over tasks)" in (
        advice.headline(ask(three(), max_drop=0.45))
    )


def test_only_possible_cells_make_an_undecided_answer():
    records = shifted(rows((FULL, QLORA), seeds=(0, 1)), lora_nf4=-0.9)
    records = [
        replace(r, outcome=replace(r.outcome, metric_value=r.outcome.metric_value + 0.004))
        if (r.job.cell, r.job.seed) == (QLORA, 1)
        else r
        for r in records
    ]
    answer = ask(records, max_drop=1.0, memory=400 * 2**20)
    assert answer.verdict == "possible" and titles(answer.picks) == ["QLoRA r8"]
    text = advice.headline(answer)
    assert text.startswith("Undecided: no cell that fits is shown to stay within 1 point of the")
    assert "QLoRA r8 may, at 0.7 points below it (95\u00a0% interval −" in text
    assert text.endswith("(needs over 1,000 seeds).")
    assert answer.run[0].startswith("more seeds of QLoRA r8 and of the best cell")


def test_one_seed_keeps_every_drop_undecided():
    one, wish = table_of(rows(seeds=(0,))), Wish(max_drop=1.0)
    found = [candidate(one, cell, FULL, wish) for cell in one.cells]
    assert {c.keeps for c in found} == {"best", "possible"}
    assert "without an interval (n = 1)" in advice.standing_text(found[0])


def test_equal_scores_on_every_seed_are_not_shown_equal():
    records = [
        replace(r, outcome=replace(r.outcome, metric_value=0.8 + 0.01 * r.job.seed))
        for r in rows((FULL, LORA))
    ]
    answer = ask(records, max_drop=1.0)
    assert sorted(c.keeps for c in answer.picks) == ["best", "possible"]


# --- unknown and none --------------------------------------------------------------------------


def test_a_limit_below_every_cell_is_unknown():
    answer = ask(memory=100e6, max_drop=1.0)
    assert answer.verdict == "unknown" and not answer.picks
    assert answer.reasons == (
        "No cell was measured within 100 MB (95.4 MiB): the smallest, QLoRA r8, took 301 MiB. What "
        "a smaller model, batch or length would take is not known.",
    )
    assert answer.run == ("a profile with a smaller model, batch size or max_length",)


def test_a_limit_above_every_cell_says_nothing_of_larger_models():
    notes = " ".join(ask(memory=24e9).caveats)
    assert "The limit rules out no measured cell (the largest took 910 MiB)" in notes
    assert "Peak memory was read from live_bytes" in notes
    assert "Figures hold for all-MiniLM-L6-v2, batches of 16 rows and 64 tokens at most" in notes


def test_another_model_is_unknown():
    answer = ask(model="llama-7b", memory=24e9)
    assert answer.verdict == "unknown"
    assert answer.reasons == (
        "No row was measured with the model llama-7b, only with minilm-l6, and no figure carries "
        "over from one model to another.",
    )
    assert "peftmark list" in answer.run[0]
    assert ask(model="minilm-l6").verdict == "fits"


def test_rows_count_only_within_a_factor_of_three():
    assert ask(rows=400).verdict == ask(rows=3000).verdict == "fits"
    answer = ask(rows=341)
    assert answer.verdict == "unknown"
    assert answer.reasons == (
        "No task was trained on about 341 rows (between 114 and 1,023); the nearest is sst-2 with "
        "1,024.",
    )
    assert "train_rows near 341" in answer.run[0]
    unrecorded = [replace(r, outcome=replace(r.outcome, train_rows=None)) for r in rows()]
    assert "is not recorded" in ask(unrecorded, rows=800).reasons[0]


def test_rows_pick_the_tasks_that_count():
    records = [
        replace(r, outcome=replace(r.outcome, train_rows=9000)) if r.job.task == "sts-b" else r
        for r in rows()
    ]
    assert ask(records, rows=800).table.tasks == ("sst-2",)
    assert ask(records, rows=20_000).table.tasks == ("sts-b",)
    assert "the nearest is sts-b with 9,000" in ask(records, rows=90_000).reasons[0]


def test_tasks_are_picked_by_kind_or_key():
    assert ask(task="classification").table.tasks == ("sst-2",)
    assert ask(task="regression").table.tasks == ("sts-b",)
    assert ask(task="sst-2").table.tasks == ("sst-2",)
    answer = ask(rows(tasks=["sst-2"]), task="regression")
    assert answer.verdict == "unknown"
    assert answer.reasons == ("No row was measured on regression, only on sst-2 (classification).",)


def test_nothing_fits_where_every_cell_is_ruled_out():
    answer = ask(three(), parameters=1000)
    assert answer.verdict == "none fits"
    assert advice.headline(answer) == (
        "None fits. 4 of 4 cells are over the limit of 1,000 of trainable parameters; the least is "
        "head only with 149,378."
    )
    dropped = ask(shifted(rows((FULL, LORA)), lora_none=-5.0), max_drop=1.0, memory=600 * 2**20)
    assert dropped.verdict == "none fits"
    assert "1 of 2 cells are shown to lose more than 1 point." in dropped.reasons


def test_a_time_limit_holds_for_the_slowest_task_and_this_machine():
    answer = ask(three(), seconds=10.0)
    assert titles(answer.picks) == ["head only"]
    assert any("wall time of the timed steps on Example CPU" in note for note in answer.caveats)


def test_a_missing_figure_is_unknown_not_zero():
    records = changed(rows((FULL, LORA)), LORA, peak_memory_bytes=None)
    answer = ask(records, memory=600 * 2**20)
    assert answer.verdict == "unknown"
    assert answer.reasons == (
        "Not known of every cell: LoRA r8: peak memory: not recorded in every run.",
    )
    assert answer.run == ("peftmark run demo --profile quick",)
    by_memory = ask(records, max_drop=1.0)
    assert "Not recorded on every task: peak memory of LoRA r8." in by_memory.caveats


def test_different_meters_make_memory_unknown():
    records = changed(rows((FULL, LORA)), LORA, peak_memory_source="torch_allocated_bytes")
    answer = ask(records, memory=24e9)
    assert answer.verdict == "unknown"
    assert "measured by different meters: live_bytes; torch_allocated_bytes" in answer.reasons[0]
    free = ask(records, max_drop=50.0)
    assert free.cost is None and free.verdict == "fits"
    assert "they can't be compared by peak memory" in advice.headline(free)


def test_times_of_two_machines_are_unknown():
    other = make_environment(machine={"cpu": "Another CPU"})
    records = [
        replace(r, environment=other) if r.job.cell == LORA else r for r in rows((FULL, LORA))
    ]
    answer = ask(records, seconds=1e6)
    assert answer.verdict == "unknown" and "different meters" in answer.reasons[0]


def test_times_are_those_of_the_machine_with_most_runs_and_a_seed_elsewhere_hides_none():
    other = make_environment(machine={"cpu": "Another CPU"})
    records = [
        replace(r, environment=other, outcome=replace(r.outcome, train_seconds=1e9))
        if r.job.seed == 2
        else r
        for r in rows((FULL, LORA))
    ]
    answer = ask(records, seconds=1e6)
    assert answer.verdict == "fits"
    assert all(c.figures["time"] < 1e6 for c in (*answer.picks, *answer.others))
    assert all(c.seeds == len(SEEDS) for c in (*answer.picks, *answer.others))


def test_a_run_out_of_memory_leaves_the_limit_unknown():
    records = rows((FULL, LORA))
    index = next(i for i, r in enumerate(records) if r.job.cell == LORA)
    records[index] = replace(records[index], outcome=make_failure())
    answer = ask(records, memory=24e9)
    lora = next(c for c in (*answer.picks, *answer.others) if c.cell == LORA)
    assert lora.unknown == ("a run ended out of memory",)
    assert (lora.seeds, lora.ok, lora.jobs) == (4, 9, 10)


def test_no_finished_run_is_unknown():
    records = [replace(r, outcome=make_failure("crashed", "-")) for r in rows((FULL, LORA))]
    answer = ask(records, max_drop=1.0)
    assert answer.verdict == "unknown"
    assert answer.reasons == ("No cell finished every task (crashed).",)


def test_a_cell_without_a_task_is_not_ranked():
    records = [r for r in rows((FULL, LORA)) if (r.job.cell, r.job.task) != (LORA, "sts-b")]
    answer = ask(records)
    assert titles(answer.picks) == ["full fine-tuning"]
    assert answer.others[0].unknown == ("sts-b: not run",)


def test_different_lengths_of_training_are_said():
    records = rows((FULL, LORA), tasks=["sst-2"])
    records = changed(records, FULL, steps=516)
    told = (
        "Unequal training: full fine-tuning saw 4.30× the rows of LoRA r8; these scores are not of "
        "the methods alone."
    )
    answer = ask(records)
    assert told in answer.caveats
    assert advice.headline(answer).endswith(told)
    states = {c.cell: advice.state(answer, c) for c in (*answer.picks, *answer.others)}
    assert states[FULL] == "fits; saw 4.30× the rows of LoRA r8"
    assert "rows" not in states[LORA]


# --- text ---------------------------------------------------------------------------------------


def text_of(records, **wish):
    answers = recommend_all([table_of(records)], Wish(**wish))
    return advice.advice_text(advice.Advised(answers, ()))


def test_reduced_scale_comes_first():
    assert text_of(three()).startswith(
        "Reduced scale (profile quick, 120 optimizer steps and at most 1,024 training rows): "
        "scores and orderings may differ at full scale.\n"
    )
    full = [replace(r, job=replace(r.job, profile="full", scale="full")) for r in three()]
    assert text_of(full).startswith("full fine-tuning has the highest score")
    assert "Reduced" not in text_of(full)


def test_the_text_names_its_evidence():
    text = text_of(three(), max_drop=1.0)
    assert (
        "Rows: suite demo, profile quick, model minilm-l6, cpu; 40 of 40 jobs ok; 4 cells on sst-2 "
        "(1,024 training rows), sts-b (1,024 training rows)." in text
    )
    line = next(x for x in text.splitlines() if x.startswith("QLoRA r8  "))
    assert "301 MiB" in line and line.endswith("5  10/10") and " fits " in line
    assert "hold for these tasks and other seeds" in text
    assert "To find out: a profile with" in text_of(three(), memory=1e6)


def test_facts_are_json_and_say_the_same():
    answers = recommend_all([table_of(three())], Wish(max_drop=1.0))
    facts = json.loads(json.dumps(advice.facts_of(advice.Advised(answers, ("a note",)))))
    (answer,) = facts["answers"]
    assert (answer["verdict"], answer["reduced_scale"], facts["notes"]) == (
        "fits",
        True,
        ["a note"],
    )
    first = answer["cells"][0]
    assert (first["cell"], first["picked"]) == ("QLoRA r8", True)
    assert first["peak_memory_bytes"] == pytest.approx(301 * 2**20)
    assert first["largest_of_a_task"]["peak_memory_bytes"] == 301 * 2**20
    low, high = first["interval"]
    assert low < first["against_best"] < high
    best = next(c for c in answer["cells"] if c["cell"] == "full fine-tuning")
    assert best["against_best"] is None and best["interval"] is None


def test_of_several_tables_the_one_that_knows_something_comes_first():
    other = rows((FULL, LORA), model="roberta-base", seeds=(0, 1))
    tables, _ = advice.tables_of([*three(), *other])
    assert len(tables) == 2
    answers = recommend_all(tables, Wish(model="roberta-base"))
    assert [a.verdict for a in answers] == ["fits", "unknown"]


# --- amounts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("24GB", 24e9),
        ("24GiB", 24 * 2**30),
        ("500MB", 500e6),
        ("1.5 GB", 1.5e9),
        ("10kB", 10_000),
        ("7B", 7),
        ("1TiB", 2**40),
    ],
)
def test_sizes(text, value):
    assert amounts.parse_size("--memory", text) == value


@pytest.mark.parametrize("text", ["24", "24G", "24gb", "-1GB", "GB", "1e3MB", "0GB", "1,000MB", ""])
def test_other_sizes_are_refused(text):
    with pytest.raises(UserError) as error:
        amounts.parse_size("--memory", text)
    assert str(error.value).startswith(f"--memory: found {text!r}\nAllowed: a number and one of B,")
    assert error.value.code == 2


def test_counts_times_and_points():
    assert amounts.parse_count("--rows", "800") == 800
    assert amounts.parse_count("--rows", "1.5M") == 1_500_000
    assert amounts.parse_count("--rows", "0.1k") == 100
    assert amounts.parse_seconds("--max-time", "15min") == 900
    assert amounts.parse_seconds("--max-time", "1.5h") == 5400
    assert amounts.parse_points("--max-drop", "1.0") == 1.0
    assert amounts.parse_points("--max-drop", "0") == 0
    for parse, text in (
        (amounts.parse_count, "1.5"),
        (amounts.parse_count, "0"),
        (amounts.parse_count, "8e2"),
        (amounts.parse_seconds, "15"),
        (amounts.parse_seconds, "1d"),
        (amounts.parse_points, "-1"),
        (amounts.parse_points, "101"),
        (amounts.parse_points, "1%"),
    ):
        with pytest.raises(UserError, match="found"):
            parse("--x", text)


def test_amounts_in_words():
    assert amounts.size_text(301 * 2**20) == "301 MiB"
    assert amounts.size_text(2**19) == "0.50 MiB"
    assert amounts.seconds_text(12.04) == "12.0 s"
    assert amounts.count_text(22_713_986) == "22,713,986"


# --- reading ------------------------------------------------------------------------------------


def stored(tmp_path, records, suite="demo"):
    store = Store(tmp_path, suite)
    with store.lock():
        for record in records:
            store.append(record)
    return tmp_path


def test_advice_reads_a_results_folder_by_suite_by_path_or_alone(tmp_path):
    root = stored(tmp_path, rows((FULL, LORA), tasks=["sst-2"], seeds=(0, 1)))
    by_suite = advice.advise(root, "demo", memory="24GB", rows="800", max_drop="1.0")
    assert by_suite.answers[0].verdict == "fits"
    assert by_suite.answers[0].wish == Wish(memory=24e9, rows=800, max_drop=1.0)
    assert advice.advise(root).answers[0].table == by_suite.answers[0].table
    other = advice.advise(tmp_path / "none", source=root / "demo", profile="quick", task="sst-2")
    assert other.answers[0].table == by_suite.answers[0].table


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"suite": "nope"}, "holds no results\nRun some first: peftmark run nope"),
        ({"source": "nope"}, "--from: .*nope has no folder parts\nName a folder of one suite"),
        ({"profile": "nope"}, "--profile: no row of profile 'nope'\nMeasured: quick."),
        (
            {"task": "nope"},
            "--task: found 'nope'\nAllowed: classification, multi-label, regression, "
            "multiple-choice, instruction, language, cola",
        ),
        ({"memory": "24"}, "--memory: found '24'"),
        ({"rows": "many"}, "--rows: found 'many'"),
        ({"max_drop": "x"}, "--max-drop: found 'x'"),
        ({"max_parameters": "x"}, "--max-parameters: found 'x'"),
        ({"max_time": "x"}, "--max-time: found 'x'"),
    ],
)
def test_bad_input_is_one_clear_message(tmp_path, given, message):
    root = stored(tmp_path, rows((LORA,), tasks=["sst-2"], seeds=(0,)))
    if "source" in given:
        given = {"source": tmp_path / given["source"]}
    with pytest.raises(UserError, match=f"^{message}|{message}"):
        advice.advise(root, **given)


def test_an_empty_folder_and_one_without_reporting_rows_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no results\nRun some first: peftmark run SUITE"):
        advice.advise(tmp_path)
    repeat = make_repeat(rows((LORA,), tasks=["sst-2"], seeds=(0,))[0])
    with pytest.raises(UserError, match="holds no results of finished jobs"):
        advice.advise(stored(tmp_path, [repeat]), "demo")


def test_only_the_newest_rows_count():
    new = rows((LORA,), tasks=["sst-2"])
    old_suite = [replace(r, job=replace(r.job, suite_version=0)) for r in new]
    old_recipe = [
        replace(r, job=replace(r.job, recipe=make_recipe(steps=7)), finished_at="2029-01-01")
        for r in new
    ]
    (table,), notes = advice.tables_of([*old_suite, *old_recipe, *new])
    assert {s.record.job.recipe.steps for s in table.slots} == {120}
    assert notes == [
        "5 rows of an older suite or procedure are left out.",
        "5 rows that a later recipe replaced are left out.",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        *({"compile": True}, {"pad_to": 8}, {"attention": "eager"}, {"devices": 2}),
        *({"shard": True}, {"packing": True}, {"kernels": "liger"}),
    ],
)
def test_rows_of_one_form_alone_are_compared(changes):
    """A run that was made again, of which some seeds are still as before."""
    old = rows((LORA, HEAD), tasks=["sst-2"])
    recipe = make_recipe(**changes)
    new = [
        replace(r, job=replace(r.job, recipe=recipe), finished_at="2031-01-01")
        for r in old
        if r.job.seed < 3
    ]
    (table,), notes = advice.tables_of([*old, *new])
    assert all(s.record.job.recipe == recipe for s in table.slots)
    assert {s.job.seed for s in table.slots} == {0, 1, 2}
    assert notes == [
        "6 rows that a later recipe replaced are left out.",
        "4 rows of another pad_to, compile, attention, devices, shard, packing or kernels than the "
        "newest are left out.",
    ]


def test_the_pick_has_the_least_of_the_figure_that_is_shown():
    """The task that takes most may order cells otherwise than the mean, which every page shows."""
    memory = {("sst2", LORA): 100, ("stsb", LORA): 800, ("sst2", QLORA): 60, ("stsb", QLORA): 900}
    records = []
    for record in make_matrix(cells=[LORA, QLORA], seeds=range(4)):
        size = memory[record.job.task, record.job.cell] * 2**20
        score = 0.8 + 0.001 * record.job.seed + 0.0001 * (record.job.cell == LORA)
        score -= 0.0002 * record.job.seed * (record.job.cell == QLORA)
        outcome = replace(record.outcome, peak_memory_bytes=size, metric_value=score)
        records.append(replace(record, outcome=outcome))
    answer = ask(records, max_drop=5.0)
    assert {c.title: c.keeps for c in answer.picks} == {"LoRA r8": "best", "QLoRA r8": "shown"}
    # √(60 × 900) = 232.4 and √(100 × 800) = 282.8, though 900 is more than 800.
    assert answer.picks[0].title == "QLoRA r8"
    assert advice.headline(answer).startswith(
        "QLoRA r8 has the least peak memory (232 MiB, mean over tasks)"
    )
    text = advice.advice_text(advice.Advised((answer,), ()))
    assert "peak memory, mean over tasks" in text and "largest" not in text


def test_a_limit_is_held_against_the_task_that_takes_most_and_the_table_says_so():
    rows = [
        replace(r, outcome=replace(r.outcome, peak_memory_bytes=size * 2**20))
        for r in make_matrix(cells=[LORA], seeds=range(4))
        for size in [100 if r.job.task == "sst2" else 400]
    ]
    inside, over = (ask(rows, memory=limit * 2**20) for limit in (400, 399))
    assert titles(inside.picks) == ["LoRA r8"] and over.picks == ()
    (cell,) = inside.picks
    assert cell.figures["memory"] == pytest.approx(200 * 2**20)  # √(100 × 400)
    assert cell.largest["memory"] == 400 * 2**20
    text = advice.advice_text(advice.Advised((inside,), ()))
    head, line = (
        next(x for x in text.splitlines() if x.startswith(s)) for s in ("cell ", "LoRA r8  ")
    )
    assert "largest peak memory of a task" in head
    assert "200 MiB" in line and "400 MiB" in line
