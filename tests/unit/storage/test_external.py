"""Published results of another benchmark: read as they stand, kept whole, shown and never judged.

Every figure in the files here is invented; their shape is the published one.
"""

import copy
import json
import os
import subprocess
import sys
from dataclasses import fields, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peftmark.cli import parser
from peftmark.core.errors import StoreError, SuiteError, UserError
from peftmark.render import html, markdown
from peftmark.render.page import Grid, Page, Paragraph
from peftmark.report.external import TITLE, caveats, external_section
from peftmark.storage import external, peft_method_comparison
from peftmark.storage.external import load_external, path_of, write_external
from peftmark.storage.parquet import SEAL
from peftmark.storage.peft_method_comparison import read_method_comparison
from peftmark.suite.load import load_suite
from waiting import PATIENCE

STEPS, EVERY = 40, 10


def result(name="lora/tiny-rank4", **changes):
    """A made-up result of the newest shape; `changes` are {"part.key": value}, None for null."""
    made = {
        "run_info": {
            "created_at": "2030-01-02T03:04:05+00:00",
            "total_time": 100.0,
            "experiment_name": name,
            "peft_branch": "main",
            "peft_worktree_is_dirty": False,
            "train_config": {
                "model_id": "made-up/tiny",
                "dtype": "bfloat16",
                "max_steps": STEPS,
                "eval_steps": EVERY,
                "query_template": "Q: {query}",
                "seed": 0,
            },
            "peft_config": {"peft_type": "LORA", "r": 4},
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": 2 * 2**20,
            "accelerator_memory_max": 5 * 2**20,
            "accelerator_memory_reserved_99th": 3 * 2**20,
            "train_time": 60.0,
            "file_size": 4096,
            "num_trainable_params": 1234,
            "num_total_params": 99999,
            "status": "success",
            "metrics": [
                *(
                    {"step": end, "train time": 10.0, "tokens / sec": float(end)}
                    for end in range(EVERY, STEPS + 1, EVERY)
                ),
                {"step": STEPS, "test accuracy": 0.25, "train loss": 1.0, "forgetting": -0.5},
            ],
        },
        "meta_info": {
            "model_info": {"sha": "a" * 40},
            "dataset_info": {"metamath": {"sha": "b" * 40}, "gsm8k": {"sha": "c" * 40}},
            "package_info": {
                "peft-version": "9.9.9",
                "peft-commit-hash": "d" * 40,
                "transformers-version": "8.8.8",
                "torch-version": "7.7.7",
            },
            "system_info": {"accelerator": "Made-up GPU"},
        },
    }
    return change(made, changes)


GONE = object()


def change(made, changes):
    made = copy.deepcopy(made)
    for place, value in changes.items():
        *outer, last = place.split(".")
        inner = made
        for key in outer:
            inner = inner[int(key)] if isinstance(inner, list) else inner[key]
        if value is GONE:
            del inner[last]
        elif isinstance(inner, list):
            inner[int(last)] = value
        else:
            inner[last] = value
    return made


def older():
    """The shape of the oldest published files."""
    made = result("bone/tiny", **{"run_info.peft_config": {"peft_type": "BONE", "r": 8}})
    train = made["train_info"]
    for name in ("memory_reserved_avg", "memory_max", "memory_reserved_99th"):
        train[f"cuda_{name}"] = train.pop(f"accelerator_{name}")
    for place in (
        "run_info.error_msg",
        "run_info.peft_worktree_is_dirty",
        "train_info.num_trainable_params",
        "train_info.num_total_params",
        "train_info.metrics.4.forgetting",
    ):
        made = change(made, {place: GONE})
    made["meta_info"]["system_info"] = {"gpu": "Made-up GPU"}
    return made


def image():
    made = result("lora/picture")
    config = made["run_info"]["train_config"]
    del config["query_template"]
    config["dino_model_id"] = "made-up/eye"
    return made


def text_generation():
    return {"run_info": {"status": "success"}, "generation_info": {}, "meta_info": {}}


def put(folder, *made, **named):
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"{i}.json": m for i, m in enumerate(made)} | {
        f"{k}.json": m for k, m in named.items()
    }
    for name, content in texts.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, "utf-8")
    return folder


