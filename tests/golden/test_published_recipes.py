"""The suites that carry published recipes say what was published, and their models count right."""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    MPNetConfig,
    RobertaConfig,
)

from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.lab.models import adapter_targets, anatomy_of
from peftmark.record.job import Job
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import SUITES

PROFILES = (
    ("glue-lora-paper", "base"),
    ("glue-lora-paper", "large"),
    ("glue-adalora-paper", "base"),
    ("glue-large", "full"),
)

# The published configurations of the models, so that nothing is fetched.
ROBERTA = {
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
CONFIGS = {
    "minilm-l6": BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
    "mpnet-base": MPNetConfig(vocab_size=30_527, max_position_embeddings=514),
    "bert-base-uncased": BertConfig(),
    "roberta-base": RobertaConfig(**ROBERTA),
    "roberta-large": RobertaConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        **ROBERTA,
    ),
    "deberta-v3-base": DebertaV2Config(
        vocab_size=128100, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3072, max_position_embeddings=512, type_vocab_size=0,
        relative_attention=True, max_relative_positions=-1, position_buckets=256,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
        position_biased_input=False, pooler_hidden_size=768,
    ),
}  # fmt: skip

TASK_NAMES = ("mnli", "sst-2", "mrpc", "cola", "qnli", "qqp", "rte", "sts-b")


def by_task(*values: Any) -> dict[str, Any]:
    return dict(zip(TASK_NAMES, values, strict=True))


# arXiv 2106.09685, table 9: rows a GPU, epochs, rate; and table 2: the median of five seeds.
LORA_BASE = {
    "rows": by_task(16, 16, 16, 32, 32, 16, 32, 16),
    "epochs": by_task(30, 60, 30, 80, 25, 25, 80, 40),
    "rate": by_task(5e-4, 5e-4, 4e-4, 4e-4, 4e-4, 5e-4, 5e-4, 4e-4),
    # MRPC, RTE and STS-B started from an MNLI adapter: not ours to reach.
    "target": by_task(0.875, 0.951, None, 0.634, 0.933, 0.908, None, None),
    # The scripts' GPUs.
    "gpus": by_task(8, 8, 8, 2, 8, 8, 8, 8),
}
LORA_LARGE = {
    "rows": by_task(4, 4, 4, 4, 4, 4, 4, 4),
    "epochs": by_task(10, 10, 20, 20, 10, 20, 20, 10),
    "rate": by_task(3e-4, 4e-4, 3e-4, 2e-4, 2e-4, 3e-4, 4e-4, 2e-4),
    "target": by_task(0.906, 0.962, 0.902, 0.682, 0.948, 0.916, 0.852, 0.923),
    "gpus": by_task(8, 8, 8, 8, 8, 8, 8, 8),
}
# arXiv 2303.10512, table 8: rate, epochs, penalty, t_i, delta_T, t_f; and of the authors' scripts:
# alpha, warm-up steps (MRPC: a tenth of 3,450), head dropout, decay, length.
ADALORA = by_task(
    (5e-4, 7, 0.1, 8000, 100, 50000, 16, 1000, 0.15, 0.0, 256),
    (8e-4, 24, 0.1, 6000, 100, 22000, 16, 1000, 0.0, 0.01, 128),
    (1e-3, 30, 0.1, 600, 1, 1800, 32, 345, 0.0, 0.01, 320),
    (5e-4, 25, 0.5, 800, 10, 3500, 32, 100, 0.1, 0.0, 64),
    (1.2e-3, 5, 0.1, 2000, 100, 8000, 32, 500, 0.1, 0.01, 512),
    (5e-4, 5, 0.1, 8000, 100, 25000, 16, 2000, 0.15, 0.01, 320),
    (1.2e-3, 50, 0.3, 600, 1, 1800, 32, 200, 0.2, 0.01, 320),
    (2.2e-3, 25, 0.1, 800, 10, 2000, 32, 100, 0.2, 0.1, 128),
)
# The same paper, table 1, the LoRA row of rank 8.
ADALORA_TARGETS = by_task(0.9065, 0.9495, 0.8995, 0.6982, 0.9387, 0.9199, 0.852, 0.916)
# fairseq's recipes for RoBERTa-large: rate, rows a step.
FULL_LARGE = by_task(
    (1e-5, 32), (1e-5, 32), (1e-5, 16), (1e-5, 16), (1e-5, 32), (1e-5, 32), (2e-5, 16), (2e-5, 16)
)


@cache
def jobs(suite: str, profile: str) -> tuple[Job, ...]:
    """The reported jobs of one seed."""
    loaded = load_suite(suite, SUITES)
    expanded = expand(loaded, profile, "cuda")
    first = loaded.profiles[profile].seeds[0]
    return tuple(j for j in expanded.jobs if j.purpose == "report" and j.seed == first)


