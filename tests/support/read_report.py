"""Whether the top of a report says what its rows say, by code of its own.

Shares nothing with peftmark: it reads `rows.parquet` and every sentence of `report.md` before the
first table, and works out from the rows alone what each should say. A sentence that it has no check
for is a fault, so that nothing new goes unread.

    python tests/support/read_report.py docs/example
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyarrow.parquet as pq
from scipy import stats

NAMES = {
    ("lora", "none"): "LoRA r8",
    ("lora", "nf4"): "QLoRA r8",
    ("adalora", "none"): "AdaLoRA r8",
    ("adalora", "nf4"): "AdaLoRA + NF4 r8",
    ("full", "none"): "full fine-tuning",
    ("head", "none"): "head only",
}
REFERENCE = "LoRA r8"
SAME_TEXTS = {"sts-b", "sts-pairs"}
"""Of their 500 evaluation rows each, 306 are the same pairs of sentences."""
MEANINGS = (
    r"Score: mean over tasks, higher is better\.",
    r"Bars: ratio to the reference on a log scale, starting at 1×\.",
    r"Peak memory: live tensor bytes in the probe steps\.",
    r"Intervals are 95 % t intervals for the mean over seeds; they do not cover the choice of "
    r"evaluation rows\.",
    r"Scores and orderings may differ at full scale\.",
)
NUMBER = r"[+−]?\d+\.\d+"


class Rows:
    """What the rows say."""

    def __init__(self, path: Path) -> None:
        every = pq.ParquetFile(path).read(use_threads=False).to_pylist()
        self.tuned = any(r["purpose"] == "tuning" for r in every)
        found = [r for r in every if r["purpose"] == "report" and r["status"] == "ok"]
        self.of = {(_name(r), r["task"], r["seed"]): r for r in found}
        self.cells, self.tasks, self.seeds = (
            list(dict.fromkeys(key[i] for key in self.of)) for i in range(3)
        )
        self.recipes = [json.loads(r["config"])["recipe"] for r in found]

    def values(self, cell: str, read: str | Callable[[Any], float], task: str) -> list[float]:
        """A figure of a cell on a task, a seed each."""
        rows = [self.of[cell, task, seed] for seed in sorted(self.seeds)]
        return [r[read] if isinstance(read, str) else read(r) for r in rows]

    def means(self, cell: str) -> list[float]:
        """Mean score over tasks, a seed each."""
        by_task = [self.values(cell, "metric_value", task) for task in self.tasks]
        return [fmean(seed) for seed in zip(*by_task, strict=True)]

    def differences(self, cell: str) -> list[float]:
        """The same less the reference's."""
        pairs = zip(self.means(cell), self.means(REFERENCE), strict=True)
        return [mine - base for mine, base in pairs]

    def ratio(self, cell: str, column: str) -> float:
        """Geometric mean over tasks and seeds of a figure over the reference's."""
        logs = [
            math.log(a / b)
            for task in self.tasks
            for a, b in zip(
                self.values(cell, column, task), self.values(REFERENCE, column, task), strict=True
            )
        ]
        return math.exp(fmean(logs))

    def rows_seen(self, cell: str) -> float:
        """Training rows read over all tasks, as multiples of the reference's."""

        def seen(r: Any) -> float:
            return float(r["steps"] * json.loads(r["config"])["recipe"]["batch_size"])

        mine, base = (
            sum(sum(self.values(name, seen, t)) for t in self.tasks) for name in (cell, REFERENCE)
        )
        return mine / base

    def beaten(self, task: str) -> bool:
        """Whether some cell's 95 % interval lies above what a constant guess scores."""
        gains = (
            self.values(cell, lambda r: r["metric_value"] - r["baseline_value"], task)
            for cell in self.cells
        )
        return any(fmean(g) > half_width(g) > 0 for g in gains)

    def verdicts(self) -> dict[str, str]:
        """Higher, lower or undecided against the reference: paired t tests, Holm over all."""
        others = [cell for cell in self.cells if cell != REFERENCE]
        p = {c: stats.ttest_1samp(self.differences(c), 0).pvalue for c in others}
        found, worst = {}, 0.0
        for i, cell in enumerate(sorted(others, key=lambda c: p[c])):
            worst = max(worst, p[cell] * (len(others) - i))
            side = "higher" if fmean(self.differences(cell)) > 0 else "lower"
            found[cell] = side if worst <= 0.05 else "undecided"
        return found


def _name(row: Any) -> str:
    return NAMES[row["method"], row["quantization"]]


def half_width(values: list[float]) -> float:
    """Of a 95 % t interval."""
    return float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def faults(folder: Path) -> list[str]:
    """Every sentence at the top of the report that the rows don't bear out."""
    rows = Rows(folder / "rows.parquet")
    text = (folder / "report.md").read_text("utf-8")
    facts, sentences = top(text)
    found = [f"{s!r}: {fault}" for s in sentences for fault in check(s, rows)]
    said = " ".join(sentences)
    if "only report" in text and not rows.tuned:
        found.append("the evaluation rows only report: no trial picked a learning rate")
    if ("trials" in facts.get("learning rates", "")) != rows.tuned or "learning rates" not in facts:
        found.append("where the learning rates come from is not said, or not as it was")
    lost = {task for task in rows.tasks if not rows.beaten(task)}
    if lost and not sentences[0].startswith("No cell is shown to beat"):
        found.append(f"the first sentence is not that no cell beats a guess on {lost}")
    for cell in rows.cells:
        times = rows.rows_seen(cell)
        saw = re.search(rf"(?<![A-Za-z]){re.escape(cell)} \([^()]*saw ([\d.]+)×", said)
        if (abs(times - 1) > 0.01) != bool(saw) or (saw and saw[1] != f"{times:.2f}"):
            found.append(f"{cell} saw {times:.2f} times the rows, and that is not what is said")
    return found