def only(tmp_path, made):
    (row,), skipped = read_method_comparison(put(tmp_path / "results", made))
    assert skipped == []
    return row


# --- reading ------------------------------------------------------------------------------------


def test_a_file_becomes_a_row_with_the_figures_that_stand_in_it(tmp_path):
    row = only(tmp_path, result())
    assert (row.experiment, row.method, row.size, row.size_option) == (
        "lora/tiny-rank4",
        "lora",
        4,
        "r",
    )
    assert (row.model, row.dtype, row.quantization, row.seed, row.steps) == (
        "made-up/tiny",
        "bfloat16",
        "none",
        0,
        STEPS,
    )
    assert (row.task, row.metric, row.value, row.forgetting) == ("gsm8k", "accuracy", 0.25, -0.5)
    assert (row.train_seconds, row.step_seconds, row.total_seconds) == (60.0, 40.0, 100.0)
    assert row.tokens_per_second == pytest.approx((10 + 20 + 30 + 40) * 10 / 40)
    assert (row.memory_max_bytes, row.memory_mean_bytes, row.memory_p99_bytes) == (
        5 * 2**20,
        2 * 2**20,
        3 * 2**20,
    )
    assert (row.trainable_parameters, row.file_bytes) == (1234, 4096)
    assert (row.peft_version, row.transformers_version, row.torch_version) == (
        "9.9.9",
        "8.8.8",
        "7.7.7",
    )
    assert (row.peft_commit, row.branch, row.dirty) == ("d" * 40, "main", False)
    assert (row.model_revision, row.task_revision) == ("a" * 40, "c" * 40)
    assert (row.device, row.date) == ("Made-up GPU", "2030-01-02T03:04:05+00:00")
    assert row.baseline is None and row.null_reasons == {
        "baseline": "the file has no score of the model before training"
    }


def test_the_oldest_shape_has_other_keys_and_nulls_with_reasons(tmp_path):
    row = only(tmp_path, older())
    assert (row.method, row.size, row.memory_max_bytes, row.device) == (
        "bone",
        8,
        5 * 2**20,
        "Made-up GPU",
    )
    assert row.memory_mean_bytes == 2 * 2**20 and row.memory_p99_bytes == 3 * 2**20
    assert row.forgetting is row.dirty is row.trainable_parameters is None
    assert row.null_reasons["dirty"] == "the file has no peft_worktree_is_dirty"
    assert row.null_reasons["trainable_parameters"] == "the file has no num_trainable_params"
    assert row.null_reasons["forgetting"] == "the file has no forgetting"


@pytest.mark.parametrize(
    ("config", "size", "option"),
    [
        ({"peft_type": "ADALORA", "r": 8, "init_r": 64, "target_r": 32}, 32, "target_r"),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20}, 20, "num_virtual_tokens"),
        ({"peft_type": "NOT_KNOWN_YET", "r": 3}, 3, "r"),
        ({"peft_type": "IA3", "target_modules": ["k"]}, None, None),
        ({"peft_type": "OFT", "r": 0, "oft_block_size": 32}, None, None),
        (None, None, None),
    ],
)
def test_the_size_is_the_option_that_sizes_the_method(tmp_path, config, size, option):
    row = only(tmp_path, result(**{"run_info.peft_config": config}))
    assert (row.size, row.size_option) == (size, option)
    assert ("size" in row.null_reasons) == (size is None)


def test_sizes_that_were_never_taken_are_not_figures(tmp_path):
    whole = result(**{"run_info.peft_config": None, "train_info.file_size": 7})
    lost = result(**{"train_info.file_size": peft_method_comparison.NO_SIZE})
    (first, second), _ = read_method_comparison(put(tmp_path, whole, lost))
    assert first.method == "full" and first.file_bytes is second.file_bytes is None
    assert "computed" in first.null_reasons["file_bytes"]
    assert "wasn't taken" in second.null_reasons["file_bytes"]


@pytest.mark.parametrize(
    ("dtype", "meant"), [("int4", "fp4"), ("int8", "int8"), ("float16", "none"), ("int2", None)]
)
def test_four_bits_are_fp4_and_an_unknown_dtype_is_not_guessed(tmp_path, dtype, meant):
    row = only(tmp_path, result(**{"run_info.train_config.dtype": dtype}))
    assert (row.dtype, row.quantization) == (dtype, meant)
    assert ("quantization" in row.null_reasons) == (meant is None)


