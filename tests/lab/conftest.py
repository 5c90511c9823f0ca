"""What most tests of the lab start from."""

from __future__ import annotations

import pytest

import tiny
from peftmark.sources.assets import Places


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A mirror with the tiny model and its tasks, and an empty cache."""
    tiny.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
