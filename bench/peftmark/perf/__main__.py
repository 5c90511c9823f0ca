"""Measure how fast peftmark is.

    python -m peftmark.perf [--quick] [--only step|launches|trainers|matrix] [--seeds N]

Four parts: our training step against a bare loop, what a step would start on a GPU, scripts against
a matrix, and the share of the machine's rate that a matrix reaches. docs/performance.md says what
is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peftmark.core.errors import UserError
from peftmark.core.texts import whole_number
from peftmark.machine.environment import capture
from peftmark.perf import launches, matrix, page, pairs, trainers
from peftmark.perf.command import exit_code

PARTS = ("step", "launches", "trainers", "matrix")
PAGE = Path("docs/performance.md")
WHOLE, PARTIAL = Path("results/perf.json"), Path("results/perf-partial.json")
KEYS = {
    "step": ("step_ratio", "step_efficiency"),
    "launches": ("launches",),
    "trainers": ("trainer_ratio", "trainer_tuned_ratio", "notebook_ratio"),
    "matrix": ("matrix_efficiency", "gemm_gflops"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the figures."""
    options = parse(arguments)
    return exit_code("perf", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    found = facts(options)
    if found["machine"]["gpus"]:
        raise UserError(
            f"this machine has a GPU ({', '.join(found['machine']['gpus'])})",
            "What is compared here runs on the CPU; use a machine without one.",
        )
    if found["load_note"]:
        print(f"perf: load {found['load_at_start']:.2f}: {found['load_note']}", flush=True)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {text}", flush=True)

    scratch = Path(tempfile.mkdtemp(prefix="peftmark-perf-"))  # kept if a part fails, for its logs
    for part in PARTS:
        if options.only in (None, part):
            folder = scratch / part
            folder.mkdir()
            found |= _measure(part, folder, options, say)
            found["seconds"] = time.monotonic() - began
            _write(PARTIAL, found)  # the next part may take long, or fail
    shutil.rmtree(scratch)
    whole = options.only is None and not options.quick
    path = WHOLE if whole else PARTIAL
    if whole:
        _write(WHOLE, found)
        PARTIAL.unlink()
    measured = {key: value for key, value in found.items() if value is not None}
    names = [page.LAUNCHES] if page.LAUNCHES in measured else []
    if options.only != page.LAUNCHES:
        names.insert(0, page.FIGURES)
    for name in names:
        print(page.made(measured, name))
    # How many operations a step has is the same on every machine, whatever else was measured.
    written = [name for name in names if whole or name == page.LAUNCHES]
    written = written if PAGE.is_file() else []
    for name in written:
        page.write_table(PAGE, measured, name)
    print(f"written: {path}" + "".join(f" and the table {name!r} of {PAGE}" for name in written))


def _write(path: Path, found: dict[str, Any]) -> None:
    """Write figures; those that were not measured are null."""
    nulls = {key: None for keys in KEYS.values() for key in keys if key not in found}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found | nulls, indent=1) + "\n", encoding="utf-8")


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """Machine, versions, date, load and counts."""
    environment, load = capture(), os.getloadavg()[0]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": environment.commit,
        "dirty": environment.dirty,
        "machine": environment.machine,
        "versions": environment.versions,
        "load_at_start": load,
        "load_note": "above 1, others disturb" if load > 1 else "",
        "quick": options.quick,
        "only": options.only,
        "counts": {
            "pairs": options.pairs,
            "steps_a_block": options.steps,
            "rounds": options.rounds,
            "seeds": options.seeds,
            "whole": options.whole,
        },
    }


def _measure(part: str, folder: Path, options: argparse.Namespace, say: Any) -> dict[str, Any]:
    if part == "step":
        return pairs.measure(folder, options.pairs, options.steps, say)
    if part == "launches":
        return {"launches": [vars(one) for one in launches.main(say)]}
    if part == "trainers":
        return trainers.measure(folder, options.quick, options.rounds, options.whole, say)
    return matrix.measure(folder, options.quick, options.seeds, say)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m peftmark.perf", description="Measure how fast peftmark is."
    )
    parser.add_argument("--quick", action="store_true", help="every part at a tiny size")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--seeds", type=_positive, default=1, help="seeds of the matrix part")
    parser.add_argument("--rounds", type=_positive, help="rounds of the scripts (3; quick: 1)")
    parser.add_argument("--pairs", type=_positive, help="pairs of blocks a cell (16; quick: 6)")
    parser.add_argument("--steps", type=_positive, help="steps a block (10; quick: 2)")
    parser.add_argument(
        "--whole", action="store_true", help="run all steps of all scripts in every round"
    )
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with the sizes that depend on --quick filled in."""
    options = _parser().parse_args(arguments)
    sizes = (1, 6, 2) if options.quick else (3, 16, 10)
    for name, size in zip(("rounds", "pairs", "steps"), sizes, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, size)
    return options


def _positive(text: str) -> int:
    value = whole_number(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
