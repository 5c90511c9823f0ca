"""Suite files: what loads, what is refused, and what a refusal says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from asked_suite import ENCODER, asked
from asked_suite import LORA as LORA_ENTRY
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import SuiteError
from peftmark.suite.checks import NEW_TOKENS, new_tokens
from peftmark.suite.expand import Facts, choose_profile, expand
from peftmark.suite.load import (
    find_suite,
    load_suite,
    needed_models,
    needed_tasks,
    suite_names,
)
from peftmark.suite.recipes import cells
from peftmark.suite.rounds import rounds_of
from peftmark.suite.schema import MAX_SUITE_BYTES
from places import SUITES
from small_suite import (
    BASE,
    FULL,
    HEAD,
    LORA,
    QUICK,
    SCHEDULE,
    changed,
    recipes,
    refusal,
    text,
    write,
)

NAMES = sorted(path.stem for path in SUITES.glob("*.yaml"))


# --- what loads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_of_a_shipped_suite_expands_to_distinct_jobs(name):
    suite = load_suite(name, SUITES)
    assert suite.profiles
    for profile, content in suite.profiles.items():
        expanded = expand(suite, profile, "cpu")
        pairs = sum(len(list(cells(e, content))) for e in suite.methods(profile))
        if content.tuning and content.tuning.best:
            pairs = content.tuning.best + 1  # with the reference; all cells of it have trials
        pairs *= len(content.tasks)
        trials = 0
        if content.tuning:
            grids = [
                len(entry.settings())
                for entry in suite.methods(profile)
                for _ in cells(entry, content)
            ]
            rounds = [one for n in grids if n for one in rounds_of(n, 1000, content.tuning)]
            trials = len(content.tasks) * sum(one.trials for one in rounds)
        assert len(expanded.jobs) + expanded.waiting == trials + pairs * len(content.seeds) + 1
        assert len({job.job_id for job in expanded.jobs}) == len(expanded.jobs)
        assert suite.report.reference in {job.cell for job in expanded.jobs}
        seeds = [job.seed for job in expanded.jobs if job.purpose == "report"]
        assert seeds == sorted(seeds), "seeds are outermost"


def test_the_suites_we_ship_are_the_ones_we_think():
    assert {"glue", "smoke"} <= set(NAMES)


def test_a_learning_rate_like_1e_4_is_a_number(tmp_path):
    found = recipes(tmp_path, text(("learning_rate: 0.001", "learning_rate: 1e-4")))
    assert found["lora"].learning_rate == 1e-4
    message = refusal(tmp_path, text(("learning_rate: 0.001", "learning_rate: '1e-4'")))
    assert "recipe.learning_rate: found '1e-4'" in message
    assert "without quotes" in message


def test_no_is_text_and_not_false(tmp_path):
    loaded = write(tmp_path, text(("summary: made up\nreference", "summary: no\nreference")))
    assert loaded.is_file()
    assert load_suite("demo", tmp_path).summary == "no"
    message = refusal(tmp_path, changed((("recipe", "train_pooler"), "no")))
    assert "recipe.train_pooler: found 'no'" in message


def test_digits_after_a_zero_are_decimal_and_a_time_is_text(tmp_path):
    assert recipes(tmp_path, text(("steps: 100", "steps: 0100")))["lora"].steps == 100
    assert "found '1:40'" in refusal(tmp_path, text(("steps: 100", "steps: 1:40")))


# --- the file itself ----------------------------------------------------------------------------

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (text(("version: 1", "version: 1\nversion: 2")), ["line 3", "'version' stands here twice"]),
        (text(("steps: 100", "steps: 100\n  'steps': 5")), ["'steps' stands here twice"]),
        (BOMB, ["line 1", "anchors and aliases"]),
        (text(("version: 1", "version: &v 1")), ["anchors and aliases"]),
        ("suite: !!python/object/apply:os.system ['touch p']\n", ["line 1", "tags (!)"]),
        ("suite: !!python/name:os.system\n", ["tags (!)"]),
        ("suite: !!bool perhaps\n", ["tags (!)"]),
        ("suite: !!timestamp soon\n", ["tags (!)"]),
        ("suite: !!int ''\n", ["tags (!)"]),
        ("[" * 100_000, ["nested too deeply"]),
        ("{a: " * 50_000, ["nested too deeply"]),
        ("#" * (MAX_SUITE_BYTES + 1), ["at most 262144 bytes"]),
        (b"suite: caf\xe9\n", ["not UTF-8", "byte 10"]),
        (text().encode("utf-16"), ["not UTF-8"]),
        ("", ["found None", "a mapping is needed"]),
        ("# only a comment\n", ["found None"]),
        ("- suite: demo\n", ["found [{'suite': 'demo'}]", "a mapping"]),
        ("demo\n", ["found 'demo'", "a mapping"]),
        (f"{text()}---\n{text()}", ["single document", "another document"]),
        ("suite: [demo\n", ["flow sequence"]),
        ("suite: demo\n\tversion: 1\n", ["line 2"]),
        ("? {a: 1}\n: b\n", ["unhashable key"]),
        ("suite: \x07\n", ["not YAML"]),
        (f"version: {'9' * 5000}\n", ["whole numbers go up to"]),
        ("1: demo\n", ["string"]),
    ],
)
def test_a_file_that_is_not_a_suite_is_refused_in_words(tmp_path, content, words):
    message = refusal(tmp_path, content)
    for word in words:
        assert word in message
    assert len(message) < 4000
    assert not Path("p").exists()


def test_a_file_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, BASE)

    def denied(self, *arguments):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(SuiteError, match="can't be read: Permission denied") as caught:
        load_suite("demo", tmp_path)
    assert str(path) in caught.value.what


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("colour",), "red", ["colour: unknown key"]),
        (("recipe", "lr"), 0.1, ["recipe.lr: unknown key"]),
        (("recipe", "learning_rate"), "fast", ["recipe.learning_rate: found 'fast'", "number"]),
        (("recipe", "learning_rate"), 0, ["found 0", "greater than 0"]),
        (("recipe", "learning_rate"), math.nan, ["found nan", "finite"]),
        (("recipe", "steps"), 0, ["recipe.steps: found 0", "greater than or equal to 1"]),
        (("recipe", "steps"), 1.5, ["found 1.5", "integer"]),
        (("recipe", "steps"), True, ["found True", "integer"]),
        (("recipe", "precision"), "fp8", ["found 'fp8'", "'fp32', 'bf16' or 'fp16'"]),
        (("recipe", "eval_every"), "often", ["found 'often'", "10%"]),
        (("recipe", "eval_every"), 0, ["eval_every: found 0", "100 steps"]),
        (("recipe", "eval_every"), 101, ["eval_every: found 101", "100 steps"]),
        (
            ("recipe", "batch_size"),
            10**6,
            ["found 1000000 with 4380 training rows (of 4866, 486 are selection rows)"],
        ),
        (("version",), None, ["version: field required"]),
        (("version",), 0, ["version: found 0"]),
        (("suite",), "other", ["suite: found 'other'", "'demo'"]),
        (("radar", "beauty"), {"worst": 0, "best": 1}, ["radar.beauty", "quality"]),
        (("radar", "quality", "best"), 0.0, ["radar.quality", "must differ"]),
        (("radar", "quality", "best"), math.inf, ["radar.quality.best: found inf", "finite"]),
        (("radar", "quality", "scale"), "log", ["radar.quality", "positive on a log scale"]),
        (("reference",), {"method": "lora", "rank": 4}, ["reference", "not a cell", "quick"]),
        (("methods",), [], ["methods: found []", "at least 1"]),
        ((*QUICK, "model"), "minilm-l7", ["did you mean minilm-l6?", "roberta-base"]),
        ((*QUICK, "tasks"), {"sst2": {}}, ["did you mean sst-2?", "cola", "trec"]),
        ((*QUICK, "tasks"), {}, ["profiles.quick.tasks", "at least 1"]),
        ((*QUICK, "seeds"), [0, 1, 0], ["seeds: found [0, 1, 0]", "once"]),
        ((*QUICK, "seeds"), [-1], ["seeds[0]: found -1"]),
        ((*QUICK, "sources"), ["ftp"], ["sources[0]: found 'ftp'", "mirror, hub, package"]),
        ((*QUICK, "needs"), "luck", ["needs: found 'luck'", "'gpu'"]),
        ((*QUICK, "scale"), "tiny", ["scale: found 'tiny'", "'full' or 'reduced'"]),
        ((*QUICK, "scale"), None, ["profiles.quick.scale: missing", "full (the", "reduced (a"]),
        (("reference",), {"method": "lora", "rank": 8, "size": 8}, ["reference", "one size"]),
        (("methods", LORA, "size"), [8], ["(lora).size: stands beside `rank`"]),
        (("methods", LORA, "width"), [8], ["(lora).width", "its size is `rank` (or just `size`)"]),
        ((*QUICK, "tasks", "trec", "target"), 1.2, ["target: found 1.2", "0.0 and 1.0"]),
        ((*QUICK, "tasks", "trec", "target"), math.nan, ["target: found nan"]),
        ((*QUICK, "tasks", "trec"), {"fingerprint": "0" * 64}, ["task of your own"]),
        (("profiles", "No"), BASE["profiles"]["quick"], ["profiles.No", "lower-case"]),
        (("methods", FULL, "method"), "ful", ["methods[0].method", "did you mean full?", "lora"]),
        (("methods", FULL, "rank"), [8], ["methods[0] (full).rank: found [8]", "no rank"]),
        (("methods", FULL, "quantization"), ["nf4"], ["found 'nf4'", "full allows: none"]),
        (("methods", LORA, "quantization"), ["nf5"], ["quantization[0]", "fp4", "int8"]),
        (("methods", LORA, "rank"), None, ["methods[2] (lora).size: missing", "one rank"]),
        (("methods", LORA, "rank"), [8, 8], ["the cell lora rank 8 none stands in the list twice"]),
        (("methods", LORA, "rank"), [0], ["methods[2].rank[0]: found 0"]),
        (("methods", HEAD, "recipe"), {"alpha": 1}, ["methods[1] (head).recipe.alpha", "nothing"]),
        (("methods", LORA, "recipe", "adalora"), {"delta_t": 5}, ["(lora).recipe.adalora"]),
        (
            ("methods", HEAD, "task_recipe"),
            {"trec": {"dropout": 0.1}},
            ["task_recipe.trec.dropout"],
        ),
        (("methods", HEAD, "task_recipe"), {"mars": {}}, ["unknown task"]),
        (("methods", LORA, "recipe", "alpha"), None, ["lora rank 8 on trec", "alpha set nowhere"]),
        (("methods", LORA, "recipe", "targets"), "all", ["found 'all'", "all-linear"]),
        (("recipe", "steps"), None, ["steps (or epochs) set nowhere"]),
        ((*SCHEDULE, "init_rank"), 8, ["adalora rank 8 on trec", "found 8", "above the rank"]),
        ((*SCHEDULE, "tfinal"), "90%", ["tinit 10 + tfinal 90 + delta_t 5 exceed the 100 steps"]),
        ((*SCHEDULE, "delta_t"), None, ["adalora: delta_t set nowhere"]),
        ((*SCHEDULE, "delta_t"), 0, ["delta_t: found 0"]),
        (("recipe", "warmup"), 101, ["on trec: warmup: found 101; the run has 100 steps"]),
        (("recipe", "warmup"), "150%", ["recipe.warmup: found '150%'", "share such as 10%"]),
        (("recipe", "warmup"), 0.5, ["recipe.warmup: found 0.5", "whole number of steps"]),
        (("recipe", "warmup_share"), 0.1, ["recipe.warmup_share: unknown key"]),
        (("recipe", "head_dropout"), 1.0, ["recipe.head_dropout: found 1.0", "less than 1"]),
        (("recipe", "selection_rows"), -1, ["recipe.selection_rows: found -1"]),
        (
            ("recipe", "selection_rows"),
            2434,
            ["selection_rows: found 2434", "at most half", "2433"],
        ),
        (
            ("methods", LORA, "recipe", "precision"),
            "bf16",
            ["methods[2] (lora).recipe.precision: must be the same for all methods", "vary"],
        ),
        (
            ("methods", HEAD, "task_recipe"),
            {"trec": {"gradient_checkpointing": True}},
            ["methods[1] (head).task_recipe.trec.gradient_checkpointing: must be the same"],
        ),
        *(
            (
                ("methods", LORA, "recipe", name),
                value,
                [f"methods[2] (lora).recipe.{name}: must be the same for all methods"],
            )
            for name, value in (
                ("pad_to", 8),
                ("compile", True),
                ("attention", "eager"),
                ("devices", 2),
                ("shard", True),
                ("packing", True),
                ("kernels", "liger"),
            )
        ),
        ((*QUICK, "vary"), {"compile": [False, True]}, ["vary.compile: unknown key"]),
        ((*QUICK, "vary"), {"shard": [False, True]}, ["vary.shard: unknown key"]),
        (
            (*QUICK, "vary"),
            {"precision": ["bf16"]},
            ["vary.precision: found ['bf16']", "at least 2"],
        ),
        ((*QUICK, "vary"), {"precision": ["bf16"] * 2}, ["vary.precision", "may stand once"]),
        ((*QUICK, "vary"), {"optimizer": ["adamw", "sgd"]}, ["vary.optimizer: unknown key"]),
        (
            (*QUICK, "vary"),
            {"gradient_checkpointing": [False, True]},
            ["reference: found lora rank 8 none, which is not a cell", "'no checkpointing'"],
        ),
        (("reference", "variant"), "bf16", ["'bf16', which is not a cell", "lora rank 8 none;"]),
        (("methods", FULL, "learning_rates"), [0.1, 0.1], ["(full).learning_rates", "ascending"]),
        (("methods", FULL, "learning_rates"), [0.2, 0.1], ["[0.2, 0.1]", "ascending order"]),
        (("methods", FULL, "learning_rates"), [0.1], ["methods[0].learning_rates", "at least 2"]),
    ],
)
def test_a_wrong_value_is_told_with_its_place_and_what_is_allowed(tmp_path, path, value, words):
    message = refusal(tmp_path, changed((path, value)))
    for word in words:
        assert word in message


def test_the_base_of_these_tests_is_itself_a_good_suite(tmp_path):
    assert set(recipes(tmp_path, BASE)) == {"full", "head", "lora", "adalora"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            [
                (("colour",), "red"),
                (("recipe", "steps"), "many"),
                ((*QUICK, "model"), "gpt"),
                ((*QUICK, "tasks"), {"mars": {}}),
                (("methods", LORA, "quantization"), ["nf5"]),
            ],
            ["5 faults", "colour", "'many'", "'gpt'", "mars", "'nf5'"],
        ),
        (
            [
                (("suite",), "other"),
                (("methods", FULL, "rank"), [4]),
                (("methods", HEAD, "recipe"), {"alpha": 2}),
                ((*QUICK, "seeds"), [3, 3]),
                ((*SCHEDULE, "init_rank"), 4),
                ((*QUICK, "tasks", "trec", "target"), 7.0),
            ],
            ["6 faults", "'other'", "(full).rank", "(head).recipe.alpha", "[3, 3]", "found 4", "7"],
        ),
        (
            [
                (("colour",), "red"),
                (("recipe", "max_length"), "long"),
                (("methods", LORA, "quantization"), ["nf5"]),
                (("methods", FULL, "rank"), [4]),
                ((*QUICK, "seeds"), [3, 3]),
                ((*SCHEDULE, "init_rank"), 4),
            ],
            ["6 faults", "colour", "'long'", "'nf5'", "(full).rank", "[3, 3]", "found 4"],
        ),
    ],
)
def test_several_faults_are_told_at_once_one_a_line(tmp_path, changes, words):
    message = refusal(tmp_path, changed(*changes))
    for word in words:
        assert word in message
    lines = [line for line in message.splitlines() if line.startswith("  ")]
    assert f"{len(lines)} faults" in message


def test_a_huge_value_is_cut_in_the_message(tmp_path):
    assert len(refusal(tmp_path, changed((("recipe", "precision"), "x" * 10_000)))) < 1000


# --- models, texts and answers -------------------------------------------------------------------


ANSWERED = {"trec": {}, "labelled-instructions": {"new_tokens": 8}, "chatterbot": {}, "reviews": {}}


def answered(folder, **tasks):
    """A profile that asks a causal language model, and its methods."""
    write(folder, asked([LORA_ENTRY, ENCODER], tasks=tasks) if tasks else asked(tasks=ANSWERED))
    suite = load_suite("demo", folder)
    return suite.profiles["quick"], suite.methods("quick")


def test_what_a_profile_needs(tmp_path):
    profile, entries = answered(tmp_path)
    assert needed_tasks(profile) == [*ANSWERED, "editorials"]
    assert needed_tasks(profile, ["reviews", "trec", "reviews"]) == [
        "reviews",
        "trec",
        "editorials",
    ]
    assert needed_tasks(profile, []) == []
    assert needed_models(profile, entries) == ["smollm2-135m-q4"]
    assert needed_models(*answered(tmp_path, trec={})) == ["smollm2-135m-q4", "minilm-l6"]
    write(tmp_path, BASE)
    encoder = load_suite("demo", tmp_path).profiles["quick"]
    assert needed_tasks(encoder) == ["trec"]


def test_how_long_an_answer_may_be(tmp_path):
    profile, _ = answered(tmp_path)
    lengths = {task: new_tokens(profile, TASKS[task]) for task in ANSWERED}
    assert lengths == {
        "trec": None,
        "labelled-instructions": 8,
        "chatterbot": NEW_TOKENS,
        "reviews": None,
    }


def tuned(base, **lora):
    """A causal language model's profile with trials; `base` are keys of the untouched base."""
    methods = [
        {"method": "base", **base},
        {
            "method": "lora",
            "rank": [8],
            "learning_rates": [1e-4, 1e-3],
            "recipe": {"targets": "all-linear", "alpha": 16},
            **lora,
        },
    ]
    keys = {
        "model": "smollm2-135m-q4",
        "unrelated": "editorials",
        "tuning": {"seeds": [7]},
        "tasks": {"reviews": {}},
        "methods": methods,
    }
    return changed((("methods",), methods[1:]), *(((*QUICK, k), v) for k, v in keys.items()))


