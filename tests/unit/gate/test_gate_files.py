"""Baselines on disk, and the commands that accept them and hold results against them."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from factory import make_environment, make_failure, make_outcome, make_record
from gate_cli import smoke_rows
from gated import CELLS, make_line, make_side
from peftmark.core.errors import Exit, UserError
from peftmark.gate import baseline
from peftmark.gate.run_lines import line_of
from peftmark.gate.snapshot import Accepted, machine_class, of_folder
from peftmark.storage import gate_history
from peftmark.storage.store import Store
from places import ROOT, SUITES
from waiting import PATIENCE

ACCEPTED = Accepted("2030-01-02T00:00:00Z", "the first one", "0" * 40)


# --- the file -----------------------------------------------------------------------------------


def without_what_is_shared(snapshot, where):
    """What a baseline keeps: no rounds, and one time for all."""
    lines = tuple(replace(x, rounds=(), finished_at=snapshot.finished_at) for x in snapshot.lines)
    return replace(snapshot, where=where, lines=lines, results=None)


def test_a_baseline_is_read_as_it_was_written_and_its_text_is_stable(tmp_path):
    side = make_side(accepted=replace(ACCEPTED, earlier=(Accepted("2029", "older", ""),)))
    path = tmp_path / "demo" / "cpu.jsonl"
    baseline.write(path, side)
    found = baseline.read(path)
    assert found == without_what_is_shared(side, str(path))
    text = path.read_text()
    assert baseline.text_of(found) == text
    rows = [json.loads(row) for row in text.splitlines()]
    assert sum("seed" in row for row in rows) == 40
    assert sum("config" in row for row in rows) == 8
    assert rows[0]["runs"] == 40


def damage(text: str) -> dict[str, str]:
    """Name -> a damaged file."""
    head, _, body = text.partition("\n")
    return {
        "a digit": text.replace('"value": 0.84', '"value": 0.85', 1),
        "a line less": text.rpartition("\n{")[0] + "\n",
        "cut": text[: len(text) // 2],
        "no header": body,
        "header of a newer one": text.replace('"peftmark_baseline": 2', '"peftmark_baseline": 3'),
        "not JSON": f"{head[:-1]}\n{body}",
        "empty": "",
        "bytes": text.replace("lora", "\ufffdora", 1),
    }


def test_every_damage_is_noticed_and_has_its_code(tmp_path):
    path = tmp_path / "cpu.jsonl"
    baseline.write(path, make_side(accepted=ACCEPTED))
    for name, text in damage(path.read_text()).items():
        path.write_text(text)
        with pytest.raises(UserError, match="is damaged") as caught:
            baseline.read(path)
        assert caught.value.code == Exit.CORRUPT, name


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    path, luck = tmp_path / "cpu.jsonl", random.Random(0)
    side = make_side(seeds=1, accepted=ACCEPTED)
    baseline.write(path, side)
    raw, good = path.read_bytes(), baseline.read(path)
    for _ in range(200):
        at = luck.randrange(raw.index(b"\n"), len(raw))
        path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << luck.randrange(8))]) + raw[at + 1 :])
        with pytest.raises(UserError):
            baseline.read(path)
    path.write_bytes(raw)
    assert baseline.read(path) == good


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lines": ()}, "40 of 40 planned runs have no result"),
        ({"waiting": 3}, "3 runs wait for trials"),
        ({"repeat": "different: loss"}, "is made twice is not the same: different: loss"),
    ],
)
def test_what_is_not_whole_is_refused(change, words):
    assert any(words in fault for fault in baseline.refusals(make_side(**change), None))


def test_failed_dirty_mixed_and_fewer_runs_are_refused():
    assert baseline.refusals(make_side(), None) == []

    def faults(change, before=None):
        return " / ".join(baseline.refusals(make_side(change=change), before))

    def failed(x):
        return replace(x, status="crashed") if x.seed == 0 else x

    dirty = make_environment(dirty=True)
    assert "8 runs are not ok" in faults(failed)
    assert "uncommitted changes" in faults(lambda x: replace(x, environment=dirty))
    mixed = faults(lambda x: replace(x, environment=dirty) if x.seed else x)
    assert "2 different states of code or machine" in mixed
    fewer = baseline.refusals(make_side(seeds=4), make_side(seeds=5))
    assert any("has 4 seeds, the baseline 5" in fault for fault in fewer)
    assert baseline.refusals(make_side(seeds=6), make_side(seeds=5)) == []


def test_the_class_of_a_machine():
    gpus = make_environment(machine={"gpus": ["NVIDIA H100 80GB HBM3"]})
    assert machine_class(make_line(device="cuda", environment=gpus)) == "nvidia-h100-80gb-hbm3"
    assert machine_class(make_line(device="cpu", environment=gpus)) == "cpu"


# --- the commands -------------------------------------------------------------------------------


def accept(peftmark, *words):
    return peftmark(
        "baseline", "accept", "--from", "results/smoke", "--reason", "known good", *words
    )


PATH = Path("results/baselines/smoke/cpu.jsonl")


def gate(peftmark, *words):
    """The gate of rows whose versions are made up."""
    return peftmark("gate", "smoke", "--elsewhere", *words)


def test_accepting_and_holding_the_same_results_against_it_passes(peftmark, monkeypatch):
    smoke_rows(Path("results"))
    code, said = accept(peftmark)
    assert code == 0 and "Accepted 8 runs as results/baselines/smoke/cpu.jsonl" in said
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    code, said = gate(peftmark, "--against", PATH)
    assert code == 0 and "Passed: 4 of 4 cells identical; 8 runs compared." in said
    folder = Path("reports/smoke/gate")
    assert sorted(p.name for p in folder.iterdir()) == [
        "comment.md",
        "gate.json",
        "gate.md",
        "index.html",
        "junit.xml",
    ]
    assert Path("summary.md").read_text() == (folder / "gate.md").read_text()
    code, said = peftmark("comment", folder / "gate.json")
    assert code == 0 and said == (folder / "comment.md").read_text()


@pytest.mark.parametrize("against", ["results/baselines", "results/baselines/smoke", "twin"])
def test_a_folder_of_baselines_or_of_results_will_do(peftmark, against):
    smoke_rows(Path("results"))
    smoke_rows(Path("twin"))
    assert accept(peftmark)[0] == 0
    assert gate(peftmark, "--against", against)[0] == 0


def test_results_are_not_held_against_themselves(peftmark):
    smoke_rows(Path("results"))
    for against in ("results", "results/smoke"):
        code, said = gate(peftmark, "--against", against)
        assert code == 2 and "can't be compared with themselves" in said


def test_rows_of_other_code_than_is_installed_are_refused(peftmark):
    smoke_rows(Path("results"))
    accept(peftmark)
    code, said = peftmark("gate", "smoke", "--against", PATH)
    assert code == Exit.INCOMPLETE and "were made by other code: torch 2.9.0 there" in said


def test_another_results_folder_of_another_recipe_is_not_comparable(peftmark):
    smoke_rows(Path("results"))
    smoke_rows(Path("older"), recipe={"learning_rate": 9e-3})
    code, said = gate(peftmark, "--against", "older")
    assert code == Exit.NOT_COMPARABLE and "recipe.learning_rate 0.009 there" in said


def test_a_folder_by_another_name_is_read_itself(peftmark):
    smoke_rows(Path("results"), value=0.3)
    smoke_rows(Path("x"), value=0.9)
    Path("x/smoke").rename("results/smoke-main")
    Path("policy.yaml").write_text("few_seeds_limit: 0.05\n")
    code, said = gate(peftmark, "--against", "results/smoke-main", "--policy", "policy.yaml")
    assert code == Exit.REGRESSION and "0.905 → 0.305" in said


def test_a_later_attempt_that_failed_counts(peftmark):
    smoke_rows(Path("results"))
    accept(peftmark)
    store = Store(Path("results"), "smoke")
    record = next(r for r in store.read().records.values() if r.job.method == "head")
    failed = make_failure("invalid", "its rank is not the budget's")
    store.append(replace(record, attempt=2, outcome=failed))
    code, said = gate(peftmark, "--against", PATH)
    assert code == Exit.REGRESSION and "its rank is not the budget's" in said


@pytest.mark.slow
@pytest.mark.heavy
def test_a_reader_that_leaves_does_not_change_the_verdict(tmp_path):
    smoke_rows(tmp_path / "results")
    smoke_rows(tmp_path / "other", make_environment(sources={"peftmark": "new"}), value=0.5)
    words = [sys.executable, "-m", "peftmark", "gate", "smoke", "--elsewhere", "--against", "other"]
    done = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=tmp_path)
    assert done.stdout is not None
    done.stdout.close()
    assert done.wait(timeout=PATIENCE) == Exit.NUMBERS_CHANGED


def test_a_drop_fails_and_its_history_is_kept(peftmark):
    smoke_rows(Path("results"))
    accept(peftmark)
    worse = make_environment(sources={"peftmark": "new"})
    smoke_rows(Path("other"), worse, value=0.5, loss=0.9)
    policy = Path("policy.yaml")
    policy.write_text("few_seeds_limit: 0.05\n")
    code, said = peftmark(
        "gate", "smoke", "--elsewhere", "--against", PATH, "--results", "other", "--policy", policy
    )
    assert code == Exit.REGRESSION
    assert "score from 0.705 to 0.505 (−0.200" in said
    points, damaged = gate_history.read(Path("other"), "smoke")
    assert not damaged and len(points) == 4
    assert {p.code for p in points} == {3} and {len(p.values) for p in points} == {2}


def test_without_a_limit_two_seeds_decide_nothing(peftmark):
    smoke_rows(Path("results"))
    accept(peftmark)
    smoke_rows(Path("other"), make_environment(sources={"peftmark": "new"}), value=0.69)
    against = ("--against", PATH, "--results", "other")
    code, said = gate(peftmark, *against)
    assert code == Exit.NUMBERS_CHANGED and "--expect-change" in said
    code, said = gate(peftmark, *against, "--expect-change", "a faster kernel\x1b[2J")
    assert code == Exit.UNDECIDED and "declared: a faster kernel\N{REPLACEMENT CHARACTER}" in said


def test_a_baseline_reads_the_same_whatever_ends_its_lines(tmp_path):
    side = accepted_side()
    text = baseline.text_of(side)
    path = tmp_path / "cpu.jsonl"
    for other in (text, text.replace("\n", "\r\n"), text.removesuffix("\n")):
        path.write_bytes(other.encode())
        assert baseline.read(path).lines == without_what_is_shared(side, "").lines


@pytest.mark.slow
def test_no_bit_of_a_baseline_can_flip_unseen(tmp_path):
    """Of a file of two runs, every bit of the header and of every 7th byte behind it."""
    data = baseline.text_of(accepted_side()).encode()
    header = data.index(b"\n")
    whole, path = baseline.read(written(tmp_path, data)), tmp_path / "flipped.jsonl"
    for at in (*range(header), *range(header, len(data), 7)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                found = baseline.read(path)
            except UserError:
                continue
            assert replace(found, where="") == replace(whole, where=""), (at, bit)


def accepted_side():
    side = make_side(cells=CELLS[:1], tasks=("sst2",), seeds=2)
    return baseline.accepted(side, "a reason", False, None)


def written(folder, data):
    path = folder / "cpu.jsonl"
    path.write_bytes(data)
    return path


def test_a_baseline_of_format_1_is_read_as_before():
    """The repository's own; its hash covers its lines alone."""
    assert baseline.read(ROOT / "results" / "baselines" / "smoke" / "cpu.jsonl").lines


