"""Whether the top of a report of one seed and many cells says what its rows say, by other code.

Shares nothing with peftmark: what a cell is called stands beside the id of its job on the page;
every figure, count and order of the sentences at the top is worked out from `rows.parquet`. A
sentence that it has no check for is a fault.

    python tests/support/read_one_seed.py reports/methods
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

UNTRAINED = {"base", "bag-of-words", "embeddings"}
"""Lines that others are held to and that no step trains."""


class Rows:
    """What the rows of a report say, by the names that its page has for their jobs."""

    def __init__(self, folder: Path) -> None:
        page = (folder / "index.html").read_text("utf-8")
        of_job = r'<th scope="row"><code>([0-9a-f]{16})</code>.*?</th>\s*<td[^>]*>(.*?)</td>'
        cell = re.compile(of_job)
        names = {i: html.unescape(re.sub("<[^>]+>", "", text)) for i, text in cell.findall(page)}
        every = pq.ParquetFile(folder / "rows.parquet").read(use_threads=False).to_pylist()
        reported = [r for r in every if r["purpose"] == "report" and r["status"] != "unsupported"]
        self.every = {names[r["job_id"]]: r for r in reported}
        self.ok = {name: r for name, r in self.every.items() if r["status"] == "ok"}
        self.reference = self.ok["LoRA r8"]
        self.trained = {n: r for n, r in self.ok.items() if r["method"] not in UNTRAINED}
        self.best = max(r["metric_value"] for r in self.trained.values())
        guess = self.reference["baseline_value"]
        self.floor = guess + 0.5 * (self.best - guess)

    def above(self) -> dict[str, Any]:
        """Trained cells above half of the way from the guess to the best."""
        return {n: r for n, r in self.trained.items() if r["metric_value"] >= self.floor}

    def leaders(self) -> set[str]:
        """The trained cells with the highest score."""
        return {n for n, r in self.trained.items() if r["metric_value"] == self.best}

    def front(self, column: str) -> set[str]:
        """Cells above the floor with no other that costs no more and scores no lower."""
        all_of_them = self.above()
        return {
            name
            for name, r in all_of_them.items()
            if not any(
                o[column] <= r[column]
                and o["metric_value"] >= r["metric_value"]
                and (o[column], o["metric_value"]) != (r[column], r["metric_value"])
                for o in all_of_them.values()
            )
        }


def named(text: str, rows: Rows) -> set[str]:
    """The names of a list such as "a, b and c", of which some have commas in them."""
    found = set()
    for name in sorted(rows.ok, key=len, reverse=True):
        place = rf"(?:^|, | and ){re.escape(name)}(?=$|, | and )"
        if re.search(place, text):
            found.add(name)
            text = re.sub(place, ", ", text, count=1)
    return found


def faults(folder: Path) -> Iterator[str]:
    """Every sentence at the top that the rows don't bear out."""
    rows = Rows(folder)
    text = (folder / "report.md").read_text("utf-8").replace("\u00a0", " ")
    text = re.sub(r"\\(.)", r"\1", text)
    lines = [line.replace("**", "") for line in text.splitlines() if line][1:5]
    yield from _scope(lines[0], rows)
    yield from _answer(lines[1], rows)
    yield from _caveat(lines[2], rows)
    yield from _front(lines[3], rows)
    facts = dict(re.findall(r"^- \*\*(.+?):\*\* (.+)$", text.partition("\n## ")[0], re.MULTILINE))
    yield from _facts(facts, rows)
    for heading, check in SECTIONS.items():
        found = re.search(rf"^## {re.escape(heading)}\n\n(.+)$", text, re.MULTILINE)
        yield from check(found[1] if found else "", rows)


def _scope(told: str, rows: Rows) -> Iterator[str]:
    true = f"{len(rows.every)} methods × 1 task × 1 seed on "
    if not told.startswith(true):
        yield f"{told!r}: of the rows {true}"


def _answer(told: str, rows: Rows) -> Iterator[str]:
    of_full = rows.ok["full fine-tuning"]["trainable_parameters"]
    share = 100 * rows.reference["trainable_parameters"] / of_full
    start = (
        f"LoRA r8: one seed can't show a difference to full fine-tuning, for {share:.0f} % of its "
        "trained parameters; the highest mean is that of "
    )
    if not told.startswith(start) or named(told.removeprefix(start)[:-1], rows) != rows.leaders():
        yield f"{told!r}: of the rows {start}{rows.leaders()}"