def test_an_untouched_base_needs_no_trials(tmp_path):
    suite = tuned({})
    suite["methods"] = [{"method": "lora", "rank": [8]}]
    write(tmp_path, suite)
    expanded = expand(load_suite("demo", tmp_path), "quick", "cpu")
    assert [(job.method, job.purpose) for job in expanded.jobs] == [
        ("lora", "tuning"),
        ("lora", "tuning"),
        ("base", "report"),
    ]
    assert expanded.jobs[-1].recipe.learning_rate == 0.0
    assert expanded.waiting == 2  # the trained cell, and its repetition
    assert not expanded.untuned(expanded.jobs[-1])
    suite = tuned({"learning_rates": [0.1, 0.2, 0.3]})
    suite["methods"] = [{"method": "lora", "rank": [8]}]
    message = refusal(tmp_path, suite)
    assert "methods[0] (base).learning_rates: nothing trains, remove it" in message
    assert "one fault" in message


# --- names and folders --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../glue",
        "/etc/passwd",
        "a/b",
        "",
        ".",
        "..",
        "glue; touch p",
        "glue\n",
        "glue.yaml",
        "GLUE",
        "-h",
        "glüe",
        "a\0b",
        "x" * 65,
        "x" * 100_000,
        " glue",
        "$(touch p)",
        "~",
    ],
)
def test_a_suite_is_named_and_never_given_by_a_path(tmp_path, name):
    write(tmp_path, BASE)
    write(tmp_path / "inner", BASE)
    with pytest.raises(SuiteError, match="never by a path") as caught:
        load_suite(name, tmp_path / "inner")
    assert len(str(caught.value)) < 500
    assert "demo" in caught.value.remedy


