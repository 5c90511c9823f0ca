"""The layered hybrid: which layer gets what, in one model, and AdaLoRA in the middle."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.adalora.layer import AdaLoraLayer
from safetensors.torch import load_file

import citizen
import tiny
from citizen import LABELS, build, inputs, logits, train
from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.methods import METHODS
from peftmark.lab import recipe
from peftmark.lab.data.batches import Batch
from peftmark.lab.memory.meta_model import Counter, config_of
from peftmark.lab.methods import trainable
from peftmark.lab.methods.adalora import orthogonality
from peftmark.lab.methods.hybrid import bands
from peftmark.lab.models import Block, Unsupported
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.sources.assets import Places
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite

OPTIONS = {"low": 2, "middle": 4, "high": 6}
LAST = 6
"""Step of the last allocation of `tiny.SCHEDULE` in ten steps."""


@pytest.fixture(scope="module", autouse=True)
def three_layers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny.SMALL, "num_hidden_layers", 3)
        distilbert = tiny.CONFIGS["distilbert"]()
        distilbert.n_layers = 3
        patch.setitem(tiny.CONFIGS, "distilbert", lambda: distilbert)
        yield


def job(quantization="none", **changes):
    return citizen.job("hybrid", quantization, options=OPTIONS, **changes)


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [(12, [5, 4, 3]), (24, [10, 8, 6]), (6, [2, 2, 2]), (4, [2, 1, 1]), (3, [1, 1, 1])],
)
def test_bands_are_the_recipes_at_any_depth(layers, sizes):
    blocks = [Block(str(i), *"qkvoab") for i in range(layers)]
    found = bands(blocks)
    assert list(found) == ["low", "middle", "high"]
    assert [len(band) for band in found.values()] == sizes
    assert [block for band in found.values() for block in band] == blocks


def test_every_trained_tensor_but_the_heads_is_of_a_band(bert):
    _, prepared, parts = citizen.build(bert, job())
    found = {name: prepared.part_of(name) for name, _ in trainable(prepared.model)}
    assert set(found.values()) == {"low", "middle", "high", ""}
    bare = {name.removeprefix("model.") for name, part in found.items() if not part}
    assert all(name.startswith((*parts.head, parts.pooler)) for name in bare)


def test_two_layers_are_too_few(bert):
    with pytest.raises(Unsupported, match="three layers at least"):
        bands([Block(str(i), *"qkvoab") for i in range(2)])
    with pytest.raises(Unsupported, match="make it even"):
        build(bert, citizen.job("hybrid", options={**OPTIONS, "middle": 5}))


def test_each_band_has_its_method_its_modules_and_its_rank(bert):
    _, prepared, parts = build(bert, job())
    low, middle, high = parts.blocks
    fixed = {low.query: 2, low.value: 2}
    top = {high.query: 6, high.key: 6, high.value: 6, high.attention_output: 6}
    pruned = [middle.query, middle.key, middle.value]
    found = {
        name: module
        for name, module in prepared.model.model.named_modules()
        if hasattr(module, "lora_A")
    }
    assert set(found) == {*fixed, *pruned, *top}
    for name, module in found.items():
        assert isinstance(module, AdaLoraLayer) == (name in pruned)
        if name in pruned:
            assert module.lora_A["middle"].shape == (4, 64)
            assert module.scaling["middle"] == 8.0  # divided by the first rank when it runs
            assert float(module.ranknum["middle"]) == 4.0
        else:
            rank = (fixed | top)[name]
            (adapter,) = module.lora_A.values()
            assert adapter.weight.shape == (rank, 64)
            assert list(module.scaling.values()) == [8.0 / rank]
    train(prepared)
    ranks = prepared.ranks()
    assert list(ranks) == [*fixed, *pruned, *top]
    assert {name: ranks[name] for name in (*fixed, *top)} == fixed | top
    assert sum(ranks[name] for name in pruned) == 2 * 3
    assert prepared.fault() is None
    assert prepared.matched_rank is None


@pytest.mark.parametrize("quantization", ["none", "nf4", "fp4", "int8"])
def test_freezes_starts_at_identity_trains_and_saves(bert, tmp_path, quantization):
    prepared = citizen.check(bert, tmp_path, job(quantization))
    # Pruned ranks are not saved: six of twelve are left.
    tensors = load_file(tmp_path / "trained.safetensors")
    saved = sum(len(tensor) for name, tensor in tensors.items() if "lora_E" in name)
    assert saved == 2 * 3
    assert sum(t.numel() for t in tensors.values()) == prepared.active_parameters()
    assert (prepared.merge is None) == (quantization != "none")


@pytest.mark.parametrize("architecture", sorted(tiny.CONFIGS))
def test_sits_on_every_architecture(tmp_path, architecture):
    tiny.make_model(tmp_path / "model", architecture)
    (tmp_path / "saved").mkdir()
    citizen.check(tmp_path / "model", tmp_path / "saved", job())


def test_head_and_pooler_train_beside_the_bands(bert):
    base, prepared, _ = build(bert, job())
    train(prepared)
    names = {name.removeprefix("model.") for name, _ in trainable(prepared.model)}
    for name in ("classifier", "bert.pooler.dense"):
        assert {f"{name}.weight", f"{name}.bias"} <= names
        now = prepared.model.model.get_submodule(name).weight
        assert not torch.equal(now, base.get_submodule(name).weight)


def test_without_its_allocator_it_is_a_fault(bert):
    _, prepared, _ = build(bert, job())
    prepared.after_step = lambda step: None
    train(prepared)
    assert "active rank of 12, their budget is 6" in prepared.fault()


def test_the_penalty_is_of_the_middle_layers_alone(bert):
    _, prepared, _ = build(bert, job())
    norms = []
    for name, p in prepared.model.named_parameters():
        if name.endswith(("lora_A.middle", "lora_B.middle")):
            gram = p @ p.T if "lora_A" in name else p.T @ p
            norms.append((gram - torch.eye(4)).square().sum().sqrt())
    assert len(norms) == 6
    expected = tiny.SCHEDULE.orthogonal_weight * sum(norms) / 6
    torch.testing.assert_close(prepared.extra_loss(), expected)
    prepared.extra_loss().backward()
    touched = {n for n, p in prepared.model.named_parameters() if p.grad is not None}
    assert all("middle" in name for name in touched)
    assert len(touched) == 6


def test_trained_weights_are_fp32_and_divisors_constant_under_four_bit_bf16(bert):
    _, prepared, _ = build(bert, job("nf4", precision="bf16"))
    assert all(p.dtype == torch.float32 for _, p in trainable(prepared.model))
    divisors = [n for n, _ in prepared.model.named_parameters() if "ranknum" in n]
    assert len(divisors) == 3
    assert not {n for n, _ in trainable(prepared.model)} & set(divisors)


def test_merged_is_the_trained_model(bert, tmp_path):
    _, prepared, _ = build(bert, job())
    train(prepared)
    prepared.save(tmp_path)
    fresh, _ = citizen.base_of(bert, job())
    merged, into = prepared.merge(prepared.load(fresh, tmp_path))
    torch.testing.assert_close(logits(merged), logits(prepared.model), rtol=1e-4, atol=2e-5)
    assert into == "fp32 weights"
    assert not [n for n, _ in merged.named_parameters() if "lora_" in n]


def step(prepared, optimizer, number):
    task_loss = citizen.loss(prepared.model, Batch(inputs(), LABELS, 54))
    (task_loss + prepared.extra_loss()).backward()
    optimizer.step()
    prepared.after_step(number)


@pytest.mark.parametrize("method", ["hybrid", "adalora"])
def test_importance_is_the_mean_of_the_scores_the_allocator_ranks_by(bert, method):
    made = job() if method == "hybrid" else citizen.job("adalora")
    _, prepared, _ = build(bert, made)
    assert prepared.importance() == {}
    adapter = "middle" if method == "hybrid" else "default"
    tuner = prepared.model if method == "hybrid" else prepared.model.base_model
    modules = {n: m for n, m in tuner.model.named_modules() if isinstance(m, AdaLoraLayer)}
    parts = {"lora_E": (1, 1), "lora_A": (1,), "lora_B": (0,)}
    smooth = {n: dict.fromkeys(parts, 0.0) for n in modules}
    unsure = {n: dict.fromkeys(parts, 0.0) for n in modules}
    optimizer = torch.optim.AdamW([p for _, p in trainable(prepared.model)], lr=5e-3)
    history = []
    for number in range(1, 11):
        task_loss = citizen.loss(prepared.model, Batch(inputs(), LABELS, 54))
        (task_loss + prepared.extra_loss()).backward()
        optimizer.step()
        if number < LAST:
            for name, module in modules.items():
                for part in parts:  # equations 8 to 10
                    p = getattr(module, part)[adapter]
                    now = (p * p.grad).abs().detach()
                    smooth[name][part] = 0.85 * smooth[name][part] + 0.15 * now
                    gap = (now - smooth[name][part]).abs()
                    unsure[name][part] = 0.85 * unsure[name][part] + 0.15 * gap
        prepared.after_step(number)
        optimizer.zero_grad()
        if number != LAST - 1:  # no evaluation there: the last scores are kept all the same
            history.append(prepared.importance())
        if number == 3:
            expected = means(smooth, unsure)
            assert history[-1] == pytest.approx(expected, rel=1e-4)
            assert len(set(expected.values())) == len(modules)
    assert history[-1] == pytest.approx(means(smooth, unsure), rel=1e-4)
    assert history[-1] == history[-2] != history[2]
    assert set(history[-1]) <= set(prepared.ranks())


def means(smooth, unsure):
    """Equation 7 with 11: a triplet's own score and the mean of its vectors', then the mean."""
    found = {}
    for name in smooth:
        score = {part: smooth[name][part] * unsure[name][part] for part in smooth[name]}
        triplets = score["lora_E"][:, 0] + score["lora_A"].mean(1) + score["lora_B"].mean(0)
        found[name] = float(triplets.mean())
    return found


def test_the_allocator_prunes_by_the_same_scores(bert):
    _, prepared, _ = build(bert, job())
    optimizer = torch.optim.AdamW([p for _, p in trainable(prepared.model)], lr=5e-3)
    for number in range(1, LAST):
        step(prepared, optimizer, number)
        optimizer.zero_grad()
    allocator = prepared.model.rankallocator
    scores = {}
    for name in prepared.importance():
        e, a, b = (allocator._element_score(f"{name}.lora_{p}.middle") for p in "EAB")
        for i in range(4):
            scores[name, i] = float(e[i, 0] + a[i].mean() + b[:, i].mean())
    step(prepared, optimizer, LAST)
    kept = sorted(scores, key=scores.get)[-6:]
    for name in prepared.importance():
        e = prepared.model.model.get_submodule(name).lora_E["middle"][:, 0]
        assert {i for i in range(4) if e[i] != 0} == {i for n, i in kept if n == name}


def test_orthogonality_of_another_adapter_is_not_counted(bert):
    _, prepared, _ = build(bert, job())
    with pytest.raises(RuntimeError):  # nothing to take the mean of
        orthogonality(prepared.model, "low")


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_whole_job(tmp_path, monkeypatch, quantization):
    tiny.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    made = tiny.job(
        "hybrid",
        quantization,
        steps=40,
        eval_every=10,
        precision="bf16",
        options=OPTIONS,
        gradient_checkpointing=True,
        adalora=AdaLoraSchedule(4, 4, 15, 1, 0.85, 0.85, 0.1),
    )
    done = recipe.run(made, places, lambda message: None)
    assert (done.status, done.warnings) == ("ok", ())
    assert done.reload_max_error < 1e-5
    assert done.metric_value > done.baseline_value
    assert done.saved_parameters == done.active_parameters < done.trainable_parameters
    assert (done.merge_max_error is None) == (quantization == "nf4")
    assert {h[-1] for h in done.importance_history.values()} != {None}


# --- the article's own schemes -------------------------------------------------------------------

ARTICLE = {
    "low 4/8/8": (4, 8, 8),
    "mid 8/16/16": (8, 16, 16),
    "high 16/32/32": (16, 32, 32),
    "rising 4/16/64": (4, 16, 64),
    "falling 64/16/4": (64, 16, 4),
    "mixed 8/24/48": (8, 24, 48),
}


@pytest.fixture(scope="module")
def schemes():
    """Variant -> its job in the article's profile."""
    return {
        job.variant: job
        for job in expand(load_suite("rank-schemes", None), "full", "cuda").jobs
        if job.method == "hybrid" and job.seed == 0
    }


