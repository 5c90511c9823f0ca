"""`python -m peftmark.docgen.memory_page` writes docs/memory-tables.md: what fine-tuning takes.

Every number is predicted (`peftmark.memory.forecast`) or published
(`peftmark.claims.memory_figures`); the page names the versions it was made with and no date, so
that the same software writes the same page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from peftmark.claims.memory_figures import KINDS, MemoryVerdict, memory_verdicts
from peftmark.claims.memory_text import (
    chosen_text,
    claimed_text,
    conditions,
    predicted_text,
    sentence,
)
from peftmark.core.files import write_all
from peftmark.machine.gpus import ALLOCATOR_SHARE, CONTEXT_BYTES, DEVICES, WORKSPACE_BYTES, room
from peftmark.memory.forecast import Forecast, forecasts
from peftmark.memory.published_run import Scenario
from peftmark.record.fields import LIVE_PARTS
from peftmark.sources.assets import default_cache

PAGE = Path("docs") / "memory-tables.md"
SIZES: Mapping[str, tuple[str, ...]] = {
    "1B": ("llama-3.2-1b",),
    "3B": ("llama-3.2-3b",),
    "7B": ("llama-2-7b",),
    "8B": ("llama-3-8b",),
    "13B": ("llama-2-13b",),
    "70B": ("llama-2-70b",),
}
LENGTHS = (512, 2048)
GPUS = ("rtx-4090", "rtx-a6000", "h100-80", "h200")
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
GB = 10**9


@dataclass(frozen=True)
class Setting:
    """A way to fine-tune: its name and what it sets in a scenario."""

    title: str
    fields: Mapping[str, object]


_ADAPTER = {"rank": 16, "targets": "all-linear", "dropout": 0.05}
_NF4 = {
    "quantization": "nf4",
    "double_quantization": True,
    "optimizer": "paged_adamw_8bit",
}
_PLAIN = {"quantization": "none", "optimizer": "adamw"}
SETTINGS = (
    Setting("full", {"method": "full", **_PLAIN}),
    Setting("LoRA, fp32 base", {"method": "lora", "weights": "fp32", **_ADAPTER, **_PLAIN}),
    Setting("LoRA", {"method": "lora", **_ADAPTER, **_PLAIN}),
    Setting("QLoRA", {"method": "lora", **_ADAPTER, **_NF4}),
    Setting("AdaLoRA on NF4", {"method": "adalora", "init_rank": 24, **_ADAPTER, **_NF4}),
)


def scenarios() -> dict[tuple[str, str, bool, int], Scenario]:
    """(model, title of the setting, checkpointing, length) -> what is predicted, in page order."""
    return {
        (model, setting.title, checkpointing, length): Scenario.model_validate(
            {
                "model": model,
                "weights": "bf16",
                "autocast": True,
                "batch": 1,
                "length": length,
                "checkpointing": checkpointing,
                "accumulation": 1,
                "attention": "sdpa",
                **setting.fields,
            }
        )
        for models in SIZES.values()
        for model in models
        for setting in SETTINGS
        for checkpointing in (False, True)
        for length in LENGTHS
    }


Cells = Mapping[tuple[str, str, bool, int], Forecast]


def page(found: Cells, verdicts: Sequence[MemoryVerdict], versions: Mapping[str, str]) -> str:
    """The page as Markdown.

    Args:
        found: a forecast for each of `scenarios`.
        versions: of the libraries that the prediction rests on.
    """
    blocks = [
        "<!-- Written by `python -m peftmark.docgen.memory_page`; don't edit. -->",
        "# What fine-tuning takes",
        *_scope(versions),
        *(text for size in SIZES for text in _size(size, found)),
        *_published(verdicts),
    ]
    return "\n\n".join(blocks) + "\n"


def _scope(versions: Mapping[str, str]) -> Iterator[str]:
    gpus = ", ".join(
        f"{DEVICES[key].title} ({DEVICES[key].memory_bytes / GB:.1f} GB)" for key in GPUS
    )
    yield (
        "Scope: one training step on one GPU, no sharding and no offloading but for optimizer "
        "states, transformers' own model code and torch's allocator. Every peak is predicted: the "
        "real step is run on tensors without values, and the bytes of all tensors alive at once "
        "are added up, each rounded up as the allocator does. Nothing here was measured; how the "
        "prediction compares with measurements is in docs/memory.md."
    )
    yield (
        "Limits: a peak holds tensors alone; CUDA's context, libraries and the allocator's "
        'fragmentation come on top. 1 GB is 1e9 bytes. "Fits" means that the peak is no more than '
        f"a GPU's memory ({gpus}) less {CONTEXT_BYTES / GB:.2f} GB for context and libraries, "
        f"{WORKSPACE_BYTES / GB:.2f} GB for cuBLAS and {ALLOCATOR_SHARE:.1%} for the allocator, as "
        "measured on one H100. The driver keeps a part of the memory too, so what only just fits "
        "may not."
    )
    yield (
        "Setting: causal language model, batch 1, rows of exactly the length (no padding), bf16 "
        "weights but where fp32 is said, bf16 autocast, torch's fused attention, AdamW. LoRA: r "
        "16, alpha 32, dropout 0.05, on all linear layers but the output layer, adapters in fp32. "
        "QLoRA: the same on an "
        "NF4 base, doubly quantised, with paged 8-bit AdamW. AdaLoRA on NF4: as QLoRA, from rank "
        "24 to 16 on average, while all 24 are there. Full: every weight, gradient and state in "
        "bf16. States that the driver may page out to the host are not in a peak and have a "
        "column of their own."
    )
    yield "Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()) + "."


def _size(size: str, found: Cells) -> Iterator[str]:
    yield f"## {size}"
    for model in SIZES[size]:
        mine = {key[1:]: one for key, one in found.items() if key[0] == model}
        whole = next((f for key, f in mine.items() if key[0] == "full" and not f.reason), None)
        told = f", {whole.parameters:,} parameters" if whole else ""
        yield f"### {model}{told}"
        yield "Peak in GB at batch 1, and the smallest of the GPUs that it fits:"
        yield _table(
            [
                "method",
                "checkpointing",
                *(f"{n:,} tokens" for n in LENGTHS),
                *(f"fits at {n:,}" for n in LENGTHS),
            ],
            [
                [setting.title, _on(checkpointing)]
                + [_peak(mine[setting.title, checkpointing, n]) for n in LENGTHS]
                + [_smallest(mine[setting.title, checkpointing, n]) for n in LENGTHS]
                for setting in SETTINGS
                for checkpointing in (False, True)
            ],
        )
        yield (
            f"Components in GB at the moment of the peak, {LENGTHS[0]:,} tokens; temporaries are "
            "what lives within the step beside the rest:"
        )
        yield _table(
            ["method", "checkpointing", *(part.title for part in LIVE_PARTS), "may be paged out"],
            [
                [
                    setting.title,
                    _on(checkpointing),
                    *_components(mine[setting.title, checkpointing, LENGTHS[0]]),
                ]
                for setting in SETTINGS
                for checkpointing in (False, True)
            ],
        )
        if reasons := sorted({one.reason for one in mine.values() if one.reason}):
            yield f"n/a: {'; '.join(reasons)}."


def _on(value: bool) -> str:
    return "on" if value else "off"


def _peak(one: Forecast) -> str:
    return "n/a" if one.reason else f"{one.allocated / GB:.1f}"


def _smallest(one: Forecast) -> str:
    if one.reason:
        return "n/a"
    devices = (DEVICES[key] for key in GPUS)
    fitting = (device.title for device in devices if one.allocated <= room(device.memory_bytes))
    return next(fitting, "none of them")


def _components(one: Forecast) -> list[str]:
    if one.reason:
        return ["n/a"] * (len(LIVE_PARTS) + 1)
    return [
        f"{size / GB:.2f}" for size in (*(one.live[part.key] for part in LIVE_PARTS), one.paged)
    ]


def _published(verdicts: Sequence[MemoryVerdict]) -> Iterator[str]:
    yield "## Published figures"
    counts = ((kind, sum(v.kind == kind for v in verdicts)) for kind in KINDS)
    yield (
        "Figures from papers, projects and articles beside the prediction of the run they are of. "
        "Where a source leaves conditions out, several were tried, and a figure is confirmed or "
        "refuted only if all of them agree, within 10 %. Of "
        f"{len(verdicts)} figures: {', '.join(f'{n} {kind}' for kind, n in counts if n)}."
    )
    yield _table(
        ["claim", "figure", "published", "meter", "predicted", "verdict"],
        [
            [
                v.figure.claim or "",
                f"[{v.figure.id}](#{v.figure.id})",
                claimed_text(v),
                v.figure.meter,
                predicted_text(v),
                v.kind,
            ]
            for v in verdicts
        ],
    )
    for verdict in verdicts:
        yield f"### {verdict.figure.id}"
        yield "\n".join(_about(verdict))


def _about(verdict: MemoryVerdict) -> Iterator[str]:
    figure = verdict.figure
    yield f"- {figure.says} Source: {figure.source}."
    yield from (f"- {line}" for line in conditions(figure))
    reason = f": {verdict.reason}" if verdict.reason else ""
    yield f"- Verdict: {verdict.kind}{reason}."
    if verdict.kind == "undecided" and verdict.fitting:
        fits = "; ".join(chosen_text(figure, one) for one in verdict.fitting)
        yield f"- Fits with: {fits}."
    for part in verdict.parts:
        yield (
            f"- {sentence(part.part)}: published {claimed_text(part)}, predicted "
            f"{predicted_text(part)}, {part.kind}."
        )
    if figure.caveat:
        yield f"- {figure.caveat}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def installed() -> dict[str, str]:
    """Versions of the libraries that a prediction rests on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def main() -> None:
    """Predict what is not in the cache and write the page."""

    def heard(done: int, total: int) -> None:
        print(f"\r{done} of {total} steps predicted", end="", file=sys.stderr, flush=True)

    asked = scenarios()
    told = forecasts([one.request() for one in asked.values()], default_cache(), heard=heard)
    verdicts = memory_verdicts(None, default_cache(), heard)
    print(file=sys.stderr)
    text = page(dict(zip(asked, told, strict=True)), verdicts, installed())
    write_all({PAGE: text})
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
