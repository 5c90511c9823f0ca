"""What is needed from inside torch's compiler; it takes a second to load, for compiled jobs alone.

The names are listed in `peftmark.lab.memory.insides` with the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def has_gpu_kernels() -> bool:
    """Whether kernels for a GPU can be made here."""
    from torch.utils._triton import has_triton

    return bool(has_triton())


def has_cpp_compiler() -> bool:
    """Whether kernels for a CPU can be made here."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True


def failures() -> tuple[type[Exception], ...]:
    """What the compiler raises where it can't compile."""
    from torch._dynamo import exc

    return exc.TorchDynamoException, exc.FailOnRecompileLimitHit


@contextmanager
def strictly(versions: int) -> Iterator[None]:
    """An error where torch would run layers uncompiled, and no process beside.

    Args:
        versions: of one function that may be compiled.
    """
    from torch._dynamo import config as of_tracing
    from torch._inductor import config as of_kernels

    dynamo: Any = of_tracing
    inductor: Any = of_kernels
    strict = dynamo.patch(
        fail_on_recompile_limit_hit=True,
        recompile_limit=versions,
        accumulated_recompile_limit=max(256, versions),
    )
    with strict, inductor.patch(compile_threads=1):
        yield
