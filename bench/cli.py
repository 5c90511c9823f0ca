"""The command line: parses, wires, prints and exits; heavy modules load inside the commands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from bench import __version__, commands, guard, importing, planning
from bench.errors import Exit, Leave, UserError

EXIT_CODES = """\
exit codes:
  0    everything asked for was done
  1    a fault of peftmark itself (with a traceback)
  2    bad input, a missing asset, a full disk; nothing was lost
  3    gate: something got worse
  4    gate: too little data for a verdict that the policy demands
  5    gate: no baseline, or one of another procedure
  6    some jobs are not ok, or missing (the report says which and why)
  7    the same code gave other numbers: the results can't be trusted
  8    gate: a baseline, or gate.json, is damaged
  130  stopped by Ctrl-C, 143 by SIGTERM; finished jobs are kept
"""


WISHES = {
    "memory": ("SIZE", "most peak memory, such as 24GB or 500MiB"),
    "rows": ("N", "training rows you have"),
    "task": ("KIND", "classification, regression, instruction, language or a task's name"),
    "max-drop": ("POINTS", "points below the best cell that you accept (1.0 is 0.01)"),
    "max-parameters": ("N", "most trainable parameters, such as 1M"),
    "max-time": ("TIME", "most training time, such as 90s or 2h"),
    "model": ("NAME", "the model you mean; no other is spoken of"),
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `peftmark`."""
    options = _parser().parse_args(arguments)
    code: int = Exit.OK
    try:
        code = options.command(options)
        sys.stdout.flush()
    except UserError as error:
        print(f"peftmark: {error}", file=sys.stderr)
        code = error.code
    except KeyboardInterrupt as left:
        code = left.code if isinstance(left, Leave) else Exit.INTERRUPTED
    except BrokenPipeError:
        # What is still buffered has no reader; the interpreter would complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(int(code))


Command = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


