"""Claims as data: what is said, where and under which conditions, and how measured rows test it.

A ledger is the file `claims/claims.yaml` below a folder of suites. `peftmark.claims.verdicts`
judges claims by rows; nothing here looks at a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from peftmark.catalog.methods import Cell
from peftmark.claims.comparisons import (
    Arithmetic,
    BestRate,
    Compared,
    Counted,
    Difference,
    Interaction,
    Order,
    Ratio,
    Spread,
    WeightError,
    fault,
)
from peftmark.claims.measures import MEASURES, Measure
from peftmark.claims.stated import StatedRecipe
from peftmark.core.strict import Strict
from peftmark.core.strict_yaml import bytes_of, values_of
from peftmark.suite.checks import LEDGER
from peftmark.suite.faults import fault_lines, refused
from peftmark.suite.schema import ModelName, TaskName, Word

Text = Annotated[str, Field(min_length=3, max_length=600)]

# --- claims -------------------------------------------------------------------------------------

KINDS = (
    "difference",
    "ratio",
    "spread",
    "interaction",
    "best_rate",
    "order",
    "arithmetic",
    "counted",
    "figures",
    "weights",
    "untestable",
)


class ClaimTest(Strict):
    """One comparison that a claim, or the named part of one, stands or falls by.

    Attributes:
        part: which part of the claim; a claim is reproduced only if all its parts are.
        suite: the suite whose rows are compared.
        profiles: its profiles in which the comparison means something; None for all.
        tasks: the tasks compared on; None for all of the profile.
        differs: what of the cells or the limits is not as the source has it.
        recipe: what the source of this figure gives, where it is not that of the claim's setting.
        figures: ids of published memory figures (`claims/memory.yaml`), all of which must hold
            against predictions.
    """

    part: Word
    suite: str | None = None
    profiles: Annotated[list[str], Field(min_length=1)] | None = None
    tasks: Annotated[list[TaskName], Field(min_length=1)] | None = None
    differs: Text | None = None
    recipe: StatedRecipe | None = None
    difference: Difference | None = None
    ratio: Ratio | None = None
    spread: Spread | None = None
    interaction: Interaction | None = None
    best_rate: BestRate | None = None
    order: Order | None = None
    arithmetic: Arithmetic | None = None
    counted: Counted | None = None
    figures: Annotated[list[str], Field(min_length=1)] | None = None
    weights: WeightError | None = None
    untestable: Text | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> ClaimTest:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise fault(f"exactly one of {', '.join(KINDS)}; here: {found}")
        if self.measured and self.suite is None:
            raise fault(f"a {given[0]} needs the suite whose rows are compared")
        if not self.measured and (self.suite or self.profiles or self.tasks):
            raise fault(f"{given[0]} needs no rows, so no suite, profiles or tasks")
        return self

    @property
    def compared(self) -> Compared | Order | None:
        """The comparison of measured rows; None for a test that needs none."""
        return self.limited or self.order

    @property
    def limited(self) -> Compared | None:
        """The comparison of measured rows that has limits."""
        return self.difference or self.ratio or self.spread or self.interaction or self.best_rate

    @property
    def measured(self) -> bool:
        """Whether it needs rows."""
        return self.compared is not None

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells it compares."""
        found = self.compared
        if isinstance(found, Order):
            return tuple(named.cell for named in found.cells)
        if isinstance(found, Interaction):
            return tuple(named.cell for named in (*found.of, *found.to))
        if found is None:
            return ()
        return (found.of.cell,) if found.to is None else (found.of.cell, found.to.cell)

    def measures(self) -> tuple[Measure, ...]:
        """The measure of each cell, in the order of `cells`; none of what trials say."""
        found = self.compared
        if found is None or isinstance(found, BestRate):
            return ()
        last = found.to_measure if isinstance(found, Ratio) else None
        keys = [found.measure] * (len(self.cells) - 1) + [last or found.measure]
        return tuple(MEASURES[key] for key in keys)

    @property
    def intervals(self) -> int:
        """How many intervals its verdict rests on: all pairs of an order, else one; none for
        counts, for best rates and for what needs no rows."""
        if not self.measured or all(m.kind == "count" for m in self.measures()):
            return 0
        pairs = len(self.cells) * (len(self.cells) - 1) // 2
        return pairs if self.order else 1

    def belongs_to(self, suite: str, profile: str) -> bool:
        """Whether rows of a profile of a suite can test it."""
        return self.suite == suite and (self.profiles is None or profile in self.profiles)


