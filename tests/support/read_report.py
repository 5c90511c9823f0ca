"""Whether the top of a report says what its rows say, by code of its own.

Shares nothing with peftmark: it reads `rows.parquet`, for where the settings come from the trials
of `results/published`, and every sentence of `report.md` before the first table, the ones that open
two of the questions and the four facts, and works out from the rows alone what each should say. A
sentence that it has no check for is a fault, so that nothing new goes unread.

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
TRIALS = Path(__file__).parents[2] / "results" / "published" / "glue" / "rows.parquet"
SAME_TEXTS = {"sts-b", "sts-pairs"}
"""Of their 500 evaluation rows each, 306 are the same pairs of sentences."""
MEANINGS = (
    r"Whiskers: 95 % intervals over seeds\.",
    r"Line: the best mean for at most each cost\.",
    r"Ring: possibly on it\.",
    r"Faint: shown to be off the front\.",
    r"Grey: less than half of the way from a constant guess to the best mean\.",
    r"Scores and orderings may differ at full scale\.",
    r"Learned too little: head only\.",
)
NUMBER = r"[+−]?\d+\.\d+"


class Rows:
    """What the rows say."""

    def __init__(self, path: Path) -> None:
        every = pq.ParquetFile(path).read(use_threads=False).to_pylist()
        self.own_trials = any(r["purpose"] == "tuning" for r in every)
        found = [r for r in every if r["purpose"] == "report" and r["status"] == "ok"]
        self.of = {(_name(r), r["task"], r["seed"]): r for r in found}
        self.cells, self.tasks, self.seeds = (
            list(dict.fromkeys(key[i] for key in self.of)) for i in range(3)
        )
        self.recipes = [json.loads(r["config"])["recipe"] for r in found]
        self.tuned = self.own_trials or {_setting(r) for r in found} == _best_of_trials()

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

    def ratio_interval(self, cell: str, column: str) -> tuple[float, float]:
        """95 % interval of the same over seeds, each seed the mean over tasks of the logarithms."""
        by_task = [
            [
                math.log(a / b)
                for a, b in zip(
                    self.values(cell, column, t), self.values(REFERENCE, column, t), strict=True
                )
            ]
            for t in self.tasks
        ]
        seeds = [fmean(of_seed) for of_seed in zip(*by_task, strict=True)]
        half = half_width(seeds)
        return math.exp(fmean(seeds) - half), math.exp(fmean(seeds) + half)

    def rows_seen(self, cell: str) -> float:
        """Training rows read over all tasks, as multiples of the reference's."""

        def seen(r: Any) -> float:
            return float(r["steps"] * json.loads(r["config"])["recipe"]["batch_size"])

        mine, base = (
            sum(sum(self.values(name, seen, t)) for t in self.tasks) for name in (cell, REFERENCE)
        )
        return mine / base

    def beaten(self, task: str) -> bool:
        """Whether some cell's 95 % interval lies above what a constant guess scores, or each of its
        runs has too many rows right for a guess."""
        gains = (
            self.values(cell, lambda r: r["metric_value"] - r["baseline_value"], task)
            for cell in self.cells
        )
        lucky = (max(self.values(cell, self._luck, task)) for cell in self.cells)
        by_rows = any(p <= 0.025 / len(self.cells) for p in lucky)
        return by_rows or any(fmean(g) > half_width(g) > 0 for g in gains)

    @staticmethod
    def _luck(r: Any) -> float:
        """Chance that a guess has as many rows right; 1 for a metric that is no share of rows."""
        if r["metric_name"] != "accuracy":
            return 1.0
        labels = list(r["references"])
        share = max(r["baseline_value"], *(labels.count(one) / len(labels) for one in set(labels)))
        hits = round(r["metric_value"] * len(labels))
        return float(stats.binomtest(hits, len(labels), share, "greater").pvalue)

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


def _setting(row: Any) -> tuple[Any, ...]:
    """Cell and task of a row, with the two settings that trials may have tried."""
    recipe = json.loads(row["config"])["recipe"]
    plan = recipe["adalora"] or {}
    tried = (recipe["learning_rate"], plan.get("orthogonal_weight", 0.0))
    return _name(row), row["task"], *tried


