"""Which trained adapters of a run are kept, where, and what a failure to keep one costs."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

import fake_runs
from factory import make_job, make_outcome, make_recipe, make_record
from peftmark.core.errors import UserError
from peftmark.record.kept import NOTES, Kept, Unreadable
from peftmark.record.outcome import CurvePoint
from peftmark.run.keep import Keeper, Need, Rule, at_least, need_of, read_rules, which_of
from peftmark.run.model_card import card
from peftmark.run.runner import Selection, make_plan
from peftmark.run.session import carry_out
from peftmark.run.stop import Stop
from peftmark.storage.adapters import Adapters, slug

LORA = make_job(task="trec", recipe=make_recipe(selection_rows=100))
FULL = replace(LORA, method="full", size=None)
COLA = replace(LORA, task="cola", metric="mcc")


# --- the option ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "lora", "full", "cola"),
    [
        ((), "best", "best", "best"),
        (("none",), "none", "none", "none"),
        (("all:lora R8",), "all", "best", "all"),
        (("none", "all:@cola"), "none", "none", "all"),
        (("none:full fine-tuning", "all:LoRA r8@cola"), "best", "none", "all"),
        (("all:@cola", "none"), "none", "none", "none"),
    ],
)
def test_a_later_rule_counts_and_rules_may_speak_of_cells_and_tasks(texts, lora, full, cola):
    rules = read_rules(texts, [LORA, FULL, COLA])
    assert [which_of(rules, job) for job in (LORA, FULL, COLA)] == [lora, full, cola]


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        ("some", "--keep: found 'some'", "Give best, all or none; "),
        ("all:LoRA r9", "there is no cell 'lora r9' in this profile", "Its cells: 'LoRA r8'."),
        ("all:@mnli", "there is no task 'mnli' in this profile", "Its tasks: 'trec'."),
    ],
)
def test_a_rule_that_meets_nothing_is_refused_with_what_there_is(text, what, remedy):
    with pytest.raises(UserError) as caught:
        read_rules([text], [LORA])
    assert what in caught.value.what
    assert caught.value.remedy.startswith(remedy)


def test_a_cell_may_have_an_at_in_its_name():
    odd = replace(LORA, variant="a@b")
    assert read_rules(["all:LoRA r8, a@b"], [odd, LORA]) == (Rule("all", "lora r8, a@b", ""),)


def test_of_trials_repeats_and_what_trains_nothing_nothing_is_kept():
    rules = read_rules(["all"], [LORA])
    jobs = [replace(LORA, purpose="tuning"), replace(LORA, purpose="repeat")]
    jobs += [replace(LORA, method=m, size=None) for m in ("bag-of-words", "base")]
    assert {which_of(rules, job) for job in jobs} == {"none"}


# --- the best -----------------------------------------------------------------------------------


def kept(seed, selection, **changes):
    return Kept(replace(LORA, seed=seed, **changes), selection=selection, attempt=1)


@pytest.mark.parametrize(
    ("one", "other", "better"),
    [
        (kept(1, 0.8), kept(0, 0.7), True),
        (kept(1, 0.7), kept(0, 0.8), False),
        (kept(1, 0.7), kept(0, 0.7), False),  # equals: the lower seed
        (kept(1, None), kept(0, None), False),  # no selection rows: the lowest seed
        (kept(5, 0.1), kept(0, None), True),
        (kept(1, 2.0, metric="rmse"), kept(0, 3.0, metric="rmse"), True),  # less is better
        (kept(1, 3.0, metric="rmse"), kept(0, 2.0, metric="rmse"), False),
    ],
)
def test_the_better_adapter_is_told_by_selection_rows(one, other, better):
    assert at_least(one, other) == better
    assert at_least(one, one)


# --- taking and pruning -------------------------------------------------------------------------


def row(job, selection, attempt=1, evaluation=0.5, **changes):
    point = CurvePoint(10, 0.5, evaluation, 1.0, selection)
    outcome = make_outcome(curve=(point,), metric_value=evaluation, **changes)
    return make_record(job=job, outcome=outcome, attempt=attempt)


@pytest.fixture
def adapters(tmp_path):
    return Adapters(tmp_path / "adapters")


def left(adapters, record, content=b"weights"):
    """What a job has left."""
    folder = adapters.incoming / f"{record.job.job_id}.{record.attempt}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(content)
    (folder / NOTES).write_text(Kept(record.job).to_json())
    return folder


def end(adapters, record, *texts):
    """A job ends: its adapter is taken, its row stored, what it surpasses removed."""
    keeper = Keeper(adapters, read_rules(texts, [record.job]))
    found = keeper.take(record, left(adapters, record))
    keeper.prune(found)
    return found


def seeds(adapters):
    return sorted((k.job.seed, k.attempt) for k in adapters.entries().values())


def test_the_best_so_far_is_kept_whatever_the_evaluation_rows_say(adapters):
    for seed, selection, evaluation, best in (
        (0, 0.6, 0.9, 0),
        (1, 0.8, 0.1, 1),  # better by selection rows, worse by evaluation rows
        (2, 0.7, 1.0, 1),
        (3, 0.9, 0.2, 3),
    ):
        record = row(replace(LORA, seed=seed), selection, evaluation=evaluation)
        assert end(adapters, record) == record  # the row is what it was
        assert seeds(adapters) == [(best, 1)]
    [(folder, note)] = adapters.entries().items()
    assert folder.name == f"lora-r8-seed3-{note.job.job_id[:8]}.1"
    assert folder.parent.name == "trec"
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "adapter_model.safetensors",
        NOTES,
    ]
    assert (note.selection, note.which) == (0.9, "best")
    assert list(adapters.incoming.iterdir()) == []


def test_cells_tasks_and_profiles_have_a_best_each(adapters):
    for job in (
        LORA,
        FULL,
        COLA,
        replace(LORA, profile="other"),
        replace(LORA, model="mpnet-base"),
    ):
        end(adapters, row(job, 0.5))
    assert len(adapters.entries()) == 5


def test_all_are_kept_and_a_later_best_removes_none_of_them(adapters):
    for seed in (0, 1):
        end(adapters, row(replace(LORA, seed=seed), 0.5 - seed / 10), "all")
    assert seeds(adapters) == [(0, 1), (1, 1)]
    end(adapters, row(replace(LORA, seed=2), 0.3))  # worse than what is there
    assert seeds(adapters) == [(0, 1), (1, 1)]
    end(adapters, row(replace(LORA, seed=3), 0.9))
    assert seeds(adapters) == [(0, 1), (1, 1), (3, 1)]


def test_a_job_that_ran_again_replaces_its_own(adapters):
    end(adapters, row(LORA, 0.5))
    end(adapters, row(LORA, 0.4, attempt=2))
    assert seeds(adapters) == [(0, 2)]


def test_what_is_on_its_way_is_no_adapter_yet(adapters):
    left(adapters, row(LORA, 0.5))
    assert adapters.entries() == {}


def test_of_a_row_that_is_not_ok_nothing_is_kept(adapters):
    end(adapters, row(LORA, 0.5, status="invalid"))
    assert seeds(adapters) == []


def test_the_best_before_stays_until_the_row_that_surpasses_it_is_stored(adapters):
    end(adapters, row(LORA, 0.5))
    better = row(replace(LORA, seed=1), 0.6)
    Keeper(adapters, ()).take(better, left(adapters, better))
    assert seeds(adapters) == [(0, 1), (1, 1)]  # killed here, nothing is lost
    Keeper(adapters, ()).prune(better)
    assert seeds(adapters) == [(1, 1)]


def test_a_failed_save_costs_no_row_and_leaves_nothing_half(adapters, monkeypatch):
    end(adapters, row(LORA, 0.5))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    better = row(replace(LORA, seed=1), 0.6)
    found = end(adapters, better)
    assert found.ok
    assert found.outcome.warnings[-1].startswith("the adapter was not kept: [Errno 28] No space")
    assert replace(found, outcome=replace(found.outcome, warnings=())) == better
    assert seeds(adapters) == [(0, 1)]
    assert list(adapters.incoming.iterdir()) == []


def test_a_note_of_another_peftmark_is_no_adapter_of_ours(adapters):
    end(adapters, row(LORA, 0.5))
    [folder] = adapters.entries()
    text = (folder / NOTES).read_text()
    for changed in (text.replace('"format": 1', '"format": 2'), "[]", "{}", text[:40]):
        with pytest.raises(Unreadable):
            Kept.from_json(changed)
        (folder / NOTES).write_text(changed)
        assert adapters.entries() == {}


def test_names_of_users_stay_in_the_folder():
    assert slug("../../etc/Pass wd") == "etc-pass-wd"
    assert slug("..") == "x"
    assert len(slug("a" * 500)) == 60


# --- disk ---------------------------------------------------------------------------------------


def test_the_disk_that_adapters_need_is_what_earlier_rows_weigh(tmp_path):
    jobs = [replace(job, seed=seed) for job in (LORA, FULL, COLA) for seed in (0, 1)]
    records = [row(LORA, 0.5, adapter_bytes=1000), row(replace(LORA, seed=7), 0.5, adapter_bytes=9)]
    best = need_of(jobs, read_rules((), jobs), records)
    # Full fine-tuning is four bytes a parameter before it ever ran; of COLA nothing is known.
    assert best == Need(3, 1000 + 4 * FULL.model_facts.parameters, 1)
    rules = read_rules(("none", "all:LoRA r8@trec"), jobs)
    assert need_of(jobs, rules, records) == Need(2, 2000, 0)
    assert need_of(jobs, read_rules(("none",), jobs), records).told(tmp_path) == ""
    told = Need(3, 3 * 2**20, 1).told(tmp_path)
    assert told.endswith("3 folders at most; 3.0 MiB; the size of 1 is known after a first run")
    assert Need(1, 0, 1).told(tmp_path).endswith("most; the size of 1 is known after a first run")
    assert Need(1, 2**20, 0).told(tmp_path).endswith("(--keep): 1 folder at most; 1.0 MiB")
    with pytest.raises(UserError, match="kept adapters need 1,048,576,000,000 MiB, and"):
        Need(1, 2**20 * 1_048_576_000_000, 0).check(tmp_path / "not" / "there")


# --- the card -----------------------------------------------------------------------------------


def test_a_card_has_the_facts_of_its_row():
    record = row(replace(LORA, rates="chosen by hand"), 0.625, evaluation=0.75)
    text = card(record)
    for fact in (
        'base_model: "sentence-transformers/all-MiniLM-L6-v2"',
        "# LoRA r8 on trec, seed 0",
        "all-MiniLM-L6-v2 (sentence-transformers/all-MiniLM-L6-v2 at c9745ed1d9f207416be6d2e6f8de3",
        LORA.model_identity,
        "0.750",
        "0.625",
        "0.0005; chosen by hand",
        LORA.job_id,
        "adapter 302,488 bytes, head 597,512 bytes",
        "low-rank update BA",
    ):
        assert fact in text, fact
    assert "not known" not in text


def test_a_card_says_what_is_not_known_and_is_no_markup_of_others():
    job = replace(LORA, variant="a|b\n# c `d` <script>", recipe=make_recipe(selection_rows=0))
    text = card(row(job, None, reload_max_error=None, saved_head_bytes=None))
    assert "none were cut: the lowest seed is kept, not the best" in text
    assert "not compared: " in text
    assert "\n# c" not in text
    assert "<script>" not in text


# --- a run --------------------------------------------------------------------------------------

SUITE = """
suite: demo
version: 1
summary: made up
reference: {method: lora, rank: 4}
radar: {}
recipe: {batch_size: 16, steps: 10, learning_rate: 1e-3, selection_rows: 20}
methods:
  - method: lora
    rank: [4]
    recipe: {targets: attention, alpha: 8}
