"""Published memory figures as data: `claims/memory.yaml` below a folder of suites.

How a figure is held against predictions says `peftmark.claims.memory_figures`.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from peftmark.claims.ledger import Text
from peftmark.core.strict import Strict
from peftmark.core.strict_yaml import read_yaml
from peftmark.memory.published_run import Scenario, fault, filled
from peftmark.record.fields import LIVE_PARTS
from peftmark.suite.checks import suite_folders
from peftmark.suite.faults import fault_lines, refused
from peftmark.suite.names import known
from peftmark.suite.schema import Word
from peftmark.suite.schema_runs import Positive

LEDGER = Path("claims") / "memory.yaml"
MOST_READINGS = 24
COMPONENTS = (*(part.key for part in LIVE_PARTS), "paged")
"""Parts of a peak, and optimizer states that may be paged out."""

Components = Annotated[list[Annotated[str, known("component", COMPONENTS)]], Field(min_length=1)]


class PartFigure(Strict):
    """A figure of one part of a peak: the sum of some components at that moment."""

    figure: Positive
    of: Components


class Figure(Strict):
    """A published figure.

    Attributes:
        claim: of the ledger of claims; None where no claim there says it.
        says: what the source says, in one sentence.
        kind: the figure is what a run takes, what it fits into, what it needs at least, or what
            `scenario` takes over what `over` takes.
        meter: what was measured; "estimate" is a sum that the source gives without a measurement.
        code: whose model code ran.
        of: the components that the figure is about; None for the whole peak.
        parts: figures of parts, in the same unit.
        unstated: field of the scenarios -> values to try; fills whichever leaves the field out.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    claim: Annotated[str, Field(pattern=r"^[A-Z]{1,8}[0-9]{2,4}$")] | None
    says: Text
    source: Text
    figure: Positive
    unit: Literal["MB", "GB", "MiB", "GiB", "ratio"]
    kind: Literal["is", "fits", "needs", "ratio"]
    meter: Literal["allocated", "reserved", "nvidia-smi", "estimate", "unknown"]
    code: Literal["transformers", "other"] = "transformers"
    of: Components | None = None
    parts: Annotated[dict[Word, PartFigure], Field(min_length=1)] | None = None
    scenario: dict[str, Any]
    over: dict[str, Any] | None = None
    unstated: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    caveat: Text | None = None

    @model_validator(mode="after")
    def _whole(self) -> Figure:
        ratio = self.kind == "ratio"
        if ratio != (self.over is not None) or ratio != (self.unit == "ratio"):
            raise fault("a ratio, and nothing else, has `over` and the unit ratio")
        if self.kind != "is" and (self.parts or self.of):
            raise fault("`of` and `parts` are of a figure that is what a run takes")
        count = len(self.combinations)
        if count > MOST_READINGS:
            raise fault(f"`unstated` has {count} combinations; at most {MOST_READINGS}")
        _ = self.readings
        return self

    @cached_property
    def combinations(self) -> list[dict[str, Any]]:
        """Every choice of the values to try."""
        names = list(self.unstated)
        return [
            dict(zip(names, chosen, strict=True))
            for chosen in itertools.product(*self.unstated.values())
        ]

    @cached_property
    def readings(self) -> list[tuple[dict[str, Any], tuple[Scenario, ...]]]:
        """Each choice with the scenario, or both, that it makes; of an unfair ratio a third one:
        `scenario` as `over` was run."""
        raw = [self.scenario, *([self.over] if self.over is not None else [])]
        for name, values in self.unstated.items():
            if name not in Scenario.model_fields:
                raise fault(f"unstated: {name} is no field of a scenario")
            if all(name in scenario for scenario in raw):
                raise fault(f"unstated: {name} is stated")
            if any(value in values[:place] for place, value in enumerate(values)):
                raise fault(f"unstated: {name} has a value twice")
        if self.unfair:  # what it would be compared with, had both sides the same
            raw.append(raw[0] | {name: raw[1][name] for name in self.unfair})
        return [
            (chosen, tuple(filled(scenario, chosen) for scenario in raw))
            for chosen in self.combinations
        ]

    @cached_property
    def unfair(self) -> tuple[str, ...]:
        """Of a ratio of two methods, what else its two runs differ in that moves memory."""
        one, other = self.scenario, self.over or {}
        if all(one.get(name) == other.get(name) for name in ("method", "quantization")):
            return ()
        return tuple(n for n in UNFAIR if n in one and n in other and one[n] != other[n])


UNFAIR = ("batch", "length")
"""Fields of a run that a comparison of methods must have the same on both sides."""


class _LedgerFile(Strict):
    figures: Annotated[list[Figure], Field(min_length=1)]


def load_figures(path: Path | None = None) -> list[Figure]:
    """The figures of a ledger, in its order.

    Args:
        path: None for the first ledger among the folders of suites.

    Raises:
        SuiteError: no ledger, or one with faults: every one on a line.
    """
    if path is None:
        places = [folder / LEDGER for folder in suite_folders(None)]
        path = next((place for place in places if place.is_file()), places[-1])
    raw = read_yaml(path)
    try:
        figures = _LedgerFile.model_validate(raw).figures
        ids = [figure.id for figure in figures]
        faults = [
            f"figures: the id {name} stands here twice"
            for place, name in enumerate(ids)
            if name in ids[:place]
        ]
    except ValidationError as error:
        figures, faults = [], [_named(fault, raw) for fault in fault_lines(error)]
    if faults:
        raise refused(
            path, faults, "bench/peftmark/claims/memory_ledger.py says how a figure is written."
        )
    return figures


def _named(fault: str, raw: Any) -> str:
    """A fault with the id of the figure it is in."""
    try:
        index = int(fault.removeprefix("figures[").partition("]")[0])
        return f"{raw['figures'][index]['id']}: {fault}"
    except (ValueError, TypeError, KeyError, IndexError):
        return fault
