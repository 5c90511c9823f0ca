"""The sections on the trade and on the choice, and the picture of a front."""

import io
import random
import re
from dataclasses import replace

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from factory import (
    ADALORA,
    ADALORA_NF4,
    FULL,
    HEAD,
    LORA,
    QLORA,
    make_failure,
    make_matrix,
)
from peftmark.advice import guide_verdicts
from peftmark.advice.branches import Advice, Group, Test
from peftmark.advice.guides import ADVICE
from peftmark.analysis.stats import Estimate
from peftmark.analysis.table import build
from peftmark.catalog.methods import METHODS, Cell
from peftmark.catalog.metrics import METRICS
from peftmark.catalog.tasks import TASKS as KNOWN
from peftmark.render import draw_pareto, page, svg
from peftmark.render.chart_specs import Mark, Scatter, ScatterPoint
from peftmark.render.style import STYLE
from peftmark.report import guides, pareto, recommendation

LORA16 = Cell("lora", 16, "none")
CELLS = (LORA, LORA16, ADALORA, QLORA, HEAD, FULL)
TASKS = ("sst-2", "sts-b")


def rows(cells=CELLS, tasks=TASKS, seeds=range(5), **changes):
    return make_matrix(cells, tasks, seeds, **changes)


def table_of(records):
    return build(records, [r.job for r in records], LORA)


def trade(table):
    return pareto.section(table, pareto.fronts(table))


def choice(table):
    return recommendation.section(table, recommendation.answers_of(table))


def changed(records, cells, **outcome):
    return [
        replace(r, outcome=replace(r.outcome, **outcome)) if r.job.cell in cells else r
        for r in records
    ]


def draw(drawing, name="x"):
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        canvas = draw_pareto.draw_scatter(drawing)
        buffer = io.StringIO()
        blank = {"Date": None, "Creator": None, "Format": None, "Type": None}
        canvas.savefig(buffer, format="svg", transparent=True, metadata=blank)
        width, height = canvas.get_size_inches() * 72
    return svg.inline(buffer.getvalue(), name, "finding", "", round(width), round(height))


def figures(table):
    return {c.figure.name: c.figure for c in pareto.charts(table, pareto.fronts(table))}


def grid(section, caption):
    grids = [b for b in section.blocks if isinstance(b, page.Grid)]
    return next(g for g in grids if caption in g.caption)


def places(section):
    """Cell -> column -> the note of its entry."""
    found = grid(section, "possibly on")
    heads = [c.title for c in found.columns]
    return {r[0].text: {h: e.note for h, e in zip(heads, r, strict=True)} for r in found.rows}


# --- the trade ----------------------------------------------------------------------------------


def test_every_primary_metric_goes_up_as_the_trade_takes_for_granted():
    assert {METRICS[task.metric].direction for task in KNOWN.values()} == {"higher"}


def test_each_cost_has_a_picture_and_every_cell_a_place():
    section = trade(table_of(rows()))
    assert list(figures(table_of(rows()))) == ["trade-memory", "trade-time", "trade-parameters"]
    found = places(section)
    assert len(found) == len(CELLS) and next(iter(found)) == "LoRA r8"
    assert found["QLoRA r8"]["peak memory"] == "on"
    assert found["QLoRA r8"]["trainable parameters"] == "off: LoRA r8"
    assert found["head only"]["peak memory"] == "off: QLoRA r8"
    assert found["head only"]["training time"] == "on"
    assert found["AdaLoRA r8"]["peak memory"].startswith("off: LoRA")
    entry = next(r for r in grid(section, "possibly on").rows if r[0].text == "QLoRA r8")[2]
    assert (entry.text, entry.kind, entry.sort) == ("301 MiB", "number", pytest.approx(301 * 2**20))


def test_what_was_not_measured_is_not_drawn_and_says_why():
    section = trade(table_of(rows()))
    (note,) = [b.text for b in section.blocks if isinstance(b, page.Paragraph)]
    assert note == (
        "Not drawn: energy (no RAPL counters on this machine); price of a run (no price of an hour "
        "was given; --price 2.50USD)."
    )


