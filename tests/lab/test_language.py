"""Causal language models: what is predicted, how classes are scored, what is written."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForCausalLM, GenerationConfig

import tiny
import tiny_causal
from peftmark.catalog.prompts import PROMPTS, Prompt
from peftmark.catalog.task import Example
from peftmark.catalog.tasks import TASKS
from peftmark.lab import forgetting, metrics, recipe
from peftmark.lab.data import causal_rows
from peftmark.lab.data.causal_rows import IGNORED, Reader, write
from peftmark.lab.data.job_data import prepare_work, task_of
from peftmark.lab.forgetting import perplexity, unrelated_batches
from peftmark.lab.models import Unsupported, load_tokenizer
from peftmark.lab.scoring import all_outputs, evaluate
from peftmark.lab.step import task_loss
from peftmark.memory.forecast import forecasts, request
from peftmark.sources.assets import Places
from peftmark.sources.task_data import load_task
from tiny_causal import job

CPU = torch.device("cpu")


@pytest.fixture(params=["llama", "gpt2"])
def places(request, tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch, request.param)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


@pytest.fixture
def llama(tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


def plain(places):
    """The model as transformers loads it, and its tokenizer."""
    folder = places.mirror / "models" / "tiny"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, load_tokenizer(folder)


def work_of(places, asked):
    return tiny.work(places, asked)


def token_likelihoods(model, tokenizer, prompt, answer):
    """Log-likelihood of each token of an answer after a prompt, with no batch and no cache."""
    asked = tokenizer(prompt)["input_ids"]
    said = tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([asked + said])).logits[0].double().log_softmax(-1)
    places = range(len(asked) - 1, len(asked) + len(said) - 1)
    return [float(logits[at, token]) for at, token in zip(places, said, strict=True)]


# --- what is predicted ----------------------------------------------------------------------------


def test_a_prompt_is_masked_and_an_answer_ends(llama):
    _, tokenizer = plain(llama)
    reader = Reader(tokenizer, 32, PROMPTS["tiny-answer"], 8)
    (one,) = reader.encode([Example("w1 w2", "very high", 0)])
    asked = tokenizer("w1 w2 ?")["input_ids"]
    said = tokenizer(" very high", add_special_tokens=False)["input_ids"]
    assert one["input_ids"] == [*asked, *said, tokenizer.eos_token_id]
    assert one["labels"] == [IGNORED] * len(asked) + [*said, tokenizer.eos_token_id]


def test_the_words_of_a_class_have_no_end(llama):
    _, tokenizer = plain(llama)
    reader = Reader(tokenizer, 32, PROMPTS["tiny-rank"])
    (one,) = reader.encode([Example("w1", None, 1)])
    said = tokenizer(" very very high", add_special_tokens=False)["input_ids"]
    assert one["labels"][-len(said) :] == said
    assert one["labels"][: -len(said)] == [IGNORED] * (len(one["labels"]) - len(said))


def test_a_long_row_loses_the_start_of_its_prompt_and_keeps_question_and_answer(llama):
    _, tokenizer = plain(llama)
    reader = Reader(tokenizer, 12, PROMPTS["tiny-answer"], 5)
    text = " ".join(tiny_causal.WORDS[:30])
    (one,) = reader.encode([Example(text, "very high", 0)])
    shown = tokenizer.decode(one["input_ids"])
    assert len(one["input_ids"]) == 7 + 3
    assert shown == "[BOS] w25 w26 w27 w28 w29 ? very high [EOS]"
    (asked,) = reader.prompts([Example(text, "very high", 0)])
    assert asked["input_ids"] == one["input_ids"][:7], "training and evaluation see one prompt"


def test_rows_without_room_for_a_prompt_are_refused(llama):
    _, tokenizer = plain(llama)
    with pytest.raises(Unsupported, match="an answer of 8 tokens leaves none of 8"):
        Reader(tokenizer, 8, PROMPTS["tiny-answer"], 8)
    with pytest.raises(Unsupported, match="an answer of 3 tokens"):
        Reader(tokenizer, 3, PROMPTS["tiny-rank"])
    tokenizer.eos_token = None
    with pytest.raises(Unsupported, match="no end of text"):
        Reader(tokenizer, 8)


def test_a_tokenizer_that_ends_every_text_does_not_end_a_prompt(llama):
    _, tokenizer = plain(llama)
    plainly = Reader(tokenizer, 32, PROMPTS["tiny-answer"], 8)
    rows = [Example("w1 w2", "very high", 0)]
    before = plainly.encode(rows)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    assert tokenizer("w1")["input_ids"][-1] == 3
    assert Reader(tokenizer, 32, PROMPTS["tiny-answer"], 8).encode(rows) == before


@pytest.mark.slow
def test_what_plan_predicts_is_what_a_step_takes(llama):
    """The request that `peftmark plan` makes, at the length and rows of the job's largest batch."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(llama.mirror / "models" / "tiny").to_dict()
    jobs = [job("lora", task) for task in ("tiny-rank", "tiny-answer", "tiny-text")]
    wanted = [
        replace(request(j, TASKS[j.task], config), tokens=max(work_of(llama, j).longest))
        for j in jobs
    ]
    told = forecasts(wanted, None, 1)
    live = [recipe.run(j, llama, lambda _: None).live_bytes for j in jobs]
    assert [(one.reason, one.total) for one in told] == [("", taken) for taken in live]


