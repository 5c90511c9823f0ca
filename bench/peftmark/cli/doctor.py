"""The command `doctor`: what this machine can run."""

from __future__ import annotations

import argparse
import json

from peftmark.core.errors import Exit

NAME = "doctor"
HELP = "say what this machine can run, what is missing, and the remedy"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Whether to measure the machine."""
    sub.add_argument(
        "--calibrate",
        action="store_true",
        help="measure once, in some 20 seconds, what operations cost here: `peftmark plan` then "
        "predicts how long jobs take",
    )


def run(options: argparse.Namespace) -> int:
    """What this machine can run."""
    from peftmark.run.doctor import calibration, examine

    findings = []
    for finding in calibration() if options.calibrate else examine():
        findings.append(finding)
        if options.json:
            continue
        mark = "ok  " if finding.ok else "miss"
        print(f"{mark}  {finding.what}: {finding.found}", flush=True)
        if finding.remedy:
            print(f"      {finding.remedy}", flush=True)
    if options.json:
        print(json.dumps([f.as_dict() for f in findings], indent=2))
    return Exit.OK if all(f.ok for f in findings if f.needed) else Exit.USAGE