@pytest.mark.parametrize("variant", ARTICLE)
def test_a_scheme_is_the_articles(schemes, variant):
    """BERT-base: width 768, feed-forward 3072; 5, 4 and 3 layers."""
    low, middle, high = ARTICLE[variant]
    job = schemes[variant]
    counted = Counter(job, config_of(OF_MODELS["bert-base-uncased"], 2))
    tensors, _ = counted.tensors(None)

    def of(band):
        return sum(n for name, n in tensors.items() if f".{band}" in name)

    square, outputs = 2 * 768, 3072 + 768
    assert of("low") == 5 * 2 * square * low
    # AdaLoRA's vectors, values and its divisor's place, at the first rank.
    assert of("middle") == 4 * 3 * (square + 1) * middle
    assert of("high") == 3 * (4 * square + outputs) * high
    names = {name.split(".lora_")[0] for name in tensors if ".lora_" in name}
    top = {name.split("layer.")[1] for name in names if "layer.11." in name}
    assert top == {
        "11.attention.self.query",
        "11.attention.self.key",
        "11.attention.self.value",
        "11.attention.output.dense",
        "11.output.dense",
    }
    assert not any("pooler" in name for name in tensors), "it is frozen"


def test_alphas_dropouts_and_last_rank_are_the_articles(bert):
    options = {
        **OPTIONS,
        "middle_target": 3,
        "middle_alpha": 2.0,
        "middle_dropout": 0.0,
        "high_alpha": 32.0,
        "high_targets": "query-key-value-outputs",
        "low_targets": "query-key-value",
    }
    _, prepared, parts = build(bert, citizen.job("hybrid", options=options, dropout=0.1))
    low, middle, high = parts.blocks
    model = prepared.model.model
    assert model.get_submodule(low.key).scaling["low"] == 8.0 / 2
    assert model.get_submodule(middle.query).scaling["middle"] == 2.0
    assert model.get_submodule(high.ffn_out).scaling["high"] == 32.0 / 6
    dropouts = {
        band: model.get_submodule(name).lora_dropout[band]
        for band, name in (("low", low.query), ("middle", middle.query), ("high", high.query))
    }
    assert [getattr(one, "p", 0.0) for one in dropouts.values()] == [0.1, 0.0, 0.1]
    train(prepared)
    ranks = prepared.ranks()
    assert sum(ranks[name] for name in (middle.query, middle.key, middle.value)) == 9
    assert prepared.fault() is None


