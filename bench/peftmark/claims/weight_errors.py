"""Errors of 4-bit data types on trained weights, as they were computed and stored.

`python -m peftmark.docgen.data_types_page` computes them from the weights of packaged models and
writes `claims/weight-errors.yaml` beside docs/data-types.md; nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from peftmark.claims.comparisons import DataType
from peftmark.core.errors import SuiteError
from peftmark.core.strict import Strict
from peftmark.core.strict_yaml import read_yaml
from peftmark.suite.faults import fault_lines
from peftmark.suite.schema import Count, ModelName
from peftmark.suite.schema_runs import Positive

ERRORS = Path("claims") / "weight-errors.yaml"


class WeightErrors(Strict):
    """Root mean squared error over the root mean square of a model's linear weights, by type.

    Attributes:
        weights: how many weights.
        block: how many share a constant.
    """

    weights: Count
    block: Count
    nf4: Positive
    fp4: Positive
    int4: Positive

    def of(self, kind: DataType) -> float:
        """The error of a data type."""
        value: float = getattr(self, kind)
        return value


class _File(Strict):
    models: Annotated[dict[ModelName, WeightErrors], Field(min_length=1)]


def load_errors(folders: Sequence[Path]) -> dict[str, WeightErrors]:
    """Model -> its errors, from the first folder of suites that has them.

    Raises:
        SuiteError: a file with faults.
    """
    path = next((f / ERRORS for f in folders if (f / ERRORS).is_file()), None)
    if path is None:
        return {}
    try:
        return dict(_File.model_validate(read_yaml(path)).models)
    except ValidationError as error:
        lines = "\n".join(f"  {fault}" for fault in fault_lines(error))
        raise SuiteError(
            f"{path}:\n{lines}", "Write it anew: python -m peftmark.docgen.data_types_page"
        ) from None
