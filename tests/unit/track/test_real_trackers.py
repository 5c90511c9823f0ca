"""The trackers' own libraries: what is read back from their files is the row's, to the digit.

pip install mlflow wandb tensorboard trackio; pytest tests/unit/track/test_real_trackers.py

Each library is loaded in processes of its own: it stays loaded, and other tests have stand-ins.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from factory import make_failure, make_job, make_outcome, make_record
from peftmark.core.files import PACKAGE
from peftmark.record.kept import Kept
from peftmark.record.outcome import CurvePoint
from peftmark.storage.store import Store
from peftmark.track.entry import CURVE
from peftmark.track.seam import KINDS
from waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

POINTS = tuple(
    CurvePoint(20 * i, 1 / (3 * i), 0.1 * 3 * i, 7.1 * i, None, 5e-324 * i, 1e300 / i)
    for i in range(1, 40)
)
"""A curve of numbers that single precision, or a rounded text, would not keep."""

# Each prints the curves of all jobs that there are, [{name: [[step, value], ...]}, ...].
READ = {
    "mlflow": """
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=place)
[experiment] = [e for e in client.search_experiments() if e.name == "peftmark"]
for run in client.search_runs([experiment.experiment_id]):
    if "peftmark.job" in run.data.tags:
        assert run.info.status in ("FINISHED", "FAILED"), run.info.status
        found.append({
            name: [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        })
""",
    "tensorboard": """
from pathlib import Path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
for path in Path(place).glob("demo/quick/*.1"):
    events = EventAccumulator(str(path), size_guidance={"tensors": 0})
    events.Reload()
    plugin = lambda tag: events.SummaryMetadata(tag).plugin_data.plugin_name
    number = lambda event: tensor_util.make_ndarray(event.tensor_proto).item()
    found.append({
        tag: [[event.step, number(event)] for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"] if plugin(tag) == "scalars"
    })
""",
    "wandb": """
import struct
from collections import defaultdict
from pathlib import Path
from wandb.proto import wandb_internal_pb2

def records(raw):
    # LevelDB's log: blocks of 32 KiB, in them pieces with a head of checksum, length and kind.
    at, whole = 7, b""
    while at + 7 <= len(raw):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, at)
        whole += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""

for path in Path(place).glob("wandb/offline-run-*/run-*.wandb"):
    if "adapter" in path.name or "report" in path.name:
        continue
    run = defaultdict(list)
    for record in records(path.read_bytes()):
        values = {
            i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item
        }
        for name, value in values.items():
            if not name.startswith("_"):
                run[name].append([record.history.step.num, value])
        for item in record.summary.update:
            name = item.key or ".".join(item.nested_key)
            if name.startswith("final/"):
                run[name] = [[None, json.loads(item.value_json)]]
    found.append(run)
""",
    "trackio": """
import os
from collections import defaultdict
os.environ["TRACKIO_DIR"] = place
from trackio import Api
from trackio.sqlite_storage import SQLiteStorage
for one in Api().runs("peftmark"):
    run = defaultdict(list)
    for log in SQLiteStorage.get_logs("peftmark", one.name):
        for name, value in log.items():
            if "/" in name:
                run[name].append([log["step"], value])
    if run:
        found.append(run)
""",
}


def library(name):
    missing = find_spec(KINDS[name].library) is None
    reason = f"{KINDS[name].library} is not installed: pip install peftmark[{name}]"
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=reason))


def python(folder, *words):
    """A process with peftmark in a folder."""
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HOME": str(folder)},
    )  # fmt: skip


MAIN = "import sys; from peftmark.cli.parser import main; main(sys.argv[1:])"


def track(folder, to, before=""):
    """What `peftmark track` says, after some Python."""
    done = python(folder, "-c", f"{before}\n{MAIN}", "track", "demo", "--to", to, "--json")
    facts = json.loads(done.stdout) if done.returncode in (0, 6) else {}
    return done.returncode, facts, done.stderr


def curves(folder, name, place):
    """What the library itself has."""
    script = f"import json\nplace, found = {place!r}, []\n{READ[name]}\nprint(json.dumps(found))"
    done = python(folder, "-c", script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path):
    """Two rows, an adapter and a report."""
    store = Store(tmp_path / "results", "demo")
    with store.lock():
        store.append(make_record(outcome=make_outcome(curve=POINTS)))
        store.append(make_record(job=make_job(seed=1), outcome=make_failure()))
        left = tmp_path / "left"
        left.mkdir()
        (left / "adapter.safetensors").write_bytes(b"weights")
        store.adapters.take(left, Kept(job=make_job(), attempt=1), "card")
    reports = tmp_path / "reports" / "demo"
    reports.mkdir(parents=True)
    (reports / "report.md").write_text("# demo, profile quick\n")
    return tmp_path


def place_of(name, folder):
    return f"sqlite:///{folder}/kept.db" if name == "mlflow" else str(folder / "kept")


def check(found):
    """Hold the curves of the two rows against what they are."""
    assert len(found) == 2
    [run] = [run for run in found if "curve/loss" in run]
    for name in CURVE:
        known = [[p.step, getattr(p, name)] for p in POINTS if getattr(p, name) is not None]
        assert run.get(f"curve/{name}", []) == known
    assert [value for _, value in run["final/train_seconds"]] == [12.0]


@pytest.mark.parametrize("name", [library(name) for name in sorted(KINDS)])
def test_what_is_read_back_is_the_row_however_often_it_is_sent(folder, name):
    place = place_of(name, folder)
    for sent in (2, 0):
        code, facts, errors = track(folder, f"{name}={place}")
        assert code == 0, errors
        assert (facts["sent"], facts["there"]) == (sent, 2 - sent)
        assert facts["adapters"] == (1 if sent else 0)
        check(curves(folder, name, place))


MLFLOW = pytest.mark.skipif(
    find_spec("mlflow") is None, reason="mlflow is not installed: pip install peftmark[mlflow]"
)


@MLFLOW
def test_mlflow_has_the_files_and_the_run_above(folder):
    place = place_of("mlflow", folder)
    assert track(folder, f"mlflow={place}")[0] == 0
    files = {path.name for path in (folder / "mlartifacts").rglob("*") if path.is_file()}
    assert {"figures.csv", "adapter.safetensors", "report.md"} <= files
    assert not (folder / "mlruns").exists()


@MLFLOW
def test_mlflow_in_files_alone(folder):
    allowed = "import os; os.environ['MLFLOW_ALLOW_FILE_STORE'] = 'true'"
    assert track(folder, f"mlflow={folder}/files", allowed)[1]["sent"] == 2
    assert track(folder, f"mlflow={folder}/files", allowed)[1]["there"] == 2


KILLED = """
import os, signal
from mlflow import MlflowClient
ended, plain = [], MlflowClient.set_terminated
def set_terminated(self, *words):
    ended.append(words)
    if len(ended) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, *words)
