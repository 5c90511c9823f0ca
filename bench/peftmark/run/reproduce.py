"""Published rows run again: which of them, their jobs as `run` runs jobs, and what came of them.

The rows of such a run have a results folder of their own and never count among the user's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from peftmark.analysis.reproduction import Reproduced, held, other_seeds, sample
from peftmark.analysis.validity import made_elsewhere
from peftmark.catalog.methods import method_of
from peftmark.catalog.quantizations import quantization_of
from peftmark.catalog.task import expected_fingerprint
from peftmark.core.errors import Exit, UserError
from peftmark.duration.estimates import key_of
from peftmark.executors.select import on_cpu
from peftmark.gate.matching import Pair
from peftmark.gate.result import Kind, code_of_kinds
from peftmark.gate.run_lines import changed, line_of
from peftmark.machine.environment import capture
from peftmark.record.job import PROTOCOL, Job, Record
from peftmark.record.plugin import check_here
from peftmark.run import runner
from peftmark.run.expected import known_predictions
from peftmark.run.runner import Plan, Selection
from peftmark.run.session import Watcher
from peftmark.run.stop import Stop
from peftmark.sources.manifest import check_mirror
from peftmark.storage.published import ROWS, published_in
from peftmark.storage.rows_file import read_rows_file
from peftmark.storage.store import Contents
from peftmark.suite.added_seeds import with_looks
from peftmark.suite.expand import Expanded, Planned, expand
from peftmark.suite.load import Suite, find_suite, needed_tasks
from peftmark.suite.with_rows import load_with_rows

FOLDER = "reproduced"
"""Folder of a results folder with the rows of such runs, a folder a suite."""
SAMPLE = 2
"""Jobs that are run where nobody says how many."""
WHY = "reproduces a published row"


@dataclass(frozen=True)
class Asked:
    """What the user asked for.

    Attributes:
        sample: how many jobs at most; None for `SAMPLE`.
        only: job ids of published rows in place of a sample.
        jobs: jobs at once, at most; None for as many as `run` has.
    """

    suite: str
    results: Path = Path("results")
    mirror: Path | None = None
    suites: Path | None = None
    sample: int | None = None
    only: tuple[str, ...] = ()
    jobs: int | None = None

    @property
    def selection(self) -> Selection:
        """The same as a run that keeps no adapter; which jobs run is the rows' to say."""
        return Selection(
            suite=self.suite,
            mirror=self.mirror,
            suites=self.suites,
            results=self.results / FOLDER,
            jobs=self.jobs,
            keep=("none",),
            published=self.results,
        )


@dataclass(frozen=True)
class Chosen:
    """Published rows to reproduce, and how; nothing has run yet.

    Attributes:
        file: the file of the rows.
        rows: those to reproduce, in the order they run.
        plans: one a profile.
        others: job id -> published rows of the job's other seeds.
        left_out: why rows of the file can't be run again -> how many.
        notes: what a person should know, a sentence each without a full stop.
        seconds: job id -> predicted seconds here; a job of which nothing is known is left out.
    """

    asked: Asked
    file: Path
    rows: tuple[Record, ...]
    plans: tuple[Plan, ...]
    others: Mapping[str, Sequence[Record]]
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def choose(asked: Asked) -> Chosen:
    """Choose published rows, and plan their jobs as the rows have them.

    Raises:
        UserError: no published rows, a damaged one, no such job, or none that can be run here (as
            not comparable).
    """
    if asked.sample is not None and asked.only:
        raise UserError("--sample says nothing beside --job", "Leave one out.")
    file, contents = _published(asked)
    plans = _Plans(asked)
    rows = _as_near_as_can_be(contents)
    why = {row.job.job_id: plans.obstacle(row) for row in rows}
    if asked.only:
        chosen = _named(asked.only, rows, why, file)
    else:
        usable = [row for row in rows if not why[row.job.job_id]]
        chosen = sample(usable, SAMPLE if asked.sample is None else asked.sample)
    left_out = Counter(reason for reason in why.values() if reason)
    if not chosen:
        raise UserError(
            f"{file}: none of its {len(rows)} rows can be run again here: {_reasons(left_out)}",
            "What they say stands; a peftmark of their time can check it.",
            code=Exit.NOT_COMPARABLE,
        )
    made = plans.of([row.job for row in chosen])
    notes = _departures(chosen, plans, contents.records)
    if contents.older:
        notes.append(f"{len(contents.older)} rows are of a schema that can't be read")
    return Chosen(
        asked=asked,
        file=file,
        rows=tuple(chosen),
        plans=made,
        others={row.job.job_id: other_seeds(row, rows) for row in chosen},
        left_out=left_out,
        notes=tuple(notes),
        seconds={id_: s for plan in made for id_, s in _predicted(plan).items()},
    )


