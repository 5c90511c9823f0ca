"""A model's layers through torch.compile, for training and the scores between its steps.

Layers are compiled one by one, where they are (`nn.Module.compile`): a model's layers are alike, so
that the code of one serves all, and what a batch decides (its mask, what a method puts before the
layers) stays outside. All is compiled before the first step, on passes whose gradients are
dropped, so that no timed step holds any of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peftmark.catalog.task import Task
from peftmark.lab.data.batches import Batch
from peftmark.lab.data.job_data import Work
from peftmark.lab.determinism import strictly
from peftmark.lab.errors import Unsupported
from peftmark.lab.measure.meters import Meters
from peftmark.lab.memory import compiler
from peftmark.lab.memory.insides import compile_seconds
from peftmark.lab.methods import Prepared
from peftmark.lab.padding import known_padding
from peftmark.lab.scoring import outputs_of
from peftmark.lab.step import task_loss
from peftmark.lab.train import Progress
from peftmark.record.job import Job

BACKEND = "inductor"
"""What makes kernels of a layer."""
KINDS_OF_LAYERS = 8
"""Versions of a layer's code, for each layer there is: training and scoring, with a mask and
without."""
LOOKED_AT = 64
"""Training batches among which one without padding is looked for."""
TOLD_FROM = 0.1
"""Seconds of compiling after the first step that a row is warned of."""
WITHOUT = "set compile: false"


def repeated_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that a model repeats, in their order: of lists of modules of one class the
    outermost ones'."""
    found: list[nn.Module] = []
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or (inside and name.startswith(inside)):
            continue
        kinds = {type(layer) for layer in module}
        if len(kinds) == 1 and any(True for _ in module.parameters()):
            inside += (f"{name}.",)
            found += list(module)
    return found


@contextmanager
def compiled(
    job: Job, task: Task, prepared: Prepared, work: Work, meters: Meters, progress: Progress
) -> Iterator[list[str]]:
    """The model's layers are compiled inside, if the recipe asks for it, and not afterwards.

    Args:
        progress: told of the phase.

    Yields:
        Takes what is to be said of it in the row, at the end.

    Raises:
        Unsupported: nothing here compiles, or torch can't compile these layers.
    """
    notes: list[str] = []
    if not job.recipe.compile:
        yield notes
        return
    if prepared.stage is not None:
        raise Unsupported(
            f"{job.method} changes its layers in the middle of training, and would be compiled "
            f"again in a timed step; {WITHOUT}"
        )
    layers = repeated_layers(prepared.model)
    if not layers:
        raise Unsupported(f"the model repeats no layers that could be compiled; {WITHOUT}")
    device = torch.device(job.device)
    _check_here(device)
    progress({"phase": "compile"})
    before = compile_seconds()
    with compiler.strictly(KINDS_OF_LAYERS * len(layers)), _told():
        for layer in layers:
            layer.compile(backend=BACKEND, dynamic=True)
        try:
            with meters.phase("compile"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's own code, while it traces
                _first_passes(job, task, prepared, work, device)
            first = compile_seconds() - before
            yield notes
        finally:
            for layer in layers:
                layer._compiled_call_impl = None
    whole = compile_seconds() - before
    meters.note("compile_seconds", whole)
    if (late := whole - first) >= TOLD_FROM:
        notes.append(
            f"layers were compiled again for {late:.1f} s after the first step: step times hold "
            "some of it"
        )


def _check_here(device: torch.device) -> None:
    """
    Raises:
        Unsupported: what makes kernels for the device is not installed.
    """
    if device.type != "cpu":
        if not compiler.has_gpu_kernels():
            raise Unsupported(
                f"compile: true needs triton and a GPU of compute capability 7.0; {WITHOUT}"
            )
        return
    if not compiler.has_cpp_compiler():
        raise Unsupported(
            "compile: true needs a C++ compiler on a CPU, and there is no g++ (or what CXX "
            f"names); install one, such as by `apt install g++`, or {WITHOUT}"
        )


@contextmanager
def _told() -> Iterator[None]:
    """What the compiler can't do becomes a reason; an error of the model's own stays as it is."""
    try:
        yield
    except compiler.failures() as error:
        text = " ".join(str(error).split())[:200]
        raise Unsupported(
            f"torch.compile can't compile these layers ({type(error).__name__}: {text}); {WITHOUT}"
        ) from error


def _first_passes(
    job: Job, task: Task, prepared: Prepared, work: Work, device: torch.device
) -> None:
    """Passes over batches of each kind that there is; nothing of them is left but compiled code."""
    model = prepared.model
    with strictly():
        for batch in _kinds(work.train, work.longest, job.recipe.pass_rows):
            moved = batch.to(device)
            with known_padding(moved.shape.padded):
                loss: Any = task_loss(model, moved, task, job, device)
            loss.backward()
    for parameter in model.parameters():
        parameter.grad = None
    model.eval()
    held = [work.eval.batches, work.selection.batches if work.selection is not None else []]
    with torch.inference_mode():
        for batch in _distinct([one for batches in held for one in batches]):
            if not batch.asked:
                outputs_of(model, batch.to(device), job, device)
    model.train()
    prepared.gates()  # those of the passes above are of no evaluation


def _kinds(train: Any, longest: Sequence[int], rows: int) -> list[Batch]:
    """The passes of the shortest and the longest training batch and of the first ones that matter
    (`_distinct`)."""
    ends = longest.index(min(longest)), longest.index(max(longest))
    steps = dict.fromkeys((*ends, *range(min(len(longest), LOOKED_AT))))
    batches = [train(step) for step in steps]
    return _distinct([part for batch in batches for part in batch.parts(rows)])


def _distinct(batches: Sequence[Batch]) -> list[Batch]:
    """The shortest and the longest with padding and without, which is what code depends on."""
    found: list[Batch] = []
    for padded in (True, False):
        of_kind = sorted(
            (one for one in batches if one.shape.padded == padded), key=lambda b: b.shape.tokens
        )
        if of_kind:
            found += [of_kind[0], of_kind[-1]] if len(of_kind) > 1 else of_kind
    return found
