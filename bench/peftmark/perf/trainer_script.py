"""A LoRA job with transformers' Trainer, as a script that a user would run.

    python -m peftmark.perf.trainer_script '{"model": ..., "train": ..., ...}'

Two kinds: `example` pads every row to the longest allowed and leaves all settings at their
defaults, as transformers' own GLUE example does; `tuned` pads a batch to its longest row, groups
rows by length and computes in bf16. Nothing of peftmark is used. The last line printed is JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any


def train(ask: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate.

    Args:
        ask: model (folder), train and eval (JSON lines: text, pair, label), kind, seed, threads
            (None: as torch decides), stop_after (None: at the end), and the recipe: steps,
            eval_every, batch_size, learning_rate, warmup_steps, weight_decay, max_grad_norm,
            max_length, rank, alpha.
    """
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    if ask["threads"]:
        torch.set_num_threads(ask["threads"])
    set_seed(ask["seed"])
    tuned = ask["kind"] == "tuned"
    tokenizer: Any = AutoTokenizer.from_pretrained(ask["model"])
    rows = read(ask["train"], tokenizer, ask["max_length"], tuned)
    held_out = read(ask["eval"], tokenizer, ask["max_length"], tuned)
    model: Any = AutoModelForSequenceClassification.from_pretrained(ask["model"], num_labels=1)
    model = with_lora(model, ask)
    marks: list[tuple[int, float]] = []
    curve: list[float] = []
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch:
        trainer: Any = Trainer(
            model=model,
            args=TrainingArguments(output_dir=scratch, **settings(ask, tuned)),
            train_dataset=rows,
            eval_dataset=held_out,
            data_collator=DataCollatorWithPadding(tokenizer) if tuned else None,
            processing_class=tokenizer,
            compute_metrics=score,
            callbacks=[watch(marks, curve, ask["stop_after"])],
        )
        trainer.train()
    return {"marks": marks, "curve": curve, "threads": torch.get_num_threads()}


def read(path: str, tokenizer: Any, max_length: int, tuned: bool) -> Any:
    """The rows of a file, as tokens."""
    from datasets import Dataset

    with open(path, encoding="utf-8") as lines:
        rows = Dataset.from_list([json.loads(line) for line in lines])

    def encode(batch: Any) -> Any:
        return tokenizer(
            batch["text"],
            batch.get("pair"),
            truncation=True,
            max_length=max_length,
            padding=False if tuned else "max_length",
            return_length=tuned,  # the column that grouping looks for
        )

    return rows.map(encode, batched=True).rename_column("label", "labels")


def with_lora(model: Any, ask: dict[str, Any]) -> Any:
    """LoRA on every linear layer of the encoder; classifier and pooler train beside it."""
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=ask["rank"],
        lora_alpha=ask["alpha"],
        lora_dropout=0.0,
        target_modules=r".*\.encoder\..*(query|key|value|dense)",
        modules_to_save=["classifier", "pooler"],
    )
    return get_peft_model(model, config)


def settings(ask: dict[str, Any], tuned: bool) -> dict[str, Any]:
    """What the Trainer is told beyond its defaults."""
    told: dict[str, Any] = {
        "max_steps": ask["steps"],
        "per_device_train_batch_size": ask["batch_size"],
        "learning_rate": ask["learning_rate"],
        "warmup_steps": ask["warmup_steps"],
        "weight_decay": ask["weight_decay"],
        "max_grad_norm": ask["max_grad_norm"],
        "eval_strategy": "steps",
        "eval_steps": ask["eval_every"],
        "label_names": ["labels"],
        "seed": ask["seed"],
    }
    if tuned:
        told |= {
            "use_cpu": True,
            "bf16": True,
            "train_sampling_strategy": "group_by_length",
            "per_device_eval_batch_size": 64,
            "save_strategy": "no",
            "disable_tqdm": True,
        }
    return told


def score(found: Any) -> dict[str, float]:
    """Pearson's r of an evaluation."""
    from scipy.stats import pearsonr

    return {"pearson": float(pearsonr(found.predictions.squeeze(), found.label_ids)[0])}


def watch(marks: list[tuple[int, float]], curve: list[float], stop_after: int | None) -> Any:
    """A callback that notes when evaluations end and what they gave, and stops where asked."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            marks.append((state.global_step, time.perf_counter()))
            curve.append(rest["metrics"]["eval_pearson"])

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            if stop_after and state.global_step >= stop_after:
                control.should_training_stop = True
            return control

    return Watch()


if __name__ == "__main__":
    print(json.dumps(train(json.loads(sys.argv[1]))))
