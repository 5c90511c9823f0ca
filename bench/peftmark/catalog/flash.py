"""FlashAttention-2 (Dao 2023, arXiv 2307.08691) by its own package (`attention: flash`)."""

from __future__ import annotations

WITHOUT = "use attention: sdpa, torch's fused attention, or leave it out"
NEEDS_GPU = f"attention: flash needs a GPU (device: cuda), for which it is written; {WITHOUT}"
NEEDS_16_BITS = f"found flash with precision: fp32, and it takes numbers of 16 bits; {WITHOUT}"
NOT_COMPILED = f"found flash with compile: true, which was tried on torch's attention; {WITHOUT}"
NOT_PACKED = f"found flash with packing: true, which was tried on torch's attention; {WITHOUT}"
