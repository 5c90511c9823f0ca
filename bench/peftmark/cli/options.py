"""Options that several commands have: each is defined once, so that it has one meaning."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from peftmark.core.errors import UserError
from peftmark.core.questions import QUESTIONS
from peftmark.core.texts import whole_number
from peftmark.executors.select import AUTO, EXECUTORS, Where
from peftmark.record.job import DEVICES

if TYPE_CHECKING:
    from peftmark.core.amounts import Price
    from peftmark.run.runner import Selection

# What `--profile` means where it is left out.
OF_MACHINE = "profile of the suite; chosen for the machine if left out"
OF_ALL = "profile of the suite; every one if left out"
OF_COUNTED_ROWS = "profile of the suite whose rows count"
OF_NEWEST_ROWS = "profile of the suite (default: the newest rows')"
# What `--jobs` means where it is left out.
AS_MANY = " (default: one per GPU or core)"


def selection_of(options: argparse.Namespace) -> Selection:
    """What the user asked for."""
    from peftmark.run.runner import Selection

    asked = {f.name: getattr(options, f.name) for f in fields(Where) if hasattr(options, f.name)}
    return Selection(
        suite=options.suite,
        profile=options.profile or None,
        mirror=options.mirror,
        suites=options.suites,
        results=options.results,
        jobs=getattr(options, "jobs", None),
        only=tuple(getattr(options, "job", ())),
        again=getattr(options, "again", False),
        seconds_limit=getattr(options, "timeout", None),
        retries=getattr(options, "retries", 1),
        where=Where(**asked),
        show_texts=getattr(options, "show_texts", False),
        keep=tuple(getattr(options, "keep", ())),
    )


def count(text: str) -> int:
    """A whole number from 1."""
    value = whole_number(text)
    if not value:
        raise argparse.ArgumentTypeError(f"found {text!r}; a whole number from 1")
    return value


def per_gpu(text: str) -> int | str:
    """A whole number from 1, or auto."""
    value = whole_number(text)
    if text != AUTO and not value:
        raise argparse.ArgumentTypeError(f"found {text!r}; a whole number from 1, or {AUTO}")
    return value or AUTO


def count_from_zero(text: str) -> int:
    """A whole number from 0."""
    value = whole_number(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"found {text!r}; a whole number from 0")
    return value


# --- suites -------------------------------------------------------------------------------------


def add_suite(sub: argparse.ArgumentParser) -> None:
    """The suite that a command is about."""
    sub.add_argument("suite", help="name of a suite (see: peftmark list)")


def add_profile(sub: argparse.ArgumentParser, text: str) -> None:
    """The profile of the suite; `text` says what is taken if it is left out."""
    sub.add_argument("--profile", help=text)


def add_suites(sub: argparse.ArgumentParser) -> None:
    """Where the user's own suites are."""
    sub.add_argument("--suites", type=Path, metavar="DIR", help="a folder of your own suites")


def add_mirror(sub: argparse.ArgumentParser) -> None:
    """Where data and models are without a network."""
    sub.add_argument("--mirror", type=Path, metavar="DIR", help="local data sets and models")


# --- folders ------------------------------------------------------------------------------------


def add_results(sub: argparse.ArgumentParser) -> None:
    """Where rows are."""
    _add_folder(sub, "results")


def add_reports(sub: argparse.ArgumentParser) -> None:
    """Where pages go."""
    _add_folder(sub, "reports")


def _add_folder(sub: argparse.ArgumentParser, name: str) -> None:
    text = f"{name} folder (default: ./{name})"
    sub.add_argument(f"--{name}", type=Path, default=Path(name), metavar="DIR", help=text)


def add_source(sub: argparse.ArgumentParser, required: bool) -> None:
    """The results of one suite, wherever they lie."""
    sub.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="DIR",
        required=required,
        help="one suite's results folder",
    )


def add_baselines(sub: argparse.ArgumentParser) -> None:
    """Where baselines are."""
    sub.add_argument(
        "--baselines",
        type=Path,
        default=Path("results/baselines"),
        metavar="DIR",
        help="folder of baselines (default: ./results/baselines)",
    )


def add_policy(sub: argparse.ArgumentParser) -> None:
    """What a verdict follows."""
    sub.add_argument("--policy", type=Path, metavar="FILE", help="what fails (docs/gate.md)")