def test_a_repeat_reads_the_unrelated_text_anew(llama, monkeypatch):
    recipe.run(job("base"), llama, lambda _: None)
    monkeypatch.setattr(forgetting, "perplexity", lambda *_: 7.0)
    kept = recipe.run(job("base"), llama, lambda _: None)
    anew = recipe.run(job("base", purpose="repeat"), llama, lambda _: None)
    assert kept.unrelated_perplexity_before != 7.0
    assert anew.unrelated_perplexity_before == 7.0


def test_what_a_base_makes_of_unrelated_text_is_kept_by_the_type_it_is_stored_in(
    llama, monkeypatch
):
    recipe.run(job("base", precision="bf16"), llama, lambda _: None)
    monkeypatch.setattr(forgetting, "perplexity", lambda *_: 7.0)
    low = recipe.run(job("base", precision="bf16", weights="bf16"), llama, lambda _: None)
    assert low.unrelated_perplexity_before == 7.0


def test_biases_can_not_train_where_there_are_none(llama):
    for method in ("bitfit", "bitfit-lora"):
        with pytest.raises(Unsupported, match="has no biases"):
            recipe.run(job(method, "tiny-text"), llama, lambda _: None)


def test_an_answer_is_cut_at_what_may_be_written(llama):
    _, tokenizer = plain(llama)
    reader = Reader(tokenizer, 32, PROMPTS["tiny-answer"], 2)
    (one,) = reader.encode([Example("w1", "the words are low", 0)])
    assert [i for i in one["labels"] if i != IGNORED] == tokenizer(
        "the words", add_special_tokens=False
    )["input_ids"]


def loss_of(model, reader, rows, asked):
    batch = reader.batch(reader.encode(rows))
    return task_loss(model, batch, task_of(asked), asked, CPU).item(), batch


def with_other_prompt_labels(batch, prompts):
    """The batch with other tokens to predict where the prompts are, masked as the reader masks."""
    labels = batch.labels.clone()
    for row, length in zip(labels, prompts, strict=True):
        wanted = row.tolist()
        wanted[:length] = [5] * length
        row[:] = torch.tensor(causal_rows.masked(wanted, length))
    return replace(batch, labels=labels)


@pytest.mark.parametrize("task", ["tiny-rank", "tiny-answer"])
def test_labels_of_the_prompt_change_no_loss(llama, task, monkeypatch):
    model, tokenizer = plain(llama)
    asked = job(task=task)
    reader = Reader(tokenizer, 32, PROMPTS[task], asked.causal.new_tokens)
    rows = load_task(task_of(asked), llama).train[:6]
    loss, batch = loss_of(model, reader, rows, asked)
    prompts = [len(one["input_ids"]) for one in reader.prompts(rows)]

    def changed():
        other = with_other_prompt_labels(batch, prompts)
        return task_loss(model, other, task_of(asked), asked, CPU).item()

    assert changed() == loss
    # The same test sees a mask that is gone.
    monkeypatch.setattr(causal_rows, "masked", lambda labels, prompt: list(labels))
    assert abs(changed() - loss) > 0.01


def test_the_loss_is_that_of_the_answers_tokens_alone(llama):
    model, tokenizer = plain(llama)
    asked = job(task="tiny-answer")
    reader = Reader(tokenizer, 32, PROMPTS["tiny-answer"], 8)
    rows = load_task(task_of(asked), llama).train[:5]
    loss, _ = loss_of(model, reader, rows, asked)
    by_hand = []
    for row in rows:
        said = f" {row.pair} [EOS]"
        by_hand += token_likelihoods(model, tokenizer, f"{row.text} ?", said)
    assert loss == pytest.approx(-np.mean(by_hand), abs=1e-5)


