"""The model card of a trained adapter: what its row says of it, for whoever finds the folder."""

from __future__ import annotations

import json
from collections.abc import Iterable

from peftmark.catalog.methods import cell_title, known_method
from peftmark.catalog.metrics import metric_title
from peftmark.core.shown import plain
from peftmark.record.job import Job, Record
from peftmark.render import words
from peftmark.render.markdown import escape

RATE_TOLD = "the report of its suite says whether trials picked it"
NO_SELECTION = "none were cut: the lowest seed is kept, not the best"


def card(record: Record, loading: str = "") -> str:
    """The card of a row's adapter, as Markdown with the front matter that hubs read.

    Args:
        loading: how it is loaded, as Markdown; without it, that `peftmark export` says so.
    """
    job = record.job
    title = plain(f"{cell_title(*job.cell)} on {job.task}, seed {job.seed}")
    loading = loading or (
        "These are the files as training saved them. `peftmark export` writes them in a form that "
        "loads without peftmark, with the code that loads it, and `peftmark predict` uses them on "
        "new rows."
    )
    lines = [f"| {escape(name)} | {escape(plain(value))} |" for name, value in _facts(record)]
    recipe = json.dumps(json.loads(job.to_json())["recipe"], indent=1, sort_keys=True)
    return "\n".join(
        [
            *_front(job),
            f"# {escape(title)}",
            "",
            f"{known_method(job.method).title}: {known_method(job.method).summary}. Trained and "
            "measured by peftmark.",
            "",
            "| | |",
            "|---|---|",
            *lines,
            "",
            "## Loading",
            "",
            loading,
            "",
            "## Recipe",
            "",
            "```json",
            recipe,
            "```",
            "",
        ]
    )


def _front(job: Job) -> list[str]:
    model = job.model_facts
    base = [f"base_model: {json.dumps(model.hub.repository)}"] if model.hub else []
    return ["---", *base, "library_name: peft", "tags: [peftmark]", "---", ""]


def base_text(job: Job) -> str:
    """The base of a job, with what tells its bytes."""
    model = job.model_facts
    hub = f" ({model.hub.repository} at {model.hub.revision})" if model.hub else ""
    what = "files" if model.own else "weights"
    return f"{model.title}{hub}; SHA-256 of its {what} {job.model_identity}"


def _facts(record: Record) -> Iterable[tuple[str, str]]:
    job, outcome = record.job, record.outcome
    yield "base model", base_text(job)
    yield "licence of the base", job.model_facts.licence or "not known"
    yield "task", f"{job.task_title}; rows {job.data_fingerprint[:16]}"
    yield "licence of the rows", job.task_facts.licence or "not known"
    if job.task_facts.labels:
        yield "classes", ", ".join(job.task_facts.labels)
    yield from _scores(record)
    yield "seed", str(job.seed)
    yield "steps", f"{outcome.steps} (the weights are those of the last)"
    yield "learning rate", f"{job.recipe.learning_rate:g}; {job.rates or RATE_TOLD}"
    size, head = outcome.saved_adapter_bytes, outcome.saved_head_bytes
    if size is not None and head is not None:
        yield "on disk", f"adapter {size:,} bytes, head {head:,} bytes"
    if outcome.trainable_parameters is not None:
        yield "parameters that trained", f"{outcome.trainable_parameters:,}"
    yield "reloaded by peftmark", _error(record)
    yield "job", f"{job.job_id}, attempt {record.attempt}, {record.finished_at}"
    versions = record.environment.versions
    named = ("peftmark", "torch", "transformers", "peft", "bitsandbytes")
    yield "software", ", ".join(f"{name} {versions[name]}" for name in named if name in versions)


def _scores(record: Record) -> Iterable[tuple[str, str]]:
    """Scores of this one seed: a report has those of all, with how sure they are."""
    job, outcome = record.job, record.outcome
    named = metric_title(job.metric)
    if outcome.metric_value is not None:
        score = words.score(job.metric, outcome.metric_value)
        yield "score", f"{named} {score} on {outcome.eval_rows} evaluation rows, of this seed alone"
    if outcome.baseline_value is not None:
        yield "a constant guess", f"{named} {words.score(job.metric, outcome.baseline_value)}"
    chosen = outcome.curve[-1].selection_metric if outcome.curve else None
    rows = f"{outcome.selection_rows} selection rows, by which the best seed is told"
    told = (
        NO_SELECTION if chosen is None else f"{named} {words.score(job.metric, chosen)} on {rows}"
    )
    yield "selection", told


def _error(record: Record) -> str:
    found = record.outcome.reload_max_error
    if found is None:
        return f"not compared: {record.null_reason('reload_max_error')}"
    return f"largest difference of a logit from the trained model {words.error(found)}"
