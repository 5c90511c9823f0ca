"""The command `run`: the jobs of a suite that have no result yet, then the report."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from peftmark.cli.options import (
    OF_MACHINE,
    add_limits,
    add_mirror,
    add_profile,
    add_reports,
    add_results,
    add_suite,
    add_suites,
    add_which_jobs_and_where,
    count,
    count_from_zero,
    most_seeds,
    per_gpu,
    selection_of,
    time_limit,
)
from peftmark.cli.shared import waiting_text
from peftmark.cli.terminal import as_it_is
from peftmark.cli.track import target_of
from peftmark.core.errors import UserError
from peftmark.core.shown import visible
from peftmark.record.job import DEVICES

if TYPE_CHECKING:
    from peftmark.executors.contract import Finished
    from peftmark.record.job import Job, Record
    from peftmark.report.live_file import LiveFile
    from peftmark.run.progress import Board
    from peftmark.run.runner import Plan
    from peftmark.run.session import Stage, Summary
    from peftmark.track.beside import Beside
    from peftmark.track.seam import Ending, Target

NAME = "run"
HELP = "run the jobs of a suite that have no result yet, then report"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which jobs, where, and what is done with those that fail."""
    add_suite(sub)
    add_profile(sub, OF_MACHINE)
    add_suites(sub)
    add_results(sub)
    add_reports(sub)
    add_mirror(sub)
    add_which_jobs_and_where(sub)
    # The older spelling of --node-device: commands in rows and scripts have it.
    sub.add_argument("--device", choices=DEVICES, help=argparse.SUPPRESS)
    sub.add_argument(
        "--jobs-per-process",
        type=count,
        metavar="N",
        help="jobs that a process here runs in turn, as in a process of their own "
        "(docs/executors.md; default: 1, and of trials on a GPU some)",
    )
    sub.add_argument(
        "--jobs-per-gpu",
        type=per_gpu,
        metavar="N|auto",
        help="jobs that share a GPU here, as many as its memory is predicted to hold: at most N, "
        "or one a processor core (auto); times are of a stretch alone (docs/executors.md; "
        "default: 1)",
    )
    sub.add_argument("--timeout", type=count, metavar="SECONDS", help="time limit of a job")
    sub.add_argument(
        "--retries",
        type=count_from_zero,
        choices=range(6),
        default=1,
        metavar="N",
        help="further tries of a job whose worker was killed, 0 to 5 (default: 1)",
    )
    sub.add_argument(
        "--show-texts",
        action="store_true",
        help="keep what models write to rows of your own, and show some in the report",
    )
    sub.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="WHICH",
        help="trained adapters that are kept: best (default: of each cell and task, by selection "
        "rows), all or none; of some alone as all:CELL, none:@TASK or all:CELL@TASK (repeatable)",
    )
    add_limits(sub)
    sub.add_argument(
        "--track",
        metavar="TRACKER[=PLACE]",
        help="send each job's row, once it is stored, to mlflow, wandb, tensorboard or trackio "
        "(docs/trackers.md)",
    )
    sub.add_argument("--yes", action="store_true", help="run a long profile (docs/suites.md)")
    sub.add_argument("--no-report", action="store_true", help="do not write the report")


def run(options: argparse.Namespace) -> int:
    """Run what has no result yet, then report."""
    from dataclasses import replace

    from peftmark.api.reporting import write_report
    from peftmark.report.live_file import lead_on
    from peftmark.run.runner import make_plan
    from peftmark.run.session import carry_out
    from peftmark.run.stop import Stop

    most_hours, price = time_limit(options)
    selection = replace(
        selection_of(options),
        most_seeds=most_seeds(options),
        question=options.question or "reference",
    )
    console = console_on(sys.stderr if options.json else sys.stdout)
    stop = Stop()
    agreed = options.yes or bool(options.job) or most_hours is not None
    screen = Screen(
        console, None if options.no_report else options.reports, agreed, target_of(options.track)
    )
    budget = None
    if most_hours is not None:
        from peftmark.run.time_budget import TimeBudget

        budget = TimeBudget(
            most_hours,
            lambda text: console.print(f"{text}.", markup=False, soft_wrap=True),
        )
    plan, summary = carry_out(selection, screen, stop, budget)
    for path in screen.damaged:
        if not path.exists():
            console.print(
                f"Set aside: {plan.store.aside / path.name}", markup=False, soft_wrap=True
            )
    _tell(summary, plan, screen, console, options.json, stop.asked())
    if stop.asked():
        screen.stopped()
        console.print(
            "Stopped. The same command goes on; without running more, `peftmark report "
            f"{plan.suite.name}` writes the report of what is there.",
            markup=False,
            soft_wrap=True,
        )
        screen.end_tracking(plan, (), "stopped")
        return stop.code
    written: Sequence[Path] = ()
    if not options.no_report:
        everything = replace(selection, profile=plan.profile, only=(), again=False)
        after = make_plan(everything, before=plan)
        written = write_report(after, options.results, options.reports, price)
        if screen.live is not None and screen.live.is_file():
            lead_on(screen.live, written[0].name)
        console.print(f"Report: {written[0]}", markup=False, soft_wrap=True)
    screen.end_tracking(plan, written, "finished")
    return summary.code


