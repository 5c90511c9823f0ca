"""Every tuner of PEFT by its type, on tiny models: trains and round-trips, or is refused."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
from peft import PeftType as Installed
from peft.tuners.vera import layer as vera_layer
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

import citizen
import tiny
from citizen import build, logits, setting_of
from citizen import job as job_for
from peftmark.catalog.methods import METHODS, method_of
from peftmark.catalog.peft_types import PEFT_TYPES, installed_types, peft_type
from peftmark.catalog.tasks import TASKS
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import any_peft as home
from peftmark.lab.methods import peft_options, prepare, trainable
from peftmark.lab.methods.rank_allocation import Penalty
from peftmark.lab.models import Unsupported, anatomy_of
from peftmark.lab.step import task_loss

TRAINED = [kind.key for kind in PEFT_TYPES.values() if not kind.refused]
REFUSED = [kind.key for kind in PEFT_TYPES.values() if kind.refused]
QUANTIZED = [
    (kind.key, quantization)
    for kind in PEFT_TYPES.values()
    if kind.quantized and not kind.refused
    for quantization in ("nf4", "int8")
    # What touches no linear layer is the same on both.
    if quantization == "nf4" or kind.where in ("recipe", "ia3")
]
# On every push some of each kind; the rest in `make test-all`.
OFTEN = {"lora", "adalora", "ia3", "oft", "loha", "miss", "vera", "fourierft", "ln_tuning"}
OFTEN |= {"adamss", "shira", "poly", "prompt_tuning", "p_tuning", "prefix_tuning", "hira"}
FIRST = [(key, "nf4") for key in ("lora", "ia3", "oft", "miss", "adalora")]
# Types that don't start as the base: tokens that draw attention, and factors drawn at random.
CHANGED = {
    "cartridge",
    "prefix_tuning",
    "prompt_tuning",
    "p_tuning",
    "multitask_prompt_tuning",
    "c3a",
    "fourierft",
    "unilora",
    "vblora",
}
# PEFT's code for these on quantised weights unpacks them itself, which rounds otherwise.
UNPACKED = {"shira", "oft", "boft"}
SIZES = {"n_frequency": 200}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT whose biases and norms say something, as a real one's do."""
    path = tmp_path_factory.mktemp("bert")
    tiny.make_model(path, "bert")
    model = AutoModel.from_pretrained(path)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(path)
    return path


def job_of(key: str, quantization: str = "none", size: int | None = None, **recipe):
    size = size or SIZES.get(peft_type(key).size, 4)
    return job_for(f"peft:{key}", quantization, rank=size, **recipe)


def unsized(key: str, **recipe):
    return replace(job_of(key, **recipe), size=None)


def config_of(prepared):
    return prepared.model.active_peft_config


# --- the table ----------------------------------------------------------------------------------


def test_table_has_every_type_of_the_installed_peft():
    names = {kind.value.lower() for kind in Installed}
    assert names == set(PEFT_TYPES) == installed_types()
    assert len(TRAINED) >= 36


@pytest.mark.slow
def test_table_counts_budgets_that_can_be_solved(bert):
    config = AutoConfig.from_pretrained(bert, num_labels=2)

    def count(key, size):
        with torch.device("meta"):
            base = AutoModelForSequenceClassification.from_config(config)
            changes = {"parts": anatomy_of(base), "device": torch.device("meta")}
            setting = setting_of(bert, job_of(key, size=size), preview=None, loss=None, **changes)
            return sum(p.numel() for _, p in trainable(prepare(base, setting).model))

    solved = [key for key in TRAINED if method_of(f"peft:{key}").budget]
    assert len(solved) >= 20
    for key in solved:
        assert count(key, 4) < count(key, 8), key


def test_table_gives_each_size_the_key_of_its_kind():
    assert method_of("peft:vera").size == "rank"
    assert method_of("peft:prompt_tuning").size == "tokens"
    assert method_of("peft:fourierft").size == "width"
    assert method_of("peft:ia3").size is None
    assert method_of("peft:vera").settings == ("targets",)
    assert method_of("peft:ln_tuning").settings == ()
    assert method_of("peft:adalora").hooks == ("extra loss", "after each step")
    assert method_of("peft:nothing") is None