def test_energy_is_drawn_where_it_was_measured():
    rng = random.Random(3)
    records = [
        replace(r, outcome=replace(r.outcome, energy_cpu_joules=300 * rng.uniform(0.9, 1.1)))
        for r in rows()
    ]
    section = trade(table_of(records))
    assert "trade-energy" in figures(table_of(records))
    (note,) = [b.text for b in section.blocks if isinstance(b, page.Paragraph)]
    assert "energy" not in note
    on_gpu = [
        replace(
            r,
            job=replace(r.job, device="cuda"),
            outcome=replace(r.outcome, energy_gpu_joules=200.0, energy_cpu_joules=None),
        )
        for r in rows()
    ]
    assert "trade-energy" in figures(table_of(on_gpu))


def test_memory_of_different_meters_is_not_drawn():
    records = changed(rows(), [QLORA], peak_memory_source="torch_allocated_bytes")
    section = trade(table_of(records))
    assert "trade-memory" not in figures(table_of(records))
    notes = " ".join(b.text for b in section.blocks if isinstance(b, page.Paragraph))
    assert "peak memory (measured by different meters: live_bytes; torch_allocated_bytes)" in notes


def test_a_cell_without_a_cost_or_a_score_has_its_reason():
    records = changed(rows(), [QLORA], peak_memory_bytes=None)
    records = [
        replace(r, outcome=make_failure()) if (r.job.cell, r.job.task) == (HEAD, "sts-b") else r
        for r in records
    ]
    section = trade(table_of(records))
    found = places(section)
    assert found["QLoRA r8"]["peak memory"] == "peak memory not recorded on every task"
    assert found["QLoRA r8"]["training time"].startswith(("on", "off", "possibly on"))
    assert found["head only"]["peak memory"] == "sts-b: out of memory"
    assert found["head only"]["score"] == "sts-b: out of memory"
    assert len(figures(table_of(records))["trade-memory"].drawing.points) == 4


def test_one_seed_puts_nothing_off_the_front_and_says_so():
    section = trade(table_of(rows(seeds=[0])))
    assert "No cell is shown to beat all others below any cost" in section.lead
    standing = {n for notes in places(section).values() for n in list(notes.values())[2:]}
    assert standing == {"on", "possibly on"}


def test_the_lead_names_a_cell_that_nobody_beats_only_if_that_is_shown():
    cells = (LORA, QLORA, HEAD)
    records = [
        replace(r, outcome=replace(r.outcome, metric_value=r.outcome.metric_value + gain))
        for r in rows(cells)
        for gain in [0.002 * (r.job.seed - 2) if r.job.cell == LORA else 0.0]
    ]
    lead = trade(table_of(records)).lead
    assert lead == (
        "Nobody beats QLoRA r8 below 520 MiB of peak memory: head only is shown to score lower."
    )
    best = trade(table_of(rows((HEAD, LORA)))).lead
    assert best == "Nobody beats LoRA r8 at any peak memory: head only is shown to score lower."


def test_tables_without_a_trade_say_so():
    failed = [replace(r, outcome=make_failure()) for r in rows((LORA,))]
    section = trade(table_of(failed))
    assert section.lead.startswith("No cell has both a score over all tasks and a cost")
    assert "no run finished" in section.blocks[0].text
    one = trade(table_of(rows((LORA,))))
    assert one.lead.startswith("Only one cell has both a score over all tasks and a cost")
    assert draw(next(iter(figures(table_of(rows((LORA,)))).values())).drawing)
    lines = changed(rows((LORA, HEAD)), (HEAD,), peak_memory_bytes=None)
    apart = trade(table_of(lines)).lead
    assert "Only one cell" not in apart, "both have other costs"


# --- the picture --------------------------------------------------------------------------------


def texts(picture):
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture)


