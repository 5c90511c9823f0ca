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
        "torch may list Intel's GPUs in another order than the variables that hide them, so that a "
        "worker can't be given one of them by name"
    ),
    unpredicted=(
        "steps are predicted as torch computes them on a CPU and on CUDA; on Intel's GPUs it may "
        "take other kernels"
    ),
    plain_adamw="bitsandbytes' optimizers are used on NVIDIA's and AMD's GPUs alone",
)
