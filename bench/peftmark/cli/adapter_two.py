"""What `adapter` prints of two adapters fused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALONE = {"first": "first alone", "second": "second alone"}


def two_lines(two: Mapping[str, Any], second: str) -> list[str]:
    """A row for each adapter alone and each way to fuse; a column for each set of rows and head.

    Args:
        second: the title of the second one.
    """
    from peftmark.core.shown import plain
    from peftmark.render.plain_table import aligned

    first_weight, second_weight = two["weights"]
    scored = two["scored"]
    columns = [f"({at})" for at in range(1, len(scored) + 1)]
    head = ["adapter", "off the sum, %", "ms", "KiB", *columns]
    rows = [[title, "", "", "", *_scores(scored, name)] for name, title in ALONE.items()]
    rows[0][3] = f"{two['bytes_of_one'] / 1024:,.1f}"
    for way, found in two["ways"].items():
        if found["reason"]:
            rows.append([way, plain(found["reason"])])
            continue
        error = "not known" if found["error"] is None else f"{100 * found['error']:.3g}"
        ms, size = f"{1e3 * found['seconds']:.1f}", f"{found['bytes'] / 1024:,.1f}"
        rows.append([way, error, ms, size, *_scores(scored, way)])
    unknown = sorted({w["why_no_error"] for w in two["ways"].values() if w["why_no_error"]})
    return [
        f"Fused by PEFT with {plain(second)} (the second), at weights {first_weight:.3g} and "
        f"{second_weight:.3g}:",
        *(f"  {line}" for line in aligned(head, rows, range(1, len(head)))),
        "Off the sum: Frobenius norm of the fused update less the weighted sum of the two, over "
        "that of the sum" + "".join(f"; not known: {plain(why)}" for why in unknown),
        *(f"{name} {_what(one)}" for name, one in zip(columns, scored, strict=True)),
    ]


def _scores(scored: list[Mapping[str, Any]], name: str) -> list[str]:
    values = (one["scores"][name] for one in scored)
    return ["none" if value is None else f"{value:.4f}" for value in values]


def _what(one: Mapping[str, Any]) -> str:
    from peftmark.core.shown import plain, plural

    head = f", head of the {one['head']}" if one["head"] else ""
    rows = plural(one["rows"], f"{one['split']} row")
    return f"{plain(one['metric'])} on {plain(one['task'])}, {rows}{head}"