def test_the_picture_names_the_front_and_is_the_same_every_time():
    (figure, *_) = figures(table_of(rows())).values()
    first, second = draw(figure.drawing), draw(figure.drawing)
    assert first == second
    names = texts(first)
    assert {
        "QLoRA r8",
        "LoRA r8 (reference)",
        "full fine-tuning",
        "AdaLoRA r8",
        "head only",
    } <= set(names)
    assert "peak memory, MiB, lower is better, log scale" in names
    assert "score, mean over tasks, higher is better" in names
    assert "opacity" in first and "var(--c-lora," in first
    assert "On the front: QLoRA r8, LoRA r8" in figure.finding
    assert "shown to be off it" in figure.finding


def scatter(costs, scores, standings=None, limits=None, half=0.01):
    standings = standings or ["on"] * len(costs)
    limits = limits or [None] * len(costs)
    points = tuple(
        ScatterPoint(Mark(f"cell {i}", "lora", i), c, lim, Estimate(s, half, 5), where)
        for i, (c, s, where, lim) in enumerate(zip(costs, scores, standings, limits, strict=True))
    )
    return Scatter(points, "x", "y")


def test_a_wide_span_of_costs_has_a_log_axis_and_a_narrow_one_not():
    assert scatter([1, 3.1], [0.1, 0.2]).is_log
    assert not scatter([1, 3.0], [0.1, 0.2]).is_log
    assert not scatter([5], [0.1]).is_log


def axes_of(drawing):
    return draw_pareto.draw_scatter(drawing).axes[0]


@pytest.mark.parametrize("span", [(1, 4), (301, 910), (149_378, 22_713_986), (0.002, 900), (7, 7)])
def test_ticks_are_few_and_inside(span):
    axes = axes_of(scatter(list(span), [0.1, 0.2]))
    low, high = axes.get_xlim()
    ticks = axes.get_xticks()
    assert 1 < len(ticks) <= 7
    assert all(low <= t <= high for t in ticks)


def test_tick_texts():
    shown = [draw_pareto.tick(v) for v in (0.5, 20, 1500, 30_000, 300_000, 2e6, 7e9)]
    assert shown == ["0.5", "20", "1,500", "30k", "300k", "2M", "7B"]


def test_names_never_overlap_and_every_name_of_the_front_is_there():
    rng = random.Random(5)
    for size in (2, 8, 14):
        costs = [rng.uniform(1, 2.5) for _ in range(size)]
        scores = [rng.uniform(0.7, 0.72) for _ in range(size)]
        where = [rng.choice(["on", "possibly on", "off"]) for _ in range(size)]
        axes = axes_of(scatter(costs, scores, where))
        canvas = FigureCanvasAgg(axes.figure)
        named = [t for t in axes.texts if t.get_text().startswith("cell")]
        boxes = [t.get_window_extent(canvas.get_renderer()) for t in named]
        for i, a in enumerate(boxes):
            assert not any(a.overlaps(b) for b in boxes[i + 1 :])
        front = {f"cell {i}" for i, w in enumerate(where) if w == "on"}
        assert front <= {t.get_text() for t in named}


def test_a_huge_whisker_does_not_squeeze_the_points():
    axes = axes_of(scatter([1, 2], [0.7, 0.72], half=5.0))
    low, high = axes.get_ylim()
    assert high - low < 0.1


def test_intervals_of_costs_are_drawn_and_possible_points_ringed():
    limits = [(0.9, 1.1), (1.8, 2.2)]
    plain = axes_of(scatter([1, 2], [0.7, 0.72]))
    rich = axes_of(scatter([1, 2], [0.7, 0.72], ["on", "possibly on"], limits))
    assert len(rich.lines) == len(plain.lines) + 3
    lonely = axes_of(scatter([1.0], [0.7], ["off"]))
    assert lonely.lines


