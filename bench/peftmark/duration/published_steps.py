"""Steps that others timed, and what a prediction says of them.

Published figures are of loops other than ours, so the host's time an operation is theirs, and no
figure of peftmark's own enters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from peftmark.duration.cards import CARDS, Card
from peftmark.memory.forecast import Forecast, forecasts
from peftmark.memory.published_run import CONDITIONAL, Scenario, filled

PLAIN_LAUNCH, PLAIN_VIEW = 16e-6, 3e-6
"""Seconds of the host in a loop without peftmark's meters and without operations that repeat
themselves; chosen on the two LoRA rows of litgpt, which wait for the host."""

_CHOSEN: Mapping[str, object] = {
    "quantization": "none",
    "weights": "bf16",
    "autocast": True,
    "checkpointing": False,
    "optimizer": "adamw",
    "accumulation": 1,
    "attention": "sdpa",
    "targets": "all-linear",
    "dropout": 0.0,
    "rank": 8,
    "init_rank": 64,
    "double_quantization": True,
}


@dataclass(frozen=True)
class PublishedStep:
    """A step that somebody else timed.

    Attributes:
        what: the run, for people.
        card: key of the GPU.
        scenario: what of it is stated, or assumed as the group says.
        seconds: of a step.
        reason: why a prediction further off than a quarter is; empty for none.
    """

    what: str
    card: str
    scenario: Mapping[str, object]
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Group:
    """Steps of one source.

    Attributes:
        title: the source, and what is assumed.
        compiled: whether a compiler fused what isn't a product, so that products alone count.
    """

    title: str
    rows: tuple[PublishedStep, ...]
    compiled: bool = False


_PEFT: Mapping[str, object] = {
    "model": "llama-3.2-3b",
    "autocast": False,
    "batch": 4,
    "length": 210,
    "targets": "query-value",
    "rank": 32,
}
_LORA_3B = 585 / 5000


def _peft(what: str, ratio: float, **fields: object) -> PublishedStep:
    return PublishedStep(what, "l40s", {**_PEFT, **fields}, ratio * _LORA_3B)


def _alpaca(what: str, seconds: float, reason: str = "", **fields: object) -> PublishedStep:
    fixed = {"method": "lora", "rank": 32, "batch": 1, "length": 150, "autocast": False}
    return PublishedStep(what, "a10g", {**fixed, **fields}, seconds, reason)


def _packed(what: str, card: str, tokens_per_second: float, **fields: object) -> PublishedStep:
    scenario = {"method": "lora", "batch": 2, "checkpointing": True, **fields}
    length = int(str(scenario["length"]))
    return PublishedStep(what, card, scenario, 2 * length / tokens_per_second)


GROUPS = (
    Group(
        "PEFT's own comparison, Llama-3.2-3B on an L40S, 4 rows of 210 tokens on average",
        (
            _peft("LoRA r32", 1.0, method="lora"),
            _peft("full fine-tuning", 3.10, method="full"),
            _peft("DoRA r32", 1.21, method="dora"),
            _peft("AdaLoRA from r64", 1.22, method="adalora"),
            _peft("IA3", 0.99, method="ia3"),
            _peft("VeRA", 1.07, method="peft:vera"),
        ),
    ),
    Group(
        "litgpt's table on an A10G, whose runtime holds evaluations; Alpaca's rows are taken to "
        "have 150 tokens, the longest of four 200, of two 170",
        (
            _alpaca("Llama-3.2-1B, LoRA r32", 4.17 * 60 / 3800, model="llama-3.2-1b"),
            _alpaca("Llama-3.2-3B, LoRA r32", 8.31 * 60 / 3800, model="llama-3.2-3b"),
            _alpaca(
                "Llama-3.2-1B, full",
                2.01 * 60 / 475,
                model="llama-3.2-1b",
                method="full",
                batch=4,
                length=200,
            ),
            _alpaca(
                "Llama-3.2-1B, QLoRA r32",
                6.20 * 60 / 1900,
                "kernels: its bitsandbytes unpacks 4-bit weights more slowly",
                model="llama-3.2-1b",
                quantization="nf4",
                autocast=True,
                batch=2,
                length=170,
            ),
        ),
    ),
    Group(
        "torchtune's table, two packed rows, checkpointing, compiled: products alone are counted",
        (
            _packed(
                "Llama-3.1-8B, LoRA, RTX 4090", "rtx-4090", 3083, model="llama-3-8b", length=2048
            ),
            _packed(
                "Llama-3.1-8B, QLoRA, RTX 4090",
                "rtx-4090",
                2413,
                model="llama-3-8b",
                length=2048,
                quantization="nf4",
            ),
            _packed("Llama-3.2-3B, LoRA, A100", "a100-80", 8210, model="llama-3.2-3b", length=4096),
            _packed(
                "Llama-3.2-3B, QLoRA, A100",
                "a100-80",
                8035,
                model="llama-3.2-3b",
                length=4096,
                quantization="nf4",
            ),
        ),
        compiled=True,
    ),
)


def scenario_of(row: PublishedStep) -> Scenario:
    """The step that stands for a published one."""
    given = {k: v for k, v in row.scenario.items() if k not in CONDITIONAL}
    return filled(given, {**_CHOSEN, **row.scenario})


def step_seconds(told: Forecast, card: Card, compiled: bool) -> float:
    """Predicted seconds of a step in a plain loop.

    Args:
        compiled: count products, and the unpacking of weights, alone.
    """
    work: Mapping[str, tuple[float, ...] | list[int]] = told.work
    if compiled:
        work = {
            key: (0, flops, size if "4bit" in key else 0)
            for key, (_, flops, size) in told.work.items()
        }
    plain = replace(card, launch=PLAIN_LAUNCH, view=PLAIN_VIEW)
    return sum(plain.seconds(work, part) for part in ("forward", "backward", "update"))


@dataclass(frozen=True)
class Timed:
    """A published step beside its prediction.

    Attributes:
        seconds: predicted; None where nothing could be.
        missing: why not.
    """

    row: PublishedStep
    group: Group
    seconds: float | None
    missing: str = ""

    @property
    def off(self) -> float | None:
        """How far the prediction is off, relative to what was published."""
        return None if self.seconds is None else self.seconds / self.row.seconds - 1


def timed_steps(
    cache: Path | None,
    heard: Callable[[int, int], None] = lambda done, total: None,
    only_kept: bool = False,
) -> list[Timed]:
    """Every published step, predicted.

    Args:
        cache: folder of the cache; None to keep nothing.
        heard: told how many of how many steps are predicted.
        only_kept: predict nothing that the cache doesn't hold.
    """
    rows = [(row, group) for group in GROUPS for row in group.rows]
    asked = [replace(scenario_of(row).request(), flops=True) for row, _ in rows]
    told = forecasts(asked, cache, heard=heard, only_kept=only_kept)
    return [
        Timed(row, group, None, one.reason)
        if one.reason
        else Timed(row, group, step_seconds(one, CARDS[row.card], group.compiled))
        for (row, group), one in zip(rows, told, strict=True)
    ]
