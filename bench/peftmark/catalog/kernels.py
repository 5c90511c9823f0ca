"""Kernels of others that a model's layers may run on in place of torch's (`kernels`)."""

from __future__ import annotations

LIGER: tuple[str, ...] = (
    *("gemma2", "gemma3_text", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3"),
    "smollm3",
)
"""Architectures (`model_type` of their config) of those tried here that liger-kernel 0.8.5 has
kernels for (its `MODEL_TYPE_TO_APPLY_LIGER_FN`)."""

WITHOUT = "leave kernels out"
NEEDS_GPU = (
    "kernels: liger needs a GPU (device: cuda): they are written in Triton, which makes none for a "
    f"CPU; {WITHOUT}"
)


def model_fault(kind: str) -> str:
    """Why the layers of an architecture can't run on them; empty if they can."""
    if kind in LIGER:
        return ""
    return (
        f"kernels: liger has none for a model of type {kind}; types: {', '.join(LIGER)}; {WITHOUT}"
    )