def test_padding_changes_no_loss(llama):
    model, tokenizer = plain(llama)
    asked = job(task="tiny-answer")
    reader = Reader(tokenizer, 32, PROMPTS["tiny-answer"], 8)
    rows = load_task(task_of(asked), llama).train[:8]
    together, batch = loss_of(model, reader, rows, asked)
    counts = causal_rows.predicted_tokens(batch)
    apart = [loss_of(model, reader, [row], asked)[0] for row in rows]
    assert together == pytest.approx(np.average(apart, weights=counts), abs=1e-5)
    assert len(set(batch.inputs["attention_mask"].sum(1).tolist())) > 1, "no row was padded"


# --- scores ---------------------------------------------------------------------------------------


def test_class_scores_are_those_of_an_unbatched_computation(places):
    model, tokenizer = plain(places)
    asked = job()
    work = work_of(places, asked)
    found = all_outputs(model, work.eval.batches, asked, CPU)
    prompt, rows = PROMPTS["tiny-rank"], load_task(task_of(asked), places).eval
    by_text = {
        tuple(tokenizer(prompt.shown(row))["input_ids"]): [
            float(np.mean(token_likelihoods(model, tokenizer, prompt.shown(row), f" {words}")))
            for words in prompt.words
        ]
        for row in rows
    }
    shown = [
        tuple(i for i, there in zip(ids, mask, strict=True) if there)
        for batch in work.eval.batches
        for ids, mask in zip(
            batch.inputs["input_ids"].tolist(), batch.inputs["attention_mask"].tolist(), strict=True
        )
    ]
    wanted = torch.tensor([by_text[ids] for ids in shown])
    assert len(shown) == len(rows) == 40
    assert (found - wanted).abs().max() < 1e-4
    assert any((b.inputs["attention_mask"] == 0).any() for b in work.eval.batches)


def test_scores_are_a_tokens_not_a_words(llama):
    """Without normalising by length, three tokens would lose to one nearly always."""
    model, _ = plain(llama)
    asked = job()
    work = work_of(llama, asked)
    found = all_outputs(model, work.eval.batches, asked, CPU)
    lengths = torch.tensor([float(len(ids)) for ids in work.eval.batches[0].choices])
    assert lengths.tolist() == [1, 3]
    assert not torch.equal(found.argmax(1), (found * lengths).argmax(1))


def test_words_of_one_token_need_no_second_pass(llama, monkeypatch):
    monkeypatch.setitem(PROMPTS, "tiny-rank", Prompt("Text: {text} Half?", ("low", "high")))
    model, tokenizer = plain(llama)
    asked = job()
    work = work_of(llama, asked)
    found = all_outputs(model, work.eval.batches[:1], asked, CPU)
    ids = work.eval.batches[0].inputs["input_ids"][-1:]
    with torch.no_grad():
        last = model(ids).logits[0, -1].log_softmax(-1)
    low, high = (tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in ("low", "high"))
    assert torch.allclose(found[-1], last[[low, high]], atol=1e-5)


def test_row_likelihoods_are_those_of_an_unbatched_computation(places):
    model, _ = plain(places)
    asked = job(task="tiny-text")
    work = work_of(places, asked)
    found = all_outputs(model, work.eval.batches, asked, CPU)[:, 0]
    wanted = []
    for batch in work.eval.batches:
        for ids, mask in zip(
            batch.inputs["input_ids"], batch.inputs["attention_mask"], strict=True
        ):
            row = ids[mask.bool()]
            with torch.no_grad():
                chances = model(row[None]).logits[0, :-1].log_softmax(-1)
            wanted.append(float(chances.gather(-1, row[1:, None]).mean()))
    assert (found - torch.tensor(wanted)).abs().max() < 1e-4
    scores = evaluate(model, work.eval, work, task_of(asked), asked, CPU)
    assert scores.metrics["perplexity"] == pytest.approx(
        math.exp(-scores.metrics["log_likelihood"])
    )
    assert scores.metrics["log_likelihood"] == pytest.approx(
        np.average(wanted, weights=work.eval.references), abs=1e-5
    )


# --- answers --------------------------------------------------------------------------------------


