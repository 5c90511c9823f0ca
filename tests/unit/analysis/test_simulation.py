"""The simulation runs, and what docs/statistics.md says of it holds."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

import peftmark.analysis.simulation as simulation
from peftmark.analysis.simulation import SEEDS, Share, simulate, simulation_text
from peftmark.analysis.stats import Estimate, t_interval
from peftmark.core.errors import UserError
from places import DOCS

DOC = DOCS / "statistics.md"


def tables(text: str) -> dict[str, dict[str, list[float]]]:
    """Heading -> label -> percentages, from Markdown."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in text.splitlines():
        if line.startswith("### "):
            title = line.removeprefix("### ")
            found[title] = {}
        elif line.startswith("| ") and "seeds |" not in line:
            label, *shares = (part.strip() for part in line.strip("|").split("|"))
            found[title][label] = [float(re.match(r"([\d.]+) % ± [\d.]+$", s)[1]) for s in shares]
    return found


@pytest.fixture(scope="module")
def quick():
    return {table.title: table for table in simulate(suites=200, draws=1000, seed=3)}


def percent(table, label):
    return [100 * share.hits / share.of for share in table.rows[label]]


@pytest.mark.slow
@pytest.mark.heavy
def test_intervals_cover_what_they_promise(quick):
    for label in quick["Coverage"].rows:
        assert all(91 <= p <= 98.5 for p in percent(quick["Coverage"], label)), label


@pytest.mark.slow
@pytest.mark.heavy
def test_families_raise_few_false_alarms(quick):
    for label in quick["Family-wise false alarms"].rows:
        assert max(percent(quick["Family-wise false alarms"], label)) <= 10, label


@pytest.mark.slow
@pytest.mark.heavy
def test_true_gains_are_found_more_often_with_more_seeds(quick):
    for label in quick["Power"].rows:
        few, some, many = percent(quick["Power"], label)
        assert few <= some <= many and many >= 20, label
    assert percent(quick["Power"], "gain of 2 SD, 4 tasks, equal spread, alone")[0] >= 80


@pytest.mark.slow
@pytest.mark.heavy
def test_power_alone_is_what_the_noncentral_t_distribution_says(quick):
    # Over four tasks the SD of a seed's mean is 1/2, with shared luck sqrt((1 + 3 * 0.3) / 4).
    spreads = {
        "1 task": 1.0,
        "4 tasks, equal spread": 0.5,
        "4 tasks, shared luck": 1.9**0.5 / 2,
    }
    for label, spread in spreads.items():
        shares = quick["Power"].rows[f"gain of 1 SD, {label}, alone"]
        for n, share in zip(SEEDS, shares, strict=True):
            expected = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, n**0.5 / spread)
            assert abs(share.hits / share.of - expected) <= 4 * share.error, (label, n)


@pytest.mark.slow
@pytest.mark.heavy
def test_equivalence_is_wrong_one_time_in_twenty(quick):
    for label in quick["Equivalence"].rows:
        shares = percent(quick["Equivalence"], label)
        if label.startswith("wrongly"):
            assert max(shares) <= 8, label
        else:
            assert shares == sorted(shares) and shares[-1] >= 70, label


@pytest.mark.slow
@pytest.mark.heavy
def test_runs_that_collapse_break_intervals(quick):
    table = quick["Runs that collapse"]
    assert max(percent(table, "coverage, 1 task, falls by 20 SD")) < 78


@pytest.mark.slow
@pytest.mark.heavy
def test_tasks_taken_as_independent_fail_where_they_are_not(quick):
    table = quick["If tasks were taken as independent"]
    assert percent(table, "coverage, 4 tasks, shared luck")[2] < 92
    assert min(percent(table, "false alarms, all pairs, 4 tasks, shared luck")[1:]) > 12
    assert min(percent(table, "coverage, 4 tasks, equal spread")) > 91


@pytest.mark.parametrize("n", [3, 10])
def test_tasks_taken_as_independent_are_welch_s_t_test(n):
    # The mean of tasks a and -b is half of mean(a) - mean(b): same t, same degrees of freedom.
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(n) + 1, 5 * rng.standard_normal(n)
    expected = stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval()
    c = simulation.independent([a.tolist(), (-b).tolist()])
    assert (c.p, c.df, c.n) == pytest.approx((expected.pvalue, expected.df, n))
    assert (c.estimate.low, c.estimate.high) == pytest.approx((interval.low / 2, interval.high / 2))


