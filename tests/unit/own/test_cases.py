"""Twenty-nine files as people have them: each is read as it is, or refused with line and remedy."""

from __future__ import annotations

import pytest

from own_files import CLASSES, chat, labelled, lines, separated, tickets, write
from peftmark.core.errors import UserError
from peftmark.own import look
from peftmark.own.declared import OwnTask
from peftmark.own.read import read_own

CLASSED = {"kind": "classification", "text": "body", "label": "category"}
SCORED = {"kind": "regression", "text": "body", "label": "score"}
CHATS = {"kind": "instruction", "messages": "messages"}


def own(folder, file, **keys):
    return read_own("t", OwnTask(train=file, **keys), [folder], folder / "cache")


def refusal(folder, file, **keys):
    with pytest.raises(UserError) as told:
        own(folder, file, **keys)
    assert told.value.code == 2
    assert told.value.remedy
    assert file in told.value.what
    return f"{told.value.what} // {told.value.remedy}"


def as_json(change=lambda n, text, label: (text, label)):
    rows = (change(n, *row) for n, row in enumerate(tickets()))
    return lines({"body": text, "category": label} for text, label in rows)


def scores(missing=()):
    rows = [
        (text, "NaN" if n in missing else f"{n % 97}.5") for n, (text, _) in enumerate(tickets())
    ]
    return separated(("body", "score"), rows)


PLAIN = separated(("id", "body", "category"), [(n, *row) for n, row in enumerate(tickets())])
QUOTED = labelled(lambda n, text, label: (f'she said "{text}"\nand left, twice', label))
READ_ALIKE = {
    "plain.csv": PLAIN,
    "plain.csv.gz": PLAIN,
    "bom-crlf.csv": "\ufeff" + labelled().replace("\n", "\r\n"),
    "quotes-newlines.csv": QUOTED,
}


@pytest.mark.parametrize("name", READ_ALIKE)
def test_files_that_are_read_like_the_plain_one(tmp_path, name):
    write(tmp_path, name, READ_ALIKE[name])
    found = own(tmp_path, name, **CLASSED)
    assert found.task.labels == CLASSES
    assert (found.task.train_rows, found.task.eval_rows) == (192, 48)
    assert [sum(r.label == c for r in found.data.eval) for c in range(3)] == [16, 16, 16]
    assert found.task.metric == "accuracy"
    rows = {row.text: CLASSES[row.label] for row in (*found.data.train, *found.data.eval)}
    expected = dict(tickets())
    if name.startswith("quotes"):
        expected = {f'she said "{text}"\nand left, twice': c for text, c in expected.items()}
    assert rows == expected


def test_the_packed_file_and_the_plain_one_are_the_same_rows(tmp_path):
    prints = set()
    for name in ("plain.csv", "plain.csv.gz", "bom-crlf.csv"):
        write(tmp_path, name, READ_ALIKE[name])
        prints.add(own(tmp_path, name, **CLASSED).task.fingerprint)
    assert len(prints) == 1


def at_every(step, change):
    return labelled(lambda n, text, label: change(text, label) if n % step == 3 else (text, label))