def test_type_that_is_newer_than_the_table_trains_with_pefts_defaults(bert, monkeypatch):
    # A table of its own: an entry put back would stand last, for every test that follows.
    others = {key: kind for key, kind in PEFT_TYPES.items() if key != "vera"}
    monkeypatch.setattr("peftmark.catalog.peft_types.PEFT_TYPES", others)
    assert method_of("peft:vera").size is None
    _, prepared, _ = build(bert, unsized("vera", options={"r": 8}))
    losses, _ = citizen.train(prepared)
    assert losses[-1] < losses[0]
    assert (config_of(prepared).r, prepared.merge) == (8, None)
    with pytest.raises(Unsupported, match="no code for PEFT VERA on bitsandbytes"):
        build(bert, replace(job_for("peft:vera"), quantization="nf4"))


# --- every type ---------------------------------------------------------------------------------


def assert_trains_under_autocast(prepared, job):
    """Every trained tensor is fp32 and gets a finite gradient in a bf16 step."""
    prepared.model.train()
    batch = Batch(citizen.inputs(3), citizen.LABELS, 54)
    bf16 = replace(job, recipe=replace(job.recipe, precision="bf16"))
    task_loss(prepared.model, batch, TASKS["sst-2"], bf16, citizen.CPU).backward()
    for name, p in trainable(prepared.model):
        assert p.dtype == torch.float32, name
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        p.grad = None


def merge_error(merge, model) -> float:
    """Largest difference of a logit after merging; infinite where it fails."""
    before = logits(model)
    try:
        merged = merge(model)
        assert not any("peft" in type(m).__module__ for m in merged.modules())
        return (logits(merged) - before).abs().max().item()
    except (NotImplementedError, AttributeError, ValueError, RuntimeError):
        return math.inf


def assert_merges_as_the_table_says(prepared, model, tolerance):
    if prepared.merge is not None:
        assert merge_error(lambda model: prepared.merge(model)[0], model) < tolerance
        return
    assert prepared.merge_reason
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert merge_error(lambda model: model.merge_and_unload(), model) > tolerance


@pytest.mark.parametrize(
    "key", [pytest.param(k, marks=[] if k in OFTEN else pytest.mark.slow) for k in TRAINED]
)
@pytest.mark.sweep(6)
def test_type_freezes_the_base_trains_and_saves(bert, tmp_path, key):
    job = job_of(key)
    prepared = citizen.check(bert, tmp_path, job, identity=key not in CHANGED)
    assert prepared.matched_rank == PEFT_TYPES[key].size
    assert_trains_under_autocast(prepared, job)
    loaded = prepared.load(citizen.base_of(bert, job)[0], tmp_path)
    assert_merges_as_the_table_says(prepared, loaded, 2e-5)


# On every push some of each kind on one back-end.
@pytest.mark.parametrize(
    ("key", "quantization"),
    [pytest.param(*cell, marks=[] if cell in FIRST else pytest.mark.slow) for cell in QUANTIZED],
)
def test_type_works_on_a_quantised_base(bert, tmp_path, key, quantization):
    job = job_of(key, quantization, steps=6)
    same = key not in CHANGED | UNPACKED
    prepared = citizen.check(bert, tmp_path, job, identity=same)
    loaded = prepared.load(citizen.base_of(bert, job)[0], tmp_path)
    if (key, quantization) != ("pvera", "int8"):  # PEFT merges it right, but not on nf4
        assert_merges_as_the_table_says(prepared, loaded, 0.5)
    bf16 = job_of(key, quantization, precision="bf16")
    assert_trains_under_autocast(build(bert, bf16)[1], bf16)


