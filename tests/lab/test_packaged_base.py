"""The packaged encoder of base size, for real: what its files give, and that methods sit on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

import tiny
from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.lab.methods import Setting, prepare
from peftmark.lab.models import anatomy, load_model, load_tokenizer
from peftmark.sources.assets import Places, default_cache, model_files

MODEL, TASK = MODELS["mpnet-base"], TASKS["trec"]


@pytest.fixture(scope="module")
def folder():
    [package] = MODEL.packages
    if not (default_cache() / "packages" / f"{package.name}-{package.version}").is_dir():
        pytest.skip(f"{package.name} is not in the cache, and is large")
    located = model_files(MODEL, Places(None, ("package",), default_cache()))
    assert located.unsealed == ()
    return located.path


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "quantization"), [("lora", "none"), ("adalora", "none"), ("lora", "nf4")]
)
def test_its_weights_are_loaded_and_methods_sit_on_every_layer(folder, method, quantization):
    job = replace(tiny.job(method, quantization), model=MODEL.key, task="trec")
    parts = anatomy(folder, TASK)
    assert (len(parts.blocks), len(parts.encoder_linears), parts.pooler) == (12, 72, None)
    model = load_model(folder, job, TASK, parts)
    if quantization == "none":
        named = dict(model.named_parameters())
        with safe_open(folder / MODEL.weights_file, "pt") as file:
            found = {f"mpnet.{name}" for name in file.keys()}  # noqa: SIM118
            fresh = {name for name in named if name.startswith("classifier.")}
            assert set(named) - fresh <= found
            for name in set(named) - fresh:
                assert torch.equal(named[name], file.get_tensor(name.removeprefix("mpnet.")))
    setting = Setting(
        job=job,
        parts=parts,
        device=torch.device("cpu"),
        preview=lambda count: [],
        loss=lambda model, batch: None,
        fresh_base=lambda: load_model(folder, job, TASK, parts),
        plain_base=lambda: load_model(folder, replace(job, quantization="none"), TASK, parts),
        size=job.size,
    )
    prepared = prepare(model, setting)
    assert len(prepared.ranks()) == 72
    rows = load_tokenizer(folder)(["who wrote it", "where"], return_tensors="pt", padding=True)
    with torch.no_grad():
        assert prepared.model(**rows).logits.isfinite().all()
