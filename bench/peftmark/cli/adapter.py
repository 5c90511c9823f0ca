"""The command `adapter`: what a kept adapter changed, and what several of it on one base hold."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.cli.export_adapter import add_which_adapter, found_by
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.render.page import Figure
    from peftmark.run.kept_models import Found

NAME = "adapter"
HELP = "measure a kept adapter: what it changed by layer, and ten of it on one base"
END = ".svg"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which adapter, and where to draw what it changed."""
    add_which_adapter(sub)
    sub.add_argument(
        "--drawing", type=Path, metavar="FILE", help=f"draw what it changed by layer ({END})"
    )


def run(options: argparse.Namespace) -> int:
    """Measure the adapter, print what was found, and draw it if asked to."""
    from peftmark.run.kept_models import measure

    if options.drawing is not None and options.drawing.suffix != END:
        raise UserError(
            f"--drawing {options.drawing}: the end of its name says no form that is known",
            f"Known is {END}.",
        )
    suite, found = found_by(options)
    told = measure(found, suite, options.mirror)
    if options.drawing is not None:
        _draw(options.drawing, found, told["change"])
    if options.json:
        print(json.dumps({"from": str(found.folder), **told}, indent=2))
        return Exit.OK
    for line in (f"{found.title}", *change_lines(told["change"]), *several_lines(told["several"])):
        print(line)
    if options.drawing is not None:
        print(f"Drew {options.drawing}")
    return Exit.OK


# --- what it changed -----------------------------------------------------------------------------


def by_place(modules: Mapping[str, float]) -> dict[int, dict[str, float]]:
    """Layer -> what a module does there -> its change; of several such (experts) the largest."""
    from peftmark.report.module_names import place

    found: dict[int, dict[str, float]] = {}
    for name, value in modules.items():
        layer, module = place(name)
        row = found.setdefault(layer, {})
        row[module] = max(value, row.get(module, 0.0))
    return found


def change_lines(change: Mapping[str, Any]) -> list[str]:
    """The table of changes, in percent."""
    from peftmark.render.plain_table import aligned
    from peftmark.report.module_names import layer_name, module_order

    if change["reason"]:
        return [f"Change of the weights: not known. {change['reason']}"]
    places = by_place(change["modules"])
    columns = module_order({module for row in places.values() for module in row})
    rows = [
        [layer_name(layer), *(_percent(row.get(module)) for module in columns)]
        for layer, row in sorted(places.items())
    ]
    head = "Change of the weights, Frobenius norm of what changed over the weight's own, percent:"
    table = aligned(["layer", *columns], rows, range(1, len(columns) + 1))
    rest = f"All other weights without the head: {_percent(change['rest'])}"
    return [head, *(f"  {line}" for line in table), rest]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.3f}"


def picture(title: str, modules: Mapping[str, float]) -> Figure:
    """What changed, layers down and modules across, in percent."""
    from peftmark.render.chart_specs import Mark, RankMap
    from peftmark.render.page import Figure
    from peftmark.report.module_names import layer_name, module_order

    places = by_place(modules)
    columns = module_order({module for row in places.values() for module in row})
    layers = sorted(places)
    top = max(modules, key=lambda name: modules[name])
    shares = tuple(
        tuple(None if (v := places[layer].get(m)) is None else 100 * v for m in columns)
        for layer in layers
    )
    drawing = RankMap(Mark(title, "other"), tuple(map(layer_name, layers)), tuple(columns), shares)
    finding = f"{title}: the largest change is {100 * modules[top]:.2f} %, of {top}"
    note = "Frobenius norm of the merged update over that of the weight, in percent."
    return Figure("weight-change", finding, drawing, note)


def _draw(file: Path, found: Found, change: Mapping[str, Any]) -> None:
    """
    Raises:
        UserError: nothing is known that could be drawn, or the file can't be written.
    """
    from peftmark.core.files import write_all
    from peftmark.render import draw, svg

    if change["reason"]:
        raise UserError(f"--drawing: {found.title}: {change['reason']}", "Leave --drawing out.")
    write_all({file: svg.standalone(draw.render(picture(found.title, change["modules"])))})


# --- several on one base -------------------------------------------------------------------------


def several_lines(several: Mapping[str, Any]) -> list[str]:
    """What ten adapters on one base hold, how they are switched, and what fusing gives."""
    if several["reason"]:
        return [f"Several on one base: not possible. {several['reason']}"]
    base, one, all_of = (several[f"{name}_bytes"] / 2**20 for name in ("base", "one", "all"))
    same = "the same bits" if several["equal_after"] else "NOT the same"
    lines = [
        f"Ten of it on one base: {all_of:,.1f} MiB of tensors ({base:,.1f} of the base, "
        f"{one - base:,.2f} of one adapter), {all_of / (10 * base):.3f} of ten whole models",
        f"Loading one more from disk: {1e3 * several['load_seconds']:.1f} ms; switching to a "
        f"loaded one: {1e3 * several['switch_seconds']:.2f} ms",
        f"Switching to a doubled copy moves a logit by {several['apart']:.3g} (largest: "
        f"{several['largest']:.3g}); after switching back the logits are {same}",
    ]
    if several["why_not_fused"]:
        return [*lines, f"Fusing: not possible. {several['why_not_fused']}"]
    return [*lines, "Fused with itself at weights 0.5 and 0.5:", *_fused(several["fused"])]


def _fused(fused: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = []
    for kind, one in fused.items():
        if one["reason"]:
            found.append(f"  {kind}: {one['reason']}")
            continue
        factor = one["factor"]
        times = "" if factor is None else f"{factor:.3f} times its own update, "
        found.append(f"  {kind}: {times}a logit differs by {one['difference']:.2g}")
    return found
