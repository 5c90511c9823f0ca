"""Reports of causal language models: what is averaged, what was written and what was forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import (
    ADALORA,
    BASE,
    HEAD,
    LORA,
    REPORT_OPTIONS,
    make_causal,
    make_matrix,
    make_outcome,
    make_record,
)
from peftmark.advice.answer import Advised, advice_text, facts_of, tables_of
from peftmark.advice.candidates import Wish
from peftmark.advice.recommend import recommend
from peftmark.advice.trade import FORGETTING, front
from peftmark.analysis import table
from peftmark.catalog.methods import Cell
from peftmark.report import summary
from shown import column, fail, grid, paragraphs, row, section, show, write

SHARE = "mean over tasks of the share of the way from a constant predictor to a perfect one"
ENCODER = Cell("head", None, "none", "all-MiniLM-L6-v2 (encoder)")


@pytest.fixture(scope="module")
def rows():
    return make_causal()


@pytest.fixture(scope="module")
def shown(rows):
    return show(rows)


def built(records):
    return table.build(records, [r.job for r in records], LORA)


def changed(records, cell, **outcome):
    return [
        replace(r, outcome=replace(r.outcome, **outcome)) if r.job.cell == cell else r
        for r in records
    ]


# --- one overall score ---------------------------------------------------------------------------


def test_every_place_of_the_overall_score_reads_and_says_the_same(rows, shown):
    found = built(rows)
    want = {
        c: table.overall_score(found, c, table.quality).estimate.mean for c in (LORA, ADALORA, BASE)
    }
    assert f"scored {want[LORA]:.3f} ± " in shown.finding and f"({SHARE})" in shown.finding
    strip = next(f for f in shown.figures() if f.name == "summary")
    assert [r.quality.mean for r in strip.drawing.rows] == pytest.approx(list(want.values()))
    assert f"Score: {SHARE}, higher is better." in strip.note
    assert strip.drawing.axis == "share of the way to perfect, mean over tasks ↑"
    for caption, title in (
        ("Every cell against", "score"),
        ("Score after", "mean over tasks"),
        ("possibly on", "score"),
        ("The evidence", "score"),
        ("numbers of the radar", "quality"),
    ):
        one = grid(shown, caption)
        values = [column(one, r, title).sort for r in one.rows[: len(want)]]
        assert values == pytest.approx(list(want.values())), caption
        hint = next(c.hint for c in one.columns if c.title == title)
        assert caption == "numbers of the radar" or "share of the way to perfect" in hint
    square = grid(shown, "Every pair").rows[0]
    assert square[2].sort == pytest.approx(want[LORA] - want[ADALORA])
    figure = next(f for f in shown.figures() if f.name == "trade-memory")
    assert figure.drawing.y_axis == strip.drawing.axis.replace(" ↑", ", higher is better")


def test_the_baseline_predictor_has_no_share_of_the_way(shown):
    last = grid(shown, "Score after").rows[-1]
    assert [e.text for e in last[1:5]] == ["0.510", "0.100", "−6.500", "0.000"]
    note = grid(shown, "Score after").note
    assert "ROUGE-L, accuracy and log-likelihood have no common scale, so the mean over" in note


def test_reports_without_such_a_metric_average_metrics_as_before():
    shown = show(make_causal(tasks=["sst-2", "chatterbot"]))
    assert "share of the way" not in str(shown.finding) + str(shown.opening)
    found = grid(shown, "Score after")
    assert column(found, found.rows[0], "mean over tasks").text.startswith("0.6")
    assert "The mean over tasks averages ROUGE-L and accuracy" in found.note
    assert next(c.hint for c in found.columns if c.title == "mean over tasks") == (
        "same seeds on all"
    )


def test_a_missing_baseline_is_told(rows):
    bare = changed(rows, ADALORA, baseline_value=None)
    entry = row(show(bare), "Every cell against", "AdaLoRA r8")[1]
    assert (entry.text, entry.note) == ("n/a", "sst-2: no score of the baseline predictor")
    missing = front(built(bare), FORGETTING).missing
    assert missing == {ADALORA: "sst-2: no score of the baseline predictor"}


# --- what the page says of models and tasks ------------------------------------------------------


def test_every_model_is_named_with_its_kind(rows):
    facts = dict(show(rows).facts)
    assert facts["model"] == "SmolLM2-135M-Instruct, dequantised from Q4_1 (causal language model)"
    encoder = make_matrix([ENCODER], ["sst-2"])
    mixed = show([*make_causal(tasks=["sst-2"]), *encoder])
    assert dict(mixed.facts)["model"].endswith("model) and all-MiniLM-L6-v2 (encoder)")
    sources = grid(mixed, "Data and model").rows[0]
    assert sources[5].text == "a672150fb4f9; 53aa51172d14"
    heads = [c.hint for c in grid(mixed, "Score after").columns]
    assert "causal models: rank classification, prompt 1" in heads[1]
    names = [r[0].text for r in grid(mixed, "Score after").rows]
    assert "head only, all-MiniLM-L6-v2 (encoder)" in names


def test_headings_say_how_each_task_is_read(shown):
    hints = [c.hint.partition("; ")[2] for c in grid(shown, "Score after").columns[1:4]]
    wanted = [
        "rank classification, prompt 1",
        "writing an answer, prompt 1",
        "likelihood of a text",
    ]
    assert hints == wanted
    titles = [f.title for f in shown.figures() if f.name.startswith("scores-")]
    assert titles[0] == f"sst-2: {wanted[0]}"
    plain = show(make_matrix([LORA], ["sst2"]))
    assert [f.title for f in plain.figures() if f.name.startswith("scores-")] == ["sst2"]


# --- the section ---------------------------------------------------------------------------------


def entries(shown, cell, task):
    """The figures of a cell on a task, of both tables; the second leaves some tasks out."""
    every = {}
    for caption in ("What was forgotten", "Texts and answers"):
        found = grid(shown, caption)
        for line in found.rows:
            if [line[0].text, line[1].text] == [cell, task]:
                every |= {c.title: e for c, e in zip(found.columns, line, strict=True)}
    return every


def test_a_report_of_encoders_has_no_section_on_language_models():
    assert "language" not in [s.key for s in show(make_matrix([LORA], ["sst2"])).sections]


def test_what_was_said_and_forgotten_stands_by_cell_and_task():
    values = [(24.0, 25.2), (25.0, 25.0)]
    made = [
        replace(
            r,
            outcome=replace(
                r.outcome,
                metrics={"log_likelihood": -3.0, "perplexity": 20.0 + r.job.seed},
                unrelated_perplexity_before=values[r.job.seed][0],
                unrelated_perplexity_after=values[r.job.seed][1],
            ),
        )
        for r in make_causal([LORA], ["reviews"], [0, 1])
    ]
    found = entries(show(made), "LoRA r8", "reviews")
    # Means of 20 and 21, and of 5 % and 0 %; half-widths are 12.7062 times half the distance.
    assert (found["perplexity"].text, found["perplexity"].note) == ("20.5 ± 6.35", "n = 2")
    assert found["forgetting"].text == "+2.5\u00a0% ± 31.8\u00a0%"
    assert found["unrelated text"].text == "24.5 → 25.1"
    assert found["training tokens a second"].text.replace(",", "").startswith("28")
    assert "written tokens a second" not in found and "exact match" not in found
    note = grid(show(made), "What was forgotten").note
    assert "row: written tokens a second (the task has no answers to write)" in note


def test_the_untouched_base_forgets_nothing_and_trains_nothing(shown):
    found = entries(shown, "untouched base", "chatterbot")
    assert found["forgetting"].text == "0.0\u00a0% ± 0.0\u00a0%"
    trained = found["training tokens a second"]
    assert (trained.text, trained.note) == ("n/a", "nothing trains")
    assert found["written tokens a second"].text == "80.0"
    other = entries(shown, "LoRA r8", "sst-2")
    assert other["written tokens a second"].text == "–", "a figure that other tasks have"
    assert entries(shown, "LoRA r8", "reviews")["ROUGE-L"].text == "–"
    assert "ROUGE-L" not in other, "a task without further metrics has no row in that table"


def test_the_note_names_the_unrelated_text_and_warns_of_tokenizers(shown):
    note = grid(shown, "What was forgotten").note
    assert note.startswith("Unrelated text: newspaper editorials (editorials), read by the loaded")
    other = grid(shown, "Texts and answers").note
    assert "Perplexities of different models are not comparable" in other


def test_the_lead_names_who_forgot_least_and_most():
    made = changed(make_causal(), LORA, unrelated_perplexity_after=30.0)
    lead = section(show(made), "language").lead
    assert lead.startswith(
        "Forgetting, by the perplexity of unrelated text, mean over tasks: least with AdaLoRA r8"
    )
    assert lead.endswith("most with LoRA r8 at +20.0\u00a0% ± 0.0\u00a0%.")
    bare = changed(make_causal([LORA]), LORA, unrelated_perplexity_after=None)
    assert section(show(bare), "language").lead.startswith("No cell has a figure of what it forgot")


def test_encoders_of_a_mixed_table_are_left_out_of_the_section():
    mixed = show([*make_causal(tasks=["sst-2"]), *make_matrix([ENCODER], ["sst-2"])])
    names = [r[0].text for r in grid(mixed, "What was forgotten").rows]
    assert names == ["LoRA r8", "AdaLoRA r8", "untouched base"]


def test_failed_rows_are_gaps_and_not_figures(rows):
    broken = [fail(r) if r.job.cell == ADALORA else r for r in rows]
    found = entries(show(broken), "AdaLoRA r8", "reviews")
    assert found["perplexity"].text == found["forgetting"].text == "out of memory ×3"


# --- answers -------------------------------------------------------------------------------------


def test_answers_of_the_reference_stand_beside_those_of_the_base(shown):
    found = grid(shown, "What was written on chatterbot")
    assert [c.title for c in found.columns] == ["row", "LoRA r8", "untouched base"]
    assert [r[0].text for r in found.rows] == ["row 1", "row 2", "row 3"]
    assert [e.text for e in found.rows[0][1:]] == ["“answer 0 of lora”", "“answer 0 of base”"]
    assert found.rows[0][1].note.startswith("ROUGE-L 0.4")
    assert "seed 0" in found.note
    captions = [b.caption for b in section(shown, "language").blocks]
    assert len(captions) == 3  # tasks without answers have none


@pytest.mark.slow
def test_answers_are_cut_and_escaped(tmp_path):
    texts = ("<script>alert(1)</script> | a\n\x00b", "x" * 500, " ")
    made = changed(make_causal([LORA], ["chatterbot"], [0]), LORA, completions=texts)
    found = grid(show(made), "What was written").rows
    assert len(found[1][1].text) == 122 and found[1][1].text.endswith("…”")
    assert found[2][1].text == "(nothing)"
    assert found[0][1].note == ""  # not as many predictions as answers
    files = write(tmp_path, made)
    assert "<script>alert" not in files["index.html"] and "<script>alert" not in files["report.md"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | a b" in files["index.html"]
    assert "xxxx" not in files["rows.csv"]


def test_answers_to_other_rows_are_not_set_side_by_side():
    lora, base = make_causal([LORA, BASE], ["chatterbot"], [0])
    short = replace(base, job=replace(base.job, recipe=replace(base.job.recipe, max_length=16)))
    for other in (
        short,
        replace(base, job=replace(base.job, seed=1)),
        replace(base, outcome=replace(base.outcome, completions=("one",))),
    ):
        assert len(grid(show([lora, other]), "What was written").columns) == 2


# --- an untouched base costs nothing, which is no figure -----------------------------------------


def test_costs_of_the_untouched_base_are_missing_with_the_reason(shown):
    for caption in ("Every cell against", "Costs relative", "possibly on", "The evidence"):
        found = grid(shown, caption)
        one = next(r for r in found.rows if r[0].text == "untouched base")
        memory = column(found, one, "peak memory")
        assert (memory.text, memory.note) == ("n/a", "nothing trains"), caption
    found = grid(shown, "possibly on")
    one = next(r for r in found.rows if r[0].text == "untouched base")
    assert column(found, one, "trainable parameters").note.startswith("0 has no place on a scale")
    assert column(found, one, "forgetting").text == "0.0\u00a0%"
    note = grid(shown, "Costs relative").note
    assert "source not recorded" not in note
    steps = grid(shown, "Steps to the target")
    assert [r[0].text for r in steps.rows] == ["LoRA r8", "AdaLoRA r8"]
    weights = column(
        grid(shown, "Commands of"), grid(shown, "Commands of").rows[-1], "initial weights"
    )
    assert weights.note == "nothing trains"


def test_the_untouched_base_puts_no_cell_off_a_front_by_costs_that_it_has_not(rows):
    best = {"metric_value": 0.0, "baseline_value": -6.5}
    good = [
        replace(r, outcome=replace(r.outcome, **best))
        if (r.job.cell, r.job.task) == (BASE, "reviews")
        else r
        for r in rows
    ]
    section_ = section(show(good), "trade")
    for figure in (f for b in section_.blocks if b.kind == "figures" for f in b.figures):
        labels = [p.mark.label for p in figure.drawing.points]
        assert ("untouched base" in labels) == (figure.name == "trade-forgetting")


def test_forgetting_is_a_cost_that_may_fall_below_nothing():
    made = [
        replace(
            r,
            outcome=replace(
                r.outcome,
                unrelated_perplexity_after=(24.5 if r.job.cell == LORA else 26.0)
                + 0.01 * r.job.seed,
            ),
        )
        for r in make_causal([LORA, ADALORA])
    ]
    found = front(built(made), FORGETTING)
    lora, adalora = found.spots
    assert FORGETTING.text(lora.cost) == "−2.0\u00a0%"
    assert (lora.standing, adalora.standing, adalora.by) == ("on", "off", LORA)
    figure = next(f for f in show(made).figures() if f.name == "trade-forgetting")
    assert figure.drawing.x_axis.startswith("perplexity of unrelated text, after / before")
    assert "forgetting" not in str(section(show(make_matrix([LORA, HEAD])), "trade").blocks)


def test_encoders_have_no_forgetting_and_say_why():
    reason = "an encoder reads no text on"
    encoder = [
        replace(r, outcome=replace(r.outcome, null_reasons={"unrelated_perplexity_after": reason}))
        for r in make_matrix([ENCODER], ["sst-2"])
    ]
    mixed = built([*make_causal(tasks=["sst-2"]), *encoder])
    assert front(mixed, FORGETTING).missing == {ENCODER: reason}


@pytest.mark.slow
@pytest.mark.heavy
def test_a_page_of_language_models_can_be_written(tmp_path, rows):
    files = write(tmp_path, rows, options=REPORT_OPTIONS)
    assert "untouched base" in files["index.html"]
    assert "var(--c-base" in files["figures/summary.svg"]
    only = write(tmp_path, make_causal([BASE]), options=replace(REPORT_OPTIONS, reference=BASE))
    assert "untouched base scored" in only["report.md"]


def test_a_base_that_says_one_thing_raises_no_alarm(rows):
    page = show(changed(rows, BASE, collapsed=True))
    assert page.alarms == ()
    assert row(page, "Score after", "untouched base")[1].note == "n = 3: 3 collapsed"


# --- recommendations -----------------------------------------------------------------------------


def ask(records, **wish):
    ((found,), _) = tables_of(records)
    return recommend(found, Wish(**wish))


def test_what_trains_nothing_is_compared_and_never_recommended():
    made = make_causal([LORA, ADALORA, BASE])
    answer = ask(made)
    assert [c.title for c in answer.picks] == ["LoRA r8", "AdaLoRA r8"][: len(answer.picks)]
    base = next(c for c in answer.others if c.cell == BASE)
    assert not base.fits and base.score is not None
    text = advice_text(Advised((answer,), ()))
    assert "trains nothing, for comparison" in text
    assert facts_of(Advised((answer,), ()))["answers"][0]["cells"][-1]["picked"] is False
    assert f"Scores are the {SHARE}; a point is 0.01 of that way." in text


def test_a_limit_that_nothing_meets_is_not_left_open_by_the_base():
    answer = ask(make_causal([LORA, ADALORA, BASE]), seconds=0.001)
    assert answer.verdict == "none fits"
    assert "2 of 2 cells are over the limit" in answer.reasons[0]


def test_only_a_base_is_no_answer():
    answer = ask(make_causal([BASE]))
    assert answer.verdict == "unknown" and answer.reasons[0].startswith("No cell that trains")


def test_a_base_that_is_best_is_what_the_others_are_held_against():
    made = changed(make_causal([LORA, BASE], ["sst-2"]), BASE, metric_value=0.95)
    answer = ask(made, max_drop=1.0)
    assert answer.best == BASE and answer.verdict == "none fits"
    page = section(show(made), "choice")
    assert (
        page.lead == "No cell is shown to stay within one point of the best, so nothing is picked. "
        "Under a memory limit, the highest mean that fits: LoRA r8 from 520 MiB."
    )
    assert "best measured score is that of untouched base" in grid(show(made), "evidence").note


def test_a_table_without_rows_still_averages():
    assert table.build([], [], LORA).read is table.metric_value
    assert "Over 1 task" in summary.finding(built(make_causal([LORA], ["reviews"], [0])))
    made = make_record(outcome=make_outcome())
    assert paragraphs(show([made]), "trade")
