"""What each method can do, tried on tiny random models: nothing here reads what the catalogue says
of it, so that the two can be held against each other.

A method is put onto a language model and onto an encoder, trained for a few steps and saved. What
is asked of merged, switched and swapped models is asked on the language model, if the method runs
there, and of a second adapter that another seed and another order of the rows gave.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from traceback import walk_tb
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.hotswap import hotswap_adapter
from torch import nn

from peftmark.catalog.capabilities import Answer, Capabilities
from peftmark.catalog.methods import known_method
from peftmark.catalog.quantizations import QUANTIZATIONS, of_family
from peftmark.catalog.task import Example
from peftmark.catalog.tried_architectures import Class
from peftmark.lab import fit
from peftmark.lab.architecture_trials import task_of
from peftmark.lab.capability_grounds import Adapter, Ground, apart, trained
from peftmark.lab.data.held_out import HeldOut
from peftmark.lab.export.several import FIRST, NO_ADAPTER, OTHER, load_beside
from peftmark.lab.leave import CONFIG
from peftmark.lab.methods.features import Frozen, learn_words
from peftmark.lab.methods.peft_options import quiet
from peftmark.lab.models import Unsupported
from peftmark.lab.quantization.table import is_quantised, maker_of_weight

MOST_APART = 1e-4
"""Of fp32 outputs, between models that are to be the same function."""
MOST_APART_ROUNDED = 1e-3
"""The same where layers round inputs to 8 bits: a difference in the last bit may become a step
(prefix tuning, whose files hold what its network computed, was 2e-4 off; OLoRA, which isn't what it
saved there, 5e-3)."""
LEAST_MOVED = 3e-4
"""Of outputs, between the base and a model whose adapter is to have a part in it."""
ROUNDINGS = 3
"""How many times as far as quantising the base moved its outputs a merge into it may (assumption:
PEFT's right ones were within 2, and LoRA's merge in the place of DoRA's at 11 or more)."""
MOST_CHARACTERS = 300
"""Of what a library says."""
YES = Answer(True)


def no(error: Exception | str) -> Answer:
    """A refusal, in the words of whoever refuses."""
    text = " ".join(str(error).split())
    if isinstance(error, str | Unsupported):
        return Answer(False, text)
    if not text:  # then where it was raised says most
        frames = [frame for frame, _ in walk_tb(error.__traceback__)]
        text = f"raised by {frames[-1].f_code.co_qualname}"
    return Answer(False, f"{type(error).__name__}: {text}"[:MOST_CHARACTERS])


def runs(adapter: Adapter) -> Answer:
    """Whether training had an effect that its files keep. A method that writes to quantised weights
    and rounds them again is another one on a fresh base."""
    error = apart(adapter.trained_says, adapter.says)
    rounded = adapter.ends.quantization in of_family("bitsandbytes-8bit")
    if not error <= (MOST_APART_ROUNDED if rounded else MOST_APART):
        return no(f"loaded again its outputs are {error:.1g} off those of training")
    moved = apart(adapter.says, adapter.base_says)
    if not moved >= LEAST_MOVED:
        return no(f"trained, its outputs are {moved:.1g} off those of the base")
    return YES


def merges(adapter: Adapter) -> Answer:
    """Whether the adapter folds into its base: a plain model is left that says the same, and not
    what the base says. PEFT is asked also where the method itself knows of no merge."""
    model: Any = adapter.loaded()
    own, why_not = adapter.prepared.merge, adapter.prepared.merge_reason
    packed = packed_numbers(model)
    if own is None and not isinstance(model, PeftModel | BaseTuner):
        if tensors_of(model) == tensors_of(adapter.ground.base(adapter.ends)):
            return Answer(None, "what trains are the base's own tensors: nothing is left to merge")
        return no(why_not)
    try:
        with _silent():
            merged = own(model)[0] if own else model.merge_and_unload()
        says = adapter.ground.outputs(merged, adapter.ends)
    except Exception as raised:
        told = no(raised)
        return told if own else Answer(False, f"{why_not}. PEFT: {told.reason}")
    if left := [name for name, part in merged.named_modules() if isinstance(part, BaseTunerLayer)]:
        return no(f"merged, an adapter is left on {left[0]}")
    error, moved = apart(says, adapter.says), apart(says, adapter.base_says)
    # What is near the adapter all the same was merged into something else, as into biases.
    if packed and error >= moved and packed == packed_numbers(merged, list(packed)):
        return no("merged, the quantised weights are those of the base: what was added is lost")
    quantization = adapter.ends.quantization
    if quantization == "none":
        most, least = MOST_APART, LEAST_MOVED
    else:  # merged weights are rounded once more, which hides a small update from the outputs
        times = ROUNDINGS if own else 1  # that PEFT's is right where ours is refused wants more
        most, least = times * adapter.ground.rounding(quantization), MOST_APART
    if error <= most and moved >= least:
        return YES
    return no(
        f"merged, its outputs are {error:.1g} off those of the adapter (at most {most:.1g} are "
        f"right) and {moved:.1g} off those of the base"
    )


def packed_numbers(model: nn.Module, names: Sequence[str] = ()) -> dict[str, list[bytes]]:
    """The numbers of quantised weights, constants included, by the names of their layers.

    Args:
        names: the layers; without them those that an adapter of PEFT's sits on.
    """
    found = {}
    for name, part in model.named_modules():
        layer: Any = part.get_base_layer() if isinstance(part, BaseTunerLayer) else part
        plain_name = name.removeprefix("base_model.model.")
        if plain_name not in names and (names or layer is part):
            continue
        weight = getattr(layer, "weight", None)
        if isinstance(weight, nn.Parameter) and is_quantised(weight):
            maker = maker_of_weight(weight)
            found[plain_name] = [
                t.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
                for t in (*maker.values(weight), *maker.constants(layer))
            ]
    return found


def several(one: Adapter, other: Adapter) -> Answer:
    """Whether two adapters are held on one base, each to the bits of itself alone."""
    model: Any = one.loaded()
    if not _of_peft(one, model):
        return no(NO_ADAPTER)
    try:
        with _silent():
            load_beside(model, other.folder, OTHER)
            second = _switched(model, OTHER, one)
            first = _switched(model, FIRST, one)
    except Exception as error:
        return no(error)
    if not torch.equal(first, one.says):
        return no(f"switched back, the first is {apart(first, one.says):.1g} off itself alone")
    if not torch.equal(second, other.says):
        return no(f"switched to, the second is {apart(second, other.says):.1g} off itself alone")
    return YES


def _of_peft(adapter: Adapter, model: nn.Module) -> bool:
    return isinstance(model, PeftModel) and (adapter.folder / CONFIG).is_file()


def _switched(model: Any, name: str, adapter: Adapter) -> torch.Tensor:
    model.set_adapter(name)
    return adapter.ground.outputs(model, adapter.job)


def hot_swaps(one: Adapter, other: Adapter) -> Answer:
    """Whether PEFT puts the weights of another adapter in place of one's, to the bits of that other
    loaded afresh."""
    model: Any = one.loaded()
    if not _of_peft(one, model):
        return no(NO_ADAPTER)
    try:
        with _silent():
            hotswap_adapter(model, str(other.folder), FIRST, torch_device=one.job.device)
    except Exception as error:
        return no(error)
    found = one.ground.outputs(model, one.job)
    if not torch.equal(found, other.says):
        return no(f"swapped, it is {apart(found, other.says):.1g} off the other loaded afresh")
    return YES


@contextmanager
def _silent() -> Iterator[None]:
    """What libraries warn of is no answer: what comes out is looked at."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tensors_of(model: nn.Module) -> set[tuple[str, str]]:
    """Names of a model's modules and tensors with their classes: equal for models of one build."""
    return {(name, type(part).__name__) for name, part in model.named_modules()} | {
        (name, "tensor") for name in model.state_dict()
    }


# --- a method's answers --------------------------------------------------------------------------


def attempt(
    ground: Ground, method: str, quantization: str = "none", seed: int = 0
) -> Adapter | Answer:
    """A method trained and saved, which runs; or why it doesn't."""
    folder = Path(tempfile.mkdtemp(dir=ground.folder))
    try:
        with _silent():
            adapter = trained(ground, ground.job(method, quantization, seed), folder)
            found = runs(adapter)
    except Exception as error:
        found = no(error)
    return adapter if found.holds else found


def _probe(method: str, on: Mapping[Class, Ground]) -> Capabilities:
    """Everything that is asked of a method that trains."""
    speaker, encoder = on["language model"], on["classifier"]
    spoken = _tried(speaker, method)
    read = _tried(encoder, method, everywhere=not _home(spoken))
    ground, every = (speaker, spoken) if _home(spoken) else (encoder, read)
    every = {key: _as_itself(a, every["none"]) for key, a in every.items()}
    home = _home(every) or "none"
    one, other = every[home], attempt(ground, method, home, seed=1)
    return Capabilities(
        merges={key: merges(a) for key, a in every.items() if isinstance(a, Adapter)},
        several=_of_two(several, one, other),
        hot_swaps=_of_two(hot_swaps, one, other),
        encoders=_answer(read[_home(read) or "none"]),
        language_models=_answer(spoken[_home(spoken) or "none"]),
        sits_on={key: _answer(a) for key, a in every.items()},
        devices={"cpu": _answer(one), "cuda": _on_cuda(ground, method, home)},
    )


def with_bases(
    method: str, one: Capabilities, keys: Sequence[str], on: Mapping[Class, Ground]
) -> Capabilities:
    """The answers of a method with those on further base formats."""
    known = known_method(method)
    if not known.trains:
        return probe_method(method, on)
    ground = on["language model" if one.language_models.holds else "classifier"]
    plain = attempt(ground, method)
    more = {key: _as_itself(attempt(ground, method, key), plain) for key in keys}
    merged = {key: merges(a) for key, a in more.items() if isinstance(a, Adapter)}
    return replace(
        one,
        merges={**one.merges, **merged},
        sits_on={**one.sits_on, **{key: _answer(a) for key, a in more.items()}},
    )


def _tried(ground: Ground, method: str, everywhere: bool = True) -> dict[str, Adapter | Answer]:
    """Base format -> what came of the method there.

    Args:
        everywhere: whether to go on where it runs on one.
    """
    found: dict[str, Adapter | Answer] = {}
    for key in QUANTIZATIONS:
        found[key] = attempt(ground, method, key)
        if isinstance(found[key], Adapter) and not everywhere:
            break
    return found


def _as_itself(there: Adapter | Answer, plain: Adapter | Answer) -> Adapter | Answer:
    """What came of a method on a base; a refusal where it isn't the method that it is on weights as
    loaded.

    PEFT's layers for quantised weights leave some variants of LoRA out, others of its types take
    packed numbers for weights, and what changes an unpacked copy of a weight is lost.
    """
    if isinstance(there, Answer) or isinstance(plain, Answer):
        return there
    if torch.equal(there.says, _lora(there)) and not torch.equal(plain.says, _lora(plain)):
        return no("trained, it says what LoRA says, to the bit, and not so on weights as loaded")
    quantization = there.job.quantization
    if apart(plain.start_says, plain.ground.base_says("none")) > MOST_APART:
        if torch.equal(there.start_says, there.base_says):
            return no(
                "untrained, it says what the base says, to the bit, and not so on weights as "
                "loaded: what it does to them is lost"
            )
        return there  # it starts as another function anyway, as random prompts do
    off = apart(there.start_says, there.ground.base_says(quantization))
    if not off <= max(MOST_APART, ROUNDINGS * there.ground.rounding(quantization)):
        return no(f"untrained, its outputs are {off:.1g} off those of the base")
    return there


def _lora(adapter: Adapter) -> torch.Tensor:
    """What LoRA says after the same steps."""
    ground, key = adapter.ground, f"LoRA {adapter.job.quantization}"
    if key not in ground.said:
        lora = attempt(ground, "lora", adapter.job.quantization, seed=adapter.job.seed)
        ground.said[key] = lora.says if isinstance(lora, Adapter) else torch.tensor(torch.nan)
    return ground.said[key]


def _home(tried: Mapping[str, Adapter | Answer]) -> str | None:
    """The first base format on which a method runs, as loaded wherever it can."""
    return next((key for key, a in tried.items() if isinstance(a, Adapter)), None)


def _answer(tried: Adapter | Answer) -> Answer:
    return YES if isinstance(tried, Adapter) else tried


def _of_two(
    ask: Callable[[Adapter, Adapter], Answer], one: Adapter | Answer, other: Adapter | Answer
) -> Answer:
    if isinstance(one, Answer):
        return one
    return other if isinstance(other, Answer) else ask(one, other)


def _on_cuda(ground: Ground, method: str, quantization: str) -> Answer:
    if not torch.cuda.is_available():
        return Answer(None, "there was no GPU where it was probed")
    there = Ground(ground.made, ground.folder, torch.device("cuda"))
    return _answer(attempt(there, method, quantization))


# --- methods that train nothing -------------------------------------------------------------------


def probe_method(method: str, on: Mapping[Class, Ground]) -> Capabilities:
    """Everything that is asked of a method."""
    known = known_method(method)
    if known.trains:
        return _probe(method, on)
    ground = on["classifier" if known.fits else "language model"]
    found = {key: _without_training(ground, method, key) for key in QUANTIZATIONS}
    nothing = Answer(None, known.untrained)
    elsewhere = (
        no(fit.refusal(on["language model"].job(method), task_of("language model")))
        if known.fits
        else Answer(None, "an encoder's head is drawn at random: untrained it says nothing")
    )
    encoders, language_models = (
        (found["none"], elsewhere) if known.fits else (elsewhere, found["none"])
    )
    unseen = Answer(None, "there was no GPU where it was probed")
    return Capabilities(
        merges={"none": nothing},
        several=nothing,
        hot_swaps=nothing,
        encoders=encoders,
        language_models=language_models,
        sits_on=found,
        devices={"cpu": found["none"], "cuda": unseen},
    )


def _without_training(ground: Ground, method: str, quantization: str) -> Answer:
    """Whether what the method looks at can be had from a base."""
    fits = known_method(method).fits
    job = ground.job(method, quantization)
    if fits == "words":
        if quantization != "none":
            return Answer(None, "no weight of the model is read")
        learn_words(HeldOut([], np.ones(1), examples=(Example("one two", None, 0),)))
        return YES
    try:
        with _silent():
            base = ground.base(job)
            if fits:
                frozen = Frozen(fit.encoder_of(base), job, ground.device)
                frozen.embed(HeldOut(ground.batches[-2:], np.ones(1)))
            elif not torch.isfinite(ground.outputs(base, job)).all():
                return no("its outputs are not finite")
    except Exception as error:
        return no(error)
    return YES
