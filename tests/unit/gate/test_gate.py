"""What the gate says of made-up rows: every finding, its code and its words."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as Xml

import pytest

from factory import (
    ADALORA,
    BASE,
    HEAD,
    LORA,
    QLORA,
    make_causal,
    make_environment,
    make_job,
    make_matrix,
)
from gated import CELLS, NEW, OLD, by_new_code, make_line, make_side, with_counts
from gated import declared as judge
from peftmark.core.errors import Exit, UserError
from peftmark.gate import baseline, show
from peftmark.gate.judge import compare
from peftmark.gate.judge import judge as undeclared
from peftmark.gate.policy import Policy, read_policy
from peftmark.gate.result import Gate
from peftmark.gate.run_lines import config_of, line_of
from peftmark.gate.snapshot import Accepted, of_folder
from peftmark.storage.store import Store

DEFAULT = Policy()


def gate_of(change, policy: Policy = DEFAULT, **facts) -> Gate:
    """The default side held against itself after a change to its lines, which is declared."""
    return judge(make_side(change=change, **facts), make_side(), policy)


def undeclared_gate_of(change) -> Gate:
    """The same where nobody said why."""
    return undeclared(make_side(change=change), make_side(), DEFAULT)


def checks(gate: Gate) -> set[str]:
    return {f.check for f in gate.findings if f.kind not in ("note", "improved")}


def of_cell(gate: Gate, title: str):
    return next(cell for cell in gate.cells if cell.cell == title)


def test_the_same_rows_pass_and_are_called_identical():
    gate = gate_of(lambda line: line)
    assert gate.code == Exit.OK and gate.findings == ()
    assert {c.verdict for c in gate.cells} == {"identical"}
    assert gate.sentence == "Passed: 4 of 4 cells identical; 40 runs compared."
    assert all(c.identical == c.runs == 10 for c in gate.cells)


def test_other_code_with_the_same_bits_is_identical_too():
    gate = gate_of(lambda line: replace(line, environment=NEW))
    assert gate.code == Exit.OK
    assert {c.verdict for c in gate.cells} == {"identical"}
    assert gate.after.versions == {"peftmark (source)": "new"}
    assert gate.before.versions == {"peftmark (source)": "old"}


def test_other_code_with_other_bits_and_equal_scores_is_the_same_within_noise():
    gate = gate_of(by_new_code)
    assert gate.code == Exit.OK
    assert {c.verdict for c in gate.cells} == {"same within noise"}
    assert all("declared: a test" in f.sentence for f in gate.findings)


def test_numbers_that_changed_undeclared_never_pass():
    """Equal scores, counts and costs: what a scheduler stepped before the optimizer looks like."""
    gate = undeclared_gate_of(by_new_code)
    assert gate.code == Exit.NUMBERS_CHANGED
    assert {c.verdict for c in gate.cells} == {"numbers changed"}
    (found,) = gate.findings  # every cell has it
    assert (found.kind, found.check) == ("numbers changed", "bits.undeclared")
    assert "peftmark (source)" in found.sentence and "--expect-change" in found.sentence
    assert gate.sentence.startswith("Numbers changed: 1 undeclared change of numbers, 0 of 4 cells")


def test_one_cell_whose_numbers_changed_is_named():
    gate = undeclared_gate_of(
        lambda x: by_new_code(x) if x.cell == QLORA else replace(x, environment=NEW)
    )
    assert gate.code == Exit.NUMBERS_CHANGED
    assert [f.cell for f in gate.findings] == ["QLoRA r8"]
    assert of_cell(gate, "LoRA r8").verdict == "identical"


@pytest.mark.parametrize("part", ["cpu", "cpu_model", "simd", "threads"])
def test_on_another_kind_of_machine_other_numbers_need_no_declaration(part):
    def elsewhere(line):
        made = by_new_code(line)
        if part == "threads":
            return replace(made, threads=2)
        machine = {**made.environment.machine, part: "another"}
        return replace(made, environment=replace(made.environment, machine=machine))

    gate = undeclared_gate_of(elsewhere)
    assert gate.code == Exit.OK
    assert {c.verdict for c in gate.cells} == {"same within noise"}


def test_other_versions_of_a_library_are_a_change_to_declare_too():
    def upgraded(line):
        made = by_new_code(line)
        versions = {**OLD.versions, "torch": "9.9"}
        return replace(made, environment=replace(OLD, versions=versions))

    gate = undeclared_gate_of(upgraded)
    assert gate.code == Exit.NUMBERS_CHANGED
    assert "torch" in gate.findings[0].sentence


def test_what_is_worse_goes_before_numbers_that_changed():
    def worse(line):
        made = by_new_code(line)
        return replace(made, value=made.value - 0.2 - made.seed / 1000)

    gate = undeclared_gate_of(worse)
    assert gate.code == Exit.REGRESSION
    assert {"regression", "numbers changed"} <= {f.kind for f in gate.findings}


def test_other_bits_by_the_same_code_are_not_deterministic():
    gate = gate_of(lambda x: replace(x, bits="other") if x.cell == QLORA and x.seed == 3 else x)
    assert gate.code == Exit.NOT_REPEATABLE
    (found,) = gate.findings
    assert (found.kind, found.cell) == ("not deterministic", "QLoRA r8")
    assert "2 runs (sst2, seed 3; stsb, seed 3)" in found.sentence
    assert of_cell(gate, "QLoRA r8").verdict == "not deterministic"
    assert of_cell(gate, "LoRA r8").verdict == "identical"


def test_a_run_that_was_made_twice_and_differs_is_not_deterministic():
    gate = judge(make_side(repeat="different: loss at step 20"), make_side(), DEFAULT)
    assert gate.code == Exit.NOT_REPEATABLE
    assert "different: loss at step 20" in gate.findings[0].sentence


def test_a_missing_method_is_incomplete_whether_planned_or_not():
    gate = gate_of(lambda line: None if line.cell == HEAD else line)
    assert gate.code == Exit.INCOMPLETE
    assert of_cell(gate, "head only").verdict == "incomplete"
    dropped = judge(make_side(CELLS[:3]), make_side(), DEFAULT)
    assert dropped.code == Exit.INCOMPLETE
    assert "the suite plans them no more" in dropped.findings[0].sentence


def test_planned_runs_without_a_row_are_incomplete_even_if_the_baseline_lacks_them():
    after = make_side(seeds=6, change=lambda line: line if line.seed < 5 else None)
    gate = judge(after, make_side(), DEFAULT)
    assert gate.code == Exit.INCOMPLETE and checks(gate) == {"run.missing"}


def test_new_runs_are_noted_and_fail_nothing():
    gate = judge(make_side(seeds=6), make_side(), DEFAULT)
    assert gate.code == Exit.OK
    assert {f.check for f in gate.findings} == {"run.new"}


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        ("invalid", Exit.REGRESSION, "broken"),
        ("diverged", Exit.REGRESSION, "broken"),
        ("crashed", Exit.INCOMPLETE, "incomplete"),
        ("out_of_memory", Exit.INCOMPLETE, "incomplete"),
        ("timed_out", Exit.INCOMPLETE, "incomplete"),
    ],
)
def test_a_failed_run_says_why_and_fails(status, code, verdict):
    def broken(line):
        if line.cell != ADALORA:
            return line
        return replace(line, status=status, status_reason="ended at rank 12, budget 8", value=None)

    gate = gate_of(broken)
    assert gate.code == code
    assert "ended at rank 12, budget 8" in gate.findings[0].sentence
    assert of_cell(gate, "AdaLoRA r8").verdict == verdict


def test_another_configuration_is_not_comparable_and_named():
    def other(line):
        return replace(line, config={**line.config, "recipe.learning_rate": 1e-3})

    gate = gate_of(other)
    assert gate.code == Exit.NOT_COMPARABLE
    (found,) = gate.findings
    assert found.cell == "" and "recipe.learning_rate 0.0005 there, 0.001 here" in found.sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pad_to", 8),
        ("compile", True),
        ("devices", 2),
        ("shard", True),
        ("packing", True),
        ("kernels", "liger"),
    ],
)
def test_another_form_of_the_step_is_not_comparable(name, value):
    recipe = replace(make_job().recipe, **{name: value})
    config = config_of(replace(make_job(), recipe=recipe))
    assert config == config_of(make_job()) | {f"recipe.{name}": value}
    gate = gate_of(lambda line: replace(line, config=line.config | {f"recipe.{name}": value}))
    assert gate.code == Exit.NOT_COMPARABLE
    assert f"recipe.{name} absent there, {value} here" in gate.findings[0].sentence


def test_another_profile_is_not_comparable():
    gate = judge(make_side(profile="full"), make_side(), DEFAULT)
    assert gate.code == Exit.NOT_COMPARABLE
    assert "profile quick there, full here" in gate.findings[0].sentence


@pytest.mark.parametrize(
    ("counts", "check", "words"),
    [
        (
            {"learning_rate_mean": 1.25e-4},
            "count.learning_rate_mean",
            "from 0.00025 to 0.000125 (−50.0 %)",
        ),
        (
            {"trainable_parameters": 74_498},
            "count.trainable_parameters",
            "from 223,106 to 74,498 (−66.6 %)",
        ),
        ({"base_format": "fp4 in blocks of 64: 9"}, "count.base_format", "is stored as fp4"),
        (
            {"live_bytes": 2**30, "live_optimizer_bytes": 526 * 2**20},
            "count.live_bytes",
            "from 524,288,000 to 1,073,741,824 bytes (+104.8 %); most of it in optimizer states "
            "(+524.0 MiB)",
        ),
    ],
)
def test_a_changed_count_is_a_regression_with_both_values(counts, check, words):
    gate = gate_of(lambda x: with_counts(x, **counts) if x.cell == QLORA else x)
    assert gate.code == Exit.REGRESSION
    (found,) = gate.findings
    assert (found.check, found.cell) == (check, "QLoRA r8")
    assert words in found.sentence
    assert of_cell(gate, "QLoRA r8").verdict == "changed"


def test_less_memory_is_an_improvement_and_fewer_parameters_are_not():
    better = gate_of(lambda x: with_counts(x, live_bytes=400 * 2**20))
    assert better.code == Exit.OK and better.findings[0].kind == "improved"
    assert better.findings[0].cell == ""  # every cell alike: one finding
    assert gate_of(lambda x: with_counts(x, trainable_parameters=1)).code == Exit.REGRESSION
    before = make_side(change=lambda x: with_counts(x, live_temporary_bytes=9 * 2**20))
    for size, code in ((8, Exit.OK), (10, Exit.REGRESSION)):
        after = make_side(change=lambda x, n=size: with_counts(x, live_temporary_bytes=n * 2**20))
        assert judge(after, before, DEFAULT).code == code


def test_a_count_that_is_not_known_any_more_is_incomplete_and_an_ignored_one_nothing():
    gone = gate_of(lambda x: with_counts(x, live_bytes=None))
    assert gone.code == Exit.INCOMPLETE
    ignoring = Policy(ignored_counts=["trainable_parameters"])
    assert gate_of(lambda x: with_counts(x, trainable_parameters=1), ignoring).code == Exit.OK


def test_sums_in_another_order_are_no_change():
    assert gate_of(lambda x: with_counts(x, learning_rate_mean=2.5e-4 * (1 + 1e-12))).code == 0


def test_one_data_order_for_all_seeds_is_found():
    def one_order(line):
        order = f"order {line.task} 0"
        return by_new_code(with_counts(line, batch_order_hash=order))

    gate = gate_of(one_order)
    assert gate.code == Exit.REGRESSION
    found = next(f for f in gate.findings if f.check == "seeds.same-order")
    assert "seeds 0, 1, 2, 3 and 4 draw the batches in one and the same order" in found.sentence


def test_a_drop_on_every_seed_is_a_regression_in_words():
    gate = gate_of(lambda x: by_new_code(x, value=0.80 + 0.001 * x.seed) if x.cell == LORA else x)
    assert gate.code == Exit.REGRESSION
    found = next(f for f in gate.findings if f.check == "quality.overall")
    assert found.sentence.startswith("score from 0.840 to 0.802 (−0.038 ± 0.002); p")
    cell = of_cell(gate, "LoRA r8")
    assert cell.verdict == "worse" and cell.change.seeds == 5
    assert cell.change.detectable is not None
    assert {t.verdict for t in cell.tasks} == {"worse"}


def test_the_same_drop_on_every_seed_has_no_spread_and_is_found_all_the_same():
    gate = gate_of(lambda x: by_new_code(x, value=0.80) if x.cell == LORA else x)
    assert gate.code == Exit.REGRESSION
    assert "by the same on every seed" in gate.findings[0].sentence


def test_a_drop_within_the_margin_fails_nothing_however_sure_it_is():
    gate = gate_of(lambda x: by_new_code(x, value=0.8385 + 1e-5 * x.seed))
    assert gate.code == Exit.OK


def test_an_improvement_is_told_and_passes():
    gate = gate_of(lambda x: by_new_code(x, value=0.88 + 0.001 * x.seed))
    assert gate.code == Exit.OK
    assert {f.kind for f in gate.findings} == {"improved"}
    assert {c.verdict for c in gate.cells} == {"better"}


def test_lower_is_better_for_such_a_metric(monkeypatch):
    from peftmark.catalog.metrics import METRICS

    error = replace(METRICS["accuracy"], key="error", direction="lower")
    monkeypatch.setitem(METRICS, "error", error)
    before = make_side(change=lambda x: replace(x, metric="error"))
    after = make_side(change=lambda x: by_new_code(x, metric="error", value=0.88 + 0.001 * x.seed))
    assert judge(after, before, DEFAULT).code == Exit.REGRESSION


class TestFewSeeds:
    def sides(self, value):
        before = make_side(seeds=2)
        return make_side(seeds=2, change=lambda x: by_new_code(x, value=value)), before

    def test_two_seeds_are_undecided_without_a_limit(self):
        gate = judge(*self.sides(0.83), DEFAULT)
        assert gate.code == Exit.UNDECIDED
        assert "2 seeds can't be tested, 3 can" in gate.findings[0].sentence

    def test_a_limit_decides(self):
        policy = Policy(few_seeds_limit=0.02)
        assert judge(*self.sides(0.83), policy).code == Exit.OK
        assert judge(*self.sides(0.81), policy).code == Exit.REGRESSION

    def test_identical_runs_need_no_seeds(self):
        assert judge(make_side(seeds=1), make_side(seeds=1), DEFAULT).code == Exit.OK


def test_non_inferiority_is_undecided_where_a_drop_is_not_ruled_out():
    noise = (0.02, -0.02, 0.01, -0.01, 0.0)
    wide = gate_of(
        lambda x: by_new_code(x, value=0.84 + noise[x.seed]), Policy(quality="non-inferior")
    )
    assert wide.code == Exit.UNDECIDED
    assert "isn't ruled out" in wide.findings[0].sentence
    tight = gate_of(
        lambda x: by_new_code(x, value=0.84 + noise[x.seed] / 100), Policy(quality="non-inferior")
    )
    assert tight.code == Exit.OK


def test_collapses_are_told_and_fail_only_where_chance_is_no_answer():
    def collapsing(seeds, tasks=("sst2",)):
        def change(x):
            hit = x.cell == LORA and x.task in tasks and x.seed in seeds
            return replace(x, collapsed=True) if hit else x

        return change

    assert gate_of(collapsing({1})).findings[0].kind == "note"
    two = gate_of(collapsing({1, 2}))
    assert two.code == Exit.OK and two.findings[0].kind == "suspicious"
    assert "2 runs now predict the same for every row: sst2 seed 1 and sst2 seed 2" in (
        two.findings[0].sentence
    )
    most = gate_of(collapsing(range(4), ("sst2", "stsb")))
    assert most.code == Exit.REGRESSION and most.findings[0].check == "quality.collapsed"
    fewer = judge(
        make_side(change=collapsing({4})), make_side(change=collapsing({0, 1, 2})), DEFAULT
    )
    assert fewer.code == Exit.OK and fewer.findings[0].kind == "note"


def test_a_target_that_is_not_reached_any_more_is_later_than_any():
    def mostly(line):
        late = line.seed == 4 and line.task == "stsb"
        return by_new_code(line, steps_to_target=100 if late else None)

    for never in (mostly, lambda x: by_new_code(x, steps_to_target=None)):
        gate = gate_of(never)
        assert gate.code == Exit.REGRESSION
        assert checks(gate) == {"steps_to_target"}
        assert {c.verdict for c in gate.cells} == {"slower to learn"}


def test_much_faster_learning_is_suspicious_and_passes():
    gate = gate_of(lambda x: by_new_code(x, steps_to_target=20))
    assert gate.code == Exit.OK
    assert gate.findings[0].kind == "suspicious" and "leaked" in gate.findings[0].sentence


def test_the_release_catches_what_the_moving_baseline_let_pass():
    def at(value):
        return make_side(change=lambda x: by_new_code(x, value=value + 0.0004 * x.seed))

    release = make_side(change=lambda x: replace(x, value=0.86 + 0.0003 * x.seed, environment=NEW))
    assert judge(at(0.838), at(0.840), DEFAULT).code == Exit.OK
    both = judge(at(0.838), at(0.840), DEFAULT, release)
    assert both.code == Exit.REGRESSION
    assert {f.against for f in both.findings if f.kind == "regression"} == {"release"}


def test_counts_that_were_accepted_since_the_release_are_not_told_again():
    release = make_side(change=lambda x: with_counts(x, trainable_parameters=7))
    assert judge(make_side(), make_side(), DEFAULT, release).code == Exit.OK


def test_comparing_has_no_code_and_says_the_same():
    found = compare(make_side(change=by_new_code), make_side())
    assert found.code is None and found.sentence.startswith("0 of 4 cells identical")
    assert "Exit code" not in show.text(found)


# --- texts --------------------------------------------------------------------------------------


def bad() -> Gate:
    def change(line):
        if line.cell == HEAD:
            return None
        if line.cell == QLORA:
            line = with_counts(line, trainable_parameters=1)
        return by_new_code(line, value=0.80 + 0.001 * line.seed) if line.cell == LORA else line

    return gate_of(change)


def test_json_survives_a_round_trip_and_is_checked_strictly(tmp_path):
    gate, path = bad(), tmp_path / "gate.json"
    path.write_text(show.to_json(gate))
    assert show.from_json(path) == gate
    for harm in (
        lambda d: d.update(extra=1),
        lambda d: d["findings"][0].update(kind="fine"),
        lambda d: d["findings"][0].update(sentence="x" * 3000),
        lambda d: d["cells"][0].update(cell=["LoRA"]),
        lambda d: d.pop("before"),
    ):
        data = json.loads(show.to_json(gate))
        harm(data)
        path.write_text(json.dumps(data))
        with pytest.raises(UserError, match="is not what `peftmark gate` writes") as caught:
            show.from_json(path)
        assert caught.value.code == Exit.CORRUPT
    path.write_text("{")
    with pytest.raises(UserError, match="is not what"):
        show.from_json(path)


def test_the_terminal_text_names_verdict_cells_findings_and_code():
    text = show.text(bad())
    for words in (
        "Failed: ",
        "QLoRA r8",
        "run.missing",
        "count.trainable_parameters",
        "Exit code 3",
    ):
        assert words in text


@pytest.mark.heavy
def test_markdown_escapes_what_others_wrote_and_fits():
    gate = bad()
    evil = "<img src=x onerror=1> @everyone | `code` [a](javascript:1)\n# big"
    worse = replace(gate, findings=(replace(gate.findings[0], sentence=evil), *gate.findings))
    text = show.comment(worse)
    assert text.splitlines()[5] == show.WHOSE, "whose run it is stands under the verdict"
    assert text.startswith(show.MARKER)
    for raw in ("<img", "@everyone", "\n# big", "[a](", "| `code`"):
        assert raw not in text
    many = replace(gate, findings=gate.findings * 5000)
    assert len(show.comment(many)) < 65_536
    assert len(show.markdown(many).encode()) < 2**20
    assert "lines are left out here" in show.comment(many)


def test_a_comment_shows_three_findings_and_folds_the_rest():
    gate = bad()
    text = show.comment(replace(gate, findings=gate.findings * 3))
    shown, _, folded = text.partition("<details>")
    assert gate.sentence.split(":")[0] in shown
    assert sum(line.startswith("- ") for line in shown.splitlines()) == 3
    assert "more, 4 cells and both sides" in folded and "| cell | verdict |" in folded
    passed = show.comment(gate_of(lambda x: x))
    assert "<summary>4 cells and both sides</summary>" in passed


def test_junit_counts_what_failed_and_survives_bad_characters():
    gate = bad()
    evil = replace(
        gate, findings=(replace(gate.findings[0], sentence="a\x00b\ud800<&"), *gate.findings)
    )
    root = Xml.fromstring(show.junit(evil).encode())
    suite = root[0]
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
    assert int(suite.attrib["failures"]) == len(suite.findall(".//failure")) >= 2
    assert int(suite.attrib["errors"]) == len(suite.findall(".//error")) == 2
    passed = Xml.fromstring(show.junit(gate_of(lambda x: x)))
    assert passed[0].attrib["failures"] == passed[0].attrib["errors"] == "0"
    undecided = TestFewSeeds().sides(0.83)
    skipped = Xml.fromstring(show.junit(judge(*undecided, DEFAULT)))
    assert int(skipped[0].attrib["skipped"]) == 1  # every cell alike: one finding


# --- policy -------------------------------------------------------------------------------------


def test_a_policy_is_read_strictly_and_every_fault_is_told(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nmargin: 2\nqualty: no-drop\nignored_counts: [speed]\n")
    with pytest.raises(UserError) as caught:
        read_policy(path)
    for words in ("margin: found 2", "qualty: unknown key", "ignored_counts[0]", "policy.yaml"):
        assert words in caught.value.what
    path.write_text("timings: binding\n")
    with pytest.raises(UserError, match="needs runner: exclusive"):
        read_policy(path)
    path.write_text("")
    assert read_policy(path) == Policy() == read_policy(None)


def test_an_advisory_policy_tells_and_passes():
    policy = Policy(quality="advisory", counts="advisory")
    gate = gate_of(lambda x: by_new_code(with_counts(x, trainable_parameters=1), value=0.7), policy)
    assert gate.code == Exit.OK and gate.findings


def test_a_line_without_a_value_is_left_out_of_the_scores():
    gate = gate_of(lambda x: by_new_code(x, value=None) if x.cell == LORA else x)
    assert of_cell(gate, "LoRA r8").change.difference is None
    assert gate.code == Exit.INCOMPLETE
    assert make_line().peak == 500 * 2**20


# --- what must not pass ---------------------------------------------------------------------------


def test_nothing_to_compare_is_not_comparable():
    empty = make_side(change=lambda line: None, planned=())
    gate = judge(make_side(), empty, DEFAULT)
    assert gate.code == Exit.NOT_COMPARABLE
    assert "procedure.none" in checks(gate)


def test_a_baseline_that_failed_itself_is_not_comparable():
    broken = make_side(change=lambda x: replace(x, status="crashed") if x.cell == LORA else x)
    gate = judge(make_side(), broken, DEFAULT)
    assert gate.code == Exit.NOT_COMPARABLE
    assert "10 runs" in gate.findings[0].sentence
    assert of_cell(gate, "LoRA r8").verdict == "not comparable"


def test_a_repeat_that_was_not_made_is_incomplete():
    gate = judge(make_side(repeat="not run: its repeat has no row yet"), make_side(), DEFAULT)
    assert gate.code == Exit.INCOMPLETE


def test_rows_of_several_states_of_code_are_incomplete():
    gate = gate_of(lambda x: by_new_code(x) if x.seed else x)
    assert "run.mixed" in checks(gate) and gate.code == Exit.INCOMPLETE
    assert any("run with --again" in finding.sentence for finding in gate.findings)


def test_rows_of_several_machines_are_gated_apart():
    """A merged folder: no verdict over rows whose bits, times and peaks need not agree."""
    there = make_environment(machine={"cpu": "Other CPU"})
    gate = gate_of(lambda x: replace(x, environment=there) if x.seed else x)
    [mixed] = [finding for finding in gate.findings if finding.check == "run.mixed"]
    assert mixed.sentence.endswith("; gate each machine's own results")
    assert gate.code == Exit.INCOMPLETE


def test_one_unknown_count_does_not_hide_other_changes():
    before = make_side(
        change=lambda x: with_counts(x, trainable_parameters=None) if x.seed == 0 else x
    )
    after = make_side(change=lambda x: with_counts(x, trainable_parameters=5))
    assert judge(after, before, DEFAULT).code == Exit.REGRESSION


def test_memory_that_grows_on_one_task_or_is_unknown_now_does_not_pass():
    def grown(x):
        return replace(x, memory={"vmhwm_train_bytes": 4000 * 2**20}) if x.task == "stsb" else x

    assert gate_of(grown).code == Exit.REGRESSION
    assert gate_of(lambda x: replace(x, memory={})).code == Exit.INCOMPLETE


def test_scores_without_a_common_seed_are_undecided():
    def apart(x):
        wanted = {"sst2": (0, 1), "stsb": (2, 3, 4)}[x.task]
        return by_new_code(x) if x.seed in wanted else None

    half = make_side(
        change=lambda x: x if x.seed in {"sst2": (0, 1), "stsb": (2, 3, 4)}[x.task] else None
    )
    half = replace(half, planned=tuple(line.key for line in half.lines))
    after = make_side(change=apart)
    gate = judge(replace(after, planned=half.planned), half, DEFAULT)
    assert gate.code == Exit.UNDECIDED and checks(gate) == {"quality.unknown"}


def test_a_task_that_falls_by_the_same_on_every_seed_is_no_pass():
    def fallen(x):
        value = 0.78 if x.task == "stsb" else 0.90 + 0.001 * x.seed
        return by_new_code(x, value=value)

    gate = gate_of(fallen)
    assert gate.code == Exit.UNDECIDED
    assert "so few seeds can't tell from chance" in gate.findings[0].sentence


def test_noise_is_not_called_an_improvement():
    noise = (0.01, -0.008, 0.012, -0.004, 0.009)
    gate = gate_of(lambda x: by_new_code(x, value=0.84 + noise[x.seed]))
    assert gate.code == Exit.OK and gate.findings == ()


def test_an_untested_cell_is_not_called_the_same():
    policy = Policy(few_seeds_limit=0.05)
    after = make_side(seeds=2, change=lambda x: by_new_code(x, value=0.835 + 0.001 * x.seed))
    gate = judge(after, make_side(seeds=2), policy)
    assert gate.code == Exit.OK and {c.verdict for c in gate.cells} == {"not tested"}


def test_no_drop_is_said_to_show_that_no_metric_can_have():
    """Two seeds that moved apart: an interval of ± 3 on an accuracy."""
    moves = (0.3, -0.2)
    gate = judge(
        make_side(seeds=2, change=lambda x: by_new_code(x, value=0.84 + moves[x.seed])),
        make_side(seeds=2),
        Policy(few_seeds_limit=0.5),
    )
    text = show.text(gate)
    assert "but 2 seeds can't show any difference" in text
    wide = make_side(seeds=3, change=lambda x: by_new_code(x, value=0.84 - 0.4 * x.seed))
    said = show.text(judge(wide, make_side(seeds=3), DEFAULT))
    assert "no drop would show" in said and "1.0 would show" not in said


def test_control_characters_and_addresses_reach_nobody():
    evil = "\x1b[31mred https://evil.example www.evil.example"
    gate = gate_of(lambda x: replace(x, status="crashed", status_reason=evil, value=None))
    assert "\x1b" not in show.text(gate)
    assert "https://evil" not in show.comment(gate) and "www.evil" not in show.comment(gate)


def test_runs_of_another_procedure_are_compared_in_nothing_else():
    def other(line):
        line = with_counts(line, trainable_parameters=1)
        return by_new_code(line, config={**line.config, "recipe.steps": 7}, value=0.1)

    gate = gate_of(other)
    assert gate.code == Exit.NOT_COMPARABLE and checks(gate) == {"procedure.config"}
    assert all(cell.runs == 0 and cell.change.difference is None for cell in gate.cells)


def test_what_pruning_decides_may_differ_a_little_where_the_bits_differ():
    def side(size, method, new):
        def change(line):
            line = with_counts(line, adapter_bytes=size)
            line = replace(line, config={**line.config, method: 12})
            return by_new_code(line) if new else line

        return make_side(change=change)

    def code(method, size, new=True):
        return judge(side(size, method, new), side(900_000, method, False), DEFAULT).code

    assert code("recipe.adalora.init_rank", 920_000) == Exit.OK
    assert code("recipe.adalora.init_rank", 990_000) == Exit.REGRESSION
    assert code("recipe.adalora.init_rank", 920_000, new=False) == Exit.REGRESSION
    assert code("recipe.alpha", 920_000) == Exit.REGRESSION


def test_live_bytes_may_differ_a_little_on_another_kind_of_processor():
    machine = {"cpu": "Other CPU", "simd": "avx2"}
    other = replace(NEW, machine=machine)

    def grown(share, environment):
        def change(line):
            line = with_counts(line, live_bytes=int(500 * 2**20 * (1 + share)))
            return replace(line, environment=environment, bits=f"{line.bits} other")

        return gate_of(change).code

    assert grown(0.01, other) == Exit.OK
    assert grown(0.03, other) == Exit.REGRESSION
    assert grown(0.01, NEW) == Exit.REGRESSION


def test_later_by_less_than_the_resolution_of_the_figure_fails_nothing():
    def half(line):
        later = 20 * (1 + line.seed % 3) if line.task == "sst2" else 0
        return by_new_code(line, steps_to_target=60 + later)

    assert gate_of(half).code == Exit.OK


def test_the_drop_that_would_show_grows_with_the_cells_that_are_tested():
    noise = (0.01, -0.008, 0.012, -0.004, -0.009)

    def shown(cells):
        after = make_side(cells, change=lambda x: by_new_code(x, value=0.84 + noise[x.seed]))
        return of_cell(judge(after, make_side(cells), DEFAULT), "LoRA r8").change.detectable

    assert shown(CELLS) > 1.2 * shown((LORA,))


def test_two_looks_share_the_chance_of_a_false_alarm():
    assert judge(make_side(), make_side(), DEFAULT, make_side()).policy["alpha"] == 0.025
    assert judge(make_side(), make_side(), DEFAULT).policy["alpha"] == 0.05


def test_a_release_of_another_procedure_must_be_pinned_anew():
    other = make_side(change=lambda x: replace(x, config={**x.config, "recipe.steps": 9}))
    gate = judge(make_side(), make_side(), DEFAULT, other)
    assert gate.code == Exit.NOT_COMPARABLE
    assert {f.against for f in gate.findings} == {"release"}


# --- language models and what trains nothing ------------------------------------------------------

TEXT = {"metric": "log_likelihood", "value": -3.0, "baseline_value": -6.5}


def spoken(line):
    """Half of the suite as a language task."""
    return replace(line, **TEXT) if line.task == "stsb" else line


def untouched(line):
    """A line of the base: copies by seed, nothing trained, nothing timed."""
    if line.cell != BASE:
        return line
    counts = dict.fromkeys(line.counts) | {"batch_order_hash": line.counts["batch_order_hash"]}
    rounds = tuple(replace(r, step_seconds=None) for r in line.rounds)
    return replace(
        line,
        bits=f"base {line.task}",
        initial="",
        counts=counts,
        step_seconds=None,
        memory=dict.fromkeys(line.memory),
        loss=None,
        steps_to_target=None,
        rounds=rounds,
    )


def test_a_mean_over_tasks_with_a_log_likelihood_is_one_of_shares():
    def drop(line):
        line = by_new_code(spoken(line))
        fell = line.cell == LORA and line.task == "stsb"
        # A tenth of a nat each: of the way from -6.5 to 0 that is 0.0154, over two tasks 0.0077.
        return replace(line, value=line.value - 0.1 - 0.001 * line.seed) if fell else line

    gate = judge(make_side(change=drop), make_side(change=spoken), DEFAULT)
    found = of_cell(gate, "LoRA r8")
    assert found.change.difference == pytest.approx(-0.102 / 6.5 / 2)
    # Before: (0.84 - 0.5) / 0.5 and 1 - 3 / 6.5.
    assert found.change.before == pytest.approx((0.68 + 1 - 3 / 6.5) / 2)
    (text,) = [f.sentence for f in gate.findings if f.check == "quality.overall"]
    assert text.startswith("score as a share of the way from a constant predictor to a perfect one")
    (task,) = [t for t in found.tasks if t.task == "stsb"]
    assert task.change.before == -3.0


def test_a_share_needs_the_baseline():
    def bare(line):
        return replace(spoken(by_new_code(line)), baseline_value=None)

    gate = judge(make_side(change=bare), make_side(change=spoken), DEFAULT)
    assert gate.code == Exit.UNDECIDED
    assert {f.check for f in gate.findings if f.kind == "undecided"} == {"quality.unknown"}


def test_an_untouched_base_is_compared_without_an_alarm():
    cells = (LORA, BASE)
    side = make_side(cells, change=untouched)
    assert judge(side, side, DEFAULT).code == Exit.OK
    newer = make_side(cells, change=lambda line: by_new_code(untouched(line)))
    gate = judge(newer, side, DEFAULT)
    assert gate.code == Exit.OK
    exclusive = Policy(timings="binding", runner="exclusive")
    found = judge(newer, side, exclusive).findings
    assert {f.cell for f in found if f.check == "time.step"} == {"LoRA r8"}


def test_a_base_that_says_one_thing_did_not_collapse():
    def mute(line):
        return replace(untouched(line), collapsed=line.cell == BASE)

    cells = (LORA, BASE)
    gate = judge(make_side(cells, change=mute), make_side(cells, change=untouched), DEFAULT)
    assert "quality.collapsed" not in checks(gate)


def test_copies_of_one_run_are_no_evidence_of_many():
    def fell(line):
        line = by_new_code(untouched(line))
        return replace(line, value=line.value - 0.01) if line.cell == BASE else line

    cells = (LORA, BASE)
    gate = judge(make_side(cells, change=fell), make_side(cells, change=untouched), DEFAULT)
    assert gate.code == Exit.UNDECIDED
    (found,) = [f for f in gate.findings if f.check == "quality.overall"]
    assert (found.kind, found.cell) == ("undecided", "untouched base")

    def lost(line):
        line = by_new_code(line)
        return replace(line, value=line.value - 0.01) if line.cell == LORA else line

    trained = judge(make_side(cells, change=lost), make_side(cells), DEFAULT)
    assert trained.code == Exit.REGRESSION


def test_a_stored_base_makes_a_line():
    row = make_causal([BASE], ["reviews"], [0])[0]
    line = line_of(row)
    assert line.ok and line.step_seconds is None and line.peak is None
    assert line.counts["steps"] == line.counts["trainable_parameters"] == 0
    assert line.metric == "log_likelihood" and line.value == row.outcome.metric_value
    assert line.config["causal.unrelated"].startswith("editorials:")


def test_a_folder_of_two_models_is_named_by_both_however_its_rows_ended(tmp_path):
    encoder = LORA._replace(variant="all-MiniLM-L6-v2 (encoder)")
    rows = [*make_causal([LORA, BASE], ["sst-2"], [0]), *make_matrix([encoder], ["sst-2"], [0])]
    store = Store(tmp_path, "demo")
    with store.lock():
        for row in rows:
            store.append(row)
    side = of_folder(tmp_path / "demo", "quick")
    assert side.model == "minilm-l6, smollm2-135m-q4" and len(side.lines) == 3
    kept = replace(side, accepted=Accepted("2030-01-02T00:00:00Z", "a first baseline"))
    path = tmp_path / "cpu.jsonl"
    baseline.write(path, kept)
    gate = judge(side, baseline.read(path), DEFAULT)
    assert gate.code == Exit.OK, gate.findings
    assert of_cell(gate, "untouched base").verdict == "identical"
