"""Can I rerun it: environment, sources, and one command a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from peftmark.analysis.table import ResultTable
from peftmark.record.fields import title
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.page import Column, Entry, Grid, Paragraph, Section
from peftmark.report.coverage import PURPOSES

HASH_DIGITS = 12
MOST_ROWS = 1000
"""Rows whose commands a page lists."""


def environment(table: ResultTable) -> Section:
    """Versions, machines, commits, and where data and model came from."""
    machines = table.machines
    facts = [_facts(r) for rows in machines.by_machine.values() for r in rows.values()]
    kinds = {tuple(sorted(f.items())) for f in facts}
    if not facts:
        lead = "Nothing has run, so there is no environment to show."
    elif machines.several:
        lead = (
            f"Rows come from {len(machines.by_machine)} machines, with {len(kinds)} environments."
        )
    elif len(kinds) == 1:
        lead = "Every row comes from the same environment."
    else:
        lead = (
            f"Rows come from {len(kinds)} different environments: compare times and memory "
            "across them with care."
        )
    lead = f"{lead} {form(table)}".strip()
    return Section("environment", "Where it ran", lead, (_facts_grid(facts), _sources(table)))


def form(table: ResultTable) -> str:
    """How steps were computed, where a recipe asks for another way than torch's own; else empty."""
    trained = [job.form for job in table.jobs if job.cell.trains] or [j.form for j in table.jobs]
    told = []
    if lengths := sorted({f["pad_to"] for f in trained} - {None}):
        told.append(
            f"batches were padded to multiples of {words.listing([*map(str, lengths)])} tokens"
        )
    if any(f.get("compile") for f in trained):
        told.append("layers were compiled by torch.compile, in training and its evaluations")
    if kinds := sorted({f["attention"] for f in trained} - {None}):
        told.append(f"attention was {words.listing(kinds)}")
    if counts := sorted({f.get("devices", 1) for f in trained} - {1}):
        told.append(f"each job was trained on {words.listing([*map(str, counts)])} devices at once")
    if any(f.get("shard") for f in trained):
        told.append("the weights of a model's layers lay in parts on them")
    if any(f.get("packing") for f in trained):
        told.append("rows of a training pass stood end to end in one, without padding")
    if whose := sorted({f["kernels"] for f in trained} - {None}):
        told.append(f"layers ran on the kernels of {words.listing(whose)}")
    return f"As the recipe asks, {words.listing(told)}, in every cell alike." if told else ""


def _facts(record: Record) -> dict[str, str]:
    env = record.environment
    dirty = {None: "unknown", True: "yes", False: "no"}[env.dirty]
    facts = {f"version: {name}": value for name, value in env.versions.items()}
    facts |= {
        f"machine: {k}": "n/a (none, or not recorded)" if v is None else str(v)
        for k, v in _machine(record)
    }
    facts["peftmark commit"] = env.commit or "n/a (installed, not a checkout)"
    facts["uncommitted changes"] = dirty
    facts["device"] = f"{record.job.device}, {words.plural(record.job.threads, 'thread')}"
    return facts


def _machine(record: Record) -> Iterable[tuple[str, object]]:
    for key, value in record.environment.machine.items():
        if key == "memory_bytes" and isinstance(value, int):
            yield "memory", f"{value / 2**30:.1f} GiB"
        else:
            yield key.replace("_", " "), value


def _facts_grid(facts: list[dict[str, str]]) -> Grid:
    names = sorted({name for f in facts for name in f})
    rows = tuple((Entry(name), Entry(_values(facts, name))) for name in names)
    return Grid("Environment", (Column("fact"), Column("value")), rows, folded=True)


def _values(facts: list[dict[str, str]], name: str) -> str:
    counts = Counter(f.get(name, "not recorded") for f in facts)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{v} ({words.plural(n, 'row')})" for v, n in sorted(counts.items()))


