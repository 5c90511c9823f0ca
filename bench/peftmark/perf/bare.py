"""A training loop as one writes it with PyTorch and PEFT alone: what our step is held against.

It trains the same model from the same seeds with the recipe of a job, and nothing else: no meters,
no checks, no curve. On a CPU it must give the losses that our step gives, bit for bit; on a GPU it
asks torch for operations that repeat themselves where our step does, so that both may.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.record.job import Job
from peftmark.record.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch.optim.lr_scheduler import LambdaLR

    from peftmark.lab.data.batches import Batch


def loop(
    job: Job, folder: Path, classes: int, targets: list[str], head: list[str]
) -> Callable[[list[Batch]], list[torch.Tensor]]:
    """A function that trains on further batches and gives their losses.

    Args:
        job: LoRA or AdaLoRA, on a plain or a 4-bit base.
        folder: files of the model.
        classes: 0 for regression.
        targets, head: names of the adapted modules, and of those that train beside them.
    """
    import torch
    from torch import nn

    from peftmark.lab.determinism import strictly
    from peftmark.lab.rng import seed_all

    recipe, device = job.recipe, torch.device(job.device)
    seed_all(job.seed, "head")
    base = _base(job, folder, classes, head)
    seed_all(job.seed, "adapter")
    model = _adapted(base, job, targets, head)
    model.to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, schedule = _optimizer(trained, recipe)
    adaptive = job.method == "adalora"
    weight = recipe.adalora.orthogonal_weight if recipe.adalora else 0.0
    criterion = nn.CrossEntropyLoss() if classes else nn.MSELoss()
    half = recipe.precision == "bf16"
    number = 0
    model.train()

    def train(batches: list[Batch]) -> list[torch.Tensor]:
        nonlocal number
        losses = []
        for batch in (one.to(device) for one in batches):
            number += 1
            with torch.autocast(job.device, torch.bfloat16, enabled=half):
                logits = model(**batch.inputs).logits
            logits = logits.float()
            loss = criterion(logits if classes else logits.squeeze(-1), batch.labels)
            total = loss + weight * _penalty(model) if adaptive else loss
            with strictly():
                total.backward()
            nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
            optimizer.step()
            if adaptive:
                model.base_model.update_and_allocate(number)
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        return losses

    return train


def _penalty(model: Any) -> torch.Tensor:
    """How far AdaLoRA's factors are from orthogonal, mean over all of them."""
    import torch

    norms = []
    for name, p in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = p @ p.T if "lora_A" in name else p.T @ p
            norms.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=p.device)))
    return torch.stack(norms).mean()


def _optimizer(trained: list[Any], recipe: Recipe) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW, whose decay leaves out biases and norms, and a linear schedule with warm-up."""
    import torch

    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    warm, steps = recipe.warmup_steps, recipe.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: (s + 1) / warm if s < warm else (steps - s) / (steps - warm)
    )
    return optimizer, schedule


def _base(job: Job, folder: Path, classes: int, head: list[str]) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    options: dict[str, Any] = {}
    if job.quantization == "nf4":
        make: Any = BitsAndBytesConfig
        options["quantization_config"] = make(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=(
                torch.bfloat16 if job.recipe.precision == "bf16" else torch.float32
            ),
            llm_int8_skip_modules=[*head, *(f"{name}.dense" for name in head)],
        )
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=classes or 1, dtype=torch.float32, device_map={"": job.device}, **options
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # or weights are repacked and can't train
    return model


def _adapted(base: Any, job: Job, targets: list[str], head: list[str]) -> Any:
    from peft import AdaLoraConfig, LoraConfig, get_peft_model

    recipe, plan = job.recipe, job.recipe.adalora
    assert job.size is not None
    options: dict[str, Any] = {
        "target_modules": targets,
        "modules_to_save": head,
        "lora_alpha": recipe.alpha,
        "lora_dropout": recipe.dropout,
    }
    if plan is None:
        return get_peft_model(base, LoraConfig(r=job.size, **options))
    assert plan.init_rank is not None
    config = AdaLoraConfig(
        init_r=plan.init_rank,
        target_r=job.size,
        tinit=plan.tinit,
        tfinal=plan.tfinal,
        deltaT=plan.delta_t,
        beta1=plan.beta1,
        beta2=plan.beta2,
        orth_reg_weight=plan.orthogonal_weight,
        total_step=recipe.steps,
        **options,
    )
    return get_peft_model(base, config)
