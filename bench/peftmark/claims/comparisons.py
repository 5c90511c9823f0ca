"""What a claim may compare: measures of cells, or what can be computed without any row."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from peftmark.catalog.methods import method_of
from peftmark.claims.arithmetic import calculate
from peftmark.claims.measures import MEASURES
from peftmark.core.strict import Strict
from peftmark.suite.names import known
from peftmark.suite.schema import SIZE_KEYS, CellName, ModelName

MeasureName = Annotated[str, known("measure", MEASURES)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def fault(message: str) -> PydanticCustomError:
    """A fault of the ledger, told with its place."""
    return PydanticCustomError("claim", "{message}", {"message": message})


class NamedCell(CellName):
    """A cell of a suite; its size is of the method's own kind."""

    @model_validator(mode="after")
    def _own_size(self) -> NamedCell:
        method = method_of(self.method)
        given = [name for name in SIZE_KEYS if getattr(self, name) is not None]
        fine = ("size", method.size) if method and method.size else ()
        if method and any(name not in fine for name in given):
            own = f"its size is `{method.size}`" if method.size else "it has no size"
            raise fault(f"{self.method} has no {' and '.join(given)}; {own}")
        return self


class Bounds(Strict):
    """What a figure is claimed to be: exactly one of at_least, at_most and within.

    Attributes:
        nothing: the figure of no difference; 1 for what is a ratio.
    """

    nothing: ClassVar[float] = 1.0

    at_least: Finite | None = None
    at_most: Finite | None = None
    within: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Bounds:
        given = [n for n in ("at_least", "at_most", "within") if getattr(self, n) is not None]
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise fault(f"exactly one of at_least, at_most, within; here: {found}")
        if self.within is not None and self.within[0] >= self.within[1]:
            raise fault("the first end of `within` must lie below the second")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest value that fits the claim; infinite where there is no limit."""
        if self.within is not None:
            return self.within[0], self.within[1]
        low = -math.inf if self.at_least is None else self.at_least
        return low, math.inf if self.at_most is None else self.at_most

    def beyond(self) -> tuple[float, float] | None:
        """The limits of the claimed direction alone.

        Returns:
            None where the claimed figure does not lie wholly on one side of no difference: "at most
            a point below" claims no direction, and "at least as good" nothing else.
        """
        low, high = self.limits
        if low > self.nothing:
            return self.nothing, math.inf
        return (-math.inf, self.nothing) if high < self.nothing else None


class Difference(Bounds):
    """A measure of one cell less that of another; the measure itself without a second cell."""

    nothing: ClassVar[float] = 0.0
    measure: MeasureName = "metric_value"
    of: NamedCell
    to: NamedCell | None = None


class Interaction(Bounds):
    """What a change does to a measure in one place less what it does in another: twice two cells.

    Attributes:
        of: the cells with and without the change, in the first place.
        to: the same in the second.
    """

    nothing: ClassVar[float] = 0.0
    measure: MeasureName = "metric_value"
    of: Annotated[list[NamedCell], Field(min_length=2, max_length=2)]
    to: Annotated[list[NamedCell], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _distinct(self) -> Interaction:
        if any(pair[0].cell == pair[1].cell for pair in (self.of, self.to)):
            raise fault("a change is between two cells; here they are the same one")
        if [named.cell for named in self.of] == [named.cell for named in self.to]:
            raise fault("an interaction is between two changes; here they are the same one")
        return self


class PositiveBounds(Bounds):
    """A figure that is a ratio, so its limits are positive."""

    @model_validator(mode="after")
    def _positive(self) -> PositiveBounds:
        if any(math.isfinite(limit) and limit <= 0 for limit in self.limits):
            raise fault("the limits of a ratio are positive")
        return self


class Ratio(PositiveBounds):
    """A measure of one cell over a measure (the same, unless `to_measure` says) of another."""

    measure: MeasureName = "metric_value"
    of: NamedCell
    to: NamedCell
    to_measure: MeasureName | None = None


class Spread(PositiveBounds):
    """Standard deviation over seeds of a measure of one cell over that of another."""

    measure: MeasureName = "metric_value"
    of: NamedCell
    to: NamedCell

    @model_validator(mode="after")
    def _varies(self) -> Spread:
        if MEASURES[self.measure].kind == "count":
            raise fault(f"{self.measure} is counted: it has no spread over seeds")
        return self


class BestRate(PositiveBounds):
    """The learning rate that trials find best for one cell over that of another."""

    of: NamedCell
    to: NamedCell


class Counted(Bounds):
    """Adapter parameters of one cell over those of another, counted on an architecture.

    Attributes:
        suite: where the cells stand.
        profile: whose model they are counted on.
    """

    suite: str
    profile: str
    of: NamedCell
    to: NamedCell


DataType = Literal["nf4", "fp4", "int4"]


class WeightError(Bounds):
    """Error of one 4-bit type on a model's trained weights over that of another
    (`claims/weight-errors.yaml`).

    Attributes:
        fine_tuned: on the weights after training, in place of those that were published.
    """

    model: ModelName
    fine_tuned: bool = False
    of: DataType
    to: DataType


Compared = Difference | Ratio | Spread | Interaction | BestRate
"""What is compared of rows and has limits."""


class Order(Strict):
    """Cells, the best by a measure first."""

    measure: MeasureName = "metric_value"
    cells: Annotated[list[NamedCell], Field(min_length=2)]

    @model_validator(mode="after")
    def _distinct(self) -> Order:
        if len({cell.cell for cell in self.cells}) < len(self.cells):
            raise fault("a cell stands twice in an order")
        return self


def _computable(expression: str) -> str:
    try:
        calculate(expression)
    except ValueError as error:
        raise fault(str(error)) from None
    return expression


class Arithmetic(Strict):
    """A figure that can be checked on paper.

    Attributes:
        expression: numbers and + - * / ** alone; see `peftmark.claims.arithmetic`.
        claimed: the figure it is held against.
        tolerance: largest difference that still counts as the same figure.
        unit: of all three.
    """

    expression: Annotated[str, AfterValidator(_computable)]
    claimed: Finite
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    unit: str = ""
