"""How a suite names models of one's own, and what it is told where it can't."""

from __future__ import annotations

import numpy as np
import pytest

from own_models import BERT, GPT, TOKENIZER, model_folder, put, tensors
from peftmark.core.errors import AssetError
from peftmark.own.declared_model import OwnModel, inline_key
from peftmark.own.model import read_own_model, told_of
from peftmark.own.weights import embedding_rows, refuse_no_numbers, tensors_of
from peftmark.suite.load import load_suite
from peftmark.suite.names import declare
from small_suite import QUICK, changed, refusal, write

COMMIT = "0123456789" * 4
MODEL = (*QUICK, "model")


def named(folder, value, **top):
    write(folder, changed((MODEL, value), *(((key,), one) for key, one in top.items())))
    suite = load_suite("demo", folder)
    return suite.profiles["quick"].model, suite.file.models


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("./checkpoint", "checkpoint"),
        ("/data/My Model.v2/", "my-model-v2"),
        ("~/models/encoder", "encoder"),
        ("runs/7/best_one", "best_one"),
        ("hub:Qwen/Qwen3-0.6B@" + COMMIT, "qwen3-0-6b"),
    ],
)
def test_a_path_or_an_address_is_named_after_its_last_part(value, key, tmp_path):
    assert inline_key(value) == key
    model, declared = named(tmp_path, value)
    assert model == key
    given = declared[key].hub or declared[key].path
    assert value.removeprefix("hub:") == given


def test_a_declared_name_is_used_everywhere(tmp_path):
    declared = {"mine": {"path": "./a", "read_as": "language-model", "title": "Mine"}}
    model, found = named(tmp_path, "mine", models=declared)
    assert (model, found["mine"].read_as, found["mine"].title) == ("mine", "language-model", "Mine")


def test_a_file_stays_as_it_was_and_one_path_is_one_model():
    raw = changed((MODEL, "./a"), (("methods", 0, "model"), "./a"))
    found = declare(raw)
    assert raw["profiles"]["quick"]["model"] == "./a"
    assert found["models"] == {"a": {"path": "./a"}}
    assert found["methods"][0]["model"] == "a"
    assert declare(changed()) == changed()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("hub:Qwen/Qwen3-0.6B", "peftmark pin writes"),
        ("hub:Qwen/Qwen3-0.6B@main", "40 hexadecimal digits"),
        ("./minilm-l6", "the catalogue has a model of this name"),
        ("./llama-7b", "claims and memory tables know an architecture of this name"),
        ("..", "it gives no name"),
        ("minilm-16", "did you mean minilm-l6"),
        ("checkpoint", "such as ./checkpoint"),
    ],
)
def test_what_can_not_be_a_model_is_refused_with_what_to_do(value, said, tmp_path):
    told = refusal(tmp_path, changed((MODEL, value)))
    assert "profiles.quick.model: found" in told and said in told


def test_two_folders_of_one_name_are_refused_with_the_way_out(tmp_path):
    told = refusal(tmp_path, changed((MODEL, "./a/best"), (("methods", 0, "model"), "./b/best")))
    assert "profiles.quick.model: found './a/best'" in told
    assert "models: {mine: {path: ./a/best}}" in told


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"mine": {}}, "neither is given"),
        ({"mine": {"path": "./a", "hub": f"a/b@{COMMIT}"}}, "both is given"),
        ({"mine": {"hub": "a/b@main"}}, "40 hexadecimal digits"),
        ({"mine": {"path": "./a", "read_as": "decoder"}}, "read_as"),
        ({"Mine": {"path": "./a"}}, "lower-case letters"),
        ({"roberta-base": {"path": "./a"}}, "take another"),
        ({"mine": {"path": "./a", "title": "\x1b[31m"}}, "can't be printed"),
    ],
)
def test_a_wrong_declaration_is_refused(declared, said, tmp_path):
    assert said in refusal(tmp_path, changed((("models",), declared)))


@pytest.mark.parametrize(
    ("config", "text_on"),
    [
        (BERT, False),
        (GPT, True),
        ({"model_type": "llama"}, True),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, False),
        ({"model_type": "gpt2", "architectures": ["GPT2Model"]}, True),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, True),
        ({"model_type": "electra", "architectures": []}, False),
    ],
)
def test_what_a_configuration_is_read_as(config, text_on, tmp_path):
    put(tmp_path, "config.json", config)  # and there is nothing else
    assert told_of("m", OwnModel(path="."), [tmp_path]) == (text_on, None)
    said = OwnModel(path=".", read_as="classifier" if text_on else "language-model")
    assert told_of("m", said, [tmp_path]) == (not text_on, None)


# --- weights --------------------------------------------------------------------------------------


def test_headers_tell_what_a_file_holds(tmp_path):
    folder = model_folder(tmp_path / "m", shards=2)
    found = tensors_of(sorted(folder.glob("*.safetensors")))
    assert {t.name: (t.kind, t.shape, t.count) for t in found} == {
        name: ("F32", value.shape, value.size) for name, value in tensors().items()
    }
    assert embedding_rows(found) == 12


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_infinities_and_nans_are_counted_and_numbers_are_not(kind, bad, tmp_path):
    weights = tensors(kind)
    largest = weights["encoder.layer.0.output.dense.weight"]
    largest[0, 0], largest[0, 1] = np.finfo(kind).max, np.finfo(kind).smallest_subnormal
    refuse_no_numbers(
        tensors_of([model_folder(tmp_path / "a", weights=weights) / "model.safetensors"])
    )
    largest[1, 1] = bad
    file = model_folder(tmp_path / "b", weights=weights) / "model.safetensors"
    with pytest.raises(AssetError, match="1 of the 128 values"):
        refuse_no_numbers(tensors_of([file]))


@pytest.mark.parametrize("content", [b"", b"pickle" * 20, (1 << 60).to_bytes(8, "little") * 4])
def test_what_is_no_safetensors_file_is_refused(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(AssetError, match="no whole safetensors file"):
        tensors_of([tmp_path / "model.safetensors"])


def test_added_tokens_count_towards_the_vocabulary(tmp_path):

    folder = model_folder(tmp_path / "m")
    put(folder, "tokenizer.json", TOKENIZER | {"added_tokens": [{"id": 12, "content": "<x>"}]})
    with pytest.raises(
        AssetError, match="tokens up to number 12, and the weights have rows for 12"
    ):
        read_own_model("m", OwnModel(path=str(folder)), [tmp_path])
