"""Kinds of files beyond the usual ones: read as they are, or refused with place and remedy."""

from __future__ import annotations

import bz2
import json
import lzma

import pandas as pd
import pytest

from own_files import CLASSES, labelled, lines, separated, tickets, write
from peftmark.core.errors import UserError
from peftmark.own.declared import OwnTask
from peftmark.own.read import read_own

CLASSED = {"kind": "classification", "text": "body", "label": "category"}
SCORED = CLASSED | {"kind": "regression"}
TAGGED = CLASSED | {"kind": "multi-label"}
CHOSEN = {"kind": "multiple-choice", "text": "q", "choices": "c", "answer": "a"}
CHATS = {"kind": "instruction", "messages": "m"}
ROWS = tickets(60)


def own(folder, file, **keys):
    return read_own("t", OwnTask(train=file, **keys), [folder], folder / "cache")


def both(found):
    return (*found.data.train, *found.data.eval)


def objects(**columns):
    """Sixty rows as JSON lines; a column is a value for all, or a function of the row's number."""
    return lines(
        {name: make(n) if callable(make) else make for name, make in columns.items()}
        for n in range(len(ROWS))
    )


def body(n):
    return ROWS[n][0]


def category(n):
    return ROWS[n][1]


def at(row, odd, usual):
    """A column whose value is odd in one row."""
    return lambda n: odd if n == row else usual(n) if callable(usual) else usual


def turns(*roles):
    return [{"role": role, "content": "said"} for role in roles]


def frame():
    return pd.DataFrame(ROWS, columns=["body", "category"])


# --- read ---------------------------------------------------------------------------------------


def packed(pack):
    return pack(labelled().encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("f.tsv", separated(("body", "category"), ROWS, "\t")),
        ("f.csv.bz2", bz2.compress(separated(("body", "category"), ROWS).encode())),
        ("f.csv.xz", lzma.compress(separated(("body", "category"), ROWS).encode())),
        ("f.jsonl.gz", objects(body=body, category=category)),
        ("f.ndjson", objects(body=body, category=category)),
        ("blank.jsonl", objects(body=body, category=category).replace("\n", "\n\n \n")),
        ("f.json", json.dumps([{"body": t, "category": c} for t, c in ROWS], indent=1)),
        ("cr.csv", separated(("body", "category"), ROWS, end="\r")),
        ("nofinal.csv", separated(("body", "category"), ROWS).rstrip("\n")),
        ("gaps.csv", separated(("body", "category"), ROWS).replace("\n", "\n\n")),
        ("UPPER.CSV", separated(("body", "category"), ROWS)),
        ("spaced.csv", separated((" body ", "category "), ROWS)),
        ("index.csv", separated(("", "body", "category"), [(n, *r) for n, r in enumerate(ROWS)])),
        ("padded.csv", separated(("body", "category"), [(t, f" {c}") for t, c in ROWS])),
        ("more.jsonl", objects(body=body, category=category, n=at(3, "x", 1), o=at(4, {}, [1]))),
    ],
)
def test_forms_of_text_files(tmp_path, name, content):
    write(tmp_path, name, content)
    found = own(tmp_path, name, **CLASSED)
    assert {row.text: CLASSES[row.label] for row in both(found)} == dict(ROWS)
    assert found.task.labels == CLASSES


@pytest.mark.parametrize("form", ["parquet", "arrow", "feather"])
def test_columnar_files(tmp_path, form):
    path = tmp_path / f"f.{form}"
    frame().to_parquet(path) if form == "parquet" else frame().to_feather(path)
    found = own(tmp_path, path.name, **CLASSED)
    assert {row.text: CLASSES[row.label] for row in both(found)} == dict(ROWS)


def test_columnar_files_keep_numbers_missing_values_and_lists(tmp_path):
    numbers = [n % 2 if n else None for n in range(60)]
    tags = [["a", "b"] if n % 2 else ["a"] for n in range(60)]
    made = frame().assign(number=numbers, tags=tags, kind=pd.Categorical([c for _, c in ROWS]))
    made.to_parquet(tmp_path / "f.parquet")
    keys = CLASSED | {"label": "number"}
    found = own(tmp_path, "f.parquet", **keys, drop="unlabelled")
    assert found.task.labels == ("0", "1")
    assert any("1 training row without a label left out" in note for note in found.notes)
    with pytest.raises(UserError, match="row 1: the label is missing"):
        own(tmp_path, "f.parquet", **keys)
    assert own(tmp_path, "f.parquet", **TAGGED | {"label": "tags"}).task.labels == ("a", "b")
    assert own(tmp_path, "f.parquet", **CLASSED | {"label": "kind"}).task.labels == CLASSES


