"""AMD's GPUs. Torch built for ROCm calls them `cuda`, and so does a job."""

from __future__ import annotations

from peftmark.machine.accelerator import Accelerator

ROCM = Accelerator(
    "rocm",
    "AMD's GPUs (ROCm)",
    "cuda",
    built=("hip",),
    driver=("rocm", "hip"),
    unmetered=(
        "not metered on AMD's GPUs: NVML knows NVIDIA's alone, and AMD's own library (amdsmi) is "
        "not asked"
    ),
)
