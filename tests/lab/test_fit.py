"""Reference lines that need no fine-tuning: held to scikit-learn, told apart from training."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

import tiny
from peftmark.catalog.methods import METHODS
from peftmark.catalog.task import Example, Task
from peftmark.catalog.tasks import TASKS
from peftmark.lab import fit, recipe
from peftmark.lab.data.held_out import HeldOut, labels_of
from peftmark.lab.methods import estimator, features
from peftmark.lab.methods.estimator import STRENGTHS, choose, linear_from
from peftmark.lab.models import Unsupported
from peftmark.record.job import Outcome

LINES = ("bag-of-words", "embeddings")


def silent(message):
    return None


def run(places, method, task="tiny-class", seed=0, **changes):
    made = tiny.job(method, task=task, seed=seed, **changes)
    return recipe.run(made, places, silent)


def texts(rows: list[tuple[str, object]], pair: str | None = None) -> HeldOut:
    """Rows of (text, label) or, of several labels, (text, tags)."""
    made = [
        Example(t, pair, 0, tags=y) if isinstance(y, tuple) else Example(t, pair, y)
        for t, y in rows
    ]
    return HeldOut([], np.array([row.label for row in made]), examples=made)


TICKETS = texts(
    [
        ("The invoice is wrong, please refund me", 0),
        ("I was charged twice for one invoice", 0),
        ("Refund my last payment!", 0),
        ("The app crashes when I log in", 1),
        ("Log in fails with an error", 1),
        ("Error 5 when the app starts", 1),
        ("Where is my parcel?", 2),
        ("The parcel came late and broken", 2),
        ("Parcel lost, I want it sent again", 2),
    ]
)
LABELS = np.array([row.label for row in TICKETS.examples])
PLAIN = [row.text for row in TICKETS.examples]


def independent_words(train: list[str], held: list[str]):
    """Features as anyone would write them down."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    return vectorizer.fit_transform(train), vectorizer.transform(held)


def task_of(kind: str, labels: tuple[str, ...]) -> Task:
    return replace(TASKS["sst-2"], key="t", kind=kind, labels=labels)


# --- the whole job ------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["tiny-class", "tiny-score"])
@pytest.mark.parametrize("method", LINES)
def test_a_line_learns_and_reports_what_has_a_meaning(places, method, task):
    seen = []
    done = recipe.run(tiny.job(method, task=task, selection_rows=20), places, seen.append)
    assert done.status == "ok"
    assert done.metric_value > done.baseline_value + 0.1
    assert (done.train_rows, done.selection_rows, done.eval_rows) == (76, 20, 40)
    assert len(done.predictions) == len(done.references) == 40
    assert done.optimizer.startswith(
        ("logistic", "ridge")[task == "tiny-score"] + " regression, C = "
    )
    assert done.optimizer.endswith("of 0.001, 0.01, 0.1, 1, 10")
    assert done.selection_metric_value > 0
    assert 0 < done.trainable_parameters < done.saved_parameters <= done.total_parameters
    assert done.adapter_bytes > 8 * done.saved_parameters
    assert 0 < done.latency_p50_seconds <= done.latency_p95_seconds
    assert done.reload_max_error == 0
    assert done.collapsed is False
    assert set(done.phase_seconds) >= {"load", "tokenise", "fit", "evaluate", "save", "deploy"}
    assert {"phase": "fit"} in seen
    assert bool(done.base_format) == (method == "embeddings")


@pytest.mark.slow
@pytest.mark.parametrize("method", LINES)
@pytest.mark.parametrize("selection", [0, 20])
def test_every_null_has_a_reason_and_every_reason_a_null(places, method, selection):
    done = run(places, method, selection_rows=selection)
    nulls = {f.name for f in fields(Outcome) if getattr(done, f.name) is None}
    assert nulls == set(done.null_reasons)
    assert done.null_reasons["steps"] == "an estimator is fitted, nothing trains by steps"
    assert ("selection_metric_value" in nulls) == (selection == 0)
    assert {"steps", "live_bytes", "samples_per_second", "merge_target"} <= nulls
    assert Outcome.from_json(done.to_json()) == done