def test_what_is_written_in_batches_is_what_is_written_alone(places):
    model, _ = plain(places)
    asked = job(task="tiny-answer")
    answers = work_of(places, asked).eval.answers
    for batch in answers.batches:
        together = write(model, batch, answers.reader, answers.new_tokens)
        for row in range(len(together)):
            ids = batch.inputs["input_ids"][row][batch.inputs["attention_mask"][row].bool()]
            alone = model.generate(
                ids[None],
                attention_mask=torch.ones_like(ids[None]),
                do_sample=False,
                max_new_tokens=answers.new_tokens,
                pad_token_id=0,
                eos_token_id=3,
            )[0, len(ids) :].tolist()
            cut = alone[: alone.index(3) + 1] if 3 in alone else alone
            assert together[row] == cut
    assert any((b.inputs["attention_mask"] == 0).any() for b in answers.batches)


def test_a_models_own_habits_of_writing_are_not_used(llama):
    asked = job(task="tiny-answer")
    answers = work_of(llama, asked).eval.answers

    def written():
        return write(tiny.base(llama, asked).eval(), answers.batches[0], answers.reader, 6)

    before = written()
    habits = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        repetition_penalty=50.0,
        max_new_tokens=2,
        suppress_tokens=[i for ids in before for i in ids][:3],
    )
    habits.save_pretrained(llama.mirror / "models" / "tiny")
    assert written() == before


@pytest.mark.parametrize(
    ("found", "wanted", "exact", "rouge"),
    [
        ("a number", "a number", 1, 1),
        ("A  Number.", "a number", 1, 1),
        ("the number", "a number", 0, 0.5),
        ("", "a number", 0, 0),
        ("no", "yes", 0, 0),
    ],
)
def test_answers_by_row(found, wanted, exact, rouge):
    by_row = metrics.answers([found], [wanted])
    assert by_row["exact_match"].tolist() == [exact]
    assert by_row["rouge_l"].tolist() == pytest.approx([rouge])


def test_a_pattern_says_what_counts_of_an_answer():
    pattern = r"####\s*(-?[\d,.]+\d)"
    found = ["so 3 #### 1,200", "#### 7 no #### 12", "12", ""]
    by_row = metrics.answers(found, ["a #### 1200", "#### 12", "#### 12", "#### 12"], pattern)
    assert by_row["exact_match"].tolist() == [1, 1, 0, 0]
    nothing = metrics.answers(["x"], ["y"], pattern)
    assert nothing["exact_match"].tolist() == [0], "two answers without a number are not equal"


# --- predictors that look at no row ---------------------------------------------------------------


def test_the_baseline_of_text_is_how_often_tokens_stand_in_training_rows(llama):
    asked = job(task="tiny-text")
    work = work_of(llama, asked)
    _, tokenizer = plain(llama)
    data = load_task(task_of(asked), llama)
    counts = np.ones(len(tokenizer))
    for row in data.train:
        for token in tokenizer(row.text)["input_ids"][1:]:
            counts[token] += 1
    wanted = [
        math.log(counts[token] / counts.sum())
        for row in data.eval
        for token in tokenizer(row.text)["input_ids"][1:]
    ]
    assert work.baseline == pytest.approx(np.mean(wanted))


def test_the_baseline_of_answers_is_the_commonest_one(llama):
    work = work_of(llama, job(task="tiny-answer"))
    # Both answers are equally common; the first of them is right in half the rows.
    assert work.baseline in (0.5, pytest.approx(0.5, abs=0.2))


def test_headings_and_blank_lines_are_not_read(llama):
    asked = job(task="tiny-text")
    data = load_task(task_of(asked), llama)
    short = replace(data, eval=(Example("= w1 =", None, 0), *data.eval, Example("", None, 0)))
    folder = llama.mirror / "models" / "tiny"
    work = prepare_work(asked, task_of(asked), short, load_tokenizer(folder), folder)
    assert len(work.eval.references) == len(data.eval)


# --- forgetting -----------------------------------------------------------------------------------


def test_unrelated_text_is_the_same_for_every_recipe_and_its_perplexity_by_hand(llama):
    model, tokenizer = plain(llama)
    asked = job(task="tiny-text", max_length=8)
    batches = unrelated_batches(asked, llama, tokenizer)
    found = perplexity(model, batches, asked, CPU)
    rows = load_task(task_of(job(task="tiny-other")), llama).eval
    chances = []
    for row in rows:
        chances += token_likelihoods(model, tokenizer, "", f" {row.text}")
    texts = sum(int(b.inputs["attention_mask"].sum()) for b in batches)
    longer = unrelated_batches(job(max_length=32), llama, tokenizer)
    assert texts == sum(int(b.inputs["attention_mask"].sum()) for b in longer)
    assert found == pytest.approx(math.exp(-np.mean(chances)), rel=0.02)  # 40 of 41 rows


# --- whole jobs -----------------------------------------------------------------------------------


