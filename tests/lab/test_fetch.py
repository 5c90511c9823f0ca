"""`peftmark fetch`: round trips, what is kept and refused, and a run that can't use a network."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from made_wheels import FILES, build_wheel, tiny_model
from peftmark.catalog.models import MODELS
from peftmark.catalog.task import read_by
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import AssetError, UserError
from peftmark.run import fetch as fetching
from peftmark.run import runner
from peftmark.run.fetch import fetch_suite, mirrored_text
from peftmark.run.runner import Selection, make_plan
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.manifest import MANIFEST, check_mirror, read_manifest
from peftmark.sources.package_rows import read_package
from peftmark.sources.pypi import package_files
from peftmark.sources.task_data import load_task
from peftmark.suite.load import load_suite
from raw_rows import TEXTS, raw_rows, write_form
from raw_rows import tiny as without_fingerprint
from small_suite import QUICK, changed
from small_suite import write as write_suite
from waiting import PATIENCE

QUESTIONS = "".join(f"HUM:ind Who is number {i} ?\n" for i in range(40)).encode()
SCORES = "".join(f"g\tf\ty\t{i}\t{i % 6}.0\tone {i}\ttwo {i}\n" for i in range(48)).encode()
TREC = sorted(["trec/train.jsonl", "trec/dev.jsonl"])
SMOL = "smollm2-135m-q4"
LORA = {"method": "lora", "rank": [8], "recipe": {"targets": "attention", "alpha": 16}}


@pytest.fixture(autouse=True)
def own_cache(request, tmp_path, monkeypatch):
    """Everything but the tests on real assets starts with an empty cache and asks no hub."""
    if "real" not in request.keywords:
        monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(fetching, "hub_reachable", refused)
        monkeypatch.setattr(runner, "hub_reachable", refused)


def refused(*_):
    raise AssertionError("the hub was asked")


@pytest.fixture
def catalog(tmp_path, pip_index, monkeypatch):
    """Tiny models and tiny tasks in packages that are in the cache; the index is empty."""
    model = tiny_model(cached(tmp_path, "tiny-model", FILES))
    monkeypatch.setitem(MODELS, "minilm-l6", model)
    monkeypatch.setitem(MODELS, SMOL, replace(model, key=SMOL, hub=None, causal=True))
    questions = cached(tmp_path, "tiny-trec", {"question_labels.txt": QUESTIONS})
    scores = cached(tmp_path, "tiny-sts", {"sts-train.csv": SCORES, "sts-dev.csv": SCORES})
    for key, package in (("trec", questions), ("sts-b", scores)):
        monkeypatch.setitem(TASKS, key, packaged(key, package))
    pairs = without_fingerprint(TASKS["sts-pairs"], 40, 40)  # a sixth of the scores is a 3
    monkeypatch.setitem(TASKS, "sts-pairs", replace(pairs, package=scores))


def cached(folder, name, content):
    """A package whose files are in the cache as if pip had fetched it."""
    for path, data in content.items():
        file = default_cache() / "packages" / f"{name}-1.0" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return build_wheel(folder / "wheels", name, content)


def packaged(key, package):
    """A task whose rows are those of a package, whatever they are."""
    splits = read_package(package_files(package, default_cache()), package, TASKS[key])
    return replace(without_fingerprint(TASKS[key], *map(len, splits)), package=package)


def suite(folder, name="demo", **profile):
    """A suite with one profile `quick`, whose keys are given, in the folder `suites`."""
    write_suite(
        folder / "suites",
        changed(
            (("suite",), name),
            (("recipe", "batch_size"), 2),
            *(((*QUICK, key), value) for key, value in profile.items()),
        ),
        name,
    )
    return folder / "suites"


def fetch(folder, to="m", name="demo", mirror=None, **profile):
    return fetch_suite(name, None, folder / to, mirror, suite(folder, name, **profile))


def reading(key):
    """The keys of a profile that has one task, with a model that reads it."""
    if read_by(TASKS[key], causal=False):
        return {"tasks": {key: {}}}
    other = "editorials" if key == "reviews" else "reviews"
    return {"model": SMOL, "unrelated": other, "tasks": {key: {}}, "methods": [LORA]}


def test_what_is_ones_own_is_not_said_to_be_in_the_folder(catalog, tmp_path):
    found = fetch(tmp_path, tasks={"trec": {}})
    assert found.own == () and "everything loads from" in mirrored_text(found)
    (tmp_path / "suites" / "mine.yaml").write_text(
        "model: ./checkpoint\ntasks:\n"
        "  tickets: {kind: classification, train: t.csv, text: body, label: category}\n"
        f"  far: {{kind: classification, hub: a/b@{'0' * 40}, text: body, label: category}}\n"
        "  trec: {}\nmethods: [head, {method: full, model: minilm-l6}]\n"
    )
    found = fetch_suite("mine", None, tmp_path / "m", None, tmp_path / "suites")
    assert {asset.name for asset in found.assets} == {"trec", "minilm-l6"}
    said = mirrored_text(found)
    assert "everything" not in said and "all of the catalogue's loads" in said
    for part in ("task tickets (t.csv)", "task far (hub: a/b@", "model checkpoint (./checkpoint)"):
        assert part in said


def alone(mirror):
    """The mirror as the only source."""
    return Places(mirror, ("mirror",), mirror / "no cache")


def files(mirror):
    return {str(p.relative_to(mirror)): p.read_bytes() for p in mirror.rglob("*") if p.is_file()}


# --- round trips ----------------------------------------------------------------------------------


def test_packages_become_a_mirror(tmp_path, catalog):
    found = fetch(tmp_path)
    assert [(a.kind, a.name, a.source, a.kept) for a in found.assets] == [
        ("model", "minilm-l6", "package: tiny-model 1.0", False),
        ("task", "trec", "package: tiny-trec 1.0", False),
    ]
    words = ["peftmark", "run", "demo", "--profile", "quick", "--mirror", str(tmp_path / "m")]
    assert list(found.command) == [*words, "--suites", str(tmp_path / "suites")]
    there = alone(tmp_path / "m")
    located = model_files(MODELS["minilm-l6"], there)
    assert {p.name: p.read_bytes() for p in located.path.iterdir()} == FILES
    from_package = load_task(TASKS["trec"], Places(None, ("package",), default_cache()))
    mirrored = load_task(TASKS["trec"], there)
    assert (mirrored.train, mirrored.eval) == (from_package.train, from_package.eval)
    assert mirrored.fingerprint == from_package.fingerprint
    assert sum(a.bytes for a in found.assets) == sum(
        len(content) for name, content in files(tmp_path / "m").items() if name != MANIFEST
    )


@pytest.mark.parametrize("key", TASKS)
def test_every_task_comes_back_from_its_published_form(key, tmp_path, catalog, monkeypatch):
    scored, profile = {"sts-b", "sts-pairs"}, reading(key)
    texts = {t.key: (*TEXTS, "") if t.loose else TEXTS for t in TASKS.values()}
    wanted = (scored if key in scored else {key}) | {profile.get("unrelated", key)}
    for name in wanted:
        # Of the scores 0, 3.8, 5 and 1.333 in turn all but the second are clear.
        count = len(texts[name]) - (len(texts[name]) // 4 if TASKS[name].cuts else 0)
        monkeypatch.setitem(TASKS, name, without_fingerprint(TASKS[name], count, count))
    task = TASKS[key]
    for one in (TASKS[name] for name in {key, profile.get("unrelated", key)}):
        form = "jsonl" if one.key in ("movie", "trec") else "tsv"
        for split in ("train", "dev"):
            write_form(
                tmp_path / "src" / one.mirror[0] / f"{split}.{form}",
                one,
                raw_rows(one, texts[one.key]),
            )
    fetch(tmp_path, mirror=tmp_path / "src", **profile)
    before = load_task(task, alone(tmp_path / "src"))
    after = load_task(task, alone(tmp_path / "m"))
    assert (after.train, after.eval) == (before.train, before.eval)
    assert after.fingerprint == before.fingerprint


def test_a_task_with_cuts_has_one_as_published():
    for task in TASKS.values():
        whole = fetching._published(task) if task.cuts else task
        assert not whole.cuts
        shape = (whole.fields, whole.hub_fields, whole.label_field, whole.hub, whole.package)
        assert shape == (task.fields, task.hub_fields, task.label_field, task.hub, task.package)


def test_tasks_share_a_folder_of_a_mirror_only_where_they_share_rows():
    for task in TASKS.values():
        same = [t for t in TASKS.values() if set(t.mirror) & set(task.mirror)]
        assert {t.package for t in same} == {task.package}, task.key
        # MNLI's two evaluations are splits of one folder.
        whole = {t.key for t in same if not t.cuts}
        assert len(whole) == 1 or whole == {"mnli", "mnli-mismatched"}


# --- causal language models -----------------------------------------------------------------------


def small_texts(folder, monkeypatch, *keys):
    """Tasks without labels in a mirror, two rows a split, and what it holds of them."""
    rows = {}
    for key in keys:
        task = without_fingerprint(TASKS[key], 2, 2)
        monkeypatch.setitem(TASKS, key, task)
        rows[key] = raw_rows(task, ("one", 'say\n"two" \u2028'))
        for split in ("train", "dev"):
            write_form(folder / task.mirror[0] / f"{split}.jsonl", task, rows[key])
    return rows


def test_every_model_and_the_unrelated_text_are_fetched(tmp_path, catalog, monkeypatch):
    small_texts(tmp_path / "src", monkeypatch, "editorials")
    encoder = {**json.loads(json.dumps(LORA)), "model": "minilm-l6"}
    found = fetch(
        tmp_path,
        mirror=tmp_path / "src",
        model=SMOL,
        unrelated="editorials",
        methods=[{"method": "base"}, LORA, encoder],
    )
    assert [(a.kind, a.name) for a in found.assets] == [
        ("model", SMOL),
        ("model", "minilm-l6"),
        ("task", "trec"),
        ("task", "editorials"),
    ]
    data = json.loads((tmp_path / "m" / MANIFEST).read_text())
    assert data["suites"]["demo"]["quick"]["tasks"] == ["editorials", "trec"]
    assert set(data["models"]) == {SMOL, "minilm-l6"}
    assert data["models"][SMOL]["pinned"] == MODELS[SMOL].title
    assert set(data["files"]) == set(files(tmp_path / "m")) - {MANIFEST}
    # A run of either needs nothing else.
    shutil.rmtree(tmp_path / "src")
    shutil.rmtree(tmp_path / "cache")
    suites = tmp_path / "suites"
    plan = make_plan(
        Selection("demo", mirror=tmp_path / "m", suites=suites, results=tmp_path / "r")
    )
    assert runner.fetch(plan) == {
        SMOL: f"mirror: models/{SMOL}",
        "minilm-l6": "mirror: models/minilm-l6",
        "trec": "mirror: trec/train.jsonl, trec/dev.jsonl",
        "editorials": "mirror: editorials/train.jsonl, editorials/dev.jsonl",
    }


def test_rows_without_labels_have_no_column_for_them(tmp_path, catalog, monkeypatch):
    rows = small_texts(tmp_path / "src", monkeypatch, "chatterbot", "reviews")
    fetch(tmp_path, mirror=tmp_path / "src", **reading("chatterbot"))
    for key, names in (("chatterbot", ["question", "answer"]), ("reviews", ["text"])):
        lines = (tmp_path / "m" / key / "dev.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        written = [json.loads(line) for line in lines]
        assert [list(row) for row in written] == [names, names]
        assert [tuple(row.values()) for row in written] == [
            tuple(text.strip() for text in row) for row in rows[key]
        ]


def test_a_context_stays_with_its_instruction(tmp_path, catalog, monkeypatch):
    fields = ("instruction", "context", "answer")
    monkeypatch.setitem(TASKS, "chatterbot", replace(TASKS["chatterbot"], fields=fields))
    small_texts(tmp_path / "src", monkeypatch, "chatterbot", "reviews")
    task = TASKS["chatterbot"]
    rows = [("Add.", "1 and 2", "3"), ("Say hello.", "", "Hello.")]
    for split in ("train", "dev"):
        write_form(tmp_path / "src" / "chatterbot" / f"{split}.jsonl", task, rows)
    fetch(tmp_path, mirror=tmp_path / "src", **reading("chatterbot"))
    before = load_task(task, alone(tmp_path / "src"))
    after = load_task(task, alone(tmp_path / "m"))
    assert (after.train, after.fingerprint) == (before.train, before.fingerprint)
    assert [row.text for row in after.train] == ["Add.\n\n1 and 2", "Say hello."]


def test_a_mirror_without_the_unrelated_text_is_told_before_anything_runs(
    tmp_path, catalog, monkeypatch
):
    small_texts(tmp_path / "src", monkeypatch, "chatterbot", "reviews")
    fetch(tmp_path, mirror=tmp_path / "src", **reading("chatterbot"))
    (tmp_path / "m" / "reviews" / "dev.jsonl").unlink()
    code, output = peftmark(
        tmp_path, "run", "demo", "--suites", "suites", "--mirror", "m", "--results", "r"
    )
    assert code == 2, output
    assert "reviews/dev.jsonl is not what was fetched: it is missing" in output
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", load_suite("instruct").profiles)
def test_the_shipped_instruct_suite_comes_back_row_for_row(name, tmp_path, monkeypatch):
    """With tiny models in place of half a gigabyte."""
    tiny = tiny_model()
    monkeypatch.setitem(MODELS, "minilm-l6", tiny)
    monkeypatch.setitem(MODELS, SMOL, replace(tiny, key=SMOL, hub=None, causal=True))
    for file in (
        tmp_path / "src" / "models" / key / f for key in (SMOL, "minilm-l6") for f in FILES
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(FILES[file.name])
    profile = load_suite("instruct").profiles[name]
    wanted, before = [*profile.tasks, profile.unrelated], {}
    for key in wanted:
        try:
            before[key] = load_task(TASKS[key], Places(None, ("package",), default_cache()))
        except AssetError as error:
            pytest.skip(f"the packaged rows can't be had here: {error}")
    found = fetch_suite("instruct", name, tmp_path / "m", tmp_path / "src")
    assert [a.name for a in found.assets if a.kind == "task"] == wanted
    models = [a.name for a in found.assets if a.kind == "model"]
    assert models[0] == SMOL
    for key in wanted:
        after = load_task(TASKS[key], alone(tmp_path / "m"))
        assert (after.train, after.eval) == (before[key].train, before[key].eval)
        assert after.fingerprint == TASKS[key].fingerprint


OFFLINE = ("sts-b", "movie", "trec", "sts-pairs")


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """The profile `offline` of `glue` in a mirror."""
    places = Places(None, ("package",), default_cache())
    try:
        model_files(MODELS["minilm-l6"], places)
        for key in OFFLINE:
            load_task(TASKS[key], places)
    except AssetError as error:
        pytest.skip(f"the packaged model and rows can't be had here: {error}")
    folder = tmp_path_factory.mktemp("mirror")
    fetch_suite("glue", "offline", folder)
    assert set(load_suite("glue").profiles["offline"].tasks) == set(OFFLINE)
    return folder


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("key", OFFLINE)
def test_shipped_offline_tasks_come_back_row_for_row(key, offline):
    before = load_task(TASKS[key], Places(None, ("package",), default_cache()))
    after = load_task(TASKS[key], alone(offline))
    assert (after.train, after.eval) == (before.train, before.eval)
    assert after.fingerprint == before.fingerprint == TASKS[key].fingerprint


@pytest.mark.slow
@pytest.mark.real
def test_the_shipped_model_comes_back_byte_for_byte(offline):
    before = model_files(MODELS["minilm-l6"], Places(None, ("package",), default_cache())).path
    after = model_files(MODELS["minilm-l6"], alone(offline)).path
    names = ("model.safetensors", *MODELS["minilm-l6"].files)
    assert all((before / n).read_bytes() == (after / n).read_bytes() for n in names)


# --- the manifest ---------------------------------------------------------------------------------


def test_the_manifest_lists_everything_and_gives_the_same_bytes(tmp_path, catalog):
    fetch(tmp_path)
    raw = (tmp_path / "m" / MANIFEST).read_text()
    data = json.loads(raw)
    assert raw == json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert set(data["files"]) == set(files(tmp_path / "m")) - {MANIFEST}
    model, task = MODELS["minilm-l6"], TASKS["trec"]
    assert data["models"]["minilm-l6"] == {
        "identity": model.weights_sha256,
        "pinned": f"{model.hub.repository} at {model.hub.revision}",
        "source": "package: tiny-model 1.0",
        "files": sorted(f"models/minilm-l6/{name}" for name in FILES),
    }
    rows = load_task(task, alone(tmp_path / "m"))
    assert data["tasks"]["trec"]["identity"] == rows.fingerprint
    assert data["tasks"]["trec"]["files"] == TREC
    quick = data["suites"]["demo"]["quick"]
    assert (quick["suite_version"], quick["model"], quick["tasks"]) == (1, "minilm-l6", ["trec"])
    fetch(tmp_path, "again")
    assert files(tmp_path / "again") == files(tmp_path / "m")


def test_suites_share_a_mirror_and_what_is_there_needs_no_source(tmp_path, catalog):
    fetch(tmp_path)
    shutil.rmtree(tmp_path / "cache" / "packages" / "tiny-model-1.0")
    shutil.rmtree(tmp_path / "cache" / "packages" / "tiny-trec-1.0")
    before = {name: (tmp_path / "m" / name).stat().st_mtime_ns for name in files(tmp_path / "m")}
    found = fetch(tmp_path, name="other", tasks={"trec": {}, "sts-pairs": {}})
    assert [(a.name, a.kept) for a in found.assets] == [
        ("minilm-l6", True),
        ("trec", True),
        ("sts-pairs", False),
    ]
    found = fetch(tmp_path, name="third", tasks={"sts-b": {}})
    assert [a.kept for a in found.assets] == [True, False]
    manifest = read_manifest(tmp_path / "m")
    assert set(manifest.suites) == {"demo", "other", "third"}
    assert manifest.tasks["sts-b"].files == manifest.tasks["sts-pairs"].files
    after = {name: (tmp_path / "m" / name).stat().st_mtime_ns for name in before}
    assert {n for n in before if before[n] != after[n]} == {MANIFEST}
    for task in ("trec", "sts-b", "sts-pairs"):
        load_task(TASKS[task], alone(tmp_path / "m"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 2}',
        '{"more": 1}',
        '{"files": {"a": 1}}',
        '{"tasks": {"a": {"identity": "", "pinned": "", "source": "", "files": ["../b"]}}}',
    ],
)
def test_a_manifest_that_is_none_is_refused(text, tmp_path, catalog):
    fetch(tmp_path)
    (tmp_path / "m" / MANIFEST).write_text(text)
    with pytest.raises(AssetError, match="is not a manifest of this peftmark"):
        check_mirror(tmp_path / "m", ["minilm-l6"], ["trec"])
    with pytest.raises(AssetError, match="is not a manifest of this peftmark"):
        fetch(tmp_path)
    (tmp_path / "m" / MANIFEST).unlink()
    check_mirror(tmp_path / "m", ["minilm-l6"], ["trec"])  # there is nothing to hold it against
    fetch(tmp_path)
    check_mirror(tmp_path / "m", ["minilm-l6"], ["trec"])


# --- damage ---------------------------------------------------------------------------------------

EVERY_FILE = [*(f"models/minilm-l6/{name}" for name in FILES), *TREC]


@pytest.mark.parametrize("name", EVERY_FILE)
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_damage_is_found_and_mended(name, how, tmp_path, catalog):
    fetch(tmp_path)
    good = files(tmp_path / "m")
    check_mirror(tmp_path / "m", ["minilm-l6"], ["trec"])
    path = tmp_path / "m" / name
    if how == "remove":
        path.unlink()
    else:
        half = len(good[name]) // 2
        changed_byte = bytes([good[name][half] ^ 1]) + good[name][half + 1 :]
        path.write_bytes(good[name][:half] + (changed_byte if how == "flip" else b""))
    with pytest.raises(AssetError, match=path.name) as caught:
        check_mirror(tmp_path / "m", ["minilm-l6"], ["trec"])
    assert ("it is missing" if how == "remove" else "SHA-256 is") in caught.value.what
    found = fetch(tmp_path)
    assert [a.kept for a in found.assets] == [name in TREC, name not in TREC]
    assert files(tmp_path / "m") == good


def test_only_what_a_profile_needs_is_held_against_the_manifest(tmp_path, catalog):
    fetch(tmp_path)
    (tmp_path / "m" / TREC[0]).unlink()
    check_mirror(tmp_path / "m", ["minilm-l6"], ["sts-b"])


def test_a_run_refuses_a_damaged_mirror_at_once(tmp_path, catalog):
    fetch(tmp_path)
    (tmp_path / "m" / "models" / "minilm-l6" / "tokenizer.json").write_bytes(b"{}")
    code, output = peftmark(tmp_path, "run", "demo", "--suites", "suites", "--mirror", "m")
    assert code == 2, output
    assert "tokenizer.json is not what was fetched" in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [TREC[0], "models/minilm-l6/config.json"])
def test_files_of_others_are_not_overwritten(name, tmp_path, catalog):
    path = tmp_path / "m" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="was not made by fetch"):
        fetch(tmp_path)
    assert path.read_bytes() == b"mine"
    assert not list((tmp_path / "m").rglob(".*"))


def test_rows_that_another_suite_needs_are_not_overwritten(tmp_path, catalog, monkeypatch):
    fetch(tmp_path)
    before = files(tmp_path / "m")
    other = QUESTIONS.replace(b"Who", b"What")
    package = cached(tmp_path, "other-trec", {"question_labels.txt": other})
    monkeypatch.setitem(TASKS, "trec", packaged("trec", package))
    rows = load_task(TASKS["trec"], Places(None, ("package",), default_cache()))
    monkeypatch.setitem(TASKS, "trec", replace(TASKS["trec"], fingerprint=rows.fingerprint))
    with pytest.raises(UserError, match="an earlier fetch needs it"):
        fetch(tmp_path, name="other")
    assert files(tmp_path / "m") == before
    fetch(tmp_path, "n", name="other")


def test_rows_that_would_be_read_in_place_of_the_written_ones_are_told(tmp_path, catalog):
    task = TASKS["trec"]
    rows = raw_rows(task, tuple(f"other {i}" for i in range(task.train_rows)))
    write_form(tmp_path / "m" / "trec" / "train.tsv", task, rows)
    write_form(tmp_path / "m" / "trec" / "dev.tsv", task, rows[: task.eval_rows])
    with pytest.raises(UserError, match="task trec loads from") as caught:
        fetch(tmp_path)
    assert "trec/train.tsv" in caught.value.remedy
    assert not read_manifest(tmp_path / "m").suites


def test_an_asset_that_cannot_be_had_leaves_nothing(tmp_path, catalog):
    shutil.rmtree(tmp_path / "cache" / "packages" / "tiny-trec-1.0")
    with pytest.raises(AssetError, match="task trec is in none of the sources tried"):
        fetch(tmp_path)
    assert not (tmp_path / "m").exists()


def test_a_profile_that_takes_a_mirror_alone_asks_for_one(tmp_path, catalog):
    with pytest.raises(UserError, match="from a mirror alone"):
        fetch(tmp_path, sources=["mirror"])


@pytest.mark.parametrize(
    ("nth", "code"), [*((n, errno.ENOSPC) for n in range(1, 18)), (3, errno.EIO)]
)
def test_a_write_that_fails_leaves_nothing_half_written(nth, code, tmp_path, catalog, monkeypatch):
    good = files(fetch(tmp_path, "good").folder)
    real, calls = os.fsync, []

    def failing(handle):
        if str(tmp_path / "m") in os.readlink(f"/proc/self/fd/{handle}"):
            calls.append(handle)
            if len(calls) == nth:  # each of nine files is synced, then its folder
                raise OSError(code, os.strerror(code))
        real(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(UserError) as caught:
        fetch(tmp_path)
    message = "the disk is full" if code == errno.ENOSPC else "Input/output error"
    assert message in caught.value.what
    assert "half written" in caught.value.what
    left = files(tmp_path / "m")
    assert all(good[name] == content for name, content in left.items() if name != MANIFEST)
    assert len(left) < len(good) or left[MANIFEST] != good[MANIFEST]
    monkeypatch.setattr(os, "fsync", real)
    fetch(tmp_path)
    assert files(tmp_path / "m") == good


def test_one_fetch_at_a_time(tmp_path, catalog):
    (tmp_path / "m").mkdir()
    handle = os.open(tmp_path / "m", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match="another fetch is writing into"):
            fetch(tmp_path)
    finally:
        os.close(handle)
    fetch(tmp_path)


def peftmark(folder, *arguments, **environment):
    """A command in a folder, in an environment where hub and index are out of reach."""
    done = subprocess.run(
        [sys.executable, "-m", "peftmark", *arguments],
        cwd=folder,
        timeout=PATIENCE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "file"], ["file is not a folder", "--to"]),
        (["--to", "file/below"], ["file is not a folder", "--to"]),
        (["--to", "m", "--mirror", "file"], ["file is not a folder"]),
        (["--to", "m", "--profile", "big"], ["no profile 'big'", "Its profiles: offline"]),
        (["--to", "m"], ["model minilm-l6 is in none of the sources tried", "package: "]),
        ([], ["required: --to"]),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, words, tmp_path):
    (tmp_path / "file").write_text("")
    code, output = peftmark(tmp_path, "fetch", "smoke", *arguments)
    assert code == 2, output
    assert all(word in output for word in words), output
    assert "Traceback" not in output
    assert not (tmp_path / "m").exists()


def test_a_folder_that_cannot_be_made(tmp_path, catalog):
    with pytest.raises(UserError, match=r"/proc/nowhere|can't be written") as caught:
        fetch_suite("demo", None, Path("/proc/nowhere"), None, suite(tmp_path))
    assert "--to" in caught.value.remedy


# --- a run from the mirror ------------------------------------------------------------------------


def test_a_mirror_goes_first_and_decides_the_profile_without_asking(tmp_path, catalog):
    suites = suite(tmp_path, needs="data", sources=["hub", "package"])
    (tmp_path / "m").mkdir()
    plan = make_plan(
        Selection("demo", mirror=tmp_path / "m", suites=suites, results=tmp_path / "r")
    )
    assert plan.places.sources == ("mirror", "hub", "package")
    assert "a mirror is given" in plan.profile_reason
    plan = make_plan(Selection("demo", "quick", suites=suites, results=tmp_path / "r"))
    assert plan.places.sources == ("hub", "package")


GUARD = """
import os, socket, sys

