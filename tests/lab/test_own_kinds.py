"""Kinds of task of one's own: several labels, choices, conversations, prompts; small files."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn
from transformers import AutoModelForCausalLM

import own_tasks
import tiny
import tiny_causal
from peftmark.catalog.prompts import PROMPTS, Prompt, prompt_of
from peftmark.catalog.task import Example
from peftmark.catalog.tasks import TASKS
from peftmark.lab import recipe, scoring
from peftmark.lab.data.batches import draw_rows, subset
from peftmark.lab.data.causal_rows import ABSENT, IGNORED, Reader
from peftmark.lab.data.job_data import cut_selection, task_of
from peftmark.lab.models import Unsupported, load_tokenizer
from peftmark.lab.rng import generator
from peftmark.lab.scoring import all_outputs
from peftmark.lab.step import task_loss
from peftmark.memory.forecast import forecasts, request
from peftmark.sources.assets import Places

CPU = torch.device("cpu")
LABELS = ("first", "second", "long")


def made(tmp_path, monkeypatch, architecture):
    where = tiny_causal if architecture in tiny_causal.CONFIGS else tiny
    where.install(tmp_path / "mirror", monkeypatch, architecture)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


@pytest.fixture
def bert(tmp_path, monkeypatch):
    return made(tmp_path, monkeypatch, "bert")


@pytest.fixture
def llama(tmp_path, monkeypatch):
    places = made(tmp_path, monkeypatch, "llama")
    folder = places.mirror / "models" / "tiny"
    tokenizer = tiny_causal.tokenizer()
    tokenizer.chat_template = own_tasks.CHAT
    # In tokenizer_config.json: a file of its own is read of models alone whose hash of it is known.
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    return places


@pytest.fixture(params=["llama", "gpt2"])
def causal(request, tmp_path, monkeypatch):
    return made(tmp_path, monkeypatch, request.param)


def run(places, job):
    return recipe.run(job, places, lambda _: None)


# --- several labels -------------------------------------------------------------------------------


LABELLED = ("subset_accuracy", "micro_f1", "macro_f1", "auroc")


@pytest.fixture
def tagged(monkeypatch):
    """A task of three labels, scored by every metric of them."""
    task = own_tasks.task_of("tags", "multi-label", LABELS, metric=LABELLED[0], also=LABELLED[1:])
    own_tasks.install(monkeypatch, task, own_tasks.tagged(96), own_tasks.tagged(40))


def ones_and_zeros(rows):
    """The labels of rows, shape (rows, labels)."""
    return np.array([[float(at in row.tags) for at in range(len(LABELS))] for row in rows])


def tagged_job(**more):
    return replace(tiny.job(task="tags", **more), metric="subset_accuracy")


@pytest.mark.slow
def test_several_labels_train_and_their_memory_is_predicted_to_the_byte(bert, tagged):
    outcome = run(bert, tagged_job(steps=60, eval_every=30))
    assert (outcome.status, outcome.status_reason) == ("ok", "")
    assert outcome.predicted_live_bytes == outcome.live_bytes
    assert outcome.prediction_error == 0
    assert outcome.reload_max_error < 1e-5
    assert outcome.eval_rows == 40
    # Ones and zeros, row after row: from them every metric can be computed again.
    shape = (40, len(LABELS))
    found, wanted = (np.reshape(v, shape) for v in (outcome.predictions, outcome.references))
    assert set(np.unique(found)) == {0, 1}
    assert list(outcome.metrics) == list(LABELLED)
    assert outcome.metric_value == outcome.metrics["subset_accuracy"]
    assert outcome.metric_value == pytest.approx(sk.accuracy_score(wanted, found))
    for average in ("micro", "macro"):
        by_hand = sk.f1_score(wanted, found, average=average, zero_division=0)
        assert outcome.metrics[f"{average}_f1"] == pytest.approx(by_hand)
    assert outcome.metrics["auroc"] > 0.8
    assert (found[:, :2] == wanted[:, :2]).mean() > 0.8, "which half is learned"
    assert {tuple(row) for row in wanted} == {(1, 0, 0), (0, 1, 0), (1, 0, 1), (0, 1, 1)}
    # The constant guess: the labels that more than half of the training rows have.
    often = ones_and_zeros(own_tasks.tagged(96)).mean(axis=0) > 0.5
    constant = sk.accuracy_score(wanted, np.tile(often, (40, 1)))
    assert outcome.baseline_value == pytest.approx(constant)
    assert outcome.metric_value > outcome.baseline_value


def test_labels_of_a_row_are_ones_and_zeros_in_training_and_evaluation(bert, tagged):
    work = tiny.work(bert, tagged_job())
    rows = own_tasks.tagged(96)
    batch = work.train(0)
    wanted = [[float(at in rows[i].tags) for at in range(3)] for i in work.order[0]]
    assert batch.labels.dtype == torch.float32
    assert batch.labels.tolist() == wanted
    assert not batch.text
    held = torch.cat([batch.labels for batch in work.eval.batches])
    assert held.tolist() == work.eval.references.tolist()
    assert sorted(map(tuple, held.tolist())) == sorted(
        tuple(float(at in row.tags) for at in range(3)) for row in own_tasks.tagged(40)
    )


def test_the_loss_of_several_labels_is_that_of_each_label_apart(bert, tagged):
    job = tagged_job()
    model = tiny.base(bert, job).eval()
    batch = tiny.work(bert, job).train(0)
    loss = task_loss(model, batch, task_of(job), job, CPU)
    chances = torch.sigmoid(model(**batch.inputs).logits)
    by_hand = -torch.where(batch.labels == 1, chances, 1 - chances).log().mean()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6)


def test_a_label_is_predicted_from_a_probability_of_a_half_on(bert, tagged, monkeypatch):
    job = tagged_job()
    work = tiny.work(bert, job)
    outputs = torch.tensor([[-0.1, 0.0, 2.0]] * 40)
    monkeypatch.setattr(scoring, "all_outputs", lambda *_: outputs)
    scores = scoring.evaluate(nn.Identity(), work.eval, work, task_of(job), job, CPU)
    assert scores.predictions.tolist() == [[0, 1, 1]] * 40
    assert scores.constant
    assert scores.metrics["auroc"] == 0.5


def test_the_area_under_the_curve_reads_each_labels_own_probability(bert, tagged, monkeypatch):
    job = tagged_job()
    work = tiny.work(bert, job)
    wanted = work.eval.references
    # Label by label better: the last is told by its logit alone, the first not at all.
    noise = np.random.default_rng(0).normal(size=wanted.shape)
    outputs = noise + np.array([0.0, 1.0, 9.0]) * wanted
    monkeypatch.setattr(scoring, "all_outputs", lambda *_: torch.tensor(outputs))
    scores = scoring.evaluate(nn.Identity(), work.eval, work, task_of(job), job, CPU)
    areas = [sk.roc_auc_score(wanted[:, at], outputs[:, at]) for at in range(3)]
    assert areas[0] < areas[1] < areas[2]
    assert scores.metrics["auroc"] == pytest.approx(np.mean(areas))
    found = outputs >= 0
    assert scores.metrics["macro_f1"] == pytest.approx(sk.f1_score(wanted, found, average="macro"))
    assert not scores.constant


@pytest.mark.slow
def test_plan_predicts_a_step_of_several_labels(bert, tagged):
    from transformers import AutoConfig

    job = tagged_job()
    config = AutoConfig.from_pretrained(bert.mirror / "models" / "tiny").to_dict()
    longest = max(tiny.work(bert, job).longest)
    (told,) = forecasts([replace(request(job, TASKS["tags"], config), tokens=longest)], None, 1)
    assert (told.reason, told.total) == ("", run(bert, job).live_bytes)


# --- choices --------------------------------------------------------------------------------------


@pytest.fixture
def choosing(monkeypatch):
    task = own_tasks.task_of("choose", "multiple-choice", prompt="Text: {text} Half?")
    own_tasks.install(monkeypatch, task, own_tasks.choosing(96), own_tasks.choosing(40))


def likelihood(model, tokenizer, prompt, answer):
    """Log-likelihood a token of an answer after a prompt, with no batch and no cache."""
    asked = tokenizer(prompt)["input_ids"]
    said = tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([asked + said])).logits[0].double().log_softmax(-1)
    places = range(len(asked) - 1, len(asked) + len(said) - 1)
    return float(np.mean([logits[at, t].item() for at, t in zip(places, said, strict=True)]))


def test_choices_are_scored_as_an_unbatched_computation_scores_them(causal, choosing):
    job = tiny_causal.job(task="choose", eval_batch_size=2)
    folder = causal.mirror / "models" / "tiny"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(folder)
    work = tiny.work(causal, job)
    found = all_outputs(model, work.eval.batches, job, CPU)
    widths = {max(map(len, batch.row_choices)) for batch in work.eval.batches}
    assert len(widths) > 1, "batches differ in the most choices of a row"
    rows = {row.text: row for row in own_tasks.choosing(40)}
    shown = [
        tokenizer.decode([i for i, there in zip(ids, mask, strict=True) if there][3:-2])
        for batch in work.eval.batches
        for ids, mask in zip(
            batch.inputs["input_ids"].tolist(), batch.inputs["attention_mask"].tolist(), strict=True
        )
    ]
    assert sorted(shown) == sorted(rows)
    wanted = torch.full((40, 4), ABSENT)
    for at, text in enumerate(shown):
        for place, choice in enumerate(rows[text].choices):
            prompt = f"Text: {text} Half?"
            wanted[at, place] = likelihood(model, tokenizer, prompt, f" {choice}")
    assert (found - wanted).abs().max() < 1e-4
    assert {len(row.choices) for row in rows.values()} == {2, 3, 4}
    assert work.eval.references.tolist() == [rows[text].label for text in shown]
    assert (found == ABSENT).any(), "every row has as many choices: nothing is tested"
    assert (found[range(40), found.argmax(1)] > ABSENT).all()


@pytest.mark.slow
def test_choices_train_and_their_memory_is_predicted_to_the_byte(llama, choosing):
    before = run(llama, tiny_causal.job("base", "choose"))
    outcome = run(llama, tiny_causal.job("lora", "choose", steps=60, eval_every=30))
    assert (outcome.status, outcome.status_reason) == ("ok", "")
    assert outcome.predicted_live_bytes == outcome.live_bytes
    assert outcome.reload_max_error < 1e-4
    assert outcome.metric_value > before.metric_value
    assert outcome.metric_value > 0.8
    right = np.array(outcome.predictions) == np.array(outcome.references)
    assert outcome.metric_value == pytest.approx(right.mean())
    assert set(outcome.references) == {0, 1, 2, 3}
    assert outcome.completions == ()


def test_the_right_choice_alone_is_trained(llama, choosing):
    tokenizer = load_tokenizer(llama.mirror / "models" / "tiny")
    reader = Reader(tokenizer, 32, prompt_of(TASKS["choose"]))
    row = Example("w1 w2", None, 1, choices=("low", "very high", "are"))
    (one,) = reader.encode([row])
    said = tokenizer(" very high", add_special_tokens=False)["input_ids"]
    assert [i for i in one["labels"] if i != IGNORED] == said
    assert one["input_ids"][-len(said) :] == said
    (asked,) = reader.prompts([row])
    assert one["input_ids"] == asked["input_ids"] + said, "training and evaluation see one prompt"


def test_every_choice_of_a_long_row_sees_the_same_prompt(llama, choosing):
    tokenizer = load_tokenizer(llama.mirror / "models" / "tiny")
    reader = Reader(tokenizer, 10, prompt_of(TASKS["choose"]))
    row = Example(" ".join(["w1"] * 30), None, 0, choices=("low", "very very high"))
    (asked,) = reader.prompts([row])
    assert len(asked["input_ids"]) == 10 - 3
    with pytest.raises(Unsupported, match="an answer of 12 tokens leaves none of 10"):
        reader.prompts([replace(row, choices=("low", " ".join(["w1"] * 12)))])
    with pytest.raises(Unsupported, match="has no tokens"):
        reader.prompts([replace(row, choices=("low", ""))])


def test_the_baseline_of_choices_is_the_place_that_is_right_most_often(llama, choosing):
    work = tiny.work(llama, tiny_causal.job(task="choose"))
    places = [row.label for row in own_tasks.choosing(96)]
    commonest = max(sorted(set(places)), key=places.count)
    wanted = np.mean([row.label == commonest for row in own_tasks.choosing(40)])
    assert work.baseline == pytest.approx(wanted)
    assert 0 < wanted < 1


# --- conversations --------------------------------------------------------------------------------


@pytest.fixture
def chatting(monkeypatch):
    task = own_tasks.task_of(
        "chat", "instruction", metric="rouge_l", also=("exact_match", "completion_perplexity")
    )
    own_tasks.install(monkeypatch, task, own_tasks.chatting(96), own_tasks.chatting(40))


@pytest.mark.slow
def test_conversations_train_and_their_memory_is_predicted_to_the_byte(llama, chatting):
    before = run(llama, tiny_causal.job("base", "chat", max_length=40))
    job = tiny_causal.job("lora", "chat", steps=120, eval_every=60, max_length=40)
    outcome = run(llama, job)
    assert (outcome.status, outcome.status_reason) == ("ok", "")
    assert outcome.predicted_live_bytes == outcome.live_bytes
    assert outcome.reload_max_error < 1e-4
    assert outcome.metric_value > before.metric_value
    assert outcome.metric_value > 0.8
    assert len(outcome.completions) == outcome.eval_rows == 40
    wrote = dict.fromkeys(outcome.completions)
    assert {"the words are low", "very high"} & set(wrote)
    assert outcome.metrics["completion_perplexity"] < before.metrics["completion_perplexity"]


def test_the_loss_of_a_conversation_is_that_of_the_assistants_tokens(llama, chatting):
    job = tiny_causal.job(task="chat", max_length=40)
    folder = llama.mirror / "models" / "tiny"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(folder)
    work = tiny.work(llama, job)
    loss = task_loss(model, work.train(0), task_of(job), job, CPU).item()
    rows, by_hand = own_tasks.chatting(96), []
    for number in work.order[0]:
        before = "[BOS]"
        for role, content in rows[number].turns:
            ids = tokenizer(before, add_special_tokens=False)["input_ids"]
            if role != "assistant":
                before += f"Text : {content} ?"
                continue
            said = tokenizer(f" {content}[EOS]", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                chances = model(torch.tensor([ids + said])).logits[0].log_softmax(-1)
            by_hand += [chances[len(ids) + i - 1, t].item() for i, t in enumerate(said)]
            before += f" {content}[EOS]"
    assert loss == pytest.approx(-np.mean(by_hand), abs=1e-5)


def test_a_model_without_a_chat_template_is_refused_before_training(tmp_path, monkeypatch):
    places = made(tmp_path, monkeypatch, "llama")
    task = own_tasks.task_of("chat", "instruction", metric="rouge_l")
    own_tasks.install(monkeypatch, task, own_tasks.chatting(8), own_tasks.chatting(4))
    with pytest.raises(Unsupported, match="no chat template"):
        run(places, tiny_causal.job(task="chat"))


# --- prompts of one's own -------------------------------------------------------------------------


def test_the_catalogues_prompts_are_what_they_were():
    for key, task in TASKS.items():
        assert prompt_of(task) is PROMPTS.get(key)


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        (own_tasks.task_of("a", "instruction"), Prompt("{text}", own=True)),
        (own_tasks.task_of("a", "instruction", prompt="Q: {text}"), Prompt("Q: {text}", own=True)),
        (own_tasks.task_of("a", "multiple-choice"), Prompt("{text}\nAnswer:", own=True)),
        (
            own_tasks.task_of("a", "classification", ("n", "y"), words=("no", "yes")),
            Prompt("{text}\nLabel:", ("no", "yes"), own=True),
        ),
        (
            own_tasks.task_of(
                "a", "ranking", ("n", "y"), words=("bad", "good"), prompt="{text} Is it?"
            ),
            Prompt("{text} Is it?", ("bad", "good"), own=True),
        ),
        (
            own_tasks.task_of("a", "ranking", ("n", "y"), words=("no", "yes"), fields=("q", "a")),
            Prompt("Text 1: {text}\nText 2: {pair}\nLabel:", ("no", "yes"), own=True),
        ),
        (own_tasks.task_of("a", "language"), None),
        (own_tasks.task_of("sst-2", "multi-label", ("x", "y")), None),
    ],
)
def test_a_task_of_ones_own_is_shown_as_it_declares(task, wanted):
    assert prompt_of(task) == wanted


@pytest.mark.parametrize(
    ("template", "text", "answer", "joined"),
    [
        ("{text}", "2 + 2 =", "4", "2 + 2 = 4"),
        ("{text}", "### Response:\n", "Yes", "### Response:\nYes"),
        ("{text}", "2 + 2 =", " 4", "2 + 2 = 4"),
        ("Q: {text}\nA:\n", "why", "so", "Q: why\nA:\nso"),
    ],
)
def test_an_answer_follows_its_prompt_with_one_white_space(template, text, answer, joined):
    prompt = Prompt(template, own=True)
    row = Example(text, answer, 0)
    assert prompt.shown(row) + prompt.answer(row) == joined
    choice = Example(text, None, 1, choices=("no", answer))
    assert prompt.shown(choice) + prompt.answer(choice) == joined
    assert Prompt(template).answer(row) == f" {answer}", "the catalogue's stay as they are"


@pytest.mark.slow
def test_own_classes_and_own_answers_train_on_a_language_model(llama, monkeypatch):
    task = own_tasks.task_of(
        "sort", "classification", ("no", "yes"), prompt="Text: {text} Half?",
        words=("low", "very very high"),
    )  # fmt: skip
    own_tasks.install(monkeypatch, task, own_tasks.labelled(96), own_tasks.labelled(40))
    sorted_ = run(llama, tiny_causal.job("lora", "sort", steps=60, eval_every=30))
    assert (sorted_.status, sorted_.prediction_error) == ("ok", 0)
    assert sorted_.metric_value > 0.8
    task = own_tasks.task_of("say", "instruction", metric="exact_match", prompt="{text} ?")
    own_tasks.install(monkeypatch, task, own_tasks.answering(96), own_tasks.answering(40))
    saying = run(llama, tiny_causal.job("lora", "say", steps=60, eval_every=30))
    assert (saying.status, saying.prediction_error) == ("ok", 0)
    assert saying.metric_value > 0.8


def test_own_text_without_spaces_between_its_words_is_read(llama, monkeypatch, training_alone):
    rows = [Example(f"w{i},w{i + 1},w{i + 2}", None, 0) for i in range(20)]
    empty = [Example("", None, 0), Example(" ", None, 0)]
    task = own_tasks.task_of("plain", "language", metric="log_likelihood", also=("perplexity",))
    own_tasks.install(monkeypatch, task, [*rows, *empty], [*empty, *rows[:3]])
    outcome = run(llama, tiny_causal.job("lora", "plain", steps=4, eval_every=4))
    assert (outcome.status, outcome.train_rows, outcome.eval_rows) == ("ok", 20, 3)


# --- copies ---------------------------------------------------------------------------------------


def test_choices_and_turns_tell_rows_apart_and_copies_leave_with_a_selection_row():
    chats = [
        Example("", None, 0, turns=(("user", f"w{i % 8}"), ("assistant", "x"))) for i in range(16)
    ]
    rest, cut = cut_selection(chats, 4)
    assert len(cut) == 4
    assert not {row.read for row in cut} & {row.read for row in rest}
    assert rest, "text alone would make all rows copies of one"
    asked = [Example("same", None, 0, choices=("a", f"b{i}")) for i in range(10)]
    rest, cut = cut_selection(asked, 4)
    assert (len(rest), len(cut)) == (6, 4)
    assert subset(asked, 4) == subset(asked[::-1], 4)


def test_the_order_of_rows_without_choices_and_turns_is_as_it_was():
    rows = [Example(f"text {i}", None if i % 2 else "pair", i) for i in range(30)]

    def key(row):
        return hashlib.sha256(f"{row.text}\n{row.pair}".encode()).digest()

    assert list(subset(rows, 12)) == sorted(rows, key=key)[:12]


# --- small files ----------------------------------------------------------------------------------


def test_few_rows_are_drawn_again_and_again():
    drawn = draw_rows(3, 32, generator(0, "order"))
    assert len(drawn) == 32
    assert all(sorted(drawn[i : i + 3]) == [0, 1, 2] for i in range(0, 30, 3))
    assert draw_rows(1, 5, generator(0, "order")).tolist() == [0] * 5


SMALL = {
    "classification": (own_tasks.labelled, ("a", "b"), "accuracy"),
    "regression": (own_tasks.labelled, (), "pearson"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize(("train", "evaluation"), [(3, 1), (2, 3), (1, 1)])
def test_a_few_rows_are_enough_for_an_encoder(bert, monkeypatch, kind, train, evaluation):
    rows, labels, metric = SMALL[kind]
    task = own_tasks.task_of("few", kind, labels, metric=metric)
    own_tasks.install(monkeypatch, task, rows(train), rows(evaluation))
    outcome = run(bert, replace(tiny.job(task="few", eval_rows=100), metric=metric))
    assert outcome.status == "ok"
    assert (outcome.train_rows, outcome.eval_rows) == (train, evaluation)
    assert outcome.latency_p50_seconds > 0
    assert outcome.prediction_error == 0


@pytest.mark.parametrize(
    ("kind", "rows", "labels", "metric"),
    [
        ("multiple-choice", own_tasks.choosing, (), "accuracy"),
        ("instruction", own_tasks.chatting, (), "rouge_l"),
        ("classification", own_tasks.labelled, ("low", "high"), "accuracy"),
    ],
)
def test_a_few_rows_are_enough_for_a_language_model(
    llama, monkeypatch, unprobed, kind, rows, labels, metric
):
    task = own_tasks.task_of("few", kind, labels, metric=metric)
    own_tasks.install(monkeypatch, task, rows(3), rows(1))
    outcome = run(llama, tiny_causal.job("lora", "few", max_length=40))
    assert (outcome.status, outcome.train_rows, outcome.eval_rows) == ("ok", 3, 1)
    assert outcome.latency_p50_seconds > 0


def test_no_rows_left_is_said_before_a_model_is_loaded(bert, monkeypatch):
    task = own_tasks.task_of("few", "classification", ("a", "b"))
    own_tasks.install(monkeypatch, task, own_tasks.labelled(4), own_tasks.labelled(2))
    with pytest.raises(Unsupported, match=r"4 rows to train on and 2 to score; selection_rows: 9"):
        tiny.work(bert, tiny.job(task="few", selection_rows=9))
    with pytest.raises(Unsupported, match="selection_rows: 0 cuts none for a tuning trial"):
        tiny.work(bert, tiny.job(task="few", purpose="tuning"))
    own_tasks.install(monkeypatch, task, own_tasks.labelled(4), [])
    with pytest.raises(Unsupported, match="4 rows to train on and 0 to score"):
        tiny.work(bert, tiny.job(task="few"))


def test_scores_that_are_all_the_same_have_no_scale(bert, monkeypatch):
    task = own_tasks.task_of("flat", "regression", metric="pearson")
    rows = [Example(f"w{i}", None, 2.5) for i in range(9)]
    own_tasks.install(monkeypatch, task, rows, rows[:3])
    work = tiny.work(bert, replace(tiny.job(task="flat"), metric="pearson"))
    assert (work.mean, work.scale) == (2.5, 1.0)
    assert work.train(0).labels.tolist() == [0.0] * 8
