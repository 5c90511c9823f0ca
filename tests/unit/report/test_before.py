"""What `recommend` says before anything was run: predicted, measured elsewhere, or advised."""

import json
import math
import shutil
from dataclasses import replace

import pytest

from factory import ADALORA, FULL, LORA, QLORA, make_matrix, make_recipe
from peftmark.advice import answer as advice
from peftmark.advice.branches import When
from peftmark.advice.candidates import Wish
from peftmark.advice.guides import ADVICE, FEW
from peftmark.advice.rank_rule import ranks
from peftmark.advice.recommend import recommend
from peftmark.advice.situation import OTHER_KIND, Foreseen, Situation, elsewhere, start
from peftmark.catalog.methods import Cell
from peftmark.cli.parser import main
from peftmark.core.errors import UserError
from peftmark.machine.gpus import device
from peftmark.report import before
from peftmark.report import before_asked as asked
from peftmark.report.before_asked import known_before
from peftmark.run import foresee
from peftmark.storage.store import Store

GIB = 2**30
SMALL = Foreseen(LORA, 2 * GIB, 1000, 5 * 2**20, True, "", 0.25, "", "")
FOUR_BIT = Foreseen(QLORA, 1 * GIB, 1000, 5 * 2**20, True, "", 0.5, "", "")
LARGE = Foreseen(FULL, 30 * GIB, 9000, 9 * GIB, False, "would fit with batches of 2 rows", 1.0)
HAS = Situation("minilm-l6", False, 22_700_000, "classification", rows=800)


def stored(root):
    """A store with rows of a suite in a results folder."""
    store = Store(root, "demo")
    with store.lock():
        for record in make_matrix((FULL, LORA), ("sst-2",), range(3)):
            store.append(record)
        store.rebuild()
    return store


def tables(**changes):
    records = make_matrix((FULL, LORA, QLORA), ("sst-2", "trec"), range(3), **changes)
    found, _ = advice.tables_of(records)
    return found


def made(**changes):
    facts = {
        "has": HAS,
        "why": "No rows are here.",
        "foreseen": (SMALL, FOUR_BIT, LARGE),
        "near": (),
        "rule": ranks("classification", 800, 22.7e6),
        "recipe": make_recipe(batch_size=16),
        "run": ("On your rows: peftmark try YOUR_FILE",),
    }
    return before.Before(**(facts | changes))


# --- where to begin -------------------------------------------------------------------------------


def test_without_rows_it_begins_with_lora_then_qlora_then_the_smallest():
    assert start((SMALL, FOUR_BIT, LARGE), ()) == (SMALL, None)
    gone = Foreseen(LORA, 40 * GIB, 1000, 1, False)
    assert start((gone, FOUR_BIT, LARGE), ()) == (FOUR_BIT, None)
    other = Foreseen(ADALORA, 3 * GIB, 1, 1, True)
    assert start((gone, Foreseen(FULL, 4 * GIB, 1, 1, True), other), ()) == (other, None)
    assert start((gone, LARGE), ()) is None


def picked(cell):
    """Near rows whose pick is one cell."""
    (near,) = elsewhere(tables(), HAS, Wish())
    first = replace(near.answer.picks[0], cell=cell)
    return replace(near, answer=replace(near.answer, picks=(first, *near.answer.picks)))


def test_what_the_nearest_rows_pick_is_begun_with_where_it_fits():
    near = picked(QLORA)
    assert start((SMALL, FOUR_BIT, LARGE), [near]) == (FOUR_BIT, near)
    text = before.sentence(made(near=(near,)))
    assert "the nearest rows of such a task (suite demo) pick it among those that fit" in text
    assert text.endswith("Nothing was measured on what you have.")
    assert start((SMALL, FOUR_BIT, LARGE), [picked(FULL)]) == (SMALL, None), "it is too large"


def test_rows_further_off_or_of_other_tasks_or_of_unknown_distance_pick_nothing():
    ia3 = picked(Cell("ia3", None, "none"))
    assert start((SMALL, FOUR_BIT), [ia3, picked(QLORA)]) == (SMALL, None)
    for distance in (OTHER_KIND + 1, None):
        far = replace(picked(QLORA), distance=distance)
        assert start((SMALL, FOUR_BIT), [far]) == (SMALL, None)


def test_what_trains_more_than_asked_for_is_not_begun_with():
    large = replace(SMALL, trainable=2_000_000)
    assert start((large, FOUR_BIT), (), 1_000_000) == (FOUR_BIT, None)
    assert start((large, FOUR_BIT), (), None) == (large, None)
    of = made(foreseen=(large, FOUR_BIT), most=1_000_000)
    assert before.sentence(of).startswith("Begin with QLoRA r8")
    assert any("2,000,000 (more than asked for)" in line for line in before.lines(of))