def guard(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        what = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if arguments[0].family == socket.AF_UNIX:
            return
        what = arguments[1]
    else:
        return
    with open(os.environ["RECORD"], "a") as record:
        record.write(f"{os.getpid()} {event} {what}\\n")
    raise OSError("this test refuses the network")

sys.addaudithook(guard)
with open(os.environ["RECORD"] + ".guarded", "a") as record:
    record.write(f"{os.getpid()} {' '.join(sys.orig_argv)[:300]!r}\\n")
"""

TABLES = """
from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.origins import Hub, Package
from peftmark.catalog.task import Task
from peftmark.catalog.tasks import TASKS
MODELS["tiny"] = {model!r}
TASKS["tiny-class"] = {task!r}
"""

TINY = {
    "needs": "data",
    "scale": "reduced",
    "sources": ["mirror", "hub", "package"],
    "model": "tiny",
    "tasks": {"tiny-class": {"recipe": {"steps": 4, "eval_every": 2, "max_length": 16}}},
    "methods": [
        {"method": "lora", "rank": [8], "recipe": {"targets": "all-linear", "alpha": 16}}
    ],
}  # fmt: skip

REACH = """
import multiprocessing, os, socket
def reach(address):
    try:
        socket.create_connection((address, 9), timeout=1)
    except OSError as error:
        print(os.getpid(), error, flush=True)
if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=reach, args=("127.0.0.1",))
    child.start()
    child.join()
    reach("example.org")
    socket.socketpair()
