"""Adapters put onto one base in turn, so that each base is read and quantised once.

What PEFT puts onto a base can be taken off again. Whether that left the base as it was is told by a
hash of its weights: if not, the next adapter gets a base that is loaded anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from peftmark.lab.export.opened import Opened
from peftmark.lab.quantization.table import backend_of
from peftmark.lab.quantized_cache import load_base


def base_of(one: Opened) -> str:
    """What adapters that can be put onto the same loaded base have in common.

    A method that changed weights of the base has none to share: the answer is empty.
    """
    if not one.is_adapter:
        return ""
    job = one.job
    settings = backend_of(job.quantization).config(job, one.parts.head_linears)
    return json.dumps(
        {
            "files": str(one.files),
            "quantization": None if settings is None else settings.to_dict(),
            "weights": job.recipe.weights,
            "precision": job.recipe.precision,
            "head dropout": job.recipe.head_dropout,
            # A part that the files lack is drawn by the seed.
            "seed": job.seed if one.parts.fresh else None,
        },
        sort_keys=True,
        default=str,
    )


class OneBase:
    """Holds one base at a time.

    Attributes:
        loads: how many bases were loaded to be shared.
        own: how many models were loaded whole, of methods that change the base's own weights.
    """

    def __init__(self) -> None:
        self.loads = 0
        self.own = 0
        self._key = ""
        self._base: nn.Module | None = None
        self._hash = ""

    @contextmanager
    def model(self, one: Opened) -> Iterator[nn.Module]:
        """The trained model, in evaluation mode, for as long as the context lasts.

        Raises:
            UserError: the base isn't to be had.
            Unsupported: this machine or these libraries can't load it.
        """
        key = base_of(one)
        if not key:
            self._base = None
            self.own += 1
            yield one.load()
            return
        if self._base is None or key != self._key:
            self._load(one, key)
        base, self._base = self._base, None  # unusable unless the adapter comes off again
        assert base is not None
        model = one.put(base).to(one.device).eval()
        yield model
        base = taken_off(model, base)
        if weights_of(base) == self._hash:
            self._base = base

    def _load(self, one: Opened, key: str) -> None:
        self._base = None  # before the next one is read: memory holds one
        self._base = load_base(one.files, one.job, one.task, one.parts, one.cache).model
        self._key, self._hash = key, weights_of(self._base)
        self.loads += 1


def taken_off(model: Any, base: nn.Module) -> nn.Module:
    """The base without what PEFT put onto it; virtual tokens leave it alone to begin with."""
    tuner = model.base_model
    plain: nn.Module = tuner.unload() if isinstance(tuner, BaseTuner) else base
    return plain


def weights_of(model: nn.Module) -> str:
    """SHA-256 over names, types and bytes of all tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