def _best_of_trials() -> set[tuple[Any, ...]]:
    """The setting of the highest score of each cell and task; of equals the smaller."""
    found: dict[tuple[str, str], list[tuple[float, tuple[Any, ...]]]] = {}
    for row in pq.ParquetFile(TRIALS).read(use_threads=False).to_pylist():
        if row["purpose"] == "tuning":
            cell, task, *tried = _setting(row)
            found.setdefault((cell, task), []).append((-row["metric_value"], tuple(tried)))
    return {(*place, *min(trials)[1]) for place, trials in found.items()}


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
    found += [f"{title!r}: {fault}" for title, fault in tiles(facts, rows)]
    said = " ".join(sentences)
    if "only report" in text and not rows.own_trials:
        found.append("the evaluation rows only report: no trial picked a learning rate")
    if ("trials" in facts.get("learning rates", "")) != rows.tuned or "learning rates" not in facts:
        found.append("where the learning rates come from is not said, or not as it was")
    lost = {task for task in rows.tasks if not rows.beaten(task)}
    if lost and not any(s.startswith("No cell is shown to beat") for s in sentences[:3]):
        found.append(f"no sentence at the top says that no cell beats a guess on {lost}")
    for cell in rows.cells:
        times = rows.rows_seen(cell)
        saw = re.search(rf"(?<![A-Za-z]){re.escape(cell)} \([^()]*saw ([\d.]+)×", said)
        if (abs(times - 1) > 0.01) != bool(saw) or (saw and saw[1] != f"{times:.2f}"):
            found.append(f"{cell} saw {times:.2f} times the rows, and that is not what is said")
    return found


def top(text: str) -> tuple[dict[str, str], list[str]]:
    """The facts before the first question, and the sentences before the first table with those
    that open what it costs and the evidence on who is better."""
    whole = re.sub(r"\\(.)", r"\1", text.replace("\u00a0", " "))
    facts = dict(re.findall(r"^- \*\*(.+?):\*\* (.+)$", whole.partition("\n## ")[0], re.MULTILINE))
    plain = whole.partition("\n| ")[0]
    warned = re.findall(r"^> \*\*(Reduced.+?)\*\*$", whole, re.MULTILINE)
    costs = re.search(r"^## What it costs\n\n(.+)$", whole, re.MULTILINE)
    better = whole.partition("## Who is better, and where")[2].partition("\n| ")[0].splitlines()
    plain += "\n".join(["", *warned, *([costs[1]] if costs else [])])
    plain += "\n".join(["", *(s for s in better if s.startswith(("Over ", "No cell", "LoRA")))])
    kept = [
        re.sub(r"^>\s|\*\*", "", line)
        for line in plain.splitlines()
        if line
        and not line.startswith(("#", "- **", "![", "["))
        and line != "**Every cell against LoRA r8**"
    ]
    return facts, [part for line in kept for part in re.split(r"(?<=\.) (?=[A-Z])", line)]


def check(sentence: str, rows: Rows) -> Iterator[str]:
    """What is wrong with a sentence."""
    if any(re.fullmatch(pattern, sentence) for pattern in MEANINGS):
        return
    if re.match(r"\d+ runs? predicted", sentence):
        yield from _warning(sentence, rows)
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


def _one_answer(predictions: list[float]) -> bool:
    """Whether all are alike; of scores from 0 to 5, to a thousandth of their range."""
    return max(predictions) - min(predictions) <= 0.005


def _warning(sentence: str, rows: Rows) -> Iterator[str]:
    same = sum(_one_answer(row["predictions"]) for row in rows.of.values())
    where = "see “Can these numbers be trusted?” below."
    true = f"{same} runs predicted the same for every row: {where}"
    if sentence != true:
        yield f"of the rows: {true}"


def _cheapest(sentence: str, rows: Rows) -> Iterator[str]:
    floor = below_floor(rows)
    others = [cell for cell in rows.cells if cell != REFERENCE and cell not in floor]
    memory, pace = (
        {c: rows.ratio(c, column) for c in others}
        for column in ("peak_memory_bytes", "samples_per_second")
    )
    least, fastest = min(others, key=memory.__getitem__), max(others, key=pace.__getitem__)
    low, high = (f"{x:.2f}×" for x in rows.ratio_interval(fastest, "samples_per_second"))
    quick = (
        f"{fastest} at {pace[fastest]:.2f}× {REFERENCE} (95 % interval {low} to {high})"
        if pace[fastest] > 1
        else f"{REFERENCE}; next {fastest} at {pace[fastest]:.2f}× (95 % interval {low} to {high})"
    )
    true = f"Least peak memory: {least} at {memory[least]:.2f}× {REFERENCE}; fastest: {quick}."
    if sentence != true:
        yield f"of the rows: {true}"


