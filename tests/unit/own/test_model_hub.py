"""Models of the hub that no catalogue knows, through the real library and a small hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hub_stub
from hub_stub import REVISION, Repository, serve
from own_models import BERT, model_folder
from peftmark.core.errors import AssetError
from peftmark.run import pin as pinning
from peftmark.run.pin import pin

COMMIT = "0123456789" * 4


def repository(tmp_path: Path, shards: int = 1, **more: bytes) -> Repository:
    folder = model_folder(tmp_path / f"made{shards}", shards=shards)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    beside = {"README.md": b"about", "pytorch_model.bin": b"pickle", "onnx/model.onnx": b"x"}
    return Repository("model", "tiny/model", {**files, **beside, **more})


def call(url, home, **more):
    return hub_stub.call(url, home, "own model", **more)


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.parametrize("shards", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_model_of_the_hub_is_fetched_once_and_no_file_too_many(tmp_path, shards):
    with serve(repository(tmp_path, shards)) as hub:
        got = call(hub.url, tmp_path)
        assert got["source"] == f"hub: tiny/model at {REVISION[:12]}"
        assert not {"README.md", "pytorch_model.bin"} & set(got["files"])
        assert len(got["files"]) == (4 if shards == 1 else 6)
        asked = [line for line in hub.requests if "/resolve/" in line]
        assert not any("README" in line or ".bin" in line or "onnx" in line for line in asked)
        hub.requests.clear()
        assert call(hub.url, tmp_path) == got
        assert hub.requests == []
    assert call(hub.url, tmp_path, env={"HF_HUB_OFFLINE": "1"}) == got


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.parametrize("noted", [True, False], ids=["fetched by us", "fetched by others"])
def test_a_cache_that_lacks_files_is_never_another_model(tmp_path, noted):
    more = {"chat_template.jinja": b"{{ x }}", "generation_config.json": b"{}"}
    with serve(repository(tmp_path, **more)) as hub:
        whole = call(hub.url, tmp_path)
        assert set(more) < set(whole["files"])
        (snapshot,) = (tmp_path / "hf" / "hub").glob("models--*/snapshots/*")
        for name in more:
            (snapshot / name).unlink()
        if not noted:
            (note,) = (tmp_path / ".cache").rglob("own-models/hub/*.json")
            note.unlink()
        offline = call(hub.url, tmp_path, env={"HF_HUB_OFFLINE": "1"})
        assert "a part of its files" in offline["error"] and "Go online once" in offline["remedy"]
        assert call(hub.url, tmp_path) == whole
        assert call(hub.url, tmp_path, env={"HF_HUB_OFFLINE": "1"}) == whole


@pytest.mark.slow
@pytest.mark.heavy
def test_what_stops_a_download_is_told_before_the_weights(tmp_path):
    gated = repository(tmp_path)
    gated.gated = True
    with serve(gated) as hub:
        got = call(hub.url, tmp_path)
        assert "behind a licence" in got["error"] and "hf auth login" in got["remedy"]
        assert not any("safetensors" in line for line in hub.requests)
    with serve(repository(tmp_path)) as hub:
        got = call(hub.url, tmp_path, free=10)
        assert "GB free; nothing was fetched" in got["error"]
        assert not any("/resolve/" in line for line in hub.requests)
        assert "has no revision" in call(hub.url, tmp_path, revision="f" * 40)["error"]
    with serve() as hub:
        assert "is not there, or is private" in call(hub.url, tmp_path)["error"]


@pytest.mark.slow
@pytest.mark.heavy
def test_an_adapter_and_a_pickle_are_refused_before_anything_is_fetched(tmp_path):
    with serve(repository(tmp_path, **{"adapter_config.json": b"{}"})) as hub:
        assert "is an adapter" in call(hub.url, tmp_path)["error"]
    bare = repository(tmp_path)
    del bare.files["model.safetensors"]
    with serve(bare) as hub:
        assert "no weights as safetensors" in call(hub.url, tmp_path)["error"]
        assert not any("/resolve/" in line for line in hub.requests)


@pytest.mark.heavy
def test_weights_that_are_quantised_already_are_refused_before_they_are_fetched(tmp_path):
    config = json.dumps(BERT | {"quantization_config": {"quant_method": "awq"}}).encode()
    with serve(repository(tmp_path, **{"config.json": config})) as hub:
        got = call(hub.url, tmp_path)
        assert "quantised already (quantization_config: awq)" in got["error"]
        assert "gptqmodel" in got["error"] and "quantization: one of nf4, fp4" in got["remedy"]
        assert not any("/resolve/" in x and "safetensors" in x for x in hub.requests)


@pytest.mark.heavy
def test_a_configuration_alone_is_enough_to_plan_memory(tmp_path):
    with serve(repository(tmp_path)) as hub:
        got = hub_stub.call(hub.url, tmp_path, "own config", name="hub:tiny/model")
        assert got["config"]["model_type"] == "bert"
        assert not any("safetensors" in line for line in hub.requests)


# --- pinning --------------------------------------------------------------------------------------

SUITE = """
model: hub:a/first  # the base
models: {second: {hub: b/second@dev}, third: {hub: c/third@%s}}
tasks: {t: {kind: language, hub: d/rows, text: body}}
methods: [base, {method: base, model: "hub:e/fourth@main"}]
"""


def test_branches_of_models_become_commits_and_the_rest_stays(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pinning, "hub_reachable", lambda: (True, ""))

    def at_commit(found, model):
        asked.append((found, model))
        return f"{found.partition('@')[0]}@{COMMIT}"

    monkeypatch.setattr(pinning, "_at_commit", at_commit)
    text = SUITE % ("f" * 40)
    (tmp_path / "mine.yaml").write_text(text)
    path, pinned = pin("mine", tmp_path)
    assert sorted(asked, key=lambda one: one[1]) == [
        ("d/rows", False),
        ("a/first", True),
        ("b/second@dev", True),
        ("e/fourth@main", True),
    ]
    expected = text.replace("d/rows", f"d/rows@{COMMIT}")
    for found in ("a/first", "b/second@dev", "e/fourth@main"):
        expected = expected.replace(found, f"{found.partition('@')[0]}@{COMMIT}")
    assert path.read_text() == expected
    assert len(pinned) == 4
    assert pin("mine", tmp_path)[1] == []


def test_a_model_and_a_data_set_of_one_name_are_told_apart(tmp_path, monkeypatch):
    text = "model: hub:a/x\ntasks: {t: {kind: language, hub: a/x, text: b}}\nmethods: [base]\n"
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(pinning, "hub_reachable", lambda: (True, ""))
    kinds = {True: "1" * 40, False: "2" * 40}
    monkeypatch.setattr(pinning, "_at_commit", lambda found, model: f"{found}@{kinds[model]}")
    pin("mine", tmp_path)
    written = (tmp_path / "mine.yaml").read_text()
    assert f"model: hub:a/x@{kinds[True]}\n" in written
    assert f"hub: a/x@{kinds[False]}," in written


def test_the_commit_of_a_model_is_asked_for_as_a_models(tmp_path, monkeypatch):
    import huggingface_hub

    class Info:
        sha = COMMIT

    class Hub:
        def model_info(self, repository, revision):
            assert (repository, revision) == ("a/b", "main")
            return Info()

        def dataset_info(self, repository, revision):
            raise FileNotFoundError(repository)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert pinning._at_commit("a/b", True) == f"a/b@{COMMIT}"
    with pytest.raises(AssetError, match="data set a/b at main"):
        pinning._at_commit("a/b", False)