def test_no_baseline_no_results_and_a_damaged_baseline_have_their_codes(peftmark):
    assert gate(peftmark, "--against", PATH)[0] == Exit.INCOMPLETE
    smoke_rows(Path("results"))
    code, said = gate(peftmark, "--against", PATH)
    assert code == Exit.NOT_COMPARABLE and "peftmark baseline accept" in said
    accept(peftmark)
    PATH.write_text(PATH.read_text().replace("0.7", "0.8"))
    code, said = gate(peftmark, "--against", PATH)
    assert code == Exit.CORRUPT and "Nothing was compared" in said
    assert not Path("reports").exists()


def test_a_wrong_policy_is_a_fault_of_use_and_writes_nothing(peftmark):
    smoke_rows(Path("results"))
    accept(peftmark)
    Path("policy.yaml").write_text("alpha: 3\n")
    code, said = gate(peftmark, "--against", PATH, "--policy", "policy.yaml")
    assert code == Exit.USAGE and "alpha: found 3" in said
    assert not Path("reports").exists()


def test_accepting_refuses_and_keeps_what_was_there(peftmark):
    smoke_rows(Path("results"))
    accept(peftmark)
    before = PATH.read_text()
    smoke_rows(Path("results"), make_environment(dirty=True))
    code, said = accept(peftmark)
    assert code == Exit.USAGE and "can't become a baseline" in said
    assert PATH.read_text() == before
    assert peftmark("baseline", "accept", "--from", "results/smoke", "--reason", " ")[0] == 2
    assert peftmark("baseline", "accept", "--from", "nowhere", "--reason", "x")[0] == 2


