"""A model's norms, rotations and gated feed-forward layers on Liger's kernels, if it is asked.

Hsu et al. 2024, arXiv 2410.10989. Its fused loss is left out: every method's loss is computed from
logits by the same code (`peftmark.lab.step`), with or without these kernels.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from torch import nn

from peftmark.catalog.kernels import NEEDS_GPU, WITHOUT, model_fault
from peftmark.lab.errors import Unsupported
from peftmark.record.job import Job

LIBRARY = "liger_kernel"
OURS = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""What of Liger's settings isn't its default; those that an architecture lacks it leaves out."""


def run_on_kernels(model: nn.Module, job: Job) -> None:
    """Let a loaded model run on the kernels that the recipe names, if it names some.

    The library also puts its layers into transformers' module of the architecture, so models that
    the process loads later have them too, and it takes no other job (`peftmark.lab.afresh`).

    Raises:
        Unsupported: no GPU, no library, or no kernels for the architecture.
    """
    if job.recipe.kernels is None:
        return
    loaded: Any = model
    kind = loaded.config.model_type
    if job.device != "cuda":
        raise Unsupported(NEEDS_GPU)
    if fault := model_fault(kind):
        raise Unsupported(fault)
    if find_spec(LIBRARY) is None:
        raise Unsupported(
            "kernels: liger needs the package liger-kernel, which isn't installed here; "
            f"pip install 'peftmark[liger]', or {WITHOUT}"
        )
    # Not above: it loads transformers' trainer, which no other job needs.
    from transformers.integrations.liger import apply_liger_kernel

    apply: Any = apply_liger_kernel  # without annotations
    apply(model, OURS)
    if not any(map(_replaced, model.modules())):
        raise Unsupported(
            f"the installed liger-kernel changed no layer of a model of type {kind}; install "
            f"another version, or {WITHOUT}"
        )


def _replaced(module: nn.Module) -> bool:
    """Whether a module runs code of the library."""
    forward: Any = vars(module).get("forward", type(module).forward)
    return str(getattr(forward, "__module__", "")).split(".")[0] == LIBRARY
