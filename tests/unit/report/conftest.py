"""Pictures take most of a report's time, and many tests of a session make the same ones."""

import pickle

import pytest

from peftmark.render import draw

_plain = draw._render
_made: dict[bytes, str] = {}


def _kept(figure):
    """A picture, drawn once for each content."""
    content = pickle.dumps(figure)
    if content not in _made:
        _made[content] = _plain(figure)
    return _made[content]


@pytest.fixture(autouse=True)
def pictures_are_kept(monkeypatch):
    monkeypatch.setattr(draw, "_render", _kept)


@pytest.fixture
def pictures_are_drawn(pictures_are_kept, monkeypatch):
    """Every picture is drawn, also one that was drawn before."""
    monkeypatch.setattr(draw, "_render", _plain)
