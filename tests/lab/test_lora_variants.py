"""LoRA's variants: what each paper's equations say of scales, starts, rates and losses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from peft import get_peft_model_state_dict
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora.corda import preprocess_corda
from safetensors.torch import load_file
from torch import nn

import citizen
from citizen import base_of, build, logits, setting_of, train
from citizen import job as job_for
from lora_parts import QUERY, SCALE, WIDE, factors, layer_of, rest, update, weight
from peftmark.catalog.methods import METHODS
from peftmark.catalog.quantizations import of_family
from peftmark.catalog.tasks import TASKS
from peftmark.lab.data.batches import Batch
from peftmark.lab.deploy import saved_size
from peftmark.lab.methods import prepare, trainable
from peftmark.lab.methods.lora_data import input_covariances
from peftmark.lab.models import Unsupported
from peftmark.lab.step import Step

KEYS = (
    "rslora",
    "dora",
    "pissa",
    "olora",
    "lora-plus",
    "loftq",
    "eva",
    "corda",
    "lora-ga",
    "kasa",
    "mica",
    "milora",
    "init-b",
    "init-ab",
    "lora-fa",
    "riemannian-lora",
    "velora",
    "loft",
)
CELLS = [(key, q) for key in KEYS for q in METHODS[key].quantizations]
UNMERGED = {("dora", q) for q in of_family("torchao-8bit")}
UNMERGED |= {(key, q) for key in KEYS for q in of_family("quanto")}
IDENTITY = set(KEYS) - {"loftq", "kasa"}
BATCHES = {"options": {"batches": 12}}
OPTIONS: dict[str, dict[str, Any]] = dict.fromkeys(("eva", "corda", "lora-ga"), BATCHES)


def job(key: str, quantization: str = "none", **changes: Any) -> Any:
    return job_for(key, quantization, **{**OPTIONS.get(key, {}), **changes})


# On every push each on a plain base, and one of each kind on a quantised one.
OFTEN = {"dora", "pissa", "loftq", "lora-fa"}


@pytest.mark.parametrize(
    ("key", "quantization"),
    [
        pytest.param(*c, marks=[] if c[1] == "none" or c[0] in OFTEN else pytest.mark.slow)
        for c in CELLS
    ],
)
@pytest.mark.sweep(12)
def test_variant_freezes_starts_trains_and_saves(bert, tmp_path, key, quantization):
    prepared = citizen.check(bert, tmp_path, job(key, quantization), key in IDENTITY)
    assert set(prepared.ranks().values()) == {2}
    assert (prepared.merge is None) == ((key, quantization) in UNMERGED)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.sweep(6)
def test_unequal_ranks_keep_the_scale_and_are_saved(bert, tmp_path, key):
    made = job(key, METHODS[key].quantizations[0], rank=4)
    base, parts = base_of(bert, made)
    names = parts.encoder_linears[1:]
    sizes = {name: 3 + i % 3 for i, name in enumerate(names)}
    prepared = prepare(copy.deepcopy(base), setting_of(bert, made, sizes=sizes))
    assert prepared.ranks() == sizes
    power = 0.5 if key == "rslora" else 1.0
    for name, rank in sizes.items():
        layer = layer_of(prepared, name)
        assert layer.lora_A["default"].weight.shape[0] == rank
        assert layer.scaling["default"] == pytest.approx(8 / 4**power)
    assert not hasattr(layer_of(prepared, parts.encoder_linears[0]), "lora_A")
    if key in IDENTITY:
        torch.testing.assert_close(logits(prepared.model), logits(base), rtol=1e-4, atol=1e-5)
    train(prepared, 3)
    prepared.save(tmp_path)
    loaded = prepared.load(base_of(bert, made)[0], tmp_path)
    torch.testing.assert_close(logits(loaded), logits(prepared.model), rtol=1e-4, atol=2e-5)


# On every push those on the plain base; what merges into quantised ones is PEFT's one code.
@pytest.mark.parametrize(
    ("key", "quantization"),
    [
        pytest.param(*c, marks=[] if c[1] == "none" or c[0] == "lora" else pytest.mark.slow)
        for c in CELLS
        if c not in UNMERGED
    ],
)
@pytest.mark.sweep(6)
def test_merged_model_gives_the_same_logits(bert, tmp_path, key, quantization):
    made = job(key, quantization)
    _, prepared, _ = build(bert, made)
    start = logits(prepared.model)
    train(prepared)
    trained = logits(prepared.model)
    prepared.save(tmp_path)
    assert prepared.merge is not None
    merged, _ = prepared.merge(prepared.load(base_of(bert, made)[0], tmp_path))
    assert not any("lora" in name for name, _ in merged.named_parameters())
    if quantization == "none":
        torch.testing.assert_close(logits(merged), trained, rtol=1e-4, atol=2e-5)
    else:  # quantised again
        assert (logits(merged) - trained).norm() < 0.2 * (trained - start).norm()


@pytest.mark.parametrize("key", ["eva", "corda", "lora-ga", "kasa", "dora"])
def test_same_seed_builds_the_same_start(bert, key):
    def start() -> dict[str, torch.Tensor]:
        return {n: p.detach().clone() for n, p in build(bert, job(key))[1].model.named_parameters()}

    one, other = start(), start()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("key", ["dora", "kasa", "lora-plus", "lora-ga"])
def test_variant_trains_in_bf16_with_dropout(bert, key):
    made = job(key, precision="bf16", dropout=0.1, steps=6, learning_rate=1e-3)
    _, prepared, _ = build(bert, made)
    step = Step(made, TASKS["sst-2"], prepared, citizen.CPU)
    batch = Batch(citizen.inputs(), citizen.LABELS, 54)
    losses = [step(number, batch).loss.item() for number in range(1, 7)]
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for _, p in trainable(prepared.model))


def test_rslora_scales_by_the_square_root_of_the_rank(bert):
    _, prepared, _ = build(bert, job("rslora", rank=4))
    assert layer_of(prepared).scaling["default"] == 8 / 4**0.5
    _, plain, _ = build(bert, job("lora", rank=4))
    assert layer_of(plain).scaling["default"] == 8 / 4


def test_dora_starts_at_the_norms_and_trains_magnitude_and_direction_apart(bert):
    base, prepared, _ = build(bert, job("dora"))
    layer = layer_of(prepared)
    magnitude = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitude, weight(base).norm(dim=1))
    with torch.no_grad():  # any B and m: W' = m (W + s B A) / ||W + s B A||
        layer.lora_B["default"].weight.normal_()
        magnitude.mul_(1.5)
    direction = weight(base) + update(prepared)
    expected = (magnitude / direction.norm(dim=1))[:, None] * direction
    x = torch.randn(5, 64)
    torch.testing.assert_close(
        layer(x),
        nn.functional.linear(x, expected, base.get_submodule(QUERY).bias),
        rtol=1e-4,
        atol=1e-4,
    )


def test_lora_plus_rates_are_those_of_pefts_optimizer(bert):
    made = job("lora-plus", options={"rate_ratio": 8.0})
    _, prepared, _ = build(bert, made)
    rate = 1e-3
    peft: Any = create_loraplus_optimizer(
        prepared.model, torch.optim.AdamW, lr=rate, loraplus_lr_ratio=8.0
    )
    names = {id(p): name for name, p in trainable(prepared.model)}
    rates = {names[id(p)]: g["lr"] for g in peft.param_groups for p in g["params"]}
    ours = {name: rate * prepared.rate_of(name) for name in names.values()}
    assert ours == pytest.approx(rates)
    assert set(ours.values()) == {rate, 8 * rate}
    assert all(r == 8 * rate for name, r in ours.items() if "lora_B" in name)
    assert all(r == rate for name, r in ours.items() if "lora_A" in name)


def test_pissa_trains_the_largest_singular_triplets(bert):
    base, prepared, _ = build(bert, job("pissa"))
    for name in (QUERY, WIDE):
        u, s, v = torch.linalg.svd(weight(base, name))
        torch.testing.assert_close(
            update(prepared, name), u[:, :2] * s[:2] @ v[:2], rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            rest(prepared, name) + update(prepared, name), weight(base, name)
        )
        a, b = factors(prepared, name)
        torch.testing.assert_close(a @ a.T, torch.diag(s[:2] / SCALE), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(b.T @ b, torch.diag(s[:2] / SCALE), rtol=1e-4, atol=1e-5)


def test_olora_starts_from_the_qr_decomposition(bert):
    base, prepared, _ = build(bert, job("olora"))
    q, r = torch.linalg.qr(weight(base))
    a, b = factors(prepared)
    torch.testing.assert_close(b, q[:, :2])
    torch.testing.assert_close(a, r[:2])
    torch.testing.assert_close(rest(prepared) + SCALE * b @ a, weight(base))


@pytest.mark.parametrize("key", ["pissa", "olora", "corda", "lora-ga"])
def test_a_start_taken_from_the_weights_is_saved_as_a_small_plain_lora(bert, tmp_path, key):
    base, prepared, _ = build(bert, job(key))
    before = get_peft_model_state_dict(prepared.model)
    start = {name: p.clone() for name, p in before.items()}
    train(prepared)
    prepared.save(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert set(saved) == set(start)  # the head is in it
    low_rank = sum(p.numel() for name, p in start.items() if "lora_" in name)
    head = sum(p.numel() for name, p in start.items() if "lora_" not in name)
    assert saved_size(tmp_path, ()).parameters == 2 * low_rank + head
    key_of = f"base_model.model.{QUERY}.lora_{{}}.weight"
    change = SCALE * saved[key_of.format("B")] @ saved[key_of.format("A")]
    torch.testing.assert_close(
        weight(base) + change, rest(prepared) + update(prepared), rtol=1e-4, atol=1e-5
    )


def hidden(model: Any) -> torch.Tensor:
    """What the encoder gives the head: thousands of numbers, where logits are twelve."""
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model.bert(**citizen.inputs()).last_hidden_state
    return found


@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
@pytest.mark.parametrize("iterations", [1, 3])
def test_loftq_gives_back_what_quantising_lost(bert, tmp_path, quantization, iterations):
    made = job("loftq", quantization, rank=16, options={"iterations": iterations})
    quantised, prepared, _ = build(bert, made)
    plain, _ = base_of(bert, job("lora"))
    for name in (QUERY, WIDE):
        was: Any = quantised.get_submodule(name).weight
        lost = weight(plain, name) - dequantize_4bit(was.data, was.quant_state)
        now = layer_of(prepared, name).base_layer.weight
        kept = dequantize_4bit(now.data, now.quant_state)
        left = weight(plain, name) - kept - update(prepared, name)
        assert left.norm() < 0.9 * lost.norm()
        # The best rank-16 correction of this Q, so the 16 largest singular values are gone.
        values = torch.linalg.svdvals(weight(plain, name) - kept)
        torch.testing.assert_close(left.norm(), values[16:].norm(), rtol=1e-3, atol=1e-5)
        assert torch.equal(now.data, was.data) == (iterations == 1)
        assert now.quant_state.quant_type == quantization
        assert now.quant_state.nested == was.quant_state.nested
    wrapped: Any = prepared.model
    goal = hidden(plain)
    assert (hidden(wrapped.get_base_model()) - goal).norm() < (hidden(quantised) - goal).norm()
    train(prepared, 3)
    prepared.save(tmp_path)
    loaded = prepared.load(base_of(bert, made)[0], tmp_path)
    torch.testing.assert_close(logits(loaded), logits(prepared.model), rtol=1e-4, atol=2e-5)


def test_loftq_iterations_lower_the_error(bert):
    plain, _ = base_of(bert, job("lora"))
    errors = []
    for iterations in (1, 5):
        made = job("loftq", "nf4", rank=16, options={"iterations": iterations})
        _, prepared, parts = build(bert, made)
        left = [
            weight(plain, name)
            - dequantize_4bit(rest(prepared, name), layer_of(prepared, name).weight.quant_state)
            - update(prepared, name)
            for name in parts.encoder_linears
        ]
        errors.append(sum(float(x.square().sum()) for x in left) ** 0.5)
    assert errors[1] < errors[0]


def inputs_of(bert, made: Any, name: str) -> torch.Tensor:
    """What a module of the base sees over the preview, shape (tokens, in)."""
    base, _ = base_of(bert, made)
    setting = setting_of(bert, made)
    seen: list[torch.Tensor] = []
    handle = base.get_submodule(name).register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].detach().flatten(0, 1))
    )
    base.eval()
    for batch in setting.preview(made.recipe.options["batches"]):
        setting.loss(base, batch)
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("name", [QUERY, WIDE])
def test_eva_starts_along_the_inputs_principal_directions(bert, name):
    made = job("eva")
    _, prepared, _ = build(bert, made)
    a, b = factors(prepared, name)
    assert not b.any()
    torch.testing.assert_close(a @ a.T, torch.eye(2), rtol=1e-3, atol=1e-3)
    seen = inputs_of(bert, made, name)
    centred = seen - seen.mean(0)
    best = torch.linalg.svdvals(centred)[:2].square().sum()
    assert (centred @ a.T).square().sum() > 0.9 * best
    _, plain, _ = build(bert, job("lora"))
    random = nn.functional.normalize(factors(plain, name)[0])
    assert (centred @ random.T).square().sum() < 0.7 * best


@pytest.mark.slow
def test_eva_moves_ranks_where_it_may(bert, tmp_path):
    made = job("eva", rank=2, options={"batches": 12, "rho": 2.0})
    prepared = citizen.check(bert, tmp_path, made)
    ranks = prepared.ranks()
    parts = base_of(bert, made)[1]
    assert sum(ranks.values()) == 2 * len(parts.encoder_linears)
    assert len(set(ranks.values())) > 1
    assert max(ranks.values()) <= 4
    for name, rank in ranks.items():
        assert factors(prepared, name)[0].shape[0] == rank
        assert layer_of(prepared, name).scaling["default"] == pytest.approx(SCALE)
    with pytest.raises(Unsupported, match="breaks a parameter budget"):
        build(bert, made, sizes=dict.fromkeys(parts.encoder_linears, 2))


def test_eva_that_does_not_settle_is_unsupported(bert, monkeypatch):
    monkeypatch.setattr("peftmark.lab.methods.lora_data.EVA_PASSES", 0)
    with pytest.raises(Unsupported, match="still move after 0 passes over 12 batches"):
        build(bert, job("eva"))


def padded(setting: Any, count: int) -> list[Batch]:
    """Preview batches whose rows differ in length."""
    batches: list[Batch] = setting.preview(count)
    for batch in batches:
        for row, length in enumerate((9, 4, 7, 3, 9, 5)):
            batch.inputs["attention_mask"][row, length:] = 0
            batch.inputs["input_ids"][row, length:] = 0
    return batches


def test_corda_covariance_is_pefts_without_the_padding(bert):
    made = job("corda")
    base, parts = base_of(bert, made)
    setting = setting_of(bert, made)
    batches = padded(setting, 3)
    found = input_covariances(base, setting, list(parts.encoder_linears), batches)
    _, prepared, _ = build(bert, made)
    config: Any = copy.deepcopy(prepared.model.peft_config["default"])
    config.corda_config.prune_temporary_fields = False

    def rows() -> None:
        for batch in batches:
            lengths = batch.inputs["attention_mask"].sum(1).tolist()
            for row, length in enumerate(lengths):
                base(**{k: v[row : row + 1, :length] for k, v in batch.inputs.items()})

    preprocess_corda(base, config, run_model=rows)
    for name in (QUERY, WIDE):
        theirs: Any = base.get_submodule(name).covariance_matrix
        torch.testing.assert_close(found[name], theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["ipm", "kpm"])
def test_corda_trains_triplets_of_the_weight_in_its_context(bert, kind):
    made = job("corda", options={"batches": 12, "kind": kind})
    base, prepared, _ = build(bert, made)
    setting = setting_of(bert, made)
    for name in (QUERY, WIDE):
        torch.testing.assert_close(
            rest(prepared, name) + update(prepared, name), weight(base, name), rtol=1e-4, atol=1e-5
        )
        c = input_covariances(base, setting, [name], setting.preview(12))[name]
        c = c + 0.01 * c.diagonal().mean() * torch.eye(64)
        u, s, v = torch.linalg.svd(weight(base, name) @ c)
        part = slice(0, 2) if kind == "ipm" else slice(62, 64)
        expected = u[:, part] * s[part] @ v[part] @ torch.linalg.inv(c)
        error = (update(prepared, name) - expected).norm() / expected.norm()
        assert error < 0.02
    assert not hasattr(layer_of(prepared).base_layer, "covariance_matrix")


def test_lora_ga_starts_along_the_gradient(bert):
    made = job("lora-ga")
    base, prepared, _ = build(bert, made)
    setting = setting_of(bert, made)
    base.eval()
    gradient = torch.zeros(64, 64)
    query = base.get_parameter(f"{QUERY}.weight")
    query.requires_grad_(True)
    for batch in setting.preview(12):
        gradient += torch.autograd.grad(setting.loss(base, batch), query)[0]
    u, s, v = torch.linalg.svd(gradient)
    a, b = factors(prepared)
    square = 64**0.5 / 16
    # Up to a sign of each direction.
    torch.testing.assert_close(a @ a.T, square * torch.eye(2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        (a @ v[:2].T).abs() / square**0.5, torch.eye(2), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(
        (b.T @ u[:, 2:4]).abs() / square**0.5, torch.eye(2), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(rest(prepared) + update(prepared), weight(base))
    # The theorem: dB A + B dA, with dB = -s G A' and dA = -s B' G, is proportional to the best
    # approximation of G of rank 2r.
    step = SCALE**2 * (gradient @ a.T @ a + b @ b.T @ gradient)
    best = SCALE**2 * square * (u[:, :4] * s[:4] @ v[:4])
    torch.testing.assert_close(step, best, rtol=1e-3, atol=1e-4 * float(s[0]))


def test_lora_ga_leaves_no_gradient_on_the_base(bert):
    _, prepared, _ = build(bert, job("lora-ga"))
    assert all(p.grad is None for p in prepared.model.parameters())


def test_kasa_truncates_the_base_and_penalises_as_the_paper(bert):
    made = job("kasa", options={"beta": 0.5, "gamma": 0.25})
    base, prepared, parts = build(bert, made)
    u, s, v = torch.linalg.svd(weight(base, WIDE))
    torch.testing.assert_close(
        rest(prepared, WIDE), u[:, :62] * s[:62] @ v[:62], rtol=1e-4, atol=1e-5
    )
    train(prepared, 2)
    expected = torch.zeros(())
    for name in parts.encoder_linears:
        a, b = factors(prepared, name)
        e = layer_of(prepared, name).lora_diag["default"].detach()
        orthogonal = (b.T @ b - torch.eye(2)).norm() + (a @ a.T - torch.eye(2)).norm()
        expected += 0.5 * e.square().sum() + 0.25 * orthogonal
    penalty = prepared.extra_loss()
    assert penalty is not None
    torch.testing.assert_close(penalty.detach(), expected)
    layer = layer_of(prepared)
    a, b = factors(prepared)
    e = layer.lora_diag["default"].detach()
    x = torch.randn(5, 64)
    changed = rest(prepared) + SCALE * (b * e) @ a
    torch.testing.assert_close(
        layer(x),
        nn.functional.linear(x, changed, base.get_submodule(QUERY).bias),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("key", "rank", "needed"),
    [("pissa", 65, 65), ("corda", 65, 65), ("lora-ga", 33, 66), ("kasa", 64, 65), ("eva", 65, 65)],
)
def test_more_triplets_than_a_weight_has_are_unsupported(bert, key, rank, needed):
    with pytest.raises(Unsupported, match=f"needs {needed} singular triplets of bert.* has 64"):
        build(bert, job(key, rank=rank))
