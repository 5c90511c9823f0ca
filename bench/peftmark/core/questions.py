"""What a run may add seeds for; everything that names a question takes it from here."""

from __future__ import annotations

from typing import Literal, get_args

Question = Literal["reference", "best", "equivalence"]
"""How every cell stands beside the reference, which cell is best, or which cells lie within the
margin of the reference (`peftmark.analysis.questions`)."""

QUESTIONS: tuple[Question, ...] = get_args(Question)