def test_a_run_that_failed_is_a_row_without_measured_values(tmp_path):
    made = result(
        **{
            "train_info.status": "canceled",
            "train_info.metrics": [],
            "run_info.error_msg": "out of\nmemory",
        }
    )
    row = only(tmp_path, made)
    assert (row.status, row.error, row.ok) == ("canceled", "out of memory", False)
    for name in peft_method_comparison.MEASURED:
        assert getattr(row, name) is None
        assert row.null_reasons[name] == 'the run ended as "canceled"'
    assert row.trainable_parameters == 1234


STEPS_LOST = "the file's intervals don't cover every step"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run_info.train_config.max_steps": STEPS + 5}, STEPS_LOST),
        ({"train_info.metrics.1.step": 21}, STEPS_LOST),
        ({"train_info.metrics.1.train time": GONE}, STEPS_LOST),
        ({"train_info.metrics.0.step": "ten"}, STEPS_LOST),
        ({"train_info.metrics.0.step": 0}, STEPS_LOST),
        ({"train_info.metrics.1.train time": "10"}, "an interval of the file has no time"),
    ],
)
def test_step_seconds_are_null_unless_the_intervals_cover_every_step(tmp_path, changes, reason):
    row = only(tmp_path, result(**changes))
    assert row.step_seconds is row.tokens_per_second is None
    assert row.null_reasons["step_seconds"].startswith(reason)
    assert row.train_seconds == 60.0


def test_a_missing_rate_leaves_the_time_of_steps(tmp_path):
    row = only(tmp_path, result(**{"train_info.metrics.2.tokens / sec": GONE}))
    assert row.step_seconds == 40.0 and row.tokens_per_second is None
    assert "tokens" in row.null_reasons["tokens_per_second"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "infinite"),
        (10**30, "too large"),
        ("0.5", "not a number"),
        (True, "not a number"),
        ([0.5], "not a number"),
        (-0.1, "can't be"),
        (1.5, "can't be"),
        (None, "the file has no test accuracy"),
    ],
)
def test_what_is_no_number_is_null_with_the_reason(tmp_path, value, reason):
    row = only(tmp_path, result(**{"train_info.metrics.4.test accuracy": value}))
    assert row.value is None and reason in row.null_reasons["value"]


def test_every_null_has_a_reason_however_little_a_file_says(tmp_path):
    bare = {
        "run_info": {
            "experiment_name": "lora/bare",
            "train_config": {"query_template": "{query}"},
            "peft_config": {"peft_type": "LORA"},
        },
        "train_info": {"status": "success", "metrics": []},
        "meta_info": {},
    }
    odd = result(
        **{
            "run_info.train_config.max_steps": 2.5,
            "run_info.created_at": "yesterday",
            "run_info.peft_worktree_is_dirty": "no",
            "run_info.train_config.model_id": 7,
            "meta_info.package_info": "none",
            "meta_info.system_info.accelerator": " ",
        }
    )
    rows, _ = read_method_comparison(put(tmp_path, bare, odd))
    for row in rows:
        nulls = {f.name for f in fields(row) if getattr(row, f.name) is None}
        assert nulls == set(row.null_reasons)
        assert all(row.null_reasons.values())
    assert {"steps", "date", "dirty", "model", "peft_version", "device"} <= set(
        rows[1].null_reasons
    )


@pytest.mark.parametrize("start", ["", "MetaMathQA", "method_comparison", "checkout"])
def test_a_checkout_its_parts_and_a_plain_folder_are_read_alike(tmp_path, start):
    base = tmp_path / {"checkout": "x/method_comparison", "method_comparison": "x"}.get(start, "")
    task = base / "MetaMathQA" if start else base
    put(task / "results", good=result())
    put(task / "cancelled_results", bad=result("lora/lost", **{"train_info.status": "canceled"}))
    put(task / "experiments" / "lora" / "tiny", adapter_config={"r": 4})
    put(task, default_training_params={"seed": 0})
    folder = {"MetaMathQA": task, "": task, "method_comparison": base, "checkout": tmp_path / "x"}
    rows, skipped = read_method_comparison(folder[start])
    assert sorted(row.status for row in rows) == ["canceled", "success"] and skipped == []
    plain, _ = read_method_comparison(task / "results")
    assert [row.file for row in plain] == ["good.json"]


