"""Every metric against scikit-learn called by itself, and functions of one's own."""

from __future__ import annotations

import hashlib
import math
import sys
import traceback
from dataclasses import replace

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sk

import tiny
from peftmark.catalog.metrics import METRICS, OWN_FORM, metric_of, metric_title, sign_of
from peftmark.catalog.own_metric import code_of, file_of
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import UserError
from peftmark.lab import metrics, own_metric, recipe
from peftmark.lab.data import job_data
from peftmark.lab.errors import Unsupported
from peftmark.lab.worker import classify

ROUNDS = range(10)


def classes(stream, rows=200, count=4):
    """References, predictions and probabilities of several classes."""
    wanted = stream.integers(0, count, rows).astype(float)
    logits = stream.normal(size=(rows, count)) + 2 * (wanted[:, None] == np.arange(count))
    return wanted, logits.argmax(axis=1).astype(float), special.softmax(logits, axis=1)


def labels(stream, rows=200, count=5):
    """The same of several labels a row."""
    wanted = (stream.random((rows, count)) < 0.3).astype(float)
    chances = special.expit(stream.normal(size=(rows, count)) + 2 * wanted - 1)
    return wanted, (chances >= 0.5).astype(float), chances


@pytest.mark.parametrize("seed", ROUNDS)
def test_metrics_of_classes_are_scikit_learns(seed):
    wanted, found, chances = classes(np.random.default_rng(seed))
    keys = ("macro_f1", "weighted_f1", "balanced_accuracy", "accuracy", "auroc", "log_loss")
    score = metrics.score(keys, found, wanted, chances)
    assert list(score) == list(keys)
    assert score["macro_f1"] == pytest.approx(sk.f1_score(wanted, found, average="macro"))
    assert score["weighted_f1"] == pytest.approx(sk.f1_score(wanted, found, average="weighted"))
    assert score["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(wanted, found))
    assert score["accuracy"] == pytest.approx(sk.accuracy_score(wanted, found))
    one_against_rest = sk.roc_auc_score(wanted, chances, multi_class="ovr", average="macro")
    assert score["auroc"] == pytest.approx(one_against_rest)
    assert score["log_loss"] == pytest.approx(sk.log_loss(wanted, chances))


@pytest.mark.parametrize("seed", ROUNDS)
def test_of_two_classes_auroc_reads_the_probability_of_class_1(seed):
    wanted, found, chances = classes(np.random.default_rng(seed), count=2)
    score = metrics.score(("auroc", "log_loss"), found, wanted, chances)
    assert score["auroc"] == pytest.approx(sk.roc_auc_score(wanted, chances[:, 1]))
    assert score["auroc"] != pytest.approx(sk.roc_auc_score(wanted, chances[:, 0]))
    assert score["log_loss"] == pytest.approx(sk.log_loss(wanted, chances[:, 1]))


@pytest.mark.parametrize("seed", ROUNDS)
def test_errors_of_scores_are_scikit_learns(seed):
    stream = np.random.default_rng(seed)
    wanted, found = stream.normal(50, 20, 100), stream.normal(50, 20, 100)
    score = metrics.score(("rmse", "mae"), found, wanted)
    assert score["rmse"] == pytest.approx(math.sqrt(sk.mean_squared_error(wanted, found)))
    assert score["mae"] == pytest.approx(sk.mean_absolute_error(wanted, found))


@pytest.mark.parametrize("seed", ROUNDS)
def test_metrics_of_several_labels_are_scikit_learns(seed):
    wanted, found, chances = labels(np.random.default_rng(seed))
    keys = ("micro_f1", "macro_f1", "subset_accuracy", "auroc")
    score = metrics.score(keys, found, wanted, chances)
    assert score["micro_f1"] == pytest.approx(sk.f1_score(wanted, found, average="micro"))
    assert score["macro_f1"] == pytest.approx(sk.f1_score(wanted, found, average="macro"))
    assert score["subset_accuracy"] == pytest.approx((wanted == found).all(axis=1).mean())
    assert score["auroc"] == pytest.approx(sk.roc_auc_score(wanted, chances, average="macro"))


@pytest.mark.parametrize("count", [2, 4])
def test_the_calibration_error_is_that_of_fifteen_bins_bin_by_bin(count):
    wanted, found, chances = classes(np.random.default_rng(7), rows=500, count=count)
    top, expected = chances.max(axis=1), 0.0
    for bin_ in range(15):
        inside = (top > bin_ / 15) & (top <= (bin_ + 1) / 15)
        if inside.any():
            right = (found == wanted)[inside].mean()
            expected += inside.mean() * abs(right - top[inside].mean())
    score = metrics.score(("calibration_error",), found, wanted, chances)
    assert score["calibration_error"] == pytest.approx(expected)
    sure = np.eye(count)[found.astype(int)]  # 1 lies in the last bin
    wrong = metrics.score(("calibration_error",), found, wanted, sure)["calibration_error"]
    assert wrong == pytest.approx((found != wanted).mean())


def test_a_class_that_is_predicted_and_never_there_warns_of_nothing():
    wanted, found = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 2.0, 1.0, 1.0])
    assert metrics.score(("balanced_accuracy",), found, wanted)["balanced_accuracy"] == 0.75
    chances = np.tile([0.5, 0.3, 0.2], (4, 1))
    assert metrics.score(("auroc",), found, wanted, chances) == {"auroc": 0.5}