@pytest.mark.slow
def test_of_many_cells_the_front_and_a_choice_are_drawn():
    rng = random.Random(7)
    keys = [k for k in METHODS if k not in ("full", "head")]
    cells = [Cell(k, 8 if METHODS[k].size else None, "none") for k in keys]
    records = []
    for cell in cells:
        gain, memory = rng.gauss(-0.02, 0.01), int(rng.uniform(300, 900) * 2**20)
        records += [
            replace(
                r,
                outcome=replace(
                    r.outcome,
                    metric_value=r.outcome.metric_value + gain,
                    peak_memory_bytes=memory,
                ),
            )
            for r in rows((cell,))
        ]
    records += rows((LORA16,))
    section = trade(table_of(records))
    figure = figures(table_of(records))["trade-memory"]
    front = {m for m, n in places(section).items() if n["peak memory"] == "on"}
    drawn = {p.mark.label.removesuffix(" (reference)") for p in figure.drawing.points}
    assert len(drawn) == pareto.MOST and front <= drawn
    assert f"Drawn: 14 of {len(cells) + 1} cells" in figure.note
    named = " ".join(texts(draw(figure.drawing)))
    assert all(word in named for name in front for word in name.split())


# --- the choice ---------------------------------------------------------------------------------


def test_one_sentence_a_constraint_with_evidence():
    section = choice(table_of(rows()))
    said = [b.text for b in section.blocks if isinstance(b, page.Paragraph)]
    assert [t.partition(":")[0] for t in said] == [
        "For the least memory",
        "For the fewest parameters",
        "For the fastest training",
    ]
    evidence = {r[0].text: r for r in grid(section, "evidence").rows}
    assert len(evidence) == len(CELLS)
    assert evidence["full fine-tuning"][2].text == "best"
    assert evidence["head only"][2].note == "more than one point"
    assert "pick for" in evidence["LoRA r8"][2].note
    assert "LoRA r8" in section.lead


def test_where_only_the_best_itself_qualifies_nothing_cheaper_is_picked():
    records = make_matrix(cells=[LORA, FULL, HEAD], tasks=["sst2"], seeds=range(3))
    apart = {LORA: [0.80, 0.82, 0.87], FULL: [0.85, 0.85, 0.86], HEAD: [0.5, 0.5, 0.51]}
    records = [
        replace(r, outcome=replace(r.outcome, metric_value=apart[r.job.cell][r.job.seed]))
        for r in records
    ]
    section = choice(table_of(records))
    assert section.lead.startswith(
        "Nothing cheaper is shown to stay within one point of full fine-tuning, the best measured "
        "score. LoRA r8 comes closest, at −2.3"
    )
    first = section.blocks[0].text
    assert first.startswith("For the least memory: Nothing that takes less peak memory than full")
    evidence = {r[0].text: r for r in grid(section, "evidence").rows}
    assert "pick" not in evidence["full fine-tuning"][2].note


def test_different_constraints_are_told_apart_in_the_lead():
    gains = {LORA: 0.0, QLORA: -0.004, HEAD: -0.005}
    records = []
    for r in rows(tuple(gains)):
        noise = random.Random(f"{r.job.cell} {r.job.task} {r.job.seed}").gauss(0, 0.0004)
        score = 0.8 + 0.01 * r.job.seed + gains[r.job.cell] + noise
        records.append(replace(r, outcome=replace(r.outcome, metric_value=score)))
    assert choice(table_of(records)).lead == (
        "QLoRA r8 for the least memory, head only for the fewest parameters and head only for the "
        "fastest training, if one point below the best measured score is allowed. Under a memory "
        "limit, the highest mean that fits: QLoRA r8 from 301 MiB and LoRA r8 from 520 MiB on its "
        "largest task."
    )


def test_no_finished_run_picks_nothing():
    failed = [replace(r, outcome=make_failure()) for r in rows((LORA,))]
    section = choice(table_of(failed))
    assert section.lead == "Unknown. No cell finished every task (out of memory)."
    assert "Unknown. No cell finished every task (out of memory)." in section.blocks[0].text


# --- guides -------------------------------------------------------------------------------------


def verdict(records, text):
    advice = next(a for a in ADVICE if text in f"{a.condition}: {a.advice} ({a.source})")
    return guide_verdicts.judge(table_of(records), advice)


def test_guides_are_whole():
    assert 15 <= len(ADVICE) <= 24
    for advice in ADVICE:
        assert bool(advice.reason) == (advice.test is None)
        if advice.test is not None:
            methods = (*advice.test.better.methods, *advice.test.than.methods)
            assert set(methods) <= set(METHODS)
            assert set(advice.test.alike) <= set(Cell._fields)
    assert not any("seed" in f"{a.condition} {a.advice} {a.source}" for a in ADVICE)


