"""Scripts that a user would write against the whole matrix as peftmark runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.machine.environment import cores
from peftmark.perf import ours, suites
from peftmark.perf.figures import Figure, difference_figure, extrapolate, missing, ratio_figure
from peftmark.perf.launch import ONE_THREAD, python, together

KINDS = {
    "trainer": ("peftmark.perf.trainer_script", "example"),
    "trainer_tuned": ("peftmark.perf.trainer_script", "tuned"),
    "notebook": ("peftmark.perf.notebook_script", "notebook"),
}
LORA = ("lora", "none")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Layout:
    """How a kind of script uses the machine.

    Attributes:
        at_once: scripts that run side by side.
        threads: torch threads of each; None as torch decides (all cores).
    """

    at_once: int
    threads: int | None


@dataclass(frozen=True)
class Script:
    """Scripts of one kind that ran side by side.

    Attributes:
        seconds: wall seconds a job: of all together, divided by their number.
        whole: whether they ran all steps; if not, `seconds` is extrapolated.
        quality: Pearson's r at the end of each that ran all steps.
        error: where they ran all steps: what extrapolation from half of them would have given,
            relative to the measured seconds; None if it can't be said.
    """

    seconds: float
    whole: bool
    quality: tuple[float, ...]
    error: float | None


@dataclass(frozen=True)
class Round:
    """One run of every piece.

    Attributes:
        order: the pieces in the order they ran.
        scripts: kind -> what it took.
        ours: the matrix.
    """

    order: tuple[str, ...]
    scripts: dict[str, Script]
    ours: ours.Ran


def run_scripts(
    kind: str, layout: Layout, ask: Mapping[str, Any], seed: int, stop_after: int | None, log: Path
) -> Script:
    """Run one kind of script, as many side by side as its layout says, with seeds from `seed`."""
    module, name = KINDS[kind]
    more = {"kind": name, "threads": layout.threads, "stop_after": stop_after}
    each = [[json.dumps({**ask, **more, "seed": seed + i})] for i in range(layout.at_once)]
    ended = together(module, each, log, ONE_THREAD if layout.threads == 1 else None)
    return script_of([(e.seconds, e.answer) for e in ended], ask["steps"])


def script_of(ended: Sequence[tuple[float, Mapping[str, Any]]], steps: int) -> Script:
    """What scripts that ran side by side took.

    Args:
        ended: seconds from the common start, and the answer, of each.
        steps: steps of a whole job.
    """
    marks = [[(int(step), float(at)) for step, at in answer["marks"]] for _, answer in ended]
    whole = all(points[-1][0] == steps for points in marks)
    seconds = max(extrapolate(s, m, steps) for (s, _), m in zip(ended, marks, strict=True))
    error = None
    if whole and len(ended) == 1 and len(marks[0]) >= 4:
        half = marks[0][: len(marks[0]) // 2]
        stopped = seconds - (marks[0][-1][1] - half[-1][1])
        error = extrapolate(stopped, half, steps) / seconds - 1
    quality = tuple(float(answer["curve"][-1]) for _, answer in ended) if whole else ()
    return Script(seconds / len(ended), whole, quality, error)


def best_layout(ask: Mapping[str, Any], log: Path, say: Say) -> tuple[Layout, dict[str, float]]:
    """The thread count with which the tuned script takes least time, and what each layout took.

    Several scripts side by side are timed too, for the page: what starts and watches them is a
    harness already, so they are not what one script a job is compared as.

    Two intervals of the curve are run and the rest is extrapolated. Choosing the best of a few
    noisy times favours the script.
    """
    ways = {Layout(1, 1), Layout(1, cores()), Layout(cores(), 1)}
    taken: dict[Layout, float] = {}
    for way in sorted(ways, key=lambda w: (w.at_once, w.threads or 0)):
        stop = min(ask["steps"], 2 * ask["eval_every"])
        taken[way] = run_scripts("trainer_tuned", way, ask, 0, stop, log).seconds
        say(f"  {way.at_once} at once, threads each: {way.threads}: {taken[way]:.1f} s a job")
    names = {f"{w.at_once} at once, {w.threads} threads": s for w, s in taken.items()}
    return min((w for w in taken if w.at_once == 1), key=lambda w: taken[w]), names


def measure(folder: Path, small: bool, rounds: int, whole: bool, say: Say) -> dict[str, Any]:
    """All figures of this part, as plain data for JSON.

    Args:
        whole: run padded scripts to their end in every round; else from the second round on they
            stop at the second evaluation, and the rest is extrapolated.

    Raises:
        UserError: a process failed.
    """
    changes = [suites.tiny("sts-b", 1)] if small else []
    own = suites.copy_suite("perf", folder / "suites", *changes)
    where = json.dumps({"suites": str(own), "out": str(folder / "rows")})
    ask = python("peftmark.perf.rows", [where], folder / "rows.log").answer
    say("trainers: which way of running the tuned script is best")
    layout, ways = best_layout(ask, folder / "layout.log", say)
    layouts = {"trainer": Layout(1, None), "trainer_tuned": layout, "notebook": Layout(1, None)}
    done = []
    for number in range(rounds):
        pieces = ["trainer", "ours", "trainer_tuned", "notebook"]
        order = pieces[number % 4 :] + pieces[: number % 4]
        scripts: dict[str, Script] = {}
        for piece in order:
            if piece == "ours":
                matrix = ours.run("perf", own, folder / f"ours-{number}", cores())
                say(f"  round {number + 1}: ours {matrix.per_job:.1f} s a job")
                continue
            way = layouts[piece]
            early = number > 0 and piece != "trainer_tuned" and not whole
            stop = min(ask["steps"], 2 * ask["eval_every"]) if early else None
            seed, log = number * way.at_once, folder / f"{piece}-{number}.log"
            scripts[piece] = run_scripts(piece, way, ask, seed, stop, log)
            say(f"  round {number + 1}: {piece} {scripts[piece].seconds:.1f} s a job")
        done.append(Round(tuple(order), scripts, matrix))
    return summary(done, ask) | {"tuned_layouts": ways, "tuned_layout": vars(layout)}


def summary(rounds: Sequence[Round], ask: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of the rounds as plain data.

    `trainer_ratio` and the others are seconds a job of the whole matrix, whatever its cells, over
    seconds a job of a LoRA script; below `lora` is the same for the matrix's LoRA jobs alone.
    """
    found: dict[str, Any] = {}
    own = sorted({q for r in rounds for q in r.ours.quality(*LORA)})
    for kind in KINDS:
        scripts = [r.scripts[kind] for r in rounds]
        per_job = [r.ours.per_job / s.seconds for s, r in zip(scripts, rounds, strict=True)]
        lora = [r.ours.per_job_of(*LORA) / s.seconds for s, r in zip(scripts, rounds, strict=True)]
        theirs = [value for s in scripts for value in s.quality]
        gap: Figure = difference_figure(own, theirs) if own and theirs else missing("no whole run")
        errors = [s.error for s in scripts if s.error is not None]
        found[f"{kind}_ratio"] = {
            **ratio_figure(per_job).to_dict(),
            "lora": ratio_figure(lora).to_dict(),
            "seconds_a_job": [s.seconds for s in scripts],
            "extrapolated_rounds": sum(not s.whole for s in scripts),
            "extrapolation_error": max(errors, key=abs) if errors else None,
            "pearson": theirs,
            "pearson_ours_less_theirs": gap.to_dict(),
        }
    return found | {
        "ours": {
            "seconds_a_job": [r.ours.per_job for r in rounds],
            "seconds_a_lora_job": [r.ours.per_job_of(*LORA) for r in rounds],
            "seconds_a_job_by_cell": by_cell([r.ours for r in rounds]),
            "jobs_a_run": len(rounds[0].ours.records),
            "pearson_lora": own,
        },
        "orders": [list(r.order) for r in rounds],
        "rows": {name: ask[name] for name in ("train_rows", "eval_rows", "steps", "batch_size")},
    }


def by_cell(runs: Sequence[ours.Ran]) -> dict[str, float]:
    """Mean seconds a job of each cell, shared out by the jobs' wall seconds."""
    cells = sorted({(r.job.method, r.job.quantization) for r in runs[0].records})
    return {
        f"{method} {quantization}": sum(run.per_job_of(method, quantization) for run in runs)
        / len(runs)
        for method, quantization in cells
    }
