"""One prepared script for a GPU: what peftmark takes there, in a few minutes.

    python -m peftmark.perf.gpu_report [--device cpu --quick] [--minutes 8] [--only PART ...]
    python -m peftmark.perf.gpu_report --assets [DIR]

Parts run one after the other, the most valuable first, each in processes of its own under a limit
of its own. One that fails, or finds no time, is a line with its reason, and the others go on. The
report is written again after every part. docs/gpu-checklist.md says how to run it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from peftmark.core.errors import UserError
from peftmark.machine import nvml
from peftmark.machine.environment import capture
from peftmark.perf import gpu_assets, gpu_page, gpu_parts
from peftmark.perf.command import exit_code
from peftmark.perf.gpu_parts import Bench, NotRun

FOLDER = Path("build/gpu-report")
MINUTES = 8.0
QUICK_LEAST = 5.0
NOT_REACHED = "not reached yet"


@dataclass(frozen=True)
class Part:
    """A part of the report.

    Attributes:
        work: gives its figures.
        limit: seconds that it may take of eight minutes; of more it may take its share.
        least: seconds without which it isn't begun.
    """

    key: str
    title: str
    work: Callable[[Bench], dict[str, Any]]
    limit: float
    least: float


PARTS = (
    Part("doctor", "what the machine is", gpu_parts.doctor, 60, 10),
    Part("steps_minilm", "steps of MiniLM", gpu_parts.minilm_steps, 140, 45),
    Part("smoke", "suite smoke, eight jobs a process", gpu_parts.shared, 190, 80),
    Part("steps_encoder", "steps of a base-size encoder", gpu_parts.encoder_steps, 140, 45),
    Part("alone", "the same jobs, a process each", gpu_parts.alone, 90, 40),
    Part("packed", "eight jobs on one card", gpu_parts.packed, 200, 120),
    Part("glue", "suite glue in the time left", gpu_parts.glue, math.inf, 90),
)


@dataclass(frozen=True)
class Result:
    """How a part went.

    Attributes:
        outcome: partly where some of its figures are missing.
        reason: why it isn't done.
        seconds: that it took; 0 if it wasn't begun.
        found: its figures.
    """

    key: str
    title: str
    outcome: Literal["done", "partly", "failed", "not run"]
    reason: str = ""
    seconds: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)


def carry_out(
    parts: Sequence[Part],
    bench: Bench,
    seconds: float,
    only: Sequence[str] = (),
    heard: Callable[[list[Result], Result], None] = lambda results, last: None,
) -> list[Result]:
    """Run parts within a time.

    Args:
        seconds: for all of them.
        only: keys of those that are asked for; empty for all.
        heard: told after each part of all parts, those to come not run, and of this one.
    """
    end, scale = bench.clock() + seconds, max(1.0, seconds / (60 * MINUTES))
    results = [
        Result(
            part.key,
            part.title,
            "not run",
            NOT_REACHED if not only or part.key in only else "not asked for",
        )
        for part in parts
    ]
    for number, part in enumerate(parts):
        if results[number].reason == NOT_REACHED:
            results[number] = take(part, bench, end, scale)
            heard(results, results[number])
    return results


def take(part: Part, bench: Bench, end: float, scale: float = 1.0) -> Result:
    """Run one part, whatever becomes of it.

    Args:
        end: when all parts have to be over.
        scale: of the part's limit.
    """
    begun = bench.clock()
    least = min(part.least, QUICK_LEAST) if bench.quick else part.least
    if end - begun < least:
        why = f"{max(0.0, end - begun):.0f} s were left, and it needs {least:.0f} at least"
        return Result(part.key, part.title, "not run", why)
    bench.until, bench.short = min(end, begun + scale * part.limit), []
    found: dict[str, Any] = {}
    outcome: Literal["done", "partly", "failed", "not run"] = "failed"
    try:
        found = part.work(bench)
    except NotRun as why_not:
        outcome, reason = "not run", str(why_not)
    except UserError as error:
        reason = error.what
    except Exception as error:  # a fault of one part must not take the others along
        reason = f"{type(error).__name__}: {error}"
        log = bench.folder / "logs" / f"{part.key}.traceback"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
    else:
        outcome, reason = ("partly" if bench.short else "done"), "; ".join(bench.short)
    return Result(part.key, part.title, outcome, reason, bench.clock() - begun, found)


# --- the command --------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the report."""
    options = _parser().parse_args(arguments)

    def work() -> None:
        if options.assets is not None:
            gpu_assets.bring(options.assets or None, options.with_mpnet, options.piece_mib, print)
        else:
            _report(options)

    return exit_code("gpu-report", work)


