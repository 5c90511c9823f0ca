"""Can these numbers be trusted: the self-test, what looks wrong, and which rows say what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from peftmark.advice import rates_lines
from peftmark.analysis import validity
from peftmark.analysis.table import ResultTable
from peftmark.analysis.validity import FLAG_KINDS, Flag, FlagKind, Repeat
from peftmark.record.fields import title
from peftmark.record.job import Record
from peftmark.record.outcome import Outcome
from peftmark.render import words
from peftmark.render.page import Block, Column, Entry, Grid, Paragraph, Section
from peftmark.report import missing

TITLE = "Can these numbers be trusted?"
REPEATS = {
    "same": "the repeated job gave the same bits",
    "different": "the same job gave different numbers when it ran twice",
    "not comparable": "the repeated job can't be compared with its first run",
    "not run": "the repeated job has not run yet",
}


@dataclass(frozen=True)
class Check:
    """One thing that is looked for in every finished row.

    Attributes:
        title: what is looked for.
        known: how many of the finished rows hold what the check reads.
        unknown: why, where none does.
    """

    title: str
    known: Callable[[Sequence[Record]], int]
    unknown: str = "no finished run records it"


def _recorded(read: Callable[[Outcome], bool]) -> Callable[[Sequence[Record]], int]:
    """A count of the rows whose outcome holds something."""
    return lambda rows: sum(read(row.outcome) for row in rows)


CHECKS: dict[FlagKind, Check] = {
    "collapsed": Check(
        "predictions that are all the same",
        _recorded(lambda outcome: outcome.collapsed is not None),
    ),
    "behind": Check(
        f"a training loss {validity.HIGHER_LOSS:g} times that of every other seed of the cell, or "
        f"a score {validity.LOWER_POINTS} points below theirs",
        lambda rows: len(validity.with_other_seeds(rows)),
        "no cell has a finished run of another seed",
    ),
    "twins": Check(
        "two cells with the same curve on one task and seed",
        _recorded(lambda outcome: bool(outcome.curve)),
    ),
    "unfaithful": Check(
        "saved files that give other logits when loaded",
        _recorded(lambda outcome: outcome.reload_max_error is not None),
    ),
}
MOST_ROWS = 12
LOUD: tuple[FlagKind, ...] = ("collapsed", "twins")


@dataclass(frozen=True)
class Findings:
    """What looking for trouble found.

    Attributes:
        repeat: how the repeated job ended; None if none is planned.
        flags: every suspect row.
    """

    repeat: Repeat | None
    flags: tuple[Flag, ...]

    @property
    def counts(self) -> Counter[FlagKind]:
        """Flagged rows by kind."""
        return Counter(flag.kind for flag in self.flags)


def look(table: ResultTable) -> Findings:
    """Look for trouble in every row, once for the whole page."""
    return Findings(
        validity.repeatability(table.jobs, table.records, table.machines.by_machine),
        tuple(validity.flags(table.jobs, table.records)),
    )


def loud(findings: Findings) -> list[tuple[str, str]]:
    """What makes numbers untrustworthy, and what of a page that bears on; empty if nothing does."""
    repeat, counts = findings.repeat, findings.counts
    found = []
    if repeat is not None and repeat.verdict == "different":
        told = f"Not repeatable: {REPEATS['different']} ({repeat.detail})"
        found.append((told, ". No difference below can be told from that."))
    pointer = f": see \u201c{TITLE}\u201d below."
    return [*found, *((_says(kind, counts[kind]), pointer) for kind in LOUD if counts[kind])]


def alarms(findings: Findings) -> tuple[str, ...]:
    """What has to stand at the top of the page; empty if nothing does."""
    return tuple(told + where for told, where in loud(findings))


def section(table: ResultTable, findings: Findings) -> Section:
    """The verdict, the checks, the rows they flag, and the splits of every task."""
    blocks: list[Block] = []
    flagged = _flagged(findings)
    if flagged.rows:
        blocks.append(flagged)
    blocks += [Paragraph(_split_text(table)), _splits(table)]
    checks = (_checks(table, findings),)
    return Section("validity", TITLE, _verdict(findings), tuple(blocks), checks)


def _says(kind: FlagKind, n: int) -> str:
    return f"{words.plural(n, 'run')} {FLAG_KINDS[kind]}"


def _verdict(findings: Findings) -> str:
    repeat, counts = findings.repeat, findings.counts
    repeated = REPEATS[repeat.verdict] if repeat else "this profile plans no repeated job"
    wrong = [_says(kind, n) for kind in FLAG_KINDS if (n := counts[kind])]
    if repeat is not None and repeat.verdict == "different":
        return f"No: {words.listing([repeated, *wrong])}."
    if counts["twins"]:
        return f"No: {words.listing(wrong)}; {repeated}."
    if wrong:
        return f"With care: {words.listing(wrong)}; {repeated}."
    if repeat is None or repeat.verdict != "same":
        return f"Not shown yet: {repeated}. Nothing else looks wrong in the finished runs."
    return f"Yes, as far as is checked: {repeated}, and nothing looks wrong in the finished runs."


def _checks(table: ResultTable, findings: Findings) -> Grid:
    repeat, counts = findings.repeat, findings.counts
    rows = [_repeat_row(repeat)] if repeat else []
    finished = [r for r in table.rows if r.ok]
    for kind, check in CHECKS.items():
        known, n = check.known(finished), counts[kind]
        if n:
            verdict = Entry(f"{n} found", kind="failed")
        elif known:
            verdict = Entry("none found")
        else:
            verdict = words.missing(check.unknown if finished else "nothing ran")
        scope = f"{known} of {words.plural(len(finished), 'finished run')} checked"
        rows.append((Entry(check.title), verdict, Entry(scope)))
    columns = (Column("looked for"), Column("result"), Column("where"))
    return Grid("Checks", columns, tuple(rows))


def _repeat_row(repeat: Repeat) -> tuple[Entry, ...]:
    job = repeat.job
    where = f"{words.title(job.cell)} on {job.task}, seed {job.seed}"
    failed = repeat.verdict == "different"
    verdict = Entry(repeat.verdict, kind="failed" if failed else "text")
    return Entry("the same bits when one job runs twice"), verdict, Entry(where, repeat.detail)


def _flagged(findings: Findings) -> Grid:
    """One row a flag; of many, seeds that say the same share a row."""
    columns = (
        Column("found"),
        Column("cell"),
        Column("task"),
        Column("seed", numeric=True),
        Column("detail"),
    )
    alike: dict[tuple[object, ...], list[Flag]] = {}
    for i, flag in enumerate(findings.flags):
        job = flag.job
        apart = i if len(findings.flags) <= MOST_ROWS else None
        alike.setdefault((flag.kind, job.cell, job.task, flag.detail, apart), []).append(flag)
    rows = tuple(
        (
            Entry(flag.kind, kind="failed"),
            Entry(words.title(flag.job.cell)),
            Entry(flag.job.task),
            Entry(", ".join(str(f.job.seed) for f in flags), kind="number", sort=flag.job.seed),
            Entry(flag.detail or "no detail recorded"),
        )
        for flags in alike.values()
        for flag in flags[:1]
    )
    return Grid("Rows that were flagged", columns, rows, folded=len(rows) > MOST_ROWS)


def _split_text(table: ResultTable) -> str:
    return " ".join(filter(None, (_selection_text(table), rates_lines.sentence(table))))


def _selection_text(table: ResultTable) -> str:
    """What is picked on rows cut from training, and that the headline is of the last step."""
    recipes = [s.job.recipe for s in table.slots]
    cut = {bool(recipe.selection_rows) for recipe in recipes}
    if cut == {False}:
        return (
            "No selection rows are cut from the training split: no step is picked by score, and "
            "the figures are those of the last step."
        )
    some = "" if cut == {True} else "Where a recipe asks for them, "
    stops = any(recipe.early_stopping is not None for recipe in recipes)
    text = (
        f"{some}selection rows are cut from the training split before any training row is taken. "
        f"The selected step is picked on them{', and when training stops early' if stops else ''}; "
        "all other figures are those of the last step."
    )
    return text[0].upper() + text[1:]


def _splits(table: ResultTable) -> Grid:
    columns = (
        Column("task"),
        Column(title("train_rows"), numeric=True),
        Column(title("selection_rows"), "cut from training", numeric=True),
        Column(title("eval_rows"), numeric=True),
        Column(title("overlap_rows"), "evaluation rows also in training", numeric=True),
    )
    rows = tuple(
        (Entry(task), *_split_row([r for r in table.rows if r.ok and r.job.task == task]))
        for task in table.tasks
    )
    return Grid("Rows of each split", columns, rows)


def _split_row(finished: list[Record]) -> Iterable[Entry]:
    for name in ("train_rows", "selection_rows", "eval_rows", "overlap_rows"):
        found = [n for r in finished if (n := getattr(r.outcome, name)) is not None]
        if not found:
            yield words.missing(missing.reason(finished, name) if finished else "no finished run")
            continue
        yield Entry(words.span(found), kind="number", sort=float(max(found)))
