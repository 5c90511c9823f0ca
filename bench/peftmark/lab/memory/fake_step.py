"""A job's training steps run symbolically: the real code, on tensors that have shapes alone.

The architecture is built from its configuration, the method put on it and steps taken as in a real
job (`peftmark.lab.build`, `peftmark.lab.step`), under torch's `FakeTensorMode`. No weights, no
values, no memory; what follows real steps (`peftmark.lab.memory.live_tensors`) follows these. For
a GPU the tensors still say that they are on the CPU, and `peftmark.lab.memory.cuda_emulation`
makes the choices that torch makes there.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import torch
from torch import nn

from peftmark.catalog.lora_methods import STEP_OF
from peftmark.catalog.methods import known_method
from peftmark.catalog.task import SPOKEN, Task
from peftmark.lab.attention import attend_in_one_type
from peftmark.lab.data.batches import Batch, Shape
from peftmark.lab.duration.work import Amounts, Work, count_scoring
from peftmark.lab.measure import parameter_counts
from peftmark.lab.memory.code_books import code_books
from peftmark.lab.memory.cuda_emulation import AsCuda, bitsandbytes_as_on_cuda
from peftmark.lab.memory.insides import FakeTensorMode, fake_tensor
from peftmark.lab.memory.live_tensors import LiveTensors, Trace
from peftmark.lab.memory.meta_model import CHOOSES_BY_DATA, blank
from peftmark.lab.methods import Prepared, prepare, trainable
from peftmark.lab.models import (
    Unsupported,
    anatomy_of,
    check_quantised,
    outside,
    quantization_settings,
)
from peftmark.lab.number_types import raise_kept, raise_trained
from peftmark.lab.padding import packed_without_values
from peftmark.lab.parameter_budget import Budgeted, solve
from peftmark.lab.quantization.stored import left_whole, refuse_whole
from peftmark.lab.quantization.table import backend_of
from peftmark.lab.sharded import spared_by
from peftmark.lab.step import Step, chunked_language_loss, task_loss
from peftmark.record.job import Form, Job

CPU = torch.device("cpu")
unset: Any = fake_tensor.unset_fake_temporarily
INPUTS = ("input_ids", "attention_mask")
PACKED_INPUTS = ("input_ids", "position_ids")


_NO_VALUES = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedFakeTensorException,
    fake_tensor.UnsupportedOperatorException,
)


class NotSymbolic(Exception):
    """The job can't be run without values; the message says why."""


def unforeseen(error: Exception) -> str:
    """What to say of any other error in steps without values."""
    text = " ".join(str(error).split())[:200]
    return f"its step can't be run without values: {type(error).__name__}: {text}"


@dataclass(frozen=True)
class Seen:
    """What symbolic steps showed.

    Attributes:
        trace: of storages, over one step a batch.
        paged: bytes of optimizer states that may be paged out to the host; not in the trace.
        flops: floating-point operations of the last step; None if not asked for.
        pass_flops: of its first pass.
        trainable: parameters that train.
        total: parameters of the model, 4-bit ones counted unpacked.
        work: of the last step, if operations were asked for.
    """

    trace: Trace
    paged: int
    flops: int | None
    trainable: int
    total: int
    pass_flops: int = 0
    work: Amounts = field(default_factory=dict)


def run(
    job: Job,
    task: Task,
    config: Any,
    shapes: Sequence[Sequence[Shape]],
    form: Form | None = None,
    inputs: Sequence[str] = INPUTS,
    flops: bool = False,
    mask_given: bool = False,
) -> Seen:
    """Take training steps, and count operations in the last; of two stages those of the first.

    With a single step the optimizer makes its states before it, from gradients of zeros: half the
    work, and the same peak as two such steps.

    Args:
        shapes: of the passes of each step.
        config: of the model, with the task's number of labels.
        inputs: names of the model's inputs.
        mask_given: whether a batch without padding has its mask too, which the model then drops.

    Raises:
        Unsupported: if the method can't sit on the base.
        NotSymbolic: if values decide what happens.
    """
    form = form or Form()
    with _without_values(job) as paged:
        maker = _Maker(job, task, config, form)
        prepared = maker.prepare()
        loss = chunked_language_loss if form.fused_loss else None
        step = Step(job, task, prepared, CPU, loss, values=False)

        live, counter = LiveTensors(prepared.model), Work(job)
        with unset():
            less = spared_by(job, config, task.kind, prepared.model)
        first = 0
        with live:
            if len(shapes) == 1:
                for _, p in trainable(prepared.model):
                    p.grad = torch.zeros_like(p)
                step.update(1)
                live.end_step()
            for number, passes in enumerate(shapes, 1):
                last = flops and number == len(shapes)
                with counter if last else nullcontext():
                    first = _take(step, number, maker, passes, inputs, mask_given, live, counter)
                live.end_step()
        counted = counter.total
        if flops:
            batch = maker.batch(shapes[-1][-1], inputs)
            count_scoring(counter, prepared.model, batch, job, task.kind in SPOKEN)
        return Seen(
            live.trace().less(less),
            sum(paged),
            counted if flops else None,
            sum(p.numel() for _, p in trainable(prepared.model)),
            parameter_counts.parameters(prepared.model),
            first if flops else 0,
            counter.amounts,
        )


