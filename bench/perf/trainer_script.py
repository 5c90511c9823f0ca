"""A LoRA job with transformers' Trainer, as a script that a user would run.

    python -m bench.perf.trainer_script '{"model": ..., "train": ..., ...}'

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
    from datasets import Dataset
    from peft import LoraConfig, TaskType, get_peft_model
    from scipy.stats import pearsonr
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    if ask["threads"]:
        torch.set_num_threads(ask["threads"])
    set_seed(ask["seed"])
    tuned = ask["kind"] == "tuned"
    tokenizer: Any = AutoTokenizer.from_pretrained(ask["model"])

    def read(path: str) -> Any:
        with open(path, encoding="utf-8") as lines:
            rows = Dataset.from_list([json.loads(line) for line in lines])

        def encode(batch: Any) -> Any:
            return tokenizer(
                batch["text"],
                batch.get("pair"),
                truncation=True,
                max_length=ask["max_length"],
                padding=False if tuned else "max_length",
                return_length=tuned,  # the column that grouping looks for
            )

        return rows.map(encode, batched=True).rename_column("label", "labels")

    rows, held_out = read(ask["train"]), read(ask["eval"])
    model: Any = AutoModelForSequenceClassification.from_pretrained(ask["model"], num_labels=1)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=ask["rank"],
        lora_alpha=ask["alpha"],
        lora_dropout=0.0,
        target_modules=r".*\.encoder\..*(query|key|value|dense)",
        modules_to_save=["classifier", "pooler"],
    )
    model = get_peft_model(model, config)
    marks: list[tuple[int, float]] = []
    curve: list[float] = []

    class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Notes when evaluations end, and stops where asked."""

        def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            marks.append((state.global_step, time.perf_counter()))
            curve.append(rest["metrics"]["eval_pearson"])

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            if ask["stop_after"] and state.global_step >= ask["stop_after"]:
                control.should_training_stop = True
            return control

    def score(found: Any) -> dict[str, float]:
        return {"pearson": float(pearsonr(found.predictions.squeeze(), found.label_ids)[0])}

    settings: dict[str, Any] = {
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
        settings |= {
            "use_cpu": True,
            "bf16": True,
            "train_sampling_strategy": "group_by_length",
            "per_device_eval_batch_size": 64,
            "save_strategy": "no",
            "disable_tqdm": True,
        }
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch:
        trainer: Any = Trainer(
            model=model,
            args=TrainingArguments(output_dir=scratch, **settings),
            train_dataset=rows,
            eval_dataset=held_out,
            data_collator=DataCollatorWithPadding(tokenizer) if tuned else None,
            processing_class=tokenizer,
            compute_metrics=score,
            callbacks=[Watch()],
        )
        trainer.train()
    return {"marks": marks, "curve": curve, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    print(json.dumps(train(json.loads(sys.argv[1]))))
