"""The file of what methods can do: whole, reasoned, and at one with what the catalogue declares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from peftmark.catalog.capabilities import (
    AGAIN,
    ALL_THE_SAME,
    NOT_TRIED,
    PROBED,
    Answer,
    Capabilities,
    Probed,
    probed,
    read,
    written,
)
from peftmark.catalog.method import Method
from peftmark.catalog.methods import METHODS, PREFIX, all_methods
from peftmark.catalog.peft_types import (
    NOT_ON_QUANTO,
    NOT_ON_TORCHAO,
    ON_8BIT,
    PEFT_TYPES,
)
from peftmark.catalog.quantizations import QUANTIZATIONS, of_family

EVERY = all_methods()
BITSANDBYTES = of_family("bitsandbytes-4bit", "bitsandbytes-8bit")


def answers(one: Capabilities) -> Iterator[Answer]:
    for value in vars(one).values():
        yield from [value] if isinstance(value, Answer) else value.values()


def declared_bases(method: Method) -> set[str]:
    """The base formats that the catalogue lets a method sit on."""
    kind = PEFT_TYPES.get(method.key.removeprefix(PREFIX))
    if method.key in METHODS or kind is None:
        return set(method.quantizations)
    if kind.refused and kind.not_causal:
        return set()
    found = {"none", *(BITSANDBYTES if kind.quantized else ())}
    found |= set(of_family("bitsandbytes-8bit") if kind.key in ON_8BIT else ())
    found |= set(of_family("torchao-8bit") if kind.key not in NOT_ON_TORCHAO else ())
    return found | set(of_family("quanto") if kind.key not in NOT_ON_QUANTO else ())


def contradictions(method: Method, one: Capabilities) -> Iterator[str]:
    """Where the catalogue and the probe say different things of a method."""
    held = {key for key, answer in one.sits_on.items() if answer.holds}
    open_yet = {key for key, answer in one.sits_on.items() if answer.reason == NOT_TRIED}
    for key in sorted((held ^ declared_bases(method)) - open_yet):
        yield f"on {key}: the catalogue {key not in held}, probed {one.sits_on[key]}"
    if one.language_models.holds == bool(method.not_causal):
        yield f"language models: {method.not_causal!r}, probed {one.language_models}"
    kind = PEFT_TYPES.get(method.key.removeprefix(PREFIX))
    if method.key in METHODS or kind is None:
        return
    if one.encoders.holds == bool(kind.refused):
        yield f"encoders: {kind.refused!r}, probed {one.encoders}"
    for key in one.merges.keys() & {"none", *BITSANDBYTES}:  # others' are in lab/quantization
        into = {"no": (), "float": ("none",), "8-bit": ("none", "int8"), "any": QUANTIZATIONS}
        merges = key in into[kind.merges]
        if one.merges[key].holds != merges:
            yield f"merging into {key}: {kind.merges}, probed {one.merges[key]}"


@pytest.mark.parametrize("key", EVERY)
def test_every_method_was_asked_everything(key):
    one = probed().methods.get(key)
    assert one is not None, f"{key} has no entry in {PROBED.name}: run {AGAIN} --missing"
    again = f"run {AGAIN} {key}"
    assert list(one.sits_on) == list(QUANTIZATIONS), again
    assert set(one.devices) == {"cpu", "cuda"}, again
    assert set(one.merges) <= set(QUANTIZATIONS), again
    for answer in answers(one):
        assert bool(answer.reason) == (answer.holds is not True), again


def test_nothing_else_stands_in_the_file():
    gone = sorted(set(probed().methods) - set(EVERY))
    assert not gone, f"no methods any more: {gone}; take them out of {PROBED.name}"


def test_no_reason_is_a_mistake_of_the_probe():
    """A name that isn't there, or a call with other arguments than a function has, is ours."""
    wrong = re.compile(
        r"AssertionError(?!( in PEFT)?: Don't expect to reach)|NameError|FileExists|"  # torchao's
        r"KeyError: 'tried'|/tmp/|positional arg"
    )
    for key, one in probed().methods.items():
        found = [answer.reason for answer in answers(one) if wrong.search(answer.reason)]
        assert not found, (key, found)


@pytest.mark.parametrize("key", EVERY)
def test_the_catalogue_and_the_probe_agree(key):
    found = list(contradictions(EVERY[key], probed().methods[key]))
    for method, base in ALL_THE_SAME:
        if key == method and probed().methods[key].sits_on[base].reason != NOT_TRIED:
            (said,) = [one for one in found if one.startswith(f"on {base}: ")]
            found.remove(said)  # else no exception is needed
    assert not found, f"{key}: {found}; one of them is wrong. The probe anew: {AGAIN} {key}"


def test_a_contradiction_of_every_kind_is_noticed():
    lora, yes, refused = probed().methods["peft:lora"], Answer(True), Answer(False, "said so")
    method = EVERY["peft:lora"]
    assert not list(contradictions(method, lora))
    for changed in (
        replace(lora, sits_on={**lora.sits_on, "nf4": refused}),
        replace(lora, language_models=refused),
        replace(lora, encoders=refused),
        replace(lora, merges={**lora.merges, "none": refused}),
        replace(lora, merges={**lora.merges, "int8": refused}),
    ):
        assert len(list(contradictions(method, changed))) == 1
    full = probed().methods["full"]
    on_nf4 = replace(full, sits_on={**full.sits_on, "nf4": yes})
    assert len(list(contradictions(EVERY["full"], on_nf4))) == 1
    assert len(list(contradictions(replace(EVERY["full"], not_causal="and no"), full))) == 1


def test_the_file_reads_as_it_was_written():
    assert written(probed()) == PROBED.read_text(encoding="utf-8")
    one = Capabilities({"none": Answer(None, "why")}, *[Answer(True)] * 4, {}, {})
    assert read(written(Probed({"peft": "1"}, {"x": one}))) == Probed({"peft": "1"}, {"x": one})


def test_what_is_known_of_old_stands_there():
    """Facts of papers and of PEFT's own documentation, whatever was probed."""
    found = probed().methods
    assert found["lora"].hot_swaps.holds and found["lora"].several.holds
    assert found["lora"].merges["nf4"].holds and found["ia3"].merges["none"].holds
    assert not found["ia3"].merges["nf4"].holds
    assert "only supports LORA" in found["adalora"].hot_swaps.reason
    assert not found["adapter"].merges["none"].holds  # not linear
    assert found["bitfit"].merges["none"].holds is None  # nothing is left to merge
    assert found["prompt-tuning"].several.holds
    assert found["full"].sits_on["nf4"].holds is False
    assert found["loftq"].sits_on["none"].holds is False