def _take(
    step: Step,
    number: int,
    maker: _Maker,
    passes: Sequence[Shape],
    inputs: Sequence[str],
    mask_given: bool,
    live: LiveTensors,
    counter: Work,
) -> int:
    """Take a step; the operations counted by the end of its first pass."""
    # Of a batch in one pass the whole is the part.
    share = 1.0 if len(passes) == 1 else 0.5
    parts, losses, counted = maker.parts(passes, inputs), [], []
    one_by_one = len(passes) == 1 or maker.job.device == "cuda"
    for place, shape in enumerate(passes):
        live.start_pass()
        dropped = maker.dropped_mask(shape) if mask_given and one_by_one else None
        last = place == len(passes) - 1
        losses.append(step.gradients(number, next(parts), share, last))
        counted.append(counter.total)
    counter.part = "update"
    step.update(number)
    del dropped, losses
    return counted[0]


_LAYER_NORM: Any = torch.ops.aten.native_layer_norm.default


class _Mode(FakeTensorMode):  # type: ignore[no-untyped-call]
    def __deepcopy__(self, memo: Any) -> _Mode:
        return self  # PEFT copies the head, and a tensor holds its mode

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found: Any = super().__torch_dispatch__(func, types, args, kwargs)
        if func is _LAYER_NORM and args[2] is not None and found[0].dtype != args[2].dtype:
            # Of an input in fewer bits than the weights, torch's kernel on a CPU keeps mean and
            # deviation in the weights' type (ATen's native/layer_norm.cpp), its formula without
            # values in the input's.
            return found[0], *(one.new_empty(one.shape, dtype=args[2].dtype) for one in found[1:])
        return found


@contextmanager
def _without_values(job: Job) -> Iterator[list[int]]:
    """Everything inside makes tensors without values, as the job's device would.

    Yields:
        Bytes of every optimizer state that is made and may be paged out.
    """
    paged: list[int] = []
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # PEFT copies the head; PEFT asks transformers for a property under its old name.
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        stack.enter_context(mock.patch.object(nn.Module, "_apply", _apply))
        stack.enter_context(packed_without_values(job.recipe.packing))
        stack.enter_context(_Mode(allow_non_fake_inputs=True))
        cuda = job.device == "cuda"
        backend = backend_of(job.quantization)
        stack.enter_context(backend.without_values())
        if cuda and (backend.library == "bitsandbytes" or job.recipe.optimizer != "adamw"):
            stack.enter_context(code_books())
            stack.enter_context(bitsandbytes_as_on_cuda(paged))
        if cuda:
            stack.enter_context(AsCuda())
        try:
            yield paged
        except Exception as error:
            if (wish := _wish(error)) is None:
                raise
            raise NotSymbolic(f"{job.method} can't be run without values: {wish}") from error


def _wish(error: BaseException | None) -> str | None:
    """The operation that asked for values, if that is what ended a run."""
    while error is not None:
        if isinstance(error, _NO_VALUES):
            return f"it asks for the result of {error}"
        error = error.__cause__ or error.__context__
    return None


