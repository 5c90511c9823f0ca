"""A run from suite to stored records: plan, fetch, execute, store."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from peftmark.core.errors import UserError
from peftmark.core.hashes import forget_hashes
from peftmark.executors.contract import WORKER, Finished, Listener, Order
from peftmark.executors.select import HERE, Venue, Where, choose
from peftmark.executors.slots import Slot
from peftmark.machine import nvml
from peftmark.machine.environment import capture, machine, of_job, software
from peftmark.record.job import Job, Record
from peftmark.record.plugin import check_here
from peftmark.run import gpu_sharing
from peftmark.run.admission import Foreseen, foresee, needs_seen
from peftmark.run.expected import known_predictions, unpredicted, with_prediction
from peftmark.run.keep import Keeper, read_rules
from peftmark.run.notes import notes_of_plan
from peftmark.run.own_metrics import try_own_metrics
from peftmark.run.own_models import keep_own_models, read_own_models, shapes_of
from peftmark.run.own_tasks import notes_on, private, read_own_tasks
from peftmark.run.stop import Stop
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.hub import hub_reachable
from peftmark.sources.own_cache import keep_own
from peftmark.sources.task_data import load_task
from peftmark.storage.store import Contents, Store
from peftmark.suite.added_seeds import with_look, with_looks
from peftmark.suite.checks import suite_folders
from peftmark.suite.expand import (
    Expanded,
    Facts,
    Planned,
    choose_profile,
    decide,
    expand,
    of_versions,
)
from peftmark.suite.form import check_models
from peftmark.suite.load import Suite, needed_tasks
from peftmark.suite.with_rows import load_with_rows

if TYPE_CHECKING:
    from peftmark.claims.ledger import Claim
    from peftmark.own.model import OwnFiles
    from peftmark.own.read import OwnRows

UNTUNED = "no trial of this cell and task finished: the learning rate is the recipe's own"


@dataclass(frozen=True)
class Selection:
    """What the user asked for, as typed.

    Attributes:
        suite: suite name.
        profile: profile name, None to choose.
        mirror: the user's folder of data and models.
        suites: the user's folder of suites.
        results: the results folder.
        jobs: jobs at once, at most; None for one per GPU or core.
        only: job ids to run, empty for all.
        again: run finished jobs too.
        seconds_limit: wall seconds a job may take.
        retries: further attempts of a job that ended for a cause outside itself.
        where: the executor and what it needs to know.
        show_texts: keep what models write to rows of the user's own.
        keep: which trained adapters are kept, as `peftmark.run.keep` reads it.
        most_seeds: seeds that there may be at most, where they are added until all is decided.
        look: for which look the jobs are run, of such a run.
        question: what seeds are added for (`peftmark.analysis.questions`).
        published: the results folder whose published rows are reproduced; None for other runs.
    """

    suite: str
    profile: str | None = None
    mirror: Path | None = None
    suites: Path | None = None
    results: Path = Path("results")
    jobs: int | None = None
    only: tuple[str, ...] = ()
    again: bool = False
    seconds_limit: float | None = None
    retries: int = 1
    where: Where = HERE
    show_texts: bool = False
    keep: tuple[str, ...] = ()
    most_seeds: int | None = None
    look: int | None = None
    question: str = "reference"
    published: Path | None = None


@dataclass(frozen=True)
class Plan:
    """Jobs with decisions, and everything needed to carry them out.

    Attributes:
        claims: those that the suite names.
        profile_reason: why this profile was chosen.
        planned: the jobs selected, in running order.
        expanded: all jobs of the profile as far as they are known, and how many wait for trials.
        notes: what a person should know before the run, a sentence each.
        venue: where the jobs run, and how many at once.
        own_rows: rows of the user's own tasks, by task, where they were read.
        own_files: files of the user's own models, by model, where they were read.
    """

    suite: Suite
    claims: tuple[Claim, ...]
    profile: str
    profile_reason: str
    planned: list[Planned]
    expanded: Expanded
    notes: list[str]
    contents: Contents
    store: Store
    places: Places
    venue: Venue
    own_rows: Mapping[str, OwnRows]
    own_files: Mapping[str, OwnFiles]

    @property
    def slots(self) -> list[Slot]:
        """The places for workers on this machine."""
        return self.venue.slots

    @property
    def to_run(self) -> list[Job]:
        """Jobs that would run."""
        return [p.job for p in self.planned if p.action == "run"]

    @property
    def known_jobs(self) -> list[Job]:
        """Every job of the profile as far as it is known; names of cells and tasks are theirs."""
        return self.expanded.jobs

    @property
    def jobs(self) -> list[Job]:
        """The jobs selected."""
        return [p.job for p in self.planned]


def make_plan(selection: Selection, recorded: bool = False, before: Plan | None = None) -> Plan:
    """Read the suite and the results, and decide what would run. Writes nothing.

    Args:
        before: a plan of the same command, whose suite and rows are taken: what is edited or moved
            away while jobs run changes nothing of the run.
        recorded: take models and tasks of the user's own as the newest rows have them, and read
            their files only where no row does: a report is of what was run.

    Raises:
        UserError: anything wrong with the suite, its own models and tasks, the selection or the
            results folder.
    """
    asked = selection.suite, selection.suites, selection.results
    suite = before.suite if before else load_with_rows(*asked)
    claims = before.claims if before else _claims(suite, selection)
    if selection.mirror is not None and not selection.mirror.is_dir():
        raise UserError(
            f"the mirror {str(selection.mirror)!r} is not a folder",
            "Give a folder with GLUE's own folders (CoLA, SST-2, ...), or <task>/train.jsonl.",
        )
    venue = choose(selection.where, selection.jobs)
    facts = _facts(selection, suite, venue.gpus)
    profile, reason = choose_profile(suite, selection.profile, facts)
    store = Store(selection.results, suite.name)
    contents = store.read()
    if before is not None:
        files, rows = before.own_files, before.own_rows
    else:
        known = contents.records if recorded else None
        suite, files = read_own_models(suite, profile, known)
        suite, rows = read_own_tasks(suite, profile, known)
    installed = software()
    expanded = _expanded(before, suite, profile, venue, contents, installed)
    planned = decide(expanded.jobs, contents.records, installed, selection.again)
    if not recorded:
        check_here(one for p in planned if p.action == "run" for one in p.job.plugins)
    if selection.only:
        planned = _only(selection.only, planned, suite.name, profile, expanded.waiting)
    return Plan(
        suite=suite,
        claims=claims,
        profile=profile,
        profile_reason=reason,
        planned=planned,
        expanded=expanded,
        notes=[
            *filter(None, [venue.told]),
            *([] if recorded else check_models(expanded.jobs, shapes_of(files))),
            *notes_of_plan(expanded, contents, here=bool(venue.slots)),
            *notes_on(files),
            *notes_on(rows),
        ],
        own_rows=rows,
        own_files=files,
        contents=contents,
        store=store,
        places=places_of(suite, profile, selection.mirror),
        venue=venue.of(expanded.jobs),
    )


def _expanded(
    before: Plan | None,
    suite: Suite,
    profile: str,
    venue: Venue,
    contents: Contents,
    installed: Mapping[str, str],
) -> Expanded:
    """The profile's jobs: where no trials choose rates, those of an earlier plan with their ids;
    and those of seeds that were added to them."""
    if before is not None and before.profile == profile and suite.profiles[profile].tuning is None:
        found = before.expanded
    else:
        records = of_versions(contents.records, installed)
        found = expand(suite, profile, venue.device, records)
    jobs = with_looks(found.jobs, contents.records, profile)
    return found if jobs is found.jobs else replace(found, jobs=list(jobs))


def _only(
    ids: Sequence[str], planned: Sequence[Planned], suite: str, profile: str, waiting: int
) -> list[Planned]:
    """The jobs with these ids.

    Raises:
        UserError: the profile has no such job.
    """
    missing = sorted(set(ids) - {p.job.job_id for p in planned})
    if missing:
        remedy = f"`peftmark plan {suite} --profile {profile}` prints the job ids."
        if waiting:
            remedy += f" {waiting} jobs have none before their trials are made."
        what = f"suite {suite}, profile {profile} has no job {', '.join(missing)}"
        raise UserError(what, remedy)
    return [p for p in planned if p.job.job_id in ids]


def _claims(suite: Suite, selection: Selection) -> tuple[Claim, ...]:
    """The claims that a suite names, from ledgers that are read whole.

    Raises:
        SuiteError: with every fault of a ledger.
    """
    if not suite.claims:
        return ()
    # A supervisor of a suite without claims does without these types.
    from peftmark.claims.ledger import load_claims

    ledger = load_claims(suite_folders(selection.suites))
    return tuple(ledger[key] for key in suite.claims)


def _facts(selection: Selection, suite: Suite, gpus: int) -> Facts:
    needs = {p.needs for p in suite.profiles.values()}
    asks_for_data = selection.profile is None and bool(needs & {"data", "gpu"})
    if selection.mirror is not None:
        return Facts(gpus, True, "a mirror is given")
    if not asks_for_data:
        return Facts(gpus, False, "not looked at")
    reachable, reason = hub_reachable()
    return Facts(gpus, reachable, f"no mirror is given; {reason}")


def places_of(suite: Suite, profile: str, mirror: Path | None) -> Places:
    """Where a profile's models and rows may come from.

    Raises:
        UserError: from a mirror alone, and none is given.
    """
    others = (s for s in suite.profiles[profile].sources if s != "mirror")
    sources = (*(["mirror"] if mirror is not None else []), *others)
    if not sources:
        raise UserError(
            f"profile {profile} of suite {suite.name} takes its data from a mirror alone",
            "Give one with --mirror (make: MIRROR=...).",
        )
    return Places(mirror, sources, default_cache())


def fetch(plan: Plan) -> dict[str, str]:
    """Fetch and verify the model and every task of the jobs to run, and try the metrics of the
    user's own, so that faults show first.

    Returns:
        asset name -> where it came from.

    Raises:
        UserError: an asset that can't be had or isn't what it should be, or a metric of the user's
            own that gives no number.
    """
    try_own_metrics(plan.own_rows, (job.task for job in plan.to_run))
    forget_hashes()
    profile = plan.suite.profiles[plan.profile]
    keep_own_models(plan.own_files, plan.places.cache)
    found = {
        name: model_files(plan.suite.model(name), plan.places).told
        for name in dict.fromkeys(job.model for job in plan.to_run)
    }
    for name in needed_tasks(profile, (job.task for job in plan.to_run)):
        if name in plan.own_rows:
            keep_own(plan.own_rows[name].data, plan.places.cache)
        found[name] = load_task(plan.suite.task(name), plan.places).source
    return found


def execute(
    plan: Plan,
    jobs: Sequence[Job],
    selection: Selection,
    listener: Listener,
    stop: Stop,
    worker: str = WORKER,
) -> Iterator[tuple[Record, Finished]]:
    """Run jobs of the plan, storing each attempt as it ends. The store must be locked.

    Yields:
        (record, finished) of each attempt, after it is stored.
    """
    plan.store.quarantine(plan.contents.damaged)
    environment, last = capture(), plan.store.last_attempts()
    known = needs_seen(plan.contents.records.values())
    foreseen = _foreseen(plan, jobs, known)
    predicted, seeds = known_predictions(plan), len(plan.suite.profiles[plan.profile].seeds)
    keeper = Keeper(plan.store.adapters, read_rules(selection.keep, plan.known_jobs))
    order = Order(
        jobs=[(job, last.get(job.job_id, 0) + 1) for job in jobs],
        places=plan.places,
        logs=plan.store.logs,
        seconds_limit=selection.seconds_limit,
        retries=selection.retries,
        needs=foreseen.needs | known,
        refused=foreseen.refused,
        **gpu_sharing.of_order(plan, jobs),
        stop=stop.asked,
        listener=listener,
        worker=worker,
        outbox=plan.store.adapters.incoming,
        keep=keeper.wanted(jobs),
    )
    for done in plan.venue.run(order):
        outcome = done.outcome if selection.show_texts else private(done.job, done.outcome)
        if plan.expanded.untuned(done.job):
            outcome = replace(outcome, warnings=(*outcome.warnings, UNTUNED))
        record = Record(
            job=done.job,
            outcome=outcome,
            environment=done.environment or of_job(environment, done.job),
            attempt=done.attempt,
            started_at=done.started_at,
            finished_at=done.finished_at,
            wall_seconds=done.wall_seconds,
            nvml_process_bytes=done.nvml_process_bytes,
            nvml_device_bytes=done.nvml_device_bytes,
            nvml_reason=done.nvml_reason,
            command=command(done.job, selection),
        )
        record = with_prediction(record, predicted)
        record = with_look(record, selection.most_seeds, selection.look, selection.question, seeds)
        record = keeper.take(record, order.leaves(done.job, done.attempt))
        plan.store.append(record)
        keeper.prune(record)
        yield record, done
    plan.store.adapters.tidy()


def _foreseen(plan: Plan, jobs: Sequence[Job], known: Mapping[str, int]) -> Foreseen:
    """What the jobs will need here; of a cluster's nodes nothing is known."""
    if not plan.slots or unpredicted(plan):
        return Foreseen()
    shapes = shapes_of(plan.own_files)
    if plan.venue.device != "cpu":
        sizes = [gpu.memory_bytes for gpu in nvml.devices().found if gpu.memory_bytes]
        return foresee(jobs, known, 1, max(sizes, default=None), plan.places.cache, shapes)
    memory = machine()["memory_bytes"]
    return foresee(jobs, known, len(plan.slots), memory, plan.places.cache, shapes)


def command(job: Job, selection: Selection) -> str:
    """The shell command that runs one job again."""
    words = ["peftmark", "run", job.suite, "--profile", job.profile, "--job", job.job_id, "--again"]
    if selection.published is not None:
        words = ["peftmark", "reproduce", job.suite, "--job", job.job_id]
    results = selection.published or selection.results
    other = results if results != Selection.results else None
    folders = {"--mirror": selection.mirror, "--results": other, "--suites": selection.suites}
    words += [word for name, to in folders.items() if to for word in (name, str(to))]
    if selection.show_texts:
        words += ["--show-texts"]
    return shlex.join([*words, *selection.where.words()])
