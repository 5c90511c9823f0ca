"""Every method on a causal language model: it takes a step there, or says why it can't."""

from __future__ import annotations

import pytest
import torch

import tiny
import tiny_causal
from peftmark.catalog.methods import all_methods
from peftmark.lab import recipe
from peftmark.lab.data.job_data import task_of
from peftmark.lab.methods import trainable
from peftmark.lab.models import Unsupported
from peftmark.lab.step import Step

METHODS = all_methods()
# Of PEFT's types some of each kind on every push; the rest in `make test-all`.
OFTEN = {f"peft:{key}" for key in ("lora", "adalora", "ia3", "oft", "loha", "vera", "fourierft")}
OFTEN |= {"peft:adamss", "peft:prompt_tuning", "peft:prefix_tuning", "peft:p_tuning", "peft:xlora"}


@pytest.fixture
def places(tmp_path, monkeypatch):
    return tiny_causal.with_all_parts(tmp_path, monkeypatch)


def job_of(key):
    method = METHODS[key]
    quantization = method.quantizations[0]
    few = (
        {"batches": 16 if key == "eva" else 2}
        if "batches" in {o.name for o in method.options or ()}
        else {}
    )
    options = method.resolved_options(few)
    return tiny_causal.job(key, "tiny-answer", quantization, rank=4, steps=10, options=options)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(
            key, marks=pytest.mark.slow if key.startswith("peft:") and key not in OFTEN else []
        )
        for key in METHODS
    ],
)
@pytest.mark.sweep(15)
def test_it_takes_a_step_or_says_why_not(key, places):
    method, job = METHODS[key], job_of(key)
    if method.not_causal:
        with pytest.raises(Unsupported) as refused:
            tiny_causal.built(places, job)
        assert str(refused.value) == f"tiny is a causal language model, {method.not_causal}"
        return
    if not method.trains:
        assert recipe.run(job, places, lambda _: None).status == "ok"
        return
    _, prepared = tiny_causal.built(places, job)
    before = {name: p.detach().clone() for name, p in trainable(prepared.model)}
    batch = tiny.work(places, job).preview(1)[0]
    taken = Step(job, task_of(job), prepared, torch.device("cpu"))(1, batch)
    assert torch.isfinite(taken.loss)
    after = dict(prepared.model.named_parameters())
    assert any(not torch.equal(after[name], old) for name, old in before.items()), "nothing moved"
