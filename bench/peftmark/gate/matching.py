"""Which runs of two sides may be compared, and what is missing, failed or another procedure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from peftmark.catalog.methods import Cell, cell_title
from peftmark.gate.result import Finding, Kind
from peftmark.gate.run_lines import Key, Line, changed
from peftmark.gate.snapshot import Snapshot
from peftmark.render.words import listing, plural, some, status

WRONG = ("invalid", "diverged")
"""Statuses of runs that show a fault of the method; others show that something stopped them."""


@dataclass(frozen=True)
class Pair:
    """Two ok runs of one cell, task and seed that were asked for the same.

    Attributes:
        other: what beside the configuration decides the bits and differs: names of versions,
            sources and facts of the machine.
    """

    before: Line
    after: Line
    other: tuple[str, ...]

    @property
    def same_code(self) -> bool:
        """Whether code, versions and kind of machine are the same, so that the bits must be."""
        return not self.other

    @property
    def identical(self) -> bool:
        """Whether scores, losses and weights are the same to the last bit."""
        return self.before.bits == self.after.bits

    @property
    def same_place(self) -> bool:
        """Whether it ran on the same kind of machine, with as many threads: code and versions alone
        can change the bits."""
        a, b = self.before, self.after
        return self.same_machine and (a.device, a.threads) == (b.device, b.threads)

    @property
    def same_machine(self) -> bool:
        """Whether times and peaks may be compared."""
        return self.before.machine == self.after.machine


@dataclass(frozen=True)
class Matched:
    """Both sides run by run.

    Attributes:
        pairs: what may be compared, in the order of the baseline.
        declared: why other bits than the baseline's are as they should be; empty if nobody said.
    """

    before: Snapshot
    after: Snapshot
    pairs: tuple[Pair, ...]
    declared: str = ""

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of either side, those of the baseline first."""
        lines = (*self.before.lines, *self.after.lines)
        return tuple(dict.fromkeys([line.cell for line in lines]))

    @cached_property
    def _by_cell(self) -> dict[Cell, tuple[Pair, ...]]:
        found: dict[Cell, list[Pair]] = {}
        for pair in self.pairs:
            found.setdefault(pair.before.cell, []).append(pair)
        return {cell: tuple(pairs) for cell, pairs in found.items()}

    def of(self, cell: Cell, task: str | None = None) -> tuple[Pair, ...]:
        """The pairs of a cell, on one task or all."""
        pairs = self._by_cell.get(cell, ())
        return pairs if task is None else tuple(p for p in pairs if p.before.task == task)


def match(before: Snapshot, after: Snapshot, declared: str = "") -> Matched:
    """Pair the ok runs of two sides."""
    there = after.by_key
    pairs = []
    for line in before.lines:
        other = there.get(line.key)
        if other is None or not (line.ok and other.ok) or changed(line.config, other.config):
            continue
        pairs.append(Pair(line, other, changed(line.numeric, other.numeric)))
    return Matched(before, after, tuple(pairs), declared)


def finding(kind: Kind, check: str, cell: Cell | None, sentence: str) -> Finding:
    """A finding, its sentence cut to what fits."""
    title = cell_title(*cell) if cell is not None else ""
    sentence = "".join(c if c.isprintable() else " " for c in sentence)
    text = sentence if len(sentence) <= 1500 else f"{sentence[:1499]}…"
    return Finding(kind, check, title, text)


# --- what can't be compared ---------------------------------------------------------------------


def incomplete(matched: Matched) -> Iterator[Finding]:
    """Runs that the baseline or the plan has and the candidate lacks, or that failed."""
    before, after = matched.before, matched.after
    there, planned = after.by_key, set(after.planned)
    for cell, keys in _by_cell(k for k in before.by_key if k not in there):
        gone = [key for key in keys if key not in planned]
        text = f"{_runs(keys)} of the baseline {'has' if len(keys) == 1 else 'have'} no result"
        if gone:
            everything = len(gone) == len(keys)
            text += f"; the suite plans {'them' if everything else f'{len(gone)} of them'} no more"
        yield finding("incomplete", "run.missing", cell, text)
    known = before.by_key
    for cell, keys in _by_cell(k for k in after.planned if k not in there and k not in known):
        yield finding("incomplete", "run.missing", cell, f"{_runs(keys)} planned without a result")
    if after.repeat and not after.repeat.startswith("different"):
        text = f"the run that is made twice was not: {after.repeat}"
        yield finding("incomplete", "run.repeat", None, text)
    states = {json.dumps(vars(x.environment), sort_keys=True, default=str) for x in after.lines}
    if len(states) > 1:
        kinds = {json.dumps(x.machine, sort_keys=True) for x in after.lines}
        remedy = "gate each machine's own results" if len(kinds) > 1 else "run with --again"
        text = f"the runs were made by {len(states)} states of code or machine; {remedy}"
        yield finding("incomplete", "run.mixed", None, text)
    if after.waiting:
        text = f"{plural(after.waiting, 'run')} wait for trials of learning rates"
        yield finding("incomplete", "run.waiting", None, text)
    failed: dict[tuple[Cell, str, str], list[Key]] = {}
    for line in after.lines:
        if not line.ok:
            failed.setdefault((line.cell, line.status, line.status_reason), []).append(line.key)
    for (cell, how, why), keys in failed.items():
        was_ok = [key for key in keys if (old := known.get(key)) is not None and old.ok]
        kind: Kind = "regression" if how in WRONG and was_ok else "incomplete"
        text = f"{_runs(keys)} ended as {status(how)}{f': {why}' if why else ''}"
        yield finding(kind, f"run.{how}", cell, text + ("; ok in the baseline" if was_ok else ""))


