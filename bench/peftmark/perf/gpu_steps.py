"""Our training step against a bare loop for several cells of one model, a line of JSON each.

    python -m peftmark.perf.gpu_steps '{"device": "cuda", "model": "minilm-l6", "pairs": 8, ...}'

A cell that fails has a line that says so, and the next one goes on; what a process that is ended
has printed stays. A model of random weights needs no download but a tokenizer's: how long a step
takes doesn't depend on what the weights are.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from peftmark.catalog.models import MODELS
from peftmark.perf.step import WARM_UP_BLOCKS, job_of, measure
from peftmark.record.job import Job
from peftmark.sources.assets import Places, default_cache, model_files

CELLS = {
    "LoRA": ("lora", {}),
    "AdaLoRA, batched": ("adalora", {}),
    "QLoRA (NF4)": ("qlora", {}),
    "AdaLoRA, PEFT's own": ("adalora", {"allocator": "peft"}),
}
"""Title -> cell of `peftmark.perf.step`, and options of the method; what takes longest is last."""
WATCHED = 5
"""Steps that are watched: AdaLoRA masks in one of five."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def job(title: str, ask: Mapping[str, Any]) -> Job:
    """The job of a cell, with as many steps as each side takes."""
    cell, options = CELLS[title]
    steps = (ask["pairs"] + WARM_UP_BLOCKS) * ask["steps"] + ask["watched"]
    found = job_of(cell, steps, ask["device"])
    return replace(
        found,
        recipe=replace(
            found.recipe,
            options={**found.recipe.options, **options},
            batch_size=ask.get("batch_size", found.recipe.batch_size),
        ),
    )


@contextmanager
def base_of(shape: Mapping[str, int] | None, places: Places) -> Iterator[Path | None]:
    """The folder of a BERT with random weights; None for the job's own model.

    Args:
        shape: `layers`, `width` and `heads`; None for the job's own.
    """
    if shape is None:
        yield None
        return
    import torch
    from transformers import BertConfig, BertModel

    own = model_files(MODELS["minilm-l6"], places).path
    make: Any = BertConfig
    config = make(
        num_hidden_layers=shape["layers"],
        hidden_size=shape["width"],
        intermediate_size=4 * shape["width"],
        num_attention_heads=shape["heads"],
    )
    with tempfile.TemporaryDirectory(prefix="peftmark-gpu-") as folder:
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
        for name in TOKENIZER:
            shutil.copyfile(own / name, Path(folder, name))
        yield Path(folder)


def lines(ask: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What each cell gives: `cell`, and `answer` or the `fault` that kept it from one."""
    places = Places(None, ("package",), default_cache())
    with base_of(ask.get("shape"), places) as base:
        for title in ask["cells"]:
            try:
                found = measure(
                    job(title, ask),
                    places,
                    ask["pairs"],
                    ask["steps"],
                    base,
                    exact=False,
                    watched=ask["watched"],
                )
                yield {"cell": title, "answer": asdict(found)}
            except Exception as error:  # whatever a library raises on a card nobody has tried
                told = " ".join(str(error).split())[:300]
                yield {"cell": title, "fault": f"{type(error).__name__}: {told}"}


def main(text: str) -> None:
    """Measure what the JSON asks for."""
    from peftmark.lab.worker import quiet_libraries

    quiet_libraries()
    for line in lines(json.loads(text)):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
