"""What methods can do, as tables for a terminal and for docs/methods.md, from the probed file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill

from peftmark.catalog.capabilities import AGAIN, Answer, Capabilities, Probed
from peftmark.catalog.method import Method
from peftmark.catalog.methods import all_methods
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.docgen.architectures_page import Reasons
from peftmark.render.plain_table import aligned

COLUMNS = 100
"""Of a terminal."""
PLAIN = "none"
NOT_PROBED = f"not probed; {AGAIN} does"
MOST_NAMED = 20
"""Characters of names that a column of the terminal has room for."""
_HEAD = ("method", "merges", "several", "swaps", "encoders", "LMs", "quantised bases", "devices")
_LEGEND = """\
merges: folds into its base, a plain model is left. several: adapters on one base, switched between.
swaps: another's weights in place of one's (PEFT's hotswap_adapter). LMs: causal language models.
-: nothing to ask, or not tried. ?: no method that was probed. Why not, and into which quantised
bases it merges: peftmark methods NAME."""


def terminal(found: Probed, other_versions: str = "") -> str:
    """Every method at a glance, in 100 columns.

    Args:
        other_versions: what is installed in other versions than methods were probed with.
    """
    rows = [(key, *_glance(found.methods.get(key))) for key in all_methods()]
    made = fill(f"Tried on tiny models with {_versions(found)}.", COLUMNS)
    if other_versions:
        made += "\n" + fill(f"Here is {other_versions}; {AGAIN} tries again.", COLUMNS)
    return "\n".join([*aligned(_HEAD, rows), "", _LEGEND, made])


def _versions(found: Probed) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.versions.items())


def _glance(one: Capabilities | None) -> tuple[str, ...]:
    """The cells of a method after its name."""
    if one is None:
        return ("?",) * (len(_HEAD) - 1)
    quantised = {key: answer for key, answer in one.sits_on.items() if key != PLAIN}
    return (
        _word(merging(one)),
        _word(one.several),
        _word(one.hot_swaps),
        _word(one.encoders),
        _word(one.language_models),
        _how_many(quantised),
        _those(one.devices) or "no",
    )


def merging(one: Capabilities) -> Answer:
    """Whether a method merges into weights as they were loaded; of one that only sits on quantised
    bases, into the first of these."""
    return next(iter(one.merges.values()), one.sits_on[PLAIN])


def _word(answer: Answer) -> str:
    return "-" if answer.holds is None else "yes" if answer.holds else "no"


def _how_many(answers: Mapping[str, Answer]) -> str:
    """What it holds for, by name where that is short."""
    if all(answer.holds for answer in answers.values()):
        return "all"
    names, held = _those(answers), sum(bool(answer.holds) for answer in answers.values())
    return names or "no" if len(names) <= MOST_NAMED else f"{held} of {len(answers)}"


def _those(answers: Mapping[str, Answer]) -> str:
    """What it holds for."""
    return " ".join(key for key, answer in answers.items() if answer.holds)


def _questions(one: Capabilities) -> Iterator[tuple[str, Answer]]:
    """Everything that was asked of a method, in words."""
    for base, answer in one.merges.items():
        yield f"merges into {base}", answer
    yield "several adapters", one.several
    yield "hot swap", one.hot_swaps
    yield "encoders", one.encoders
    yield "language models", one.language_models
    for base, answer in one.sits_on.items():
        yield f"base {base}", answer
    for device, answer in one.devices.items():
        yield device, answer


def explained(methods: Sequence[Method], found: Probed) -> str:
    """What each of some methods can do, with the reasons."""
    parts = []
    for method in methods:
        one = found.methods.get(method.key)
        asked = [("probed", Answer(None, NOT_PROBED))] if one is None else [*_questions(one)]
        rows = [(f"  {what}", f"{_word(a)}  {a.reason}".rstrip()) for what, a in asked]
        parts.append("\n".join([f"{method.key}: {method.title}", *aligned(("", ""), rows)[1:]]))
    return "\n\n".join(parts)


# --- docs/methods.md ------------------------------------------------------------------------------

_TEXT = """\
Each method was put onto a tiny random language model and a tiny random encoder with {versions},
trained for a few steps, saved and loaded. `{again}` does it again and
writes `bench/peftmark/catalog/capabilities.json`; what a suite is refused by the catalogue is held
to that file by tests. The words after a number are those of the library that refuses.

- **merges into**: base formats into which the adapter folds, so that a plain model is left: in fp32
  within 1e-4 of the adapter's outputs and not the base's; on a quantised base, whose merged weights
  are rounded again, within three times what quantising the base does to its outputs (within once
  where peftmark refuses the merge and PEFT's own was tried), and with other packed numbers.
- **several adapters**: a second one loaded beside the first on the same base; each gives the bits
  that it gives alone once it is switched to, also after switching back.
- **hot swap**: PEFT's `hotswap_adapter` puts another adapter's weights in place of the first's, and
  the outputs are the bits of that other loaded afresh; asked on the language model, where a method
  runs there: of a classifier PEFT's function ends at the head that is saved beside the adapter.
- **encoders**, **language models**, **quantised bases**, **devices**: it trains there, and its
  saved files loaded again say what it said. So far there was no GPU to try on; what runs on the CPU
  needs none.
- **-**: there is nothing to ask, such as merging where the base's own weights train.
"""


def section(found: Probed) -> list[str]:
    """The section of docs/methods.md, without its title."""
    reasons = Reasons()
    head = (
        "method",
        "merges into",
        "several adapters",
        "hot swap",
        "encoders",
        "language models",
        "quantised bases",
        "devices",
    )
    rows = [_row(key, found.methods.get(key), reasons) for key in all_methods()]
    table = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    text = _TEXT.format(versions=_versions(found), again=AGAIN)
    return [text, *table, "", *(line.replace("|", "\\|") for line in reasons.lines())]


def _row(key: str, one: Capabilities | None, reasons: Reasons) -> list[str]:
    if one is None:
        return [f"`{key}`", *[reasons.mark(NOT_PROBED)] * 7]
    quantised = {base: answer for base, answer in one.sits_on.items() if base in QUANTIZATIONS}
    quantised.pop(PLAIN, None)

    def word(answer: Answer) -> str:
        return reasons.mark(answer.reason) if answer.holds is False else _word(answer)

    def many(answers: Mapping[str, Answer]) -> str:
        yes = ", ".join(name for name, answer in answers.items() if answer.holds)
        refused = {name: a.reason for name, a in answers.items() if a.holds is False}
        by_mark: dict[str, list[str]] = {}
        for name, reason in refused.items():
            by_mark.setdefault(reasons.mark(reason).removeprefix("no "), []).append(name)
        not_on = ", ".join(f"{', '.join(names)} {mark}" for mark, names in by_mark.items())
        return "; ".join(part for part in (yes, not_on and f"not {not_on}") if part) or "-"

    return [
        f"`{key}`",
        many(one.merges),
        word(one.several),
        word(one.hot_swaps),
        word(one.encoders),
        word(one.language_models),
        many(quantised),
        many(one.devices),
    ]
