"""Rows and fingerprints: every form of a task, and every way a file can be wrong."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hub_stub
from hub_stub import Repository, serve
from made_wheels import build_wheel
from peftmark.catalog.metrics import METRICS
from peftmark.catalog.origins import Package
from peftmark.catalog.task import Example, Task, expected_fingerprint
from peftmark.catalog.tasks import TASKS
from peftmark.catalog.tasks_causal import TEXTS as TEXT_TASKS
from peftmark.core.errors import AssetError
from peftmark.sources import task_data
from peftmark.sources.assets import Places, default_cache
from peftmark.sources.rows import TaskData, fingerprint, overlap
from peftmark.sources.task_data import load_task
from raw_rows import TEXTS, raw_rows, tiny, write_form


def places(mirror: Path, *sources: str) -> Places:
    return Places(mirror, sources or ("mirror",), mirror.parent / "cache")


# --- the table -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_is_described_in_full(task: Task) -> None:
    assert {task.metric, *task.also} <= set(METRICS)
    assert (task.kind == "classification") == bool(task.labels)
    assert (task.kind in ("classification", "regression")) == bool(task.label_field)
    assert (task.bounds is not None) == bool(task.kind == "regression" or task.cuts)
    assert task.train_rows >= task.eval_rows > 0
    made_here = {"sts-pairs", "movie", "trec", "dolly", "metamathqa"}
    made_here |= {one.key for one in TEXT_TASKS if one.package}
    assert bool(task.derived) == (task.key in made_here)
    assert len(task.fields) in {"instruction": (2, 3), "language": (1,)}.get(task.kind, (1, 2))
    assert task.hub or task.package
    hexadecimal = re.compile("[0-9a-f]+")
    pinned = [one.revision for one in (task.hub, task.evaluated) if one]
    for revision in pinned:
        assert hexadecimal.fullmatch(revision)
        assert len(revision) == 40
    if task.package:
        for digest in (task.package.sha256, *(d for _, d in task.package.files)):
            assert hexadecimal.fullmatch(digest)
            assert len(digest) == 64
    assert task.mirror
    if task.fingerprint is None:
        assert expected_fingerprint(task) == f"revision:{'+'.join(pinned)}"
    else:
        assert hexadecimal.fullmatch(task.fingerprint)
        assert len(task.fingerprint) == 64
        assert expected_fingerprint(task) == task.fingerprint


# --- forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_form_gives_the_same_rows(task: Task, tmp_path: Path) -> None:
    train, evaluation = raw_rows(task, TEXTS), raw_rows(task, TEXTS[4:])
    names = {"tsv": "dev", "parquet": "validation", "jsonl": "eval"}
    if task.key.startswith("mnli"):
        which = "mismatched" if task.key.endswith("mismatched") else "matched"
        names |= {"tsv": f"dev_{which}", "parquet": f"validation_{which}-00000-of-00001"}
    small = tiny(task, 6 if task.cuts else 8, 3 if task.cuts else 4)
    prints = set()
    for form, name in names.items():
        folder = tmp_path / form / (task.mirror[0] if form == "tsv" else task.mirror[-1].lower())
        write_form(folder / f"train.{form}", task, train)
        write_form(folder / f"{name}.{form}", task, evaluation)
        data = load_task(small, places(tmp_path / form))
        prints.add(data.fingerprint)
        assert data.source == f"mirror: {folder.name}/train.{form}, {folder.name}/{name}.{form}"
        if not task.cuts:
            labels = [row[-1] if task.label_field else 0 for row in train]
            # What an instruction is about is part of its text.
            shown = [row[0] if len(task.fields) < 3 else "\n\n".join(row[:2]) for row in train]
            assert [r.text for r in data.train] == shown
            assert [r.label for r in data.train] == labels
            assert all((r.pair is None) == (len(task.fields) == 1) for r in data.train)
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("key", "names", "read"),
    [
        ("gsm8k", ["dev", "validation", "test"], "test"),
        ("gsm8k", ["eval", "dev"], "dev"),
        ("wikitext-2", ["validation", "test-00000-of-00001"], "test-00000-of-00001"),
        ("dolly", ["test", "validation"], "validation"),
        ("mnli", ["dev", "validation_matched"], "validation_matched"),
        ("mnli", ["dev", "dev_mismatched"], "dev"),
        ("mnli-mismatched", ["dev_matched", "dev_mismatched"], "dev_mismatched"),
        (
            "mnli-mismatched",
            ["validation_matched", "validation_mismatched-00000-of-00001"],
            "validation_mismatched-00000-of-00001",
        ),
        ("imdb", ["validation", "test-00000-of-00001"], "test-00000-of-00001"),
        ("rte", ["test", "eval", "validation"], "validation"),
        ("chatterbot", ["test", "dev"], "dev"),
    ],
)
def test_which_file_of_a_mirror_is_evaluated_on(
    key: str, names: list[str], read: str, tmp_path: Path
) -> None:
    task = TASKS[key]
    folder = tmp_path / "m" / task.mirror[0]
    for name in ("train", *names):
        write_form(folder / f"{name}.parquet", task, raw_rows(task, TEXTS[:1]))
    data = load_task(tiny(task, 1, 1), places(tmp_path / "m"))
    name = folder.name
    assert data.source == f"mirror: {name}/train.parquet, {name}/{read}.parquet"


def test_a_task_without_its_evaluation_file_says_which_names_it_may_have(tmp_path: Path) -> None:
    task = TASKS["gsm8k"]
    write_form(tmp_path / "m" / "gsm8k" / "train.jsonl", task, raw_rows(task, TEXTS[:1]))
    with pytest.raises(AssetError, match="has no test or dev or validation or eval as tsv, "):
        load_task(task, places(tmp_path / "m"))


def test_names_bom_and_windows_line_ends(tmp_path: Path) -> None:
    lines = "\ufeffindex\tsentence1\tsentence2\tlabel\r\n0\t a \tb\tnot_entailment\r\n"
    for split in ("train", "dev"):
        path = tmp_path / "m" / "glue" / "rte" / f"{split}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lines.encode())
    data = load_task(tiny(TASKS["rte"], 1, 1), places(tmp_path / "m"))
    assert data.train == (Example("a", "b", 1),)
    assert overlap(data) == 1


def test_cola_with_a_header_line(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        path = tmp_path / "m" / "cola" / f"{split}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("sentence\tlabel\nFine.\tacceptable\n")
    data = load_task(tiny(TASKS["cola"], 1, 1), places(tmp_path / "m"))
    assert data.eval == (Example("Fine.", None, 1),)


def test_short_rows_of_qqp_are_left_out_as_on_the_hub(tmp_path: Path) -> None:
    text = "id\tquestion1\tquestion2\tis_duplicate\n1\ta\t\t0\n2\tbroken\n3\tc\td\t1\n"
    for split in ("train", "dev"):
        path = tmp_path / "m" / "QQP" / f"{split}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    data = load_task(tiny(TASKS["qqp"], 2, 2), places(tmp_path / "m"))
    assert data.train == (Example("a", "", 0), Example("c", "d", 1))


def test_derived_pairs(tmp_path: Path) -> None:
    task = TASKS["sts-pairs"]
    rows = [("a", "b", s) for s in (2.0, 2.001, 3.999, 4.0)]
    write_form(tmp_path / "m" / "STS-B" / "train.tsv", task, rows)
    write_form(tmp_path / "m" / "STS-B" / "dev.tsv", task, rows)
    data = load_task(tiny(task, 2, 2), places(tmp_path / "m"))
    assert [row.label for row in data.train] == [0, 1]


def test_the_fingerprint_knows_order_split_and_label() -> None:
    a, b = Example("a", None, 0), Example("b", None, 1)
    prints = [
        fingerprint([a, b], [a]),
        fingerprint([b, a], [a]),
        fingerprint([a], [b, a]),
        fingerprint([a, replace(b, label=0)], [a]),
        fingerprint([a, replace(b, pair="")], [a]),
        fingerprint([replace(a, label=0.0), b], [a]),
    ]
    assert len(set(prints)) == len(prints)


def test_overlap_counts_evaluation_rows() -> None:
    row = Example("a", "b", 0)
    data = TaskData((row, Example("c", None, 1)), (row, row, Example("a", None, 0)), "", "")
    assert overlap(data) == 2


# --- malformed -------------------------------------------------------------------------------

HEAD = b"index\tsentence1\tsentence2\tlabel\n"
GOOD = HEAD + b"0\ta\tb\tentailment\n"
MALFORMED_TSV = {
    "empty file": (b"", "train.tsv: the file is empty"),
    "no rows": (HEAD, "train.tsv: the file has no rows"),
    "too few columns": (GOOD + b"1\ta\tentailment\n", "line 3: 3 columns"),
    "too many columns": (GOOD + b"1\ta\tb\tc\tentailment\n", "line 3: 5 columns"),
    "blank line": (GOOD + b"\n" + b"1\ta\tb\tentailment\n", "line 3: a blank line"),
    "label": (GOOD + b"1\ta\tb\tmaybe\n", "line 3: label is 'maybe'"),
    "label number": (GOOD + b"1\ta\tb\t2\n", "line 3: label is '2'"),
    "no label": (GOOD + b"1\ta\tb\t\n", "line 3: label is ''"),
    "empty text": (GOOD + b"1\t \tb\tentailment\n", "line 3: a text is empty"),
    "not UTF-8": (GOOD + b"1\t\xff\tb\tentailment\n", "line 3: byte 0xff is not UTF-8"),
    "NUL": (GOOD + b"1\ta\0\tb\tentailment\n", "line 3: a NUL character"),
    "a column twice": (
        b"index\tsentence1\tsentence2\tlabel\tlabel\n1\ta\tb\tentailment\tentailment\n",
        "line 1: two columns are named 'label'",
    ),
    "columns": (b"text\tlabel\na\t0\n", "line 1: columns are 'text', 'label'"),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED_TSV.values(), ids=MALFORMED_TSV)
def test_malformed_tsv(content: bytes, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "m" / "RTE"
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_bytes(content)
    (folder / "dev.tsv").write_bytes(GOOD)
    with pytest.raises(AssetError) as caught:
        load_task(tiny(TASKS["rte"], 1, 1), places(tmp_path / "m", "mirror", "hub"))
    assert str(folder / "train.tsv") in caught.value.what
    assert message in caught.value.what
    assert caught.value.remedy.startswith("Expected ")


MALFORMED_JSON = {
    "not JSON": ('{"sentence": ', "line 1: not JSON"),
    "a key twice": ('{"sentence": "a", "sentence": "b", "label": 1}', "line 1: not JSON (the key"),
    "nothing to see": ('{"sentence": "\\u200b\\u2800", "label": 1}', "line 1: a text is empty"),
    "spaced number": ('{"sentence": "a", "label": " 1"}', "line 1: label is ' 1'"),
    "digit of another script": ('{"sentence": "a", "label": "\u0661"}', "line 1: label is"),
    "not an object": ("[1]", "line 1: found [1]"),
    "no label": ('{"sentence": "a"}', "line 1: columns are 'sentence'"),
    "no text": ('{"sentence": null, "label": 1}', "line 1: text is None"),
    "null label": ('{"sentence": "a", "label": null}', "line 1: label is None"),
    "true": ('{"sentence": "a", "label": true}', "line 1: label is True"),
    "unlabelled": ('{"sentence": "a", "label": -1}', "line 1: label is -1"),
    "list": ('{"sentence": "a", "label": [1]}', "line 1: label is [1]"),
    "huge": ('{"sentence": "a", "label": ' + "9" * 400 + "}", "line 1: label is 999"),
    "deep": ("[" * 100_000, "line 1: not JSON"),
    "fraction": ('{"sentence": "a", "label": 0.5}', "line 1: label is 0.5"),
    "surrogate": ('{"sentence": "\\ud800", "label": 1}', "line 1: text is"),
    "NUL": ('{"sentence": "\\u0000", "label": 1}', "line 1: text is"),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED_JSON.values(), ids=MALFORMED_JSON)
def test_malformed_jsonl(content: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "m" / "sst2"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(content + "\n")
    (folder / "dev.jsonl").write_text('{"sentence": "a", "label": 1}\n')
    with pytest.raises(AssetError) as caught:
        load_task(tiny(TASKS["sst-2"], 1, 1), places(tmp_path / "m"))
    assert message in caught.value.what


@pytest.mark.parametrize(
    "score", ["5.1", "-0.1", "nan", "inf", "high", "", " 3", "0_3", "\u0663", "0x3"]
)
def test_scores_that_are_none(score: str, tmp_path: Path) -> None:
    task = TASKS["sts-b"]
    write_form(tmp_path / "m" / "sts-b" / "train.tsv", task, [("a", "b", score)])
    write_form(tmp_path / "m" / "sts-b" / "dev.tsv", task, [("a", "b", 1.0)])
    with pytest.raises(AssetError, match=r"line 2: score is .*\nExpected a number from 0.0 to 5.0"):
        load_task(tiny(task, 1, 1), places(tmp_path / "m"))


def test_missing_values_in_parquet(tmp_path: Path) -> None:
    task, folder = TASKS["sst-2"], tmp_path / "m" / "sst-2"
    write_form(folder / "dev.parquet", task, [("a", 1)])
    for text, label, message in ((None, 1, "line 2: text is"), ("b", None, "line 2: label is nan")):
        write_form(folder / "train.parquet", task, [("null", 0), (text, label)])
        with pytest.raises(AssetError, match=message):
            load_task(tiny(task, 2, 1), places(tmp_path / "m"))


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "sst-2"
    folder.mkdir(parents=True)
    for split in ("train", "dev"):
        (folder / f"{split}.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(AssetError, match=r"train\.parquet: not readable as Parquet"):
        load_task(tiny(TASKS["sst-2"], 1, 1), places(tmp_path / "m"))


def test_rows_that_are_not_the_known_ones(tmp_path: Path) -> None:
    task = TASKS["rte"]
    rows = raw_rows(task, TEXTS)
    write_form(tmp_path / "m" / "RTE" / "train.tsv", task, rows)
    write_form(tmp_path / "m" / "RTE" / "dev.tsv", task, rows)
    with pytest.raises(AssetError) as caught:
        load_task(task, places(tmp_path / "m", "mirror", "hub"))
    assert "RTE/train.tsv, RTE/dev.tsv" in caught.value.what
    assert f"expected {task.fingerprint} (8 + 8 rows found, 2490 + 277 expected)" in str(
        caught.value
    )
    assert str(tmp_path / "m" / "RTE") in caught.value.remedy
    unseen = replace(task, fingerprint=None)
    with pytest.raises(AssetError, match=r"8 \+ 8 rows found"):
        load_task(unseen, places(tmp_path / "m"))


def test_a_mirror_without_the_task_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "m" / "RTE").mkdir(parents=True)
    with pytest.raises(AssetError, match=r"no folder SST-2 or sst2 in .*m or its folder glue"):
        load_task(TASKS["sst-2"], places(tmp_path / "m", "mirror", "package"))
    with pytest.raises(AssetError, match="has no train as tsv, parquet, jsonl"):
        load_task(TASKS["rte"], places(tmp_path / "m"))


# --- tasks without labels --------------------------------------------------------------------

INSTRUCTION = replace(
    tiny(TASKS["chatterbot"], 3, 3), fields=("instruction", "context", "answer"), mirror=("told",)
)
TOLD = [("Add.", "1 and 2", "3"), ("Say hello.", "", "Hello."), ("a", " b\nc ", " d ")]


@pytest.mark.parametrize("form", ["tsv", "parquet", "jsonl"])
def test_an_instruction_and_what_it_is_about_are_one_text(form: str, tmp_path: Path) -> None:
    told = TOLD if form != "tsv" else [*TOLD[:2], ("a", " b c ", " d ")]
    for split in ("train", "dev"):
        write_form(tmp_path / "m" / "told" / f"{split}.{form}", INSTRUCTION, told)
    data = load_task(INSTRUCTION, places(tmp_path / "m"))
    assert data.train[:2] == (
        Example("Add.\n\n1 and 2", "3", 0),
        Example("Say hello.", "Hello.", 0),
    )
    assert data.train[2] == Example(f"a\n\n{told[2][1].strip()}", "d", 0)


@pytest.mark.parametrize("row", [("", "1", "3"), ("Add.", "1", " ")])
def test_an_instruction_or_an_answer_is_never_empty(row: tuple[str, ...], tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write_form(tmp_path / "m" / "told" / f"{split}.jsonl", INSTRUCTION, [row])
    with pytest.raises(AssetError, match=r"line 1: a text is empty"):
        load_task(INSTRUCTION, places(tmp_path / "m"))


@pytest.mark.parametrize(
    ("key", "names"), [("chatterbot", ["question", "label"]), ("reviews", ["sentence", "label"])]
)
def test_columns_that_a_task_without_labels_lacks(
    key: str, names: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "m" / key
    folder.mkdir(parents=True)
    for split in ("train", "dev"):
        (folder / f"{split}.jsonl").write_text(json.dumps(dict.fromkeys(names, "x")) + "\n")
    with pytest.raises(AssetError) as caught:
        load_task(tiny(TASKS[key], 1, 1), places(tmp_path / "m"))
    assert f"columns are '{names[0]}', 'label'" in caught.value.what
    assert caught.value.remedy == (
        f"Expected columns {', '.join(TASKS[key].fields)}. Fix or replace the file."
    )


def test_a_label_that_a_task_does_not_have_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "reviews"
    folder.mkdir(parents=True)
    for split in ("train", "dev"):
        (folder / f"{split}.jsonl").write_text('{"label": "anything", "text": "a passage"}\n')
    data = load_task(tiny(TASKS["reviews"], 1, 1), places(tmp_path / "m"))
    assert data.eval == (Example("a passage", None, 0),)


# --- packages --------------------------------------------------------------------------------


def packaged(task: Task, package: Package, train: int, evaluation: int) -> Task:
    return replace(tiny(task, train, evaluation), package=package)


@pytest.mark.heavy
def test_stsb_from_a_package_equals_glue(tmp_path: Path, index: Path) -> None:
    lines = ["g\tf\ty\t0\t3.800\tA plane.\tA jet.", "g\tf\ty\t1\t0.000\tx\ty\tlicence\tsource"]
    text = "".join(line + "\n" for line in lines).encode()
    package = build_wheel(index, "tiny-sts", {"sts-train.csv": text, "sts-dev.csv": text})
    task = packaged(TASKS["sts-b"], package, 2, 2)
    data = load_task(task, Places(None, ("package",), tmp_path / "cache"))
    rows = [("A plane.", "A jet.", 3.8), ("x", "y", 0.0)]
    write_form(tmp_path / "m" / "STS-B" / "train.tsv", task, rows)
    write_form(tmp_path / "m" / "STS-B" / "dev.tsv", task, rows)
    assert data.fingerprint == load_task(task, places(tmp_path / "m")).fingerprint
    assert data.source == "package: tiny-sts 1.0"


@pytest.mark.heavy
def test_movie_drops_unclear_ratings_and_repeats(tmp_path: Path, index: Path) -> None:
    rows = [f"{i}\t{2 - i % 2 * 4}\tfilm {i}" for i in range(60)]
    rows += ["90\t0.5\tmeh", "91\t-0.5\tmeh too", "92\t1.5\tFilm  0", "93\t-3\tfilm 2"]
    text = "\r\n".join(["id\tsentiment\ttext", *rows, ""]).encode()
    package = build_wheel(index, "tiny-film", {"movieReviewSnippets_GroundTruth.txt": text})
    with pytest.raises(AssetError) as caught:
        load_task(
            packaged(TASKS["movie"], package, 0, 0),
            Places(None, ("package",), tmp_path / "cache"),
        )
    # film 2 has both labels and goes; meh is unclear; "Film  0" repeats film 0.
    counts = re.search(r"(\d+) \+ (\d+) rows found", caught.value.what)
    assert counts
    train, evaluation = map(int, counts.groups())
    assert train + evaluation == 59
    task = packaged(TASKS["movie"], package, train, evaluation)
    data = load_task(task, Places(None, ("package",), tmp_path / "cache"))
    assert 1 <= evaluation <= 15
    assert overlap(data) == 0
    assert {r.text for r in (*data.train, *data.eval)} == {f"film {i}" for i in range(60) if i != 2}


@pytest.mark.heavy
def test_trec_drops_repeats(tmp_path: Path, index: Path) -> None:
    lines = [f"HUM:ind Who is {i} ?" for i in range(40)] * 3 + ["LOC:city Où ?", "NUM:x Who is 1 ?"]
    text = ("\n".join(lines) + "\n").encode("latin-1")
    package = build_wheel(index, "tiny-trec", {"question_labels.txt": text})
    for train in range(41):
        task = packaged(TASKS["trec"], package, train, 40 - train)
        try:
            data = load_task(task, Places(None, ("package",), tmp_path / "cache"))
        except AssetError:
            continue
        break
    assert overlap(data) == 0
    assert {r.text for r in (*data.train, *data.eval) if r.label == 4} == {"Où ?"}
    assert not any(r.text == "Who is 1 ?" for r in (*data.train, *data.eval))


@pytest.mark.real
@pytest.mark.parametrize("key", ["sts-b", "sts-pairs"])
def test_the_real_package_is_the_known_task(key: str, tmp_path: Path) -> None:
    task = TASKS[key]
    package = task.package
    assert package
    cached = default_cache()
    if not (cached / "packages" / f"{package.name}-{package.version}").is_dir():
        cached = tmp_path
    try:
        data = load_task(task, Places(None, ("package",), cached))
    except AssetError as error:
        if "is in none of the sources" not in error.what:
            raise
        pytest.skip(f"the package can't be fetched: {error.what}")
    assert data.fingerprint == expected_fingerprint(task)


# --- the hub ---------------------------------------------------------------------------------

CARD = b"""---
configs:
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
  - split: validation
    path: sst2/validation-*