def top(text: str) -> tuple[dict[str, str], list[str]]:
    """The facts, and the sentences before the first table."""
    plain = re.sub(r"\\(.)", r"\1", text.replace("\u00a0", " ").partition("\n| ")[0])
    facts = dict(re.findall(r"^- \*\*(.+?):\*\* (.+)$", plain, flags=re.MULTILINE))
    kept = [
        re.sub(r"^>\s|\*\*", "", line)
        for line in plain.splitlines()
        if line
        and not line.startswith(("#", "- **", "![", "["))
        and line != "**Every cell against LoRA r8**"
    ]
    return facts, re.split(r"(?<=\.) (?=[A-Z])", " ".join(kept))


def check(sentence: str, rows: Rows) -> Iterator[str]:
    """What is wrong with a sentence."""
    if any(re.fullmatch(pattern, sentence) for pattern in MEANINGS):
        return
    for start, look in CHECKS.items():
        if sentence.startswith(start):
            yield from look(sentence, rows)
            return
    yield "no check for it"


def _unbeaten(sentence: str, rows: Rows) -> Iterator[str]:
    told = set(re.findall(r"([\w-]+) \(best ", sentence))
    if told != (true := {task for task in rows.tasks if not rows.beaten(task)}):
        yield f"of the rows it holds for {true}"


def _overall(sentence: str, rows: Rows) -> Iterator[str]:
    shape = (
        rf"Over (\d+) tasks(?: \((.+?)\))? and (\d+) seeds, (.+) scored ({NUMBER}) ± ({NUMBER})\."
    )
    found = re.fullmatch(shape, sentence)
    if found is None:
        yield "of another shape"
        return
    tasks, told, seeds, name, mean, half = found.groups()
    values = rows.means(name)
    true = (len(rows.tasks), len(rows.seeds), f"{fmean(values):.3f}", f"{half_width(values):.3f}")
    if (int(tasks), int(seeds), mean, half) != true:
        yield f"of the rows {true}"
    if set(rows.tasks) >= SAME_TEXTS and told != "sts-b and sts-pairs share evaluation rows":
        yield "two of the tasks share rows, and that is not said"


def _against(sentence: str, rows: Rows) -> Iterator[str]:
    outline = re.sub(r" \([^()]*\)", "", sentence.removeprefix("Against it: ").rstrip("."))
    told = {}
    for part in outline.split("; "):
        kind = next((k for k in ("higher", "lower", "undecided", "matched") if k in part), part)
        names = re.sub(r"undecided: | scored (higher|lower)", "", part)
        told |= dict.fromkeys(re.split(r", | and ", names), kind)
    if told != (true := rows.verdicts()):
        yield f"of the rows {true}"
    for cell in true:
        mine = re.search(rf"(?<![A-Za-z]){re.escape(cell)} \(([^();]*)(;[^()]*)?\)", sentence)
        values = rows.differences(cell)
        shown = f"{fmean(values):+.3f} ± {half_width(values):.3f}".replace("-", "−")
        if mine is None or mine[1] != shown:
            yield f"{cell} is {shown}"


def _cheapest(sentence: str, rows: Rows) -> Iterator[str]:
    others = [cell for cell in rows.cells if cell != REFERENCE]
    memory, pace = (
        {c: rows.ratio(c, column) for c in others}
        for column in ("peak_memory_bytes", "samples_per_second")
    )
    least, fastest = min(others, key=memory.__getitem__), max(others, key=pace.__getitem__)
    true = (
        f"Least peak memory: {least} at {memory[least]:.2f}× {REFERENCE}; "
        f"fastest: {fastest} at {pace[fastest]:.2f}× {REFERENCE}."
    )
    if sentence != true:
        yield f"of the rows: {true}"


def _reduced(sentence: str, rows: Rows) -> Iterator[str]:
    steps = [recipe["steps"] for recipe in rows.recipes]
    if f", {min(steps)} to {max(steps)} optimizer steps." not in sentence:
        yield f"steps are {min(steps)} to {max(steps)}"


CHECKS: dict[str, Callable[[str, Rows], Iterator[str]]] = {
    "No cell is shown to beat": _unbeaten,
    "Over ": _overall,
    "Against it: ": _against,
    "Least peak memory: ": _cheapest,
    "Reduced scale: ": _reduced,
}
"""How a sentence starts -> what holds it against the rows."""

if __name__ == "__main__":
    told = faults(Path(sys.argv[1]))
    print("\n".join(told) or "Every sentence at the top is borne out by the rows.")
    sys.exit(bool(told))
