"""Stored rows as data frames: one row a run, or one a run and evaluation step."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from peftmark.analysis.order import ordered
from peftmark.api.selected import Selected
from peftmark.catalog.methods import METHODS, Cell, cell_title
from peftmark.catalog.metrics import metric_of
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.record.columns import COLUMNS, JSON_COLUMNS, to_row
from peftmark.record.fields import FIELDS
from peftmark.record.fields_watch import WATCHED
from peftmark.record.job import Job, Purpose, Record
from peftmark.record.outcome import STATUSES, CurvePoint
from peftmark.record.recipe import UNITS, AdaLoraSchedule, Recipe

if TYPE_CHECKING:
    from pandas import DataFrame, Series

RUN = ("suite", "profile", "cell", "task", "seed")
FIRST = (*RUN, "purpose", "status", "metric_name", "metric_value", "learning_rate")
"""Columns that stand first."""
BULKY: tuple[str, ...] = ("predictions", "references", "completions", "config", "environment")
BULKY += ("rank_history", "importance_history", "gate_history", *WATCHED)
"""Columns that only whoever asks for them gets."""
AS_JSON = {*JSON_COLUMNS, "config", "environment"}
"""Columns that are stored as JSON."""
SPREAD = ("metrics", "phase_seconds")
"""Columns of named numbers that become a column each, such as `metrics.accuracy`."""
OF_JOB: tuple[str, ...] = (
    "suite",
    "profile",
    "task",
    "method",
    "size",
    "quantization",
    "variant",
    "seed",
)
OF_JOB += ("purpose", "job_id")
"""What says of each row which run it is of."""
OF_CURVE = {
    "step": "selected_step",
    "loss": "loss",
    "metric": "metric_value",
    "seconds": "train_seconds",
    "selection_metric": "selection_metric_value",
    "penalty": "penalty",
    "gradient_norm": "",
}
"""Column of a curve -> the measured figure whose unit it has."""
DTYPES = {"int64": "Int64", "bool": "boolean", "float64": "float64", "string": "str"}
"""Kind of a stored column -> type in a frame; others are objects."""


def results_frame(
    selected: Selected, *, failed: bool, trials: bool, repeats: bool, bulky: bool
) -> DataFrame:
    """One row a run, with every recorded column; see `peftmark.load_results`."""
    records = selected.of(_purposes(trials, repeats), failed)
    rows = [{**_stored(record, bulky), **settings(record.job)} for record in records]
    kinds = {n: "json" if n in AS_JSON else kind for n, kind in COLUMNS.items()}
    kinds = {name: kind for name, kind in kinds.items() if bulky or name not in BULKY}
    kinds = {"cell": "string", **kinds, **SETTINGS}
    for name in ("curve", *SPREAD):
        del kinds[name]
    spread = sorted({name for row in rows for name in row} - kinds.keys())
    kinds |= dict.fromkeys(spread, "float64")
    for name in (n for n in spread if n.startswith("options.")):
        kinds[name] = _kind_of(row.get(name) for row in rows)
    order = [*FIRST, *(name for name in kinds if name not in FIRST)]
    kinds = {name: kinds[name] for name in order}
    frame = frame_of(rows, kinds, selected.table.jobs, selected.table.reference)
    _describe(frame, selected, failed)
    return frame


def curves_frame(selected: Selected, *, failed: bool, trials: bool, repeats: bool) -> DataFrame:
    """One row a run and evaluation step; see `peftmark.curves`."""
    rows = []
    for record in selected.of(_purposes(trials, repeats), failed):
        job = record.job
        run = {name: getattr(job, name) for name in OF_JOB} | {
            "cell": cell_title(*job.cell),
            "status": record.outcome.status,
            "metric_name": job.metric,
            "learning_rate": job.recipe.learning_rate,
        }
        rows += [run | vars(point) for point in record.outcome.curve]
    points = [f.name for f in dataclasses.fields(CurvePoint)]
    kinds = {name: COLUMNS.get(name, "string") for name in ("cell", *OF_JOB, "status")}
    kinds |= {"metric_name": "string", "learning_rate": "float64"}
    kinds |= dict.fromkeys(points, "float64") | {"step": "int64"}
    first = (*RUN, "step", "metric", "loss")
    order = [*first, *(name for name in kinds if name not in first)]
    kinds = {name: kinds[name] for name in order}
    frame = frame_of(rows, kinds, selected.table.jobs, selected.table.reference)
    _describe(frame, selected, failed)
    frame.attrs["units"] |= {
        name: FIELDS[figure].unit if figure else "" for name, figure in OF_CURVE.items()
    }
    return frame


def _purposes(trials: bool, repeats: bool) -> list[Purpose]:
    found: list[Purpose] = ["report"]
    if trials:
        found.append("tuning")
    if repeats:
        found.append("repeat")
    return found


# --- rows ---------------------------------------------------------------------------------------


def _stored(record: Record, bulky: bool) -> dict[str, Any]:
    """The stored columns of a record as Python values, but its curve."""
    row = to_row(record)
    for name in ("curve", *(() if bulky else BULKY)):
        del row[name]
    for name in row.keys() & AS_JSON:
        row[name] = json.loads(row[name])
    for name in SPREAD:
        row |= {f"{name}.{key}": value for key, value in row.pop(name).items()}
    return row | {"cell": cell_title(*record.job.cell)}


def settings(job: Job) -> dict[str, Any]:
    """How a job trains, a column a setting.

    A setting that is called like a measured column has `recipe.` before it: `recipe.steps` are
    planned, `steps` were made. AdaLoRA's schedule and a method's own options are `adalora.*` and
    `options.*`.
    """
    recipe = job.recipe
    found = {column_of(f.name): getattr(recipe, f.name) for f in _plain_settings()}
    if recipe.targets is not None and not isinstance(recipe.targets, str):
        found["targets"] = ", ".join(recipe.targets)
    if recipe.budget is not None:
        found["budget"] = str(recipe.budget)
    schedule = vars(recipe.adalora) if recipe.adalora is not None else {}
    found |= {f"adalora.{name}": value for name, value in schedule.items()}
    return found | {f"options.{name}": value for name, value in recipe.options.items()}


def column_of(setting: str) -> str:
    """The column of a setting of the recipe."""
    return f"recipe.{setting}" if setting in COLUMNS else setting


def _plain_settings() -> Iterator[dataclasses.Field[Any]]:
    """The fields of a recipe that are one value each."""
    return (f for f in dataclasses.fields(Recipe) if f.name not in ("adalora", "options"))


def _kind(field: dataclasses.Field[Any]) -> str:
    """Kind of column of a setting, from its annotation."""
    kinds = {"int": "int64", "float": "float64", "bool": "bool"}
    return kinds.get(str(field.type).removesuffix(" | None"), "string")


SETTINGS: dict[str, str] = {column_of(f.name): _kind(f) for f in _plain_settings()} | {
    f"adalora.{f.name}": _kind(f) for f in dataclasses.fields(AdaLoraSchedule)
}
"""Column of every setting -> its kind, those of a method's own options apart."""


