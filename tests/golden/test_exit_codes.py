"""Help and docs tell every exit code, as the table of codes has it."""

from __future__ import annotations

import re

import pytest

from peftmark.cli.parser import _exit_codes
from peftmark.core.errors import Exit
from peftmark.docgen.exit_codes import CI, END, PAGES, START, with_codes
from places import ROOT

HELP = """\
exit codes:
  0    everything asked for was done
  1    a fault of peftmark itself (with a traceback)
  2    bad input, a missing asset, a full disk; nothing was lost
  3    gate: something got worse
  4    gate: too little data for a verdict that the policy demands
  5    gate: no baseline, or one of another procedure
  6    some jobs are not ok, or missing (the report says which and why)
  7    the same code gave other numbers: the results can't be trusted
  8    gate: a baseline, or gate.json, is damaged
  9    gate: other numbers than the baseline's on the same kind of machine, undeclared
  130  stopped by Ctrl-C, 143 by SIGTERM; finished jobs are kept
"""


def test_the_help_has_every_code():
    assert _exit_codes() == HELP
    assert {int(n) for n in re.findall(r"\b\d+\b", HELP)} == set(Exit)


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_a_page_is_what_the_code_makes_of_it(path):
    page = (ROOT / path).read_text(encoding="utf-8")
    assert page.count(START) == page.count(END) == 1
    assert with_codes(page, PAGES[path]()) == page, "run: python -m peftmark.docgen.exit_codes"


def test_every_code_has_a_meaning_and_says_what_ci_should_do():
    assert set(CI) == set(Exit), "add what CI should do to CI in peftmark/docgen/exit_codes.py"
    meanings = [code.meaning for code in Exit]
    assert all(meanings) and len(set(meanings)) == len(meanings)


def test_a_code_is_a_number_that_finds_it_again():
    assert Exit(3) is Exit.REGRESSION == 3
    assert f"{Exit.REGRESSION:d}" == "3"
    assert Exit.OK == 0 and not Exit.OK


def test_a_table_elsewhere_would_be_found():
    tables = [
        path
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        if re.search(r"^\| code \|.*\n\|[-| :]+\|\n\| 0 \|", path.read_text("utf-8"), re.M)
    ]
    assert {path.relative_to(ROOT) for path in tables} == set(PAGES) - {COMMANDS}


COMMANDS = next(path for path in PAGES if path.name == "commands.md")