@pytest.fixture
def saved(tmp_path):
    """A folder that `datasets` saved, with two splits and class labels by number."""
    import datasets

    features = datasets.Features(
        {"body": datasets.Value("string"), "category": datasets.ClassLabel(names=list(CLASSES))}
    )
    rows = {"body": [t for t, _ in ROWS], "category": [CLASSES.index(c) for _, c in ROWS]}
    rows["category"][5] = -1
    made = datasets.Dataset.from_dict(rows, features=features)
    parts = {"train": made.select(range(40)), "test": made.select(range(40, 60))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "splits"))
    made.select(range(40)).save_to_disk(str(tmp_path / "one"))
    return tmp_path


def test_a_folder_that_datasets_saved(saved):
    keys = CLASSED | {"drop": "unlabelled"}
    found = own(saved, "splits", **keys, eval_split="test")
    assert found.task.labels == CLASSES
    assert (found.task.train_rows, found.task.eval_rows) == (39, 20)
    assert {row.text: CLASSES[row.label] for row in found.data.eval} == dict(ROWS[40:])
    one = own(saved, "one", **keys)
    assert one.task.train_rows + one.task.eval_rows == 39
    stream = next((saved / "one").glob("*.arrow")).relative_to(saved)
    assert own(saved, str(stream), **keys).task.fingerprint == one.task.fingerprint


def test_a_saved_folder_without_such_a_split(saved):
    with pytest.raises(UserError, match=r"no split 'dev'") as told:
        own(saved, "splits", **CLASSED, eval_split="dev")
    assert "'train', 'test'" in told.value.remedy
    with pytest.raises(UserError, match="one set of rows and no splits"):
        own(saved, "one", **CLASSED, eval_split="test")


def test_several_files_are_one_table_and_lines_name_theirs(tmp_path):
    write(tmp_path, "a.csv", separated(("body", "category"), ROWS[:30]))
    write(tmp_path, "b.jsonl", lines({"category": c, "body": t} for t, c in ROWS[30:]))
    found = own(tmp_path, ["a.csv", "b.jsonl"], **CLASSED)
    assert len(both(found)) == 60
    write(tmp_path, "c.csv", separated(("body", "category"), [*ROWS[30:40], ("more", "")]))
    write(tmp_path, "a.csv", separated(("body", "category"), [*ROWS[:30], ("", "bug")]))
    with pytest.raises(UserError, match=r"a\.csv, line 32: a text is empty"):
        own(tmp_path, ["a.csv", "c.csv"], **CLASSED)
    with pytest.raises(UserError, match=r"c\.csv, line 12: the label is missing \(1 of 42 rows\)"):
        own(tmp_path, ["a.csv", "c.csv"], **CLASSED, drop=["empty"])
    write(tmp_path, "d.csv", separated(("body", "label"), ROWS[30:]))
    with pytest.raises(UserError, match=r"only \S*a\.csv has 'category'"):
        own(tmp_path, ["a.csv", "d.csv"], **CLASSED)


@pytest.mark.parametrize("again", ["a.csv", "./a.csv", "linked.csv"])
def test_a_file_named_twice_is_refused(tmp_path, again):
    write(tmp_path, "a.csv", separated(("body", "category"), ROWS[:30]))
    write(tmp_path, "b.csv", separated(("body", "category"), ROWS[30:]))
    (tmp_path / "linked.csv").symlink_to("a.csv")
    with pytest.raises(UserError, match="this file is named twice"):
        own(tmp_path, ["a.csv", "b.csv", again], **CLASSED)
    with pytest.raises(UserError, match="this file is named twice"):
        own(tmp_path, "b.csv", eval=["a.csv", again], **CLASSED)


