"""What is installed is held to hashes: constraints.txt and the locks that are made of it."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from places import DOCS, ROOT

PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
PARTS = {"requirements": "What peftmark needs.", "development": "Development."}
COMMENT = ("pydantic", "PyYAML", "scipy")
"""What the job of the gate's comment imports."""


def pins(text):
    return {str(canonicalize_name(name)): version for name, version in PIN.findall(text)}


def lock(name):
    return (ROOT / f".ci/{name}.lock").read_text(encoding="utf-8")


def section(title):
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return pins(text.partition(f"# {title}\n")[2].partition("\n\n")[0])


def needed(names):
    """What these need, by the metadata of what is installed; without torch, and pip itself."""
    found, waiting = set(), [Requirement(name) for name in names]
    while waiting:
        one = waiting.pop()
        key = str(canonicalize_name(one.name))
        if key in ("torch", "pip") or (key, *one.extras) in found:
            continue
        found.add((key, *one.extras))
        for text in metadata.requires(one.name) or []:
            asked = Requirement(text)
            extras = one.extras or {""}
            if asked.marker is None or any(asked.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(asked)
    return {key for key, *_ in found}


@pytest.mark.parametrize(("name", "title"), PARTS.items())
def test_a_lock_has_the_versions_of_constraints_and_hashes_of_each(name, title):
    wanted = section(title)
    wanted.pop("torch", None)
    assert wanted and pins(lock(name)) == wanted, "run make lock"
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock(name))[1:]:
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)
        assert hashes and len(hashes) == len(entry.strip().splitlines()) - 1, entry.split("\n")[0]


def test_the_lock_of_peftmark_has_all_it_needs_but_torch():
    assert needed(["peftmark"]) - {"peftmark"} <= set(pins(lock("requirements")))


def test_both_locks_have_all_that_development_needs():
    both = set(pins(lock("requirements"))) | set(pins(lock("development")))
    assert needed(["peftmark[dev]"]) - {"peftmark"} <= both


def test_the_lock_of_the_comment_has_what_its_job_imports_and_no_more():
    assert set(pins(lock("comment"))) == needed(COMMENT)
    assert pins(lock("comment")).items() <= pins(lock("requirements")).items()


def test_the_lock_of_the_site_has_the_versions_of_its_own_constraints_and_hashes_of_each():
    wanted = pins((ROOT / "constraints-site.txt").read_text(encoding="utf-8"))
    assert "mkdocs-material" in wanted
    assert pins(lock("site")) == wanted, "run make lock"
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock("site"))[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.split("\n")[0]


def test_the_site_is_built_from_its_lock_alone_and_peftmark_does_not_grow_by_it():
    recipe = (ROOT / "Makefile").read_text("utf-8").partition(".venv-site/.installed:")[2]
    recipe = recipe.partition("\n\n")[0].replace("\\\n", " ")
    (line,) = [line for line in recipe.split("\n") if "pip i" in line]
    call = line.split("$(PIP_FLAGS)")[1].split()
    assert call == ["--no-compile", "--require-hashes", "--no-deps", "-r", ".ci/site.lock"]
    ordinary = set(pins(lock("requirements"))) | set(pins(lock("development")))
    assert not {"mkdocs", "mkdocs-material"} & ordinary


def test_the_makefile_takes_nothing_without_a_hash_but_torch_and_itself():
    recipe = (ROOT / "Makefile").read_text("utf-8").partition(".venv/.installed:")[2]
    recipe = recipe.partition("\n\n")[0].replace("\\\n", " ")
    calls = [
        line.split("$(PIP_FLAGS)")[1].split() for line in recipe.splitlines() if "pip i" in line
    ]
    assert calls == [
        [
            "--no-compile", "--require-hashes", "--no-deps",
            "-r", ".ci/requirements.lock", "-r", ".ci/development.lock",
        ],
        ["--no-compile", "-c", "constraints.txt", "torch"],
        ["--no-compile", "--no-deps", "--no-build-isolation", "-e", "."],
    ]  # fmt: skip


def test_what_builds_peftmark_is_the_pinned_version():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires = ["hatchling=={section("Development.")["hatchling"]}"]' in text


def test_the_page_names_what_no_lock_has():
    page = (DOCS / "platforms.md").read_text(encoding="utf-8")
    apart = page.partition("## Pinned by hash")[2]
    for name in ("torch", "pip,", "rouge_score", "peftmark's own install", "lm-eval"):
        assert f"{name}" in apart