def test_measured_rows_agree_or_disagree_with_a_guide():
    found = verdict(rows(), "less than 24 GB: QLoRA")
    assert (found.word, found.why) == ("agree", "QLoRA r8 to LoRA r8: 0.58× its peak memory")
    heavy = changed(rows(), [QLORA], peak_memory_bytes=900 * 2**20)
    assert verdict(heavy, "less than 24 GB: QLoRA").word == "disagree"
    even = changed(rows(), [QLORA], peak_memory_bytes=520 * 2**20)
    assert verdict(even, "less than 24 GB: QLoRA").word == "not told apart"
    found = verdict(rows(), "the score matters: AdaLoRA")
    assert found.word == "disagree" and "AdaLoRA r8 to LoRA r8: −2." in found.why


def test_a_drop_within_the_guides_margin_agrees():
    assert verdict(rows(), "price of one or two points").word == "agree"
    worse = [
        replace(r, outcome=replace(r.outcome, metric_value=r.outcome.metric_value - 0.1))
        if r.job.cell == QLORA
        else r
        for r in rows()
    ]
    assert verdict(worse, "price of one or two points").word == "disagree"


def test_too_little_data_cannot_say_and_names_the_reason():
    one = rows(seeds=[0])
    assert verdict(one, "the score matters: AdaLoRA").word == "not told apart"
    assert verdict(rows(), "fewer than 1,000 training rows: halve").why == (
        "no task here has fewer than 1,000 training rows"
    )
    assert verdict(rows(), "more than 10,000").why == (
        "no task here has more than 10,000 training rows"
    )
    assert verdict(rows((LORA, FULL)), "less than 24 GB: IA3").why == (
        "needs IA3 and LoRA; not measured here"
    )
    assert verdict(rows((LORA,)), "the score matters").why == (
        "needs AdaLoRA and LoRA of the same rank and variant; not measured here"
    )
    assert "both within 0.1% of the base" in verdict(rows(), "at most 0.1 % of the model").why
    tiny = changed(rows(), CELLS, adapter_parameters=10)
    assert "both above 0.1% of the base" in verdict(tiny, "more than 0.1 % of them").why
    assert (
        verdict(rows(), "close to pre-training").why == "closeness to pre-training is not measured"
    )
    meters = changed(rows(), [QLORA], peak_memory_source="other")
    assert "different meters" in verdict(meters, "less than 24 GB: QLoRA").why
    assert verdict(meters, "less than 24 GB: QLoRA").word == "not measured"
    gone = changed(rows(), [QLORA], peak_memory_bytes=None)
    assert "not recorded on every task" in verdict(gone, "less than 24 GB: QLoRA").why
    assert verdict(gone, "less than 24 GB: QLoRA").word == "not measured"


def test_an_undecided_pair_says_how_many_seeds():
    near = []
    for r in rows((LORA, ADALORA)):
        gain = (0.004, -0.002, 0.003, -0.001, 0.001)[r.job.seed] if r.job.cell == ADALORA else 0
        near.append(replace(r, outcome=replace(r.outcome, metric_value=0.8 + gain)))
    found = verdict(near, "the score matters: AdaLoRA")
    assert found.word == "not told apart" and found.seeds == "5 seeds"
    assert found.why.startswith("AdaLoRA r8 to LoRA r8: +0.1 ± 0.3 points, needs about ")
    assert found.why.endswith(" seeds in all")


def test_small_rows_test_the_advice_for_small_rows():
    few = changed(rows(), CELLS, train_rows=500)
    found = verdict(few, "fewer than 1,000 training rows: halve")
    assert found.why.startswith("LoRA r8 to LoRA r16: −0.")


def test_a_budget_is_counted_on_the_adapter():
    records = changed(
        rows((LORA, ADALORA)),
        (LORA, ADALORA),
        adapter_parameters=20_000,
        total_parameters=22_733_216,
    )
    assert verdict(records, "at most 0.1 % of the model").word == "disagree"


