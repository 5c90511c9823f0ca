"""What peftmark needs from inside torch, transformers and bitsandbytes is where it was."""

from __future__ import annotations

import ast

import pytest

from peftmark.docgen import structure
from peftmark.lab.memory import insides
from peftmark.lab.memory.insides import Inside, moved

DOOR = "peftmark.lab.memory"


def test_torch_2_13_transformers_5_23_and_bitsandbytes_0_50_are_as_they_were_read():
    """Fails with another version: the sentences say what moved and what it was needed for."""
    assert list(moved()) == []


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        (Inside("torch.nn", "Module._gone", None, "is a test"), "torch.nn.Module._gone is gone"),
        (Inside("torch._nowhere", "x", None, "is a test"), "torch._nowhere.x is gone"),
        (
            Inside("torch.nn", "Module._apply", ("self", "fn"), "is a test"),
            "torch.nn.Module._apply takes self, fn, recurse, not self, fn",
        ),
    ],
)
def test_what_moved_is_told_with_both_versions(inside, said, monkeypatch):
    monkeypatch.setattr(insides, "INSIDES", (inside,))
    (told,) = moved()
    assert told.startswith(said)
    assert "read in torch 2.13.0, installed is " in told and "is a test" in told


def dotted(node):
    """`a.b.c` of an attribute, and nothing of one that isn't a name's; `unparse` takes seconds."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def test_nothing_else_reaches_into_these_libraries():
    for module, path in structure.modules().items():
        if module.startswith(f"{DOOR}."):
            continue
        for name in structure.imports(module):
            if name.split(".")[0] in insides.READ_IN:
                assert not any(part.startswith("_") for part in name.split(".")), module
        for node in ast.walk(structure.tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = node.module.split(".")[0] in insides.READ_IN
                assert not inside or not any(a.name.startswith("_") for a in node.names), module
            if isinstance(node, ast.Attribute) and (name := dotted(node)).startswith("torch."):
                assert not any(p.startswith("_") for p in name.split(".")), module


def test_only_the_door_s_folder_puts_stand_ins_in_place():
    users = {m for m in structure.modules() if "unittest" in structure.imports(m)}
    assert {m.rpartition(".")[0] for m in users} == {DOOR}