def test_a_scheme_that_ends_where_it_begins_loses_no_rank(bert):
    options = {**OPTIONS, "middle_target": 4}
    _, prepared, parts = build(bert, citizen.job("hybrid", options=options))
    train(prepared)
    assert all(prepared.ranks()[n] == 4 for n in (parts.blocks[1].query, parts.blocks[1].value))
    assert prepared.fault() is None


def test_options_that_cannot_be_are_refused(bert):
    for changed, message in (
        ({"middle_target": 5}, "middle_target is 5 and middle 4"),
        ({"low_layers": 8, "high_layers": 4}, "leave none of twelve layers"),
        ({"middle": 5}, "make it even or give middle_target"),
    ):
        with pytest.raises(Unsupported, match=message):
            build(bert, citizen.job("hybrid", options={**OPTIONS, **changed}))
    blocks = [Block(str(i), *"qkvoab") for i in range(12)]
    assert [len(b) for b in bands(blocks, 2, 4).values()] == [2, 6, 4]
    assert [len(b) for b in bands(blocks[:3], 10, 1).values()] == [1, 1, 1]


def test_options_that_came_later_are_not_stored_as_before():
    known = METHODS["hybrid"]
    stored = known.resolved_options({"low": 4})
    assert stored == {"low": 4, "middle": 16, "high": 32}
    assert known.option(stored, "middle_target") == 0
    assert known.option(stored, "high_targets") == "query-key-value-output"
    given = known.resolved_options({"middle_target": 8, "low_alpha": 0})
    assert given["middle_target"] == 8 and "low_alpha" not in given
