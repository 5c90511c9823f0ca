"""When AdaLoRA changed its ranks: the share of all changes in a window of the run."""

from __future__ import annotations

from itertools import pairwise

from peftmark.record.job import Record

WINDOW = (20, 60)
"""Per cent of the steps: changes after the first and up to the second are counted."""

COARSEST = 10
"""Per cent of the steps that evaluations may at most lie apart."""


def rank_moves(record: Record) -> float | str:
    """Share of all rank changes that falls into the window.

    A change is the absolute difference of a module's rank between two evaluations, and counts at
    the later one; the ranks at step 0 are those before the allocator began. An allocation prunes
    by setting singular values to zero, and until the last one the next optimizer step moves them
    off zero again (arXiv 2303.10512, section 3.3: a pruned triplet may come back). So ranks can be
    read only right at an allocation, before the first, or from the last on.

    Returns:
        The share, from 0 to 1, or why the row has none.
    """
    job, outcome = record.job, record.outcome
    schedule = job.recipe.adalora
    if schedule is None or not outcome.rank_history or not outcome.curve:
        return "the method moves no ranks"
    histories = list(outcome.rank_history.values())
    if any(rank is None for history in histories for rank in history):
        return "some evaluations came before there were ranks"
    total = job.recipe.steps
    steps = [point.step for point in outcome.curve]
    apart = max(later - earlier for earlier, later in pairwise([0, *steps, total]))
    if 100 * apart > COARSEST * total:
        return f"evaluations are {apart} of {total} steps apart, more than {COARSEST} % of the run"
    falling = [s for s in steps if schedule.tinit < s < total - schedule.tfinal]
    if any(step % schedule.delta_t for step in falling):
        return (
            f"ranks were read between two allocations, which are {schedule.delta_t} steps apart, "
            "when pruned ones train on"
        )
    if steps[0] <= schedule.tinit:
        starts = [history[0] for history in histories]
    elif job.method == "adalora" and schedule.init_rank is not None:
        starts = [schedule.init_rank] * len(histories)
    else:
        return "the ranks before the first evaluation are not known"
    moved = dict.fromkeys(steps, 0)
    for start, history in zip(starts, histories, strict=True):
        for step, (before, after) in zip(steps, pairwise([start, *history]), strict=True):
            moved[step] += abs((after or 0) - (before or 0))
    everything = sum(moved.values())
    if not everything:
        return "no rank changed"
    low, high = WINDOW
    return sum(n for s, n in moved.items() if low * total < 100 * s <= high * total) / everything


def schedule_share(record: Record) -> float | str:
    """Share of its fall that the budget alone puts into the window, at the run's evaluations.

    The budget falls with (1 - t)^3, t from 0 at the end of the warm-up to 1 at the last allocation
    (arXiv 2303.10512, eq. 12). This is what `rank_moves` would be if modules exchanged no ranks.

    Returns:
        The share, from 0 to 1, or why the row has none.
    """
    schedule, total = record.job.recipe.adalora, record.job.recipe.steps
    if schedule is None or record.job.method != "adalora":
        return "only AdaLoRA's own schedule is known to count from the first step"
    begin, end = schedule.tinit, total - schedule.tfinal

    def left(step: int) -> float:
        """Share of the fall that is still to come after a step."""
        return (1 - min(1.0, max(0.0, (step - begin) / (end - begin)))) ** 3

    low, high = WINDOW
    steps = [0, *(point.step for point in record.outcome.curve)]
    before = max(step for step in steps if 100 * step <= low * total)
    after = max(step for step in steps if 100 * step <= high * total)
    return left(before) - left(after)


def moves_beyond_schedule(record: Record) -> float | str:
    """The share of rank changes in the window less what the schedule alone puts there.

    Returns:
        The difference of two shares, from -1 to 1, or why the row has none.
    """
    moved, alone = rank_moves(record), schedule_share(record)
    if isinstance(moved, str):
        return moved
    return alone if isinstance(alone, str) else moved - alone
