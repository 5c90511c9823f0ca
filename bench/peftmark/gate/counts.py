"""Counts that the code alone decides: equal, or a change that someone must accept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from peftmark.catalog.methods import Cell
from peftmark.gate.matching import Matched, Pair, finding
from peftmark.gate.policy import Policy
from peftmark.gate.result import KINDS, Finding, Kind
from peftmark.gate.run_lines import FIRST_STEP
from peftmark.record.fields import FIELDS, LIVE_PARTS
from peftmark.record.machine_kind import Scalar
from peftmark.render import words

NEARLY = 1e-9
"""Relative difference of sums that were added in another order."""

LEARNED = ("active_parameters", "saved_parameters", "adapter_bytes")
"""Counts that training itself decides for methods that prune ranks: equal only with equal bits."""
LEARNED_WITHIN = 0.05

KERNELS = ("flops_per_step", "live_bytes")
"""Counts that hang on the kernels a processor has: equal only on the same kind of machine."""
KERNELS_WITHIN = 0.02

STARTED = ("loss", "penalty", "gradient norm")
"""Facts of the first step that training computes: other kernels, other versions give others."""
STARTED_WITHIN = 0.003
"""Relative difference of them that is none: seven times what other kernels were seen to make
(docs/gate.md)."""

TEMPORARY = "live_temporary_bytes"
"""The one part of the live peak that is told by itself: what operations need for a moment."""
COSTS = tuple(
    f.key for f in FIELDS.values() if f.exact and (f.kind == "cost" or f.key == TEMPORARY)
)
"""Counts of which less is better; less of any other is a change like more of it."""
PARTS = tuple(part for part in LIVE_PARTS if part.column != TEMPORARY)
"""Parts of the live peak that are told with it."""
_PART_NAMES = frozenset(part.column for part in PARTS)


def counts(matched: Matched, policy: Policy) -> Iterator[Finding]:
    """Changed counts, one finding a cell and count."""
    for cell in matched.cells:
        pairs = matched.of(cell)
        names = dict.fromkeys(name for p in pairs for name in (*p.before.counts, *p.after.counts))
        if _unrecorded(pairs):
            names = {name: None for name in names if not name.startswith(FIRST_STEP)}
        for name in names:
            if name in policy.ignored_counts or name in _PART_NAMES:
                continue
            differing = [p for p in pairs if not _equal(p, name)]
            if differing:
                yield _finding(cell, name, differing, len(pairs), policy, matched.declared)


def _equal(pair: Pair, name: str) -> bool:
    a, b = pair.before.counts.get(name), pair.after.counts.get(name)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=_within(pair, name))
    return a == b


def _unrecorded(pairs: Sequence[Pair]) -> bool:
    """Whether the baseline is of a peftmark that did not look at the first step."""
    return not any(name.startswith(FIRST_STEP) for p in pairs for name in p.before.counts)


def _computed(name: str) -> bool:
    """Whether a count is a fact of the first step that training computed."""
    return name.startswith(FIRST_STEP) and name.endswith(STARTED)


def _within(pair: Pair, name: str) -> float:
    """Relative difference that is no change."""
    if _computed(name):
        return NEARLY if pair.identical else STARTED_WITHIN
    if name in LEARNED and not pair.identical and _prunes(pair):
        return LEARNED_WITHIN
    if name in KERNELS and not pair.same_machine:
        return KERNELS_WITHIN
    return NEARLY


def _prunes(pair: Pair) -> bool:
    return any(name.startswith("recipe.adalora.") for name in pair.before.config)


def _finding(
    cell: Cell, name: str, pairs: list[Pair], of: int, policy: Policy, declared: str
) -> Finding:
    kinds = [_kind(pair, name) for pair in pairs]
    if _computed(name) and declared:  # that the numbers are others is what was declared
        kinds = ["note" if kind == "regression" else kind for kind in kinds]
    kind = min(kinds, key=list(KINDS).index)
    first = pairs[kinds.index(kind)]
    if policy.counts == "advisory" and kind == "regression":
        kind = "note"
    text = _sentence(first, name, first.before.counts.get(name), first.after.counts.get(name))
    where = "" if len(pairs) == of else f", in {len(pairs)} of {of} runs"
    return finding(kind, f"count.{name}", cell, text + where)


def _kind(pair: Pair, name: str) -> Kind:
    """What the change of a count is in one run."""
    a, b = pair.before.counts.get(name), pair.after.counts.get(name)
    if name.startswith(FIRST_STEP) and None in (a, b):
        return "regression"  # a group, a penalty or dropout that came or went
    if b is None:
        return "incomplete"
    if a is None:
        return "note"
    less = isinstance(a, int | float) and isinstance(b, int | float) and b < a
    return "improved" if less and name in COSTS else "regression"


def _sentence(pair: Pair, name: str, a: Scalar, b: Scalar) -> str:
    title = _title(name)
    if name.startswith(FIRST_STEP) and None in (a, b):
        return f"{title}: {_or_none(a)} there, {_or_none(b)} here"
    if b is None:
        return f"{title} was {_value(a)} and is not known any more"
    if name == "batch_order_hash":
        return "the batches hold other rows or come in another order"
    if name == "base_format":
        return f"the frozen base was stored as {a} and is stored as {b} (parameters in each format)"
    if name == "learning_rate_mean":
        return f"the optimizer's mean learning rate went {_change(a, b)}"
    unit = " bytes" if name in FIELDS and FIELDS[name].unit == "bytes" else ""
    where = _largest_part(pair) if name == "live_bytes" else ""
    return f"{title} went {_change(a, b, unit)}{where}"


def _title(name: str) -> str:
    if name.startswith(FIRST_STEP):
        return f"{name.removeprefix(FIRST_STEP)} of the first step"
    return FIELDS[name].title if name in FIELDS else name.replace("_", " ")


def _change(a: Scalar, b: Scalar, unit: str = "") -> str:
    text = f"from {_value(a)} to {_value(b)}{unit}"
    if isinstance(a, int | float) and isinstance(b, int | float) and a:
        text += f" ({words.number(100 * (b / a - 1), 1, signed=True)} %)"
    return text


def _or_none(value: Scalar) -> str:
    return "none" if value is None else _value(value)


def _value(value: Scalar) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "unknown" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"


def _largest_part(pair: Pair) -> str:
    moves = {}
    for part in PARTS:
        a, b = pair.before.counts.get(part.column), pair.after.counts.get(part.column)
        if isinstance(a, int) and isinstance(b, int):
            moves[part.title] = b - a
    if not moves:
        return ""
    most = max(moves, key=lambda title: abs(moves[title]))
    size = words.number(moves[most] / words.MIB, 1, signed=True)
    return f"; most of it in {most} ({size} MiB)"
