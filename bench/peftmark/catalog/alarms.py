"""What the seeds say one should be warned of in training: figures, thresholds, for how long, and
what to do, as data.

No verdict is stored: rows hold the values (`norm_history`, `importance_variation`,
`gradient_shares`, `part_cosines`, the curve), and `peftmark.analysis.alarms` reads them by this
table, so that a threshold can change. How often each alarm is false stands in docs/alarms.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["above", "below"]
Unit = Literal["", "share", "points"]


@dataclass(frozen=True)
class Alarm:
    """Something to be warned of.

    Attributes:
        title: what it is called, as a clause.
        source: who says so, and where.
        figure: what is held against the threshold, and of what it is made.
        side: on which side of the threshold the alarm is.
        threshold: a value that is no alarm yet.
        lasting: how many of `each` the figure must be beyond it, one after the other.
        each: what the figure is taken for.
        columns: of a row, that it is read from.
        said: what of threshold and length the source says itself, and what is a judgement here.
        action: what to do, in plain words.
    """

    key: str
    title: str
    source: str
    figure: str
    side: Side
    threshold: float
    lasting: int
    each: Literal["epoch", "evaluation", "run"]
    columns: tuple[str, ...]
    said: str
    action: str
    unit: Unit = ""

    @property
    def rule(self) -> str:
        """The threshold and how long, in words."""
        text = f"{self.side} {self.shown(self.threshold)}"
        if self.each == "run":
            return text
        if self.lasting == 1:
            return f"{text} at one {self.each}"
        return f"{text} for {self.lasting} {self.each}s in a row"

    def shown(self, value: float) -> str:
        """A value of the figure, with its unit."""
        if self.unit == "share":
            return f"{100 * value:.4g} %"
        return f"{value:.4g} {self.unit}".strip()


GUIDE = "a guide to PEFT methods (unpublished)"
ARTICLE = "an article on AdaLoRA, QLoRA and LoRA (unpublished)"
_SLOWER = (
    "Lower the learning rate or warm up for longer; `halve_on_growth: true` in the recipe halves "
    "the rate when it happens."
)
_LATER = (
    "Let AdaLoRA begin to prune later (`adalora.tinit`), smooth its importance more "
    "(`adalora.beta1`), use `label_smoothing`, or clean the rows."
)
_FEWER = "Take a lower rank, or spend the parameters on other layers (AdaLoRA, sensitive-layers)."

ALARMS: dict[str, Alarm] = {
    alarm.key: alarm
    for alarm in (
        Alarm(
            "norm-growth",
            "the adapter's weights grew from epoch to epoch",
            f"{GUIDE}, hints on debugging",
            "L2 norm of an adapted module's trained tensors over that one epoch before; the module "
            "that grew most",
            "above",
            1.5,
            3,
            "epoch",
            ("norm_history",),
            "all of it is the source's",
            _SLOWER,
        ),
        Alarm(
            "norm-growth-evaluations",
            "the adapter's weights grew from evaluation to evaluation",
            f"{GUIDE}, hints on debugging",
            "the same over that of the evaluation before: few runs last the four epochs that the "
            "source's own rule needs",
            "above",
            1.5,
            3,
            "evaluation",
            ("norm_history",),
            "evaluations in place of epochs are a judgement",
            _SLOWER,
        ),
        Alarm(
            "importance-parts",
            "AdaLoRA's importance differs much within a module",
            f"{ARTICLE}, section on what to avoid",
            "standard deviation over mean (coefficient of variation) of the importance of a "
            "module's rank-one parts that are not pruned; the highest module",
            "above",
            0.5,
            1,
            "evaluation",
            ("importance_variation",),
            "the text says variance above half of the mean, its code computes the coefficient of "
            "variation: the code is taken",
            _LATER,
        ),
        Alarm(
            "importance-drift",
            "AdaLoRA's importance of a module differs much over training",
            f"{ARTICLE}, section on what to avoid",
            "the same over the evaluations up to the last pruning, of a module's mean importance; "
            "the highest module",
            "above",
            0.5,
            1,
            "run",
            ("importance_history",),
            "the text can be read so too: it asks for the course of each layer's mean; at least "
            "three evaluations are a judgement",
            _LATER,
        ),
        Alarm(
            "gap",
            "the training loss fell on while the score stayed below its best",
            f"{GUIDE}, second pitfall",
            "best score so far less the score, on the selection rows, without those on the "
            "evaluation rows, where the training loss is below that at the best",
            "above",
            0.0,
            3,
            "evaluation",
            ("curve",),
            "the source names no number: any loss at three evaluations in a row is a judgement",
            "Stop at the best score (`early_stopping`), take a lower rank, or more rows.",
            "points",
        ),
        Alarm(
            "saw-tooth",
            "the training loss went up and down, further each time",
            f"{GUIDE}, fourth pitfall",
            "change of the training loss over the change before it, which went the other way; 0 "
            "where it went the same way",
            "above",
            1.0,
            2,
            "evaluation",
            ("curve",),
            "the source names no number: two growing swings after a first are a judgement",
            "Lower the learning rate or `max_grad_norm`; of a combined method train one part alone "
            "first.",
        ),
        Alarm(
            "conflict",
            "two parts of a combined method pull against each other",
            f"{GUIDE}, fourth pitfall",
            "cosine between what small steps of two parts, each down its own gradient, change in "
            "the logits of a training batch; the lowest pair",
            "below",
            0.0,
            1,
            "evaluation",
            ("part_cosines",),
            "the source calls a negative cosine a severe conflict; its code takes it between one "
            "step's gradients and the last one's, and of two parts none is defined",
            "Train one part alone first, give the parts rates of their own, or leave one out.",
        ),
        Alarm(
            "vanishing-end",
            "most of the adapter's gradients are all but zero at the end",
            f"{ARTICLE}, opening section (C18)",
            "share of the adapter's parameters with a gradient below 1e-6 before clipping, in the "
            "last training step",
            "above",
            0.713,
            1,
            "run",
            ("gradient_shares",),
            "the source measured it and sets no alarm: its share is the threshold",
            _FEWER,
            "share",
        ),
        Alarm(
            "vanishing-throughout",
            "most of the adapter's gradients are all but zero in all of the training",
            f"{ARTICLE}, opening section (C18)",
            "share of the adapter's parameters with a gradient below 1e-5 before clipping, in the "
            "last training step before every evaluation",
            "above",
            0.68,
            1,
            "run",
            ("gradient_shares",),
            "the source measured it and sets no alarm: its share is the threshold",
            _FEWER,
            "share",
        ),
    )
}
"""Key -> alarm, in the order of every table."""
