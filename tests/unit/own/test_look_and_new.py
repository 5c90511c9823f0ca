"""`peftmark inspect` and `peftmark new`: what they see, guess, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import hub_stub
from calls import calls_of
from hub_stub import REVISION, Repository, serve
from own_files import chat, labelled, lines, separated, tickets, write
from own_models import BERT, GPT, model_folder, put
from peftmark.cli import parser
from peftmark.core.strict_yaml import read_yaml
from peftmark.own.declared import OwnTask
from peftmark.own.look import look
from peftmark.own.read import read_own
from peftmark.own.suite_text import in_form, name_in, suite_text, yaml_value
from peftmark.run import own_tasks
from peftmark.run.runner import Selection, make_plan
from peftmark.run.try_suite import METHODS as TRIED
from peftmark.sources.stored_form import StoredForm
from peftmark.suite.load import load_suite

ROWS = tickets(120)


@pytest.fixture
def peftmark(no_devices, tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; its exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))

    def run(*words):
        with pytest.raises(SystemExit) as left:
            parser.main(list(words))
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    return run


def objects(**columns):
    return lines({name: make(n) for name, make in columns.items()} for n in range(120))


# --- a look -------------------------------------------------------------------------------------


def test_a_look_counts_classes_copies_and_the_constant_guess(tmp_path):
    train = [*[("a", "x")] * 3, ("b", "x"), ("c", "y"), ("d", "y")]
    write(tmp_path, "a.csv", separated(("t", "l"), train))
    write(
        tmp_path, "b.csv", separated(("t", "l"), [("a", "x"), ("e", "x"), ("f", "y"), ("g", "x")])
    )
    task = OwnTask(kind="classification", train="a.csv", eval="b.csv", text="t", label="l")
    seen = look(read_own("t", task, [tmp_path], tmp_path))
    assert seen.classes == (("x", 4, 3), ("y", 2, 1))
    assert seen.copies == (2, 0)
    assert seen.overlap == 1
    assert seen.guess == "always x"
    # Macro F1: that of x is 2 · 0.75 · 1 / 1.75, that of y is 0.
    assert seen.constant == pytest.approx({"accuracy": 0.75, "macro_f1": 0.4285714})
    assert seen.tokens is None


@pytest.mark.parametrize(
    ("keys", "train", "evaluation", "guess", "scored"),
    [
        ({"kind": "regression"}, ["1", "3"], ["2", "5"], "mean of training, 2", {"rmse": 4.5**0.5}),
        (
            {"kind": "multi-label"},
            ["a", "a|b", "b|a", ""],
            ["a", "b"],
            "always a",
            {"micro_f1": 0.5},
        ),
    ],
)
def test_the_constant_guess_of_scores_and_of_several_labels(
    tmp_path, keys, train, evaluation, guess, scored
):
    for name, values in (("a.csv", train), ("b.csv", evaluation)):
        rows = [(f"{name} {n}", value) for n, value in enumerate(values)]
        write(tmp_path, name, separated(("t", "l"), rows))
    task = OwnTask(train="a.csv", eval="b.csv", text="t", label="l", **keys)
    seen = look(read_own("t", task, [tmp_path], tmp_path))
    assert guess in seen.guess
    assert seen.constant == pytest.approx(scored)


def test_inspect_shows_counts_and_no_text_unless_asked(peftmark, tmp_path):
    write(tmp_path, "t.csv", labelled())
    code, said, _ = peftmark("inspect", "t.csv")
    assert code == 0
    for part in ("192 to train on, 48 to evaluate", "bug", "33.3% of training", "accuracy 0.333"):
        assert part in said
    assert "crashes" not in said
    _, said, _ = peftmark("inspect", "t.csv", "--show-texts")
    assert said.count("  training row") == 3
    assert "the app crashes on page" in said


def test_inspect_as_json_has_the_figures_and_no_text(peftmark, tmp_path):
    write(tmp_path, "t.csv", labelled())
    _, said, _ = peftmark("inspect", "t.csv", "--json", "--show-texts")
    facts = json.loads(said)
    assert (facts["kind"], facts["train_rows"], facts["eval_rows"]) == ("classification", 192, 48)
    assert len(facts["fingerprint"]) == 64
    assert "crashes" not in said


def test_a_shown_text_holds_nothing_a_terminal_would_act_on(peftmark, tmp_path):
    rows = [(f"\x1b[31m\u202e red\n{text}", label) for text, label in ROWS]
    write(tmp_path, "t.csv", separated(("body", "category"), rows))
    _, said, _ = peftmark("inspect", "t.csv", "--show-texts")
    assert all(c.isprintable() or c == "\n" for c in said)
    assert "red the app crashes" in said


def test_inspect_ends_with_exit_2_on_a_bad_file(peftmark, tmp_path):
    write(tmp_path, "t.csv", labelled(lambda n, t, c: (t, "" if n == 5 else c)))
    code, said, error = peftmark("inspect", "t.csv")
    assert (code, said) == (2, "")
    assert "t.csv, line 7: the label is missing (1 of 240 rows)" in error
    code, said, _ = peftmark("inspect", "t.csv", "--drop", "unlabelled")
    assert code == 0
    assert "1 training row without a label left out" in said
    code, _, error = peftmark("inspect", "none.csv")
    assert code == 2
    assert "there is no file" in error
    code, _, error = peftmark("inspect", "t.csv", "--separator", ";;")
    assert code == 2
    assert "--separator: found ';;'; one ASCII character" in error


SUITE = """
model: minilm-l6
tasks:
  tickets: {kind: classification, train: t.csv, text: body, label: category}
  others: {kind: regression, train: o.csv, text: body, label: score}