def test_other_tasks_and_copies_are_left_out_and_counted(tmp_path):
    put(tmp_path / "MetaMathQA" / "results", result(), result())
    put(tmp_path / "image-gen" / "results", image())
    put(tmp_path / "text_generation_benchmark" / "results", text_generation())
    put(tmp_path / "other" / "results", result(**{"run_info.train_config.query_template": GONE}))
    rows, skipped = read_method_comparison(tmp_path)
    assert [row.file for row in rows] == ["MetaMathQA/results/0.json"]
    assert {s.file.split("/")[0]: s.why for s in skipped} == {
        "MetaMathQA": "the same bytes as another file",
        "image-gen": "image generation",
        "text_generation_benchmark": "text generation, which trains nothing",
        "other": "a task that is not known",
    }


# --- a stranger's mistakes ----------------------------------------------------------------------


def refusal(folder):
    with pytest.raises(UserError) as caught:
        read_method_comparison(folder)
    assert caught.value.code == 2 and "MetaMathQA/results" in caught.value.remedy
    return caught.value.what


def test_a_folder_that_is_not_there_empty_or_a_file_is_said(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nowhere")
    assert "holds no results" in refusal(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    assert "is not a folder" in refusal(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "not JSON"),
        ('{"run_info": {', "not JSON"),
        ("[1, 2]", "no result of method_comparison"),
        ('{"model_type": "llama"}', "no result of method_comparison"),
        ('{"run_info": {}, "run_info": {}}', "stands twice"),
        ('{"run_info": {}, "meta_info": {}}', "no train_info"),
        ("[" * 100_000, "nested too deeply"),
        ('{"run_info": ' + "9" * 5000 + "}", "not JSON"),
        (result(**{"run_info.experiment_name": GONE}), "no experiment_name"),
        (result(**{"run_info.experiment_name": 5}), "experiment_name is not text"),
        (result(**{"train_info.status": GONE}), "no status"),
        (result(**{"train_info.metrics": {}}), "no list of metrics"),
        (result(**{"run_info.peft_config": {}}), "no peft_type"),
        (result(**{"run_info.peft_config": GONE}), "no peft_type"),
        (result(**{"run_info.train_config": None}), "no train_config"),
    ],
)
def test_a_malformed_file_is_named_with_its_fault(tmp_path, content, fault):
    put(tmp_path, good=result(), bad=content)
    what = refusal(tmp_path)
    assert "1 file can't be read" in what and "bad.json: " in what and fault in what
    assert "good.json" not in what


def test_bytes_that_are_no_text_and_files_that_are_too_long(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_bytes(b'{"\xff": 1}')
    assert "not UTF-8" in refusal(tmp_path)
    monkeypatch.setattr(peft_method_comparison, "MOST_BYTES", 100)
    (tmp_path / "a.json").write_text(" " * 101)
    assert "too large" in refusal(tmp_path)
    monkeypatch.setattr(peft_method_comparison, "MOST_FILES", 1)
    put(tmp_path, b=result())
    assert "2 files; at most 1" in refusal(tmp_path)


def test_all_malformed_files_are_named_until_there_are_many(tmp_path):
    put(tmp_path, *["x"] * 20)
    what = refusal(tmp_path)
    assert "20 files can't be read" in what and what.count(".json: ") == 8 and "12 more" in what


def test_links_that_leave_the_folder_folders_and_pipes_are_refused(tmp_path):
    outside = put(tmp_path / "outside", secret=result()) / "secret.json"
    inside = put(tmp_path / "inside", good=result())
    (inside / "out.json").symlink_to(outside)
    assert "out.json: a link that leaves the folder" in refusal(inside)
    (inside / "out.json").unlink()
    (inside / "loop.json").symlink_to("loop.json")
    os.mkfifo(inside / "pipe.json")
    (inside / "folder.json").mkdir()
    what = refusal(inside)
    assert what.count("not a file") == 3
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "results").symlink_to(tmp_path / "outside")
    assert "secret.json: a link that leaves the folder" in refusal(linked)