def test_pairs_that_split_are_mixed():
    mixed = rows((LORA, LORA16, Cell("ia3", None, "none")))
    ia3 = [Cell("ia3", None, "none")]
    found = verdict(changed(mixed, ia3, peak_memory_bytes=525 * 2**20), "less than 24 GB: IA3")
    assert (found.word, found.why) == (
        "mixed",
        "shown in 1 of 2 pairs of cells, the opposite in 1 (IA3 to LoRA r8; IA3 to LoRA r16)",
    )
    less = verdict(changed(mixed, ia3, peak_memory_bytes=100), "less than 24 GB: IA3")
    assert (less.word, less.why) == (
        "agree",
        "in all 2 pairs of cells (IA3 to LoRA r8; IA3 to LoRA r16)",
    )


def test_latency_is_that_of_the_merged_model_where_it_merges():
    adapter = Cell("adapter", 64, "none")
    rng = random.Random(2)
    records = [
        replace(
            r,
            outcome=replace(
                r.outcome,
                merged_latency_p50_seconds=base * rng.uniform(0.99, 1.01) if merged else None,
                latency_p50_seconds=0.04 * rng.uniform(0.99, 1.01),
            ),
        )
        for r in rows((LORA, adapter))
        for merged, base in [(r.job.cell == LORA, 0.02)]
    ]
    assert verdict(records, "latency counts").word == "agree"
    slow = [
        replace(r, outcome=replace(r.outcome, merged_latency_p50_seconds=0.1 + 0.001 * r.job.seed))
        if r.job.cell == LORA
        else r
        for r in records
    ]
    assert verdict(slow, "latency counts").word == "disagree"
    alone = [r for r in records if r.job.seed == 0]
    assert verdict(alone, "latency counts").word == "not told apart"


def test_the_table_of_guides_has_a_word_for_every_row():
    known, left = guides.grids(table_of(rows((*CELLS, ADALORA_NF4))))
    assert len(known.rows) + len(left.rows) == len(ADVICE) + 1  # the rule's ranks for the tasks
    assert {"agree", "disagree"} <= {r[2].text for r in known.rows}
    assert {r[2].text for r in left.rows} == {"not measured"}
    assert left.folded and left.caption == f"{len(left.rows)} branches not measured here"
    assert {r[2].note for r in known.rows} == {"5 seeds"} and "at reduced scale" in known.note
    assert all(r[1].text.startswith("if ") and r[3].text for r in (*known.rows, *left.rows))
    (only,) = guides.grids(table_of(rows((FULL,))))
    assert only == replace(only, folded=True)


def test_no_seed_in_common_cannot_say():
    records = [*rows((LORA,), seeds=[0, 1]), *rows((ADALORA,), seeds=[2, 3])]
    assert verdict(records, "the score matters").why == ("AdaLoRA r8 to LoRA r8: no seed in common")


def test_a_group_may_take_any_base_or_only_some_sizes():
    table = table_of(rows((LORA, LORA16, QLORA, FULL)))

    def members(group):
        test = Test("x", "memory", group, Group("full", ("full",)))
        return guide_verdicts.judge(table, Advice("x", "x", "x, x", test)).why

    assert members(Group("any", ("lora",), None)).startswith("in all 3 pairs of cells (")
    assert members(Group("quantised", ("lora",), True)).startswith("QLoRA r8 to full fine-tuning")
    assert members(Group("high", ("lora",), None, (16, 64))).startswith("LoRA r16 to full")


def test_what_an_axis_is_stays_in_the_picture_of_a_phone():
    wide, phone = 640 - 52, 358 - 52
    text = "share of the way to perfect, mean over tasks, higher is better"
    assert draw_pareto._that_fits(text, wide) == text
    assert draw_pareto._that_fits(text, phone) == "share of the way to perfect, mean over tasks ↑"
    short = "score, mean over tasks, higher is better"
    assert draw_pareto._that_fits(short, phone) == short
    longest = draw_pareto._that_fits("x" * 80, phone)
    assert longest.endswith("…") and len(longest) * 6.2 <= phone
