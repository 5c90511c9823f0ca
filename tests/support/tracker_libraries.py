"""What peftmark uses of TensorBoard, Weights & Biases and Trackio, in a few lines each."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

from peftmark.track.seam import KINDS

MLFLOW = Path(__file__).parent / "stand_in_libraries"
"""A folder to import from, which a process of its own can have too."""


def module(name, **members):
    """A module that can be found and imported."""
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    made.__dict__.update(members)
    return made


def put(monkeypatch, *modules):
    """Put modules where they are imported from, and forget peftmark's that have others."""
    for one in modules:
        monkeypatch.setitem(sys.modules, one.__name__, one)
        top, _, last = one.__name__.rpartition(".")
        if top in sys.modules and last:
            setattr(sys.modules[top], last, one)
    library = modules[0].__name__
    as_before(monkeypatch, library)
    monkeypatch.delitem(sys.modules, f"peftmark.track.{library}", raising=False)


def as_before(monkeypatch, library):
    """Have the variables that are set for a library be afterwards what they were."""
    for name, value in KINDS[library].quiet.items():
        monkeypatch.setenv(name, value)


def mlflow(monkeypatch):
    """MLflow's stand-in, for this process and those that it starts."""
    as_before(monkeypatch, "mlflow")
    monkeypatch.syspath_prepend(str(MLFLOW))
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(MLFLOW), before])))
    for name in ("mlflow", "mlflow.entities", "peftmark.track.mlflow"):
        monkeypatch.delitem(sys.modules, name, raising=False)


class Message:
    """A message of a protocol: what it was made of, and JSON for bytes."""

    def __init__(self, **values):
        self.hparams = defaultdict(Message)
        self.double_val, self.float_val, self.string_val = [], [], []
        self.__dict__.update(values)

    def SerializeToString(self):
        """Its bytes."""

        def known(one):
            return one.decode() if isinstance(one, bytes) else vars(one)

        return json.dumps(self, default=known).encode()


def tensorboard(monkeypatch):
    """TensorBoard's: event files of JSON lines."""

    class RecordWriter:
        def __init__(self, file):
            self._file = file

        def write(self, data):
            self._file.write(data + b"\n")

    def metadata(*values):
        return list(values)

    proto = "tensorboard.compat.proto"
    plugin = "tensorboard.plugins"
    names = ("Event", "Summary", "TensorProto", "TensorShapeProto")
    classes = {name: type(name, (Message,), {}) for name in names}
    classes["Summary"].Value = type("Value", (Message,), {})
    sessions = {
        name: type(name, (Message,), {})
        for name in ("SessionStartInfo", "SessionEndInfo", "HParamsPluginData")
    }
    put(
        monkeypatch,
        module("tensorboard"),
        module("tensorboard.compat"),
        module(proto),
        *(
            module(f"{proto}.{name}", **classes, DT_DOUBLE=2, DT_FLOAT=1, DT_STRING=7)
            for name in ("event_pb2", "summary_pb2", "tensor_pb2", "tensor_shape_pb2", "types_pb2")
        ),
        module(plugin),
        module(f"{plugin}.hparams"),
        module(f"{plugin}.hparams.api_pb2", STATUS_SUCCESS=1, STATUS_FAILURE=2),
        module(f"{plugin}.hparams.plugin_data_pb2", **sessions),
        module(
            f"{plugin}.hparams.metadata",
            create_summary_metadata=metadata,
            SESSION_START_INFO_TAG="start",
            SESSION_END_INFO_TAG="end",
        ),
        module(f"{plugin}.scalar"),
        module(f"{plugin}.scalar.metadata", create_summary_metadata=metadata),
        module(f"{plugin}.text"),
        module(f"{plugin}.text.metadata", create_summary_metadata=metadata),
        module("tensorboard.summary"),
        module("tensorboard.summary.writer"),
        module("tensorboard.summary.writer.record_writer", RecordWriter=RecordWriter),
    )


class Artifact:
    """A named bundle of files."""

    def __init__(self, name, kind, metadata=None):
        self.name, self.files = name, []

    def add_dir(self, folder):
        """Take all files of a folder."""
        self.files += sorted(path.name for path in Path(folder).iterdir())

    def add_file(self, path):
        """Take a file."""
        self.files.append(Path(path).name)


class Run:
    """A run of Weights & Biases in a folder."""

    def __init__(self, folder, facts):
        self._folder, self._facts, self._logs = folder, facts, []
        self.settings, self.summary = SimpleNamespace(sync_dir=str(folder)), {}
        folder.mkdir(parents=True)

    def log(self, values, step):
        """Take values at a step."""
        self._logs.append([step, values])

    def log_artifact(self, artifact):
        """Take an artefact."""
        self._facts["artifact"] = [artifact.name, artifact.files]

    def finish(self, exit_code=0):
        """Write it all."""
        facts = {**self._facts, "logs": self._logs, "summary": self.summary, "code": exit_code}
        (self._folder / "run.json").write_text(json.dumps(facts))


def wandb(monkeypatch):
    """Weights & Biases': a folder a run."""

    def init(project, dir, id, mode, settings, reinit, **facts):
        assert mode == "offline"
        number = sum(1 for _ in Path(dir, "wandb").glob("*"))
        return Run(Path(dir, "wandb", f"offline-run-{number}-{id}"), facts)

    made = module("wandb", init=init, Settings=lambda **given: given, Artifact=Artifact)
    put(monkeypatch, made)


def trackio(monkeypatch, folder, loses=()):
    """Trackio's: a project as a dictionary, which is returned: name of a run -> its logs.

    Args:
        loses: steps that it only warns of.
    """
    kept, files = {}, {}
    for name in ("TRACKIO_DIR", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID"):
        monkeypatch.setenv(name, str(folder))

    class Files:
        @staticmethod
        def get_log_count(project, run):
            return len(kept.get(run, ()))

        @staticmethod
        def delete_run(project, run):
            del kept[run]

    class One:
        def __init__(self, name):
            self.name = name
            kept.setdefault(name, [])

        def log(self, values, step):
            if step not in loses:
                kept[self.name].append([step, values])

        def log_artifact(self, artifact):
            files[artifact.name] = artifact.files

    library = module(
        "trackio",
        init=lambda project, name, **more: One(name),
        finish=lambda: None,
        Artifact=Artifact,
    )
    storage = module("trackio.sqlite_storage", SQLiteStorage=Files)
    put(monkeypatch, library, storage, module("trackio.utils", TRACKIO_DIR=folder))
    return kept, files
