"""Gates in the report: what is drawn, what is told of parts that were taken out, of older rows."""

from __future__ import annotations

from dataclasses import replace

from factory import LORA, STEPS, make_matrix
from peftmark.catalog.methods import Cell
from peftmark.render import chart_specs, draw
from shown import grid, section, show, write

UNIPELT = Cell("unipelt", 8, "none")
TITLE = "UniPELT r8"


def history(*last):
    """Two layers whose parts go from 0.5 to what each run ends with: adapter, prefix, LoRA."""
    start = [0.5] * (len(STEPS) - 1)
    parts = ("lora", "prefix", "adapter")
    return {
        f"bert.encoder.layer.{layer}.{part}": [*start, end]
        for layer, ends in enumerate(last)
        for part, end in zip(parts, ends, strict=True)
    }


def gated(*runs, cell=UNIPELT):
    rows = make_matrix(cells=[cell], tasks=["sst2"], seeds=[*range(len(runs))])
    return [
        replace(row, outcome=replace(row.outcome, gate_history=run))
        for row, run in zip(rows, runs, strict=True)
    ]


def figures(shown):
    return [f for f in shown.figures() if f.name.startswith("gates-")]


def test_gates_are_drawn_by_layer_and_part_as_means_over_runs():
    one = history((0.6, 0.3, 0.1), (0.8, 0.3, 0.1))
    other = history((0.4, 0.3, 0.3), (0.6, 0.3, 0.3))
    shown = show([*gated(one, other), *make_matrix(cells=[LORA], tasks=["sst2"], seeds=[0, 1])])
    [figure] = figures(shown)
    assert isinstance(figure.drawing, chart_specs.RankMap)
    assert figure.title == TITLE
    assert figure.drawing.layers == ("0", "1")
    assert figure.drawing.modules == ("adapter", "prefix", "LoRA")
    assert [[round(gate, 3) for gate in row] for row in figure.drawing.ranks] == [
        [0.2, 0.3, 0.5],
        [0.2, 0.3, 0.7],
    ]
    # Means over the layers are 0.2, 0.3 and 0.6, of 1.1 in all.
    assert figure.finding == (
        "LoRA is let through most (0.60, 55% of all gates), adapter least (0.20)."
    )
    assert section(shown, "gates").lead == f"{TITLE}: {figure.finding}"
    picture = next(iter(draw.render_all([figure]).values()))
    assert ">0.20<" in picture and ">0.70<" in picture
    rows = grid(shown, "Gates at the last evaluation").rows
    assert [[entry.text for entry in row] for row in rows] == [
        [TITLE, "0", "0.20", "0.30", "0.50"],
        [TITLE, "1", "0.20", "0.30", "0.70"],
    ]
    assert rows[0][2].note == "0.10 to 0.30"


def test_a_part_that_was_taken_out_is_none_and_told():
    one = history((0.6, None, 0.2), (0.8, None, 0.2))
    both = history((0.6, 0.4, 0.2), (0.8, 0.4, 0.2))
    [figure] = figures(show(gated(one)))
    assert [row[1] for row in figure.drawing.ranks] == [None, None]
    assert "taken out: prefix in 1 of 1 run." in figure.finding
    assert "–: taken out." in figure.note
    shown = show(gated(one, both))
    assert "taken out: prefix in 1 of 2 runs." in section(shown, "gates").lead
    entry = grid(shown, "Gates at the last evaluation").rows[0][3]
    assert (entry.text, entry.note) == ("0.40", "taken out in 1 of 2")
    nothing = history((None, None, None), (None, None, None))
    [figure] = figures(show(gated(nothing)))
    assert figure.finding.startswith("No part was left; taken out: adapter in 1 of 1 run, prefix")


def test_rows_without_gates_have_no_section(tmp_path):
    plain = make_matrix(cells=[LORA, UNIPELT], tasks=["sst2"], seeds=[0])
    assert "gates" not in [s.key for s in show(plain).sections]
    old, new = gated({}, history((0.6, 0.3, 0.1), (0.8, 0.3, 0.1)))
    [figure] = figures(show([old, new]))
    assert "mean over its rows and 1 run;" in figure.note
    texts = write(tmp_path, [old, new])
    assert "What the gates let through" in texts["report.md"]
    assert "gate_history" not in texts["rows.csv"].splitlines()[0]
