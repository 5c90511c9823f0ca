"""The faults that `tests/inject.py` plants can still be planted, and are many enough."""

from __future__ import annotations

import ast
import sys

import pytest

from places import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from mutants import MUTANTS


@pytest.mark.parametrize("name", MUTANTS)
def test_each_fault_edits_text_that_is_there_once_and_leaves_code(name):
    for file, old, new in MUTANTS[name].edits:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name}: {file} has this text {text.count(old)} times:\n{old}"
        assert old != new
        if file.endswith(".py"):
            ast.parse(text.replace(old, new))


def test_the_audits_own_faults_and_twenty_more_are_planted():
    named = [mutant for mutant in MUTANTS.values() if mutant.named]
    assert len(named) == 8 and len(MUTANTS) - len(named) >= 20
    assert len({mutant.site for mutant in MUTANTS.values()}) >= 15
