"""The catalogue of methods as tables, with the parameters that each trains: `docs/methods.md`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from peftmark.catalog.architectures import ARCHITECTURES
from peftmark.catalog.method import Method, Option, Size
from peftmark.catalog.methods import METHODS, PREFIX, Cell, all_methods
from peftmark.catalog.peft_types import NOT_ON_QUANTO, NOT_ON_TORCHAO, PEFT_TYPES, PeftType
from peftmark.catalog.plugins import Plugin, plugin_of
from peftmark.catalog.quantizations import Family, of_family
from peftmark.record.job import Job, ReportOptions
from peftmark.render.plain_table import aligned
from peftmark.suite.expand import expand
from peftmark.suite.load import Suite
from peftmark.suite.schema import SuiteFile

MODEL, TARGETS = "roberta-base", "query-value"
SIZES: dict[Size, int] = {"rank": 8, "width": 64, "tokens": 20}

_RECIPE: dict[str, Any] = {
    "steps": 100,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "targets": TARGETS,
    "alpha": 16.0,
    "adalora": {
        "init_ratio": 1.5,
        "tinit": "10%",
        "tfinal": "30%",
        "delta_t": 5,
        "orthogonal_weight": 0.1,
    },
}


@dataclass(frozen=True)
class Counts:
    """Parameters on `MODEL` with a task of two classes.

    Attributes:
        head: those of classifier and pooler.
        adapters: method -> those of its adapter at the default size, fewest and most.
    """

    head: int
    adapters: Mapping[str, tuple[int, int]]


STORED = Path(__file__).with_name("method_counts.json")
"""Counts that were made with the pinned libraries; `python -m peftmark.docgen.methods_page` writes
them anew. To count takes several seconds of imports alone."""
LIBRARIES = ("peft", "transformers")
"""What decides how many parameters a method has on a model."""


def known_counts() -> Counts:
    """The counts of the installed libraries: stored ones where they are those, else made now."""
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    if stored["made by"] != _made_by():
        return count_all()
    return Counts(stored["head"], {k: (low, high) for k, (low, high) in stored["adapters"].items()})


def _made_by() -> dict[str, str]:
    return {name: metadata.version(name) for name in LIBRARIES}


def store(counts: Counts) -> None:
    """Write the counts beside this module."""
    content = {"made by": _made_by(), "head": counts.head, "adapters": dict(counts.adapters)}
    STORED.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def count_all() -> Counts:
    """Count every method."""
    from peftmark.lab.memory.meta_model import Counter, config_of
    from peftmark.lab.parameter_budget import count

    config, jobs = config_of(ARCHITECTURES[MODEL], 2), _default_jobs()
    _, head = Counter(jobs[0], config).split()
    nothing = dict.fromkeys((m.key for m in METHODS.values() if not m.trains), (0, 0))
    return Counts(head, nothing | {job.method: count(job, config) for job in jobs})


def _default_jobs() -> list[Job]:
    """A job of each method at its default size, on a task with two classes."""
    entries = [
        {"method": m.key, "quantization": [m.quantizations[0]]}
        | ({"size": [SIZES[m.size]]} if m.size else {})
        for m in METHODS.values()
        if m.trains and not m.code
    ]
    profile = {
        "summary": "-",
        "needs": "nothing",
        "scale": "reduced",
        "sources": ["hub"],
        "model": MODEL,
        "seeds": [0],
        "tasks": {"sst-2": {}},
    }
    file = SuiteFile.model_validate(
        {
            "suite": "methods",
            "version": 1,
            "summary": "-",
            "reference": {"method": "head"},
            "radar": {},
            "recipe": _RECIPE,
            "methods": entries,
            "profiles": {"all": profile},
        }
    )
    report = ReportOptions(Cell("head", None, "none"), {})
    suite = Suite(file.suite, file.version, file.summary, report, file.profiles, file)
    return [job for job in expand(suite, "all", "cpu").jobs if job.purpose == "report"]


def method_table(counts: Counts) -> str:
    """Every method as tables for a terminal."""
    head = ("method", "title", "size", "adapter parameters", "bases", "budget")
    rows = [
        (
            m.key,
            m.title,
            _size(m),
            _span(counts.adapters.get(m.key)),
            " ".join(m.quantizations),
            _yes(m.budget),
        )
        for m in METHODS.values()
    ]
    plugged = [f"{m.key} is of the package {p.origin}." for m, p in _plugged()]
    kinds = [
        (
            f"{PREFIX}{k.key}",
            k.title,
            _size_option(k),
            f"refused: {k.refused}" if k.refused else " ".join(bases(k)),
        )
        for k in PEFT_TYPES.values()
    ]
    return "\n".join(
        [
            f"Adapter parameters on {MODEL} (the head has {counts.head:,} more): {_defaults()}.",
            "",
            *aligned(head, rows, numbers=(3,)),
            *plugged,
            "",
            *aligned(("PEFT type", "title", "size", "bases"), kinds),
        ]
    )


def _defaults() -> str:
    return (
        f"rank {SIZES['rank']} on {TARGETS.replace('-', ' and ')}, width {SIZES['width']} or "
        f"{SIZES['tokens']} tokens"
    )


def _size(method: Method) -> str:
    return f"{method.size} {SIZES[method.size]}" if method.size else "-"


def _span(counts: tuple[int, int] | None) -> str:
    if counts is None:  # of a plug-in: to count it its code would have to run
        return "not counted"
    fewest, most = counts
    return f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _method(kind: PeftType) -> Method:
    return all_methods()[f"{PREFIX}{kind.key}"]


def _size_option(kind: PeftType) -> str:
    return f"{_method(kind).size} sets {kind.size}" if kind.size else "-"


def bases(kind: PeftType) -> tuple[str, ...]:
    """Quantizations that a type of PEFT sits on."""
    families: list[Family] = ["none"]
    if kind.quantized:
        families += ["bitsandbytes-4bit", "bitsandbytes-8bit"]
    if kind.key not in NOT_ON_TORCHAO:
        families.append("torchao-8bit")
    if kind.key not in NOT_ON_QUANTO:
        families.append("quanto")
    return of_family(*families)


_INTRODUCTION = """\
# Methods

