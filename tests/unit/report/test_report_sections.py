"""The sections on validity, costs and tuning, and the tables beside the main scores."""

from dataclasses import replace

import pytest

from factory import (
    ADALORA,
    FULL,
    HEAD,
    LORA,
    QLORA,
    REPORT_OPTIONS,
    make_job,
    make_matrix,
    make_outcome,
    make_record,
    make_repeat,
    make_trials,
)
from peftmark.analysis import table
from peftmark.catalog.methods import cell_title
from peftmark.record.job import RadarAxis
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.render import chart_specs, draw, page
from peftmark.report import costs, measures
from peftmark.report import radar as glance
from shown import column, fail, grid, on, paragraphs, row, section, show, write


@pytest.mark.slow
@pytest.mark.heavy
def test_rows_of_other_purposes_enter_no_figure_and_are_no_strays(tmp_path):
    rows = make_matrix(cells=[LORA, QLORA])
    trials = make_trials(cells=[LORA, QLORA])
    repeat = make_repeat(rows[0], metric_value=0.0, train_seconds=1e6, live_bytes=1)
    alone, together = show(rows), show([*trials, *rows, repeat])
    for caption in ("Score after", "Costs relative", "Time and work", "by part", "to deploy"):
        assert grid(alone, caption) == grid(together, caption)
    assert together.finding == alone.finding
    lead = section(together, "coverage").lead
    assert lead.startswith("12 jobs planned: 12 ok, 0 failed, 0 not run yet. Before them 16 tuning")
    assert "left out" not in lead
    text = write(tmp_path, [*trials, *rows, repeat])["report.md"]
    assert text.count(repeat.command) == 1


def test_the_report_says_how_steps_were_computed():
    plain = make_matrix(cells=[LORA, QLORA])
    said = "layers were compiled by torch.compile"
    assert said not in section(show(plain), "environment").lead
    changes = {"compile": True, "pad_to": 16, "attention": "eager", "devices": 2}
    changes |= {"shard": True, "packing": True, "kernels": "liger"}
    recipe = replace(plain[0].job.recipe, **changes)
    compiled = [replace(r, job=replace(r.job, recipe=recipe)) for r in plain]
    for text in (
        section(show(compiled), "environment").lead,
        grid(show(compiled), "Time and work").note,
    ):
        assert (
            "As the recipe asks, batches were padded to multiples of 16 tokens, layers were "
            "compiled by torch.compile, in training and its evaluations, attention was eager, "
            "each job was trained on 2 devices at once, the weights of a model's layers lay in "
            "parts on them, rows of a training pass stood end to end in one, without padding and "
            "layers ran on the kernels of liger, in every cell alike."
        ) in text


def test_failed_trials_are_listed_with_the_failures():
    trials = make_trials(cells=[LORA], tasks=["sst2"])
    shown = show([fail(trials[0], "diverged", "NaN"), *trials[1:], *make_matrix(cells=[LORA])])
    (entry,) = grid(shown, "Failures").rows
    assert [e.text for e in entry[:4]] == ["LoRA r8", "sst2", "100", "diverged"]
    assert entry[0].note == "tuning trial"


def test_trials_alone_make_a_report_that_says_what_waits(tmp_path):
    files = write(tmp_path, make_trials(cells=[LORA, QLORA]))
    assert "Only tuning trials have run so far" in files["report.md"]
    assert "waits for its tuning trials" in files["report.md"]
    assert "Least sensitive to the learning rate" in files["report.md"]
    assert "Can these numbers be trusted?" not in files["report.md"]


# --- can these numbers be trusted ---------------------------------------------------------------


def checks(shown):
    return {r[0].text: r[1].text for r in grid(shown, "Checks").rows}


def test_a_clean_run_says_so_without_an_alarm():
    rows = make_matrix(cells=[LORA, ADALORA])
    shown = show([*rows, make_repeat(rows[0])])
    assert section(shown, "validity").lead.startswith("Yes, as far as is checked: the repeated job")
    assert shown.alarms == ()
    assert set(checks(shown).values()) == {"same", "none found"}


@pytest.mark.slow
def test_a_repeat_with_other_numbers_is_loud(tmp_path):
    rows = make_matrix(cells=[LORA, ADALORA])
    records = [*rows, make_repeat(rows[0], live_bytes=1)]
    shown = show(records)
    assert section(shown, "validity").lead.startswith("No: the same job gave different numbers")
    assert len(shown.alarms) == 1 and "live_bytes" in shown.alarms[0]
    files = write(tmp_path, records)
    assert '<p class="alarm">Not repeatable: ' in files["index.html"]
    assert "> **Not repeatable: " in files["report.md"]


