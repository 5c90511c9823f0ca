"""Published counts of parameters as data: `claims/published-counts.yaml` below a folder of suites.

How they are held against counts of our own says `peftmark.claims.published`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from peftmark.catalog.architectures import LANGUAGE_MODELS
from peftmark.claims.comparisons import Arithmetic
from peftmark.claims.ledger import Text
from peftmark.core.strict import Strict
from peftmark.core.strict_yaml import read_yaml
from peftmark.memory.adapter_counts import Adapter
from peftmark.suite.checks import suite_folders
from peftmark.suite.faults import fault_lines, refused
from peftmark.suite.names import known

LEDGER = Path("claims") / "published-counts.yaml"

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+([-._+][a-z0-9]+)*$")]
Day = Annotated[str, Field(pattern=r"^20\d\d-[01]\d-[0-3]\d$")]


class PublishedCount(Strict):
    """A published number of parameters that train.

    Attributes:
        type: PEFT's name of it, lower-case; None for full fine-tuning.
        options: of the type, as far as they are not PEFT's defaults.
        frozen: tensors with this in their name were frozen after PEFT had built the adapter.
        trains: the published number.
        source: file below the ledger's `folder`.
        date: of the run.
        peft: version of PEFT that the run had.
    """

    name: Name
    type: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] | None
    options: dict[str, Any] = Field(default_factory=dict)
    frozen: Annotated[str, Field(min_length=1)] | None = None
    trains: Annotated[int, Field(gt=0)]
    source: Text
    date: Day
    peft: Annotated[str, Field(min_length=1)]


class PublishedSum(Strict):
    """A published figure that follows from other published ones by arithmetic."""

    name: Name
    says: Text
    arithmetic: Arithmetic
    source: Text
    date: Day


class Ledger(Strict):
    """Published counts of one project, and what follows from its figures.

    Attributes:
        folder: the project and the folder its files are in.
        model: the base of every count.
    """

    folder: Text
    model: Annotated[str, known("model", [*LANGUAGE_MODELS])]
    counts: Annotated[list[PublishedCount], Field(min_length=1)]
    sums: list[PublishedSum] = Field(default_factory=list)

    def adapter(self, row: PublishedCount) -> Adapter:
        """What to count for a row."""
        base = LANGUAGE_MODELS[self.model]
        return Adapter(base, row.type, row.options, row.frozen or "")


def first_place(suites: Path | None, name: Path) -> Path:
    """A ledger in the first folder of suites that has it; the last folder if none does."""
    places = [folder / name for folder in suite_folders(suites)]
    return next((place for place in places if place.is_file()), places[-1])


def load_ledger(path: Path) -> Ledger:
    """The published counts of a file.

    Raises:
        SuiteError: it isn't there or has faults: every one on a line, with the row it is in.
    """
    raw = read_yaml(path)
    try:
        ledger = Ledger.model_validate(raw)
        faults = list(_twice(ledger))
    except ValidationError as error:
        faults = [_named(fault, raw) for fault in fault_lines(error)]
    if faults:
        raise refused(path, faults, "docs/claims.md says how a published count is written.")
    return ledger


def _twice(ledger: Ledger) -> Iterator[str]:
    names = [*(row.name for row in ledger.counts), *(row.name for row in ledger.sums)]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"{name}: the name stands here {names.count(name)} times"


def _named(fault: str, raw: Any) -> str:
    """A fault with the name of the row it is in."""
    place = re.match(r"(counts|sums)\[(\d+)\]", fault)
    try:
        return f"{raw[place[1]][int(place[2])]['name']}: {fault}" if place else fault
    except (ValueError, TypeError, KeyError, IndexError):
        return fault