MlflowClient.set_terminated = set_terminated
"""


@MLFLOW
def test_mlflow_killed_in_the_middle_has_each_run_once_afterwards(folder):
    place = place_of("mlflow", folder)
    assert track(folder, f"mlflow={place}", KILLED)[0] == -9
    code, facts, _ = track(folder, f"mlflow={place}")
    assert (code, facts["sent"], facts["there"]) == (0, 1, 1)
    check(curves(folder, "mlflow", place))


FULL = """
import resource
from pathlib import Path
size = max(path.stat().st_size for path in Path().glob("kept.db*"))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
"""


@MLFLOW
def test_mlflow_whose_disk_is_full_costs_no_row(folder):
    place = place_of("mlflow", folder)
    assert track(folder, f"mlflow={place}")[0] == 0
    store = Store(folder / "results", "demo")
    with store.lock():
        for seed in range(2, 4):
            record = make_record(job=make_job(seed=seed), outcome=make_outcome(curve=POINTS))
            store.append(record)
    rows = {path: path.read_bytes() for path in store.parts.iterdir()}
    code, facts, _ = track(folder, f"mlflow={place}", FULL)
    assert code == 6 and facts["sent"] == 0 and "disk" in json.dumps(facts["faults"])
    assert {path: path.read_bytes() for path in store.parts.iterdir()} == rows
    code, facts, _ = track(folder, f"mlflow={place}")
    assert (code, facts["sent"], facts["there"]) == (0, 2, 2)
    assert len(curves(folder, "mlflow", place)) == 4


@MLFLOW
def test_mlflow_whose_server_is_gone_is_told_of(folder):
    code, facts, _ = track(folder, "mlflow=http://127.0.0.1:9")
    assert code == 6 and facts["sent"] == 0
    assert "127.0.0.1" in json.dumps(facts["faults"])
    assert len(list(Path(folder, "results/demo/parts").iterdir())) == 2