def test_a_repeat_that_has_not_run_is_not_trust():
    rows = make_matrix(cells=[LORA])
    shown = show(rows, [*(r.job for r in rows), make_repeat(rows[0]).job])
    assert section(shown, "validity").lead.startswith("Not shown yet: the repeated job has not run")
    assert section(show(rows), "validity").lead.startswith("Not shown yet: this profile plans no")


def test_suspect_rows_are_counted_listed_and_marked():
    rows = make_matrix(cells=[LORA, QLORA], tasks=["sst2"])
    bad = [
        replace(rows[0], outcome=replace(rows[0].outcome, collapsed=True)),
        replace(rows[1], outcome=replace(rows[1].outcome, loss=9.0)),
        replace(rows[2], outcome=replace(rows[2].outcome, reload_max_error=0.3)),
        *rows[3:5],
        replace(rows[5], outcome=replace(rows[5].outcome, curve=rows[2].outcome.curve)),
    ]
    shown = show([*bad, make_repeat(bad[3])])
    assert list(checks(shown).values()) == ["same", "1 found", "1 found", "1 found", "1 found"]
    found = [r[0].text for r in grid(shown, "Rows that were flagged").rows]
    assert found == ["collapsed", "behind", "twins", "unfaithful"]
    assert len(shown.alarms) == 2
    lead = section(shown, "validity").lead
    assert lead.startswith("No: 1 run predicted the same for every row")  # of twins
    alone = section(show([*rows[1:], bad[0], make_repeat(rows[1])]), "validity").lead
    assert alone.startswith("With care: 1 run predicted the same for every row; the repeated")
    assert row(shown, "Score after", "LoRA r8")[1].note == "n = 3: 1 collapsed"


def test_a_check_that_no_row_records_is_unknown_not_passed():
    shown = show([make_record(outcome=make_outcome(collapsed=None, reload_max_error=None))])
    found = checks(shown)
    assert found["predictions that are all the same"] == "n/a"
    assert found["saved files that give other logits when loaded"] == "n/a"
    behind = row(shown, "Checks", next(name for name in found if "every other seed" in name))
    assert (behind[1].text, behind[1].note) == (
        "n/a",
        "no cell has a finished run of another seed",
    )


def test_the_splits_and_their_overlap_are_counted_by_task():
    rows = make_matrix(cells=[LORA], tasks=["sst2", "rte"])
    rows[0] = replace(rows[0], outcome=replace(rows[0].outcome, overlap_rows=7))
    bare = {"overlap_rows": None, "null_reasons": {"overlap_rows": "texts were not kept"}}
    rows = [r if r.job.task == "sst2" else replace(r, outcome=make_outcome(**bare)) for r in rows]
    shown = show(rows)
    assert [e.text for e in row(shown, "Rows of each", "sst2")] == [
        "sst2",
        "1,024",
        "100",
        "512",
        "0 to 7",
    ]
    overlap = row(shown, "Rows of each", "rte")[4]
    assert (overlap.text, overlap.note) == ("n/a", "texts were not kept")
    assert "Selection rows are cut from the training split" in paragraphs(shown, "validity")
    assert "No selection rows are cut" in paragraphs(show([make_record()]), "validity")


# --- quality at other steps, and losses ---------------------------------------------------------


def test_the_selected_step_and_the_flattering_best_stand_apart():
    job = make_job(recipe=make_matrix()[0].job.recipe)
    outcome = make_outcome(selected_metric_value=0.81, selected_step=40, best_metric_value=0.9)
    shown = show([make_record(job=job, outcome=outcome)])
    picked = row(shown, "step the selection rows pick", "LoRA r8")[1]
    assert (picked.text, picked.note) == ("0.810", "n = 1; step 40")
    assert row(shown, "(flattering)", "LoRA r8")[1].text == "0.900"
    assert row(shown, "Score after", "LoRA r8")[1].text == "0.860"
    none = show([make_record()])
    assert "no step can be picked" in paragraphs(none, "quality")


def test_loss_and_penalty_are_shown_apart():
    found = grid(show(make_matrix(cells=[LORA, ADALORA], tasks=["sst2"])), "Training loss")
    lora, adalora = found.rows
    assert (lora[3].text, lora[3].note) == ("n/a", "the method adds no term to the loss")
    assert (adalora[2].text, adalora[3].text) == ("0.113", "0.006")


