"""Rows of `peftmark.record.fields`: what is looked at after each interval of training, to be warned
by (`peftmark.catalog.alarms`)."""

from __future__ import annotations

from peftmark.record.field import Field

WATCHED = (
    "norm_history",
    "importance_variation",
    "gradient_shares",
    "part_cosines",
    "rate_halvings",
)
"""Every column of these, as they stand in a row."""
BELOW = {1e-4: "below 1e-04", 1e-5: "below 1e-05", 1e-6: "below 1e-06"}
"""Size of a gradient -> what the share of those below it is called in `gradient_shares`."""
THROUGHOUT, THROUGHOUT_BELOW = "below 1e-05 so far", 1e-5
"""The same of those that were below it at every evaluation so far."""

ROWS: tuple[Field, ...] = (
    Field(
        "norm_history",
        "json",
        "norms of adapter weights in training",
        phase="training",
        meter="trained weights",
        kind="fact",
        section="Validity",
        summary=(
            "module -> L2 norm of its trained tensors (of a module with LoRA both matrices, the "
            "head left out) at each curve point"
        ),
        null="empty where the head alone trains, if the job ended early",
    ),
    Field(
        "importance_variation",
        "json",
        "variation of importances in training",
        phase="training",
        meter="the method",
        kind="fact",
        section="Validity",
        summary=(
            "module -> standard deviation over mean of the importance of its rank-one parts that "
            "are not pruned, at each curve point; null with fewer than two of them, before the "
            "first score; after the last pruning as it was then"
        ),
        null="empty for methods that score none",
    ),
    Field(
        "gradient_shares",
        "json",
        "shares of small gradients in training",
        unit="share",
        phase="training",
        meter="gradients",
        kind="fact",
        section="Validity",
        summary=(
            f"of the adapter's parameters (the head left out), those whose gradient before "
            f"clipping is {', '.join(BELOW.values())}, and `{THROUGHOUT}` at each point, in the "
            "training step before each curve point; null where fp16 overflowed"
        ),
        null="empty where the head alone trains, if the job ended early",
    ),
    Field(
        "part_cosines",
        "json",
        "cosines between parts of a method",
        phase="training",
        meter="forward passes",
        kind="fact",
        section="Validity",
        summary=(
            "two parts of a combined method -> cosine between what a small step of each, down its "
            "own gradient, changes in the logits of the training batch before each curve point"
        ),
        null="empty for methods of one part, in 16 bits, for text; the reason says which",
    ),
    Field(
        "rate_halvings",
        "json",
        "halvings of the learning rate",
        phase="training",
        meter="`halve_on_growth`",
        kind="fact",
        section="Validity",
        summary=(
            "step -> what the learning rate of all later steps was multiplied by, since the norm "
            "of a module had grown for three epochs"
        ),
        null="empty where it never was, or the recipe doesn't ask",
    ),
    Field(
        "gate_history",
        "json",
        "gates in training",
        phase="evaluation",
        meter="the method",
        kind="fact",
        section="Parameters",
        summary=(
            'layer and part, as "layer.part" -> gate of the part at each curve point, mean over '
            "the evaluation and selection rows, null once it was taken out"
        ),
        null="empty for methods without gates",
    ),
)
