"""The report of `make gpu-report`: short tables, and what was not run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

STEP_TARGET = 1.05
"""A training step of ours over the bare loop's, at most."""
START_TARGET = 2.0
"""Seconds to the start of a job in a process that ran others, at most."""
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
NONE = "–"
Row = Sequence[str]


def page(facts: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    parts = {part["key"]: part for part in facts["parts"]}
    found = {key: part["found"] for key, part in parts.items() if part["found"]}
    lines = ["# What peftmark takes on a GPU", "", *_head(facts), ""]
    lines += _table("Targets", ("what", "figure", "target", "held"), targets(found, facts["quick"]))
    lines += _table(
        "Training steps: milliseconds, median of blocks",
        ("model", "cell", "ours", "bare loop", "ours over bare", "95 % interval", "losses",
         "kernels a step, ours / bare", "waits a step, ours / bare"),
        steps(found),
    )  # fmt: skip
    lines += _table(
        "Suite smoke, eight jobs a process",
        ("job", "jobs before", "start s", "wall s", "predicted s", "step ms", "GPU J", "flags"),
        jobs(found.get("smoke", {}).get("jobs", ())),
    )
    lines += _table("Several jobs on the card, and the time left", ("what", "figure"), rest(found))
    lines += _table(
        "Parts", ("part", "outcome", "seconds", "why"),
        [(p["title"], p["outcome"], f"{p['seconds']:.0f}", p["reason"]) for p in facts["parts"]],
    )  # fmt: skip
    unknown = list(nulls(found))
    if unknown:
        lines += ["## Figures that are missing", "", *(f"- {_plain(one)}" for one in unknown), ""]
    return "\n".join(lines).rstrip() + "\n"


def _head(facts: Mapping[str, Any]) -> Iterator[str]:
    machine, versions = facts["machine"], facts["versions"]
    gpus = ", ".join(machine.get("gpus") or ()) or "no GPU"
    libraries = ", ".join(f"{name} {versions[name]}" for name in LIBRARIES if name in versions)
    driver = machine.get("driver") or "none"
    commit = (facts["commit"] or "unknown")[:12] + (" with changes" if facts["dirty"] else "")
    yield (
        f"{facts['date']}, {gpus}, driver {driver}, {machine['cpu']}, {machine['cores']} cores, "
        f"{libraries}; commit {commit}; load {facts['load_at_start']:.2f} at the start; "
        f"{facts['seconds']:.0f} s of {60 * facts['minutes']:.0f}."
    )
    if facts["device"] == "cpu":
        yield ""
        yield "**Nothing here was run on a GPU.** It shows that the script runs."
    if facts["quick"]:
        yield ""
        yield "**At a tiny size**, whose times say nothing."
    for line in facts["missing"]:
        yield ""
        yield f"{_plain(line)}."


def targets(found: Mapping[str, Any], quick: bool) -> Iterator[Row]:
    """What was wanted, with what was found; a dash where nothing was.

    Args:
        quick: whether all was at a tiny size, of which no time is held against a target.
    """

    def held(value: float | None, most: float) -> str:
        return NONE if value is None or quick else "yes" if value <= most else "no"

    for key in ("steps_minilm", "steps_encoder"):
        for cell, one in found.get(key, {}).get("cells", {}).items():
            ratio = one["ratio"] and one["ratio"]["value"]
            what = f"step of ours over a bare loop: {found[key]['model']}, {cell}"
            yield what, _number(ratio, 3), f"≤ {STEP_TARGET}", held(ratio, STEP_TARGET)
    if "smoke" in found:
        first, later = starts(found["smoke"]["jobs"])
        yield "start of a process's first job, s, the longest", _number(first, 2), NONE, NONE
        yield (
            "start of its later jobs, s, the longest",
            _number(later, 2),
            f"≤ {START_TARGET:g}",
            held(later, START_TARGET),
        )
        repeat = found["smoke"]["repeat"]
        verdict = repeat["verdict"] if repeat else "none planned"
        told = f"{verdict}: {repeat['detail']}" if repeat and repeat["detail"] else verdict
        same = {"same": "yes", "different": "no"}.get(verdict, NONE)
        yield "bits of the repeated job", told, "same", same
    for key, what in (("alone", "in processes of their own"), ("packed", "on one card at once")):
        if key in found:
            yield _same(f"rows of jobs {what}, but for times", found[key]["compared"])


def _same(what: str, compared: Sequence[Mapping[str, str]]) -> Row:
    other = [f"{one['job']}: {one['differs']}" for one in compared if one["differs"]]
    told = f"{len(compared) - len(other)} of {len(compared)} the same"
    held = NONE if not compared else "no" if other else "yes"
    return what, "; ".join([told, *other]), "all the same", held


def starts(jobs: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """The longest start of a process's first job, and of its later ones."""
    first = [j["start_seconds"] for j in jobs if j["jobs_before"] == 0]
    later = [j["start_seconds"] for j in jobs if j["jobs_before"]]
    both = [[s for s in side if s is not None] for side in (first, later)]
    return max(both[0], default=None), max(both[1], default=None)


def steps(found: Mapping[str, Any]) -> Iterator[Row]:
    """A row a model and cell."""
    for key in ("steps_minilm", "steps_encoder"):
        for cell, one in found.get(key, {}).get("cells", {}).items():
            if one["reason"]:
                yield found[key]["model"], cell, *[NONE] * 7
                continue
            low, high = one["ratio"]["low"], one["ratio"]["high"]
            gap = one["loss_gap"]
            differ = "one is no number" if gap is None else f"differ by {gap:.2g} at most"
            yield (
                found[key]["model"],
                cell,
                *(_number(one[side]["value"], 2) for side in ("ours", "bare")),
                _number(one["ratio"]["value"], 3),
                NONE if low is None else f"{low:.3f} to {high:.3f}",
                f"{one['losses']} the same bits" if gap == 0 else f"{one['losses']} {differ}",
                *(
                    " / ".join(_number(one["watched"][s][name], 1) for s in ("ours", "bare"))
                    for name in ("launches", "waits")
                ),
            )


def jobs(found: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """A row a job."""
    for job in found:
        step = job["step_seconds_p50"]
        yield (
            job["job"] + ("" if job["status"] == "ok" else f" ({job['status']})"),
            NONE if job["jobs_before"] is None else str(job["jobs_before"]),
            _number(job["start_seconds"], 2),
            _number(job["wall_seconds"], 1),
            _number(job["predicted_seconds"], 1),
            _number(None if step is None else 1000 * step, 1),
            _number(job["energy_gpu_joules"], 0),
            "; ".join(job["energy_flags"]),
        )


def rest(found: Mapping[str, Any]) -> Iterator[Row]:
    """Packed jobs, and the suite that took what time was left."""
    if "packed" in found:
        one = found["packed"]
        yield f"{one['jobs']} jobs in turn, s", _number(one["in_turn_seconds"], 1)
        yield "the same sharing the card, s", _number(one["packed_seconds"], 1)
        ratio = one["in_turn_seconds"] / one["packed_seconds"] if one["whole"] else None
        yield "times as fast", _number(ratio, 2)
    if "glue" in found:
        one = found["glue"]
        of = f"glue gpu-offline on {one['model']}"
        yield f"{of}: whole profile as planned, s", _number(one["plan_seconds"], 0)
        yield f"{of}: hours given, and jobs that ran", f"{one['hours']:.3f}, {one['jobs']}"
        yield f"{of}: jobs that were ok", str(one["ok"])
        yield f"{of}: seconds of the command", _number(one["seconds"], 0)
        took, told = one["jobs_seconds"], one["jobs_predicted_seconds"]
        yield f"{of}: wall seconds of {one['timed_jobs']} jobs", _number(took, 0)
        yield f"{of}: predicted of them", _number(told, 0)
    if "smoke" in found:
        pairs = [
            job["wall_seconds"] / job["predicted_seconds"]
            for job in found["smoke"]["jobs"]
            if job["predicted_seconds"]
        ]
        yield "smoke: wall over predicted, median", _number(_median(pairs), 2)


def nulls(found: Mapping[str, Any]) -> Iterator[str]:
    """Every figure that is missing, with its reason; alike ones once."""
    told: dict[str, list[str]] = {}
    for key in ("steps_minilm", "steps_encoder"):
        for cell, one in found.get(key, {}).get("cells", {}).items():
            for side, seen in (one["watched"] or {}).items():
                if seen["reason"]:
                    what = "kernels" if seen["waits"] is not None else "kernels and waits"
                    why = f"{what} a step: {seen['reason']}"
                    told.setdefault(why, []).append(f"{cell}, {side}")
    for key, name in (("smoke", "jobs"), ("packed", "in_turn"), ("packed", "packed")):
        for job in found.get(key, {}).get(name, ()):
            for figure, why in job["null_reasons"].items():
                told.setdefault(f"{figure}: {why or 'no reason is stored'}", []).append(job["job"])
    if (why := found.get("glue", {}).get("plan_reason")) is not None and why:
        told[f"plan of glue: {why}"] = [found["glue"]["model"]]
    for why, where in told.items():
        yield f"{why} ({len(where)} times)"


# --- text ---------------------------------------------------------------------------------------


def _table(title: str, head: Row, rows: Iterator[Row] | Sequence[Row]) -> list[str]:
    content = [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows]
    if not content:
        return []
    return [f"## {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *content, ""]


def _plain(text: str) -> str:
    """Text that breaks no table and is no markup."""
    flat = " ".join(text.split())
    for sign in "\\|<>*_`[]":
        flat = flat.replace(sign, f"\\{sign}")
    return flat


def _number(value: float | None, places: int) -> str:
    return NONE if value is None else f"{value:,.{places}f}"


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
