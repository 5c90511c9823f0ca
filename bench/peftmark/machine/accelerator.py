"""What sets one maker's GPUs apart from another's, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from peftmark.machine.visible import VARIABLES
from peftmark.record.job import Device


@dataclass(frozen=True)
class Accelerator:
    """A kind of GPU that torch can be built for.

    Attributes:
        key: short name, unique.
        title: whose GPUs they are, in words.
        device: torch's name of one, and a job's.
        built: the names in torch's version file of which one has a value where torch is built for
            them; none where the platform alone says it.
        nodes: device files below /dev that speak for one.
        variables: those that say which of them are seen; a later one goes before an earlier.
        driver: the names in torch's version file that tell its driver's or runtime's version, the
            first that has a value; none where the device itself tells it.
        unmetered: why neither its energy nor the memory that its driver counts is read; empty for
            those that NVML reads.
        alone: why only the first of them is used, by one job at a time; empty if all are.
        unpredicted: why neither memory nor time of its jobs is predicted; empty if they are.
        plain_adamw: why plain AdamW takes the place of bitsandbytes'; empty if it doesn't.
        unused: why no job runs there; empty if jobs do.
    """

    key: str
    title: str
    device: Device
    built: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ("nvidia[0-9]*", "kfd", "dxg")
    variables: tuple[str, ...] = VARIABLES
    driver: tuple[str, ...] = ()
    unmetered: str = ""
    alone: str = ""
    unpredicted: str = ""
    plain_adamw: str = ""
    unused: str = ""