def _caveat(told: str, rows: Rows) -> Iterator[str]:
    failed = len(rows.every) - len(rows.ok)
    steps = sorted(json.loads(r["config"])["recipe"]["steps"] for r in rows.trained.values())
    span = f"{steps[0]} steps" if steps[0] == steps[-1] else f"{steps[0]} to {steps[-1]} steps"
    failures = f"{failed} of {len(rows.every)} runs failed, " if failed else ""
    scale = f"{'r' if failed else 'R'}educed scale ({span}) and only 1 seed: "
    if not told.startswith(failures + scale):
        yield f"{told!r}: of the rows {failures}{scale}"


def _front(told: str, rows: Rows) -> Iterator[str]:
    said = told.partition("On the front: ")[2].partition(";")[0].split(". ")[0].rstrip(".")
    true = rows.front("peak_memory_bytes")
    more = re.search(r" and (\d+) more$", said)
    mine = named(said[: more.start()] if more else said, rows)
    if not mine <= true or len(mine) + (int(more[1]) if more else 0) != len(true):
        yield f"{told!r}: on the front are {true}"


def _facts(facts: dict[str, str], rows: Rows) -> Iterator[str]:
    failed = len(rows.every) - len(rows.ok)
    told = facts["Can it be trusted"]
    all_well = f"all {len(rows.every)} runs finished"
    if (f"{failed} of {len(rows.every)} runs failed" if failed else all_well) not in told:
        yield f"{told!r}: {failed} of {len(rows.every)} failed"
    mib = [f"{r['peak_memory_bytes'] / 2**20:.0f} MiB" for r in _picked(facts, rows)]
    if re.findall(r"\d+ MiB", facts["What it costs"]) != mib:
        yield f"{facts['What it costs']!r}: of the rows {mib}"
    unknown = sum(r["metric_value"] >= rows.floor for r in rows.ok.values()) - 1
    told = facts["What can't be told apart"].partition(";")[0]
    more = re.search(r" and (\d+) more$", told)
    count = len(named(told[: more.start()] if more else told, rows)) + int(more[1] if more else 0)
    if count != unknown:
        yield f"{told!r}: {unknown} cells above the floor have one seed"


def _picked(facts: dict[str, str], rows: Rows) -> list[Any]:
    """The cells whose costs stand in the fact, as it names them."""
    parts = facts["What it costs"].split("; ")[1:]
    names = [part.partition(",")[0].partition(":")[0] for part in parts]
    return [rows.ok[name] for name in names]


def _pick(told: str, rows: Rows) -> Iterator[str]:
    best = re.search(r"(?:one point of|The best measured score is that of) (.+?), the best", told)
    if best is None or best[1] not in rows.leaders():
        yield f"{told!r}: the best are {rows.leaders()}"


def _who(told: str, rows: Rows) -> Iterator[str]:
    if told == "No order is shown over all tasks.":
        return
    count = re.match(r"(\d+) cells of (\d+) may be first", told)
    if count is None or int(count[1]) != int(count[2]) or int(count[2]) != len(rows.ok):
        yield f"{told!r}: of one seed any of {len(rows.ok)} may be first"


def _costs(told: str, rows: Rows) -> Iterator[str]:
    others = {n: r for n, r in rows.above().items() if n != "LoRA r8"}
    for what, column, best in (
        ("Least peak memory", "peak_memory_bytes", min),
        ("astest", "samples_per_second", max),
    ):
        name = best(others, key=lambda n: others[n][column])
        value = others[name][column] / rows.reference[column]
        if not re.search(rf"{what}: .*{re.escape(name)} at {value:.2f}×", told):
            yield f"{told!r}: {what} is {name} at {value:.2f}"


SECTIONS = {
    "Which should I pick?": _pick,
    "Who is better, and where": _who,
    "What it costs": _costs,
}
"""Heading of a question -> what holds its first sentence against the rows."""


if __name__ == "__main__":
    told = [*faults(Path(sys.argv[1]))]
    print("\n".join(told) or "Every sentence at the top is borne out by the rows.")
    sys.exit(bool(told))
