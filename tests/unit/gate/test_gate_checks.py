"""Every check that a gate can tell stands in its table, with a word, and with the policy's keys."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from peftmark.core.errors import Exit
from peftmark.core.files import PACKAGE
from peftmark.gate import judge, show
from peftmark.gate.checks import CHECKS, group_of
from peftmark.gate.policy import Policy
from peftmark.gate.result import KINDS, MARKS, Finding

FILES = sorted((PACKAGE / "gate").glob("*.py"))
UNBOUND = {"version"}
"""Keys of a policy that decide no check."""


def constants(node: ast.AST) -> list[str]:
    """Texts inside an expression; of an f-string its beginning."""
    if isinstance(node, ast.JoinedStr):
        first = node.values[0]
        return [first.value] if isinstance(first, ast.Constant) else []
    if isinstance(node, ast.IfExp):
        return [*constants(node.body), *constants(node.orelse)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    return []


def told(source: str) -> Iterator[tuple[str, str | None]]:
    """Check and kind of every call of `finding`; the kind is None where it is decided later."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        named = [
            text
            for node in ast.walk(function)
            for text in (
                constants(node.value)
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "check"
                else [t for row in node.iter.elts for t in constants(row.elts[0])]
                if isinstance(node, ast.For)
                and isinstance(node.target, ast.Tuple)
                and ast.unparse(node.target.elts[0]) == "check"
                else []
            )
        ]
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "finding":
                kind, check = node.args[:2]
                texts = named if isinstance(check, ast.Name) else constants(check)
                assert texts, f"the check of {ast.unparse(node)} can't be read here"
                for text in texts:
                    yield text, kind.value if isinstance(kind, ast.Constant) else None


def faults(source: str) -> list[str]:
    """Checks that the table doesn't know, or has no word for."""
    found = []
    for check, kind in told(source):
        row = CHECKS.get(group_of(check))
        if row is None:
            found.append(f"{check!r}: add a row {group_of(check)!r} to CHECKS of gate/checks.py")
        elif kind in (None, "regression") and not row.worse:
            found.append(f"{check!r} can be a regression: give its row in CHECKS a word in worse")
        if kind is not None and kind not in KINDS:
            found.append(f"{check!r}: kind {kind!r} is not in KINDS of gate/result.py")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_check_that_is_told_has_a_row(path):
    assert faults(path.read_text(encoding="utf-8")) == []


def test_the_walk_sees_the_checks():
    seen = {group_of(c) for path in FILES for c, _ in told(path.read_text(encoding="utf-8"))}
    assert seen == set(CHECKS), (
        "each row of CHECKS (gate/checks.py) needs a generator in gate/ that calls finding() with "
        "its key, and each such call a row"
    )


def idle(source: str, asked: str, listed: set[str]) -> list[str]:
    """Generators of findings that no gate asks: neither a row of CHECKS nor `judge` names them."""
    named = {
        ast.unparse(n).rpartition(".")[2]
        for n in ast.walk(ast.parse(asked))
        if isinstance(n, ast.Attribute | ast.Name)
    }
    return [
        f"{node.name} is never asked: name it as finds in its row of CHECKS (gate/checks.py)"
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and node.returns is not None
        and ast.unparse(node.returns) == "Iterator[Finding]"
        and node.name not in named | listed
    ]


JUDGE = (PACKAGE / "gate" / "judge.py").read_text(encoding="utf-8")
FINDS = {check.finds.__name__ for check in CHECKS.values() if check.finds is not None}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_generator_of_findings_is_asked(path):
    assert idle(path.read_text(encoding="utf-8"), JUDGE, FINDS) == []


def test_a_generator_that_no_gate_asks_is_noticed():
    source = "def novel(matched: Matched, policy: Policy) -> Iterator[Finding]:\n    yield 1\n"
    assert idle(source, JUDGE, FINDS)[0].startswith("novel is never asked: name it as finds")
    assert idle(source, JUDGE, {"novel"}) == []


def test_a_check_without_a_row_is_noticed():
    source = "def f():\n    yield finding('note', 'novel.thing', None, 'text')\n"
    assert faults(source) == ["'novel.thing': add a row 'novel' to CHECKS of gate/checks.py"]
    source = "def f():\n    yield finding('regression', 'bits.changed', None, 'text')\n"
    assert "give its row in CHECKS a word" in faults(source)[0]
    source = (
        "def f(kind):\n    check = 'a.b' if x else 'c'\n    yield finding(kind, check, None, '')\n"
    )
    assert len(faults(source)) == 2


def unbound(keys, checks) -> tuple[set[str], set[str]]:
    """Keys of the policy that no check names, and keys named that the policy hasn't."""
    named = {key for check in checks.values() for key in check.policy}
    return set(keys) - named - UNBOUND, named - set(keys)


def test_every_key_of_the_policy_decides_a_check_and_has_a_default():
    idle, unknown = unbound(Policy.model_fields, CHECKS)
    assert not idle, f"{idle}: name them in the rows of CHECKS (gate/checks.py) that they decide"
    assert not unknown, f"{unknown}: add them to Policy (gate/policy.py), with a default"
    assert Policy()  # every key has one
    assert unbound([*Policy.model_fields, "novel"], CHECKS)[0] == {"novel"}


@pytest.mark.parametrize("key", CHECKS)
def test_a_check_is_told_in_every_form(key):
    row = CHECKS[key]
    assert row.key == key
    said = show.said(Finding("note", f"{key}.thing", "", "a sentence"))
    assert said == f"note [{key}.thing] {'all cells: ' if row.of_cells else ''}a sentence"


def test_every_kind_of_finding_has_a_mark_a_word_and_a_code():
    assert set(MARKS) == {*KINDS, ""}
    assert {*judge.WORDS, "regression", "note"} == set(KINDS)
    assert set(judge.VERDICTS) == set(KINDS.values())
    assert all(code.verdict for code in KINDS.values()), "core/errors.py: give the code a verdict"
    assert show.meaning(Exit.CORRUPT) == show.meaning(99) == "unknown"