def test_an_unknown_suite_is_answered_with_the_known_ones(tmp_path):
    write(tmp_path, BASE)
    with pytest.raises(SuiteError, match="no suite 'glew'") as caught:
        load_suite("glew", tmp_path)
    assert {"demo", *NAMES} <= set(caught.value.remedy.strip(".").replace(",", "").split())


def test_a_link_that_leaves_the_folder_is_refused_and_one_inside_is_not(tmp_path):
    outside = write(tmp_path / "outside", BASE)
    inner = tmp_path / "inner"
    write(inner, BASE, "real")
    (inner / "demo.yaml").symlink_to(outside)
    with pytest.raises(SuiteError, match="link that leaves its folder"):
        load_suite("demo", inner)
    (inner / "demo.yaml").unlink()
    (inner / "demo.yaml").symlink_to(inner / "real.yaml")
    assert load_suite("demo", inner).name == "demo"


def test_the_users_folder_comes_first_and_the_shipped_suites_stay(tmp_path, monkeypatch):
    mine = write(tmp_path / "mine", {**BASE, "suite": "smoke"}, "smoke")
    assert find_suite("smoke", tmp_path / "mine") == mine
    assert load_suite("smoke", tmp_path / "mine").summary == "made up"
    assert find_suite("glue", tmp_path / "mine").resolve() == SUITES / "glue.yaml"
    monkeypatch.chdir(tmp_path)
    assert find_suite("smoke").resolve() == SUITES / "smoke.yaml"
    write(tmp_path / "suites", BASE)
    assert suite_names() == sorted({"demo", *NAMES})


