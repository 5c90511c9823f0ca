"""Steps in the gate's history: found where planted, rarely in noise, named with their commit."""

import itertools
import json
import math
import random
import re
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gate_history import (
    NEWER,
    QLORA,
    at,
    commit,
    make_accepted,
    make_point,
    make_runs,
)
from peftmark.render import draw as charts
from peftmark.render.page import Figures
from peftmark.trend import changepoints, page, panels, wording
from peftmark.trend import write as trend
from peftmark.trend.series import strands

STEP_AT = 13


def stepped():
    """A drop of 0.03 on LoRA, memory up by 30 % on QLoRA, both in the run of the new PEFT."""
    drop = make_runs(step_at=STEP_AT, shift=-0.03)
    grow = make_runs(seed=2, cell=QLORA, step_at=STEP_AT, memory=1.3)
    return drop + grow


def found(points, accepted=()):
    """(cell's quantization, measure) -> steps."""
    return {
        (s.cell.quantization, s.measure.key): s.steps
        for strand in strands(points, accepted)
        for s in strand.series
        if s.steps
    }


# --- where the steps are ------------------------------------------------------------------------


def test_planted_steps_are_found_and_named_with_commit_and_version():
    seen = found(stepped())
    assert set(seen) == {("none", "score"), ("nf4", "memory")}
    (drop,) = seen["none", "score"]
    assert drop.after.commit == commit(STEP_AT) and drop.before.commit == commit(STEP_AT - 1)
    assert drop.changed == {"peft": ("0.20.0", "0.21.2")}
    assert drop.worse and drop.size == pytest.approx(-0.03, abs=0.004)
    (growth,) = seen["nf4", "memory"]
    assert growth.after.commit == commit(STEP_AT) and growth.worse
    assert growth.share == pytest.approx(0.3)


@pytest.mark.parametrize("at_run", [3, 8, 17])
def test_a_step_is_found_from_the_third_run_after_it_on(at_run):
    hits = 0
    for seed in range(20):
        seen = found(make_runs(seed=seed, step_at=at_run, shift=-0.03))
        hits += [s.index for s in seen.get(("none", "score"), ())] == [at_run]
    assert hits >= 19


@pytest.mark.parametrize("step_at", [18, 19])
def test_a_step_of_the_last_two_runs_is_not_blamed_on_the_run_before(step_at):
    for seed in range(20):
        assert found(make_runs(seed=seed, step_at=step_at, shift=-0.03)) == {}


@pytest.mark.parametrize(
    ("metric", "worse", "arrow"),
    [
        ("accuracy", True, "↑"),
        ("rmse", False, "↓"),
        ("mine.costs:cost:lower", False, "↓"),
        ("unheard-of", None, "↕"),
    ],
)
def test_a_fall_is_for_the_worse_only_where_more_is_better(metric, worse, arrow):
    points = make_runs(step_at=STEP_AT, shift=-0.03, metric=metric)
    (strand,) = strands(points, ())
    (series,) = [s for s in strand.series if s.measure.key == "score"]
    (step,) = series.steps
    assert step.worse is worse
    unknown = "better or worse, as the unknown metric has it"
    assert wording.worse(step) == {True: "worse", False: "better", None: unknown}[worse]
    assert wording.direction(series) == arrow


def test_several_steps_and_both_directions():
    points = make_runs(n=24)
    values = [0.0] * 8 + [-0.04] * 8 + [0.01] * 8
    points = [
        replace(p, values=tuple((s, v + up) for s, v in p.values))
        for p, up in zip(points, values, strict=True)
    ]
    down, up = found(points)["none", "score"]
    assert (down.index, down.worse) == (8, True)
    assert (up.index, up.worse) == (16, False)


@pytest.mark.parametrize("bad", [(9,), (9, 10), (0, 9, 19), (0, 1, 18, 19)])
def test_one_or_two_bad_runs_are_no_step(bad):
    points = make_runs()
    for run in bad:
        points[run] = replace(
            points[run], values=tuple((s, v - 0.1) for s, v in points[run].values)
        )
    assert found(points) == {}


