"""What is noted beside a trained adapter that is kept, so that it can be loaded and told apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peftmark.record.job import Job

NOTES = "peftmark.json"
"""The file beside the adapter's own that holds a `Kept`."""
NOT_KEPT = "the adapter was not kept"
"""How a warning of a row begins whose adapter could not be kept."""
FORMAT = 1


class Unreadable(Exception):
    """A note that is none of ours, or that this peftmark can't read."""


@dataclass(frozen=True)
class Kept:
    """A trained adapter that is kept.

    Attributes:
        beyond: what the trained model does that PEFT's own loading of its files doesn't; empty if
            that gives the model.
        mean, scale: standardisation of regression scores in training; 0 and 1 for other tasks.
        attempt: the row's; 0 until there is one.
        which: whether it is kept as the best of its cell and task, or as one of all.
        selection: primary metric on the selection rows of the weights that are kept, those of the
            last step; None where the recipe cuts no selection rows.
        files: SHA-256 of each file of the adapter; empty of those that an older peftmark kept.
    """

    job: Job
    beyond: str = ""
    mean: float = 0.0
    scale: float = 1.0
    attempt: int = 0
    which: str = "best"
    selection: float | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The note as it is written."""
        data: dict[str, Any] = {
            **vars(self),
            "format": FORMAT,
            "job": json.loads(self.job.to_json()),
        }
        return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Kept:
        """The inverse of `to_json`.

        Raises:
            Unreadable: it is no such note, or one of another peftmark.
        """
        try:
            data = json.loads(text)
            if data.pop("format") != FORMAT:
                raise ValueError("another format")
            return Kept(**{**data, "job": Job.from_json(json.dumps(data["job"]))})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unreadable(f"{type(error).__name__}: {error}") from error
