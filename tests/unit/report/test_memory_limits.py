"""What to pick for any memory limit: one sentence, held to the largest task, from rows alone."""

from __future__ import annotations

from dataclasses import replace

from factory import ADALORA, FULL, HEAD, LORA, QLORA, make_failure, make_matrix
from peftmark.advice.candidates import Wish
from peftmark.advice.recommend import recommend
from peftmark.analysis.table import build
from shown import row, show

MIB = 2**20
CELLS = {"lora": LORA, "full": FULL, "head": HEAD, "adalora": ADALORA, "qlora": QLORA}
START = "Under a memory limit, the highest mean that fits: "


def rows(tasks=("sst2",), cells=CELLS, **known):
    """Name of a cell -> (score, MiB on each task); the seeds of a cell use a little less each."""
    found = []
    for name, (score, *sizes) in known.items():
        for record in make_matrix([cells[name]], list(tasks), range(3)):
            size = sizes[tasks.index(record.job.task)]
            outcome = replace(
                record.outcome,
                metric_value=score + 0.001 * record.job.seed,
                baseline_value=0.5,
                peak_memory_bytes=int(size * MIB) - record.job.seed,
            )
            found.append(replace(record, outcome=outcome))
    return found


def told(records):
    lead = next(s for s in show(records).sections if s.key == "choice").lead
    return lead.partition(START)[2]


def test_a_cell_that_takes_more_and_scores_less_is_never_named():
    made = rows(lora=(0.8, 500), adalora=(0.79, 520), full=(0.85, 900))
    assert told(made) == "LoRA r8 from 500 MiB and full fine-tuning from 900 MiB."


def test_limits_are_held_to_the_largest_task_as_recommend_holds_them():
    made = rows(
        ("sst2", "rte"), lora=(0.8, 500, 700), qlora=(0.78, 100, 600), full=(0.85, 400, 900)
    )
    text = told(made)
    assert text == (
        "QLoRA r8 from 600 MiB, LoRA r8 from 700 MiB and full fine-tuning from 900 MiB on its "
        "largest task."
    )
    table = build(made, [r.job for r in made], LORA)
    for limit, fitting in ((599, set()), (600, {"QLoRA r8"}), (700, {"QLoRA r8", "LoRA r8"})):
        picks = recommend(table, Wish(memory=limit * MIB)).picks
        assert {c.title for c in picks} == fitting


def test_what_learned_too_little_or_trains_nothing_fits_no_limit():
    assert told(rows(head=(0.51, 50), lora=(0.8, 500))) == "LoRA r8 from 500 MiB."


def test_a_cell_that_ran_out_of_memory_has_no_size():
    made = rows(lora=(0.8, 500), full=(0.85, 900))
    short = replace(made[-1], outcome=make_failure("out_of_memory"))
    assert told([*made[:-1], short]) == "LoRA r8 from 500 MiB."


def test_without_memory_or_with_two_meters_nothing_is_said():
    made = rows(lora=(0.8, 500), full=(0.85, 900))
    none = [replace(r, outcome=replace(r.outcome, peak_memory_bytes=None)) for r in made]
    assert told(none) == ""
    other = replace(made[0].outcome, peak_memory_source="another meter")
    assert told([replace(made[0], outcome=other), *made[1:]]) == ""


def test_of_many_cells_the_cheapest_and_the_best_are_named():
    cells = {f"r{r}": LORA._replace(size=r) for r in (2, 4, 8, 16, 32, 64)}
    sizes = {name: (0.70 + 0.02 * at, 100 + at) for at, name in enumerate(cells)}
    assert told(rows(cells=cells, **sizes)) == (
        "LoRA r2 from 100 MiB, LoRA r4 from 101 MiB, LoRA r8 from 102 MiB, 2 more and LoRA r64 "
        "from 105 MiB."
    )


def verdict_of_qlora(mean):
    """The verdict of one of two cells, whose seeds lie 0.010 apart."""
    made = rows(lora=(0.8, 500), qlora=(0.8, 400), full=(0.8, 900))
    spread = {LORA: (0.0, 0.0, 0.0), QLORA: (-0.01, 0.0, 0.01), FULL: (0.03, -0.02, 0.01)}
    moved = []
    for record in made:
        value = 0.8 + spread[record.job.cell][record.job.seed] + mean * (record.job.cell == QLORA)
        moved.append(replace(record, outcome=replace(record.outcome, metric_value=value)))
    shown = row(show(moved), "Every cell against", "QLoRA r8")
    return shown[2].text, shown[3]


def test_an_interval_that_excludes_zero_beside_undecided_says_why():
    text, verdict = verdict_of_qlora(0.026)
    assert text == "+0.026 ± 0.025" and verdict.text == "undecided"
    assert " as one of 2 differences judged together; needs about " in verdict.note
    text, verdict = verdict_of_qlora(0.02)
    assert text == "+0.020 ± 0.025" and verdict.text == "undecided"
    assert "together" not in verdict.note