class Source(Strict):
    """Where a claim stands.

    Attributes:
        where: section, table or page.
        arxiv: number of a paper on arXiv.
    """

    title: Text
    where: Text
    arxiv: Annotated[str, Field(pattern=r"^[0-9]{4}\.[0-9]{4,5}$")] | None = None


class Setting(Strict):
    """The conditions a claim was made under, in words; "not stated" where the source is silent.

    Attributes:
        models: the stated model by its names in a suite; empty if no suite can name it.
        task_names: the stated tasks by their names in a suite, where it can name them all.
        recipe: what the source gives of the recipe.
        selection: how the step that was scored was chosen.
    """

    model: Text
    models: list[ModelName] = Field(default_factory=list)
    tasks: Text
    task_names: list[TaskName] = Field(default_factory=list)
    recipe: StatedRecipe = StatedRecipe()
    budget: Text
    selection: Text
    scale: Text


class Claim(Strict):
    """A claim with its tests, or the reason why there is none.

    Attributes:
        reading: where statement and tests go beyond the source's words, or fall short of them.
        not_here: why no profile judges it exactly as the source has it: the model, the data or the
            machine that is missing; None where one does, or where no row is needed.
    """

    id: Annotated[str, Field(pattern=r"^[A-Z]{1,8}[0-9]{2,4}$")]
    statement: Text
    sources: Annotated[list[Source], Field(min_length=1)]
    setting: Setting
    reading: Text | None = None
    not_here: Text | None = None
    tests: Annotated[list[ClaimTest], Field(min_length=1)] | None = None
    untestable: Text | None = None

    @model_validator(mode="after")
    def _tested_or_not(self) -> Claim:
        if (self.tests is None) == (self.untestable is None):
            raise fault("either `tests` or `untestable` with the reason, not both")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parts, each once."""
        return tuple(dict.fromkeys(test.part for test in self.tests or []))

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites whose rows test it."""
        return tuple(dict.fromkeys(t.suite for t in self.tests or [] if t.suite is not None))


class _LedgerFile(Strict):
    claims: list[Claim]


# --- loading ------------------------------------------------------------------------------------


def load_claims(folders: Sequence[Path]) -> dict[str, Claim]:
    """Every claim by id; where an id stands in the ledgers of several folders, the first counts.

    Args:
        folders: folders of suites.

    Raises:
        SuiteError: with every fault of a ledger, one a line.
    """
    found: dict[str, Claim] = {}
    for folder in reversed(folders):
        if (folder / LEDGER).is_file():
            found.update({claim.id: claim for claim in _read(folder / LEDGER)})
    return dict(sorted(found.items()))


def _read(path: Path) -> tuple[Claim, ...]:
    return _claims(path, bytes_of(path))


@lru_cache(maxsize=8)
def _claims(path: Path, text: bytes) -> tuple[Claim, ...]:
    """The claims of a ledger; one is read once, since reports and suites ask for it again."""
    raw = values_of(path, text)
    try:
        claims = _LedgerFile.model_validate(raw).claims
        faults = list(_twice(claims))
    except ValidationError as error:
        claims, faults = [], [_named(fault, raw) for fault in fault_lines(error)]
    if faults:
        raise refused(path, faults, "docs/claims.md says how a claim is written.")
    return tuple(claims)


def _twice(claims: Sequence[Claim]) -> Iterator[str]:
    ids = [claim.id for claim in claims]
    for name in dict.fromkeys(ids):
        if ids.count(name) > 1:
            yield f"claims: the id {name} stands here {ids.count(name)} times"


def _named(fault: str, raw: Any) -> str:
    """A fault with the id of the claim it is in."""
    head = fault.partition("]")[0]
    index = head.removeprefix("claims[")
    try:
        name = raw["claims"][int(index)]["id"]
    except (ValueError, TypeError, KeyError, IndexError):
        return fault
    return f"{name}: {fault}"
