"""Claims and verdicts in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from peftmark.claims.comparisons import (
    Arithmetic,
    BestRate,
    Bounds,
    Difference,
    Interaction,
    Order,
    Ratio,
    Spread,
)
from peftmark.claims.ledger import Claim, ClaimTest
from peftmark.claims.part import KINDS, Part
from peftmark.claims.verdicts import Verdict
from peftmark.render import words


def lead(found: Sequence[Verdict]) -> str:
    """How many claims got which verdict, in a sentence."""
    order = {kind: i for i, kind in enumerate(KINDS)}
    texts = sorted({(order[v.kind], v.text) for v in found})
    parts = []
    for _, text in texts:
        n = sum(v.text == text for v in found)
        past = text.split()[0] in ("reproduced", "contradicted", "refuted", "confirmed")
        verb = ("was" if n == 1 else "were") if past else ("is" if n == 1 else "are")
        parts.append(f"{n} {verb} {text}")
    return f"Of {words.plural(len(found), 'claim')} {words.listing(parts)}."


def percent(level: float) -> str:
    """A confidence level, such as 99.29 %."""
    return f"{100 * level:.4g}\u00a0%"


def source_text(claim: Claim) -> str:
    """Where a claim stands and under which conditions it was made."""
    places = (
        f"{s.title}, {s.where}" + (f" (arXiv {s.arxiv})" if s.arxiv else "") for s in claim.sources
    )
    setting = claim.setting
    conditions = {
        "model": setting.model,
        "tasks": setting.tasks,
        "budget": setting.budget,
        "selection": setting.selection,
        "scale": setting.scale,
    }
    stated = "; ".join(f"{k}: {v}" for k, v in conditions.items() if v != "not stated")
    silent = [name for name, value in conditions.items() if value == "not stated"]
    unsaid = f"not stated: {words.listing(silent)}" if silent else ""
    return "; ".join(filter(None, ("; ".join(places), stated, unsaid)))


def claimed(test: ClaimTest) -> str:
    """What a test holds a figure against, in words."""
    if test.untestable is not None:
        return "no test"
    if test.arithmetic is not None:
        return f"{test.arithmetic.expression} = {_paper(test.arithmetic.claimed, test.arithmetic)}"
    if test.figures is not None:
        return f"published memory figure {words.listing(test.figures)}"
    if test.weights is not None:
        whose = f"{test.weights.model}{', fine-tuned' if test.weights.fine_tuned else ''}"
        pair = f"{test.weights.of} / {test.weights.to} on the weights of {whose}"
        return f"error of {pair}: {bounds(test)}"
    if test.counted is not None:
        pair = " / ".join(words.title(named.cell) for named in (test.counted.of, test.counted.to))
        return f"adapter parameters, {pair}: {bounds(test)}"
    compared = test.compared
    where = f" on {words.listing(test.tasks)}" if test.tasks else ""
    cells = [words.title(cell) for cell in test.cells]
    if isinstance(compared, Order):
        best = test.measures()[0]
        return f"{best.title}{where}, best first: {', '.join(cells)}"
    assert compared is not None
    if isinstance(compared, BestRate):
        return f"best learning rate{where}, {' / '.join(cells)}: {bounds(test)}"
    if isinstance(compared, Interaction):
        change, other = (f"({a} − {b})" for a, b in (cells[:2], cells[2:]))
        return f"{test.measures()[0].title}{where}, {change} − {other}: {bounds(test)}"
    titles = [measure.title for measure in test.measures()]
    sign = " / " if isinstance(compared, Ratio | Spread) else " − "
    if len(set(titles)) == 1:
        figure = f"{titles[0]}{where}, {sign.join(cells)}"
    else:
        figure = sign.join(f"{t} of {c}" for t, c in zip(titles, cells, strict=True)) + where
    if isinstance(compared, Spread):
        figure = f"spread over seeds of {figure}"
    return f"{figure}: {bounds(test)}"


def bounds(test: ClaimTest) -> str:
    """The limits of a difference or ratio in words."""
    limited = _limited(test)
    if limited is None:
        return ""
    low, high = limited.limits
    if math.isinf(high):
        return f"at least {_figure(low, test)}"
    if math.isinf(low):
        return f"at most {_figure(high, test)}"
    return f"{_figure(low, test)} to {_figure(high, test)}"


def measured(part: Part) -> str:
    """The figure of a part with interval and n; empty where there is none."""
    test = part.test
    if test is None:
        return ""
    count = f"{words.plural(part.seeds, 'seed')}, {words.plural(len(part.tasks), 'task')}"
    if part.pairs:
        near = [pair for pair in part.pairs if pair.neighbours]
        shown = sum(pair.shown is True for pair in near)
        total = words.plural(len(near), "neighbouring pair")
        return f"{shown} of {total} shown in this order ({count})"
    if part.effect is None:
        return ""
    if test.arithmetic is not None:
        return _paper(part.effect, test.arithmetic)
    figure = _figure(part.effect, test)
    if not test.measured:
        return figure
    if part.low is None or part.high is None:
        return f"{figure} (no interval; {count})"
    span = f"{_figure(part.low, test)} to {_figure(part.high, test)}"
    if not part.exact:
        return f"{figure} ({span}; {count})"
    if part.low == part.high:
        return f"{figure} (exact; {count})"
    return f"{figure} (exact, by task and seed {span}; {count})"


def _paper(value: float, paper: Arithmetic) -> str:
    exact = value == int(value) if math.isfinite(value) else False
    text = words.number(value, 0) if exact else words.short(value)
    if not exact and abs(value) < 1:
        text = words.number(value, 3)
    return f"{text} {paper.unit}".strip()


def _figure(value: float, test: ClaimTest) -> str:
    """A difference or ratio with as many digits as its limits need."""
    limited = _limited(test)
    assert limited is not None
    finite = [limit for limit in limited.limits if math.isfinite(limit)]
    digits = 3 if all(round(limit, 3) == limit for limit in finite) else 4
    if not isinstance(limited, Difference | Interaction):
        return f"{words.number(value, digits)}×"
    if not test.measures()[0].of_training:
        return words.short(value)
    return words.number(value, digits, signed=limited.to is not None)


def _limited(test: ClaimTest) -> Bounds | None:
    """What of a test has limits: a difference, or one of the ratios."""
    return test.limited or test.counted or test.weights
