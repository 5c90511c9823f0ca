"""Which GPUs torch is built for, as its version file says it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import pytest

from peftmark.machine import accelerators
from peftmark.machine.accelerators import ACCELERATORS, NVIDIA, here, kind_of, torch_build
from peftmark.machine.rocm import ROCM
from peftmark.machine.xpu import XPU
from peftmark.record.job import Device


@pytest.fixture
def version(tmp_path, monkeypatch):
    """Torch's version file, of an installation of its own."""
    made = tmp_path / "torch" / "version.py"
    made.parent.mkdir()
    origin = str(made.with_name("__init__.py"))
    monkeypatch.setattr(accelerators.util, "find_spec", lambda name: SimpleNamespace(origin=origin))
    return made


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", NVIDIA),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.4'\nxpu = None\n", ROCM),
        ("cuda: Optional[str] = None\nxpu: Optional[str] = '20250201'\n", XPU),
        ("cuda = None\nhip = None\nxpu = None\n", NVIDIA),
        ("", NVIDIA),
    ],
)
def test_the_version_file_tells_what_torch_is_built_for(version, lines, kind):
    version.write_text(lines)
    assert here() is kind


def test_a_file_that_cannot_be_read_says_nothing(version, monkeypatch):
    assert torch_build() is None
    assert here() is NVIDIA
    monkeypatch.setattr(accelerators.util, "find_spec", lambda name: None)
    assert torch_build() == {}


def test_this_torchs_file_is_read_as_torch_reads_it():
    torch = pytest.importorskip("torch")
    build = torch_build()
    for name in ("cuda", "hip", "xpu"):
        assert (build.get(name) or None) == getattr(torch.version, name, None)


def test_a_jobs_device_has_a_kind_on_any_machine(version):
    version.write_text("cuda = None\nhip = '6.4'\n")
    assert (kind_of("cuda"), kind_of("xpu")) == (ROCM, XPU)
    version.write_text("cuda = None\nxpu = '20250201'\n")
    assert (kind_of("cuda"), kind_of("xpu")) == (NVIDIA, XPU)


def test_every_kind_is_told_apart_and_of_a_device_that_jobs_have():
    assert len({one.key for one in ACCELERATORS}) == len(ACCELERATORS)
    assert {one.device for one in ACCELERATORS} <= set(get_args(Device))
    for one in ACCELERATORS:
        assert one.unused or one.built, f"{one.key}: nothing finds it"
        assert one is NVIDIA or one.unmetered or one.unused, f"{one.key}: what reads its energy?"