def cells():
    """Every task with each method; in `make test` each task with one."""
    for task, (method, quantization) in product(
        ("tiny-rank", "tiny-answer", "tiny-text"),
        (
            ("lora", "none"),
            ("lora", "nf4"),
            ("adalora", "none"),
            ("adalora", "nf4"),
            ("full", "none"),
        ),
    ):
        often = method == ("adalora" if task == "tiny-rank" else "lora")
        often = often and (quantization == "nf4") == (method == "adalora")
        marks = () if often else pytest.mark.slow
        yield pytest.param(task, method, quantization, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "method", "quantization"), [*cells()])
def test_a_job_runs_and_its_memory_is_predicted_to_the_byte(llama, task, method, quantization):
    outcome = recipe.run(job(method, task, quantization), llama, lambda _: None)
    assert (outcome.status, outcome.status_reason) == ("ok", "")
    assert outcome.predicted_live_bytes == outcome.live_bytes
    assert outcome.prediction_error == 0
    assert outcome.unrelated_perplexity_before > 1
    assert outcome.unrelated_perplexity_after > 1
    assert outcome.unrelated_perplexity_after != outcome.unrelated_perplexity_before
    assert outcome.reload_max_error < 1e-4
    assert outcome.head_parameters == 0
    added = 0 if method == "full" else outcome.trainable_parameters
    divisors = 14 if method == "adalora" else 0  # one number a module
    assert outcome.total_parameters == 65_216 + added + divisors  # the tied embedding once
    assert outcome.tokens_per_second > 0
    assert len(outcome.predictions) == len(outcome.references) == 40
    wrote = task == "tiny-answer"
    assert (outcome.generated_tokens_per_second is not None) == wrote
    assert len(outcome.completions) == (40 if wrote else 0)
    assert outcome.metric_value == pytest.approx(
        metric_again(outcome.predictions, outcome.references, task), abs=1e-6
    )


@pytest.mark.slow
def test_memory_is_predicted_to_the_byte_for_a_batch_without_padding(llama):
    """Rows that are all cut at one length: the mask is there and dropped."""
    cut = job(task="tiny-text", max_length=8)
    assert recipe.run(cut, llama, lambda _: None).prediction_error == 0


def metric_again(predictions, references, task):
    if task == "tiny-rank":
        return float(np.mean(np.array(predictions) == np.array(references)))
    return float(np.average(predictions, weights=references))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["tiny-rank", "tiny-answer", "tiny-text"])
def test_training_beats_the_untouched_base_and_the_base_is_the_same_for_every_seed(llama, task):
    before = [recipe.run(job("base", task, seed=s), llama, lambda _: None) for s in (0, 1)]
    trained = recipe.run(job("lora", task, steps=60, eval_every=30), llama, lambda _: None)
    assert before[0].status == "ok"
    assert before[0].metric_value == before[1].metric_value
    assert trained.metric_value > before[0].metric_value
    base = before[0]
    assert base.unrelated_perplexity_before == base.unrelated_perplexity_after
    assert base.unrelated_perplexity_before == trained.unrelated_perplexity_before
    assert (base.steps, base.trainable_parameters) == (0, 0)
    assert base.live_bytes is None and base.train_seconds is None
    reasons = base.null_reasons
    assert reasons["live_bytes"] == reasons["train_seconds"] == "nothing trains"


def test_the_same_job_gives_the_same_bits(llama, unprobed):
    one, other = (recipe.run(job("lora", "tiny-answer"), llama, lambda _: None) for _ in "ab")
    assert one.final_weights_hash == other.final_weights_hash
    assert one.completions == other.completions
    assert one.unrelated_perplexity_after == other.unrelated_perplexity_after


def test_a_tuning_trial_reads_no_unrelated_text(llama):
    trial = job("lora", "tiny-rank", purpose="tuning", selection_rows=20)
    outcome = recipe.run(trial, llama, lambda _: None)
    assert outcome.status == "ok"
    assert outcome.unrelated_perplexity_before is None
    assert outcome.null_reasons["unrelated_perplexity_after"] == "a tuning trial measures quality"


@pytest.mark.parametrize(
    "method", ["ia3", *(pytest.param(m, marks=pytest.mark.slow) for m in ("dora", "peft:vera"))]
)
def test_checkpointing_and_other_methods_of_peft_work_on_a_language_model(llama, unprobed, method):
    asked = job(method, "tiny-answer", gradient_checkpointing=True)
    found = recipe.run(asked, llama, lambda _: None)
    assert found.status == "ok", found.status_reason
