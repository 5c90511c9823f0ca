"""A GPU by torch's own calls, whichever of them torch is built for."""

from __future__ import annotations

from typing import Any

import torch


def module_of(device: torch.device) -> Any:
    """torch's module for a GPU, such as `torch.cuda`: its events and the peaks of its allocator."""
    return torch.get_device_module(device)


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given; on a CPU there is nothing to wait for."""
    if device.type != "cpu":
        module_of(device).synchronize(device)


def name_of(device: torch.device) -> str:
    """What its maker calls a GPU; "cpu" for a CPU."""
    return "cpu" if device.type == "cpu" else str(module_of(device).get_device_name(device))


def has_bf16(device: torch.device) -> bool:
    """Whether a GPU computes in bf16 by itself."""
    return bool(module_of(device).is_bf16_supported(including_emulation=False))