def test_an_evaluation_file(tmp_path):
    write(tmp_path, "a.csv", separated(("body", "category"), ROWS[:40]))
    write(tmp_path, "b.csv", separated(("body", "category"), [*ROWS[40:], ROWS[0]]))
    found = own(tmp_path, "a.csv", eval="b.csv", **CLASSED)
    assert [row.text for row in found.data.train] == [t for t, _ in ROWS[:40]]
    assert [row.text for row in found.data.eval] == [*(t for t, _ in ROWS[40:]), ROWS[0][0]]
    assert any(
        note.startswith("1 of 21 evaluation rows stands in training") for note in found.notes
    )
    write(tmp_path, "b.csv", separated(("body", "category"), [*ROWS[40:], ("new", "sales")]))
    with pytest.raises(UserError, match=r"b\.csv, line 22: label 'sales' of evaluation rows"):
        own(tmp_path, "a.csv", eval="b.csv", **CLASSED)


def test_files_are_looked_for_in_places_in_order(tmp_path):
    near, far = tmp_path / "near", tmp_path / "far"
    for place, rows in ((near, ROWS[:30]), (far, ROWS)):
        place.mkdir()
        write(place, "a.csv", separated(("body", "category"), rows))
    write(far, "b.csv", separated(("body", "category"), ROWS))
    task = OwnTask(train="a.csv", **CLASSED)
    assert len(both(read_own("t", task, [near, far], tmp_path))) == 30
    task = OwnTask(train="b.csv", **CLASSED)
    assert len(both(read_own("t", task, [near, far], tmp_path))) == 60
    with pytest.raises(UserError) as told:
        read_own("t", OwnTask(train="c.csv", **CLASSED), [near, far], tmp_path)
    assert str(near / "c.csv") in told.value.what
    assert str(far / "c.csv") in told.value.what
    assert read_own("t", OwnTask(train=str(far / "b.csv"), **CLASSED), [near], tmp_path)


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (("10", "9", "-2"), ("-2", "9", "10")),
        ((10, 9.0, 2.5), ("2.5", "9", "10")),
        ((True, False), ("false", "true")),
        (("ä", "z", "B"), ("B", "z", "ä")),
        (("C", "D", "E+"), ("C", "D", "E+")),
        (("none", "pro", "contra"), ("contra", "none", "pro")),
        (("1.0", "10", "100"), ("1.0", "10", "100")),
        (("+", "-"), ("+", "-")),
    ],
)
def test_classes_are_words_numbers_or_booleans_in_order(tmp_path, labels, order):
    content = objects(body=body, category=lambda n: labels[n % len(labels)])
    write(tmp_path, "f.jsonl", content)
    found = own(tmp_path, "f.jsonl", **CLASSED)
    assert found.task.labels == order


def test_a_declared_order_stands_and_spares_a_word_that_means_nothing_elsewhere(tmp_path):
    write(tmp_path, "f.jsonl", objects(body=body, category=lambda n: ("NA", "-1", "3")[n % 3]))
    found = own(tmp_path, "f.jsonl", **CLASSED, labels=["3", -1, "NA"])
    assert found.task.labels == ("3", "-1", "NA")
    # Without it -1 beside numbers from 0 is missing too.
    with pytest.raises(UserError, match=r"label is missing \(40 of 60"):
        own(tmp_path, "f.jsonl", **CLASSED)


def test_minus_one_is_missing_only_among_numbers_from_zero(tmp_path):
    write(tmp_path, "f.jsonl", objects(body=body, category=lambda n: (-1, 0, 1)[n % 3]))
    with pytest.raises(UserError, match=r"label is missing \(20 of 60"):
        own(tmp_path, "f.jsonl", **CLASSED)
    write(tmp_path, "g.jsonl", objects(body=body, category=lambda n: (-2, -1, 1)[n % 3]))
    assert own(tmp_path, "g.jsonl", **CLASSED).task.labels == ("-2", "-1", "1")


def test_text_stays_as_it_stands_but_for_line_ends(tmp_path):
    odd = '  "quoted", tab\there\r\nnext \u2028 line é 漢 \x1b '
    rows = [(odd, "bug"), *ROWS]
    write(tmp_path, "f.csv", separated(("body", "category"), rows))
    write(tmp_path, "f.jsonl", lines({"body": t, "category": c} for t, c in rows))
    for name in ("f.csv", "f.jsonl"):
        assert odd.replace("\r\n", "\n") in {
            row.text for row in both(own(tmp_path, name, **CLASSED))
        }


