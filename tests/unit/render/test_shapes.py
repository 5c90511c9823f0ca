"""A radar shows three shapes at most, of those that the reader picks, without a script."""

import re

from peftmark.render import draw, shapes
from peftmark.render.chart_specs import Mark, Outline, Radar, RadarPoint
from peftmark.render.page import Figure

AXES = ("quality", "speed", "memory")


def figure(names, drawn=(0,), gap=False):
    points = (RadarPoint(0.5), RadarPoint(None if gap else 0.2), RadarPoint(1.0, clipped=True))
    outlines = tuple(Outline(Mark(name, "lora"), points) for name in names)
    return Figure("radar", "finding", Radar(AXES, outlines, drawn))


FOUR = figure(["A & B", "C", "D", "E"], drawn=(0, 2, 3))


def test_three_lists_offer_every_cell_and_start_with_what_is_drawn():
    text = shapes.pickers(FOUR)
    lists = re.findall(r'<select id="([\w-]+)" aria-label="([^"]+)".*?</select>', text)
    assert lists == [("radar-0", "Shape 1"), ("radar-1", "Shape 2"), ("radar-2", "Shape 3")]
    chosen = re.findall(r'<option value="(\d*)" selected>([^<]*)', text)
    assert chosen == [("0", "A &amp; B"), ("2", "D"), ("3", "E")]
    assert text.count("<option") == 3 * 4 + 2 and text.count('value="">none') == 2


def test_what_is_not_drawn_at_first_is_hidden_in_the_picture_itself():
    text = draw.render(FOUR)
    ids = re.findall(r'<g id="radar-([sk]\d+-\w+-(?:on|off))"( display="none")?', text)
    assert {name[1] for name, hidden in ids if hidden} == {"1"}
    assert {name[1] for name, hidden in ids if not hidden} == {"0", "2", "3"}
    of_one = {name for name, _ in ids if name[1] == "1"}
    assert of_one == {f"{x}-off" for x in ("s1-line", "s1-dots", "s1-tick", "k1-line", "k1-name")}
    assert "radar-s0-area-on" in text and "radar-s1-area" not in text


def test_rules_show_what_a_list_names_in_its_dashes_and_on_its_line_of_the_key():
    rules = shapes.rules(FOUR)
    assert rules.startswith("@supports selector(:has(a)){[id^=radar-s],[id^=radar-k]{display:none}")
    assert rules.count(":checked){") == 3 * 4
    third = next(r for r in rules.split(".question") if "#radar-2 [value='1']" in r)
    assert "[id^=radar-s1-],[id^=radar-k1-]{display:inline}" in third
    assert "stroke-dasharray:2 2!important" in third and "translateY(40px)" in third
    home = next(r for r in rules.split(".question") if "#radar-2 [value='3']" in r)
    assert "translateY(0px)" in home  # drawn on that line already
    assert rules.count("{") == rules.count("}")


def test_one_outline_leaves_nothing_to_pick():
    alone = figure(["A"])
    assert shapes.pickers(alone) == shapes.rules(alone) == ""


def test_a_gap_breaks_the_line_and_leaves_no_area():
    whole, broken = (draw.render(figure(["A"], gap=gap)) for gap in (False, True))
    line = r'id="radar-s0-line-on">\s*<path d="([^"]*)"'
    assert re.search(line, whole)[1].count("M") == 3
    assert re.search(line, broken)[1].count("M") == 1
    assert "s0-area" in whole and "s0-area" not in broken