# --- costs --------------------------------------------------------------------------------------


def test_the_parts_of_memory_are_drawn_and_add_up():
    shown = show(make_matrix(cells=[LORA, QLORA, FULL]))
    drawing = next(f.drawing for f in shown.figures() if f.name == "memory")
    totals = [round(sum(r.sizes)) for r in drawing.rows]
    assert totals == [520, 301, 910]
    entries = [r for r in grid(shown, "by part").rows if r[0].text == "QLoRA r8"]
    assert [e.text for e in entries[0][2:5]] == ["301", "75.2", "1.00"]


def test_cells_are_stacked_over_the_tasks_they_share():
    rows = make_matrix(cells=[LORA, FULL])
    rows = [fail(r) if r in on(rows, FULL, "stsb") else r for r in rows]
    big = 10 * 2**20
    more = {"live_bytes": big, "live_weight_bytes": big}
    rows = [
        replace(r, outcome=replace(r.outcome, **more)) if r in on(rows, LORA, "stsb") else r
        for r in rows
    ]
    figure = next(f for f in show(rows).figures() if f.name == "memory")
    assert round(sum(figure.drawing.rows[0].sizes)) == 520
    assert figure.note.startswith("Mean over seeds and sst2.")


def test_equal_budget_says_which_rank_is_matched():
    shown = show(make_matrix(cells=[LORA, QLORA, ADALORA, HEAD]))
    text = paragraphs(shown, "costs")
    assert "size in their names: r of LoRA and QLoRA; target_r of AdaLoRA." in text
    assert "it starts at init_r 12" in text
    assert costs.equal_budget(table.build([], [make_job()], LORA)) == ""


def test_deployment_keeps_the_largest_error_and_the_mean_latency():
    outcomes = [
        make_outcome(reload_max_error=e, latency_p50_seconds=s, latency_p95_seconds=2 * s)
        for e, s in ((0.0, 0.010), (3e-6, 0.020))
    ]
    rows = [make_record(job=make_job(seed=i), outcome=o) for i, o in enumerate(outcomes)]
    found = grid(show(rows), "to deploy")
    entries = found.rows[0]
    assert column(found, entries, "reload error").text == "3e-6"
    latency = column(found, entries, "latency")
    assert (latency.text, latency.note) == ("15.0", "p95 30.0")
    assert column(found, entries, "merged into").text == "the fp32 base weights"


def test_latency_by_rows_is_a_table_of_its_own_where_a_row_has_it():
    names = measures.LATENCY_BY_ROWS
    slow = make_outcome(latency_1_row_seconds=0.008)
    found = grid(show([make_record(outcome=slow)]), "Latency by rows")
    assert found.folded
    assert column(found, found.rows[0], "latency of 1 row").text == "8.00"
    assert column(found, found.rows[0], "merged latency of 8 rows").text == "26.0"
    old = make_outcome(**dict.fromkeys(m.name for m in names))
    blocks = section(show([make_record(outcome=old)]), "costs").blocks
    assert not [b for b in blocks if getattr(b, "caption", "").startswith("Latency by")]


def test_energy_is_that_of_the_device_with_its_flags():
    energy = {"energy_gpu_joules": 50.0, "energy_cpu_joules": 70.0}
    outcome = make_outcome(**energy, energy_flags=("short window",))
    for device, text in (("cpu", "70.0"), ("cuda", "50.0")):
        found = grid(show([make_record(job=make_job(device=device), outcome=outcome)]), "Time and")
        entry = column(found, found.rows[0], "energy")
        assert (entry.text, entry.note) == (text, "short window")


def test_tasks_with_the_same_parameters_share_a_row():
    rows = make_matrix(cells=[LORA], tasks=["sst2", "rte", "stsb"])
    small = {"trainable_parameters": 5}
    rows = [
        replace(r, outcome=replace(r.outcome, **small)) if r.job.task == "stsb" else r for r in rows
    ]
    found = grid(show(rows), "Parameters")
    assert [[e.text for e in r[:4]] for r in found.rows] == [
        ["LoRA r8", "sst2 and rte", "8", "223,106"],
        ["LoRA r8", "stsb", "8", "5"],
    ]


# --- tuning -------------------------------------------------------------------------------------


def trials(scores_by_rate, cell=LORA, task="sst2"):
    """One trial a rate with these scores; None for one that diverged."""
    found = []
    for trial, score in zip(make_trials([cell], [task]), scores_by_rate, strict=True):
        bad = fail(trial, "diverged", "NaN")
        outcome = make_outcome(metric_value=score)
        found.append(bad if score is None else replace(trial, outcome=outcome))
    return found


