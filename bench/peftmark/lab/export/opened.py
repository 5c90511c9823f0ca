"""A kept adapter, loaded as the model that was trained.

What was trained is read from the kept files alone. A method that has to be put onto a base before
its files can be loaded gets made-up rows where training showed it rows of the task: what it drew
from them is overwritten by what is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftConfig
from safetensors.torch import load_file
from torch import nn

from peftmark.catalog.methods import known_method
from peftmark.catalog.task import Example, Task
from peftmark.core.errors import UserError
from peftmark.lab.build import Build
from peftmark.lab.data.batches import Batch, Encoder
from peftmark.lab.data.causal_rows import Reader
from peftmark.lab.data.held_out import label_of
from peftmark.lab.data.job_data import encoder_of, task_of
from peftmark.lab.leave import CONFIG
from peftmark.lab.methods import Prepared
from peftmark.lab.methods.any_peft import HEAD_FILE
from peftmark.lab.methods.lora import load_adapter, merge_adapter
from peftmark.lab.methods.peft_options import quiet
from peftmark.lab.models import Anatomy, anatomy, load_tokenizer
from peftmark.lab.plugin_code import bring
from peftmark.lab.quantization.table import backend_of
from peftmark.lab.quantized_cache import load_base
from peftmark.record.job import Job
from peftmark.record.kept import NOTES, Kept, Unreadable
from peftmark.record.stages import ends_as
from peftmark.sources.assets import Places, model_files


@dataclass(frozen=True)
class Opened:
    """A kept adapter and what loading it takes.

    Attributes:
        folder: its files.
        job: that trained it, on the device that is here and the base that it ended on.
        task: as the job's model reads it.
        files: of the base.
        cache: where quantised bases are kept; None to quantise anew.
    """

    folder: Path
    kept: Kept
    job: Job
    task: Task
    files: Path
    tokenizer: Any
    parts: Anatomy
    cache: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.job.device)

    @property
    def is_adapter(self) -> bool:
        """Whether PEFT's own loading of the files gives the model."""
        return not self.kept.beyond and (self.folder / CONFIG).is_file()

    def encoder(self, conversations: bool = False) -> Encoder | Reader:
        """What turns rows into tokens, as in training."""
        return encoder_of(self.job, self.task, self.tokenizer, conversations)

    @cached_property
    def trained(self) -> nn.Module:
        """The model as it was trained, in evaluation mode; loaded once."""
        return self.load()

    def load(self) -> nn.Module:
        """The same, loaded anew."""
        base = load_base(self.files, self.job, self.task, self.parts, self.cache).model
        loaded = (
            self.put(base) if self.is_adapter else self.on_base(self.job).load(base, self.folder)
        )
        return loaded.to(self.device).eval()

    def put(self, base: nn.Module) -> nn.Module:
        """The saved adapter of PEFT's on a base."""
        head = self.folder / HEAD_FILE
        if head.is_file():
            base.load_state_dict(load_file(head), strict=False)
        with quiet():
            loaded = load_adapter(base, self.folder)
        read: Any = PeftConfig.from_pretrained
        if getattr(read(str(self.folder)), "use_dora", False):
            backend_of(self.job.quantization).keep_constants(loaded)
        return loaded

    def on_base(self, job: Job) -> Prepared:
        """The job's method on a base of its own, for its `load` and `merge`.

        Args:
            job: the job, or the same on a base that isn't quantised.
        """
        if "before initialisation" in known_method(job.method).hooks and self.is_adapter:
            # LoRA under another start: built anew it would look at rows, and is as good without.
            none: Any = None
            return Prepared(none, none, load_adapter, lambda model: merge_adapter(model, job))
        rows = cast(Any, _MadeUp(self.encoder(), self.task))
        build = Build(job, self.task, self.files, self.parts, rows, self.cache)
        return build.prepare(build.base())


def opened(folder: Path, places: Places) -> Opened:
    """Open a kept adapter.

    Raises:
        UserError: it can't be read, its base isn't to be had, or a plug-in that trained it is gone
            or is other code now.
        Unsupported: this machine or these libraries can't load it.
    """
    try:
        kept = Kept.from_json((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, Unreadable) as error:
        what = f"{folder}: what is noted of the adapter can't be read: {error}"
        raise UserError(what, "Run the job again (--again) to keep it again.") from error
    device: Any = "cuda" if kept.job.device == "cuda" and torch.cuda.is_available() else "cpu"
    job = ends_as(replace(kept.job, device=device))
    bring(job)
    task = task_of(job)
    files = model_files(job.model_facts, places).path
    return Opened(
        folder, kept, job, task, files, load_tokenizer(files), anatomy(files, task), places.cache
    )


class _MadeUp:
    """Rows in place of training's, for what a method looks at before its files are loaded."""

    def __init__(self, encoder: Encoder | Reader, task: Task) -> None:
        self._encoder, self._task = encoder, task

    def preview(self, count: int) -> list[Batch]:
        """So many batches of two rows."""
        rows = made_up(self._task)
        labels = [label_of(row, self._task) for row in rows]
        return [self._encoder.batch(self._encoder.encode(rows), labels) for _ in range(count)]


def made_up(task: Task) -> list[Example]:
    """Two rows that a task could have."""
    if task.kind == "multiple-choice":
        return [Example("one two", None, 0, choices=("one", "two"))] * 2
    pair = "three four" if task.kind == "instruction" or len(task.fields) > 1 else None
    return [Example("one two", pair, 0), Example("two one two", pair, 0)]