def add_format(sub: argparse.ArgumentParser, text: str) -> None:
    """The form of what is written; `text` names those that the command has."""
    sub.add_argument("--format", metavar="FORM", help=text)


# --- jobs ---------------------------------------------------------------------------------------


def add_jobs(sub: argparse.ArgumentParser, text: str) -> None:
    """How many jobs at once; `text` says what is taken if it is left out."""
    sub.add_argument("--jobs", type=count, help=f"most jobs at once{text}")


def add_job(sub: argparse.ArgumentParser) -> None:
    """Jobs by their ids."""
    sub.add_argument(
        "--job", action="append", default=[], metavar="ID", help="only this job (repeatable)"
    )


def add_which_jobs_and_where(sub: argparse.ArgumentParser) -> None:
    """Which jobs of a suite, how many at once, and where they run."""
    add_job(sub)
    sub.add_argument("--again", action="store_true", help="run finished jobs too")
    add_jobs(sub, AS_MANY)
    sub.add_argument(
        "--executor",
        choices=EXECUTORS,
        default="local",
        help="where jobs run: here, on a Ray cluster or through Slurm (docs/executors.md)",
    )
    sub.add_argument("--ray-address", metavar="HOST:PORT", help="the Ray cluster to use")
    sub.add_argument(
        "--slurm", metavar="KEY=VALUE,...", help="for Slurm, such as partition=gpu,time=60"
    )
    sub.add_argument(
        "--node-device",
        dest="device",
        choices=DEVICES,
        help="what the cluster's nodes have (Ray is asked)",
    )


# --- how much of a suite runs ---------------------------------------------------------------------

MOST_SEEDS = 12


def add_limits(sub: argparse.ArgumentParser) -> None:
    """How much may run."""
    sub.add_argument(
        "--hours",
        type=hours,
        metavar="H",
        help="run as many seeds as end in this time, each for every cell and task, by what is "
        "predicted and corrected as jobs end",
    )
    sub.add_argument(
        "--until-decided",
        action="store_true",
        help="add seeds, a look at a time, until the question is answered (docs/statistics.md)",
    )
    sub.add_argument(
        "--question",
        choices=QUESTIONS,
        help="with --until-decided: how every cell stands beside the reference (the default), "
        "which is best, or which lie within the margin of the reference",
    )
    sub.add_argument(
        "--max-seeds",
        type=count,
        metavar="N",
        help=f"most seeds with --until-decided (default: {MOST_SEEDS})",
    )
    sub.add_argument(
        "--price",
        metavar="AMOUNT",
        help="what an hour of the machine costs, such as 2.50USD; the report adds a run's price",
    )
    sub.add_argument(
        "--max-cost",
        metavar="AMOUNT",
        help="as --hours, by what the machine costs, such as 5USD; needs --price",
    )


def hours(text: str) -> float:
    """A time above zero, in hours."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e5:
        raise argparse.ArgumentTypeError(f"found {text!r}; hours, such as 2 or 0.5")
    return value


def time_limit(options: argparse.Namespace) -> tuple[float | None, Price | None]:
    """Hours that the run may take by --hours and by --max-cost, None for any number; and what an
    hour costs.

    Raises:
        UserError: an amount that is none, or a cost without a price in its currency.
    """
    from peftmark.core.amounts import parse_hour_price, parse_price

    price = None if options.price is None else parse_hour_price("--price", options.price)
    if options.max_cost is None:
        return options.hours, price
    most = parse_price("--max-cost", options.max_cost)
    if price is None or price.currency != most.currency:
        found = "no --price" if price is None else f"--price in {price.currency}"
        raise UserError(
            f"--max-cost {options.max_cost} with {found}",
            f"Say what an hour of the machine costs, such as --price 2.50{most.currency}.",
        )
    return min(options.hours or float("inf"), most.hour / price.hour), price


def most_seeds(options: argparse.Namespace) -> int | None:
    """Seeds that may be added at most; None where their number is the profile's.

    Raises:
        UserError: options that contradict one another.
    """
    if not options.until_decided:
        for name in ("max_seeds", "question"):
            if getattr(options, name) is not None:
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option} says nothing without --until-decided", "Add that.")
        return None
    if options.job or options.again:
        name = "--job" if options.job else "--again"
        raise UserError(f"--until-decided chooses the jobs, and so does {name}", "Leave one out.")
    return int(options.max_seeds or MOST_SEEDS)
