"""Every row of the catalogue whose code needs torch: the code's tables are read from its source.

`tests/lab/test_catalogue_code.py` and `tests/lab/test_quantization.py` run what these only name.
"""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from typing import get_args

import pytest

from peftmark.analysis.comparison import MEANS, WEIGHTED
from peftmark.catalog.methods import METHODS
from peftmark.catalog.metrics import METRICS, Metric
from peftmark.catalog.quantizations import QUANTIZATIONS, Family
from peftmark.core.files import PACKAGE
from peftmark.machine import environment
from peftmark.record.field import LIVE_PARTS
from peftmark.record.outcome import OUTCOME_FIELDS
from places import ROOT


def tree(path: str) -> ast.Module:
    """The syntax tree of a module of the package."""
    return ast.parse((PACKAGE / path).read_text(encoding="utf-8"))


def keys(path: str, table: str) -> list[str]:
    """The keys of a table that a module writes down as a dict."""
    for node in tree(path).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == table:
            assert isinstance(node.value, ast.Dict), f"{path}: {table} is no plain dict any more"
            return [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
    raise AssertionError(f"{path} has no table {table} any more: has this test gone blind?")


def texts(path: str) -> set[str]:
    """Every text that a module names."""
    found = (n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant))
    return {value for value in found if isinstance(value, str)}


# --- metrics ------------------------------------------------------------------------------------

LABELLED = {"classification", "regression"}
PREDICTED = keys("lab/metrics.py", "PREDICTED") + keys("lab/metrics.py", "PROBABLE")


@pytest.mark.parametrize("key", METRICS)
def test_a_metric_is_computed(key):
    if LABELLED & set(METRICS[key].kinds):
        assert key in PREDICTED, (
            f"{key} stands in catalog/metrics.py and nothing computes it: add it to PREDICTED (or "
            "PROBABLE) in lab/metrics.py"
        )
    else:
        assert key in texts("lab/metrics.py"), (
            f"{key} stands in catalog/metrics.py and nothing computes it: add it to of_text, "
            "of_answers or answers in lab/metrics.py"
        )


@pytest.mark.parametrize("key", PREDICTED)
def test_what_is_computed_has_a_row(key):
    assert key in METRICS, f"lab/metrics.py computes {key}: add its row to catalog/metrics.py"


def on_drawn_rows(metric: Metric) -> bool:
    """Whether rows keep what the metric is made of: probabilities and several labels they don't."""
    return not (metric.beside or metric.probabilities or set(metric.kinds) == {"multi-label"})


@pytest.mark.parametrize("key", [key for key, metric in METRICS.items() if on_drawn_rows(metric)])
def test_a_metric_that_may_stand_first_has_the_noise_of_the_choice_of_rows(key):
    assert key in {*MEANS, *WEIGHTED}, (
        f"{key} may be a task's first metric, and its value on drawn rows isn't known: write it "
        "into WEIGHTED of analysis/resampled_metrics.py (into MEANS if predictions are its values "
        "a row), or set beside=True in catalog/metrics.py"
    )


# --- methods ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [key for key, method in METHODS.items() if method.trains])
def test_a_method_has_its_function(key):
    assert key in keys("lab/methods/__init__.py", "_HOMES"), (
        f"{key} stands in catalog/methods.py and no function stands for it: write it into a file "
        "of lab/methods and name that in _HOMES of lab/methods/__init__.py"
    )


# --- figures ------------------------------------------------------------------------------------


@cache
def set_anywhere() -> set[str]:
    """Names that the lab, or the supervisor of a process, gives a value: by keyword, as a key of
    a dict, or as a note."""
    found = {part.column for part in LIVE_PARTS}
    supervisor = [PACKAGE / "executors" / name for name in ("in_turn.py", "beside.py")]
    for path in (*(PACKAGE / "lab").rglob("*.py"), *supervisor):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg:
                found.add(node.arg)
            if isinstance(node, ast.Dict):
                found |= {k.value for k in node.keys if isinstance(k, ast.Constant)}
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".note"):
                found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    return found


@pytest.mark.parametrize("name", OUTCOME_FIELDS)
def test_a_figure_is_measured(name):
    assert name in set_anywhere(), (
        f"nothing in lab/ sets Outcome.{name}: call meters.note({name!r}, value) where it is "
        "measured, or set it in lab/measure/to_outcome.py or lab/recipe.py"
    )


# --- quantizations ------------------------------------------------------------------------------


@pytest.mark.parametrize("key", QUANTIZATIONS)
def test_a_quantization_has_a_back_end_and_a_family(key):
    assert key in keys("lab/quantization/table.py", "BACKENDS"), (
        f"{key} stands in catalog/quantizations.py and has no back-end: write BACKEND into a file "
        "of lab/quantization and name it for the key in BACKENDS of lab/quantization/table.py"
    )
    family = QUANTIZATIONS[key].family
    assert family in get_args(Family), (
        f"{family}: add it to the Literal Family in catalog/quantizations.py"
    )
    assert any(family in texts(f"lab/quantization/{path.name}") for path in BACKENDS), (
        f"no BACKEND in lab/quantization is of the family {family}"
    )


BACKENDS = sorted((PACKAGE / "lab" / "quantization").glob("*.py"))


def test_a_back_end_has_a_row():
    assert keys("lab/quantization/table.py", "BACKENDS") == list(QUANTIZATIONS), (
        "BACKENDS of lab/quantization/table.py and QUANTIZATIONS of catalog/quantizations.py must "
        "have the same keys in the same order"
    )


@pytest.mark.parametrize("name", sorted({q.optional for q in QUANTIZATIONS.values()} - {""}))
def test_an_optional_library_can_be_installed_and_its_version_is_kept(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    (extra,) = {
        q.install[len("peftmark[") : -1] for q in QUANTIZATIONS.values() if q.optional == name
    }
    assert any(line.startswith(name) for line in extras.get(extra, ())), (
        f"pyproject.toml: add the extra {extra}, and the same line to dev"
    )
    assert any(line.startswith(name) for line in extras["dev"]), (
        f"pyproject.toml: add {name} to dev"
    )
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert any(pin.startswith(f"{name}==") for pin in pins), f"constraints.txt: pin {name}"
    untyped = [row for row in project["tool"]["mypy"]["overrides"] if "module" in row]
    imported = {q.imported.partition(".")[0] for q in QUANTIZATIONS.values() if q.optional == name}
    assert all(any(f"{one}.*" in row["module"] for row in untyped) for one in imported), (
        f"pyproject.toml: add .* of {', '.join(imported)} to mypy's ignore_missing_imports"
    )
    assert name in environment.PACKAGES and name in environment.OPTIONAL, (
        "machine/environment.py: OPTIONAL no longer follows from catalog/quantizations.py"
    )