- config_name: stsb
  data_files:
  - split: train
    path: stsb/train-*
  - split: validation
    path: stsb/validation-*
---
"""
ROWS = [("null", "NA", 3.8), ('say "so" ', "é", 1.333)]
CLEAN = [Example("null", "NA", 3.8), Example('say "so"', "é", 1.333)]
NAMES = ("stsb/train-00000-of-00001.parquet", "stsb/validation-00000-of-00001.parquet")


def dataset() -> Repository:
    frame = pd.DataFrame(ROWS, columns=["sentence1", "sentence2", "label"])
    frame["label"] = frame["label"].astype("float32")
    buffers = (io.BytesIO(), io.BytesIO())
    frame.to_parquet(buffers[0])
    frame[:1].to_parquet(buffers[1])
    files = {name: buffer.getvalue() for name, buffer in zip(NAMES, buffers, strict=True)}
    others = {name.replace("stsb", "sst2"): data for name, data in files.items()}
    return Repository("dataset", "tiny/glue", {"README.md": CARD, **files, **others})


def call(url: str, home: Path, **more: object) -> dict[str, Any]:
    return hub_stub.call(url, home, "task", task="sts-b", train_rows=2, eval_rows=1, **more)


@pytest.mark.slow
@pytest.mark.heavy
def test_task_from_the_hub(tmp_path: Path) -> None:
    known = fingerprint(CLEAN, CLEAN[:1])
    with serve(dataset()) as hub:
        got = call(hub.url, tmp_path, fingerprint=known)
        assert got["source"] == "hub: tiny/glue stsb at 0123456789ab"
        assert got["fingerprint"] == known
        assert got["train"] == [["null", "NA", 3.8], ['say "so"', "é", 1.333]]
    # From here the hub is gone: the pinned copy serves.
    assert call(hub.url, tmp_path, fingerprint=known) == got
    copy = next((tmp_path / "cache").rglob("train.parquet"))
    copy.write_bytes(b"damaged")
    gone = call(hub.url, tmp_path, fingerprint=known)["error"]
    assert "can't be reached" in gone
    assert "the copy in the cache is damaged" in gone
    with serve(dataset()) as hub:
        assert call(hub.url, tmp_path, fingerprint=known) == got


def splits_of(key: str, *parts: str) -> Repository:
    """A data set with a split of one row for each name, of a task's columns on the hub."""
    task = TASKS[key]
    assert task.hub
    columns = [*(task.hub_fields or task.fields), "label"]
    files, lines = {}, []
    for label, part in enumerate(parts):
        held = io.BytesIO()
        row = [f"{part} {at}" for at in range(len(columns) - 1)]
        pd.DataFrame([[*row, label % 2]], columns=columns).to_parquet(held)
        files[f"{part}-00000-of-00001.parquet"] = held.getvalue()
        lines += [f"  - split: {part}", f"    path: {part}-*"]
    head = ["---", "configs:", f"- config_name: {task.hub.config or 'plain_text'}"]
    card = "\n".join([*head, "  data_files:", *lines, "---", ""])
    return Repository("dataset", "tiny/glue", {"README.md": card.encode(), **files})


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.parametrize(
    ("key", "read", "left"),
    [
        ("mnli", "validation_matched", "validation_mismatched"),
        pytest.param(
            "mnli-mismatched",
            "validation_mismatched",
            "validation_matched",
            marks=pytest.mark.slow,
        ),
        pytest.param("imdb", "test", "unsupervised", marks=pytest.mark.slow),
    ],
)
def test_the_split_of_the_hub_that_a_task_is_evaluated_on(
    key: str, read: str, left: str, tmp_path: Path
) -> None:
    counts = {"train_rows": 1, "eval_rows": 1, "fingerprint": None}
    with serve(splits_of(key, "train", left, read)) as hub:
        got = hub_stub.call(hub.url, tmp_path, "task", task=key, **counts)
    count = len(TASKS[key].fields)
    texts = [f"{read} {at}" for at in range(count)]
    assert got["eval"] == [[*texts, *[None] * (2 - count), 0]]
    assert got["train"][0][0] == "train 0"


