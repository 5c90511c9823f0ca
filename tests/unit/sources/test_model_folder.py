"""What of a model's folder is read: poisoned configurations, shards, files beside, links."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from made_wheels import sha256
from own_models import BERT, model_folder, put
from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.origins import Package
from peftmark.core.errors import AssetError
from peftmark.core.hashes import forget_hashes
from peftmark.sources.assets import Places, model_files
from peftmark.sources.model_folder import (
    REDIRECTS,
    all_hashes,
    files_read,
    listing_sha256,
    only,
    refuse_redirects,
)

MINILM = MODELS["minilm-l6"]


def mirrored(tmp_path: Path, key: str, sealed: bool) -> tuple[Model, Path, Places]:
    """A catalogue's model whose files are these ones, in a mirror; with hashes of all, or not."""
    folder = model_folder(tmp_path / "mirror" / "models" / key)
    names = ("model.safetensors", *MINILM.files)
    hashes = tuple((name, sha256((folder / name).read_bytes())) for name in names)
    packages = (Package("never-asked", "1.0", "0" * 64, "x", hashes),) if sealed else ()
    model = replace(MODELS[key], weights_sha256=dict(hashes)["model.safetensors"])
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    return replace(model, packages=packages), folder, places


def change(folder: Path, name: str, **keys: Any) -> None:
    forget_hashes()
    put(folder, name, json.loads((folder / name).read_text()) | keys)


def test_the_packaged_encoder_is_sealed_file_by_file() -> None:
    assert set(MINILM.sealed) == {MINILM.weights_file, *MINILM.files}
    assert set(MODELS["roberta-base"].sealed) == {"model.safetensors"}
    assert set(MODELS["smollm2-135m-q4"].sealed) == {
        "model.safetensors",
        "chat_template.jinja",
    }


@pytest.mark.parametrize("name", ["model.safetensors", *MINILM.files])
def test_a_mirror_with_any_changed_file_of_a_sealed_model_is_refused_by_name(
    name: str, tmp_path: Path
) -> None:
    model, folder, places = mirrored(tmp_path, "minilm-l6", sealed=True)
    assert model_files(model, places).unsealed == ()
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(AssetError) as caught:
        model_files(model, places)
    assert str(folder / name) in caught.value.what and model.title in caught.value.what


@pytest.mark.parametrize("sealed", [True, False])
def test_another_activation_is_refused(sealed: bool, tmp_path: Path) -> None:
    key = "minilm-l6" if sealed else "bert-base-uncased"
    model, folder, places = mirrored(tmp_path, key, sealed)
    if not sealed:
        # The sizes that the catalogue knows of the true one.
        put(folder, "config.json", {"model_type": "bert", "hidden_act": "gelu", "dropout": 0.2})
        assert model_files(model, places).unsealed == MINILM.files
    change(folder, "config.json", hidden_act="relu")
    with pytest.raises(AssetError, match=r"config\.json"):
        model_files(model, places)


@pytest.mark.parametrize("key", ["num_attention_heads", "vocab_size", "model_type"])
def test_a_configuration_of_another_shape_is_refused(key: str, tmp_path: Path) -> None:
    model, folder, places = mirrored(tmp_path, "roberta-base", sealed=False)
    put(folder, "config.json", {key: 7})
    with pytest.raises(AssetError, match=f"not that of RoBERTa-base: {key} is 7, expected"):
        model_files(model, places)


@pytest.mark.parametrize("key", REDIRECTS)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_what_has_other_files_loaded_is_refused_by_the_keys_name(
    name: str, key: str, tmp_path: Path
) -> None:
    model, folder, places = mirrored(tmp_path, "bert-base-uncased", sealed=False)
    put(folder, "config.json", {"model_type": "bert"})
    change(folder, name, **{key: "other.safetensors"})
    with pytest.raises(AssetError, match=key) as caught:
        model_files(model, places)
    assert str(folder / name) in caught.value.what and caught.value.remedy


def test_a_redirect_deep_in_a_configuration_is_seen_and_an_empty_one_is_none(
    tmp_path: Path,
) -> None:
    folder = model_folder(tmp_path / "m", {**BERT, "auto_map": None})
    refuse_redirects(folder)
    change(folder, "config.json", text_config={"quantization_config": {"bits": 4}})
    with pytest.raises(AssetError, match=r"text_config\.quantization_config"):
        refuse_redirects(folder)


def test_an_adapter_beside_the_weights_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    put(folder, "adapter_config.json", {"peft_type": "LORA"})
    with pytest.raises(AssetError, match=r"adapter_config\.json"):
        refuse_redirects(folder)


def test_shards_are_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", shards=2)
    names = files_read(folder)
    assert "model-00002-of-00002.safetensors" in names
    assert "model.safetensors.index.json" in names
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(AssetError, match=r"lacks model-00002-of-00002\.safetensors: 1 of the 2"):
        files_read(folder)


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", "weights.bin"])
def test_an_index_names_safetensors_of_its_folder_alone(shard: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", shards=2)
    put(folder, "model.safetensors.index.json", {"weight_map": {"a": shard}})
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(AssetError, match="no safetensors file of this"):
        files_read(folder)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("model.safetensors", "pytorch_model.bin is not read"),
        ("config.json", r"holds no config\.json"),
        ("tokenizer.json", "holds no tokenizer"),
    ],
)
def test_what_a_model_lacks_is_told(gone: str, said: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / gone).unlink()
    with pytest.raises(AssetError, match=said) as caught:
        files_read(folder)
    assert caught.value.remedy


def test_files_beside_a_model_do_not_count_and_can_not_be_read(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    names = files_read(folder)
    assert only(folder, names, tmp_path / "cache") == folder
    (folder / "README.md").write_text("about it")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    assert files_read(folder) == names
    links = only(folder, names, tmp_path / "cache")
    assert sorted(path.name for path in links.iterdir()) == names
    assert (links / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    (links / "adapter_config.json").write_text("{}")
    (links / "config.json").unlink()
    (links / "config.json").symlink_to(tmp_path / "elsewhere")
    assert only(folder, names, tmp_path / "cache") == links
    assert sorted(path.name for path in links.iterdir()) == names
    assert (links / "config.json").resolve() == (folder / "config.json").resolve()


@pytest.mark.parametrize("sealed", [True, False])
def test_a_chat_template_is_read_unless_every_file_of_the_model_is_known(
    sealed: bool, tmp_path: Path
) -> None:
    model, folder, places = mirrored(tmp_path, "minilm-l6", sealed)
    put(folder, "config.json", {"model_type": "bert"}) if not sealed else None
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "special_tokens_map.json").write_text("{}")
    (folder / "README.md").write_text("about it")
    found = model_files(model, places)
    there = {path.name for path in found.path.iterdir()}
    more = set() if sealed else {"chat_template.jinja", "special_tokens_map.json"}
    assert there == {"model.safetensors", *MINILM.files, *more}
    assert more <= set(found.unsealed)


def test_keys_of_caches_change_with_every_file(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    before = listing_sha256(all_hashes(folder))
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(kept + b" ")
        forget_hashes()
        assert listing_sha256(all_hashes(folder)) != before, name
        (folder / name).write_bytes(kept)
    assert "model.safetensors" not in all_hashes(folder, weights=False)
