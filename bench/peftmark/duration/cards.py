"""How fast GPUs are, and what a step takes on one.

A step on a GPU is either computed or launched, whichever takes longer: the device works off
operations while the host, one after the other, hands it the next. An operation is computed in the
time of its products or of its bytes, whichever is longer (Williams, Waterman and Patterson,
Roofline, Communications of the ACM 52, 2009). docs/time.md has the arithmetic, and how far it is
off from times that others published.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from peftmark.core.errors import StoreError, UserError
from peftmark.core.files import write_all
from peftmark.core.interpreter import passed_on
from peftmark.core.sealed import sealed, unsealed
from peftmark.machine.environment import machine, source_hash, versions
from peftmark.machine.gpus import device
from peftmark.machine.visible import VARIABLE, Gpu

WORKER = "peftmark.lab.duration.card_rates"
OF_MODELS = 0.9
"""Share of a large product's rate that those of a model reach, which are smaller."""
FOREACH = 1e-6
"""Seconds of the host an operation of the update: torch updates many tensors with one call on a
GPU, and the steps that are counted update them one by one."""
OF_BANDWIDTH = 0.8
"""Share of the data sheet's bandwidth that operations reach which only move bytes."""
KERNEL = 3e-6
"""Seconds that an operation occupies the device at least."""
LAUNCH, VIEW = 30e-6, 6e-6
"""Seconds of the host an operation, and one that only looks at a tensor in another way, with what
Python, autograd, autocast, the meters and the choice of operations that repeat themselves add: a
LoRA step of six layers, 1,043 of the one and 1,013 of the other, took 38 ms beside an H100
(docs/gpu-checklist.md)."""
FREE = ("_unsafe_view", "detach", "alias", "lift_fresh", "empty", "empty_like", "new_empty")
"""Operations without a kernel of their own that no rule tells from others."""