def cell(
    suite: str, profile: str, method: str, rank: int | None = None, quantization: str = "none"
) -> dict[str, Job]:
    """Task -> its job of one cell."""
    wanted = (method, rank, quantization)
    return {j.task: j for j in jobs(suite, profile) if (j.method, j.size, j.quantization) == wanted}


def on_meta(key: str, make: Any = AutoModelForSequenceClassification) -> Any:
    with torch.device("meta"):
        return make.from_config(CONFIGS[key])


def adapter_parameters(job: Job, rank: int, targets: str | None = None) -> int:
    """LoRA parameters without the head, counted on the model PEFT makes of the job's targets."""
    model = on_meta(job.model)
    names = targets or adapter_targets(job, anatomy_of(model))
    adapted = get_peft_model(
        model, LoraConfig(r=rank, target_modules=names), low_cpu_mem_usage=True
    )
    return sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)


# --- models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [m.key for m in MODELS.values() if not m.causal])
def test_encoders_have_the_parameters_the_catalog_says(key: str) -> None:
    counted = sum(p.numel() for p in on_meta(key, AutoModel).parameters())
    assert counted == MODELS[key].parameters


@pytest.mark.parametrize(
    ("suite", "profile", "rank", "published"),
    [
        ("glue-lora-paper", "base", 8, 294_912),
        ("glue-lora-paper", "large", 8, 786_432),
        ("glue-adalora-paper", "base", 2, 331_776),
        ("glue-adalora-paper", "base", 8, 1_327_104),
        ("glue-large", "full", 4, 393_216),
    ],
)
def test_the_targets_give_the_published_parameter_counts(
    suite: str, profile: str, rank: int, published: int
) -> None:
    job = cell(suite, profile, "lora", rank)["rte"]
    assert adapter_parameters(job, rank) == published


def test_no_other_simple_choice_is_nearer_to_a_tenth_of_a_percent() -> None:
    job = cell("glue-large", "full", "lora", 4)["rte"]
    total = MODELS["roberta-large"].parameters
    chosen = adapter_parameters(job, 4) / total
    assert chosen == pytest.approx(0.0011065, abs=1e-7)
    others = [adapter_parameters(job, rank) for rank in (3, 5)]
    others.append(adapter_parameters(job, 1, "all-linear"))
    assert all(abs(other / total - 0.001) > abs(chosen - 0.001) for other in others)


# --- what every one of these suites has in common ----------------------------------------------


@pytest.mark.parametrize(("suite", "profile"), PROFILES)
def test_they_are_for_a_gpu_with_five_seeds_on_all_eight_tasks(suite: str, profile: str) -> None:
    loaded = load_suite(suite, SUITES).profiles[profile]
    assert loaded.needs == "gpu"
    assert loaded.sources == ["mirror", "hub"]
    assert len(loaded.seeds) == 5
    assert sorted(loaded.tasks) == sorted(TASK_NAMES)


@pytest.mark.parametrize(("suite", "profile"), PROFILES)
def test_the_header_states_what_the_suite_costs(suite: str, profile: str) -> None:
    lines = (SUITES / f"{suite}.yaml").read_text(encoding="utf-8").splitlines()
    header = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert "Never run here" in header
    seeds = len(load_suite(suite, SUITES).profiles[profile].seeds)
    each = jobs(suite, profile)
    assert f"{seeds * sum(job.recipe.steps for job in each):,}" in header
    assert f"{seeds * len(each)} jobs" in header
    for one in {job.cell for job in each}:
        assert f"{sum(j.recipe.steps for j in each if j.cell == one):,}" in header


@pytest.mark.parametrize(("suite", "profile"), PROFILES)
def test_every_adalora_schedule_prunes_within_its_steps(suite: str, profile: str) -> None:
    for job in jobs(suite, profile):
        schedule = job.recipe.adalora
        if schedule is None:
            continue
        assert job.size is not None
        assert schedule.init_rank > job.size
        assert schedule.tinit + schedule.tfinal + schedule.delta_t <= job.recipe.steps
        # PEFT refuses what it could not run.
        AdaLoraConfig(
            init_r=schedule.init_rank,
            target_r=job.size,
            tinit=schedule.tinit,
            tfinal=schedule.tfinal,
            deltaT=schedule.delta_t,
            total_step=job.recipe.steps,
        )


