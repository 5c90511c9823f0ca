"""What was found as a table in docs/performance.md, and as lines on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from peftmark.core.errors import UserError

FIGURES, LAUNCHES = "perf", "launches"
"""The page's tables, by the name in their markers."""
CELLS = {"lora": "LoRA", "adalora": "AdaLoRA", "qlora": "QLoRA (NF4)"}
SCRIPTS = {
    "trainer_ratio": "Trainer as in the GLUE example",
    "trainer_tuned_ratio": "Trainer, tuned by hand",
    "notebook_ratio": "notebook loop",
}
Row = tuple[str, str, str, str]


def rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """(what, figure, interval, what it rests on) of each figure that was measured."""
    for cell, figure in found.get("step_ratio", {}).items():
        what = f"training step, {CELLS[cell]}: ours over a bare loop"
        yield _row(what, figure, "{:.3f}", "pairs with equal losses")
    for key, name in SCRIPTS.items():
        if key in found:
            what = f"seconds a job: our matrix, mean of all its cells, over {name} (LoRA)"
            yield _row(what, found[key], "{:.3f}", "rounds")
            what = f"seconds a job: our matrix, its LoRA jobs, over {name} (LoRA)"
            yield _row(what, found[key]["lora"], "{:.3f}", "rounds")
            gap = found[key]["pearson_ours_less_theirs"]
            yield _row(f"Pearson's r, LoRA: ours less {name}", gap, "{:+.3f}", "jobs")
    yield from _seconds(found)
    for precision, figure in found.get("matrix_efficiency", {}).items():
        what = f"share of the cores' matrix product rate, whole matrix, {precision}"
        yield _row(what, figure, "{:.1%}", "readings of the rate")
    for cell, figure in found.get("step_efficiency", {}).items():
        what = f"share of one core's rate, bare step alone, {CELLS[cell]}, bf16"
        yield _row(what, figure, "{:.1%}", "readings of the rate")
    for precision, states in found.get("gemm_gflops", {}).items():
        for state, words in (("busy", "all cores busy"), ("alone", "one core busy")):
            what = f"matrix product, GFLOP/s a core, {words}, {precision}"
            yield _row(what, states[state], "{:.0f}", "readings")


def _seconds(found: Mapping[str, Any]) -> Iterator[Row]:
    """Seconds a job of every piece of the second part."""
    if "ours" not in found:
        return
    pieces = {"our matrix, mean of all its cells": found["ours"]["seconds_a_job"]}
    pieces["our matrix, its LoRA jobs"] = found["ours"]["seconds_a_lora_job"]
    pieces |= {name: found[key]["seconds_a_job"] for key, name in SCRIPTS.items()}
    for name, values in pieces.items():
        mean = sum(values) / len(values)
        span = f"{min(values):.1f} to {max(values):.1f}, the lowest and the highest"
        yield f"seconds a job: {name}", f"{mean:.1f}", span, f"rounds: {len(values)}"
    for way, value in found["tuned_layouts"].items():
        what = f"seconds a job: Trainer, tuned by hand, {way}, extrapolated from its first half"
        yield what, f"{value:.1f}", "one run", "runs: 1"


def _row(what: str, figure: Mapping[str, Any], form: str, unit: str) -> Row:
    if figure["value"] is None:
        return what, "not measured", figure["how"], ""
    low, high = figure["low"], figure["high"]
    interval = figure["how"] if low is None else f"{_say(form, low)} to {_say(form, high)}"
    return what, _say(form, figure["value"]), interval, f"{unit}: {figure['n']}"


def _say(form: str, value: float) -> str:
    return form.format(value).replace("-", "−")


def times(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Phase, and its share of the cores' time in each matrix, as table cells."""
    parts = found.get("matrix", {})
    if not parts:
        return
    totals = {p: sum(content["core_seconds"].values()) for p, content in parts.items()}
    names = dict.fromkeys(name for content in parts.values() for name in content["core_seconds"])
    for name in names:
        share = [
            f"{content['core_seconds'].get(name, 0.0) / totals[p]:.1%}"
            for p, content in parts.items()
        ]
        yield (name.replace("_", " "), *share)


def header(found: Mapping[str, Any]) -> str:
    """When, where and with what, in a sentence or two."""
    machine, versions = found["machine"], found["versions"]
    names = ("torch", "transformers", "peft", "bitsandbytes")
    libraries = ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    text = f"{found['date']}, {machine['cpu']}, {machine['cores']} cores, {libraries}; "
    text += f"load {found['load_at_start']:.2f} at the start"
    return text + (f" ({found['load_note']})." if found["load_note"] else ".")


def table(found: Mapping[str, Any]) -> str:
    """The part of docs/performance.md that is made from figures."""
    lines = [header(found), "", "| what | figure | interval | rests on |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(found)]
    spent = list(times(found))
    if spent:
        heads = ["where the cores' time goes", *found["matrix"]]
        lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in spent]
    return "\n".join(lines)


def launch_table(found: Iterable[Mapping[str, Any]]) -> str:
    """Operations and waits of a step by cell, as Markdown."""
    found = list(found)
    lora = {one["base"]: one["operations"] for one in found if one["method"] == "lora"}
    heads = ("cell", "step", "operations", "forward", "backward", "update", "over LoRA", "waits")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in found:
        like = lora.get(one["base"])
        share = f"{one['operations'] / like:.2f}" if like else "-"
        numbers = (one[name] for name in ("operations", "forward", "backward", "update"))
        cells = (one["cell"], one["phase"] or "any", *(f"{n:,}" for n in numbers), share)
        lines.append(f"| {' | '.join(cells)} | {one['waits']} |")
    return "\n".join(lines)


def made(found: Mapping[str, Any], name: str) -> str:
    """A table by its name."""
    return table(found) if name == FIGURES else launch_table(found[LAUNCHES])


def marks(name: str) -> tuple[str, str]:
    """What stands before and behind a table in the page."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def write_table(path: Path, found: Mapping[str, Any], name: str = FIGURES) -> None:
    """Put a table between its markers in the page.

    Args:
        name: which one: `FIGURES` or `LAUNCHES`.

    Raises:
        UserError: if the page has no such markers.
    """
    text = path.read_text(encoding="utf-8")
    begin, end = marks(name)
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise UserError(f"{path} has no {begin} ... {end}", "Put the two markers back.")
    path.write_text(f"{before}{begin}\n{made(found, name)}\n{end}{after}", encoding="utf-8")