@pytest.mark.parametrize("key", REFUSED)
def test_refused_type_says_why_and_peft_agrees(bert, key, monkeypatch):
    with pytest.raises(Unsupported, match="can't train a sequence classifier: "):
        build(bert, job_of(key))
    monkeypatch.setitem(PEFT_TYPES, key, replace(PEFT_TYPES[key], refused=""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # X-LoRA warns of what it is not given
        with pytest.raises(Unsupported, match="in PEFT: "):
            build(bert, unsized(key))


def test_types_without_code_for_quantised_layers_are_refused(bert):
    for kind in PEFT_TYPES.values():
        if not kind.quantized and not kind.refused:
            job = job_of(kind.key, "nf4")
            with pytest.raises(Unsupported, match=r"no code for .* use quantization: none"):
                home.any_peft(nn.Module(), setting_of(bert, job))


@pytest.mark.parametrize("key", ["prompt_tuning", "fourierft", "dora"])
def test_looking_at_what_was_built_leaves_it_as_it_was(bert, key, monkeypatch):
    job = job_of("lora", options={"use_dora": True}) if key == "dora" else job_of(key)
    _, looked_at, _ = build(bert, job)
    monkeypatch.setattr(home, "_works", lambda *_: None)
    _, untouched, _ = build(bert, job)
    assert torch.equal(logits(looked_at.model), logits(untouched.model))
    assert looked_at.model.training


# --- nothing is taken on trust ------------------------------------------------------------------


def test_adapter_without_a_part_in_the_forward_pass_is_refused(bert, monkeypatch):
    forward = lambda self, x, *args, **kwargs: self.base_layer(x, *args, **kwargs)  # noqa: E731
    monkeypatch.setattr(vera_layer.Linear, "forward", forward)
    with pytest.raises(Unsupported, match="VeRA has no part in the forward pass of tiny"):
        build(bert, job_of("vera"))


def test_adapter_that_replaces_quantised_weights_is_refused(bert, monkeypatch):
    def replacing(model, config):
        model.bert.encoder.layer[0].attention.self.query = nn.Linear(64, 64)
        return wrap(model, config)

    wrap = home.wrap
    monkeypatch.setattr(home, "wrap", replacing)
    with pytest.raises(Unsupported, match="replaces quantised weights"):
        build(bert, job_of("vera", "nf4"))


def test_adapter_that_leaves_the_head_frozen_is_refused(bert, monkeypatch):
    monkeypatch.setattr(peft_options, "_leaves", lambda model, tops: ["classifier"])
    with pytest.raises(Unsupported, match="leaves parts of the classification head frozen"):
        build(bert, job_of("lora"))


def test_adapter_that_trains_nothing_is_refused(bert, monkeypatch):
    def frozen(model, config):
        wrapped = wrap(model, config)
        for name, p in wrapped.named_parameters():
            p.requires_grad_("modules_to_save" in name)
        return wrapped

    wrap = home.wrap
    monkeypatch.setattr(home, "wrap", frozen)
    with pytest.raises(Unsupported, match="trains nothing on tiny"):
        build(bert, job_of("lora"))


def test_prompts_that_do_not_fit_are_refused(bert, tmp_path):
    with pytest.raises(Unsupported, match="30 virtual tokens and max_length 16 need 46 positions"):
        build(bert, job_of("prompt_tuning", size=30))
    tiny.make_model(tmp_path, "deberta-v2")
    with pytest.raises(Unsupported, match="past_key_values"):
        build(tmp_path, job_of("prefix_tuning"))


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "options", "reason"),
    [
        ("lora", {"lora_alfa": 1}, "did you mean lora_alpha"),
        ("vera", {"zzz": 1}, "none of that name; it has bias, d_initial"),
        ("lora", {"task_type": "CAUSAL_LM"}, "follows from the job"),
        ("lora", {"modules_to_save": ["bert"]}, "follows from the job"),
        ("adalora", {"total_step": 5}, "follows from the job"),
        ("adalora", {"r": 5}, "rank is target_r"),
        ("adamss", {"mask_interval": 0}, "refuses its options: ZeroDivisionError"),
        ("prompt_tuning", {"tokenizer_name_or_path": "/etc"}, "can name files"),
        ("prompt_tuning", {"prompt_tuning_init": "TEXT"}, "load a tokenizer"),
        ("lora", {"megatron_core": "os"}, "can name files, models or code"),
        ("lora", {"kasa_config": {}}, "can name files, models or code"),
        ("lora", {"init_lora_weights": "pissa_niter_4"}, "use the method pissa"),
        ("lora", {"init_lora_weights": "lora_ga"}, "use the method lora-ga"),
        ("lora", {"target_modules": ["query"]}, "set targets in the recipe"),
        ("lora", {"r": 2}, "the cell's size sets it"),
        ("lora", {"rank_pattern": {"query": object()}}, "only numbers, words"),
        ("gralora", {"gralora_k": 3}, "GraLoRA refuses its options: ValueError in PEFT: r should"),
        ("lora", {"lora_dropout": "much"}, "PEFT LoRA can't be put on tiny: TypeError in PEFT: "),
        ("vblora", {"vector_length": 48}, "VB-LoRA can't be put on tiny: ValueError in PEFT: "),
    ],
)
def test_options_that_can_not_be_are_refused(bert, key, options, reason):
    with pytest.raises(Unsupported, match=reason):
        build(bert, job_of(key, options=options))


