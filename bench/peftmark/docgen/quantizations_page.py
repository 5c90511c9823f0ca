"""`python -m peftmark.docgen.quantizations_page` asks the libraries again for what they refuse, and
writes docs/quantizations.md.

What can't be asked with the packages that are installed keeps the answer that is stored; HQQ's need
the package hqq, which is no part of peftmark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from peftmark.catalog.methods import METHODS
from peftmark.catalog.peft_types import PEFT_TYPES
from peftmark.catalog.quantizations import QUANTIZATIONS, Family, of_family
from peftmark.core.files import write_all
from peftmark.docgen.methods_page import bases

if TYPE_CHECKING:
    from peftmark.lab.quantization.refused import Refusal

PAGE = Path("docs") / "quantizations.md"
STORED = Path(__file__).with_name("refusals.json")
PACKAGES = ("torch", "transformers", "peft", "torchao", "optimum-quanto", "hqq")

HEAD = """\
# Quantizations: which back-end takes which method

Scope: every quantization that a suite can name, the methods that train on it, and what other
back-ends answered when they were asked. Limits: tried on CPUs, with the versions named below; that
a method trains on a back-end says nothing about its quality there. Speed on a GPU, where a back-end
may have kernels of its own, was not measured.

Written by `python -m peftmark.docgen.quantizations_page`; don't edit.

## What a suite can name

| key | what it is | bits | reload differs by at most | after a merge |
|---|---|---|---|---|
"""
METHODS_HEAD = """
All of them train on a CPU. Their memory is predicted without weights and without a download, and
tests hold predictions to measured bytes (`tests/lab/test_fake_step.py`, `test_quantization.py` and
`test_quanto.py` there).
int8-quanto takes `weights: bf16` or `fp16`; fp8-quanto and int4-quanto take `fp32` alone, since of
scales in 16 bits quanto makes weights of other classes, for kernels of its own. A quanto layer
multiplies in the type of its scales, under autocast too, and its base can't be written to a folder:
every job quantises its own. torchao's layers keep their weights unpacked from the forward
pass to the backward one, so that training takes more memory than 8 bits let expect.

## Methods

A yes: the method trains on every quantization of the back-end, or refuses a setting with a reason.

"""
REFUSED_HEAD = """
PEFT's own types that torchao's tensors refuse ask for operations they have no code for; `deft`
would train on torchao's FP8, but not on its int8, and a back-end takes a type or doesn't. quanto
refuses FRoD, which changes the type of a weight, and GLoRA takes plain layers alone.

No adapter is merged into quanto's weights: PEFT adds the update to an unpacked copy that is then
dropped, without an error, and the merged model is the base's. peftmark refuses.

## What isn't offered, in the libraries' own words

Each was asked for, on a CPU, with {versions}.

| wanted | asked for | of | answer |
|---|---|---|---|
"""
TAIL = """
What could be installed, by the packages' own metadata (2026-11-30, `uv pip compile` with the pins
of constraints.txt):

- GPTQ and AWQ: transformers {transformers} and PEFT {peft} know both through gptqmodel alone, and
  PEFT from 7.0.0 on. Its versions 7.0.0 to 7.6.0 require numpy 2.2.6, 7.7.0 requires torch 2.14.1;
  numpy is pinned at 2.4.6 and torch at 2.13.0 here. So neither was tried. PEFT has LoRA layers for
  both; they have no merge.
- HQQ: `hqq` {hqq} can be installed. transformers refuses it, as above. `HQQLinear`, put in the
  place of a tiny encoder's layers by hand, trains PEFT's LoRA on a CPU (loss 0.70 to 0.40 in six
  steps) and merges it (logits 0.008 apart); AdaLoRA is refused, as above. It is no quantization
  here: its weights are plain tensors beside their constants, known by the layer and not, as every
  other back-end's, by the class of the weight.
- int4 of torchao: the format `plain` requires the package mslk, the others a GPU, and PEFT refuses
  LoRA on its weights either way.
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
        f"| `{q.key}` | {q.summary} | {q.bits} | {q.reload_tolerance:g} | {q.merged} |"
        for q in QUANTIZATIONS.values()
    ]
    ours = {m.key: m.quantizations for m in METHODS.values() if m.trains and not m.code}
    types = {f"peft:{k.key}": bases(k) for k in PEFT_TYPES.values() if not k.refused}
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(
        [
            HEAD.rstrip("\n"),
            *named,
            METHODS_HEAD.rstrip("\n"),
            "",
            *_grouped(ours | types),
            REFUSED_HEAD.rstrip("\n").format(versions=told),
            *(_answer(one, facts["answers"][one.key]) for one in REFUSALS),
            TAIL.format_map(versions),
        ]
    )


def _grouped(takes: Mapping[str, tuple[str, ...]]) -> Iterable[str]:
    """The methods that sit on the same back-ends together, those on most first."""
    families = get_args(Family)
    groups: dict[tuple[bool, ...], list[str]] = {}
    for method, keys in takes.items():
        on = tuple(set(of_family(family)) <= set(keys) for family in families)
        groups.setdefault(on, []).append(method)
    yield f"| {' | '.join(['methods', *families])} |"
    yield "|---" * (len(families) + 1) + "|"
    for on, methods in sorted(groups.items(), key=lambda one: (-sum(one[0]), one[1][0])):
        cells = ["yes" if one else "no" for one in on]
        yield f"| {', '.join(f'`{m}`' for m in methods)} | {' | '.join(cells)} |"


def _answer(one: Refusal, answer: str) -> str:
    return f"| {one.of} | {one.asked} | {one.by} | {answer.replace('|', '/')} |"


def main() -> None:
    """Write page and answers below the working directory."""
    facts: Any = ask()
    write_all({STORED: json.dumps(facts, indent=1, sort_keys=True) + "\n", PAGE: page(facts)})


if __name__ == "__main__":
    main()