def test_the_sensitivity_to_the_learning_rate_by_hand():
    tuned = [*trials([0.795, 0.805, 0.81, 0.80]), *trials([0.5, None, 0.7, 0.8], QLORA)]
    reported = make_matrix(cells=[LORA, QLORA, HEAD], tasks=["sst2"])
    shown = show([*tuned, *reported])
    caption = "Share of the learning rates"
    assert [e.text for e in row(shown, caption, "LoRA r8")[1:]] == ["75\u00a0%", "75\u00a0%"]
    assert row(shown, caption, "LoRA r8")[1].note == "2e-3"
    edge = row(shown, caption, "QLoRA r8")[1]
    assert (edge.text, edge.note) == ("25\u00a0%", "5e-3, edge of the grid")
    assert row(shown, caption, "head only")[2].note == "nothing was tuned"
    assert section(shown, "tuning").lead.startswith(
        "Least sensitive to the learning rate: LoRA r8, 75"
    )
    text = paragraphs(shown, "tuning")
    assert "Every cell got 4 learning rates a task, 1 trial each" in text
    assert "Tuning seeds: 100; reporting seeds are others: 0, 1 and 2." in text
    assert "a better rate may lie outside it: QLoRA r8 on sst2; the table" in text
    scores = row(shown, "Every learning rate", "QLoRA r8")
    assert [e.text for e in scores[2:]] == ["0.500", "diverged", "0.700", "0.800"]
    assert scores[3].note == "1e-3" and scores[5].note == "5e-3, chosen"


WEIGHTS = (0.0, 0.1)
FIRST_ROUND = {(1e-3, 0.0): 0.6, (1e-3, 0.1): 0.5, (2e-3, 0.0): 0.7, (2e-3, 0.1): 0.694}


def rounds(cell=ADALORA, task="sst2"):
    """Trials of two rates and two penalties, short, and of the best two of them, whole."""
    base = make_trials([cell], [task])[0]
    found = []
    for (rate, weight), score in FIRST_ROUND.items():
        for steps, seed in ((30, 100), (120, 101)):
            if steps == 120 and rate == 1e-3:
                continue
            schedule = AdaLoraSchedule(12, 3, 9, 5, 0.85, 0.85, weight)
            recipe = replace(base.job.recipe, steps=steps, learning_rate=rate, adalora=schedule)
            job = replace(base.job, seed=seed, recipe=recipe)
            better = 0.1 if (steps, weight) == (120, 0.1) else 0.0
            outcome = make_outcome(metric_value=score + better)
            found.append(replace(base, job=job, outcome=outcome))
    return found


def test_every_setting_that_was_tuned_has_its_picture_and_what_it_took_and_gave():
    shown = show([*rounds(), *make_matrix(cells=[ADALORA], tasks=["sst2"])])
    name = cell_title(*ADALORA)
    share = row(shown, "Share of the settings", name)[1]
    assert share.text == "50\u00a0%"
    assert share.note == "2e-3, penalty 0.1, edge of the grid"
    ledger = [e.text for e in row(shown, "What tuning took", name)]
    assert ledger == [name, "sst2", "6", "360", "4 × 30, 2 × 120", "0.053"]
    rate, penalty = (
        next(f for f in shown.figures() if f.name == wanted)
        for wanted in ("rates-0", "tuned-orthogonal-weight-0")
    )
    assert rate.drawing.lines[0].points == ((1e-3, 0.6), (2e-3, 0.7))
    assert (rate.drawing.lines[0].flat, rate.drawing.lines[0].chosen) == ((2e-3,), 2e-3)
    assert penalty.drawing.names == ("0", "0.1")
    assert penalty.drawing.lines[0].points == ((0.0, 0.7), (1.0, 0.694))
    assert (penalty.drawing.lines[0].flat, penalty.drawing.lines[0].chosen) == ((0.0, 1.0), 1.0)
    assert penalty.finding == f"Chosen: {name} 0.1."
    assert "after 30 steps, the best over the others tried" in penalty.note
    assert ">penalty<" in draw.render(penalty)
    text = paragraphs(shown, "tuning")
    assert "the better ones for more" in text and "Tuning seeds: 100 and 101;" in text
    scores = row(shown, "Every setting and its score", name)
    assert [e.text for e in scores[2:]] == ["0.600", "0.500", "0.700", "0.694"]
    assert scores[5].note == "2e-3, penalty 0.1, chosen"