<!-- Written by `peftmark methods --markdown`; a test compares. -->

Scope: every method that a suite may name, from the catalogue
(`bench/peftmark/catalog/methods.py`): what it trains, its paper, what it asks of the training
loop, its own options, and how many parameters its adapter has. Which settings of a recipe a method
reads, and how a suite gives sizes and budgets, is in [suites.md](suites.md).

Limits:

- **Adapter parameters** are counted on RoBERTa-base with a task of two classes, own options at
  their defaults, at {defaults}.
  They are what has gradients before the first step. Classifier and pooler, which train beside every
  method, are left out: {head:,} here.
- **AdaLoRA and the two-stage method** are counted as they end, at the cell's rank (`target_r`), and
  start with more. A budget gives them the total rank that fills it when spread evenly; where
  modules differ in shape, what they end with depends on where ranks are kept (`active_parameters`
  of a row). The layered hybrid is counted as it starts.
- **AdaLoRA's penalty** is the mean, over all matrices P and Q, of the Frobenius norms of PᵀP − I
  and QQᵀ − I, as PEFT and the authors' own code have it. The paper's eq. 4 has squared norms and a
  sum over modules: a weight such as 0.1 (`orthogonal_weight`) is another penalty there. The
  two-stage method and the layered hybrid have the same.
- **Newer methods of LoRA's family** stand beside their equations in
  [published-recipes.md](published-recipes.md); what was left open is in
  [decisions/2026-11-30-newer-lora-methods.md](decisions/2026-11-30-newer-lora-methods.md).
  `lora` is Init[A]. `peft:lily` shares nothing among layers; `lily` does.
- **DiffPruning** trains a difference and a gate for each weight of its targets, and ends with
  `density` of them.
- **Gradient-scaled ranks** depend on the data: the figures are all layers at `min_rank` and all at
  `max_rank`.
- **Lines that need no fine-tuning**, `bag-of-words` and `embeddings`, are there for encoders on
  classes, labels and scores. They are fitted to all training rows that the recipe leaves, selection
  rows apart, however many steps the other cells take: compare rows, not steps. Selection rows
  choose C among 0.001, 0.01, 0.1, 1 and 10 (1 without such rows), which `optimizer` of a row tells.
  Nothing is drawn, so seeds are copies of one run. Words are what stands between spaces and signs:
  of a language that writes none, they say little. At most 100,000 terms are kept. Rows made with
  another version of scikit-learn are not redone.
- **P-tuning v2** in the top or bottom layers alone (`layers`) trains that share of its count. Masks
  hide the prompt from the other layers; the text's positions are the same wherever the prompts are.
- **Counts say nothing of memory or time**, which a run measures.
- **Bases** are formats that the method can sit on. Whether it runs on an architecture is found out
  in the worker, which refuses a cell with the reason.