def test_the_fit_is_the_best_of_all_fits():
    """Against every possible set of cuts; the pruning of PELT would miss some."""
    rng = random.Random(5)
    for _ in range(40):
        n = rng.choice([9, 11, 13])
        values = np.array([rng.gauss(0, 1) + 3 * (rng.random() < 0.3) for _ in range(n)])

        def cost(cuts, values=values, n=n):
            pieces = changepoints.levels(list(values), cuts)
            squares = sum(((values[a:b] - mean) ** 2).sum() for a, b, mean in pieces)
            return squares + 2 * math.log(n) * len(cuts)

        allowed = [
            cuts
            for k in range(n // changepoints.SHORTEST)
            for cuts in itertools.combinations(range(1, n), k)
            if all(
                b - a >= changepoints.SHORTEST
                for a, b, _ in changepoints.levels(list(values), cuts)
            )
        ]
        best = min(allowed, key=cost)
        assert cost(changepoints._candidates(values, 1.0)) == pytest.approx(cost(best))


def test_noise_is_measured_by_neighbours_and_not_by_steps():
    rng = random.Random(2)
    flat = [rng.gauss(0, 0.01) for _ in range(400)]
    jumped = [v + (i > 200) for i, v in enumerate(flat)]
    assert changepoints.noise(flat) == pytest.approx(0.01, rel=0.1)
    assert changepoints.noise(jumped) == pytest.approx(changepoints.noise(flat), rel=0.02)


# --- where there are none -----------------------------------------------------------------------


def noise_only(rng, runs, tails):
    draw = rng.gauss if tails == "normal" else (lambda m, s: m + s * t_of_three(rng))
    return [[draw(0.84, 0.006) for _ in range(5)] for _ in range(runs)]


def t_of_three(rng):
    """Student's t with 3 degrees of freedom, scaled to variance 1."""
    chi = sum(rng.gauss(0, 1) ** 2 for _ in range(3))
    return rng.gauss(0, 1) / math.sqrt(chi / 3) / math.sqrt(3)


@pytest.mark.heavy
@pytest.mark.parametrize("runs", [8, 20, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tails", ["normal", "t3"])
def test_noise_alone_rarely_shows_a_step(runs, tails):
    """400 series each; docs/trend.md has the rates of larger simulations."""
    rng = random.Random(runs)
    alarms = Counter()
    for _ in range(400):
        draws = noise_only(rng, runs, tails)
        means = [statistics.fmean(run) for run in draws]
        by_seed = [dict(enumerate(run)) for run in draws]
        floor = changepoints.spread(by_seed)
        alarms["score"] += bool(changepoints.find(means, floor=floor, by_seed=by_seed))
        single = [run[0] for run in draws]
        alarms["single"] += bool(changepoints.find(single, floor=1e-9))
    assert alarms["score"] <= 4
    assert alarms["single"] <= 12


@pytest.mark.heavy
def test_the_same_bits_until_a_library_changes_rarely_show_a_step():
    """Runs with equal bits, all seeds drawn anew at two runs: levels move, and mean nothing."""
    rng = random.Random(4)
    alarms = 0
    for _ in range(400):
        draws = [[rng.gauss(0.84, 0.006) for _ in range(5)] for _ in range(3)]
        by_seed = [dict(enumerate(draws[run // 10])) for run in range(30)]
        means = [statistics.fmean(run.values()) for run in by_seed]
        alarms += bool(
            changepoints.find(means, floor=changepoints.spread(by_seed), by_seed=by_seed)
        )
    assert alarms <= 10


def test_without_the_test_over_seeds_new_draws_would_pass_for_steps():
    rng = random.Random(4)
    alarms = 0
    for _ in range(100):
        draws = [statistics.fmean(rng.gauss(0.84, 0.006) for _ in range(5)) for _ in range(3)]
        alarms += bool(changepoints.find([draws[run // 10] for run in range(30)], floor=1e-4))
    assert alarms > 90


def test_constant_figures_and_changes_too_small_to_matter_are_no_steps():
    flat = [make_point(run) for run in range(20)]
    assert found(flat) == {}
    bytes_more = [
        replace(p, memory_bytes=p.memory_bytes + 2**20 * (i > 9)) for i, p in enumerate(flat)
    ]
    assert found(bytes_more) == {}
    percent_more = [
        replace(p, memory_bytes=round(p.memory_bytes * (1.02 if i > 9 else 1)))
        for i, p in enumerate(flat)
    ]
    assert set(found(percent_more)) == {("none", "memory")}


def test_one_seed_shows_no_step_of_a_score():
    assert found(make_runs(step_at=STEP_AT, shift=-0.1, seeds=1)) == {}


def test_seeds_that_were_added_are_no_step():
    few = make_runs(n=10, seeds=2)
    low = dict.fromkeys((2, 3, 4), 0.8)
    more = [replace(p, values=(*p.values, *low.items())) for p in make_runs(n=20, seeds=2)[10:]]
    assert found(few + more) == {}


def test_short_series_say_so():
    points = make_runs(n=7, step_at=4, shift=-0.2)
    assert found(points) == {}
    assert "Too few runs" in trend.text(points, ())
    assert not any(s["searched"] for s in trend.facts(points, ())["series"])
    assert trend.text([], ()) == "No run of the gate is stored for this suite yet."


# --- what is compared ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"machine": "nvidia-l4"}, {"suite_version": 2}, {"protocol": 99}, {"profile": "full"}],
)
def test_runs_of_another_kind_are_another_series(change):
    points = make_runs(n=10) + [
        replace(p, values=tuple((s, v - 0.1) for s, v in p.values), **change)
        for p in make_runs(n=20)[10:]
    ]
    assert found(points) == {}
    assert len(strands(points, ())) == 2


def test_the_same_rows_looked_at_twice_count_once():
    points = make_runs(n=6)
    again = [replace(p, run=f"{99:016x}", code=3) for p in points]
    (strand,) = strands(points + again, ())
    assert len(strand.runs) == 6
    assert not any(s.searched for s in strand.series)


def test_rows_that_stood_while_others_ran_again_count_once():
    points = make_runs(n=6)
    again = [replace(points[5], at=at(6 + i), run=f"{6 + i:016x}") for i in range(6)]
    (strand,) = strands(points + again, ())
    assert len(strand.runs) == 12
    assert {len(s.points) for s in strand.series} == {6}


def test_unknown_figures_are_gaps_and_not_zero():
    points = make_runs()
    points[5] = replace(points[5], values=(), memory_bytes=None, loss=math.nan, verdict="missing")
    (strand,) = strands(points, ())
    by_key = {s.measure.key: s for s in strand.series}
    assert by_key["score"].gaps == by_key["memory"].gaps == by_key["loss"].gaps == (5,)
    assert by_key["time"].gaps == ()
    assert found(points) == {}


def test_gaps_do_not_shift_the_commit_of_a_step():
    points = make_runs(step_at=STEP_AT, shift=-0.03)
    points[4] = replace(points[4], values=())
    points[STEP_AT] = replace(points[STEP_AT], values=())
    (drop,) = found(points)["none", "score"]
    assert drop.after.commit == commit(STEP_AT + 1) and drop.index == STEP_AT + 1
    assert drop.before.commit == commit(STEP_AT - 1)


def test_a_baseline_accepted_after_a_step_belongs_to_it():
    accepted = [make_accepted(2), make_accepted(15), make_accepted(15, machine="nvidia-l4")]
    (drop,) = found(stepped(), accepted)["none", "score"]
    assert drop.accepted == accepted[1]
    (drop,) = found(stepped(), accepted[:1])["none", "score"]
    assert drop.accepted is None


# --- what is said -------------------------------------------------------------------------------


def test_lines_for_a_terminal_worst_news_first():
    lines = trend.text(stepped(), ()).splitlines()
    assert len(lines) == 2
    short = commit(STEP_AT)[:7]
    pattern = (
        rf"LoRA r8 on sst2: accuracy from 0\.84\d to 0\.81\d at {short} "
        r"\(peft 0\.20\.0 → 0\.21\.2\): −0\.0\d\d, worse"
    )
    assert re.fullmatch(pattern, lines[0])
    expected = f"peak memory from 520 to 676 MiB at {short} (peft 0.20.0 → 0.21.2): +30.0 %, worse"
    assert lines[1] == f"QLoRA r8 on sst2: {expected}"


def test_no_step_is_said_with_how_much_was_searched():
    assert trend.text(make_runs(), ()) == "No step found in 4 series of 20 runs."


def test_less_memory_is_better_and_time_is_advisory():
    points = make_runs(step_at=STEP_AT, memory=0.7)
    points = [replace(p, step_seconds=0.15) if i >= STEP_AT else p for i, p in enumerate(points)]
    memory, time = trend.text(points, ()).splitlines()
    assert memory.endswith("−30.0 %, better")
    assert time.endswith("worse, advisory")


def test_a_dirty_checkout_and_unchanged_versions_are_said():
    points = make_runs(step_at=STEP_AT, shift=-0.03, versions=NEWER)
    assert "no version changed since" in trend.text(points, ())
    same = [replace(p, commit="a" * 40) for p in points]
    assert "at aaaaaaa (same commit and versions as before)" in trend.text(same, ())
    dirty = [replace(p, dirty=True) for p in points]
    assert f"at {commit(STEP_AT)[:7]}+ (" in trend.text(dirty, ())
    wheel = [replace(p, commit=None, dirty=None) for p in points]
    assert "on 2026-11-14 (" in trend.text(wheel, ())


def test_facts_are_json_with_everything_a_step_is_known_by():
    facts = json.loads(json.dumps(trend.facts(stepped(), [make_accepted(15)])))
    (drop,) = [x for s in facts["series"] if s["measure"] == "score" for x in s["steps"]]
    assert drop["commit"] == commit(STEP_AT) and drop["commit_before"] == commit(STEP_AT - 1)
    assert drop["run"] == f"{STEP_AT:016x}" and drop["at"] == at(STEP_AT)
    assert drop["versions"] == {"peft": {"before": "0.20.0", "after": "0.21.2"}}
    assert drop["accepted_at"] == at(15) and drop["worse"]
    assert drop["size"] == pytest.approx(drop["after"] - drop["before"])
    assert facts["runs"] == 20 and len(facts["series"]) == 8


# --- the page -----------------------------------------------------------------------------------


def write(folder, points, accepted=(), **changes):
    paths = trend.write(points, accepted, "ci", folder, **changes)
    return {p.relative_to(folder).as_posix(): p.read_text("utf-8") for p in paths}


def test_the_page_its_markdown_and_its_pictures(tmp_path):
    files = write(tmp_path, stepped(), [make_accepted(15, pinned=True)])
    assert list(files)[:2] == ["index.html", "trend.md"]
    assert list(files)[2:] == [
        "figures/first.svg",
        "figures/trend-1-sst2-lora-r8.svg",
        "figures/trend-2-sst2-qlora-r8.svg",
    ]
    for name in ("index.html", "trend.md"):
        assert "2 steps found in 8 series of 20 runs, 2 for the worse." in files[name]
        assert commit(STEP_AT)[:7] in files[name]
    assert "peft 0.20.0 → 0.21.2" in files["index.html"]
    assert "0.84" in files["figures/trend-1-sst2-lora-r8.svg"]
    assert all(f"]({name})" in files["trend.md"] for name in list(files)[2:])


def test_what_moved_and_after_which_commit_come_first():
    shown = page.page(strands(stepped(), ()), "ci", {}).first
    short = commit(STEP_AT)[:7]
    assert re.fullmatch(
        rf"Accuracy of LoRA r8 on sst2 went from 0\.84\d to 0\.81\d at {short}, for the worse\.",
        shown.answer,
    )
    (why,) = shown.reasons
    assert why.startswith(
        f"At {short} (peft 0.20.0 → 0.21.2): accuracy of LoRA r8 on sst2 from 0.84"
    )
    assert "peak memory of QLoRA r8 on sst2 from 520 to 676 MiB" in why
    told = {tile.title: tile for tile in shown.tiles}
    assert told["What moved"].value == "2 steps, 2 for the worse"
    assert told["After which commit"].value == short
    assert shown.charts[0].figure.drawing.lanes[0].title.startswith("accuracy")
    assert len(shown.charts[0].figure.drawing.lanes) == 1


def test_the_first_screen_of_a_calm_and_of_a_short_history_claims_nothing():
    calm = page.page(strands(make_runs(), ()), "ci", {}).first
    assert calm.answer == "No step found in 4 series of 20 runs." and not calm.reasons
    few = page.page(strands(make_runs(n=3), ()), "ci", {}).first
    assert few.tiles[0].value == "can't be told yet" and few.tiles[2].value == "4 of 4 series"


def test_a_damaged_file_and_a_failed_gate_can_be_seen_on_the_first_screen():
    points = [replace(p, code=3) for p in make_runs()]
    shown = page.page(strands(points, ()), "ci", {Path("x.parquet"): "cut short"}).first
    (trust,) = [tile for tile in shown.tiles if tile.signs]
    assert [sign.state for sign in trust.signs] == ["bad", "good", "care"]
    assert trust.signs[2].text == "the latest gate ended with 3"


def test_the_same_points_in_any_order_give_the_same_bytes(tmp_path):
    points, accepted = stepped(), [make_accepted(2), make_accepted(15)]
    shuffled = points[::-1]
    random.Random(0).shuffle(shuffled)
    assert write(tmp_path / "a", points, accepted) == write(
        tmp_path / "b", shuffled, accepted[::-1]
    )


def test_nothing_breaks_out_of_the_page(tmp_path):
    evil = "<script>alert(1)</script>"
    points = make_runs(step_at=STEP_AT, shift=-0.03, task=evil, machine=evil, verdict=evil)
    points = [replace(p, versions={evil: str(i)}, commit=evil) for i, p in enumerate(points)]
    accepted = [make_accepted(15, machine=evil, reason=evil)]
    files = write(tmp_path, points, accepted, damaged={Path(f"{evil}.parquet"): evil})
    assert all("<script>alert" not in text for text in files.values())
    assert "&lt;script&gt;alert(1)" in files["index.html"]


def test_damage_is_said_and_no_history_is_a_page(tmp_path):
    files = write(tmp_path, [], damaged={tmp_path / "x.parquet": "cut short"})
    assert "No run of the gate is stored" in files["index.html"]
    assert "x.parquet can&#39;t be read: cut short" in files["index.html"]


@pytest.mark.parametrize("runs", [1, 2, 3, 120])
def test_histories_of_any_length_are_drawn(runs):
    days = [f"2026-{m:02d}-{d:02d}T06:00:00+00:00" for m in range(1, 13) for d in range(1, 28)]
    points = [replace(make_point(i), at=days[i], commit=None) for i in range(runs)]
    _, figure = page.page(strands(points, ()), "ci", {}).figures()
    svg = charts.render(figure)
    assert "2026-01-01" in svg and days[runs - 1][:10] in svg
    assert svg.count("2026-") <= 4


def test_a_long_history_of_many_cells_draws_some_and_lists_all(tmp_path):
    points = [p for i in range(30) for p in make_runs(n=9, seed=i, task=f"task{i:02d}")]
    shown = page.page(strands(points, ()), "ci", {})
    drawn = [
        f for s in shown.sections for b in s.blocks if isinstance(b, Figures) for f in b.figures
    ]
    assert len(drawn) == panels.MOST_FIGURES
    (everything,) = [
        b
        for s in shown.sections
        for b in s.blocks
        if getattr(b, "caption", "").startswith("Latest")
    ]
    assert len(everything.rows) == 30


def test_steps_are_drawn_where_they_are():
    (strand,) = strands(stepped(), [make_accepted(2), make_accepted(15, pinned=True)])
    shown = page.page([strand], "ci", {})
    (figure,) = [f for f in shown.figures() if f.title == "LoRA r8 on sst2"]
    score = figure.drawing.lanes[0]
    assert [place for place, _ in score.steps] == [STEP_AT]
    assert [(a, b) for a, b, _ in score.levels] == [(0, STEP_AT - 1), (STEP_AT, 19)]
    assert figure.drawing.accepted == ((2.5, False), (15.5, True))
    svg = charts.render(figure)
    assert f"at {commit(STEP_AT)[:7]}" in svg


def test_runs_the_gate_called_worse_have_a_ring_and_missing_ones_a_cross():
    points = make_runs()
    points[18] = replace(points[18], verdict="worse")
    points[4] = replace(points[4], values=(), verdict="missing")
    _, figure = page.page(strands(points, ()), "ci", {}).figures()
    assert figure.drawing.lanes[0].alarms == (18,)
    assert figure.drawing.lanes[0].gaps == (4,)
