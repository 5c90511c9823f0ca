"""The three answers of the front page, worded from the rows of one run each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from peftmark.advice.answer import headline
from peftmark.advice.candidates import Candidate, Wish
from peftmark.advice.recommend import recommend
from peftmark.analysis.comparison import ALPHA, MARGIN, Difference, Verdict, pairwise
from peftmark.analysis.stats import compare, seeds_to_decide
from peftmark.analysis.table import ResultTable, difference, overall_score, ratio
from peftmark.catalog.methods import Cell
from peftmark.claims.part import Part
from peftmark.claims.standing import Line
from peftmark.claims.wording import measured, percent
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.report.recommendation import MAX_DROP
from peftmark.report.score_entries import seeds_wanted
from peftmark.site.evidence import Run

MEMORY = 1e9
"""Bytes that the first question allows."""
MEASURE = "make bench SUITE=glue"
"""What measures everything that the questions are of."""


@dataclass(frozen=True)
class Answer:
    """A question with what the rows say to it.

    Attributes:
        word: the answer in a word or two.
        text: the same as a sentence, with its figures.
        run: whose rows it rests on; None where there are none.
        next: what would decide it; empty where it is decided.
        claim: the claim whose verdict it is; empty for none.
    """

    question: str
    word: str
    text: str
    run: Run | None = None
    next: str = ""
    claim: str = ""


def answers(runs: Sequence[Run], lines: Sequence[Line]) -> tuple[Answer, ...]:
    """An answer to each question, from the run of most weight that has what it asks for.

    Args:
        runs: those of most weight first.
        lines: every claim with its verdict by each run.
    """
    return tuple(
        next(
            (found for run in order(runs) if (found := make(question, run, lines))), none(question)
        )
        for question, order, make in QUESTIONS
    )


def none(question: str) -> Answer:
    """That nothing published answers a question."""
    text = "No published rows hold the methods that this asks for against each other."
    return Answer(question, "Not measured", text, next=f"{MEASURE} measures it.")


def _most_cells(runs: Sequence[Run]) -> list[Run]:
    """Which to choose is asked of the run that had most to choose from, at the same scale: settings
    of one method are no choice among methods."""

    def weight(run: Run) -> tuple[bool, int, int, int]:
        size = run.model.parameters if run.model else 0
        cells = run.table.cells
        methods = {(cell.method, cell.quantization) for cell in cells}
        return run.table.jobs[0].scale == "full", size, len(methods), len(cells)

    return sorted(runs, key=weight, reverse=True)


def _as_they_are(runs: Sequence[Run]) -> list[Run]:
    return list(runs)


# --- which method -------------------------------------------------------------------------------


def under_a_gigabyte(question: str, run: Run, lines: Sequence[Line]) -> Answer | None:
    """The method that is shown to keep the score within a limit of memory; one seed shows none."""
    if run.seeds < 2:
        return None
    found = recommend(run.table, Wish(memory=MEMORY, max_drop=MAX_DROP, least="memory"))
    decided = found.verdict == "fits" and bool(found.picks)
    word = found.picks[0].title if decided else VERDICTS.get(found.verdict, UNDECIDED)
    told = _for_visitors(headline(found).removeprefix(f"{UNDECIDED}: ").removeprefix("Unknown. "))
    left = "" if decided else _for_visitors("; ".join(found.run))
    text = f"{_all_fit([*found.picks, *found.others])}{_capital(told)}"
    return Answer(question, word, text, run, f"{_capital(left)}." if left else "")


def _all_fit(candidates: Sequence[Candidate]) -> str:
    """That the limit rules out nothing, where it doesn't; else nothing."""
    sizes = [c.largest["memory"] for c in candidates if c.trains]
    if not sizes or any(size is None or size > MEMORY for size in sizes):
        return ""
    return f"All {words.plural(len(sizes), 'method')} measured here fit. "


UNDECIDED = "Undecided"
VERDICTS = {"none fits": "None", "unknown": "Unknown"}


def _for_visitors(text: str) -> str:
    """A sentence for those who don't know what a cell is."""
    return re.sub(r"\bcell(s?)\b", r"method\1", text)


# --- is it slower -------------------------------------------------------------------------------