# --- the LoRA paper --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "model", "length", "published"),
    [
        ("base", "roberta-base", 512, LORA_BASE),
        ("large", "roberta-large", 128, LORA_LARGE),
    ],
)
def test_lora_is_as_its_paper_and_scripts_have_it(
    profile: str, model: str, length: int, published: dict[str, dict[str, Any]]
) -> None:
    found = cell("glue-lora-paper", profile, "lora", 8)
    assert sorted(found) == sorted(TASK_NAMES)
    for task, job in found.items():
        recipe = job.recipe
        batch = published["rows"][task] * published["gpus"][task]
        epoch = ceil(TASKS[task].train_rows / batch)
        assert job.model == model
        assert job.target == published["target"][task]
        assert recipe.batch_size == batch
        assert recipe.learning_rate == published["rate"][task]
        assert recipe.steps == epoch * published["epochs"][task]
        assert recipe.eval_every == epoch, "the paper takes the best epoch"
        assert recipe.warmup_steps == round(0.06 * recipe.steps)
        assert (recipe.targets, recipe.alpha, recipe.dropout) == ("query-value", 16, 0.0)
        assert (recipe.schedule, recipe.weight_decay, recipe.max_length) == ("linear", 0.1, length)
        assert (recipe.precision, recipe.selection_rows, recipe.window_batches) == ("fp32", 0, 1)


def test_full_fine_tuning_is_as_robertas_authors_had_it() -> None:
    base = [job.recipe for job in cell("glue-lora-paper", "base", "full").values()]
    assert {(r.learning_rate, r.batch_size, r.weight_decay) for r in base} == {(2e-5, 16, 0.1)}
    for suite, profile in (("glue-lora-paper", "large"), ("glue-large", "full")):
        for task, job in cell(suite, profile, "full").items():
            recipe = job.recipe
            assert (recipe.learning_rate, recipe.batch_size) == FULL_LARGE[task]
            rows = TASKS[task].train_rows - recipe.selection_rows
            assert recipe.steps == 10 * ceil(rows / recipe.batch_size)
            share = 0.25 if task == "qqp" else 0.06
            assert recipe.warmup_steps == round(share * recipe.steps)


# --- the AdaLoRA paper -----------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "init_rank"), [(2, 4), (8, 12)])
def test_adalora_is_as_its_paper_and_scripts_have_it(rank: int, init_rank: int) -> None:
    found = cell("glue-adalora-paper", "base", "adalora", rank)
    assert sorted(found) == sorted(TASK_NAMES)
    for task, job in found.items():
        recipe, schedule = job.recipe, job.recipe.adalora
        assert schedule is not None
        steps_an_epoch = ceil(TASKS[task].train_rows / 32)
        assert (
            recipe.learning_rate,
            recipe.steps / steps_an_epoch,
            schedule.orthogonal_weight,
            schedule.tinit,
            schedule.delta_t,
            schedule.tfinal,
            recipe.alpha,
            recipe.warmup_steps,
            recipe.head_dropout,
            recipe.weight_decay,
            recipe.max_length,
        ) == ADALORA[task]
        assert (schedule.init_rank, schedule.beta1, schedule.beta2) == (init_rank, 0.85, 0.85)
        assert (job.model, recipe.batch_size, recipe.targets) == (
            "deberta-v3-base",
            32,
            "all-linear",
        )
        assert job.target == ADALORA_TARGETS[task]
        assert (recipe.precision, recipe.selection_rows, recipe.window_batches) == ("fp32", 0, 1)


def test_lora_beside_adalora_differs_in_rate_and_scale_alone() -> None:
    for rank in (2, 8):
        lora = cell("glue-adalora-paper", "base", "lora", rank)
        for task, job in cell("glue-adalora-paper", "base", "adalora", rank).items():
            theirs, ours = vars(job.recipe), vars(lora[task].recipe)
            assert {k for k in ours if ours[k] != theirs[k]} <= {
                "learning_rate",
                "alpha",
                "adalora",
            }
            assert (ours["learning_rate"], ours["alpha"] / rank) == (5e-4, 2)


# --- RoBERTa-large at 0.1 % ------------------------------------------------------------------


def test_cells_at_a_tenth_of_a_percent_have_one_budget_and_one_length() -> None:
    kinds = [(m, q) for m in ("lora", "adalora") for q in ("none", "nf4")]
    found = {kind: cell("glue-large", "full", kind[0], 4, kind[1]) for kind in kinds}
    assert {job.cell[:3] for job in jobs("glue-large", "full")} == {
        ("full", None, "none"),
        ("head", None, "none"),
        *((method, 4, quantization) for method, quantization in kinds),
    }
    for task in TASK_NAMES:
        recipes = {kind: found[kind][task].recipe for kind in kinds}
        for name in ("steps", "batch_size", "targets", "max_length", "precision", "eval_every"):
            assert len({getattr(r, name) for r in recipes.values()}) == 1, name
        for (method, quantization), recipe in recipes.items():
            paged = quantization == "nf4"
            assert recipe.optimizer == ("paged_adamw_8bit" if paged else "adamw")
            assert recipe.double_quantization is (True if paged else None)
            assert (recipe.precision, recipe.targets) == ("bf16", "query-value")
            assert recipe.selection_rows > 0
            assert recipe.adalora is None or recipe.adalora.init_rank == 6
            if method == "lora":
                assert recipe.learning_rate == LORA_LARGE["rate"][task]