def test_text_from_a_file_is_one_line_that_a_terminal_shows_as_it_is(tmp_path):
    row = only(tmp_path, result("lora/\x1b[31mred\n\u202eabc\ud800" + "x" * 500))
    assert row.experiment.startswith("lora/?[31mred ?abc?xxx") and len(row.experiment) == 200
    assert write_external(tmp_path, [row]) and load_external(tmp_path) == [row]


# --- kept ---------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path):
    lost = result("lora/lost", **{"train_info.status": "canceled", "train_info.metrics": []})
    found, _ = read_method_comparison(put(tmp_path / "read", result(), older(), lost))
    return found


def test_rows_come_back_as_they_went_and_a_new_import_replaces_all(tmp_path, rows):
    assert load_external(tmp_path) == []
    path = write_external(tmp_path, rows)
    assert path == path_of(tmp_path) == tmp_path / "external" / "peft-method-comparison.parquet"
    assert load_external(tmp_path) == rows
    before = path.read_bytes()
    write_external(tmp_path, rows)
    assert path.read_bytes() == before
    write_external(tmp_path, rows[:1])
    assert load_external(tmp_path) == rows[:1]
    assert list(path.parent.iterdir()) == [path]


def test_every_field_has_a_column():
    assert {f.name for f in fields(external.ExternalRow)} == set(external._COLUMNS)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_refused_with_the_remedy(tmp_path, rows, at):
    path = write_external(tmp_path, rows)
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * at)] ^= 4
    path.write_bytes(bytes(raw))
    with pytest.raises(StoreError, match=r"damaged.*\n.*Import again"):
        load_external(tmp_path)


def test_bytes_that_can_still_be_read_but_were_not_written_are_refused(tmp_path, rows):
    path = write_external(tmp_path, rows)
    raw = path.read_bytes()
    digest = raw.rfind(SEAL) + len(SEAL) + 2
    other = b"0" if raw[digest : digest + 1] != b"0" else b"1"
    path.write_bytes(raw[:digest] + other + raw[digest + 1 :])
    assert pq.read_table(pa.BufferReader(path.read_bytes())).num_rows == len(rows)
    with pytest.raises(StoreError, match="SHA-256"):
        load_external(tmp_path)


def test_other_parquet_files_and_newer_ones_are_refused(tmp_path, rows, monkeypatch):
    path = write_external(tmp_path, rows)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(StoreError, match="no imported rows"):
        load_external(tmp_path)
    monkeypatch.setattr(external, "EXTERNAL_VERSION", 2)
    write_external(tmp_path, rows)
    monkeypatch.undo()
    with pytest.raises(StoreError, match="newer peftmark"):
        load_external(tmp_path)


def test_a_results_folder_that_can_not_be_written_is_said(tmp_path, rows):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't write"):
        write_external(tmp_path / "file", rows)
    assert load_external(tmp_path / "file") == []


def test_no_suite_takes_the_folder():
    with pytest.raises(SuiteError, match="no suite can be named 'external'"):
        load_suite("external")


# --- the command --------------------------------------------------------------------------------


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        parser.main(["import", "peft-method-comparison", *map(str, arguments)])
    return left.value.code


def test_the_command_says_what_came_in_and_what_it_is_not_comparable_with(tmp_path, capsys):
    source = tmp_path / "source"
    put(source / "MetaMathQA" / "results", result(), older())
    put(source / "image-gen" / "results", image())
    assert run(source, "--results", tmp_path / "kept") == 0
    said = capsys.readouterr().out
    assert "2 rows (2 success)" in said and "1 file (image generation 1)" in said
    assert "PEFT 9.9.9 at dddddddddd (2 rows)" in said
    assert "trainable_parameters in 1" in said and "Not comparable" in said and TITLE in said
    assert len(load_external(tmp_path / "kept")) == 2


