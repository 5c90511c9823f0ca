"""The command `adapter`: what a kept adapter changed, what several of it on one base hold, where it
looks, and what fusing it with another gives."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.cli.adapter_attention import attention_lines, lanes
from peftmark.cli.adapter_two import two_lines
from peftmark.cli.export_adapter import add_which_adapter, asked_by, found_by
from peftmark.cli.options import count
from peftmark.core.errors import Exit, UserError
from peftmark.core.texts import number

if TYPE_CHECKING:
    from peftmark.render.chart_specs import RankMap
    from peftmark.render.page import Figure
    from peftmark.run.kept_models import Found
    from peftmark.suite.load import Suite

NAME = "adapter"
HELP = "measure a kept adapter: what it changed by layer, ten of it on one base, fused with another"
END = ".svg"


HALF = 0.5


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which adapter, what else to measure of it, and where to draw what it changed."""
    add_which_adapter(sub)
    sub.add_argument(
        "--attention",
        type=count,
        metavar="ROWS",
        help="also measure attention by layer, before and after training, on evaluation rows",
    )
    sub.add_argument(
        "--fuse-with",
        metavar="WHICH",
        help="also fuse it with another kept adapter of the cell: SEED, TASK or TASK:SEED",
    )
    sub.add_argument(
        "--weight",
        type=share,
        metavar="W",
        help=f"with --fuse-with: weight of the other one, from 0 to 1; this one has the rest "
        f"(default: {HALF})",
    )
    sub.add_argument(
        "--drawing", type=Path, metavar="FILE", help=f"draw what it changed by layer ({END})"
    )


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = number(text)
    if value is None or not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; a number from 0 to 1, such as 0.3")
    return value


def run(options: argparse.Namespace) -> int:
    """Measure the adapter, print what was found, and draw it if asked to."""
    from peftmark.run.kept_models import measure

    _check(options)
    suite, found = found_by(options)
    second = _second(options, suite, found)
    weight = HALF if options.weight is None else options.weight
    other = None if second is None else (second, weight)
    told = measure(found, suite, options.mirror, other, options.attention)
    if options.drawing is not None:
        _draw(options.drawing, found, told)
    if options.json:
        fused = {} if second is None else {"fused_with": str(second.folder)}
        print(json.dumps({"from": str(found.folder), **fused, **told}, indent=2))
        return Exit.OK
    lines = [found.title, *change_lines(told["change"])]
    if options.attention is not None:
        lines += attention_lines(told["attention"])
    lines += several_lines(told["several"])
    if second is not None:
        lines += two_lines(told["two"], second.title)
    for line in lines:
        print(line)
    if options.drawing is not None:
        print(f"Drew {options.drawing}")
    return Exit.OK


def _check(options: argparse.Namespace) -> None:
    """
    Raises:
        UserError: a drawing of no known form, or a weight of nothing.
    """
    if options.drawing is not None and options.drawing.suffix != END:
        raise UserError(
            f"--drawing {options.drawing}: the end of its name says no form that is known",
            f"Known is {END}.",
        )
    if options.weight is not None and options.fuse_with is None:
        raise UserError("--weight says nothing without --fuse-with", "Add that.")


def _second(options: argparse.Namespace, suite: Suite, found: Found) -> Found | None:
    """The adapter to fuse with; None if none is asked for.

    Raises:
        UserError: there is none such.
    """
    from peftmark.run.kept_models import find_other

    if options.fuse_with is None:
        return None
    return find_other(*asked_by(options, suite), found, options.fuse_with)


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


def squares(title: str, modules: Mapping[str, float], layers: Sequence[int]) -> RankMap:
    """What changed, layers down and modules across, in percent."""
    from peftmark.render.chart_specs import Mark, RankMap
    from peftmark.report.module_names import layer_name, module_order

    places = by_place(modules)
    columns = module_order({module for row in places.values() for module in row})
    shares = tuple(
        tuple(None if (v := places.get(layer, {}).get(m)) is None else 100 * v for m in columns)
        for layer in layers
    )
    return RankMap(Mark(title, "other"), tuple(map(layer_name, layers)), tuple(columns), shares)


def picture(title: str, change: Mapping[str, Any], attention: Mapping[str, Any] | None) -> Figure:
    """What changed by layer: weights, and attention where it was measured."""
    from peftmark.render.chart_specs import Mark
    from peftmark.render.layer_specs import LayerChange
    from peftmark.render.page import Figure
    from peftmark.report.module_names import layer_name, layer_order

    modules = change.get("modules", {})
    here = set(by_place(modules)) | set(range(len(attention["moved"]) if attention else 0))
    layers = layer_order(here) if attention else sorted(here)
    drawn = squares(title, modules, layers) if modules else None
    finding, note = f"{title}: attention by layer, before and after training", ""
    if modules:
        top = max(modules, key=lambda name: modules[name])
        finding = f"{title}: the largest change is {100 * modules[top]:.2f} %, of {top}"
        note = "Frobenius norm of the merged update over that of the weight, in percent."
    if attention is None:
        assert drawn is not None
        return Figure("weight-change", finding, drawn, note)
    note = f"{note} Attention of a token on {attention['rows']} evaluation rows.".strip()
    names = tuple(map(layer_name, layers))
    both = LayerChange(Mark(title, "other"), names, drawn, lanes(attention, layers))
    return Figure("weight-change", finding, both, note)


def _draw(file: Path, found: Found, told: Mapping[str, Any]) -> None:
    """
    Raises:
        UserError: nothing is known that could be drawn, or the file can't be written.
    """
    from peftmark.core.files import write_all
    from peftmark.render import draw, svg

    change, attention = told["change"], told.get("attention")
    if change["reason"] and attention is None:
        raise UserError(f"--drawing: {found.title}: {change['reason']}", "Leave --drawing out.")
    write_all({file: svg.standalone(draw.render(picture(found.title, change, attention)))})


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