- **A parameter budget** may stand in place of a size: `budget: [0.1%]` is that share of the base's
  parameters, classifier and trained pooler left out; a whole number is a count. `peftmark budget`
  shows what each gives. A cell more than 2% off is refused.
"""


def markdown(counts: Counts) -> str:
    """`docs/methods.md`."""
    return "\n".join(
        [
            _INTRODUCTION.format(defaults=_defaults(), head=counts.head),
            "## What each trains",
            "",
            *_what_trains(),
            "",
            "## What each needs and costs",
            "",
            "Hooks are the calls of the training loop that the method needs beyond a forward pass.",
            "",
            *_needs(counts),
            "",
            "On a causal language model these can't be; what its architecture lacks (biases for",
            "BitFit, say) is found out in the worker.",
            "",
            *_not_causal(),
            "",
            "## Options",
            "",
            "Settings of a method's own, under `options` of its entry.",
            "",
            *_options(),
            "",
            "## Any tuner of PEFT",
            "",
            "`peft:<type>` runs a tuner of PEFT through its own config class, with any of its",
            "names under `options`. On quantised bases: those whose layers PEFT has code for, or",
            "whose layers the type uses without looking into them, or doesn't touch.",
            "",
            *_tuners(),
        ]
    )


def _what_trains() -> list[str]:
    """The table of what each method trains."""
    head = ("method", "title", "what trains, beside the head", "source")
    rows = [(f"`{m.key}`", m.title, m.summary, m.source) for m in METHODS.values()]
    of_packages = {m.key: f"{m.source}; package {p.origin}" for m, p in _plugged()}
    return _lines(
        head, [(key, *row, of_packages.get(key.strip("`"), source)) for key, *row, source in rows]
    )


def _plugged() -> list[tuple[Method, Plugin]]:
    """The methods that plug-ins add; none where nobody looked for plug-ins."""
    found = ((m, plugin_of("method", m.key)) for m in METHODS.values())
    return [(method, plugin) for method, plugin in found if plugin is not None]


def _needs(counts: Counts) -> list[str]:
    """The table of what each method needs and costs."""
    head = ("method", "size", "adapter parameters", "hooks", "bases", "may have a budget")
    rows = [
        (
            f"`{m.key}`",
            _size(m),
            _span(counts.adapters.get(m.key)),
            ", ".join(m.hooks) or "-",
            ", ".join(m.quantizations),
            _yes(m.budget),
            _yes(not m.not_causal),
        )
        for m in METHODS.values()
    ]
    return _lines((*head, "on language models"), rows)


def _not_causal() -> list[str]:
    """Why methods can't be put on a causal language model: those of one reason, a line each."""
    by_reason: dict[str, list[str]] = {}
    for m in all_methods().values():
        if m.not_causal:
            reason = re.sub("^(and|which) ", "", m.not_causal)
            by_reason.setdefault(reason, []).append(f"`{m.key}`")
    return [f"- {', '.join(keys)}: {reason}." for reason, keys in by_reason.items()]


def _options() -> list[str]:
    """The table of the methods' own options."""
    rows = [
        (f"`{m.key}`", f"`{o.name}`", _plain(o.default), _allowed(o), o.summary)
        for m in METHODS.values()
        for o in m.options or ()
    ]
    return _lines(("method", "option", "default", "allowed", "what it is"), rows)


def _tuners() -> list[str]:
    """The table of PEFT's tuners."""
    head = (
        "method",
        "title",
        "what trains",
        "source",
        "size",
        "on quantised bases",
        "may have a budget",
        "on language models",
        "on encoders refused, since",
    )
    rows = [
        (
            f"`{PREFIX}{k.key}`",
            k.title,
            k.summary,
            k.source,
            _size_option(k),
            "-" if k.refused else " ".join(bases(k)[1:]) or "no",
            _yes(_method(k).budget),
            _yes(not k.not_causal),
            k.refused or "-",
        )
        for k in PEFT_TYPES.values()
    ]
    return _lines(head, rows)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _allowed(option: Option) -> str:
    if isinstance(option.default, bool):
        return "true, false"
    if option.allowed is None:
        return "any number"
    if isinstance(option.default, str):
        return ", ".join(map(str, option.allowed))
    low, high = option.allowed
    return f"{low:g} to {high:g}"


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    bars = [
        [cell.replace("|", "\\|") for cell in row] for row in (head, ["---"] * len(head), *rows)
    ]
    return [f"| {' | '.join(row)} |" for row in bars]


if __name__ == "__main__":
    store(count_all())
