"""Which words say that memory ran out: libraries have many for it."""

from __future__ import annotations

import re

_WORDS = (
    r"out[ _]?of[ _]?memory",  # CUDA, HIP and bitsandbytes, in words and as names of errors
    r"_alloc(ation)?_failed\b",  # of cuBLAS, cuDNN, cuSPARSE, cuSOLVER and those of ROCm
    r"\bcudaErrorMemoryAllocation\b",
    r"\brocblas_status_memory_error\b",
    r"\bNVML_ERROR_MEMORY\b",
    r"\bNVML_SUCCESS == r INTERNAL ASSERT FAILED",  # torch's allocator on a MIG slice
    r"\b(not enough|insufficient) memory\b",
    # The kernel's words, and those of allocators; the second half is of libraries that were loaded
    # in the wrong order.
    r"\b(can't|cannot|could not|unable to|failed to) allocate memory\b(?! in static TLS)",
    r"\bunable to allocate [\d.]+ \w+ for an array\b",  # NumPy's
    r"\bbad_alloc\b",
    r"\bmemory allocation of \d+ bytes failed\b",  # Rust's, in tokenizers and safetensors
    # oneDNN's for a step that found no memory. With more behind it, as in "a primitive descriptor
    # for the matmul primitive", it says that there is no such step.
    r"\bcould not create a primitive\b(?! \w)",
)
_FULL = re.compile("|".join(_WORDS), re.IGNORECASE)


def says_memory_is_full(text: str) -> bool:
    """Whether an error's text, or the last words of a process, say that memory ran out."""
    return _FULL.search(text) is not None