def _published(asked: Asked) -> tuple[Path, Contents]:
    """The file of a suite's published rows, and what it holds.

    Raises:
        UserError: there is none, or one of its rows is damaged.
    """
    find_suite(asked.suite, asked.suites)  # before its name becomes a path
    folder = published_in(asked.results)
    file = folder / asked.suite / ROWS
    if not file.is_file():
        there = sorted(path.parent.name for path in folder.glob(f"*/{ROWS}"))
        raise UserError(
            f"{file}: no published rows of suite {asked.suite}",
            f"Suites with published rows: {', '.join(there)}."
            if there
            else f"{folder} has none of any suite; --results names the folder that has some.",
        )
    contents = read_rows_file(file)
    if contents.damaged:
        where, why = next(iter(contents.damaged.items()))
        raise UserError(
            f"{where}: {why} ({len(contents.damaged)} damaged in all)",
            "Get the file again; nothing was run.",
        )
    return file, contents


def _as_near_as_can_be(contents: Contents) -> list[Record]:
    """A row a job: of several machines the one whose bits must come out here, if there is one."""
    here = capture()
    rows = dict(contents.records)
    for row in contents.rows:
        if row.ok and not any(made_elsewhere(row.environment, here)):
            rows[row.job.job_id] = row
    return list(rows.values())


def _named(
    ids: Sequence[str], rows: Sequence[Record], why: Mapping[str, str], file: Path
) -> list[Record]:
    """The rows of these jobs.

    Raises:
        UserError: there is no such row, or it can't be run again (as not comparable).
    """
    known = {row.job.job_id: row for row in rows}
    if missing := [one for one in ids if one not in known]:
        raise UserError(
            f"{file} has no row of job {', '.join(missing)}",
            f"One of its jobs: {min(known, default='none')}; the column job_id has them all.",
        )
    if cannot := [one for one in ids if why[one]]:
        raise UserError(
            f"{file}: job {cannot[0]} can't be run again here: {why[cannot[0]]}",
            "Nothing was run.",
            code=Exit.NOT_COMPARABLE,
        )
    return [known[one] for one in dict.fromkeys(ids)]


def _reasons(left_out: Mapping[str, int]) -> str:
    most = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{why} ({count})" for why, count in most) or "the file is empty"


def _departures(
    chosen: Sequence[Record], plans: _Plans, records: Mapping[str, Record]
) -> list[str]:
    """Rows of another state of the suite than today's: they are run as they were asked for then."""
    found = [plans.departure(row.job, records) for row in chosen]
    return [
        f"{count} of the jobs: {why}; it is run as its row has it"
        for why, count in Counter(filter(None, found)).items()
    ]


def _predicted(plan: Plan) -> dict[str, float]:
    """Job id -> seconds that it is predicted to take here, as far as that is known at once."""
    known = known_predictions(plan)
    told = {job.job_id: known[key_of(job)].seconds for job in plan.jobs if key_of(job) in known}
    return {job_id: seconds for job_id, seconds in told.items() if seconds is not None}


