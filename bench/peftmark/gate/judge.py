"""The verdict: what may be compared, then counts, quality, speed of learning, memory and time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from peftmark.catalog.methods import Cell, cell_title
from peftmark.core.errors import Exit
from peftmark.gate import convergence, costs, matching, quality
from peftmark.gate.checks import CHECKS, group_of
from peftmark.gate.matching import Matched, Pair, match
from peftmark.gate.policy import Policy
from peftmark.gate.quality import Judged
from peftmark.gate.result import (
    FORMAT,
    KINDS,
    CellResult,
    Finding,
    Gate,
    Kind,
    Side,
    TaskResult,
    code_of,
)
from peftmark.gate.run_lines import Line
from peftmark.gate.snapshot import Snapshot
from peftmark.machine.environment import NUMERIC
from peftmark.record.job import source_key
from peftmark.record.own import rows_text
from peftmark.render.words import plural

WORDS: dict[str, str] = {
    "incomplete": "incomplete",
    "not deterministic": "not deterministic",
    "not comparable": "not comparable",
    "numbers changed": "numbers changed",
    "undecided": "undecided",
    "suspicious": "suspicious",
    "improved": "better",
}
"""Kind of a cell's worst finding -> the cell's verdict, where it doesn't depend on the finding."""


VERDICTS = {
    Exit.OK: "Passed",
    Exit.REGRESSION: "Failed",
    Exit.INCOMPLETE: "Incomplete",
    Exit.NOT_REPEATABLE: "Not deterministic",
    Exit.NOT_COMPARABLE: "Not comparable",
    Exit.UNDECIDED: "Undecided",
    Exit.NUMBERS_CHANGED: "Numbers changed",
}


def judge(
    after: Snapshot,
    before: Snapshot,
    policy: Policy,
    release: Snapshot | None = None,
    declared: str = "",
) -> Gate:
    """Hold results against a baseline.

    Args:
        after: the candidate.
        before: the baseline it is judged by.
        release: a pinned baseline; against it only quality and speed of learning are judged, so
            that many small losses can't pass one by one.
        declared: why other bits than the baseline's are as they should be; empty if nobody said.
    """
    matched = match(before, after, declared)
    if release is not None:  # two looks at the same results share the chance of a false alarm
        policy = policy.model_copy(update={"alpha": policy.alpha / 2})
    cells, tasks = quality.judge_cells(matched, policy), quality.judge_tasks(matched, policy)
    here: dict[str, Iterable[Finding]] = {
        "procedure": matching.other_procedure(matched),
        "run": matching.incomplete(matched),
        "bits": [
            *matching.not_deterministic(matched),
            *matching.numbers_changed(matched),
        ],
        "seeds": matching.same_seeds(matched),
        "quality": _quality(matched, policy, cells, tasks),
    }
    found: list[Finding] = []
    for check in CHECKS.values():
        found += here.get(check.key, ()) if check.finds is None else check.finds(matched, policy)
    found += matching.new(matched)
    if release is not None:
        found += _against_release(match(release, after), policy)
    findings = tuple(sorted(_merged(found, matched), key=lambda f: list(KINDS).index(f.kind)))
    results = tuple(_cell(matched, c, cells[c], tasks, findings) for c in matched.cells)
    code = code_of(findings)
    return Gate(
        peftmark_gate=FORMAT,
        suite=after.suite,
        profile=after.profile,
        machine=after.machine,
        code=int(code),
        sentence=_sentence(findings, results, matched),
        before=_side(before, after),
        after=_side(after, before),
        release=_side(release, after) if release is not None else None,
        timings=_timings(policy),
        cells=results,
        findings=findings,
        policy=policy.model_dump(),
    )


def _quality(
    matched: Matched,
    policy: Policy,
    cells: dict[Cell, Judged],
    tasks: dict[tuple[Cell, str], Judged],
) -> list[Finding]:
    judged = (*cells.values(), *tasks.values())
    return [
        *(f for j in judged for f in j.findings),
        *convergence.collapses(matched, policy),
        *convergence.classes(matched, policy),
        *convergence.steps_to_target(matched, policy),
    ]


def _against_release(matched: Matched, policy: Policy) -> list[Finding]:
    """What is worse than at the pinned release; counts that were accepted since are not told."""
    cells, tasks = quality.judge_cells(matched, policy), quality.judge_tasks(matched, policy)
    found = [*matching.other_procedure(matched), *_quality(matched, policy, cells, tasks)]
    telling = [f for f in found if f.kind in ("not comparable", "regression", "undecided")]
    return [replace(f, against="release") for f in telling]


def _merged(found: Sequence[Finding], matched: Matched) -> list[Finding]:
    """One finding for the whole suite where every cell has the same one."""
    titles = {cell_title(*cell) for cell in matched.cells}
    having: dict[Finding, set[str]] = {}
    for f in found:
        having.setdefault(replace(f, cell=""), set()).add(f.cell)
    merged: dict[Finding, None] = {}
    for f in found:
        alike = replace(f, cell="")
        merged[alike if len(titles) > 1 and having[alike] == titles else f] = None
    return list(merged)


# --- cells --------------------------------------------------------------------------------------


