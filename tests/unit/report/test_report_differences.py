"""Who can be told apart, other ways to sum up, and the way to the target, as a reader sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import (
    ADALORA,
    HEAD,
    LORA,
    QLORA,
    make_job,
    make_matrix,
    make_outcome,
    make_record,
    rows_of,
)
from peftmark.analysis import comparison, table
from peftmark.analysis.stats import Estimate
from peftmark.catalog.methods import Cell
from peftmark.record.outcome import CurvePoint, numbers
from peftmark.render import chart_specs, draw
from peftmark.report import differences
from shown import column, fail, grid, paragraphs, row, show


@pytest.fixture(scope="module")
def shown():
    return show(make_matrix(cells=[LORA, ADALORA, QLORA, HEAD], seeds=range(5)))


def test_cells_that_cannot_be_told_apart_share_a_rank():
    found = show(
        rows_of(
            lora=[0.80, 0.81, 0.82, 0.80],
            adalora=[0.80, 0.812, 0.82, 0.801],
            full=[0.90, 0.911, 0.921, 0.90],
        )
    )
    scores = grid(found, "Score after")
    ranks = {r[0].text: column(scores, r, "rank").text for r in scores.rows}
    assert ranks.pop("baseline predictor") == "–"
    assert ranks == {"LoRA r8": "2–3", "AdaLoRA r8": "2–3", "full fine-tuning r8": "1"}
    text = paragraphs(found, "quality")
    assert "Of 3 pairs of cells 2 can be told apart" in text


def test_the_square_shows_only_what_is_shown(shown):
    square = grid(shown, "Every pair")
    head = next(r for r in square.rows if r[0].text == "head only")
    against = column(square, head, "LoRA r8")
    assert against.text.startswith("−0.09")
    back = column(square, square.rows[0], "head only")
    assert back.text == against.text.replace("−", "+")
    assert column(square, head, "head only").text == "–"
    assert column(square, square.rows[0], "QLoRA r8").text in ("·", "=")


def test_many_cells_have_ranks_and_no_square(monkeypatch):
    monkeypatch.setattr(differences, "MOST_SQUARE", 2)
    found = show(make_matrix(cells=[LORA, ADALORA, QLORA], seeds=range(2)))
    with pytest.raises(StopIteration):
        grid(found, "Every pair")
    assert "pairs of cells" in paragraphs(found, "quality")
    monkeypatch.setattr(comparison, "MOST_CELLS", 2)
    monkeypatch.setattr(differences, "MOST_CELLS", 2)
    found = show(make_matrix(cells=[LORA, ADALORA, QLORA], seeds=range(2)))
    assert "Pairs of 3 cells are not compared" in paragraphs(found, "quality")
    assert "rank" not in [c.title for c in grid(found, "Score after").columns]


def test_a_difference_by_task_has_its_verdict_and_the_noise_of_rows(shown):
    entry = row(shown, "Difference to LoRA r8 by task", "head only")[1]
    assert entry.text.startswith("−0.09")
    assert entry.note.startswith("lower; n = 5; rows ± 0.0")


def test_rows_without_predictions_say_nothing_of_rows():
    records = [
        replace(r, outcome=replace(r.outcome, predictions=numbers(()), references=numbers(())))
        for r in make_matrix(cells=[LORA, HEAD], seeds=range(3))
    ]
    found = show(records)
    assert "rows ±" not in row(found, "Difference to LoRA r8 by task", "head only")[1].note
    last = row(found, "Other ways", "head only")[-1]
    assert (last.text, last.note) == ("n/a", "no predictions on the same rows")


def test_the_noise_of_rows_is_left_out_of_very_many_comparisons(monkeypatch):
    monkeypatch.setattr(differences, "MOST_ROW_ERRORS", 1)
    found = show(make_matrix(cells=[LORA, ADALORA, HEAD], seeds=range(2)))
    note = grid(found, "Difference to LoRA r8 by task").note
    assert "left out of more than 1 comparisons" in note
    assert "rows ±" not in row(found, "Difference to LoRA r8 by task", "head only")[1].note


def test_other_ways_to_sum_up_by_hand():
    found = show(rows_of(lora=[0.80, 0.82, 0.84], head=[0.70, 0.73, 0.75]))
    entries = row(found, "Other ways", "head only r8")
    texts = {
        c.title: e.text for c, e in zip(grid(found, "Other ways").columns, entries, strict=True)
    }
    # Every run of LoRA beats every run of the head; three signs alike: 2 of 8 flips.
    assert texts["beats the reference"] == "0.00"
    assert texts["sign flip"] == texts["Wilcoxon"] == "0.25"
    # Differences -0.10, -0.09, -0.09: mean -0.0933, s 0.00577, d -16.17, Hedges' factor for n = 3
    assert texts["effect size"].startswith("−")
    assert "no exact p falls below 0.25" in grid(found, "Other ways").note


def test_an_unfinished_cell_has_reasons_everywhere():
    records = make_matrix(cells=[LORA, HEAD], seeds=range(2))
    records = [fail(r) if r.job.cell == HEAD else r for r in records]
    found = show(records)
    for caption in ("Difference to LoRA r8 by task", "Other ways", "Every cell against"):
        entries = row(found, caption, "head only")[1:]
        assert all(e.text and e.text != "0" for e in entries)
        assert any("out of memory" in f"{e.text} {e.note}" for e in entries)


# --- the way to the target -----------------------------------------------------------------------


def runs(method, steps):
    """Runs of one cell: the step at which each reaches the target, None for never."""
    curve = tuple(CurvePoint(s, 0.5, 0.7, s * 0.1) for s in (20, 40, 60))
    return [
        make_record(
            job=make_job(method=method, seed=seed),
            outcome=make_outcome(target_reached=s is not None, steps_to_target=s, curve=curve),
        )
        for seed, s in enumerate(steps)
    ]


def test_medians_count_runs_that_never_arrive():
    found = show([*runs("lora", [20, 40, 60]), *runs("adalora", [40, None, None])])
    lora, other = (row(found, "Steps to", name) for name in ("LoRA r8", "AdaLoRA r8"))
    assert (lora[1].text, lora[1].note, lora[2].text) == ("40", "20 to 60", "3 of 3")
    assert (other[1].text, other[2].text) == ("not by half", "1 of 3")
    seconds = row(found, "Training time to", "LoRA r8")[1]
    assert seconds.text == "4.00"
    [figure] = [f for f in found.figures() if isinstance(f.drawing, chart_specs.Waits)]
    assert figure.finding == (
        "Half of the runs of LoRA r8 are there by step 40; AdaLoRA r8: fewer than half."
    )
    by_label = {line.mark.label: line for line in figure.drawing.lines}
    shares = [pytest.approx(s) for _, s in by_label["LoRA r8"].points]
    assert shares == [1.0, 2 / 3, 1 / 3, 0.0]
    assert by_label["AdaLoRA r8"].points == ((0.0, 1.0), (40, pytest.approx(2 / 3)))
    assert by_label["AdaLoRA r8"].end == 60
    assert "AdaLoRA r8" in draw.render(figure)


def test_a_ratio_of_medians_stands_where_both_exist():
    found = show([*runs("lora", [20, 20, 20]), *runs("adalora", [40, 40, None])])
    assert row(found, "Steps to", "AdaLoRA r8")[1].note == "2.00×"


def test_nobody_at_the_target_draws_nothing():
    found = show(runs("lora", [None, None]))
    assert not [f for f in found.figures() if isinstance(f.drawing, chart_specs.Waits)]
    assert row(found, "Steps to", "LoRA r8")[1].text == "not reached"


def test_many_pictures_are_reduced_to_one_a_task(monkeypatch):
    from peftmark.report import learning

    cells = [LORA, *(Cell("lora", rank, "none") for rank in range(100, 110))]
    records = make_matrix(cells=cells, seeds=[0])
    built = table.build(records, [r.job for r in records], LORA)

    def curves():
        figures = [
            f for b in learning.section(built).blocks if b.kind == "figures" for f in b.figures
        ]
        return [f for f in figures if isinstance(f.drawing, chart_specs.Curves)]

    assert len(curves()) == 4
    monkeypatch.setattr(learning, "MOST_PANELS", 3)
    assert len(curves()) == 2


def test_very_many_rows_of_costs_are_summed_up(monkeypatch):
    from peftmark.report import costs

    records = make_matrix(cells=[LORA, ADALORA], seeds=[0])
    assert [r[1].text for r in grid(show(records), "Time and work").rows] == ["sst2"] * 2 + [
        "stsb"
    ] * 2
    monkeypatch.setattr(costs, "MOST_ROWS", 3)
    summed = grid(show(records), "Time and work")
    assert [r[1].text for r in summed.rows] == ["all tasks"] * 2
    assert "Means over all tasks" in summed.note


def test_an_estimate_without_interval_is_not_given_one():
    found = show(rows_of(lora=[0.8], head=[0.7]))
    assert row(found, "Every cell against", "head only r8")[3].text == "no interval"
    assert row(found, "Every cell against", "head only r8")[4].text == "n/a"
    assert Estimate(0.1, None, 1).low == 0.1
