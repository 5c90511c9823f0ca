"""Several adapters on one base: what they hold together, how fast they change places, and fusing.

The kept adapter is loaded under ten names. For a switch to show, one of the copies is doubled.
Adapters with heads of their own can't be fused by PEFT, so the head is put into the base before.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer, LoraModel
from peft.tuners.tuners_utils import BaseTuner
from safetensors.torch import load_file, save_file
from torch import nn

from peftmark.lab.errors import Unsupported
from peftmark.lab.export.check import logits_of, probe_rows
from peftmark.lab.export.forms import ADAPTER
from peftmark.lab.export.opened import Opened
from peftmark.lab.leave import CONFIG
from peftmark.lab.measure.parameter_counts import belongs_to
from peftmark.lab.methods.any_peft import HEAD_FILE
from peftmark.lab.methods.peft_options import quiet
from peftmark.lab.models import trained_head
from peftmark.lab.quantization.table import constants_of
from peftmark.lab.quantized_cache import load_base

COPIES = 10
SWITCHES = 20
FIRST, OTHER = "default", "copy1"
NO_ADAPTER = "what it saved is no adapter of PEFT's: each needs a base of its own"
COMBINATIONS = ("linear", "cat", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune")
"""PEFT's combination types of LoRA; those that end in `_svd` do the same to whole updates."""
_OF_PEFT = "base_model.model."


@dataclass(frozen=True)
class Fused:
    """An adapter fused with itself, weights 0.5 and 0.5.

    Attributes:
        difference: largest of a logit from the adapter's own; None where PEFT refuses.
        factor: the fused update in units of the adapter's own (least squares over all weights);
            None without an update of weights.
        reason: PEFT's own, where it refuses.
    """

    difference: float | None = None
    factor: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Several:
    """Ten adapters on one base.

    Attributes:
        base_bytes: live bytes of the base's tensors, as loaded.
        one_bytes, all_bytes: of the base with one adapter, and with all.
        load_seconds: median wall seconds to load one more adapter from disk.
        switch_seconds: median wall seconds to make another loaded adapter the active one.
        apart: largest difference of a logit that a switch to the doubled copy makes.
        equal_after: whether the logits after switching back are the same bits.
        largest: the largest logit, for the size of differences.
        fused: combination type -> what fusing the adapter with itself gives; empty for a type of
            adapter without any.
        why_not_fused: why that is empty.
    """

    base_bytes: int
    one_bytes: int
    all_bytes: int
    load_seconds: float
    switch_seconds: float
    apart: float
    equal_after: bool
    largest: float
    fused: dict[str, Fused] = field(default_factory=dict)
    why_not_fused: str = ""

    @property
    def ratio(self) -> float:
        """All of them on one base, over as many copies of the whole model."""
        return self.all_bytes / (COPIES * self.base_bytes)


def several(opened: Opened) -> Several:
    """Load the kept adapter ten times onto one base, switch, and fuse it with itself.

    Raises:
        Unsupported: it is no adapter that PEFT loads.
    """
    if opened.kept.beyond:
        raise Unsupported(f"PEFT's own loading gives another model: {opened.kept.beyond}")
    if not opened.is_adapter:
        raise Unsupported(NO_ADAPTER)
    base = load_base(opened.files, opened.job, opened.task, opened.parts, opened.cache).model
    base_bytes = bytes_of(base)
    model: Any = opened.put(base).to(opened.device).eval()
    one_bytes = bytes_of(model)
    loading = [load_beside(model, opened.folder, f"copy{n}") for n in range(1, COPIES)]
    all_bytes = bytes_of(model)
    rows, device = probe_rows(opened), opened.device
    before = logits_of(model, rows, device)
    _double(model, OTHER)
    switching = [_switched(model, name) for _ in range(SWITCHES) for name in (OTHER, FIRST)]
    model.set_adapter(OTHER)
    between = logits_of(model, rows, device)
    model.set_adapter(FIRST)
    after = logits_of(model, rows, device)
    why_not = why_not_fused(model)
    del model, base
    return Several(
        base_bytes,
        one_bytes,
        all_bytes,
        statistics.median(loading),
        statistics.median(switching),
        float((between - before).abs().max()),
        torch.equal(before, after),
        float(before.abs().max()),
        {} if why_not else _fused(opened, rows),
        why_not,
    )


def bytes_of(model: nn.Module) -> int:
    """Bytes of a model's tensors, constants of quantised weights included; views count once."""
    seen: dict[int, int] = {}
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [one for module in model.modules() for one in constants_of(module)]
    for tensor in tensors:
        for plain in _plain(tensor):
            storage = plain.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())