@pytest.mark.parametrize("label", simulation.TASKS)
def test_differences_have_the_spreads_and_the_correlation_they_claim(label):
    tasks = simulation.TASKS[label]
    suites = [simulation._suite(np.random.default_rng(i), tasks, 50) for i in range(100)]
    drawn = np.concatenate([suite[0] - suite[1] for suite in suites], axis=1)
    k = len(tasks.spreads)
    wanted = np.full((k, k), tasks.correlation) + (1 - tasks.correlation) * np.eye(k)
    assert drawn.std(axis=1) == pytest.approx(np.array(tasks.spreads), rel=0.05)
    assert np.atleast_2d(np.corrcoef(drawn)) == pytest.approx(wanted, abs=0.06)


def test_the_simulation_would_notice_intervals_that_are_too_narrow(monkeypatch):
    def narrow(values):
        estimate = t_interval(values)
        return Estimate(estimate.mean, estimate.half_width / 2, estimate.n)

    monkeypatch.setattr(simulation, "t_interval", narrow)
    share = simulation._coverage()["score, 1 task"](np.random.default_rng(1), 10, 500)
    assert share.hits / share.of < 0.8


def test_text_is_the_same_for_the_same_seed():
    first = simulation_text(suites=2, draws=3, seed=1)
    assert first == simulation_text(suites=2, draws=3, seed=1)
    assert first != simulation_text(suites=2, draws=3, seed=2)
    assert first.startswith("Seed 1, 2 suites, 3 draws. ")


def test_one_number_does_not_depend_on_the_sizes_of_others():
    few = {t.title: t.rows for t in simulate(suites=1, draws=50, seed=1)}
    more = {t.title: t.rows for t in simulate(suites=2, draws=50, seed=1)}
    assert few["Equivalence"] == more["Equivalence"]


def test_a_share_has_an_error_even_when_it_never_happened():
    assert str(Share(95, 100)) == "95.0 % ± 2.4"  # sqrt(96/102 * 6/102 / 100) = 0.02353
    assert str(Share(0, 100)) == "0.0 % ± 1.0"  # sqrt(1/102 * 101/102 / 100) = 0.0099


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(UserError, match="cannot simulate"):
        simulation_text(*sizes)


@pytest.fixture(scope="module")
def shown():
    text = DOC.read_text(encoding="utf-8")
    return text.split("<!-- simulation -->")[1].split("<!-- /simulation -->")[0]


@pytest.mark.slow
@pytest.mark.heavy
def test_the_page_shows_the_tables_of_today_s_simulation(quick, shown):
    rows = {title: list(table.rows) for title, table in quick.items()}
    assert {title: list(table) for title, table in tables(shown).items()} == rows
    for title, table in quick.items():
        assert f"### {title}\n\n{table.text}\n" in shown
    assert "Seed 1, 3,000 suites, 20,000 draws." in shown


@pytest.mark.slow
@pytest.mark.heavy
def test_the_page_s_numbers_are_within_a_quick_run_s_noise(quick, shown):
    for title, page in tables(shown).items():
        for label, numbers in page.items():
            for number, share in zip(numbers, quick[title].rows[label], strict=True):
                off = abs(number - 100 * share.hits / share.of)
                error = Share(round(number / 100 * share.of), share.of).error
                assert off <= 5 * 100 * error + 0.1, (title, label)


def test_what_the_page_shows_is_what_is_asked_of_the_procedures(shown):
    page = tables(shown)
    assert all(len(shares) == len(SEEDS) for table in page.values() for shares in table.values())
    for label, shares in page["Coverage"].items():
        assert all(93 <= share <= 97 for share in shares), label
    for label, shares in page["Family-wise false alarms"].items():
        assert max(shares) <= 6, label
    for label, shares in page["Equivalence"].items():
        assert not label.startswith("wrongly") or max(shares) <= 6, label


def test_the_page_s_sentences_quote_its_tables(shown):
    page = tables(shown)
    text = " ".join(DOC.read_text(encoding="utf-8").split("<!-- simulation -->")[0].split())
    power, apart = page["Power"], page["If tasks were taken as independent"]
    name, collapsed = "4 tasks, equal spread", page["Runs that collapse"]
    quoted = [
        collapsed[f"false alarms, all pairs, {name}, falls by 20 SD"][0],
        *apart["coverage, 4 tasks, shared luck"],
        max(apart["false alarms, all pairs, 4 tasks, shared luck"]),
        apart["false alarms, all pairs, 4 tasks, spread 5 : 1 : 1 : 1"][0],
        power[f"gain of 2 SD, {name}, all pairs"][0],
        power[f"gain of 2 SD, {name}, all pairs"][1],
        apart[f"power, gain of 2 SD, {name}, all pairs"][0],
        power[f"gain of 1 SD, {name}, alone"][0],
        apart[f"power, gain of 1 SD, {name}, alone"][0],
    ]
    assert [number for number in quoted if f"{number:.1f}" not in text] == []