def pair(
    table: ResultTable, first: Callable[[Cell], bool], second: Callable[[Cell], bool]
) -> tuple[Cell, Cell] | None:
    """Two cells of the same size, the plain ones of several variants first."""
    cells = sorted(table.cells, key=lambda c: (c.variant, c.size or 0))
    return next(
        (
            (a, b)
            for a in cells
            if first(a)
            for b in cells
            if second(b) and (a.size, a.variant) == (b.size, b.variant)
        ),
        None,
    )


def is_lora(cell: Cell) -> bool:
    """Whether a cell is LoRA on an unquantised base."""
    return cell.method == "lora" and cell.quantization == "none"


def is_qlora(cell: Cell) -> bool:
    """Whether a cell is LoRA on NF4."""
    return cell.method == "lora" and cell.quantization == "nf4"


def is_adalora(cell: Cell) -> bool:
    """Whether a cell is AdaLoRA on an unquantised base."""
    return cell.method == "adalora" and cell.quantization == "none"


def slower(question: str, run: Run, lines: Sequence[Line]) -> Answer | None:
    """Whether a step of QLoRA takes longer than one of LoRA: which side of "as long" the ratio is
    on, by the verdict on the claim that says how much longer."""
    found = _of_step_times(run, lines)
    if found is None:
        return None
    claim, level, part = found
    assert part.test is not None
    first, second = part.test.cells
    one, other = words.title(first), words.title(second)
    word, shown = SIDES.get(part.direction or "", (UNDECIDED, "neither slower nor faster is shown"))
    figure, _, rest = measured(part).removesuffix(")").partition(" (")
    sure = ""
    if level is not None and part.low is not None:
        why = ", as several figures are judged together" if level > 1 - ALPHA else ""
        sure = f"; interval at {percent(level)}{why}"
    told = (
        f"A step of {one} took {figure} that of {other} {_device(run)} ({rest}{sure}): {shown}."
        f"{_sides(run.table, first, second)}"
    )
    left = ""
    if word == UNDECIDED and level is not None:
        needed = seeds_to_slower(run.table, first, second, 1 - level)
        left = f"{_capital(words.seeds_that_decide(needed))}."
    return Answer(question, word, told, run, left, claim)


def seeds_to_slower(table: ResultTable, one: Cell, other: Cell, alpha: float) -> int | None:
    """Seeds that would show a ratio of step times as large as the one seen to be no 1, at the level
    of a claim's interval; the claim's own number is for the size that it claims."""
    scores = [overall_score(table, cell, _log_step_seconds) for cell in (one, other)]
    found = difference(*scores)
    return seeds_to_decide(compare(found.strata), alpha=alpha) if found.by_seed else None


def _sides(table: ResultTable, one: Cell, other: Cell) -> str:
    """In how many pairs of the same task and seed a cell's step took longer."""
    found: list[dict[tuple[str, int], float]] = [{}, {}]
    for cell, mine in zip((one, other), found, strict=True):
        for slot in table.of(cell):
            if slot.ok and (seconds := slot.value(step_seconds)) is not None:
                mine[slot.job.task, slot.job.seed] = seconds
    pairs = found[0].keys() & found[1].keys()
    longer = sum(found[0][pair] > found[1][pair] for pair in pairs)
    return f" It took longer in {longer} of {len(pairs)} pairs of task and seed." if pairs else ""


def _log_step_seconds(record: Record) -> float | None:
    seconds = step_seconds(record)
    return math.log(seconds) if seconds else None


SIDES = {
    "reproduced": ("Yes", "it is shown to be slower"),
    "contradicted": ("No", "it is shown to be faster"),
}
"""Verdict on "longer" -> the answer, and what is shown."""


def _of_step_times(run: Run, lines: Sequence[Line]) -> tuple[str, float | None, Part] | None:
    """The claim, level and part that hold the step times of QLoRA and LoRA against each other."""
    for line in lines:
        for standing in line.standings:
            if (standing.suite, standing.profile) != (run.suite, run.profile):
                continue
            for part in standing.verdict.parts:
                if part.direction is not None and _is_of_steps(part):
                    return line.claim.id, standing.verdict.level, part
    return None


def _is_of_steps(part: Part) -> bool:
    if part.test is None or part.test.ratio is None:
        return False
    if part.test.ratio.measure != "step_seconds_p50":
        return False
    one, other = part.test.cells
    return is_qlora(one) and is_lora(other)


