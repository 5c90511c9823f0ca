"""Packed rows and kernels of others: what a suite and a plan refuse, with the remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import make_job
from peftmark.catalog.kernels import LIGER
from peftmark.catalog.methods import METHODS, all_methods
from peftmark.catalog.packing import PACKED, method_fault, task_fault
from peftmark.catalog.tasks import TASKS
from peftmark.catalog.tried_architectures import TRIED
from peftmark.core.errors import Exit, SuiteError
from peftmark.suite.form import check_form


def job(model="smollm2-135m-q4", device="cuda", **recipe):
    made = make_job(model=model, device=device)
    return replace(made, recipe=replace(made.recipe, **recipe))


def refusal(*jobs, shapes=None):
    with pytest.raises(SuiteError) as caught:
        check_form(jobs, shapes or {})
    assert caught.value.code == Exit.USAGE
    return caught.value.what


def test_a_model_that_reads_across_packed_rows_is_refused_once():
    text = refusal(*[job("mine", packing=True)] * 2, shapes={"mine": {"model_type": "opt"}})
    assert text.count("model mine: a model of type opt was not seen") == 1
    assert "set packing: false" in text and "llama" in text
    check_form([job("mine")], {"mine": {"model_type": "opt"}})


def test_known_models_that_pack_and_those_whose_files_tell_are_let_through():
    check_form([job(packing=True), job("qwen2.5-0.5b", packing=True)], {})
    check_form([job("files-tell", packing=True, kernels="liger")], {})


def test_kernels_on_a_cpu_are_refused_in_one_message():
    text = refusal(job(device="cpu", kernels="liger"), job("minilm-l6", "cpu", kernels="liger"))
    assert text.count("kernels: liger needs a GPU") == 1
    assert "leave kernels out" in text


def test_flash_attention_on_a_cpu_is_refused_in_one_message():
    text = refusal(job(device="cpu", attention="flash"), job("minilm-l6", "cpu", attention="flash"))
    assert text.count("attention: flash needs a GPU") == 1
    assert "use attention: sdpa" in text
    check_form([job(attention="flash")], {})


def test_an_architecture_without_kernels_is_refused():
    text = refusal(job("minilm-l6", kernels="liger"))
    assert "model minilm-l6: kernels: liger has none for a model of type bert" in text
    check_form([job(kernels="liger")], {})


def test_rows_of_instructions_alone_are_packed():
    kinds = {task.kind for task in TASKS.values() if not task_fault(task)}
    assert kinds == {"instruction"}


def test_methods_that_put_something_before_a_row_are_refused_with_the_reason():
    refused = {key for key, method in METHODS.items() if method_fault(method)}
    assert refused == {
        *("prefix-tuning", "p-tuning-v2", "prompt-tuning", "p-tuning", "unipelt", "lora-prefix"),
        "lily",
    }
    of_peft = {key for key, m in all_methods().items() if key[:5] == "peft:" and method_fault(m)}
    assert {"peft:prompt_tuning", "peft:cartridge", "peft:prefix_tuning"} <= of_peft
    assert "peft:lora" not in of_peft
    assert "before each row" in method_fault(METHODS["prompt-tuning"])
    for key in ("lily", "peft:lily"):
        assert "averages over all tokens of a pass" in method_fault(all_methods()[key])


def test_a_method_of_a_plug_in_or_a_newer_type_is_not_trusted_to_keep_rows_apart():
    assert "isn't known" in method_fault(replace(METHODS["lora"], code="theirs:method"))
    newer = replace(METHODS["lora"], key="peft:of_tomorrow", family="peft")
    assert "isn't known" in method_fault(newer)


def test_named_architectures_are_tried_ones():
    assert set(PACKED) <= set(TRIED) and set(LIGER) <= set(TRIED)
