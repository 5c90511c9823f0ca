"""Rows that may be longer than a model has positions for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import make_job
from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.positions import Positions, positions_of
from peftmark.core.errors import Exit, SuiteError
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite, suite_names
from peftmark.suite.positions import check_positions, virtual_tokens


def job(length, model="minilm-l6", **changes):
    made = make_job(model=model, **changes)
    return replace(made, recipe=replace(made.recipe, max_length=length))


@pytest.mark.parametrize(
    ("config", "reach"),
    [
        (OF_MODELS["bert-base-uncased"], Positions(512, fixed=True)),
        (OF_MODELS["roberta-base"], Positions(512, fixed=True)),
        (OF_MODELS["mpnet-base"], Positions(512, fixed=True)),
        (OF_MODELS["deberta-v3-base"], None),
        ({**OF_MODELS["deberta-v3-base"], "position_biased_input": True}, Positions(512, True)),
        (OF_MODELS["smollm2-1.7b"], Positions(8192, fixed=False)),
        ({"model_type": "gpt2", "n_positions": 1024}, Positions(1024, fixed=True)),
        ({"model_type": "opt", "max_position_embeddings": 2048}, Positions(2048, fixed=True)),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514}, Positions(512, True)),
        (
            {"model_type": "longformer", "max_position_embeddings": 4098, "pad_token_id": 1},
            Positions(4096, fixed=True),
        ),
        ({"model_type": "esm", "position_embedding_type": "rotary"}, None),
        ({"model_type": "bloom", "max_position_embeddings": 2048}, None),
        ({"model_type": "falcon", "alibi": True, "max_position_embeddings": 2048}, None),
        ({"model_type": "falcon", "max_position_embeddings": 2048}, Positions(2048, fixed=False)),
        ({"model_type": "t5", "n_positions": 512}, None),
        ({"model_type": "mamba"}, None),
        ({"model_type": "of-tomorrow", "max_position_embeddings": 64}, Positions(64, fixed=False)),
        ({"model_type": "bert", "max_position_embeddings": True}, None),
        (
            {"model_type": "two", "text_config": {"model_type": "gemma3_text", "n_positions": 9}},
            Positions(9, fixed=False),
        ),
    ],
)
def test_how_far_positions_reach(config, reach):
    assert positions_of(config) == reach


def test_rows_longer_than_a_table_are_a_fault_with_all_that_mends_it():
    with pytest.raises(SuiteError) as caught:
        check_positions([job(512), job(513), job(513, seed=1), job(600, task="sts-b")], {})
    task = make_job().task
    assert caught.value.code == Exit.USAGE == 2
    assert caught.value.what == (
        "rows may be longer than their model has positions for\n"
        f"  tasks.{task}: max_length is 513; model minilm-l6 has 512 positions, so at most 512\n"
        "  tasks.sts-b: max_length is 600; model minilm-l6 has 512 positions, so at most 512"
    )
    assert caught.value.remedy == (
        "Set max_length to at most 512 for minilm-l6, or take fewer virtual tokens or a model with "
        "more positions."
    )


def test_robertas_514_rows_are_512_positions():
    assert check_positions([job(512, "roberta-base")], {}) == []
    with pytest.raises(SuiteError, match="roberta-base has 512 positions, so at most 512"):
        check_positions([job(513, "roberta-base")], {})


@pytest.mark.parametrize(
    ("method", "title"),
    [
        ("prefix-tuning", "prefix tuning"),
        ("p-tuning-v2", "P-tuning v2"),
        ("prompt-tuning", "prompt tuning"),
        ("p-tuning", "P-tuning"),
    ],
)
def test_virtual_tokens_take_positions(method, title):
    assert check_positions([job(492, method=method, size=20)], {}) == []
    with pytest.raises(SuiteError) as caught:
        check_positions([job(493, method=method, size=20)], {})
    assert (
        f"max_length is 493 beside 20 virtual tokens of {title}; model minilm-l6 has 512 "
        "positions, so at most 492"
    ) in caught.value.what
    assert caught.value.remedy.startswith("Set max_length to at most 492 for minilm-l6")


@pytest.mark.parametrize(
    ("method", "size", "count"),
    [
        ("peft:prompt_tuning", 7, 7),
        ("peft:prefix_tuning", 5, 5),
        ("peft:lora", 8, 0),
        ("peft:adaption_prompt", None, 0),
        ("lora", 8, 0),
        ("unipelt", 8, 0),
        ("full", None, 0),
        ("prompt-tuning", None, 0),
    ],
)
def test_only_tokens_among_the_texts_positions_count(method, size, count):
    assert virtual_tokens(make_job(method=method, size=size)) == count


def test_as_many_virtual_tokens_as_positions_leave_none():
    with pytest.raises(SuiteError) as caught:
        check_positions([job(8, method="prompt-tuning", size=512)], {})
    assert "so at most 0" in caught.value.what
    assert caught.value.remedy.startswith("Take fewer virtual tokens or a model")


def test_a_length_beyond_what_rotary_positions_were_trained_on_is_told_and_runs():
    shapes = {"mine": {"model_type": "llama", "max_position_embeddings": 2048}}
    assert check_positions([job(2048, "mine")], shapes) == []
    (note,) = check_positions([job(2049, "mine"), job(2049, "mine", seed=1)], shapes)
    assert note.endswith(
        "max_length 2049 is beyond the 2048 positions that model mine was trained on; longer rows "
        "run, and may be read badly"
    )


def test_models_of_ones_own_are_judged_by_their_configuration():
    shapes = {"mine": {"model_type": "camembert", "max_position_embeddings": 66, "pad_token_id": 1}}
    assert check_positions([job(64, "mine")], shapes) == []
    with pytest.raises(SuiteError, match="model mine has 64 positions, so at most 64"):
        check_positions([job(65, "mine")], shapes)
    assert check_positions([job(65, "mine")], {}) == [], "nothing is known of it"


def test_faults_beyond_the_first_are_counted():
    with pytest.raises(SuiteError, match="and 2 more") as caught:
        check_positions([job(length) for length in range(513, 520)], {})
    assert len(caught.value.what.splitlines()) == 1 + 5 + 1


@pytest.mark.parametrize("name", suite_names())
def test_no_suite_of_ours_asks_for_more(name):
    suite = load_suite(name)
    for profile in suite.profiles:
        assert check_positions(expand(suite, profile, "cpu").jobs, {}) == []
