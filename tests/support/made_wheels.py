"""Wheels and models made on the spot, and an index of packages that serves them."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.origins import Package, Slice
from peftmark.sources.assets import Places

WEIGHTS = b"weights" * 100


FILES = {
    "model.safetensors": WEIGHTS,
    "config.json": b'{"a": 1}',
    "tokenizer.json": b'{"b": 2}',
    "tokenizer_config.json": b'{"c": 3}',
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tiny_model(*packages: Package) -> Model:
    return replace(MODELS["minilm-l6"], weights_sha256=sha256(WEIGHTS), packages=packages)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def build_wheel(folder: Path, name: str, files: dict[str, bytes]) -> Package:
    """A wheel such as pip accepts, and what the catalog would say about it."""
    folder.mkdir(exist_ok=True)
    module = name.replace("-", "_")
    wheel = folder / f"{module}-1.0-py3-none-any.whl"
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            archive.writestr(f"{module}/data/{path}", data)
        archive.writestr(f"{module}/__init__.py", "raise SystemExit('imported')")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    hashes = tuple((path, sha256(data)) for path, data in files.items())
    return Package(name, "1.0", sha256(wheel.read_bytes()), f"{module}/data", hashes)


def build_slices(folder: Path, name: str, files: dict[str, bytes], count: int = 3) -> Package:
    """Wheels with a stretch each of one archive, and what the catalog would say about them."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, data in files.items():
            archive.writestr(f"model/{path}", data)
    whole = made.getvalue()
    step = -(-len(whole) // count)
    slices = []
    for number in range(count):
        stretch = {f"whole.zip.{number}": whole[number * step : (number + 1) * step]}
        wheel = build_wheel(folder, f"{name}-{number}", stretch)
        slices.append(Slice(wheel.name, wheel.sha256, f"{wheel.root}/whole.zip.{number}"))
    hashes = tuple((path, sha256(data)) for path, data in files.items())
    return Package(name, "1.0", sha256(whole), "model", hashes, tuple(slices))


@pytest.fixture
def pip_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def index(pip_index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with a stand-in for pip, which itself takes most of a second to start."""
    plain = subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        if command[3:5] != ["pip", "download"]:
            return plain(command, **options)
        name, _, version = command[-1].partition("==")
        wheel = pip_index / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        if not wheel.is_file():
            told = f"ERROR: No matching distribution found for {command[-1]}\n"
            return subprocess.CompletedProcess(command, 1, "", told)
        shutil.copy(wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return pip_index


def from_package(tmp_path: Path) -> Places:
    return Places(None, ("package",), tmp_path / "cache")
