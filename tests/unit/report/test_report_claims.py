"""The report's section on claims, and what `peftmark claims` prints."""

from __future__ import annotations

import json

import pytest
import yaml
from scipy import stats

import small_suite
from claimed import SETTING, A, B, C, build, claim, difference, order, paper, ratio, rows
from factory import make_outcome, make_record
from peftmark.claims.ledger import LEDGER, load_claims
from peftmark.claims.standing import look
from peftmark.claims.text import claims_facts, claims_text
from peftmark.claims.verdicts import verdicts
from peftmark.core.errors import Exit, UserError
from peftmark.render import html, markdown
from peftmark.render.page import Grid, Page
from peftmark.report import claims
from peftmark.storage.store import Store
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import SUITES

GOOD = difference("quality", at_least=0.0)
CLAIMS = [
    claim(GOOD, id="C01"),
    claim(difference("quality", at_least=0.2), id="C02"),
    claim(GOOD, ratio("memory", measure="peak_memory_bytes", at_most=0.2), id="C03"),
    claim(difference("on mnli", at_least=0.0, tasks=["mnli"]), id="C04"),
    claim(paper("65e9 * 0.5 / 1e9", 13.2, 0.5), id="C05"),
    claim(tests=None, untestable="Needs what no row holds.", id="C06"),
    claim(order(A, B), id="C07"),
]


def table():
    better, base = [0.85, 0.86, 0.89, 0.87], [0.80, 0.82, 0.83, 0.82]
    return build([*rows(A, better), *rows(B, base)])


def section():
    return claims.section(table(), CLAIMS)


def line(found, name, index=0):
    return next(r for r in found.blocks[index].rows if r[0].text == name)


def test_the_first_line_counts_the_verdicts_with_their_scale():
    scale = "at MiniLM-L6 scale (quick profile)"
    assert section().lead == (
        f"Of 7 claims 2 were reproduced {scale}, 1 was contradicted {scale}, 1 was contradicted in "
        f"size and reproduced in direction {scale}, 1 is not comparable, 1 was refuted on paper "
        "and 1 is untestable."
    )
    assert claims.section(table(), CLAIMS[:1]).lead == f"Of 1 claim 1 was reproduced {scale}."


def test_a_claim_has_a_row_with_source_verdict_figure_and_what_would_settle_it():
    _, said, verdict, figure, unlike, settle = line(section(), "C01")
    assert said.text == "A is better than B."
    assert line(section(), "C01", 1)[1].note == "score, AdaLoRA r8 − LoRA r8: at least 0.000"
    assert said.note == (
        "an article, table 1; model: RoBERTa-large; tasks: GLUE; budget: 0.1 %; scale: full GLUE; "
        "not stated: selection"
    )
    assert verdict.text == "reproduced at MiniLM-L6 scale (quick profile)"
    # four intervals: three claims on scores and an order of two cells
    low, high = stats.t.interval(1 - 0.05 / 4, 3, 0.05, stats.sem([0.05, 0.04, 0.06, 0.05]))
    assert figure.text == f"+0.050 (+{low:.3f} to +{high:.3f}; 4 seeds, 1 task)"
    assert unlike.text == (
        "model all-MiniLM-L6-v2, stated RoBERTa-large; tasks sst-2, stated GLUE; the source gives "
        "no recipe"
    )
    assert unlike.note == "learning rates: not known"
    assert settle.text == "run a profile of full scale: stated for RoBERTa-large"


def test_a_claim_of_several_parts_tells_each():
    _, _, verdict, figure, _, _ = line(section(), "C03")
    assert verdict.text.startswith("contradicted")
    assert verdict.note == "quality: reproduced; memory: contradicted"
    assert "memory: 1.000× (exact; 4 seeds, 1 task)" in figure.text


def test_what_has_no_figure_says_why():
    assert line(section(), "C04")[3].note == "profile quick has no task mnli"
    assert line(section(), "C05")[3].text == "32.5 GB"
    assert line(section(), "C05", 1)[1].note == "65e9 * 0.5 / 1e9 = 13.2 GB"
    assert line(section(), "C06")[3].note == "Needs what no row holds."
    assert line(section(), "C07")[3].text.startswith("1 of 1 neighbouring pair shown")
    assert [line(section(), name)[5].text for name in ("C05", "C06")] == ["not by a run"] * 2


