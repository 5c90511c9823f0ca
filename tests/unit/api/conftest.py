"""Stored rows for the tests of what scripts call."""

import pytest

from peftmark.storage.store import Store


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Store made-up rows under ./results/demo and go there; the suite's own file is nowhere."""
    monkeypatch.chdir(tmp_path)

    def store(records, suite="demo"):
        folder = Store(tmp_path / "results", suite)
        with folder.lock():
            for record in records:
                folder.append(record)
        return folder

    return store