@pytest.mark.parametrize(
    "wanted", [np.zeros(4), np.ones(4), np.array([[1.0, 0.0]] * 4)], ids=["0", "1", "labels"]
)
def test_auroc_of_one_class_alone_is_unknown_and_never_a_number(wanted):
    chances = np.tile([0.4, 0.6], (4, 1))
    found = metrics.score(("auroc",), wanted, wanted, chances)
    assert found == {}
    assert "AUROC compares rows of two classes" in metrics.why_none("auroc", wanted)
    assert metrics.why_none("accuracy", wanted) == ""
    with pytest.raises(Unsupported, match="among 4 rows there is"):
        metrics.baseline("auroc", wanted, wanted, 2)


def test_probabilities_are_softmax_of_classes_and_sigmoid_of_labels():
    logits = np.random.default_rng(0).normal(0, 30, (50, 3)).astype(np.float32)
    assert metrics.softmax(logits) == pytest.approx(special.softmax(logits.astype(float), axis=1))
    assert metrics.sigmoid(logits) == pytest.approx(special.expit(logits.astype(float)))
    assert metrics.softmax(logits).dtype == np.float64


# --- the constant guess -------------------------------------------------------------------------


def test_the_constant_guess_is_what_a_person_would_name():
    stream = np.random.default_rng(3)
    train, wanted = stream.choice(3, 90, p=[0.2, 0.5, 0.3]), stream.integers(0, 3, 60)
    shares = np.tile(np.bincount(train) / 90, (60, 1))
    majority = np.full(60, np.bincount(train).argmax())
    of = {key: metrics.baseline(key, train, wanted, 3) for key in METRICS if "classification" in
          METRICS[key].kinds and key != "f1"}  # fmt: skip
    assert of["log_loss"] == pytest.approx(sk.log_loss(wanted, shares))
    assert of["auroc"] == 0.5
    assert of["macro_f1"] == pytest.approx(
        sk.f1_score(wanted, majority, average="macro", zero_division=0)
    )
    assert of["weighted_f1"] == pytest.approx(
        sk.f1_score(wanted, majority, average="weighted", zero_division=0)
    )
    assert of["balanced_accuracy"] == pytest.approx(1 / 3)
    assert of["calibration_error"] == pytest.approx(abs((wanted == 1).mean() - shares[0, 1]))


def test_of_scores_the_mean_for_squares_and_the_median_for_absolute_errors():
    train, wanted = np.array([0.0, 0.0, 0.0, 10.0]), np.array([1.0, 2.0])
    assert metrics.baseline("rmse", train, wanted, 0) == pytest.approx(
        math.sqrt(((2.5 - 1) ** 2 + (2.5 - 2) ** 2) / 2)
    )
    assert metrics.baseline("mae", train, wanted, 0) == pytest.approx(1.5)