def test_a_new_baseline_shows_what_changes_and_remembers_the_one_before(peftmark):
    smoke_rows(Path("results"))
    accept(peftmark)
    Path("results/smoke").rename("earlier")
    smoke_rows(Path("results"), make_environment(sources={"peftmark": "new"}), adapter_bytes=7)
    code, said = accept(peftmark)
    assert code == 0 and "adapter on disk went from 900,000 to 7 bytes" in said
    known = baseline.read(PATH).accepted
    assert known is not None and [a.reason for a in known.earlier] == ["known good"]


def test_a_pinned_baseline_stands_beside_the_moving_one_and_counts(peftmark):
    smoke_rows(Path("results"), value=0.9)
    assert accept(peftmark, "--pin")[0] == 0
    assert PATH.with_name("cpu.release.jsonl").is_file() and not PATH.exists()
    Path("results/smoke").rename("released")
    smoke_rows(Path("results"), make_environment(sources={"peftmark": "new"}), value=0.7)
    accept(peftmark)
    Path("policy.yaml").write_text("few_seeds_limit: 0.05\n")
    code, said = gate(peftmark, "--against", PATH, "--policy", "policy.yaml")
    assert code == Exit.REGRESSION and "against the release" in said


@pytest.mark.slow
@pytest.mark.heavy
def test_two_folders_as_a_table(peftmark):
    smoke_rows(Path("a"))
    smoke_rows(Path("b"), make_environment(sources={"peftmark": "new"}), value=0.71)
    code, said = peftmark("compare", "a/smoke", "b/smoke")
    assert code == 0 and "peftmark compare: suite smoke" in said
    assert "0.705 → 0.715" in said and "Exit code" not in said
    code, said = peftmark("compare", "a/smoke", "b/smoke", "--markdown")
    assert code == 0 and said.startswith("# smoke, profile offline: runs compared")
    code, said = peftmark("compare", "a/smoke", "b/smoke", "--json")
    assert json.loads(said)["code"] is None
    assert peftmark("compare", "a/smoke", "nowhere")[0] == 2