methods: [head]
"""


def of_two_tasks(folder):
    (folder / "suites").mkdir()
    (folder / "suites" / "two.yaml").write_text(SUITE)
    write(folder, "t.csv", labelled())
    write(
        folder, "o.csv", separated(("body", "score"), [(t, n / 7) for n, (t, _) in enumerate(ROWS)])
    )


def test_inspect_looks_at_every_task_of_a_suite(peftmark, tmp_path):
    of_two_tasks(tmp_path)
    code, said, error = peftmark("inspect", "two")
    assert (code, error) == (0, "")
    assert [line for line in said.splitlines() if not line.startswith(" ")] == [
        "tickets: classification of t.csv",
        "others: regression of o.csv",
    ]
    assert "192 to train on, 48 to evaluate" in said and "96 to train on, 24 to evaluate" in said
    assert "crashes" not in said
    _, said, _ = peftmark("inspect", "two", "--show-texts")
    assert said.count("  training row") == 6
    _, said, _ = peftmark("inspect", "two", "--json")
    facts = json.loads(said)
    assert [(one["key"], one["kind"]) for one in facts] == [
        ("tickets", "classification"),
        ("others", "regression"),
    ]
    assert "crashes" not in said
    assert not (tmp_path / "cache").exists() and not (tmp_path / "results").exists()
    # What is looked at is what is run.
    plan = make_plan(Selection("two", suites=Path("suites"), jobs=1))
    assert {job.data_fingerprint for job in plan.jobs} == {one["fingerprint"] for one in facts}


def test_inspect_of_a_suite_refuses_what_the_suite_says_itself(peftmark, tmp_path):
    of_two_tasks(tmp_path)
    code, said, error = peftmark("inspect", "two", "--text", "body", "--drop", "empty")
    assert (code, said) == (2, "")
    assert "--text, --drop: suite two says itself what its columns are" in error
    (tmp_path / "o.csv").unlink()
    code, said, error = peftmark("inspect", "two")
    assert (code, said) == (2, "") and "there is no file" in error
    plain = SUITE.partition("tasks:")[0] + "tasks: [trec]\nmethods: [head]\n"
    (tmp_path / "suites" / "two.yaml").write_text(plain)
    code, said, error = peftmark("inspect", "two")
    assert (code, said) == (2, "") and "suite two has no task of its own" in error


# --- guesses ------------------------------------------------------------------------------------

GUESSED = {
    "classes": ("t.csv", labelled(), {"kind": "classification", "text": "body"}),
    "scores": (
        "t.csv",
        separated(("id", "review", "score"), [(n, t, n / 7) for n, (t, _) in enumerate(ROWS)]),
        {"kind": "regression", "text": "review", "label": "score"},
    ),
    "few numbers": (
        "t.csv",
        separated(("review", "rating"), [(t, n % 5) for n, (t, _) in enumerate(ROWS)]),
        {"kind": "classification", "label": "rating"},
    ),
    "labels with bars": (
        "t.csv",
        separated(
            ("body", "tags"), [(t, f"{c}|x" if n % 2 else c) for n, (t, c) in enumerate(ROWS)]
        ),
        {"kind": "multi-label", "label": "tags"},
    ),
    "lists": (
        "t.jsonl",
        objects(body=lambda n: ROWS[n][0], labels=lambda n: ["a", "b"][: n % 3]),
        {"kind": "multi-label", "label": "labels"},
    ),
    "conversations": ("t.jsonl", chat(), {"kind": "instruction", "messages": "messages"}),
    "prompts": (
        "t.jsonl",
        objects(prompt=lambda n: ROWS[n][0], completion=lambda n: ROWS[n][1]),
        {"kind": "instruction", "prompt": "prompt", "completion": "completion"},
    ),
    "instructions": (
        "t.jsonl",
        objects(instruction=lambda n: ROWS[n][0], input=lambda n: "", output=lambda n: ROWS[n][1]),
        {"kind": "instruction", "instruction": "instruction", "input": "input"},
    ),
    "choices": (
        "t.jsonl",
        objects(
            question=lambda n: ROWS[n][0], choices=lambda n: ["a", "b"], answer=lambda n: n % 2
        ),
        {"kind": "multiple-choice", "answer": "answer"},
    ),
    "texts alone": (
        "t.csv",
        separated(("text",), [(t,) for t, _ in ROWS]),
        {"kind": "language", "text": "text"},
    ),
    "booleans": (
        "t.jsonl",
        objects(n=lambda n: n, body=lambda n: ROWS[n][0], spam=lambda n: n % 3 == 0),
        {"kind": "classification", "label": "spam"},
    ),
}


def test_new_names_the_makefile_where_there_is_one(peftmark, tmp_path):
    name, content, _ = GUESSED["booleans"]
    write(tmp_path, name, content)
    write(tmp_path, "Makefile", "bench:\n")
    _, said, _ = peftmark("new", "mine", "--data", name)
    assert said.endswith("Next:\n  make bench SUITE=mine\nor\n  peftmark run mine\n")


@pytest.mark.parametrize("case", GUESSED)
def test_new_guesses_says_why_and_writes_a_suite_that_reads_the_same(peftmark, tmp_path, case):
    name, content, expected = GUESSED[case]
    write(tmp_path, name, content)
    code, said, error = peftmark("new", "mine", "--data", name)
    assert (code, error) == (0, "")
    assert "Guessed: " in said
    assert said.endswith("mine.yaml. Next:\n  peftmark run mine\n")
    suite = read_yaml(tmp_path / "suites" / "mine.yaml")
    declared = suite["tasks"]["mine"]
    assert expected.items() <= declared.items()
    causal = declared["kind"] in ("instruction", "multiple-choice", "language")
    assert suite["model"] == ("smollm2-135m-q4" if causal else "minilm-l6")
    assert set(suite) == {"suite", "model", "tasks", "methods"}
    assert read_own("mine", OwnTask.model_validate(declared), [tmp_path], tmp_path)
    # The suite is whole: its jobs are known, and planning them writes nothing.
    assert load_suite("mine", tmp_path / "suites").own_tasks("default") == ["mine"]
    here = sorted(tmp_path.rglob("*"))
    plan = make_plan(Selection("mine", suites=Path("suites"), jobs=1))
    assert sorted(tmp_path.rglob("*")) == here
    assert [job.method for job in plan.jobs if (job.seed, job.purpose) == (0, "report")] == (
        ["lora", "base"] if causal else ["lora", "full", "head", "bag-of-words", "embeddings"]
    )
    assert {job.own.kind for job in plan.jobs} == {declared["kind"]}
    rows = [line for line in said.splitlines() if line.startswith("  rows ")]
    (own,) = {job.own for job in plan.jobs}
    assert rows == [f"  rows      {own.train_rows} to train on, {own.eval_rows} to evaluate"]
    (metric,) = {job.metric for job in plan.jobs}
    assert f"  metric    {', '.join((metric, *own.also))}" in said
    assert all((job.causal is not None) == causal for job in plan.jobs)


@pytest.mark.parametrize(
    ("head", "rows", "told"),
    [
        (("a", "b", "ok"), [(t, f"{t} too", n % 2) for n, (t, _) in enumerate(ROWS)], "--text"),
        (("t", "x", "y"), [(t, n % 2, n % 3) for n, (t, _) in enumerate(ROWS)], "--label"),
        (("x", "y"), [(n % 2, n) for n in range(90)], "no column holds texts"),
        (("t", "l"), [], "there are no rows"),
    ],
)
def test_what_could_be_read_in_two_ways_is_asked_back(peftmark, tmp_path, head, rows, told):
    write(tmp_path, "t.csv", separated(head, rows))
    code, _, error = peftmark("new", "mine", "--data", "t.csv")
    assert code == 2
    assert told in error
    assert f"Its columns: {', '.join(map(repr, head))}." in error
    assert not (tmp_path / "suites").exists()


def test_what_is_said_is_not_guessed(peftmark, tmp_path):
    rows = [(t, f"{t} too", n % 2) for n, (t, _) in enumerate(ROWS)]
    write(tmp_path, "t.csv", separated(("a b", "c: d", "ok"), rows))
    words = ["--text", "a b", "--text", "c: d", "--label", "ok", "--kind", "classification"]
    code, said, _ = peftmark("new", "mine", "--data", "t.csv", *words, "--model", "roberta-base")
    assert code == 0
    assert "Guessed" not in said
    suite = read_yaml(tmp_path / "suites" / "mine.yaml")
    assert suite["tasks"]["mine"]["text"] == ["a b", "c: d"]
    assert suite["model"] == "roberta-base"


NAMED = {
    "choices": (
        {"q": "t", "options": "l", "right": "n"},
        ["--text", "q", "--choices", "options", "--answer", "right"],
        {"kind": "multiple-choice", "text": "q", "choices": "options", "answer": "right"},
    ),
    "usual names": (
        {"question": "t", "options": "l", "answer": "n"},
        ["--choices", "options"],
        {"kind": "multiple-choice", "text": "question", "answer": "answer"},
    ),
    "prompts": (
        {"ask": "t", "say": "t"},
        ["--prompt", "ask", "--completion", "say"],
        {"kind": "instruction", "prompt": "ask", "completion": "say"},
    ),
}


@pytest.mark.parametrize("case", NAMED)
def test_columns_of_any_name_may_be_named(peftmark, tmp_path, case):
    columns, words, expected = NAMED[case]
    make = {"t": lambda n: ROWS[n][0], "l": lambda n: ["a", "b"], "n": lambda n: n % 2}
    write(tmp_path, "t.jsonl", objects(**{name: make[kind] for name, kind in columns.items()}))
    code, _, error = peftmark("new", "mine", "--data", "t.jsonl", *words)
    assert (code, error) == (0, "")
    declared = read_yaml(tmp_path / "suites" / "mine.yaml")["tasks"]["mine"]
    assert expected.items() <= declared.items()


def test_multiple_choice_in_part_says_what_else_to_pass(peftmark, tmp_path):
    content = objects(q=lambda n: ROWS[n][0], o=lambda n: ["a", "b"], a=lambda n: n % 2)
    write(tmp_path, "t.jsonl", content)
    code, _, error = peftmark("new", "mine", "--data", "t.jsonl", "--choices", "o")
    assert code == 2
    assert "Pass --text and --answer too." in error
    code, _, error = peftmark("new", "mine", "--data", "t.jsonl", "--kind", "multiple-choice")
    assert code == 2
    assert "Pass --text, --choices and --answer." in error


def test_what_does_not_fit_together_is_told_without_the_whole_declaration(peftmark, tmp_path):
    write(tmp_path, "t.csv", labelled())
    words = ["--text", "body", "--label", "body"]
    code, _, error = peftmark("new", "mine", "--data", "t.csv", *words)
    assert code == 2
    assert "\n  'body': a column is named twice" in error
    assert "found {" not in error


def test_a_suite_that_is_shipped_is_hidden_only_by_force(peftmark, tmp_path):
    write(tmp_path, "t.csv", labelled())
    code, _, error = peftmark("new", "glue", "--data", "t.csv")
    assert code == 2
    assert "'glue' is a suite of peftmark's" in error
    assert not (tmp_path / "suites").exists()
    assert peftmark("new", "glue", "--data", "t.csv", "--force")[0] == 0


def test_a_suite_is_never_written_over_without_force(peftmark, tmp_path):
    write(tmp_path, "t.csv", labelled())
    target = write_suite(tmp_path, "kept")
    code, _, error = peftmark("new", "mine", "--data", "t.csv", "--suites", "own")
    assert code == 2
    assert "--force" in error
    assert target.read_text() == "kept"
    code, said, _ = peftmark("new", "mine", "--data", "t.csv", "--suites", "own", "--force")
    assert code == 0
    assert said.endswith("peftmark run mine --suites own\n")
    assert read_yaml(target)["suite"] == "mine"


def write_suite(folder, text):
    target = folder / "own" / "mine.yaml"
    target.parent.mkdir()
    target.write_text(text)
    return target


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("Mine", [], "lower-case letters"),
        ("../x", [], "lower-case letters"),
        ("external", [], "no suite can be named"),
        ("trec", [], "a task of the catalogue"),
        ("mine", ["--model", "none"], "--model none: unknown"),
        ("mine", ["--model", "smollm2-135m-q4", "--kind", "multi-label"], "don't read tasks"),
        ("mine", ["--label", "nothing"], "no column 'nothing'"),
        ("mine", ["--kind", "instruction"], "nothing tells which columns"),
        ("mine", ["--labels", "bug,praise"], "label 'refund' of training rows is not declared"),
    ],
)
def test_what_new_refuses_leaves_nothing_behind(peftmark, tmp_path, name, more, told):
    write(tmp_path, "t.csv", labelled())
    code, _, error = peftmark("new", name, "--data", "t.csv", *more)
    assert code == 2
    assert told in error
    assert not (tmp_path / "suites").exists()


@pytest.mark.parametrize(
    "value",
    ["body", "a b", "yes", "1", "a: b", "#c", 'q"', "é 😀", "\t", "\u2028", "\x85", "-", "~"],
)
def test_words_of_a_suite_survive_yaml(tmp_path, value):
    path = tmp_path / "f.yaml"
    path.write_text(f"key: {yaml_value(value)}\nlist: {yaml_value([value, value])}\n")
    assert read_yaml(path) == {"key": value, "list": [value, value]}


def test_each_further_row_costs_the_same_few_calls(tmp_path):
    """Of 100,000 rows every table cell that is looked at by itself would be seconds."""

    def read(times):
        rows = [
            (f"{text} and more words of it {n}", label)
            for n in range(times)
            for text, label in tickets()
        ]
        write(tmp_path, f"{times}.csv", separated(("body", "category"), rows))
        task = OwnTask(kind="classification", train=f"{times}.csv", text="body", label="category")
        found = []
        calls = calls_of(lambda: found.append(read_own("t", task, [tmp_path], tmp_path)))
        assert found[0].task.train_rows + found[0].task.eval_rows == len(rows) == 240 * times
        return calls

    read(1)  # what is made once
    few, many = read(4), read(40)
    assert many < 10.5 * few
    assert many < 60 * 240 * 40


# --- a model of one's own ------------------------------------------------------------------------


def test_inspect_counts_the_tokens_of_a_folder(peftmark, tmp_path):
    write(tmp_path, "t.csv", labelled())
    model_folder(tmp_path / "mine")
    code, said, _ = peftmark("inspect", "t.csv", "--model", "./mine", "--max-length", "8")
    assert code == 0 and "tokens    " in said
    code, _, error = peftmark("inspect", "t.csv", "--model", "./gone")
    assert code == 2 and "there is no folder" in error and "gone" in error


def test_new_writes_the_folder_and_inspect_finds_its_tokens_again(peftmark, tmp_path):
    write(tmp_path, "t.csv", labelled())
    model_folder(tmp_path / "mine")
    code, said, _ = peftmark("new", "tickets", "--data", "t.csv", "--model", "./mine")
    assert code == 0 and "tokens    " in said
    written = read_yaml(tmp_path / "suites" / "tickets.yaml")
    assert written["model"] == "./mine" and "bag-of-words" in written["methods"]
    code, said, _ = peftmark("inspect", "tickets")
    assert code == 0 and "tokens    " in said


def test_new_asks_a_models_configuration_alone(peftmark, tmp_path):
    write(tmp_path, "t.csv", labelled())
    put(tmp_path / "mine", "config.json", GPT)  # no weights to hash, no tokenizer
    assert peftmark("new", "tickets", "--data", "t.csv", "--model", "./mine")[0] == 0
    assert read_yaml(tmp_path / "suites" / "tickets.yaml")["methods"] == ["lora", "base"]
    code, _, error = peftmark("new", "more", "--data", "t.csv", "--model", "./mine/config.json")
    assert code == 2 and "there is no folder" in error


@pytest.mark.slow
@pytest.mark.heavy
def test_new_fetches_no_weights_of_a_model_of_the_hub(tmp_path):
    config = json.dumps(GPT).encode()
    write(tmp_path, "t.csv", labelled())
    with serve(Repository("model", "tiny/model", {"config.json": config})) as hub:
        words = ["new", "more", "--data", str(tmp_path / "t.csv"), "--suites", str(tmp_path)]
        got = hub_stub.call(
            hub.url, tmp_path, "command", words=[*words, "--model", f"hub:tiny/model@{REVISION}"]
        )
        assert got["code"] == 0, got["error"]
    assert read_yaml(tmp_path / "more.yaml")["methods"] == ["lora", "base"]


def test_a_folder_of_the_home_and_one_beside_the_suite_are_found(peftmark, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path, "t.csv", labelled())
    model_folder(tmp_path / "home" / "mine")
    model_folder(tmp_path / "suites" / "beside")
    for name in ("~/mine", "./beside"):
        text = f"model: {name}\ntasks: {{t: {{kind: classification, train: t.csv, text: body, "
        text += "label: category}}\nmethods: [head]\n"
        (tmp_path / "suites" / "demo.yaml").write_text(text)
        code, said, error = peftmark("inspect", "demo")
        assert code == 0 and "tokens    " in said, error


def test_inspect_reads_a_task_of_several_profiles_once(peftmark, tmp_path, monkeypatch):
    write(tmp_path, "t.csv", labelled())
    profile = "{summary: s, needs: nothing, scale: full, sources: [package], model: minilm-l6, "
    profile += "seeds: [0], tasks: {t: {}}, recipe: {max_length: %d}}"
    text = f"""
