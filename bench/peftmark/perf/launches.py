"""How many operations a training step starts on a GPU, and how often it waits there, by cell.

On a GPU a short step is as long as its operations are many: each takes the host some microseconds
to start. The same step is taken here on a CPU, by a BERT of six layers with random weights, with
the choices that torch makes on a GPU (lists of tensors at once in AdamW and clipping, fused
dropout, autocast), and its operations are counted. Numbers of operations don't depend on widths.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.catalog.tasks import TASKS
from peftmark.record.job import Job
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite

if TYPE_CHECKING:
    from peftmark.lab.data.batches import Batch

LAYERS = 6
WIDTHS = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "vocab_size": 64}
ROWS, TOKENS = 8, 16
PHASES = ("before tinit", "budgeting", "masking", "final")
"""Of AdaLoRA: importance alone; a step of the falling budget without and with masks; fixed ranks,
masked in every step."""
TINIT, TFINAL, EVERY, STEPS = 3, 3, 2, 10
STEP_OF_PHASE = dict(zip(PHASES, (2, 5, 4, 9), strict=True))
STEP_OF_ANY = 2
"""The step that is counted where all are alike; the first makes the optimizer's states."""


@dataclass(frozen=True)
class Cell:
    """What is counted.

    Attributes:
        title: its name in the table.
        allocator: of AdaLoRA, whose code runs (the method's option).
        phases: of AdaLoRA, those of its training; others have one, without a name.
    """

    title: str
    method: str
    quantization: str = "none"
    allocator: str = ""
    phases: tuple[str, ...] = ("",)


CELLS = (
    Cell("head only", "head"),
    Cell("full fine-tuning", "full"),
    Cell("LoRA", "lora"),
    Cell("QLoRA (NF4)", "lora", "nf4"),
    *(
        Cell(f"AdaLoRA{base}, {words}", "adalora", quantization, allocator, PHASES)
        for quantization, base in (("none", ""), ("nf4", " (NF4)"))
        for allocator, words in (("peft", "PEFT's own"), ("batched", "batched"))
    ),
)


@dataclass(frozen=True)
class Counted:
    """A training step in numbers.

    Attributes:
        base: the quantization that it sits on.
        phase: of AdaLoRA's training; empty where all steps are alike.
        operations: that a GPU would be given; an operation on a list of tensors counts as the
            kernels that torch cuts it into.
        forward, backward, update: how many of them by part; the update is clipping, optimizer and
            allocation of ranks.
        waits: times that the host waits until the device has done what was started.
        causes: what it waits for -> how often.
    """

    cell: str
    method: str
    base: str
    phase: str
    operations: int
    forward: int
    backward: int
    update: int
    waits: int
    causes: dict[str, int]


def measure(cells: tuple[Cell, ...] = CELLS) -> Iterator[Counted]:
    """Count every phase of every cell."""
    with tempfile.TemporaryDirectory(prefix="peftmark-launches-") as folder:
        make_base(Path(folder))
        for cell in cells:
            yield from count(cell, Path(folder))


def make_base(folder: Path) -> None:
    """Save an encoder of `LAYERS` layers with random weights."""
    import torch
    from transformers import BertConfig, BertModel

    make: Any = BertConfig
    config = make(num_hidden_layers=LAYERS, max_position_embeddings=64, **WIDTHS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)


def job_of(cell: Cell) -> Job:
    """A job of suite `perf` as this cell, in so few steps that every phase is soon there."""
    jobs = expand(load_suite("perf"), "offline", "cpu").jobs
    nearest = cell.method if cell.method in ("lora", "adalora") else "lora"
    job = next(j for j in jobs if (j.method, j.quantization) == (nearest, "none"))
    recipe = replace(job.recipe, steps=STEPS, warmup_steps=1, head_dropout=None)
    if recipe.adalora is not None:
        plan = replace(recipe.adalora, tinit=TINIT, tfinal=TFINAL, delta_t=EVERY)
        options = {} if cell.allocator == "batched" else {"allocator": cell.allocator}
        recipe = replace(recipe, adalora=plan, options=options)
    if cell.quantization != "none":
        recipe = replace(recipe, double_quantization=True)
    if nearest != cell.method:
        job, recipe = replace(job, size=None), replace(recipe, targets=None, alpha=None)
    return replace(job, method=cell.method, quantization=cell.quantization, recipe=recipe)


def count(cell: Cell, folder: Path) -> Iterator[Counted]:
    """Train a cell and count the steps that stand for its phases.

    Args:
        folder: files of the base.
    """
    import torch

    from peftmark.lab.build import Build
    from peftmark.lab.measure.launch_counter import AsOnGpu, Launches
    from peftmark.lab.models import anatomy
    from peftmark.lab.rng import seed_all
    from peftmark.lab.step import Step

    torch.set_num_threads(1)
    job = job_of(cell)
    task = TASKS[job.task]
    work: Any = None  # these methods look at no batches before they are built
    build = Build(job, task, folder, anatomy(folder, task), work)
    prepared = build.prepare(build.base())
    step = Step(replace(job, device="cuda"), task, prepared, torch.device("cpu"))
    seed_all(job.seed, "dropout")
    wanted = {STEP_OF_PHASE.get(phase, STEP_OF_ANY): phase for phase in cell.phases}
    launches = Launches(prepared.model)
    for number in range(1, max(wanted) + 1):
        part = batch(task.labels, number)
        launches.put(part.labels, *part.inputs.values())
        launches.start()
        with AsOnGpu(launches), launches:
            taken = step.gradients(number, part)
            launches.part = "update"
            step.update(number)
        del taken
        if number in wanted:
            parts = {part: launches.counts[part] for part in ("forward", "backward", "update")}
            yield Counted(
                cell.title, cell.method, cell.quantization, wanted[number], sum(parts.values()),
                **parts, waits=launches.waits.total(), causes=dict(launches.waits),
            )  # fmt: skip


def batch(labels: tuple[str, ...], number: int) -> Batch:
    """Random rows, the last one padded."""
    import torch

    from peftmark.lab.data.batches import Batch

    noise = torch.Generator().manual_seed(number)
    mask = torch.ones(ROWS, TOKENS, dtype=torch.int64)
    mask[-1, TOKENS // 2 :] = 0
    ids = torch.randint(5, WIDTHS["vocab_size"], (ROWS, TOKENS), generator=noise) * mask
    found = torch.rand(ROWS, generator=noise)
    return Batch(
        {"input_ids": ids, "attention_mask": mask},
        (found * len(labels)).long() if labels else found,
        int(mask.sum()),
    )


def main(say: Callable[[str], None]) -> list[Counted]:
    """Count all cells, saying which."""
    from peftmark.lab.worker import quiet_libraries

    quiet_libraries()
    found = []
    for one in measure():
        say(f"launches: {one.cell} {one.phase}".rstrip())
        found.append(one)
    return found
