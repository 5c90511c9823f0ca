"""What the doctor says first: which peftmark this is, for whoever reads the report of a fault."""

import platform
from importlib import metadata

from peftmark.run import doctor


def test_it_begins_with_the_versions_of_peftmark_and_python_and_the_system(monkeypatch):
    first = next(doctor._surroundings())
    assert (first.what, first.ok) == ("peftmark", True)
    version, python = metadata.version("peftmark"), platform.python_version()
    assert first.found == f"{version}, on Python {python}, {platform.platform()}"
    monkeypatch.setattr(doctor, "versions", dict)
    assert next(doctor._surroundings()).found.startswith("of an unknown version")
