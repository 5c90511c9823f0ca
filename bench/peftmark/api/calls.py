"""The functions that `import peftmark` gives. Each loads what it needs when it is called.

Every path may be a string. What the command line tells in a message and an exit code is a
`peftmark.UserError` here, with the same message; nothing here ends the interpreter.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

# First the folders of these names, so that a later import of theirs can't take a function's place
# in the package: `peftmark.run` stays what is called.
import peftmark.compare
import peftmark.gate
import peftmark.report
import peftmark.run  # noqa: F401

if TYPE_CHECKING:
    from pandas import DataFrame

    from peftmark.api.running import Progress
    from peftmark.compare.held import Compared
    from peftmark.gate.result import Gate
    from peftmark.run.runner import Selection
    from peftmark.run.session import Summary

PathLike = str | os.PathLike[str]
Taken = ParamSpec("Taken")
Given = TypeVar("Given")


def _with_plugins(function: Callable[Taken, Given]) -> Callable[Taken, Given]:
    """The same, with what other packages bring known, as to the command line."""

    @functools.wraps(function)
    def called(*args: Taken.args, **kwargs: Taken.kwargs) -> Given:
        from peftmark.catalog import plugins

        plugins.load()
        return function(*args, **kwargs)

    return called


@_with_plugins
def load_results(
    source: PathLike,
    *,
    profile: str | None = None,
    failed: bool = False,
    trials: bool = False,
    repeats: bool = False,
    bulky: bool = False,
    results: PathLike = "results",
    suites: PathLike | None = None,
) -> DataFrame:
    """Stored rows as a tidy frame: one row a run, of the runs that a report's figures are made of.

    Columns are those of docs/columns.md, and

    - `cell`, the name that reports have, such as "LoRA r8";
    - the recipe, a column a setting: `learning_rate`, `batch_size`, `targets` ...; a setting that
      is called like a measured column is `recipe.steps` (planned; `steps` were made); AdaLoRA's
      schedule is `adalora.*`, options of a method `options.*`;
    - each metric of the task as `metrics.*`, each phase of a job as `phase_seconds.*`.

    Whole numbers are nullable (`Int64`), truth values are `boolean`; what is unknown is null, with
    its reason in the dictionary of `null_reasons`. `cell`, `task`, `method`, `quantization`,
    `model`, `purpose` and `status` are categories in the report's order.

    Args:
        source: the name of a suite; a suite's results folder; the folder of a report; or a
            Parquet file of rows (`rows.parquet`, `results.parquet`).
        profile: of the suite; that of the newest row if left out.
        failed: with jobs that ended otherwise than ok. They are left out if not asked for, as from
            every figure of a report, and a warning counts them.
        trials: with trials of learning rates (`purpose` is "tuning", `metric_value` is on selection
            rows); one that diverged is among them.
        repeats: with the job that every run runs twice (`purpose` is "repeat").
        bulky: with predictions, references, completions, rank histories, and the job's whole
            configuration and environment.
        results: the folder of results, where `source` names a suite.
        suites: a folder of your own suites.

    Returns:
        the frame; its `attrs` have `units` (column -> unit, empty for none), `reference` (the cell
        that the suite compares with, None if unknown), `source`, `left_out` (why -> number of
        rows), and `damaged` and `older` (part that can't be read -> why), of which a warning tells.

    Raises:
        UserError: nothing there, none of it can be read, or no rows of that profile.
    """
    from peftmark.api.frames import results_frame
    from peftmark.api.selected import select

    selected = select(_source(source), profile=profile, results=Path(results), suites=_path(suites))
    return results_frame(selected, failed=failed, trials=trials, repeats=repeats, bulky=bulky)


@_with_plugins
def curves(
    source: PathLike,
    *,
    profile: str | None = None,
    failed: bool = False,
    trials: bool = False,
    repeats: bool = False,
    results: PathLike = "results",
    suites: PathLike | None = None,
) -> DataFrame:
    """Every evaluation during training: one row a run and evaluation step.

    `step` counts optimizer steps; `loss` is the task's mean training loss since the previous
    evaluation, `penalty` the method's own term; `metric` is the primary metric on the evaluation
    rows, `selection_metric` on the selection rows; `seconds` are of training steps so far;
    `gradient_norm` is the largest since the previous evaluation, before clipping.

    Args and errors are those of `load_results`, and so are `attrs`.
    """
    from peftmark.api.frames import curves_frame
    from peftmark.api.selected import select

    selected = select(_source(source), profile=profile, results=Path(results), suites=_path(suites))
    return curves_frame(selected, failed=failed, trials=trials, repeats=repeats)


@_with_plugins
def plan(
    suite: str,
    *,
    profile: str | None = None,
    memory: bool = False,
    device: str | None = None,
    again: bool = False,
    mirror: PathLike | None = None,
    results: PathLike = "results",
    suites: PathLike | None = None,
) -> DataFrame:
    """What a run would do: one row a job in running order. Writes nothing.

    Args:
        suite: its name.
        profile: of the suite; chosen for the machine if left out.
        memory: predict the memory of a training step too, as in `peftmark plan`: `live_bytes` and
            its parts, in bytes. Takes seconds, or minutes for models that were never seen.
        device: a GPU by name ("RTX 4090") or size ("24GB"): `fits` says whether a step's tensors
            fit it, and the memory is that of a step there.
        again: finished jobs would run too.
        mirror: a folder of local data sets and models.
        results: the folder of results.
        suites: a folder of your own suites.

    Returns:
        `cell`, `task`, `seed`, `purpose`, `job_id`, `action` ("run" or "done"), its `reason`, and
        the recipe, a column a setting. `attrs` have `profile`, `profile_reason`, `waiting` (jobs
        that trials of learning rates are to decide), `notes`, `filled` and `units`.

    Raises:
        UserError: every fault of the suite; a profile or GPU that isn't there; rows of your own
            that can't be read.
    """
    from peftmark.api.planning import plan_frame

    selection = _selection(suite, profile, mirror, results, suites, again=again)
    return plan_frame(selection, memory=memory, gpu=device)


@_with_plugins
def run(
    suite: str,
    *,
    profile: str | None = None,
    callback: Callable[[Progress], object] | None = None,
    progress: Callable[[Progress], object] | None = None,
    jobs: int | None = None,
    only: tuple[str, ...] = (),
    again: bool = False,
    timeout: float | None = None,
    retries: int = 1,
    show_texts: bool = False,
    keep: tuple[str, ...] = (),
    mirror: PathLike | None = None,
    results: PathLike = "results",
    suites: PathLike | None = None,
) -> Summary:
    """Run the jobs of a suite that have no result yet, as `peftmark run` does; no report.

    Works in a notebook and in a script, without a `__main__` guard. Stopped by Ctrl-C and called
    again it goes on: finished jobs are kept.

    Args:
        suite: its name.
        profile: of the suite; chosen for the machine if left out.
        callback: called with each job that has ended; `callback=print` prints a line each.
        progress: called with every message of a worker: a phase, a step, a score.
        jobs: most jobs at once; one per GPU or core if left out.
        only: ids of the jobs to run (`peftmark.plan` has them); empty for all.
        again: run finished jobs too.
        timeout: seconds that a job may take; None for no limit.
        retries: further tries of a job whose worker was killed.
        show_texts: keep what models write to rows of your own.
        keep: which trained adapters are kept, each as `--keep` has it, such as ("none",
            "all:LoRA r8"); empty for the best of each cell and task.
        mirror: a folder of local data sets and models.
        results: the folder of results.
        suites: a folder of your own suites.

    Returns:
        how the jobs stand. `ok` says whether all are done and the job that ran twice gave the same
        bits (if it didn't, there is a warning too); failed jobs are counted in `jobs`, by status.

    Raises:
        UserError: what `plan` raises; an asset that can't be had; another run holds the folder.
        KeyboardInterrupt: the run was stopped; finished jobs are stored.
    """
    from peftmark.api.running import watched_run

    tries = {"jobs": jobs, "again": again, "seconds_limit": timeout, "retries": retries}
    which = {"only": tuple(only), "show_texts": show_texts, "keep": tuple(keep)}
    selection = _selection(suite, profile, mirror, results, suites, **tries, **which)
    return watched_run(selection, callback, progress)


@_with_plugins
def report(
    suite: str,
    *,
    profile: str | None = None,
    mirror: PathLike | None = None,
    results: PathLike = "results",
    reports: PathLike = "reports",
    suites: PathLike | None = None,
    price: str | None = None,
    watts: str | None = None,
) -> Path:
    """Write the report of a suite from its stored rows.

    Args:
        suite: its name.
        profile: of the suite; that of the newest row if left out.
        mirror: a folder of local data sets and models.
        results: the folder of results.
        reports: the folder in which the suite gets one; an older report there is replaced.
        suites: a folder of your own suites.
        price: what an hour of the machine costs, such as "2.50USD"; adds a run's price as a cost.
        watts: that the processor takes while it works, such as "15"; turns the processor's seconds
            into joules where no energy was recorded.

    Returns:
        the page, `index.html`; `report.md` and the rows lie beside it.

    Raises:
        UserError: no such suite or profile, no rows, an amount that is none, or a folder that
            can't be written.
    """
    from peftmark.api.reporting import stored_plan, write_report
    from peftmark.core.amounts import parse_hour_price, parse_watts

    hour = None if price is None else parse_hour_price("price", price)
    power = None if watts is None else parse_watts("watts", watts)
    selection = _selection(suite, profile, mirror, results, suites)
    return write_report(stored_plan(selection), Path(results), Path(reports), hour, power)[0]


@_with_plugins
def table(
    source: PathLike,
    *,
    format: str = "markdown",
    profile: str | None = None,
    results: PathLike = "results",
    suites: PathLike | None = None,
) -> str:
    """Cells by tasks as a paper prints them: the report's own figures, mean ± half-width.

    Args:
        source: as of `load_results`.
        format: "markdown"; "latex", which needs the package booktabs; "html", one `<table>`; or
            "csv", with one line a cell and task and the figures unrounded.
        profile: of the suite; that of the newest row if left out.
        results: the folder of results, where `source` names a suite.
        suites: a folder of your own suites.

    Returns:
        the text. The caption says what ± is, how many seeds there are, what is bold, and where the
        learning rates come from.

    Raises:
        UserError: what `load_results` raises, or another format.
    """
    from peftmark.api.selected import select
    from peftmark.report.paper_table import rendered

    selected = select(_source(source), profile=profile, results=Path(results), suites=_path(suites))
    return rendered(selected.table, format)


@_with_plugins
def compare(*runs: PathLike, names: Sequence[str] = ()) -> Compared:
    """Two to eight runs of one suite, each held against the first, as `peftmark compare` does.

    Args:
        runs: results folders of the suite, or baselines.
        names: what to call them, one each; what their paths alone have if left out.

    Returns:
        what was found: `cells`, `tasks`, `verdict((number, cell, task))` of run `number` (the
        first is 0) on a task, or "" for all of them, `found` with the differences and their
        intervals, and `gates` with what a gate finds of each run beside the first.

    Raises:
        UserError: a run isn't there, is damaged, or is of another suite or profile.
    """
    from peftmark.compare.held import hold
    from peftmark.compare.runs import read_runs

    return hold(read_runs([Path(run) for run in runs], names))


@_with_plugins
def gate(
    suite: str,
    against: PathLike,
    *,
    profile: str | None = None,
    policy: PathLike | None = None,
    expect_change: str = "",
    elsewhere: bool = False,
    results: PathLike = "results",
    suites: PathLike | None = None,
) -> Gate:
    """Hold a suite's results against a baseline, as `peftmark gate` does; writes nothing.

    Args:
        suite: its name.
        against: a baseline, a folder of them, or another results folder.
        profile: of the suite; the baseline's, or that of the newest row, if left out.
        policy: a file that says what fails (docs/gate.md).
        expect_change: why other numbers than the baseline's are expected; empty if they aren't.
        elsewhere: the results need not be of the code installed here.
        results: the folder of results.
        suites: a folder of your own suites.

    Returns:
        the verdict. A regression is no error: `code` is what the command line exits with (0 for
        passed), `sentence`, `cells` and `findings` say why.

    Raises:
        UserError: no rows, no baseline, a damaged one, rows of other code; its `code` says which.
    """
    from peftmark.gate.hold import hold

    found, _, _ = hold(
        suite,
        Path(against),
        profile=profile,
        results=Path(results),
        suites=_path(suites),
        policy=_path(policy),
        declared=expect_change,
        elsewhere=elsewhere,
    )
    return found


def _selection(
    suite: str,
    profile: str | None,
    mirror: PathLike | None,
    results: PathLike,
    suites: PathLike | None,
    **more: Any,
) -> Selection:
    from peftmark.run.runner import Selection

    return Selection(
        suite=suite,
        profile=profile,
        mirror=_path(mirror),
        suites=_path(suites),
        results=Path(results),
        **more,
    )


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)


def _source(source: PathLike) -> str | Path:
    """A string may be a suite's name; anything else is a path."""
    return source if isinstance(source, str) else Path(source)
