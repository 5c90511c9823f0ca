"""`python -m peftmark.docgen.quantizations_page` asks the libraries again for what they refuse, and
writes docs/quantizations.md.

What can't be asked with the packages that are installed keeps the answer that is stored; HQQ's need
the package hqq, which is no part of peftmark. Which method runs where is what
`peftmark.docgen.capabilities` found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.catalog.capabilities import ALL_THE_SAME, NOT_TRIED, Probed, probed
from peftmark.catalog.methods import all_methods
from peftmark.catalog.quantizations import QUANTIZATIONS, Quantization
from peftmark.core.files import write_all

if TYPE_CHECKING:
    from peftmark.lab.quantization.refused import Refusal

PAGE = Path("docs") / "quantizations.md"
STORED = Path(__file__).with_name("refusals.json")
PACKAGES = ("torch", "transformers", "peft", "torchao", "optimum-quanto", "hqq")

HEAD = """\
# Quantizations: which method runs on which back-end

Scope: every quantization that a suite can name, the methods that train on it, and what was asked
of other back-ends and refused, in the libraries' own words. Limits: tried on a CPU, on tiny
models, with the versions named below; that a method trains on a base says nothing of its quality
there, and how fast a back-end is on a GPU was not measured.

Written by `python -m peftmark.docgen.quantizations_page`; don't edit.

## What a suite can name

| `quantization:` | what it is | bits | install | reload differs by at most | after a merge |
|---|---|---|---|---|---|
"""
METHODS_HEAD = """
"Install" is what `pip install "..."` takes where peftmark alone isn't enough; without it a job
ends as unsupported and says so. "Reload" is the largest difference of a logit between the trained
model and its saved files that is no fault. Memory is predicted for all of them without weights,
and tests hold predictions to measured bytes.

- quanto: `int8-quanto` takes `weights: bf16` or `fp16` as well; `fp8-quanto` and `int4-quanto`
  take `fp32` alone, since of 16-bit scales quanto makes other classes of weights, for kernels of
  its own. A layer multiplies in the type of its scales, under autocast too. Bases can't be
  written to a folder, so each job quantises its own. Nothing merges into its weights: PEFT adds
  the update to an unpacked copy, which is dropped without an error, and the merged model would be
  the base.
- torchao: layers keep their weights unpacked from the forward pass to the backward one, so
  training takes more memory than 8 bits a weight let expect.

## Methods

**runs**: it trained there, and its saved files loaded again say what it said. **refused**: a
suite that asks for it is refused. **-**: there is nothing to ask. **not tried**: not yet, and a
suite is taken or refused as the catalogue expects; `python -m peftmark.docgen.capabilities
--missing` tries. Why something is refused, in the words of the library:
[methods.md](methods.md#what-each-can-do), or `peftmark methods NAME`.

"""
REFUSED_HEAD = """
## Asked for and not offered

Each was asked of the library on a CPU, with {versions}. A test asks again: once a library does
it, the test fails. None of them is in work.

| wanted | asked for | of | answer |
|---|---|---|---|
"""
TAIL = """
Why installing more doesn't help, by the packages' own metadata (2026-11-30, `uv pip compile` with
the pins of constraints.txt):

- GPTQ and AWQ: transformers {transformers} and PEFT {peft} know both through the package
  gptqmodel, GPTQ through the package optimum as well, and PEFT takes gptqmodel from 7.0.0 on.
  Versions 7.0.0 to 7.6.0 require numpy 2.2.6 and 7.7.0 requires torch 2.14.1; pinned here are
  numpy 2.4.6 and torch 2.13.0. So neither was trained on.
- HQQ: hqq {hqq} can be installed, and transformers refuses it, as above. `HQQLinear`, put by hand
  in the place of a tiny encoder's layers, trains PEFT's LoRA (loss 0.70 to 0.40 in six steps) and
  merges it (logits 0.008 apart); PEFT refuses AdaLoRA on it. Its weights are known by the layer
  that holds them, and those of every back-end here by their class.
- int4 of torchao: packed as `plain` it requires the package mslk, as `plain_int32` a GPU, and
  PEFT refuses LoRA on it either way.

A checkpoint of yours that bitsandbytes quantised is a base as it is; those of GPTQ, AWQ, HQQ,
torchao and quanto are refused: [own-models.md](own-models.md).
"""


def ask() -> dict[str, dict[str, str]]:
    """Answers and versions, those that can't be had now as they are stored."""
    from peftmark.lab.quantization.refused import REFUSALS, words

    old = stored()
    now = {one.key: words(one) or old["answers"].get(one.key, "not asked yet") for one in REFUSALS}
    return {"versions": old["versions"] | dict(_versions()), "answers": now}


def stored() -> dict[str, dict[str, str]]:
    """What was answered when the page was last written."""
    if not STORED.is_file():
        return {"versions": {}, "answers": {}}
    found: dict[str, dict[str, str]] = json.loads(STORED.read_text("utf-8"))
    return found


def _versions() -> Iterable[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue


def page(facts: Mapping[str, Mapping[str, str]]) -> str:
    """The page of the documentation."""
    from peftmark.lab.quantization.refused import REFUSALS

    versions = facts["versions"]
    named = [
        f"| `{q.key}` | {q.summary} | {q.bits} | {_installs(q)} | {q.reload_tolerance:g} | "
        f"{q.merged} |"
        for q in QUANTIZATIONS.values()
    ]
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(
        [
            HEAD.rstrip("\n"),
            *named,
            METHODS_HEAD.rstrip("\n"),
            "",
            *_grouped(probed()),
            *_exceptions(),
            REFUSED_HEAD.rstrip("\n").format(versions=told),
            *(_answer(one, facts["answers"][one.key]) for one in REFUSALS),
            TAIL.format_map(versions),
        ]
    )


def _installs(row: Quantization) -> str:
    return f"`{row.install}`" if row.install else "-"


def _grouped(found: Probed) -> Iterable[str]:
    """The methods that run on the same bases together, those on most first."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for method in all_methods():
        cells = tuple(_cell(found, method, base) for base in QUANTIZATIONS)
        groups.setdefault(cells, []).append(f"`{method}`")
    yield f"| methods | {' | '.join(QUANTIZATIONS)} |"
    yield "|---" * (len(QUANTIZATIONS) + 1) + "|"
    for cells, methods in sorted(groups.items(), key=lambda one: -one[0].count("runs")):
        yield f"| {', '.join(methods)} | {' | '.join(cells)} |"


def _exceptions() -> Iterable[str]:
    """What ran and is refused all the same."""
    bases: dict[tuple[str, str], list[str]] = {}
    for (method, base), why in ALL_THE_SAME.items():
        bases.setdefault((method, why), []).append(f"`{base}`")
    yield "\nRefused though they ran where they were tried:\n"
    for (method, why), there in bases.items():
        yield f"- `{method}` on {', '.join(there)}: {why}."


def _cell(found: Probed, method: str, base: str) -> str:
    """What came of a method on a base, and what a suite is told of it."""
    one = found.methods[method].sits_on[base]
    if one.holds and (method, base) in ALL_THE_SAME:
        return "refused"
    if one.holds is None:
        return "not tried" if one.reason == NOT_TRIED else "-"
    return "runs" if one.holds else "refused"


def _answer(one: Refusal, answer: str) -> str:
    return f"| {one.of} | {one.asked} | {one.by} | {answer.replace('|', '/')} |"


def main() -> None:
    """Write page and answers below the working directory."""
    facts: Any = ask()
    write_all({STORED: json.dumps(facts, indent=1, sort_keys=True) + "\n", PAGE: page(facts)})


if __name__ == "__main__":
    main()
