"""No test of `make test` looks at a clock: what it says must not hang on how busy a machine is.

What to do instead: wait for what is to come with `waiting.wait_for`, which has patience; let
processes hand over by a file, a pipe or a lock; give the module under test `waiting.Clock` for its
`time`, and move that; count calls, messages or bytes. A test that needs a real clock all the same
is marked `slow` and runs in `make test-all`; what is measured belongs in `make perf`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from places import TESTS

CLOCKS = (
    "sleep", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns",
    "process_time", "process_time_ns", "thread_time",
)  # fmt: skip
CALLS = {
    *(("time", name) for name in CLOCKS),
    ("os", "times"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("date", "today"),
    ("signal", "alarm"),
    ("signal", "setitimer"),
    ("asyncio", "sleep"),
    ("threading", "Timer"),
}
WAITS = {"wait", "join", "acquire", "poll"}
IN_TEXT = re.compile(rf"\btime\.(?:{'|'.join(CLOCKS)})\(|\btimeout=\d")
PATIENT = {"PATIENCE", "None"}

# Tools that are started by hand, and tests for a machine that `make test` is not for.
OUTSIDE = {"gpu", "inject.py", "storm.py", "many_jobs.py", "ray_smoke.py", "browser"}

# file -> {what the clock is in: why that is no verdict by the clock}
ALLOWED = {
    "support/waiting.py": {"wait_for": "patience of ten minutes, after which something hangs"},
    "support/fake_worker.py": {
        "dies_of_a_nameless_signal": "hangs until it is killed, if its own signal did not",
        "_hang": "hangs until it is killed",
        "_hangs": "hangs until it is killed",
        "_recipe_by_way": "hangs until it is killed",
        "leaves_a_child": "the child hangs until the test kills it",
        "never_takes": "hangs until it is killed",
        "_says_steps": "pauses only for a slow test",
    },
    "support/fault_worker.py": {
        "hangs_in_a_message": "hangs until it is killed",
        "_steady": "figures that differ from run to run, as a clock's do",
    },
    "support/cluster_worker.py": {"works": "a time from inside a longer one, compared with that"},
    "faults/test_faults_size.py": {
        "SUPERVISED": "the share is of a slow test only",
    },
    "unit/storage/test_store.py": {
        "HOLDER": "holds the lock until it is killed",
    },
    "lab/test_fetch.py": {"REACH": "of connections that a guard refuses before they are tried"},
}


def clocks(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(definition at the top of the module, line) of all that reads a clock or waits for one."""
    if any(
        _name(outer) == "pytestmark" and "mark.slow" in ast.unparse(outer) for outer in tree.body
    ):
        return
    for outer in tree.body:
        if _is_slow(outer):
            continue
        name = _name(outer)
        for node in ast.walk(outer):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found = (node.value.id, node.attr) in CALLS
            elif isinstance(node, ast.Call):
                found = _hurries(node)
            elif isinstance(node, ast.ImportFrom):
                found = node.module == "time"
            elif isinstance(node, ast.keyword):
                found = node.arg == "timeout" and ast.unparse(node.value) not in PATIENT
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = bool(IN_TEXT.search(node.value))
            else:
                continue
            if found:
                yield name, getattr(node, "lineno", outer.lineno)


def _hurries(call: ast.Call) -> bool:
    """Whether it waits for an event, a thread, a lock or a pipe for so many seconds."""
    waits = isinstance(call.func, ast.Attribute) and call.func.attr in WAITS
    first = call.args[0] if call.args else None
    seconds = first.value if isinstance(first, ast.Constant) else None
    return waits and isinstance(seconds, int | float) and not isinstance(seconds, bool)


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0])
    return type(node).__name__


def _is_slow(node: ast.stmt) -> bool:
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    return any("mark.slow" in ast.unparse(decorator) for decorator in decorators)


def files() -> list[Path]:
    paths = sorted(TESTS.rglob("*.py"))
    mine = [path for path in paths if path != Path(__file__).resolve()]
    return [path for path in mine if path.relative_to(TESTS).parts[0] not in OUTSIDE]


def test_no_test_looks_at_a_clock() -> None:
    loose, gone = [], []
    for path in files():
        name = str(path.relative_to(TESTS))
        allowed = ALLOWED.get(name, {})
        found = list(clocks(ast.parse(path.read_text(encoding="utf-8"))))
        loose += [f"{name}:{line}, in {where}" for where, line in found if where not in allowed]
        gone += [f"{name}: {where}" for where in set(allowed) - {where for where, _ in found}]
    assert not loose, f"a clock in {loose}. {(__doc__ or '').partition(chr(10) * 2)[2]}"
    assert not gone, f"allowed, and not there any more: {gone}"


def test_what_is_allowed_is_in_files_that_are_there() -> None:
    assert set(ALLOWED) <= {str(path.relative_to(TESTS)) for path in files()}


SOURCE = '''
import time
import subprocess
from waiting import PATIENCE
def sleeps():
    time.sleep(0.1)
def hands_it_over():
    monkeypatch.setattr(made, "now", time.monotonic)
def is_in_a_hurry():
    subprocess.run([], timeout=20)
def has_patience():
    subprocess.run([], timeout=PATIENCE)
def waits_so_long():
    assert event.wait(10)
def waits_as_long_as_it_takes():
    assert event.wait(PATIENCE) and ", ".join(names)
SCRIPT = """
import time
time.sleep(3)
"""
@pytest.mark.slow
def is_slow():
    time.sleep(1)
from time import sleep
'''


def test_every_kind_of_clock_is_seen() -> None:
    found = [name for name, _ in clocks(ast.parse(SOURCE))]
    hurried = ["is_in_a_hurry", "waits_so_long"]
    assert found == ["sleeps", "hands_it_over", *hurried, "SCRIPT", "ImportFrom"]
