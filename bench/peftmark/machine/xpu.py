"""Intel's GPUs, which torch built for them calls `xpu`."""

from __future__ import annotations

from peftmark.machine.accelerator import Accelerator

XPU = Accelerator(
    "xpu",
    "Intel's GPUs (XPU)",
    "xpu",
    built=("xpu",),
    nodes=("dri/renderD*", "dxg"),
    variables=("ZE_AFFINITY_MASK",),
    unmetered=(
        "not metered on Intel's GPUs: NVML knows NVIDIA's alone, and Intel's own interface (Level "
        "Zero Sysman) is not asked"
    ),
    alone=(
        "the order in which torch lists Intel's GPUs is not that of the variables that hide them, "
        "so that jobs can't be told apart by their device"
    ),
    unpredicted=(
        "steps are predicted as torch computes them on a CPU and on CUDA; on Intel's GPUs it may "
        "take other kernels"
    ),
    plain_adamw="bitsandbytes' optimizers are used on NVIDIA's and AMD's GPUs alone",
)