def test_a_comment_of_a_forged_file_is_refused_without_a_word_of_it(peftmark):
    Path("gate.json").write_text('{"peftmark_gate": 1, "sentence": "pwned"}')
    code, said = peftmark("comment", "gate.json")
    assert code == Exit.CORRUPT and "pwned" not in said


@pytest.mark.heavy
def test_the_trend_needs_a_history_and_draws_it(peftmark):
    code, said = peftmark("trend", "smoke")
    assert code == 2 and "no history" in said
    smoke_rows(Path("results"))
    accept(peftmark)
    gate(peftmark, "--against", PATH)
    code, said = peftmark("trend", "smoke")
    assert code == 0 and Path("reports/smoke/trend/index.html").is_file()


def test_results_are_found_by_what_the_rows_say_if_the_folder_is_called_otherwise(peftmark):
    smoke_rows(Path("results"))
    Path("results/smoke").rename("moved")
    side = of_folder(Path("moved"), None)
    assert (side.suite, len(side.lines)) == ("smoke", 8)


def test_rows_of_a_method_that_the_suite_dropped_stand_for_nothing(peftmark):
    smoke_rows(Path("results"))
    accept(peftmark)
    text = (SUITES / "smoke.yaml").read_text()
    head = "  - method: head\n    recipe: {learning_rate: 5e-3}\n"
    assert head in text
    Path("own").mkdir()
    Path("own/smoke.yaml").write_text(text.replace(head, ""))
    code, said = gate(peftmark, "--against", PATH, "--suites", "own")
    assert code == Exit.INCOMPLETE and "the suite plans them no more" in said


def test_rounds_are_those_of_the_code_that_counts(tmp_path):
    folder = smoke_rows(tmp_path, make_environment(sources={"peftmark": "new"}))
    store = Store(folder.parent, folder.name)
    record = next(iter(store.read().records.values()))
    old = make_environment(sources={"peftmark": "old"})
    store.append(replace(record, attempt=2, environment=old))
    store.append(replace(record, attempt=3, started_at="2031-01-01T00:00:00Z"))
    line = next(x for x in of_folder(folder, None).lines if x.key == line_of(record).key)
    assert [r.started_at for r in line.rounds] == [record.started_at, "2031-01-01T00:00:00Z"]


def test_the_hash_of_a_run_sees_every_figure_but_its_clock():
    def bits(**changes):
        curve = make_outcome().curve
        point = replace(curve[0], **changes)
        return line_of(make_record(outcome=make_outcome(curve=(point, *curve[1:])))).bits

    assert bits(seconds=99.0) == bits()
    for name in ("loss", "metric", "gradient_norm", "selection_metric", "penalty"):
        assert bits(**{name: 0.123456}) != bits(), name


def test_what_is_no_number_is_unknown():
    odd = make_outcome(metric_value=math.nan, loss=math.inf, padding_share=math.nan)
    line = line_of(make_record(outcome=odd))
    assert (line.value, line.loss, line.counts["padding_share"]) == (None, None, None)