def test_rows_of_one_column_may_be_blank_or_quoted_nothing(tmp_path):
    texts = "\n".join(t for t, _ in ROWS)
    write(tmp_path, "f.csv", f'body\n\n   \n""\n{texts}\n')
    keys = {"kind": "language", "text": "body"}
    with pytest.raises(UserError, match=r"line 4: a text is empty \(1 of 61 rows\)"):
        own(tmp_path, "f.csv", **keys)
    assert len(both(own(tmp_path, "f.csv", **keys, drop="empty"))) == 60


def test_a_long_field_and_a_wide_encoding(tmp_path):
    write(tmp_path, "f.csv", separated(("body", "category"), [("word " * 40_000, "bug"), *ROWS]))
    assert max(len(row.text) for row in both(own(tmp_path, "f.csv", **CLASSED))) == 200_000
    write(tmp_path, "g.csv", separated(("body", "category"), ROWS).encode("utf-16"))
    with pytest.raises(UserError, match="it is UTF-16, and not UTF-8") as told:
        own(tmp_path, "g.csv", **CLASSED)
    assert "encoding: utf-16" in told.value.remedy and "iconv -f UTF-16 -t" in told.value.remedy
    with pytest.raises(UserError, match="it is UTF-16, and not latin-1"):
        own(tmp_path, "g.csv", **CLASSED, encoding="latin-1")
    for name in ("utf-16-le", "utf-16-be"):  # without a mark
        write(tmp_path, "h.csv", separated(("body", "category"), ROWS).encode(name))
        with pytest.raises(UserError, match=rf"it is UTF-16 \({name}\)") as told:
            own(tmp_path, "h.csv", **CLASSED)
        assert f"encoding: {name}" in told.value.remedy
        assert len(both(own(tmp_path, "h.csv", **CLASSED, encoding=name))) == 60
    assert len(both(own(tmp_path, "g.csv", **CLASSED, encoding="utf-16"))) == 60


def test_labels_of_a_row_by_list_or_by_columns(tmp_path):
    content = objects(body=body, category=lambda n: [["a", "b"], [], ["b", "b"]][n % 3])
    write(tmp_path, "f.jsonl", content)
    found = own(tmp_path, "f.jsonl", **TAGGED)
    assert {row.tags for row in both(found)} == {(0, 1), (), (1,)}
    content = objects(body=body, x=lambda n: n % 2, y=lambda n: ("true", "0")[n % 2])
    write(tmp_path, "g.jsonl", content)
    found = own(tmp_path, "g.jsonl", **CLASSED | {"kind": "multi-label", "label": ["y", "x"]})
    assert found.task.labels == ("y", "x")
    assert {row.tags for row in both(found)} == {(0,), (1,)}


@pytest.mark.parametrize(
    ("answers", "number"),
    [
        ((0, 1, 2), lambda n: n),
        ((1, 2, 3), lambda n: n),
        (("1", "2", "3"), lambda n: n),
        (("A", "b", "C"), lambda n: n),
        (("red", "green", "blue"), lambda n: n),
        (("blue", "red", "green"), lambda n: (n + 2) % 3),
    ],
)
def test_the_right_choice_by_number_letter_or_text(tmp_path, answers, number):
    content = objects(q=body, c=["red", "green", "blue"], a=lambda n: answers[n % 3])
    write(tmp_path, "f.jsonl", content)
    right = {row.text: row.label for row in both(own(tmp_path, "f.jsonl", **CHOSEN))}
    assert right == {body(n): number(n % 3) for n in range(60)}


def test_choices_in_columns_or_with_keys(tmp_path):
    rows = [(t, "x", "y", "" if n % 2 else "z", "AB"[n % 2]) for n, (t, _) in enumerate(ROWS)]
    write(tmp_path, "f.csv", separated(("q", "c1", "c2", "c3", "a"), rows))
    found = own(tmp_path, "f.csv", **CHOSEN | {"choices": ["c1", "c2", "c3"]})
    assert {row.choices for row in both(found)} == {("x", "y"), ("x", "y", "z")}
    keyed = {"text": ["x", "y"], "label": ["1", "2"]}
    write(tmp_path, "g.jsonl", objects(q=body, c=keyed, a=lambda n: "21"[n % 2]))
    found = own(tmp_path, "g.jsonl", **CHOSEN)
    assert {r.text: r.label for r in both(found)} == {body(n): 1 - n % 2 for n in range(60)}


