"""Colours and markers of methods: one table, from which drawings and style sheets take theirs."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from peftmark.catalog.method import Family
from peftmark.catalog.methods import METHODS, Cell, all_methods
from peftmark.render import html, svg
from peftmark.render.page import marks
from peftmark.render.series import OTHER, SERIES, series_of
from peftmark.render.style import marker

FOLDER = html.FOLDER


def rowless(families, references) -> set[str]:
    """Families and references without a series of their own."""
    return {*families, *references} - {"reference"} - set(SERIES)


def test_every_family_and_reference_has_a_series():
    references = [key for key, method in METHODS.items() if method.family == "reference"]
    left = rowless(get_args(Family), references)
    assert not left, f"{left}: add a row to SERIES in peftmark/render/series.py"
    assert rowless((*get_args(Family), "novel"), references) == {"novel"}


def test_no_two_series_look_alike():
    for read in (lambda s: s.light, lambda s: s.dark, lambda s: s.marker):
        assert len({read(s) for s in SERIES.values()}) == len(SERIES)
    for series in SERIES.values():
        assert re.fullmatch("#[0-9a-f]{6}", series.light) and re.fullmatch(
            "#[0-9a-f]{6}", series.dark
        )
        assert series.light not in (svg.INK, svg.MUTED, svg.LINE, svg.PAPER)


@pytest.mark.parametrize("method", [*all_methods(), "novel"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_every_cell_has_a_series_and_a_marker(method, quantization):
    cell = Cell(method, None, quantization)
    mark = marks((cell,))[cell]
    assert mark.series == series_of(cell) in SERIES
    assert (mark.series == OTHER) == (method == "novel")
    assert marker(mark)["marker"] == SERIES[mark.series].marker


def test_the_style_sheets_have_every_colour_in_both_themes():
    sheet = html.css()
    for series in SERIES.values():
        assert sheet.count(f"--c-{series.key}: {series.light};") == 1
        assert sheet.count(f"--c-{series.key}: {series.dark};") == 1
        assert f"--c-{series.key}:{series.dark}" in svg.STANDALONE
        assert svg.VARIABLES[series.light] == f"var(--c-{series.key},{series.light})"


def test_no_colour_of_a_series_stands_anywhere_else():
    colours = {c for s in SERIES.values() for c in (s.light, s.dark)}
    for path in [*FOLDER.glob("*.py"), *FOLDER.glob("*.css"), *FOLDER.glob("*.jinja")]:
        if path.name != "series.py":
            assert not colours & set(re.findall("#[0-9a-f]{6}", path.read_text("utf-8"))), path
