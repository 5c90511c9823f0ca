"""Versions and facts of the machine."""

from __future__ import annotations

import pytest

from peftmark.machine import environment

OLD = {"torch": "2.12.0", "peft": "0.21.0", "pandas": "3.0", "numpy": "2.1"}


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (OLD, ""),
        (OLD | {"pandas": "3.1"}, ""),
        (OLD | {"torch": "2.13.0"}, "torch 2.12.0 -> 2.13.0"),
        (OLD | {"bitsandbytes": "0.50"}, "bitsandbytes none -> 0.50"),
        ({"torch": "2.12.0", "numpy": "2.2"}, "peft 0.21.0 -> none, numpy 2.1 -> 2.2"),
    ],
)
def test_only_versions_that_can_change_numbers_count(new, text):
    assert environment.changed_versions(OLD, new) == text


@pytest.mark.heavy
def test_the_environment_is_captured_with_the_versions_that_matter():
    found = environment.capture()
    assert set(environment.NUMERIC) <= set(found.versions)
    assert found.versions["peftmark"]
    assert found.machine["cores"] >= 1
    assert found.machine["memory_bytes"] > 2**28
    assert found.machine["gpu_note"] or found.machine["gpus"]


def test_kernels_of_another_processor_are_told_where_they_are_asked_for(monkeypatch):
    for name in environment.CHOOSE_KERNELS:
        monkeypatch.delenv(name, raising=False)
    assert environment.machine()["kernels"] is None
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE\x1b")
    assert environment.machine()["kernels"] == "ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=COMPATIBLE\ufffd"


def test_a_package_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package-here"))
    assert list(environment.versions()) == ["numpy"]


@pytest.mark.heavy
def test_a_folder_without_a_checkout_has_no_commit(tmp_path):
    assert environment._checkout(tmp_path) == (None, None)
    (tmp_path / ".git").mkdir()
    assert environment._checkout(tmp_path) == (None, None)


def test_the_hash_of_a_package_changes_with_a_byte_of_its_code(tmp_path, monkeypatch):
    package = tmp_path / "tinycode"
    package.mkdir()
    (package / "__init__.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    environment.source_hash.cache_clear()
    first = environment.source_hash("tinycode")
    (package / "__init__.py").write_text("A = 2\n")
    environment.source_hash.cache_clear()
    assert first is not None and environment.source_hash("tinycode") not in (None, first)
    assert environment.source_hash("no_such_package_anywhere") is None
