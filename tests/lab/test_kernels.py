"""Liger's kernels under a model: asked of a stand-in for the library, which wants a GPU."""

from __future__ import annotations

from dataclasses import replace
from types import MethodType, SimpleNamespace

import pytest
import torch
import transformers
from transformers.integrations import liger as of_transformers

import tiny_causal
from peftmark.catalog.tasks import TASKS
from peftmark.lab import kernels
from peftmark.lab.afresh import Afresh
from peftmark.lab.errors import Unsupported
from peftmark.lab.memory.fake_step import NotSymbolic, run


def job(device="cuda", asked="liger"):
    made = tiny_causal.job("lora", "tiny-answer")
    return replace(made, device=device, recipe=replace(made.recipe, kernels=asked))


@pytest.fixture
def model(tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    return transformers.AutoModelForCausalLM.from_config(tiny_causal.CONFIGS["llama"]())


def forward(self, hidden):
    return hidden * 0


forward.__module__ = "liger_kernel.transformers.rms_norm"


@pytest.fixture
def library(monkeypatch):
    """Stands in for liger-kernel: notes what it is asked, and puts its code into the last norm."""
    told = SimpleNamespace(settings=None, changes=True)

    def apply(model, settings):
        told.settings = settings
        if told.changes:
            norm = model.model.norm
            vars(norm)["forward"] = MethodType(forward, norm)

    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(of_transformers, "apply_liger_kernel", apply)
    return told


def test_a_model_runs_on_the_librarys_layers_and_keeps_its_own_loss(model, library):
    ids = torch.arange(4, 9)[None]
    before = model(input_ids=ids).logits
    kernels.run_on_kernels(model, job())
    assert library.settings == {"cross_entropy": False, "fused_linear_cross_entropy": False}
    after = model(input_ids=ids).logits
    assert before.abs().sum() > 0 and after.abs().sum() == 0


def test_a_recipe_that_asks_for_none_changes_nothing(model, library):
    kernels.run_on_kernels(model, job(asked=None))
    assert library.settings is None


def test_a_library_that_changes_nothing_is_told(model, library):
    library.changes = False
    with pytest.raises(Unsupported, match="changed no layer of a model of type llama"):
        kernels.run_on_kernels(model, job())


def test_a_cpu_an_unknown_architecture_and_a_missing_library_are_refused(model, monkeypatch):
    with pytest.raises(Unsupported, match=r"kernels: liger needs a GPU.*leave kernels out"):
        kernels.run_on_kernels(model, job("cpu"))
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match=r"pip install 'peftmark\[liger\]'"):
        kernels.run_on_kernels(model, job())
    model.config.model_type = "opt"
    with pytest.raises(Unsupported, match="has none for a model of type opt"):
        kernels.run_on_kernels(model, job())


def test_its_steps_are_not_predicted(model):
    with pytest.raises(NotSymbolic, match="kernels of others run on values alone"):
        run(job(), TASKS["tiny-answer"], model.config, [])


def test_a_process_whose_layers_ran_on_them_takes_no_other_job(model):
    assert Afresh().again(job()) == "its layers ran on kernels of others"
