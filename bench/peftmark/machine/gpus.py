"""GPUs that people train on and the memory of each, as plain data.

`memory_bytes` is the total that the driver reports of a board. A training process gets less: the
total holds what the driver and the firmware keep for themselves (NVML's `reserved`), and CUDA's
context comes on top of it. NVIDIA's figures are those of current drivers; old ones (such as 470)
report 100 to 300 MiB less of the T4, A10, P100 and V100. Error correction (ECC) takes a part of
boards with GDDR6, and `source` says whether it was on where that matters.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from peftmark.core.amounts import Size, read_size
from peftmark.core.errors import UserError

ALLOCATOR_BLOCK = 512
"""Bytes that torch's CUDA allocator rounds every storage up to a multiple of (kMinBlockSize in its
CUDACachingAllocator)."""


CONTEXT_BYTES = 785_186_816
"""What a training process takes beside torch's allocator, measured by NVML on an H100 (driver 580,
CUDA 13.0, torch 2.11): 552 MB of CUDA context, 96 MB for the first kernels and 136 MB for cuBLAS'
handles of the two threads that train. It differs between GPUs; a smaller one takes less."""

WORKSPACE_BYTES = 68_157_440
"""What cuBLAS takes from torch's allocator in a step, on the same GPU: 32 MiB for each of two
threads, and 1 MiB for cuBLASLt. GPUs before Hopper take less."""

ALLOCATOR_SHARE = 0.035
"""What torch's allocator hands out above the blocks that tensors need, as a share of them: the rest
of a block of up to 1 MiB is not split off. At most 3.3 % was seen on the same GPU over 90 steps of
encoders and language models, less for larger ones (0.3 % at 30 GB)."""


def room(memory_bytes: int) -> int:
    """Bytes that a GPU of this memory leaves for tensors, each rounded up to a block."""
    left = memory_bytes - CONTEXT_BYTES - WORKSPACE_BYTES
    return max(0, int(left / (1 + ALLOCATOR_SHARE)))


@dataclass(frozen=True)
class Device:
    """One GPU, or a size of memory that stands for one.

    Attributes:
        key: short name, unique.
        title: model and nominal size.
        memory_bytes: total memory as the driver reports it.
        source: what kind of source the total comes from.
        words: further words of the driver's own name that are no part of the title.
    """

    key: str
    title: str
    memory_bytes: int
    source: str
    words: str = ""


_NVML = "read by us through NVML"
_SMI = "nvidia-smi in public logs"
_ECC = "nvidia-smi in public logs, ECC on as the board ships"
_NO_ECC = "nvidia-smi in public logs, ECC off as the board ships"
_ROCM = "rocm-smi in public logs"
_DIE = "ROCm's runtime in public logs: one of the board's two dies, which is one device"

# key, title, total in MiB, source, further words
_ROWS = (
    ("rtx-2080-ti", "RTX 2080 Ti 11GB", 11_264, _SMI, ""),
    ("rtx-3060", "RTX 3060 12GB", 12_288, _SMI, ""),
    ("rtx-3080", "RTX 3080 10GB", 10_240, _SMI, ""),
    ("rtx-3080-ti", "RTX 3080 Ti 12GB", 12_288, _SMI, ""),
    ("rtx-3090", "RTX 3090 24GB", 24_576, _SMI, ""),
    ("rtx-3090-ti", "RTX 3090 Ti 24GB", 24_564, _SMI, ""),
    ("rtx-4060", "RTX 4060 8GB", 8_188, _SMI, ""),
    ("rtx-4060-ti-8", "RTX 4060 Ti 8GB", 8_188, _SMI, ""),
    ("rtx-4060-ti-16", "RTX 4060 Ti 16GB", 16_380, _SMI, ""),
    ("rtx-4070", "RTX 4070 12GB", 12_282, _SMI, ""),
    ("rtx-4070-super", "RTX 4070 SUPER 12GB", 12_282, _SMI, ""),
    ("rtx-4070-ti", "RTX 4070 Ti 12GB", 12_282, _SMI, ""),
    ("rtx-4070-ti-super", "RTX 4070 Ti SUPER 16GB", 16_376, _SMI, ""),
    ("rtx-4080", "RTX 4080 16GB", 16_376, _SMI, ""),
    ("rtx-4080-super", "RTX 4080 SUPER 16GB", 16_376, _SMI, ""),
    ("rtx-4090", "RTX 4090 24GB", 24_564, _SMI, ""),
    ("rtx-5060-ti-16", "RTX 5060 Ti 16GB", 16_311, _SMI, ""),
    ("rtx-5070", "RTX 5070 12GB", 12_227, _SMI, ""),
    ("rtx-5070-ti", "RTX 5070 Ti 16GB", 16_303, _SMI, ""),
    ("rtx-5080", "RTX 5080 16GB", 16_303, _SMI, ""),
    ("rtx-5090", "RTX 5090 32GB", 32_607, _SMI, ""),
    ("rtx-a4000", "RTX A4000 16GB", 16_376, _NO_ECC, ""),
    ("rtx-a5000", "RTX A5000 24GB", 24_564, _NO_ECC, ""),
    ("rtx-a6000", "RTX A6000 48GB", 49_140, _NO_ECC, ""),
    ("rtx-6000-ada", "RTX 6000 Ada 48GB", 49_140, _NO_ECC, ""),
    ("rtx-pro-6000", "RTX PRO 6000 Blackwell 96GB", 97_887, _SMI, "max q workstation server"),
    ("p100-16", "P100 16GB", 16_384, _SMI, "pcie sxm"),
    ("v100-16", "V100 16GB", 16_384, _SMI, "pcie sxm"),
    ("v100-32", "V100 32GB", 32_768, _SMI, "pcie sxm"),
    ("t4", "T4 16GB", 15_360, _ECC, ""),
    ("a10", "A10 24GB", 23_028, _ECC, ""),
    ("a10g", "A10G 24GB", 23_028, _ECC, ""),
    ("a30", "A30 24GB", 24_576, _SMI, ""),
    ("a40", "A40 48GB", 46_068, _ECC, ""),
    ("a100-40", "A100 40GB", 40_960, _SMI, "pcie sxm"),
    ("a100-80", "A100 80GB", 81_920, _SMI, "pcie sxm"),
    ("l4", "L4 24GB", 23_034, _ECC, ""),
    ("l40", "L40 48GB", 46_068, _ECC, ""),
    ("l40s", "L40S 48GB", 46_068, _ECC, ""),
    ("h100-80", "H100 80GB", 81_559, _NVML, "pcie sxm"),
    ("h100-nvl", "H100 NVL 94GB", 95_830, _SMI, ""),
    ("gh200-96", "GH200 96GB", 97_871, _SMI, "120gb 480gb"),
    ("h200", "H200 141GB", 143_771, _NVML, "nvl sxm"),
    ("b200", "B200 180GB", 183_359, _SMI, "192gb sxm"),
    ("b300", "B300 288GB", 275_040, _SMI, "sxm ac"),
    ("mi250x", "MI250X 64GB", 65_520, _DIE, ""),
    ("mi300x", "MI300X 192GB", 196_592, _ROCM, "oam"),
)

DEVICES: Mapping[str, Device] = {
    key: Device(key, title, total * 2**20, source, words)
    for key, title, total, source, words in _ROWS
}
"""Every GPU in the table by its key, in the order to show them in."""

_LARGEST = 10**13
_LONGEST = 100  # characters; no name is longer, and a pattern on more would only take time

# What a maker writes around a model's name.
_MAKER = re.compile("nvidia|geforce|tesla|rtx|amd|instinct")
_EDITION = r"generation|edition|hbm[0-9]e?"


def device(text: str) -> Device:
    """The GPU that a name or a size stands for.

    Args:
        text: a size such as 24GB (24e9 bytes) or 24GiB, a key, a title, or the name that the
            driver gives the board; case, spaces and dashes don't matter. A name that several
            boards have, such as A100, stands for the one with the least memory.

    Raises:
        UserError: no GPU of the table has this name, or the size is below 1 byte or not below
            10 TB.
    """
    text = text.strip()
    if size := read_size(text):
        return _of_size(size)
    asked = _squeezed(text) if len(text) <= _LONGEST else ""
    found = [d for d in DEVICES.values() if asked in (_squeezed(d.key), _squeezed(d.title))]
    # A whole name goes first: "RTX 3090" is not the Ti.
    found = found or [d for d in DEVICES.values() if _fits(asked, d)]
    if found:
        # What fits the smallest of a family fits them all.
        return min(found, key=lambda one: one.memory_bytes)
    raise _unknown(text, asked)


def _of_size(size: Size) -> Device:
    name = f"{size.number}{size.unit}"
    if not 1 <= size.value < _LARGEST:
        shown = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"
        raise UserError(
            f"device {shown}: no GPU has so {'little' if size.value < 1 else 'much'} memory",
            "Give a size from 1B to below 10TB, such as 24GB (24e9 bytes) or 24GiB.",
        )
    return Device(name, name, round(size.value), "as asked")


def _unknown(text: str, asked: str) -> UserError:
    near = difflib.get_close_matches(asked, [_squeezed(key) for key in DEVICES], n=3)
    close = [key for key in DEVICES if _squeezed(key) in near]
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return UserError(
        f"device {shown!r} is neither a size nor a GPU in the table{hint}",
        "Give a size such as 24GB (24e9 bytes) or 24GiB, or a name such as RTX 4090 or A100-40; "
        "`peftmark list` shows all names.",
    )


def _squeezed(name: str) -> str:
    """A name without what tells no board from another."""
    return _MAKER.sub("", re.sub(r"[\s_-]", "", name.lower()))


def _fits(asked: str, candidate: Device) -> bool:
    """Whether `asked` holds the candidate's model and, besides, only words of its names."""
    # The longest word of a key is the model: 4060 of rtx-4060-ti-16.
    model = max(candidate.key.split("-"), key=len)
    names = f"{candidate.key} {candidate.title} {candidate.words}".lower()
    words = [
        # The driver adds a number to SXM; the unit of a size may be left out or be GiB.
        re.sub(r"^([0-9]+)gb$", r"\1(?:gi?b?)?", re.sub("^sxm$", "sxm[0-9]?", word))
        for word in sorted(set(re.split("[ -]", names)) - {""})
    ]
    return (
        model in asked and re.fullmatch(f"(?:{'|'.join([*words, _EDITION])})+", asked) is not None
    )
