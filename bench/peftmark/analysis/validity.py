"""Signs that a run's numbers can't be trusted, read from its rows: pure functions.

The plan of every profile repeats one reported job; `repeatability` compares the two rows bit for
bit. `flags` finds finished jobs that measured something else than their name says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from peftmark.analysis.machines import ByMachine
from peftmark.analysis.scale import point
from peftmark.catalog.methods import Cell, cell_title
from peftmark.catalog.metrics import sign_of
from peftmark.catalog.quantizations import quantization_of
from peftmark.machine.environment import changed_versions
from peftmark.record.fields import by_phase
from peftmark.record.job import Environment, Job, Record
from peftmark.record.machine_kind import kind_of
from peftmark.record.stages import ends_as

SAME_BITS = tuple(f.key for f in by_phase() if f.deterministic and f.key != "curve")
"""Fields of the outcome that two runs of one job must share; with them the curve but its times. In
the order of a job, as what differs first may explain the rest."""

FlagKind = Literal["collapsed", "behind", "twins", "unfaithful"]
FLAG_KINDS: dict[FlagKind, str] = {
    "collapsed": "predicted the same for every row",
    "behind": "fell behind the cell's other seeds",
    "twins": "learned exactly like another cell, so the two names stand for one method",
    "unfaithful": "saved files that give other logits than the trained model",
}

HIGHER_LOSS = 1.5
"""Training loss at the end over the highest of the cell's other seeds from which a run counts as
behind; this and the points are judgements (docs/decisions/2026-11-29-runs-that-fell-behind.md)."""
LOWER_POINTS = 10
"""Points that a score lies below the lowest of the other seeds' likewise."""


RepeatVerdict = Literal["different", "same", "not comparable", "not run"]
REPEATS: tuple[RepeatVerdict, ...] = get_args(RepeatVerdict)
"""What may come of a repeat; of several machines the first counts."""


@dataclass(frozen=True)
class Repeat:
    """Whether a job that ran twice gave the same bits.

    Attributes:
        job: the repeat; the job it repeats differs in its purpose alone.
        detail: what differs with both values, or why there is no verdict; empty for "same".
    """

    verdict: RepeatVerdict
    job: Job
    detail: str


@dataclass(frozen=True)
class Flag:
    """A finished, reported job whose numbers are suspect.

    Attributes:
        detail: what was seen, as a clause.
    """

    kind: FlagKind
    job: Job
    detail: str


def repeatability(
    jobs: Sequence[Job], records: Mapping[str, Record], machines: ByMachine | None = None
) -> Repeat | None:
    """Compare the repeat among the jobs with the job it repeats.

    Two machines need not give the same bits; where both ran on several, each is held to itself.

    Args:
        jobs: planned jobs of one profile.
        records: job id -> the record that counts.
        machines: the records of each machine, where there are several.

    Returns:
        None if no repeat is planned.
    """
    repeat = next((job for job in jobs if job.purpose == "repeat"), None)
    if repeat is None:
        return None
    found = [_repeated(repeat, rows) for rows in (records, *(machines or {}).values())]
    return min(found, key=lambda one: REPEATS.index(one.verdict))


def _repeated(repeat: Job, records: Mapping[str, Record]) -> Repeat:
    """The repeat beside the job it repeats."""
    first = records.get(replace(repeat, purpose="report").job_id)
    second = records.get(repeat.job_id)
    if first is None or second is None:
        which = "the job" if first is None else "its repeat"
        return Repeat("not run", repeat, f"{which} has no row yet")
    if obstacle := _obstacle(first, second):
        return Repeat("not comparable", repeat, obstacle)
    difference = first_difference(first, second)
    return Repeat("different" if difference else "same", repeat, difference)


def _obstacle(first: Record, second: Record) -> str:
    """Why two rows need not have the same bits; empty if they need."""
    for which, record in (("the job", first), ("its repeat", second)):
        if not record.ok:
            return f"{which} ended as {record.outcome.status}"
    return next(made_elsewhere(first.environment, second.environment), "")


def made_elsewhere(one: Environment, other: Environment) -> Iterator[str]:
    """What beside the job decides bits and differs between two places, a clause each: versions of
    libraries, and facts of the kind of machine."""
    if changed := changed_versions(one.software, other.software):
        yield f"made with other versions: {changed}"
    kind, other_kind = kind_of(one), kind_of(other)
    for part in dict.fromkeys([*kind, *other_kind]):
        before, after = kind.get(part), other_kind.get(part)
        if before != after:
            yield f"made on other machines: {part} {before} -> {after}"


def first_difference(first: Record, second: Record, names: Sequence[str] = SAME_BITS) -> str:
    """The first difference of the two rows in words; empty if there is none.

    Args:
        names: fields of the outcome that are compared before the curve.
    """
    one, other = first.outcome, second.outcome
    for name in names:
        if _bits(a := getattr(one, name)) != _bits(b := getattr(other, name)):
            return f"{name}: {_short(a)} and {_short(b)}"
    if len(one.curve) != len(other.curve):
        return f"curve: {len(one.curve)} and {len(other.curve)} points"
    for a, b in zip(one.curve, other.curve, strict=True):
        values, others = asdict(a), asdict(b)
        for name in values:
            if name != "seconds" and _bits(values[name]) != _bits(others[name]):
                return f"{name} at step {a.step}: {values[name]!r} and {others[name]!r}"
    return ""