@pytest.mark.parametrize("method", LINES)
def test_two_runs_give_the_same_bits_and_so_do_two_seeds(places, method):
    first, again, other = (run(places, method, seed=seed, selection_rows=20) for seed in (0, 0, 1))
    for done in (again, other):
        assert done.predictions == first.predictions
        assert done.metrics == first.metrics
        assert done.final_weights_hash == first.final_weights_hash
    cut = run(places, method, selection_rows=20, train_rows=40)
    assert cut.train_rows == 40
    assert cut.final_weights_hash != first.final_weights_hash


def test_the_rows_are_in_the_order_of_every_other_method(places, training_alone):
    lora = run(places, "lora", steps=2, eval_every=2, selection_rows=20)
    for method in LINES:
        done = run(places, method, selection_rows=20)
        assert done.references == lora.references
        assert (done.train_rows, done.baseline_value) == (lora.train_rows, lora.baseline_value)


def test_words_never_load_the_models_weights(places, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", never)
    assert run(places, "bag-of-words").status == "ok"
    with pytest.raises(AssertionError, match="a model was loaded"):
        run(places, "embeddings")


def test_embeddings_sit_on_a_quantised_base(places):
    plain, packed = (
        recipe.run(tiny.job("embeddings", q, selection_rows=20), places, silent)
        for q in ("none", "int8")
    )
    assert packed.status == "ok"
    assert packed.base_format != plain.base_format


@pytest.mark.parametrize("method", LINES)
@pytest.mark.parametrize("kind", ["ranking", "instruction", "language", "multiple-choice"])
def test_tasks_of_language_models_are_refused_with_the_reason(places, monkeypatch, method, kind):
    read = recipe._read

    def asked(*given):
        found = read(*given)
        return replace(found, task=replace(found.task, kind=kind))

    monkeypatch.setattr(recipe, "_read", asked)
    with pytest.raises(Unsupported, match=f"{method} is there for encoders.*, not for {kind}"):
        run(places, method)


@pytest.mark.parametrize("method", LINES)
def test_no_row_is_tokenised_while_the_fit_is_timed(places, monkeypatch, method):
    fitting = fit._fit

    def refused(rows):
        raise AssertionError("tokenised inside of the phase fit")

    def alone(task, work, *more):
        return fitting(task, replace(work, hold_out=refused), *more)

    monkeypatch.setattr(fit, "_fit", alone)
    assert run(places, method, selection_rows=20).status == "ok"


def test_every_line_of_the_catalogue_has_its_code():
    fits = {key for key, method in METHODS.items() if method.fits}
    assert fits == set(LINES)
    assert all(METHODS[key].family == "reference" and not METHODS[key].trains for key in fits)


# --- against scikit-learn -----------------------------------------------------------------------


def split(places, task: str, selection: int = 20):
    """(train, selection, evaluation) rows of a job as plain texts and labels."""
    work = tiny.work(places, tiny.job("bag-of-words", task=task, selection_rows=selection))
    return work.examples, work.selection.examples, work.eval.examples


def best_of(train, held, score):
    """What scores highest on the selection rows, of equals the strictest."""
    models = {c: train(c) for c in STRENGTHS}
    values = {c: score(model.predict(held)) for c, model in models.items()}
    chosen = next(c for c in STRENGTHS if values[c] == max(values.values()))
    return chosen, models[chosen]


def test_bag_of_words_is_what_scikit_learn_gives(places):
    train, selection, held = split(places, "tiny-class")
    y = np.array([row.label for row in train])
    wanted = np.array([row.label for row in selection])
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    x = vectorizer.fit_transform([row.text for row in train])
    chosen, model = best_of(
        lambda c: LogisticRegression(C=c, max_iter=1000).fit(x, y),
        vectorizer.transform([row.text for row in selection]),
        lambda found: (found == wanted).mean(),
    )
    predicted = model.predict(vectorizer.transform([row.text for row in held]))
    done = run(places, "bag-of-words", selection_rows=20)
    assert list(done.predictions) == predicted.tolist()
    assert f"C = {chosen:g} of" in done.optimizer
    assert done.trainable_parameters == model.coef_.size + 1
    assert done.saved_parameters == done.trainable_parameters + x.shape[1]


def test_embeddings_are_what_transformers_and_scikit_learn_give(places):
    train, selection, held = split(places, "tiny-score")
    folder = places.mirror / "models" / "tiny"
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def embed(rows):
        found = []
        for row in rows:  # one at a time: no padding, so the plain mean
            inputs = tokenizer(row.text, truncation=True, max_length=16, return_tensors="pt")
            with torch.no_grad():
                found.append(model(**inputs).last_hidden_state[0].mean(0).double().numpy())
        return np.array(found)

    scaler = StandardScaler().fit(embed(train))
    y = np.array([row.label for row in train])
    wanted = np.array([row.label for row in selection])
    chosen, ridge = best_of(
        lambda c: Ridge(alpha=1 / c).fit(scaler.transform(embed(train)), y),
        scaler.transform(embed(selection)),
        lambda found: np.corrcoef(found, wanted)[0, 1],
    )
    done = run(places, "embeddings", "tiny-score", selection_rows=20)
    predicted = ridge.predict(scaler.transform(embed(held)))
    np.testing.assert_allclose(list(done.predictions), predicted, atol=1e-4)
    assert f"C = {chosen:g} of" in done.optimizer
    width = model.config.hidden_size
    assert done.trainable_parameters == width + 1
    encoder = sum(p.numel() for p in model.parameters())
    assert done.total_parameters == encoder + 3 * width + 1


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_classes_and_probabilities_are_scikit_learns(strength):
    words = features.learn_words(TICKETS)
    x, _ = independent_words(PLAIN, PLAIN)
    np.testing.assert_allclose(words.of(TICKETS).toarray(), x.toarray(), atol=1e-15)
    for rows in (range(9), range(6)):  # three classes, then two
        part = list(rows)
        wanted = LogisticRegression(C=strength, max_iter=1000).fit(x[part], LABELS[part])
        linear = estimator.fit("classification", x[part], LABELS[part], strength)
        guess = linear.guess(x, 3)
        assert guess.predictions.tolist() == wanted.predict(x).tolist()
        known = wanted.predict_proba(x)
        np.testing.assert_allclose(guess.probabilities[:, : known.shape[1]], known, atol=1e-12)
        np.testing.assert_allclose(guess.probabilities.sum(axis=1), 1, atol=1e-12)
    assert (guess.probabilities[:, 2] == 0).all()  # a class that no training row has


def test_several_labels_are_one_against_the_rest_each():
    tagged = texts([(t, ((0,), (0, 1), (1, 3), ())[i % 4]) for i, t in enumerate(PLAIN)])
    task = task_of("multi-label", ("a", "b", "c", "d"))
    targets = labels_of(tagged.examples, task)
    assert targets.shape == (9, 4)
    assert targets[:4].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    x, _ = independent_words(PLAIN, PLAIN)
    guess = estimator.fit("multi-label", x, targets, 10.0).guess(x, 4)
    used = [0, 1, 3]
    model = OneVsRestClassifier(LogisticRegression(C=10.0, max_iter=1000)).fit(x, targets[:, used])
    np.testing.assert_allclose(guess.probabilities[:, used], model.predict_proba(x), atol=1e-12)
    assert guess.predictions[:, used].tolist() == model.predict(x).tolist()
    # A label of no row: half a row of ten has it.
    np.testing.assert_allclose(guess.probabilities[:, 2], 0.5 / 10)
    assert guess.predictions[:, 2].sum() == 0


def test_two_texts_have_the_same_terms_and_features_of_their_own():
    rows = texts([("red car", 0), ("blue car", 1)], pair="red bus")
    words = features.learn_words(rows)
    terms = list(words.vectorizer.get_feature_names_out())
    assert terms == ["blue", "blue car", "bus", "car", "red", "red bus", "red car"]
    found = words.of(rows).toarray()
    assert found.shape == (2, 2 * len(terms))
    second = len(terms) + terms.index("bus")
    assert found[0, terms.index("bus")] == 0 < found[0, second]
    np.testing.assert_allclose(found[0, len(terms) :], found[1, len(terms) :])


def test_one_class_alone_is_told_for_every_row():
    x, _ = independent_words(PLAIN, PLAIN)
    guess = estimator.fit("classification", x, np.full(9, 2), 1.0).guess(x, 3)
    assert guess.predictions.tolist() == [2.0] * 9
    assert guess.probabilities[:, 2].tolist() == [1.0] * 9


# --- C ------------------------------------------------------------------------------------------


def test_the_selection_rows_choose_c_and_of_equals_the_strictest():
    x, _ = independent_words(PLAIN, PLAIN)

    def size(linear):
        return float(np.abs(linear.weights).sum())

    def chosen(score, sign=1.0):
        return choose("classification", x, LABELS, score, sign).strength

    assert chosen(size) == STRENGTHS[-1]
    assert chosen(size, sign=-1.0) == STRENGTHS[0]
    assert chosen(lambda linear: 0.5) == STRENGTHS[0]
    assert chosen(lambda linear: -size(linear)) == STRENGTHS[0]  # below 0, as a log-likelihood is
    assert chosen(lambda linear: -size(linear), sign=-1.0) == STRENGTHS[-1]


def test_without_selection_rows_c_is_one_and_the_row_says_so(places):
    done = run(places, "bag-of-words", selection_rows=0)
    assert done.optimizer == "logistic regression, C = 1 for lack of selection rows"


def test_a_solver_that_has_not_settled_is_a_warning_of_the_row(places, monkeypatch):
    monkeypatch.setattr(estimator, "MOST_ITERATIONS", 1)
    monkeypatch.setattr(fit, "MOST_ITERATIONS", 1)
    done = run(places, "embeddings", selection_rows=0)
    assert done.status == "ok"
    assert "logistic regression had not settled after 1 iterations at C = 1" in done.warnings
    with pytest.warns(ConvergenceWarning):
        LogisticRegression(max_iter=1).fit(np.eye(4) * [[1.0], [5.0], [2.0], [9.0]], [0, 1, 0, 1])


# --- what is saved ------------------------------------------------------------------------------


def test_the_saved_arrays_are_the_whole_line(tmp_path):
    words = features.learn_words(TICKETS)
    linear = estimator.fit("classification", words.of(TICKETS), LABELS, 1.0)
    line = fit.Line(words, linear, 3)
    file = tmp_path / fit.FILE
    fit.saved(line, file)
    again = fit.loaded(file, line, None)
    other = texts([("my naïve parcel crashes, 5 errors", 0), ("Rückerstattung!", 0)])
    for held in (TICKETS, other):
        one, two = line.guess(held), again.guess(held)
        assert (one.outputs == two.outputs).all()
        assert (one.probabilities == two.probabilities).all()
    assert fit.arrays_hash(again.arrays()) == fit.arrays_hash(line.arrays())
    less = {**linear.arrays(), "intercepts": linear.intercepts + 1e-9}
    changed = replace(line, linear=linear_from("classification", less))
    assert fit.arrays_hash(changed.arrays()) != fit.arrays_hash(line.arrays())


def test_rows_without_a_word_are_refused():
    with pytest.raises(Unsupported, match="no words to count"):
        features.learn_words(texts([("?!", 0), ("…", 1)]))


def test_one_character_is_a_word():
    words = features.learn_words(texts([("I give 5", 0), ("you give 1", 1)]))
    assert {"i", "5", "give 5"} <= set(words.vectorizer.get_feature_names_out())
