"""Errors of 4-bit data types on trained weights, as they were computed and stored.

`python -m peftmark.docgen.data_types_page` computes them from the weights of packaged models and
writes `claims/weight-errors.yaml` beside docs/data-types.md; nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

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
        nf4_double, fp4_double: with constants that are quantised too.
        largest: type -> largest absolute error over the root mean square of the weights.
        constants: root mean squared error of those constants, in the unit of the weights.
    """

    weights: Count
    block: Count
    nf4: Positive
    fp4: Positive
    int4: Positive
    nf4_double: Positive
    fp4_double: Positive
    largest: dict[str, Positive]
    constants: Positive

    def of(self, kind: str) -> float:
        """The error of a data type."""
        value: float = getattr(self, kind)
        return value


class FineTuned(WeightErrors):
    """The same after all weights were trained on a task.

    Attributes:
        task: the task.
        steps: how many steps.
        moved: norm of what training changed of these weights over the norm that they had.
    """

    task: str
    steps: Count
    moved: Positive


class ErrorsFile(Strict):
    """The file as it is read.

    Attributes:
        models: model -> errors on its weights as they are published.
        fine_tuned: the same after training.
    """

    models: Annotated[dict[ModelName, WeightErrors], Field(min_length=1)]
    fine_tuned: dict[ModelName, FineTuned] = Field(default_factory=dict)


Weights = tuple[str, bool]
"""A model, and whether after training."""


def load_errors(folders: Sequence[Path]) -> dict[Weights, WeightErrors]:
    """The errors on weights as they were published and after training, from the first folder of
    suites that has them.

    Raises:
        SuiteError: a file with faults.
    """
    found = load_file(folders)
    if found is None:
        return {}
    both = ((found.models, False), (found.fine_tuned, True))
    return {(model, tuned): one for part, tuned in both for model, one in part.items()}


def load_file(folders: Sequence[Path]) -> ErrorsFile | None:
    """The whole file of the first folder of suites that has it.

    Raises:
        SuiteError: a file with faults.
    """
    path = next((f / ERRORS for f in folders if (f / ERRORS).is_file()), None)
    if path is None:
        return None
    try:
        return ErrorsFile.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = "\n".join(f"  {fault}" for fault in fault_lines(error))
        raise SuiteError(
            f"{path}:\n{lines}", "Write it again: python -m peftmark.docgen.data_types_page"
        ) from None
