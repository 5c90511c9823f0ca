"""Rows of `peftmark.record.fields`: the curve, and where everything came from."""

from __future__ import annotations

from peftmark.record.field import Field

ROWS: tuple[Field, ...] = (
    Field(
        "curve",
        "curve",
        "curve",
        phase="training",
        meter="scoring, clock",
        deterministic=True,
        kind="quality",
        section="Quality",
        summary=(
            "at each evaluation: step, loss, metric, seconds of training so far, selection "
            "metric, penalty, largest gradient norm before clipping. Of a job that shared its GPU "
            "the seconds are no number"
        ),
        null="empty if the job ended early",
    ),
    Field(
        "initial_weights_hash",
        "string",
        "initial weights",
        unit="SHA-256",
        phase="building",
        meter="hash",
        deterministic=True,
        kind="fact",
        section="Validity",
        summary="trainable weights before the first step, as fp32",
    ),
    Field(
        "final_weights_hash",
        "string",
        "final weights",
        unit="SHA-256",
        phase="training",
        meter="hash",
        kind="fact",
        section="Validity",
        summary=(
            "trainable weights after the last step, as fp32; of a line that needs no fine-tuning "
            "its arrays"
        ),
    ),
    Field(
        "batch_order_hash",
        "string",
        "batch order",
        unit="SHA-256",
        phase="data",
        meter="hash",
        deterministic=True,
        exact=True,
        kind="fact",
        section="Validity",
        summary="row numbers of every batch",
    ),
    Field(
        "train_rows",
        "int64",
        "training rows",
        unit="rows",
        phase="data",
        meter="count",
        exact=True,
        kind="count",
        section="Work",
        summary=(
            "rows the batches were drawn from; a line that needs no fine-tuning is fitted to all"
        ),
    ),
    Field(
        "selection_rows",
        "int64",
        "selection rows",
        unit="rows",
        phase="data",
        meter="count",
        exact=True,
        kind="count",
        section="Work",
        summary="rows cut from the training split; 0 if none",
    ),
    Field(
        "eval_rows",
        "int64",
        "evaluation rows",
        unit="rows",
        phase="data",
        meter="count",
        exact=True,
        kind="count",
        section="Work",
        summary="rows scored",
    ),
    Field(
        "overlap_rows",
        "int64",
        "rows in both splits",
        unit="rows",
        phase="data",
        meter="count",
        exact=True,
        kind="count",
        section="Validity",
        summary="evaluation rows whose text also stands in the training split",
    ),
    Field(
        "data_source",
        "string",
        "data source",
        phase="data",
        meter="loader",
        kind="fact",
        section="Provenance",
        summary="where the rows came from, in words",
    ),
    Field(
        "data_fingerprint",
        "string",
        "data fingerprint",
        unit="SHA-256",
        phase="data",
        meter="hash",
        kind="fact",
        section="Provenance",
        summary="the rows of both splits as loaded",
    ),
    Field(
        "model_source",
        "string",
        "model source",
        phase="loading",
        meter="loader",
        kind="fact",
        section="Provenance",
        summary="where the weights came from, in words",
    ),
    Field(
        "phase_seconds",
        "json",
        "time by phase",
        unit="seconds",
        phase="whole job",
        meter="clock",
        kind="fact",
        section="Time",
        summary=(
            "wall time by phase: load, tokenise, quantise, build, warm_up, train, evaluate, "
            "generate, forget, save, deploy, probe, predict. Generate is the time in writing "
            "answers, taken out of evaluate; forget that of reading the unrelated text. "
            "Quantise is the time inside bitsandbytes, taken out of load; a base that an "
            "earlier job quantised is read from the cache, and the time is that of its "
            "quantising. Fit, of a line that needs no fine-tuning, is the time of its features "
            "and of its estimator with every C"
        ),
        null="empty if the job ended early or shared its GPU",
    ),
    Field(
        "warnings",
        "strings",
        "warnings",
        phase="whole job",
        meter="worker",
        kind="fact",
        section="Validity",
        summary="facts a reader should know",
        null="",
    ),
    Field(
        "null_reasons",
        "json",
        "reasons of nulls",
        phase="whole job",
        meter="worker, supervisor",
        kind="fact",
        section="Validity",
        summary="column -> why it is null",
        null="",
    ),
    Field(
        "wall_seconds",
        "float64",
        "wall time of the job",
        unit="seconds",
        better="lower",
        phase="whole job",
        meter="supervisor's clock",
        kind="cost",
        section="Time",
        summary=(
            "supervisor: from the worker's start to its end; where its process ran other jobs "
            "before, from the moment it was given the job, and where it can take another, until it "
            "is as it was before. Beside other jobs on a GPU it holds their work and the waiting "
            "for their timed stretches"
        ),
        null="",
    ),
    Field(
        "start_seconds",
        "float64",
        "time to start",
        unit="seconds",
        better="lower",
        phase="whole job",
        meter="supervisor's clock",
        kind="fact",
        section="Time",
        summary=(
            "part of `wall_seconds` until the worker told of its first phase: its process starts "
            "and loads libraries, or only learns of the job where it ran others before"
        ),
        null="job never started, ended before its first phase, or shared its GPU",
    ),
    Field(
        "jobs_before",
        "int64",
        "jobs before in its process",
        unit="jobs",
        phase="whole job",
        meter="count",
        kind="fact",
        section="Provenance",
        summary=(
            "jobs that the worker's process ran before this one "
            "(docs/executors.md#jobs-a-process); 0 for a process of its own"
        ),
        null="job never started",
    ),
    Field(
        "jobs_on_gpu",
        "int64",
        "jobs on its GPU",
        unit="jobs",
        phase="whole job",
        meter="the run",
        kind="fact",
        section="Provenance",
        summary=(
            "jobs of the run that might be on the GPU at the same time, this one among them; above "
            "1 `wall_seconds` has their time in it, and no other column has "
            "(docs/executors.md#jobs-a-gpu)"
        ),
        null="job on the CPU, job never started, row older than the column",
    ),
    Field(
        "predicted_seconds",
        "float64",
        "predicted wall time",
        unit="seconds",
        phase="plan",
        meter="calibration",
        kind="fact",
        section="Time",
        summary=(
            "what the job was predicted to take before any job ran, from the work of its steps and "
            "the rates of the machine (docs/time.md); over or under `wall_seconds` tells how far "
            "off"
        ),
        null="the machine was not calibrated, or nobody had planned such jobs on it",
    ),
    Field(
        "most_seeds",
        "int64",
        "most seeds",
        unit="seeds",
        phase="plan",
        meter="count",
        kind="fact",
        section="Validity",
        summary=(
            "of a run that adds seeds until its questions are decided, how many there may be at "
            "most; its p values pay for every look (docs/statistics.md)"
        ),
        null="the number of seeds was fixed",
    ),
    Field(
        "look",
        "int64",
        "look",
        phase="plan",
        meter="count",
        kind="fact",
        section="Validity",
        summary="of such a run, the number of the look that the job was run for, from 1",
        null="the number of seeds was fixed",
    ),
    Field(
        "profile_seeds",
        "int64",
        "seeds of the profile",
        unit="seeds",
        phase="plan",
        meter="count",
        kind="fact",
        section="Validity",
        summary=(
            "seeds that the profile had when the job ran; rows of fewer seeds beside rows of more "
            "tell that somebody raised their number between runs, for which no p value pays"
        ),
        null="seeds were added until a question was answered, or the row is of an older peftmark",
    ),
    Field(
        "question",
        "string",
        "question",
        phase="plan",
        meter="suite",
        kind="fact",
        section="Validity",
        summary=(
            "of such a run, what seeds were added for: `reference` (how each cell stands beside "
            "the reference), `best` (which is first) or `equivalence` (which lie within the margin)"
        ),
        null="the number of seeds was fixed",
    ),
    Field(
        "started_at",
        "string",
        "start",
        unit="UTC",
        phase="whole job",
        meter="supervisor's clock",
        kind="fact",
        section="Time",
        summary="when the worker was started, by the supervisor",
        null="",
    ),
    Field(
        "finished_at",
        "string",
        "end",
        unit="UTC",
        phase="whole job",
        meter="supervisor's clock",
        kind="fact",
        section="Time",
        summary="when the worker ended, by the supervisor",
        null="",
    ),
    Field(
        "command",
        "string",
        "command",
        phase="plan",
        meter="supervisor",
        kind="fact",
        section="Provenance",
        summary="shell command that runs this job again",
        null="",
    ),
    Field(
        "config",
        "string",
        "configuration",
        phase="plan",
        meter="the job",
        kind="fact",
        section="Provenance",
        summary=(
            "the whole resolved job as canonical JSON: recipe, model identity, data "
            "fingerprint, protocol; of a language model also `causal`: prompt as version and "
            "hash, `new_tokens`, unrelated text with its fingerprint, protocol of asking; with "
            "plug-ins also `plugins`: of each its package, a hash of its code, and its row"
        ),
        null="",
    ),
    Field(
        "environment",
        "string",
        "environment",
        phase="whole job",
        meter="supervisor",
        kind="fact",
        section="Provenance",
        summary=(
            "versions, hashes of installed sources, commit and machine; with plug-ins their "
            "packages among both, and versions of what these need"
        ),
        null="",
    ),
)
