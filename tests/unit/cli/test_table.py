"""The command `table`: the same text as from Python, and one message where there is nothing."""

from __future__ import annotations

import json

import pytest

import peftmark
from peftmark.cli import parser
from places import DOCS

EXAMPLE = DOCS / "example"


@pytest.fixture
def table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as left:
            parser.main(["table", "glue", *words])
        return left.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("form", ["markdown", "latex", "csv", "html"])
def test_it_prints_what_python_gives(table, form):
    code, text, errors = table("--from", str(EXAMPLE), "--format", form)
    assert (code, errors) == (0, "")
    assert text == peftmark.table(EXAMPLE, format=form)


def test_json_has_every_figure(table):
    code, text, _ = table("--from", str(EXAMPLE), "--json")
    told = json.loads(text)
    assert code == 0 and len(told["figures"]) == 7 * 5
    assert told["figures"][0]["mean"] == pytest.approx(0.8345883970329909)


def test_another_format_is_refused(table):
    code, text, errors = table("--from", str(EXAMPLE), "--format", "word")
    assert (code, text) == (2, "")
    assert "format 'word' is unknown\nFormats: markdown, latex, csv, html." in errors


def test_without_rows_it_says_what_to_do(table, tmp_path):
    code, text, errors = table()
    assert (code, text) == (2, "")
    assert "results/glue holds no results\nRun them first: peftmark run glue" in errors
    assert list(tmp_path.iterdir()) == []


def test_a_suite_is_never_named_by_a_path(capsys):
    with pytest.raises(SystemExit) as left:
        parser.main(["table", "../glue"])
    assert left.value.code == 2
    assert "never by a path" in capsys.readouterr().err


def test_rows_of_another_suite_are_not_taken_for_those_of_the_one_named(capsys):
    with pytest.raises(SystemExit) as left:
        parser.main(["table", "smoke", "--from", str(EXAMPLE)])
    assert left.value.code == 2
    assert "has rows of suite glue, not of smoke" in capsys.readouterr().err
