"""Which GPUs `CUDA_VISIBLE_DEVICES` leaves, as plain data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peftmark.core.shown import plain
from peftmark.core.texts import whole_number
from peftmark.record.job import Device

VARIABLE = "CUDA_VISIBLE_DEVICES"
VARIABLES = (VARIABLE, "HIP_VISIBLE_DEVICES")
"""What says which GPUs are seen: CUDA's, and HIP's own, which goes before CUDA's for AMD's."""

REMEDY = (
    f"Unset {VARIABLE}, or name GPUs or slices in it by number or by the head of their UUID "
    f"(nvidia-smi -L), each once; empty or -1 for the CPU."
)

_NO_FILES = "NoDevFiles"  # what Slurm and Grid Engine write for a job without a GPU


@dataclass(frozen=True)
class Gpu:
    """One GPU, or a slice of one (MIG).

    Attributes:
        uuid: what CUDA_VISIBLE_DEVICES accepts for it: its UUID, or without NVML its number; of
            another kind of device torch's name, such as xpu:0.
    """

    uuid: str
    name: str
    memory_bytes: int | None


@dataclass(frozen=True)
class Devices:
    """Devices found, and the reason when there are none.

    Attributes:
        refused: what is wrong with the devices that were asked for; nothing may run then.
        told: what to tell a person who may have expected a GPU, or more than one is used of.
        device: what a job that runs on them has as its device.
    """

    found: tuple[Gpu, ...]
    reason: str | None
    driver: str | None = None
    refused: str = ""
    told: str = ""
    device: Device = "cuda"


def see_only(device: str | None) -> None:
    """Hide every GPU that torch calls `cuda` but one from this process, or all of them."""
    for name in VARIABLES:
        if name == VARIABLE or name in os.environ:
            os.environ[name] = device or ""


def choose(
    listed: Sequence[Gpu],
    visible: str | None,
    driver: str | None = None,
    slices: Mapping[str, Sequence[Gpu]] | None = None,
) -> Devices:
    """The devices that the variable leaves of those that are listed, in its order.

    It names devices by number or by the head of their UUID. As for CUDA the list ends at the first
    name that is none of these, or negative. A list that begins with what is no device, or names
    one twice, leaves CUDA none, and whoever typed it wanted one: it is refused. Numbers count in
    NVML's (PCI) order here; CUDA counts so only with CUDA_DEVICE_ORDER=PCI_BUS_ID, so on a machine
    with unlike cards UUIDs are the safe way.

    Args:
        visible: the variable's value; None if it isn't set.
        slices: UUID of a GPU that is divided -> its slices, which are listed in its place.
    """
    if not listed:
        return Devices((), "NVML lists no device", driver)
    if visible is None:
        return Devices(tuple(listed), None, driver)
    found: list[Gpu] = []
    for name in (part.strip() for part in visible.split(",")):
        if not name or name.startswith("-") or name == _NO_FILES:
            break
        match = _named(name, listed, slices or {})
        if len(match) != 1:
            if found:
                break
            return _refused(visible, f"{plain(name)!r} names {_which(match)}", listed, driver)
        if match[0] in found:
            twice = f"{match[0].uuid} stands in it twice"
            return _refused(visible, twice, listed, driver)
        found += match
    if found:
        return Devices(tuple(found), None, driver)
    told = f"{VARIABLE}={plain(visible)} hides the GPUs of this machine: jobs run on the CPU"
    return Devices((), f"{VARIABLE} leaves none", driver, told=told)


def _named(name: str, listed: Sequence[Gpu], slices: Mapping[str, Sequence[Gpu]]) -> list[Gpu]:
    if (number := whole_number(name[:6])) is not None and name.isdigit():
        return list(listed[number : number + 1])
    whole = [gpu for gpu in listed if gpu.uuid == name]
    divided = [one for uuid, parts in slices.items() if uuid.startswith(name) for one in parts]
    return whole or [gpu for gpu in listed if gpu.uuid.startswith(name)] or divided


def _which(match: Sequence[Gpu]) -> str:
    if not match:
        return "no device of this machine"
    return f"{len(match)} of them ({', '.join(gpu.uuid for gpu in match)})"


def _refused(visible: str, why: str, listed: Sequence[Gpu], driver: str | None) -> Devices:
    there = ", ".join(f"{number} {gpu.uuid} ({gpu.name})" for number, gpu in enumerate(listed))
    text = f"{VARIABLE}={plain(visible)}: {why}; there are {there}"
    return Devices((), text, driver, refused=text)