def test_nothing_that_fits_is_said_and_what_would_help():
    of = made(foreseen=(LARGE,), has=Situation("x", True, 7e9, "instruction", device=device("8GB")))
    assert before.sentence(of) == (
        "Nothing fits as it is; full fine-tuning would fit with batches of 2 rows."
    )
    gone = replace(LARGE, help="no single change makes it fit")
    assert "no single change makes it fit" in before.sentence(made(foreseen=(gone,)))
    assert any("no; would fit with batches of 2 rows" in line for line in before.lines(of))


# --- how far rows are -----------------------------------------------------------------------------


def test_rows_are_told_with_their_distance():
    (near,) = elsewhere(tables(), HAS, Wish())
    (other,) = elsewhere(tables(), Situation("llama-3-8b", True, 8 * 10**9, "instruction"), Wish())
    assert near.distance < other.distance
    text = "; ".join(other.away)
    assert "classification where you have instruction" in text
    assert "yours 8.0 B)" in text and "model " in text
    assert not any("where you have" in one for one in near.away)


def test_an_unknown_distance_is_null_and_comes_last():
    has = replace(HAS, model="mine/", parameters=None)
    (unknown,) = elsewhere(tables(), has, Wish())
    assert unknown.distance is None and not unknown.kin
    nobody = before.facts(made(near=(unknown,)))["measured_elsewhere"][0]
    assert nobody["distance"] is None
    (known,) = elsewhere(tables(), HAS, Wish())
    assert sorted([unknown, known], key=lambda one: one.distance is None)[0] is known


def test_rows_of_tasks_apart_are_not_taken_for_a_span():
    records = make_matrix((FULL, LORA), ("sst-2", "trec"), range(3))
    wide = [
        replace(r, outcome=replace(r.outcome, train_rows=100 if r.job.task == "trec" else 10**5))
        for r in records
    ]
    found, _ = advice.tables_of(wide)
    (near,) = elsewhere(found, replace(HAS, rows=5000), Wish())
    assert near.distance == pytest.approx(math.log(20))
    assert "100 to 100,000 training rows, yours 5,000" in near.away


def test_the_nearest_come_first_and_limits_of_another_model_rule_nothing_out():
    many = [*tables(), *tables(model="mpnet-base")]
    near = elsewhere(many, HAS, Wish(memory=1.0, seconds=1e-9))
    assert [one.answer.table.jobs[0].model for one in near] == ["minilm-l6", "mpnet-base"]
    assert all(one.answer.verdict == "fits" for one in near)


# --- advice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "rows", "memory", "writes", "parameters", "holds"),
    [
        (When(), None, None, False, None, True),
        (When(FEW), 999, None, False, None, True),
        (When(FEW), 1000, None, False, None, False),
        (When(FEW), None, None, False, None, None),
        (When(memory=(0, 24e9)), None, 24_000_000_000, False, None, False),
        (When(memory=(0, 24e9)), None, 16_000_000_000, False, None, True),
        (When(FEW, (24e9, 1e99)), 5000, None, False, None, False),
        (When(FEW, (24e9, 1e99)), 500, None, False, None, None),
        (When(large_or_text=True), None, None, True, None, True),
        (When(large_or_text=True), None, None, False, 2 * 10**9, True),
        (When(large_or_text=True), None, None, False, 10**8, False),
        (When(large_or_text=True), None, None, False, None, None),
    ],
)
def test_a_condition_holds_does_not_or_is_not_known(when, rows, memory, writes, parameters, holds):
    assert when.holds(rows, memory, writes, parameters) is holds


def test_advice_whose_condition_fails_is_left_out_and_counted():
    lines = before.lines(made())
    few = [line for line in lines if "fewer than 1,000 training rows: halve" in line]
    assert few and "holds for you; not measured" in few[0]
    assert not any("more than 10,000 training rows" in line for line in lines)
    assert any("if latency counts" in line and "only you know" in line for line in lines)
    said = [line for line in lines if "the GPU has less than 24 GB: QLoRA" in line]
    assert said and "you didn't say" in said[0]
    gone = sum(a.when.holds(800, None, False, 22_700_000) is False for a in ADVICE)
    assert gone == 4
    assert any(f"{gone} branches of the guides left out" in line for line in lines)


# --- what is shown --------------------------------------------------------------------------------


def test_questions_are_numbered_and_every_answer_says_what_it_rests_on():
    text = "\n".join(before.lines(made()))
    for number, title in enumerate(
        (
            "What do you have?",
            "What fits?",
            "What was measured elsewhere?",
            "What do guides advise?",
            "Which rank?",
            "What next?",
        ),
        1,
    ):
        assert f"\n{number}. {title}\n" in text
    assert "Predicted, not measured" in text
    assert "The rule was never measured." in text
    assert "250 ms" in text
    assert "12.5 s" in text  # 800 rows in batches of 16