suite: demo
version: 1
summary: s
radar: {{}}
recipe: {{batch_size: 8, steps: 10, learning_rate: 1e-3}}
tasks: {{t: {{kind: classification, train: t.csv, text: body, label: category}}}}
methods: [{{method: head}}]
profiles:
  first: {profile % 32}
  second: {profile % 64}
"""
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "demo.yaml").write_text(text)
    read = []
    original = own_tasks.read_own_tasks

    def counted(suite, name, *more):
        found = original(suite, name, *more)
        read.extend(found[1])
        return found

    monkeypatch.setattr(own_tasks, "read_own_tasks", counted)
    code, said, error = peftmark("inspect", "demo", "--json")
    assert code == 0, error
    assert json.loads(said)["key"] == "t" and read == ["t"]


def test_new_takes_the_methods_that_fit_a_model_of_ones_own(peftmark, tmp_path):
    write(tmp_path, "t.csv", labelled())
    model_folder(tmp_path / "mine", GPT)
    code, _, _ = peftmark("new", "tickets", "--data", "t.csv", "--model", "./mine")
    assert code == 0
    assert read_yaml(tmp_path / "suites" / "tickets.yaml")["methods"] == ["lora", "base"]


def test_new_takes_a_model_of_ones_own_for_what_it_is_told(peftmark, tmp_path):
    write(tmp_path, "t.csv", labelled())
    model_folder(tmp_path / "mine", GPT)
    args = ("new", "tickets", "--data", "t.csv", "--model", "./mine", "--read-as", "classifier")
    assert peftmark(*args)[0] == 0
    written = read_yaml(tmp_path / "suites" / "tickets.yaml")
    assert written["models"] == {"mine": {"path": "./mine", "read_as": "classifier"}}
    assert written["model"] == "mine" and "embeddings" in written["methods"]
    assert "base" not in written["methods"]
    assert peftmark("inspect", "tickets")[0] == 0
    code, _, error = peftmark(
        *("new", "more", "--data", "t.csv", "--model", "minilm-l6", "--read-as", "classifier")
    )
    assert code == 2 and "is a model of the catalogue" in error


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("./gone", "there is no folder"),
        ("./minilm-l6", "the catalogue has a model of this name"),
        ("mine", "a folder is given with a slash, such as ./mine"),
        ("hub:a/b@main", "40 hexadecimal digits"),
    ],
)
def test_new_refuses_a_model_it_can_not_read_and_writes_nothing(peftmark, tmp_path, model, said):
    write(tmp_path, "t.csv", labelled())
    code, _, error = peftmark("new", "tickets", "--data", "t.csv", "--model", model)
    assert code == 2 and said in error
    assert not (tmp_path / "suites").exists()


@pytest.mark.parametrize("name", ["2024", "true", "null", "1e3", "no"])
def test_a_name_that_yaml_reads_as_something_else_is_quoted(name):
    text = suite_text(name, {"kind": "language", "train": "a.csv"}, "minilm-l6", ["lora"], [])
    read = yaml.safe_load(text)
    assert read["suite"] == name and list(read["tasks"]) == [name]


@pytest.mark.parametrize(("each", "batch"), [(2, 2), (4, 4), (9, 8), (12, None)])
def test_a_suite_of_few_rows_can_be_planned(peftmark, tmp_path, each, batch):
    rows = [f"{word} film number {i},{word}" for word in ("good", "bad") for i in range(each)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    code, _, error = peftmark("new", "mine", "--data", "t.csv")
    assert code == 0, error
    written = (tmp_path / "suites" / "mine.yaml").read_text()
    assert ("recipe:" in written) is (batch is not None)
    assert batch is None or f"recipe: {{batch_size: {batch}}}  # of " in written
    code, _, error = peftmark("plan", "mine", "--no-memory")
    assert code == 0, error


@pytest.mark.parametrize(
    ("double", "recipe"), [(True, None), (False, {"double_quantization": False})]
)
def test_a_suite_for_weights_that_are_quantised_already_has_cells_in_their_form(
    peftmark, tmp_path, double, recipe
):
    write(tmp_path, "t.csv", labelled())
    settings = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": double,
    }
    model_folder(tmp_path / "mine", BERT | {"quantization_config": settings})
    code, _, error = peftmark("new", "tickets", "--data", "t.csv", "--model", "./mine")
    assert code == 0, error
    written = yaml.safe_load((tmp_path / "suites" / "tickets.yaml").read_text())
    assert written["methods"] == [
        {"method": "lora", "quantization": ["nf4"]},
        {"method": "head", "quantization": ["nf4"]},
        "bag-of-words",
        {"method": "embeddings", "quantization": ["nf4"]},
    ]
    assert written.get("recipe") == recipe


def test_the_methods_that_are_tried_on_quantised_weights_are_those_that_can_be_put_on_them():
    tried = in_form(TRIED[False], StoredForm("nf4"))
    assert tried == [
        "{method: lora, quantization: [nf4]}",
        "{method: adalora, quantization: [nf4]}",
        "{method: head, quantization: [nf4]}",
        "bag-of-words",
    ]
    assert [name_in(entry) for entry in tried] == ["lora", "adalora", "head", "bag-of-words"]
    assert in_form(TRIED[False], None) == list(TRIED[False])
