"""Verdicts on published memory figures, as text for a terminal and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from peftmark.claims.memory_figures import KINDS, MemoryVerdict, Reading
from peftmark.claims.memory_ledger import Figure


def memory_facts(found: Sequence[MemoryVerdict]) -> list[dict[str, Any]]:
    """Verdicts as plain data."""
    return [
        verdict.figure.model_dump(mode="json", exclude_none=True)
        | _facts(verdict)
        | {"parts": [{"part": p.part} | _facts(p) for p in verdict.parts]}
        for verdict in found
    ]


def _facts(verdict: MemoryVerdict) -> dict[str, Any]:
    return {
        "claimed": verdict.claimed,
        "predicted": None if verdict.span is None else list(verdict.span),
        "verdict": verdict.kind,
        "reason": verdict.reason,
        "readings": [
            {"chosen": r.chosen, "predicted": r.value, "holds": r.holds, "reason": r.reason}
            for r in verdict.readings
        ],
    }


def memory_text(found: Sequence[MemoryVerdict]) -> str:
    """Verdicts for a terminal, by claim; figures that belong to none come last."""
    claims = sorted({v.figure.claim or "~" for v in found})
    return "\n\n".join(
        "\n".join(_group(claim, [v for v in found if (v.figure.claim or "~") == claim]))
        for claim in claims
    )


def _group(claim: str, found: Sequence[MemoryVerdict]) -> Iterator[str]:
    yield f"{'No claim' if claim == '~' else claim}  {counts_text(found)}"
    for verdict, line in zip(found, figure_lines(found), strict=True):
        yield f"  {line}"
        yield from (f"      {line}" for line in detail(verdict))


def counts_text(found: Sequence[MemoryVerdict]) -> str:
    """How many figures got which verdict."""
    counts = [(kind, sum(v.kind == kind for v in found)) for kind in KINDS]
    return ", ".join(f"{count} {kind}" for kind, count in counts if count)


def figure_lines(found: Sequence[MemoryVerdict]) -> list[str]:
    """A line a figure: what is published, what is predicted, and the verdict, in columns."""
    wide = max(len(v.figure.id) for v in found)
    texts = [(claimed_text(v), predicted_text(v)) for v in found]
    left, right = (max(map(len, column)) for column in zip(*texts, strict=True))
    return [
        f"{v.figure.id:<{wide}}  {claimed:>{left}}  predicted {predicted:<{right}}  {v.kind}"
        for v, (claimed, predicted) in zip(found, texts, strict=True)
    ]


def detail(verdict: MemoryVerdict) -> Iterator[str]:
    """What stands below a verdict: source, conditions, reason, the readings that fit, parts."""
    figure = verdict.figure
    yield f"{figure.says} Source: {figure.source}."
    yield from conditions(figure)
    if verdict.reason:
        yield f"{sentence(verdict.reason)}."
    if verdict.kind == "undecided" and verdict.fitting:
        fitting = [chosen_text(figure, r) for r in verdict.fitting]
        more = f"; and {len(fitting) - 3} more" if len(fitting) > 3 else ""
        yield f"Fits with {'; '.join(fitting[:3])}{more}."
    for part in verdict.parts:
        text = f"{part.part}: {claimed_text(part)}, predicted {predicted_text(part)}, {part.kind}"
        yield f"{sentence(text)}."
    if figure.caveat:
        yield figure.caveat


def conditions(figure: Figure) -> Iterator[str]:
    """The runs compared, the meter, and what was tried for what the source leaves out."""
    tried = [name for name, values in figure.unstated.items() if len(values) > 1]
    runs = " over ".join(scenario.text(tried) for scenario in figure.readings[0][1][:2])
    yield f"{runs}; meter: {figure.meter}."
    taken = [name for name in figure.unstated if name not in tried]
    texts = [f"taken {_all(figure, taken)}"] if taken else []
    texts += [f"tried {_all(figure, tried)}"] if tried else []
    if texts:
        yield f"Not stated: {'; '.join(texts)}."


def _all(figure: Figure, names: Sequence[str]) -> str:
    return ", ".join(
        f"{name} {' or '.join(map(value_text, figure.unstated[name]))}" for name in names
    )


def chosen_text(figure: Figure, reading: Reading) -> str:
    """The values that tell a reading from the others."""
    return ", ".join(
        f"{name} {value_text(value)}"
        for name, value in reading.chosen.items()
        if len(figure.unstated[name]) > 1
    )


def sentence(text: str) -> str:
    """With a capital at the start."""
    return text[:1].upper() + text[1:]


def value_text(value: Any) -> str:
    """A value of a condition."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def claimed_text(verdict: MemoryVerdict) -> str:
    """The figure with its bound and unit."""
    sign = {"fits": "at most ", "needs": "at least "}.get(verdict.figure.kind, "")
    return f"{sign}{_number(verdict.claimed)}{_unit(verdict.figure)}"


def predicted_text(verdict: MemoryVerdict) -> str:
    """The predictions from lowest to highest."""
    if verdict.span is None:
        return "n/a"
    low, high = map(_number, verdict.span)
    return f"{low if low == high else f'{low} to {high}'}{_unit(verdict.figure)}"


def _unit(figure: Figure) -> str:
    return "" if figure.unit == "ratio" else f" {figure.unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"