def test_hra_that_would_not_start_as_the_base_is_refused(bert):
    with pytest.raises(Unsupported, match="odd r it does not start as the base"):
        build(bert, job_of("hra", size=3))


def test_methods_that_options_point_to_exist():
    assert set(peft_options._OWN_METHODS.values()) <= set(METHODS)


def test_rank_sets_the_size_and_keeps_pefts_scale(bert):
    for key, name, alpha in (("lora", "lora_alpha", 8 / 8), ("randlora", "randlora_alpha", 20)):
        _, prepared, _ = build(bert, job_of(key, size=4))
        assert (config_of(prepared).r, getattr(config_of(prepared), name)) == (4, alpha * 4)
    _, prepared, _ = build(bert, job_of("lora", options={"lora_alpha": 3}))
    assert config_of(prepared).lora_alpha == 3
    _, prepared, _ = build(bert, unsized("lora"))
    assert (config_of(prepared).r, config_of(prepared).lora_alpha) == (8, 8)
    assert prepared.matched_rank is None


def test_defaults_fit_the_architecture_the_data_and_the_steps(bert):
    assert config_of(build(bert, job_of("c3a"))[1]).block_size == 64
    assert config_of(build(bert, job_of("vblora"))[1]).vector_length == 64
    first = {int(i) for n in range(1, 11) for i in citizen.inputs(n)["input_ids"].unique()}
    assert set(config_of(build(bert, job_of("trainable_tokens"))[1]).token_indices) == first
    config = config_of(build(bert, job_of("adalora", steps=40))[1])
    assert (config.tinit, config.tfinal, config.total_step) == (4, 12, 40)
    assert (config.target_r, config.init_r) == (4, 6)


def test_types_with_modules_of_their_own_sit_on_them(bert):
    _, prepared, parts = build(bert, job_of("ia3"))
    inputs = [block.ffn_out for block in parts.blocks]
    assert set(config_of(prepared).feedforward_modules) == set(inputs)
    assert len(config_of(prepared).target_modules) == 3 * len(parts.blocks)
    _, prepared, _ = build(bert, job_of("beft"))
    assert set(config_of(prepared).target_modules) == {block.value for block in parts.blocks}
    _, prepared, _ = build(bert, job_of("ln_tuning"))
    assert len(config_of(prepared).target_modules) == 1 + 2 * len(parts.blocks)
    own = ["bert.encoder.layer.0.attention.self.query"]
    _, prepared, _ = build(bert, job_of("beft", options={"target_modules": own}))
    assert set(config_of(prepared).target_modules) == set(own)


# --- what PEFT wants called ---------------------------------------------------------------------


def test_adalora_is_called_and_checked(bert):
    _, prepared, parts = build(bert, job_of("adalora", steps=10))
    ours = config_of(prepared).orth_reg_weight * Penalty(prepared.model)()
    torch.testing.assert_close(prepared.extra_loss(), ours)
    citizen.train(prepared, 10)
    assert sum(prepared.ranks().values()) == 4 * len(parts.encoder_linears)
    assert prepared.fault() is None
    _, prepared, _ = build(bert, job_of("adalora", steps=10))
    prepared.after_step = lambda step: None
    citizen.train(prepared, 10)
    assert "active rank" in prepared.fault()


def test_adamss_allocation_is_called_and_checked(bert):
    options = {"use_asa": True, "asa_target_subspaces": 9, "num_subspaces": 4}
    job = job_of("adamss", size=32, steps=20, targets="query-value", options=options)
    _, prepared, _ = build(bert, job)
    everything = prepared.active_parameters()
    citizen.train(prepared, 20)
    assert prepared.fault() is None
    assert prepared.active_parameters() < everything
    _, prepared, _ = build(bert, job)
    prepared.after_step = lambda step: None
    citizen.train(prepared, 20)
    assert prepared.fault().endswith("its target is 9")
