"""Results sent elsewhere and fetched again: whole or not at all, checked, no secret told."""

from __future__ import annotations

import hashlib
import json
import shutil
from types import SimpleNamespace

import fsspec
import huggingface_hub
import pytest

from factory import LORA, make_job, make_matrix, make_outcome, make_record
from flat_store import FlatStore
from peftmark.cli import parser
from peftmark.core.errors import UserError
from peftmark.record.own import Own
from peftmark.storage import remote as remotes
from peftmark.storage.publish import MANIFEST, bundle, publish, pull, read_manifest
from peftmark.storage.remote import Remote, open_remote, shown_url
from peftmark.storage.store import Store

OWN = Own("classification", ("yes", "no"), (), 8, 4)


@pytest.fixture(autouse=True)
def empty_stores():
    FlatStore.reset()
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Six rows and what else lies in a results folder."""
    store = Store(tmp_path_factory.mktemp("filled"), "demo")
    with store.lock():
        for record in make_matrix(cells=[LORA]):
            store.append(record)
        store.rebuild()
    (store.logs / f"{make_job().job_id}.1.log").write_text("a worker at /home/me\n")
    (store.folder / "adapters").mkdir()
    (store.folder / "adapters" / "model.safetensors").write_bytes(b"x")
    (store.parts / "notes.txt").write_text("mine")
    (store.folder / "secret.txt").write_text("mine")
    return store


@pytest.fixture
def store(tmp_path, filled):
    """The same for a test of its own."""
    shutil.copytree(filled.folder, tmp_path / "results" / "demo")
    return Store(tmp_path / "results", "demo")


def urls(tmp_path):
    return [f"file://{tmp_path}/out", "memory://bucket/out", "flat://bucket/out", f"{tmp_path}/out"]


@pytest.mark.parametrize("at", range(4))
def test_what_is_published_comes_back_the_same_from_anywhere(tmp_path, store, at):
    url = urls(tmp_path)[at]
    sent = publish(bundle(store, logs=False), open_remote(url))
    assert (len(sent.written), sent.kept, sent.removed) == (7, [], [])
    suite, contents = pull(open_remote(url), tmp_path / "back")
    assert suite == "demo" and contents.damaged == {}
    assert contents.records == store.read().records
    parts = {p.name: p.read_bytes() for p in store.parts.glob("*.parquet")}
    back = tmp_path / "back" / "demo"
    assert {p.name: p.read_bytes() for p in (back / "parts").iterdir()} == parts


def test_only_rows_go_and_logs_where_they_are_asked_for(store):
    names = set(bundle(store, logs=False).files)
    assert {n.partition("/")[0] for n in names} == {"parts", "results.parquet"}
    assert len(names) == 7
    more = set(bundle(store, logs=True).files) - names
    assert more == {f"logs/{make_job().job_id}.1.log"}


def test_the_manifest_has_every_file_with_size_and_hash(tmp_path, store):
    publish(bundle(store, logs=True), open_remote(f"{tmp_path}/out"))
    tree = json.loads((tmp_path / "out" / MANIFEST).read_text("utf-8"))
    assert tree["suite"] == "demo" and len(tree["files"]) == 8
    for name, facts in tree["files"].items():
        raw = (tmp_path / "out" / name).read_bytes()
        assert facts == {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}


def test_the_second_time_only_what_changed_is_sent(store):
    to = open_remote("flat://bucket/out")
    publish(bundle(store, logs=False), to)
    assert FlatStore.puts[-1].endswith(MANIFEST) and len(FlatStore.puts) == 8
    FlatStore.puts.clear()
    assert len(publish(bundle(store, logs=False), to).kept) == 7 and FlatStore.puts == []
    store.append(make_record(job=make_job(seed=9)))
    sent = publish(bundle(store, logs=False), to)
    assert len(sent.written) == 2 and "results.parquet" in sent.written
    assert FlatStore.puts[-1].endswith(MANIFEST) and len(FlatStore.puts) == 3


def test_what_is_gone_here_goes_there_after_the_manifest_is_written(store):
    to = open_remote("flat://bucket/out")
    publish(bundle(store, logs=True), to)
    sent = publish(bundle(store, logs=False), to)
    assert sent.removed == [f"logs/{make_job().job_id}.1.log"]
    assert not any("/logs/" in key for key in FlatStore.objects)


def test_an_object_that_lost_bytes_there_is_sent_again(store):
    to = open_remote("flat://bucket/out")
    publish(bundle(store, logs=False), to)
    key = next(k for k in FlatStore.objects if "/parts/" in k)
    FlatStore.objects[key] = FlatStore.objects[key][:-1]
    assert len(publish(bundle(store, logs=False), to).written) == 1


@pytest.mark.parametrize("puts", [0, 3, 7])
def test_a_publish_that_breaks_off_is_never_read_as_whole(tmp_path, store, puts):
    to = open_remote("flat://bucket/out")
    FlatStore.left = puts
    with pytest.raises(UserError, match="can't be written: ConnectionError"):
        publish(bundle(store, logs=False), to)
    with pytest.raises(UserError, match="nothing that was published whole"):
        pull(to, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    FlatStore.left = None
    publish(bundle(store, logs=False), to)
    assert pull(to, tmp_path / "back")[1].attempts == 6


def test_a_second_publish_that_breaks_off_leaves_the_first_or_a_clear_message(tmp_path, store):
    to = open_remote("flat://bucket/out")
    publish(bundle(store, logs=False), to)
    store.append(make_record(job=make_job(seed=9)))
    FlatStore.left = 1  # the new part; the derived file and the manifest are the first ones
    with pytest.raises(UserError):
        publish(bundle(store, logs=False), to)
    assert pull(to, tmp_path / "one")[1].attempts == 6
    FlatStore.left = 2  # the derived file too
    with pytest.raises(UserError):
        publish(bundle(store, logs=False), to)
    with pytest.raises(UserError, match=r"results\.parquet is not the file that its manifest"):
        pull(to, tmp_path / "two")
    assert not (tmp_path / "two").exists()


# --- what is refused on the way back -------------------------------------------------------------


def spoil(change):
    """A published place whose manifest or file is changed by `change(objects, tree)`."""
    key = f"bucket/out/{MANIFEST}"
    tree = json.loads(FlatStore.objects[key])
    change(FlatStore.objects, tree)
    FlatStore.objects[key] = json.dumps(tree).encode()


@pytest.mark.parametrize(
    "name",
    [
        "../../.bashrc",
        "/etc/passwd",
        "parts/../../x",
        "parts/..",
        "parts/0123456789abcdef.1.parquet/../../x",
        "parts\\0123456789abcdef.1.parquet",
        "adapters/0123456789abcdef.1.parquet",
        "parts/model.safetensors",
        "parts/0123456789abcdef.1.pkl",
        "",
    ],
)
def test_no_name_of_a_manifest_leaves_the_folder(tmp_path, store, name):
    to = open_remote("flat://bucket/out")
    publish(bundle(store, logs=False), to)
    spoil(lambda _, tree: tree["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}))
    with pytest.raises(UserError, match="is no file of a results folder"):
        pull(to, tmp_path / "back")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda o, t: t.update(suite="../x"), "is no name of a suite"),
        (lambda o, t: t.update(peftmark_results=2), "no manifest of format 1"),
        (lambda o, t: t.update(files={}), "must list from 1"),
        (lambda o, t: t["files"]["results.parquet"].update(sha256="x"), "has no SHA-256"),
        (lambda o, t: t["files"]["results.parquet"].update(bytes=True), "has no size"),
        (lambda o, t: t["files"]["results.parquet"].update(bytes=1), "not the file"),
        (lambda o, t: t["files"]["results.parquet"].update(sha256="0" * 64), "not the file"),
        (lambda o, t: o.update({"bucket/out/results.parquet": b"x" * 10**6}), "not the file"),
        (lambda o, t: o.pop("bucket/out/results.parquet"), "there is no such place"),
    ],
)
def test_what_is_not_as_it_is_listed_is_refused_and_nothing_is_written(
    tmp_path, store, change, what
):
    to = open_remote("flat://bucket/out")
    publish(bundle(store, logs=False), to)
    spoil(change)
    with pytest.raises(UserError, match=what):
        pull(to, tmp_path / "back")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results"]


def test_a_manifest_that_is_half_written_is_refused(tmp_path, store):
    to = open_remote("flat://bucket/out")
    publish(bundle(store, logs=False), to)
    key = f"bucket/out/{MANIFEST}"
    FlatStore.objects[key] = FlatStore.objects[key][:-20]
    with pytest.raises(UserError, match="can't be used"):
        read_manifest(to)


def test_a_place_of_another_suite_is_not_written_over(store, tmp_path):
    to = open_remote("flat://bucket/out")
    publish(bundle(store, logs=False), to)
    other = Store(tmp_path / "results", "other")
    other.parts.mkdir(parents=True)
    other.append(make_record(job=make_job(suite="other")))
    with pytest.raises(UserError, match="holds results of suite demo, not of other"):
        publish(bundle(other, logs=False), to)


# --- keys and messages ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:SECRET@bucket/x", "s3://bucket/x"),
        ("https://host/x?token=SECRET", "https://host/x"),
        ("https://host/x#SECRET", "https://host/x"),
        ("file:///a\x1b[31m", "file:///a?[31m"),
        ("out/what?#1@home", "out/what?#1@home"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (PermissionError("SECRET"), "there is no permission"),
        (FileNotFoundError("SECRET"), "there is no such place"),
        (OSError(28, "No space left on device"), "OSError, No space left on device"),
        (RuntimeError("token=SECRET"), "RuntimeError"),
    ],
)
def test_what_a_service_raises_is_one_message_without_its_own_words(store, error, what):
    FlatStore.refused = error
    with pytest.raises(UserError) as told:
        publish(bundle(store, logs=False), open_remote("flat://key:SECRET@bucket/out"))
    assert what in str(told.value) and "SECRET" not in str(told.value)
    assert told.value.__cause__ is None


@pytest.mark.parametrize(
    ("status", "what"),
    [
        (401, "no permission"),
        (403, "no permission"),
        (404, "no such place"),
        (500, "the server answered 500"),
    ],
)
def test_the_status_of_a_server_is_told(store, status, what):
    error = RuntimeError("SECRET")
    error.response = SimpleNamespace(status_code=status)
    FlatStore.refused = error
    with pytest.raises(UserError, match=what):
        publish(bundle(store, logs=False), open_remote("flat://bucket/out"))


def test_a_package_that_is_missing_is_named_with_the_command(monkeypatch):
    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UserError, match="needs s3fs") as told:
        open_remote("s3://key:SECRET@bucket/x")
    assert told.value.remedy == "Install it: pip install s3fs." and "SECRET" not in str(told.value)


def test_a_protocol_that_nobody_knows_is_refused():
    with pytest.raises(UserError, match="no place that can be reached"):
        open_remote("nonsense://x")


def test_a_data_set_on_the_hub_gets_one_commit(store, monkeypatch):
    commits = []
    api = SimpleNamespace(
        create_commit=lambda repo, operations, **facts: commits.append((repo, operations, facts))
    )
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda endpoint, token: api)
    place = SimpleNamespace(
        repo_id="me/rows", repo_type="dataset", revision="main", path_in_repo="a"
    )
    fs = SimpleNamespace(
        protocol="hf",
        endpoint="e",
        token="SECRET",
        resolve_path=lambda path: place,
        invalidate_cache=lambda: None,
        find=lambda path, detail: {},
        open=lambda path, mode: (_ for _ in ()).throw(FileNotFoundError()),
    )
    publish(bundle(store, logs=False), Remote(fs, "datasets/me/rows/a", "hf://datasets/me/rows/a"))
    [(repo, operations, facts)] = commits
    paths = [operation.path_in_repo for operation in operations]
    assert (repo, facts["repo_type"], facts["revision"]) == ("me/rows", "dataset", "main")
    assert len(paths) == 8 and paths[-1] == f"a/{MANIFEST}"
    assert "SECRET" not in facts["commit_message"]


def test_packages_of_stores_are_those_that_fsspec_names():
    from fsspec.registry import known_implementations

    for protocol, package in remotes.PACKAGES.items():
        assert known_implementations[protocol]["class"].startswith(package.replace("-", "_"))


# --- the commands --------------------------------------------------------------------------------


def command(capsys, *words):
    with pytest.raises(SystemExit) as left:
        parser.main([*map(str, words)])
    return left.value.code, capsys.readouterr()


def test_the_commands_send_and_fetch(tmp_path, store, capsys):
    results = store.folder.parent
    code, said = command(
        capsys, "publish", "demo", "--to", "flat://k:SECRET@bucket/out", "--results", results
    )
    assert code == 0 and "7 files written, 0 stand in its manifest already" in said.out
    assert "SECRET" not in said.out
    code, said = command(
        capsys, "pull", "flat://k:SECRET@bucket/out", "--to", tmp_path / "back", "--json"
    )
    assert code == 0 and json.loads(said.out)["attempts"] == 6


def test_a_dry_run_lists_and_sends_nothing(store, capsys):
    words = ("publish", "demo", "--to", "flat://bucket/out", "--results", store.folder.parent)
    code, said = command(capsys, *words, "--dry-run", "--with-logs")
    assert code == 0 and FlatStore.objects == {}
    assert said.out.count("parts/") == 6 and "results.parquet" in said.out
    assert "the command with the paths in it" in said.out
    assert "1 log with what workers printed" in said.out
    assert "secret.txt" not in said.out and "adapters" not in said.out


def test_damaged_parts_stay_here_and_the_exit_code_says_so(store, capsys):
    path = next(store.parts.glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    words = ("publish", "demo", "--to", "flat://bucket/out", "--results", store.folder.parent)
    code, said = command(capsys, *words)
    assert code == 6 and "1 part can't be read, being damaged" in said.out
    assert not any(key.endswith(path.name) for key in FlatStore.objects)


def test_what_models_wrote_to_own_rows_is_sent_only_where_that_is_said(store, capsys):
    """Also of an attempt that another one superseded: its part is sent too."""
    job = make_job(task="tickets", own=OWN)
    store.append(make_record(job=job, outcome=make_outcome(completions=("dear customer",))))
    store.append(make_record(job=job, attempt=2, outcome=make_outcome()))
    words = ("publish", "demo", "--to", "flat://bucket/out", "--results", store.folder.parent)
    code, said = command(capsys, *words)
    assert code == 2 and "1 row of" in said.err and FlatStore.objects == {}
    code, said = command(capsys, *words, "--with-texts", "--dry-run")
    assert code == 0 and "2 rows of tasks of your own" in said.out
    assert "1 row with what models wrote" in said.out


def test_results_are_not_published_into_themselves(store, capsys):
    words = ("publish", "demo", "--results", store.folder.parent, "--to")
    before = sorted(store.folder.rglob("*"))
    for place in (store.folder, store.folder / "parts", f"file://{store.folder}/x"):
        code, said = command(capsys, *words, place)
        assert code == 2 and "lies in the results themselves" in said.err
    assert sorted(store.folder.rglob("*")) == before


@pytest.mark.parametrize("suite", ["../demo", "none"])
def test_no_suite_and_no_rows_are_one_message(store, capsys, suite):
    words = ("--to", "flat://bucket/out", "--results", store.folder.parent)
    code, said = command(capsys, "publish", suite, *words)
    assert code == 2 and FlatStore.objects == {} and said.err.startswith("peftmark: ")


def test_pull_writes_over_nothing(tmp_path, store, capsys):
    publish(bundle(store, logs=False), open_remote("flat://bucket/out"))
    code, said = command(capsys, "pull", "flat://bucket/out", "--to", store.folder.parent)
    assert code == 2 and "is there already" in said.err


@pytest.mark.parametrize("mark", ["#", "?"])
def test_a_path_that_a_url_would_cut_is_taken_as_a_path_alone(tmp_path, mark):
    with pytest.raises(UserError, match="the path ends at"):
        open_remote(f"file://{tmp_path}/store{mark}1")
    assert open_remote(f"{tmp_path}/store{mark}1").local == tmp_path / f"store{mark}1"
