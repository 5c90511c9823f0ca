"""Every measured figure has one row, and whatever speaks of one names a row that there is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from peftmark.advice import guide_verdicts, money, trade
from peftmark.analysis import validity
from peftmark.claims import measures as of_claims
from peftmark.core.amounts import Price
from peftmark.core.files import PACKAGE
from peftmark.docgen.structure import described
from peftmark.gate import costs, counts, run_lines
from peftmark.record.columns import OUTCOME_COLUMNS
from peftmark.record.field import LIVE_PARTS, PHASES
from peftmark.record.fields import FIELDS, by_phase, figure, side, title
from peftmark.record.outcome import OUTCOME_FIELDS
from peftmark.render import words
from peftmark.report import axes, language, measures, pareto
from peftmark.trend import series

OF_THE_RECORD = (
    "metric_name",
    "target_value",
    "nvml_process_bytes",
    "nvml_device_bytes",
    "predicted_seconds",
    "most_seeds",
    "look",
    "question",
    "profile_seeds",
    "wall_seconds",
    "started_at",
    "finished_at",
    "command",
    "config",
    "environment",
)
"""Columns that `record.columns.to_row` takes from the job and the supervisor."""
ARROW = {"string", "int64", "float64", "bool", "json", "numbers", "strings", "curve"}
TYPES = {"int64": int, "float64": float, "bool": bool}


def test_every_attribute_of_the_outcome_has_a_row():
    for name in OUTCOME_FIELDS:
        assert name in FIELDS, (
            f"Outcome.{name} is not stored: write Field({name!r}, ...) into record/fields_*.py, at "
            "its place among the columns, then run python -m peftmark.docgen.columns_page"
        )


def test_every_row_is_an_attribute_of_the_outcome():
    for key in FIELDS:
        assert key in (*OUTCOME_FIELDS, *OF_THE_RECORD), (
            f"nothing fills the column {key}: give record/outcome.py an attribute of that name and "
            "set it where it is measured (lab/measure/to_outcome.py, lab/recipe.py); if the job or "
            "the supervisor has it, set it in record/columns.py and name it in OF_THE_RECORD here"
        )


def test_every_row_is_whole():
    for field in FIELDS.values():
        holds_a_whole_row(field)


def holds_a_whole_row(field):
    at = f"record/fields_*.py, {field.key}"
    assert field.type in ARROW, f"{at}: the type {field.type} is none of {sorted(ARROW)}"
    assert field.phase in PHASES, f"{at}: the phase is none of {list(PHASES)}"
    for name, text in (("title", field.title), ("meter", field.meter), ("summary", field.summary)):
        assert text and text == text.strip(), f"{at}: write its {name}"
        assert "|" not in text and "\n" not in text, f"{at}: its {name} breaks the table"
    assert not field.title.endswith("."), f"{at}: a title stands inside sentences"
    assert "as above" not in field.null, f"{at}: a row stands for itself; say when it is null"
    if field.kind == "cost":
        assert field.better, f"{at}: say which is better of a cost"


@pytest.mark.parametrize(
    ("end", "unit"),
    [
        (r"_seconds(_p\d\d)?$", "seconds"),
        ("_bytes$", "bytes"),
        ("_rows$", "rows"),
        ("_joules$", "joules"),
        ("_share$", "share"),
        ("_parameters$", "parameters"),
        ("_hash$", "SHA-256"),
    ],
)
def test_the_unit_in_a_name_is_its_unit(end, unit):
    found = {key: field.unit for key, field in FIELDS.items() if re.search(end, key)}
    assert found and set(found.values()) == {unit}, found


def test_no_two_figures_share_a_title():
    titles = [field.title for field in FIELDS.values()]
    assert sorted({t for t in titles if titles.count(t) > 1}) == []


def test_columns_types_and_order_are_those_of_the_rows():
    assert list(OUTCOME_COLUMNS.items()) == [(key, field.type) for key, field in FIELDS.items()]
    assert list(FIELDS)[:2] == ["status", "status_reason"] and list(FIELDS)[-1] == "environment"


def test_the_order_of_a_job_keeps_every_row():
    places = [list(PHASES).index(field.phase) for field in by_phase()]
    assert places == sorted(places)
    assert {field.key for field in by_phase()} == set(FIELDS)


# --- who speaks of a figure ---------------------------------------------------------------------


def named() -> Iterator[tuple[str, str]]:
    """(where, key) of every figure that a table of another folder names."""
    for module in (measures, language, pareto):
        for name, value in vars(module).items():
            found = value if isinstance(value, tuple) else (value,)
            for one in (m for m in found if isinstance(m, measures.Measure)):
                for key in (one.name, *one.beside):
                    yield f"report/{module.__name__.rpartition('.')[2]}.{name}", key
    yield from (("report/axes.READ", key) for key in axes.READ.values())
    for key, measure in of_claims.MEASURES.items():
        if measure.derived is None:
            yield "claims/measures.MEASURES", key
    for cost in (
        *money.costs_of(Price(1.0, "USD")).values(),
        *guide_verdicts.COSTS.values(),
        trade.FORGETTING,
    ):
        yield "advice/trade", cost.name
    yield from (("trend/series.MEASURES", measure.column) for measure in series.MEASURES)
    for where, keys in (
        ("gate/run_lines.MEMORY", run_lines.MEMORY),
        ("gate/costs.SMALL", costs.SMALL),
        ("gate/costs.NOISIER", costs.NOISIER),
        ("gate/counts.LEARNED", counts.LEARNED),
        ("gate/counts.KERNELS", counts.KERNELS),
    ):
        yield from ((where, key) for key in keys)
    yield from (("record/field.LIVE_PARTS", part.column) for part in LIVE_PARTS)


def test_every_figure_that_is_named_has_a_row():
    for where, key in sorted(set(named())):
        assert key in FIELDS, (
            f"{where} names {key}, which nothing measures: correct it, or write its row in "
            "record/fields_*.py and its attribute in record/outcome.py"
        )


def test_an_unknown_figure_is_said_with_what_to_write():
    for ask in (figure, title, side):
        with pytest.raises(KeyError, match=r"`peak_memory`.*record/fields_\*\.py.*outcome\.py"):
            ask("peak_memory")
    with pytest.raises(KeyError, match="write its row"):
        measures.Measure("peak_memory").column  # noqa: B018
    with pytest.raises(KeyError, match="write its row"):
        of_claims._of("peak_memory", "count")


def test_a_claim_can_only_order_by_what_has_a_better_side():
    with pytest.raises(ValueError, match=r"total_parameters.*must say which is better"):
        of_claims._of("total_parameters", "count")


def test_titles_and_sides_are_those_of_the_rows_everywhere():
    peak = FIELDS["peak_memory_bytes"]
    assert of_claims.MEASURES[peak.key].title == trade.MEMORY.title == measures.PEAK.title
    assert {m.title for m in series.MEASURES} >= {peak.title, title("step_seconds_p50")}
    assert peak.title in axes.TITLES["memory"][1]
    assert measures.PEAK.hint == "MiB, lower is better"
    for one in measures.RELATIVE:
        assert one.hint.endswith(side(one.name))


def test_what_is_told_a_gate_or_a_repeat_follows_from_the_rows():
    assert set(validity.SAME_BITS) == {k for k, f in FIELDS.items() if f.deterministic} - {"curve"}
    several = {*run_lines.AS_TEXT, run_lines.FIRST_STEP.rstrip(".")}
    assert {*run_lines.COUNTS, *several} == {k for k, f in FIELDS.items() if f.exact}
    least = {"adapter_bytes", "flops_per_step", "live_bytes", "padding_share", counts.TEMPORARY}
    assert set(counts.COSTS) == least
    assert set(costs.SMALL) == set(run_lines.MEMORY) >= set(costs.NOISIER)
    assert {*counts.LEARNED, *counts.KERNELS} <= set(run_lines.COUNTS)


@pytest.mark.parametrize("measure", measures.LIVE + measures.METERS, ids=lambda m: m.name)
def test_bytes_are_shown_in_a_unit_that_has_a_scale(measure):
    assert measure.scale == words.SCALES[measure.unit] == words.MIB


# --- parts of the live peak ---------------------------------------------------------------------


def test_the_components_that_are_followed_are_the_parts():
    source = (PACKAGE / "lab" / "memory" / "live_tensors.py").read_text(encoding="utf-8")
    (followed,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "LiveBytes"
    )
    fields = [
        node.target.id
        for node in followed.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    assert fields == [part.key for part in LIVE_PARTS], (
        "LiveBytes (lab/memory/live_tensors.py) and LIVE_PARTS (record/field.py) must name the "
        "same parts in the same order"
    )


def test_every_part_has_a_row_right_behind_the_peak():
    keys = list(FIELDS)
    first = keys.index("live_bytes") + 1
    assert keys[first : first + len(LIVE_PARTS)] == [part.column for part in LIVE_PARTS]
    assert [FIELDS[part.column].title for part in LIVE_PARTS] == [p.title for p in LIVE_PARTS]


def test_what_the_code_decides_is_pooled_over_machines_and_what_a_clock_says_is_not():
    for field in FIELDS.values():
        if field.exact or field.kind == "quality":
            assert field.pooled, field.key
        if field.section == "Energy" or field.key.endswith(("_seconds", "per_second")):
            assert not field.pooled, field.key
    apart = {"torch_allocated_bytes", "torch_reserved_bytes", "nvml_process_bytes", "vmhwm_bytes"}
    assert not any(
        FIELDS[key].pooled for key in apart | {"mfu", "step_seconds_p50", "latency_p95_seconds"}
    )


# --- how often a figure is described ------------------------------------------------------------


def test_places_that_describe_a_figure_are_counted(tmp_path):
    package = tmp_path / "package"
    (package / "record").mkdir(parents=True)
    texts = {
        "record/fields_memory": 'Field("x_bytes", "int64", "the x")',
        "title": 'Measure("x_bytes", "size of x")',
        "side": 'MEASURES = (("x_bytes", "lower"),)',
        "entry": 'TITLES = {"x_bytes": "bytes of x"}',
        "read": 'value = row["x_bytes"]; gap(slots, "x_bytes"); NAMES = ("x_bytes", "y_bytes")',
        "far": 'ratio("memory of", other("x_bytes"))',
    }
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    assert described("x_bytes", package) == ["package.entry", "package.side", "package.title"]