def test_instructions_in_three_forms(tmp_path):
    write(tmp_path, "f.jsonl", objects(prompt=body, completion=category))
    found = own(tmp_path, "f.jsonl", kind="instruction", prompt="prompt", completion="completion")
    assert {(row.text, row.pair) for row in both(found)} == set(ROWS)
    content = objects(instruction=body, input=lambda n: "" if n % 2 else "on it", output=category)
    write(tmp_path, "g.jsonl", content)
    keys = {name: name for name in ("instruction", "input", "output")}
    found = own(tmp_path, "g.jsonl", kind="instruction", **keys)
    assert {row.text for row in both(found)} == {
        t if n % 2 else f"{t}\n\non it" for n, (t, _) in enumerate(ROWS)
    }


def test_conversations_in_the_form_of_sharegpt_and_as_text(tmp_path):
    def said(n):
        last = {"from": "human", "value": "thanks"}
        return [{"from": "human", "value": body(n)}, {"from": "gpt", "value": "hello"}, last]

    expected = {(("user", t), ("assistant", "hello")) for t, _ in ROWS}
    write(tmp_path, "f.jsonl", objects(m=said))
    write(tmp_path, "g.csv", separated(("m",), [(json.dumps(said(n)),) for n in range(60)]))
    for name in ("f.jsonl", "g.csv"):
        assert {row.turns for row in both(own(tmp_path, name, **CHATS))} == expected


def test_the_parts_of_a_turn_are_joined(tmp_path):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    answer = [{"role": "assistant", "content": parts}]
    write(tmp_path, "f.jsonl", objects(m=lambda n: [{"role": "user", "content": body(n)}, *answer]))
    assert {row.turns[1] for row in both(own(tmp_path, "f.jsonl", **CHATS))} == {
        ("assistant", "ab")
    }


def test_texts_alone(tmp_path):
    write(tmp_path, "f.csv", separated(("body",), [(t,) for t, _ in ROWS]))
    found = own(tmp_path, "f.csv", kind="text", text="body")
    assert found.task.kind == "language"
    assert found.task.metric == "log_likelihood"
    assert {row.text for row in both(found)} == {t for t, _ in ROWS}


# --- refused ------------------------------------------------------------------------------------

UNCLOSED = separated(("body", "category"), ROWS).replace("the app crashes on page 9", '"the app')
AFTER = separated(("body", "category"), ROWS).replace("the app crashes on page 9", '"the" app')