profiles:
  quick: {summary: s, needs: nothing, scale: reduced,
         sources: [package], model: minilm-l6, seeds: [0, 1, 2], tasks: {trec: {}}}
"""


@pytest.mark.heavy
@pytest.mark.usefixtures("no_devices")
def test_a_run_keeps_the_best_and_one_that_goes_on_compares_with_it(tmp_path):
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "demo.yaml").write_text(SUITE)
    folders = {"suites": tmp_path / "suites", "results": tmp_path / "results"}
    selection = Selection("demo", "quick", **folders, jobs=2)
    store = make_plan(selection).store
    fake_runs.run(selection, {"0": "leaves", "1": "leaves", "2": "exits"})
    assert seeds(store.adapters) == [(1, 1)]
    left_half = store.adapters.incoming / "half"
    left_half.mkdir(parents=True)  # by a run that was killed
    pairs = fake_runs.run(selection, {"2": "leaves"})
    assert [(r.job.seed, r.attempt, r.outcome.warnings) for r, _ in pairs] == [(2, 2, ())]
    assert seeds(store.adapters) == [(2, 2)]
    assert not store.adapters.incoming.exists()
    again = replace(selection, again=True, keep=("none",))
    fake_runs.run(again, {"0": "leaves", "1": "leaves", "2": "leaves"})
    assert seeds(store.adapters) == [(2, 2)]  # nothing is kept, and what was stays


class Enough(Exception):
    """Ends a run once its plan was told."""


class Told:
    """Watches a run up to its plan."""

    def planned(self, plan):
        self.notes = plan.notes
        raise Enough


@pytest.mark.usefixtures("no_devices")
def test_a_run_says_before_it_starts_what_is_kept_and_refuses_what_it_cannot_keep(
    tmp_path, monkeypatch
):
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "demo.yaml").write_text(SUITE)
    selection = Selection("demo", "quick", suites=tmp_path / "suites", results=tmp_path / "results")
    watcher = Told()
    with pytest.raises(Enough):
        carry_out(selection, watcher, Stop())
    folder = tmp_path / "results" / "demo" / "adapters"
    told = f"trained adapters are kept in {folder} (--keep): 1 folder at most; the size of 1"
    assert watcher.notes[-1] == f"{told} is known after a first run"
    with pytest.raises(Enough):
        carry_out(replace(selection, keep=("none",)), watcher, Stop())
    assert not any("adapters" in note for note in watcher.notes)
    with pytest.raises(UserError, match="--keep: found 'some'"):
        carry_out(replace(selection, keep=("some",)), watcher, Stop())
    monkeypatch.setattr(Need, "check", lambda self, results: (_ for _ in ()).throw(Enough))
    with pytest.raises(Enough):
        carry_out(selection, None, Stop())  # before anybody is told
    assert not (tmp_path / "results").exists()


def test_a_card_does_not_say_that_a_rate_is_fixed_where_nobody_knows():
    """What is read back from a row has no word on where its rate is from."""
    record = make_record(job=make_job(task="sst-2"))
    told = "the report of its suite says whether trials picked it"
    assert told in card(replace(record, job=replace(record.job, rates="")))
    fixed = replace(record, job=replace(record.job, rates="fixed in the suite: a paper's"))
    assert "fixed in the suite: a paper's" in card(fixed) and told not in card(fixed)
