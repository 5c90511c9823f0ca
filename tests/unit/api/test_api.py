"""What `import peftmark` gives: names, signatures, cost, and folders that take no name's place."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys

import pytest

import peftmark
from places import DOCS

NAMES = {
    "METHODS": None,
    "MODELS": None,
    "TASKS": None,
    "UserError": None,
    "compare": "*runs, names",
    "curves": "source, *, profile, failed, trials, repeats, results, suites",
    "gate": "suite, against, *, profile, policy, expect_change, elsewhere, results, suites",
    "load_results": "source, *, profile, failed, trials, repeats, bulky, results, suites",
    "plan": "suite, *, profile, memory, device, again, mirror, results, suites",
    "report": "suite, *, profile, mirror, results, reports, suites, price, watts",
    "run": "suite, *, profile, callback, progress, jobs, only, again, timeout, retries, "
    "show_texts, keep, mirror, results, suites",
    "table": "source, *, format, profile, results, suites",
}
"""Every public name, and what a function takes. A name or an argument that is here stays."""


def arguments(function):
    parts = []
    for parameter in inspect.signature(function).parameters.values():
        starred = any(part.startswith("*") for part in parts)
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
        many = parameter.kind is parameter.VAR_POSITIONAL
        parts.append("*" * many + parameter.name)
    return ", ".join(parts)


def test_the_public_names_and_what_they_take():
    assert peftmark.__all__ == sorted(NAMES)
    assert set(dir(peftmark)) == {*NAMES, "__version__"}
    functions = {name: taken for name, taken in NAMES.items() if taken is not None}
    assert {name: arguments(getattr(peftmark, name)) for name in functions} == functions


@pytest.mark.parametrize("name", sorted(n for n, taken in NAMES.items() if taken))
def test_each_function_says_what_it_takes_gives_and_raises(name):
    function = getattr(peftmark, name)
    text = inspect.getdoc(function) or ""
    assert "UserError" in text or "those of `load_results`" in text
    assert "Returns:" in text or name == "curves"
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.annotation is not parameter.empty
        assert parameter.name in text or name == "curves", parameter.name
    page = (DOCS / "python.md").read_text("utf-8")
    assert f"`{name}(" in page, f"docs/python.md says nothing of {name}"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = peftmark.nonsense


def test_a_folder_of_the_package_takes_no_functions_place():
    inside_of = {"run": "runner", "report": "view", "gate": "judge", "compare": "held"}
    for name, inside in inside_of.items():
        importlib.import_module(f"peftmark.{name}.{inside}")
        assert inspect.isfunction(getattr(peftmark, name))


def test_the_catalogues_can_be_read_and_not_changed():
    assert "lora" in peftmark.METHODS and "peft:loha" in peftmark.METHODS
    assert peftmark.METHODS["lora"].title == "LoRA"
    assert peftmark.TASKS["trec"].metric == "accuracy"
    assert peftmark.MODELS["minilm-l6"].key == "minilm-l6"
    line = next(line for line in repr(peftmark.METHODS).split("\n") if line.startswith("lora "))
    assert line.split(maxsplit=1)[1] == peftmark.METHODS["lora"].summary
    assert "nothing" not in peftmark.TASKS and len(peftmark.TASKS) == len(list(peftmark.TASKS))
    with pytest.raises(KeyError, match="'nothing'; known: cola, "):
        peftmark.TASKS["nothing"]
    with pytest.raises(TypeError):
        peftmark.TASKS["mine"] = None


BARE = """
import json, sys
before = set(sys.modules)
import peftmark
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.heavy
def test_importing_it_loads_no_other_library():
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert loaded - sys.stdlib_module_names == {"peftmark"}
    assert len([n for n in json.loads(done.stdout) if n.startswith("peftmark.")]) < 12