def test_what_is_not_predicted_is_missing_with_its_reason():
    unknown = Foreseen(LORA, reason="its files alone tell", no_time="no card")
    of = made(foreseen=(unknown,))
    text = "\n".join(before.lines(of))
    assert "n/a" in text and "time a step" not in text
    both = "\n".join(before.lines(made(foreseen=(unknown, SMALL))))
    assert "time a step" in both and "Time unknown: no card." in both
    assert "Time unknown: no card." in "\n".join(before.lines(of))
    (row,) = before.facts(of)["predicted"]
    assert (row["peak_bytes"], row["step_seconds"]) == (None, None)
    assert (row["why_no_memory"], row["why_no_time"]) == ("its files alone tell", "no card")


def test_the_page_has_the_same_questions(tmp_path):
    files = before.page_files(made(near=elsewhere(tables(), HAS, Wish())), tmp_path)
    html = files[tmp_path / "index.html"]
    markdown = files[tmp_path / "recommend.md"]
    for text in (html, markdown):
        for title in ("What fits?", "Which rank?", "What next?"):
            assert title in text
    assert "LoRA r8" in html


# --- the command ----------------------------------------------------------------------------------


def code_of(arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


@pytest.fixture
def predicted(monkeypatch):
    """Predictions that take no process; the calls they were asked with."""
    calls = []

    def fake(shape, causal, kind, rank, gpu, *heard):
        calls.append((shape and shape["model_type"], causal, kind, rank, gpu and gpu.key))
        return [SMALL, FOUR_BIT, LARGE], make_recipe(batch_size=16), True

    monkeypatch.setattr(asked, "foresee", fake)
    monkeypatch.setattr(asked, "parameters_of", lambda *_: 8 * 10**9)
    return calls


def test_without_any_rows_it_answers(tmp_path, monkeypatch, capsys, predicted):
    monkeypatch.chdir(tmp_path)
    wishes = ["--model", "llama-3-8b", "--memory", "RTX 4090", "--rows", "800"]
    assert code_of(["recommend", *wishes, "--results", "none"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("The folder none holds no results.\nBegin with LoRA r8")
    assert predicted == [("llama", True, "instruction", 20, "rtx-4090")]
    assert "a task of kind instruction, for want of --task" in text
    assert "YOUR_MODEL is the folder with the weights of llama-3-8b" in text
    assert list(tmp_path.iterdir()) == []


def test_rows_of_something_else_are_shown_with_their_distance(tmp_path, capsys, predicted):
    stored(tmp_path / "results")
    where = ["--results", str(tmp_path / "results")]
    assert (
        code_of(["recommend", "--model", "mpnet-base", *where, "--page", str(tmp_path / "p")]) == 0
    )
    text = capsys.readouterr().out
    assert text.startswith("No row was measured with the model mpnet-base")
    assert "demo" in text and "Unknown." not in text
    assert (tmp_path / "p" / "index.html").is_file()
    assert code_of(["recommend", "--model", "mpnet-base", *where, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["measured_elsewhere"][0]["suite"] == "demo"
    assert facts["answers"] == []


def test_rows_that_are_near_answer_as_ever(tmp_path, capsys, predicted):
    stored(tmp_path / "results")
    assert code_of(["recommend", "--results", str(tmp_path / "results")]) == 0
    assert "has the highest score" in capsys.readouterr().out
    assert predicted == []


def test_published_rows_count_as_rows(tmp_path, capsys, predicted):
    folder = tmp_path / "results" / "published" / "demo"
    folder.mkdir(parents=True)
    shutil.copy(stored(tmp_path / "run").derived, folder / "rows.parquet")
    assert code_of(["recommend", "--results", str(tmp_path / "results")]) == 0
    assert "suite demo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--model", "nope"], "model 'nope' is neither an architecture"),
        (["--task", "nope"], "--task: found 'nope'"),
        (["--rows", "x"], "--rows: found 'x'"),
        (["--memory", "nope"], "device 'nope' is neither a size nor a GPU"),
        (["--model", "minilm-l6", "--task", "instruction"], "encoders don't read tasks of kind"),
        (["--model", "llama-3-8b", "--task", "regression"], "models don't read tasks of kind"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(
    tmp_path, monkeypatch, capsys, predicted, given, message
):
    monkeypatch.chdir(tmp_path)
    assert code_of(["recommend", "--page", "p", *given]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_limits_that_only_rows_can_tell_are_named(tmp_path, capsys, predicted):
    where = ["--results", str(tmp_path), "--model", "minilm-l6"]
    wishes = ["--max-time", "1h", "--price", "2USD", "--max-drop", "1", "--profile", "x"]
    assert code_of(["recommend", *where, *wishes]) == 0
    text = capsys.readouterr().out
    assert "Not used before a run: --max-time, --price, --max-drop, --profile." in text


@pytest.mark.parametrize("suite", ["/tmp/results/none", "*", "a**b", "../up"])
def test_a_suite_that_is_no_name_is_an_error_and_no_pattern(tmp_path, capsys, predicted, suite):
    folder = tmp_path / "published" / "demo"
    folder.mkdir(parents=True)
    shutil.copy(stored(tmp_path / "run").derived, folder / "rows.parquet")
    shutil.copytree(folder, tmp_path / "up")
    assert code_of(["recommend", suite, "--results", str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err
    assert code_of(["recommend", "demo", "--results", str(tmp_path)]) == 0


def test_commands_are_ones_that_can_be_given():
    commands = asked._commands
    assert commands("minilm-l6", "RTX 4090", False) == [
        "On your rows: peftmark try YOUR_FILE --model minilm-l6 --memory 'RTX 4090'",
        "On ours: make bench SUITE=glue, or another suite of `peftmark list`.",
    ]
    first, second, third = commands("hub:owner/name", None, True)
    assert first.endswith("--model YOUR_MODEL") and "40 hexadecimal digits" in second
    assert "SUITE=instruct" in third
    commit = f"hub:owner/name@{'a' * 40}"
    assert commands(commit, None, True)[0].endswith(f"--model {commit}")


def test_what_a_terminal_would_act_on_is_not_printed():
    has = replace(HAS, model="m\x1b[31mEVIL")
    assert "\x1b" not in "\n".join(before.lines(made(has=has)))
    assert "\x1b" not in "".join(asked._commands("m\x1b[31m", None, False))


def test_every_suite_says_why_it_is_no_answer():
    far = [recommend(t, Wish(model="x")) for t in (*tables(), *tables(model="mpnet-base"))]
    assert "demo: No row was measured with the model x, only with minilm-l6" in asked._why(far)
    assert "only with mpnet-base" in asked._why(far)
    assert asked._why(far[:1]).startswith("No row was measured with the model x")


def test_a_suite_without_rows_that_was_named_is_an_error_still(tmp_path, capsys, predicted):
    assert code_of(["recommend", "nope", "--results", str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_a_task_that_fits_the_model_is_taken(predicted):
    found = known_before([], "minilm-l6", "sts-b", None, None)
    assert (found.has.kind, found.has.task) == ("regression", "sts-b")
    assert known_before([], None, "instruction", None, None).has.model == "smollm2-135m-q4"


# --- predictions ----------------------------------------------------------------------------------


def test_a_draft_is_of_the_kind_and_the_rank(tmp_path):
    plan = foresee._draft(False, "regression", 4)
    assert {job.task for job in plan.jobs} == {"sts-b"}
    assert {job.cell.size for job in plan.jobs if job.method == "lora"} == {4}
    causal = foresee._draft(True, "instruction", 16)
    assert all(job.causal is not None for job in causal.jobs)
    assert {(j.method, j.quantization) for j in causal.jobs} == {
        ("lora", "none"),
        ("lora", "nf4"),
        ("adalora", "none"),
        ("full", "none"),
    }


def test_a_model_is_found_by_name_shape_or_configuration(tmp_path):
    assert foresee.shape_of("minilm-l6", "classification")[1] is False
    assert foresee.shape_of("llama-2-7b", "instruction")[1] is True
    config = {"model_type": "gpt2", "n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 9}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape, causal = foresee.shape_of(str(tmp_path / "config.json"), None)
    assert (shape["n_layer"], causal) == (2, True)
    with pytest.raises(UserError, match="neither an architecture"):
        foresee.shape_of("nope", None)


@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("minilm-l6", 22.7e6),
        ("bert-base-uncased", 109.5e6),
        ("llama-2-7b", 6.74e9),
        ("llama-3-8b", 8.03e9),
        ("llama-3.2-1b", 1.24e9),
        ("qwen2.5-0.5b", 494e6),
        ("mistral-7b", 7.24e9),
    ],
)
def test_parameters_are_about_those_of_the_published_model(model, published):
    shape, _ = foresee.shape_of(model, None)
    assert foresee.parameters_of(shape) == pytest.approx(published, rel=0.03)


def test_a_configuration_that_does_not_tell_has_no_count():
    assert foresee.parameters_of(None) is None
    assert foresee.parameters_of({"model_type": "x"}) is None
    assert foresee.parameters_of({"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 9}) == (
        2 * (4 * 64 + 2 * 8 * 32) + 72
    )