def test_the_note_says_the_level_that_lets_all_hold_together():
    grid = section().blocks[0]
    assert "Each interval has level 98.75\u00a0%" in grid.note
    assert "Each" not in claims.section(table(), CLAIMS[4:6]).blocks[0].note


def test_the_folded_table_traces_each_verdict_to_the_rows_it_rests_on():
    found = section()
    trace = found.blocks[1]
    assert isinstance(trace, Grid) and trace.folded
    ids = {r.job.job_id for r in table().rows}
    assert set(line(found, "C01", 1)[5].text.split()) == ids
    assert line(found, "C01", 1)[5].note == "8 jobs"
    assert line(found, "C05", 1)[5].kind == "missing"
    assert len(trace.rows) == sum(len(v.parts) for v in verdicts(table(), CLAIMS))


def test_no_entry_is_empty_and_both_renderers_take_the_section():
    found = section()
    for block in found.blocks:
        assert all(entry.text for entries in block.rows for entry in entries)
        assert all(len(entries) == len(block.columns) for entries in block.rows)
    page = Page("t", (), "f", (), "", (), (), (found,))
    assert "Which claims hold?" in html.render(page, {})
    assert "Which claims hold?" in markdown.render(page)


@pytest.mark.parametrize(
    ("test", "text"),
    [
        (difference(at_least=0.0036), "score, AdaLoRA r8 − LoRA r8: at least +0.0036"),
        (difference(at_most=-0.01), "score, AdaLoRA r8 − LoRA r8: at most −0.010"),
        (difference(to=None, within=[0.8, 0.9]), "score, AdaLoRA r8: 0.800 to 0.900"),
        (
            ratio(measure="adapter_bytes", within=[0.5, 0.7]),
            "adapter on disk, AdaLoRA r8 / LoRA r8: 0.500× to 0.700×",
        ),
        (
            ratio(
                measure="merged_latency_p50_seconds", to_measure="latency_p50_seconds", at_most=1.02
            ),
            "merged latency of AdaLoRA r8 / latency of LoRA r8: at most 1.020×",
        ),
        (order(A, B, C, tasks=["rte"]), "score on rte, best first: AdaLoRA r8, LoRA r8, IA3"),
        (paper("1 / 3", 0.333, 0.01), "1 / 3 = 0.333 GB"),
        ({"part": "x", "untestable": "no row has it"}, "no test"),
        (
            {"part": "x", "figures": ["qlora-65b-48gb"]},
            "published memory figure qlora-65b-48gb",
        ),
        (
            {
                "part": "x",
                "weights": {"model": "minilm-l6", "of": "nf4", "to": "int4", "at_most": 1.0},
            },
            "error of nf4 / int4 on the weights of minilm-l6: at most 1.000×",
        ),
        (
            {
                "part": "x",
                "counted": {
                    "suite": "demo",
                    "profile": "full",
                    "of": {"method": "ia3"},
                    "to": {"method": "lora", "rank": 8},
                    "within": [0.5, 0.7],
                },
            },
            "adapter parameters, IA3 / LoRA r8: 0.500× to 0.700×",
        ),
        (
            difference(measure="loss", within=[-0.05, 0.05]),
            "training loss, AdaLoRA r8 − LoRA r8: −0.050 to +0.050",
        ),
    ],
)
def test_what_is_claimed_in_words(test, text):
    assert claims.claimed(claim(test).tests[0]) == text


# --- peftmark claims ----------------------------------------------------------------------------


def fill(folder, suite="glue", profile="offline"):
    """A made-up row for every reported job of a profile."""
    store = Store(folder, suite)
    with store.lock():
        for job in expand(load_suite(suite, SUITES), profile, "cpu").jobs:
            score = 0.7 + 0.01 * (job.seed % 3) + 0.003 * (len(job.method) % 2)
            outcome = make_outcome(metric_value=score, curve=())
            store.append(make_record(job=job, outcome=outcome))


