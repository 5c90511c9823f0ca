"""Settings for every test."""

import gc
import os
import signal
import sys
from collections import defaultdict
from importlib.machinery import PathFinder

import pytest

import stand_ins

# Before torch is loaded anywhere: their number changes bits, and threads that contend slow down.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tests start hundreds of processes: without kept bytecode each would compile peftmark anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's background: what tests start would inherit it, and could not be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.dont_write_bytecode = False
stand_ins.load_early()
# Nine thousand tests and the libraries are a million objects that stay: to look through them again
# and again for cycles takes a fifth of the time that it takes to find the tests.
gc.set_threshold(100_000, 50, 1000)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Make slow what `make test` leaves out of a sweep: all but so many cases, evenly spread."""
    sweeps = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sweep") is not None:
            sweeps[item.path, item.originalname].append(item)
    for cases in sweeps.values():
        count = cases[0].get_closest_marker("sweep").args[0]
        kept = {i * len(cases) // count for i in range(count)}
        for at, item in enumerate(cases):
            if at not in kept:
                item.add_marker("slow")


def pytest_collection_finish(session):
    """From here on what is there stays."""
    gc.collect()
    gc.freeze()


class _NoTorch:
    """Refuses to load what takes seconds: `make test-fast` is of tests that need none of it.

    Finding it is allowed, as peftmark does to hash installed code without loading it.
    """

    def find_spec(self, name, path=None, target=None):
        if name not in ("torch", "transformers", "peft", "bitsandbytes"):
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = self
        return spec

    def create_module(self, spec):
        raise ImportError(f"{spec.name} is not for tests/unit: put the test into tests/lab")

    def exec_module(self, module):
        raise AssertionError("create_module refuses it before")


def _no_process(event, _):
    """Refuses that a test starts one, which takes up to seconds too."""
    starts = event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system")
    if starts and "PYTEST_CURRENT_TEST" in os.environ:
        raise AssertionError("a test that starts a process is marked heavy")


if os.environ.get("PEFTMARK_TESTS") == "fast":
    sys.meta_path.insert(0, _NoTorch())
    sys.addaudithook(_no_process)

pytest_plugins = ["gate_cli", "made_wheels", "plugged"]  # fixtures of theirs are for every test


@pytest.fixture
def no_devices(monkeypatch):
    """A machine with no GPU and no hub, whatever this one has."""
    from peftmark.machine import nvml
    from peftmark.run import runner

    monkeypatch.setattr(nvml, "devices", lambda: nvml.Devices((), "none here"))
    monkeypatch.setattr(runner, "hub_reachable", lambda: (False, "no hub here"))


@pytest.fixture(scope="module", params=["bert", "deberta-v2", "distilbert", "mpnet", "roberta"])
def folder(request, tmp_path_factory):
    """A tiny model of each architecture in turn, as files."""
    return _made(tmp_path_factory, request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT, as files."""
    return _made(tmp_path_factory, "bert")


def _made(tmp_path_factory, architecture):
    import tiny  # which loads torch: most tests do without

    path = tmp_path_factory.mktemp(architecture)
    tiny.make_model(path, architecture)
    return path