def _reduced(sentence: str, rows: Rows) -> Iterator[str]:
    steps = [recipe["steps"] for recipe in rows.recipes]
    if f", {min(steps)} to {max(steps)} optimizer steps." not in sentence:
        yield f"steps are {min(steps)} to {max(steps)}"


def below_floor(rows: Rows) -> set[str]:
    """Cells less than half of the way from a constant guess to the best mean."""
    guess = fmean(
        fmean(rows.values(cell, "baseline_value", task))
        for cell in rows.cells
        for task in rows.tasks
    )
    means = {cell: fmean(rows.means(cell)) for cell in rows.cells}
    floor = guess + 0.5 * (max(means.values()) - guess)
    return {cell for cell, mean in means.items() if mean < floor}


def _scope(sentence: str, rows: Rows) -> Iterator[str]:
    true = f"{len(rows.cells)} methods × {len(rows.tasks)} tasks × {len(rows.seeds)} seeds on "
    if not sentence.startswith(true):
        yield f"of the rows: {true}"


def _answer(sentence: str, rows: Rows) -> Iterator[str]:
    share = 100 / rows.ratio("full fine-tuning", "trainable_parameters")
    true = (
        f"{REFERENCE}: {len(rows.seeds)} seeds show no difference to full fine-tuning, for "
        f"{share:.0f} % of its trained parameters."
    )
    if sentence != true or rows.verdicts()["full fine-tuning"] != "undecided":
        yield f"of the rows: {true}"


def _caveat(sentence: str, rows: Rows) -> Iterator[str]:
    steps = [recipe["steps"] for recipe in rows.recipes]
    true = f"Reduced scale ({min(steps)} to {max(steps)} steps) and only {len(rows.seeds)} seeds: "
    if not sentence.startswith(true):
        yield f"of the rows: {true}"


def _front(sentence: str, rows: Rows) -> Iterator[str]:
    chosen = [c for c in rows.cells if c not in below_floor(rows)]
    score = {c: fmean(rows.means(c)) for c in chosen}
    cost = {c: rows.ratio(c, "peak_memory_bytes") for c in chosen}
    on = {
        c
        for c in chosen
        if not any(cost[o] <= cost[c] and score[o] >= score[c] for o in chosen if o != c)
    }
    told = sentence.partition("On the front: ")[2].partition(";")[0].rstrip(".")
    if set(re.split(r", | and ", told)) != on:
        yield f"on the front are {on}"


def tiles(facts: dict[str, str], rows: Rows) -> Iterator[tuple[str, str]]:
    """What is wrong with the four facts, each with its title."""
    floor, verdicts = below_floor(rows), rows.verdicts()
    undecided = {c for c, v in verdicts.items() if v == "undecided" and c not in floor}
    title = "What can't be told apart"
    if set(re.split(r", | and ", facts.get(title, "").partition(";")[0])) != undecided:
        yield title, f"undecided are {undecided}"
    best = max(rows.cells, key=lambda c: fmean(rows.means(c)))
    behind = 100 * (fmean(rows.means(best)) - fmean(rows.means(REFERENCE)))
    if (
        f"{REFERENCE} or {best}; {REFERENCE} takes less memory and is {behind:.1f} points below"
        not in (facts.get("What to pick", ""))
    ):
        yield "What to pick", f"{REFERENCE} is {behind:.1f} points below {best}"
    mib = {}
    for cell in (REFERENCE, "full fine-tuning"):
        logs = [math.log(v) for t in rows.tasks for v in rows.values(cell, "peak_memory_bytes", t)]
        mib[cell] = f"{math.exp(fmean(logs)) / 2**20:.0f} MiB"
    told = re.findall(r"\d+ MiB", facts.get("What it costs", ""))
    if told != list(mib.values()):
        yield "What it costs", f"peak memory is {mib}"
    if f"all {len(rows.of)} runs finished" not in facts.get("Can it be trusted", ""):
        yield "Can it be trusted", f"{len(rows.of)} runs finished"


CHECKS: dict[str, Callable[[str, Rows], Iterator[str]]] = {
    "6 methods": _scope,
    f"{REFERENCE}: ": _answer,
    "Reduced scale (": _caveat,
    "Score against peak memory: ": _front,
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