def _sources(table: ResultTable) -> Grid:
    columns = (
        Column("task"),
        Column(title("data_source")),
        Column(title("data_fingerprint")),
        Column("rows", "training / selection / evaluation"),
        Column(title("model_source")),
        Column("model weights", "SHA-256, first digits"),
    )
    rows = []
    for task in table.tasks:
        found = [r for r in (*table.rows, *table.extras) if r.job.task == task]
        job = table.example(task)
        rows.append(
            (
                Entry(f"{task}", f"version {job.task_version}"),
                _distinct(r.outcome.data_source for r in found),
                _distinct(
                    (r.outcome.data_fingerprint for r in found),
                    "code",
                    expected=job.data_fingerprint,
                ),
                _distinct(_rows(r) for r in found if r.job.purpose == "report"),
                _distinct(r.outcome.model_source for r in found),
                _weights(table, task),
            )
        )
    return Grid("Data and model", columns, tuple(rows))


def _weights(table: ResultTable, task: str) -> Entry:
    """Hashes of the models that read a task, each once."""
    found = dict.fromkeys(j.model_identity[:HASH_DIGITS] for j in table.jobs if j.task == task)
    return Entry("; ".join(found), kind="code")


def _rows(record: Record) -> str | None:
    outcome = record.outcome
    counts = (outcome.train_rows, outcome.selection_rows, outcome.eval_rows)
    if outcome.train_rows is None or outcome.eval_rows is None:
        return None
    return " / ".join(words.MISSING if n is None else f"{n:,}" for n in counts)


def _distinct(values: Iterable[str | None], kind: str = "text", expected: str = "") -> Entry:
    known = sorted({v for v in values if v})
    if not known:
        note = f"expected {expected}" if expected else "not recorded"
        return words.missing(note)
    note = "" if not expected or known == [expected] else f"expected {expected}"
    return Entry("; ".join(known), note, "code" if kind == "code" else "text")


def command(table: ResultTable) -> str:
    """What runs all jobs of the profile again."""
    job = table.jobs[0]
    return f"peftmark run {job.suite} --profile {job.profile} --again"


def rerun(table: ResultTable) -> Section:
    """One row a stored result, with the command that repeats it."""
    grids = [_commands(f"Commands of {words.plural(len(table.rows), 'row')}", table.rows)]
    if table.extras:
        caption = f"Commands of trials and repeats, {words.plural(len(table.extras), 'row')}"
        grids.append(_commands(caption, table.extras))
    lead = (
        f"In the folder of the run, {command(table)} runs everything again, and each command "
        "below just one job; equal hashes mean the same start and the same order of rows."
    )
    return Section("rerun", "Run it again", lead, tuple(grids))


def _commands(caption: str, records: tuple[Record, ...]) -> Grid | Paragraph:
    if len(records) > MOST_ROWS:
        return Paragraph(
            f"{caption}: too many for a page. They are in rows.csv beside it, column command."
        )
    columns = (
        Column("job"),
        Column("cell"),
        Column("task"),
        Column("seed", numeric=True),
        Column("status"),
        Column("score", numeric=True),
        Column(title("initial_weights_hash"), "SHA-256, first digits"),
        Column(title("batch_order_hash"), "SHA-256, first digits"),
        Column("command"),
    )
    return Grid(caption, columns, tuple(_row(r) for r in records), folded=True)


def _row(record: Record) -> tuple[Entry, ...]:
    job, outcome = record.job, record.outcome
    attempt = "" if record.attempt == 1 else f"attempt {record.attempt}"
    score = outcome.metric_value if record.ok else None
    shown = words.missing("not recorded" if record.ok else words.status(outcome.status))
    if score is not None:
        shown = Entry(words.score(job.metric, score), kind="number", sort=score)
    return (
        Entry(job.job_id, attempt, "code"),
        Entry(words.title(job.cell), PURPOSES[job.purpose]),
        Entry(job.task),
        Entry(str(job.seed), kind="number", sort=job.seed),
        Entry(words.status(outcome.status), kind="text" if record.ok else "failed"),
        shown,
        _hash(record, "initial_weights_hash"),
        _hash(record, "batch_order_hash"),
        Entry(record.command, kind="code"),
    )


def _hash(record: Record, name: str) -> Entry:
    value: str | None = getattr(record.outcome, name)
    if value:
        return Entry(value[:HASH_DIGITS], kind="code")
    return words.missing(record.null_reason(name) if record.ok else "")
