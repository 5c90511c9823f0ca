"""What torch would do on a GPU, done on tensors without values that say they are on the CPU.

Autograd refuses CUDA tensors where no CUDA device is, so symbolic steps
(`peftmark.lab.memory.fake_step`) for a GPU run on CPU tensors, and this mode makes the choices
that differ: which kernel attends, what dropout keeps for its backward pass, and what autocast
raises to fp32. Each was read in torch's sources (ATen's native/transformers/attention.cpp and
sdp_utils, native/Dropout.cpp and autocast_mode.h) and held against an H100 (docs/memory.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from peftmark.lab.memory.insides import engine_run_backward

_LOW = (torch.bfloat16, torch.float16)

# What autocast runs in fp32 on CUDA and leaves alone on a CPU, as far as models here call it.
_RAISED = frozenset({
    "layer_norm", "group_norm", "rms_norm", "norm", "normalize", "exp", "expm1", "log", "log10",
    "log1p", "log2", "pow", "__pow__", "rsqrt", "reciprocal", "softplus", "tan", "acos", "asin",
    "cosh", "sinh", "erfinv", "cosine_similarity", "cdist", "dist", "renorm",
})  # fmt: skip
_RAISED_RESULT = frozenset(
    {"softmax", "log_softmax", "softmin", "sum", "prod", "cumsum", "cumprod"}
)

_ALIGNED = 8
"""Elements that a row of the attention bias is padded to a multiple of."""


class AsCuda(TorchFunctionMode):
    """Makes torch's functions choose as on a GPU with bf16 arithmetic."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is torch.Tensor.backward:
            # A mode is off in its own handler, and what torch offers to call has one; but
            # checkpointing runs the forward pass again in here.
            with self:
                return engine_run_backward(
                    (args[0],),
                    (torch.ones_like(args[0]),),
                    False,
                    False,
                    (),
                    allow_unreachable=True,
                    accumulate_grad=True,
                )
        if func is F.dropout or func is torch.dropout:
            return _dropout(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return _attend(*args, **kwargs)
        if torch.is_autocast_enabled("cpu"):
            if name in _RAISED:
                args = [_raised(value) for value in args]
                kwargs = {key: _raised(value) for key, value in kwargs.items()}
            elif name in _RAISED_RESULT and kwargs.get("dtype") is None and _is_low(args[0]):
                kwargs = {**kwargs, "dtype": torch.float32}
        return func(*args, **kwargs)


def _is_low(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in _LOW


def _raised(value: Any) -> Any:
    return value.float() if _is_low(value) else value


def _dropout(
    input: torch.Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    train: bool | None = None,
) -> torch.Tensor:
    """The fused kernel, which keeps a mask of one byte an element; a CPU keeps one of numbers."""
    if train is not None:
        training = train
    if not training or p == 0:
        return input
    kept: torch.Tensor = torch.native_dropout(input, p, True)[0]
    return kept


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """FlashAttention for 16-bit inputs without a mask, else the memory-efficient kernel.

    cuDNN's kernel is left out: it isn't deterministic, and jobs ask for deterministic ones.
    """
    if torch.is_autocast_enabled("cpu"):
        low = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(low), key.to(low), value.to(low)
    aten: Any = torch.ops.aten
    if attn_mask is None and query.dtype in _LOW:
        out: torch.Tensor = aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, False, scale=scale
        )[0]
        return out
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(groups, -3) for x in (key, value))
    bias = None
    if attn_mask is not None:
        bias = _bias(attn_mask, query, key.shape[-2])
    log_sum = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    out = aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, log_sum, dropout_p, is_causal, scale=scale
    )[0]
    return out


def _bias(mask: torch.Tensor, query: torch.Tensor, keys: int) -> torch.Tensor:
    """The mask as numbers to add, its rows padded to the kernel's alignment."""
    if mask.dtype is torch.bool:
        zero = torch.zeros((), dtype=query.dtype)
        mask = torch.where(mask.logical_not(), float("-inf"), zero)
    elif torch.is_autocast_enabled("cpu"):
        mask = mask.to(query.dtype)
    if keys % _ALIGNED:
        mask = F.pad(mask, (0, _ALIGNED - keys % _ALIGNED))[..., :keys]
    return mask.expand(*query.shape[:-1], keys)


PAGED_FROM = 100_000
"""Elements from which bitsandbytes pages an optimizer state (its optimizer's get_state_buffer)."""


@contextmanager
def bitsandbytes_as_on_cuda(paged: list[int]) -> Iterator[None]:
    """bitsandbytes as it is on a GPU: int8 products by its kernels, optimizer states paged.

    Args:
        paged: takes the bytes of every optimizer state that would go into memory that the driver
            may page out.
    """
    import bitsandbytes
    from bitsandbytes.autograd import _functions
    from bitsandbytes.optim.optimizer import Optimizer8bit

    def matmul(
        left: Any,
        right: Any,
        out: Any = None,
        state: Any = None,
        threshold: float = 0.0,
        bias: Any = None,
    ) -> Any:
        if threshold > 0.0:
            state.threshold = threshold
        apply: Any = _functions.MatMul8bitLt.apply
        return apply(left, right, out, bias, state)

    def buffer(self: Any, p: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        if not self.is_paged or p.numel() < PAGED_FROM:
            return torch.zeros_like(p, dtype=dtype)
        # Elsewhere than the model, so that what follows its tensors leaves it out.
        held: Any = torch.zeros_like(p, dtype=dtype, device="meta")
        held.is_paged = True
        paged.append(held.numel() * held.element_size())
        state: torch.Tensor = held
        return state

    with (
        mock.patch.object(bitsandbytes, "matmul", matmul),
        mock.patch.object(Optimizer8bit, "get_state_buffer", buffer),
        mock.patch.object(Optimizer8bit, "prefetch_state", lambda self, p: None),
    ):
        yield