def _bits(value: Any) -> str:
    """Text that two values share only if every bit is the same; NaN equals NaN."""
    return json.dumps(value, sort_keys=True, default=list)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def flags(jobs: Sequence[Job], records: Mapping[str, Record]) -> list[Flag]:
    """Everything suspect about the reported jobs, by kind and then in the order of the jobs.

    Runs that train nothing are looked at only for what they save: that an untouched model gives
    one answer to all, the same for every seed, is no fault.

    Args:
        jobs: planned jobs of one profile; only finished jobs that are reported are looked at.
        records: job id -> the record that counts.
    """
    reported = (records.get(job.job_id) for job in jobs if job.purpose == "report")
    rows = [record for record in reported if record is not None and record.ok]
    found = [flag for row in rows for flag in _of_one(row)]
    found += [*behind(rows), *_twins(rows)]
    order = list(FLAG_KINDS)
    return sorted(found, key=lambda flag: order.index(flag.kind))


def _of_one(row: Record) -> Iterator[Flag]:
    outcome = row.outcome
    if outcome.collapsed and outcome.steps != 0:
        what = "answers written" if outcome.completions else "predictions"
        yield Flag("collapsed", row.job, f"the last {what} are all the same")
    error = outcome.reload_max_error
    # Not "above": an error that is not a number is no faithful copy either.
    base = quantization_of(ends_as(row.job).quantization)
    if error is None or base is None:  # nobody here knows what such a base allows
        return
    allowed = base.reload_tolerance_with(row.job.recipe.weights)
    if not error <= allowed:
        detail = f"a logit differs by {error:.4g} after loading, {allowed:g} allowed"
        yield Flag("unfaithful", row.job, detail)


def with_other_seeds(rows: Iterable[Record]) -> list[tuple[Record, list[Record]]]:
    """Every finished run that trained, with the cell's runs of other seeds on its task; those
    without another seed have nothing to fall behind and are left out."""
    groups: dict[tuple[str, str, Cell, str], list[Record]] = {}
    for row in rows:
        if row.ok and row.job.cell.trains and row.outcome.steps != 0:
            job = row.job
            groups.setdefault((job.profile, job.model, job.cell, job.task), []).append(row)
    return [
        (row, [other for other in group if other is not row])
        for group in groups.values()
        if len(group) > 1
        for row in group
    ]


def behind(rows: Sequence[Record]) -> Iterator[Flag]:
    """Runs that ended far worse than every other seed of their cell on the task.

    What harms is looked for, and not a norm that rises: gradients are clipped, and of the stored
    runs whose norm rose by half three times in a row none had ended like this.
    """
    for row, others in with_other_seeds(rows):
        parts = [*_higher_loss(row, others), *_lower_score(row, others)]
        if not parts:
            continue
        if (step := row.outcome.exploding_step) is not None:
            parts.append(f"its gradient norm rose by half three times in a row up to step {step}")
        yield Flag("behind", row.job, "; ".join(parts))


def _higher_loss(row: Record, others: Sequence[Record]) -> Iterator[str]:
    mine = row.outcome.loss
    known = [o.outcome.loss for o in others if o.outcome.loss is not None]
    if mine is not None and known and mine >= HIGHER_LOSS * (most := max(known)) > 0:
        yield f"a training loss of {mine:.3g}, the other seeds' at most {most:.3g}"


def _lower_score(row: Record, others: Sequence[Record]) -> Iterator[str]:
    metric, mine = row.job.metric, row.outcome.metric_value
    known = [o.outcome.metric_value for o in others if o.outcome.metric_value is not None]
    worth = point(metric, row.outcome.baseline_value)
    if mine is None or worth is None or not known:
        return
    sign = sign_of(metric)
    worst = min(known, key=lambda value: sign * value)
    if sign * (worst - mine) >= LOWER_POINTS * worth:
        yield f"a score of {mine:.3f}, the other seeds' at worst {worst:.3f}"


def _twins(rows: Sequence[Record]) -> Iterator[Flag]:
    seen: dict[tuple[str, int, str], Record] = {}
    for row in rows:
        job, curve = row.job, row.outcome.curve
        if not curve or row.outcome.steps == 0:
            continue
        key = (job.task, job.seed, _bits([(p.step, p.loss, p.metric) for p in curve]))
        first = seen.setdefault(key, row)
        if not _one_procedure(first, row):
            title = cell_title(*first.job.cell)
            detail = f"the same loss and score as {title} at every point"
            yield Flag("twins", job, f"{detail}; {_final_weights(first, row)}")


def _final_weights(one: Record, other: Record) -> str:
    """Whether two runs ended with the same trained weights, as a clause."""
    first, second = one.outcome.final_weights_hash, other.outcome.final_weights_hash
    if first is None or second is None:
        return "their final weights are not on record"
    return f"{'the same' if first == second else 'other'} final weights"


def _one_procedure(one: Record, other: Record) -> bool:
    """Whether two runs differ only in what changes no number: gradient checkpointing, whether the
    suite or its budget gave them the same size, or how they came to adapt the same layers, which a
    random draw and a ranking by gradients may agree on."""
    first, second = one.job, other.job
    chose = bool(one.outcome.layer_scores and other.outcome.layer_scores)
    alike = chose and one.outcome.rank_history == other.outcome.rank_history
    same = replace(
        first.recipe,
        gradient_checkpointing=second.recipe.gradient_checkpointing,
        budget=second.recipe.budget,
        options=second.recipe.options if alike else first.recipe.options,
    )
    return (
        (first.method, first.quantization, _size(one))
        == (second.method, second.quantization, _size(other))
    ) and same == second.recipe


def _size(row: Record) -> int | None:
    """The rank, width or number of tokens that the suite or the budget gave."""
    return row.job.size if row.job.recipe.budget is None else row.outcome.solved_size
