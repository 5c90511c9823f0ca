"""Faults of a suite's method entries: sizes, options, quantizations, and cells that stand twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from peftmark.catalog.later_options import CONFLICTS
from peftmark.catalog.method import Method
from peftmark.catalog.methods import Cell, known_method, size_text
from peftmark.record.recipe import FORM
from peftmark.suite.recipes import ADAPTER_FIELDS, VARIED, set_values, tuned_layer
from peftmark.suite.schema import MethodEntry


def check_cells(entries: list[MethodEntry], where: str) -> Iterator[str]:
    """Faults of a list of method entries."""
    seen: set[Cell] = set()
    for index, entry in enumerate(entries):
        at = f"{where}[{index}] ({entry.method})"
        method = known_method(entry.method)
        yield from check_sizes(entry, method, at)
        faults = dict(method.option_faults(entry.options)) or dict(option_conflicts(entry))
        for name, fault in faults.items():
            yield f"{at}.options.{name}: {fault}"
        for quantization in entry.quantization:
            if method.sits_on and quantization not in method.sits_on:
                allowed = ", ".join(method.sits_on)
                yield f"{at}.quantization: found {quantization!r}; {entry.method} allows: {allowed}"
        on_tasks = {f"task_recipe.{task}": layer for task, layer in entry.task_recipe.items()}
        for layer_name, layer in {"recipe": entry.recipe, **on_tasks}.items():
            set_here = set_values(layer)
            odd = [f for f in ADAPTER_FIELDS if f not in method.settings and f in set_here]
            if layer.adalora is not None and not method.schedule:
                odd.append("adalora")
            for name in odd:
                yield f"{at}.{layer_name}.{name}: means nothing for {entry.method}, remove it"
            for name in (*VARIED, *FORM):
                if name in set_values(layer):
                    vary = ", or vary it for all cells with a profile's vary"
                    yield (
                        f"{at}.{layer_name}.{name}: must be the same for all methods; set it in "
                        "the recipe of the suite, a profile or a task"
                        f"{vary if name in VARIED else ''}"
                    )
        yield from check_grid(entry, method, at)
        for cell, _ in entry.cells():
            if cell in seen:
                yield (
                    f"{at}: the cell {cell_words(cell)} stands in the list twice; tell entries of "
                    "one method apart by `variant`"
                )
            seen.add(cell)


def option_conflicts(entry: MethodEntry) -> Iterator[tuple[str, str]]:
    """(name, what is wrong) of options that can't be as they stand together."""
    method = known_method(entry.method)
    every = {one.name: one.default for one in method.options or ()} | entry.options
    if check := CONFLICTS.get(entry.method):
        yield from check(every)


def check_grid(entry: MethodEntry, method: Method, at: str) -> Iterator[str]:
    """Faults of the values that trials try."""
    rates = entry.learning_rates or []
    if rates != sorted(set(rates)):
        yield f"{at}.learning_rates: found {rates}; each rate once, in ascending order"
    if entry.tune is None:
        return
    if entry.learning_rates is not None:
        yield f"{at}.learning_rates: stands beside `tune`; write it there, as tune.learning_rate"
    for name, values in entry.tune.items():
        where = f"{at}.tune.{name}"
        if None in values:
            yield f"{where}: found {values}; null says nothing, leave it out"
            continue
        texts = list(map(repr, values))
        if len(set(texts)) < len(texts):
            yield f"{where}: found {values}; each value once"
        elif all(isinstance(value, int | float) for value in values) and values != sorted(values):
            yield f"{where}: found {values}; numbers in ascending order"
        setting, dot, _ = name.partition(".")
        if setting == "options":
            pass  # every value is looked at below
        elif (setting in ADAPTER_FIELDS and setting not in method.settings) or (
            dot and not method.schedule
        ):
            yield f"{where}: means nothing for {entry.method}, remove it"
            continue
        for value in values:
            yield from (
                f"{where}: found {value!r}; {why}"
                for why in _value_faults(entry, method, name, value)
            )


def _value_faults(entry: MethodEntry, method: Method, name: str, value: Any) -> Iterator[str]:
    """What is wrong with a value of a setting."""
    try:
        _, options = tuned_layer({name: value})
    except ValidationError as error:
        yield error.errors()[0]["msg"]
        return
    for option, fault in method.option_faults(entry.options | options):
        if option in options:
            yield fault


def check_sizes(entry: MethodEntry, method: Method, at: str) -> Iterator[str]:
    """Faults of an entry's sizes, which `size` gives for every method that has one."""
    for name, values in entry.sizes.items():
        if method.size is None:
            what = "size" if name == "size" else name
            yield f"{at}.{name}: found {values}; {entry.method} has no {what}, remove it"
        elif name not in ("size", method.size):
            yield (
                f"{at}.{name}: found {values}; {entry.method} has no {name}, "
                f"its size is `{method.size}` (or just `size`)"
            )
    if len(entry.sizes) > 1 and "size" in entry.sizes:
        other = next(name for name in entry.sizes if name != "size")
        yield f"{at}.size: stands beside `{other}`, which is another word for it; give one"
    if entry.budget is not None and not method.budget:
        yield f"{at}.budget: found {entry.budget}; {entry.method} has no size to solve for"
    needs_size = method.size is not None and method.family != "peft"
    if needs_size and not entry.sizes and entry.budget is None:
        or_budget = ", or a budget" if method.budget else ""
        yield (
            f"{at}.size: missing; {entry.method} needs at least one {method.size_word}{or_budget}"
        )


def cell_words(cell: Cell) -> str:
    """A cell by the names that suites give it."""
    words = [cell.method, size_text(cell.method, cell.size), cell.quantization]
    text = " ".join(filter(None, words))
    return f"{text} variant {cell.variant!r}" if cell.variant else text