def test_a_folder_of_suites_that_is_not_one_is_refused(tmp_path):
    for wrong in (tmp_path / "missing", write(tmp_path, BASE)):
        with pytest.raises(SuiteError, match="is not a folder"):
            load_suite("glue", wrong)


# --- choosing a profile -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "chosen"),
    [
        (Facts(1, True, "a mirror is given"), "gpu"),
        (Facts(1, False, "no hub"), "gpu-offline"),
        (Facts(0, True, "a mirror is given"), "cpu"),
        (Facts(0, False, "no hub"), "offline-chosen"),
    ],
)
def test_the_first_profile_whose_needs_are_met_is_chosen_with_the_reason(facts, chosen):
    name, reason = choose_profile(load_suite("glue", SUITES), None, facts)
    assert name == chosen
    assert chosen in reason


def test_an_unknown_profile_is_answered_with_the_known_ones():
    suite = load_suite("glue", SUITES)
    with pytest.raises(Exception, match=r"no profile 'tpu'.*\n.*full, gpu, gpu-offline, cpu, off"):
        choose_profile(suite, "tpu", Facts(0, True, ""))


def test_a_price_of_an_hour_has_a_currency_and_changes_no_job(tmp_path):
    for name, price in (("plain", ""), ("priced", "2.50USD")):
        (tmp_path / name).mkdir()
        write(tmp_path / name, changed(*([((*QUICK, "price"), price)] if price else [])))
    plain, priced = (load_suite("demo", tmp_path / name) for name in ("plain", "priced"))
    assert priced.profiles["quick"].price == "2.50USD"
    jobs = [[j.job_id for j in expand(suite, "quick", "cpu").jobs] for suite in (plain, priced)]
    assert jobs[0] == jobs[1]
    (tmp_path / "stated").mkdir()
    write(tmp_path / "stated", changed(((*QUICK, "watts"), 15)))
    stated = load_suite("demo", tmp_path / "stated")
    assert stated.profiles["quick"].watts == 15 and plain.profiles["quick"].watts is None
    assert [j.job_id for j in expand(stated, "quick", "cpu").jobs] == jobs[0]
    (tmp_path / "timed").mkdir()
    write(tmp_path / "timed", changed(((*QUICK, "timed_seeds"), "first")))
    timed = load_suite("demo", tmp_path / "timed")
    assert timed.profiles["quick"].timed_seeds == "first"
    assert [j.job_id for j in expand(timed, "quick", "cpu").jobs] == jobs[0]
    assert "watts: found 0" in refusal(tmp_path, changed(((*QUICK, "watts"), 0)))
    told = refusal(tmp_path, changed(((*QUICK, "price"), "2.5")))
    assert "currency of three capital letters, such as 2.50USD" in told