def test_rows_to_train_on_and_rows_to_evaluate_on_of_two_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(
        repository: str, revision: str, config: str | None, files: dict[Path, str], cache: Path
    ) -> None:
        for file, split in files.items():
            asked.append((repository, revision[:4], config, split))
            of_train = repository == "meta-math/MetaMathQA"
            names = ("query", "response") if of_train else ("question", "answer")
            file.parent.mkdir(parents=True, exist_ok=True)
            row = pd.DataFrame([[f"{split}?", "#### 4"]], columns=names)
            row.to_parquet(file)

    monkeypatch.setattr(task_data, "fetch_splits", fetch)
    task = tiny(TASKS["metamathqa"], 1, 1)
    data = load_task(task, places(tmp_path, "hub"))
    assert asked == [
        ("meta-math/MetaMathQA", "aa4f", None, "train[:20000]"),
        ("openai/gsm8k", "7403", "main", "test"),
    ]
    assert [row.text for row in (*data.train, *data.eval)] == ["train[:20000]?", "test?"]
    assert "MetaMathQA" in data.source and " and hub: openai/gsm8k main at 7403" in data.source
    folder = tmp_path / "m" / "MetaMathQA"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"query": "a", "response": "The answer is: 4"}\n')
    (folder / "test.jsonl").write_text('{"question": "b", "answer": "#### 4"}\n')
    data = load_task(task, places(tmp_path / "m"))
    assert (data.train[0].pair, data.eval[0].text) == ("The answer is: 4", "b")