def _kind_of(values: Iterable[Any]) -> str:
    """Kind of column for values that only a method knows."""
    types = {type(value) for value in values if value is not None}
    for kind, allowed in (("bool", {bool}), ("int64", {int}), ("float64", {int, float})):
        if types and types <= allowed:
            return kind
    return "string" if types == {str} else "any"


# --- frames -------------------------------------------------------------------------------------


def frame_of(
    rows: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, str],
    jobs: Sequence[Job],
    reference: Cell,
) -> DataFrame:
    """A frame of rows.

    Args:
        kinds: column -> kind, in the order of the columns.
        jobs: the planned jobs, from which categories have their order.
        reference: the cell that stands first.
    """
    import pandas

    made = {name: _series([row.get(name) for row in rows], kind) for name, kind in kinds.items()}
    frame = pandas.DataFrame(made)
    for name, known in _categories(jobs, reference).items():
        if name in frame:
            frame[name] = pandas.Categorical(frame[name], known)
    return frame


def _series(values: list[Any], kind: str) -> Series[Any]:
    import pandas

    return pandas.Series(values, dtype=DTYPES.get(kind, "object"))


def _categories(jobs: Sequence[Job], reference: Cell) -> dict[str, list[str]]:
    """Column -> its values in the report's order."""
    cells = ordered({job.cell for job in jobs}, reference)
    methods, formats = {c.method for c in cells}, {c.quantization for c in cells}
    return {
        "cell": list(dict.fromkeys(cell_title(*cell) for cell in cells)),
        "task": list(dict.fromkeys(job.task for job in jobs)),
        "method": sorted(methods, key=_place_in(METHODS)),
        "quantization": sorted(formats, key=_place_in(QUANTIZATIONS)),
        "model": list(dict.fromkeys(job.model for job in jobs)),
        "purpose": list(get_args(Purpose)),
        "status": list(STATUSES),
    }


def _place_in(names: Iterable[str]) -> Callable[[str], tuple[int, str]]:
    """What names sort by: as they are listed, unknown ones last."""
    known = list(names)
    return lambda name: (known.index(name) if name in known else len(known), name)


def _describe(frame: DataFrame, selected: Selected, failed: bool) -> None:
    """What the frame is, in its `attrs`, and a warning of rows that are missing from it."""
    ended = sum(not r.settled for r in selected.records if r.job.purpose == "report")
    left_out = {**selected.left_out, **({"failed": ended} if ended and not failed else {})}
    reference = selected.reference
    frame.attrs = {
        "source": str(selected.where),
        "reference": None if reference is None else cell_title(*reference),
        "units": {str(name): unit_of(str(name)) for name in frame.columns},
        "left_out": left_out,
        "damaged": dict(selected.damaged),
        "older": dict(selected.older),
    }
    selected.warn(left_out)


def unit_of(column: str) -> str:
    """Unit of a column; empty for one without. "by metric" is that of the row's `metric_name`."""
    start, _, name = column.partition(".")
    if start == "metrics":
        metric = metric_of(name)
        return FIELDS[start].unit if metric is None else metric.unit
    if start in FIELDS:
        return FIELDS[start].unit
    return UNITS.get(name or start, "")
