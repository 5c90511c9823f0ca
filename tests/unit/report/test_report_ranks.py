"""Where the ranks went: names of modules, heat maps, ranks over training, sensitivity of layers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from factory import ADALORA, LORA, STEPS, make_job, make_matrix, make_outcome, make_record
from peftmark.catalog.methods import Cell
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.render import chart_specs, draw, draw_heatmaps, draw_layer_change, layer_specs, page
from peftmark.report import ranks
from peftmark.report.module_names import OUTSIDE, Place, layer_order, place
from shown import grid, section, show, write

TOP = Cell("sensitive-layers", 8, "none")
BOTTOM = Cell("sensitive-layers", 8, "none", "bottom")
SCALED = Cell("sensitive-ranks", None, "none")


# --- names of modules ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer", "module"),
    [
        ("bert.encoder.layer.3.attention.self.query", 3, "query"),
        ("bert.encoder.layer.11.attention.output.dense", 11, "attention output"),
        ("bert.encoder.layer.0.intermediate.dense", 0, "feed-forward in"),
        ("bert.encoder.layer.0.output.dense", 0, "feed-forward out"),
        ("bert.encoder.layer.0.output.dense.base_layer", 0, "feed-forward out"),
        ("bert.encoder.layer.7", 7, ""),
        ("roberta.encoder.layer.23.attention.self.value", 23, "value"),
        ("roberta.encoder.layer.2.attention.self.key", 2, "key"),
        ("deberta.encoder.layer.5.attention.self.query_proj", 5, "query"),
        ("deberta.encoder.layer.5.attention.self.key_proj", 5, "key"),
        ("deberta.encoder.layer.5.attention.self.value_proj", 5, "value"),
        ("distilbert.transformer.layer.4.attention.q_lin", 4, "query"),
        ("distilbert.transformer.layer.4.attention.out_lin", 4, "attention output"),
        ("distilbert.transformer.layer.4.ffn.lin1", 4, "feed-forward in"),
        ("distilbert.transformer.layer.4.ffn.lin2", 4, "feed-forward out"),
        ("mpnet.encoder.layer.9.attention.attn.q", 9, "query"),
        ("mpnet.encoder.layer.9.attention.attn.o", 9, "attention output"),
        ("mpnet.encoder.layer.9.intermediate.dense", 9, "feed-forward in"),
        ("model.layers.30.self_attn.o_proj", 30, "attention output"),
        ("model.layers.1.attn.Wqkv", 1, "query, key, value"),
        ("model.layers.2.mlp.experts.7.down_proj", 2, "feed-forward out"),
        ("bert.pooler.dense", OUTSIDE, "bert.pooler.dense"),
        ("bert.encoder.layer.2.novel", 2, "novel"),
    ],
)
def test_a_name_says_layer_and_module(name, layer, module):
    assert place(name) == Place(layer, module)


def test_layers_stand_from_the_input_up_without_gaps():
    assert layer_order({3, 1}) == [0, 1, 2, 3]
    assert layer_order({OUTSIDE, 1}) == [0, 1, OUTSIDE]
    assert layer_order(set()) == []


# --- made-up rows --------------------------------------------------------------------------------


def name(layer, part="attention.self.query"):
    return f"bert.encoder.layer.{layer}.{part}"


def with_ranks(rows, histories, **changes):
    """The rows with one rank history for all, or the one that a function finds for a row."""
    found = []
    for row in rows:
        history = histories(row) if callable(histories) else histories
        outcome = replace(row.outcome, rank_history=history, **changes)
        found.append(replace(row, outcome=outcome))
    return found


def pruned(query, value):
    """Two layers whose query and value go from 12 to a last rank each."""

    def path(last):
        return [12, 12, 12, last, last, last]

    value_name = "attention.self.value"
    return {
        name(0): path(query),
        name(0, value_name): path(value),
        name(1): path(12),
        name(1, value_name): path(0),
    }


def adalora(**changes):
    rows = make_matrix(cells=[ADALORA], tasks=["sst2"], seeds=[0, 1])
    return with_ranks(rows, pruned(4, 8), **changes)


def plain():
    uniform = {name(layer): [8] * len(STEPS) for layer in range(2)}
    return with_ranks(make_matrix(cells=[LORA], tasks=["sst2"], seeds=[0, 1]), uniform)


def figures(shown, kind):
    return [f for f in shown.figures() if isinstance(f.drawing, kind)]


# --- final ranks ---------------------------------------------------------------------------------


def test_without_ranks_that_differ_or_move_there_is_no_section():
    assert "ranks" not in [s.key for s in show(make_matrix(cells=[LORA])).sections]
    assert "ranks" not in [s.key for s in show(plain()).sections]


def test_final_ranks_stand_by_layer_and_module():
    shown = show([*plain(), *adalora()])
    [figure] = figures(shown, chart_specs.RankMap)
    drawing = figure.drawing
    assert drawing.layers == ("0", "1")
    assert drawing.modules == ("query", "value")
    assert drawing.ranks == ((4.0, 8.0), (12.0, 0.0))
    assert figure.title == "AdaLoRA r8"
    assert "Most rank in query (8 a layer), least in value (4)" in figure.finding
    assert section(shown, "ranks").lead == (
        "Ranks moved in training in 1 cell. AdaLoRA r8 ends with "
        "most rank in query, least in value."
    )
    found = [[e.text for e in r] for r in grid(shown, "Final rank").rows]
    assert found == [["AdaLoRA r8", "0", "4", "8"], ["AdaLoRA r8", "1", "12", "0"]]


def test_a_run_without_an_adapter_there_counts_as_zero_and_no_run_as_none():
    rows = make_matrix(cells=[TOP], tasks=["sst2", "stsb"], seeds=[0, 1])

    def chosen(row):
        return {name(1 if row.job.seed or row.job.task == "stsb" else 2): [8] * len(STEPS)}

    shown = show(with_ranks(rows, chosen))
    [figure] = figures(shown, chart_specs.RankMap)
    assert figure.drawing.ranks == ((None,), (6.0,), (2.0,))
    assert "–: no adapter" in figure.note
    entry = grid(shown, "Final rank").rows[1][2]
    assert (entry.text, entry.note) == ("6", "4 to 8 by task")


def test_the_squares_hold_their_numbers_and_unknown_ones_a_dash():
    mark = chart_specs.Mark("X", "adalora")
    drawing = chart_specs.RankMap(
        mark, ("0", "1"), ("query", "feed-forward out"), ((4.5, 8.0), (None, 0))
    )
    text = draw.render(page.Figure("map", "finding", drawing, "how to read it"))
    assert re.findall(r">([\d.–]+)</text>", text).count("4.5") == 1
    assert all(f">{word}<" in text for word in ("8.0", "–", "0.0", "query", "feed-fwd", "out"))
    assert "var(--c-adalora,#d55e00)" in text
    assert "<desc>how to read it</desc>" in text


# --- over training -------------------------------------------------------------------------------


def test_the_sentence_says_by_which_step_how_much_was_pruned():
    def path(totals):
        return {name(0): list(totals)}

    rows = with_ranks(adalora(), path([100, 90, 80, 60, 40, 20]))
    [figure] = figures(show(rows), chart_specs.RankPath)
    assert figure.finding == (
        "From 100 at step 20 to 20: of the pruned ranks a quarter by step 60, half by step 80 and "
        "three quarters by step 100 of 120."
    )
    sudden = with_ranks(adalora(), path([100, 100, 20, 20, 20, 20]))
    [figure] = figures(show(sudden), chart_specs.RankPath)
    assert "of the pruned ranks three quarters by step 60 of 120" in figure.finding
    growing = with_ranks(adalora(), path([4, 6, 8, 8, 8, 8]))
    [figure] = figures(show(growing), chart_specs.RankPath)
    assert figure.finding == "The total active rank goes from 4 to 8."


def test_a_path_has_every_run_the_window_and_the_importance_by_layer():
    importance = {
        name(0): [None, 1.0, 2.0, 3.0, 4.0, 5.0],
        name(1): [None, 3.0, 1.0, 1.0, 1.0, 1.0],
    }
    [figure] = figures(show(adalora(importance_history=importance)), chart_specs.RankPath)
    drawing = figure.drawing
    assert drawing.steps == STEPS
    assert drawing.mean == (48.0, 48.0, 48.0, 24.0, 24.0, 24.0)
    assert len(drawing.runs) == 2
    assert drawing.ranks[0] == (24.0, 24.0, 24.0, 12.0, 12.0, 12.0)
    assert drawing.importance[0] == (None, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert drawing.window == (12, 96)
    assert "starts after step 12 and ends at step 96" in figure.note
    table = grid(show(adalora(importance_history=importance)), "Active rank over training")
    assert [e.text for e in table.rows[3]] == ["AdaLoRA r8", "80", "24", "12", "12"]
    assert [e.note for e in table.rows[1][3:]] == ["1", "3"]


def test_many_layers_have_a_row_each_with_their_ranks_at_the_end():
    """A column for each of thirty layers fits no page."""
    history = {name(n): [6, 6, 6, 6, 6, n % 5] for n in range(13)}
    importance = {name(3): [None, 1.0, 1.0, 1.0, 1.0, 2.5]}
    rows = [
        replace(r, outcome=replace(r.outcome, rank_history=history, importance_history=importance))
        for r in adalora()
    ]
    table = grid(show(rows), "Active rank at the end by layer")
    assert [c.title for c in table.columns] == ["layer", "AdaLoRA r8"]
    assert [r[0].text for r in table.rows] == [str(n) for n in range(13)]
    assert [r[1].text for r in table.rows] == [str(n % 5) for n in range(13)]
    assert [r[1].note for r in table.rows[2:5]] == ["", "2.5", ""]


def test_the_window_of_two_stages_is_counted_from_the_second():
    schedule = AdaLoraSchedule(12, 6, 12, 4, 0.85, 0.85, 0.5)
    job = make_job(method="two-stage")
    recipe = replace(job.recipe, adalora=schedule, options={"first_stage": 0.5})
    row = make_record(job=replace(job, recipe=recipe))
    [figure] = figures(show(with_ranks([row], pruned(4, 8))), chart_specs.RankPath)
    assert figure.drawing.window == (66, 108)


def test_tasks_of_other_lengths_have_pictures_of_their_own():
    rows = adalora()
    short = replace(rows[0].outcome, curve=rows[0].outcome.curve[:3])
    short = replace(short, rank_history={name(0): [12, 8, 4]})
    other = replace(rows[0], job=replace(rows[0].job, task="rte"), outcome=short)
    found = figures(show([*rows, other]), chart_specs.RankPath)
    assert [f.title for f in found] == ["AdaLoRA r8 on sst2", "AdaLoRA r8 on rte"]


def test_many_evaluated_steps_are_thinned_and_it_says_so():
    points = tuple(replace(make_outcome().curve[0], step=10 * (i + 1)) for i in range(100))
    outcome = make_outcome(curve=points, rank_history={name(0): list(range(200, 100, -1))})
    [figure] = figures(show([make_record(outcome=outcome)]), chart_specs.RankPath)
    steps = figure.drawing.steps
    assert (len(steps), steps[0], steps[-1]) == (24, 10, 1000)
    assert "24 of 100 evaluated steps are drawn" in figure.note


def test_at_most_eight_cells_are_drawn_one_of_each_method_among_them():
    cells = [Cell("adalora", rank, "none") for rank in (1, 2, 4, 8, 16, 32, 64, 128, 256)]
    hybrid = Cell("hybrid", None, "none")
    rows = make_matrix(cells=[*cells, hybrid], tasks=["sst2"], seeds=[0])
    shown = show(with_ranks(rows, pruned(4, 8)))
    drawn = [f.title for f in figures(shown, chart_specs.RankMap)]
    assert len(drawn) == ranks.MOST_PICTURES
    assert "layered hybrid" in drawn
    assert "Drawn: 8 of 10 cells with such ranks." in str(section(shown, "ranks").blocks)
    assert len(grid(shown, "Final rank").rows) == 20


# --- sensitivity ---------------------------------------------------------------------------------


def scored(cells, tasks=("sst2",), seeds=(0, 1, 2)):
    """Three layers of rising score; the cells adapt the top, the bottom, or all by rank."""

    def histories(row):
        if row.job.method == "sensitive-ranks":
            return {name(i): [2 + 2 * i] * len(STEPS) for i in range(3)}
        top = 2 if row.job.seed else 1
        return {name(0 if row.job.variant else top): [8] * len(STEPS)}

    rows = make_matrix(cells=cells, tasks=tasks, seeds=seeds)
    scores = {f"bert.encoder.layer.{i}": 1.0 + i for i in range(3)}
    return with_ranks(rows, histories, layer_scores=scores)


def test_cells_with_the_same_scores_share_a_picture_that_says_what_each_chose():
    shown = show(scored([TOP, BOTTOM, SCALED]))
    [figure] = figures(shown, chart_specs.LayerBars)
    lanes = {lane.mark.label: lane.texts for lane in figure.drawing.lanes}
    assert figure.drawing.scores == ((1.0,) * 3, (2.0,) * 3, (3.0,) * 3)
    assert lanes == {
        "gradient-chosen layers r8": ("–", "1/3", "2/3"),
        "gradient-chosen layers r8, bottom": ("3/3", "–", "–"),
        "gradient-scaled ranks": ("r2", "r4", "r6"),
    }
    assert figure.finding == (
        "Largest gradients in layers 2, 1 and 0; the largest is 3.00 times the smallest. "
        "gradient-chosen layers r8 took no layer with every seed; gradient-chosen layers r8, "
        "bottom took layer 0 with every seed."
    )
    found = [[e.text for e in r] for r in grid(shown, "Sensitivity by layer").rows[:3]]
    assert [r[3:] for r in found] == [
        ["1", "0 of 3", "–"],
        ["2", "1 of 3", "8"],
        ["3", "2 of 3", "8"],
    ]


def test_a_missing_seed_does_not_part_cells_but_other_scores_do():
    rows = scored([TOP, BOTTOM])
    assert len(figures(show(rows[:-1]), chart_specs.LayerBars)) == 1
    other = replace(rows[-1].outcome, layer_scores={name(0): 9.0, name(1): 1.0, name(2): 1.0})
    apart = [*rows[:-1], replace(rows[-1], outcome=other)]
    assert len(figures(show(apart), chart_specs.LayerBars)) == 2


def test_scores_without_moved_ranks_are_still_a_section():
    everywhere = {name(i): [8] * len(STEPS) for i in range(3)}
    shown = show(with_ranks(scored([TOP]), everywhere))
    assert section(shown, "ranks").lead.startswith("No rank moved; gradient-chosen layers r8")
    assert not figures(shown, chart_specs.RankMap)


# --- drawings ------------------------------------------------------------------------------------


def widest():
    """Every kind at its widest: deep models, high ranks, long names."""
    mark = chart_specs.Mark("two-stage LoRA → AdaLoRA + NF4 r16, budget 0.1%, bf16", "mixed")
    layers = tuple(map(str, range(24)))
    modules = ("query, key, value", "attention output", "feed-forward gate", "novel.dense.thing")
    steps = tuple(range(5000, 125_000, 5000))
    row = (512.25,) * len(steps)
    yield draw_heatmaps.draw_rank_map(
        chart_specs.RankMap(mark, layers, modules, ((512.25,) * 4,) * 24)
    )
    yield draw_heatmaps.draw_rank_map(
        chart_specs.RankMap(mark, ("outside",), ("query",), ((None,),))
    )
    yield draw_heatmaps.draw_rank_path(
        chart_specs.RankPath(
            mark, steps, (row,), row, layers, (row,) * 24, (row,) * 24, (5000, 120_000)
        )
    )
    lanes = (chart_specs.Lane(mark, ("r127.5",) * 24),) * 5
    yield draw_heatmaps.draw_layer_bars(
        chart_specs.LayerBars(layers, ((1e-7, 12345.0),) * 24, "score: gradient norm", lanes)
    )
    squares = chart_specs.RankMap(mark, layers, modules, ((512.25,) * 4,) * 24)
    figures = [
        layer_specs.BeforeAfter("on <|begin_of_text|>", ((1e-7, 0.123456),) * 23 + (None,)),
        layer_specs.BeforeAfter("distance", ((1234.5, 2345.6),) * 24),
    ]
    for known in (squares, None):
        drawn = layer_specs.LayerChange(mark, layers, known, (*figures, *figures))
        yield draw_layer_change.draw_layer_change(drawn)


@pytest.mark.slow
def test_no_text_leaves_its_picture():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for canvas in widest():
        agg = FigureCanvasAgg(canvas)
        drawn = canvas.get_tightbbox(agg.get_renderer())
        width, height = canvas.get_size_inches()
        assert drawn.x0 >= -0.01 and drawn.x1 <= width + 0.01
        assert drawn.y0 >= -0.01 and drawn.y1 <= height + 0.01


@pytest.mark.slow
@pytest.mark.heavy
def test_the_section_is_in_both_files_with_the_same_bytes_each_time(tmp_path):
    rows = [*adalora(), *scored([TOP, SCALED])]
    first = write(tmp_path / "a", rows)
    assert first == write(tmp_path / "b", rows)
    assert {"figures/ranks-0.svg", "figures/ranks-over-0.svg", "figures/layers-0-0.svg"} <= set(
        first
    )
    assert '<a href="#ranks">' in first["index.html"]
    assert "Final rank by layer and module" in first["report.md"]