class _Plans:
    """Plans of the suite as it is here, for jobs that published rows have."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._suite = load_with_rows(asked.suite, asked.suites, asked.results)
        self._plans: dict[str, Plan] = {}
        self._ids: dict[tuple[str, str], set[str]] = {}

    def _plan(self, profile: str) -> Plan:
        """The plan of a profile; of one that the suite has no more, that of its first: what a job
        asks for is in the job, and where models and rows may come from differs little."""
        there = profile if profile in self._suite.profiles else next(iter(self._suite.profiles))
        if there not in self._plans:
            self._plans[there] = runner.make_plan(replace(self._asked.selection, profile=there))
        return self._plans[there]

    def obstacle(self, row: Record) -> str:
        """Why a row's job can't be run again here; empty if it can."""
        job = row.job
        if not row.ok:
            return f"the published run ended as {row.outcome.status}"
        if job.protocol != PROTOCOL:
            return f"made by protocol {job.protocol}, and this peftmark has {PROTOCOL}"
        if job.stored_id:
            return f"of a configuration that peftmark wrote in schema {row.schema}"
        plan = self._plan(job.profile)
        return (
            _unknown(job)
            or _other_assets(job, plan.suite)
            or ("" if job.device in ("cpu", plan.venue.device) else "it needs a GPU")
        )

    def departure(self, job: Job, records: Mapping[str, Record]) -> str:
        """How a job departs from the suite as it is; empty if the suite plans it.

        Args:
            records: the published rows, whose trials choose learning rates.
        """
        suite = self._plan(job.profile).suite
        if job.profile not in suite.profiles:
            return f"suite {suite.name} has no profile {job.profile} today"
        if job.suite_version != suite.version:
            return (
                f"of version {job.suite_version} of suite {suite.name}, which is at {suite.version}"
            )
        key = job.profile, job.device
        if key not in self._ids:
            planned = expand(suite, job.profile, job.device, records).jobs
            with_added = with_looks(planned, records, job.profile)
            self._ids[key] = {one.job_id for one in with_added}
        return (
            "" if job.job_id in self._ids[key] else f"another recipe than {job.profile} has today"
        )

    def of(self, jobs: Sequence[Job]) -> tuple[Plan, ...]:
        """Plans that run these jobs and no others, one a profile and device."""
        groups: dict[tuple[str, str], list[Job]] = {}
        for job in jobs:
            groups.setdefault((job.profile, job.device), []).append(job)
        return tuple(
            self._running(self._plan(profile), device, some)
            for (profile, device), some in groups.items()
        )

    def _running(self, plan: Plan, device: str, jobs: list[Job]) -> Plan:
        elsewhere = device == "cpu" and plan.venue.device != "cpu"
        return replace(
            plan,
            planned=[Planned(job, "run", WHY) for job in jobs],
            expanded=Expanded(jobs, [], {}),
            venue=on_cpu(self._asked.jobs) if elsewhere else plan.venue,
        )


def _unknown(job: Job) -> str:
    """What of a job's code isn't here; empty if all is."""
    if method_of(job.method) is None:
        return f"there is no method {job.method} here"
    if quantization_of(job.quantization) is None:
        return f"there is no quantization {job.quantization} here"
    try:
        check_here(job.plugins)
    except UserError as error:
        return error.what
    return ""


def _other_assets(job: Job, suite: Suite) -> str:
    """How a job's model or rows are not those that are known here; empty if they are."""
    try:
        model, task = suite.model(job.model), suite.task(job.task)
    except KeyError as error:
        return f"there is no model or task {error.args[0]} here"
    if model.identity != job.model_identity:
        return f"of other weights of model {job.model}"
    here = task.version, expected_fingerprint(task), task.metric
    if here != (job.task_version, job.data_fingerprint, job.metric):
        return f"of other rows, or another metric, of task {job.task}"
    return ""


# --- the run ------------------------------------------------------------------------------------


def carry_out(chosen: Chosen, watcher: Watcher, stop: Stop) -> list[Reproduced]:
    """Run the jobs, and hold each against its published row; in the order of the rows.

    Raises:
        UserError: models or rows that can't be had, or the results folder.
    """
    made: dict[str, Record] = {}
    for plan in chosen.plans:
        if stop.asked():
            break
        _run(plan, chosen.asked, watcher, stop, made)
    found = [(row, row.job.job_id) for row in chosen.rows]
    return [held(row, made.get(job_id), chosen.others[job_id]) for row, job_id in found]


def _run(plan: Plan, asked: Asked, watcher: Watcher, stop: Stop, made: dict[str, Record]) -> None:
    """Run the jobs of a plan, each row into `made`."""
    jobs = plan.to_run
    if asked.mirror is not None:
        tasks = needed_tasks(plan.suite.profiles[plan.profile], [job.task for job in jobs])
        check_mirror(asked.mirror, [job.model for job in jobs], tasks)
    watcher.fetching()
    watcher.fetched(runner.fetch(plan))
    chosen = replace(asked.selection, profile=plan.profile)
    with plan.store.lock(), stop.watching():
        with watcher.stage(plan, jobs, False) as told:
            for record, done in runner.execute(plan, jobs, chosen, told.event, stop):
                told.finished(record, done)
                made[record.job.job_id] = record
        plan.store.rebuild()


# --- the verdict --------------------------------------------------------------------------------


def kind_of(one: Reproduced) -> Kind:
    """What a gate would call it."""
    if one.verdict == "not run":
        return "incomplete"
    if one.verdict == "undecided":
        return "undecided"
    if one.verdict != "differs" or one.again is None:
        return "note"
    if one.elsewhere:
        return "regression"
    before, after = line_of(one.published), line_of(one.again)
    pair = Pair(before, after, changed(before.numeric, after.numeric))
    return "not deterministic" if pair.same_code else "numbers changed"


def code_of(found: Collection[Reproduced]) -> Exit:
    """The exit code: that of the worst verdict; without any row nothing was reproduced."""
    return code_of_kinds({kind_of(one) for one in found}) if found else Exit.INCOMPLETE