def test_shares_of_trials_of_other_lengths_are_not_compared():
    """A small grid is trained at whole length at once, where settings differ less."""
    axes = {**REPORT_OPTIONS.radar, "ease_of_use": RadarAxis(0.0, 1.0, "linear")}
    whole = trials([0.795, 0.805, 0.81, 0.80])
    rows = make_matrix(cells=[LORA, ADALORA], tasks=["sst2"])
    shown = show([*rounds(), *whole, *rows], options=replace(REPORT_OPTIONS, radar=axes))
    assert "not compared" in section(shown, "tuning").lead
    figure = next(f for f in shown.figures() if f.name == "rates-0")
    steps = f"{whole[0].job.recipe.steps} steps (LoRA r8) and 30 steps (AdaLoRA r8)"
    assert f"One point a value, after {steps}, so levels are not compared" in figure.note
    cells = row(shown, "Share of the settings", "LoRA r8")
    assert cells[1].text == "75\u00a0%" and cells[2].note.startswith("first trials have other")
    assert "ease of use (first trials have" in grid(shown, "numbers of the radar").note


def test_trials_that_are_missing_leave_the_share_open():
    tuned = trials([0.7, 0.8, 0.8, 0.7])
    planned = [r.job for r in [*tuned, *make_matrix(cells=[LORA], tasks=["sst2"])]]
    shown = show(tuned[:3], planned)
    assert section(shown, "tuning").lead.startswith("No cell has all its trials yet")
    share = row(shown, "Share of the learning", "LoRA r8")
    assert (share[1].text, share[1].note) == ("n/a", "1 trial not run yet")
    assert row(shown, "Every learning rate", "LoRA r8")[5].text == "not run"


def test_a_profile_without_trials_has_no_tuning_section():
    assert "tuning" not in [s.key for s in show(make_matrix(cells=[LORA])).sections]


def test_the_picture_of_a_grid_marks_the_chosen_rate_and_breaks_at_a_failure():
    shown = show([*trials([0.7, None, 0.8, 0.75]), *make_matrix(cells=[LORA], tasks=["sst2"])])
    figure = next(f for f in shown.figures() if f.name == "rates-0")
    assert figure.finding == "Chosen: LoRA r8 2e-3."
    (line,) = figure.drawing.lines
    assert line.chosen == 2e-3
    assert line.points == ((5e-4, 0.7), (1e-3, None), (2e-3, 0.8), (5e-3, 0.75))
    assert ">5e-4<" in draw.render(figure)


def test_ease_of_use_can_be_a_radar_axis():
    axes = {**REPORT_OPTIONS.radar, "ease_of_use": RadarAxis(0.0, 1.0, "linear")}
    options = replace(REPORT_OPTIONS, radar=axes)
    tuned = trials([0.795, 0.805, 0.81, 0.80])
    rows = make_matrix(cells=[LORA, QLORA], tasks=["sst2"])
    shown = show([*tuned, *rows], options=options)
    radar = grid(shown, "numbers of the radar")
    assert radar.rows[0][-1].text == "0.750"
    assert radar.rows[1][-1].note == "nothing was tuned"
    built = table.build([*tuned, *rows], [r.job for r in [*tuned, *rows]], LORA)
    assert glance.points(built, LORA, options)[-1].position == pytest.approx(0.75)
    untuned = grid(show(rows, options=options), "numbers of the radar")
    assert len(untuned.rows[0]) == len(radar.rows[0]) - 1


def test_a_variant_is_another_look_of_the_same_series_with_a_name_on_two_lines():
    plain, half = (LORA._replace(variant=v) for v in ("fp32", "bf16, no checkpointing"))
    marks = page.marks((plain, half))
    assert {m.series for m in marks.values()} == {"lora"}
    assert {m.variant for m in marks.values()} == {0, 1}
    assert marks[half].label == "LoRA r8, bf16, no checkpointing"
    dots = chart_specs.Dots(
        (chart_specs.DotRow(marks[half], (0.5,), table.t_interval([0.5])),), "F1", None
    )
    text = draw.render(page.Figure("dots", "finding", dots))
    assert ">LoRA r8<" in text and ">bf16, no checkpointing<" in text


def test_the_headline_memory_figure_says_what_it_is():
    note = grid(show(make_matrix(cells=[LORA])), "Costs relative").note
    assert note.startswith("Peak memory: live tensor bytes in the probe steps.")