def _guards(command: Command) -> None:
    """The commands of regression tracking."""
    accept = command(
        "baseline", guard.baseline, "accept results as the baseline that later ones are held to"
    )
    gate = command("gate", guard.gate, "hold results against a baseline; the exit code says how")
    compare = command("compare", guard.compare, "two results folders as one table")
    comment = command("comment", guard.comment, "print a comment from a gate.json, checked anew")
    trend = command("trend", guard.trend, "draw what earlier gates saw, and find steps in it")
    versions = command("versions", guard.versions, "two versions of a library on one suite")
    gate.add_argument(
        "--elsewhere",
        action="store_true",
        help="the results need not be of the code installed here",
    )
    for sub in (accept, gate):
        sub.add_argument("--suites", type=Path, metavar="DIR", help="a folder of your own suites")
    accept.add_argument("verb", choices=["accept"], help="what to do with a baseline")
    accept.add_argument(
        "--from", dest="source", type=Path, metavar="DIR", required=True,
        help="one suite's results folder",
    )  # fmt: skip
    accept.add_argument("--reason", required=True, help="why these numbers are right, a sentence")
    accept.add_argument(
        "--pin", action="store_true", help="as the release's, beside the moving one"
    )
    for sub in (gate, trend, versions):
        sub.add_argument("suite", help="name of a suite (see: peftmark list)")
        for name in ("results", "reports"):
            text = f"{name} folder (default: ./{name})"
            sub.add_argument(f"--{name}", type=Path, default=Path(name), metavar="DIR", help=text)
    for sub in (accept, trend):
        sub.add_argument(
            "--baselines", type=Path, default=Path("results/baselines"), metavar="DIR",
            help="folder of baselines (default: ./results/baselines)",
        )  # fmt: skip
    for sub in (accept, gate, versions):
        sub.add_argument("--profile", help="profile of the suite (default: the newest rows')")
    gate.add_argument(
        "--against", type=Path, required=True, metavar="PATH",
        help="a baseline, a folder of them, or another results folder",
    )  # fmt: skip
    for sub in (gate, versions):
        sub.add_argument("--policy", type=Path, metavar="FILE", help="what fails (docs/gate.md)")
    for side in ("old", "new"):
        versions.add_argument(
            f"--{side}", required=True, metavar="SPEC", help="what pip installs, as 'peft==0.20.0'"
        )
    versions.add_argument(
        "--rounds", type=_count, default=1, help="runs of each side, in turns (default: 1)"
    )
    versions.add_argument("--mirror", type=Path, metavar="DIR", help="local data sets and models")
    versions.add_argument("--jobs", type=_count, help="most jobs at once; 1 for honest times")
    compare.add_argument("before", type=Path, help="a suite's results folder, or a baseline")
    compare.add_argument("after", type=Path, help="the same, to hold against it")
    compare.add_argument("--markdown", action="store_true", help="print Markdown")
    comment.add_argument("file", type=Path, help="what `peftmark gate` wrote")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; a whole number from 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="peftmark",
        description="Compare parameter-efficient fine-tuning methods by running them.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"peftmark {__version__}")
    subparsers = parser.add_subparsers(metavar="command", required=True)

    def command(
        name: str, function: Callable[[argparse.Namespace], int], help_text: str
    ) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(command=function)
        sub.add_argument("--json", action="store_true", help="print facts as JSON")
        return sub

    run = command(
        "run", commands.run, "run the jobs of a suite that have no result yet, then report"
    )
    report = command("report", commands.report, "write the report of a suite from its results")
    plan = command(
        "plan",
        planning.plan,
        "print the jobs of a suite, why each would run, and the memory it takes",
    )
    fetch = command(
        "fetch", commands.fetch, "put all that a suite needs into a folder, for use without network"
    )
    fetch.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the folder; may hold other suites"
    )
    budget = command(
        "budget", commands.budget, "show what a suite's parameter budgets give, without a run"
    )
    budget.add_argument("--model", help="the model to count on, in place of the profile's")
    for sub in (run, report, plan, fetch, budget):
        others = "every one" if sub is budget else "chosen for the machine"
        sub.add_argument("suite", help="name of a suite (see: peftmark list)")
        sub.add_argument("--profile", help=f"profile of the suite; {others} if left out")
        sub.add_argument("--suites", type=Path, metavar="DIR", help="a folder of your own suites")
    claims = command("claims", commands.claims, "hold published claims against stored results")
    claims.add_argument("suite", nargs="?", help="only the claims that this suite tests")
    recommend = command("recommend", commands.recommend, "methods that fit, from stored results")
    recommend.add_argument("suite", nargs="?", help="only the results of this suite")
    for sub in (claims, recommend):
        sub.add_argument("--profile", help="profile of the suite whose rows count")
    claims.add_argument(
        "--memory", action="store_true", help="published memory figures against predictions"
    )
    claims.add_argument("--suites", type=Path, metavar="DIR", help="a folder of your own suites")
    recommend.add_argument(
        "--from", dest="source", type=Path, metavar="DIR", help="one suite's results folder"
    )
    for name, example in WISHES.items():
        recommend.add_argument(f"--{name}", metavar=example[0], help=example[1])
    holders = {
        "results": (run, report, plan, claims, recommend),
        "reports": (run, report),
    }
    for name, subs in holders.items():
        text = f"{name} folder (default: ./{name})"
        for sub in subs:
            sub.add_argument(f"--{name}", type=Path, default=Path(name), metavar="DIR", help=text)
    for sub in (run, report, plan, fetch):
        sub.add_argument("--mirror", type=Path, metavar="DIR", help="local data sets and models")
    for sub in (run, plan):
        sub.add_argument(
            "--job", action="append", default=[], metavar="ID", help="only this job (repeatable)"
        )
        sub.add_argument("--again", action="store_true", help="run finished jobs too")
        sub.add_argument(
            "--jobs", type=_count, help="most jobs at once (default: one per GPU or core)"
        )
        sub.add_argument(
            "--executor", choices=("local", "ray", "slurm"), default="local",
            help="where jobs run: here, on a Ray cluster or through Slurm (docs/executors.md)",
        )  # fmt: skip
        sub.add_argument("--ray-address", metavar="HOST:PORT", help="the Ray cluster to use")
        sub.add_argument(
            "--slurm", metavar="KEY=VALUE,...", help="for Slurm, such as partition=gpu,time=60"
        )
    run.add_argument(
        "--device", choices=("cpu", "cuda"), help="what the cluster's nodes have (Ray is asked)"
    )
    plan.add_argument(
        "--device", metavar="GPU",
        help="say what fits a GPU, by name (RTX 4090, A100-40) or size (24GB); as for run, cpu or "
        "cuda says what a cluster's nodes have",
    )  # fmt: skip
    plan.add_argument(
        "--model", metavar="NAME", help="another architecture for the memory, or a config.json"
    )
    plan.add_argument("--no-memory", action="store_true", help="list the jobs alone")
    run.add_argument("--timeout", type=_count, metavar="SECONDS", help="time limit of a job")
    run.add_argument(
        "--retries", type=int, choices=range(6), default=1, metavar="N",
        help="further tries of a job whose worker was killed, 0 to 5 (default: 1)",
    )  # fmt: skip
    run.add_argument("--no-report", action="store_true", help="do not write the report")

    listing = command(
        "list", commands.show_list, "list suites, methods, quantizations, tasks, metrics, models"
    )
    listing.add_argument("--suites", type=Path, metavar="DIR", help="a folder of your own suites")
    _guards(command)
    published = command(
        "import", importing.bring_in, "bring in published results, to be shown and never judged"
    )
    published.add_argument("source", choices=["peft-method-comparison"], help="whose results")
    published.add_argument("folder", type=Path, metavar="DIR", help="where its files are")
    published.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR",
        help="results folder (default: ./results)",
    )  # fmt: skip
    methods = command("methods", commands.methods, "list methods with the parameters they train")
    methods.add_argument("--markdown", action="store_true", help="print docs/methods.md")
    command(
        "doctor", commands.doctor, "say what this machine can run, what is missing, and the remedy"
    )
    simulate = command("simulate", commands.simulate, "check the statistics on simulated data")
    simulate.add_argument("--suites", type=_count, default=3000, help="simulated suites")
    simulate.add_argument("--draws", type=_count, default=20000, help="simulated intervals")
    return parser