def test_the_command_prints_json(tmp_path, capsys):
    put(tmp_path / "a", older())
    assert run(tmp_path / "a", "--results", tmp_path, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["rows"] == 1 and facts["statuses"] == {"success": 1}
    assert facts["nulls"]["dirty"] == 1 and "value" not in facts["nulls"]


def test_nothing_is_written_when_something_is_wrong(tmp_path, capsys):
    kept = tmp_path / "kept"
    put(tmp_path / "bad", result(), "{")
    assert run(tmp_path / "bad", "--results", kept) == 2
    put(tmp_path / "pictures", image())
    assert run(tmp_path / "pictures", "--results", kept) == 2
    said = capsys.readouterr().err
    assert "1.json: not JSON" in said and "no result of a language model" in said
    assert "Traceback" not in said and not kept.exists()


@pytest.mark.heavy
def test_the_command_loads_no_torch(tmp_path):
    put(tmp_path / "a", result())
    code = (
        "import sys, atexit; from peftmark.cli.parser import main; "
        "atexit.register(lambda: print('torch' in sys.modules)); "
        f"main(['import', 'peft-method-comparison', {str(tmp_path / 'a')!r}, "
        f"'--results', {str(tmp_path)!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False", done.stderr


# --- the section --------------------------------------------------------------------------------


def rendered(section):
    page = Page("t", (), "f", (), "", (), (), (section,))
    return html.render(page, {}), markdown.render(page)


def test_no_rows_no_section():
    assert external_section([]) is None


def test_the_section_says_first_that_it_is_not_comparable_then_shows_the_rows(rows):
    section = external_section(rows)
    assert section.title == TITLE and "not comparable" in section.lead
    assert "3 runs" in section.lead and "2 with a score" in section.lead
    kinds = [type(block) for block in section.blocks]
    assert kinds == [Paragraph] * (len(kinds) - 2) + [Grid, Grid] and len(kinds) > 4
    for text in rendered(section):
        assert "no verdict, ranking or recommendation uses them" in " ".join(text.split())
        assert "lora/tiny-rank4" in text and "made-up/tiny" in text and "canceled" in text
        assert "evaluation" in text and "0.250" in text and "−0.500" in text


def test_rows_are_sorted_by_accuracy_and_failed_ones_come_last(rows):
    first, second, lost = rows
    rows = [lost, replace(first, value=0.2, experiment="low"), replace(second, value=0.9)]
    grid = external_section(rows).blocks[-2]
    assert [row[0].text for row in grid.rows] == ["bone/tiny", "low", "lora/lost"]
    entry = grid.rows[-1][4]
    assert (entry.text, entry.kind) == ("canceled", "failed")
    missing = grid.rows[0][[c.title for c in grid.columns].index("parameters")]
    assert (missing.text, missing.note) == ("n/a", "the file has no num_trainable_params")


def test_markup_from_a_file_is_escaped(tmp_path):
    nasty = "<script>alert(1)</script> [x](javascript:1) | @all"
    section = external_section(
        [only(tmp_path, result(nasty, **{"run_info.train_config.model_id": "<b>m</b>"}))]
    )
    page, text = rendered(section)
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "<b>m" not in page
    assert "<script>" not in text and "[x](javascript" not in text and "| @all" not in text


def test_caveats_tell_what_the_rows_tell_and_no_more(tmp_path, rows):
    said = " ".join(caveats(rows))
    assert "over the 2 runs that tell both, it is a median 50\u00a0% above" in said
    assert "seed 0" in said and "Made-up GPU" in said and "1.4 points" in said
    assert "int4" not in said and "AdaLoRA" not in said and "optimizer steps" not in said
    assert "Forgetting" in said and "1 file can't tell" in said
    other = [
        replace(
            rows[0],
            dtype="int4",
            method="adalora",
            steps=20,
            dirty=True,
            peft_commit="e" * 40,
            train_seconds=80.0,
        ),
        replace(rows[0], forgetting=None, memory_max_bytes=None),
    ]
    said = " ".join(caveats(other))
    assert "FP4" in said and "before pruning" in said and "20 to 40 optimizer steps" in said
    assert "2 states of PEFT" in said and "1 run had uncommitted changes" in said
    assert "75\u00a0% (50 to 100)" in said
    bare = [replace(rows[0], forgetting=None, memory_max_bytes=None, step_seconds=None)]
    said = " ".join(caveats(bare))
    assert "Forgetting" not in said and "allocator" not in said and "median" not in said
