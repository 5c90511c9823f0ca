"""A small hub on 127.0.0.1, and a client that drives the real hub libraries against it.

The libraries read HF_ENDPOINT when they are imported, so the client runs in its own process:
`python hub_stub.py model|task|own|command JSON` prints one JSON object: the result, or
the error.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from places import SOURCE
from waiting import PATIENCE

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """What the stub serves under one name at one revision.

    Attributes:
        kind: "model" or "dataset".
        truncated: files of which only half arrives.
        gated: whether everything but the list of files is behind a licence.
    """

    kind: str
    name: str
    files: dict[str, bytes]
    revision: str = REVISION
    truncated: set[str] = field(default_factory=set)
    gated: bool = False


class HubStub(ThreadingHTTPServer):
    """Serves repositories; `hang` accepts connections and never answers."""

    daemon_threads = True

    def __init__(self, *repositories: Repository, hang: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.hang = hang
        self.closing = threading.Event()
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serve(*repositories: Repository, hang: bool = False) -> Iterator[HubStub]:
    server = HubStub(*repositories, hang=hang)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # Git's, as the hub's is


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubStub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, code: str) -> None:
        self._answer(404, b"{}", {"X-Error-Code": code, "X-Error-Message": "not here"})

    def _entry(self, path: str, data: bytes) -> dict[str, object]:
        return {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        form = parse_qs(self.rfile.read(length).decode())
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        if self.server.hang:
            self.server.closing.wait()
            self.close_connection = True
            return
        if path == "/":
            return self._answer(200, b"hub")
        for repository in self.server.repositories:
            api = f"/api/{repository.kind}s/{repository.name}"
            prefix = "/datasets" if repository.kind == "dataset" else ""
            if path == api or path.startswith(api + "/"):
                return self._api(repository, path.removeprefix(api).strip("/"), form)
            if path.startswith(f"{prefix}/{repository.name}/resolve/"):
                revision, _, name = path.split("/resolve/", 1)[1].partition("/")
                return self._file(repository, revision, name)
        self._missing("RepoNotFound")

    def _api(self, repository: Repository, rest: str, form: dict[str, list[str]]) -> None:
        action, _, tail = rest.partition("/")
        revision, _, folder = tail.partition("/")
        if action and revision not in (repository.revision, "main"):
            return self._missing("RevisionNotFound")
        if action in ("", "revision"):
            info: object = {
                "id": repository.name,
                "sha": repository.revision,
                "siblings": [
                    {"rfilename": name, "size": len(data)}
                    for name, data in repository.files.items()
                ],
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "private": False,
            }
        elif action == "tree":
            under = folder + "/" if folder else ""
            recursive = "recursive=true" in self.path.lower()
            entries = {}
            for name, data in repository.files.items():
                if name.startswith(under):
                    first, _, below = name.removeprefix(under).partition("/")
                    if below and not recursive:
                        entries[under + first] = {
                            "type": "directory",
                            "path": under + first,
                            "oid": _oid(first.encode()),
                            "size": 0,
                        }
                    else:
                        entries[name] = self._entry(name, data)
            if folder and not entries:
                return self._missing("EntryNotFound")
            info = list(entries.values())
        elif action == "paths-info":
            wanted = form.get("paths", [])
            info = [self._entry(n, d) for n, d in repository.files.items() if n in wanted]
            info += [
                {"type": "directory", "path": w, "oid": _oid(w.encode()), "size": 0}
                for w in wanted
                if any(n.startswith(w + "/") for n in repository.files)
            ]
        else:
            return self._missing("EntryNotFound")
        self._answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: Repository, revision: str, name: str) -> None:
        if revision not in (repository.revision, "main"):
            return self._missing("RevisionNotFound")
        if name not in repository.files:
            return self._missing("EntryNotFound")
        if repository.gated:
            return self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        data = repository.files[name]
        headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": repository.revision}
        if name in repository.truncated and self.command == "GET":
            data = data[: len(data) // 2]
        self._answer(200, data, headers)

    do_GET = do_HEAD = do_POST = _handle


def call(endpoint: str, home: Path, what: str, **arguments: object) -> dict[str, Any]:
    """Run the client against an endpoint; nothing but its one line may reach the terminal.

    It has patience with the stub, unless it is told to be in a `hurry` as it is by itself.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": str(int(PATIENCE)),
        "HF_HUB_DOWNLOAD_TIMEOUT": str(int(PATIENCE)),
        "HOME": str(home),
        "PYTHONPATH": str(SOURCE),
        "no_proxy": "127.0.0.1",
    }
    env |= {str(k): str(v) for k, v in dict(arguments.pop("env", {})).items()}  # type: ignore[call-overload]
    done = subprocess.run(
        [sys.executable, __file__, what, json.dumps(arguments | {"cache": str(home / "cache")})],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _small_disk(free: int | None) -> None:
    """A disk with so many bytes left, as the program sees it."""
    import shutil

    if free is not None:
        shutil.disk_usage = lambda path: type("Usage", (), {"free": free})()  # type: ignore[assignment,return-value]


def _client(what: str, arguments: dict[str, Any]) -> dict[str, object]:
    from dataclasses import replace

    from peftmark.catalog.models import MODELS
    from peftmark.catalog.origins import Hub
    from peftmark.catalog.tasks import TASKS
    from peftmark.core.errors import AssetError
    from peftmark.own.declared import OwnTask
    from peftmark.own.declared_model import OwnModel
    from peftmark.own.model import read_own_model
    from peftmark.own.read import read_own
    from peftmark.sources.assets import Places, hub_reachable, model_files
    from peftmark.sources.task_data import load_task

    if not arguments.get("hurry"):
        hub_reachable.__defaults__ = (PATIENCE,)
    places = Places(None, ("hub",), Path(arguments["cache"]))
    revision = arguments.get("revision", REVISION)
    try:
        if what == "command":
            return _command(arguments["words"])
        if what == "reachable":
            reachable, why = hub_reachable()
            return {"reachable": reachable, "why": why}
        if what == "model":
            model = replace(
                MODELS["minilm-l6"],
                hub=Hub("tiny/model", revision),
                weights_sha256=arguments["sha256"],
                packages=(),
            )
            located = model_files(model, places)
            return {
                "source": located.source,
                "files": sorted(p.name for p in located.path.iterdir()),
            }
        if what == "own model":
            _small_disk(arguments.get("free"))
            found = read_own_model("m", OwnModel(hub=f"tiny/model@{revision}"), [])
            return {
                "source": found.source,
                "files": sorted(found.hashes),
                "identity": found.model.identity,
            }
        if what == "own config":
            from peftmark.memory.plan_estimates import config_of

            return {"config": dict(config_of(arguments["name"]))}
        if what == "own":
            own = read_own("t", OwnTask.model_validate(arguments["declared"]), [], places.cache)
            return {
                "source": own.data.source,
                "fingerprint": own.task.fingerprint,
                "labels": own.task.labels,
                "counts": [own.task.train_rows, own.task.eval_rows],
                "notes": own.notes,
            }
        base = TASKS[arguments["task"]]
        assert base.hub is not None
        task = replace(
            base,
            hub=replace(base.hub, repository="tiny/glue", revision=revision),
            fingerprint=arguments.get("fingerprint"),
            train_rows=arguments["train_rows"],
            eval_rows=arguments["eval_rows"],
        )
        data = load_task(task, places)
        return {
            "source": data.source,
            "fingerprint": data.fingerprint,
            "train": [[r.text, r.pair, r.label] for r in data.train],
            "eval": [[r.text, r.pair, r.label] for r in data.eval],
        }
    except AssetError as error:
        return {"error": error.what, "remedy": error.remedy}


def _command(words: list[str]) -> dict[str, object]:
    from peftmark.cli import parser

    out, error = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error):
        try:
            parser.main(words)
        except SystemExit as left:
            return {"code": left.code, "out": out.getvalue(), "error": error.getvalue()}


if __name__ == "__main__":
    print(json.dumps(_client(sys.argv[1], json.loads(sys.argv[2]))))
