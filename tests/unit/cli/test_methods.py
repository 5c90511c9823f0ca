"""`peftmark methods`: at a glance in 100 columns, and why not."""

from __future__ import annotations

import json

import pytest

from peftmark.catalog.capabilities import Answer, Capabilities, Probed, probed
from peftmark.catalog.methods import all_methods
from peftmark.cli import parser
from peftmark.docgen import capabilities, capability_tables, methods_page

YES = Answer(True)


@pytest.fixture
def peftmark(monkeypatch, capsys):
    counts = methods_page.Counts(1, dict.fromkeys(all_methods(), (1, 1)))
    monkeypatch.setattr(methods_page, "known_counts", lambda: counts)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            parser.main(["methods", *arguments])
        told = capsys.readouterr()
        return left.value.code, told.out, told.err

    return run


def test_the_terminal_shows_it_in_100_columns(peftmark):
    code, out, _ = peftmark()
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    lines = out.split("method", 2)[2].splitlines()
    assert lines[0].split() == ["merges", "several", "swaps", "encoders", "LMs", "quantised",
                                "bases", "devices"]  # fmt: skip
    cells = {line.split()[0]: line.split()[1:] for line in lines[1:] if line}
    assert cells["lora"] == ["yes", "yes", "yes", "yes", "yes", "all", "cpu"]
    assert cells["adalora"] == ["yes", "yes", "no", "yes", "yes", "all", "cpu"]
    assert cells["full"] == ["-", "no", "no", "yes", "yes", "no", "cpu"]
    assert cells["loftq"][5:7] == ["nf4", "fp4"]


def test_a_method_by_name_says_why_not(peftmark):
    code, out, _ = peftmark("ia3", "peft:lora")
    assert code == 0
    assert out.startswith("ia3: IA3\n") and "\n\npeft:lora: PEFT LoRA\n" in out
    lines = {line.strip().partition("  ")[0]: line for line in out.splitlines()}
    assert "Hotswapping only supports LORA but IA3 was passed" in out
    assert lines["merges into nf4"].split()[3] in ("no", "yes")


def test_an_unknown_method_ends_in_one_message(peftmark):
    code, out, err = peftmark("lorra")
    assert code == 2 and not out
    assert "no method 'lorra'" in err and "did you mean lora" in err


def test_json_has_every_answer_with_its_reason(peftmark):
    _, out, _ = peftmark("--json")
    told = json.loads(out)["probed"]
    assert told["versions"] == probed().versions
    assert set(told["methods"]) == set(all_methods())
    assert told["methods"]["adalora"]["hot_swaps"] == {
        "holds": False,
        "reason": probed().methods["adalora"].hot_swaps.reason,
    }


def test_a_method_that_nobody_probed_is_said_to_be_unknown(peftmark):
    assert " ?  " in capability_tables.terminal(Probed({}, {}))
    told = capability_tables.explained([all_methods()["lora"]], Probed({}, {}))
    assert "not probed; python -m peftmark.docgen.capabilities" in told


def test_other_libraries_than_those_of_the_probe_are_named():
    here = capabilities.installed()
    assert capabilities.other_versions(Probed(here, {})) == ""
    other = capabilities.other_versions(Probed({**here, "peft": "0.0.1"}, {}))
    assert other == f"peft {here['peft']} in place of 0.0.1"
    assert other in capability_tables.terminal(Probed(here, {}), other)


def test_the_page_numbers_every_reason_once():
    said = Answer(False, "said so")
    one = Capabilities(
        {"none": YES, "nf4": said}, said, YES, YES, Answer(None, "x"), {"none": YES, "nf4": said},
        {"cpu": YES, "cuda": Answer(None, "x")},
    )  # fmt: skip
    lines = capability_tables.section(Probed({}, {"full": one}))
    row = next(line for line in lines if line.startswith("| `full`"))
    assert row == "| `full` | none; not nf4 (1) | no (1) | yes | yes | - | not nf4 (1) | cpu |"
    assert lines[-2:] == [
        "1. said so",
        "2. not probed; python -m peftmark.docgen.capabilities does",
    ]


def test_only_named_or_missing_methods_are_probed_and_never_with_other_libraries():
    here = Probed(capabilities.installed(), {"lora": probed().methods["lora"]})
    every = list(all_methods())
    assert capabilities._chosen([], False, here) == every
    assert capabilities._chosen(["dora"], False, here) == ["dora"]
    assert capabilities._chosen([], True, here) == [key for key in every if key != "lora"]
    other = Probed({"peft": "0.0.1"}, {})
    assert capabilities._chosen([], False, other) == every
    with pytest.raises(capabilities.UserError, match="made with other libraries: peft"):
        capabilities._chosen(["dora"], False, other)