def test_of_several_labels_those_that_more_than_half_of_the_rows_have():
    train = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=float)  # 3/4, 1/4, 1/2
    wanted = np.array([[1, 0, 0], [1, 1, 0]], dtype=float)
    assert metrics.baseline("subset_accuracy", train, wanted, 3) == 0.5
    assert metrics.baseline("micro_f1", train, wanted, 3) == pytest.approx(2 * 2 / (2 + 3))
    assert metrics.baseline("auroc", train, wanted, 3) == 0.5


# --- metrics of one's own -----------------------------------------------------------------------


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A writer of modules into the working directory."""
    monkeypatch.chdir(tmp_path)
    own_metric._function.cache_clear()
    before = set(sys.modules)

    def write(text, name="mine/costs.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    yield write
    own_metric._function.cache_clear()
    for name in set(sys.modules) - before:
        # Libraries that a test was the first to load stay: torch registers theirs once.
        if any(str(tmp_path) in place for place in getattr(sys.modules[name], "__path__", ())) or (
            str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or "")
        ):
            del sys.modules[name]


def test_a_function_of_ones_own_gets_references_and_then_predictions(written):
    written("def late(references, predictions):\n    return 2 * references[0] - predictions[0]\n")
    wanted, found = np.array([5.0, 1.0]), np.array([3.0, 1.0])
    for key in ("mine.costs:late", "mine.costs:late:lower"):
        assert metrics.score(("rmse", key), found, wanted)[key] == 7.0
        assert metrics.baseline(key, wanted, wanted, 0) == 7.0


def test_it_gets_probabilities_if_it_has_such_a_parameter(written):
    written(
        "def sure(references, predictions, probabilities):\n"
        "    probabilities[:] = 0\n    references[:] = 9\n    return len(probabilities[0])\n"
        "def top(references, predictions, probabilities=None):\n"
        "    return probabilities.max()\n"
    )
    wanted, found, chances = classes(np.random.default_rng(0), count=3)
    kept = wanted.copy()
    score = metrics.score(("mine.costs:sure", "mine.costs:top"), found, wanted, chances)
    assert score == {"mine.costs:sure": 3.0, "mine.costs:top": pytest.approx(chances.max())}
    assert (wanted == kept).all()
    train = np.array([0, 0, 0, 1, 2])
    assert metrics.baseline("mine.costs:top", train, wanted, 3) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def f(a, b): raise KeyError('x\\x1b[31m')", "raised KeyError: 'x\\x1b[31m'"),
        ("def f(a, b): return float('nan')", "returned nan"),
        ("def f(a, b): return float('-inf')", "returned -inf"),
        ("def f(a, b): return 'high'", "raised ValueError: could not convert"),
        ("def f(a, b): return None", "raised TypeError"),
        ("def f(a): return 1.0", "raised TypeError"),
    ],
)
def test_a_function_without_a_finite_number_is_told_with_its_reason(written, text, says):
    written(text)
    with pytest.raises(own_metric.NoValue) as refused:
        metrics.score(("mine.costs:f",), np.ones(3), np.ones(3))
    assert refused.value.what.startswith(f"metric mine.costs:f {says}")
    assert refused.value.what.isprintable()


def test_a_function_that_fails_on_a_text_tells_where_and_not_the_text(written):
    written("def f(references, predictions):\n    raise KeyError(references[0])\n")
    texts = np.array(["my secret", "mine"], dtype=object)
    with pytest.raises(own_metric.NoValue) as refused:
        metrics.with_own(("mine.costs:f",), {}, texts, texts)
    assert refused.value.what == "metric mine.costs:f raised KeyError in costs.py, line 2"
    told = "".join(traceback.format_exception(refused.value))
    assert "NoValue" in told and "secret" not in told, "what a job's log would hold"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("f = 3", "has no function f"),
        ("raise RuntimeError('no licence')", "raised RuntimeError: no licence"),
        ("import novel_library", "raised ModuleNotFoundError"),
    ],
)
def test_a_module_that_can_not_be_read_is_told(written, text, says):
    path = written(text)
    with pytest.raises(UserError, match=says) as refused:
        metrics.score(("mine.costs:f",), np.ones(3), np.ones(3))
    assert str(path) in refused.value.what and refused.value.remedy


def test_a_module_that_python_has_under_the_same_name_is_not_taken_for_it(written):
    written("def f(a, b): return 1.0", "evaluate.py")
    with pytest.raises(UserError, match="Python has another module evaluate"):
        metrics.score(("evaluate:f",), np.ones(3), np.ones(3))


def test_the_code_is_hashed_and_not_imported(written):
    path = written("raise SystemExit('imported')\ndef f(a, b): return 1.0")
    assert code_of("mine.costs:f") == hashlib.sha256(path.read_bytes()).hexdigest()
    before = code_of("mine.costs:f:lower")
    path.write_text("def f(a, b): return 2.0")
    assert code_of("mine.costs:f:lower") != before
    assert "mine.costs" not in sys.modules and "mine" not in sys.modules


def test_code_is_also_found_where_python_looks(written, tmp_path, monkeypatch):
    other = tmp_path / "elsewhere" / "pack" / "inner"
    other.mkdir(parents=True)
    (other.parent / "__init__.py").write_text("raise SystemExit('imported')")
    (other / "__init__.py").write_text("")
    (other / "f.py").write_text("x = 2")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    assert file_of("pack.inner.f:g") == other / "f.py"
    assert file_of("pack.inner:g") == other / "__init__.py"
    assert file_of("sklearn.metrics:f1_score").name == "__init__.py"
    assert "pack" not in sys.modules


@pytest.mark.parametrize("module", ["novel", "mine.novel", "mine.costs.deeper", "sys"])
def test_a_module_that_is_not_there_has_a_remedy(written, module):
    written("")
    with pytest.raises(UserError, match=f"there is no module {module}") as refused:
        code_of(f"{module}:f")
    assert "below" in refused.value.remedy


def test_a_file_named_like_a_module_of_pythons_is_refused_before_anything_runs(written, tmp_path):
    written("")
    (tmp_path / "statistics.py").write_text("")
    with pytest.raises(UserError, match="named like Python's own module statistics") as refused:
        code_of("statistics:f")
    assert "my_statistics.py" in refused.value.remedy


def test_the_remedy_names_a_file_that_would_be_found(written):
    written("")
    for key, told in (("os:f", "my_os.py"), ("novel.py:f", "name it novel:f")):
        with pytest.raises(UserError) as refused:
            code_of(key)
        assert told in refused.value.remedy


@pytest.mark.parametrize("key", ["rmse", "a.b", "a:b:higher", "a b:c", "../a:b", "a:b\n", ":f", ""])
def test_what_names_no_function_is_no_metric_of_ones_own(key):
    assert metric_of(key) is METRICS.get(key)
    with pytest.raises(UserError) as refused:
        code_of(key)
    assert OWN_FORM in refused.value.remedy


def test_a_metric_of_ones_own_has_a_direction_and_no_range():
    higher, lower = metric_of("a.b:score"), metric_of("a.b:score:lower")
    assert (higher.direction, lower.direction) == ("higher", "lower")
    assert {higher.title, lower.title, metric_title("a.b:score")} == {"score"}
    assert (higher.low, higher.high) == (-math.inf, math.inf)
    assert "regression" in higher.kinds and "instruction" in higher.kinds
    signs = {"a:f": 1, "a:f:lower": -1, "rmse": -1, "log_loss": -1, "novel": 1}
    assert {key: sign_of(key) for key in signs} == signs


# --- in a job -----------------------------------------------------------------------------------


def scored_by(monkeypatch, task, metric, *also):
    """A job on a task that is scored by other metrics."""
    monkeypatch.setitem(TASKS, task, replace(TASKS[task], metric=metric, also=also))
    return replace(tiny.job("lora", task=task, steps=40, selection_rows=20), metric=metric)


def test_a_job_is_scored_by_probabilities_and_its_lowest_loss_is_its_best(
    places, monkeypatch, training_alone
):
    keys = ("log_loss", "auroc", "calibration_error", "macro_f1", "accuracy")
    done = recipe.run(scored_by(monkeypatch, "tiny-class", *keys), places, lambda _: None)
    assert list(done.metrics) == list(keys)
    wanted, found = np.array(done.references), np.array(done.predictions)
    assert done.metrics["accuracy"] == pytest.approx(sk.accuracy_score(wanted, found))
    assert 0 < done.metric_value < done.baseline_value == pytest.approx(math.log(2), abs=0.05)
    assert done.metrics["auroc"] > 0.8
    assert done.best_metric_value == min(p.metric for p in done.curve)
    assert done.selection_metric_value == min(p.selection_metric for p in done.curve)


def test_a_job_is_scored_in_the_unit_of_the_scores(places, monkeypatch, training_alone):
    job = replace(scored_by(monkeypatch, "tiny-score", "rmse", "mae"), target=1.2)
    done = recipe.run(job, places, lambda _: None)
    wanted, found = np.array(done.references), np.array(done.predictions)
    assert done.metric_value == pytest.approx(sk.root_mean_squared_error(wanted, found), rel=1e-5)
    assert done.metrics["mae"] == pytest.approx(sk.mean_absolute_error(wanted, found), rel=1e-5)
    assert done.metric_value < done.baseline_value
    reached = [p.step for p in done.curve if p.metric <= 1.2]
    assert (done.target_reached, done.steps_to_target) == (bool(reached), (reached or [None])[0])


def test_a_job_calls_a_function_of_ones_own(places, monkeypatch, written, training_alone):
    written("def worst(references, predictions):\n    return abs(references - predictions).max()\n")
    job = scored_by(monkeypatch, "tiny-score", "mine.costs:worst:lower", "rmse")
    done = recipe.run(job, places, lambda _: None)
    worst = np.abs(np.array(done.references) - np.array(done.predictions)).max()
    assert done.metric_value == pytest.approx(worst, rel=1e-5)
    assert done.best_metric_value == min(p.metric for p in done.curve)
    assert done.baseline_value > 0


def test_a_function_without_a_value_ends_the_job_with_its_reason(places, monkeypatch, written):
    written("def f(references, predictions): return 0 / 0\n")
    job = scored_by(monkeypatch, "tiny-score", "mine.costs:f")
    with pytest.raises(UserError) as ended:
        recipe.run(job, places, lambda _: None)
    status, reason = classify(ended.value)
    assert status == "crashed"
    assert reason.startswith("metric mine.costs:f raised ZeroDivisionError: division by zero")


def test_a_constant_guess_without_a_value_is_null_with_its_reason(
    places, monkeypatch, written, training_alone
):
    written(
        "def f(references, predictions):\n"
        "    assert predictions.std() > 0, 'all the same'\n    return predictions.std()\n"
    )
    done = recipe.run(scored_by(monkeypatch, "tiny-score", "mine.costs:f"), places, lambda _: None)
    assert done.status == "ok" and done.baseline_value is None
    why = done.null_reasons["baseline_value"]
    assert why == "of the constant guess: metric mine.costs:f raised AssertionError: all the same"


@pytest.mark.parametrize("also", [False, True])
def test_rows_of_one_class_have_no_auroc(places, monkeypatch, also, training_alone):
    metrics_ = ("accuracy", "auroc") if also else ("auroc",)
    job = scored_by(monkeypatch, "tiny-class", *metrics_)
    whole = job_data.held_out

    def alone(*arguments):
        held = whole(*arguments)
        return replace(held, references=np.zeros(len(held.references)))

    monkeypatch.setattr(job_data, "held_out", alone)
    steps = []
    if not also:
        with pytest.raises(Unsupported, match="there is one class alone: evaluate on other rows"):
            recipe.run(job, places, lambda m: steps.append(m.get("step")))
        assert not any(steps)
        return
    done = recipe.run(job, places, lambda _: None)
    assert list(done.metrics) == ["accuracy"]
    assert any(w.startswith("no value: AUROC compares rows") for w in done.warnings)