REFUSED = {
    "unclosed quote": ("f.csv", UNCLOSED, CLASSED, "line 11: a quote is opened"),
    "text after a quote": ("f.csv", AFTER, CLASSED, "line 11: text follows a closing quote"),
    "NUL": ("f.csv", labelled() + "a\0b,bug\n", CLASSED, "line 242: it holds a NUL"),
    "empty file": ("f.csv", "", CLASSED, "f.csv: it is empty"),
    "blank file": ("f.jsonl", "\n \n", CLASSED, "f.jsonl: it is empty"),
    "no header": ("f.csv", ",,\na,b,c\n", CLASSED, "line 1: there is no header"),
    "no such column": ("f.csv", separated(("Body", "category"), ROWS), CLASSED, "no column 'body'"),
    "damaged gzip": ("f.csv.xz", b"no xz", CLASSED, "no whole .xz file"),
    "a cut gzip": ("f.csv.bz2", bz2.compress(b"a,b\n1,2\n")[:-4], CLASSED, "no whole .bz2"),
    "damaged Parquet": ("f.parquet", b"PAR1 no", CLASSED, "no whole .parquet file"),
    "damaged Arrow": ("f.arrow", b"ARROW1 no", CLASSED, "no whole .arrow file"),
    "a sheet": ("f.xlsx", b"PK", CLASSED, "says no form that is known"),
    "no ending": ("rows", b"a", CLASSED, "says no form that is known"),
    "JSON that is no object": ("f.jsonl", '["a"]\n3\n', CLASSED, "line 1: text where an object"),
    "a number alone": ("f.jsonl", '{"body": "a"}\n3\n', CLASSED, "line 2: a number where"),
    "an array cut short": ("f.json", '[\n{"body": "a"},\n{"bo', CLASSED, "line 3: no JSON"),
    "more after an array": ("f.json", '[{"body": "a"}]\n[]', CLASSED, "no JSON: more follows"),
    "a key twice": (
        "f.jsonl",
        '{"body": "a", "body": "b"}\n',
        CLASSED,
        "line 1: no JSON: the key 'body' stands twice",
    ),
    "a key twice, deep": (
        "f.jsonl",
        '{"body": "a", "category": "x", "more": {"k": 1, "k": 2}}\n',
        CLASSED,
        "line 1: no JSON: the key 'k' stands twice",
    ),
    "a key twice in turns": (
        "f.jsonl",
        objects(m='[{"role": "user", "role": "user", "content": "a"}]'),
        CHATS,
        "'m': a conversation is text that is no JSON, or has a key twice",
    ),
    "a column twice": ("f.csv", "body,body\na,b\n", CLASSED, "line 1: columns 1 and 2 are both"),
    "a name that nobody sees": (
        "f.csv",
        "body,\u200b,category,\u2800\na,b,c,d\n",
        CLASSED,
        "line 1: columns 2 and 4 have no name",
    ),
    "a text with nothing to see": (
        "f.jsonl",
        objects(body=at(6, "\u200b\xad\u2800", body), category=category),
        CLASSED,
        "line 7: a text is empty (1 of ",
    ),
    "a label with nothing to see": (
        "f.jsonl",
        objects(body=body, category=at(6, "\u2800", category)),
        CLASSED,
        "line 7: the label is missing",
    ),
    "a turn with nothing to see": (
        "f.jsonl",
        objects(m=at(6, [{"role": "user", "content": "\ufeff"}], turns("user", "assistant"))),
        CHATS,
        "line 7: 'm': a turn is empty",
    ),
    **{
        f"a score {score!r}": (
            "f.jsonl",
            objects(body=body, category=at(6, score, lambda n: str(n % 5))),
            SCORED,
            "line 7: 'category' is",
        )
        for score in ("0_3", "\u0663", " 3", "0x3")
    },
    "nesting": ("f.jsonl", "[" * 100_000, CLASSED, "line 1: no JSON"),
    "half a surrogate pair": (
        "f.jsonl",
        objects(body=at(6, "\ud83d", body), category=category),
        CLASSED,
        "line 7: 'body' holds half of a surrogate pair",
    ),
    "a number as text": (
        "f.jsonl",
        objects(body=lambda n: n, category=category),
        CLASSED,
        "line 1: 'body' is a number where text belongs",
    ),
    "control characters in a label": (
        "f.jsonl",
        objects(body=body, category=at(3, "bug\x1b[31m", category)),
        CLASSED,
        "line 4: label 'bug\\x1b[31m' holds characters",
    ),
    "an unknown label": (
        "f.jsonl",
        objects(body=body, category=at(3, "sales", category)),
        CLASSED | {"labels": list(CLASSES)},
        "line 4: label 'sales' of training rows is not declared",
    ),
    "a declared label without rows": (
        "f.jsonl",
        objects(body=body, category=category),
        CLASSED | {"labels": [*CLASSES, "sales"]},
        "no row of training has the declared label 'sales'",
    ),
    "spellings of numbers": (
        "f.csv",
        separated(
            ("body", "category"), [(t, "1" if n % 2 else "01") for n, (t, _) in enumerate(ROWS)]
        ),
        CLASSED,
        "'01', '1'",
    ),
    "a decimal comma": (
        "f.jsonl",
        objects(body=body, category=at(8, "1,5", lambda n: str(n))),
        SCORED,
        "line 9: 'category' is '1,5' where a finite number belongs",
    ),
    "an infinite score": (
        "f.jsonl",
        objects(body=body, category=at(8, float("inf"), lambda n: n)),
        SCORED,
        "line 9: 'category' is inf",
    ),
    "a score without bounds": (
        "f.jsonl",
        objects(body=body, category=at(8, 10**400, lambda n: n)),
        SCORED,
        "line 9: 'category' is 1000",
    ),
    "control characters in a class's column": (
        "f.jsonl",
        objects(body=body, **{"x\x1b": 1, "y": 0}),
        CLASSED | {"kind": "multi-label", "label": ["x\x1b", "y"]},
        "column 'x\\x1b' has characters",
    ),
    "one score": ("f.jsonl", objects(body=body, category=2), SCORED, "is 2 in every row"),
    "the same labels": ("f.jsonl", objects(body=body, category=["a"]), TAGGED, "one class only"),
    "an object as a label": (
        "f.jsonl",
        objects(body=body, category=at(2, [{}], ["a"])),
        TAGGED,
        "line 3: 'category': a label is not a word",
    ),
    "a column of 0, 1 and 2": (
        "f.jsonl",
        objects(body=body, x=at(2, 2, 1), y=0),
        CLASSED | {"kind": "multi-label", "label": ["x", "y"]},
        "line 3: 'x' is '2' where 0 or 1 belongs",
    ),
    "one choice": (
        "f.jsonl",
        objects(q=body, c=at(5, ["x"], ["x", "y"]), a=0),
        CHOSEN,
        "line 6: a row has",
    ),
    "equal choices": ("f.jsonl", objects(q=body, c=["x", "x"], a=0), CHOSEN, "are the same"),
    "an answer that is no choice": (
        "f.jsonl",
        objects(q=body, c=["x", "y"], a=at(5, "z", "x")),
        CHOSEN,
        "line 6: 'a': it is neither number, letter nor text",
    ),
    "a choice too high": (
        "f.jsonl",
        objects(q=body, c=["x", "y"], a=at(5, 2, 0)),
        CHOSEN,
        "line 6: 'a' names a choice that is not there",
    ),
    "numbers from nowhere": (
        "f.jsonl",
        objects(q=body, c=["x", "y", "z"], a=lambda n: 1 + n % 2),
        CHOSEN,
        "count from 0 or from 1",
    ),
    "nobody answers": (
        "f.jsonl",
        objects(m=at(5, turns("user"), turns("user", "assistant"))),
        CHATS,
        "line 6: 'm': a conversation has no turn of the assistant's",
    ),
    "an unknown role": ("f.jsonl", objects(m=turns("user", "tool")), CHATS, "role of a turn"),
    "no turns": ("f.jsonl", objects(m=lambda n: "hello"), CHATS, "text that is no JSON"),
    "an empty turn": (
        "f.jsonl",
        objects(m=[{"role": "user", "content": ""}, *turns("assistant")]),
        CHATS,
        "a turn is empty",
    ),
    "one row": ("f.csv", "body,category\na,bug\nb,refund\n", CLASSED, "none can be cut"),
    "all rows dropped": (
        "f.csv",
        "body,category\n,bug\n,refund\n",
        CLASSED | {"drop": ["empty"]},
        "no rows are left",
    ),
    "a file with splits": (
        "f.csv",
        labelled(),
        CLASSED | {"eval_split": "test"},
        "a file has no splits",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_are_refused(tmp_path, case):
    name, content, keys, told = REFUSED[case]
    write(tmp_path, name, content)
    with pytest.raises(UserError) as refusal:
        own(tmp_path, name, **keys)
    assert told in refusal.value.what
    assert str(tmp_path / name) in refusal.value.what
    assert refusal.value.remedy
    assert all(character.isprintable() for character in refusal.value.what)


def test_a_folder_that_nobody_saved(tmp_path):
    with pytest.raises(UserError, match="a folder that datasets did not save"):
        own(tmp_path, ".", **CLASSED)


def test_no_text_of_a_row_is_in_a_refusal(tmp_path):
    secret = "Mrs Miller of 12 Elm Street"
    for number, (content, keys) in enumerate(
        (
            (objects(body=at(1, f"{secret}\ud83d", body), category=category), CLASSED),
            (objects(body=body, category=at(1, "", category), other=secret), CLASSED),
            (objects(body=body, category=category)[:-20] + secret, CLASSED),
            (objects(q=body, c=[secret, "y"], a="z"), CHOSEN),
            (objects(m=[{"role": "tool", "content": secret}]), CHATS),
        )
    ):
        write(tmp_path, f"{number}.jsonl", content)
        with pytest.raises(UserError) as told:
            own(tmp_path, f"{number}.jsonl", **keys)
        assert "Miller" not in str(told.value)
