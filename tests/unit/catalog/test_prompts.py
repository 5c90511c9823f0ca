"""Prompts of causal language models: what they show, what they want, and what names them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftmark.catalog.prompts import PROMPTS, Prompt
from peftmark.catalog.task import Example, read_by
from peftmark.catalog.tasks import TASKS

# Another wording gives other numbers, so what was measured has to be measured anew: raise the
# prompt's version with it, and change the pinned identity here.
PINNED = {
    "cola": "1:ddc503b0fd731eed",
    "sst-2": "1:6936db43272b7516",
    "mrpc": "1:d92aa431bd4609a4",
    "qqp": "1:ecfd683d14bd20dc",
    "mnli": "1:1aa2da503223de33",
    "mnli-mismatched": "1:1aa2da503223de33",
    "qnli": "1:df39476657a363b7",
    "rte": "1:2b54fb7bff3c2e8e",
    "wnli": "1:da3dc88c8c2fa12b",
    "sts-pairs": "1:7c9d4aed38088c07",
    "imdb": "1:6936db43272b7516",
    "movie": "1:6936db43272b7516",
    "trec": "1:1237d713f2b48a93",
    "labelled-instructions": "1:89811bfae348ebfa",
    "chatterbot": "1:3c9fe6feb33c5d8e",
    "dolly": "1:7c10bd2e34eee248",
    "gsm8k": "1:3c9fe6feb33c5d8e",
    "metamathqa": "1:24f067b166ef5755",
}


def asked() -> list[str]:
    """Tasks that a causal language model answers."""
    return [key for key, task in TASKS.items() if read_by(task, True) in ("ranking", "instruction")]


def test_every_task_that_is_answered_has_a_prompt_and_no_other_has() -> None:
    assert set(PROMPTS) == set(asked())


@pytest.mark.parametrize("key", PROMPTS)
def test_a_prompt_shows_what_the_row_has(key: str) -> None:
    task, prompt = TASKS[key], PROMPTS[key]
    row = Example("the first", "the second", 0)
    if task.kind == "classification" and len(task.fields) == 1:
        row = replace(row, pair=None)
    shown = prompt.shown(row)
    assert shown.count("the first") == 1
    # The second text of an instruction is the answer, which must not be told.
    both = task.kind == "classification" and len(task.fields) == 2
    assert shown.count("the second") == int(both)
    assert "{" not in shown
    assert not shown.endswith(" "), "the answer begins with a space"


@pytest.mark.parametrize("key", PROMPTS)
def test_classes_have_a_word_each_and_instructions_have_none(key: str) -> None:
    task, words = TASKS[key], PROMPTS[key].words
    assert len(words) == len(task.labels)
    assert len(set(words)) == len(words)
    for word in words:
        assert word == word.strip() != ""
        # Of two words one of which begins the other, the shorter one would always be likelier.
        assert not any(other.startswith(word) for other in words if other != word)
    for label, word in enumerate(words):
        assert PROMPTS[key].answer(Example("a", "b", label)) == f" {word}"
    if not words:
        assert PROMPTS[key].answer(Example("a", "b c", 0)) == " b c"


@pytest.mark.parametrize(
    ("key", "yes"),
    [
        ("cola", "acceptable"),
        ("mrpc", "equivalent"),
        ("qqp", "duplicate"),
        ("mnli", "entailment"),
        ("qnli", "entailment"),
        ("rte", "entailment"),
        ("wnli", "entailment"),
        ("sts-pairs", "similar"),
    ],
)
def test_yes_stands_for_the_label_that_says_yes(key: str, yes: str) -> None:
    assert dict(zip(TASKS[key].labels, PROMPTS[key].words, strict=True))[yes] == "yes"


def test_the_questions_of_trec_ask_for_what_their_labels_mean() -> None:
    assert dict(zip(TASKS["trec"].labels, PROMPTS["trec"].words, strict=True)) == {
        "ABBR": "an abbreviation",
        "ENTY": "a thing",
        "DESC": "a description",
        "HUM": "a person",
        "LOC": "a place",
        "NUM": "a number",
    }


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("{pair}", "{text}"),
        ("{text} {text}", "{pair}"),
        ("{0} {a!r} {", "}} %s"),
        (r"\1 \g<0>", "\\"),
        ("$text", "line\nline"),
    ],
)
def test_a_text_that_looks_like_a_template_stays_as_it_is(text: str, pair: str) -> None:
    prompt = Prompt("1: {text}\n2: {pair}\nSame?", ("no", "yes"))
    assert prompt.shown(Example(text, pair, 1)) == f"1: {text}\n2: {pair}\nSame?"


def test_the_identity_changes_with_wording_words_and_version_alone() -> None:
    prompt = Prompt("{text} Answer:", ("no", "yes"))
    others = [
        replace(prompt, text="{text} answer:"),
        replace(prompt, words=("No", "yes")),
        replace(prompt, words=("yes", "no")),
        replace(prompt, words=()),
        replace(prompt, version=2),
        replace(prompt, text="{text} Answer:no", words=("yes",)),
    ]
    identities = [prompt.identity, *(other.identity for other in others)]
    assert len(set(identities)) == len(identities)
    assert Prompt("{text} Answer:", ("no", "yes")).identity == prompt.identity
    assert prompt.identity.startswith("1:")
    assert others[4].identity == "2:" + prompt.identity.removeprefix("1:")


@pytest.mark.parametrize("key", PROMPTS)
def test_no_prompt_changed_under_the_numbers(key: str) -> None:
    assert PROMPTS[key].identity == PINNED[key]


# --- who reads what -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "causal", "kind"),
    [
        ("trec", False, "classification"),
        ("trec", True, "ranking"),
        ("sts-b", False, "regression"),
        ("sts-b", True, None),
        ("chatterbot", False, None),
        ("chatterbot", True, "instruction"),
        ("reviews", False, None),
        ("reviews", True, "language"),
    ],
)
def test_a_model_reads_the_tasks_of_its_sort(key: str, causal: bool, kind: str | None) -> None:
    assert read_by(TASKS[key], causal) == kind