@dataclass(frozen=True)
class Card:
    """A GPU's rates, as large operations reach them.

    Attributes:
        bf16, fp16, fp32: floating-point operations a second of matrix products, of fp32 without
            TF32; 0 for number types that it has no units for, whose products take fp32's.
        bandwidth: bytes a second of its memory.
        launch, view: seconds of the host an operation, and one that only looks at a tensor in
            another way.
        source: where the figures are from.
    """

    title: str
    bf16: float
    fp16: float
    fp32: float
    bandwidth: float
    launch: float
    view: float
    source: str

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where they are measured."""
        return "cuda"

    @property
    def call(self) -> float:
        """Seconds of the host for an operation that does next to nothing."""
        return self.view

    def seconds(self, work: Mapping[str, Sequence[float]], part: str, scale: float = 1.0) -> float:
        """Seconds of a part of a step.

        Args:
            work: as `peftmark.memory.forecast.Forecast` has it.
            part: forward, backward, update or scored.
            scale: of operations and bytes, for another number of rows.
        """
        computed = launched = 0.0
        launch, least = (FOREACH, 0.0) if part == "update" else (self.launch, KERNEL)
        for key, (calls, flops, size) in work.items():
            of, _, operation = key.partition(" ")
            if of != part:
                continue
            name, _, kind = operation.removesuffix("+").partition(" ")
            if kind == "-" or name in FREE:
                launched += self.view * calls
                continue
            rate = OF_MODELS * (self._rates.get(kind) or self.fp32)
            busy = scale * max(flops / rate, size / self.bandwidth)
            computed += max(least * calls, busy)
            launched += launch * calls
        return max(computed, launched)

    @property
    def _rates(self) -> dict[str, float]:
        return {"bfloat16": self.bf16, "float16": self.fp16}


# Peaks are those of the makers' data sheets and papers on the architectures, dense; of 16-bit
# products those that sum in fp32. The share of the peak that a large product reaches was measured
# and published for A100 (0.87), H100, H200 and GH200 (0.80 to 0.84) and B200 (0.78); GeForce cards
# sum in fp32 at half their rate, which their memory and clocks keep up with; what draws little
# power for its size, as L40S, L4 and T4 do, falls below its clocks in long products, by how much
# nobody published.
_SHEET = "data sheet"
_FULL, _USUAL, _COOL = 0.95, 0.8, 0.65

# key as in `peftmark.machine.gpus`, title, then bf16, fp16 and fp32 in TFLOP/s, GB/s, share
_ROWS = (
    ("rtx-2080-ti", "RTX 2080 Ti", 0, 53.8, 13.4, 616, _FULL),
    ("rtx-3060", "RTX 3060", 25.3, 25.3, 12.7, 360, _FULL),
    ("rtx-3080", "RTX 3080", 59.5, 59.5, 29.8, 760, _FULL),
    ("rtx-3090", "RTX 3090", 71, 71, 35.6, 936, _FULL),
    ("rtx-4060-ti-16", "RTX 4060 Ti", 44, 44, 22.1, 288, _FULL),
    ("rtx-4070", "RTX 4070", 58.3, 58.3, 29.1, 504, _FULL),
    ("rtx-4080", "RTX 4080", 97.5, 97.5, 48.7, 717, _FULL),
    ("rtx-4090", "RTX 4090", 165.2, 165.2, 82.6, 1008, _FULL),
    ("rtx-5090", "RTX 5090", 209.5, 209.5, 104.8, 1792, _FULL),
    ("rtx-a5000", "RTX A5000", 111.1, 111.1, 27.8, 768, _USUAL),
    ("rtx-a6000", "RTX A6000", 154.8, 154.8, 38.7, 768, _USUAL),
    ("rtx-6000-ada", "RTX 6000 Ada", 364.2, 364.2, 91.1, 960, _COOL),
    ("p100-16", "P100", 0, 21.2, 10.6, 732, _USUAL),
    ("v100-16", "V100 SXM2", 0, 125, 15.7, 900, _USUAL),
    ("v100-32", "V100 SXM2", 0, 125, 15.7, 900, _USUAL),
    ("t4", "T4", 0, 65, 8.1, 320, _COOL),
    ("a10", "A10", 125, 125, 31.2, 600, _COOL),
    ("a10g", "A10G", 70, 70, 31.2, 600, _USUAL),
    ("a30", "A30", 165, 165, 10.3, 933, _USUAL),
    ("a40", "A40", 149.7, 149.7, 37.4, 696, _USUAL),
    ("a100-40", "A100 40GB", 312, 312, 19.5, 1555, 0.85),
    ("a100-80", "A100 80GB SXM", 312, 312, 19.5, 2039, 0.85),
    ("l4", "L4", 121, 121, 30.3, 300, _COOL),
    ("l40", "L40", 181, 181, 90.5, 864, _USUAL),
    ("l40s", "L40S", 362, 362, 91.6, 864, _COOL),
    ("h100-80", "H100 SXM", 989, 989, 67, 3350, 0.8),
    ("h100-nvl", "H100 NVL", 835, 835, 60, 3900, 0.8),
    ("gh200-96", "GH200", 989, 989, 67, 4000, 0.8),
    ("h200", "H200 SXM", 989, 989, 67, 4800, 0.8),
    ("b200", "B200", 2250, 2250, 80, 8000, 0.78),
)

CARDS: Mapping[str, Card] = {
    key: Card(
        title,
        1e12 * share * bf16,
        1e12 * share * fp16,
        1e12 * share * fp32,
        1e9 * OF_BANDWIDTH * bandwidth,
        LAUNCH,
        VIEW,
        _SHEET,
    )
    for key, title, bf16, fp16, fp32, bandwidth, share in _ROWS
}
"""Card by the key of its device (`peftmark.machine.gpus.DEVICES`)."""


def card_of(cache: Path, gpu: Gpu) -> Card | None:
    """The rates of a GPU of this machine: as measured here, or else by its name; None if it was
    not measured and no figures are known of its name."""
    try:
        return Card(**unsealed(_place(cache, gpu).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        pass  # not there, or damaged
    try:
        return CARDS.get(device(gpu.name).key)
    except UserError:
        return None


def measured_card(cache: Path, gpu: Gpu) -> Card:
    """Measure a GPU of this machine, and keep what was found; takes some seconds.

    Raises:
        UserError: the process that measures ended.
    """
    command = [sys.executable, "-P", "-m", WORKER, "cuda"]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=passed_on({"OMP_NUM_THREADS": "1", VARIABLE: gpu.uuid, "HF_HUB_OFFLINE": "1"}),
    )
    try:
        found = measured(gpu.name, json.loads(done.stdout))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"the process that measures {gpu.name} ended without a word",
            f"Look at what it says: {VARIABLE}={gpu.uuid} {' '.join(command)}",
        ) from error
    with suppress(StoreError):  # a cache that can't be written is gone without
        write_all({_place(cache, gpu): sealed(asdict(found))})
    return found


def measured(title: str, told: Mapping[str, float]) -> Card:
    """A card from what `peftmark.lab.duration.card_rates` says; a view is taken to be as much
    quicker than an operation as it is where nobody measured."""
    share = VIEW / LAUNCH
    launch = told["step"] / (told["operations"] + share * told["views"])
    rates = {name: told[name] for name in ("bf16", "fp16", "fp32", "bandwidth")}
    return Card(title, launch=launch, view=share * launch, source="measured here", **rates)


def _place(cache: Path, gpu: Gpu) -> Path:
    made_by = {
        "gpu": gpu.name,
        "machine": machine(),
        "versions": versions(),
        "lab": source_hash("peftmark.lab"),
    }
    name = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
    return cache / "calibration" / f"{name}.json"
