"""The one door to what torch, transformers and quantising libraries don't promise to keep.

Steps without values and the following of storages need names from inside these libraries, and
stand-ins for some of their functions. All of them are listed here with the parameters they had in
the versions they were read in, so that another version says at once what moved.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import _C as torch_c
from torch._C import _current_autograd_node as current_autograd_node
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import _engine_run_backward as engine_run_backward
from torch.overrides import _get_current_function_mode_stack as function_modes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as operation_modes
from torch.utils._pytree import tree_leaves

from peftmark.machine.environment import OPTIONAL, versions

__all__ = [
    "FakeTensorMode",
    "TorchDispatchMode",
    "clear_workspaces",
    "compile_seconds",
    "current_autograd_node",
    "engine_run_backward",
    "fake_tensor",
    "foreach_abs_",
    "foreach_add_",
    "foreach_copy_",
    "foreach_mul",
    "foreach_mul_",
    "foreach_sub",
    "function_modes",
    "operation_modes",
    "tree_leaves",
]

clear_workspaces: Any = getattr(torch_c, "_cuda_clearCublasWorkspaces", None)
"""Frees what cuBLAS keeps in torch's allocator; None in a torch for the CPU alone."""

# One operation over a list of tensors, as torch's own optimizers take them.
foreach_abs_, foreach_add_, foreach_copy_ = (
    torch._foreach_abs_,
    torch._foreach_add_,
    torch._foreach_copy_,
)
foreach_mul, foreach_mul_, foreach_sub = (
    torch._foreach_mul,
    torch._foreach_mul_,
    torch._foreach_sub,
)


def compile_seconds() -> float:
    """Seconds that this process has spent in torch's compiler so far."""
    from torch._dynamo.utils import calculate_time_spent  # a second to load, for compiled jobs

    return float(calculate_time_spent()["total_wall_time"])


READ_IN = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "bitsandbytes": "0.50.2",
    "torchao": "0.18.0",
    "optimum-quanto": "0.2.7",
}
"""Version of each library that the names below were read in."""

_PACKAGES = {"optimum": "optimum-quanto"}
"""Package by what is imported of it, where it isn't called so."""


@dataclass(frozen=True)
class Inside:
    """A name inside a library.

    Attributes:
        module: where it is imported from.
        name: dotted below the module.
        parameters: of a function, by name and in order; None for what is no function of Python's.
        why: what it is needed for.
    """

    module: str
    name: str
    parameters: tuple[str, ...] | None
    why: str


