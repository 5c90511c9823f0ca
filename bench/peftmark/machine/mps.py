"""Apple's GPUs, which torch calls `mps`. No job runs there."""

from __future__ import annotations

from peftmark.machine.accelerator import Accelerator

MPS = Accelerator(
    "mps",
    "Apple's GPU (MPS)",
    "cpu",
    nodes=(),
    variables=(),
    unused=(
        "Apple's GPU (MPS) is not used: sums that are taken in float64, which it doesn't have, "
        "would need another way, torch tells no peak of its memory, and nothing was tried there"
    ),
)
