"""Fixtures of plug-ins: the example of docs/plugins.md, and packages with one entry point each."""

from __future__ import annotations

import importlib
import shutil
import sys

import pytest

import example_plugin
from peftmark.catalog import plugins
from peftmark.record import plugin

ONE = "one_plugin"
"""The package of `package`."""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An empty folder of `sys.path`; what was installed into it is gone afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    plugins.unload()
    plugin.forget()
    _unimport()


def _unimport():
    for name in [n for n in sys.modules if n.startswith((example_plugin.PACKAGE, ONE))]:
        del sys.modules[name]


def load():
    """Find the plug-ins as a fresh process would."""
    _unimport()
    importlib.invalidate_caches()
    plugins.load()


def uninstall(site, *, forgetting=False):
    """Take every package out of the folder, as a fresh process would find it."""
    for entry in site.glob("*.dist-info/*"):
        entry.unlink()
    for entry in site.glob("*.dist-info"):
        entry.rmdir()
    if forgetting:
        plugin.forget()
    load()


def package(site, module, group, points, name=ONE, version="2.0", extra=None):
    """A package of one module with entry points of one group."""
    files = {f"{name}/__init__.py": "", f"{name}/rows.py": module, **(extra or {})}
    shutil.rmtree(site / name / "__pycache__", ignore_errors=True)  # of an earlier second
    for file, text in files.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(text)
    lines = "\n".join(f"{key} = {name}.rows:{function}" for key, function in points.items())
    example_plugin.distribute(
        site, name.replace("_", "-"), version, f"[peftmark.{group}]\n{lines}\n", [*files]
    )
    load()
