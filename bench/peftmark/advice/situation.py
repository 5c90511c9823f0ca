"""What a user has before anything was run on it, and how far measured rows are from that. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peftmark.advice.candidates import Wish
from peftmark.advice.recommend import Answer, kind_of, recommend, train_rows
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.catalog.task import TaskKind
from peftmark.core.shown import plain
from peftmark.machine.gpus import Device
from peftmark.render import words

OTHER_KIND = 10.0
"""Distance of another kind of task, in factors of e of model or rows."""


@dataclass(frozen=True)
class Situation:
    """What the user has.

    Attributes:
        model: as the user named it, or the default.
        causal: whether the model is a causal language model.
        parameters: of the model; None where nobody knows.
        kind: of the task.
        task: key of the task; empty for any of the kind.
        rows: training rows; None if the user didn't say.
        device: the GPU it has to fit; None if the user didn't say.
        assumed: what the user didn't say and is taken, as parts of a sentence.
    """

    model: str
    causal: bool
    parameters: int | None
    kind: TaskKind
    task: str = ""
    rows: int | None = None
    device: Device | None = None
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Foreseen:
    """What is predicted of a cell before it has run.

    Attributes:
        bytes_: of a step's tensors at its peak; None where nothing is predicted.
        trainable: parameters.
        adapter_bytes: of `bytes_`, what the trained parameters take: they, their gradients and the
            optimizer's states.
        fits: whether that leaves the device room; None without a device or a prediction.
        help: what would make it fit, as a sentence; empty where it fits.
        step_seconds: of a step; None where unknown.
        reason: why there is no prediction of memory; empty with one.
        no_time: why there is none of time; empty with one.
    """

    cell: Cell
    bytes_: int | None = None
    trainable: int | None = None
    adapter_bytes: int | None = None
    fits: bool | None = None
    help: str = ""
    step_seconds: float | None = None
    reason: str = ""
    no_time: str = ""


@dataclass(frozen=True)
class Near:
    """What rows say that were measured elsewhere.

    Attributes:
        away: how they differ from what the user has, as parts of a sentence.
        distance: one number to order by, 0 for the same; None where a part of it isn't known.
    """

    answer: Answer
    away: tuple[str, ...]
    distance: float | None

    @property
    def kin(self) -> bool:
        """Whether the rows are of the user's kind of task, and nothing of the distance is open."""
        return self.distance is not None and self.distance < OTHER_KIND


def elsewhere(tables: Sequence[ResultTable], has: Situation, wish: Wish) -> tuple[Near, ...]:
    """What every table says without the user's model, rows and limits, the nearest first.

    Limits are those of the user's model, so they rule nothing out that another one took.
    """
    found = [_near(table, has, wish) for table in tables]
    return tuple(sorted(found, key=lambda one: (one.distance is None, one.distance or 0.0)))


def _near(table: ResultTable, has: Situation, wish: Wish) -> Near:
    kinds = {kind_of(table, task) for task in table.tasks}
    asked = has.task if has.task in table.tasks else has.kind if has.kind in kinds else ""
    free = Wish(max_drop=wish.max_drop, price=wish.price, task=asked, least=wish.least)
    answer = recommend(table, free)
    away, parts = list[str](), list[float | None]()
    if not asked:
        away.append(f"{words.listing(sorted(kinds))} where you have {has.kind}")
        parts.append(OTHER_KIND)
    mine, theirs = has.parameters, parameters_of(table)
    job = table.jobs[0]
    if job.model != has.model:
        text = f"model {plain(job.model_name)}"
        parts.append(abs(math.log(mine / theirs)) if mine and theirs else None)
        if mine and theirs:
            text += f" ({_count(theirs)} parameters, yours {_count(mine)})"
        away.append(text)
    if has.rows is not None:
        apart, text = _rows_apart(answer.table, has.rows)
        parts.append(apart)
        away += [text] if text else []
    if answer.reduced:
        away.append("reduced scale")
    known = [part for part in parts if part is not None]
    return Near(answer, tuple(away), sum(known) if len(known) == len(parts) else None)


def _rows_apart(table: ResultTable, rows: int) -> tuple[float | None, str]:
    """How far the task with the nearest number of training rows is, and all numbers in words."""
    spans = [span for task in table.tasks if (span := train_rows(table, task))]
    if not spans:
        return None, "training rows not recorded"
    apart = min(
        0.0 if low <= rows <= high else min(abs(math.log(rows / n)) for n in (low, high))
        for low, high in spans
    )
    if not apart:
        return 0.0, ""
    every = words.span([n for span in spans for n in span])
    return apart, f"{every} training rows, yours {rows:,}"


def parameters_of(table: ResultTable) -> int | None:
    """Parameters of a table's model: its catalogue's count, else the fewest that a run had."""
    known = table.jobs[0].known_model
    if known is not None and known.parameters:
        return known.parameters
    counts = [
        n for s in table.slots if s.record and (n := s.record.outcome.total_parameters) is not None
    ]
    return min(counts, default=None)


def _count(n: int) -> str:
    return f"{n / 1e9:,.1f} B" if n >= 1e9 else f"{n / 1e6:,.1f} M"


def told(has: Situation) -> str:
    """The situation in a line."""
    size = f" ({_count(has.parameters)} parameters)" if has.parameters else ""
    rows = "training rows not said" if has.rows is None else f"{has.rows:,} training rows"
    gpu = "no GPU named" if has.device is None else has.device.title
    return f"{plain(has.model)}{size}; {has.task or has.kind}; {rows}; {plain(gpu)}"


def start(
    found: Sequence[Foreseen], near: Sequence[Near], most: int | None = None
) -> tuple[Foreseen, Near | None] | None:
    """Where to begin, and the rows that say so; None if nothing fits.

    Of what isn't predicted to be too large it is the cell that the nearest rows of the same kind of
    task pick first, by method and quantization; where they pick none of these, LoRA, else QLoRA,
    else what takes the least memory.

    Args:
        most: trained parameters at most; None for any number.
    """
    left = [
        one
        for one in found
        if one.fits is not False and not (most and one.trainable and one.trainable > most)
    ]
    for rows in near[:1]:
        for pick in rows.answer.picks[:1] if rows.kin else ():
            for one in left:
                if (pick.cell.method, pick.cell.quantization) == _made_by(one.cell):
                    return one, rows
    if not left:
        return None

    def rank(one: Foreseen) -> tuple[int, float]:
        at = FIRST.index(_made_by(one.cell)) if _made_by(one.cell) in FIRST else len(FIRST)
        return at, one.bytes_ if one.bytes_ is not None else math.inf

    return min(left, key=rank), None


FIRST = (("lora", "none"), ("lora", "nf4"))
"""What to begin with where no rows say otherwise."""


def _made_by(cell: Cell) -> tuple[str, str]:
    return cell.method, cell.quantization