def _apply(module: nn.Module, change: Callable[[Any], Any], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` for tensors without values, which torch would swap and can't."""
    for child in module.children() if recurse else ():
        _apply(child, change)
    for name, old in module._parameters.items():
        if old is not None and (new := change(old)) is not old:
            module._parameters[name] = nn.Parameter(new.detach(), old.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = change(buffer)
    return module


@dataclass(frozen=True)
class _Maker:
    """Bases, batches and the prepared model of a job, without values."""

    job: Job
    task: Task
    config: Any
    form: Form

    def batch(self, shape: Shape, inputs: Sequence[str] = INPUTS) -> Batch:
        """A batch of a shape."""
        names = [name for name in inputs if shape.padded or name != "attention_mask"]
        size = (shape.rows, shape.tokens)
        tensors = {name: torch.zeros(size, dtype=torch.int64) for name in names}
        of_float = self.task.kind in ("regression", "multi-label")
        kind = torch.float32 if of_float else torch.int64
        labels: tuple[int, ...] = size if self.task.kind in SPOKEN else size[:1]
        if self.task.kind == "multi-label":
            labels = (shape.rows, len(self.task.labels))
        # Where rows are padded there is a token less at least.
        real = shape.rows * shape.tokens - shape.padded
        return Batch(tensors, torch.zeros(labels, dtype=kind), real)

    def parts(self, passes: Sequence[Shape], inputs: Sequence[str]) -> Iterator[Batch]:
        """The batches of a step's passes: on a CPU parts of one batch, on a GPU each sent there by
        itself."""
        if len(passes) == 1 or self.job.device == "cuda":
            yield from (self.batch(shape, inputs) for shape in passes)
            return
        packed, start = self.job.recipe.packing, 0
        rows = 1 if packed else sum(one.rows for one in passes)
        tokens = (sum if packed else max)(one.tokens for one in passes)
        whole = self.batch(Shape(rows, tokens, not packed), inputs)
        for shape in passes:
            length = shape.tokens if packed else shape.rows
            at, start = slice(start, start + length), start + length
            places = (slice(None), at) if packed else (at, slice(shape.tokens))
            given = {n: v[places] for n, v in whole.inputs.items()}
            if not shape.padded:
                given.pop("attention_mask", None)
            yield Batch(given, whole.labels[places] if whole.text else whole.labels[at], 0)

    def dropped_mask(self, shape: Shape) -> torch.Tensor | None:
        """The mask of a batch without padding: there, though no operation reads it."""
        size = (shape.rows, shape.tokens)
        return None if shape.padded else torch.zeros(size, dtype=torch.int64)

    def base(self, quantised: bool = True) -> nn.Module:
        """The base as `peftmark.lab.models.load_model` gives it."""
        with unset():
            # A copy: quantising writes into it.
            config = copy.deepcopy(self.config)
            weights = self.job.recipe.weights
            attention = self.job.recipe.attention or self.form.attention
            model: Any = blank(config, self.task.kind, weights, attention)
            parts = anatomy_of(model)
            if weights != "fp32" and not self.form.pure:
                raise_kept(model, outside(parts))
            left = left_whole(config, model.base_model_prefix)
            if left is not None and not quantised:
                refuse_whole(self.job.method)
            settings = quantization_settings(self.job, parts, left or ()) if quantised else {}
            quantizer: Any = None
            if settings:
                from transformers.quantizers.auto import AutoHfQuantizer

                make: Any = AutoHfQuantizer.from_config
                quantizer = make(settings["quantization_config"], pre_quantized=False)
                quantizer.preprocess_model(model=model, device_map={"": "cpu"})
                quantizer.postprocess_model(model)
        if quantizer is not None:
            backend_of(self.job.quantization).stand_in(model, quantizer)
            backend_of(self.job.quantization).loaded(model)
            check_quantised(model, self.job, parts, left or ())
            attend_in_one_type(model, self.job)
        given: _Given = {}
        for module in model.modules():
            _give_storage(module, given)
        made: nn.Module = model
        return made

    def prepare(self) -> Prepared:
        """The method on the base."""
        if self.job.method in CHOOSES_BY_DATA:
            raise NotSymbolic(f"{self.job.method} chooses by data what trains")
        if untrained := known_method(self.job.method).untrained:
            raise NotSymbolic(untrained)
        if self.job.recipe.compile:
            raise NotSymbolic("a compiled step keeps other tensors than one without values shows")
        if self.job.recipe.kernels is not None or self.job.recipe.attention == "flash":
            raise NotSymbolic("kernels of others run on values alone")
        if self.job.recipe.devices > 1 and not self.job.recipe.shard:
            raise NotSymbolic("a step that several devices share is not predicted")
        base = self.base()
        job, recipe = self.job, self.job.recipe
        with unset():
            solved = solve(job, self.config) if recipe.budget is not None else None
        if solved is not None and solved.refusal:
            raise Unsupported(solved.refusal)
        job = solved.job if solved else job
        setting = Budgeted(
            job=replace(job, method=STEP_OF.get(job.method, job.method)),
            parts=anatomy_of(base),
            device=CPU,
            preview=lambda count: [
                self.batch(Shape(recipe.pass_rows, recipe.max_length)) for _ in range(count)
            ],
            loss=lambda model, batch: task_loss(model, batch, self.task, self.job, CPU),
            fresh_base=self.base,
            plain_base=lambda: self.base(quantised=False),
            size=solved.size if solved else job.size,
            sizes=solved.sizes if solved else None,
            solved=solved,
            values=False,
        )
        prepared = prepare(base, setting)
        if not self.form.pure:
            raise_trained(prepared.model, job)
        return prepared


_Given = dict[int, tuple[nn.Parameter, nn.Parameter]]
"""id of a parameter -> the parameter, held so that no other gets its id, and what it became."""


def _give_storage(module: nn.Module, given: _Given) -> None:
    """Tensors without values, but with a storage of their own, for those on the meta device.

    Args:
        given: every parameter seen before, so that tied ones stay one.
    """
    for name, old in module._parameters.items():
        if old is not None and old.device.type == "meta":
            if id(old) not in given:
                new = torch.empty_strided(old.size(), old.stride(), dtype=old.dtype)
                given[id(old)] = old, nn.Parameter(new, old.requires_grad)
            module._parameters[name] = given[id(old)][1]
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.device.type == "meta":
            new = torch.empty_strided(buffer.size(), buffer.stride(), dtype=buffer.dtype)
            module._buffers[name] = new