def _runs(keys: Sequence[Key]) -> str:
    """`4 runs (TREC, seeds 0 and 1; ...)`."""
    tasks: dict[str, list[str]] = {}
    for _, task, seed in keys:
        tasks.setdefault(task, []).append(str(seed))
    places = [f"{t}, seed{'s' * (len(s) > 1)} {some(s)}" for t, s in tasks.items()]
    more = f"; {len(places) - 4} more tasks" if len(places) > 4 else ""
    return f"{plural(len(keys), 'run')} ({'; '.join(places[:4])}{more})"


def _by_cell(keys: Iterable[Key]) -> list[tuple[Cell, list[Key]]]:
    found: dict[Cell, list[Key]] = {}
    for key in keys:
        found.setdefault(key[0], []).append(key)
    return list(found.items())


def other_procedure(matched: Matched) -> Iterator[Finding]:
    """Runs that were asked for something else than the baseline's, or can't be held to it."""
    before, after = matched.before, matched.after
    for cell, keys in _by_cell(x.key for x in before.lines if not x.ok):
        text = f"{_runs(keys)} of the baseline did not end well itself"
        yield finding("not comparable", "procedure.failed", cell, text)
    for what in ("suite", "profile", "model"):
        if (a := getattr(before, what)) != (b := getattr(after, what)):
            yield finding(
                "not comparable", f"procedure.{what}", None, f"{what} {a} there, {b} here"
            )
    there = after.by_key
    seen: dict[tuple[Cell, str], int] = {}
    for line in before.lines:
        other = there.get(line.key)
        if other is None:
            continue
        for name in changed(line.config, other.config):
            a, b = line.config.get(name), other.config.get(name)
            text = f"{name} {_value(a)} there, {_value(b)} here"
            seen[line.cell, text] = seen.get((line.cell, text), 0) + 1
    for (cell, text), runs in seen.items():
        yield finding("not comparable", "procedure.config", cell, f"{text}, {plural(runs, 'run')}")
    if not matched.pairs and not seen:
        text = "not one run of the two sides can be compared"
        yield finding("not comparable", "procedure.none", None, text)


def _value(value: object) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def new(matched: Matched) -> Iterator[Finding]:
    """Runs that the baseline doesn't have."""
    known = matched.before.by_key
    for cell, keys in _by_cell(x.key for x in matched.after.lines if x.ok and x.key not in known):
        text = f"{_runs(keys)} not in the baseline, so nothing checks them; accept a new one"
        yield finding("note", "run.new", cell, text)


# --- what must be the same bits ------------------------------------------------------------------


def not_deterministic(matched: Matched) -> Iterator[Finding]:
    """Runs by the same code on the same kind of machine with other bits."""
    for cell in matched.cells:
        other = [p for p in matched.of(cell) if p.same_code and not p.identical]
        if other:
            first = other[0]
            text = (
                f"{_runs([p.before.key for p in other])} with other bits by the same code, versions"
                f" and kind of machine; {_scores(first)}"
            )
            yield finding("not deterministic", "bits.changed", cell, text)
    if matched.after.repeat.startswith("different"):
        text = f"the run that was made twice gave other numbers: {matched.after.repeat}"
        yield finding("not deterministic", "bits.repeat", None, text)


def numbers_changed(matched: Matched) -> Iterator[Finding]:
    """Runs by other code or versions on the same kind of machine that gave other bits.

    Healthy code gives the baseline's bits there, so whatever else the numbers look like, somebody
    changed what is trained.
    """
    for cell in matched.cells:
        mine = [p for p in matched.of(cell) if p.same_place and not p.same_code]
        changed_ones = [p for p in mine if not p.identical]
        if not changed_ones:
            continue
        first = changed_ones[0]
        text = (
            f"{_runs([p.before.key for p in changed_ones])} with other numbers than the baseline's "
            f"on the same kind of machine; {_scores(first)}; what differs beside: "
            f"{listing(list(first.other[:4]))}"
        )
        if matched.declared:
            text += f"; declared: {matched.declared}"
            yield finding("note", "bits.declared", cell, text)
        else:
            text += '; accept it with a reason (--expect-change "why"), or find out why'
            yield finding("numbers changed", "bits.undeclared", cell, text)


def _scores(pair: Pair) -> str:
    """Both scores, with digits enough to tell bits apart and no more."""
    both = (pair.before.value, pair.after.value)
    return f"score {listing(['absent' if v is None else f'{v:.6g}' for v in both])}"


def same_seeds(matched: Matched) -> Iterator[Finding]:
    """Seeds that draw alike now and did not before: one run counted several times."""
    for check, what, read in (
        ("seeds.same-order", "draw the batches in one and the same order", _order),
        ("seeds.same-start", "start from the same trainable weights", _start),
        ("seeds.same-run", "give the same run to the last bit", _bits),
    ):
        for cell in matched.cells:
            alike = [
                (task, [str(p.after.seed) for p in pairs])
                for task, pairs in _by_task(matched.of(cell))
                if len(pairs) > 1
                and len({read(p.after) for p in pairs}) < len({read(p.before) for p in pairs})
            ]
            if alike:
                where = listing([task for task, _ in alike[:4]])
                text = f"seeds {some(alike[0][1])} {what} on {where}; in the baseline they differ"
                yield finding("regression", check, cell, text)


def _by_task(pairs: Iterable[Pair]) -> list[tuple[str, list[Pair]]]:
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.before.task, []).append(pair)
    return list(found.items())


def _order(line: Line) -> object:
    return line.counts.get("batch_order_hash")


def _start(line: Line) -> object:
    return line.initial


def _bits(line: Line) -> object:
    return line.bits