INSIDES = (
    Inside("torch._C", "_current_autograd_node", None, "tells a backward pass from a forward one"),
    Inside("torch._subclasses.fake_tensor", "FakeTensorMode", None, "makes tensors without values"),
    *(
        Inside("torch._subclasses.fake_tensor", name, None, why)
        for name, why in (
            ("FakeTensor", "is a tensor without values"),
            ("DataDependentOutputException", "says that an operation asks for values"),
            ("DynamicOutputShapeException", "says that a size depends on values"),
            ("UnsupportedFakeTensorException", "says that an operation needs values"),
            ("UnsupportedOperatorException", "says that an operation needs values"),
            ("unset_fake_temporarily", "lets code books have values"),
        )
    ),
    Inside(
        "torch.autograd.graph",
        "_engine_run_backward",
        ("t_outputs", "args", "kwargs"),
        "runs a backward pass inside a mode",
    ),
    Inside("torch.utils._python_dispatch", "TorchDispatchMode", None, "sees every operation"),
    Inside(
        "torch.utils._python_dispatch",
        "_get_current_dispatch_mode_stack",
        (),
        "tells whether a job left a mode on",
    ),
    Inside(
        "torch.overrides",
        "_get_current_function_mode_stack",
        (),
        "tells whether a job left a mode on",
    ),
    Inside("torch._dynamo.utils", "calculate_time_spent", (), "tells what compiling took"),
    Inside("torch.nn", "Module._compiled_call_impl", None, "lets a layer run as written again"),
    Inside("torch._inductor.cpp_builder", "get_cpp_compiler", (), "tells whether there is one"),
    Inside("torch.utils._triton", "has_triton", (), "tells whether GPU kernels can be made"),
    Inside("torch.utils._pytree", "tree_leaves", ("tree", "is_leaf"), "finds tensors"),
    Inside("torch.nn", "Module._apply", ("self", "fn", "recurse"), "moves a model without values"),
    Inside(
        "transformers.masking_utils",
        "find_packed_sequence_indices",
        ("position_ids",),
        "looks at values",
    ),
    Inside(
        "transformers.masking_utils",
        "_ignore_bidirectional_mask_sdpa",
        ("padding_mask", "kv_length", "local_attention_size"),
        "asks a mask on the device for padding that the host knows of",
    ),
    Inside(
        "transformers.masking_utils",
        "_ignore_causal_mask_sdpa",
        (
            "padding_mask",
            "q_length",
            "kv_length",
            "q_offset",
            "kv_offset",
            "local_attention_size",
        ),
        "asks a mask on the device for padding that the host knows of",
    ),
    Inside(
        "transformers.integrations.torchao",
        "TorchAoQuantize._quantize",
        ("self", "module", "config", "args", "kwargs"),
        "is timed",
    ),
    Inside(
        "transformers.quantizers.quantizer_torchao",
        "TorchAoHfQuantizer.param_needs_quantization",
        ("self", "model", "param_name", "kwargs"),
        "tells which weights a blank model would have quantised",
    ),
    Inside(
        "torchao.quantization",
        "Int8Tensor",
        (
            "qdata",
            "scale",
            "block_size",
            "dtype",
            "zero_point",
            "act_quant_scale",
            "act_quant_zero_point",
            "act_pre_scale",
            "act_quant_kwargs",
            "reduce_range",
        ),
        "holds the numbers, scales and zero points of a weight under these names",
    ),
    Inside(
        "torchao.quantization",
        "Float8Tensor",
        (
            "qdata",
            "scale",
            "block_size",
            "mm_config",
            "act_quant_kwargs",
            "kernel_preference",
            "dtype",
        ),
        "holds the numbers and scales of a weight under these names",
    ),
    Inside(
        "transformers.integrations.quanto",
        "QuantoQuantize.convert",
        ("self", "input_dict", "model", "full_layer_name", "missing_keys", "kwargs"),
        "is timed",
    ),
    Inside(
        "optimum.quanto.library.extensions.extension",
        "get_extension",
        ("extension_type",),
        "gives what holds, as `_lib`, the function that quanto would compile for 4-bit weights",
    ),
    Inside("optimum.quanto", "QLinear.freeze", ("self",), "quantises a weight without values"),
    Inside(
        "optimum.quanto",
        "WeightQBytesTensor.create",
        ("qtype", "axis", "size", "stride", "data", "scale", "activation_qtype", "requires_grad"),
        "makes weights that hold `_data` and `_scale`",
    ),
    Inside(
        "optimum.quanto",
        "WeightQBitsTensor.create",
        (
            "qtype",
            "axis",
            "group_size",
            "size",
            "stride",
            "data",
            "scale",
            "shift",
            "requires_grad",
        ),
        "makes weights that hold `_data`, `_scale` and `_shift`",
    ),
    Inside("bitsandbytes.functional", "name2qmap", None, "code books kept for the process"),
    *(
        Inside(f"bitsandbytes.{module}", name, None, "is emptied between two jobs of a process")
        for module, name in (
            ("backends.default.ops", "_get_4bit_quantize_bounds"),
            ("backends.utils", "_code_4bit_cache"),
            ("functional", "GlobalPageManager"),
            ("optim", "GlobalOptimManager"),
        )
    ),
    Inside(
        "bitsandbytes.functional",
        "create_dynamic_map",
        ("signed", "max_exponent_bits", "total_bits"),
        "makes a code book",
    ),
    Inside("bitsandbytes", "matmul", ("A", "B", "out", "state", "threshold", "bias"), "is int8's"),
    Inside("bitsandbytes.autograd._functions", "MatMul8bitLt", None, "multiplies in int8"),
    Inside(
        "bitsandbytes.optim.optimizer",
        "Optimizer8bit.get_state_buffer",
        ("self", "p", "dtype"),
        "pages optimizer states",
    ),
    Inside(
        "bitsandbytes.optim.optimizer",
        "Optimizer8bit.prefetch_state",
        ("self", "p"),
        "pages optimizer states",
    ),
)


def moved() -> Iterator[str]:
    """What is not as it was in the versions it was read in, a sentence each."""
    installed = versions()
    for inside in INSIDES:
        first = inside.module.partition(".")[0]
        library = _PACKAGES.get(first, first)
        if library in OPTIONAL and library not in installed:
            continue
        there = f"{inside.module}.{inside.name}"
        read_in = (
            f"read in {library} {READ_IN[library]}, installed is {installed[library]}; "
            f"it is needed because it {inside.why}"
        )
        try:
            found: Any = import_module(inside.module)
            for part in inside.name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            yield f"{there} is gone ({read_in})"
            continue
        if inside.parameters is None:
            continue
        now = tuple(inspect.signature(found).parameters)
        if now != inside.parameters:
            yield f"{there} takes {', '.join(now)}, not {', '.join(inside.parameters)} ({read_in})"