def _report(options: argparse.Namespace) -> None:
    clock = time.monotonic
    began = clock()
    folder: Path = options.to
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty", "Name another folder with --to, or remove it.")
    bench = Bench(folder, _card(options.device), options.quick, until=began, clock=clock)
    facts = facts_of(options, bench.card)
    for line in facts["missing"]:
        print(f"gpu-report: {line}", flush=True)

    def heard(results: Sequence[Result], last: Result) -> None:
        facts["seconds"] = clock() - began
        facts["parts"] = [asdict(result) for result in results]
        write(folder, facts)
        told = f"{last.title}: {last.outcome}" + (f" ({last.reason})" if last.reason else "")
        print(f"[{facts['seconds']:4.0f} s] {told}", flush=True)

    asked = [part for part in PARTS if not options.only or part.key in options.only]
    print(f"{len(asked)} parts in {options.minutes:g} minutes at most", flush=True)
    carry_out(PARTS, bench, 60 * options.minutes, options.only or (), heard)
    print(f"written: {folder / 'report.md'} and {folder / 'facts.json'}")


def _card(device: str) -> str:
    """What CUDA_VISIBLE_DEVICES names the first GPU by; empty for the CPU.

    Raises:
        UserError: there is none.
    """
    if device == "cpu":
        return ""
    found = nvml.devices()
    if not found.found:
        raise UserError(
            f"no CUDA device: {found.refused or found.told or found.reason}",
            "Run it where there is one; --device cpu --quick runs the same script on a CPU.",
        )
    return found.found[0].uuid


def facts_of(options: argparse.Namespace, card: str) -> dict[str, Any]:
    """Machine, versions, date, load, and what was asked for."""
    environment = capture()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": environment.commit,
        "dirty": environment.dirty,
        "machine": environment.machine,
        "versions": environment.versions,
        "load_at_start": os.getloadavg()[0],
        "device": options.device,
        "card": card or None,
        "quick": options.quick,
        "minutes": options.minutes,
        "missing": [
            f"{one.what} ({one.package.name} {one.package.version}) is not in the cache: fetching "
            "it counts as time of the parts that need it"
            for one in gpu_assets.needed(with_mpnet=False)
            if not one.there
        ],
        "seconds": 0.0,
        "parts": [],
    }


def write(folder: Path, facts: dict[str, Any]) -> None:
    """Put figures and report into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(facts, indent=1, allow_nan=False) + "\n"
    (folder / "facts.json").write_text(text, encoding="utf-8")
    (folder / "report.md").write_text(gpu_page.page(facts), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m peftmark.perf.gpu_report",
        description="Measure on one GPU what peftmark takes there, in a few minutes.",
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="every part at a tiny size")
    parser.add_argument(
        "--minutes", type=_minutes, default=MINUTES, help="for all parts (default: 8)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=[p.key for p in PARTS], metavar="PART", help="these parts"
    )
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="DIR", help="an empty folder")
    parser.add_argument(
        "--assets",
        nargs="?",
        const="",
        metavar="DIR",
        help="run nothing: list the models and rows that are needed, or put them into a folder",
    )
    parser.add_argument(
        "--with-mpnet", action="store_true", help="with --assets: MPNet for glue, too"
    )
    parser.add_argument(
        "--piece-mib", type=_minutes, default=48.0, help="with --assets: MiB a piece (default: 48)"
    )
    return parser


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