def _cell(
    matched: Matched,
    cell: Cell,
    judged: Judged,
    tasks: dict[tuple[Cell, str], Judged],
    findings: tuple[Finding, ...],
) -> CellResult:
    mine = matched.of(cell)
    title = cell_title(*cell)
    own = [f for f in findings if f.cell in (title, "") and f.kind != "note"]
    known = bool(matched.before.lines) and any(x.cell == cell for x in matched.before.lines)
    worst = own[0] if own else None
    return CellResult(
        cell=title,
        verdict=_verdict(worst, mine, known, judged),
        kind=worst.kind if worst else "",
        runs=len(mine),
        identical=sum(p.identical for p in mine),
        change=judged.change,
        memory=costs.peak_ratio(mine),
        time=costs.time_ratio(mine),
        tasks=tuple(
            _task(task, j, matched.of(cell, task)) for (c, task), j in tasks.items() if c == cell
        ),
    )


def _verdict(worst: Finding | None, mine: Sequence[Pair], known: bool, judged: Judged) -> str:
    if not known:
        return "new"
    if worst is None:
        if not mine:
            return "not compared"
        if all(p.identical for p in mine):
            return "identical"
        return "not tested" if judged.fell is None else "same within noise"
    if worst.kind == "regression":
        return CHECKS[group_of(worst.check)].worse
    return WORDS[worst.kind]


def _task(task: str, judged: Judged, mine: Sequence[Pair]) -> TaskResult:
    kinds = {f.kind for f in judged.findings}
    verdict = (
        "worse"
        if "regression" in kinds
        else "better"
        if "improved" in kinds
        else "identical"
        if judged.identical
        else "undecided"
        if "undecided" in kinds
        else "same within noise"
        if judged.fell is not None
        else "not tested"
    )
    return TaskResult(task, mine[0].before.metric, verdict, judged.change)


# --- words --------------------------------------------------------------------------------------


def _sentence(findings: tuple[Finding, ...], cells: Sequence[CellResult], matched: Matched) -> str:
    """How many findings of each kind, and how many cells stay as they were."""
    said: dict[Kind, tuple[str, str]] = {
        "regression": ("regression", "regressions"),
        "incomplete": ("gap", "gaps"),
        "not deterministic": ("cell that is not deterministic", "cells that are not deterministic"),
        "not comparable": ("difference of procedure", "differences of procedure"),
        "numbers changed": ("undeclared change of numbers", "undeclared changes of numbers"),
        "undecided": ("check undecided", "checks undecided"),
        "suspicious": ("suspicious change", "suspicious changes"),
        "improved": ("improvement", "improvements"),
    }
    parts = []
    for kind, (one, many) in said.items():
        count = sum(f.kind == kind for f in findings)
        if count:
            parts.append(f"{count} {one if count == 1 else many}")
    calm = [c for c in cells if c.kind in ("", "improved")]
    same = sum(c.verdict == "identical" for c in calm)
    parts.append(f"{same} of {plural(len(cells), 'cell')} identical")
    if rest := len([c for c in calm if c.verdict == "same within noise"]):
        parts.append(f"{rest} the same within noise")
    verdict = VERDICTS[code_of(findings)]
    runs = plural(len(matched.pairs), "run")
    return f"{verdict}: {', '.join(parts)}; {runs} compared."


def _timings(policy: Policy) -> str:
    if policy.timings == "binding":
        return "Times bind: the runner is declared exclusive and its runs must be interleaved."
    return "Times are advisory: they fail nothing, since the runner is shared."


def _side(side: Snapshot, other: Snapshot) -> Side:
    mine, theirs = _facts(side.lines), _facts(other.lines)
    differing = {k: v for k, v in mine.items() if theirs and theirs.get(k) != v}
    facts = side.accepted
    line = side.lines[-1] if side.lines else None
    commit = (line.environment.commit or "") if line is not None else ""
    dirty = " with uncommitted changes" if line is not None and line.environment.dirty else ""
    return Side(
        where="; ".join([side.where, *_own(side.lines)]),
        commit=f"{commit[:12]}{dirty}",
        finished_at=side.finished_at,
        accepted=f"accepted {facts.at}: {facts.reason}" if facts is not None else "",
        versions=differing,
    )


def _own(lines: Sequence[Line]) -> list[str]:
    """The tasks of the user's own among the lines, with their rows."""
    counts = {
        line.task: [line.config.get(f"own.{part}_rows") for part in ("train", "eval")]
        for line in lines
    }
    return [
        rows_text(task, train, evaluation)
        for task, (train, evaluation) in counts.items()
        if isinstance(train, int) and isinstance(evaluation, int)
    ]


def _facts(lines: Sequence[Line]) -> dict[str, str]:
    """Versions and sources of the newest line."""
    if not lines:
        return {}
    made = max(lines, key=lambda line: line.finished_at).environment
    facts = {name: made.versions.get(name, "none") for name in ("peftmark", *NUMERIC)}
    facts |= {source_key(name): digest for name, digest in made.sources.items()}
    return facts | {"cpu": str(made.machine.get("cpu"))}


def compare(after: Snapshot, before: Snapshot) -> Gate:
    """Two sides as the same table, with no policy and no exit code."""
    gate = judge(after, before, Policy(), declared="two sides are compared")
    sentence = gate.sentence.partition(": ")[2]
    sentence = f"{sentence[:1].upper()}{sentence[1:]}"
    # Nobody declared or planned anything: the two are held against each other.
    findings = tuple(
        replace(
            f, sentence=f.sentence.partition("; declared: ")[0].partition("; the suite plans")[0]
        )
        for f in gate.findings
    )
    return replace(gate, findings=findings, code=None, sentence=sentence, policy={})