def _plain(tensor: Any) -> Iterator[torch.Tensor]:
    """The tensors that one is made of, where a library packs several into one."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, name))
    else:
        yield tensor


def load_beside(model: Any, folder: Path, name: str) -> float:
    """Load one more adapter onto a base that has one; returns the seconds it took."""
    start = time.perf_counter()
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as `load_adapter` of `lab.methods.lora` has it
        model.load_adapter(str(folder), adapter_name=name)
    return time.perf_counter() - start


def _switched(model: Any, name: str) -> float:
    start = time.perf_counter()
    model.set_adapter(name)
    return time.perf_counter() - start


def _double(model: nn.Module, name: str) -> None:
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if name in key.split("."):
                weight.mul_(2)


# --- fusing --------------------------------------------------------------------------------------


def why_not_fused(model: Any) -> str:
    """Why PEFT fuses no adapters of a model's type; empty if it may."""
    tuner = model.base_model
    if hasattr(type(tuner), "add_weighted_adapter"):
        return ""
    what = type(tuner if isinstance(tuner, BaseTuner) else model).__name__
    return f"PEFT's {what} has no add_weighted_adapter"


def ways_of(model: Any) -> tuple[str, ...]:
    """The ways to fuse adapters of a model's type; only LoRA has several."""
    return COMBINATIONS if isinstance(model.base_model, LoraModel) else ("weighted",)


def fuse(model: Any, names: list[str], weights: list[float], way: str) -> str:
    """Have PEFT fuse loaded adapters into one more, named as the way is, and make it active.

    Returns:
        Why PEFT refuses; empty if it doesn't.
    """
    more: dict[str, Any] = {}
    if way in COMBINATIONS:
        more = {"combination_type": way, "density": 1.0}
    if way == "svd":
        more["svd_full_matrices"] = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a density of 1 prunes nothing, as it is meant to
            model.base_model.add_weighted_adapter(names, weights, way, **more)
    except Exception as error:  # what PEFT can't fuse it says in many ways
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    model.set_adapter(way)
    model.eval()  # a fused adapter comes with its dropout on
    return ""


def drop_fused(model: Any, way: str) -> None:
    """Take a fused adapter off again."""
    model.set_adapter(FIRST)
    model.delete_adapter(way)


def _fused(opened: Opened, rows: dict[str, torch.Tensor]) -> dict[str, Fused]:
    """What each combination type makes of the adapter and itself."""
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch:
        one = replace(opened, folder=without_head(opened, Path(scratch)))
        base = load_base(one.files, one.job, one.task, one.parts, one.cache).model
        model: Any = one.put(base).to(one.device).eval()
        load_beside(model, one.folder, OTHER)
    own = logits_of(model, rows, one.device)
    found = {}
    for way in ways_of(model):
        reason = fuse(model, [FIRST, OTHER], [0.5, 0.5], way)
        if reason:
            found[way] = Fused(reason=reason)
            continue
        apart = float((logits_of(model, rows, one.device) - own).abs().max())
        found[way] = Fused(apart, _factor(model, way))
        drop_fused(model, way)
    return found


def without_head(opened: Opened, scratch: Path) -> Path:
    """The adapter with its head beside it, to be put into the base."""
    head = trained_head(opened.parts, opened.job.recipe.train_pooler)
    tensors = load_file(opened.folder / ADAPTER)
    heads = {k: v for k, v in tensors.items() if belongs_to(k.removeprefix(_OF_PEFT), head)}
    beside = {k.removeprefix(_OF_PEFT): v for k, v in heads.items()}
    file = opened.folder / HEAD_FILE
    beside |= load_file(file) if file.is_file() else {}
    rest = {k: v for k, v in tensors.items() if k not in heads}
    save_file(rest, scratch / ADAPTER, {"format": "pt"})
    if beside:
        save_file(beside, scratch / HEAD_FILE)
    config = json.loads((opened.folder / CONFIG).read_text(encoding="utf-8"))
    config["modules_to_save"] = None
    (scratch / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return scratch


@torch.no_grad()
def _factor(model: nn.Module, name: str) -> float | None:
    """How many times its own an adapter's fused update is."""
    product = power = 0.0
    for module in model.modules():
        if isinstance(module, LoraLayer) and name in module.lora_A:
            layer: Any = module
            own = layer.get_delta_weight(FIRST).double()
            product += float((layer.get_delta_weight(name).double() * own).sum())
            power += float(own.square().sum())
    return product / power if power else None