RAGGED = labelled().splitlines()
RAGGED[18] += ",extra,extra"
BROKEN = as_json().splitlines()
BROKEN[100] = BROKEN[100][:25]
REFUSED = {
    "semicolon.csv": (
        separated(("body", "category"), tickets(), ";"),
        CLASSED,
        ("line 1", "one column found, 'body;category'", 'separator: ";"'),
    ),
    "latin1.csv": (
        labelled(lambda n, text, label: (f"{text} café", label)).encode("latin-1"),
        CLASSED,
        ("line 2", "byte 0xe9 is not UTF-8", "encoding: latin-1", "iconv"),
    ),
    "missing-labels.csv": (
        at_every(40, lambda text, label: (text, "")),
        CLASSED,
        ("lines 5, 45, 85, 125, 165, 205", "label is missing (6 of 240", "drop: [unlabelled]"),
    ),
    "empty-text.csv": (
        at_every(50, lambda text, label: ("  ", label)),
        CLASSED,
        ("lines 5, 55, 105, 155, 205", "a text is empty (5 of 240", "drop: [empty]"),
    ),
    "scores-nan.csv": (
        scores({2, 32}),
        SCORED,
        ("lines 4, 34", "label is missing (2 of 240", "drop: [unlabelled]"),
    ),
    "label-spelling.csv": (
        labelled(lambda n, text, label: (text, (label, label.upper(), f"{label} ")[n // 3 % 3])),
        CLASSED,
        ("'BUG', 'bug', 'bug '", "'refund '", "and 147 more: 'category'", "labels: [...]"),
    ),
    "one-class.csv": (
        labelled(lambda n, text, label: (text, "bug")),
        CLASSED,
        ("'category'", "one class only, 'bug'"),
    ),
    "label-is-id.csv": (
        labelled(lambda n, text, label: (text, f"case-{n}")),
        CLASSED,
        ("240 classes in 240 rows", "column of the classes"),
    ),
    "two-columns-one-name.csv": (
        separated(("body", "category", "category"), [(*row, row[1]) for row in tickets()]),
        CLASSED,
        ("line 1", "columns 2 and 3 are both named 'category'"),
    ),
    "ragged.csv": (
        "\n".join(RAGGED),
        CLASSED,
        ("line 19", "it has 4 fields, the header 2", "Quote"),
    ),
    "broken-line.jsonl": ("\n".join(BROKEN), CLASSED, ("line 101", "no JSON", "one JSON object")),
    "types-change.jsonl": (
        as_json(lambda n, text, label: (text, {"name": label} if n >= 120 else label)),
        CLASSED,
        ("line 121", "'category' is an object, and text in", "line 1"),
    ),
    "header-only.csv": ("body,category\n", CLASSED, ("there are no rows",)),
}


def test_control_characters_stay_in_texts_and_are_shown_nowhere(tmp_path):
    odd = "\0\x1b[31m\u202e"
    content = as_json(lambda n, text, label: (f"{text}{odd}" if n == 1 else text, label))
    write(tmp_path, "control.jsonl", content)
    found = own(tmp_path, "control.jsonl", **CLASSED)
    assert sum(row.text.endswith(odd) for row in (*found.data.train, *found.data.eval)) == 1
    assert all(line.isprintable() for line in (*look.lines(look.look(found, None)), *found.notes))


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused_with_line_and_remedy(tmp_path, name):
    content, keys, told = REFUSED[name]
    write(tmp_path, name, content)
    said = refusal(tmp_path, name, **keys)
    assert [part for part in told if part not in said] == []
    assert said.isprintable()


@pytest.mark.parametrize(
    ("name", "more", "dropped", "rows"),
    [
        (
            "missing-labels.csv",
            {"drop": ["unlabelled"]},
            ["6 training rows without a label left out"],
            234,
        ),
        (
            "empty-text.csv",
            {"drop": ["empty"]},
            ["5 training rows with an empty text left out"],
            235,
        ),
        (
            "scores-nan.csv",
            {"drop": ["unlabelled"]},
            ["2 training rows without a label left out"],
            238,
        ),
        ("semicolon.csv", {"separator": ";"}, [], 240),
        ("latin1.csv", {"encoding": "latin-1"}, [], 240),
    ],
)
def test_what_the_remedy_says_makes_them_readable(tmp_path, name, more, dropped, rows):
    content, keys, _ = REFUSED[name]
    write(tmp_path, name, content)
    found = own(tmp_path, name, **keys, **more)
    assert found.task.train_rows + found.task.eval_rows == rows
    assert [note for note in found.notes if "left out" in note] == dropped
    if name == "latin1.csv":
        assert all(row.text.endswith(" café") for row in found.data.train)


def test_the_other_reason_does_not_drop(tmp_path):
    write(tmp_path, "empty-text.csv", REFUSED["empty-text.csv"][0])
    assert "a text is empty" in refusal(tmp_path, "empty-text.csv", **CLASSED, drop=["unlabelled"])


def test_a_class_of_one_row_trains_and_is_warned_of(tmp_path):
    write(tmp_path, "f.csv", labelled(lambda n, t, c: (t, "other" if n == 7 else c)))
    found = own(tmp_path, "f.csv", **CLASSED)
    other = found.task.labels.index("other")
    assert [row.label for row in found.data.train].count(other) == 1
    assert any("'other': a single row" in note for note in found.notes)
    assert found.task.metric == "macro_f1"
    assert found.task.also == ("accuracy",)


def test_evaluation_rows_of_one_class_are_told(tmp_path):
    write(tmp_path, "a.csv", "text,label\n" + "\n".join(f"{i} a,{'xy'[i % 2]}" for i in range(20)))
    write(tmp_path, "b.csv", "text,label\n" + "\n".join(f"{i} b,x" for i in range(20)))
    found = own(tmp_path, "a.csv", kind="classification", text="text", label="label", eval="b.csv")
    assert any(note.startswith("every evaluation row has the same label") for note in found.notes)
    found = own(tmp_path, "a.csv", kind="classification", text="text", label="label", eval="a.csv")
    assert not any("the same label" in note for note in found.notes)


def test_copies_stay_on_one_side_and_are_told(tmp_path):
    write(tmp_path, "f.csv", separated(("body", "category"), tickets(60) * 4))
    found = own(tmp_path, "f.csv", **CLASSED)
    assert not {r.text for r in found.data.train} & {r.text for r in found.data.eval}
    assert found.task.eval_rows == 48
    assert any(note.startswith("144 training rows repeat") for note in found.notes)


def test_two_labels_of_a_text_bound_the_score(tmp_path):
    rows = [
        (t, c) for n, (t, _) in enumerate(tickets(60)) for c in ("bug", "refund" if n else "bug")
    ]
    write(tmp_path, "f.csv", separated(("body", "category"), rows))
    found = own(tmp_path, "f.csv", **CLASSED)
    (note,) = (note for note in found.notes if "more than one label" in note)
    assert note == (
        "59 texts have more than one label: the best accuracy possible on all rows is 50.8% "
        "(61 of 120)"
    )
    write(tmp_path, "f.csv", separated(("body", "category"), [*rows, (rows[5][0], "refund")]))
    assert any("51.2% (62 of 121)" in n for n in notes_of(tmp_path))


def notes_of(folder):
    return own(folder, "f.csv", **CLASSED).notes


def test_scores_are_kept_in_the_unit_of_the_file(tmp_path):
    write(tmp_path, "f.csv", scores())
    found = own(tmp_path, "f.csv", **SCORED)
    assert found.task.labels == ()
    assert (found.task.metric, found.task.also) == ("rmse", ("pearson", "spearmanr"))
    assert {row.label for row in (*found.data.train, *found.data.eval)} == {
        n + 0.5 for n in range(97)
    }


def test_labels_of_a_row_are_split_at_the_bar(tmp_path):
    rows = [(t, f"{c}|urgent" if n % 4 == 0 else c) for n, (t, c) in enumerate(tickets())]
    write(tmp_path, "f.csv", separated(("body", "tags"), rows))
    found = own(tmp_path, "f.csv", kind="multi-label", text="body", label="tags")
    assert found.task.labels == (*CLASSES, "urgent")
    tags = {row.text: row.tags for row in (*found.data.train, *found.data.eval)}
    assert tags[rows[0][0]] == (0, 3)
    assert tags[rows[1][0]] == (1,)
    assert found.task.metric == "micro_f1"


def test_two_texts_are_a_pair(tmp_path):
    rows = [(t, f"we see {n}", ("no", "yes")[n % 2]) for n, (t, _) in enumerate(tickets())]
    write(tmp_path, "f.csv", separated(("question", "answer", "ok"), rows))
    found = own(tmp_path, "f.csv", kind="classification", text=["question", "answer"], label="ok")
    assert found.task.labels == ("no", "yes")
    assert all(row.pair.startswith("we see ") for row in found.data.eval)
    assert "{pair}" in found.task.prompt


def test_labels_of_true_and_false_are_classes(tmp_path):
    write(tmp_path, "f.jsonl", as_json(lambda n, text, label: (text, label == "bug")))
    found = own(tmp_path, "f.jsonl", **CLASSED)
    assert found.task.labels == ("false", "true")
    assert sum(row.label for row in (*found.data.train, *found.data.eval)) == 80


def test_conversations_end_with_the_assistant(tmp_path):
    write(tmp_path, "f.jsonl", chat(last_user=9))
    found = own(tmp_path, "f.jsonl", **CHATS)
    rows = (*found.data.train, *found.data.eval)
    assert {len(row.turns) for row in rows} == {5}
    assert {row.turns[-1][0] for row in rows} == {"assistant"}
    assert {row.turns[0] for row in rows} == {("system", "You sort tickets.")}
    (note,) = (note for note in found.notes if "went on after" in note)
    assert note.startswith("1 training conversation ")
    assert "line 10" in note
    write(tmp_path, "g.jsonl", chat())
    whole = own(tmp_path, "g.jsonl", **CHATS)
    assert whole.task.fingerprint == found.task.fingerprint
    assert not any("went on after" in note for note in whole.notes)


def test_choices_have_the_right_ones_number(tmp_path):
    rows = [
        {"question": f"What is {t}?", "choices": ["refund", "bug", "praise"], "answer": n % 3}
        for n, (t, _) in enumerate(tickets())
    ]
    write(tmp_path, "f.jsonl", lines(rows))
    found = own(
        tmp_path,
        "f.jsonl",
        kind="multiple-choice",
        text="question",
        choices="choices",
        answer="answer",
    )
    assert {row.choices for row in found.data.train} == {("refund", "bug", "praise")}
    assert {r.text: r.label for r in found.data.eval}.items() <= {
        row["question"]: row["answer"] for row in rows
    }.items()
    assert found.task.metric == "accuracy"


def test_long_rows_are_told_by_a_look(tmp_path):
    from peftmark.own.look import look

    rows = [(t * 1500 if n % 20 == 0 else t, c) for n, (t, c) in enumerate(tickets())]
    write(tmp_path, "f.csv", separated(("body", "category"), rows))
    seen = look(own(tmp_path, "f.csv", **CLASSED), word_tokenizer(tmp_path), 64)
    assert seen.words.high > 6_000
    assert seen.words.median == 6
    assert seen.tokens.rows == 240
    assert seen.tokens.cut == pytest.approx(12 / 240)
    assert seen.tokens.max_length == 64


def word_tokenizer(folder):
    """A tokenizer that knows words by the spaces between them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = folder / "tokenizer.json"
    made.save(str(path))
    return path


@pytest.mark.parametrize("kind", ["classification", "multi-label"])
def test_a_label_too_long_for_a_report_is_refused_with_its_lines(tmp_path, kind):
    content = labelled(lambda n, text, label: (text, "y" * 100_000 if n == 3 else label))
    write(tmp_path, "t.csv", content)
    said = refusal(tmp_path, "t.csv", kind=kind, text="body", label="category")
    assert "t.csv, line 5: label 'yyy" in said
    assert "has 100,000 characters; the most are 80" in said
    assert len(said) < 300


def test_the_name_of_a_column_that_names_a_class_is_as_short(tmp_path):
    long = "y" * 81
    rows = [(text, n % 2, n % 3 == 0) for n, (text, _) in enumerate(tickets())]
    write(tmp_path, "t.csv", separated(("body", "a", long), rows))
    said = refusal(tmp_path, "t.csv", kind="multi-label", text="body", label=["a", long])
    assert "has more than 80 characters" in said
