"""Numbers and matrices that no machine holds or runs are refused before anything is listed."""

from __future__ import annotations

import pytest

from peftmark.core.errors import SuiteError
from peftmark.suite import checks
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from small_suite import ONE_METHOD, refusal, text, write

TOP = 2**63 - 1


def with_steps(value):
    return text(("steps: 100", f"steps: {value}"))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (str(TOP + 1), "9223372036854775808"),
        (str(-TOP - 1), "-9223372036854775808"),
        (f"+{TOP + 1}", "+9223372036854775808"),
        ("9" * 5000, "99999999999999999999..."),  # more digits than Python makes a number of
        ("0" * 30 + str(TOP + 1), "00000000000000000000..."),
    ],
)
def test_a_whole_number_beyond_64_bits_is_refused_where_it_stands(tmp_path, value, shown):
    message = refusal(tmp_path, with_steps(value))
    assert ", line " in message and ", column " in message
    assert f"found {shown}; whole numbers go up to {TOP} (64 bits)" in message


@pytest.mark.parametrize("value", [str(TOP), f"{'0' * 5000}12"])
def test_the_largest_one_and_zeros_in_front_are_numbers(tmp_path, value):
    write(tmp_path, with_steps(value))
    [job, *_] = expand(load_suite("demo", tmp_path), "quick", "cpu").jobs
    assert job.recipe.steps == int(value.lstrip("0"))


@pytest.mark.parametrize("value", ["1e308", "100001"])
def test_epochs_that_make_no_number_of_steps_are_refused(tmp_path, value):
    message = refusal(tmp_path, text(("steps: 100", f"epochs: {value}")))
    assert "recipe.epochs: found 1" in message and "less than or equal to 100000" in message


def of(tmp_path, sizes, seeds, more=""):
    """A suite of so many sizes of LoRA and so many seeds on one task."""
    content = (
        ONE_METHOD.replace("rank: [8]", f"rank: {list(range(8, 8 + sizes))}{more}")
        .replace("seeds: [0, 1, 2]", f"seeds: {list(range(seeds))}")
        .replace("alpha: 8}", "alpha: 8}\n    quantization: [none, nf4]")
    )
    return write(tmp_path, content)


def test_a_matrix_of_more_than_a_million_jobs_is_refused_before_it_is_listed(tmp_path, monkeypatch):
    """1,000 sizes, 2 quantizations, 501 seeds: 1,002,000 jobs."""

    def never(*_):
        raise AssertionError("cells were listed")

    monkeypatch.setattr(checks, "cells", never)
    message = refusal(tmp_path, of(tmp_path, 1000, 501).read_text())
    assert "profiles.quick: 1,002,000 jobs (cells × tasks × seeds, and trials)" in message
    assert "at most 1,000,000 are planned. Take fewer sizes, seeds or tasks" in message
    assert "one fault" in message


@pytest.mark.parametrize(
    ("grid", "vary", "jobs"),
    [
        ("", "", 3 * 2 * 2),
        ("\n    learning_rates: [1e-3, 2e-3]", "tuning: {seeds: [9]}, ", 3 * 2 * (2 + 2)),
        ("", "vary: {gradient_checkpointing: [true, false]}, ", 3 * 2 * 2 * 2),
    ],
)
def test_the_jobs_that_are_counted_are_those_that_are_planned(
    tmp_path, monkeypatch, grid, vary, jobs
):
    path = of(tmp_path, 3, 2, grid)
    varied = ", variant: checkpointing" if vary.startswith("vary") else ""
    path.write_text(
        path.read_text()
        .replace("seeds: [0, 1], ", f"seeds: [0, 1], {vary}")
        .replace("{method: lora, rank: 8}", f"{{method: lora, rank: 8{varied}}}")
    )
    monkeypatch.setattr(checks, "MOST_JOBS", jobs)
    expanded = expand(load_suite("demo", tmp_path), "quick", "cpu")
    assert len(expanded.jobs) + expanded.waiting == jobs + 1  # and the repeat
    monkeypatch.setattr(checks, "MOST_JOBS", jobs - 1)
    with pytest.raises(SuiteError, match=f"profiles.quick: {jobs} jobs"):
        load_suite("demo", tmp_path)
