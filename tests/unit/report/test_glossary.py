"""What a report says of each method, base format and task in a line."""

from dataclasses import replace

import pytest

from factory import ADALORA_NF4, FULL, LORA, QLORA, make_job, make_matrix, make_record
from peftmark.catalog.methods import all_methods
from peftmark.catalog.tasks import TASKS
from peftmark.record.own import Own
from peftmark.report import glossary
from shown import show, write


def lines(records):
    return {t.title: t for t in show(records).terms}


def test_methods_formats_and_tasks_have_a_line_each_with_its_paper():
    rows = make_matrix([LORA, QLORA, ADALORA_NF4, FULL], tasks=["sst2"], seeds=[0])
    rows = [replace(r, job=replace(r.job, task="trec")) for r in rows]
    found = lines(rows)
    assert list(found) == ["LoRA", "AdaLoRA", "full fine-tuning", "NF4", "TREC questions"]
    assert found["LoRA"].names == ("LoRA r8", "QLoRA r8")
    assert "arXiv 2106.09685" in found["LoRA"].paper and "2305.14314" in found["LoRA"].paper
    assert found["LoRA"].text.endswith("; the number after r is its rank")
    assert found["full fine-tuning"].paper == ""
    assert found["NF4"].text.startswith("the base's frozen weights in 4 bits: 4-bit NormalFloat")
    trec = found["TREC questions"]
    assert (trec.names, trec.paper) == (("trec",), "Li and Roth 2002, COLING")
    assert trec.text.endswith("; scored by accuracy")


def test_of_an_own_task_it_says_what_is_known():
    own = Own("classification", ("yes", "no"), (), 1200, 300)
    job = make_job(task="tickets", own=own, metric="accuracy")
    found = lines([make_record(job=job)])["tickets"]
    assert found.text == (
        "your own classification with 2 classes: 1,200 rows to train on, 300 to evaluate; scored "
        "by accuracy"
    )
    assert found.paper == ""


def test_what_the_catalogue_does_not_know_has_no_line():
    job = make_job(method="gone", task="lost")
    assert lines([make_record(job=job)]) == {}


@pytest.mark.slow
def test_a_catalogued_text_stands_once_in_the_page(tmp_path):
    page = write(tmp_path, make_matrix([LORA, QLORA, FULL], seeds=[0]))["index.html"]
    assert page.count(all_methods()["full"].summary) == 1


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_task_of_the_catalogue_says_where_it_is_from(task):
    assert task.paper and not task.paper.endswith(".")


def test_every_method_of_the_catalogue_says_where_it_is_from_by_itself():
    for method in all_methods().values():
        assert method.source and "above" not in method.source, method.key


def test_a_key_is_one_word_of_the_page():
    assert glossary._plain("peft:lora") == "peft-lora"
