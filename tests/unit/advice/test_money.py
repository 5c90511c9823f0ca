"""The price of a run: what is paid for, at what price, and what is said where nobody gave one."""

from dataclasses import replace

import pytest

from factory import LORA, QLORA, make_matrix, make_outcome, make_record
from peftmark.advice import answer as advice
from peftmark.advice import money
from peftmark.advice.candidates import Wish
from peftmark.advice.read_rows import NothingMeasured
from peftmark.advice.recommend import recommend
from peftmark.core.amounts import Price, money_text, parse_price
from peftmark.core.errors import UserError

HOUR = Price(3.60, "EUR")
PHASES = {
    "load": 10.0, "train": 30.0, "evaluate": 5.0, "save": 1.0,
    "forget": 20.0, "deploy": 3.0, "probe": 7.0, "predict": 2.0,
}  # fmt: skip


def paid(phases):
    return make_record(outcome=make_outcome(phase_seconds=phases))


def rows(seconds):
    """Both cells on both tasks and four seeds; cell and task -> training seconds."""
    return [
        replace(r, outcome=replace(r.outcome, phase_seconds={"train": s, "probe": 999.0}))
        for r in make_matrix([LORA, QLORA], seeds=range(4))
        for s in [seconds[r.job.cell, r.job.task]]
    ]


SECONDS = {(LORA, "sst2"): 10, (LORA, "stsb"): 40, (QLORA, "sst2"): 20, (QLORA, "stsb"): 45}


def asked(records, **wish):
    ((found,), _) = advice.tables_of(records)
    return recommend(found, Wish(price=HOUR, **wish))


def test_a_run_is_paid_from_loading_to_saving_and_not_for_what_peftmark_measures():
    assert money.run_seconds(paid(PHASES)) == 46.0
    assert money.money(HOUR).read(paid(PHASES)) == pytest.approx(0.046)  # 46 s of 3.60 an hour
    assert money.money(HOUR).read(paid({})) is None
    assert money.money(HOUR) is money.money(Price(3.60, "EUR"))


@pytest.mark.parametrize(
    ("text", "price"),
    [("2.50USD", (2.5, "USD")), ("2 EUR", (2.0, "EUR")), ("0.000001XAU", (1e-6, "XAU"))],
)
def test_a_price_has_a_currency(text, price):
    assert parse_price("--price", text) == price


@pytest.mark.parametrize(
    "text", ["2.5", "USD", "0USD", "-1USD", "2.5usd", "2,5USD", "1e3USD", "$2"]
)
def test_what_is_no_price_is_refused(text):
    with pytest.raises(UserError, match="--price: found") as told:
        parse_price("--price", text)
    assert "2.50USD" in told.value.remedy


def test_amounts_have_the_digits_that_they_need():
    texts = [money_text(v, "USD") for v in (1234.5, 2.5, 0.0252, 0.00012345)]
    assert texts == ["1,234 USD", "2.50 USD", "0.0252 USD", "0.000123 USD"]


def test_recommend_compares_the_mean_and_holds_limits_against_the_largest_task():
    answer = asked(rows(SECONDS), money=0.04)
    assert [c.title for c in answer.picks] == ["LoRA r8"]
    (cell,) = answer.picks
    assert cell.figures["money"] == pytest.approx(0.020)  # √(10 × 40) s of 0.001 a second
    assert cell.largest["money"] == pytest.approx(0.040)
    (over,) = [c for c in answer.others if c.over]
    assert over.over == ("price of a run 0.0450 EUR on its largest task",)
    text = advice.advice_text(advice.Advised((answer,), ()))
    assert "price of a run, mean over tasks" in text and "0.0200 EUR" in text
    assert "Price of a run: 3.60 EUR an hour of wall time of loading" in text


def test_json_says_the_price_or_why_there_is_no_money():
    facts = advice.facts_of(advice.Advised((asked(rows(SECONDS)),), ()))["answers"][0]
    assert facts["price"] == {"hour": 3.6, "currency": "EUR"} and facts["why_no_money"] == ""
    assert facts["cells"][0]["money"] == pytest.approx(0.020)
    ((found,), _) = advice.tables_of(rows(SECONDS))
    facts = advice.facts_of(advice.Advised((recommend(found, Wish()),), ()))["answers"][0]
    assert facts["price"] is None and facts["cells"][0]["money"] is None
    assert facts["why_no_money"] == money.NO_PRICE


def test_a_limit_of_money_needs_a_price_in_its_currency(tmp_path):
    for price in (None, "2USD"):
        with pytest.raises(UserError, match="--max-money: found '5EUR'") as told:
            advice.advise(tmp_path, price=price, max_money="5EUR")
        assert "costs in EUR with --price" in told.value.remedy


def test_a_price_may_say_that_it_is_of_an_hour(tmp_path):
    with pytest.raises(NothingMeasured):  # which is after the options are read
        advice.advise(tmp_path, price="2.50USD/h")
    with pytest.raises(UserError, match=r"--price: found '2\.5/h'"):
        advice.advise(tmp_path, price="2.5/h")