def test_the_ledger_shows_every_claim_with_tests_or_reason(tmp_path):
    found = look(None, None, tmp_path, SUITES)
    text = claims_text(found)
    assert [entry.claim.id for entry in found.lines] == list(load_claims([SUITES]))
    assert "undecided, no results yet: seeds-main, glue-large, glue" in text
    assert "not runnable here: Rows hold the shares now, as series" in text
    assert "suite glue (full, cpu; rank 8 on all linear layers, 1 to 1.5 % of the weights)" in text
    assert "unlike the source: The sizes tested are the article's largest." in text
    assert "weights at half a byte: refuted on paper" in text
    assert "[" not in text.split("C02")[0]
    facts = json.loads(json.dumps(claims_facts(found), allow_nan=False))
    assert len(facts["claims"]) == 92
    assert all(entry["verdicts"] == [] for entry in facts["claims"])
    paper_kinds = {entry["id"]: entry["without_rows"]["verdict"] for entry in facts["claims"]}
    assert (paper_kinds["C26"], paper_kinds["C18"]) == ("refuted on paper", "untestable")
    assert (paper_kinds["C09"], paper_kinds["C25"]) == ("undecided", "undecided")
    assert paper_kinds["C01"] == "undecided"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A results folder with every reported job of glue's offline profile; it is only read."""
    folder = tmp_path_factory.mktemp("filled")
    fill(folder)
    return folder


@pytest.mark.heavy
def test_a_suite_with_results_has_verdicts_of_its_latest_profile(filled):
    found = look("glue", None, filled, SUITES)
    assert (found.suite, found.profile) == ("glue", "offline")
    assert [entry.claim.id for entry in found.lines] == list(load_suite("glue", SUITES).claims)
    text = claims_text(found)
    assert text.startswith("Suite glue, profile offline. Of 7 claims ")
    assert "C04  contradicted at MiniLM-L6 scale (offline profile)" in text
    assert "memory: contradicted; claimed peak memory, QLoRA r8 / LoRA r8: at most 0.200×" in text
    facts = json.loads(json.dumps(claims_facts(found), allow_nan=False))
    memory = facts["claims"][3]["verdicts"][0]
    assert (memory["verdict"], memory["suite"], memory["profile"]) == (
        "contradicted",
        "glue",
        "offline",
    )
    assert len(memory["jobs"]) == 2 * 4 * 3
    every = look(None, None, filled, SUITES)
    assert "glue, profile offline: contradicted at MiniLM-L6" in claims_text(every)
    assert "no results yet: seeds-main, glue-large, peft-families" in claims_text(every)


def test_another_profile_can_be_asked_for(filled):
    found = look("glue", "cpu", filled, SUITES)
    (standing,) = found.lines[3].standings
    assert standing.profile == "cpu"
    assert standing.verdict.kind == "undecided"
    assert "LoRA r8 waits for its tuning trials" in standing.verdict.parts[0].reason


@pytest.mark.slow
@pytest.mark.heavy
def test_a_rank_order_without_an_interval_is_plain_data(tmp_path):
    fill(tmp_path, "peft-families")
    facts = claims_facts(look("peft-families", None, tmp_path, SUITES))
    text = json.dumps(facts, allow_nan=False)
    assert '"interval": null' in text


@pytest.mark.parametrize(
    ("suite", "profile", "message"),
    [
        ("glue", None, "holds no results"),
        ("nonsense", None, "there is no suite 'nonsense'"),
        ("glue", "nonsense", "no profile 'nonsense'"),
        ("smoke", None, "suite smoke tests no claim"),
        (None, "offline", "no suite is named"),
    ],
)
def test_bad_input_is_told_with_exit_code_2(tmp_path, suite, profile, message):
    with pytest.raises(UserError, match=message) as caught:
        look(suite, profile, tmp_path / "none", SUITES)
    assert caught.value.code == Exit.USAGE
    assert caught.value.remedy
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_ledger_of_ones_own_counts_beside_the_shipped_one(tmp_path):
    mine = tmp_path / "mine"
    small_suite.write(mine, small_suite.changed((("claims",), ["C99"])))
    own = {
        "id": "C99",
        "statement": "A is better.",
        "setting": SETTING,
        "sources": [{"title": "my notes", "where": "page 1"}],
        "tests": [difference(at_least=0.0)],
    }
    (mine / LEDGER).parent.mkdir()
    (mine / LEDGER).write_text(yaml.safe_dump({"claims": [own]}), "utf-8")
    text = claims_text(look(None, None, tmp_path / "results", mine))
    assert "C99  A is better." in text
    assert "C01  At an equal budget" in text
