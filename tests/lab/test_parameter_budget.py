"""Parameter budgets: exact counts on the meta device, and the sizes that come nearest."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from math import inf

import pytest
import torch
import yaml
from transformers import AutoModel

import citizen
import tiny
from peftmark.catalog.architectures import ARCHITECTURES, OF_MODELS
from peftmark.catalog.methods import METHODS
from peftmark.catalog.models import MODELS
from peftmark.cli import parser
from peftmark.core.errors import UserError
from peftmark.lab import parameter_budget, recipe
from peftmark.lab.measure.parameter_counts import head_parameters
from peftmark.lab.memory.meta_model import blank, config_of
from peftmark.lab.methods import prepare, trainable
from peftmark.lab.models import Unsupported, trained_head
from peftmark.lab.parameter_budget import TOLERANCE, Budgeted, Cost, solve, spread
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.run.parameter_budgets import budgets

SCHEDULE = AdaLoraSchedule(None, 2, 4, 1, 0.85, 0.85, 0.1, init_ratio=1.5)
LARGE_WITHOUT_HEAD = 354_310_144  # 355,359,744 less the pooler, which the classifier leaves out
WITH_BUDGET = [m.key for m in METHODS.values() if m.budget]

# What makes a method small enough for 0.1% of RoBERTa-large.
SMALL = {
    "adapter-lora": {"width": 2},
    "unipelt": {"width": 2, "tokens": 2},
    "p-tuning": {"hidden": 64},
    "prefix-tuning": {"hidden": 4},
}


def large(classes=2):
    return config_of(ARCHITECTURES["roberta-large"], classes)


def job_of(method="lora", wanted="0.1%", options=None, **settings):
    known = METHODS[method]
    settings = {"max_length": 128, "dropout": 0.0, **settings}
    if known.schedule:
        settings |= {"adalora": SCHEDULE, "steps": 20}
    job = tiny.job(method, options=SMALL.get(method, {}) | (options or {}), **settings)
    return replace(job, size=None, recipe=replace(job.recipe, budget=wanted))


# --- architectures ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", sorted(ARCHITECTURES))
def test_architectures_have_the_parameters_of_the_catalogue(model):
    with torch.device("meta"):
        built = AutoModel.from_config(config_of(ARCHITECTURES[model], 2))
    known = {key: m.parameters for key, m in MODELS.items()} | {"bert-base-uncased": 109_482_240}
    assert sum(p.numel() for p in built.parameters()) == known[model]


def test_every_model_of_the_catalogue_has_an_architecture():
    assert set(MODELS) <= set(OF_MODELS)


# --- spreading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [40, 100, 555, 1_000, 4_321])
def test_sizes_differ_by_one_and_come_nearest(wanted):
    costs = [Cost(0, 10), Cost(3, 10), Cost(0, 25)] * 8
    sizes = spread(costs, wanted)
    assert max(sizes) - min(sizes) <= 1
    total = sum(c.fixed + c.unit * k for c, k in zip(costs, sizes, strict=True) if k)
    # Within one step of the cheapest module: with enough modules there is always one to add.
    assert abs(total - wanted) <= 13


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.5, 5 / 6])
def test_what_is_left_over_favours_no_kind_of_module(share):
    layers, kinds = 24, 6
    sizes = spread([Cost(0, 10)] * layers * kinds, round(share * layers * kinds * 10))
    for kind in range(kinds):
        assert sum(sizes[kind::kinds]) == pytest.approx(share * layers, abs=1.6)
    for layer in range(0, layers, 4):
        four = sizes[layer * kinds : (layer + 4) * kinds]
        assert sum(four) == pytest.approx(share * 4 * kinds, abs=1.6)


def test_there_is_always_one_module():
    assert spread([Cost(0, 10), Cost(0, 5)], 1) == [0, 1]
    assert spread([], 100) == []


# --- one size for the whole method --------------------------------------------------------------


class Counted:
    """Counts by a formula, and notes what was asked."""

    def __init__(self, formula, most=inf):
        self.formula, self.most, self.asked = formula, most, []

    def adapter(self, size):
        self.asked.append(size)
        if size > self.most:
            raise Unsupported("too long")
        return self.formula(size)


def whole(counted, wanted):
    start = parameter_budget.Solved(job_of("prompt-tuning"), wanted, 0, 0, 1)
    return parameter_budget._whole(counted, start)


@pytest.mark.parametrize(
    ("formula", "wanted", "size"),
    [
        (lambda k: 100 * k, 1_234, 12),
        (lambda k: 100 * k, 1_260, 13),
        (lambda k: 100 * k, 7, 1),
        (lambda k: 5_000 + 7 * k, 100_003, 13_572),
        (lambda k: k * k, 10_100, 100),
        (lambda k: 3 * k + 10 * int(k**0.5), 5_000, 1_537),
    ],
)
def test_a_whole_size_is_the_nearest(formula, wanted, size):
    found = whole(Counted(formula), wanted)
    nearest = min(abs(formula(k) - wanted) for k in range(1, 20_000))
    assert abs(found.parameters - wanted) == nearest
    assert (found.size, found.parameters) == (size, formula(size))


def test_counts_in_a_straight_line_take_few_builds():
    counted = Counted(lambda k: 1_024 * k)
    assert whole(counted, 354_310).size == 346
    assert len(counted.asked) <= 5


def test_a_size_that_the_method_refuses_is_too_large():
    counted = Counted(lambda k: 100 * k, most=300)
    assert whole(counted, 25_000).size == 250
    short = whole(counted, 50_000)
    assert short.size == 300
    assert "the nearest is 300 with 30,000, -40.0%. Nothing larger: too long." in short.refusal


def test_a_size_that_changes_nothing_is_refused_at_once():
    counted = Counted(lambda k: 100)
    assert whole(counted, 50_000).refusal
    assert len(counted.asked) <= 3


# --- RoBERTa-large at 0.1% ----------------------------------------------------------------------

SUITE = {
    "suite": "budgets",
    "version": 1,
    "summary": "every method that may have a budget",
    "reference": {"method": "lora", "variant": "budget 0.1%"},
    "radar": {},
    "recipe": {
        "batch_size": 32, "steps": 100, "learning_rate": 0.001, "targets": "all-linear",
        "alpha": 16,
        "adalora": {
            "init_ratio": 1.5, "tinit": "10%", "tfinal": "30%", "delta_t": 5,
            "orthogonal_weight": 0.1,
        },
    },
    "methods": [
        *(
            {"method": key, "budget": ["0.1%"], "quantization": [METHODS[key].quantizations[0]],
             "options": SMALL.get(key, {})}
            for key in WITH_BUDGET
        ),
        *(
            {"method": key, "budget": ["0.1%"], "variant": "query-value",
             "recipe": {"targets": "query-value"}}
            for key in ("lora", "dora", "adalora", "bitfit-lora")
        ),
    ],
    "profiles": {
        "large": {
            "summary": "made up", "needs": "nothing", "scale": "reduced", "sources": ["hub"],
            "model": "minilm-l6", "seeds": [0], "tasks": {"sst-2": {}, "rte": {}},
        }
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def suites(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suites")
    (folder / "budgets.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def rows(suites):
    return budgets("budgets", None, suites, "roberta-large")["large"]


@pytest.mark.slow
def test_every_method_meets_a_thousandth_of_roberta_large(rows):
    assert len(rows) == len(WITH_BUDGET) + 4
    assert [(row.cell, row.refusal) for row in rows if row.refusal] == []
    for row in rows:
        assert row.wanted == round(LARGE_WITHOUT_HEAD / 1000)
        assert row.off == row.parameters / row.wanted - 1
        assert abs(row.off) <= TOLERANCE, row
        assert row.head_parameters == 1_051_650  # dense 1024 x 1024 and 1024 x 2, with biases
        assert row.tasks == ("sst-2", "rte")


@pytest.mark.slow
def test_lora_gets_less_than_a_rank_a_module_or_ranks_of_two_sizes(rows):
    by_cell = {row.cell: row for row in rows}
    linear, pair = by_cell["LoRA, budget 0.1%"], by_cell["LoRA, query-value, budget 0.1%"]
    assert (linear.smallest, linear.largest, linear.size) == (1, 1, 1)
    assert 0 < linear.used < linear.modules == 144
    assert (pair.smallest, pair.largest, pair.used) == (3, 4, 48)
    assert pair.parameters % 2048 == 0


@pytest.mark.slow
def test_the_counts_are_those_of_the_method_put_on():
    """LoRA and DoRA against formulas, on shapes that differ by module."""
    solved = solve(job_of("lora", targets="all-linear"), large())
    shapes = {
        name: (module.in_features, module.out_features)
        for name, module in blank(large()).named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert len({shapes[name] for name in solved.sizes}) == 3
    assert solved.parameters == sum(sum(shapes[name]) * k for name, k in solved.sizes.items())
    solved = solve(job_of("dora", targets="all-linear"), large())
    assert solved.parameters == sum(
        sum(shapes[name]) * k + shapes[name][1] for name, k in solved.sizes.items()
    )


@pytest.mark.slow
def test_a_step_of_p_tuning_v2_is_too_coarse_for_it():
    solved = solve(job_of("p-tuning-v2"), large())
    assert (solved.size, solved.parameters) == (7, 7 * 2 * 24 * 1024)
    assert "the nearest is 7 with 344,064, -2.9%" in solved.refusal
    assert not METHODS["p-tuning-v2"].budget
    assert solve(job_of("p-tuning-v2", "1%"), large()).refusal is None


def test_what_never_fits_is_refused_with_the_smallest():
    solved = solve(job_of("adapter-lora", options={"width": 64}), large())
    assert "the nearest is 1 in 1 of 144 modules (its smallest)" in solved.refusal
    assert "Change the budget or the method's options, or give a size." in solved.refusal


# --- the job ------------------------------------------------------------------------------------


def adapter_count(prepared, job, parts):
    head = trained_head(parts, job.recipe.train_pooler)
    every = sum(p.numel() for _, p in trainable(prepared.model))
    return every - head_parameters(prepared.model, head)


@pytest.mark.parametrize("wanted", [900, 4_000])
@pytest.mark.parametrize("method", [key for key in WITH_BUDGET if METHODS[key].size == "rank"])
@pytest.mark.sweep(14)
def test_the_job_trains_what_was_counted(bert, method, wanted):
    """The count on the meta device, stand-ins included, against the method on real weights."""
    known = METHODS[method]
    quantization = known.quantizations[0]
    job = replace(
        job_of(method, wanted, {"batches": 1} if "batches" in _options(known) else None),
        quantization=quantization,
    )
    if quantization != "none":
        job = replace(job, recipe=replace(job.recipe, double_quantization=True))
    solved = solve(job, config_of(bert, 2))
    setting = replace(citizen.setting_of(bert, solved.job), size=solved.size, sizes=solved.sizes)
    budgeted = Budgeted(**vars(setting), solved=solved)
    base, parts = citizen.base_of(bert, solved.job)
    prepared = prepare(base, budgeted)
    if known.schedule:
        citizen.train(prepared, job.recipe.steps)
        assert prepared.fault() is None
        active = prepared.active_parameters() - head_of(prepared, job, parts)
        assert active == solved.parameters
        assert sum(prepared.ranks().values()) == sum(solved.sizes.values())
    else:
        assert adapter_count(prepared, job, parts) == solved.parameters


def _options(known):
    return {option.name for option in known.options or ()}


def head_of(prepared, job, parts):
    return head_parameters(prepared.model, trained_head(parts, job.recipe.train_pooler))


def test_lora_scales_alike_where_ranks_differ(bert):
    solved = solve(job_of("lora", 4_000), config_of(bert, 2))
    assert len(set(solved.sizes.values())) == 2
    setting = citizen.setting_of(bert, solved.job, size=solved.size, sizes=solved.sizes)
    prepared = prepare(citizen.base_of(bert, solved.job)[0], setting)
    scales = {m.scaling["default"] for m in prepared.model.modules() if hasattr(m, "lora_A")}
    assert sorted(scales) == pytest.approx([solved.job.recipe.alpha / solved.size] * len(scales))


def test_layers_chosen_by_data_share_the_whole_budget(bert):
    for select in ("top", "bottom"):
        job = job_of("sensitive-layers", 2_500, {"ratio": 0.5, "select": select, "batches": 1})
        solved = solve(job, config_of(bert, 2))
        setting = citizen.setting_of(bert, solved.job, size=solved.size, sizes=solved.sizes)
        prepared = prepare(citizen.base_of(bert, job)[0], Budgeted(**vars(setting), solved=solved))
        layers = {name.split(".layer.")[1][0] for name in prepared.ranks()}
        assert len(layers) == 1
        assert adapter_count(prepared, job, setting.parts) == solved.parameters


def test_adalora_starts_above_its_final_rank(bert):
    for wanted, first in ((900, 1), (4_000, 4)):  # 7 of 12 modules; 31 ranks on 12
        solved = solve(job_of("adalora", wanted), config_of(bert, 2))
        assert solved.job.recipe.adalora.init_rank == first
        assert first * 12 > sum(solved.sizes.values())


def test_without_classifier_and_trained_pooler(bert):
    config = config_of(bert, 2)
    every = sum(p.numel() for p in blank(config).parameters())
    classifier, pooler = 64 * 2 + 2, 64 * 64 + 64
    trained = solve(job_of("lora", "10%"), config)
    frozen = solve(job_of("lora", "10%", train_pooler=False), config)
    assert (trained.head, frozen.head) == (classifier + pooler, classifier)
    assert trained.wanted == round((every - classifier - pooler) / 10)
    assert frozen.wanted == round((every - classifier) / 10)


def test_a_row_tells_size_and_budget(places, training_alone):
    done = recipe.run(job_of("lora", 4_000, max_length=16), places, lambda message: None)
    assert done.status == "ok"
    assert (done.solved_size, done.budget_parameters) == (3, 4_000)
    assert done.adapter_parameters == pytest.approx(4_000, rel=TOLERANCE)
    assert sorted(set(done.rank_history)) and done.final_rank * 128 == done.adapter_parameters
    plain = recipe.run(tiny.job("lora"), places, lambda message: None)
    assert (plain.solved_size, plain.budget_parameters) == (None, None)
    assert "not a budget" in plain.null_reasons["solved_size"]


def test_a_cell_that_misses_its_budget_is_unsupported(places):
    with pytest.raises(Unsupported, match=r"no even spread of lora comes within 2% of 100 adapter"):
        recipe.run(job_of("lora", 100, max_length=16), places, lambda message: None)


# --- the command --------------------------------------------------------------------------------


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        parser.main(list(arguments))
    out, err = capsys.readouterr()
    return left.value.code, out, err


@pytest.mark.slow
def test_the_command_prints_a_table_or_facts(suites, tmp_path, capsys):
    small = dict(
        SUITE,
        suite="few",
        methods=[
            {"method": "lora", "budget": ["0.1%", 300_000], "quantization": ["none", "nf4"]},
            {"method": "lora", "rank": [8], "variant": "sized"},
            {"method": "adapter-lora", "budget": ["0.1%"]},
        ],
    )
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    ask = partial(run, capsys, "budget", "few", "--suites", str(tmp_path))
    code, out, _ = ask("--model", "roberta-large")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "Profile large:"
    assert lines[1].split("  ")[1] == "cell" and len(lines) == 2 + 5 + 1
    assert "354,310" in lines[2] and "of 144" in lines[2] and "+0." in lines[2]
    assert lines[-1].strip().startswith("refused: adapter + LoRA, budget 0.1%: no even spread of")
    code, out, _ = ask("--json", "--profile", "large")
    facts = json.loads(out)["large"]
    assert code == 0 and len(facts) == 5
    assert facts[0]["wanted"] == round(22_565_376 / 1000)  # MiniLM without its pooler
    assert facts[1]["cell"] == "QLoRA, budget 0.1%" and facts[2]["wanted"] == 300_000


def test_bad_input_is_told(suites, capsys):
    for extra, text in (
        (("nothing",), "nothing"),
        (("budgets", "--profile", "none"), "has no profile 'none'"),
        (("budgets", "--model", "gpt"), "the architecture of model 'gpt' is unknown"),
    ):
        code, _, err = run(capsys, "budget", *extra, "--suites", str(suites))
        assert code == 2 and text in err
    with pytest.raises(UserError):
        budgets("budgets", "none", suites, None)


def test_a_suite_without_budgets_says_so(capsys):
    code, out, _ = run(capsys, "budget", "smoke", "--profile", "offline")
    assert (code, out) == (0, "Profile offline: no cell has a budget.\n")