"""


@pytest.fixture
def guarded(tmp_path, monkeypatch):
    """An environment in which every Python process refuses and records the use of a network."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(GUARD)
    record = tmp_path / "attempts"
    record.write_text("")
    monkeypatch.setenv("RECORD", str(record))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    # Nothing tells the libraries to stay offline: they must not even try.
    for name in ("HF_HUB_OFFLINE", "PIP_NO_INDEX", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return record


def test_the_guard_sees_attempts_here_and_in_forked_workers(guarded, tmp_path):
    (tmp_path / "reach.py").write_text(REACH)
    done = subprocess.run(
        [sys.executable, "reach.py"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    attempts = [line.split(" ", 2) for line in guarded.read_text().splitlines()]
    assert {a[2] for a in attempts} >= {"127.0.0.1", "example.org"}
    assert len({a[0] for a in attempts}) == 2
    assert done.stdout.count("this test refuses the network") == 2


@pytest.fixture
def tiny_mirror(guarded, tmp_path, monkeypatch):
    """A mirror with a tiny model and task, made by `peftmark fetch` from another one."""
    import tiny

    with monkeypatch.context() as patch:
        tiny.install(tmp_path / "src", patch)
        tables = TABLES.format(model=MODELS["tiny"], task=TASKS["tiny-class"])
    with (tmp_path / "site" / "sitecustomize.py").open("a") as site:
        site.write(tables)
    suite(tmp_path, **TINY)
    # The guard holds for this command too: the hub isn't needed where a mirror has everything.
    done = subprocess.run(
        [sys.executable, "-m", "peftmark", "fetch", "demo", "--mirror", "src", "--to", "m"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model tiny: mirror: models/tiny, " in done.stdout
    assert "peftmark run demo --profile quick --mirror m" in done.stdout
    shutil.rmtree(tmp_path / "src")
    assert guarded.read_text() == ""
    return tmp_path / "m"


RUN = [sys.executable, "-m", "peftmark", "run", "demo", "--mirror", "m", "--jobs", "1"]


def run_from(mirror, *before):
    folder = mirror.parent
    shutil.rmtree(folder / "cache", ignore_errors=True)
    done = subprocess.run(
        [*before, *RUN], cwd=folder, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_parquet(folder / "results" / "demo" / "results.parquet")
    assert list(table["status"]) == ["ok", "ok"]  # the job and its repetition
    assert set(table["model_source"]) == {"mirror: models/tiny"}
    assert (folder / "reports" / "demo" / "index.html").is_file()
    assert not (folder / "cache").exists()


@pytest.mark.real
@pytest.mark.slow
def test_fetch_then_run_never_touches_the_network(tiny_mirror, guarded):
    run_from(tiny_mirror)
    assert guarded.read_text() == ""
    processes = guarded.with_name("attempts.guarded").read_text().splitlines()
    assert any("peftmark run" in line for line in processes)
    assert any("forkserver" in line for line in processes)


@pytest.mark.slow
@pytest.mark.real
def test_the_same_run_without_the_mirror_is_caught(tiny_mirror, guarded):
    done = subprocess.run(
        [*RUN[:5], "--profile", "quick"],
        cwd=tiny_mirror.parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "huggingface.co" in guarded.read_text()


def without_network():
    """Words that start a command in a network namespace of its own, with not even loopback up."""
    for words in (["unshare", "-n"], ["unshare", "-r", "-n"]):
        try:
            if subprocess.run([*words, "true"], capture_output=True).returncode == 0:
                return words
        except OSError:
            return None
    return None


@pytest.mark.real
@pytest.mark.slow
def test_a_run_in_an_empty_network_namespace(tiny_mirror):
    words = without_network()
    if words is None:
        pytest.skip("unshare can't make a network namespace here")
    names = subprocess.run(
        [*words, "cat", "/proc/net/dev"], capture_output=True, text=True, check=True
    ).stdout
    assert "eth" not in names
    run_from(tiny_mirror, *words)


def test_a_mirror_that_lacks_a_task_says_where_it_looked(tmp_path, catalog):
    fetch(tmp_path)
    suites = suite(tmp_path, tasks={"trec": {}, "sts-b": {}}, sources=["mirror"])
    plan = make_plan(
        Selection("demo", mirror=tmp_path / "m", suites=suites, results=tmp_path / "r")
    )
    with pytest.raises(AssetError, match="task sts-b is in none of the sources tried"):
        runner.fetch(plan)