@pytest.mark.parametrize(
    "text",
    ["so 3.\n#### 1,234", "The answer is: 1,234", "the answer is $1,234", "The answer is 1,234."],
)
def test_what_counts_of_an_answer_in_the_words_of_either_data_set(text: str) -> None:
    assert re.findall(TASKS["metamathqa"].answer, text) == ["1,234"]


@pytest.mark.slow
@pytest.mark.heavy
def test_hub_rows_that_are_not_the_known_ones(tmp_path: Path) -> None:
    with serve(dataset()) as hub:
        got = call(hub.url, tmp_path, fingerprint="0" * 64)
    assert f"fingerprint is {fingerprint(CLEAN, CLEAN[:1])}, expected {'0' * 64}" in got["error"]


@pytest.mark.slow
@pytest.mark.heavy
def test_a_dataset_revision_the_hub_does_not_have(tmp_path: Path) -> None:
    with serve(dataset()) as hub:
        got = call(hub.url, tmp_path, revision="f" * 40)
    assert got["error"].endswith(f"hub: tiny/glue has no revision {'f' * 40}")


@pytest.mark.slow
@pytest.mark.heavy
def test_a_dataset_file_that_comes_short(tmp_path: Path) -> None:
    short = dataset()
    short.truncated.add(NAMES[0])
    with serve(short) as hub:
        got = call(hub.url, tmp_path)
    assert "Consistency check failed" in got["error"]
    assert not list((tmp_path / "cache").rglob("*.parquet"))


@pytest.mark.heavy
def test_offline_mode_asks_nobody(tmp_path: Path) -> None:
    with serve(dataset()) as hub:
        got = call(hub.url, tmp_path, env={"HF_HUB_OFFLINE": "1"})
        assert hub.requests == []
    assert "offline mode is on" in got["error"]