def _device(run: Run) -> str:
    devices = sorted({job.device.upper() for job in run.table.jobs})
    return f"on a {devices[0]}" if devices == ["CPU"] else f"on {words.listing(devices)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- is it worth it -----------------------------------------------------------------------------


def worth(question: str, run: Run, lines: Sequence[Line]) -> Answer | None:
    """Whether AdaLoRA scores higher than LoRA, and what it takes."""
    two = pair(run.table, is_adalora, is_lora)
    if two is None:
        return None
    found, turned = scored(run.table, *two)
    if found is None:
        return None
    one, other = (words.title(cell) for cell in two)
    away = difference_text(found, turned)
    told = f"over {words.plural(found.comparison.n, 'seed')}{_price(run.table, *two)}"
    after = _collapsed(run.table, *two)
    verdict = OTHER_WAY[found.verdict] if turned else found.verdict
    if verdict == "higher":
        text = f"{one} is shown to score higher than {other}, by {away} {told}.{after}"
        return Answer(question, "Yes, for its score", text, run)
    if verdict == "lower":
        text = f"{one} is shown to score lower than {other}: {away} {told}.{after}"
        return Answer(question, "No", text, run)
    if verdict == "equivalent":
        text = f"{one} is shown to be within {MARGIN:g} of {other}: {away} {told}.{after}"
        return Answer(question, "No, it scores the same", text, run)
    text = (
        f"Neither {one} nor {other} is shown to score higher: {one} less {other} is {away} "
        f"{told}{together(found)}.{after}"
    )
    return Answer(question, UNDECIDED, text, run, f"{_capital(seeds_wanted(found))}.")


OTHER_WAY: Mapping[Verdict, Verdict] = {
    "higher": "lower",
    "lower": "higher",
    "equivalent": "equivalent",
    "undecided": "undecided",
    "no interval": "no interval",
}


def scored(table: ResultTable, one: Cell, other: Cell) -> tuple[Difference | None, bool]:
    """What is shown of two cells over all tasks, and whether it is of the second less the first."""
    pairs = pairwise(table)
    if (one, other) in pairs:
        return pairs[one, other], False
    return pairs.get((other, one)), True


def difference_text(found: Difference, turned: bool = False) -> str:
    """A difference of scores with its plain interval, the other way round if asked."""
    estimate, sign = found.comparison.estimate, -1 if turned else 1
    mean = sign * estimate.mean
    if estimate.half_width is None:
        return words.score("", mean, signed=True)
    ends = sorted((sign * estimate.low, sign * estimate.high))
    low, high = (words.score("", end, signed=True) for end in ends)
    return f"{words.score('', mean, signed=True)} (95\u00a0% interval {low} to {high})"


def together(found: Difference) -> str:
    """Why an interval without zero leaves a difference undecided; empty for any other."""
    if found.verdict != "undecided" or not found.excludes_zero or found.family < 2:
        return ""
    return f" (as one of {found.family} differences judged together)"


def _collapsed(table: ResultTable, *cells: Cell) -> str:
    """How many runs of cells predicted one label or answer for every row, which a mean hides."""
    found = []
    for cell in cells:
        runs = [slot.record for slot in table.of(cell) if slot.ok and slot.record is not None]
        if bad := sum(record.outcome.collapsed is True for record in runs):
            found.append(f"{bad} of {words.plural(len(runs), 'run')} of {words.title(cell)}")
    if not found:
        return ""
    return f" In the mean: {words.listing(found)} collapsed (the same answer for every row)."


def _price(table: ResultTable, one: Cell, other: Cell) -> str:
    """What a step of a cell takes of another's, where that is the reference; else nothing."""
    found = ratio(table, one, step_seconds).value if other == table.reference else None
    return "" if found is None else f", at {words.times(found)} the time of a step"


def step_seconds(record: Record) -> float | None:
    """Seconds of a training step, the median."""
    return record.outcome.step_seconds_p50


Maker = Callable[[str, Run, Sequence[Line]], Answer | None]
QUESTIONS: tuple[tuple[str, Callable[[Sequence[Run]], list[Run]], Maker], ...] = (
    ("Which method under 1 GB?", _most_cells, under_a_gigabyte),
    ("Is QLoRA slower than LoRA?", _as_they_are, slower),
    ("Is AdaLoRA worth it?", _as_they_are, worth),
)
"""Question, the order in which runs are asked, and what answers it; None where a run can't."""