def console_on(stream: TextIO) -> Any:
    """A console to draw on: no string that it is given acts on the terminal, only what it draws."""
    from rich.console import Console

    class Careful(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            shown = [visible(one) if isinstance(one, str) else one for one in objects]
            super().print(*shown, **options)

    return Careful(file=as_it_is(stream), highlight=False)


class Screen:
    """What a person sees of a run: lines and bars on the console, and a page while jobs run.

    Args:
        reports: the folder of reports; None for no page.
        agreed: whether a long profile may run.
        target: a tracker that gets every row; None for none.

    Attributes:
        damaged: files of the results folder that can't be read.
        ended: seconds that jobs of this run were predicted to take, and took.
    """

    def __init__(
        self,
        console: Any,
        reports: Path | None,
        agreed: bool = True,
        target: Target | None = None,
    ) -> None:
        self._console, self._reports, self._agreed = console, reports, agreed
        self._target = target
        self._beside: Beside | None = None
        self.live: Path | None = None
        self._page: LiveFile | None = None
        self.damaged: Sequence[Path] = ()
        self.ended: list[tuple[float, float]] = []

    def planned(self, plan: Plan) -> None:
        """What would run is known.

        Raises:
            UserError: it is long, and nobody agreed.
        """
        if not self._agreed:
            _ask(plan)
        if self._reports is not None:
            self.live = self._reports / plan.suite.name / "live.html"
        self.damaged = list(plan.contents.damaged)
        _announce(plan, self._console)

    def fetching(self) -> None:
        """Models and rows are about to be fetched."""
        self._console.print("Fetching and verifying model and data ...")

    def fetched(self, sources: Mapping[str, str]) -> None:
        """Where each asset came from."""
        for name, source in sources.items():
            self._console.print(f"  {name}: {source}", markup=False)
        if self.live is not None:
            self._console.print(f"While it runs: {self.live}", markup=False, soft_wrap=True)

    def looking(self, text: str) -> None:
        """Seeds are about to be added."""
        self._console.print(f"{text}.", markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, plan: Plan, jobs: Sequence[Job], trials: bool) -> Iterator[Stage]:
        """Bars, and the page, while some jobs run."""
        from peftmark.report.live_file import LiveFile
        from peftmark.run.expected import known_predictions
        from peftmark.run.progress import Board

        if plan.expanded.choices:
            stage = "trials of learning rates" if trials else "jobs with the chosen learning rates"
            self._console.print(f"{len(jobs)} {stage}:", markup=False)
        predicted = known_predictions(plan)
        with Board(self._console, jobs, plan.venue.at_once, predicted) as board:
            self._page = page = LiveFile(
                self.live,
                f"{plan.suite.name}, profile {plan.profile}",
                list({job.job_id: job for job in (*plan.jobs, *jobs)}.values()),
                plan.contents.records,
                plan.suite.report.reference,
                board.left,
            )
            page.begin()
            if self._target is not None:
                self._tracked(plan, self._target).stored()
            yield BoardAndPage(board, page, self.ended, self._beside)

    def _tracked(self, plan: Plan, target: Target) -> Beside:
        """The tracker beside the run."""
        if self._beside is None:
            from peftmark.track.beside import Beside

            self._beside = Beside(target, plan.store, plan.profile)
        return self._beside

    def end_tracking(self, plan: Plan, report: Sequence[Path], ending: Ending) -> None:
        """Wait for a tracker as long as it gets anywhere, and say what it has."""
        if self._target is not None:
            pages = [path for path in report if path.suffix in (".html", ".md")]
            for line in self._tracked(plan, self._target).finish(pages, ending):
                self._console.print(line, markup=False, soft_wrap=True)

    def stopped(self) -> None:
        """The run was ended by hand."""
        if self._page is not None:
            self._page.stopped()


@dataclass(frozen=True)
class BoardAndPage:
    """Tells both."""

    board: Board
    page: LiveFile
    ended: list[tuple[float, float]]
    beside: Beside | None = None

    def event(self, job: Job, message: dict[str, Any]) -> None:
        """A worker's message."""
        self.board.event(job, message)
        self.page.event(job, message)

    def finished(self, record: Record, done: Finished) -> None:
        """A job ended, or one try of it."""
        predicted = record.predicted_seconds
        if record.ok and predicted:
            self.ended.append((predicted, record.wall_seconds))
        self.board.finished(done)
        self.page.finished(record)
        if self.beside is not None:
            self.beside.stored()


def _ask(plan: Plan) -> None:
    """Refuse to run a long profile, and say what it takes.

    Raises:
        UserError: the profile is long.
    """
    from peftmark.cli.plan_time import known_time

    if not plan.suite.profiles[plan.profile].long or not plan.to_run:
        return
    steps = sum(job.recipe.steps for job in plan.to_run)
    command = f"peftmark plan {plan.suite.name} --profile {plan.profile}"
    time = known_time(plan)
    raise UserError(
        f"profile {plan.profile} of suite {plan.suite.name} is long: {len(plan.to_run):,} jobs of "
        f"{steps:,} training steps in all{waiting_text(plan)}" + (f", {time} here" if time else ""),
        f"Add --yes to run them (make: ARGS=--yes), --hours for as many seeds as fit, or name a "
        f"shorter profile; `{command} --device GPU` says how long they take.",
    )


def _announce(plan: Plan, console: Any) -> None:
    from rich.markup import escape

    from peftmark.run.neighbours import neighbours_text

    done = len(plan.planned) - len(plan.to_run)
    console.print(
        f"Suite {plan.suite.name} v{plan.suite.version}, profile [bold]{plan.profile}[/] "
        f"({escape(plan.profile_reason)}): {len(plan.planned)} jobs, {done} already done, "
        f"{len(plan.to_run)} to run{waiting_text(plan)}, {plan.venue.at_once} at once.",
        soft_wrap=True,
    )
    if plan.to_run and (beside := neighbours_text(plan)):
        console.print(beside, markup=False, soft_wrap=True)
    for note in plan.notes:
        console.print(f"Note: {note}.", markup=False, soft_wrap=True)
    for path, why in plan.contents.damaged.items():
        console.print(f"Unreadable: {path.name}: {why}", markup=False, soft_wrap=True)


def took_text(ended: Sequence[tuple[float, float]]) -> str:
    """How far the times of jobs were from what was predicted before any of them ran; empty if
    nothing was. Other work beside them shows here.

    Args:
        ended: seconds predicted, and taken.
    """
    import statistics

    if not ended:
        return ""
    ratios = sorted(took / predicted for predicted, took in ended)
    told = f"{statistics.median(ratios):.2f} times what was predicted"
    if len(ratios) == 1:
        return f"Time: the job took {told}."
    return (
        f"Time: {len(ratios)} jobs took {told} (median; {ratios[0]:.2f} to {ratios[-1]:.2f} times)."
    )


def _tell(
    summary: Summary, plan: Plan, screen: Screen, console: Any, as_json: bool, stopped: bool
) -> None:
    """Print how the selected jobs stand and what is suspect about them."""
    from peftmark.run.progress import tell_suspects

    text = ", ".join(f"{count} {status}" for status, count in sorted(summary.jobs.items()))
    line = f"{len(plan.jobs)} jobs: {text}{waiting_text(plan)}. Results: {summary.results}"
    console.print(line, markup=False, soft_wrap=True)
    if took := took_text(screen.ended):
        console.print(took, markup=False, soft_wrap=True)
    tell_suspects(summary.repeat, summary.flags, console)
    if not as_json:
        return
    repeat = summary.repeat
    flags = [{"kind": f.kind, "job": f.job.job_id, "detail": f.detail} for f in summary.flags]
    facts = {
        "suite": summary.suite,
        "profile": summary.profile,
        "jobs": summary.jobs,
        "waiting": summary.waiting,
        "results": str(summary.results),
        "repeatability": repeat and {"verdict": repeat.verdict, "detail": repeat.detail},
        "flags": None if stopped else flags,
        "notes": summary.notes,
    }
    print(json.dumps(facts, indent=2))
